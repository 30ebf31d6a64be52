"""Producing a response: ask deployments until one answers, of the model asked for or of one to fall back to."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from server.chain import Chain, History
from server.errors import PolluxError, UpstreamRefusal
from server.jobs.endings import failure_of
from server.jobs.journal import Journal, Unservable
from server.jobs.notes import Notes
from server.jobs.receive import Receiver, Run
from server.keyring import ClientKey
from server.protocol.fallbacks import Fallbacks, Walk
from server.protocol.intake import CUT_SHORT, Ending, ending_of
from server.protocol.kept_headers import kept_headers
from server.protocol.lifecycle import LAST_OPENING, Status
from server.protocol.litellm_fields import wishes_in
from server.protocol.marks import is_marked
from server.protocol.requests import job_request, parse_object
from server.protocol.snapshot import Identity
from server.upstream.affinity import Affinity
from server.upstream.call import Call
from server.upstream.client import Upstream
from server.upstream.deployments import Deployment, Deployments
from server.upstream.refusals import facts_of, failure_said
from server.upstream.rounds import Rounds
from server.upstream.ways import Ways
from storage import Lease, Verdict


@dataclass(frozen=True)
class Producer:
    """Makes the output of jobs."""

    upstream: Upstream
    ways: Ways
    deployments: Deployments
    affinity: Affinity
    chain: Chain
    receiver: Receiver
    num_retries: int

    async def produce(self, lease: Lease, who: Identity, journal: Journal, key: ClientKey | None = None) -> Ending:
        """Get an answer from a provider, write its events to the journal, and return how it ended.

        Until output has begun, a failure that may pass is tried again on the next deployment, whether it came as an
        HTTP status, as an event or as a broken connection. Then, after any failure, come the models to fall back to.
        `key` is the client's own, for deployments that forward it.

        Raises:
            Unservable: nothing was done
            Lost, StoreGone
        """
        if lease.verdict is Verdict.RESUME:
            deployment = self.deployments.get(lease.ran_on)
            if deployment is None:
                raise Unservable
            run = self._run(lease, who, deployment, lease.model, key)
            run.provider_id, run.upstream_last, run.noted = lease.provider_id, lease.upstream_last, True
            return await self.receiver.resume(run, journal)
        try:
            walk = self._walk(lease, who)
            self._check_servable(lease, walk)
            history = await self._history(lease, who)
        except PolluxError as error:
            return failure_of(error)
        return await self._asked(lease, who, journal, walk, history, key)

    async def _asked(
        self,
        lease: Lease,
        who: Identity,
        journal: Journal,
        walk: Walk,
        history: History,
        key: ClientKey | None,
    ) -> Ending:
        """Ask one deployment after the other until one answers. If none does, the failure of the first model counts."""
        wished = wishes_in(who.request).num_retries
        rounds = Rounds(
            self.upstream.health,
            walk,
            lambda model: self._candidates(lease, model),
            self.num_retries,
            wished=wished,
            about={"response_id": lease.id},
        )
        run: Run | None = None
        told, ran_on = CUT_SHORT, ""
        notes = Notes(journal, who.secrets)
        while True:
            ending = None
            try:
                # The wait for a place may last as long as the run may. Pauses between tries hold no place.
                async with rounds.place() as deployment:
                    run = self._run(lease, who, deployment, rounds.model, key, history)
                    ending = await self._attempt(run, lease, journal)
                    if ending.status is not Status.FAILED or _has_begun(journal, ending):
                        return replace(ending, about=run.about)
                    raise self.upstream.noted(deployment, failure_said(ending.error_fields))
            except PolluxError as error:
                failed = replace(ending or failure_of(error), about=(run.about if run else {}) | facts_of(error))
                if _has_begun(journal, ending):
                    return failed
                notes.failed(run.deployment if run else None, rounds.model, error)
                if not rounds.fallbacks:
                    told, ran_on = failed, journal.ran_on
                try:
                    await rounds.again(error)
                except PolluxError:
                    if told is not failed:
                        _forget(run, journal)
                    journal.ran_on = ran_on
                    return told
            _forget(run, journal)

    def _walk(self, lease: Lease, who: Identity) -> Walk:
        """The models that the job may go on with: none if it continues a response that only its provider has."""
        if lease.previous:
            return Walk(Fallbacks(), lease.model)
        return self.ways.walk_of_job(lease.model, who.request, lease.owner)

    def _check_servable(self, lease: Lease, walk: Walk) -> None:
        """Raise `Unservable` if the job has nowhere to go by this process's config. Another one may have another."""
        if self.deployments.get(lease.pinned) is None if lease.pinned else not self.deployments.serving(lease.model):
            raise Unservable
        for model in (lease.model, *walk.ahead()):
            with suppress(PolluxError):
                self._candidates(lease, model)
                return
        raise Unservable

    def _candidates(self, lease: Lease, model: str) -> Sequence[Deployment]:
        """The deployments of a model.

        Raises:
            PolluxError: there are none that can be used

        """
        pinned = self.deployments.get(lease.pinned) if model == lease.model else None
        return [pinned] if pinned else self.ways.usable(model, lease.owner)

    def _run(
        self,
        lease: Lease,
        who: Identity,
        deployment: Deployment,
        model: str,
        key: ClientKey | None,
        history: History | None = None,
    ) -> Run:
        name = self.ways.name_at(deployment, model)
        return Run(deployment, name, who, self.affinity.marker(deployment, lease.owner), key, history or History())

    async def _history(self, lease: Lease, who: Identity) -> History:
        """What the provider must be told because it keeps nothing, see `chain`."""
        follow = bool(who.request.get("previous_response_id")) and not lease.previous
        if not follow and b'"item_reference"' not in lease.request:
            return History()
        return await self.chain.before(parse_object(lease.request), lease.owner, follow=follow)

    async def _attempt(self, run: Run, lease: Lease, journal: Journal) -> Ending:
        journal.ran_on = run.deployment.id
        try:
            ending = await self._ask(run, lease, journal)
        except PolluxError:
            if not run.resumable:
                raise
            ending = None
        if ending is None and run.resumable:
            return await self.receiver.resume(run, journal)
        return ending or CUT_SHORT

    async def _ask(self, run: Run, lease: Lease, journal: Journal) -> Ending | None:
        try:
            return await self._ask_once(run, lease, journal, stream=True)
        except UpstreamRefusal as refusal:
            if lease.stream or not _refuses_streaming(refusal):
                raise
        # The client did not ask for a stream, we did, so the provider may as well answer without one.
        return await self._ask_once(run, lease, journal, stream=False)

    async def _ask_once(self, run: Run, lease: Lease, journal: Journal, *, stream: bool) -> Ending | None:
        def make_request() -> dict[str, Any]:
            request = run.history.put_into(parse_object(lease.request), run.deployment)
            if run.history or is_marked(lease.request):
                request = self.affinity.unmarked(request, run.deployment, lease.owner)
            model = run.deployment.model_for(run.model)
            return job_request(request, model, lease.previous or None, background=run.survivable, stream=stream)

        wishes = wishes_in(run.who.request)
        call = Call(
            "POST",
            make_request=make_request,
            headers=kept_headers(lease.headers),
            stream=stream,
            wishes=wishes,
            key=run.key,
            response_id=lease.id,
            model=run.deployment.model_for(run.model),
        )
        async with self.upstream.open(run.deployment, call) as answer:
            run.upstream_request_id = answer.request_id
            if stream and await answer.is_stream():
                ending = await self.receiver.take_in(answer, run, journal)
            else:
                ending = ending_of(run.marker.mark(await answer.json()))
            if ending is not None and ending.upstream is not None:
                answer.span.produced(ending.upstream)
            return ending


def _has_begun(journal: Journal, ending: Ending | None) -> bool:
    """Whether output has begun: in the log, or in the object with which the provider ended without a stream."""
    return journal.next_number > LAST_OPENING + 1 or bool(ending and (ending.upstream or {}).get("output"))


def _forget(run: Run | None, journal: Journal) -> None:
    """Remove a failed run from the record, so that it is not resumed, continued or cancelled. Another one follows."""
    if run is not None and run.noted:
        journal.set(deployment="", provider_id="", base=b"", survivable="")


def _refuses_streaming(refusal: UpstreamRefusal) -> bool:
    """Whether the provider refuses only `stream`, as OpenAI does for organizations that are not verified."""
    return 400 <= refusal.status < 500 and refusal.param == "stream"
