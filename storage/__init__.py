"""The store: everything that must survive a process, in Redis or Valkey.

Nothing here knows of HTTP. Every change that must be atomic is one Lua script (`lua/`), and a script that runs twice
has the same outcome as if it ran once. The rest of Pollux imports from this package, never from its modules.
"""

from storage.embedded import default_directory
from storage.errors import StoreError, StoreFull, StoreMisfit, StoreUnavailable
from storage.feed import Feed
from storage.keys import Shard, by_shard, draw_id
from storage.notify import Ear, Listener
from storage.open import Store, open_store
from storage.records import (
    START,
    TERMINAL,
    Append,
    Batch,
    CancelOutcome,
    Created,
    CreateOutcome,
    Cursor,
    Durability,
    FeedPage,
    Finish,
    Lease,
    Leased,
    NewResponse,
    Outcome,
    Place,
    Reading,
    Record,
    Retention,
    StatusEntry,
    Step,
    UpstreamCancel,
    Verdict,
    parse_place,
)
from storage.topics import End, Fed, Revoked, Steps, Topic, Wake, steps_and_end

__all__ = [
    "START",
    "TERMINAL",
    "Append",
    "Batch",
    "CancelOutcome",
    "CreateOutcome",
    "Created",
    "Cursor",
    "Durability",
    "Ear",
    "End",
    "Fed",
    "Feed",
    "FeedPage",
    "Finish",
    "Lease",
    "Leased",
    "Listener",
    "NewResponse",
    "Outcome",
    "Place",
    "Reading",
    "Record",
    "Retention",
    "Revoked",
    "Shard",
    "StatusEntry",
    "Step",
    "Steps",
    "Store",
    "StoreError",
    "StoreFull",
    "StoreMisfit",
    "StoreUnavailable",
    "Topic",
    "UpstreamCancel",
    "Verdict",
    "Wake",
    "by_shard",
    "default_directory",
    "draw_id",
    "open_store",
    "parse_place",
    "steps_and_end",
]
