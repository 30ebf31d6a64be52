// The list of responses: thousands of rows, of which only those on the screen exist.

import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/htm-preact.js";
import { brief, clock, count, STATUSES, UNFINISHED, WORDS } from "./format.js";
import { API } from "./api.js";
import { Counters } from "./counters.js";
import { Id, Logo, Metadata, Problem, Shape, Status, useNow } from "./parts.js";
import { toResponse } from "./place.js";

const SPARE = 12;
const HEAD = 30;
const NARROW = matchMedia("(max-width: 640px)");
const heightOfRow = () => (NARROW.matches ? 56 : 34); // as in style.css

export function List({ jobs, models, selected, select, open, searchRef, narrow }) {
  const { filter } = jobs;
  const [search, setSearch] = useState(filter.search);
  useEffect(() => setSearch(filter.search), [filter.search]);
  useEffect(() => {
    if (search === filter.search) return undefined;
    const timer = setTimeout(() => narrow({ search }), 180);
    return () => clearTimeout(timer);
  }, [search]);
  const names = [...new Set([...models.filter((name) => !name.includes("*")), ...jobs.list.slice(0, 200).map((job) => job.model), filter.model])].filter(Boolean).sort();
  return html`
    <h1 class="unseen">Responses</h1>
    <${Counters} jobs=${jobs} narrow=${narrow} />
    <div class="filters" role="search">
      <input type="search" ref=${searchRef} placeholder="Search ids, models and metadata" aria-label="Search ids, models and metadata"
        value=${search} onInput=${(event) => setSearch(event.target.value)} />
      <div class="chips" role="group" aria-label="Status">
        <button class="chip" aria-pressed=${filter.status === ""} onClick=${() => narrow({ status: "" })}>All</button>
        ${STATUSES.map((status) => html`<button class="chip ${status}" aria-pressed=${filter.status === status}
          onClick=${() => narrow({ status: filter.status === status ? "" : status })}><${Shape} status=${status} />${WORDS[status]}</button>`)}
      </div>
      <select aria-label="Model" value=${filter.model} onChange=${(event) => narrow({ model: event.target.value })}>
        <option value="">Every model</option>
        ${names.map((name) => html`<option value=${name}>${name}</option>`)}
      </select>
      ${filter.owner && html`<button class="chip" aria-pressed="true" onClick=${() => narrow({ owner: "" })}>owner ${filter.owner} <span aria-hidden="true">✕</span><span class="unseen">: show every owner</span></button>`}
      <span class="live ${jobs.connected ? "on" : ""}" role="status">${jobs.connected ? "live" : "connecting …"}</span>
    </div>
    <${Problem} error=${jobs.error} />
    <${Rows} jobs=${jobs} selected=${selected} select=${select} open=${open} narrow=${narrow} />`;
}

function Rows({ jobs, selected, select, open, narrow }) {
  const box = useRef(null);
  const [place, setPlace] = useState({ top: 0, height: 800, row: heightOfRow() });
  const { list } = jobs;
  const now = useNow();
  const isMaster = list.some((job) => job.owner);
  const { row } = place;

  useLayoutEffect(() => {
    const element = box.current;
    const measure = () => {
      const { scrollTop: top, clientHeight: height } = element;
      const atTop = top < HEAD;
      jobs.scrolled = top;
      if (atTop !== jobs.atTop) { jobs.atTop = atTop; jobs.tell(); }
      setPlace((old) => {
        const next = { top, height, row: heightOfRow() };
        return Math.floor(old.top / old.row) === Math.floor(top / next.row) && old.height === height && old.row === next.row ? old : next;
      });
    };
    element.scrollTop = jobs.scrolled;
    measure();
    element.addEventListener("scroll", measure, { passive: true });
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => { element.removeEventListener("scroll", measure); observer.disconnect(); };
  }, []);

  // Other filters show another list, from its beginning.
  useLayoutEffect(() => { if (jobs.atTop) box.current.scrollTop = 0; }, [jobs.filter]);

  const first = Math.max(0, Math.floor(place.top / row) - SPARE);
  const last = Math.min(list.length, Math.ceil((place.top + place.height) / row) + SPARE);
  const shown = list.slice(first, last);
  // What leaves at one end of the screen serves at the other, and no element moves among its siblings: making and moving
  // them costs more than all else. Where they stand is said by their tops, and to screen readers by their index.
  const places = Math.ceil(place.height / row) + 2 * SPARE + 1;
  const inPlaces = shown.map((job, at) => [job, first + at]).sort((one, other) => one[1] % places - other[1] % places);
  jobs.see(shown.map((job) => job.id));

  useEffect(() => {
    if (jobs.loaded && last > list.length - 60) jobs.loadMore();
  }, [last, list.length, jobs.loaded, jobs.more]);

  // The chosen row is brought into sight.
  const chosenBefore = useRef(selected);
  useEffect(() => {
    const at = list.findIndex((job) => job.id === selected);
    if (at < 0 || chosenBefore.current === selected) return;
    chosenBefore.current = selected;
    const element = box.current;
    if (at * row < element.scrollTop) element.scrollTop = at * row;
    else if ((at + 1) * row + HEAD > element.scrollTop + element.clientHeight) element.scrollTop = (at + 1) * row + HEAD - element.clientHeight;
  }, [selected]);

  const toTop = () => { box.current.scrollTop = 0; box.current.focus(); };
  return html`<div class="sheet">
    ${!jobs.atTop && html`<button class="newer ${jobs.missed ? "some" : ""}" onClick=${toTop}><span aria-hidden="true">↑</span> ${jobs.missed ? `${count(jobs.missed)} new` : "Newest"}</button>`}
    <div class="rows ${isMaster ? "master" : ""}" ref=${box} tabindex="0" role="table" aria-label="Responses" aria-rowcount=${jobs.more ? -1 : list.length + 1}>
      <div role="rowgroup" class="heads"><div class="row head" role="row" aria-rowindex="1">
        ${["Status", "Response", "Model", "Deployment", isMaster && "Owner", "Age", "Run time", "Attempts", "Tokens", "Metadata"].filter(Boolean)
          .map((name) => html`<span role="columnheader" class="c-${name.toLowerCase().replace(" ", "")}">${name}</span>`)}
      </div></div>
      <div style=${{ height: `${list.length * row}px` }} class="space" role="rowgroup">
        ${inPlaces.map(([job, at]) => html`<${Row} key=${at % places} job=${job} at=${at} top=${at * row} now=${now} chosen=${job.id === selected} isMaster=${isMaster} select=${select} open=${open} narrow=${narrow} />`)}
      </div>
      ${!list.length && jobs.loaded && !jobs.busy && html`<${Empty} filter=${jobs.filter} clear=${() => narrow({ status: "", model: "", search: "", owner: "" })} />`}
      ${!list.length && (jobs.busy || !jobs.loaded) && !jobs.error && html`<p class="empty">Loading …</p>`}
      ${list.length > 0 && jobs.loaded && (jobs.isCut || !jobs.more) && html`<p class="end">${jobs.isCut ? `These are the newest ${count(list.length)}. A filter finds older ones.` : jobs.filter.status || jobs.filter.search || jobs.filter.model || jobs.filter.owner ? "That is all that fits." : "That is all: older ones have expired, or were deleted."}</p>`}
    </div>
  </div>`;
}

const Empty = ({ filter, clear }) => filter.status || filter.model || filter.search || filter.owner
  ? html`<div class="empty"><p>No response fits these filters.</p><p><button class="act" onClick=${clear}>Show all</button></p></div>`
  : html`<div class="empty"><${Logo} big /><p class="lead">No background response yet</p>
      <p>Send one from the <a href="#/playground">playground</a>, or with <code>"background": true</code> to <code>POST ${API.pathname}responses</code>.<br />It appears here at once.</p></div>`;

function Row({ job, at, top, now, chosen, isMaster, select, open, narrow }) {
  const ran = job.started_at && (job.ended_at ?? now) - job.started_at;
  const { deployment } = job;
  const onClick = (event) => {
    if (event.defaultPrevented || event.metaKey || event.ctrlKey || event.shiftKey) return;
    if (String(getSelection())) return; // somebody marks text, to copy it
    event.preventDefault();
    select(job.id);
    open(job.id);
  };
  return html`<div class="row ${job.status} ${chosen ? "chosen" : ""}" role="row" aria-rowindex=${at + 2} aria-current=${chosen ? "true" : null} style=${{ top: `${top}px` }} onClick=${onClick}>
    <span role="cell" class="c-status"><${Status} status=${job.status} /></span>
    <span role="cell" class="c-response"><a href=${toResponse(job.id)} tabindex="-1"><${Id} id=${job.id} /></a></span>
    <span role="cell" class="c-model" title=${job.model}>${job.model}</span>
    <span role="cell" class="c-deployment" title=${deployment?.id}>${deployment ? html`${deployment.provider ?? ""} <span class="dim">${deployment.id.slice(0, 8)}</span>` : ""}</span>
    ${isMaster && html`<span role="cell" class="c-owner"><button class="link" tabindex="-1" title=${`Only those of ${job.owner}`} onClick=${(event) => { event.preventDefault(); narrow({ owner: job.owner }); }}>${job.owner}</button></span>`}
    <span role="cell" class="c-age" title=${clock(job.created_at)}>${now - job.created_at < 1 ? "now" : brief(now - job.created_at)}</span>
    <span role="cell" class="c-runtime">${ran ? brief(ran) : UNFINISHED.has(job.status) ? "" : "–"}</span>
    <span role="cell" class="c-attempts ${job.attempts > 1 ? "many" : ""}">${job.attempts || ""}</span>
    <span role="cell" class="c-tokens" title="input → output">${job.tokens ? html`${count(job.tokens.input)} <span class="dim">→</span> ${count(job.tokens.output)}` : ""}</span>
    <span role="cell" class="c-metadata">${job.error && html`<span class="tag bad">${job.error}</span>`}<${Metadata} metadata=${job.metadata} /></span>
  </div>`;
}
