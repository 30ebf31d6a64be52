"""An operation: one method of one path, with all that is known of it. The router serves it, `openapi` describes it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from aiohttp import web

from server.errors import PolluxError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Auth(StrEnum):
    """Whom an operation answers."""

    KEY = "key"
    """Whoever has a key. This is the default, so that nothing is open because a word was forgotten."""
    MASTER = "master"
    """Whoever has the master key."""
    SCRAPER = "scraper"
    """Whoever has the metrics key or the master key."""
    NONE = "none"
    """Everybody."""


class Tag(StrEnum):
    """The groups of operations that a reader looks for."""

    RESPONSES = "Responses"
    MODELS = "Models"
    EVENTS = "Status events"
    WEBHOOKS = "Webhooks"
    WATCHING = "Watching"
    OPERATING = "Operating"
    PAGES = "Pages"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter that an operation reads."""

    name: str
    meaning: str
    """A sentence or more, for whoever calls."""
    schema: Mapping[str, Any]
    """The JSON schema of its value."""
    place: Literal["query", "header"] = "query"
    ours: bool = False
    """Whether OpenAI's API does not have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    """As aiohttp matches it: `{name}`, or `{name:pattern}`."""
    handler: Handler
    summary: str
    """One sentence without a full stop, for whoever calls."""
    tag: Tag
    auth: Auth = Auth.KEY
    details: str = ""
    """What else must be known, in Markdown."""
    name: str = ""
    """Its name in clients that are generated; if empty, that of its handler."""
    parameters: tuple[Parameter, ...] = ()
    body: str = ""
    """The model of the request's body, by its name in `server.api.models`; none if empty."""
    body_optional: bool = False
    answer: str = ""
    """The model of the JSON that it answers with; none if empty."""
    events: str = ""
    """The model of the events that it answers with, or can answer with; none if empty."""
    media: tuple[str, ...] = ()
    """The types of an answer that is neither."""
    headers: tuple[str, ...] = ()
    """What its answers carry beyond what all carry, by names in `server.api.openapi.headers`."""
    errors: tuple[type[PolluxError], ...] = ()
    """What it can answer with beyond what all can; see `server.api.openapi.errors`."""
    conditional: bool = False
    """Whether it can answer 304."""
    redirects: bool = False
    """Whether it answers 308 where the slash at the end of its path is missing."""
    ends_work: bool = False
    """Whether it ends other work. It is then served however many requests are open."""
    ours: bool = False
    """Whether OpenAI's API does not have it. Each of these is told of in the README's table of deviations."""

    @property
    def id(self) -> str:
        """Its name, unique among all operations."""
        first, *rest = (self.name or self.handler.__name__).split("_")
        return first + "".join(map(str.capitalize, rest))


_PATTERN = re.compile(r":[^}]*")


def plain(path: str) -> str:
    """A path of aiohttp's, without the patterns of what varies in it."""
    return _PATTERN.sub("", path)


class Requested(NamedTuple):
    """What a route of the router is for."""

    auth: Auth = Auth.KEY
    route: str = "none"
    """The path of its operation without a prefix: what metrics and logs call it. That of what no operation fits."""
    ends_work: bool = False


REQUESTED = web.AppKey("requested", dict[web.AbstractRoute, Requested])
_UNKNOWN = Requested()


def requested_of(request: web.Request) -> Requested:
    """What a request asks for."""
    return request.app[REQUESTED].get(request.match_info.route, _UNKNOWN)
