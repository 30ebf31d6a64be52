"""Delivering webhooks: at least once, with one id for all tries, by whichever process gets to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import uuid4

from server.feed import event_about
from server.hub import Hub
from server.logs import bind
from server.metrics import SILENT, Metrics
from server.outbox.endpoints import Configured, Endpoint, Stored, unsealed
from server.outbox.sending import Answer, Sender
from server.protocol import jsontext
from server.protocol.kept_headers import kept_headers, trace_context
from server.protocol.status_events import event_of
from server.sealing import Sealer
from server.tracing import UNTRACED, Tracing
from storage import Attempt, Delivery, Owed, Pausing, Shard, Store, StoreError, Tried

log = logging.getLogger("pollux.webhooks")

LOOK_EVERY_S = 2.0
"""How often a shard is asked for what is due, though nothing was heard."""
CLAIM_S = 30.0
"""For so long nobody else tries: longer than a try takes."""
AT_ONCE, EACH_AT_ONCE = 64, 8
"""Tries of this process, in all and to one endpoint."""
TRIED_FOR_S = 72 * 3600.0
FIRST_PAUSE_S, LONGEST_PAUSE_S, GROWTH = 5.0, 4 * 3600.0, 3.0
UNKNOWN_AGAIN_S = 60.0
"""An endpoint of another process's config is left to that one."""
PAUSING = Pausing(failures=10, for_s=60.0)
"""An endpoint that fails so often in a row is asked with one event a minute, until it takes one."""
LAST_TRIES_S = 3.0
"""When the process ends, tries that are under way get so long. They are repeated by another one otherwise."""
_LINES = {
    Tried.TOLD: "webhook delivered",
    Tried.AGAIN: "webhook not taken, it is sent again later",
    Tried.FAILED: "webhook given up",
}
GONE = 410
"""The endpoint says that it wants no more of it, as Standard Webhooks has it."""


@dataclass
class Webhooks:
    """The deliverer of one process."""

    store: Store
    hub: Hub
    sender: Sender
    configured: Callable[[], Configured]
    sealer: Callable[[], Sealer]
    """What the newest config has."""
    metrics: Metrics = SILENT
    tracing: Tracing = UNTRACED
    _busy: Counter[str] = field(default_factory=Counter)
    """Tries that are under way, by endpoint."""
    _tries: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        """Deliver until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for shard in self.store.deliveries.shards:
                    group.create_task(self._deliver_all_of(shard), name=f"webhooks {shard.n}")
        finally:
            if self._tries:
                await asyncio.wait(self._tries, timeout=LAST_TRIES_S)
            for task in self._tries:
                task.cancel()

    async def _deliver_all_of(self, shard: Shard) -> None:
        async with self.hub.watch([Owed(shard)]) as look:
            while True:
                look.clear()
                try:
                    began = await self._begin(shard, look)
                except StoreError as error:
                    log.debug("webhooks put off: %s", error)
                    began = 0
                if not began:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_EVERY_S):
                            await look.wait()

    async def _begin(self, shard: Shard, look: asyncio.Event) -> int:
        room = AT_ONCE - len(self._tries)
        if room <= 0:
            return 0
        full = [endpoint for endpoint, tries in self._busy.items() if tries >= EACH_AT_ONCE]
        claimed = await self.store.deliveries.claim(
            shard, uuid4().hex, most=room, most_each=EACH_AT_ONCE, for_s=CLAIM_S, passing_over=full
        )
        for delivery in claimed:
            self._busy[delivery.endpoint] += 1
            task = asyncio.create_task(self._try(shard, delivery, look), name=f"webhook {delivery.name}")
            self._tries.add(task)
            task.add_done_callback(self._tries.discard)
        return len(claimed)

    async def _try(self, shard: Shard, delivery: Delivery, look: asyncio.Event) -> None:
        try:
            bind(response_id=delivery.entry.response_id)
            attempt = await self._attempt(delivery)
            if await self.store.deliveries.settle(shard, delivery, attempt, PAUSING):
                fields = {"endpoint": delivery.endpoint, "owner": delivery.entry.owner, "reason": attempt.reason}
                log.warning("webhook endpoint fails again and again, it is only probed for now", extra=fields)
        except StoreError as error:
            log.info("not settled, the webhook will be sent again: %s", error)
        except Exception:
            log.exception("a webhook broke", extra={"endpoint": delivery.endpoint})
        finally:
            self._busy[delivery.endpoint] -= 1
            if not self._busy[delivery.endpoint]:
                del self._busy[delivery.endpoint]
            look.set()

    async def _attempt(self, delivery: Delivery) -> Attempt:
        endpoint = self._endpoint_of(delivery)
        if endpoint is None:
            return self._told(delivery, _without_endpoint(delivery))
        event = event_about(delivery.entry)
        context = trace_context(kept_headers(delivery.headers))
        about = (event["type"], delivery.entry.response_id, delivery.attempt, endpoint.url)
        with self.tracing.delivering(*about, context) as span:
            body = jsontext.dumps(event).decode()
            answer = await self.sender.send(endpoint, event["id"], body, span.carried_by(context))
            if answer.code:
                span.answered(answer.code)
            if not answer.is_success:
                span.failed(str(answer.code or "unreachable"))
            return self._told(delivery, _judged(delivery, answer))

    def _told(self, delivery: Delivery, attempt: Attempt) -> Attempt:
        """The attempt, once the metrics and the log were told of it."""
        self.metrics.delivery_tried(attempt.tried, attempt.latency_s)
        if (message := _LINES.get(attempt.tried)) is not None:
            fields = {"endpoint": delivery.endpoint, "owner": delivery.entry.owner, "attempt": delivery.attempt}
            event = event_of(delivery.entry.status, delivery.entry.response_id)
            outcome = {"event": event, "status": attempt.code or None, "reason": attempt.reason or None}
            level = logging.WARNING if attempt.tried is Tried.FAILED else logging.INFO
            log.log(level, message, extra={**fields, **outcome})
        return attempt

    def _endpoint_of(self, delivery: Delivery) -> Endpoint | None:
        if delivery.sealed:
            return unsealed(self.sealer(), delivery.sealed)
        if delivery.stored:
            stored = Stored.from_bytes(delivery.endpoint, delivery.stored)
            return None if stored is None else stored.endpoint(self.sealer(), time.time())
        return self.configured().get(delivery.endpoint)


def _without_endpoint(delivery: Delivery) -> Attempt:
    if delivery.sealed or delivery.stored:
        return Attempt(Tried.FAILED, reason="its secret can't be decrypted: was an id_secret taken away?")
    if _is_old(delivery, UNKNOWN_AGAIN_S):
        return Attempt(Tried.FAILED, reason="no process knows this endpoint")
    return Attempt(Tried.LATER, again_s=UNKNOWN_AGAIN_S)


def _judged(delivery: Delivery, answer: Answer) -> Attempt:
    if answer.is_success:
        return Attempt(Tried.TOLD, answer.code, answer.latency_s)
    pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * GROWTH ** min(delivery.attempt - 1, 99))
    again_s = pause_s * random.uniform(0.8, 1.2)  # noqa: S311
    over = answer.code == GONE or _is_old(delivery, again_s)
    tried = Tried.FAILED if over else Tried.AGAIN
    return Attempt(tried, answer.code, answer.latency_s, answer.reason, again_s)


def _is_old(delivery: Delivery, after_s: float) -> bool:
    """Whether it has been tried for long enough, once so many more seconds have passed."""
    return time.time() + after_s - delivery.since_ms / 1000 > TRIED_FOR_S
