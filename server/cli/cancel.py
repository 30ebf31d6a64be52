"""`pollux cancel`."""

from __future__ import annotations

from typing import Annotated

import typer

from server.cli.asking import AskingCommand, client_for
from server.cli.commands import new_app
from server.cli.ids import full
from server.cli.output import remark, say, say_json
from server.cli.trouble import Code

app = new_app()
MOST_AT_ONCE = 200


@app.command(cls=AskingCommand)
def cancel(
    ctx: typer.Context,
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="The responses; - reads ids from standard input.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, an object a line.")] = False,
) -> int:
    """Cancel responses. What had arrived of them is kept. The exit code is 1 if one had ended otherwise before."""
    client = client_for(ctx)
    ids = full(client, ids)
    codes = {Code.FINE}
    for start in range(0, len(ids), MOST_AT_ONCE):
        body = {"ids": ids[start : start + MOST_AT_ONCE]}
        for one in client.call("POST", "responses/cancel", body).body["data"]:
            if as_json:
                say_json(one)
            if one.get("object") == "error":
                remark(f"pollux: {one['id']}: {one['error']['message']}")
                codes.add(Code.USAGE if one["status_code"] == 404 else Code.FAILED)
                continue
            if not as_json:
                say(f"{one['id']} {one['status']}")
            if one["status"] != "cancelled":
                codes.add(Code.FAILED)
    return max(codes)
