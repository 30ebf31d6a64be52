"""Submitting a background response: one step stores its record, its first two events and its job."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from uuid import uuid4

from server.errors import IdempotencyKeyReused, RateLimited
from server.logs import bind
from server.metrics import SILENT, Metrics
from server.protocol import jsontext
from server.protocol.events import encode_lifecycle
from server.protocol.lifecycle import OPENING, Status
from server.protocol.requests import CreateRequest
from server.protocol.snapshot import Identity, response_object
from server.protocol.sse import frame_data, split_frames
from server.protocol.status_events import event_of, stored_metadata
from server.protocol.windows import begin_within_s, window_s
from server.responses.doubts import Doubts
from server.responses.view import View
from server.tracing import UNTRACED, Tracing
from storage import (
    CreateOutcome,
    Cursor,
    NewResponse,
    Record,
    Store,
    StoreUnavailable,
    draw_id,
)

log = logging.getLogger("pollux.jobs")

UNSTORED_TTL_S = 600.0
"""A response with `store: false` is kept for ten minutes after its end, so that it can be fetched at all."""


@dataclass(frozen=True, slots=True)
class Previous:
    """Where the response that a new one continues lives: a deployment, and the provider's own id."""

    deployment: str = ""
    provider_id: str = ""


_NOTHING = Previous()


@dataclass(frozen=True, slots=True)
class Submission:
    """What belongs to a request besides its body: its owner, and the conditions for it."""

    owner: str
    previous: Previous = _NOTHING
    idempotency_key: str | None = None
    max_in_flight: int | None = None
    webhook: str = ""
    """An endpoint of this response alone, as the store keeps it."""
    client_key: str = ""
    """The client's own key, sealed for its owner, if its provider is to get that."""
    digest_of: bytes = b""
    """The body as it came, if `raw` is not that: by it a repeat is known."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of the client that are sent to the provider."""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Submitted:
    """The result of a create call."""

    id: str
    view: View | None
    """The queued response as it was created; None if the idempotency key had started this response before."""


@dataclass(frozen=True)
class Submitter:
    """Creates cached responses."""

    store: Store
    doubts: Doubts
    id_prefix: str
    ttl_s: float
    max_run_s: float
    max_queued: int | None = None
    metrics: Metrics = SILENT
    tracing: Tracing = UNTRACED

    async def submit(self, request: CreateRequest, raw: bytes, submission: Submission) -> Submitted:
        """Store a request as a new response, or find the response that its idempotency key started before.

        Raises:
            IdempotencyKeyReused, RateLimited
            StoreUnavailable, StoreFull
        """
        with self.tracing.queueing(request.model, submission.owner) as span:
            # What is kept is the context of this span: runs and webhooks are told of below it.
            submission = replace(submission, headers=span.kept_in(submission.headers))
            new = self._new(request, raw, submission)
            try:
                created = await self.store.responses.create(new)
            except StoreUnavailable:
                if not submission.idempotency_key:
                    # It may have been created all the same, but the client gets a 503 and will create another one.
                    self.doubts.note(new_record(new))
                raise
            span.note(outcome=created.outcome, response_id=created.id)
        match created.outcome:
            case CreateOutcome.REUSED:
                raise IdempotencyKeyReused
            case CreateOutcome.BUSY:
                text = f"This key has {new.most_in_flight} responses under way, its limit. Wait for some to end."
                raise RateLimited(text, created.retry_after_s)
            case CreateOutcome.FULL:
                raise RateLimited("The queue of this service is full. Try again later.", created.retry_after_s)
            case CreateOutcome.REPLAYED:
                return Submitted(created.id, None)
        bind(response_id=created.id)
        self.metrics.response_created(request.model)
        fields = {
            "model": request.model,
            "owner": new.owner,
            "stream": request.stream,
            "request_id": submission.request_id or None,
        }
        log.info(
            "response created",
            extra={"response_id": created.id, **fields, "event": event_of(Status.QUEUED, created.id)},
        )
        return Submitted(created.id, queued_view(new))

    async def replayed(self, raw: bytes, owner: str, idempotency_key: str | None) -> Submitted | None:
        """Find what the same key and body started before. It is returned even if today's conditions would forbid it.

        Raises:
            IdempotencyKeyReused
            StoreUnavailable
        """
        found = await self.store.responses.started_by(owner, idempotency_key) if idempotency_key else None
        if found is None:
            return None
        response_id, digest = found
        if digest != hashlib.sha256(raw).hexdigest():
            raise IdempotencyKeyReused
        return Submitted(response_id, None)

    def _new(self, request: CreateRequest, raw: bytes, submission: Submission) -> NewResponse:
        owner, previous = submission.owner, submission.previous
        response_id = draw_id(lambda: f"{self.id_prefix}{uuid4()}", owner, self.store.shards)
        who = Identity(response_id, int(time.time()), request.body)
        queued = response_object(who, Status.QUEUED)
        frames = [
            encode_lifecycle(kind, number, {**queued, "status": status})
            for number, (kind, status) in enumerate(
                zip(OPENING, (Status.QUEUED, Status.QUEUED, Status.IN_PROGRESS), strict=True)
            )
        ]
        return NewResponse(
            id=response_id,
            owner=owner,
            model=request.model,
            created_at=who.created_at,
            stream=request.stream,
            request=raw,
            opening=frames[0] + frames[1],
            started=frames[2],
            ttl_s=self.ttl_s if request.store else min(self.ttl_s, UNSTORED_TTL_S),
            pinned=previous.deployment,
            previous=previous.provider_id,
            request_id=submission.request_id,
            webhook=submission.webhook,
            client_key=submission.client_key,
            metadata=stored_metadata(request.body.get("metadata")),
            headers=jsontext.dumps(submission.headers) if submission.headers else b"",
            idempotency_key=submission.idempotency_key or "",
            body_digest=hashlib.sha256(submission.digest_of or raw).hexdigest(),
            most_queued=-(-(self.max_queued or 0) // self.store.shards),
            most_in_flight=submission.max_in_flight or 0,
            begin_within_s=begin_within_s(window_s(request.body), self.max_run_s),
        )


def new_record(new: NewResponse) -> Record:
    """The record as `create` leaves it."""
    cursor = Cursor(1, len(split_frames(new.opening)) - 1)
    return Record(new.id, new.owner, Status.QUEUED, new.model, new.created_at, new.stream, cursor)


def queued_view(new: NewResponse) -> View:
    """The response as it was created, even if a worker has changed it since."""
    opened = jsontext.loads(frame_data(split_frames(new.opening)[0]))
    return View(new_record(new), jsontext.dumps(opened["response"]))
