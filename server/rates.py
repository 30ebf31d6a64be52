"""Rates: how many creates the owner of a key may make in a minute, counted in the store for all replicas together."""

from __future__ import annotations

import logging
import math
import secrets

from server.errors import RateLimited
from server.keyring import Principal
from storage import Store, StoreError

log = logging.getLogger("pollux.rates")


async def check_rate(store: Store, principal: Principal) -> None:
    """Count a create, unless its key has no limit. Then the store is not asked either.

    Raises:
        RateLimited: says when there is room for one

    """
    most = principal.requests_per_minute
    if most is None:
        return
    try:
        wait_s = await store.rates.count(principal.name, secrets.token_bytes(8), most)
    except StoreError as error:
        # Proxied and native requests need no store, so they are not refused because of it. Cached ones are, later on.
        log.warning("a request of %s passes uncounted, the store does not answer: %s", principal.name, error)
        return
    if wait_s:
        whole_s = math.ceil(wait_s)
        text = f"This key has reached its limit of requests per minute, {most}. Try again in {whole_s} s."
        raise RateLimited(text, whole_s)
