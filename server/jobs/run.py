"""One leased job: from the provider's stream to the end of the response. Knows no queue and no client."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import aiohttp
import orjson

from server.errors import PolluxError, UpstreamRefusal, UpstreamTimeout
from server.jobs.journal import Committer, Journal, StoreGone
from server.jobs.view import fold_log
from server.protocol.events import encode_lifecycle
from server.protocol.fold import dumps
from server.protocol.intake import Ending, Intake, ending_of, failure
from server.protocol.lifecycle import Status, terminal_event
from server.protocol.requests import job_body, parse_object
from server.protocol.snapshot import Identity, response_object
from server.protocol.sse import EventTooLong, SseParser
from server.upstream.client import Call, Tries, Upstream, read_body
from server.upstream.deployments import Deployment, Deployments
from server.upstream.rewrite import SHORTEST_DISTINCT_ID
from storage import Lease, Outcome, Store, StoreFull, Verdict

log = logging.getLogger("pollux.jobs")

LAST_OPENING = 2
"""The number of the last lifecycle event: whatever is beyond it came from a provider."""

_VERDICTS = {
    Verdict.LOST: failure("worker_lost", "The worker died, and the response could not be produced again."),
    Verdict.EXPIRED: failure("timeout", "The response waited longer than max_age_s for a worker."),
}


@dataclass(frozen=True)
class Runner:
    """What every run needs."""

    store: Store
    upstream: Upstream
    deployments: Deployments
    committer: Committer
    num_retries: int
    max_run_s: float

    async def run(self, lease: Lease, on_lost: Callable[[Outcome], None]) -> Status:
        """Work one job to its end, and return the status that it ended with.

        `on_lost` is called when the job turns out not to be ours any more, also while nothing is written.

        Raises:
            Lost, StoreGone

        """
        journal = Journal(self.committer, lease, on_lost)
        body = parse_object(lease.request)
        who = Identity(lease.id, lease.created_at, body)
        ending = _VERDICTS.get(lease.verdict)
        try:
            if ending is None:
                async with asyncio.timeout(self.max_run_s):
                    ending = await self._produce(lease, body, journal)
        except TimeoutError:
            ending = failure("timeout", f"The run took longer than max_run_s ({self.max_run_s:g} s).")
        except StoreGone as gone:
            if not isinstance(gone.cause, StoreFull):
                raise
            # A full store takes no more events, but it takes the end. What was pending is lost, and said so.
            journal.abandon()
            ending = failure("server_error", "The store of this service is full.")
        await self._finish(journal, who, ending)
        return ending.status

    async def _produce(self, lease: Lease, body: dict[str, object], journal: Journal) -> Ending:
        """Ask one deployment after the other until a first one has begun to answer, and take its answer."""
        deployments = self._candidates(lease)
        if not deployments:
            return failure("server_error", "No deployment serves the model of this response any more.")
        tries = Tries(deployments, self.num_retries)
        while True:
            deployment = tries.deployment
            try:
                return await self._attempt(deployment, lease, body, journal)
            except PolluxError as error:
                try:
                    if journal.next_number > LAST_OPENING + 1:
                        raise
                    await tries.again(error)
                except PolluxError as final:
                    return _failure_of(final)

    def _candidates(self, lease: Lease) -> Sequence[Deployment]:
        if lease.deployment:
            pinned = self.deployments.get(lease.deployment)
            return [pinned] if pinned else []
        return self.deployments.serving(lease.model)

    async def _attempt(self, deployment: Deployment, lease: Lease, body: dict[str, object], journal: Journal) -> Ending:
        sent = job_body(body, deployment.model_for(self.deployments.canonical(lease.model)), lease.previous or None)
        async with self.upstream.open(deployment, Call("POST", body=sent, stream=True)) as response:
            if response.content_type == "application/json":
                return ending_of(orjson.loads(await read_body(response)))
            return await _take_in(response, deployment, journal)

    async def _finish(self, journal: Journal, who: Identity, ending: Ending) -> None:
        """Write the end: the terminal event, the status and the final object."""
        given = (ending.upstream or {}).get("output")
        output = given if isinstance(given, list) else []
        if not output and journal.next_number > LAST_OPENING + 1:
            # A weak upstream left it out, or there was no terminal event: it is what had arrived.
            await journal.flush()
            output = (await fold_log(self.store, who.id)).output
        final = response_object(
            who, ending.status, ending.upstream, output=output, error=ending.error, ended_at=int(time.time())
        )
        if final["error"] is not None:
            final["error"]["message"] = _without_raw_ids(final["error"]["message"], journal.lease, who, ending)
        snapshot = dumps(final)
        told = {**orjson.loads(snapshot), "output": []} if ending.status is Status.CANCELLED else None
        kind = terminal_event(ending.status)
        frame = encode_lifecycle(kind, journal.next_number, told or orjson.loads(snapshot))
        await journal.finish(frame, ending.status, snapshot)


async def _take_in(response: aiohttp.ClientResponse, deployment: Deployment, journal: Journal) -> Ending:
    intake, parser = Intake(journal.next_number), SseParser()
    begun = False
    try:
        async for chunk in response.content.iter_any():
            for event in parser.feed(chunk):
                first = intake.number == LAST_OPENING + 1
                frame = intake.take(event)
                if intake.base is not None and not begun:
                    begun = True
                    _note_beginning(journal, deployment, intake.base)
                if frame is not None:
                    journal.add(frame, urgent=first)
                if intake.ending is not None:
                    return intake.ending
            await journal.room()
    except EventTooLong as error:
        return failure("server_error", f"The provider broke the protocol: {error}.")
    return intake.end()


def _note_beginning(journal: Journal, deployment: Deployment, base: dict[str, object]) -> None:
    provider_id = base.get("id")
    journal.set(
        deployment=deployment.id,
        provider_id=provider_id if isinstance(provider_id, str) else "",
        base=orjson.dumps(base),
    )


def _failure_of(error: PolluxError) -> Ending:
    """The `error` of a response whose upstream refused, or could not be reached."""
    if isinstance(error, UpstreamTimeout):
        code = "timeout"
    elif not isinstance(error, UpstreamRefusal):
        code = "server_error"
    elif error.code:
        code = error.code
    elif error.status == 429:
        code = "rate_limit_exceeded"
    else:
        code = "invalid_prompt" if error.status < 500 else "server_error"
    return failure(code, error.message)


def _without_raw_ids(message: str, lease: Lease, who: Identity, ending: Ending) -> str:
    """A provider's message with the ids that the client knows."""
    known = ((lease.previous, who.request.get("previous_response_id")), ((ending.upstream or {}).get("id"), who.id))
    for raw, public in known:
        if isinstance(raw, str) and isinstance(public, str) and len(raw) >= SHORTEST_DISTINCT_ID:
            message = message.replace(raw, public)
    return message
