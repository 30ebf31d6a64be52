"""One process from its start to its end: it listens, serves until it is told to end, and leaves in order.

The order of the end: load balancers are told, while all is served as ever; nothing listens any more; runs end, or are
handed over; waits are answered, and streams cut so that clients resume them elsewhere. At no point is there an answer
that a client could take for a failure, as long as another replica serves.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack, nullcontext
from functools import partial
from pathlib import Path

from server.api.front import Front
from server.config import Config
from server.config.includes import read_merged
from server.keyring import check_exposure
from server.metrics import Shared
from server.process.app import BACKLOG, HANDLERS_END_WITHIN_S, running
from server.process.assembly import Process, Role, drain, kept_running
from server.reload.control_socket import controlled
from server.reload.link import DRAIN, HURRY, LEAVE, SERVING, Link
from server.reload.reload import Reloads, Report, checked, needing_a_restart, reload, warn_of
from server.system import signals
from server.system.files import OpenFiles, raise_limit
from server.system.sockets import bound

log = logging.getLogger("pollux.app")

COLLECT_AFTER = 50_000
"""The garbage collector runs after so many new objects; Python's default is 700."""


class ServiceBroke(Exception):
    """A service of the process broke because of a bug in Pollux. The log has the stack; only a new process helps."""


async def serve(
    config: Config,
    path: Path,
    host: str,
    port: int,
    role: Role = Role.ALL,
    link: Link | None = None,
    shared: Shared | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then leave in order. A second signal ends all patience.

    SIGHUP and `pollux reload` make it go on with what the file at `path` says then. With a `link` this is one of
    several processes: the parent decides when patience ends, and sends further configs. `shared` is where they share
    their metrics. Afterwards the process ignores all of these signals, so that it can end by itself.

    Raises:
        ConfigError, StoreError, OSError (the address is taken)
        ServiceBroke: after a drain that did not wait for runs

    """

    def read() -> Config:
        return checked(link.newest if link else read_merged(path), None if role is Role.WORKER else host)

    reloads = Reloads()
    end = _End(link, reloads)
    broke = False
    try:
        if role is not Role.WORKER:
            check_exposure(config, host)
        files = OpenFiles(raise_limit(), jobs=0 if role is Role.API else config.pollux.worker_concurrency)
        files.check()
        with bound(host, port, share=link is not None) as sockets:
            port = sockets[0].getsockname()[1]
            for held in sockets:
                held.listen(BACKLOG)  # from here on no client is refused, only kept waiting for a moment
            scheme = "https" if config.tls().cert_file else "http"
            log.info("listening on %s://%s:%d, with room for %s", scheme, host, port, files)
            if (wanted := config.pollux.max_connections or 0) > files.clients:
                log.warning("pollux.max_connections is %d, but open files allow for %d clients", wanted, files.clients)
            control = controlled(reloads) if link is None else nullcontext()
            serving = running(config, sockets, role, most_clients=files.clients, shared=shared)
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(control)
                process, front = await stack.enter_async_context(serving)
                applying = reloads.run(partial(_reload, process, front, read, link))
                await stack.enter_async_context(kept_running("reloads", applying, process.phase.broken))
                spare_the_collector()
                log.info("serving on %s://%s:%d, store %s", scheme, host, port, process.store.name)
                await end.come(process.phase.broken)
                grace_s = 0.0 if role is Role.WORKER else process.live.now.config.pollux.drain_grace_s
                await _leave(process, front, end, grace_s)
                broke = process.phase.broken.is_set()
    except asyncio.CancelledError:
        if not end.asked.is_set():
            raise
    finally:
        signals.ignore()
    log.info("stopped")
    if broke:
        raise ServiceBroke


async def _reload(process: Process, front: Front, read: Callable[[], Config], link: Link | None) -> Report:
    async def apply(config: Config) -> Report:
        kept = await process.take(config)
        if link is not None:
            return Report(applied=True)  # the parent tells the rest, once for all
        warn_of(config)
        return needing_a_restart(kept)

    report = await reload(read, apply)
    process.metrics.config_reloaded(applied=report.applied)
    await asyncio.to_thread(front.reload_certificates)
    return report


async def _leave(process: Process, front: Front, end: _End, grace_s: float) -> None:
    broken = process.phase.broken
    process.phase.leaving = True
    if grace_s and not broken.is_set():
        log.info("leaving in %g s: not ready any more, but serving", grace_s)
        await end.grace(grace_s, broken)
    log.info("draining")
    loop = asyncio.get_running_loop()
    patience_s = 0.0 if broken.is_set() else process.live.now.config.pollux.drain_s
    deadline = loop.time() + patience_s
    await front.close(end.hurry)
    await drain(process.live.now, patience_s=max(0.0, deadline - loop.time()), hurry=end.hurry)
    # Left are requests that were passed on to providers, and can't be resumed elsewhere: they have as long as runs.
    await front.end_requests(deadline - loop.time(), end.hurry)
    await front.end_requests(HANDLERS_END_WITHIN_S, asyncio.Event())
    front.abort()


def spare_the_collector() -> None:
    """Make the garbage collector run less often, and skip all objects that exist already.

    Nothing on the hot path makes cycles, and each collection would walk over everything that a thousand jobs hold.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 50)


class _End:
    """Tells when this process has to end, because of a signal or because its parent says so."""

    def __init__(self, link: Link | None, reloads: Reloads) -> None:
        self.asked, self.hurry = asyncio.Event(), asyncio.Event()
        self._without_grace = asyncio.Event()
        self._link = link
        self._starting = asyncio.current_task()
        signals.hear(self._on_signal)
        if link is None:
            signals.hear_hangups(reloads.ask)
        else:
            signals.ignore_hangups()  # the parent hears them
            orders = {LEAVE: self._ask, DRAIN: self._ask_without_grace, HURRY: self._hurry}
            link.obey(orders, self._ask, lambda: reloads.ask(link.tell_of))

    async def come(self, broken: asyncio.Event) -> None:
        """Wait until the process has to end, or something is `broken`. To be called once the process serves."""
        self._starting = None
        if self._link is not None:
            self._link.tell(SERVING)
        await _first_of(self.asked, broken)

    async def grace(self, seconds: float, broken: asyncio.Event) -> None:
        """Wait so long, unless somebody at a terminal wants it to end, or something is `broken`."""
        try:
            async with asyncio.timeout(seconds):
                await _first_of(self._without_grace, broken)
        except TimeoutError:
            return

    def _on_signal(self, number: signal.Signals) -> None:
        if not self.asked.is_set():
            self._ask() if number is signal.SIGTERM else self._ask_without_grace()
        elif self._link is None:
            self._hurry()

    def _ask(self) -> None:
        if self._starting is not None and not self.asked.is_set():
            # While the process starts there is nothing to drain, and a start can take long if the store is away.
            self._starting.cancel()
        self.asked.set()

    def _ask_without_grace(self) -> None:
        self._without_grace.set()
        self._ask()

    def _hurry(self) -> None:
        self._ask_without_grace()
        self.hurry.set()


async def _first_of(*events: asyncio.Event) -> None:
    waits = [asyncio.create_task(event.wait(), name="end") for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
