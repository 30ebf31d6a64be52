"""Jobs as a worker knows them: lease, renew, append, finish, release. Every step is fenced by the lease's token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from storage.connection import Connections, answered
from storage.errors import StoreError
from storage.keys import INDEX_TTL_MS, Shard, by_shard, shard_of
from storage.packing import pack
from storage.records import Append, Durability, Finish, Lease, Outcome, Step, UpstreamCancel, Verdict
from storage.scripts import APPEND, CLAIM_CANCELS, FINISH, LEASE, RELEASE, RENEW, Argument

T = TypeVar("T")
A = TypeVar("A")

_OUTCOMES = {outcome.value.encode(): outcome for outcome in Outcome}

FRESH_MS = 4000
"""How old our last answer may be for a `lease` to reclaim: idle workers ask every second."""


class Jobs:
    """The queue, the leases and the writing side of the event logs."""

    def __init__(
        self, connections: Connections, shards: int, durability: Durability = Durability.NONE, *, packed: bool = True
    ) -> None:
        self._client = connections.commands
        self._clustered = connections.clustered
        self._pack = pack if packed else bytes
        self._durability = durability
        self._renewals = connections.renewals
        self._answered_at: dict[int, int] = {}
        """When each shard last answered a `lease`, by the server's clock (ms)."""
        self.shards = [Shard(n) for n in range(shards)]

    def shard_of(self, response_id: str) -> Shard:
        """Where it lies: what one shard can't do, another one still may."""
        return self.shards[shard_of(response_id, len(self.shards))]

    async def lease(
        self, shard: Shard, token: str, *, lease_s: float, max_attempts: int, max_age_s: float, reclaim: bool
    ) -> Lease | None:
        """Take one job of this shard, or None. The same token gets the same job again.

        With `reclaim`, jobs whose lease ran out come first; but not for a call that the server runs much later than
        its last answer to us. It was stopped then, or we were: the renewals of all who live wait behind this call.
        """
        answer: list[Any] = [b"again"]
        while answer[0] == b"again":
            self._answered_at[shard.n], *answer = await LEASE.run(
                self._client,
                [shard.leases, shard.rotation, shard.grant(token)],
                [
                    *(token, int(lease_s * 1000), max_attempts, int(max_age_s * 1000)),
                    self._answered_at.get(shard.n, 0) + min(FRESH_MS, int(lease_s * 1000)) if reclaim else 0,
                    *(shard.record(""), shard.log(""), shard.queue(""), shard.moved("")),
                ],
            )
        return _lease(answer) if answer[0] == b"job" else None

    async def renew(self, leases: Sequence[Lease], lease_s: float) -> list[Outcome | StoreError]:
        """Renew these, in order, one round trip a shard. One that ran out but was not reclaimed lives again.

        A shard that does not answer hides nothing of the others.
        """
        return await self._by_shard(leases, lambda lease: lease.id, partial(self._renew, lease_s))

    async def _renew(self, lease_s: float, shard: Shard, leases: Sequence[Lease]) -> list[Outcome | StoreError]:
        answer = await RENEW.run(
            self._renewals,
            [shard.leases, *(shard.record(lease.id) for lease in leases)],
            [int(lease_s * 1000), *(word for lease in leases for word in (lease.id, lease.token))],
        )
        return [Outcome(word.decode()) for word in answer]

    async def append_many(self, appends: Sequence[Append], lease_s: float) -> list[Step | StoreError]:
        """Append each batch to its log and renew its lease, one round trip a shard.

        An answer that is an error concerns its own batch, or its own shard where that did not answer. Unless it is
        StoreUnavailable, nothing of the batch was written.
        """
        return await self._by_shard(appends, lambda append: append.lease.id, partial(self._append, lease_s))

    async def _append(self, lease_s: float, shard: Shard, appends: Sequence[Append]) -> list[Step | StoreError]:
        args: list[Argument] = [int(lease_s * 1000), shard.record(""), shard.log(""), shard.moved("")]
        for append in appends:
            lease, fields = append.lease, append.fields
            args += (lease.id, lease.token, lease.epoch, append.first, append.last)
            args += (self._pack(append.frames), 2 * len(fields))
            for field in fields.items():
                args += field
        keys = [shard.leases]
        if self._clustered:
            keys += [name(append.lease.id) for append in appends for name in (shard.record, shard.log)]
        answer = await APPEND.run(self._client, keys, args)
        return [
            StoreError(detail.decode()) if word == b"error" else Step(_OUTCOMES[word], detail)
            for word, detail in zip(answer[::2], answer[1::2], strict=True)
        ]

    async def _by_shard(
        self,
        items: Sequence[T],
        id_of: Callable[[T], str],
        ask: Callable[[Shard, Sequence[T]], Awaitable[list[A | StoreError]]],
    ) -> list[A | StoreError]:
        """Each item's answer in order, all shards asked at once."""
        shards = by_shard(range(len(items)), lambda place: self.shard_of(id_of(items[place])))

        async def answers_of(shard: Shard, places: list[int]) -> list[A | StoreError]:
            try:
                return await ask(shard, [items[place] for place in places])
            except StoreError as error:
                return [error] * len(places)

        answers: dict[int, A | StoreError] = {}
        told = await asyncio.gather(*(answers_of(shard, places) for shard, places in shards.items()))
        for places, some in zip(shards.values(), told, strict=True):
            answers.update(zip(places, some, strict=True))
        return [answers[place] for place in range(len(items))]

    async def finish(self, finish: Finish) -> Step:
        """End the response: its last batch, its status and its final object in one step."""
        append = finish.append
        lease, shard = append.lease, self.shard_of(append.lease.id)
        fields = (word for item in append.fields.items() for word in item)
        frames = self._pack(append.frames)
        answer = await FINISH.run_durably(
            self._client,
            [
                *(shard.record(lease.id), shard.log(lease.id), shard.leases),
                *(shard.owned(lease.owner), shard.ended(lease.owner), shard.upstream_cancels),
            ],
            [
                *(lease.id, lease.token, lease.epoch, append.first, append.last),
                *(shard.over(lease.id), INDEX_TTL_MS, frames, finish.status, finish.snapshot),
                int(finish.abandon),
                *fields,
            ],
            self._durability,
        )
        return _step(answer)

    async def claim_cancels(self, shard: Shard, limit: int, for_s: float) -> list[UpstreamCancel]:
        """Some of the provider's runs that are to be cancelled; they are due again after `for_s`, unless settled."""
        members = await CLAIM_CANCELS.run(self._client, [shard.upstream_cancels], [limit, int(for_s * 1000)])
        found = []
        for member in members:
            since, deployment, provider_id = member.decode().split(" ", 2)
            found.append(UpstreamCancel(int(since), deployment, provider_id))
        return found

    async def settle_cancel(self, shard: Shard, cancel: UpstreamCancel) -> None:
        """The provider knows, or never will."""
        async with answered():
            await self._client.zrem(shard.upstream_cancels, _member(cancel))

    async def cancel_upstream(self, lease: Lease, deployment: str, provider_id: str) -> None:
        """Have a provider's run cancelled that was never noted on its record."""
        cancel = UpstreamCancel(int(time.time() * 1000), deployment, provider_id)
        async with answered():
            await self._client.zadd(self.shard_of(lease.id).upstream_cancels, {_member(cancel): 0})

    async def release(self, lease: Lease, *, attempted: bool = False) -> Outcome:
        """Hand the job back for another worker to take at once. Counts as no attempt, unless `attempted`."""
        shard = self.shard_of(lease.id)
        answer = await RELEASE.run(
            self._client,
            [shard.record(lease.id), shard.leases, shard.queue(lease.owner), shard.rotation],
            [lease.id, lease.token, shard.wake, 0 if attempted else 1],
        )
        return Outcome(answer.decode())


def _member(cancel: UpstreamCancel) -> str:
    return f"{cancel.since_ms} {cancel.deployment} {cancel.provider_id}"


def _step(answer: list[Any]) -> Step:
    return Step(Outcome(answer[0].decode()), int(answer[1]))


def _lease(answer: list[Any]) -> Lease:
    texts = [(word or b"").decode() for word in answer[1:-2]]
    return Lease(
        id=texts[0],
        token=texts[1],
        owner=texts[2],
        verdict=Verdict(texts[3]),
        epoch=int(texts[4]),
        attempt=int(texts[5]),
        last=int(texts[6]),
        stream=texts[7] == "1",
        created_at=int(texts[8]),
        model=texts[9],
        deployment=texts[10],
        previous=texts[11],
        ran_on=texts[12],
        provider_id=texts[13],
        upstream_last=int(texts[14] or -1),
        request_id=texts[15],
        headers=answer[-2] or b"",
        request=answer[-1] or b"",
    )
