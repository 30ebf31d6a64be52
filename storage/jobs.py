"""What a worker does with jobs: lease, renew, append, finish, release.

The store refuses every step whose token is no longer the one of the current lease.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any, TypeVar

from storage.connection import Connections, answered, together
from storage.errors import StoreError
from storage.formats import FORMAT, NEWEST_READ
from storage.keys import INDEX_TTL_MS, Shard, Shards, by_shard
from storage.records import Append, Counts, Finish, Lease, Leased, Outcome, Step, UpstreamCancel, Verdict
from storage.scripts import APPEND, CLAIM_CANCELS, COUNT_JOBS, FINISH, LEASE, RELEASE, RENEW, Word
from storage.spent import encode_spent
from storage.terms import Terms

T = TypeVar("T")
A = TypeVar("A")

_OUTCOMES = {outcome.value.encode(): outcome for outcome in Outcome}


class Jobs:
    """The queue of jobs, their leases, and the writing side of the event logs."""

    def __init__(self, connections: Connections, shards: int, terms: Terms) -> None:
        self._client = connections.commands
        self._terms = terms
        self._pack = terms.pack
        self._renewals = connections.renewals
        self.shards = Shards(shards)

    async def lease(
        self,
        shard: Shard,
        token: str,
        *,
        worker: str = "",
        lease_s: float,
        max_attempts: int,
        max_age_s: float,
        reclaim_until_ms: int = 0,
        passing_over: Collection[str] = (),
    ) -> Leased:
        """Take one job of this shard, if there is one. A repeated call with the same token gets the same job again.

        Jobs whose lease has run out are taken first, but only if the server runs the call before `reclaim_until_ms` on
        its own clock; 0 leaves them alone. Queued jobs of the models in `passing_over` are left to other workers, and
        so are all jobs whose format this version can't read. `worker` is the name of this process, without spaces.
        """
        aside: list[bytes] = []
        while True:
            at_ms, word, some, *job = await LEASE.run(
                self._client,
                whole=shard.whole,
                leases=shard.leases,
                rotation=shard.rotation,
                grant=shard.grant(token),
                token=token,
                worker=worker,
                lease_ms=int(lease_s * 1000),
                max_attempts=max_attempts,
                max_age_ms=int(max_age_s * 1000),
                reclaim_until=reclaim_until_ms,
                format=FORMAT,
                newest_read=NEWEST_READ,
                record_prefix=shard.record(""),
                log_prefix=shard.log(""),
                queue_prefix=shard.queue(""),
                moved_prefix=shard.moved(""),
                owned_prefix=shard.owned(""),
                **self._terms.feed_words(shard, len(self.shards)),
                passed_over=list(passing_over),
            )
            aside += some
            if word != b"again":
                break
        set_aside = tuple(name.decode("utf-8", "replace") for name in aside)
        if word != b"job":
            return Leased(at_ms, None, word == b"stale", set_aside)
        waited_ms, reclaimed, *fields = job
        waited_s = None if waited_ms == b"" else waited_ms / 1000
        return Leased(at_ms, _lease(fields), set_aside=set_aside, waited_s=waited_s, reclaimed=bool(reclaimed))

    async def count(self) -> Counts:
        """How many jobs there are, of all shards, and what is late."""
        found = await together(map(self._count, self.shards))
        queued, leased, endpoints, jobs_late_ms, deliveries_late_ms = zip(*found, strict=True)
        return Counts(
            sum(queued), sum(leased), sum(endpoints), max(jobs_late_ms) / 1000, max(deliveries_late_ms) / 1000
        )

    async def _count(self, shard: Shard) -> list[int]:
        counts: list[int] = await COUNT_JOBS.run(
            self._client,
            whole=shard.whole,
            rotation=shard.rotation,
            leases=shard.leases,
            endpoints_due=shard.endpoints_due,
            queue_prefix=shard.queue(""),
        )
        return counts

    async def renew(self, leases: Sequence[Lease], lease_s: float) -> list[Outcome | StoreError]:
        """Renew leases, with one round trip for each shard. The outcomes come in the order of the leases.

        A lease that ran out is renewed too, unless another worker has reclaimed the job. If a shard does not answer,
        only its own leases get an error.
        """
        return await self._by_shard(leases, lambda lease: lease.id, partial(self._renew, lease_s))

    async def _renew(self, lease_s: float, shard: Shard, leases: Sequence[Lease]) -> list[Outcome | StoreError]:
        answer = await RENEW.run(
            self._renewals,
            leases=shard.leases,
            records=[shard.record(lease.id) for lease in leases],
            lease_ms=int(lease_s * 1000),
            held=[word for lease in leases for word in (lease.id, lease.token)],
        )
        return [Outcome(word.decode()) for word in answer]

    async def append_many(self, appends: Sequence[Append], lease_s: float) -> list[Step | StoreError]:
        """Append each batch to its log and renew its lease, with one round trip for each shard.

        An error is the answer to one batch, or to all batches of a shard that did not answer. Unless it is
        StoreUnavailable, nothing of the batch was written.
        """
        return await self._by_shard(appends, lambda append: append.lease.id, partial(self._append, lease_s))

    async def _append(self, lease_s: float, shard: Shard, appends: Sequence[Append]) -> list[Step | StoreError]:
        batches: list[Word] = []
        for append in appends:
            lease, fields = append.lease, append.fields
            batches += (lease.id, lease.token, lease.epoch, append.number, append.first, append.last)
            batches += (self._pack(append.frames), 2 * len(fields))
            for field in fields.items():
                batches += field
        answer = await APPEND.run(
            self._client,
            whole=shard.whole,
            leases=shard.leases,
            lease_ms=int(lease_s * 1000),
            record_prefix=shard.record(""),
            log_prefix=shard.log(""),
            moved_prefix=shard.moved(""),
            batches=batches,
        )
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
        """Ask all shards at once, each about its own items, and return the answers in the order of the items."""
        shards = by_shard(range(len(items)), lambda place: self.shards.of(id_of(items[place])))

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
        """End the response: write its last batch, its status and its final object in one step."""
        append = finish.append
        lease, shard = append.lease, self.shards.of(append.lease.id)
        answer = await FINISH.run_durably(
            self._client,
            self._terms.durability,
            whole=shard.whole,
            record=shard.record(lease.id),
            log=shard.log(lease.id),
            leases=shard.leases,
            owned=shard.owned(lease.owner),
            ended=shard.ended(lease.owner),
            upstream_cancels=shard.upstream_cancels,
            id=lease.id,
            token=lease.token,
            epoch=lease.epoch,
            first=append.first,
            last=append.last,
            over=shard.over(lease.id),
            index_ttl_ms=INDEX_TTL_MS,
            **self._terms.feed_words(shard, len(self.shards)),
            **self._terms.outbox_words(shard, lease.owner, finish.status),
            **self._terms.usage_words(shard, lease.owner, lease.model),
            spent=encode_spent(finish.spent) if finish.spent else "",
            frames=self._pack(append.frames),
            status=finish.status,
            snapshot=finish.snapshot,
            abandon=int(finish.abandon),
            fields=[word for item in append.fields.items() for word in item],
        )
        return _step(answer)

    async def claim_cancels(self, shard: Shard, limit: int, for_s: float) -> list[UpstreamCancel]:
        """Take up to `limit` due upstream cancels. They are due again after `for_s`, unless settled before."""
        members = await CLAIM_CANCELS.run(
            self._client, upstream_cancels=shard.upstream_cancels, most=limit, for_ms=int(for_s * 1000)
        )
        found = []
        for member in members:
            if cancel := _cancel(member):
                found.append(cancel)
            else:  # somebody has broken it by hand
                async with answered(self._client):
                    await self._client.zrem(shard.upstream_cancels, member)
        return found

    async def settle_cancel(self, shard: Shard, cancel: UpstreamCancel) -> None:
        """Strike off a cancel: the provider was told, or there is no point in trying again."""
        async with answered(self._client):
            await self._client.zrem(shard.upstream_cancels, _member(cancel))

    async def cancel_upstream(self, lease: Lease, deployment: str, provider_id: str) -> None:
        """Queue the cancel of a provider's run whose id did not get onto its record."""
        cancel = UpstreamCancel(int(time.time() * 1000), deployment, provider_id)
        async with answered(self._client):
            await self._client.zadd(self.shards.of(lease.id).upstream_cancels, {_member(cancel): 0})

    async def release(self, lease: Lease, *, attempted: bool = False) -> Outcome:
        """Hand the job back, so that another worker can take it at once. It is an attempt only if `attempted`."""
        shard = self.shards.of(lease.id)
        answer = await RELEASE.run(
            self._client,
            record=shard.record(lease.id),
            leases=shard.leases,
            queue=shard.queue(lease.owner),
            rotation=shard.rotation,
            id=lease.id,
            token=lease.token,
            wake=shard.wake,
            taken_back=0 if attempted else 1,
        )
        return Outcome(answer.decode())


def _member(cancel: UpstreamCancel) -> str:
    return f"{cancel.since_ms} {cancel.deployment} {cancel.provider_id}"


_CANCEL = re.compile(rb"([0-9]{1,15}) (\S+) (.+)", re.DOTALL)


def _cancel(member: bytes) -> UpstreamCancel | None:
    """The cancel that `_member` has written; None if it was somebody else."""
    found = _CANCEL.fullmatch(member)
    try:
        return UpstreamCancel(int(found[1]), found[2].decode(), found[3].decode()) if found else None
    except UnicodeDecodeError:
        return None


def _step(answer: list[Any]) -> Step:
    return Step(Outcome(answer[0].decode()), int(answer[1]))


def _lease(answer: list[Any]) -> Lease:
    """Read the script's answer. The script has checked the numbers, but texts may be damaged and not even UTF-8."""
    texts = [(word or b"").decode("utf-8", "replace") for word in answer[:-2]]
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
        pinned=texts[10],
        previous=texts[11],
        ran_on=texts[12],
        provider_id=texts[13],
        upstream_last=int(texts[14] or -1),
        request_id=texts[15],
        client_key=texts[16],
        headers=answer[-2] or b"",
        request=answer[-1] or b"",
    )
