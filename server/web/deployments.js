// How the deployments do, at all replicas together, and which processes there are.

import { html, useState } from "./vendor/htm-preact.js";
import { get } from "./api.js";
import { brief, clock, count, duration } from "./format.js";
import { usePolls } from "./looking.js";
import { Problem, useNow } from "./parts.js";

const EVERY_MS = 3000;

export function Deployments() {
  const [found, setFound] = useState(null);
  const [processes, setProcesses] = useState(null);
  const [error, setError] = useState(null);
  const now = useNow();
  usePolls(async (signal) => {
    try {
      const told = await get("deployments", {}, { signal });
      const isMaster = told.data.some((one) => one.cooling_at !== null); // only the master key is told where
      const all = isMaster ? await get("processes", {}, { signal }) : null;
      setFound(told); setProcesses(all?.data ?? null); setError(null);
    } catch (problem) { if (!signal.aborted) setError(problem); }
  }, EVERY_MS);
  return html`<div class="page"><h1>Deployments</h1>
    <${Problem} error=${error} />
    ${found && html`<p class="dim">How their calls went at all replicas together, within the last ${duration(found.within_s)}.</p>
      <${Table} heads=${["Model", "Deployment", "State"]} numbers=${["In flight", "Calls", "Failed", "First event", "Whole call"]} rows=${found.data.map(deploymentRow)} />
      ${!found.data.length && html`<p class="empty">The config names no deployment for the models of this key.</p>`}`}
    ${processes && html`<h2>Processes</h2>
      <${Table} heads=${["Process", "Role", "Version"]} numbers=${["Up for", "Runs", "Waiters", "Streams", "Heard of"]} rows=${processes.map((one) => processRow(one, now))} />`}
  </div>`;
}

// The numbers carry the name of their column: on a phone there is no head above them.
const Table = ({ heads, numbers, rows }) => html`<div class="scroll"><table class="plain">
  <thead><tr>${heads.map((name) => html`<th>${name}</th>`)}${numbers.map((name) => html`<th class="n">${name}</th>`)}</tr></thead>
  <tbody>${rows.map(({ key, words, values }) => html`<tr key=${key}>
    ${words.map((word) => html`<td>${word}</td>`)}${values.map((value, at) => html`<td class="n" data-name=${numbers[at]}>${value}</td>`)}
  </tr>`)}</tbody>
</table></div>`;

const deploymentRow = (one) => ({
  key: one.id,
  words: [
    one.model,
    html`${one.upstream_model} <span class="dim">${one.provider}${one.dialect !== "responses" ? `, ${one.dialect}` : ""}</span><br /><span class="mono dim">${one.id.slice(0, 16)}</span>`,
    html`<span class="state ${one.state}">${STATES[one.state]}</span>${one.cools_for_s > 0 && html` <span class="dim">for ${duration(one.cools_for_s)}</span>`}${one.cooling_at?.length > 0 && html`<br /><span class="dim mono">${one.cooling_at.join(", ")}</span>`}`,
  ],
  values: [
    html`${one.in_flight}${one.most_in_flight ? html`<span class="dim"> / ${one.most_in_flight}</span>` : ""}`,
    count(one.calls),
    html`<${Failed} failed=${one.failed} calls=${one.calls} />`,
    brief(one.first_event_median_s),
    brief(one.median_s),
  ],
});

const processRow = (one, now) => ({
  key: one.id,
  words: [html`<span class="mono">${one.id}</span> ${one.leaving && html`<span class="state cooling">leaving</span>`}`, one.role, one.version],
  values: [
    html`<span title=${clock(one.started_at)}>${brief(now - one.started_at)}</span>`, count(one.runs), count(one.waiters), count(one.streams),
    `${brief(Math.max(0, now - one.reported_at))} ago`,
  ],
});

const STATES = { healthy: "healthy", cooling: "cools down", partly_cooling: "cools down at some", unusable: "can't be used" };

function Failed({ failed, calls }) {
  if (!failed) return "0";
  const percent = (failed / calls) * 100;
  return html`${count(failed)} <span class="dim">${percent < 1 ? "<1" : Math.round(percent)}%</span> <span class="share" aria-hidden="true"><span style=${{ width: `${percent}%` }}></span></span>`;
}
