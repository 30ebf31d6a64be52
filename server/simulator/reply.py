"""What one answer is made of: the reply, its pace, and the Response objects that show it.

A reply is a value. Everything that a client will ever see of it, each event and each object, follows from it
alone and can be made again at any time. So nothing has to be stored while it is given, and a background
response needs no task that produces it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from server.simulator.directives import MAX_DELAY_S, Directives
from server.simulator.turn import Json, derived_id

# Longer inputs are repeated up to here: one event per word of a large document serves nobody.
MAX_ECHO_CHARS = 20_000

_FILLER = "Word by word the answer grows, each in its place, until nothing is missing and the last has come."
_FILLER_WORDS = tuple(f" {word}" for word in _FILLER.split())
_WORD = re.compile(r"\s*\S+")


class Schedule(NamedTuple):
    """When the events of a reply are due, in seconds from its start.

    In background mode the first two, created and queued, are due at once: the create call is answered while
    the response waits.
    """

    first_s: float
    gap_s: float
    at_once: int
    silence_after: int | None

    def due_s(self, number: int) -> float:
        """Never decreases with the number."""
        due = 0.0 if number < self.at_once else self.first_s + (number - self.at_once) * self.gap_s
        return due if self.silence_after is None or number < self.silence_after else due + MAX_DELAY_S


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: to what, how steered, since when."""

    id: str
    request: Json
    items: Sequence[Json]
    text: str
    previous_text: str | None
    directives: Directives
    created_at: float

    @property
    def background(self) -> bool:
        return self.request.get("background") is True

    @property
    def streamed(self) -> bool:
        return self.request.get("stream") is True

    def item_id(self, prefix: str, index: int) -> str:
        return derived_id(self.id, prefix, f"output {index}")

    def schedule(self) -> Schedule:
        d = self.directives
        return Schedule(d.first_delay_ms / 1000, d.gap_s, 2 if self.background else 0, d.silence_after)

    def words(self) -> list[str]:
        """The answer in its deltas; joined, they hold the input as it was written."""
        words = _WORD.findall(self._sentences())
        filler = self.directives.length - len(words)
        words += [_FILLER_WORDS[n % len(_FILLER_WORDS)] for n in range(filler)]
        return self.cut_short(words)

    def cut_short(self, deltas: list[str]) -> list[str]:
        """All deltas, or the first half where the reply is to be incomplete."""
        return deltas[: (len(deltas) + 1) // 2] if self.directives.incomplete else deltas

    def said(self) -> str:
        """The input, as the answer repeats it."""
        if len(self.text) <= MAX_ECHO_CHARS:
            return self.text
        return f"{self.text[:MAX_ECHO_CHARS]}… ({len(self.text)} characters)"

    def _sentences(self) -> str:
        sentences = f"You said: {self.said()}." if self.text else "You said nothing."
        if self.previous_text is not None:
            sentences += f" Before that you said: {self.previous_text[:MAX_ECHO_CHARS]}."
        if not self.directives.length:
            sentences += f" This is a simulated answer of {self.request['model']}."
        return sentences


# In the order in which OpenAI gives them; where a request has a value other than null, that is echoed.
_ECHOED: Json = {
    "background": False,
    "frequency_penalty": 0.0,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "safety_identifier": None,
    "service_tier": "auto",
    "store": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
    "metadata": {},
}


def response_object(
    reply: Reply,
    status: str,
    *,
    output: Sequence[Json] = (),
    error: Json | None = None,
    ended_after_s: float = 0.0,
) -> Json:
    """The Response object in the given state, with all the fields of a real one."""
    request = reply.request
    ended = status in {"completed", "incomplete"}
    response: Json = {
        "id": reply.id,
        "object": "response",
        "created_at": int(reply.created_at),
        "status": status,
        "completed_at": int(reply.created_at + ended_after_s) if status == "completed" else None,
        "error": error,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "model": request["model"],
        "output": list(output),
        "reasoning": {"effort": None, "summary": None} | (request.get("reasoning") or {}),
        "text": {"format": {"type": "text"}, "verbosity": "medium"} | (request.get("text") or {}),
        "tools": [_echoed_tool(tool) for tool in request.get("tools") or []],
        "usage": _usage(reply, output) if ended else None,
    }
    for key, default in _ECHOED.items():
        value = request.get(key)
        response[key] = default if value is None else value
    if ended:
        response["service_tier"] = "default"
        response["billing"] = {"payer": "developer"}
    return response


def _echoed_tool(tool: Any) -> Any:
    if not isinstance(tool, dict) or tool.get("type") != "function":
        return tool
    return {"description": None, "parameters": None, "strict": True} | tool


def _usage(reply: Reply, output: Sequence[Json]) -> Json:
    """Token counts as plausible as four characters to a token make them."""
    reasoning = sum(_tokens(item) for item in output if item["type"] == "reasoning")
    spent = sum(_tokens(item) for item in output)
    given = 8 + len(reply.text) // 4
    return {
        "input_tokens": given,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": spent,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": given + spent,
    }


def _tokens(item: Json) -> int:
    parts = [*item.get("content", ()), *item.get("summary", ())]
    texts = [part.get("text") or part.get("refusal") or "" for part in parts]
    texts += [item.get("arguments", ""), item.get("input", "")]
    return 1 + sum(map(len, texts)) // 4
