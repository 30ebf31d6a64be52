"""What the simulator saw: for tests that count requests, and for whoever wonders what arrived."""

import hashlib
from collections import deque

import orjson
from aiohttp import web

from server.simulator.turn import Json

# The count goes on beyond this; only the oldest requests are forgotten.
_MAX_REQUESTS = 10_000
# Together these bound the bodies that are kept at 160 MB; of a longer one only its hash is told.
_MAX_BODY_BYTES = 16 * 1024

# The headers in which providers expect a key.
_KEY_HEADERS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")


class Traffic:
    """The requests so far, those being served now, and how many clients hung up on theirs."""

    def __init__(self) -> None:
        self._count = 0
        self._aborted = 0
        # By identity: a request of aiohttp cannot be hashed.
        self._open: dict[int, web.Request] = {}
        self._requests: deque[Json] = deque(maxlen=_MAX_REQUESTS)

    def arrive(self, request: web.Request, body: bytes) -> None:
        """Note a request, and that it is being served until `leave`."""
        self._count += 1
        self._open[id(request)] = request
        self._requests.append(_sighting(request, body))

    def leave(self, request: web.Request) -> None:
        self._open.pop(id(request), None)

    def hang_up(self, request: web.Request) -> None:
        """Count a request that was given up, if its client did that: the simulator cuts connections too."""
        if request.transport is None or request.transport.is_closing():
            self._aborted += 1

    def report(self) -> Json:
        return {
            "count": self._count,
            "open": len(self._open),
            "aborted": self._aborted,
            "requests": list(self._requests),
        }

    def clear(self) -> None:
        """Forget what was; what is being served now stays."""
        self._count = self._aborted = 0
        self._requests.clear()

    def cut_all(self) -> None:
        """Drop every connection, as a provider does that dies."""
        for request in self._open.values():
            if request.transport is not None:
                request.transport.abort()


def _sighting(request: web.Request, body: bytes) -> Json:
    authorization = request.headers.get("authorization")
    fields = _fields(body)
    # A fragment is written as it came: kept as bytes, a body takes a tenth of the memory.
    kept = orjson.Fragment(body) if fields and len(body) <= _MAX_BODY_BYTES else None
    return {
        "method": request.method,
        "path": request.rel_url.raw_path,
        "query": request.rel_url.raw_query_string,
        "body_sha256": hashlib.sha256(body).hexdigest(),
        "body": kept,
        "key_headers": [name for name in _KEY_HEADERS if name in request.headers],
        "authorization_sha256": authorization and hashlib.sha256(authorization.encode()).hexdigest(),
        "key_sha256": [_key_hash(request.headers[name]) for name in _KEY_HEADERS if name in request.headers],
        "anthropic_version": request.headers.get("anthropic-version"),
        "anthropic_beta": request.headers.get("anthropic-beta"),
        "traceparent": request.headers.get("traceparent"),
        "model": fields.get("model"),
        "background": fields.get("background") is True,
        "stream": fields.get("stream") is True or request.query.get("stream") == "true",
    }


def _key_hash(header: str) -> str:
    """The hash of the key itself, whichever header it came in."""
    return hashlib.sha256(header.removeprefix("Bearer ").encode(errors="surrogateescape")).hexdigest()


def _fields(body: bytes) -> Json:
    try:
        fields = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError:
        return {}
    return fields if isinstance(fields, dict) else {}
