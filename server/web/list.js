// The list of responses: thousands of rows, of which only those on the screen exist.

import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/htm-preact.js";
import { brief, clock, count, STATUSES, UNFINISHED, WORDS } from "./format.js";
import { Id, Metadata, Problem, Shape, Spark, Status, useNow } from "./parts.js";
import { get } from "./api.js";

const ROW = 34; // as in style.css
const SPARE = 12;

export function List({ jobs, models, selected, select, open, searchRef }) {
  const { filter } = jobs;
  return html`
    <${Counters} jobs=${jobs} />
    <div class="filters" role="search">
      <input type="search" ref=${searchRef} placeholder="Search ids, models and metadata" aria-label="Search ids, models and metadata"
        value=${filter.search} onInput=${later((value) => jobs.filterBy({ search: value }))} />
      <div class="chips" role="group" aria-label="Status">
        <button class="chip" aria-pressed=${filter.status === ""} onClick=${() => jobs.filterBy({ status: "" })}>All</button>
        ${STATUSES.map((status) => html`<button class="chip ${status}" aria-pressed=${filter.status === status}
          onClick=${() => jobs.filterBy({ status: filter.status === status ? "" : status })}><${Shape} status=${status} />${WORDS[status]}</button>`)}
      </div>
      <select aria-label="Model" value=${filter.model} onChange=${(event) => jobs.filterBy({ model: event.target.value })}>
        <option value="">Every model</option>
        ${models.map((name) => html`<option value=${name}>${name}</option>`)}
      </select>
      ${filter.owner && html`<button class="chip" onClick=${() => jobs.filterBy({ owner: "" })}>owner ${filter.owner} ✕</button>`}
      <span class="live ${jobs.connected ? "on" : ""}" role="status">${jobs.connected ? "live" : "connecting …"}</span>
    </div>
    <${Problem} error=${jobs.error} />
    <${Rows} jobs=${jobs} selected=${selected} select=${select} open=${open} />`;
}

let timer;
const later = (act) => (event) => {
  const { value } = event.target;
  clearTimeout(timer);
  timer = setTimeout(() => act(value), 180);
};

function Rows({ jobs, selected, select, open }) {
  const box = useRef(null);
  const [place, setPlace] = useState({ top: 0, height: 800 });
  const { list } = jobs;
  const now = useNow();
  const isMaster = list.some((job) => job.owner);

  useLayoutEffect(() => {
    const element = box.current;
    const measure = () => setPlace({ top: element.scrollTop, height: element.clientHeight });
    measure();
    element.addEventListener("scroll", measure, { passive: true });
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => { element.removeEventListener("scroll", measure); observer.disconnect(); };
  }, []);

  const first = Math.max(0, Math.floor(place.top / ROW) - SPARE);
  const last = Math.min(list.length, Math.ceil((place.top + place.height) / ROW) + SPARE);
  const shown = list.slice(first, last);
  jobs.see(shown.map((job) => job.id));

  useEffect(() => {
    if (jobs.more && jobs.loaded && last > list.length - 60) jobs.loadMore();
  }, [last, list.length, jobs.loaded]);

  // The chosen row is brought into sight.
  useEffect(() => {
    const at = list.findIndex((job) => job.id === selected);
    if (at < 0) return;
    const element = box.current, head = 30;
    if (at * ROW < element.scrollTop) element.scrollTop = at * ROW;
    else if ((at + 1) * ROW + head > element.scrollTop + element.clientHeight) element.scrollTop = (at + 1) * ROW + head - element.clientHeight;
  }, [selected]);

  return html`<div class="rows ${isMaster ? "master" : ""}" ref=${box} tabindex="0" role="table" aria-label="Responses" aria-rowcount=${jobs.more ? -1 : list.length + 1}>
    <div class="row head" role="row" aria-rowindex="1">
      ${["Status", "Response", "Model", "Deployment", isMaster && "Owner", "Age", "Run time", "Tries", "Tokens", "Metadata"].filter(Boolean)
        .map((name) => html`<span role="columnheader" class="c-${name.toLowerCase().replace(" ", "")}">${name}</span>`)}
    </div>
    <div style=${{ height: `${list.length * ROW}px` }} class="space" role="rowgroup">
      ${shown.map((job, at) => html`<${Row} key=${job.id} job=${job} at=${first + at} now=${now} chosen=${job.id === selected} isMaster=${isMaster} select=${select} open=${open} jobs=${jobs} />`)}
    </div>
    ${!list.length && jobs.loaded && html`<${Empty} filter=${jobs.filter} />`}
    ${!jobs.loaded && !jobs.error && html`<p class="empty">Loading …</p>`}
  </div>`;
}

const Empty = ({ filter }) => filter.status || filter.model || filter.search
  ? html`<p class="empty">No response fits these filters.</p>`
  : html`<div class="empty"><p>No background response yet.</p>
      <p>Send one from the <a href="#/playground">playground</a>, or with <code>"background": true</code> to <code>POST /v1/responses</code>. It appears here at once.</p></div>`;

function Row({ job, at, now, chosen, isMaster, select, open, jobs }) {
  const running = UNFINISHED.has(job.status);
  const ran = job.started_at && (job.ended_at ?? now) - job.started_at;
  const onClick = (event) => {
    if (event.defaultPrevented || event.metaKey || event.ctrlKey) return;
    select(job.id);
    open(job.id);
  };
  return html`<div class="row ${job.status} ${chosen ? "chosen" : ""}" role="row" aria-rowindex=${at + 2} aria-selected=${chosen} style=${{ top: `${at * ROW}px` }} onClick=${onClick}>
    <span role="cell" class="c-status"><${Status} status=${job.status} /></span>
    <span role="cell" class="c-response"><a href="#/r/${job.id}" tabindex="-1"><${Id} id=${job.id} /></a></span>
    <span role="cell" class="c-model" title=${job.model}>${job.model}</span>
    <span role="cell" class="c-deployment" title=${job.deployment?.id}>${job.deployment ? html`${job.deployment.provider ?? ""} <span class="dim">${job.deployment.id.slice(0, 8)}</span>` : ""}</span>
    ${isMaster && html`<span role="cell" class="c-owner"><button class="link" onClick=${(event) => { event.preventDefault(); jobs.filterBy({ owner: job.owner }); }}>${job.owner}</button></span>`}
    <span role="cell" class="c-age" title=${clock(job.created_at)}>${brief(now - job.created_at)}</span>
    <span role="cell" class="c-runtime">${ran ? brief(ran) : running ? "" : "–"}</span>
    <span role="cell" class="c-tries ${job.attempts > 1 ? "many" : ""}">${job.attempts || ""}</span>
    <span role="cell" class="c-tokens" title="input → output">${job.tokens ? html`${count(job.tokens.input)} <span class="dim">→</span> ${count(job.tokens.output)}` : ""}</span>
    <span role="cell" class="c-metadata">${job.error && html`<span class="tag bad">${job.error}</span>`}<${Metadata} metadata=${job.metadata} /></span>
  </div>`;
}

const ENDS = ["completed", "failed", "incomplete", "cancelled"];

function Counters({ jobs }) {
  const [told, setTold] = useState(null);
  useEffect(() => {
    let over = false;
    const look = async () => {
      if (document.hidden) return;
      try { const found = await get("tallies"); if (!over) setTold(found); } catch { /* the list tells of it */ }
    };
    look();
    const timer = setInterval(look, 4000);
    return () => { over = true; clearInterval(timer); };
  }, []);
  const minutes = told?.data || [];
  const of = (status) => minutes.map((minute) => minute[status] || 0);
  const ended = minutes.map((minute) => ENDS.reduce((sum, status) => sum + (minute[status] || 0), 0));
  const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
  const rate = ended.length > 1 ? ended.at(-2) / 60 : null;
  const pick = (status) => () => jobs.filterBy({ status: jobs.filter.status === status ? "" : status });
  return html`<section class="counters" aria-label="The last hour">
    <${Counter} name="Queued" status="queued" number=${told?.queued} note="now" numbers=${of("queued")} onClick=${pick("queued")} />
    <${Counter} name="Running" status="in_progress" number=${told?.running} note="now" numbers=${of("in_progress")} onClick=${pick("in_progress")} />
    ${ENDS.map((status) => html`<${Counter} name=${WORDS[status]} status=${status} number=${told ? sum(of(status)) : null} note="last hour" numbers=${of(status)} onClick=${pick(status)} />`)}
    <${Counter} name="Ended" number=${rate === null ? null : rate < 10 ? rate.toFixed(2) : rate.toFixed(0)} note="per second" numbers=${ended} />
  </section>`;
}

const Counter = ({ name, status, number, note, numbers, onClick }) => html`<button class="counter ${status || ""}" onClick=${onClick} disabled=${!onClick}>
  <span class="name">${status && html`<${Shape} status=${status} />`}${name}</span>
  <span class="number">${typeof number === "string" ? number : count(number)}</span>
  <span class="note">${note}</span>
  <${Spark} numbers=${numbers.length ? numbers : [0, 0]} label=${`${name} per minute in the last hour, at most ${Math.max(0, ...numbers)}`} />
</button>`;
