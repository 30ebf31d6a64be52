"""What the soak runs on: three replicas and one store, a simulated provider and a receiver of webhooks of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from tests.conftest import plain_url
from tests.faults.chaos import running_simulator_process
from tests.soak.acts import CHAT, FLAKY, LIMITED, MESSAGES, SURVIVABLE
from tests.support.receiver import Receiver, running_receiver
from tests.support.replica import Replica, make_config, replica_process
from tests.support.servers import running_redis

OWNERS = tuple(f"team-{number}" for number in range(8))
TTL_S, FEED_S = 30.0, 60.0
"""How long responses and status events are kept: as short as it goes, so that most of a run is steady."""
FIRST = """
import ctypes, gc, threading, time
from server import usage

usage.COUNTED_WITHIN_S, usage.ONCE_S, usage.REPEATED_S = 10.0, 15.0, 15.0

def tidy():
    while True:
        time.sleep(5)
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)

threading.Thread(target=tidy, daemon=True).start()
"""
"""What a replica runs first. What is remembered for days becomes steady within a run; and what is free goes back to the
system, because the heap of a process that leaks nothing grows for an hour while it falls to pieces."""


@dataclass(frozen=True)
class Stage:
    replicas: list[Replica]
    store: redis.Redis
    simulator: str
    """Without a path."""
    receiver: Receiver


@asynccontextmanager
async def running_stage(count: int, store: str, folder: Path, *, before: str = "") -> AsyncIterator[Stage]:
    """All of it, ready. `before` is Python that each replica runs first; `store` is `embedded` or a server to start."""
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(running_simulator_process(folder))
        receiver = await stack.enter_async_context(running_receiver())
        url = f"embedded://{folder / 'store'}" if store == "embedded" else stack.enter_context(running_redis(store))
        config = config_for(simulator, receiver.url)
        replicas = [
            await stack.enter_async_context(replica_process(config, url, folder, before=FIRST + before, forked=False))
            for _ in range(count)
        ]
        client = stack.enter_context(redis.Redis.from_url(plain_url(url)))
        yield Stage(replicas, client, simulator.removesuffix("/v1"), receiver)


def config_for(simulator: str, receiver: str) -> dict[str, Any]:
    config = make_config(
        simulator,
        keys=[{"name": owner, "key": f"sk-{owner}"} for owner in OWNERS],
        feed_retention_s=FEED_S,
        webhooks=[{"url": receiver, "secret": "whsec_" + "c2VjcmV0IG9mIHRoZSBzb2Fr" * 2}],
        webhook_allow_private=True,
        log_format="json",
    )
    models, usual = config["model_list"], config["model_list"][0]
    for name, provider in ((CHAT, "mistral"), (MESSAGES, "anthropic"), (FLAKY, "openai"), (FLAKY, "openai")):
        params = {**usual["litellm_params"], "model": f"{provider}/{name}", "api_key": f"sk-upstream-{len(models)}"}
        models.append({"model_name": name, "litellm_params": params})
    models.append({**usual, "model_name": LIMITED})
    models.append({**usual, "model_name": SURVIVABLE, "model_info": {"upstream_background": True}})
    background = config["litellm_settings"]["responses"]["background_mode"]
    background |= {"ttl": TTL_S, "polling_via_cache": ["openai", "mistral", "anthropic"]}
    config["router_settings"] = {"context_window_fallbacks": [{LIMITED: [usual["model_name"]]}]}
    return config
