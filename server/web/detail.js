// One response: its text as it grows, its life to scale, and everything else that is known of it.

import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/htm-preact.js";
import { API, ask, get, key } from "./api.js";
import { clock, count, duration, UNFINISHED } from "./format.js";
import { follow } from "./output.js";
import { Copy, Metadata, Problem, Status, useNow } from "./parts.js";
import { Items } from "./items.js";
import { Timeline } from "./timeline.js";

const LOOK_MS = 1500; // how often the job of a running response is read again

export function useResponse(id) {
  const [job, setJob] = useState(null);
  const [grown, setGrown] = useState({ response: null, output: [], events: null });
  const [error, setError] = useState(null);
  useEffect(() => {
    const stop = new AbortController();
    setJob(null); setError(null); setGrown({ response: null, output: [], events: null });
    const look = async () => {
      const found = await get(`jobs/${id}`, {}, { signal: stop.signal });
      if (!stop.signal.aborted) setJob(found);
      return found;
    };
    (async () => {
      try {
        const found = await look();
        const following = follow(id, found.stream, (state) => !stop.signal.aborted && setGrown(state), stop.signal);
        const looking = (async () => {
          let last = found;
          while (!stop.signal.aborted && UNFINISHED.has(last.status)) {
            await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
            try { last = await look(); } catch (problem) { if (problem.status === 404) throw problem; }
          }
        })();
        await following;
        if (!stop.signal.aborted) await look();
        await looking;
      } catch (problem) {
        if (!stop.signal.aborted) setError(problem);
      }
    })();
    return () => stop.abort();
  }, [id]);
  return { job, ...grown, error, setError };
}

export function Detail({ id, back }) {
  const { job, response, output, events, error, setError } = useResponse(id);
  const [tab, setTab] = useState("output");
  const status = response && !UNFINISHED.has(response.status) ? response.status : job?.status || response?.status;
  const running = UNFINISHED.has(status);
  const now = useNow(250, running);
  useEffect(() => setTab("output"), [id]);

  const cancel = async () => {
    try { await ask(`responses/${id}/cancel`, { method: "POST", body: {} }); setError(null); } catch (problem) { setError(problem); }
  };
  const remove = async () => {
    if (!confirm("Delete this response, and all that it holds?")) return;
    try { await ask(`responses/${id}`, { method: "DELETE" }); back(); } catch (problem) { setError(problem); }
  };
  if (error && !job) return html`<div class="page narrow"><p><a href="#/">← Responses</a></p><h1 class="missing">${error.status === 404 ? "There is no such response" : "It can't be shown"}</h1><p class="mono">${id}</p><${Problem} error=${error} /></div>`;
  if (!job) return html`<p class="loading">Loading …</p>`;

  const failure = response?.error || (job.error && { code: job.error, message: "" });
  const tabs = [["output", "Output"], ["input", "Input"], ["events", events ? `Events ${count(job.events)}` : "Events"], ["json", "JSON"]];
  return html`<article class="page detail">
    <header class="title">
      <a href="#/" class="back" aria-label="Back to the list">←</a>
      <div class="what">
        <h1 class="mono" data-id=${id}>${id}</h1>
        <p class="line"><${Status} status=${status} /> <span>${job.model}</span> <span class="dim">${since(job, status, now)}</span></p>
      </div>
      <div class="acts">
        <${Copy} text=${id} label="Copy the id">Copy id<//>
        <${Copy} text=${curl(id, job.stream)} label="Copy as a curl command">Copy as curl<//>
        ${running && html`<button class="act" onClick=${cancel}>Cancel</button>`}
        <button class="act bad" onClick=${remove}>Delete</button>
      </div>
    </header>
    <${Problem} error=${error} />
    <${Timeline} job=${job} now=${now} running=${running} />
    ${failure && html`<section class="failure" aria-label="Error"><strong>${failure.code}</strong> <span>${failure.message}</span></section>`}
    ${response?.incomplete_details?.reason && html`<section class="failure mild"><strong>incomplete</strong> <span>It was cut short: ${response.incomplete_details.reason.replaceAll("_", " ")}.</span></section>`}
    <div class="columns">
      <section class="main">
        <div class="tabs" role="tablist">${tabs.map(([name, word]) => html`<button role="tab" aria-selected=${tab === name} onClick=${() => setTab(name)}>${word}</button>`)}</div>
        <div role="tabpanel" class="panel">
          ${tab === "output" && html`<${Output} output=${output} running=${running} status=${status} />`}
          ${tab === "input" && html`<${Input} id=${id} response=${response} />`}
          ${tab === "events" && html`<${Events} events=${events} all=${job.events} />`}
          ${tab === "json" && html`<pre class="json">${response ? JSON.stringify(response, null, 2) : "…"}</pre>`}
        </div>
      </section>
      <${Facts} job=${job} response=${response} />
    </div>
  </article>`;
}

function since(job, status, now) {
  if (status === "queued") return `waits for ${duration(now - job.created_at)}`;
  if (status === "in_progress") return `runs for ${duration(now - (job.started_at ?? job.created_at))}`;
  return `after ${duration((job.ended_at ?? now) - job.created_at)}, ${clock(job.ended_at)}`;
}

function curl(id, streamed) {
  const auth = key.get() ? ' -H "Authorization: Bearer $POLLUX_API_KEY"' : "";
  return streamed
    ? `curl -N${auth} '${API}responses/${id}?stream=true'`
    : `curl${auth} '${API}responses/${id}?wait=50'`;
}

function Output({ output, running, status }) {
  const end = useRef(null);
  const follows = useRef(true);
  // The end stays in sight while the text grows, unless somebody has scrolled up to read.
  useEffect(() => {
    const watch = () => { follows.current = innerHeight + scrollY >= document.documentElement.scrollHeight - 80; };
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
    get(`responses/${id}/input_items`, { limit: 100, order: "asc" }).then((list) => !over && setItems(list.data), (problem) => !over && setError(problem));
    return () => { over = true; };
  }, [id]);
  return html`<${Problem} error=${error} />
    ${response?.instructions && html`<details class="fold" open><summary>Instructions</summary><div class="text">${typeof response.instructions === "string" ? response.instructions : JSON.stringify(response.instructions, null, 2)}</div></details>`}
    ${items ? html`<${Items} items=${items} />` : !error && html`<p class="empty">Loading …</p>`}`;
}

function Events({ events, all }) {
  if (!events) return html`<p class="empty">It was created without <code>stream: true</code>, so its events can't be replayed to clients. The other tabs have what they add up to.</p>`;
  return html`<div class="events">
    ${all > events.length && html`<p class="dim">The last ${count(events.length)} of ${count(all)}.</p>`}
    ${events.slice(-500).reverse().map((event) => html`<details key=${event.sequence_number}><summary><span class="number">${event.sequence_number}</span> <span>${event.type}</span> <span class="dim delta">${typeof event.delta === "string" ? JSON.stringify(event.delta) : ""}</span></summary><pre class="json">${JSON.stringify(event, null, 2)}</pre></details>`)}
  </div>`;
}

const LABELS = [
  ["reasoning", (r) => r.reasoning?.effort], ["temperature", (r) => r.temperature], ["top_p", (r) => r.top_p],
  ["max output", (r) => r.max_output_tokens && count(r.max_output_tokens)], ["service tier", (r) => r.service_tier],
  ["tools", (r) => r.tools?.length > 0 && r.tools.map((tool) => tool.name || tool.type).join(", ")],
  ["format", (r) => r.text?.format?.type !== "text" && r.text?.format?.type], ["user", (r) => r.user],
  ["previous", (r) => r.previous_response_id && html`<a href="#/r/${r.previous_response_id}">${r.previous_response_id.slice(-12)}</a>`],
];

function Facts({ job, response }) {
  const used = response?.usage;
  const speed = used && job.first_event_at && job.ended_at > job.first_event_at ? used.output_tokens / (job.ended_at - job.first_event_at) : null;
  const fact = (name, value) => value != null && value !== "" && value !== false && html`<div><dt>${name}</dt><dd>${value}</dd></div>`;
  return html`<aside class="facts" aria-label="Facts"><dl>
    ${fact("Owner", job.owner)}
    ${fact("Created", clock(job.created_at))}
    ${fact("Queued for", duration((job.started_at ?? (UNFINISHED.has(job.status) ? Date.now() / 1000 : job.ended_at)) - job.created_at))}
    ${fact("First event", job.first_event_at && duration(job.first_event_at - job.started_at) + " after its start")}
    ${fact("Attempts", job.attempts || null)}
    ${fact("Deployment", job.deployment && html`${job.deployment.model ?? ""} <span class="dim">${job.deployment.provider ?? ""}</span><br /><span class="mono dim">${job.deployment.id.slice(0, 16)}</span>`)}
    ${fact("Worker", job.worker && html`<span class="mono">${job.worker}</span>`)}
    ${fact("Events", count(job.events))}
    ${used && fact("Tokens", html`${count(used.input_tokens)} in <span class="dim">${used.input_tokens_details?.cached_tokens ? `(${count(used.input_tokens_details.cached_tokens)} cached)` : ""}</span><br />${count(used.output_tokens)} out <span class="dim">${used.output_tokens_details?.reasoning_tokens ? `(${count(used.output_tokens_details.reasoning_tokens)} to reason)` : ""}</span>`)}
    ${fact("Speed", speed && `${speed.toFixed(speed < 10 ? 1 : 0)} tokens/s`)}
    ${response && LABELS.map(([name, of]) => fact(name, of(response)))}
    ${Object.keys(job.metadata || {}).length > 0 && fact("Metadata", html`<${Metadata} metadata=${job.metadata} />`)}
  </dl></aside>`;
}
