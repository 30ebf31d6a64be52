"""The auditor of the chaos run: proves from the outside that what was promised has been kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp

from tests.faults.chaos_feed import faults_of_feeds, have_been_told
from tests.faults.chaos_jobs import TERMINAL, Job, said_in
from tests.faults.chaos_webhooks import MoodyReceiver
from tests.support.keys import Admin, leaked_keys
from tests.support.replica import CACHED, MASTER_KEY
from tests.support.sse import read_stream
from tests.support.subscribers import Patient
from tests.support.waiting import wait_until

QUIET_WITHIN_S = 60.0
"""A cancel that was on its way to the provider when its bearer died is taken up again after 30 s."""

TOLD_WITHIN_S = 120.0
"""A webhook whose bearer died is taken up again after 30 s too, and one that was refused three times after 65 s."""

REPLAYED_WITHIN = aiohttp.ClientTimeout(total=20)
"""A log that has ended: if its stream goes on, it lacks its end."""
AT_ONCE = 20


class Auditor:
    """Looks at everything once it is quiet; `violations` is what was found."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        url: str,
        simulator: str,
        admin: Admin,
        peek: Callable[[str], dict[str, str]],
    ) -> None:
        """`peek` gives what the store has of a response."""
        self._http = http
        self._url = f"{url}/v1/responses"
        self._simulator = simulator.removesuffix("/v1")
        self._admin = admin
        self._peek = peek
        self.violations: list[str] = []
        self.outcomes: dict[int, str] = {}
        """How each job ended, by its number."""
        self._begun: dict[int, bool] = {}
        """Whether it was ever in progress, as far as something other than the feed tells."""

    async def audit(self, jobs: list[Job], subscribers: Mapping[str, Patient], receiver: MoodyReceiver) -> None:
        """Everything. Jobs that broke in their clients' hands are looked at all the same."""
        for job in jobs:
            self.violations += [f"{job}: {violation}" for violation in job.violations]
        await self._until(self._all_over, "every acknowledged response ends", jobs)
        for start in range(0, len(jobs), AT_ONCE):
            await asyncio.gather(*(self._audit_job(job) for job in jobs[start : start + AT_ONCE]))
        await self._until(self._nothing_open, "no upstream connection is left open")
        await self._until(self._nothing_to_cancel, "no cancel is left to be told to a provider")
        await self._audit_provider(jobs)
        await self._audit_lists(jobs)
        await self._until(self._all_told, "all subscribers are told how all ended", subscribers, jobs)
        self.violations += faults_of_feeds(subscribers, jobs, self._begun)
        await self._until(
            self._all_taken, "all webhooks are taken", subscribers[MASTER_KEY], receiver, within_s=TOLD_WITHIN_S
        )
        self.violations += receiver.faults(subscribers[MASTER_KEY])
        self.violations += [f"the key {key} has no time to live" for key in leaked_keys(self._admin)]

    async def _audit_job(self, job: Job) -> None:
        found: list[str] = []
        try:
            found = await self._faults_of(job)
        except (AssertionError, KeyError, aiohttp.ClientError, TimeoutError) as error:
            found = [f"the audit broke: {error!r}"]
        self.violations += [f"{job} {next(iter(job.ids), '')}: {fault}" for fault in found]

    async def _faults_of(self, job: Job) -> list[str]:
        if len(job.ids) != 1:
            self.outcomes[job.number] = "unanswered"
            return [f"{len(job.ids)} ids acknowledged"]
        status, response = await self._get(job)
        if job.deleted:
            self.outcomes[job.number] = "deleted"
            return [] if status == 404 else [f"deleted, and there again: {status} {response.get('status')}"]
        if status != 200:
            self.outcomes[job.number] = "lost"
            return [f"lost: {status} {response}"]
        self.outcomes[job.number] = outcome = _outcome(response)
        events = await self._log(job) if job.streamed else []
        if job.streamed:
            self._begun[job.number] = any(event["type"] == "response.in_progress" for event in events)
        elif outcome != "cancelled":
            self._begun[job.number] = True
        found = list(_faults_of_end(job, response, events))
        if job.cancelled and outcome != "cancelled":
            found.append(f"acknowledged as cancelled, but {outcome}")
        found += [f"a terminal state changed: {seen} became {response}" for seen in job.terminals if seen != response]
        if job.streamed:
            found += _faults_of_log(job, response, events)
        return found

    async def _get(self, job: Job) -> tuple[int, dict[str, Any]]:
        async with self._http.get(f"{self._url}/{job.id}", headers=_key(job)) as answer:
            return answer.status, await answer.json()

    async def _log(self, job: Job) -> list[dict[str, Any]]:
        url = f"{self._url}/{job.id}?stream=true"
        return await read_stream(await self._http.get(url, headers=_key(job), timeout=REPLAYED_WITHIN))

    async def _all_over(self, jobs: list[Job]) -> bool:
        for job in jobs:
            if len(job.ids) == 1 and not job.deleted:
                status, response = await self._get(job)
                if status == 200 and response["status"] not in TERMINAL:
                    return False
        return True

    async def _all_told(self, subscribers: Mapping[str, Patient], jobs: list[Job]) -> bool:
        return have_been_told(subscribers, jobs)

    async def _all_taken(self, subscriber: Patient, receiver: MoodyReceiver) -> bool:
        return receiver.has_taken_all(subscriber)

    async def _seen(self) -> dict[str, Any]:
        async with self._http.get(f"{self._simulator}/simulator/requests") as answer:
            seen: dict[str, Any] = await answer.json()
            return seen

    async def _nothing_open(self) -> bool:
        return bool((await self._seen())["open"] == 0)

    async def _nothing_to_cancel(self) -> bool:
        return not list(self._admin.scan_iter("pollux:*:upstream_cancels"))

    async def _until(
        self,
        condition: Callable[..., Awaitable[bool]],
        what: str,
        *arguments: Any,
        within_s: float = QUIET_WITHIN_S,
    ) -> None:
        try:
            await wait_until(lambda: condition(*arguments), timeout_s=within_s)
        except AssertionError:
            self.violations.append(f"not within {within_s:g} s: {what}")

    async def _audit_provider(self, jobs: list[Job]) -> None:
        """No run of a survivable deployment was paid for twice without need; none that is unwanted goes on."""
        requests = (await self._seen())["requests"]
        for job in jobs:
            count = sum(map(job.asked_by, requests))
            if job.shape.survivable and count > job.shape.posts + 1:
                # A run that is lost before the provider's id is stored can't be resumed. That takes an accident each.
                attempts = int(self._peek(job.id).get("attempt", 0))
                if count > job.shape.posts + attempts - 1:
                    self.violations.append(f"{job}: the provider was asked {count} times in {attempts} attempts")
            if self.outcomes.get(job.number) == "completed" and count < job.shape.posts:
                self.violations.append(f"{job}: completed, but the provider was asked {count} times")
            for run in job.provider_ids:
                async with self._http.get(f"{self._simulator}/v1/responses/{run}") as answer:
                    status = (await answer.json())["status"]
                if status not in TERMINAL:
                    self.violations.append(f"{job}: its run {run} at the provider is still {status}")

    async def _audit_lists(self, jobs: list[Job]) -> None:
        """Each owner's list names what there is, and nothing that nobody knows of."""
        for key in sorted({job.key for job in jobs}):
            known = {job.id for job in jobs if job.key == key and len(job.ids) == 1 and not job.deleted}
            listed: list[str] = []
            page: dict[str, Any] = {"has_more": True}
            while page["has_more"]:
                query = {"limit": "100"} | ({"after": listed[-1]} if listed else {})
                headers = {"Authorization": f"Bearer {key}"}
                async with self._http.get(self._url, params=query, headers=headers) as answer:
                    page = await answer.json()
                listed += [response["id"] for response in page["data"]]
            if len(listed) != len(set(listed)) or set(listed) != known:
                missing, extra = known - set(listed), set(listed) - known
                self.violations.append(f"a list of responses lacks {missing} and has {extra} that nobody knows")


def _faults_of_end(job: Job, response: dict[str, Any], events: list[dict[str, Any]]) -> list[str]:
    """Whether it may have ended like this, and holds what it must."""
    status, error = response["status"], response["error"]
    if (
        response["id"] != job.id
        or response["background"] is not True
        or response["model"] not in (CACHED, job.shape.model)
    ):
        return [f"another response, or not one of ours: {response}"]
    if (response["completed_at"] is not None) != (status == "completed") or (error is not None) != (status == "failed"):
        return [f"{status} with completed_at {response['completed_at']} and error {error}"]
    output = response["output"]
    if status in ("completed", "incomplete"):
        if status != job.shape.ends:
            return [f"{status}, but {job.shape.ends} was asked for"]
        return [] if job.is_whole(output) else [f"not the whole answer to its input: {output} is not {job.output}"]
    if not said_in(job.output).startswith(said_in(output)):
        return [f"partial output that is not of its answer: {output}"]
    if status == "cancelled":
        return [] if job.cancelled or job.manner == "canceller" else ["cancelled, and nobody did that"]
    if error["code"] == "worker_lost":
        lost = job.streamed and not job.shape.survivable and len(events) > 4
        return [] if lost else [f"worker_lost after {len(events)} events"]
    if job.shape.ends != "failed" or error["code"] != job.shape.code:
        return [f"failed with {error}"]
    return []


def _faults_of_log(job: Job, response: dict[str, Any], events: list[dict[str, Any]]) -> list[str]:
    found = []
    if [event["sequence_number"] for event in events] != list(range(len(events))):
        found.append(f"a log with gaps: {[event['sequence_number'] for event in events]}")
    ends = [n for n, event in enumerate(events) if "response" in event and event["response"]["status"] in TERMINAL]
    if ends != [len(events) - 1]:
        found.append(f"terminal events at {ends} of {len(events)}")
    else:
        last = events[-1]["response"]
        # A cancelled one is minimal in the stream, and folded for a GET.
        names = ("id", "status") if response["status"] == "cancelled" else tuple(response)
        if [last.get(name) for name in names] != [response[name] for name in names]:
            found.append(f"the terminal event is of another state: {last} is not {response}")
    changed = [n for n, seen in sorted(job.events.items()) if n >= len(events) or events[n] != seen]
    if changed:
        found.append(f"the log is not what its client saw: events {changed}")
    deltas = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    if response["status"] == "completed" and deltas and not said_in(response["output"]).endswith(deltas):
        found.append("the deltas do not come to the text")
    return found


def _outcome(response: dict[str, Any]) -> str:
    error = response["error"]
    return "worker_lost" if error and error["code"] == "worker_lost" else str(response["status"])


def _key(job: Job) -> dict[str, str]:
    return {"Authorization": f"Bearer {job.key}"}
