"""What the chaos run asks for: jobs of many shapes, each with an input of its own and a client of some manner."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import orjson

from server.protocol import jsontext
from server.protocol.requests import job_request
from server.simulator.directives import parse_directives
from server.simulator.reply import Reply
from server.simulator.responses.script import script
from tests.support.replica import ALICE, BOB, CACHED

OWNERS = (("alice", ALICE), ("bob", BOB), *((f"team-{number}", f"sk-team-{number}") for number in range(14)))
"""Names and keys."""
SURVIVABLE = "gpt-5.2-survivable"
"""The model whose deployment has a background mode of its own."""
CHAT, MESSAGES = "mistral-large", "claude-sonnet-4-5"
"""Models whose providers speak these dialects."""
TERMINAL = frozenset({"completed", "failed", "incomplete", "cancelled"})


@dataclass(frozen=True)
class Shape:
    """A kind of answer: how the simulator is told to give it, and how it has to end."""

    name: str
    directives: str
    ends: str = "completed"
    code: str | None = None
    posts: int = 1
    """How often the provider has to be asked if nothing goes wrong on our side."""
    model: str = CACHED
    streamed: bool | None = None
    """Whether created with `stream`; None: either."""

    @property
    def survivable(self) -> bool:
        return self.model == SURVIVABLE

    @property
    def translated(self) -> bool:
        """Whether its provider speaks another dialect than ours."""
        return self.model in (CHAT, MESSAGES)

    def on(self, model: str) -> Shape:
        """The same at another model."""
        return replace(self, name=f"{self.name}, {model.partition('-')[0]}", model=model)


_AT_OPENAI = (
    Shape("instant", ""),
    Shape("short", "[[words=40]] [[delay_ms=20]]"),
    Shape("long", "[[words=120]] [[delay_ms=50]]"),
    Shape("late", "[[first_delay_ms=2500]] [[words=20]]"),
    Shape("tool", "[[tool=look_up]] [[delay_ms=100]]"),
    Shape("custom tool", "[[custom_tool=shell]] [[delay_ms=60]]"),
    Shape("reasoning", "[[reasoning=1]] [[words=40]] [[delay_ms=30]]"),
    Shape("500 then ok", "[[status=500]] [[fail_times=1]] [[words=40]] [[delay_ms=20]]", posts=2),
    Shape("incomplete", "[[incomplete=1]] [[words=80]] [[delay_ms=25]]", "incomplete"),
    Shape("refused", "[[status=400]] [[error_code=content_filter]]", "failed", "content_filter"),
    Shape("provider fails", "[[fail=1]] [[words=40]] [[delay_ms=20]]", "failed", "server_error"),
    Shape("error event", "[[error_event_after=12]] [[words=40]] [[delay_ms=20]]", "failed", "server_error"),
    Shape("cut", "[[cut_after=20]] [[words=40]] [[delay_ms=40]]", "failed", "server_error"),
    Shape("cut at first", "[[cut_after=1]] [[fail_times=1]] [[words=30]]", posts=2),
    Shape("no end", "[[end_after=20]] [[words=40]] [[delay_ms=20]]", "failed", "server_error"),
    Shape("survivable", "[[words=80]] [[delay_ms=50]]", model=SURVIVABLE),
    Shape("survivable short", "[[words=20]] [[delay_ms=10]]", model=SURVIVABLE),
    Shape("survivable cut", "[[cut_after=20]] [[words=60]] [[delay_ms=40]]", model=SURVIVABLE),
    Shape("survivable fails", "[[fail=1]] [[words=60]] [[delay_ms=30]]", "failed", "server_error", model=SURVIVABLE),
)
_OF_DIALECTS = frozenset(
    {"short", "long", "late", "tool", "reasoning", "500 then ok", "incomplete", "cut", "cut at first", "no end"}
)
"""Shapes that providers of other dialects are asked for too."""
SHAPES = (
    *_AT_OPENAI,
    *(shape.on(model) for shape in _AT_OPENAI for model in (CHAT, MESSAGES) if shape.name in _OF_DIALECTS),
)
_ENDLESS = Shape("endless", "[[words=20000]] [[delay_ms=50]]", "cancelled")
ENDLESS = (
    _ENDLESS,
    _ENDLESS.on(CHAT),
    _ENDLESS.on(MESSAGES),
    Shape("survivable endless", "[[words=20000]] [[delay_ms=50]]", "cancelled", model=SURVIVABLE),
)
"""For those who cancel or delete: nobody waits for the end of these."""
ASKED_AT = ("/v1/chat/completions", "/v1/messages")
"""Where the providers of other dialects are asked."""
MANNERS = ("poller", "waiter", "prefers to wait", "streamer", "hangs up", "canceller", "deleter", "subscriber")


@dataclass
class Job:
    """One response: what is asked for, and everything that its client saw of it."""

    number: int
    shape: Shape
    manner: str
    streamed: bool
    key: str
    text: str
    mark: str
    """What is in its text and in no other."""
    at_s: float
    """When its client comes, since the start of the run."""
    seed: int
    """Of the client's own choices."""

    ids: set[str] = field(default_factory=set)
    """The acknowledged ones: more than one is a violation."""
    terminals: list[dict[str, Any]] = field(default_factory=list)
    """Each terminal object that an answer held."""
    events: dict[int, dict[str, Any]] = field(default_factory=dict)
    deleted: bool = False
    cancelled: bool = False
    """Acknowledged as cancelled."""
    provider_ids: set[str] = field(default_factory=set)
    """The provider's own runs that have to be cancelled."""
    longest_wait_s: float = 0.0
    retries: int = 0
    diary: list[str] = field(default_factory=list)
    """Each request of its client and what came of it: for whoever has to find out why."""
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"job {self.number} ({self.shape.name}, {self.manner}{', streamed' if self.streamed else ''})"

    @property
    def id(self) -> str:
        (only,) = self.ids
        return only

    @cached_property
    def body(self) -> dict[str, Any]:
        made = {"model": self.shape.model, "input": self.text, "background": True}
        return made | ({"stream": True} if self.streamed else {})

    def asked_by(self, request: Mapping[str, Any]) -> bool:
        """Whether this request to a provider is to make its response."""
        if self.shape.translated:
            return str(request["path"]) in ASKED_AT and self.mark in str(request["body"])
        return bool(request["path"] == "/v1/responses" and request["body_sha256"] == self._sent_sha256)

    def is_whole(self, output: list[dict[str, Any]]) -> bool:
        """Whether this is the whole answer to its input. Of a translated one the words count, and whose they are."""
        if self.shape.translated:
            return _told_in(output) == _told_in(self.output)
        return bool(without_ids(output) == self.output)

    @cached_property
    def _sent_sha256(self) -> str:
        """Of the body that the provider gets: how its requests are told apart."""
        sent = job_request(self.body, CACHED, None, background=self.shape.survivable)
        return hashlib.sha256(jsontext.dumps(sent)).hexdigest()

    @cached_property
    def output(self) -> list[dict[str, Any]]:
        """The whole answer to this input, without the ids in it."""
        directives = parse_directives(self.text, {}).without_failure()
        if self.shape.ends == "incomplete":
            directives = parse_directives(self.text, {})
        request = {"model": CACHED, "input": self.text, "background": self.shape.survivable, "stream": True}
        reply = Reply("resp_0", request, self.text, directives, 0.0)
        *_, last = script(reply)
        made: list[dict[str, Any]] = without_ids(orjson.loads(orjson.dumps(last.body["response"]["output"])))
        if self.shape.translated:
            return [{**item, "summary": []} for item in made]  # only this dialect sums up what was thought
        return made


def without_ids(value: Any) -> Any:
    """The same without what is drawn by chance."""
    if isinstance(value, Mapping):
        return {name: without_ids(item) for name, item in value.items() if name not in ("id", "call_id", "item_id")}
    return [without_ids(item) for item in value] if isinstance(value, list) else value


def _told_in(output: list[dict[str, Any]]) -> list[tuple[str, str | None, str]]:
    return [(item["type"], item.get("name"), said_in([item])) for item in output]


def said_in(output: list[dict[str, Any]]) -> str:
    """All the words of an output in their order, finished or not."""
    parts: list[str] = []
    for item in output:
        pieces = (*(item.get("summary") or ()), *(item.get("content") or ()))
        parts += [piece.get("text") or piece.get("refusal") or "" for piece in pieces]
        parts.append(item.get("arguments") or item.get("input") or "")
    return "".join(parts)


def draw_jobs(
    chance: random.Random, count: int, span_s: float, owners: Sequence[tuple[str, str]] = OWNERS[:2]
) -> list[Job]:
    """The same jobs for the same seed, spread over the time."""
    return [_draw(chance, number, span_s, owners) for number in range(count)]


def _draw(chance: random.Random, number: int, span_s: float, owners: Sequence[tuple[str, str]]) -> Job:
    manner = chance.choice(MANNERS)
    ender = manner in ("canceller", "deleter")
    shape = chance.choice(ENDLESS if ender and chance.random() < 0.6 else SHAPES)
    streamed = manner == "streamer" or (manner != "prefers to wait" and chance.random() < 0.3)
    mark = f"{chance.getrandbits(48):012x}"
    return Job(
        number,
        shape,
        manner,
        streamed,
        key=chance.choice(owners)[1],
        text=f"job {number} says {mark} {shape.directives}".strip(),
        mark=mark,
        at_s=chance.uniform(0, span_s),
        seed=chance.getrandbits(32),
    )
