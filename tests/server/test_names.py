"""Names of webhooks' hosts are looked up apart: a name server that is silent delays nothing of ours."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from server.outbox import addresses, sending
from server.outbox.addresses import NotAllowed, check_host
from server.outbox.endpoints import Endpoint
from server.outbox.sending import Sender


@pytest.fixture
def _silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing answers about names below `slow.test`."""
    answered, genuine = threading.Event(), socket.getaddrinfo

    def ask(host: Any, *args: Any, **options: Any) -> Any:
        if str(host).endswith(".slow.test"):
            answered.wait(20)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return genuine(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    yield
    answered.set()


@pytest.mark.usefixtures("_silent")
async def test_a_silent_name_server_holds_up_no_other_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "MOST_LOOKUPS", 60)
    async with Sender(private=False) as sender:
        tries = [
            asyncio.create_task(sender.send(Endpoint(f"https://a{n}.slow.test/", ()), "evt_1", "{}")) for n in range(60)
        ]
        await asyncio.sleep(0.1)
        async with asyncio.timeout(2):
            assert await asyncio.get_running_loop().getaddrinfo("localhost", 80)
        # And there are not ever more of them.
        answer = await sender.send(Endpoint("https://another.slow.test/", ()), "evt_1", "{}")
        assert answer.reason == "it can't be connected to"
        for one in tries:
            one.cancel()
        await asyncio.wait(tries)


@pytest.mark.usefixtures("_silent")
async def test_whoever_names_a_host_that_is_not_found_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "LOOKED_UP_WITHIN_S", 0.05)
    with pytest.raises(NotAllowed):
        await check_host("https://a.slow.test/", private=False)
