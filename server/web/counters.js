// What there is now, and what the last hour was like.

import { html, useState } from "./vendor/htm-preact.js";
import { get, now } from "./api.js";
import { count, WORDS } from "./format.js";
import { usePolls } from "./looking.js";
import { Shape, Spark } from "./parts.js";

const EVERY_MS = 4000;
const ENDS = ["completed", "failed", "incomplete", "cancelled"];

export function Counters({ jobs, narrow }) {
  const [told, setTold] = useState(null);
  usePolls(async (signal) => {
    try { setTold(await get("tallies", {}, { signal })); } catch { /* the list tells of it */ }
  }, EVERY_MS);
  const minutes = told?.data || [];
  const of = (status) => minutes.map((minute) => minute[status] || 0);
  const ended = minutes.map((minute) => ENDS.reduce((sum, status) => sum + (minute[status] || 0), 0));
  const pick = (status) => () => narrow({ status: jobs.filter.status === status ? "" : status });
  const counter = (status, name, number, note) => html`<${Counter} name=${name} status=${status} number=${number} note=${note}
    numbers=${of(status)} isOn=${jobs.filter.status === status} onClick=${pick(status)} />`;
  return html`<section class="counters" aria-label="The last hour" tabindex="-1">
    ${counter("queued", "Queued", told?.queued, "now")}
    ${counter("in_progress", "Running", told?.running, "now")}
    ${ENDS.map((status) => counter(status, WORDS[status], told ? sum(of(status)) : null, "last hour"))}
    <${Counter} name="Ended" number=${perSecond(ended)} note="per second" numbers=${ended} />
  </section>`;
}

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

// Of the last sixty seconds: of this minute all, and of the one before as much as is not yet over a minute ago.
function perSecond(perMinute) {
  if (perMinute.length < 2) return null;
  const rate = (perMinute.at(-1) + perMinute.at(-2) * (1 - (now() % 60) / 60)) / 60;
  return rate < 10 ? rate.toFixed(rate < 0.1 && rate > 0 ? 2 : 1) : rate.toFixed(0);
}

function Counter({ name, status, number, note, numbers, isOn, onClick }) {
  const most = Math.max(0, ...numbers);
  const inside = html`<span class="name">${status && html`<${Shape} status=${status} />`}${name}</span>
    <span class="number">${typeof number === "string" ? number : count(number)}</span>
    <span class="note">${note}</span>
    <${Spark} numbers=${numbers.length ? numbers : [0, 0]} label=${`per minute in the last hour: at most ${most}`} />`;
  return onClick
    ? html`<button class="counter ${status}" aria-pressed=${isOn} onClick=${onClick}>${inside}</button>`
    : html`<div class="counter">${inside}</div>`;
}
