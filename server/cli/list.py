"""`pollux list`: responses, newest first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from server.cli.asking import AskingCommand, client_for
from server.cli.client import Client, Json
from server.cli.commands import new_app
from server.cli.jobs import NUMBERS, columns, row
from server.cli.output import remark, say, say_json
from server.cli.terminal import print_table
from server.cli.trouble import Code
from server.protocol.lifecycle import Status

app = new_app()
PAGE = 200


@app.command(name="list", cls=AskingCommand)
def list_responses(
    ctx: typer.Context,
    status: Annotated[
        list[str] | None,
        typer.Option("--status", "-s", autocompletion=lambda: list(Status), help=f"Of these: {', '.join(Status)}."),
    ] = None,
    model: Annotated[list[str] | None, typer.Option("--model", "-m", help="Of these models.")] = None,
    owner: Annotated[list[str] | None, typer.Option(help="Of these keys; for the master key.")] = None,
    search: Annotated[str | None, typer.Option(help="With this text in id, model or metadata.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="So many.")] = 20,
    everything: Annotated[bool, typer.Option("--all", "-a", help="All of them.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only ids.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, an object a line.")] = False,
) -> int:
    """List cached responses, newest first. A key sees its own, the master key all."""
    wanted = {"status": ",".join(status or []), "model": model, "owner": owner, "search": search}
    jobs = _jobs(client_for(ctx), wanted, None if everything else limit)
    if as_json:
        for job in jobs:
            say_json(job)
    elif quiet:
        for job in jobs:
            say(job["id"])
    elif not (found := list(jobs)):
        remark("There are none.")
    else:
        named = columns(found)
        print_table(named, (row(job, owners="OWNER" in named) for job in found), NUMBERS)
    return Code.FINE


def _jobs(client: Client, wanted: Json, most: int | None) -> Iterator[Json]:
    page, left = None, most
    while True:
        found = client.get("jobs", {**wanted, "limit": PAGE if left is None else min(PAGE, left), "page": page})
        data = found["data"][:left]
        yield from data
        if left is not None:
            left -= len(data)
        page = found["next_page"]
        if not page or left == 0:
            return
