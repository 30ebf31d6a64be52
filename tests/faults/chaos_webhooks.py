"""The receiver of webhooks in the chaos run, and what it proves: each end was told at least once, under one id."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from tests.support.receiver import Receiver, running_receiver
from tests.support.subscribers import ENDS, Patient

SECRET = "whsec_" + "c2VjcmV0IG9mIGNoYW9z" * 2
REFUSED, DROPPED = 0.08, 0.04
"""How many of the requests are answered with 500, and how many connections are broken without an answer."""


@dataclass
class MoodyReceiver:
    """It has taken what it has answered with 204; what it refuses has to come again."""

    chance: random.Random
    receiver: Receiver
    taken: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The events by their `webhook-id`."""
    violations: list[str] = field(default_factory=list)

    @property
    def config(self) -> dict[str, Any]:
        return {"webhooks": [{"url": self.receiver.url, "secret": SECRET}], "webhook_allow_private": True}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        mood = self.chance.random()
        if mood < REFUSED:
            return web.Response(status=500)
        if mood < REFUSED + DROPPED:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            event = Webhook(SECRET).verify(await request.read(), headers)
        except WebhookVerificationError as error:
            self.violations.append(f"a webhook that does not verify: {error}")
            return web.Response(status=400)
        webhook_id = headers["webhook-id"]
        if event != self.taken.setdefault(webhook_id, event):
            self.violations.append(f"webhook {webhook_id} is {event} as well as {self.taken[webhook_id]}")
        return web.Response(status=204)

    def has_taken_all(self, subscriber: Patient) -> bool:
        """All ends that a subscriber of the master key was told of."""
        return self.taken.keys() >= {event["id"] for event in subscriber.events if event["type"] in ENDS}

    def faults(self, subscriber: Patient) -> Iterator[str]:
        """What differs from that."""
        yield from self.violations
        ends = {event["id"]: event for event in subscriber.events if event["type"] in ENDS}
        for webhook_id in ends.keys() - self.taken.keys():
            tries = [one.at_s for one in self.receiver.received if one.headers["webhook-id"] == webhook_id]
            yield f"no webhook told of {ends[webhook_id]}, tried at {tries}"
        for webhook_id, event in self.taken.items():
            told = ends.get(webhook_id)
            if told is None or [event[name] for name in told if name != "data"] != [
                told[name] for name in told if name != "data"
            ]:
                yield f"a webhook told of {event}, but a subscriber was told {told}"
            elif event["data"]["id"] != told["data"]["id"]:
                yield f"a webhook told of another response than a subscriber: {event} and {told}"


@asynccontextmanager
async def running_moody_receiver(seed: int) -> AsyncIterator[MoodyReceiver]:
    async with running_receiver() as receiver:
        moody = MoodyReceiver(random.Random(seed), receiver)
        receiver.behaviour["/"] = moody.answer
        yield moody
