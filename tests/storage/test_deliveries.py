"""Deliveries: owed by the step that ends a response, once, and kept until they are settled."""

from __future__ import annotations

import orjson
import pytest
import redis

from storage import Attempt, Delivery, EndpointHealth, Pausing, Store, Tried, deliveries
from storage.keys import shard_of
from tests.support.stored import ALICE, BOB, cancel, create, finish, record_of, run

PAUSING = Pausing(failures=3, for_s=60)
ENDPOINT = "we_1"


@pytest.fixture
async def _endpoint(store: Store) -> None:
    await tell(store, ENDPOINT)


async def tell(store: Store, endpoint: str, *statuses: str, owner: str = ALICE) -> None:
    about = {"statuses": statuses or ["completed", "failed", "incomplete", "cancelled"]}
    assert await store.deliveries.add(owner, endpoint, orjson.dumps(about), 20)


async def claim(
    store: Store, token: str = "t", most: int = 10, for_s: float = 60.0, **options: list[str]
) -> list[Delivery]:
    shard = store.deliveries.shards[shard_of(ALICE, store.shards)]
    return await store.deliveries.claim(shard, token, most=most, most_each=5, for_s=for_s, **options)


async def settle(store: Store, delivery: Delivery, tried: Tried, again_s: float = 0.0) -> bool:
    shard = store.deliveries.shards[shard_of(ALICE, store.shards)]
    return await store.deliveries.settle(shard, delivery, Attempt(tried, 500, 0.01, "no", again_s), PAUSING)


@pytest.mark.usefixtures("_endpoint")
async def test_the_clients_headers_go_with_it_unless_an_older_version_has_owed_it(
    store: Store, admin: redis.Redis
) -> None:
    told, untold = [await run(store, headers=b'{"traceparent": "00-1-2-01"}') for _ in range(2)]
    await cancel(store, told.id)
    await finish(store, untold, 3)
    [name] = [key for key in admin.keys("*") if untold.id.encode() in key and ENDPOINT.encode() in key]
    admin.hdel(name, "headers")
    found = {delivery.entry.response_id: delivery.headers for delivery in await claim(store)}
    assert found == {told.id: b'{"traceparent": "00-1-2-01"}', untold.id: b""}


@pytest.mark.usefixtures("_endpoint")
async def test_each_end_is_owed_once_however_often_the_step_runs(store: Store) -> None:
    taken = await run(store, metadata=b'{"a": "b"}')
    for _ in range(2):
        await finish(store, taken, 3)
    await cancel(store, taken.id)
    [delivery] = await claim(store)
    assert (delivery.endpoint, delivery.attempt) == (ENDPOINT, 1)
    entry = delivery.entry
    assert (entry.status, entry.response_id, entry.owner, entry.metadata) == (
        "completed",
        taken.id,
        ALICE,
        b'{"a": "b"}',
    )
    assert orjson.loads(delivery.stored)["statuses"]
    assert await claim(store) == [], "nobody else gets it for a while"


async def test_only_what_is_wanted_and_of_the_owner(store: Store) -> None:
    await tell(store, ENDPOINT, "failed")
    await tell(store, "we_bob", owner=BOB)
    await finish(store, await run(store), 3)
    failed = await run(store)
    await finish(store, failed, 3, "failed")
    assert [delivery.entry.response_id for delivery in await claim(store)] == [failed.id]


async def test_the_records_own_endpoint(store: Store) -> None:
    response_id = await create(store, webhook="we_own sealed")
    await cancel(store, response_id)
    await store.responses.delete(await record_of(store, response_id), "t")
    [delivery] = await claim(store)
    assert (delivery.endpoint, delivery.sealed, delivery.stored) == ("we_own", "sealed", b"")


@pytest.mark.usefixtures("_endpoint")
async def test_if_its_taker_dies_it_is_due_again(store: Store) -> None:
    await finish(store, await run(store), 3)
    [first] = await claim(store, "t1", for_s=0.0)
    [second] = await claim(store, "t2")
    assert (first.name, second.attempt) == (second.name, 2)
    # The first one is too late.
    assert not await settle(store, first, Tried.TOLD)
    await settle(store, second, Tried.AGAIN)
    [third] = await claim(store)
    await settle(store, third, Tried.TOLD)
    assert await claim(store) == []
    [past] = await store.deliveries.past(ALICE, ENDPOINT)
    assert (past.outcome, past.attempts, past.code) == ("told", 3, 500)


async def test_one_endpoint_can_be_passed_over(store: Store) -> None:
    for endpoint in ("we_dead", "we_well"):
        await tell(store, endpoint)
    for _ in range(3):
        await finish(store, await run(store), 3)
    found = await claim(store, passing_over=["we_dead"])
    assert {delivery.endpoint for delivery in found} == {"we_well"}
    assert len(found) == 3


@pytest.mark.usefixtures("_endpoint")
async def test_one_that_fails_again_and_again_is_only_probed(store: Store) -> None:
    for _ in range(6):
        await finish(store, await run(store), 3)
    found = await claim(store, most=3)
    assert [await settle(store, delivery, Tried.AGAIN) for delivery in found] == [False, False, True]
    health = await store.deliveries.health(ALICE, ENDPOINT)
    assert (health.failures, health.paused, health.reason) == (3, True, "no")
    assert await claim(store) == [], "until it is time for a probe"
    # What ends meanwhile makes it due no earlier.
    await finish(store, await run(store), 3)
    assert await claim(store) == []


@pytest.mark.usefixtures("_endpoint")
async def test_of_deliveries_that_are_no_longer_listed_only_those_stay_that_failed(
    store: Store, admin: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "LISTED", 2)
    names = []
    for tried in (Tried.TOLD, Tried.FAILED, Tried.TOLD, Tried.TOLD):
        await finish(store, await run(store), 3)
        [delivery] = await claim(store)
        await settle(store, delivery, tried)
        names.append(delivery.name)
    kept = {name for name in names if await store.deliveries.redeliver(ALICE, name)}
    assert kept == set(names[1:])
    assert await store.deliveries.remove(ALICE, ENDPOINT)
    left = {key.decode().partition("delivery:")[2] for key in admin.scan_iter("*:delivery:*")}
    assert left == {names[1]}, "until its time is over"


@pytest.mark.usefixtures("_endpoint")
async def test_a_removed_endpoint_is_owed_nothing(store: Store, admin: redis.Redis) -> None:
    await finish(store, await run(store), 3)
    assert await store.deliveries.remove(ALICE, ENDPOINT)
    assert await claim(store) == []
    assert not [key for key in admin.scan_iter() if b":due:" in key or b":endpoints:" in key]


@pytest.mark.usefixtures("_endpoint")
async def test_what_is_under_way_when_its_endpoint_is_removed_is_not_tried_again(store: Store) -> None:
    await finish(store, await run(store), 3)
    [delivery] = await claim(store)
    await store.deliveries.remove(ALICE, ENDPOINT)
    await settle(store, delivery, Tried.AGAIN)
    assert await claim(store) == []
    assert await store.deliveries.past(ALICE, ENDPOINT) == []


async def test_an_endpoint_that_somebody_else_has_changed_or_removed_is_not_written(store: Store) -> None:
    deliveries = store.deliveries
    for _ in range(2):
        assert await deliveries.add(ALICE, "we_1", b"a", 2), "the call may run twice"
        assert await deliveries.replace(ALICE, "we_1", b"a", b"b")
        assert not await deliveries.replace(ALICE, "we_1", b"a", b"c")
        assert await deliveries.endpoint(ALICE, "we_1") == b"b"
        assert await deliveries.add(ALICE, "we_2", b"x", 2)
        assert not await deliveries.add(ALICE, "we_3", b"x", 2)
        await deliveries.remove(ALICE, "we_1")
        assert not await deliveries.replace(ALICE, "we_1", b"b", b"c")
    assert list(await deliveries.endpoints(ALICE)) == ["we_2"]


async def test_endpoints_that_were_broken_by_hand_keep_no_response_from_ending(
    store: Store, admin: redis.Redis
) -> None:
    shard = store.deliveries.shards[shard_of(ALICE, store.shards)]
    await store.deliveries.add(ALICE, "we_2", b"not JSON", 20)
    await store.deliveries.add(ALICE, "we_3", b'{"statuses": 7}', 20)
    taken = await run(store)
    await finish(store, taken, 3)
    assert (await record_of(store, taken.id)).status == "completed"
    admin.delete(shard.endpoints(ALICE))
    admin.set(shard.endpoints(ALICE), "x", px=60_000)
    other = await run(store)
    await finish(store, other, 3)
    assert (await record_of(store, other.id)).status == "completed"


@pytest.mark.usefixtures("_endpoint")
@pytest.mark.parametrize("broken", ["attempts", "since", "age", "delivery", "due", "name", "endpoints"])
async def test_a_delivery_broken_by_hand_hinders_no_other(store: Store, admin: redis.Redis, broken: str) -> None:
    shard = store.deliveries.shards[shard_of(ALICE, store.shards)]
    first, second = await run(store), await create(store, webhook="we_other sealed")
    await finish(store, first, 3)
    delivery = shard.delivery(f"{ENDPOINT} completed {first.id}")
    if broken in ("attempts", "since"):
        admin.hset(delivery, broken, "x")
    elif broken == "age":
        admin.hset(delivery, "since", "9" * 5000)
    elif broken == "name":
        admin.zadd(shard.due(ENDPOINT), {"x": 0})
    else:
        key = {"delivery": delivery, "due": shard.due(ENDPOINT), "endpoints": shard.endpoints_due}[broken]
        admin.delete(key)
        admin.set(key, "x", px=60_000)
    await cancel(store, second)
    found = {delivery.entry.response_id for delivery in await claim(store)}
    assert second in found
    assert found <= {first.id, second}


@pytest.mark.parametrize("broken", ["due", "endpoints", "delivery"])
async def test_what_is_owed_may_be_broken_when_a_response_ends(store: Store, admin: redis.Redis, broken: str) -> None:
    shard = store.deliveries.shards[shard_of(ALICE, store.shards)]
    response_id = await create(store, webhook="we_own sealed")
    delivery = shard.delivery(f"we_own cancelled {response_id}")
    key = {"delivery": delivery, "due": shard.due("we_own"), "endpoints": shard.endpoints_due}[broken]
    admin.set(key, "x", px=60_000)
    await cancel(store, response_id)
    assert (await record_of(store, response_id)).status == "cancelled"
    assert [delivery.entry.response_id for delivery in await claim(store)] == [response_id]


@pytest.mark.usefixtures("_endpoint")
async def test_what_is_kept_of_tries_may_be_broken(store: Store, admin: redis.Redis) -> None:
    shard = store.deliveries.shards[shard_of(ALICE, store.shards)]
    for key in (shard.health(ENDPOINT), shard.delivered(ENDPOINT)):
        admin.set(key, "x", px=60_000)
    assert await store.deliveries.health(ALICE, ENDPOINT) == EndpointHealth()
    taken = await run(store)
    await finish(store, taken, 3)
    [delivery] = await claim(store)
    await settle(store, delivery, Tried.FAILED)
    assert (await store.deliveries.health(ALICE, ENDPOINT)).failures == 1
    for field in ("attempts", "tried", "code", "latency_ms", "reason"):
        admin.hset(shard.delivery(delivery.name), field, b"\xff" * 5000)
    admin.hset(shard.health(ENDPOINT), mapping={"failures": "x", "reason": b"\xff"})
    for odd in (b"x", b"\xff y"):
        admin.lpush(shard.delivered(ENDPOINT), odd)
        admin.hset(f"{shard.delivery('')}{odd.decode('utf-8', 'replace')}", "attempts", 1)
        admin.expire(f"{shard.delivery('')}{odd.decode('utf-8', 'replace')}", 60)
    [past] = await store.deliveries.past(ALICE, ENDPOINT)
    assert (past.response_id, past.outcome, past.attempts) == (taken.id, "failed", 0)
    assert (await store.deliveries.health(ALICE, ENDPOINT)).failures == 0
