"""`pollux top`: the service at work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from server.cli.asking import AskingCommand, client_for
from server.cli.client import PATIENCE_S, Client, Refused
from server.cli.commands import new_app
from server.cli.interrupts import going_on
from server.cli.jobs import NUMBERS, columns, row
from server.cli.output import say_json
from server.cli.terminal import COLOURS, can_draw, console, drawing, tabled
from server.cli.trouble import Code, Trouble
from server.cli.words import age, count, duration, sparkline
from server.protocol.lifecycle import UNFINISHED, Status

app = new_app()
Json = dict[str, Any]

BARS = 60
LEAST_JOBS = 3
"""So many that run are shown on the lowest screen."""
BESIDE = 22
"""So wide is what stands beside the bars."""
STATES = {"healthy": "green", "cooling": "red", "partly_cooling": "yellow", "unusable": "bright_black"}


@app.command(cls=AskingCommand)
def top(
    ctx: typer.Context,
    every: Annotated[float, typer.Option(min=0.2, metavar="SECONDS", help="How often it looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, an object a line.")] = False,
) -> int:
    """Watch the service: its last hour, what runs, and how deployments and processes do. Ctrl-C ends it."""
    client = client_for(ctx)
    out = console()
    if as_json or once or not can_draw(out):
        with going_on():
            while True:
                found = _seen(client, 200)
                say_json(found) if as_json else out.print(_picture(found, None, out.width, None))
                if once or not as_json:
                    return Code.FINE
                time.sleep(every)
    found, away = _seen(client, out.height), [None]

    def on_away(trouble: Trouble | None) -> None:
        away[:] = [trouble]  # type: ignore[list-item]
        live.refresh()

    def picture() -> Group:
        return _picture(found, away[0], out.width, out.height)

    with going_on(), drawing(out, picture, screen=True) as live:
        client.on_away = on_away
        while True:
            time.sleep(every)
            found = _seen(client, out.height)


def _seen(client: Client, height: int) -> Json:
    """All that is shown. Processes are the master key's to see."""
    found = {
        "object": "top",
        "at": time.time(),
        "url": client.settings.url,
        "tallies": client.get("tallies", patience_s=PATIENCE_S),
        "deployments": client.get("deployments", patience_s=PATIENCE_S)["data"],
        "unfinished": client.get(
            "jobs", {"status": ",".join(UNFINISHED), "limit": max(LEAST_JOBS, height)}, patience_s=PATIENCE_S
        )["data"],
    }
    try:
        found["processes"] = client.get("processes", patience_s=PATIENCE_S)["data"]
    except Refused as refused:
        if refused.status != 403:
            raise
    return found


def _picture(found: Json, away: Trouble | None, width: int, height: int | None) -> Group:
    """All of it; of what runs as much as the screen has room for."""
    above, below = [*_above(found, away, width)], [*_below(found, width)]
    jobs = found["unfinished"]
    if height is not None:
        taken = sum(part.row_count + 1 if isinstance(part, Table) else 1 for part in (*above, *below))
        jobs = jobs[: max(LEAST_JOBS, height - taken - 1)]
    named = columns(jobs)
    rows = (row(job, owners="OWNER" in named) for job in jobs)
    return Group(*above, tabled(named, rows, NUMBERS, width) if jobs else Text("Nothing runs.", "dim"), *below)


def _above(found: Json, away: Trouble | None, width: int) -> Iterator[RenderableType]:
    yield Text.assemble(("Pollux ", "bold"), found["url"], (f"  {time.strftime('%H:%M:%S')}", "dim"))
    if away is not None:
        yield Text(f"{away.headline}; trying again …", "yellow")
    yield from _hour(found["tallies"], width)
    yield Text()


def _below(found: Json, width: int) -> Iterator[RenderableType]:
    yield Text()
    yield tabled(
        ("DEPLOYMENT", "MODEL", "STATE", "IN FLIGHT", "CALLS", "FAILED", "MEDIAN", "FIRST"),
        (_deployment(one) for one in found["deployments"]),
        ("IN FLIGHT", "CALLS", "FAILED", "MEDIAN", "FIRST"),
        width,
    )
    if processes := found.get("processes"):
        yield Text()
        yield tabled(
            ("PROCESS", "VERSION", "ROLE", "UP", "RUNS", "WAITERS", "STREAMS"),
            (_process(one) for one in processes),
            ("UP", "RUNS", "WAITERS", "STREAMS"),
            width,
        )


def _hour(tallies: Json, width: int) -> Iterator[Text]:
    """The last hour of each status that there was, a bar a minute."""
    if tallies["queued"] is not None:
        yield Text(f"{count(tallies['queued'])} queued, {count(tallies['running'])} running")
    minutes = tallies["data"][-max(1, min(BARS, width - BESIDE)) :]
    for status in (status for status in Status if status is not Status.IN_PROGRESS):
        values = [int(minute.get(status, 0)) for minute in minutes]
        if any(values):
            yield Text.assemble(f"{status:<12}", (sparkline(values), COLOURS[status]), f" {count(sum(values))}/h")


def _deployment(one: Json) -> list[str | Text]:
    most = f"/{one['most_in_flight']}" if one["most_in_flight"] else ""
    return [
        f"{one['provider']} {one['upstream_model']}",
        one["model"],
        Text(one["state"].replace("_", " "), STATES.get(one["state"], "")),
        f"{one['in_flight']}{most}",
        count(one["calls"]),
        count(one["failed"]),
        duration(one["median_s"]),
        duration(one["first_event_median_s"]),
    ]


def _process(one: Json) -> list[str | Text]:
    leaving = " (leaving)" if one["leaving"] else ""
    numbers = (count(one[name]) for name in ("runs", "waiters", "streams"))
    return [one["id"] + leaving, one["version"], one["role"], age(one["started_at"]), *numbers]
