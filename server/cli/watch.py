"""`pollux watch`: one response as its text grows, or several as their statuses change."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated
from urllib.parse import quote

import typer
from rich.console import Group
from rich.text import Text

from server.cli.asking import AskingCommand, client_for
from server.cli.client import PATIENCE_S, Client, Json, Refused
from server.cli.commands import new_app
from server.cli.events import print_event
from server.cli.ids import full
from server.cli.interrupts import going_on
from server.cli.jobs import NUMBERS, columns, row
from server.cli.live import Growing
from server.cli.output import say_json
from server.cli.streams import response_events, states, status_events
from server.cli.terminal import can_draw, console, drawing, tabled
from server.cli.trouble import Code, Trouble, code_of, code_of_all
from server.protocol.lifecycle import TERMINAL_EVENTS, UNFINISHED

app = new_app()

LOOK_EVERY_S = 1.0
MOST = 200


@app.command(cls=AskingCommand)
def watch(
    ctx: typer.Context,
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID", help="The responses, - from standard input; all of them if none."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, an object a line: each event, or state.")
    ] = False,
) -> int:
    """Watch one response grow, or several, or all of yours.

    Of one response the text is printed as it comes; of several, how they stand. Where no terminal is, each change of a
    status is a line. It goes on over restarts of the server and breaks of the network, and misses nothing. The exit
    code tells how they ended; Ctrl-C ends the watching alone.
    """
    client = client_for(ctx)
    named = full(client, ids) if ids else []
    if len(named) > MOST:
        raise Trouble(f"at most {MOST} responses can be watched at once", code=Code.USAGE)
    with going_on(*named):
        if len(named) == 1:
            return _one(client, named[0], as_json=as_json)
        if can_draw(console()) and not as_json:
            return _table(client, named)
        return _lines(client, named, as_json=as_json)


def _one(client: Client, response_id: str, *, as_json: bool) -> int:
    job = _job(client, response_id)
    times = {"began": job["created_at"], "ended": job["ended_at"]} if job else {}
    with Growing(client, response_id, **times, text=not as_json) as growing:
        if job and job["stream"]:
            for event in response_events(client, response_id):
                growing.event(event)
                if as_json:
                    say_json(event)
        else:
            for state in states(client, response_id):
                growing.state(state)
                if as_json:
                    say_json(state)
    return code_of(growing.status)


def _job(client: Client, response_id: str) -> Json | None:
    """What is known of a cached response; of another one, nothing."""
    try:
        return client.get(f"jobs/{quote(response_id, safe='')}")
    except Refused as refused:
        if refused.status == 404:
            return None  # a native one, or none at all, as asking for the response itself will tell
        raise


def _lines(client: Client, ids: list[str], *, as_json: bool) -> int:
    """A line for each change, until all have ended."""
    ended: dict[str, str] = {}
    for event in status_events(client, {"response_id": ids}):
        say_json(event) if as_json else print_event(event)
        if event["type"] in TERMINAL_EVENTS:
            ended[event["data"]["id"]] = event["data"]["status"]
    return code_of_all(ended.get(one, "deleted") for one in ids)


def _table(client: Client, ids: list[str]) -> int:
    """A table that is always as things are; until all have ended, if some are named."""
    out = console()
    shown: list[Json] = []
    away: list[str] = []

    def on_away(trouble: Trouble | None) -> None:
        away[:] = [f"{trouble.headline}; trying again …"] if trouble else []
        live.refresh()

    over = False

    def picture() -> Group:
        return _picture(shown, away, out.width, None if over else out.height)

    with drawing(out, picture, stays=True) as live:
        client.on_away = on_away
        look = _look_at(client, ids, lambda: out.height)
        while True:
            shown = look()
            over = bool(ids) and all(job["status"] not in UNFINISHED for job in shown)
            live.refresh()
            if over:
                break
            time.sleep(LOOK_EVERY_S)
    return code_of_all(job["status"] for job in shown)


def _look_at(client: Client, ids: list[str], height: Callable[[], int]) -> Callable[[], list[Json]]:
    there: dict[str, Json] = {}

    def some() -> list[Json]:
        # What has ended is not asked for again: it may expire before the others have ended.
        asked = [one for one in ids if one not in there or there[one]["status"] in UNFINISHED]
        found = client.get("jobs", {"ids": ",".join(asked)}, patience_s=PATIENCE_S)["data"]
        there.update((job["id"], job) for job in found)
        if others := set(asked) - {job["id"] for job in found}:
            answers = client.get("responses", {"ids": ",".join(others)}, patience_s=PATIENCE_S)["data"]
            there.update((answer["id"], _as_job(answer)) for answer in answers)
        return [there[one] for one in ids if one in there]

    def newest() -> list[Json]:
        query = {"limit": max(1, min(MOST, height() - 4))}
        data: list[Json] = client.get("jobs", query, patience_s=PATIENCE_S)["data"]
        return data

    return some if ids else newest


def _as_job(answer: Json) -> Json:
    """A native response as a row; one that can't be shown as one that is gone."""
    if answer.get("object") == "error":
        if answer["status_code"] == 404:
            return {"id": answer["id"], "status": "deleted", "created_at": None}
        return {"id": answer["id"], "status": "in_progress", "created_at": None, "error": answer["error"]["message"]}
    usage = answer.get("usage") or {}
    return {
        "id": answer["id"],
        "status": answer["status"],
        "model": answer.get("model"),
        "created_at": answer.get("created_at"),
        "started_at": answer.get("created_at"),
        "ended_at": answer.get("completed_at"),
        "tokens": {"output": usage["output_tokens"]} if usage else None,
        "metadata": answer.get("metadata"),
    }


def _picture(jobs: list[Json], away: list[str], width: int, height: int | None) -> Group:
    """A line for each; where the screen has too few, first of all for those that have not ended."""
    named = columns(jobs)
    running = sum(job["status"] in UNFINISHED for job in jobs)
    below = Text(f"{running} of {len(jobs)} unfinished" if jobs else "There are none yet.", "dim")
    if height is not None and (beyond := len(jobs) - max(1, height - 3 - len(away))) > 0:
        jobs = sorted(jobs, key=lambda job: job["status"] not in UNFINISHED)[:-beyond]
        below.append(f", {beyond} not shown")
    table = tabled(named, (row(job, owners="OWNER" in named) for job in jobs), NUMBERS, width)
    return Group(*([table] if jobs else []), below, *(Text(text, "yellow") for text in away))
