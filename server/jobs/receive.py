"""Receiving what a provider produces: its stream, written to the log, and its run, followed to the end.

A deployment with `upstream_background` runs the job in the provider's own background, and that run goes on when ours
ends. If the connection breaks, or another worker takes over, the stream is resumed where the log ends. If the provider
refuses to resume it (OpenAI does so after five minutes), its final object is polled for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from server.chain import History
from server.errors import PolluxError
from server.jobs.endings import failure_of
from server.jobs.journal import Journal, Lost
from server.keyring import ClientKey
from server.protocol import jsontext
from server.protocol.intake import Ending, Intake, ending_of, failure, parse_answer
from server.protocol.lifecycle import LAST_OPENING, UNFINISHED
from server.protocol.snapshot import Identity
from server.protocol.sse import EventTooLong
from server.upstream.affinity import Marker
from server.upstream.answer import Answer
from server.upstream.call import Call
from server.upstream.client import Upstream
from server.upstream.deployments import Deployment
from server.upstream.refusals import is_passing
from server.upstream.tries import Tries
from server.usage import spent_on
from storage import Store, encode_spent

log = logging.getLogger("pollux.jobs")


FIRST_POLL_S, LONGEST_POLL_S = 1.0, 5.0


@dataclass(slots=True)
class Run:
    """What we know about the provider's run of a job."""

    deployment: Deployment
    model: str
    """By which name the deployment is asked."""
    who: Identity
    marker: Marker
    key: ClientKey | None = None
    history: History = field(default_factory=History)
    provider_id: str = ""
    upstream_last: int = -1
    upstream_request_id: str | None = None
    """The id by which the provider finds the newest call about this run in its own log."""
    noted: bool = False
    """Whether the record names this run."""

    @property
    def about(self) -> dict[str, Any]:
        """The fields about this run for our log."""
        return {"deployment": self.deployment.id[:16], "upstream_request_id": self.upstream_request_id}

    @property
    def survivable(self) -> bool:
        """Whether the provider runs the job in its own background; that needs a response that it may store."""
        return self.deployment.survivable and self.deployment.asks_to_keep(self.who.request)

    @property
    def resumable(self) -> bool:
        return self.survivable and bool(self.provider_id)


@dataclass(frozen=True)
class Receiver:
    """Receives the output of providers' runs."""

    store: Store
    upstream: Upstream
    num_retries: int

    async def resume(self, run: Run, journal: Journal) -> Ending:
        """Follow a run in the provider's background. Tries are counted anew whenever new events have come."""
        tries = Tries(self.upstream.health, [run.deployment], self.num_retries)
        while True:
            last = run.upstream_last
            query = {"stream": "true"} | ({"starting_after": str(last)} if last >= 0 else {})
            call = Call("GET", (run.provider_id,), urlencode(query), stream=True, key=run.key)
            log.info("run resumed", extra={"response_id": journal.lease.id, "upstream_last": last})
            try:
                async with self.upstream.open(run.deployment, call) as answer:
                    if not await answer.is_stream():
                        return await self._poll(run)
                    ending = await self.take_in(answer, run, journal, resumed=True)
                if ending is not None:
                    return ending
                return await self._poll(run)  # the stream ended without a terminal event: the object tells
            except PolluxError as error:
                if not is_passing(error):
                    return await self._poll(run)
                if run.upstream_last > last:
                    tries = Tries(self.upstream.health, [run.deployment], self.num_retries)
                try:
                    await tries.again(error)
                except PolluxError as final:
                    return failure_of(final)

    async def _poll(self, run: Run) -> Ending:
        """Poll for the end of a run whose stream can't be resumed. Subscribers get only its terminal event."""
        pause_s = FIRST_POLL_S
        tries = Tries(self.upstream.health, [run.deployment], self.num_retries)
        while True:
            try:
                async with self.upstream.open(run.deployment, Call("GET", (run.provider_id,), key=run.key)) as answer:
                    raw = run.marker.mark(await answer.json())
            except PolluxError as error:
                try:
                    await tries.again(error)
                except PolluxError as final:
                    return failure_of(final)
                continue
            if (parse_answer(raw) or {}).get("status") not in UNFINISHED:
                return ending_of(raw)
            tries = Tries(self.upstream.health, [run.deployment], self.num_retries)
            await asyncio.sleep(pause_s)
            pause_s = min(LONGEST_POLL_S, pause_s * 1.5)

    async def take_in(self, answer: Answer, run: Run, journal: Journal, *, resumed: bool = False) -> Ending | None:
        """Write a stream's events to the journal until it ends. Returns None if it had no terminal event."""
        intake = Intake(run.who, journal.next_number, run.upstream_last if resumed else None)
        try:
            while (events := await answer.events()) is not None:
                for event in events:
                    first = intake.number == LAST_OPENING + 1
                    frames = intake.take(run.marker.event(event))
                    if run.survivable and intake.upstream_last != run.upstream_last and not intake.holds_events:
                        run.upstream_last = intake.upstream_last
                        journal.note(upstream_last=str(run.upstream_last))
                    if intake.base is not None and not run.noted:
                        run.noted = True
                        await self._note_beginning(run, intake.base, journal)
                    for frame in frames:
                        journal.add(frame, urgent=first)
                    if intake.ending is not None:
                        return intake.ending
                await journal.room()
                await answer.let_gather(journal.pace_s)
        except EventTooLong as error:
            return failure("server_error", f"The provider broke the protocol: {error}.")
        return intake.end() if intake.failed else None

    async def _note_beginning(self, run: Run, base: dict[str, object], journal: Journal) -> None:
        """Store deployment and provider's id at once: from then on the run can be resumed, continued and cancelled."""
        provider_id = base.get("id")
        run.provider_id = provider_id if isinstance(provider_id, str) else ""
        fields: dict[str, str | bytes] = {
            "deployment": run.deployment.id,
            "provider_id": run.provider_id,
            "base": run.who.secrets.hidden_in(jsontext.dumps(base)),
            "began_ms": str(int(time.time() * 1000)),
        }
        if (spent := spent_on(run.deployment, base)) is not None:
            # It counts if the run ends without another word of the provider's.
            fields["spent"] = encode_spent(spent)
        if not run.resumable:
            journal.set(**fields)
            return
        journal.set(**fields, survivable="1")
        try:
            await journal.flush()
        except (Lost, asyncio.CancelledError):
            # The response was cancelled before the record named the provider's run, so we queue its cancel here.
            record = await self.store.responses.find(journal.lease.id)
            if record is None or record.terminal:
                await self.store.jobs.cancel_upstream(journal.lease, run.deployment.id, run.provider_id)
            raise
