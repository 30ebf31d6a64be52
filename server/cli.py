"""The `pollux` command."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop

from server import __version__
from server.assembly import Role
from server.check import describe, warnings_about
from server.config import CERT_VARIABLE, KEY_VARIABLE, config_of, load_config
from server.control_socket import ask_servers
from server.includes import read_merged
from server.link import Link
from server.logs import configure_logs
from server.metrics import Shared
from server.reload import Source, checked, warn_of
from server.restart import carried_over
from server.sections import ConfigError
from server.serve import ServiceBroke, serve
from server.simulator import serve_simulator
from server.supervise import supervise
from server.unused import told_in_one
from storage import StoreError

log = logging.getLogger("pollux.cli")

_RELOAD = """Tell the servers of this user on this machine, or in this container, to read their config files again, and
report what came of it. The exit code is 0 if all have, and 1 if one refused its file: it goes on as before.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. The exit code is 0, 1 (it failed, and printed or logged why) or 2 (wrong usage)."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.command(arguments)
    except (ConfigError, StoreError) as error:
        print(f"pollux: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except OSError as error:
        print(f"pollux: {error.strerror or error}", file=sys.stderr)  # noqa: T201
        return 1
    except ServiceBroke:
        return 1  # the failure was logged; a supervisor restarts the process
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pollux",
        description="Background mode of OpenAI's Responses API for every client and every model.",
    )
    parser.add_argument("--version", action="version", version=f"pollux {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serving = commands.add_parser("serve", help="serve the Responses API")
    serving.add_argument("--config", type=Path, required=True, metavar="FILE", help="LiteLLM's config file")
    serving.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    serving.add_argument("--port", type=int, default=4000, help="the port to listen on (default: %(default)s)")
    serving.add_argument(
        "--workers", type=_count, default=1, metavar="N", help="so many processes on the port (default: %(default)s)"
    )
    serving.add_argument(
        "--role",
        type=Role,
        choices=list(Role),
        default=Role.ALL,
        metavar="{all,api,worker}",
        help="answer clients (api), run jobs (worker), or both (default: %(default)s)",
    )
    # LiteLLM's names, and like there a way to set the variables.
    serving.add_argument("--ssl_certfile_path", metavar="FILE", help="serve TLS with this certificate, and its chain")
    serving.add_argument("--ssl_keyfile_path", metavar="FILE", help="its key")
    # Set by the parent of several processes: the file descriptor of the link to it.
    serving.add_argument("--supervised", type=int, default=None, help=argparse.SUPPRESS)
    # Where it shares its metrics with the others, and under which number.
    serving.add_argument("--metrics-files", nargs=2, default=None, help=argparse.SUPPRESS)
    serving.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    serving.set_defaults(command=_serve)

    checking = commands.add_parser("check-config", help="print what a config file means, and check it")
    which = checking.add_mutually_exclusive_group(required=True)
    which.add_argument("config", type=Path, nargs="?", metavar="FILE", help="LiteLLM's config file")
    which.add_argument("--config", type=Path, dest="same", metavar="FILE", help="the same, as serve takes it")
    checking.add_argument("--strict", action="store_true", help="fail where there is anything to warn of")
    checking.set_defaults(command=_check)

    reloading = commands.add_parser(
        "reload", help="have running servers read their config file again", description=_RELOAD
    )
    reloading.add_argument(
        "--pid", type=int, metavar="PID", help="only this server: its process, or the parent of several"
    )
    reloading.set_defaults(command=_reload)

    simulating = commands.add_parser("simulate", help="a provider to try things with, no account needed")
    simulating.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    simulating.add_argument("--port", type=int, default=4010, help="the port to listen on (default: %(default)s)")
    simulating.add_argument("--api-key", default=None, help="refuse other keys than this one")
    simulating.set_defaults(command=_simulate)
    return parser


def _count(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


def _serve(arguments: argparse.Namespace) -> int:
    if arguments.supervised is not None:
        return _serve_as_one_of_several(arguments)
    for variable, file in ((CERT_VARIABLE, arguments.ssl_certfile_path), (KEY_VARIABLE, arguments.ssl_keyfile_path)):
        if file is not None:
            os.environ[variable] = file  # where the processes look that this one may start
    config = load_config(arguments.config)
    configure_logs(config.pollux.log_format, arguments.log_level)
    warn_of(config)
    if arguments.workers > 1:
        return _supervise(arguments)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(config, arguments.config, arguments.host, arguments.port, arguments.role))
    return 0


def _supervise(arguments: argparse.Namespace) -> int:
    clients_at = None if arguments.role is Role.WORKER else arguments.host

    def read() -> Source:
        merged = read_merged(arguments.config)
        return Source(merged, checked(merged, clients_at))

    _name_process_in_logs()
    return asyncio.run(supervise(_command(arguments), read, arguments.host, arguments.port, arguments.workers))


def _serve_as_one_of_several(arguments: argparse.Namespace) -> int:
    link = Link(arguments.supervised)
    config, _ = carried_over(config_of(link.first), config_of(link.newest))
    configure_logs(config.pollux.log_format, arguments.log_level)
    _name_process_in_logs()
    place = arguments.metrics_files
    shared = Shared(place[0], int(place[1])) if place else None
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(config, arguments.config, arguments.host, arguments.port, arguments.role, link, shared))
    return 0


def _command(arguments: argparse.Namespace) -> list[str]:
    """The command line that starts one of several processes, without its port."""
    options = {
        "--config": arguments.config,
        "--host": arguments.host,
        "--role": arguments.role,
        "--log-level": arguments.log_level,
    }
    # -P keeps Python from importing another `server` that is in the working directory.
    return [sys.executable, "-P", "-m", "server", "serve", *(str(word) for pair in options.items() for word in pair)]


def _name_process_in_logs() -> None:
    """Add the field `pid` to each log line, because several processes write to one stream."""
    make = logging.getLogRecordFactory()

    def make_with_pid(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        record.pid = record.process
        return record

    logging.setLogRecordFactory(make_with_pid)


def _check(arguments: argparse.Namespace) -> int:
    configure_logs("console")
    config = load_config(arguments.config or arguments.same)
    if text := told_in_one(config):
        log.warning(text)
    sys.stdout.write(describe(config))
    return int(arguments.strict and any(warnings_about(config)))


def _reload(arguments: argparse.Namespace) -> int:
    applied = True
    for pid, report in ask_servers(arguments.pid):
        applied = applied and report.applied
        if not report.applied:
            print(f"pollux: process {pid} has reloaded nothing: {report.told}", file=sys.stderr)  # noqa: T201
        elif report.told:
            print(f"process {pid} has reloaded its config; these settings need a restart: {report.told}")  # noqa: T201
        else:
            print(f"process {pid} has reloaded its config")  # noqa: T201
    return 0 if applied else 1


def _simulate(arguments: argparse.Namespace) -> int:
    configure_logs("console")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_simulator(arguments.host, arguments.port, arguments.api_key))
    return 0


if __name__ == "__main__":
    sys.exit(main())
