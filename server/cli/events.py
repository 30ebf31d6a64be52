"""`pollux events`: the changes of status of all responses."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from server.cli.asking import AskingCommand, client_for
from server.cli.commands import new_app
from server.cli.ids import full
from server.cli.interrupts import going_on
from server.cli.output import in_one_line, say, say_json
from server.cli.streams import status_events
from server.cli.terminal import COLOURS, console
from server.cli.trouble import Code
from server.cli.words import clock

app = new_app()


@app.command(cls=AskingCommand)
def events(
    ctx: typer.Context,
    types: Annotated[
        list[str] | None, typer.Option("--types", "-t", help="Only these, such as response.completed. Repeatable.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option("--model", "-m", help="Only of these models.")] = None,
    response: Annotated[
        list[str] | None, typer.Option("--id", help="Only of these responses; ends when they have ended.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, an object a line.")] = False,
) -> int:
    """Follow the changes of status of your responses from now on; with the master key, of everybody's.

    It goes on over restarts of the server and breaks of the network, and misses nothing.
    """
    client = client_for(ctx)
    query = {"types": types, "model": model, "response_id": full(client, response) if response else []}
    with going_on():
        for event in status_events(client, query):
            say_json(event) if as_json else print_event(event)
    return Code.FINE


def print_event(event: dict[str, Any]) -> None:
    """One change in one line."""
    kind, data = event["type"], event["data"]
    about = [str(data[name]) for name in ("id", "model", "owner", "oldest") if data.get(name) is not None]
    about += [f"{name}={value}" for name, value in (data.get("metadata") or {}).items()]
    told, out = in_one_line(" ".join(about)), console()
    if not out.is_terminal:
        say(f"{clock(event['created_at'])[:8]} {kind} {told}")
        return
    colour = COLOURS.get(data.get("status"), "") or "dim"
    line = Text.assemble((f"{clock(event['created_at'])[:8]} ", "dim"), (f"{kind:<21}", colour), told)
    out.print(line, soft_wrap=True)
