// Sends a request in any of the ways, and shows what comes of it.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { API, ask, events, key } from "./api.js";
import { count, UNFINISHED } from "./format.js";
import { Items } from "./items.js";
import { Fold } from "./output.js";
import { Copy, Problem, Status } from "./parts.js";
import { toResponse } from "./place.js";

const WAYS = [
  ["background", "In the background", "Answered at once with an id. The job goes on by itself."],
  ["background-stream", "In the background, streamed", "The same, and its events can be followed and resumed."],
  ["stream", "Streamed", "Passed on to the provider, and the answer back, as it comes."],
  ["plain", "In one piece", "Passed on, and answered when the provider has ended."],
];

// Raises SyntaxError where the further fields are none.
function bodyOf({ model, way, input, more }) {
  const body = { model, input, ...(more.trim() ? JSON.parse(more) : {}) };
  if (way.startsWith("background")) body.background = true;
  if (way.endsWith("stream")) body.stream = true;
  return body;
}

function curl(form) {
  let body;
  try { body = bodyOf(form); } catch { body = bodyOf({ ...form, more: "" }); }
  const auth = key.get() ? ' -H "Authorization: Bearer $POLLUX_API_KEY"' : "";
  const text = JSON.stringify(body).replaceAll("'", "'\\''");
  return `curl${body.stream ? " -N" : ""}${auth} -H "Content-Type: application/json" ${API}responses -d '${text}'`;
}

export function Playground({ models, open }) {
  const [form, setForm] = useState({ model: null, way: "background-stream", input: "Tell me a three sentence bedtime story about a unicorn.", more: "" });
  const [error, setError] = useState(null);
  const [answer, setAnswer] = useState(null);
  const [stop, setStop] = useState(null);
  const running = useRef(null);
  useEffect(() => () => running.current?.abort(), []);
  const names = (models ?? []).filter((name) => !name.includes("*"));
  const chosen = { ...form, model: form.model ?? names[0] ?? "" };
  const change = (name) => (event) => setForm({ ...form, [name]: event.target.value });

  const send = async (event) => {
    event.preventDefault();
    if (stop || !chosen.model) return;
    const asking = running.current = new AbortController();
    setError(null); setAnswer(null); setStop(asking);
    try {
      await sendRequest(bodyOf(chosen), asking.signal, setAnswer, open);
    } catch (problem) {
      if (problem instanceof SyntaxError) setError(new Error(`The further fields are no JSON: ${problem.message}`));
      else if (!asking.signal.aborted) setError(problem);
    } finally { setStop(null); }
  };

  return html`<div class="page narrow"><h1>Playground</h1>
    <form class="form" onSubmit=${send}>
      <label>Model <input list="models" value=${chosen.model} onInput=${change("model")} spellcheck="false" autocomplete="off" /></label>
      <datalist id="models">${names.map((name) => html`<option value=${name}></option>`)}</datalist>
      ${models && !models.length && html`<p class="notice">This key may use no model.</p>`}
      <fieldset><legend>How</legend>${WAYS.map(([name, word, says]) => html`<label class="way"><input type="radio" name="way" value=${name} checked=${form.way === name} onChange=${() => setForm({ ...form, way: name })} /><span><strong>${word}</strong><br /><span class="dim">${says}</span></span></label>`)}</fieldset>
      <label>Input <textarea rows="5" dir="auto" value=${form.input} onInput=${change("input")} onKeyDown=${(event) => { if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) send(event); }}></textarea></label>
      <details class="fold"><summary>Further fields</summary><label>JSON that is put into the request <textarea rows="4" class="mono" spellcheck="false" placeholder='{"instructions": "Be brief.", "metadata": {"team": "red"}}' value=${form.more} onInput=${change("more")}></textarea></label></details>
      <p class="acts">${stop
        ? html`<button type="button" class="act" onClick=${() => stop.abort()}>Stop</button>`
        : html`<button class="act main" disabled=${!chosen.model}>Send</button>`}
        <${Copy} text=${() => curl(chosen)} label="Copy as curl">Copy as curl<//> <span class="dim hint">Ctrl + Enter sends</span></p>
    </form>
    <${Problem} error=${error} />
    ${(answer || stop) && html`<${Answer} answer=${answer} busy=${Boolean(stop)} />`}
  </div>`;
}

function Answer({ answer, busy }) {
  const { response, output = [] } = answer ?? {};
  const status = response && (busy || !UNFINISHED.has(response.status) ? response.status : null);
  const { usage, error } = response ?? {};
  return html`<section class="panel" aria-label="Answer" aria-busy=${busy}>
    <p class="line">${status ? html`<${Status} status=${status} />` : html`<span class="dim">${busy ? "It has been sent." : "It was broken off."}</span>`}
      ${response?.id && html`<a class="mono" href=${toResponse(response.id)}>…${response.id.slice(-12)}</a>`}
      ${usage && html`<span class="dim">${count(usage.input_tokens)} tokens in, ${count(usage.output_tokens)} out</span>`}</p>
    ${error && html`<p class="failure"><strong>${error.code}</strong> ${error.message}</p>`}
    <${Items} items=${output.filter(Boolean)} grows=${busy} />
    ${busy && html`<p class="caret-line" aria-hidden="true"><span class="caret"></span></p>`}
  </section>`;
}

// What runs in the background is watched on its own page: `open` goes there.
async function sendRequest(body, signal, told, open) {
  const came = await ask("responses", { method: "POST", body, signal });
  if (!body.stream) {
    const response = await came.json();
    return body.background ? open(response.id) : told({ response, output: response.output });
  }
  const fold = new Fold();
  for await (const { data } of events(came)) {
    if (!data || data === "[DONE]") continue;
    const said = JSON.parse(data);
    if (body.background && said.response?.id) return open(said.response.id);
    if (said.type === "error") throw new Error(said.message ?? said.error?.message ?? "The provider broke off.");
    fold.take(said);
    told({ response: fold.response, output: [...fold.output] });
  }
}
