"""Reloading the config: what is read again is checked as a whole, and then goes into effect as a whole, or not at all.

A reload is asked for by SIGHUP, by `pollux reload`, or by the parent of several processes. Reloads follow one another;
those that are asked for meanwhile are one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from server.check import unusable_in
from server.config import Config, config_of
from server.config.includes import Merged
from server.config.sections import ConfigError
from server.config.unused import told_in_one
from server.keyring import check_exposure
from server.outbox.endpoints import Configured
from server.system.daemon import in_daemon

log = logging.getLogger("pollux.config")


@dataclass(frozen=True)
class Source:
    """A config, and what was read of files."""

    merged: Merged
    config: Config


@dataclass(frozen=True)
class Report:
    """What came of a reload."""

    applied: bool
    told: str = ""
    """Why it was refused; or, if it was applied, what of it needs a restart."""


class Reloads:
    """The reloads of one process."""

    def __init__(self) -> None:
        self._wanted = asyncio.Event()
        self._tells: list[Callable[[Report], None]] = []

    def ask(self, tell: Callable[[Report], None] | None = None) -> None:
        """Ask for a reload that begins after this call, and be told what came of it."""
        if tell is not None:
            self._tells.append(tell)
        self._wanted.set()

    async def run(self, reload: Callable[[], Awaitable[Report]]) -> None:
        """Reload whenever it is asked for, until cancelled. What was asked for before comes first."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            tells, self._tells = self._tells, []
            report = await reload()
            for tell in tells:
                tell(report)


T = TypeVar("T")

READ_WITHIN_S = 20.0
"""A disk of the network that is away, or a pipe in the place of the file, would block all further reloads."""


async def reload(read: Callable[[], T], apply: Callable[[T], Awaitable[Report]]) -> Report:
    """Read and check a config in a thread, apply it, and log what came of it. Both may raise ConfigError."""
    try:
        report = await apply(await _read(read))
    except ConfigError as error:
        report = Report(applied=False, told="; ".join(str(error).splitlines()))
        log.error("the config was not reloaded, nothing has changed: %s", report.told)  # noqa: TRY400
    except Exception:
        report = Report(applied=False, told="a defect of Pollux, its log has the stack")
        log.exception("the config was not reloaded, nothing has changed")
    else:
        if not report.applied:
            log.error("the config was not reloaded everywhere: %s", report.told)
        elif report.told:
            log.warning("the config was reloaded; these settings need a restart: %s", report.told)
        else:
            log.info("the config was reloaded")
    return report


async def _read(read: Callable[[], T]) -> T:
    try:
        return await in_daemon(read, "reading the config", READ_WITHIN_S)
    except TimeoutError:
        raise ConfigError(f"the file could not be read and checked within {READ_WITHIN_S:g} s") from None


def needing_a_restart(settings: Sequence[str]) -> Report:
    """The report of a reload that was applied, except for these settings."""
    return Report(applied=True, told=", ".join(settings))


def checked(merged: Merged, host: str | None) -> Config:
    """The config of files that were read, if it can go into effect on a server that listens on this host.

    None stands for a process that serves no clients.

    Raises:
        ConfigError

    """
    config = config_of(merged)
    Configured.in_config(config)
    if host is not None:
        check_exposure(config, host)
    return config


def warn_of(config: Config) -> None:
    """Log what a config has that is not used, and which deployments can't be."""
    if text := told_in_one(config):
        log.warning(text)
    for text in unusable_in(config):
        log.warning(text)
