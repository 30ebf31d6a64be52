"""`pollux reload`: have running servers read their config files again."""

from __future__ import annotations

from typing import Annotated

import typer

from server.cli.commands import new_app
from server.cli.failing import told
from server.cli.output import remark, say
from server.cli.trouble import Code
from server.reload.control_socket import ask_servers

app = new_app()


@app.command()
def reload(
    pid: Annotated[
        int | None, typer.Option(metavar="PID", help="Only this server: its process, or the parent of several.")
    ] = None,
) -> int:
    """Tell the servers of this user on this machine, or in this container, to read their config files again.

    It reports what came of it. The exit code is 0 if all have, and 1 if one refused its file: it goes on as before.
    """
    code = Code.FINE
    with told():
        for server, report in ask_servers(pid):
            if not report.applied:
                remark(f"pollux: process {server} has reloaded nothing: {report.told}")
                code = Code.FAILED
            elif report.told:
                say(f"process {server} has reloaded its config; these settings need a restart: {report.told}")
            else:
                say(f"process {server} has reloaded its config")
    return code
