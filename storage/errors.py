"""What can go wrong in the store, as an outline.

StoreError
├── StoreUnavailable   the server did not answer in time, or the connection broke: the outcome is unknown
│   └── StoreNewer     a newer version has written this response: nothing was done, another replica can do it
├── StoreFull          the server refused to take more (maxmemory): nothing was written
└── StoreMisfit        this server can't be used as configured: say so at start, and stop
"""


class StoreError(Exception):
    """The base of all errors that leave this package."""


class StoreUnavailable(StoreError):
    """The store did not answer. A write may or may not have happened: repeating it is always safe."""


class StoreNewer(StoreUnavailable):
    """A newer version of Pollux has written this response, and this one can't read it. See `formats.py`."""


class StoreFull(StoreError):
    """The store is out of memory and took nothing. Jobs under way can still end."""


class StoreMisfit(StoreError):
    """The store can't be used as configured (too old, other `shards`, no binary …). The message says what to do."""
