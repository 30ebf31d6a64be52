// The shell: where one is, who one is, and the keyboard.

import { h, html, render, useEffect, useMemo, useReducer, useRef, useState } from "./vendor/htm-preact.js";
import { get, key } from "./api.js";
import { Deployments } from "./deployments.js";
import { Detail } from "./detail.js";
import { Jobs } from "./live.js";
import { List } from "./list.js";
import { Dialog, Logo } from "./parts.js";
import { go, keyInPlace, note, placeNow, toList, toResponse } from "./place.js";
import { Playground } from "./playground.js";

// `pollux dev` prints an address with the key in it. It must not stay there, nor in the history. On other machines it is
// not taken: whoever makes somebody follow a link must not choose under whose key that person works.
const isHere = /^(127(\.\d+){3}|localhost|\[::1\])$/.test(location.hostname);
function takeKey() {
  const given = keyInPlace();
  if (given === null) return false;
  if (isHere) key.set(given);
  note(toList({}));
  return true;
}
takeKey();

function App() {
  const [where, setWhere] = useState(placeNow());
  const [entered, setEntered] = useState(null); // null: not known yet
  const enter = () => get("models").then(() => setEntered(true), (error) => setEntered(error.status !== 401));
  useEffect(() => {
    const changed = () => {
      if (takeKey()) { setEntered(null); enter(); }
      setWhere(placeNow());
    };
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  useEffect(() => { enter(); }, []);
  if (entered === null) return html`<p class="loading">Pollux</p>`;
  if (!entered || where.page === "key") return html`<${Enter} entered=${() => { setEntered(true); if (where.page === "key") go("#/"); }} />`;
  return html`<${Shell} where=${where} leave=${() => { key.forget(); setEntered(false); }} />`;
}

function Enter({ entered }) {
  const [text, setText] = useState("");
  const [error, setError] = useState("");
  const enter = async (event) => {
    event.preventDefault();
    key.set(text.trim());
    try { await get("models"); entered(); } catch (problem) { key.forget(); setError(problem.message); }
  };
  return html`<main class="enter"><form onSubmit=${enter}>
    <${Logo} big /><h1>Pollux</h1>
    <label>API key <input type="password" autocomplete="off" autofocus value=${text} onInput=${(event) => setText(event.target.value)} placeholder="sk-…" aria-describedby="about-key" /></label>
    <button class="act main" disabled=${!text.trim()}>Show my responses</button>
    ${error && html`<p class="problem" role="alert">${error}</p>`}
    <p class="dim" id="about-key">A key sees its own responses, the master key all. It is kept in this tab only.</p>
  </form></main>`;
}

const THEMES = ["auto", "light", "dark"];
const THEME = "pollux-theme";

function useTheme() {
  const [theme, set] = useState(localStorage.getItem(THEME) || "auto");
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    localStorage.setItem(THEME, theme);
  }, [theme]);
  return [theme, () => set(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length])];
}

function Shell({ where, leave }) {
  const [, redraw] = useReducer((number) => number + 1, 0);
  const jobs = useMemo(() => new Jobs(redraw, filterOf(where)), []);
  useEffect(() => () => jobs.end(), []);
  const [models, setModels] = useState(null);
  const [selected, setSelected] = useState(null);
  const chosen = useRef(null); // keys may come faster than pages are drawn
  const select = (name) => { chosen.current = name; setSelected(name); };
  const [help, setHelp] = useState(false);
  const [theme, turnTheme] = useTheme();
  const search = useRef(null);
  useEffect(() => { get("models").then((list) => setModels(list.data.map((model) => model.id)), () => {}); }, [jobs.connected]);
  useEffect(() => { if (jobs.error?.status === 401) leave(); }, [jobs.error]);

  const { page, id } = where;
  const open = (name) => { select(name); go(toResponse(name)); };
  const back = () => go(toList(jobs.filter));
  const narrow = (change) => { jobs.filterBy(change); note(toList(jobs.filter)); redraw(); };
  // Somebody followed a link, or went back.
  useEffect(() => {
    if (page === "" && toList(where.filter) !== toList(jobs.filter)) { jobs.filterBy(filterOf(where)); redraw(); }
  }, [where]);
  useEffect(() => { document.title = title(page, id); scrollTo(0, 0); }, [page, id]);

  useEffect(() => {
    const pressed = (event) => {
      const { page, id } = placeNow();
      if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
      const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) && event.target.type !== "radio";
      if (event.key === "Escape") {
        if (typing) event.target.blur();
        else if (page) back();
        return;
      }
      if (typing) return;
      const step = { j: 1, k: -1, ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (step && (page === "" || id) && !(id && event.key.startsWith("Arrow"))) {
        const next = neighbour(jobs.list, id ?? chosen.current, step);
        if (!next) return;
        event.preventDefault();
        select(next.id);
        if (id) open(next.id);
      } else if (event.key === "Enter" && page === "" && chosen.current && !/^(BUTTON|A)$/.test(event.target.tagName)) open(chosen.current);
      else if (event.key === "/" && page === "") { event.preventDefault(); search.current?.focus(); search.current?.select(); }
      else if (event.key === "?") setHelp(true);
      else if (event.key === "d") go("#/deployments");
      else if (event.key === "p") go("#/playground");
      else if (event.key === "l") back();
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  });

  const tab = (name, word, href = `#/${name}`) => html`<a href=${href} aria-current=${page === name || (name === "" && id) ? "page" : null}>${word}</a>`;
  return html`
    <header class="top">
      <a class="brand" href="#/" aria-label="Pollux, all responses"><${Logo} /><span>Pollux</span></a>
      <nav aria-label="Pages">${tab("", "Responses", id ? toList(jobs.filter) : "#/")}${tab("deployments", "Deployments")}${tab("playground", "Playground")}<a href="../docs">API</a></nav>
      <span class="grow"></span>
      <button class="quiet keys" onClick=${() => setHelp(true)} aria-label="Keyboard" title="Keyboard">?</button>
      <button class="quiet" onClick=${turnTheme} aria-label=${`Colours: ${theme}`} title=${`Colours: ${theme}`}>${{ auto: "◐", light: "○", dark: "●" }[theme]}</button>
      ${key.get() && html`<button class="quiet leave" onClick=${leave} aria-label="Leave: forget the key"><svg viewBox="0 0 14 14" width="14" height="14" aria-hidden="true"><path d="M6 2H2.5v10H6M5.5 7H12M9.3 4.2 12 7l-2.7 2.8" fill="none" stroke="currentColor" stroke-width="1.4" stroke-linecap="round" stroke-linejoin="round" /></svg><span>Leave</span></button>`}
    </header>
    <main class=${page === "" ? "listing" : ""}>
      ${page === "" && html`<${List} jobs=${jobs} models=${models ?? []} selected=${selected} select=${select} open=${open} searchRef=${search} narrow=${narrow} />`}
      ${id && html`<${Detail} key=${id} id=${id} back=${back} />`}
      ${page === "deployments" && html`<${Deployments} />`}
      ${page === "playground" && html`<${Playground} models=${models} open=${open} />`}
      ${!id && !["", "deployments", "playground"].includes(page) && html`<div class="page narrow"><h1>There is no such page</h1><p><a href="#/">All responses</a></p></div>`}
    </main>
    ${help && html`<${Help} close=${() => setHelp(false)} />`}`;
}

const KEYS = [["j  k", "next, previous response"], ["Enter", "open it"], ["Esc", "back"], ["/", "search"], ["l", "responses"], ["d", "deployments"], ["p", "playground"], ["?", "this help"]];

const Help = ({ close }) => html`<${Dialog} label="Keyboard" close=${close}>
  <h2>Keyboard</h2><dl>${KEYS.map(([name, what]) => html`<div><dt>${name.split("  ").map((one) => html`<kbd>${one}</kbd> `)}</dt><dd>${what}</dd></div>`)}</dl>
  <form method="dialog"><button class="act">Close</button></form><//>`;

const filterOf = ({ filter }) => Object.fromEntries(["status", "model", "search", "owner"].map((name) => [name, filter[name] ?? ""]));

function neighbour(list, id, step) {
  const at = list.findIndex((job) => job.id === id);
  return list[at < 0 ? 0 : Math.min(list.length - 1, Math.max(0, at + step))];
}

const title = (page, id) => (id ? `…${id.slice(-8)} · Pollux` : page ? `${page[0].toUpperCase()}${page.slice(1)} · Pollux` : "Pollux");

render(h(App), document.getElementById("app"));
