"""`pollux check-config`: what a config file means."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from server.check import describe, warnings_about
from server.cli.commands import new_app
from server.cli.failing import told
from server.cli.trouble import Code, Trouble
from server.config import load_config
from server.config.unused import told_in_one
from server.logs import configure_logs

log = logging.getLogger("pollux.cli")
app = new_app()


@app.command()
def check_config(
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="LiteLLM's config file.")] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="The same, as `serve` takes it.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail where there is anything to warn of.")] = False,
) -> int:
    """Print what a config file means: the mode of each model with the reason, its deployments, and warnings."""
    path = named(file, config)
    configure_logs("console")
    with told():
        loaded = load_config(path)
        if text := told_in_one(loaded):
            log.warning(text)
        sys.stdout.write(describe(loaded))
        return Code.FAILED if strict and any(warnings_about(loaded)) else Code.FINE


def named(file: Path | None, config: Path | None) -> Path:
    """The file that was named in either way.

    Raises:
        Trouble: in none, or in both

    """
    if (found := file or config) is None or (file and config):
        raise Trouble("name one config file: pollux check-config FILE", code=Code.USAGE)
    return found
