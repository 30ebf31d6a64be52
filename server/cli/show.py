"""`pollux show`: one response, with all that it has lived through."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.text import Text

from server.cli.answers import error_of, text_of, tokens_of
from server.cli.asking import AskingCommand, client_for
from server.cli.client import Client, Refused, path_of
from server.cli.commands import new_app
from server.cli.ids import full
from server.cli.output import safe, say_json
from server.cli.terminal import console, status_text
from server.cli.trouble import Code
from server.cli.words import age, clock, duration, moment

app = new_app()
Json = dict[str, Any]

BAR = 32
"""So many characters are the time from the creation to the end."""


@app.command(cls=AskingCommand)
def show(
    ctx: typer.Context,
    response_id: Annotated[str, typer.Argument(metavar="ID")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the response, and what is known of its job.")] = False,
) -> int:
    """Show one response: how it stands, what it has lived through, its text and its usage.

    The exit code is 0, however it ended: pollux wait ID tells that.
    """
    client = client_for(ctx)
    [response_id] = full(client, [response_id])
    response = client.get(path_of(response_id))
    job = _job(client, response_id)
    if as_json:
        say_json({**response, "job": job})
        return Code.FINE
    out = console()
    out.print(status_text(response["status"]), Text(f" {response_id}", "bold"), sep="", soft_wrap=True)
    for name, value in _facts(response, job):
        out.print(Text.assemble((f"{name:<11}", "dim"), safe(value)), soft_wrap=True)
    if error := error_of(response):
        out.print(Text.assemble((f"{'error':<11}", "dim"), (safe(error), "red")), soft_wrap=True)
    if job:
        out.print()
        for line in _life(job):
            out.print(line, soft_wrap=True)
    if text := text_of(response):
        out.print()
        out.print(Text(safe(text)), soft_wrap=True)
    return Code.FINE


def _job(client: Client, response_id: str) -> Json | None:
    try:
        return client.get(f"jobs/{quote(response_id, safe='')}")
    except Refused as refused:
        if refused.status == 404:
            return None  # a native response, or a proxied one: it is the provider's
        raise


def _facts(response: Json, job: Json | None) -> list[tuple[str, str]]:
    about = job or {}
    created = about.get("created_at") or response.get("created_at")
    deployment = about.get("deployment") or {}
    place = " ".join(str(deployment[name]) for name in ("provider", "model") if deployment.get(name))
    metadata = " ".join(f"{name}={value}" for name, value in (response.get("metadata") or {}).items())
    ended = about.get("ended_at") or response.get("completed_at")
    took = duration(ended - created) if ended and created else ""
    facts = [
        ("model", str(response.get("model") or "") + (f" ({place})" if place else "")),
        ("owner", str(about.get("owner") or "")),
        ("created", f"{moment(created)}, {age(created)} ago"),
        ("took", took),
        ("metadata", metadata),
        ("tokens", tokens_of(response) or ""),
    ]
    return [(name, value) for name, value in facts if value]


def _life(job: Json) -> list[Text]:
    """A line for each phase, with a bar that shows when it was."""
    begin, life = job["created_at"], job["life"]
    known = [phase["until"] or phase["from"] for phase in life]
    end = max([job["ended_at"] or 0.0, *known])
    if job["ended_at"] is None:
        end = max(end, begin + 1.0)
    scale = BAR / max(end - begin, 0.001)
    lines = []
    for phase in life:
        running = phase["phase"] == "run"
        until = phase["until"] or end
        name = f"run {phase['attempt']}" if running else "queued"
        left, right = round((phase["from"] - begin) * scale), round((until - begin) * scale)
        bar = f"{' ' * left}{('█' if running else '░') * max(1, right - left)}"[: BAR + 1]
        told = [duration(phase["until"] - phase["from"]) if phase["until"] else "until now"]
        told += [
            word for word, so in (("reclaimed", phase.get("reclaimed")), ("handed over", phase.get("released"))) if so
        ]
        told += [f"by {phase['worker']}"] if phase.get("worker") else []
        lines.append(
            Text.assemble(
                (f"{clock(phase['from'])}  ", "dim"),
                f"{name:<8}",
                (f"{bar:<{BAR + 1}}  ", "blue" if running else "yellow"),
                safe(", ".join(told)),
            )
        )
        lines += [
            Text(safe(f"{clock(one.get('at'))}    try at {one.get('model')} failed: {one.get('reason')}"), "red")
            for one in phase.get("failed_tries") or []
        ]
    if job["first_event_at"] and life:
        after = duration(job["first_event_at"] - begin)
        lines.append(Text.assemble((f"{clock(job['first_event_at'])}  ", "dim"), f"first event after {after}"))
    if job["ended_at"]:
        lines.append(Text.assemble((f"{clock(job['ended_at'])}  ", "dim"), status_text(job["status"])))
    return lines
