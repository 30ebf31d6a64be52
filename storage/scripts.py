"""The Lua scripts: each an atomic step that may run twice.

A server that lost its script cache (restart, failover) is given the script again.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError

from storage.connection import Client, answered, ask, exchange
from storage.errors import StoreUnavailable
from storage.records import Durability

Argument = str | bytes | int | float

SYNC_TIMEOUT_MS = 2000
_WAITS = {
    Durability.REPLICA: ("WAIT", 1, SYNC_TIMEOUT_MS),
    Durability.FSYNC: ("WAITAOF", 1, 0, SYNC_TIMEOUT_MS),
}


def _has_reached(answer: Any) -> bool:
    """WAIT tells how many replicas have it; WAITAOF how many disks of its own, and of replicas."""
    return bool((answer[0] if isinstance(answer, list) else answer) >= 1)


class Script:
    """One Lua file, the prelude put behind its first line."""

    def __init__(self, name: str) -> None:
        folder = files("storage") / "lua"
        shebang, body = (folder / f"{name}.lua").read_text().split("\n", 1)
        self.text = f"{shebang}\n{(folder / 'prelude.lua').read_text()}{body}"
        # SHA-1 is how the server names scripts; nothing rests on it.
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, client: Client, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        async with answered(client):
            try:
                return await ask(client, "EVALSHA", self.sha, len(keys), *keys, *args)
            except NoScriptError:
                return await ask(client, "EVAL", self.text, len(keys), *keys, *args)

    async def run_durably(
        self, client: Client, keys: Sequence[str], args: Sequence[Argument], durability: Durability
    ) -> Any:
        """The answer of `run`, once what it wrote is where `durability` wants it.

        Raises:
            StoreUnavailable: it is not there in time. It was written all the same; repeating it is safe.
        """
        if durability is Durability.NONE:
            return await self.run(client, keys, args)
        called = (len(keys), *keys, *args)
        # On one connection, because WAIT and WAITAOF speak of the writes of their own.
        async with answered(client):
            answer, reached = await exchange(client, [("EVALSHA", self.sha, *called), _WAITS[durability]])
            if isinstance(answer, NoScriptError):
                answer, reached = await exchange(client, [("EVAL", self.text, *called), _WAITS[durability]])
            for one in (answer, reached):
                if isinstance(one, Exception):
                    raise one
        if not _has_reached(reached):
            raise StoreUnavailable(f"the write did not reach its {durability} in {SYNC_TIMEOUT_MS} ms")
        return answer


CREATE = Script("create")
LEASE = Script("lease")
RENEW = Script("renew")
APPEND = Script("append")
FINISH = Script("finish")
CANCEL = Script("cancel")
RELEASE = Script("release")
DELETE = Script("delete")
READ = Script("read")
FIND = Script("find")
CLAIM_CANCELS = Script("claim_cancels")
