"""`pollux serve`: the server, in one process or several."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop

from server.cli.commands import new_app
from server.cli.failing import told
from server.cli.served import HIGHEST_PORT, Level, Served
from server.cli.trouble import Code
from server.config import CERT_VARIABLE, KEY_VARIABLE, config_of, load_config
from server.config.includes import read_merged
from server.logs import configure_logs
from server.metrics import Shared
from server.process.assembly import Role
from server.process.serve import ServiceBroke
from server.process.serve import serve as serve_here
from server.process.supervise import supervise
from server.reload.link import Link
from server.reload.reload import Source, checked, warn_of
from server.reload.restart import carried_over

app = new_app()


@app.command()
def serve(
    config: Annotated[Path, typer.Option(metavar="FILE", help="LiteLLM's config file.")],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=HIGHEST_PORT, help="The port to listen on; 0 takes a free one.")
    ] = 4000,
    workers: Annotated[int, typer.Option(min=1, metavar="N", help="So many processes on the port.")] = 1,
    role: Annotated[Role, typer.Option(help="Answer clients (api), run jobs (worker), or both.")] = Role.ALL,
    # LiteLLM's names, and like there a way to set the variables.
    cert_file: Annotated[
        str | None,
        typer.Option("--ssl_certfile_path", metavar="FILE", help="Serve TLS with this certificate, and its chain."),
    ] = None,
    key_file: Annotated[str | None, typer.Option("--ssl_keyfile_path", metavar="FILE", help="Its key.")] = None,
    supervised: Annotated[
        int | None, typer.Option(hidden=True, help="The file descriptor of the link to the parent.")
    ] = None,
    metrics_files: Annotated[
        tuple[str, int] | None, typer.Option(hidden=True, help="Where metrics are shared, and under which number.")
    ] = None,
    log_level: Annotated[Level, typer.Option(help="The least important lines that are logged.")] = Level.INFO,
) -> int:
    """Serve the Responses API."""
    served = Served(config, host, port, role, log_level)
    with told():
        try:
            if supervised is not None:
                return _serve_as_one_of_several(served, Link(supervised), metrics_files)
            for variable, file in ((CERT_VARIABLE, cert_file), (KEY_VARIABLE, key_file)):
                if file is not None:
                    os.environ[variable] = file  # where the processes look that this one may start
            return _serve(served, workers)
        except ServiceBroke:
            return Code.FAILED  # the failure was logged; a supervisor restarts the process


def _serve(served: Served, workers: int) -> int:
    config = load_config(served.config)
    configure_logs(config.pollux.log_format, served.log_level)
    warn_of(config)
    if workers > 1:
        return _supervise(served, workers)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_here(config, served.config, served.host, served.port, Role(served.role)))
    return Code.FINE


def _supervise(served: Served, workers: int) -> int:
    clients_at = None if served.role == Role.WORKER else served.host

    def read() -> Source:
        merged = read_merged(served.config)
        return Source(merged, checked(merged, clients_at))

    _name_process_in_logs()
    return asyncio.run(supervise(served.command(), read, served.host, served.port, workers))


def _serve_as_one_of_several(served: Served, link: Link, place: tuple[str, int] | None) -> int:
    config, _ = carried_over(config_of(link.first), config_of(link.newest))
    configure_logs(config.pollux.log_format, served.log_level)
    _name_process_in_logs()
    shared = Shared(*place) if place else None
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_here(config, served.config, served.host, served.port, Role(served.role), link, shared))
    return Code.FINE


def _name_process_in_logs() -> None:
    """Add the field `pid` to each log line, because several processes write to one stream."""
    make = logging.getLogRecordFactory()

    def make_with_pid(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        record.pid = record.process
        return record

    logging.setLogRecordFactory(make_with_pid)
