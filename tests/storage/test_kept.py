"""Kept responses: what no job made is stored whole, found by its id and by its items, and gone after its time."""

from __future__ import annotations

import redis

from storage import KeptResponse, Store, draw_id
from tests.support.stored import ALICE, BOB


def kept(store: Store, snapshot: bytes = b'{"output":[]}') -> KeptResponse:
    numbers = iter(range(10_000))
    return KeptResponse(
        id=draw_id(lambda: f"resp_kept{next(numbers)}", ALICE, store.shards),
        owner=ALICE,
        model="m",
        created_at=1771000000,
        status="completed",
        deployment="d" * 64,
        request=b'{"input":"hi"}',
        snapshot=snapshot,
        ttl_s=600,
        digits="0a" * 16,
    )


async def test_a_kept_response_is_read_like_any_that_has_ended(store: Store) -> None:
    made = kept(store)
    for _ in range(2):  # a repeat writes the same again
        await store.responses.keep(made)
    reading = await store.responses.read(made.id)
    assert reading is not None
    assert (reading.snapshot, reading.request) == (made.snapshot, made.request)
    assert reading.record.terminal
    assert (reading.record.owner, reading.record.ran_on) == (ALICE, made.deployment)
    assert await store.responses.kept_with(ALICE, made.digits) == made.id
    assert await store.responses.kept_with(BOB, made.digits) is None


async def test_it_is_no_job_and_in_no_list_and_goes_when_its_time_is_over(store: Store, admin: redis.Redis) -> None:
    made = kept(store)
    await store.responses.keep(made)
    assert [record async for record in store.responses.owned(ALICE)] == []
    names = [name for name in admin.scan_iter("*") if b"kept" in name]
    assert len(names) == 2
    assert all(0 < admin.pttl(name) <= 600_000 for name in names)


async def test_it_can_be_deleted(store: Store) -> None:
    made = kept(store)
    await store.responses.keep(made)
    record = await store.responses.find(made.id)
    assert record is not None
    assert await store.responses.delete(record, "token")
    assert await store.responses.find(made.id) is None
