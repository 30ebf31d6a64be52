"""The `pollux` command."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from server import __version__
from server.app import serve
from server.check import describe
from server.config import ConfigError, load_config, warn_of_unknown_keys
from server.logs import configure_logs
from server.simulator import serve_simulator
from storage import StoreError

log = logging.getLogger("pollux.cli")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code is 0, 1 (it failed, and said why) or 2 (wrong usage)."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.command(arguments)
    except (ConfigError, StoreError) as error:
        print(f"pollux: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except OSError as error:
        print(f"pollux: {error.strerror or error}", file=sys.stderr)  # noqa: T201
        return 1
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
    serving.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    serving.set_defaults(command=_serve)

    checking = commands.add_parser("check-config", help="print what a config file means, and check it")
    checking.add_argument("config", type=Path, metavar="FILE")
    checking.set_defaults(command=_check)

    simulating = commands.add_parser("simulate", help="a provider to try things with, no account needed")
    simulating.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    simulating.add_argument("--port", type=int, default=4010, help="the port to listen on (default: %(default)s)")
    simulating.add_argument("--api-key", default=None, help="refuse other keys than this one")
    simulating.set_defaults(command=_simulate)
    return parser


def _serve(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config)
    configure_logs(config.pollux.log_format, arguments.log_level)
    warn_of_unknown_keys(config)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(config, arguments.host, arguments.port))
    return 0


def _check(arguments: argparse.Namespace) -> int:
    configure_logs("console")
    config = load_config(arguments.config)
    warn_of_unknown_keys(config)
    sys.stdout.write(describe(config))
    return 0


def _simulate(arguments: argparse.Namespace) -> int:
    configure_logs("console")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_simulator(arguments.host, arguments.port, arguments.api_key))
    return 0


if __name__ == "__main__":
    sys.exit(main())
