// Sends a request in any of the ways, and shows what comes of it.

import { html, useState } from "./vendor/htm-preact.js";
import { ask, events } from "./api.js";
import { Items } from "./items.js";
import { Fold } from "./output.js";
import { Problem } from "./parts.js";

const WAYS = [
  ["background", "In the background", "Answered at once with an id. The job goes on by itself."],
  ["background-stream", "In the background, streamed", "The same, and its events can be followed and resumed."],
  ["stream", "Streamed", "Passed on to the provider, and the answer back, as it comes."],
  ["plain", "In one piece", "Passed on, and answered when the provider has ended."],
];

export function Playground({ models, open }) {
  const [model, setModel] = useState("");
  const [way, setWay] = useState("background-stream");
  const [input, setInput] = useState("Tell me a three sentence bedtime story about a unicorn.");
  const [more, setMore] = useState("");
  const [error, setError] = useState(null);
  const [answer, setAnswer] = useState(null);
  const [busy, setBusy] = useState(false);
  const chosen = model || models.find((name) => !name.includes("*")) || "";

  const send = async (event) => {
    event.preventDefault();
    setError(null); setAnswer(null); setBusy(true);
    try {
      const extra = more.trim() ? JSON.parse(more) : {};
      const body = { model: chosen, input, ...extra };
      if (way.startsWith("background")) body.background = true;
      if (way.endsWith("stream")) body.stream = true;
      const came = await ask("responses", { method: "POST", body });
      if (!body.stream) {
        const response = await came.json();
        if (body.background) return open(response.id);
        setAnswer({ output: response.output || [], status: response.status });
      } else {
        const fold = new Fold();
        for await (const { data } of events(came)) {
          if (!data || data === "[DONE]") continue;
          const said = JSON.parse(data);
          if (body.background && said.response?.id) return open(said.response.id);
          fold.take({ ...said, sequence_number: undefined });
          setAnswer({ output: [...fold.output], status: fold.response?.status });
        }
      }
    } catch (problem) {
      setError(problem instanceof SyntaxError ? new Error(`The further fields are no JSON: ${problem.message}`) : problem);
    } finally { setBusy(false); }
  };

  return html`<div class="page narrow"><h1>Playground</h1>
    <form class="form" onSubmit=${send}>
      <label>Model <select value=${chosen} onChange=${(event) => setModel(event.target.value)}>${models.map((name) => html`<option value=${name}>${name}</option>`)}</select></label>
      <fieldset><legend>How</legend>${WAYS.map(([name, word, note]) => html`<label class="way"><input type="radio" name="way" value=${name} checked=${way === name} onChange=${() => setWay(name)} /><span><strong>${word}</strong><br /><span class="dim">${note}</span></span></label>`)}</fieldset>
      <label>Input <textarea rows="5" value=${input} onInput=${(event) => setInput(event.target.value)} onKeyDown=${(event) => { if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) send(event); }}></textarea></label>
      <details class="fold"><summary>Further fields</summary><label>JSON that is put into the request <textarea rows="4" class="mono" placeholder='{"instructions": "Be brief.", "metadata": {"team": "red"}}' value=${more} onInput=${(event) => setMore(event.target.value)}></textarea></label></details>
      <p><button class="act main" disabled=${busy || !chosen}>${busy ? "Waiting …" : "Send"}</button> <span class="dim">Ctrl + Enter</span></p>
    </form>
    <${Problem} error=${error} />
    ${answer && html`<section class="panel" aria-live="polite"><${Items} items=${answer.output.filter(Boolean)} grows=${busy} /></section>`}
  </div>`;
}
