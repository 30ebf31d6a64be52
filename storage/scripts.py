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

Argument = str | bytes | int | float
Call = tuple[Sequence[str], Sequence[Argument]]
"""KEYS and ARGV."""


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
