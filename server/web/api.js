// Talks to Pollux: with the key of this tab, which goes nowhere else and ends with the tab.

export const API = new URL("../v1/", location.href.split("#")[0]);
const KEY = "pollux-key";
const SILENT_MS = 40_000; // the server sends a heartbeat every 15 s: after this long the connection is taken for dead

export const key = {
  get: () => sessionStorage.getItem(KEY) || "",
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

export class ApiError extends Error {
  constructor(status, message, retryAfter) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

// A name as one part of a path. "." and ".." would lead to another place, in any spelling.
export function part(name) {
  if (/^\.{0,2}$/.test(name)) throw new ApiError(404, "This is the id of nothing.");
  return encodeURIComponent(name).replaceAll("'", "%27");
}

export async function ask(path, { method = "GET", body, query, signal, headers } = {}) {
  const url = new URL(path, API);
  for (const [name, value] of Object.entries(query || {})) {
    if (value !== "" && value != null) url.searchParams.set(name, value);
  }
  const sent = { ...headers };
  if (key.get()) sent.Authorization = `Bearer ${key.get()}`;
  if (body !== undefined) sent["Content-Type"] = "application/json";
  const sentAt = Date.now();
  let answer;
  try {
    answer = await fetch(url, { method, headers: sent, body: body === undefined ? undefined : JSON.stringify(body), signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The server can't be reached. This page tries again by itself.");
  }
  hear(Date.parse(answer.headers.get("Date")), sentAt, Date.now());
  if (!answer.ok && answer.status !== 304) throw await refusal(answer);
  return answer;
}

async function refusal(answer) {
  let message = `The server answered ${answer.status}.`;
  try {
    message = (await answer.json()).error.message || message;
  } catch { /* not ours: a proxy in between */ }
  return new ApiError(answer.status, message, Number(answer.headers.get("Retry-After")) || null);
}

export async function get(path, query, options) {
  return (await ask(path, { query, ...options })).json();
}

// The server's clock and this one's may differ. Each answer has its Date, in whole seconds, and was made between the
// sending of the request and the arrival of the answer: so each says by how much at least and at most.
let least = -Infinity, most = Infinity;

function hear(date, sentAt, cameAt) {
  if (Number.isNaN(date)) return;
  const [low, high] = [date - cameAt, date + 1000 - sentAt];
  [least, most] = [Math.max(least, low), Math.min(most, high)];
  if (least > most) [least, most] = [low, high]; // somebody has set one of the clocks
}

// The server's time, in seconds. Where both clocks may be right, it is this one's.
export const now = () => (Date.now() + Math.min(Math.max(0, least), most)) / 1000;

// The server-sent events of an answer, as they come. It ends with the answer, and throws where the connection breaks,
// or has been silent for longer than heartbeats leave it.
export async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    while (true) {
      const { done, value } = await within(SILENT_MS, reader.read());
      if (done) return;
      rest += value;
      let end;
      while ((end = rest.indexOf("\n\n")) >= 0) {
        const block = rest.slice(0, end);
        rest = rest.slice(end + 2);
        const event = { name: "message", data: "", id: null };
        for (const line of block.split("\n")) {
          if (line.startsWith("event: ")) event.name = line.slice(7);
          else if (line.startsWith("data: ")) event.data += line.slice(6);
          else if (line.startsWith("id: ")) event.id = line.slice(4);
        }
        if (event.data || event.id !== null) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function within(ms, promise) {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new ApiError(0, "The connection has gone silent.")), ms); });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// Ends after so long, or as soon as `signal` says stop.
export const pause = (ms, signal) => new Promise((resolve) => {
  const over = () => { clearTimeout(timer); signal?.removeEventListener("abort", over); resolve(); };
  const timer = setTimeout(over, ms);
  if (signal?.aborted) over();
  else signal?.addEventListener("abort", over);
});
