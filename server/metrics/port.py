"""The port through which the parts of a process tell what happens in them."""

from __future__ import annotations

from server.metrics.levels import Levels
from server.protocol.tokens import Tokens
from storage import StoreError


class Metrics:
    """Told of what happens. This one does nothing; whoever counts overrides all of it.

    Each call returns at once and raises nothing. None belongs into a loop over events: tell of many at once.
    Models and deployments may be given as they come, even from clients: only those of the config become labels.
    """

    # Requests of clients.

    def request_answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """An answer has begun, so many seconds after the request came. `route` is a pattern, never a path."""

    def request_failed(self, route: str, error: str) -> None:
        """A client is answered this error, the name of a class."""

    # Responses and jobs.

    def response_created(self, model: str) -> None:
        """A cached response was created."""

    def create_stored(self, seconds: float) -> None:
        """A cached response was stored, so many seconds after the request for it came."""

    def response_ended(self, model: str, status: str) -> None:
        """A cached response has taken a terminal status."""

    def job_leased(self, model: str, waited_s: float | None, *, reclaimed: bool) -> None:
        """A job was leased. `waited_s`: how long it was queued, unless it was leased before."""

    def run_began(self, model: str) -> None:
        """A run has begun."""

    def run_ended(self, model: str, outcome: str, seconds: float, attempt: int) -> None:
        """A run is over: `ended` if its response is, otherwise why not."""

    # Event logs.

    def events_written(self, count: int) -> None:
        """So many events were stored."""

    def flushed(self, size_bytes: int, seconds: float) -> None:
        """One group commit was stored."""

    # Upstreams.

    def call_ended(self, deployment: str, operation: str, outcome: str, seconds: float) -> None:
        """A call to a deployment is over."""

    def first_event_came(self, deployment: str, seconds: float) -> None:
        """The first event of a stream came, so many seconds after the call began."""

    def cooled_down(self, deployment: str) -> None:
        """A deployment begins to cool down."""

    # The outbox, usage, the store, and what is measured again and again.

    def delivery_tried(self, outcome: str, seconds: float) -> None:
        """A webhook was sent, or could not be."""

    def tokens_spent(self, model: str, tokens: Tokens) -> None:
        """A response has used so much."""

    def answered(self, command: str, seconds: float, error: StoreError | None) -> None:
        """The store has answered, or failed to; this makes `Metrics` an observer of the store."""

    def loop_lagged(self, seconds: float) -> None:
        """A timer fired so much too late."""

    def config_reloaded(self, *, applied: bool) -> None:
        """The config was read again, and went into effect, or was refused."""

    def measured(self, levels: Levels) -> None:
        """What was just found of everything that rises and falls."""


SILENT = Metrics()
