"""A receiver of webhooks that is away for long, over a deploy of all replicas: nothing that it is owed gets lost."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from openai import AsyncOpenAI

from tests.support.receiver import IMPATIENT, Received, answers, running_receiver
from tests.support.replica import Replica, create, make_config, replica_process, with_output
from tests.support.waiting import wait_until

CONFIGURED, OWN = ("whsec_" + letter * 44 for letter in "ab")
"""The secrets of the endpoint in the config, and of the one that create calls name."""
REPLICAS = 3
ENDS: dict[str, Any] = {
    "completed [[words=2]]": "response.completed",
    "[[fail=1]]": "response.failed",
    "[[incomplete=1]]": "response.incomplete",
    "cancelled [[first_delay_ms=60000]]": "response.cancelled",
}
LONG = "long [[words=20]] [[delay_ms=50]]"


@contextmanager
def closed_port() -> Iterator[socket.socket]:
    """A port that refuses connections, and that nobody else can get meanwhile: it is bound, but nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


@dataclass
class Holding:
    """A receiver that hangs: it has what it was sent, and answers 500 only when it is let go."""

    held: set[str] = field(default_factory=set)
    """The paths at which a request hangs."""
    let_go: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.held.add(request.path)
        await self.let_go.wait()
        return web.Response(status=500)


@pytest.mark.slow
async def test_an_outage_of_the_receiver_and_a_rolling_restart_lose_no_webhook_and_change_no_id(
    simulator: str, store_url: str, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        port = stack.enter_context(closed_port())
        url = f"http://127.0.0.1:{port.getsockname()[1]}"
        config = make_config(
            simulator,
            webhooks=[{"url": f"{url}/configured", "secret": CONFIGURED}],
            webhook_allow_private=True,
            webhook_per_request=True,
            drain_s=0,  # what runs is handed over
        )

        async def start() -> Replica:
            return await stack.enter_async_context(replica_process(config, store_url, tmp_path, before=IMPATIENT))

        replicas = await asyncio.gather(*(start() for _ in range(REPLICAS)))
        sdk = await stack.enter_async_context(replicas[0].client())
        stored = await sdk.webhooks.create(name="stored", url=f"{url}/stored", event_types=list(ENDS.values()))
        secrets = {"/configured": CONFIGURED, "/stored": stored.signing_secret, "/own": OWN}
        own: dict[str, Any] = {"webhook": {"url": f"{url}/own", "secret": OWN}}

        # Its port is closed, and jobs end.
        ends: dict[str, str] = {}
        for replica in replicas:
            for text, kind in ENDS.items():
                response_id = await create(replica, text, **own)
                ends[response_id] = kind
                if kind == "response.cancelled":
                    async with replica.http() as http:
                        assert (await http.post(f"responses/{response_id}/cancel")).status == 200

        async def is_given_up_for_now() -> bool:
            found = (await sdk.webhooks.retrieve(stored.id)).to_dict()
            return found["status"] == "paused" and found["last_failure"] == "it can't be connected to"

        await wait_until(is_given_up_for_now, timeout_s=20, what="ten tries in a row were refused")

        # It is back, and broken: it answers 500. Then it does not answer any more.
        receiver = await stack.enter_async_context(running_receiver(on=port))
        receiver.behaviour = dict.fromkeys(secrets, answers(500))
        for path in secrets:
            await receiver.receive(2, path)
        holding = Holding()
        receiver.behaviour = dict.fromkeys(secrets, holding.answer)
        await wait_until(lambda: holding.held == secrets.keys(), what="a try hangs at each endpoint")

        # So each endpoint has a try under way in one of these replicas, and every one of them leaves.
        for leaving in replicas:
            await start()
            long = await create(leaving, LONG, **own)
            ends[long] = "response.completed"
            await with_output(leaving, long)
            leaving.signal(signal.SIGTERM)
            assert leaving.process is not None
            assert await asyncio.wait_for(leaving.process.wait(), 10) == 0

        # It is well again.
        back = len(receiver.received)
        receiver.behaviour = {}
        holding.let_go.set()
        wanted = {(path, response_id, kind) for path in secrets for response_id, kind in ends.items()}
        await wait_until(lambda: told(receiver.received[back:]) >= wanted, timeout_s=30, what="all is told")

    assert told(receiver.received) == wanted, "nothing else was told"
    async with AsyncOpenAI(api_key="none") as anybody:
        for one in receiver.received:
            assert anybody.webhooks.unwrap(one.body, one.headers, secret=secrets[one.path]).id == one.event["id"]
    assert_one_id_each(receiver.received, set(ends))
    assert_fresh_timestamps(receiver.received)


def told(received: list[Received]) -> set[tuple[str, str, str]]:
    """Of which end of which response which path was told."""
    return {(one.path, one.event["data"]["id"], one.event["type"]) for one in received}


def assert_one_id_each(received: list[Received], response_ids: set[str]) -> None:
    """Each response has one event id, at all endpoints and in all tries, and it is the `webhook-id`."""
    ids = {(one.event["data"]["id"], one.event["id"], one.headers["webhook-id"]) for one in received}
    assert all(event_id == webhook_id for _, event_id, webhook_id in ids)
    assert len(ids) == len({event_id for _, event_id, _ in ids}) == len(response_ids)


def assert_fresh_timestamps(received: list[Received]) -> None:
    """Each try is signed anew: after the one before it had arrived, not when the response ended."""
    before: dict[tuple[str, str], Received] = {}
    for one in received:
        last = before.get((one.path, one.headers["webhook-id"]))
        before[one.path, one.headers["webhook-id"]] = one
        signed_at = int(one.headers["webhook-timestamp"])  # in whole seconds
        assert signed_at <= one.at_s
        assert last is None or signed_at >= int(last.at_s)
