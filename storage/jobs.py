"""Jobs as a worker knows them: lease, renew, append, finish, release. Every step is fenced by the lease's token."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from storage.connection import Connections, answered, translated
from storage.errors import StoreError
from storage.keys import INDEX_TTL_MS, Shard, shard_of
from storage.records import Append, Durability, Finish, Lease, Outcome, Step, UpstreamCancel, Verdict
from storage.scripts import APPEND, CLAIM_CANCELS, FINISH, LEASE, RELEASE, RENEW, Call

FRESH_MS = 4000
"""How old our last answer may be for a `lease` to reclaim: idle workers ask every second."""


class Jobs:
    """The queue, the leases and the writing side of the event logs."""

    def __init__(self, connections: Connections, shards: int, durability: Durability = Durability.NONE) -> None:
        self._client = connections.commands
        self._durability = durability
        self._renewals = connections.renewals
        self._answered_at: dict[int, int] = {}
        """When each shard last answered a `lease`, by the server's clock (ms)."""
        self.shards = [Shard(n) for n in range(shards)]

    def _shard(self, response_id: str) -> Shard:
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

    async def renew(self, leases: Sequence[Lease], lease_s: float) -> list[Outcome]:
        """Renew these, in order, one round trip a shard. One that ran out but was not reclaimed lives again."""
        outcomes: dict[tuple[str, str], Outcome] = {}
        for shard in {self._shard(lease.id) for lease in leases}:
            mine = [lease for lease in leases if self._shard(lease.id) == shard]
            answer = await RENEW.run(
                self._renewals,
                [shard.leases, *(shard.record(lease.id) for lease in mine)],
                [int(lease_s * 1000), *(word for lease in mine for word in (lease.id, lease.token))],
            )
            for lease, word in zip(mine, answer, strict=True):
                outcomes[lease.id, lease.token] = Outcome(word.decode())
        return [outcomes[lease.id, lease.token] for lease in leases]

    async def append_many(self, appends: Sequence[Append], lease_s: float) -> list[Step | StoreError]:
        """Append each batch to its log and renew its lease, all in one round trip.

        An answer that is an error concerns its own batch only: nothing of that one was written.
        """
        calls: list[Call] = []
        for append in appends:
            lease, shard = append.lease, self._shard(append.lease.id)
            fields = (word for item in append.fields.items() for word in item)
            calls.append(
                (
                    [shard.record(lease.id), shard.log(lease.id), shard.leases],
                    [
                        *(lease.id, lease.token, lease.epoch, append.first, append.last),
                        *(int(lease_s * 1000), shard.moved(lease.id), append.frames, *fields),
                    ],
                )
            )
        return [_step_or_error(answer) for answer in await APPEND.run_many(self._client, calls)]

    async def finish(self, finish: Finish) -> Step:
        """End the response: its last batch, its status and its final object in one step."""
        append = finish.append
        lease, shard = append.lease, self._shard(append.lease.id)
        fields = (word for item in append.fields.items() for word in item)
        answer = await FINISH.run_durably(
            self._client,
            [
                *(shard.record(lease.id), shard.log(lease.id), shard.leases),
                *(shard.owned(lease.owner), shard.ended(lease.owner), shard.upstream_cancels),
            ],
            [
                *(lease.id, lease.token, lease.epoch, append.first, append.last),
                *(shard.moved(lease.id), INDEX_TTL_MS, append.frames, finish.status, finish.snapshot),
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
            await self._client.zadd(self._shard(lease.id).upstream_cancels, {_member(cancel): 0})

    async def release(self, lease: Lease, *, attempted: bool = False) -> Outcome:
        """Hand the job back for another worker to take at once. Counts as no attempt, unless `attempted`."""
        shard = self._shard(lease.id)
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


def _step_or_error(answer: Any) -> Step | StoreError:
    if not isinstance(answer, Exception):
        return _step(answer)
    try:
        with translated():
            raise answer
    except StoreError as error:
        return error


def _lease(answer: list[Any]) -> Lease:
    texts = [(word or b"").decode() for word in answer[1:-1]]
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
        request=answer[-1] or b"",
    )
