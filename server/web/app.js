// The shell: where one is, who one is, and the keyboard.

import { h, html, render, useEffect, useMemo, useReducer, useRef, useState } from "./vendor/htm-preact.js";
import { get, key } from "./api.js";
import { Deployments } from "./deployments.js";
import { Detail } from "./detail.js";
import { Jobs } from "./live.js";
import { List } from "./list.js";
import { Playground } from "./playground.js";

const place = () => decodeURIComponent(location.hash.replace(/^#\/?/, ""));
const go = (where) => { location.hash = `#/${where}`; };

// A place's page, and the response that it is about.
function read(where) {
  const [page, ...rest] = where.split("/");
  return [page, page === "r" ? rest.join("/") : null];
}

// `pollux dev` prints an address with the key in it. It must not stay there, nor in the history. On other machines it is
// not taken: whoever makes somebody follow a link must not choose under whose key that person works.
const isHere = /^(127(\.\d+){3}|localhost|\[::1\])$/.test(location.hostname);
function takeKey() {
  const given = place();
  if (!given.startsWith("key=")) return false;
  if (isHere) key.set(given.slice(4));
  history.replaceState(null, "", "#/");
  return true;
}
takeKey();

function App() {
  const [where, setWhere] = useState(place());
  const [entered, setEntered] = useState(null); // null: not known yet
  const enter = () => get("models").then(() => setEntered(true), (error) => setEntered(error.status !== 401));
  useEffect(() => {
    const changed = () => {
      if (takeKey()) { setEntered(null); enter(); }
      setWhere(place());
    };
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  useEffect(() => { enter(); }, []);
  if (entered === null) return html`<p class="loading">Pollux</p>`;
  if (!entered || where === "key") return html`<${Enter} entered=${() => { setEntered(true); go(""); }} />`;
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

const Logo = ({ big }) => html`<svg class="logo ${big ? "big" : ""}" viewBox="0 0 32 32" aria-hidden="true"><path d="M9 23 23 9" class="tie" /><circle cx="9" cy="23" r="4" class="castor" /><circle cx="23" cy="9" r="5.2" class="pollux" /></svg>`;

const THEMES = ["auto", "light", "dark"];

function useTheme() {
  const [theme, set] = useState(localStorage.getItem("pollux-theme") || "auto");
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    localStorage.setItem("pollux-theme", theme);
  }, [theme]);
  return [theme, () => set(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length])];
}

function Shell({ where, leave }) {
  const [, redraw] = useReducer((number) => number + 1, 0);
  const jobs = useMemo(() => new Jobs(redraw), []);
  useEffect(() => () => jobs.end(), []);
  const [models, setModels] = useState([]);
  const [selected, setSelected] = useState(null);
  const chosen = useRef(null); // keys may come faster than pages are drawn
  const select = (name) => { chosen.current = name; setSelected(name); };
  const [help, setHelp] = useState(false);
  const [theme, turnTheme] = useTheme();
  const search = useRef(null);
  useEffect(() => { get("models").then((list) => setModels(list.data.map((model) => model.id)), () => {}); }, []);
  useEffect(() => { if (jobs.error?.status === 401) leave(); }, [jobs.error]);

  const [page, id] = read(where);
  const open = (name) => go(`r/${name}`);

  useEffect(() => {
    const pressed = (event) => {
      const [page, id] = read(place());
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
      if (event.key === "Escape") {
        if (typing) event.target.blur();
        else if (help) setHelp(false);
        else if (page) go("");
        return;
      }
      if (typing) return;
      const step = { j: 1, k: -1, ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (step && (page === "" || page === "r")) {
        const { list } = jobs;
        const at = list.findIndex((job) => job.id === (id ?? chosen.current));
        const next = list[at < 0 ? 0 : Math.min(list.length - 1, Math.max(0, at + step))];
        if (!next || (id && event.key.startsWith("Arrow"))) return;
        event.preventDefault();
        select(next.id);
        if (id) open(next.id);
      } else if (event.key === "Enter" && page === "" && chosen.current && !/^(BUTTON|A)$/.test(event.target.tagName)) open(chosen.current);
      else if (event.key === "/" && page === "") { event.preventDefault(); search.current?.focus(); }
      else if (event.key === "?") setHelp(!help);
      else if (event.key === "d") go("deployments");
      else if (event.key === "p") go("playground");
      else if (event.key === "l") go("");
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  });

  const tab = (name, word) => html`<a href="#/${name}" aria-current=${page === name || (name === "" && page === "r") ? "page" : null}>${word}</a>`;
  return html`
    <header class="top">
      <a class="brand" href="#/" aria-label="Pollux, all responses"><${Logo} /><span>Pollux</span></a>
      <nav aria-label="Pages">${tab("", "Responses")}${tab("deployments", "Deployments")}${tab("playground", "Playground")}<a href="../docs">API</a></nav>
      <span class="grow"></span>
      <button class="quiet" onClick=${() => setHelp(true)} aria-label="Keyboard">?</button>
      <button class="quiet" onClick=${turnTheme} aria-label=${`Colours: ${theme}`}>${{ auto: "◐", light: "○", dark: "●" }[theme]}</button>
      ${key.get() && html`<button class="quiet" onClick=${leave}>Leave</button>`}
    </header>
    <main class=${page === "" ? "listing" : ""}>
      ${page === "" && html`<${List} jobs=${jobs} models=${models} selected=${selected} select=${select} open=${open} searchRef=${search} />`}
      ${id && html`<${Detail} key=${id} id=${id} back=${() => go("")} />`}
      ${page === "deployments" && html`<${Deployments} />`}
      ${page === "playground" && html`<${Playground} models=${models} open=${open} />`}
    </main>
    ${help && html`<${Help} close=${() => setHelp(false)} />`}`;
}

const KEYS = [["j  k", "next, previous response"], ["Enter", "open it"], ["Esc", "back"], ["/", "search"], ["l", "responses"], ["d", "deployments"], ["p", "playground"], ["?", "this help"]];

function Help({ close }) {
  const box = useRef(null);
  useEffect(() => { box.current.showModal(); }, []);
  return html`<dialog ref=${box} class="help" onClose=${close} onClick=${(event) => { if (event.target === box.current) box.current.close(); }} aria-label="Keyboard">
    <h2>Keyboard</h2><dl>${KEYS.map(([name, what]) => html`<div><dt>${name.split("  ").map((one) => html`<kbd>${one}</kbd> `)}</dt><dd>${what}</dd></div>`)}</dl>
    <button class="act" onClick=${() => box.current.close()}>Close</button></dialog>`;
}

render(h(App), document.getElementById("app"));
