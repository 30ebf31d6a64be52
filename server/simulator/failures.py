"""Which request of many alike is still to fail: the memory behind `fail_times`."""

import hashlib
from collections import OrderedDict

from server.simulator.directives import Directives

# Beyond this many keys the oldest is forgotten, and its requests fail anew.
_MAX_KEYS = 10_000


class Failures:
    """Counts requests by their `fail_key`, or by their text where they have none."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, int] = OrderedDict()

    def settle(self, directives: Directives, text: str) -> Directives:
        """What is to happen to this request: what it asks for, or, once it has failed enough, no failure."""
        if directives.fail_times is None:
            return directives
        key = hashlib.sha256((directives.fail_key or text).encode(errors="surrogatepass")).hexdigest()
        seen = self._seen.get(key, 0) + 1
        self._seen[key] = seen
        if len(self._seen) > _MAX_KEYS:
            self._seen.popitem(last=False)
        return directives if seen <= directives.fail_times else directives.without_failure()

    def clear(self) -> None:
        self._seen.clear()
