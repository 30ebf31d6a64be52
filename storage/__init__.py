"""The store: everything that must survive a process, in Redis or Valkey.

Nothing here knows of HTTP. Every change that must be atomic is one Lua script (`lua/`), and a script that runs twice
has the same outcome as if it ran once. The rest of Pollux imports from this package, never from its modules.
"""

from storage.deliveries import Deliveries
from storage.embedded import default_directory
from storage.errors import StoreError, StoreFull, StoreMisfit, StoreUnavailable
from storage.feed import Feed
from storage.inspection import Checkup
from storage.keys import Shard, by_shard, draw_id
from storage.notify import Ear, Listener
from storage.observer import Observer
from storage.open import Store, open_store
from storage.overview import Mark, Overview, Overviews, Stay
from storage.owed import Attempt, Delivery, EndpointHealth, Past, Pausing, Tried
from storage.patience import Patience
from storage.processes import Processes, ProcessReport
from storage.rates import Rates
from storage.records import (
    START,
    TERMINAL,
    Append,
    Batch,
    CancelOutcome,
    Counts,
    Created,
    CreateOutcome,
    Cursor,
    Durability,
    Finish,
    KeptResponse,
    Lease,
    Leased,
    NewResponse,
    Outcome,
    Reading,
    Record,
    Step,
    UpstreamCancel,
    Verdict,
)
from storage.spent import NANO, Spent, encode_spent, today
from storage.statuses import FeedPage, Place, Retention, StatusEntry, parse_place
from storage.terms import Ledger
from storage.topics import End, Fed, Owed, Revoked, Steps, Topic, Wake, steps_and_end
from storage.usage import Counted, Usage

__all__ = [
    "NANO",
    "START",
    "TERMINAL",
    "Append",
    "Attempt",
    "Batch",
    "CancelOutcome",
    "Checkup",
    "Counted",
    "Counts",
    "CreateOutcome",
    "Created",
    "Cursor",
    "Deliveries",
    "Delivery",
    "Durability",
    "Ear",
    "End",
    "EndpointHealth",
    "Fed",
    "Feed",
    "FeedPage",
    "Finish",
    "KeptResponse",
    "Lease",
    "Leased",
    "Ledger",
    "Listener",
    "Mark",
    "NewResponse",
    "Observer",
    "Outcome",
    "Overview",
    "Overviews",
    "Owed",
    "Past",
    "Patience",
    "Pausing",
    "Place",
    "ProcessReport",
    "Processes",
    "Rates",
    "Reading",
    "Record",
    "Retention",
    "Revoked",
    "Shard",
    "Spent",
    "StatusEntry",
    "Stay",
    "Step",
    "Steps",
    "Store",
    "StoreError",
    "StoreFull",
    "StoreMisfit",
    "StoreUnavailable",
    "Topic",
    "Tried",
    "UpstreamCancel",
    "Usage",
    "Verdict",
    "Wake",
    "by_shard",
    "default_directory",
    "draw_id",
    "encode_spent",
    "open_store",
    "parse_place",
    "steps_and_end",
    "today",
]
