// The items of an input or an output. All that a provider or a client has said is shown as text, and never as markup.

import { html } from "./vendor/htm-preact.js";

export const Items = ({ items, grows }) => items.map((item, at) => html`<${Item} key=${item.id || at} item=${item} last=${at === items.length - 1} grows=${grows} />`);

function Item({ item, last, grows }) {
  switch (item.type || (item.role && "message")) {
    case "message": return html`<${Message} item=${item} />`;
    case "reasoning": return html`<${Reasoning} item=${item} open=${last && grows} />`;
    case "function_call":
    case "mcp_call":
      return html`<${Call} name=${item.name} says=${item.arguments} note=${item.type === "mcp_call" ? item.server_label : ""} result=${item.output} />`;
    case "custom_tool_call": return html`<${Call} name=${item.name} says=${item.input} />`;
    case "function_call_output":
    case "custom_tool_call_output":
      return html`<details class="fold tool"><summary>Result <span class="dim">of ${item.call_id}</span></summary><pre class="json">${pretty(item.output)}</pre></details>`;
    case "web_search_call": return html`<${Call} name="web search" says=${item.action?.query || item.action?.url || ""} note=${item.status} />`;
    case "image_generation_call": return html`<${Picture} source=${item.result && `data:image/${item.output_format || "png"};base64,${item.result}`} name="Generated image" raw=${item} />`;
    case "code_interpreter_call": return html`<${Call} name="code interpreter" says=${item.code || ""} result=${item.outputs} />`;
    default:
      return html`<details class="fold tool"><summary>${(item.type || "item").replaceAll("_", " ")}</summary><pre class="json">${shortened(item)}</pre></details>`;
  }
}

function Message({ item }) {
  const content = typeof item.content === "string" ? [{ type: "text", text: item.content }] : item.content || [];
  return html`<div class="message ${item.role}">
    <p class="role">${item.role}</p>
    ${content.filter(Boolean).map((part) => {
      if (part.type === "refusal") return html`<div class="text refusal" dir="auto">${part.refusal}</div>`;
      if (part.text !== undefined) return html`<div class="text" dir="auto">${part.text}${(part.annotations || []).length > 0 && html`<${Sources} annotations=${part.annotations} />`}</div>`;
      if (part.type === "input_image") return html`<${Picture} source=${part.image_url} name="Image" raw=${part} />`;
      return html`<details class="fold"><summary>${(part.type || "part").replaceAll("_", " ")}</summary><pre class="json">${shortened(part)}</pre></details>`;
    })}
  </div>`;
}

function Sources({ annotations }) {
  const named = annotations.filter((one) => one.url && /^https?:/.test(one.url));
  return named.length > 0 && html`<ul class="sources">${named.map((one) => html`<li><a href=${one.url} target="_blank" rel="noopener noreferrer nofollow">${one.title || one.url}</a></li>`)}</ul>`;
}

// A picture that came with the request or the answer is shown. One that lies elsewhere is not fetched: whoever put its
// address there would learn who looks.
function Picture({ source, name, raw }) {
  if (typeof source === "string" && /^data:image\/(png|jpeg|gif|webp);base64,/.test(source)) return html`<img class="picture" src=${source} alt=${name} />`;
  return html`<details class="fold"><summary>${name} <span class="dim">${typeof source === "string" ? source.slice(0, 200) : raw.file_id || "is not here"}</span></summary><pre class="json">${shortened(raw)}</pre></details>`;
}

function Reasoning({ item, open }) {
  const texts = [...(item.summary || []), ...(item.content || [])].filter(Boolean).map((part) => part.text || "");
  const text = texts.join("\n\n");
  if (!text) return html`<p class="fold-line dim">Reasoning, which the provider keeps to itself</p>`;
  return html`<details class="fold reasoning" open=${open}><summary>Reasoning <span class="dim">${text.length.toLocaleString("en")} characters</span></summary><div class="text" dir="auto">${text}</div></details>`;
}

function Call({ name, says, note, result }) {
  return html`<details class="fold tool"><summary><span class="mono">${name}</span> <span class="dim mono brief">${says}</span> ${note && html`<span class="dim">${note}</span>`}</summary>
    <pre class="json">${pretty(says)}</pre>
    ${result && html`<p class="role">result</p><pre class="json">${pretty(result)}</pre>`}
  </details>`;
}

function pretty(value) {
  if (typeof value !== "string") return JSON.stringify(value, null, 2);
  try { return JSON.stringify(JSON.parse(value), null, 2); } catch { return value; }
}

const shortened = (part) => JSON.stringify(part, (_, value) => typeof value === "string" && value.length > 400 ? `${value.slice(0, 400)}… (${value.length} characters)` : value, 2);
