"""Producing a response: ask deployments until one answers, and write the provider's events to the log.

A deployment with `upstream_background` runs the job in the provider's own background, and that run goes on when ours
ends. If the connection breaks, or another worker takes over, the stream is resumed where the log ends. If the provider
refuses to resume it (OpenAI does so after five minutes), its final object is polled for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode

from server.chain import Chain, History
from server.errors import (
    PolluxError,
    PreviousNotFinished,
    PreviousNotFound,
    Untranslatable,
    UpstreamRefusal,
    UpstreamTimeout,
)
from server.jobs.journal import Journal, Lost, Unservable
from server.keyring import ClientKey, is_guest
from server.protocol import jsontext
from server.protocol.intake import CUT_SHORT, Ending, Intake, ending_of, failure, parse_answer
from server.protocol.lifecycle import LAST_OPENING, UNFINISHED, Status
from server.protocol.litellm_fields import wishes_in
from server.protocol.marks import is_marked
from server.protocol.requests import job_request, parse_object
from server.protocol.snapshot import Identity
from server.protocol.sse import EventTooLong
from server.upstream.affinity import Affinity, Marker
from server.upstream.answer import Answer
from server.upstream.call import Call
from server.upstream.client import Upstream
from server.upstream.deployments import Deployment, Deployments
from server.upstream.refusals import facts_of, failure_said, is_passing
from server.upstream.tries import Tries
from server.usage import spent_on
from storage import Lease, Store, Verdict, encode_spent

log = logging.getLogger("pollux.jobs")


FIRST_POLL_S, LONGEST_POLL_S = 1.0, 5.0


@dataclass(slots=True)
class _Run:
    """What we know about the provider's run of this job."""

    deployment: Deployment
    who: Identity
    marker: Marker
    key: ClientKey | None = None
    history: History = field(default_factory=History)
    provider_id: str = ""
    upstream_last: int = -1
    upstream_request_id: str | None = None
    """The id by which the provider finds the newest call about this run in its own log."""

    @property
    def about(self) -> dict[str, Any]:
        """The fields about this run for our log."""
        return {"deployment": self.deployment.id[:16], "upstream_request_id": self.upstream_request_id}

    @property
    def survivable(self) -> bool:
        """Whether the provider runs the job in its own background; that needs a response that it may store."""
        return self.deployment.survivable and self.who.request.get("store") is not False

    @property
    def resumable(self) -> bool:
        return self.survivable and bool(self.provider_id)


@dataclass(frozen=True)
class Producer:
    """Makes the output of jobs."""

    store: Store
    upstream: Upstream
    deployments: Deployments
    affinity: Affinity
    chain: Chain
    num_retries: int

    async def produce(self, lease: Lease, who: Identity, journal: Journal, key: ClientKey | None = None) -> Ending:
        """Get an answer from a provider, write its events to the journal, and return how it ended.

        Until output has begun, a failure that may pass is tried again on the next deployment, whether it came as an
        HTTP status, as an event or as a broken connection.
        `key` is the client's own, for deployments that forward it.

        Raises:
            Unservable: nothing was done
            Lost, StoreGone
        """
        if lease.verdict is Verdict.RESUME:
            deployment = self.deployments.get(lease.ran_on)
            if deployment is None:
                raise Unservable
            marker = self.affinity.marker(deployment, lease.owner)
            resumed = _Run(
                deployment, who, marker, key, provider_id=lease.provider_id, upstream_last=lease.upstream_last
            )
            return await self._resume(resumed, journal)
        deployments = self._candidates(lease)
        if not deployments:
            raise Unservable
        try:
            history = await self._history(lease, who)
        except PolluxError as error:
            return _failure_of(error)
        return await self._asked(lease, who, journal, deployments, history, key)

    async def _asked(
        self,
        lease: Lease,
        who: Identity,
        journal: Journal,
        deployments: Sequence[Deployment],
        history: History,
        key: ClientKey | None,
    ) -> Ending:
        """Ask one deployment after the other until one answers."""
        wished = wishes_in(who.request).num_retries
        tries = Tries(self.upstream.health, deployments, self.num_retries, wished=wished)
        run: _Run | None = None
        while True:
            ending = None
            try:
                # The wait for a place may last as long as the run may. Pauses between tries hold no place.
                async with tries.place() as deployment:
                    run = _Run(deployment, who, self.affinity.marker(deployment, lease.owner), key, history)
                    ending = await self._attempt(run, lease, journal)
                    if ending.status is not Status.FAILED or _has_begun(journal, ending):
                        return replace(ending, about=run.about)
                    raise self.upstream.noted(deployment, failure_said(ending.error_fields))
            except PolluxError as error:
                try:
                    if _has_begun(journal, ending):
                        raise
                    await tries.again(error)
                except PolluxError as final:
                    return replace(ending or _failure_of(final), about=(run.about if run else {}) | facts_of(final))
            if ending is not None:
                _forget_run(journal)

    async def _history(self, lease: Lease, who: Identity) -> History:
        """What the provider must be told because it keeps nothing, see `chain`."""
        follow = bool(who.request.get("previous_response_id")) and not lease.previous
        if not follow and b'"item_reference"' not in lease.request:
            return History()
        return await self.chain.before(parse_object(lease.request), lease.owner, follow=follow)

    def _candidates(self, lease: Lease) -> Sequence[Deployment]:
        if lease.pinned:
            pinned = self.deployments.get(lease.pinned)
            return [pinned] if pinned else []
        usable = [deployment for deployment in self.deployments.serving(lease.model) if deployment.unusable is None]
        return [deployment for deployment in usable if deployment.forwards_key] if is_guest(lease.owner) else usable

    async def _attempt(self, run: _Run, lease: Lease, journal: Journal) -> Ending:
        journal.ran_on = run.deployment.id
        try:
            ending = await self._ask(run, lease, journal)
        except PolluxError:
            if not run.resumable:
                raise
            ending = None
        if ending is None and run.resumable:
            return await self._resume(run, journal)
        return ending or CUT_SHORT

    async def _ask(self, run: _Run, lease: Lease, journal: Journal) -> Ending | None:
        try:
            return await self._ask_once(run, lease, journal, stream=True)
        except UpstreamRefusal as refusal:
            if lease.stream or not _refuses_streaming(refusal):
                raise
        # The client did not ask for a stream, we did, so the provider may as well answer without one.
        return await self._ask_once(run, lease, journal, stream=False)

    async def _ask_once(self, run: _Run, lease: Lease, journal: Journal, *, stream: bool) -> Ending | None:
        def make_request() -> dict[str, Any]:
            request = run.history.put_into(parse_object(lease.request), run.deployment)
            if run.history or is_marked(lease.request):
                request = self.affinity.unmarked(request, run.deployment, lease.owner)
            model = run.deployment.model_for(self.deployments.canonical(lease.model))
            return job_request(request, model, lease.previous or None, background=run.survivable, stream=stream)

        wishes = wishes_in(run.who.request)
        call = Call(
            "POST",
            make_request=make_request,
            headers=_client_headers(lease),
            stream=stream,
            wishes=wishes,
            key=run.key,
            response_id=lease.id,
        )
        async with self.upstream.open(run.deployment, call) as answer:
            run.upstream_request_id = answer.request_id
            if stream and await answer.is_stream():
                return await self._take_in(answer, run, journal)
            return ending_of(run.marker.mark(await answer.json()))

    async def _resume(self, run: _Run, journal: Journal) -> Ending:
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
                    ending = await self._take_in(answer, run, journal, resumed=True)
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
                    return _failure_of(final)

    async def _poll(self, run: _Run) -> Ending:
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
                    return _failure_of(final)
                continue
            if (parse_answer(raw) or {}).get("status") not in UNFINISHED:
                return ending_of(raw)
            tries = Tries(self.upstream.health, [run.deployment], self.num_retries)
            await asyncio.sleep(pause_s)
            pause_s = min(LONGEST_POLL_S, pause_s * 1.5)

    async def _take_in(self, answer: Answer, run: _Run, journal: Journal, *, resumed: bool = False) -> Ending | None:
        """Write a stream's events to the journal until it ends. Returns None if it had no terminal event."""
        intake = Intake(run.who, journal.next_number, run.upstream_last if resumed else None)
        noted = resumed
        try:
            while (events := await answer.events()) is not None:
                for event in events:
                    first = intake.number == LAST_OPENING + 1
                    frames = intake.take(run.marker.event(event))
                    if run.survivable and intake.upstream_last != run.upstream_last and not intake.holds_events:
                        run.upstream_last = intake.upstream_last
                        journal.note(upstream_last=str(run.upstream_last))
                    if intake.base is not None and not noted:
                        noted = True
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

    async def _note_beginning(self, run: _Run, base: dict[str, object], journal: Journal) -> None:
        """Store deployment and provider's id at once: from then on the run can be resumed, continued and cancelled."""
        provider_id = base.get("id")
        run.provider_id = provider_id if isinstance(provider_id, str) else ""
        fields: dict[str, str | bytes] = {
            "deployment": run.deployment.id,
            "provider_id": run.provider_id,
            "base": run.who.secrets.hidden_in(jsontext.dumps(base)),
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


def _client_headers(lease: Lease) -> dict[str, str]:
    return jsontext.loads(lease.headers) if lease.headers else {}


def _has_begun(journal: Journal, ending: Ending | None) -> bool:
    """Whether output has begun: in the log, or in the object with which the provider ended without a stream."""
    return journal.next_number > LAST_OPENING + 1 or bool(ending and (ending.upstream or {}).get("output"))


def _forget_run(journal: Journal) -> None:
    """Remove a failed run from the record, so that it is not resumed, continued or cancelled. Another one follows."""
    journal.set(deployment="", provider_id="", base=b"", survivable="")


def _refuses_streaming(refusal: UpstreamRefusal) -> bool:
    """Whether the provider refuses only `stream`, as OpenAI does for organizations that are not verified."""
    return 400 <= refusal.status < 500 and refusal.param == "stream"


def _failure_of(error: PolluxError) -> Ending:
    """The failure, and its `error`, of a response whose upstream refused or could not be reached."""
    if isinstance(error, UpstreamTimeout):
        code = "timeout"
    elif isinstance(error, Untranslatable | PreviousNotFound | PreviousNotFinished):
        code = "invalid_prompt"
    elif not isinstance(error, UpstreamRefusal):
        code = "server_error"
    elif error.code:
        code = error.code
    elif error.status == 429:
        code = "rate_limit_exceeded"
    else:
        code = "invalid_prompt" if error.status < 500 else "server_error"
    return failure(code, error.message)
