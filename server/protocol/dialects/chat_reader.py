"""Reads Chat Completions as providers really send them, and gives chunks of the form that the library takes.

Many providers call themselves compatible, and each leaves something out or adds something. So a chunk is not mended but
built anew from what is known, and what belongs to the end (reason, usage, citations) is kept until then.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from server.protocol import jsontext
from server.protocol.dialects.fields import list_in, mark_in, object_in, objects_in, text_in
from server.protocol.dialects.finish import Finish, Usage, chat_usage, finish_for
from server.protocol.dialects.reading import Reading
from server.protocol.reasons import Fields, reason_in

Chunk = dict[str, Any]

_THOUGHTS = {"thinking": "thinking", "reasoning": "summary"}
"""The types of parts that hold thinking, and where."""


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
        self._note_usage(chunk.get("usage"), object_in(chunk, "x_groq").get("usage"))
        self._cite(chunk)
        made = [] if self._begun else [Reading(_chunk({}))]
        self._begun = True
        for choice in objects_in(chunk, "choices"):
            if mark_in(choice, "index") in (None, "0"):
                self._note_usage(choice.get("usage"))
                self._reason = text_in(choice, "finish_reason") or self._reason
                said = object_in(choice, "delta") or object_in(choice, "message")
                made += self._said(said, objects_in(object_in(choice, "logprobs"), "content"))
        return made

    def close(self) -> list[Reading]:
        """What makes the library close what is open."""
        return [Reading(_chunk({}, "stop"))]

    def _note_usage(self, *told: Any) -> None:
        self._usage = next((usage for usage in told if isinstance(usage, dict) and usage), self._usage)

    def _cite(self, chunk: Chunk) -> None:
        """Note the sources: Perplexity repeats them in every chunk."""
        titles = {
            result["url"]: text_in(result, "title")
            for result in objects_in(chunk, "search_results")
            if text_in(result, "url")
        }
        for url in [*list_in(chunk, "citations"), *titles]:
            if isinstance(url, str) and url not in self._cited:
                self._cited[url] = _citation(url, titles.get(url, ""))

    def _said(self, delta: Chunk, logprobs: list[Chunk]) -> list[Reading]:
        for annotation in objects_in(delta, "annotations"):
            about = object_in(annotation, "url_citation")
            if url := text_in(about, "url"):
                self._cited[f"{url} {about.get('start_index')}"] = {**_citation(url, ""), **about}
        made = [Reading(_chunk({"reasoning_content": text})) for text in _reasoning(delta)]
        for kind, text in self._uncut(_content(delta)):
            made.append(Reading(_chunk({kind: text}), logprobs if kind == "content" else []))
        if refusal := text_in(delta, "refusal"):
            made.append(Reading(_chunk({"refusal": refusal})))
        made += [Reading(_picture(data), is_item=True) for data in _pictures(delta)]
        told = [call for call in objects_in(delta, "tool_calls") if {"id", "function", "custom"} & call.keys()]
        made += [_signature(call) for call in told if _signed(call)]
        calls = [self._call(call) for call in told]
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
        told = object_in(call, kind)
        call_id, theirs = mark_in(call, "id"), mark_in(call, "index")
        index = self._index_of(call_id, theirs, begins=bool(told.get("name")))
        is_new = index == len(self._ids)
        if is_new:
            self._ids.append(call_id or f"call_{self._seed}{index:x}")
        for key in (("id", call_id), ("index", theirs)):
            if key[1] is not None:
                self._calls[key] = index
        text = "input" if kind == "custom" else "arguments"
        said = {text: _text(told, text)} | ({"name": _text(told, "name")} if is_new else {})
        about = {"id": self._ids[index], "type": kind} if is_new else {}
        return {"index": index, **about, kind: said}

    def _index_of(self, call_id: str | None, theirs: str | None, *, begins: bool) -> int:
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


def _signed(call: Chunk) -> str:
    """The signature of Google's that a call carries."""
    return text_in(object_in(object_in(call, "extra_content"), "google"), "thought_signature")


def _signature(call: Chunk) -> Reading:
    """The signature as the encrypted content of a reasoning item before the call: so a client sends it back."""
    return Reading({"type": "reasoning", "summary": [], "encrypted_content": _signed(call)}, is_item=True)


def _pictures(delta: Chunk) -> Iterator[str]:
    """The images that were generated, in base64: OpenRouter and LiteLLM send them as data URLs beside the text."""
    for image in objects_in(delta, "images"):
        head, comma, data = text_in(object_in(image, "image_url"), "url").partition(",")
        if comma and head.startswith("data:") and head.endswith(";base64"):
            yield data


def _picture(data: str) -> Chunk:
    return {"type": "image_generation_call", "status": "completed", "result": data}


def _chunk(delta: Chunk, reason: str | None = None) -> Chunk:
    choice = {"index": 0, "delta": {"role": "assistant", **delta}, "finish_reason": reason}
    return {"id": "chatcmpl", "object": "chat.completion.chunk", "created": 0, "model": "", "choices": [choice]}


def _reasoning(delta: Chunk) -> list[str]:
    text = text_in(delta, "reasoning_content") or text_in(delta, "reasoning")
    return [text] if text else []


def _content(delta: Chunk) -> list[tuple[str, str]]:
    """The text, and the thinking that Mistral and Databricks put beside it, in their order; of audio the words."""
    text = text_in(delta, "content") or text_in(object_in(delta, "audio"), "transcript")
    made = [("content", text)] if text else []
    for part in objects_in(delta, "content"):
        place = _THOUGHTS.get(text_in(part, "type"))
        if words := _words(part, place or "text"):
            made.append(("reasoning_content" if place else "content", words))
    return made


def _words(part: Chunk, name: str) -> str:
    return text_in(part, name) or "".join(text_in(piece, "text") for piece in objects_in(part, name))


def _text(told: Chunk, name: str) -> str:
    """What a call is given; some providers send arguments that are no text."""
    value = told.get(name)
    return text_in(told, name) if value is None or isinstance(value, str) else jsontext.dumps(value).decode()


def _citation(url: str, title: str) -> Chunk:
    return {"type": "url_citation", "url": url, "title": title}
