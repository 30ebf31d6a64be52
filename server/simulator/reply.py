"""What one answer is made of, whatever the dialect: the reply, its parts and its pace.

A reply is a value. Everything that a client will ever see of it, each event and each object, follows from it
alone and can be made again at any time. So nothing has to be stored while it is given, and a background
response needs no task that produces it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import orjson

from server.simulator.directives import MAX_DELAY_S, Directives
from server.simulator.schema import fit
from server.simulator.turn import Json, derived_id

# Longer inputs are repeated up to here: one event per word of a large document serves nobody.
MAX_ECHO_CHARS = 20_000

CITED_URL = "https://example.com/simulated"
CITED_TITLE = "A simulated source"
FAILURE = "The simulator was told to fail this response."

_FILLER = "Word by word the answer grows, each in its place, until nothing is missing and the last has come."
_FILLER_WORDS = tuple(f" {word}" for word in _FILLER.split())
_WORD = re.compile(r"\s*\S+")
_THOUGHT = "First read what was said, then say it, word by word."
_REFUSAL = "I cannot help with that."
_CALL_DELTA_CHARS = 8


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


class Part(NamedTuple):
    """A part of the output: a `thought`, a `call` or a `custom_call` of the tool `name`, a `refusal` or `text`."""

    kind: str
    deltas: list[str]
    name: str = ""

    @property
    def whole(self) -> str:
        return "".join(self.deltas)


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: to what, how steered, since when. With a `schema` its text is JSON that fits it."""

    id: str
    request: Json
    text: str
    directives: Directives
    created_at: float
    schema: Json | None = None
    previous_text: str | None = None

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

    def parts(self) -> Iterator[Part]:
        """The output, in its order. A thought is always whole, whatever becomes of what follows."""
        d = self.directives
        if d.reasoning:
            yield Part("thought", _WORD.findall(_THOUGHT))
        for name in d.tools:
            arguments = orjson.dumps({"input": self.said()}).decode()
            yield Part("call", self._cut_short(_pieces(arguments)), name)
        if d.custom_tool:
            yield Part("custom_call", self._cut_short(_pieces(self.said())), d.custom_tool)
        if d.refusal:
            yield Part("refusal", self._cut_short(_WORD.findall(_REFUSAL)))
        elif not (d.tools or d.custom_tool):
            yield Part("text", self._cut_short(self._words()))

    def said(self) -> str:
        """The input, as the answer repeats it."""
        if len(self.text) <= MAX_ECHO_CHARS:
            return self.text
        return f"{self.text[:MAX_ECHO_CHARS]}… ({len(self.text)} characters)"

    def _words(self) -> list[str]:
        """The text in its deltas; joined, they hold the input as it was written."""
        if self.schema is not None:
            said = self.said() + "".join(self._filler(len(_WORD.findall(self.said()))))
            return _WORD.findall(orjson.dumps(fit(self.schema, said)).decode())
        words = _WORD.findall(self._sentences())
        return words + self._filler(len(words))

    def _filler(self, count: int) -> list[str]:
        """The words that are missing where there are only so many."""
        return [_FILLER_WORDS[n % len(_FILLER_WORDS)] for n in range(self.directives.length - count)]

    def _cut_short(self, deltas: list[str]) -> list[str]:
        """All deltas, or the first half where the reply is to be incomplete."""
        return deltas[: (len(deltas) + 1) // 2] if self.directives.half else deltas

    def _sentences(self) -> str:
        sentences = f"You said: {self.said()}." if self.text else "You said nothing."
        if self.previous_text is not None:
            sentences += f" Before that you said: {self.previous_text[:MAX_ECHO_CHARS]}."
        if not self.directives.length:
            sentences += f" This is a simulated answer of {self.request['model']}."
        return sentences


class Usage(NamedTuple):
    """What a reply costs, in tokens; what was thought is part of what was spent."""

    given: int
    spent: int
    thought: int

    @classmethod
    def of(cls, reply: Reply) -> "Usage":
        spent = [(part.kind, tokens(part.whole)) for part in reply.parts()]
        thought = sum(count for kind, count in spent if kind == "thought")
        return cls(given_tokens(reply), sum(count for _, count in spent), thought)


def given_tokens(reply: Reply) -> int:
    return 8 + len(reply.text) // 4


def tokens(text: str) -> int:
    """As plausible as four characters to a token make it."""
    return 1 + len(text) // 4


def _pieces(value: str) -> list[str]:
    return [value[n : n + _CALL_DELTA_CHARS] for n in range(0, len(value), _CALL_DELTA_CHARS)]
