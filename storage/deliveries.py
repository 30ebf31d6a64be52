"""Deliveries: the events that endpoints are owed, and the endpoints that owners have stored.

A delivery is made by the step that ends a response. Each endpoint has a queue of its own, so that one which does not
answer delays no other. A delivery is claimed for a while, then settled; if its taker dies, it is due again.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from storage.connection import Connections, answered
from storage.keys import DELIVERY_TTL_MS, Shard, Shards
from storage.owed import Attempt, Delivery, EndpointHealth, Past, Pausing
from storage.scripts import CLAIM_DELIVERIES, FIND, REDELIVER, SETTLE_DELIVERY, STORE_ENDPOINT
from storage.statuses import Place, StatusEntry, parse_place

LISTED = 100
"""How many of an endpoint's last deliveries are listed. Of others only those are kept that are owed or have failed."""


class Deliveries:
    """The deliveries of all shards, from any process."""

    def __init__(self, connections: Connections, shards: int) -> None:
        self._client = connections.commands
        self.shards = Shards(shards)

    async def claim(
        self,
        shard: Shard,
        token: str,
        *,
        most: int,
        most_each: int,
        for_s: float,
        passing_over: Collection[str] = (),
    ) -> list[Delivery]:
        """Some that are due, at most `most_each` of one endpoint; they are due again after `for_s`, unless settled."""
        claimed = await CLAIM_DELIVERIES.run(
            self._client,
            whole=shard.whole,
            endpoints_due=shard.endpoints_due,
            most=most,
            most_each=most_each,
            claim_ms=int(for_s * 1000),
            token=token,
            due_prefix=shard.due(""),
            delivery_prefix=shard.delivery(""),
            paused_prefix=shard.paused(""),
            endpoints_prefix=shard.endpoints(""),
            passed_over=list(passing_over),
        )
        return [_delivery(words, token) for words in claimed]

    async def settle(self, shard: Shard, delivery: Delivery, attempt: Attempt, pausing: Pausing) -> bool:
        """Note how a try went. Whether the endpoint is paused now, because it has failed so often in a row."""
        word = await SETTLE_DELIVERY.run(
            self._client,
            whole=shard.whole,
            endpoints_due=shard.endpoints_due,
            due=shard.due(delivery.endpoint),
            delivery=shard.delivery(delivery.name),
            paused=shard.paused(delivery.endpoint),
            health=shard.health(delivery.endpoint),
            delivered=shard.delivered(delivery.endpoint),
            delivery_prefix=shard.delivery(""),
            name=delivery.name,
            endpoint=delivery.endpoint,
            token=delivery.token,
            outcome=attempt.tried,
            again_ms=int(attempt.again_s * 1000),
            code=attempt.code,
            latency_ms=int(attempt.latency_s * 1000),
            reason=attempt.reason,
            most_failures=pausing.failures,
            pause_ms=int(pausing.for_s * 1000),
            kept=LISTED,
            kept_ms=DELIVERY_TTL_MS,
        )
        return bool(word == b"paused")

    async def redeliver(self, owner: str, name: str) -> bool:
        """Try it once more, from the beginning. Whether it is still kept."""
        shard, endpoint = self.shards.of(owner), name.partition(" ")[0]
        word = await REDELIVER.run(
            self._client,
            endpoints_due=shard.endpoints_due,
            due=shard.due(endpoint),
            delivery=shard.delivery(name),
            paused=shard.paused(endpoint),
            name=name,
            endpoint=endpoint,
            delivery_ms=DELIVERY_TTL_MS,
        )
        return bool(word == b"ok")

    async def past(self, owner: str, endpoint: str) -> list[Past]:
        """Its last deliveries, newest first: those that are still tried, then those that have ended."""
        shard = self.shards.of(owner)
        client: Any = self._client
        async with answered(client):
            due: Any = await client.zrange(shard.due(endpoint), 0, LISTED - 1, desc=True)
            ended: Any = await client.lrange(shard.delivered(endpoint), 0, LISTED - 1)
        names = [name for name in map(_text, dict.fromkeys([*due, *ended])) if name.count(" ") == 2]
        if not names:
            return []
        rows = await FIND.run(client, records=[shard.delivery(name) for name in names], fields=_OF_PAST)
        found = [_past(name, row) for name, row in zip(names, rows, strict=True) if row and row[0] is not None]
        return found[:LISTED]

    async def health(self, owner: str, endpoint: str) -> EndpointHealth:
        shard = self.shards.of(owner)
        client: Any = self._client
        [row] = await FIND.run(client, records=[shard.health(endpoint)], fields=("failures", "reason"))
        failures, reason = row or (None, None)
        async with answered(client):
            paused = await client.exists(shard.paused(endpoint))
        return EndpointHealth(_number(failures), _text(reason), bool(paused))

    # The owners' endpoints.

    async def endpoints(self, owner: str) -> dict[str, bytes]:
        """What is stored of each, by id."""
        client: Any = self._client
        async with answered(client):
            found: Any = await client.hgetall(self.shards.of(owner).endpoints(owner))
        return {_text(endpoint): about for endpoint, about in found.items()}

    async def endpoint(self, owner: str, endpoint: str) -> bytes | None:
        client: Any = self._client
        async with answered(client):
            found: Any = await client.hget(self.shards.of(owner).endpoints(owner), endpoint)
        return found if found is None else bytes(found)

    async def add(self, owner: str, endpoint: str, about: bytes, most: int) -> bool:
        """Write a new one, unless its owner has `most`.

        `about` is a JSON object; its `statuses` say of which ends it is told.
        """
        return await self._store(owner, endpoint, b"", about, most)

    async def replace(self, owner: str, endpoint: str, before: bytes, about: bytes) -> bool:
        """Write it anew, unless it is not as it was `before`: somebody else has changed it, or it is gone."""
        return await self._store(owner, endpoint, before, about, 0)

    async def _store(self, owner: str, endpoint: str, before: bytes, about: bytes, most: int) -> bool:
        word = await STORE_ENDPOINT.run(
            self._client,
            endpoints=self.shards.of(owner).endpoints(owner),
            endpoint=endpoint,
            before=before,
            about=about,
            most=most,
        )
        return bool(word == b"ok")

    async def remove(self, owner: str, endpoint: str) -> bool:
        """Forget it, and what it is owed. Whether it was there."""
        shard = self.shards.of(owner)
        client: Any = self._client
        async with answered(client):
            there: Any = await client.hdel(shard.endpoints(owner), endpoint)
            listed: Any = await client.lrange(shard.delivered(endpoint), 0, LISTED - 1)
            for name in map(_text, listed):
                await client.delete(shard.delivery(name))
            for key in (shard.due(endpoint), shard.delivered(endpoint), shard.health(endpoint), shard.paused(endpoint)):
                await client.delete(key)
            await client.zrem(shard.endpoints_due, endpoint)
        return bool(there)


_OF_PAST = ("attempts", "tried", "outcome", "code", "latency_ms", "reason")


def _delivery(words: Any, token: str) -> Delivery:
    texts = [_text(word) if isinstance(word, bytes) else word for word in words[:-2]]
    name, owner, model, _, place, since, sealed, attempt = texts
    endpoint, status, response_id = name.split(" ", 2)
    entry = StatusEntry(parse_place(place) or Place(0), status, response_id, owner, model, words[3])
    return Delivery(name, endpoint, entry, int(since), int(attempt), token, sealed, words[-2], words[-1])


def _past(name: str, row: list[bytes | None]) -> Past:
    _, status, response_id = name.split(" ", 2)
    attempts, tried, outcome, code, latency_ms, reason = row
    return Past(
        name,
        status,
        response_id,
        _number(attempts),
        _number(tried),
        _text(outcome),
        _number(code),
        _number(latency_ms),
        _text(reason),
    )


def _text(word: bytes | None) -> str:
    return (word or b"").decode("utf-8", "replace")


def _number(word: bytes | None) -> int:
    """The number in a field; 0 where somebody has broken it by hand."""
    return int(word) if word and word.isdigit() and len(word) <= 15 else 0
