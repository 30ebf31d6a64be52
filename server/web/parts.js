// The small parts that all views are made of.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { now as serverNow } from "./api.js";
import { ownPart, WORDS } from "./format.js";

export const Logo = ({ big }) => html`<svg class="logo ${big ? "big" : ""}" viewBox="0 0 32 32" aria-hidden="true"><path d="M9 23 23 9" class="tie" /><circle cx="9" cy="23" r="4" class="castor" /><circle cx="23" cy="9" r="5.2" class="pollux" /></svg>`;

// Each status has a shape of its own, so that nobody has to tell colours apart.
const SHAPES = {
  queued: html`<circle cx="7" cy="7" r="5" fill="none" stroke="currentColor" stroke-width="1.6" stroke-dasharray="2.2 2" />`,
  in_progress: html`<circle cx="7" cy="7" r="5" fill="none" stroke="currentColor" stroke-width="1.6" opacity=".3" /><path d="M7 2a5 5 0 0 1 5 5" fill="none" stroke="currentColor" stroke-width="1.8" stroke-linecap="round" class="turns" />`,
  completed: html`<circle cx="7" cy="7" r="6" fill="currentColor" /><path d="m4.4 7.2 1.8 1.8 3.5-3.8" fill="none" stroke="var(--surface)" stroke-width="1.6" stroke-linecap="round" stroke-linejoin="round" />`,
  failed: html`<path d="M7 1 13 7 7 13 1 7Z" fill="currentColor" /><path d="M7 4.2v3.4M7 9.4v.2" stroke="var(--surface)" stroke-width="1.6" stroke-linecap="round" />`,
  incomplete: html`<circle cx="7" cy="7" r="5.2" fill="none" stroke="currentColor" stroke-width="1.6" /><path d="M7 1.8a5.2 5.2 0 0 0 0 10.4Z" fill="currentColor" />`,
  cancelled: html`<circle cx="7" cy="7" r="5.2" fill="none" stroke="currentColor" stroke-width="1.6" /><path d="m3.6 10.4 6.8-6.8" stroke="currentColor" stroke-width="1.6" />`,
};

export const Shape = ({ status }) => html`<svg class="shape" viewBox="0 0 14 14" width="14" height="14" aria-hidden="true">${SHAPES[status]}</svg>`;

export const Status = ({ status }) => html`<span class="status ${status}"><${Shape} status=${status} /><span>${WORDS[status] || status}</span></span>`;

export const Id = ({ id }) => html`<span class="id" title=${id}>${ownPart(id)}</span>`;

// A line of numbers, one a minute, the last one on the right.
export function Spark({ numbers, label }) {
  const most = Math.max(1, ...numbers);
  const width = 120, height = 26;
  const step = width / Math.max(1, numbers.length - 1);
  const points = numbers.map((number, at) => `${(at * step).toFixed(1)},${(height - 2 - (number / most) * (height - 5)).toFixed(1)}`);
  return html`<svg class="spark" viewBox="0 0 ${width} ${height}" preserveAspectRatio="none" role="img" aria-label=${label}>
    <polygon points="0,${height} ${points.join(" ")} ${width},${height}" class="area" />
    <polyline points=${points.join(" ")} class="line" vector-effect="non-scaling-stroke" />
  </svg>`;
}

// The server's time, again and again, so that ages grow.
export function useNow(everyMs = 1000, running = true) {
  const [now, set] = useState(serverNow());
  useEffect(() => {
    if (!running) return undefined;
    set(serverNow());
    const timer = setInterval(() => { if (!document.hidden) set(serverNow()); }, everyMs);
    return () => clearInterval(timer);
  }, [everyMs, running]);
  return now;
}

export function Copy({ text, children, label }) {
  const [done, set] = useState(false);
  const copy = async () => {
    const copied = typeof text === "function" ? text() : text;
    try { await navigator.clipboard.writeText(copied); } catch { select(copied); }
    set(true);
    setTimeout(() => set(false), 1200);
  };
  return html`<button class="quiet" onClick=${copy} aria-label=${label}>${done ? "Copied" : children}</button>`;
}

// Where a page may not write to the clipboard (no https), the old way still works.
function select(text) {
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

export const Metadata = ({ metadata }) => Object.entries(metadata || {}).map(([name, value]) =>
  html`<span class="tag"><span class="dim">${name}</span> ${String(value)}</span>`);

// A box above all else. The browser keeps the keyboard in it, and closes it with Esc.
export function Dialog({ label, close, children, ...more }) {
  const box = useRef(null);
  useEffect(() => { box.current.showModal(); }, []);
  return html`<dialog ref=${box} class="box" onClose=${close} onClick=${(event) => { if (event.target === box.current) box.current.close(); }} aria-label=${label} ...${more}>${children}</dialog>`;
}

export const Problem = ({ error }) => error && html`<p class="problem" role="alert">${error.message}${error.status === 403 || error.status === 401 ? html` <a href="#/key">Give another key</a>` : ""}</p>`;
