"""Pages for people, and the description of the API for their tools. Everybody may have them: they hold no data."""

from __future__ import annotations

from server.api.description import show_description
from server.api.operation import Auth, Operation, Tag
from server.api.pages import show_docs, show_ui
from server.errors import NotFound

_FILE = "{file:[^/]+(?:/[^/]+)?}"
_FILES = ("text/html", "text/javascript", "text/css", "text/plain", "image/svg+xml")

PAGES = (
    Operation(
        method="GET",
        path="/openapi.json",
        handler=show_description,
        summary="Describe this API",
        tag=Tag.PAGES,
        auth=Auth.NONE,
        details="This document.",
        answer="Anything",
        headers=("ETag",),
        conditional=True,
        ours=True,
    ),
    *(
        Operation(
            method="GET",
            path=path,
            handler=handler,
            name=name,
            summary=summary,
            tag=Tag.PAGES,
            auth=Auth.NONE,
            media=_FILES if _FILE in path else ("text/html",),
            headers=("ETag",),
            errors=(NotFound,),
            conditional=True,
            redirects=_FILE not in path,
            ours=True,
        )
        for path, handler, name, summary in (
            ("/docs", show_docs, "", "Show this API to people, who can try it"),
            (f"/docs/{_FILE}", show_docs, "show_docs_file", "Show a file of this page"),
            ("/ui", show_ui, "", "Show the status page"),
            (f"/ui/{_FILE}", show_ui, "show_ui_file", "Show a file of the status page"),
        )
    ),
)
