"""Grants: what the credentials of this process have obtained, each renewed before it ends, by one renewal at a time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import aiohttp

from server.errors import UpstreamUnavailable
from server.upstream.credential import OBTAINED_WITHIN_S, Credential, Grant, NotGranted, Outgoing

log = logging.getLogger("pollux.upstream")

EARLY_S = 300.0
"""How long before its end a grant is renewed, while it still serves; half of its lifetime if that is shorter."""
PAUSE_S = 5.0
"""The pause after a renewal that failed, as long as the old grant serves."""
YOUNG_S = 60.0
"""A refused grant that is younger is kept: a new one would be refused too, and each call would cost a renewal."""
_LONGEST_REASON = 300


@dataclass(slots=True)
class _Held:
    grant: Grant
    begun: float
    ends: float
    renew_at: float


class Grants:
    """The grants of one process: at most one for each credential."""

    def __init__(self, http: aiohttp.ClientSession, clock: Callable[[], float] = time.monotonic) -> None:
        self._http = http
        self._clock = clock
        self._held: dict[Credential, _Held] = {}
        self._renewals: dict[Credential, asyncio.Task[str | None]] = {}

    async def headers(self, credential: Credential, outgoing: Outgoing) -> Mapping[str, str]:
        """The headers by which this request is let in. Waits for a renewal only where no grant serves.

        Raises:
            UpstreamUnavailable: none was obtained; another try may help

        """
        grant = await self._grant(credential)
        return await grant.headers(outgoing)

    def refused(self, credential: Credential) -> None:
        """A provider refused what was granted: it may have been revoked. The next call obtains a new grant."""
        held = self._held.get(credential)
        if held is not None and self._clock() - held.begun >= YOUNG_S:
            del self._held[credential]

    def keep(self, credentials: Iterable[Credential]) -> None:
        """Forget what others than these credentials have obtained. Who still needs one of them obtains it again."""
        kept = set(credentials)
        self._held = {credential: held for credential, held in self._held.items() if credential in kept}

    async def close(self) -> None:
        """End all renewals. (A thread of a blocking library ends by itself, within its own timeout.)"""
        renewals = list(self._renewals.values())
        for renewal in renewals:
            renewal.cancel()
        await asyncio.gather(*renewals, return_exceptions=True)

    async def _grant(self, credential: Credential) -> Grant:
        held = self._held.get(credential)
        if held is not None and self._clock() < held.ends:
            if self._clock() >= held.renew_at:
                self._renewal(credential)
            return held.grant
        # Shielded: the others who wait for it don't care that this client hung up.
        reason = await asyncio.shield(self._renewal(credential))
        held = self._held.get(credential)
        if held is None or reason is not None:
            raise UpstreamUnavailable("Pollux could not renew its credential for this deployment.")
        return held.grant

    def _renewal(self, credential: Credential) -> asyncio.Task[str | None]:
        """The renewal that runs, or a new one."""
        renewal = self._renewals.get(credential)
        if renewal is None:
            renewal = asyncio.create_task(self._renew(credential), name="renewal of a credential")
            self._renewals[credential] = renewal
            renewal.add_done_callback(lambda _: self._renewals.pop(credential, None))
        return renewal

    async def _renew(self, credential: Credential) -> str | None:
        """Obtain a grant; if that fails, tell why."""
        begun = self._clock()
        try:
            async with asyncio.timeout(OBTAINED_WITHIN_S):
                grant = await credential.obtain(self._http)
        except Exception as error:  # noqa: BLE001 - libraries raise what they like, and whoever waits must be told
            reason = str(error) if isinstance(error, NotGranted) else type(error).__name__
            log.warning("%s granted no access", credential.told, extra={"error": reason[:_LONGEST_REASON]})
            if (held := self._held.get(credential)) is not None:
                held.renew_at = self._clock() + PAUSE_S
            return reason
        lifetime_s = float("inf") if grant.lifetime_s is None else grant.lifetime_s
        early_s = min(EARLY_S, lifetime_s / 2)
        self._held[credential] = _Held(grant, begun, begun + lifetime_s, begun + lifetime_s - early_s)
        return None
