"""Webhooks: whoever has an endpoint is told of the end of each response, at least once, signed, with one id."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from aiohttp import web
from openai.types.webhooks import ResponseCompletedWebhookEvent
from standardwebhooks import Webhook

from server.outbox import webhooks
from storage import Pausing
from storage.keys import Shard
from tests.support.receiver import IMPATIENT, Receiver, answers, running_receiver, self_signed
from tests.support.refusals import refusal
from tests.support.replica import (
    BOB,
    CACHED,
    NATIVE,
    Replica,
    create,
    ended,
    make_config,
    replica_process,
    running_replica,
)
from tests.support.subscribers import subscribed
from tests.support.waiting import wait_until

SECRET = "whsec_" + "c2VjcmV0IG9mIHRoZSBjb25maWcgMTIzNDU2Nzg5MA=="
ENDS = ["response.completed", "response.failed", "response.incomplete", "response.cancelled"]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as running:
        yield running


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "FIRST_PAUSE_S", 0.1)
    monkeypatch.setattr(webhooks, "LONGEST_PAUSE_S", 0.3)
    monkeypatch.setattr(webhooks, "LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(webhooks, "PAUSING", Pausing(webhooks.PAUSING.failures, for_s=0.5))


def config_with(simulator: str, *endpoints: dict[str, Any], **pollux: Any) -> dict[str, Any]:
    return make_config(simulator, webhooks=list(endpoints), webhook_allow_private=True, **pollux)


@asynccontextmanager
async def telling(
    simulator: str, store_url: str, *endpoints: dict[str, Any], **pollux: Any
) -> AsyncIterator[tuple[Replica, aiohttp.ClientSession]]:
    async with (
        running_replica(config_with(simulator, *endpoints, **pollux), store_url) as replica,
        replica.http() as http,
    ):
        yield replica, http


async def stored(http: aiohttp.ClientSession, url: str, *kinds: str) -> dict[str, Any]:
    """An endpoint that a key has made for itself."""
    body = {"name": "mine", "url": url, "event_types": list(kinds or ENDS)}
    answer = await http.post("webhook_endpoints", json=body)
    assert answer.status == 200, await answer.text()
    made: dict[str, Any] = await answer.json()
    return made


# What is sent.


async def test_the_end_of_a_response_is_told_with_the_event_that_the_feed_tells(
    simulator: str, store_url: str, receiver: Receiver
) -> None:
    endpoint = {"url": f"{receiver.url}/", "secret": SECRET}
    async with telling(simulator, store_url, endpoint) as (pollux, http), subscribed(http) as feed:
        response_id = await create(pollux, "hi", metadata={"order": "17"})
        [told] = await receiver.receive(1)
        assert told == (await feed.take(3))[-1]
        assert told["data"] == {
            "id": response_id,
            "status": "completed",
            "model": CACHED,
            "metadata": {"order": "17"},
        }
    headers = receiver.received[0].headers
    assert headers["webhook-id"] == told["id"]
    assert headers["content-type"] == "application/json"
    assert Webhook(SECRET).verify(receiver.received[0].body, headers) == told


async def test_every_end_is_told_to_whom_it_concerns(simulator: str, store_url: str, receiver: Receiver) -> None:
    endpoints = (
        {"url": f"{receiver.url}/all", "secret": SECRET},
        {"url": f"{receiver.url}/failures", "secret": SECRET, "events": ["response.failed"]},
        {"url": f"{receiver.url}/bob", "secret": SECRET, "keys": ["bob"]},
    )
    async with telling(simulator, store_url, *endpoints) as (pollux, http):
        ids = [await create(pollux, text) for text in ("a", "[[fail=1]]", "[[incomplete=1]]")]
        running = await create(pollux, "[[first_delay_ms=30000]]")
        await http.post(f"responses/{running}/cancel")
        events = await receiver.receive(4, "/all")
        assert sorted((event["type"], event["data"]["id"]) for event in events) == sorted(
            zip(ENDS, [*ids, running], strict=True)
        )
        assert [event["data"]["id"] for event in await receiver.receive(1, "/failures")] == [ids[1]]
    assert receiver.count("/bob") == 0


async def test_a_deleted_response_is_told_of_if_it_had_ended(
    simulator: str, store_url: str, receiver: Receiver
) -> None:
    receiver.behaviour["/"] = answers(503)
    async with telling(simulator, store_url, {"url": f"{receiver.url}/", "secret": SECRET}) as (pollux, http):
        response_id = await create(pollux, "a")
        await receiver.receive(1)
        assert (await http.delete(f"responses/{response_id}")).status == 200
        del receiver.behaviour["/"]
        before = len(receiver.received)
        assert (await receiver.receive(before + 1))[-1]["data"]["id"] == response_id


# The management API, as OpenAI's SDK speaks it.


async def test_the_python_sdk_manages_endpoints_and_unwraps_what_they_get(
    simulator: str, store_url: str, receiver: Receiver
) -> None:
    async with telling(simulator, store_url) as (pollux, _), pollux.client() as client:
        made = await client.webhooks.create(
            name="billing", url=f"{receiver.url}/", event_types=["response.completed", "response.failed"]
        )
        assert made.object == "webhook_endpoint"
        assert made.signing_secret.startswith("whsec_")
        assert made.signing_secret not in (made.signing_secret_hint or "")

        retrieved = await client.webhooks.retrieve(made.id)
        assert (retrieved.name, retrieved.url, retrieved.id) == ("billing", made.url, made.id)
        assert not hasattr(retrieved, "signing_secret"), "it is shown once"
        assert [one.id async for one in client.webhooks.list()] == [made.id]
        assert (await client.webhooks.event_types.list()).data == ENDS

        response_id = await create(pollux, "a")
        await receiver.receive(1)
        got = receiver.received[0]
        event = client.webhooks.unwrap(got.body, got.headers, secret=made.signing_secret)
        assert isinstance(event, ResponseCompletedWebhookEvent)
        assert event.data.id == response_id

        updated = await client.webhooks.update(made.id, name="renamed", event_types=["response.failed"])
        assert (updated.name, updated.event_types) == ("renamed", ["response.failed"])
        await create(pollux, "not told")
        tested = await client.webhooks.test(made.id, event_type="response.failed")
        assert (tested.status_code, tested.success) == (204, True)
        assert [one.event["type"] for one in receiver.received] == ["response.completed", "response.failed"]

        deleted = await client.webhooks.delete(made.id)
        assert (deleted.id, deleted.deleted) == (made.id, True)
        with pytest.raises(openai.NotFoundError):
            await client.webhooks.retrieve(made.id)


async def test_while_a_secret_is_rotated_both_verify(simulator: str, store_url: str, receiver: Receiver) -> None:
    async with telling(simulator, store_url) as (pollux, _), pollux.client() as client:
        made = await client.webhooks.create(name="x", url=f"{receiver.url}/", event_types=["response.completed"])
        rotated = await client.webhooks.rotate_secret(made.id, keep_old_secret_active_for_24_hours=True)
        await create(pollux, "a")
        await receiver.receive(1)
        got = receiver.received[-1]
        for secret in (made.signing_secret, rotated.signing_secret):
            client.webhooks.unwrap(got.body, got.headers, secret=secret)
        last = await client.webhooks.rotate_secret(made.id)
        await create(pollux, "b")
        await receiver.receive(2)
        got = receiver.received[-1]
        client.webhooks.unwrap(got.body, got.headers, secret=last.signing_secret)
        with pytest.raises(openai.InvalidWebhookSignatureError):
            client.webhooks.unwrap(got.body, got.headers, secret=rotated.signing_secret)


async def test_an_endpoint_belongs_to_its_key(simulator: str, store_url: str, receiver: Receiver) -> None:
    async with telling(simulator, store_url) as (pollux, alice), pollux.http(BOB) as bob:
        made = await stored(alice, f"{receiver.url}/")
        for method, path in (
            *(("GET", ""), ("POST", ""), ("DELETE", ""), ("GET", "/deliveries")),
            *(("POST", "/test"), ("POST", "/rotate_secret"), ("POST", "/redeliver")),
        ):
            answer = await refusal(await bob.request(method, f"webhook_endpoints/{made['id']}{path}", json={}))
            assert answer.status == 404
        assert (await (await bob.get("webhook_endpoints")).json())["data"] == []
        his = await bob.post("responses", json={"model": CACHED, "input": "b", "background": True})
        await ended(bob, (await his.json())["id"])
        hers = await create(pollux, "a")
        assert [event["data"]["id"] for event in await receiver.receive(1)] == [hers]


async def test_no_secret_is_stored_in_the_clear(simulator: str, store_url: str, receiver: Receiver, admin: Any) -> None:
    async with telling(simulator, store_url, webhook_per_request=True) as (pollux, http):
        made = await stored(http, f"{receiver.url}/")
        await create(pollux, "[[first_delay_ms=30000]]", webhook={"url": f"{receiver.url}/", "secret": SECRET})
        for key in admin.scan_iter():
            if admin.type(key) == b"hash":
                for value in admin.hgetall(key).values():
                    assert made["signing_secret"].encode() not in value
                    assert SECRET.encode() not in value


async def test_changes_of_an_endpoint_at_the_same_time_are_all_kept(simulator: str, store_url: str) -> None:
    async with telling(simulator, store_url) as (_, http):
        made = await stored(http, "http://127.0.0.1:1/")
        path = f"webhook_endpoints/{made['id']}"
        changed, rotated = await renamed_around(http, path, http.post(f"{path}/rotate_secret"))
        assert (changed["name"], rotated["name"]) == ("new", "mine")
        shown = await (await http.get(path)).json()
        assert (shown["name"], shown["signing_secret_hint"]) == ("new", rotated["signing_secret_hint"])
        assert rotated["signing_secret_hint"] != made["signing_secret_hint"]
        changed, deleted = await renamed_around(http, path, http.delete(path))
        assert (changed["error"]["code"], deleted["deleted"]) == (None, True)
        assert (await http.get(path)).status == 404, "what was deleted stays so"


async def renamed_around(http: aiohttp.ClientSession, path: str, meanwhile: Any) -> tuple[dict[str, Any], Any]:
    """The answers to a slow change of the name, and to what is asked while that is under way."""
    go_on = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b'{"name": '
        await go_on.wait()
        yield b'"new"}'

    slow = asyncio.create_task(http.post(path, data=body()).__aenter__())
    await asyncio.sleep(0.2)  # by then it has looked for the endpoint
    answer = await (await meanwhile).json()
    go_on.set()
    return await (await slow).json(), answer


async def test_no_key_gets_more_endpoints_by_asking_at_once(simulator: str, store_url: str) -> None:
    async with telling(simulator, store_url) as (_, http):
        answers = await asyncio.gather(*(_new_endpoint(http) for _ in range(25)))
    assert sorted(answers) == [200] * 20 + [400] * 5


async def _new_endpoint(http: aiohttp.ClientSession) -> int:
    body = {"name": "x", "url": "http://127.0.0.1:1/", "event_types": ENDS}
    return (await http.post("webhook_endpoints", json=body)).status


async def test_endpoints_that_were_broken_by_hand_hinder_no_other_and_can_be_deleted(
    simulator: str, store_url: str, receiver: Receiver, admin: Any
) -> None:
    async with telling(simulator, store_url) as (_, http):
        made = await stored(http, f"{receiver.url}/")
        key = Shard(0).endpoints("alice")
        whole = json.loads(admin.hget(key, made["id"]))
        odd = [b"{", b"[1]", b"7", json.dumps({**whole, "event_types": [7]}).encode()]
        odd += [json.dumps({**whole, name: None}).encode() for name in whole if name != "statuses"]
        odd += [json.dumps({**whole, name: "x"}).encode() for name in ("created_at", "old_until")]
        broken = [f"we_{number}" for number in range(len(odd))]
        admin.hset(key, mapping=dict(zip([*broken, b"we_\xff"], [*odd, b"{}"], strict=True)))
        listed = await (await http.get("webhook_endpoints?limit=100")).json()
        assert [one["id"] for one in listed["data"]] == [made["id"]]
        for name in broken:
            for answer in (
                await http.get(f"webhook_endpoints/{name}"),
                await http.post(f"webhook_endpoints/{name}", json={"name": "x"}),
                await http.post(f"webhook_endpoints/{name}/test", json={"event_type": ENDS[0]}),
            ):
                assert (await refusal(answer)).status == 404
            assert (await http.delete(f"webhook_endpoints/{name}")).status == 200
        assert set(admin.hkeys(key)) == {made["id"].encode(), b"we_\xff"}


# For one response alone.


async def test_a_create_call_may_name_an_endpoint_of_its_own(
    simulator: str, store_url: str, receiver: Receiver
) -> None:
    async with telling(simulator, store_url, webhook_per_request=True) as (pollux, http):
        mine = await create(pollux, "a", webhook={"url": f"{receiver.url}/mine", "secret": SECRET})
        unsigned = await create(pollux, "b", webhook={"url": f"{receiver.url}/unsigned"})
        await create(pollux, "c")
        [event] = await receiver.receive(1, "/mine")
        assert event["data"]["id"] == mine
        [other] = await receiver.receive(1, "/unsigned")
        assert other["data"]["id"] == unsigned
        # Nobody sees it again, not even the provider.
        assert "webhook" not in await (await http.get(f"responses/{mine}")).json()
    by_path = {one.path: one for one in receiver.received}
    Webhook(SECRET).verify(by_path["/mine"].body, by_path["/mine"].headers)
    assert "webhook-signature" not in by_path["/unsigned"].headers


async def test_only_where_the_config_allows_it(pollux: Replica) -> None:
    async with pollux.http() as http:
        body = {"model": CACHED, "input": "x", "background": True, "webhook": {"url": "https://example.com/"}}
        answer = await refusal(await http.post("responses", json=body))
        assert (answer.status, answer.param) == (400, "webhook")


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"background": False}, "webhook"),
        ({"model": NATIVE}, "webhook"),
        ({"webhook": "https://example.com/"}, "webhook"),
        ({"webhook": {}}, "webhook.url"),
        ({"webhook": {"url": 7}}, "webhook.url"),
        ({"webhook": {"url": "ftp://example.com/"}}, "webhook.url"),
        ({"webhook": {"url": "http://127.0.0.1/", "secret": "whsec_short"}}, "webhook.secret"),
        ({"webhook": {"url": "http://127.0.0.1/", "secret": 7}}, "webhook.secret"),
    ],
)
async def test_a_bad_one_is_refused(simulator: str, store_url: str, changes: dict[str, Any], param: str) -> None:
    async with telling(simulator, store_url, webhook_per_request=True) as (_, http):
        body = {"model": CACHED, "input": "x", "background": True, "webhook": {"url": "http://127.0.0.1:1/"}}
        answer = await refusal(await http.post("responses", json={**body, **changes}))
        assert (answer.status, answer.param) == (400, param)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"name": None}, "name"),
        ({"name": ""}, "name"),
        ({"name": 7}, "name"),
        ({"name": "\ud800"}, "name"),
        ({"url": None}, "url"),
        ({"url": "example.com"}, "url"),
        ({"url": "https://user:password@example.com/"}, "url"),
        ({"event_types": None}, "event_types"),
        ({"event_types": []}, "event_types"),
        ({"event_types": ["batch.completed"]}, "event_types"),
    ],
)
async def test_a_bad_endpoint_is_refused(simulator: str, store_url: str, changes: dict[str, Any], param: str) -> None:
    async with telling(simulator, store_url) as (_, http):
        body = {"name": "x", "url": "http://127.0.0.1:1/", "event_types": ENDS, **changes}
        answer = await refusal(await http.post("webhook_endpoints", json=body))
        assert (answer.status, answer.param) == (400, param)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "https://127.0.0.1/",
        "https://localhost/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[2002:7f00:1::]/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://nowhere.invalid/",
        "https://a..b/",
        f"https://{'a' * 64}.example/",
        "https://[fec0::1]/",
    ],
)
async def test_without_leave_only_public_addresses_are_told(simulator: str, store_url: str, url: str) -> None:
    async with running_replica(make_config(simulator), store_url) as pollux, pollux.http() as http:
        body = {"name": "x", "url": url, "event_types": ENDS}
        answer = await refusal(await http.post("webhook_endpoints", json=body))
        assert (answer.status, answer.param) == (400, "url")
        assert "127.0.0.1" not in answer.message


# Receivers that fail.


async def test_what_an_endpoint_does_not_take_is_sent_again_with_the_same_id(
    simulator: str, store_url: str, receiver: Receiver
) -> None:
    receiver.behaviour["/"] = answers(500)
    async with telling(simulator, store_url) as (pollux, http):
        made = await stored(http, f"{receiver.url}/")
        await create(pollux, "a")
        await receiver.receive(3)
        del receiver.behaviour["/"]
        events = await receiver.receive(4)
        assert len({event["id"] for event in events}) == 1
        assert len({one.headers["webhook-id"] for one in receiver.received}) == 1
        for one in receiver.received:
            assert abs(int(one.headers["webhook-timestamp"]) - time.time()) < 60
            Webhook(made["signing_secret"]).verify(one.body, one.headers)

        async def delivered() -> dict[str, Any]:
            [one] = (await (await http.get(f"webhook_endpoints/{made['id']}/deliveries")).json())["data"]
            found: dict[str, Any] = one
            return found

        await wait_until(lambda: _is(delivered, "delivered"))
        told = await delivered()
        assert (told["event_id"], told["attempts"], told["status_code"]) == (events[0]["id"], 4, 204)
        assert told["error"] is None
        # And once more, because somebody asks for it.
        answer = await http.post(f"webhook_endpoints/{made['id']}/redeliver", json={"event_id": events[0]["id"]})
        assert (answer.status, (await answer.json())["status"]) == (200, "pending")
        assert (await receiver.receive(5))[-1] == events[0]


async def _is(delivered: Any, status: str) -> bool:
    return bool((await delivered())["status"] == status)


@pytest.mark.parametrize("fault", ["redirects", "hangs", "is not there"])
async def test_a_bad_endpoint_delays_no_other(
    simulator: str, store_url: str, receiver: Receiver, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.outbox.sending.TIMEOUT_S", 1.0)

    async def hangs(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        raise AssertionError

    bad = f"{receiver.url}/bad" if fault != "is not there" else "http://127.0.0.1:1/bad"
    receiver.behaviour["/bad"] = hangs if fault == "hangs" else answers(302, Location=f"{receiver.url}/elsewhere")
    async with telling(simulator, store_url, {"url": f"{receiver.url}/good", "secret": SECRET}) as (pollux, http):
        made = await stored(http, bad)
        ids = [await create(pollux, str(n)) for n in range(20)]
        events = await receiver.receive(20, "/good", timeout_s=5)
        assert {event["data"]["id"] for event in events} == set(ids)

        async def says_so() -> bool:
            answer = await (await http.get(f"webhook_endpoints/{made['id']}")).json()
            return bool(answer["last_failure"])

        await wait_until(says_so)
    assert receiver.count("/elsewhere") == 0


async def test_an_endpoint_that_fails_again_and_again_is_paused_and_probed(
    simulator: str, store_url: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(webhooks, "PAUSING", Pausing(failures=4, for_s=0.5))
    receiver.behaviour["/"] = answers(500)
    async with telling(simulator, store_url) as (pollux, http):
        made = await stored(http, f"{receiver.url}/")
        ids = {await create(pollux, str(n)) for n in range(10)}

        async def status() -> str:
            found: str = (await (await http.get(f"webhook_endpoints/{made['id']}")).json())["status"]
            return found

        async def paused() -> bool:
            return await status() == "paused"

        await wait_until(paused)
        assert any("fails again and again" in record.getMessage() for record in caplog.records)
        await wait_until(lambda: _all_idle(pollux))
        before = len(receiver.received)
        await receiver.receive(before + 1)
        assert len(receiver.received) <= before + 2, "one probe, not all that it is owed"
        del receiver.behaviour["/"]

        async def healthy() -> bool:
            return await status() == "healthy"

        await wait_until(healthy)
        await wait_until(lambda: {event["data"]["id"] for event in receiver.events("/")[before:]} >= ids)


async def _all_idle(pollux: Replica) -> bool:
    """No try is under way."""
    return not [task for task in asyncio.all_tasks() if task.get_name().startswith("webhook we_")]


async def test_a_receiver_that_hangs_delays_no_other_though_each_response_has_a_url_of_its_own(
    simulator: str, store_url: str, receiver: Receiver
) -> None:
    async def hangs(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        raise AssertionError

    receiver.behaviour["/hangs"] = hangs
    async with (
        running_receiver() as other,
        telling(simulator, store_url, webhook_per_request=True) as (pollux, _),
        pollux.http(BOB) as bob,
    ):
        await stored(bob, f"{other.url}/")
        for number in range(webhooks.AT_ONCE + 10):
            await create(pollux, "a", webhook={"url": f"{receiver.url}/hangs?job={number}"})
        await wait_until(lambda: receiver.count("/hangs") >= webhooks.EACH_AT_ONCE)
        await asyncio.sleep(0.5)
        await bob.post("responses", json={"model": CACHED, "input": "b", "background": True})
        await other.receive(1, timeout_s=4)


async def test_tests_of_endpoints_that_hang_delay_no_webhook(
    simulator: str, store_url: str, receiver: Receiver
) -> None:
    async def hangs(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        raise AssertionError

    receiver.behaviour["/hangs"] = hangs
    async with running_receiver() as other, telling(simulator, store_url) as (pollux, http):
        made = await stored(http, f"{receiver.url}/hangs", "response.failed")
        await stored(http, f"{other.url}/")
        path, body = f"webhook_endpoints/{made['id']}/test", {"event_type": "response.failed"}
        tests = [asyncio.create_task(http.post(path, json=body).__aenter__()) for _ in range(100)]
        await wait_until(lambda: receiver.count("/hangs") >= len(tests))
        await create(pollux, "a")
        await other.receive(1, timeout_s=4)
        for one in tests:
            one.cancel()
        await asyncio.wait(tests)


async def test_a_certificate_that_nobody_vouches_for_is_not_trusted(
    simulator: str, store_url: str, tmp_path: Path
) -> None:
    async with (
        running_receiver(self_signed(tmp_path)) as receiver,
        telling(simulator, store_url) as (pollux, http),
    ):
        assert receiver.url.startswith("https://")
        made = await stored(http, f"{receiver.url}/")
        await create(pollux, "a")

        async def says_why() -> bool:
            answer = await (await http.get(f"webhook_endpoints/{made['id']}")).json()
            return bool(answer["last_failure"] == "its certificate is not valid, or it speaks no TLS")

        await wait_until(says_why)
        assert receiver.received == []
        answer = await refusal(
            await http.post(f"webhook_endpoints/{made['id']}/test", json={"event_type": "response.completed"})
        )
        assert (answer.status, answer.code) == (400, "webhook_not_delivered")


async def test_gone_is_taken_at_its_word(simulator: str, store_url: str, receiver: Receiver) -> None:
    receiver.behaviour["/"] = answers(410)
    async with telling(simulator, store_url) as (pollux, http):
        made = await stored(http, f"{receiver.url}/")
        await create(pollux, "a")

        async def failed() -> bool:
            data = (await (await http.get(f"webhook_endpoints/{made['id']}/deliveries")).json())["data"]
            return bool(data and data[0]["status"] == "failed")

        await wait_until(failed)
    assert len(receiver.received) == 1


# Processes that die.


async def test_whoever_is_left_delivers_with_the_same_id(
    simulator: str, store_url: str, receiver: Receiver, tmp_path: Path
) -> None:
    config = config_with(simulator, {"url": f"{receiver.url}/", "secret": SECRET}, lease_s=1)
    receiver.behaviour["/"] = answers(500)
    async with running_replica(config, store_url):
        async with replica_process(config, store_url, tmp_path, before=IMPATIENT) as victim:
            ids = {await create(victim, str(n)) for n in range(3)}
            async with victim.http() as http:
                for response_id in ids:
                    await ended(http, response_id)
            await victim.kill()
        del receiver.behaviour["/"]
        before = len(receiver.received)
        await wait_until(lambda: {event["data"]["id"] for event in receiver.events("/")[before:]} >= ids, timeout_s=60)
    event_ids = {(event["data"]["id"], event["id"]) for event in receiver.events("/")}
    assert len(event_ids) == 3
