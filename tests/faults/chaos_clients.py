"""The clients of the chaos run: as patient as real ones, and they write down all that they are told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import aiohttp
import redis

from tests.faults.chaos_jobs import TERMINAL, Job
from tests.support.sse import events_of
from tests.support.subscribers import MISSED, Patient, faults_of

PATIENCE_S = 150.0
"""A client that has no answer by then has waited in vain."""
REQUEST_S = 40.0
"""No single request takes longer: waits are of 20 s at most, and paused replicas come back after 4 s."""
SILENCE_S = 20.0
"""A stream says something every 15 s."""


class Told(Exception):
    """An answer that no accident explains."""


class Client:
    """One client with its one job."""

    def __init__(
        self,
        job: Job,
        http: aiohttp.ClientSession,
        urls: Callable[[], list[str]],
        peek: Callable[[str], dict[str, str]],
    ) -> None:
        self._job = job
        self._http = http
        self._urls = urls
        self._peek = peek
        self._chance = random.Random(job.seed)
        self._headers = {"Authorization": f"Bearer {job.key}"}

    async def run(self) -> None:
        """From the first request to the answer; what is wrong about it is noted in the job."""
        job = self._job
        manners = {
            "poller": self._poll,
            "waiter": self._wait,
            "prefers to wait": self._prefer_to_wait,
            "streamer": self._stream,
            "hangs up": self._hang_up,
            "canceller": self._cancel,
            "deleter": self._delete,
            "subscriber": self._subscribe,
        }
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await manners[job.manner]()
        except TimeoutError:
            job.violations.append(f"no answer within {PATIENCE_S:g} s")
        except (Told, AssertionError) as error:
            job.violations.append(str(error))
        job.longest_wait_s = loop.time() - began

    # The manners.

    async def _poll(self) -> None:
        """Each state once, until the last."""
        etag = await self._create()
        while True:
            response, etag = await self._get({"wait": "10", "after": etag} if etag else {})
            if response["status"] in TERMINAL:
                return

    async def _wait(self) -> None:
        await self._create()
        await self._until_terminal()

    async def _prefer_to_wait(self) -> None:
        await self._create({"Prefer": "wait=20"})
        await self._until_terminal()

    async def _stream(self) -> None:
        """From the create call on, and after each abort from where it broke off, at any replica."""
        await self._create(follow=True)
        while not self._over():
            await self._follow()
        response, _ = await self._get({})
        if response["status"] not in TERMINAL:
            raise Told(f"the stream has ended, but the response is {response['status']}")

    async def _hang_up(self) -> None:
        await self._create()
        await asyncio.sleep(self._chance.uniform(0.5, 6))  # away
        if self._job.streamed and self._chance.random() < 0.5:
            while not self._over():
                await self._follow()
        await self._until_terminal()

    async def _cancel(self) -> None:
        await self._create()
        await self._dawdle()
        status, answer, _ = await self._ask("POST", f"/{self._job.id}/cancel", accept=(400,))
        if status == 400:
            if "Cannot cancel a" not in answer["error"]["message"]:
                raise Told(f"cancel was answered with {answer}")
        elif answer["status"] != "cancelled":
            raise Told(f"cancel was answered with {answer['status']}")
        else:
            self._job.cancelled = True
            await self._note_provider()
        response, _ = await self._get({})
        if response["status"] not in TERMINAL:
            raise Told(f"{response['status']} after a cancel")

    async def _delete(self) -> None:
        await self._create()
        await self._dawdle()
        if self._job.shape.name == "survivable endless":
            await self._note_provider()
        # 404: an earlier try did it, and its answer was lost.
        self._job.deleted = True
        await self._ask("DELETE", f"/{self._job.id}", accept=(404,))
        status, answer, _ = await self._ask("GET", f"/{self._job.id}", accept=(404,))
        if status != 404:
            raise Told(f"{answer['status']} after a delete")

    async def _subscribe(self) -> None:
        """To this one response: the stream is to end by itself, when the response has ended, and with that event."""
        await self._create()
        await self._dawdle()
        subscriber = Patient(self._shuffled_urls, self._job.key, f"?response_id={self._job.id}")
        await subscriber.listen()
        self._write_down(f"told {[event['type'] for event in subscriber.events]} in {len(subscriber.visits)} streams")
        if faults := faults_of(subscriber.events):
            raise Told(f"a subscriber to it was told wrongly: {faults}")
        response, _ = await self._get({})
        if [f"response.{response['status']}"] != [event["type"] for event in subscriber.events[-1:]]:
            raise Told(f"it is {response['status']}, but its subscriber was told {subscriber.events}")

    def _shuffled_urls(self) -> list[str]:
        urls = self._urls()
        return self._chance.sample(urls, len(urls))

    async def _dawdle(self) -> None:
        """Up to some moment of the response's life: at once, later, or when there is output."""
        how = self._chance.randrange(3)
        if how == 0:
            await asyncio.sleep(self._chance.uniform(0, 4))
        if how == 1:
            etag = ""
            while True:
                response, etag = await self._get({"wait": "10", "after": etag} if etag else {})
                if response["output"] or response["status"] in TERMINAL:
                    return

    async def _note_provider(self) -> None:
        """Which run of the provider's nobody wants any more. (Nothing but a look behind the curtain tells.)"""
        if not self._job.shape.survivable:
            return
        record: dict[str, str] | None = None
        while record is None:
            try:
                record = await asyncio.to_thread(self._peek, self._job.id)
            except redis.RedisError:
                await asyncio.sleep(0.2)
        if provider_id := record.get("provider_id"):
            self._job.provider_ids.add(provider_id)

    # What they all do.

    async def _create(self, headers: dict[str, str] | None = None, *, follow: bool = False) -> str:
        """Until it is acknowledged, always with the same key; the ETag of the answer, where it has one."""
        headers = {**(headers or {}), "Idempotency-Key": f"chaos {self._job.text}"}
        if not self._job.streamed:
            _, response, etag = await self._ask("POST", "", headers=headers)
            self._acknowledged(response)
            return etag
        while not self._job.ids:
            await self._follow(headers, hang_up=not follow)
        return ""

    async def _follow(self, creating: dict[str, str] | None = None, *, hang_up: bool = False) -> None:
        """Read a stream until it ends or breaks; where there is no response yet, create it."""
        job = self._job
        if creating is not None:
            method, path, body = "POST", "", job.body
        else:
            method, body = "GET", None
            path = f"/{job.id}?stream=true" + (f"&starting_after={max(job.events)}" if job.events else "")
        url = self._url(path)
        try:
            answer = await self._http.request(
                method,
                url,
                json=body,
                headers={**self._headers, **(creating or {})},
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=SILENCE_S),
            )
            async with answer:
                self._write_down(f"{method} {url}: {answer.status}")
                if answer.status == 503:
                    await self._hold_on(answer.headers)
                    return
                if answer.status != 200:
                    raise Told(f"{method} of a stream was answered with {answer.status}: {await answer.text()}")
                async for event in events_of(answer):
                    self._take(event)
                    if hang_up:
                        return
        except MISSED as error:
            self._write_down(f"{method} {url}: {error!r} after event {max(job.events, default=-1)}")
            await self._hold_on({})
            return
        except AssertionError as error:
            # A connection that is cut within a frame ends like that only if the stream claims to be whole.
            raise Told(f"the stream broke the protocol: {error}") from error
        if not self._over():
            raise Told(f"a stream ended cleanly without its end, after event {max(job.events, default=-1)}")

    def _take(self, event: dict[str, Any]) -> None:
        job, number = self._job, event["sequence_number"]
        if number in job.events:
            if job.events[number] != event:
                raise Told(f"event {number} has changed")
        elif number != max(job.events, default=-1) + 1:
            raise Told(f"event {number} came after {max(job.events, default=-1)}")
        job.events[number] = event
        if "response" in event:
            self._acknowledged(event["response"], whole=False)

    def _over(self) -> bool:
        events = self._job.events
        return bool(events) and "response" in (last := events[max(events)]) and last["response"]["status"] in TERMINAL

    async def _until_terminal(self) -> None:
        while (await self._get({"wait": "20"}))[0]["status"] not in TERMINAL:
            pass

    async def _get(self, query: dict[str, str]) -> tuple[dict[str, Any], str]:
        words = "&".join(f"{name}={value.strip(chr(34))}" for name, value in query.items())
        _, response, etag = await self._ask("GET", f"/{self._job.id}" + (f"?{words}" if words else ""))
        self._acknowledged(response)
        return response, etag

    def _acknowledged(self, response: dict[str, Any], *, whole: bool = True) -> None:
        job = self._job
        job.ids.add(response["id"])
        if len(job.ids) > 1:
            raise Told(f"two responses for one Idempotency-Key, or one answered for the other: {job.ids}")
        if whole and response["status"] in TERMINAL:
            job.terminals.append(response)
        elif whole and job.terminals:
            raise Told(f"{job.terminals[-1]['status']} became {response['status']} again")

    async def _ask(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, accept: tuple[int, ...] = ()
    ) -> tuple[int, dict[str, Any], str]:
        """Status, body and ETag of the first answer that is one: accidents and 503 are tried again elsewhere."""
        while True:
            url = self._url(path)
            try:
                answer = await self._http.request(
                    method,
                    url,
                    json=self._job.body if method == "POST" and not path else None,
                    headers={**self._headers, **(headers or {})},
                    timeout=aiohttp.ClientTimeout(total=REQUEST_S, sock_connect=5),
                )
                async with answer:
                    self._write_down(f"{method} {url}: {answer.status}")
                    if answer.status == 503:
                        await self._hold_on(answer.headers)
                        continue
                    if answer.status != 200 and answer.status not in accept:
                        raise Told(f"{method} {path} was answered with {answer.status}: {await answer.text()}")
                    return answer.status, await answer.json(), answer.headers.get("ETag", "")
            except MISSED as error:
                self._write_down(f"{method} {url}: {error!r}")
                await self._hold_on({})

    async def _hold_on(self, headers: Any) -> None:
        """As long as it was asked to, or for a moment."""
        self._job.retries += 1
        if headers and "Retry-After" not in headers:
            raise Told("503 without Retry-After")
        await asyncio.sleep(min(2.0, float(headers.get("Retry-After", 0.2))) * self._chance.uniform(0.5, 1.5))

    def _write_down(self, what: str) -> None:
        self._job.diary.append(f"{datetime.now(UTC):%T.%f}"[:-3] + f" {what}")

    def _url(self, path: str) -> str:
        urls = self._urls()
        return f"{self._chance.choice(urls or ['http://127.0.0.1:9'])}/v1/responses{path}"
