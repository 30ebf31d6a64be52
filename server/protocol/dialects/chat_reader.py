"""Reads Chat Completions as providers really send them, and gives chunks of the form that the library takes.

Many providers call themselves compatible, and each leaves something out or adds something. So a chunk is not mended but
built anew from what is known, and what belongs to the end (reason, usage, citations) is kept until then.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from server.protocol import jsontext
from server.protocol.dialects.finish import Finish, Usage, chat_usage, finish_for
from server.protocol.dialects.reading import Reading
from server.protocol.reasons import Fields, reason_in

Chunk = dict[str, Any]


class ChatReader:
    """Reads one answer, streamed or whole."""

    def __init__(self, seed: str = "") -> None:
        self._seed = seed
        """What tells the ids that we give to calls without one from those of other answers."""
        self.over = False
        self.failure: Fields | None = None
        self._begun = False
        self._reason: str | None = None
        self._usage: Usage | None = None
        self._calls: dict[object, int] = {}
        """Tool call → the index that we give it, by the provider's index and by its id."""
        self._ids: list[str] = []
        """The ids of the calls, by our index."""
        self._cited: dict[str, Chunk] = {}
        self._half = ""
        """Half an emoji, which the provider has cut."""

    @property
    def finish(self) -> Finish | None:
        """How the answer ended, once it is known. A stream that is over without a reason ended normally."""
        if self._reason is not None:
            return finish_for(self._reason)
        return Finish("completed") if self.over else None

    @property
    def usage(self) -> Usage | None:
        return None if self._usage is None else chat_usage(self._usage)

    @property
    def annotations(self) -> list[Chunk]:
        """The sources that were named for the text."""
        return list(self._cited.values())

    def read(self, chunk: Chunk) -> list[Reading]:
        """What one chunk says, or a whole completion, which holds a `message` in place of a `delta`."""
        if chunk.get("error") or chunk.get("object") == "error":
            self.failure = reason_in(chunk) or {}
            return []
        self._note_usage(chunk.get("usage"), (chunk.get("x_groq") or {}).get("usage"))
        self._cite(chunk)
        made = [] if self._begun else [Reading(_chunk({}))]
        self._begun = True
        for choice in chunk.get("choices") or ():
            if isinstance(choice, dict) and not choice.get("index"):
                self._note_usage(choice.get("usage"))
                self._reason = choice.get("finish_reason") or self._reason
                made += self._said(choice.get("delta") or choice.get("message") or {}, choice.get("logprobs"))
        return made

    def close(self) -> list[Reading]:
        """What makes the library close what is open."""
        return [Reading(_chunk({}, "stop"))]

    def _note_usage(self, *told: Any) -> None:
        self._usage = next((usage for usage in told if isinstance(usage, dict) and usage), self._usage)

    def _cite(self, chunk: Chunk) -> None:
        """Note the sources: Perplexity repeats them in every chunk."""
        titles = {
            result["url"]: result.get("title") or ""
            for result in chunk.get("search_results") or ()
            if isinstance(result, dict) and isinstance(result.get("url"), str)
        }
        for url in [*(chunk.get("citations") or ()), *titles]:
            if isinstance(url, str) and url not in self._cited:
                self._cited[url] = _citation(url, titles.get(url, ""))

    def _said(self, delta: Chunk, logprobs: Any) -> list[Reading]:
        for annotation in delta.get("annotations") or ():
            about = annotation.get("url_citation") if isinstance(annotation, dict) else None
            if isinstance(about, dict) and isinstance(url := about.get("url"), str):
                self._cited[f"{url} {about.get('start_index')}"] = {**_citation(url, ""), **about}
        made = [Reading(_chunk({"reasoning_content": text})) for text in _reasoning(delta)]
        for kind, text in self._uncut(_content(delta)):
            made.append(Reading(_chunk({kind: text}), _tokens(logprobs) if kind == "content" else []))
        if isinstance(refusal := delta.get("refusal"), str) and refusal:
            made.append(Reading(_chunk({"refusal": refusal})))
        made += [Reading(_picture(data), is_item=True) for data in _pictures(delta)]
        made += [_signature(call) for call in delta.get("tool_calls") or () if _signed(call)]
        calls = [self._call(call) for call in delta.get("tool_calls") or () if isinstance(call, dict)]
        if isinstance(legacy := delta.get("function_call"), dict):
            calls.append(self._call({"index": 0, "function": legacy}))
        return made + [Reading(_chunk({"tool_calls": [call]})) for call in calls]

    def _uncut(self, pieces: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """The pieces of text, where half an emoji at the end of one waits for its other half in the next."""
        for kind, text in pieces:
            whole = (self._half + text).encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
            is_cut = "\ud800" <= whole[-1] <= "\udbff"
            self._half = whole[-1] if is_cut else ""
            if said := whole[:-1] if is_cut else whole:
                yield kind, said

    def _call(self, call: Chunk) -> Chunk:
        """A part of a tool call with an index of ours."""
        kind = "custom" if isinstance(call.get("custom"), dict) else "function"
        told = call.get(kind) or {}
        call_id, theirs = call.get("id") or None, call.get("index")
        index = self._index_of(call_id, theirs, begins=bool(told.get("name")))
        is_new = index == len(self._ids)
        if is_new:
            self._ids.append(call_id or f"call_{self._seed}{index:x}")
        for key in (("id", call_id), ("index", theirs)):
            if key[1] is not None:
                self._calls[key] = index
        text = "input" if kind == "custom" else "arguments"
        said = {text: _text(told.get(text))} | ({"name": _text(told.get("name"))} if is_new else {})
        about = {"id": self._ids[index], "type": kind} if is_new else {}
        return {"index": index, **about, kind: said}

    def _index_of(self, call_id: Any, theirs: Any, *, begins: bool) -> int:
        """Our index of the call that a part belongs to; that of a new one if it belongs to none.

        Mistral and Gemini give no index, Cerebras gives several calls the same one and tells them apart by id, Alibaba
        sends an empty id with all parts but the first, vLLM has sent another id with each part.
        """
        known = self._calls.get(("id", call_id))
        if known is None and not (begins and call_id is not None):
            known = self._calls.get(("index", theirs))
        if known is None and theirs is None and self._ids and not begins:
            known = len(self._ids) - 1
        return len(self._ids) if known is None else known


def _signed(call: Any) -> str:
    """The signature of Google's that a call carries."""
    google = (call.get("extra_content") or {}).get("google") if isinstance(call, dict) else None
    found = google.get("thought_signature") if isinstance(google, dict) else None
    return found if isinstance(found, str) else ""


def _signature(call: Chunk) -> Reading:
    """The signature as the encrypted content of a reasoning item before the call: so a client sends it back."""
    return Reading({"type": "reasoning", "summary": [], "encrypted_content": _signed(call)}, is_item=True)


def _pictures(delta: Chunk) -> Iterator[str]:
    """The images that were generated, in base64: OpenRouter and LiteLLM send them as data URLs beside the text."""
    for image in delta.get("images") or ():
        about = image.get("image_url") if isinstance(image, dict) else None
        url = about.get("url") if isinstance(about, dict) else None
        head, comma, data = url.partition(",") if isinstance(url, str) else ("", "", "")
        if comma and head.startswith("data:") and head.endswith(";base64"):
            yield data


def _picture(data: str) -> Chunk:
    return {"type": "image_generation_call", "status": "completed", "result": data}


def _chunk(delta: Chunk, reason: str | None = None) -> Chunk:
    choice = {"index": 0, "delta": {"role": "assistant", **delta}, "finish_reason": reason}
    return {"id": "chatcmpl", "object": "chat.completion.chunk", "created": 0, "model": "", "choices": [choice]}


def _reasoning(delta: Chunk) -> list[str]:
    text = delta.get("reasoning_content") or delta.get("reasoning")
    return [text] if isinstance(text, str) and text else []


def _content(delta: Chunk) -> list[tuple[str, str]]:
    """The text, and the thinking that Mistral puts beside it, in their order; of audio the words."""
    content = delta.get("content")
    if not isinstance(content, list):
        audio = delta.get("audio")
        text = content or (audio.get("transcript") if isinstance(audio, dict) else None)
        return [("content", text)] if isinstance(text, str) and text else []
    made = []
    for part in content:
        if not isinstance(part, dict):
            continue
        thinking = part.get("type") == "thinking"
        text = _words(part.get("thinking" if thinking else "text"))
        if text:
            made.append(("reasoning_content" if thinking else "content", text))
    return made


def _words(told: Any) -> str:
    if isinstance(told, list):
        return "".join(part["text"] for part in told if isinstance(part, dict) and isinstance(part.get("text"), str))
    return told if isinstance(told, str) else ""


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else jsontext.dumps(value).decode()


def _tokens(logprobs: Any) -> list[Chunk]:
    found = logprobs.get("content") if isinstance(logprobs, dict) else None
    return [token for token in found if isinstance(token, dict)] if isinstance(found, list) else []


def _citation(url: str, title: str) -> Chunk:
    return {"type": "url_citation", "url": url, "title": title}
