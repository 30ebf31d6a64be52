"""`pollux delete`."""

from __future__ import annotations

from typing import Annotated

import typer

from server.cli.asking import AskingCommand, client_for
from server.cli.client import Refused, path_of
from server.cli.commands import new_app
from server.cli.ids import full
from server.cli.output import remark, say, say_json
from server.cli.trouble import Code

app = new_app()


@app.command(cls=AskingCommand)
def delete(
    ctx: typer.Context,
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="The responses; - reads ids from standard input.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, an object a line.")] = False,
) -> int:
    """Delete responses with all that is stored of them. One that runs is cancelled first."""
    client = client_for(ctx)
    code = Code.FINE
    for response_id in full(client, ids):
        try:
            found = client.call("DELETE", path_of(response_id)).body
        except Refused as refused:
            if refused.status != 404:
                raise
            remark(f"pollux: {refused}")
            code = refused.code
            continue
        say_json(found) if as_json else say(f"{response_id} deleted")
    return code
