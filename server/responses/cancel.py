"""Cancelling a cached response: the store makes it final at once, even while a worker runs it."""

from __future__ import annotations

from server.protocol.events import halve_lifecycle
from server.protocol.lifecycle import Status, terminal_event
from server.protocol.requests import stored_request
from server.protocol.snapshot import Identity, response_object
from storage import CancelOutcome, Record, Store


async def cancel(store: Store, record: Record) -> CancelOutcome:
    """Cancel a response, unless it has ended. Its run is notified, and closes the connection to the provider.

    Raises:
        StoreError
    """
    body = await store.responses.read_request(record.id)
    if body is None:
        return CancelOutcome.GONE
    who = Identity(record.id, record.created_at, stored_request(body))
    told = response_object(who, Status.CANCELLED, output=[])
    return await store.responses.cancel(record, *halve_lifecycle(terminal_event(Status.CANCELLED), told))
