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
      <div class="scroll"><table class="plain">
        <thead><tr><th>Model</th><th>Deployment</th><th>State</th><th class="n">In flight</th><th class="n">Calls</th><th class="n">Failed</th><th class="n">First event</th><th class="n">Whole call</th></tr></thead>
        <tbody>${found.data.map((one) => html`<tr key=${one.id}>
          <td>${one.model}</td>
          <td>${one.upstream_model} <span class="dim">${one.provider}${one.dialect !== "responses" ? `, ${one.dialect}` : ""}</span><br /><span class="mono dim">${one.id.slice(0, 16)}</span></td>
          <td><span class="state ${one.state}">${STATES[one.state]}</span>${one.cools_for_s > 0 && html` <span class="dim">for ${duration(one.cools_for_s)}</span>`}${one.cooling_at?.length > 0 && html`<br /><span class="dim mono">${one.cooling_at.join(", ")}</span>`}</td>
          <td class="n">${one.in_flight}${one.most_in_flight ? html`<span class="dim"> / ${one.most_in_flight}</span>` : ""}</td>
          <td class="n">${count(one.calls)}</td>
          <td class="n"><${Share} failed=${one.failed} calls=${one.calls} /></td>
          <td class="n">${one.first_event_median_s == null ? "–" : brief(one.first_event_median_s)}</td>
          <td class="n">${one.median_s == null ? "–" : brief(one.median_s)}</td>
        </tr>`)}</tbody>
      </table></div>
      ${!found.data.length && html`<p class="empty">The config names no deployment for the models of this key.</p>`}`}
    ${processes && html`<h2>Processes</h2><div class="scroll"><table class="plain">
      <thead><tr><th>Process</th><th>Role</th><th>Version</th><th class="n">Up for</th><th class="n">Runs</th><th class="n">Waiters</th><th class="n">Streams</th><th class="n">Heard of</th></tr></thead>
      <tbody>${processes.map((one) => html`<tr key=${one.id}><td class="mono">${one.id} ${one.leaving && html`<span class="state cooling">leaving</span>`}</td><td>${one.role}</td><td>${one.version}</td>
        <td class="n" title=${clock(one.started_at)}>${brief(now - one.started_at)}</td><td class="n">${count(one.runs)}</td><td class="n">${count(one.waiters)}</td><td class="n">${count(one.streams)}</td><td class="n">${brief(Math.max(0, now - one.reported_at))} ago</td></tr>`)}</tbody>
    </table></div>`}
  </div>`;
}

const STATES = { healthy: "healthy", cooling: "cools down", partly_cooling: "cools down at some", unusable: "can't be used" };

const Share = ({ failed, calls }) => html`${count(failed)} ${calls > 0 && html`<span class="share" role="img" aria-label=${`${Math.round((failed / calls) * 100)} percent`}><span style=${{ width: `${(failed / calls) * 100}%` }}></span></span>`}`;
