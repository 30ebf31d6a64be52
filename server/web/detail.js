// One response: its text as it grows, its life to scale, and everything else that is known of it.

import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/htm-preact.js";
import { API, ask, get, key, now as serverNow, part, pause } from "./api.js";
import { clock, count, duration, UNFINISHED } from "./format.js";
import { Items } from "./items.js";
import { untilLookedAt } from "./looking.js";
import { follow } from "./output.js";
import { Copy, Dialog, Metadata, Problem, Status, useNow } from "./parts.js";
import { toResponse } from "./place.js";
import { Timeline } from "./timeline.js";

const LOOK_MS = 1500; // how often the job of a running response is read again

function useResponse(id) {
  const [job, setJob] = useState(null);
  const [grown, setGrown] = useState({ response: null, output: [], events: null });
  const [error, setError] = useState(null);
  useEffect(() => {
    const stop = new AbortController();
    const { signal } = stop;
    const over = (problem) => { if (!signal.aborted) { setError(problem); stop.abort(); } };
    (async () => {
      const found = await firstLook(id, signal, setError);
      setJob(found);
      setError(null);
      const told = (state) => !signal.aborted && setGrown(state);
      await Promise.all([
        follow(id, found.stream, told, signal).then(() => again(id, signal, setJob)),
        lookOn(id, found, signal, setJob),
      ]);
    })().catch(over);
    return () => stop.abort();
  }, [id]);
  return { job, ...grown, error, setError };
}

// The job, as soon as the server says something about it.
async function firstLook(id, signal, setError) {
  while (true) {
    try {
      return await get(`jobs/${part(id)}`, {}, { signal });
    } catch (error) {
      if (error.status === 404) return withoutJob(await get(`responses/${part(id)}`, {}, { signal }));
      if (signal.aborted || (error.status && error.status < 500 && error.status !== 429)) throw error;
      setError(error);
      await pause(LOOK_MS, signal);
    }
  }
}

// What there is to say of a response that is no job of ours: the provider has it, or it was passed on and kept.
function withoutJob(response) {
  const ended = !UNFINISHED.has(response.status);
  return {
    id: response.id, status: response.status, model: response.model, metadata: response.metadata, stream: false, foreign: true,
    created_at: response.created_at, ended_at: ended ? response.completed_at ?? response.created_at : null,
  };
}

async function lookOn(id, job, signal, setJob) {
  let last = job;
  while (!signal.aborted && !job.foreign && UNFINISHED.has(last.status)) {
    await pause(LOOK_MS, signal);
    await untilLookedAt(signal);
    if (!signal.aborted) last = (await again(id, signal, setJob)) ?? last;
  }
}

async function again(id, signal, setJob) {
  try {
    const job = await get(`jobs/${part(id)}`, {}, { signal });
    if (!signal.aborted) setJob(job);
    return job;
  } catch {
    return null; // whoever follows the response tells what is wrong
  }
}

export function Detail({ id, back }) {
  const { job, response, output, events, error, setError } = useResponse(id);
  const [tab, setTab] = useState("output");
  const [deleting, setDeleting] = useState(false);
  const status = response && !UNFINISHED.has(response.status) ? response.status : job?.status || response?.status;
  const running = UNFINISHED.has(status) && !isGone(error);
  const now = useNow(250, running);

  const cancel = async () => {
    try { await ask(`responses/${part(id)}/cancel`, { method: "POST", body: {} }); setError(null); } catch (problem) { setError(problem); }
  };
  const remove = async () => {
    setDeleting(false);
    try { await ask(`responses/${part(id)}`, { method: "DELETE" }); back(); } catch (problem) { setError(problem); }
  };
  if (error && !job) return html`<${Missing} id=${id} error=${error} back=${back} />`;
  if (!job) return html`<p class="loading">Loading …</p>`;

  const failure = response?.error || (job.error && { code: job.error, message: "" });
  const tabs = [["output", "Output"], ["input", "Input"], ["events", job.events ? `Events ${count(Math.max(job.events, events?.length ?? 0))}` : "Events"], ["json", "JSON"]];
  return html`<article class="page detail">
    <header class="title">
      <button class="back quiet" onClick=${back} aria-label="Back to the list">←</button>
      <div class="what">
        <h1 class="mono" data-id=${id} title=${id}>${id}</h1>
        <p class="line"><${Status} status=${status} /> <span class="model">${job.model}</span> <span class="dim">${since(job, status, now)}</span></p>
      </div>
      <div class="acts">
        <${Copy} text=${id} label="Copy id">Copy id<//>
        <${Copy} text=${curl(id, job.stream)} label="Copy as curl">Copy as curl<//>
        ${running && html`<button class="act" onClick=${cancel}>Cancel</button>`}
        ${!isGone(error) && html`<button class="act bad" onClick=${() => setDeleting(true)}>Delete</button>`}
      </div>
    </header>
    ${isGone(error) ? html`<p class="notice" role="alert">It has been deleted. This is the last that was seen of it.</p>` : html`<${Problem} error=${error} />`}
    ${job.foreign
      ? html`<p class="notice">This is no job of Pollux: its provider did the work, so nothing is known of queues, leases and tries.</p>`
      : html`<${Timeline} job=${job} status=${status} now=${now} running=${running} />`}
    ${failure && html`<section class="failure" aria-label="Error"><strong>${failure.code}</strong> <span>${failure.message}</span></section>`}
    ${response?.incomplete_details?.reason && html`<section class="failure mild" aria-label="Incomplete"><strong>incomplete</strong> <span>It was cut short: ${response.incomplete_details.reason.replaceAll("_", " ")}.</span></section>`}
    <div class="columns">
      <section class="main" aria-label="Contents">
        <${Tabs} tabs=${tabs} tab=${tab} setTab=${setTab} />
        <div role="tabpanel" class="panel" id="panel" aria-labelledby=${`tab-${tab}`} tabindex="0">
          ${tab === "output" && html`<${Output} output=${output} running=${running} status=${status} />`}
          ${tab === "input" && html`<${Input} id=${id} response=${response} />`}
          ${tab === "events" && html`<${Events} events=${events} all=${job.events} foreign=${job.foreign} />`}
          ${tab === "json" && html`<pre class="json">${response ? JSON.stringify({ ...response, output }, null, 2) : "…"}</pre>`}
        </div>
      </section>
      <${Facts} job=${job} response=${response} />
    </div>
    ${deleting && html`<${Dialog} label="Delete this response" close=${() => setDeleting(false)}>
      <h2>Delete this response?</h2>
      <p>All that it holds is gone for good${running ? ", and its run is ended" : ""}.</p>
      <p class="acts"><button class="act bad" onClick=${remove}>Delete</button> <button class="act" onClick=${() => setDeleting(false)}>Keep</button></p>
    <//>`}
  </article>`;
}

const isGone = (error) => error?.status === 404;

const Missing = ({ id, error, back }) => html`<div class="page narrow">
  <p><button class="link" onClick=${back}>← Responses</button></p>
  <h1 class="missing">${isGone(error) ? "There is no such response" : "It can't be shown"}</h1>
  <p class="mono whole">${id}</p>
  ${isGone(error) ? html`<p class="dim">It may have expired or been deleted, or it belongs to another key. Only the master key sees those of all.</p>` : html`<${Problem} error=${error} />`}
</div>`;

// Arrow keys go from tab to tab, as is the custom.
function Tabs({ tabs, tab, setTab }) {
  const row = useRef(null);
  const pressed = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const at = (tabs.findIndex(([name]) => name === tab) + step + tabs.length) % tabs.length;
    setTab(tabs[at][0]);
    row.current.children[at].focus();
  };
  return html`<div class="tabs" role="tablist" aria-label="Contents" ref=${row} onKeyDown=${pressed}>${tabs.map(([name, word]) => html`
    <button role="tab" id=${`tab-${name}`} aria-controls="panel" aria-selected=${tab === name} tabindex=${tab === name ? 0 : -1} onClick=${() => setTab(name)}>${word}</button>`)}</div>`;
}

function since(job, status, now) {
  if (status === "queued") return `waits for ${duration(now - job.created_at)}`;
  if (status === "in_progress") return `runs for ${duration(now - (job.started_at ?? job.created_at))}`;
  if (job.foreign) return `created ${clock(job.created_at)}`;
  return `after ${duration((job.ended_at ?? now) - job.created_at)}, ${clock(job.ended_at)}`;
}

function curl(id, streamed) {
  const auth = key.get() ? ' -H "Authorization: Bearer $POLLUX_API_KEY"' : "";
  return streamed
    ? `curl -N${auth} '${API}responses/${part(id)}?stream=true'`
    : `curl${auth} '${API}responses/${part(id)}?wait=50'`;
}

function Output({ output, running, status }) {
  const end = useRef(null);
  const follows = useRef(true);
  // The end stays in sight while the text grows, unless somebody has scrolled up to read.
  useEffect(() => {
    let before = scrollY;
    const watch = () => {
      // The text may have grown since it was scrolled, so only a way up says that somebody wants to read.
      if (innerHeight + scrollY >= document.documentElement.scrollHeight - 80) follows.current = true;
      else if (scrollY < before) follows.current = false;
      before = scrollY;
    };
    addEventListener("scroll", watch, { passive: true });
    return () => removeEventListener("scroll", watch);
  }, []);
  useLayoutEffect(() => {
    if (running && follows.current && end.current) end.current.scrollIntoView({ block: "nearest" });
  });
  const begun = output.some(Boolean);
  return html`<${Items} items=${output.filter(Boolean)} grows=${running} />
    ${!begun && html`<p class="empty">${status === "queued" ? "It waits for a worker." : running ? "Nothing has come from the provider yet." : "There is no output."}</p>`}
    ${running && html`<p class="caret-line" aria-hidden="true"><span class="caret"></span></p>`}<span ref=${end}></span>`;
}

function Input({ id, response }) {
  const [items, setItems] = useState(null);
  const [error, setError] = useState(null);
  useEffect(() => {
    let over = false;
    get(`responses/${part(id)}/input_items`, { limit: 100, order: "asc" }).then((list) => !over && setItems(list.data), (problem) => !over && setError(problem));
    return () => { over = true; };
  }, [id]);
  return html`<${Problem} error=${error} />
    ${response?.instructions && html`<details class="fold" open><summary>Instructions</summary><div class="text">${typeof response.instructions === "string" ? response.instructions : JSON.stringify(response.instructions, null, 2)}</div></details>`}
    ${items ? html`<${Items} items=${items} />` : !error && html`<p class="empty">Loading …</p>`}`;
}

function Events({ events, all, foreign }) {
  if (foreign) return html`<p class="empty">Its provider has the events, if anybody.</p>`;
  if (!events) return html`<p class="empty">It was created without <code>stream: true</code>, so its events can't be replayed to clients. The other tabs have what they add up to.</p>`;
  return html`<div class="events">
    ${all > events.length && html`<p class="dim">The last ${count(events.length)} of ${count(all)}.</p>`}
    ${events.slice(-500).reverse().map((event) => html`<details key=${event.sequence_number}><summary><span class="number">${event.sequence_number}</span> <span>${event.type}</span> <span class="dim delta">${typeof event.delta === "string" ? JSON.stringify(event.delta) : ""}</span></summary><pre class="json">${JSON.stringify(event, null, 2)}</pre></details>`)}
  </div>`;
}

const LABELS = [
  ["Reasoning", (r) => r.reasoning?.effort], ["Temperature", (r) => r.temperature], ["Top p", (r) => r.top_p],
  ["Max output", (r) => r.max_output_tokens && count(r.max_output_tokens)], ["Service tier", (r) => r.service_tier],
  ["Tools", (r) => r.tools?.length > 0 && r.tools.map((tool) => tool.name || tool.type).join(", ")],
  ["Format", (r) => r.text?.format?.type !== "text" && r.text?.format?.type], ["User", (r) => r.user],
  ["Previous", (r) => r.previous_response_id && html`<a href=${toResponse(r.previous_response_id)}>${r.previous_response_id.slice(-12)}</a>`],
];

function Facts({ job, response }) {
  const used = response?.usage;
  const speed = used && job.first_event_at && job.ended_at - job.first_event_at > 0.2 ? used.output_tokens / (job.ended_at - job.first_event_at) : null;
  const fact = (name, value) => value != null && value !== "" && value !== false && html`<div><dt>${name}</dt><dd>${value}</dd></div>`;
  return html`<aside class="facts" aria-label="Facts"><dl>
    ${fact("Owner", job.owner)}
    ${fact("Created", clock(job.created_at))}
    ${!job.foreign && fact("Queued for", duration((job.started_at ?? (UNFINISHED.has(job.status) ? serverNow() : job.ended_at)) - job.created_at))}
    ${fact("First event", job.first_event_at && job.started_at && duration(job.first_event_at - job.started_at) + " after its start")}
    ${fact("Attempts", job.attempts || null)}
    ${fact("Deployment", job.deployment && html`${job.deployment.model ?? ""} <span class="dim">${job.deployment.provider ?? ""}</span><br /><span class="mono dim">${job.deployment.id.slice(0, 16)}</span>`)}
    ${fact("Worker", job.worker && html`<span class="mono">${job.worker}</span>`)}
    ${job.events && fact("Events", count(job.events))}
    ${used && fact("Tokens", html`${count(used.input_tokens)} in <span class="dim">${used.input_tokens_details?.cached_tokens ? `(${count(used.input_tokens_details.cached_tokens)} cached)` : ""}</span><br />${count(used.output_tokens)} out <span class="dim">${used.output_tokens_details?.reasoning_tokens ? `(${count(used.output_tokens_details.reasoning_tokens)} to reason)` : ""}</span>`)}
    ${fact("Speed", speed && `${speed.toFixed(speed < 10 ? 1 : 0)} tokens/s`)}
    ${response && LABELS.map(([name, of]) => fact(name, of(response)))}
    ${Object.keys(job.metadata || {}).length > 0 && fact("Metadata", html`<${Metadata} metadata=${job.metadata} />`)}
  </dl></aside>`;
}
