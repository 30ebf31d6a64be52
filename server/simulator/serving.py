"""The simulator on a port of its own."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import fields

from aiohttp import web

from server.simulator.app import create_simulator
from server.simulator.directives import Directives

log = logging.getLogger("pollux.simulator")

# A thousand clients may connect in the same instant; the kernel refuses what does not fit in here.
_BACKLOG = 2048
# Connections are cut before this counts, so it only bounds a request that is just being answered.
_SHUTDOWN_S = 0.2


@asynccontextmanager
async def listening_simulator(host: str = "127.0.0.1", port: int = 0, api_key: str | None = None) -> AsyncIterator[str]:
    """A new simulator, serving until the block is left; gives its base URL. Port 0 takes a free one."""
    runner = web.AppRunner(
        create_simulator(api_key),
        handler_cancellation=True,
        access_log=None,
        shutdown_timeout=_SHUTDOWN_S,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=_BACKLOG).start()
        shown = f"[{host}]" if ":" in host else host
        yield f"http://{shown}:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


async def serve_simulator(
    host: str, port: int, api_key: str | None = None, *, on_ready: Callable[[str], None] | None = None
) -> None:
    """Serve until SIGINT, SIGTERM or cancellation. Only for the main thread; `on_ready` gets the base URL."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    try:
        async with listening_simulator(host, port, api_key) as base_url:
            _announce(base_url, api_key)
            if on_ready is not None:
                on_ready(base_url)
            await stop.wait()
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def _announce(base_url: str, api_key: str | None) -> None:
    """Say what is served, and what can be steered."""
    key = "any key" if api_key is None else "the key that was given"
    names = ", ".join(field.name for field in fields(Directives))
    log.info("simulating Responses, Chat Completions and Messages at %s, for any model and %s", base_url, key)
    log.info("a request steers its answer in its text, such as [[words=40]] [[delay_ms=50]], or its metadata")
    log.info("deploy/docs/simulator.md tells what can be steered: %s", names)
