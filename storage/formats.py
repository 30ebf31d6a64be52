"""The format of what is stored, and what versions that know different formats do with each other's records.

A store keeps the newest format that was ever used on it (`settings` in `keys.py`), and each record that of whoever
created it or ran it last. What carries no number was written before there were numbers, and has format 1.

Most changes need no new format. Fields, keys, channels and status events may be added at any time, because readers
leave alone what they don't know. A change needs one if an older version would misread what is there: another meaning of
a field, another form of events (a new dictionary in `packing.py` too). It then takes two releases: the first reads the
new format and goes on writing the old one, the second writes it. So neighbouring versions always work side by side,
and a release can be taken back.

Should an older version run beside a newer one that it can't read after all, nothing is misread or lost:

- It does not start on a store whose format is too new for it, and says so.
- If it runs already, it leaves the newer jobs to newer workers, and neither shows, cancels nor deletes the newer
  responses (`StoreNewer`, which clients see as a 503). It still knows them: their status, their owner and their end.
  So these fields of a record keep their meaning in all formats: owner, status, since, model, metadata, created_at,
  epoch, last, format.
"""

from __future__ import annotations

from storage.errors import StoreMisfit, StoreNewer

FORMAT = 1
"""What this version writes."""
OLDEST_READ, NEWEST_READ = 1, 1
"""What it can read. While a change is under way, the newest one is greater than what is written."""
UNNUMBERED = 1


def parse_format(stored: bytes | None) -> int:
    """The number in a field `format`, or what its absence means. One that was damaged by hand counts as absent."""
    return int(stored) if stored and stored.isdigit() and len(stored) <= 15 else UNNUMBERED


def check_store(newest: int) -> None:
    """Raise `StoreMisfit` if this version can't work on a store whose newest format this is."""
    if newest > NEWEST_READ:
        raise StoreMisfit(
            f"a newer version of Pollux has written to this store, in format {newest}; this version reads formats up "
            f"to {NEWEST_READ}. Start that version again, or one at most a release older; or use an empty store."
        )
    if newest < OLDEST_READ:
        raise StoreMisfit(
            f"the store has format {newest}, and this version reads formats from {OLDEST_READ} on. Upgrade by way of "
            "the releases in between, or use an empty store."
        )


def check_record(response_id: str, its: int) -> None:
    """Raise `StoreNewer` if this version can't read a record of this format."""
    if its > NEWEST_READ:
        raise StoreNewer(
            f"{response_id} has format {its}, and this version reads formats up to {NEWEST_READ}: "
            "a newer replica has it"
        )
