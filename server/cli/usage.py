"""`pollux usage`: requests, tokens and cost."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from server.cli.asking import AskingCommand, client_for
from server.cli.commands import new_app
from server.cli.output import remark, say_json
from server.cli.terminal import print_table
from server.cli.trouble import Code
from server.cli.words import count

app = new_app()

AMOUNTS = ("requests", "input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens")
COLUMNS = ("REQUESTS", "IN", "CACHED", "OUT", "REASONING", "COST")


@app.command(cls=AskingCommand)
def usage(
    ctx: typer.Context,
    since: Annotated[str | None, typer.Option("--from", metavar="YYYY-MM-DD", help="The first day, of UTC.")] = None,
    until: Annotated[str | None, typer.Option("--to", metavar="YYYY-MM-DD", help="The last day.")] = None,
    by: Annotated[
        list[str] | None, typer.Option(help="What rows are told apart by: day, model, owner. Repeatable.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option("--model", "-m", help="Of these models.")] = None,
    owner: Annotated[list[str] | None, typer.Option(help="Of these keys; for the master key.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, an object a line.")] = False,
) -> int:
    """Report requests, tokens and cost of your key, of the last 30 days; with the master key, of all keys."""
    client = client_for(ctx)
    query: dict[str, Any] = {"start_date": since, "end_date": until, "model": model, "owner": owner}
    query["group_by"] = by or ["model", "owner"]
    rows: list[dict[str, Any]] = []
    while True:
        report = client.get("usage", query)
        rows += report["data"]
        if not report["next_page"]:
            break
        query["page"] = report["next_page"]
    if as_json:
        for one in rows:
            say_json(one)
    elif not rows:
        remark("Nothing was used.")
    else:
        _print(rows)
    return Code.FINE


def _print(rows: list[dict[str, Any]]) -> None:
    apart = [name for name in ("date", "model", "owner") if any(one.get(name) for one in rows)]
    lines = [[str(one.get(name) or "") for name in apart] + _amounts(one) for one in rows]
    if len(rows) > 1 and apart:
        costs = [one["cost"] for one in rows if one["cost"] is not None]
        total: dict[str, Any] = {name: sum(one[name] for one in rows) for name in AMOUNTS}
        total["cost"] = sum(costs) if costs else None
        lines.append(["total", *[""] * (len(apart) - 1), *_amounts(total)])
    print_table((*(name.upper() for name in apart), *COLUMNS), lines, COLUMNS)


def _amounts(one: dict[str, Any]) -> list[str]:
    cost = "-" if one["cost"] is None else f"{one['cost']:,.4f}"
    return [*(count(one[name]) for name in AMOUNTS), cost]
