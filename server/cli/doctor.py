"""`pollux doctor`: what is wrong, and what to do."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from server.cli.asking import AskingCommand, client_for
from server.cli.commands import new_app
from server.cli.doctor_url import examine_server
from server.cli.findings import print_findings
from server.cli.trouble import Code, Trouble

app = new_app()


@app.command(cls=AskingCommand)
def doctor(
    ctx: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A config file; without one, a running server is asked.")
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="The same, as `serve` takes it.")] = None,
    upstreams: Annotated[
        bool,
        typer.Option(
            "--upstreams", help="Ask each provider too. (Of a running server: by a short response, not free.)"
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, an object a line.")] = False,
) -> int:
    """Check a config file and what it names, or a running server. The exit code is 1 if something is wrong.

    With FILE, on the machine that is to serve it: the config, the store (whether it answers, its version, the rights
    that it grants, eviction, its clock), the limit of open files, and with --upstreams each provider. A store that
    is embedded is started for that, and an empty store gets its settings, as by a start.
    """
    if file and config:
        raise Trouble("name one config file", code=Code.USAGE)
    if (named := file or config) is not None:
        # With it comes all that serves, which a look at a running server does without.
        examine_file = import_module("server.cli.doctor_file").examine_file
        return print_findings(examine_file(named, upstreams=upstreams), as_json=as_json)
    return print_findings(examine_server(client_for(ctx), upstreams=upstreams), as_json=as_json)
