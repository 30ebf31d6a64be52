"""Creates whose outcome is unknown: the store did not answer, and the client, told 503, will create another one."""

from __future__ import annotations

import asyncio
import logging
from uuid import uuid4

from storage import Record, Store, StoreError

log = logging.getLogger("pollux.jobs")

MOST_DOUBTS = 10_000
"""How many creates with an unknown outcome are remembered. Beyond that the oldest is forgotten, and may run."""


class Doubts:
    """The doubtful responses of one process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._records: dict[str, Record] = {}

    def note(self, record: Record) -> None:
        """This response may have been created. If it was, it is to be removed."""
        if len(self._records) >= MOST_DOUBTS:
            self._records.pop(next(iter(self._records)))
        self._records[record.id] = record

    async def settle(self) -> None:
        """Once the store is back, remove responses whose create was answered with 503. Runs until cancelled."""
        while True:
            await asyncio.sleep(1.0)
            for response_id, record in list(self._records.items()):
                try:
                    removed = await self._store.responses.delete(record, uuid4().hex)
                except StoreError:
                    # The store is still away. Next time another response comes first: its shard may be back sooner.
                    if self._records.pop(response_id, None):  # otherwise it was forgotten meanwhile
                        self._records[response_id] = record
                    break
                self._records.pop(response_id, None)
                if removed:
                    log.info(
                        "response removed, its create was answered with 503",
                        extra={"response_id": response_id},
                    )
