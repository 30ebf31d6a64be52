"""What customers do: each act is one visit, from its first request to its end, and leaves nothing behind but records.

An act raises when an answer is not the one that a healthy Pollux gives.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tests.soak.customer import UNFINISHED, Customer, Surprise
from tests.support.replica import CACHED, MASTER_KEY, NATIVE

CHAT, MESSAGES = "mistral-large", "claude-sonnet-4-5"
"""Models whose providers speak other dialects."""
SURVIVABLE, FLAKY, LIMITED = "survivable", "flaky", "limited"
"""A model whose provider has a background mode of its own; one of two deployments that fail now and then; and one that
falls back to another model when its context is too short."""
SHORT = "[[words=8]] [[delay_ms=20]]"
LONG = "[[words=40]] [[delay_ms=50]]"
ENDLESS = "[[words=600]] [[delay_ms=100]]"
HALF_A_SECOND = "[[first_delay_ms=500]]"


async def poll(c: Customer) -> None:
    response_id = await c.create(SHORT)
    etag = ""
    while True:
        began = time.monotonic()
        tag = {"If-None-Match": etag} if etag else {}
        response, headers = await c.ask("GET", f"/v1/responses/{response_id}", expect=(200, 304), headers=tag)
        c.notes.took("poll", began)
        if headers.get("ETag"):
            etag = headers["ETag"]
        if response and response["status"] not in UNFINISHED:
            return
        await asyncio.sleep(0.1)


async def wait(c: Customer) -> None:
    began = time.monotonic()
    await c.ended(await c.create(HALF_A_SECOND))
    c.notes.took("half a second, by a wait", began)


async def wait_for_each_change(c: Customer) -> None:
    response_id, etag = await c.create(LONG), ""
    while True:
        query = f"?wait=10&after={etag.strip(chr(34))}" if etag else ""
        response, headers = await c.ask("GET", f"/v1/responses/{response_id}{query}")
        etag = headers["ETag"]
        if response["status"] not in UNFINISHED:
            return


async def prefer_to_wait(c: Customer) -> None:
    made, _ = await c.ask("POST", "/v1/responses", c.body(SHORT), headers={"Prefer": "wait=20"})
    await c.ended(made["id"])


async def stream(c: Customer) -> None:
    began = time.monotonic()
    async with c.opened("POST", "/v1/responses", c.body(SHORT, stream=True)) as answer:
        first = await c.events(answer, 1)
        c.notes.took("first event of a stream", began)
        check_whole(first + await c.events(answer))


async def resume(c: Customer) -> None:
    """The stream is left and taken up again, each time at some replica."""
    async with c.opened("POST", "/v1/responses", c.body(LONG, stream=True)) as answer:
        events = await c.events(answer, 5)
    response_id = events[0]["response"]["id"]
    while not is_over(events):
        path = f"/v1/responses/{response_id}?stream=true&starting_after={events[-1]['sequence_number']}"
        async with c.opened("GET", path) as answer:
            events += await c.events(answer, 20)
    check_whole(events)


async def cancel(c: Customer) -> None:
    response_id = await c.create(ENDLESS, c.chance.choice((CACHED, SURVIVABLE, CHAT)))
    await asyncio.sleep(c.chance.uniform(0, 1))
    await c.ask("POST", f"/v1/responses/{response_id}/cancel")
    await c.ended(response_id, "cancelled")


async def delete(c: Customer) -> None:
    response_id = await c.create(c.chance.choice((ENDLESS, SHORT)), c.chance.choice((CACHED, MESSAGES)))
    await asyncio.sleep(c.chance.uniform(0, 1))
    await c.ask("DELETE", f"/v1/responses/{response_id}")
    await c.ask("GET", f"/v1/responses/{response_id}", expect=(404,))


async def wait_for_many(c: Customer) -> None:
    ids = [await c.create(directives) for directives in (SHORT, LONG, ENDLESS)]
    query = f"ids={','.join(ids)}&wait=20"
    found, _ = await c.ask("GET", f"/v1/responses?{query}")
    if found["data"][0]["status"] in UNFINISHED and found["data"][1]["status"] in UNFINISHED:
        raise Surprise(f"none of {ids} has ended in 20 s")
    await c.ask("POST", "/v1/responses/cancel", {"ids": ids})
    await c.ask("GET", f"/v1/responses?{query}&until=all")


async def read_around(c: Customer) -> None:
    """Lists, input items, models, usage, metrics, and what a load balancer asks."""
    response_id = await c.create(SHORT, metadata={"visit": c.text()})
    await c.ask("GET", f"/v1/responses/{response_id}/input_items")
    page, _ = await c.ask("GET", "/v1/responses?limit=20")
    if page["has_more"]:
        # That one may have expired, or been deleted, since.
        await c.ask("GET", f"/v1/responses?limit=20&after={page['last_id']}", expect=(200, 400))
    for path in ("/v1/models", "/v1/usage", "/readyz", "/livez"):
        await c.ask("GET", path)
    await c.ask("GET", "/metrics", key=MASTER_KEY)
    await c.ended(response_id)


async def hear_of_own(c: Customer) -> None:
    """One response's status events, to the end."""
    response_id = await c.create(SHORT)
    async with c.opened("GET", f"/v1/events?response_id={response_id}") as answer:
        events = await c.events(answer)
    if not events or events[-1]["type"] != "response.completed":
        raise Surprise(f"a subscriber to {response_id} was told {[event['type'] for event in events]}")


async def hear_in_parts(c: Customer) -> None:
    """All of an owner's status events, in streams that are left and taken up again."""
    last_id = ""
    for _ in range(3):
        resuming = {"Last-Event-ID": last_id} if last_id else {}
        async with c.opened("GET", "/v1/events", headers=resuming) as answer:
            made = asyncio.create_task(c.create(SHORT))
            await c.events(answer, 2)
            await made
            last_id = await next_id(answer) or last_id


async def proxied(c: Customer) -> None:
    began = time.monotonic()
    await c.ask("POST", "/v1/responses", {"model": CACHED, "input": c.text()})
    c.notes.took("proxied", began)
    model = c.chance.choice((CACHED, CHAT, MESSAGES))
    async with c.opened("POST", "/v1/responses", {"model": model, "input": c.text(SHORT), "stream": True}) as answer:
        check_whole(await c.events(answer))


async def native(c: Customer) -> None:
    response_id = await c.create(SHORT, NATIVE)
    await c.ended(response_id)
    await c.ask("GET", f"/v1/responses/{response_id}/input_items")
    await c.ask("DELETE", f"/v1/responses/{response_id}")


async def repeat(c: Customer) -> None:
    """The same create again, as after an answer that was lost."""
    body, key = c.body(SHORT), {"Idempotency-Key": c.text()}
    made = [(await c.ask("POST", "/v1/responses", body, headers=key))[0]["id"] for _ in range(2)]
    if made[0] != made[1]:
        raise Surprise(f"one Idempotency-Key has made {made}")
    await c.ended(made[0])
    other = {**body, "input": "something else"}
    await c.ask("POST", "/v1/responses", other, expect=(400,), headers=key)


async def other_dialects(c: Customer) -> None:
    for model in (CHAT, MESSAGES):
        await c.ended(await c.create(f"{SHORT} [[reasoning=1]] [[tool=look_up]]", model))


async def go_on(c: Customer) -> None:
    """A chain of responses, at providers that keep nothing and at one that does."""
    previous: dict[str, str] = {}
    for model in (CHAT, MESSAGES, CACHED):
        previous = {"previous_response_id": (await c.ended(await c.create(SHORT, model, **previous)))["id"]}


async def survive(c: Customer) -> None:
    await c.ended(await c.create(SHORT, SURVIVABLE))


async def hang_up(c: Customer) -> None:
    """In every kind of answer: a wait, a stream, a feed, a proxied stream, a POST."""
    response_id, streamed = await c.create(LONG), await c.start_stream(ENDLESS)
    given_up: list[tuple[str, str, Any]] = [
        ("GET", f"/v1/responses/{response_id}?wait=50", None),
        ("GET", f"/v1/responses/{streamed}?stream=true", None),
        ("GET", f"/v1/responses?ids={response_id}&wait=50&until=all", None),
        ("GET", "/v1/events", None),
        ("POST", "/v1/responses", {"model": CACHED, "input": c.text(ENDLESS), "stream": True}),
        ("POST", "/v1/responses", {"model": CHAT, "input": c.text(ENDLESS), "stream": True}),
        ("POST", "/v1/responses", {"model": CACHED, "input": c.text("[[first_delay_ms=30000]]")}),
        ("GET", f"/v1/responses/{await c.create(LONG, NATIVE)}?wait=50", None),
    ]
    for one in given_up:
        try:
            async with asyncio.timeout(c.chance.uniform(0.02, 0.4)):
                await c.ask(*one)
        except TimeoutError:
            continue
    await c.ask("POST", f"/v1/responses/{streamed}/cancel")


async def err(c: Customer) -> None:
    """What is refused, each time in new words: whatever is kept of them would grow."""
    word = f"{c.chance.getrandbits(64):016x}"
    await c.ask("POST", "/v1/responses", b"{", expect=(400,))
    await c.ask("POST", "/v1/responses", c.body(SHORT, f"model-{word}"), expect=(400, 404))
    await c.ask("POST", "/v1/responses", c.body(SHORT, conversation=7, metadata=word), expect=(400,))
    await c.ask("GET", f"/v1/responses/resp_{word}", expect=(400, 404))
    await c.ask("GET", f"/v1/{word}", expect=(404,))
    await c.ask("GET", "/v1/responses", key=f"sk-{word}", expect=(401,))
    await c.ask("GET", f"/v1/responses?ids=resp_{word}&wait=1", expect=(200, 400))
    await c.ask("POST", f"/v1/responses/resp_{word}/cancel", expect=(404,))


async def meet_failures(c: Customer) -> None:
    """Providers that fail before or after output, and are tried again where that may help."""
    for directives, status in (
        ("[[status=500]] [[fail_times=1]]", "completed"),
        ("[[status=429]] [[retry_after=0.1]] [[fail_times=1]]", "completed"),
        ("[[status=400]] [[error_code=content_filter]]", "failed"),
        ("[[cut_after=9]] [[words=20]]", "failed"),
        ("[[error_event_after=9]] [[words=20]]", "failed"),
        ("[[incomplete=1]] [[words=20]]", "incomplete"),
    ):
        await c.ended(await c.create(directives, FLAKY), status)
    await c.ask("POST", "/v1/responses", {"model": FLAKY, "input": c.text("[[status=400]]")}, expect=(400,))


async def fall_back(c: Customer) -> None:
    too_long = "[[status=400]] [[error_code=context_length_exceeded]] [[fail_times=1]]"
    await c.ended(await c.create(too_long, LIMITED))
    await c.ask("POST", "/v1/responses", {"model": LIMITED, "input": c.text(too_long)})


async def own_endpoint(c: Customer) -> None:
    """A webhook endpoint that is made, told of one end, and deleted."""
    wanted = {"name": "a visit", "url": c.receiver, "event_types": ["response.completed"]}
    made, _ = await c.ask("POST", "/v1/webhook_endpoints", wanted)
    path = f"/v1/webhook_endpoints/{made['id']}"
    await c.ended(await c.create(SHORT))
    await c.ask("GET", f"{path}/deliveries")
    await c.ask("DELETE", path)


Act = Callable[[Customer], Awaitable[None]]
ACTS: dict[Act, int] = {
    poll: 6,
    wait: 6,
    wait_for_each_change: 3,
    prefer_to_wait: 3,
    stream: 6,
    resume: 4,
    cancel: 3,
    delete: 3,
    wait_for_many: 2,
    read_around: 2,
    hear_of_own: 3,
    hear_in_parts: 2,
    proxied: 5,
    native: 3,
    repeat: 3,
    other_dialects: 3,
    go_on: 2,
    survive: 2,
    hang_up: 3,
    err: 2,
    meet_failures: 2,
    fall_back: 2,
    own_endpoint: 1,
}
"""All of them, and how often each comes compared to the others."""


def is_over(events: list[dict[str, Any]]) -> bool:
    return bool(events) and "response" in events[-1] and events[-1]["response"]["status"] not in UNFINISHED


def check_whole(events: list[dict[str, Any]]) -> None:
    numbers = [event["sequence_number"] for event in events]
    if numbers != list(range(len(events))) or not is_over(events):
        raise Surprise(f"a stream of {numbers} that ends with {events[-1:]}")


async def next_id(answer: Any) -> str:
    """The id of the next status event that comes within a second."""
    try:
        async with asyncio.timeout(1):
            async for line in answer.content:
                if line.startswith(b"id: "):
                    return str(line[4:].decode().strip())
    except TimeoutError:
        pass
    return ""
