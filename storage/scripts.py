"""The Lua scripts: each an atomic step that may run twice.

`run` sends one; `run_many` sends many of one kind in one pipeline. A server that lost its script cache (restart,
failover) is given the script again.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from storage.connection import answered
from storage.errors import StoreUnavailable
from storage.records import Durability

Argument = str | bytes | int | float
Call = tuple[Sequence[str], Sequence[Argument]]
"""KEYS and ARGV."""


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

    async def run(self, client: Redis, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        async with answered():
            try:
                return await client.evalsha(self.sha, len(keys), *keys, *args)
            except NoScriptError:
                return await client.eval(self.text, len(keys), *keys, *args)

    async def run_durably(
        self, client: Redis, keys: Sequence[str], args: Sequence[Argument], durability: Durability
    ) -> Any:
        """The answer of `run`, once what it wrote is where `durability` wants it.

        Raises:
            StoreUnavailable: it is not there in time. It was written all the same; repeating it is safe.
        """
        if durability is Durability.NONE:
            return await self.run(client, keys, args)
        async with answered():
            answer, reached = await self._with_wait(client, keys, args, durability)
            if isinstance(answer, NoScriptError):
                await client.script_load(self.text)
                answer, reached = await self._with_wait(client, keys, args, durability)
            for one in (answer, reached):
                if isinstance(one, Exception):
                    raise one
        if not _has_reached(reached):
            raise StoreUnavailable(f"the write did not reach its {durability} in {SYNC_TIMEOUT_MS} ms")
        return answer

    async def _with_wait(
        self, client: Redis, keys: Sequence[str], args: Sequence[Argument], durability: Durability
    ) -> list[Any]:
        # One pipeline, because WAIT and WAITAOF speak of the writes of their own connection.
        async with client.pipeline(transaction=False) as pipe:
            pipe.evalsha(self.sha, len(keys), *keys, *args)
            pipe.execute_command(*_WAITS[durability])
            return await pipe.execute(raise_on_error=False)

    async def run_many(self, client: Redis, calls: Sequence[Call]) -> list[Any]:
        """The answers in order; an error of one call is its answer, so that it can't hide the others."""
        async with answered():
            answers = await self._pipeline(client, calls)
            missing = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            if missing:
                await client.script_load(self.text)
                repeated = await self._pipeline(client, [calls[i] for i in missing])
                for i, answer in zip(missing, repeated, strict=True):
                    answers[i] = answer
        return answers

    async def _pipeline(self, client: Redis, calls: Sequence[Call]) -> list[Any]:
        async with client.pipeline(transaction=False) as pipe:
            for keys, args in calls:
                pipe.evalsha(self.sha, len(keys), *keys, *args)
            return await pipe.execute(raise_on_error=False)


CREATE = Script("create")
LEASE = Script("lease")
RENEW = Script("renew")
APPEND = Script("append")
FINISH = Script("finish")
CANCEL = Script("cancel")
RELEASE = Script("release")
DELETE = Script("delete")
READ = Script("read")
CLAIM_CANCELS = Script("claim_cancels")
