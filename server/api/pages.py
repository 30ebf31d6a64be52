"""Pages for people: files of `server/web`, which speak to the API like any other client."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from aiohttp import web

from server.api.middleware import error_answer
from server.errors import NotFound, shown

_TYPES = {
    "html": "text/html",
    "js": "text/javascript",
    "css": "text/css",
    "svg": "image/svg+xml",
    "txt": "text/plain",
}
_OURS = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Only what comes from here runs, or is asked."""
POLICIES = {
    # No script can make markup of a string, whoever wrote that string.
    "ui": f"{_OURS}; require-trusted-types-for 'script'; trusted-types 'none'",
    # The viewer makes markup of descriptions, and writes attributes of style, which load nothing.
    "docs": f"{_OURS}; style-src-attr 'unsafe-inline'",
}
_SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    content_type: str
    etag: str


async def show_ui(request: web.Request) -> web.StreamResponse:
    """The status page, or one of its files. Everybody may have them: without a key they show nothing."""
    return _answer(request, "ui")


async def show_docs(request: web.Request) -> web.StreamResponse:
    """The page that shows what `/openapi.json` describes, or one of its files."""
    return _answer(request, "docs")


def _answer(request: web.Request, page: str) -> web.Response:
    headers = {"Content-Security-Policy": POLICIES[page], **_SAFE}
    name = request.match_info.get("file", "")
    if not name and not request.path.endswith("/"):
        # What the page names lies below it; a relative place also fits behind a proxy that adds a prefix.
        return web.Response(status=308, headers={**headers, "Location": f"{page}/"})
    found = _files(page).get(name or "index.html")
    if found is None or (name and request.path.endswith("/")):
        refused = error_answer(NotFound(f"There is no {request.method} {shown(request.path)}."))
        refused.headers.update(headers)
        return refused
    headers["ETag"] = found.etag
    if found.etag in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    return web.Response(body=found.body, content_type=found.content_type, charset="utf-8", headers=headers)


_WEB = files("server") / "web"
_FOLDERS = {"ui": _WEB, "docs": _WEB / "docs"}


@cache
def _files(page: str) -> dict[str, _File]:
    """All files of a page by their place below it, read once. The folder of another page is not looked into."""
    found: dict[str, _File] = {}

    def read(inside: Traversable, prefix: str) -> None:
        for entry in inside.iterdir():
            if entry.is_dir():
                if entry not in _FOLDERS.values():
                    read(entry, f"{prefix}{entry.name}/")
            elif content_type := _TYPES.get(entry.name.rpartition(".")[2]):
                body = entry.read_bytes()
                etag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
                found[f"{prefix}{entry.name}"] = _File(body, content_type, etag)

    read(_FOLDERS[page], "")
    return found
