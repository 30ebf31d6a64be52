"""Keeps proxied responses whose provider keeps nothing, so that they can be read, continued and deleted."""

from __future__ import annotations

import logging
import time
from uuid import uuid4

from server.api.context import Context
from server.protocol import jsontext
from server.protocol.ids import item_seed
from server.protocol.requests import CreateRequest
from server.upstream.rewrite import Rewriter
from storage import TERMINAL, KeptResponse, Patience, StoreError, draw_id

log = logging.getLogger("pollux.api")

PATIENCE_S = 2.0
"""How long the end of an answer is held back for the store. After that the client gets it, and it is not kept."""


class Keeper:
    """Keeps one response, under an id that is drawn before the provider is asked."""

    def __init__(self, context: Context, owner: str, create: CreateRequest, raw: bytes, rewriter: Rewriter) -> None:
        self._context = context
        self._owner = owner
        self._create = create
        self._raw = raw
        self._deployment = rewriter.deployment.id
        self.id = draw_id(lambda: rewriter.public(f"resp_{uuid4().hex}"), owner, context.store.shards)
        """The id that the client gets."""
        self.raw_id = next(raw_id for raw_id, public in rewriter.public_ids.items() if public == self.id)
        """The same without what says where it was made."""
        rewriter.subject = self.id

    async def keep(self, response: bytes) -> None:
        """Store the final object, within `PATIENCE_S`. A failure does not spoil the answer: the client has it all."""
        body = jsontext.loads(response)
        status = body.get("status") if isinstance(body, dict) else None
        if not isinstance(status, str) or status not in TERMINAL:
            return
        kept = KeptResponse(
            id=self.id,
            owner=self._owner,
            model=self._create.model,
            created_at=int(time.time()),
            status=status,
            deployment=self._deployment,
            request=self._raw,
            snapshot=response,
            ttl_s=self._context.config.ttl_s,
            digits=item_seed(self.raw_id),
        )
        try:
            async with Patience(PATIENCE_S).limit():
                await self._context.store.responses.keep(kept)
        except (StoreError, TimeoutError) as error:
            why = str(error) or "the store does not answer"
            log.warning("a proxied response could not be kept: %s", why, extra={"response_id": self.id})
