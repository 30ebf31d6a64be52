// A response while it grows: from its stream where it has one, else from GETs that wait for the next change.

import { ask, events, part, pause } from "./api.js";
import { UNFINISHED } from "./format.js";
import { untilLookedAt, whileLookedAt } from "./looking.js";

export const MOST_EVENTS = 2000; // are kept to be shown, the last ones

// Adds up events into an output, as the server does.
export class Fold {
  constructor() { this.output = []; this.response = null; this.last = -1; this.events = []; this.count = 0; }

  take(event) {
    if (event.sequence_number <= this.last) return;
    this.last = event.sequence_number ?? this.last + 1;
    this.count += 1;
    this.events.push(event);
    if (this.events.length > MOST_EVENTS) this.events.splice(0, this.events.length - MOST_EVENTS);
    if (event.response) {
      this.response = event.response;
      if (event.response.output?.length) this.output = event.response.output;
      return;
    }
    const item = this.output[event.output_index];
    switch (event.type) {
      case "response.output_item.added":
      case "response.output_item.done":
        this.output[event.output_index] = event.item;
        break;
      case "response.content_part.added":
      case "response.content_part.done":
        if (item) (item.content ??= [])[event.content_index] = event.part;
        break;
      case "response.reasoning_summary_part.added":
      case "response.reasoning_summary_part.done":
        if (item) (item.summary ??= [])[event.summary_index] = event.part;
        break;
      case "response.output_text.delta": add(item, "content", event.content_index, "output_text", "text", event.delta); break;
      case "response.refusal.delta": add(item, "content", event.content_index, "refusal", "refusal", event.delta); break;
      case "response.reasoning_text.delta": add(item, "content", event.content_index, "reasoning_text", "text", event.delta); break;
      case "response.reasoning_summary_text.delta": add(item, "summary", event.summary_index, "summary_text", "text", event.delta); break;
      case "response.function_call_arguments.delta":
      case "response.mcp_call_arguments.delta":
        if (item) item.arguments = (item.arguments || "") + event.delta;
        break;
      case "response.custom_tool_call_input.delta":
        if (item) item.input = (item.input || "") + event.delta;
        break;
      case "response.code_interpreter_call_code.delta":
        if (item) item.code = (item.code || "") + event.delta;
        break;
    }
  }
}

function add(item, list, index, type, field, delta) {
  if (!item) return;
  const part = ((item[list] ??= [])[index ?? 0] ??= { type, [field]: "" });
  part[field] = (part[field] || "") + delta;
}

// Follows one response until it has ended or `signal` says stop. `told` gets {response, output, events}.
export async function follow(id, streamed, told, signal) {
  const fold = streamed ? new Fold() : null;
  let etag = null;
  while (!signal.aborted) {
    const looking = whileLookedAt(signal);
    try {
      if (fold) {
        if (await stream(id, fold, told, looking)) return;
        await pause(AGAIN_MS, looking);
      } else {
        etag = await wait(id, etag, told, looking);
        if (etag === ENDED) return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error.status && error.status < 500 && error.status !== 429) throw error;
      if (!looking.aborted) await pause(AGAIN_MS, signal);
    }
    await untilLookedAt(signal);
  }
}

const AGAIN_MS = 800;
const ENDED = Symbol("ended");

// Asks for the response as soon as it is another than that of `etag`. Gives the new one's tag.
async function wait(id, etag, told, signal) {
  const answer = await ask(`responses/${part(id)}`, { query: etag ? { wait: 25, after: etag } : {}, signal });
  const text = await answer.text();
  const response = JSON.parse(text);
  told({ response, output: response.output || [], events: null });
  if (!UNFINISHED.has(response.status)) return ENDED;
  const tag = answer.headers.get("ETag")?.replace(/^W\//, "").replaceAll('"', "");
  // A page need not see each word come by itself, the less so the more comes with it. Without a tag one can only poll.
  await pause(tag ? 60 + text.length / 1000 : 2000, signal);
  return tag ?? null;
}

async function stream(id, fold, told, signal) {
  const query = { stream: "true", starting_after: fold.last >= 0 ? fold.last : null, include_obfuscation: "false" };
  let waiting = false;
  const tell = () => { waiting = false; if (!signal.aborted) told(state(fold)); };
  for await (const { data } of events(await ask(`responses/${part(id)}`, { query, signal }))) {
    if (!data || data === "[DONE]") continue;
    fold.take(JSON.parse(data));
    if (!waiting) { waiting = true; requestAnimationFrame(tell); }
  }
  if (!fold.response || UNFINISHED.has(fold.response.status)) return false;
  const response = await (await ask(`responses/${part(id)}`, { signal })).json();
  told({ ...state(fold), response, output: response.output || fold.output });
  return true;
}

const state = (fold) => ({ response: fold.response, output: [...fold.output], events: fold.events });
