"""Secrets of tools: they are sent to the provider with the request, and shown nowhere else.

OpenAI never shows an MCP tool's `authorization` and `headers` again, nor the parts of its `server_url` beyond the
server, nor the values of a container's `domain_secrets`. Pollux goes by the names of keys, so that future tools are
covered: where a tool is shown, every value called a token, a secret, a password or the like is null. JSON schemas are
left alone, since such a name is that of a parameter there.

A provider may echo a secret: a nonconforming one in its objects, any in an error's message. So its answers to a request
with secrets are searched for them too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import SplitResult, urlsplit

from server.protocol import jsontext

HIDDEN = "***"
SHORTEST_SECRET = 8
"""In characters. A shorter secret is hidden in the tool itself, but not searched for: it may occur by chance."""

MOST_SECRETS = 1000
"""How many secrets a request may hold. Each event is searched for each: a thousand take 0.2 ms, 64,000 took 10 ms."""

_SECRET = re.compile(
    r"(.*[_-])?(authorization|headers|cookies?|(api|access|private)[_-]?key|tokens?|secrets?|passwords?|passphrase"
    r"|credentials?|bearer)",
    re.IGNORECASE,
)
_LIST_OF_SECRETS = "domain_secrets"
_SCHEMAS = frozenset({"parameters", "input_schema", "output_schema", "schema", "format", "filters"})
_URL = re.compile(r"(.*_)?url", re.IGNORECASE)


def shown_tools(tools: list[Any]) -> list[Any]:
    """The tools without their secrets; function tools are returned as the same objects."""
    return [_shown(tool) if isinstance(tool, dict) and tool.get("type") != "function" else tool for tool in tools]


def _shown(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        if name in _SCHEMAS:
            return value
        return {key: None if _hides(name, key) else _shown(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [_shown(inner, name) for inner in value]
    return _place_of(value) if isinstance(value, str) and _URL.fullmatch(name) else value


def _place_of(url: str) -> str:
    """The scheme and host of a URL. Its other parts are dropped, because they may contain a key."""
    parts = _parts_of(url)
    if parts is None or not (parts.scheme and parts.netloc):
        return HIDDEN
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _parts_of(url: str) -> SplitResult | None:
    """The parts of a URL, or None if it is none, such as `https://[`."""
    try:
        return urlsplit(url)
    except ValueError:
        return None


class Secrets:
    """The secrets of one request, which are hidden in every answer about it."""

    def __init__(self, body: dict[str, Any]) -> None:
        self._keep({secret for tools in _tools_in(body) for tool in tools for secret in _secrets_in(tool)})

    def _keep(self, found: set[str]) -> None:
        # The longest first, because one secret may be a part of another.
        self._texts = sorted((text for text in found if len(text) >= SHORTEST_SECRET), key=len, reverse=True)
        self._bytes = [_plainly_written(jsontext.dumps(text)[1:-1]) for text in self._texts]

    def plus(self, secret: str) -> Secrets:
        """These and another one."""
        made = Secrets({})
        made._keep({*self._texts, secret})
        return made

    def __len__(self) -> int:
        return len(self._texts)

    def hidden_in(self, data: bytes) -> bytes:
        """JSON text with the secrets replaced, however they are written there."""
        hidden = self._replaced_in(data)
        if b"\\" in hidden:
            plain = _plainly_written(hidden)
            if (found := self._replaced_in(plain)) is not plain:
                return found
        return hidden

    def _replaced_in(self, data: bytes) -> bytes:
        for secret in self._bytes:
            if secret in data:
                data = data.replace(secret, HIDDEN.encode())
        return data

    def hidden_in_text(self, text: str) -> str:
        for secret in self._texts:
            text = text.replace(secret, HIDDEN)
        return text


def _plainly_written(data: bytes) -> bytes:
    """JSON text in which only those characters are escaped that must be.

    Others write more escapes than we do: Python and .NET of every character that is not ASCII, PHP of `/`, Go of `&`.
    """
    return _ESCAPES.sub(_unescaped, data)


# Whole runs, because two escapes may be one character.
_ESCAPES = re.compile(rb"(?:\\u[0-9A-Fa-f]{4}|\\[^u])+")


def _unescaped(escapes: re.Match[bytes]) -> bytes:
    try:
        return jsontext.dumps(jsontext.loads(b'"%b"' % escapes[0]))[1:-1]
    except ValueError:
        return escapes[0]  # it is no JSON


def _tools_in(body: dict[str, Any]) -> Iterator[list[Any]]:
    """The lists of tools in a request: its own, and those that its input brings along."""
    given = body.get("input")
    for holder in (body, *(given if isinstance(given, list) else ())):
        if isinstance(holder, dict) and isinstance(tools := holder.get("tools"), list):
            yield tools


def _secrets_in(value: Any, name: str = "", *, secret: bool = False) -> Iterator[str]:
    if isinstance(value, dict):
        if name in _SCHEMAS or value.get("type") == "function":
            return
        for key, inner in value.items():
            yield from _secrets_in(inner, key, secret=secret or _hides(name, key))
    elif isinstance(value, list):
        for inner in value:
            yield from _secrets_in(inner, name, secret=secret)
    elif isinstance(value, str):
        if secret:
            yield value
            yield from value.split(" ", 1)[1:]  # the token after `Bearer `
        elif _URL.fullmatch(name):
            yield from _secrets_of_url(value)


def _hides(holder: str, name: str) -> bool:
    """Whether the value of the key `name`, in the object that is the value of the key `holder`, is a secret."""
    if holder == _LIST_OF_SECRETS:
        return name == "value"
    return name != _LIST_OF_SECRETS and _SECRET.fullmatch(name) is not None


def _secrets_of_url(url: str) -> Iterator[str]:
    parts = _parts_of(url)
    if parts is None:
        yield url
        return
    login = parts.netloc.rpartition("@")[0]
    yield from (part for part in (login, parts.path.lstrip("/"), parts.query, parts.fragment) if part)


NO_SECRETS = Secrets({})
