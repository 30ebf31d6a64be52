"""Runs one leased job until its end is written. Knows nothing of queues, clients and HTTP."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from server.errors import shown
from server.eventlog import fold_log
from server.jobs.committer import Committer
from server.jobs.journal import Journal, Lost, StoreGone, Unservable
from server.jobs.produce import Producer
from server.keyring import ClientKey, is_guest
from server.metrics import SILENT, Metrics
from server.protocol.events import splice_lifecycle
from server.protocol.fold import dumps
from server.protocol.inplace import SHORTEST_DISTINCT
from server.protocol.intake import Ending, failure, parse_answer
from server.protocol.lifecycle import LAST_OPENING, Status, terminal_event
from server.protocol.reasons import without_secrets
from server.protocol.redaction import Secrets
from server.protocol.requests import stored_request, without_input
from server.protocol.snapshot import Identity, response_object
from server.protocol.tokens import Tokens
from server.sealing import Sealer
from server.tracing import current_span
from server.usage import spent_on
from storage import Lease, Outcome, Reading, Spent, Store, StoreError, StoreFull, StoreUnavailable, Verdict

log = logging.getLogger("pollux.jobs")

_VERDICTS = {
    Verdict.LOST: failure("worker_lost", "The worker died, and the response could not be produced again."),
    Verdict.EXPIRED: failure("timeout", "The response waited longer than max_age_s for a worker."),
}


_UNREADABLE = failure("server_error", "The request, as it was stored, can't be read any more.")
_KEY_LOST = failure(
    "server_error",
    "The API key that was kept encrypted for this response can't be read any more: id_secrets were changed. "
    "Send the request again.",
)


def _needs_key(lease: Lease) -> bool:
    """Whether only the client's own key may be used. With ours, a guest would be served by somebody else's account."""
    return bool(lease.client_key) or is_guest(lease.owner)


@dataclass(frozen=True)
class Runner:
    """Runs leased jobs; holds what every run needs."""

    store: Store
    producer: Producer
    committer: Committer
    max_run_s: float
    sealer: Sealer
    metrics: Metrics = SILENT

    async def run(self, lease: Lease, on_lost: Callable[[Outcome], None]) -> Status:
        """Work one job to its end, and return the status that it ended with.

        `on_lost` is called when the store says that the lease is no longer ours, even while the run writes nothing.

        Raises:
            Unservable: nothing was done; another replica may have another config
            Lost, StoreGone
        """
        journal = self.committer.open(lease, on_lost)
        request = stored_request(lease.request)
        key = self._client_key(lease)
        secrets = Secrets(request) if key is None else Secrets(request).plus(key.value)
        who = Identity(lease.id, lease.created_at, without_input(request), secrets)
        unreadable = _UNREADABLE if not request else _KEY_LOST if key is None and _needs_key(lease) else None
        ending = _VERDICTS.get(lease.verdict, unreadable)
        del request  # frees its memory: both the request and the run may be long
        try:
            if ending is None:
                ending = await self._produce(lease, who, journal, key)
            await self._finish(journal, who, ending)
        finally:
            journal.close()
        return ending.status

    def _client_key(self, lease: Lease) -> ClientKey | None:
        """The client's own key, if it was kept and can still be read."""
        value = self.sealer.unseal(lease.client_key, lease.owner) if lease.client_key else None
        return None if value is None else ClientKey(value, lease.owner)

    async def _produce(self, lease: Lease, who: Identity, journal: Journal, key: ClientKey | None) -> Ending:
        """Return how the provider's run ended. Other errors become a failure, so that the response ends."""
        try:
            async with asyncio.timeout(self.max_run_s):
                return await self.producer.produce(lease, who, journal, key)
        except TimeoutError:
            return failure("timeout", f"The run took longer than max_run_s ({self.max_run_s:g} s).")
        except StoreGone as gone:
            if isinstance(gone.cause, StoreUnavailable):
                raise
            # The store refuses more events, but still takes an end. Unstored events are lost, and the error says why.
            journal.abandon()
            full = isinstance(gone.cause, StoreFull)
            text = (
                "The store of this service is full." if full else "The log of this response can't be written any more."
            )
            return failure("server_error", text)
        except (Lost, Unservable):
            raise
        except Exception:
            # A bug of ours. A second try would probably break too, and the provider would charge for it again.
            log.exception("run broke", extra={"response_id": lease.id})
            return failure("server_error", "Pollux met an internal error. Its log tells more under this response's id.")

    async def _finish(self, journal: Journal, who: Identity, ending: Ending) -> None:
        """Write the end: the terminal event, the status and the final object."""
        given = (ending.upstream or {}).get("output")
        output = given if isinstance(given, list) else []
        upstream = ending.upstream
        raw_id = (upstream or {}).get("id")
        if upstream is None or (not output and journal.next_number > LAST_OPENING + 1):
            # There was no terminal event, or it had no output: the output is what the log holds.
            await journal.flush()
            reading, arrived = await self._arrived(who.id)
            output = output or arrived
            if upstream is None and reading is not None:
                upstream, raw_id = _json(reading.base), reading.record.provider_id
        final = response_object(
            who, ending.status, upstream, output=output, error=ending.error, ended_at=int(time.time())
        )
        secrets = who.secrets
        if final["error"] is not None:
            known = ((raw_id, who.id), (journal.lease.previous, who.request.get("previous_response_id")))
            message = _without_raw_ids(final["error"]["message"], known)
            final["error"]["message"] = secrets.hidden_in_text(message)
        snapshot = secrets.hidden_in(dumps(final))
        told = snapshot
        if ending.status is Status.CANCELLED:
            told = secrets.hidden_in(dumps({**final, "output": []}))
        frame = splice_lifecycle(terminal_event(ending.status), journal.next_number, told)
        spent = self._spent(journal, upstream or {})
        if spent is not None:
            journal.note(tokens=f"{spent.input} {spent.output}")
        if final["error"] is not None:
            journal.note(error_code=final["error"]["code"])
        await journal.finish(frame, ending.status, snapshot, abandon=not ending.by_provider, spent=spent)
        if spent is not None:
            tokens = Tokens(spent.input, spent.cached, spent.output, spent.reasoning)
            self.metrics.tokens_spent(spent.model, tokens)
        if final["error"] is not None:
            current_span().failed(final["error"]["code"])
            _log_failure(journal.lease, final["error"], ending)

    def _spent(self, journal: Journal, upstream: dict[str, object]) -> Spent | None:
        """What the provider's last object says the response has used, at the price of its deployment."""
        deployments = self.producer.deployments
        ran_on = deployments.get(journal.ran_on) or next(iter(deployments.serving(journal.lease.model)), None)
        spent = spent_on(ran_on, upstream) if ran_on is not None else None
        if ran_on is not None and spent is not None:
            self.producer.upstream.health.spent(ran_on, spent.tokens)
        return spent

    async def _arrived(self, response_id: str) -> tuple[Reading | None, list[dict[str, object]]]:
        """Read the record with the upstream's first object, and the output that the logged events add up to.

        If the log can't be read, both are empty, because the response must end all the same.

        Raises:
            StoreGone
        """

        async def look() -> tuple[Reading | None, list[dict[str, object]]]:
            fold = await fold_log(self.store, response_id)
            return await self.store.responses.read(response_id, fold.cursor, request=False), fold.output

        try:
            return await self.committer.patiently(look)
        except StoreError as error:
            log.warning("what had arrived can't be read: %s", error, extra={"response_id": response_id})
            return None, []


def _log_failure(lease: Lease, error: dict[str, str], ending: Ending) -> None:
    """Log one line for a response that failed. Its message is cut, because it may quote a long text of the client's."""
    fields = {
        "response_id": lease.id,
        "model": lease.model,
        "owner": lease.owner,
        "attempt": lease.attempt,
        "code": error["code"],
        "reason": shown(without_secrets(error["message"])),
        "request_id": lease.request_id or None,
        **ending.about,
    }
    log.warning("response failed", extra=fields)


def _json(base: bytes) -> dict[str, object] | None:
    found = parse_answer(base) if base else None
    # An error in the first object does not tell how the response ended.
    return {**found, "error": None} if isinstance(found, dict) else None


def _without_raw_ids(message: str, known: tuple[tuple[object, object], ...]) -> str:
    """Replace the provider's own ids in its message by the ids that the client knows."""
    for raw, public in known:
        if isinstance(raw, str) and isinstance(public, str) and len(raw) >= SHORTEST_DISTINCT:
            message = message.replace(raw, public)
    return message
