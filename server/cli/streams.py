"""Server-sent events, followed across breaks: each is seen once, whatever happens to the server or the network."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from http.client import HTTPException, HTTPResponse
from typing import Any, NamedTuple

from server.cli.client import BREAK_S, PATIENCE_S, WAIT_S, Client, Query, Refused, Strange, path_of
from server.cli.trouble import Code, Trouble
from server.protocol.lifecycle import TERMINAL_EVENTS, UNFINISHED

Json = dict[str, Any]
ENDS = {*TERMINAL_EVENTS, "response.deleted"}
AT_ONCE = 64 * 1024


class Block(NamedTuple):
    """One event of a stream."""

    id: str
    data: Json | None


def blocks(client: Client, answer: HTTPResponse) -> Iterator[Block]:
    """The events of one answer. What is not whole when it breaks is dropped.

    Raises:
        OSError, HTTPException: it broke
        Strange: it is no stream of events

    """
    if answer.headers.get_content_type() != "text/event-stream":
        raise Strange(client.settings.url, "it does not stream events")
    last_id, data = "", b""
    for raw in _lines(answer):
        line = raw.rstrip(b"\r")
        if line.startswith(b"data:"):
            data += line[5:].strip()
        elif line.startswith(b"id:"):
            last_id = line[3:].decode("latin-1").strip()
        elif not line and (data or last_id):
            yield Block(last_id, client.parsed(data) if data and data != b"[DONE]" else None)
            last_id, data = "", b""


def _lines(answer: HTTPResponse) -> Iterator[bytes]:
    """Its lines. (Its own way to read by lines takes a break for the end.)"""
    rest = b""
    while piece := answer.read1(AT_ONCE):
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole


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
                for _, event in blocks(client, stream):
                    if event is None:
                        continue
                    number = event.get("sequence_number", -1)
                    if number > after:
                        after = number
                        yield event
                    if event.get("type") in TERMINAL_EVENTS:
                        return
        except (OSError, HTTPException) as error:
            client.away(Trouble(f"the stream broke ({type(error).__name__})"))
        time.sleep(BREAK_S)


def status_events(client: Client, query: Query, last_id: str = "") -> Iterator[Json]:
    """The changes of status that `GET /v1/events` tells of, from now on or behind `last_id`.

    With `response_id` in the query they end when all of these have ended, or are gone.

    Raises:
        Refused, Unreachable

    """
    left = set(query.get("response_id") or ())
    asked_for_some = bool(left)
    while True:
        told = False
        headers = {"Last-Event-ID": last_id} if last_id else {}
        answer = client.open("GET", "events", query=query, headers=headers, patience_s=PATIENCE_S)
        try:
            with answer as stream:
                for block in blocks(client, stream):
                    last_id = block.id or last_id
                    if block.data is not None:
                        told = True
                        if block.data.get("type") in ENDS:
                            left.discard(block.data["data"]["id"])
                        yield block.data
            # A stream may end before its time. The next one tells what is missing; if that is nothing, they are gone.
            if asked_for_some and (not left or not told):
                return
        except (OSError, HTTPException) as error:
            client.away(Trouble(f"the stream broke ({type(error).__name__})"))
        time.sleep(BREAK_S)


def states(client: Client, response_id: str, etag: str = "") -> Iterator[Json]:
    """Each new state of a response, beginning with the present one, to its end.

    Raises:
        Refused, Unreachable
        Trouble: the response was deleted meanwhile

    """
    seen = False
    while True:
        query = {"wait": WAIT_S, "after": etag.strip('"').removeprefix('W/"')} if etag else {}
        try:
            response, newer = client.call(
                "GET", path_of(response_id), query=query, wait_s=WAIT_S, patience_s=PATIENCE_S if seen else 10.0
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
