"""`pollux wait`: until responses have ended."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated

import typer
from rich.spinner import Spinner

from server.cli.answers import error_of
from server.cli.asking import AskingCommand, client_for
from server.cli.client import PASSING, PATIENCE_S, UNKNOWN, WAIT_S, Client, Json
from server.cli.commands import new_app
from server.cli.ids import full
from server.cli.interrupts import going_on
from server.cli.output import in_one_line, remark, say, say_json
from server.cli.terminal import aside, can_draw, console, drawing
from server.cli.trouble import Code, Trouble, code_of, code_of_all
from server.cli.words import several
from server.protocol.lifecycle import UNFINISHED

app = new_app()

MOST_AT_ONCE = 200


@app.command(cls=AskingCommand)
def wait(
    ctx: typer.Context,
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="The responses; - reads ids from standard input.")],
    one: Annotated[bool, typer.Option("--any", help="Until any of them has ended, not all.")] = False,
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", min=0, help="Then end, with code 5.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, an object a line.")] = False,
) -> int:
    """Wait until all responses have ended, or --any. Prints each as it ends: its id and its status.

    The exit code is 0 if all are completed, 1 if one failed, else 3 if one was cancelled; with --any it is told by the
    one that ended first.
    """
    client = client_for(ctx)
    ids = full(client, ids)
    if one and len(ids) > MOST_AT_ONCE:
        raise Trouble(f"--any takes at most {MOST_AT_ONCE} ids", code=Code.USAGE)
    deadline = time.monotonic() + (math.inf if timeout is None else timeout)
    ended: dict[str, str] = {}
    with going_on(*ids), _progress(len(ids), as_json=as_json):
        for found in _endings(client, ids, deadline):
            ended[found["id"]] = status = found.get("status") or "deleted"
            say_json(found) if as_json else say(_told(found, status))
            if one:
                return code_of(status)
    if len(ended) < len(ids):
        left = [one for one in ids if one not in ended]
        remark(f"pollux: {len(left)} of {len(ids)} have not ended within {timeout:g} s")
        return Code.NOT_YET
    return code_of_all(ended.values())


def _progress(number: int, *, as_json: bool) -> AbstractContextManager[object]:
    out = aside() if as_json or not sys.stdout.isatty() else console()
    spinner = Spinner("dots", f"waiting for {several(number, 'response')} …")
    return drawing(out, lambda: spinner) if can_draw(out) else nullcontext()


def _told(found: Json, status: str) -> str:
    error = error_of(found) if found.get("object") == "response" else None
    return f"{found['id']} {status}" + (f" ({in_one_line(error)})" if error else "")


def _endings(client: Client, ids: list[str], deadline: float) -> Iterator[Json]:
    """Each response once it has ended, until all have or time is up.

    Raises:
        Trouble: one of them is not known

    """
    known: set[str] = set()
    left = list(ids)
    while left:
        # The server takes whole seconds. What is left of one is waited for here, and then asked once more.
        seconds = int(max(0.0, min(WAIT_S, deadline - time.monotonic())))
        query = {"ids": ",".join(left[:MOST_AT_ONCE]), "wait": seconds}
        began = time.monotonic()
        found = client.get("responses", query, wait_s=seconds, patience_s=PATIENCE_S)["data"]
        over = [one for one in found if _is_over(one, known)]
        for one in over:
            left.remove(one["id"])
            yield one
        known.update(one["id"] for one in found)
        if time.monotonic() >= deadline:
            return
        if left and not over and time.monotonic() - began < 1:
            # An answer at once, as of one that can't be asked for at the moment.
            time.sleep(max(0.0, min(1.0, deadline - time.monotonic())))


def _is_over(one: Json, known: set[str]) -> bool:
    if one.get("object") != "error":
        return one.get("status") not in UNFINISHED
    if one["status_code"] in PASSING:
        return False
    if one["id"] not in known:
        raise Trouble(
            f"{one['id']}: {one['error']['message']}",
            UNKNOWN,
            code=Code.USAGE,
        )
    return True
