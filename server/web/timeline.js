// The life of a response, to scale: where its time went.

import { html } from "./vendor/htm-preact.js";
import { clock, duration } from "./format.js";

export function Timeline({ job, status, now, running }) {
  const from = job.created_at;
  const until = Math.max(running ? now : job.ended_at ?? now, from + 0.001);
  const at = (time) => Math.min(100, Math.max(0, ((time - from) / (until - from)) * 100));
  const life = job.life || [];
  const runs = life.filter((phase) => phase.phase === "run");
  const tries = runs.flatMap((run) => run.failed_tries || []);
  return html`<section class="timeline" aria-label="Its life">
    <div class="bar">
      ${life.map((phase) => {
        const [begin, end] = [at(phase.from), at(phase.until ?? until)];
        const words = phase.phase === "run"
          ? `Attempt ${phase.attempt}${phase.worker ? ` on ${phase.worker}` : ""}: ${duration((phase.until ?? until) - phase.from)}${phase.released ? ", handed back" : ""}`
          : `Queued: ${duration((phase.until ?? until) - phase.from)}`;
        return html`<span class="phase ${phase.phase} ${phase.until == null && running ? "open" : ""} ${phase.reclaimed ? "reclaimed" : ""}"
          style=${{ left: `${begin}%`, width: `${Math.max(end - begin, 0.4)}%` }} title=${words}><span>${end - begin > 14 ? (phase.phase === "run" ? (runs.length > 1 ? `attempt ${phase.attempt}` : "run") : "queued") : ""}</span></span>`;
      })}
      ${tries.map((one) => html`<span class="mark try" style=${{ left: `${at(one.at)}%` }} title=${`${clock(one.at)} ${one.code || ""}: ${one.reason}`}></span>`)}
      ${job.first_event_at && html`<span class="mark first" style=${{ left: `${at(job.first_event_at)}%` }} title=${`First event after ${duration(job.first_event_at - from)}`}></span>`}
    </div>
    <div class="scale"><span>${clock(from)}</span><span>${duration((until - from) / 2)}</span><span>${running ? "now" : duration(until - from)}</span></div>
    <ol class="story">
      <li><time>${clock(job.created_at)}</time> created${job.stream ? ", with a stream" : ""}</li>
      ${life.map((phase, number) => phase.phase === "run" && html`
        <li><time>+${duration(phase.from - from)}</time> ${phase.reclaimed ? html`<strong class="warn">taken over</strong>, because its worker had gone silent` : "leased"}${phase.worker ? html` by <span class="mono">${phase.worker}</span>` : ""}${runs.length > 1 ? `, attempt ${phase.attempt}` : ""}</li>
        ${(phase.failed_tries || []).map((one) => html`<li class="warn"><time>+${duration(one.at - from)}</time> a try failed${one.deployment ? html` at <span class="mono">${one.deployment.slice(0, 8)}</span>` : ""}${one.model !== job.model ? ` (${one.model})` : ""}: ${one.reason}</li>`)}
        ${phase.released && html`<li><time>+${duration(phase.until - from)}</time> handed back, to be run elsewhere</li>`}
        ${number === life.length - 1 && job.first_event_at >= phase.from && html`<li><time>+${duration(job.first_event_at - from)}</time> first event of the provider</li>`}`)}
      ${job.ended_at && html`<li><time>+${duration(job.ended_at - from)}</time> ${status}</li>`}
    </ol>
  </section>`;
}
