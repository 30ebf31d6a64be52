"""Server-sent events, followed across breaks: each is seen once, whatever happens to the server or the network."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from http.client import HTTPException, HTTPResponse
from typing import Any, NamedTuple

from server.cli.client import PATIENCE_S, Client, Query, Refused, path_of
from server.cli.trouble import Code, Trouble
from server.protocol.lifecycle import TERMINAL_EVENTS, UNFINISHED

Json = dict[str, Any]
BREAK_S = 0.2
"""Between a stream that broke and the next try, so that one that breaks at once does not spin."""


class Block(NamedTuple):
    """One event of a stream."""

    id: str
    data: Json | None


def blocks(answer: HTTPResponse) -> Iterator[Block]:
    """The events of one answer. A break raises OSError or HTTPException; what is not whole then is dropped."""
    last_id, data = "", b""
    for raw in answer:
        line = raw.rstrip(b"\r\n")
        if line.startswith(b"data:"):
            data += line[5:].strip()
        elif line.startswith(b"id:"):
            last_id = line[3:].decode().strip()
        elif not line and (data or last_id):
            yield Block(last_id, json.loads(data) if data and data != b"[DONE]" else None)
            last_id, data = "", b""


def response_events(
    client: Client, response_id: str, after: int = -1, opened: AbstractContextManager[HTTPResponse] | None = None
) -> Iterator[Json]:
    """The events of a response that was created with `stream`, behind that number, to its end.

    `opened` is an answer that streams already, such as that of the create call.

    Raises:
        Refused, Unreachable

    """
    while True:
        query = {"stream": "true", "starting_after": after if after >= 0 else None}
        answer = opened or client.open("GET", path_of(response_id), query=query, patience_s=PATIENCE_S)
        opened = None
        try:
            with answer as stream:
                for _, event in blocks(stream):
                    if event is None:
                        continue
                    number = event.get("sequence_number", -1)
                    if number > after:
                        after = number
                        yield event
                    if event.get("type") in TERMINAL_EVENTS:
                        return
        except (OSError, HTTPException) as error:
            client.on_away(Trouble(f"the stream broke ({type(error).__name__})"))
        time.sleep(BREAK_S)


def status_events(client: Client, query: Query, last_id: str = "") -> Iterator[Json]:
    """The changes of status that `GET /v1/events` tells of, from now on or behind `last_id`.

    With `response_id` in the query they end when all of these have ended.

    Raises:
        Refused, Unreachable

    """
    while True:
        headers = {"Last-Event-ID": last_id} if last_id else {}
        answer = client.open("GET", "events", query=query, headers=headers, patience_s=PATIENCE_S)
        try:
            with answer as stream:
                for block in blocks(stream):
                    last_id = block.id or last_id
                    if block.data is not None:
                        yield block.data
            if query.get("response_id"):
                return
        except (OSError, HTTPException) as error:
            client.on_away(Trouble(f"the stream broke ({type(error).__name__})"))
        time.sleep(BREAK_S)


def states(client: Client, response_id: str, etag: str = "", wait_s: int = 50) -> Iterator[Json]:
    """Each new state of a response, beginning with the present one, to its end.

    Raises:
        Refused, Unreachable: also where the response was deleted meanwhile

    """
    seen = False
    while True:
        query = {"wait": wait_s, "after": etag.strip('"').removeprefix('W/"')} if etag else {}
        try:
            response, newer = client.call(
                "GET", path_of(response_id), query=query, wait_s=wait_s, patience_s=PATIENCE_S if seen else 10.0
            )
        except Refused as refused:
            if seen and refused.status == 404:
                raise Trouble(f"{response_id} was deleted", code=Code.FAILED) from None
            raise
        if newer != etag or not seen:
            yield response
        seen, etag = True, newer
        if response.get("status") not in UNFINISHED:
            return
        if not newer:
            time.sleep(1.0)  # held for so long that the answer has no entity tag
