"""The Lua scripts: each an atomic step that may run twice.

A script names its keys and arguments in its header, and finds them as Lua locals of these names; who calls it passes
them by the same names. A header is read like this:

    -- KEYS                         what follows, up to the next line of another kind, are names of keys
    --   record, log                names, and behind two spaces what they mean
    --   idempotency?               may be None: only the last key may
    --                              (goes on)
    -- ARGV
    --   lease_ms:number            the local is a number, not a text
    --   fields...                  all that remain, as a table: only the last argument (or key) may

A server that lost its script cache (restart, failover) is given the script again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError

from storage.connection import Client, answered, ask, exchange
from storage.errors import StoreUnavailable
from storage.records import Durability

Word = str | bytes | int | float

SYNC_TIMEOUT_MS = 2000
_WAITS = {
    Durability.REPLICA: ("WAIT", 1, SYNC_TIMEOUT_MS),
    Durability.FSYNC: ("WAITAOF", 1, 0, SYNC_TIMEOUT_MS),
}
_NAMES = re.compile(r"--   ((?:\w+(?::number|\?|\.\.\.)?(?:, )?)+)(?:  .*)?")
_GOES_ON = "--    "
_NAME = re.compile(r"(\w+)(:number|\?|\.\.\.)?")


def _has_reached(answer: Any) -> bool:
    """WAIT tells how many replicas have it; WAITAOF how many disks of its own, and of replicas."""
    return bool((answer[0] if isinstance(answer, list) else answer) >= 1)


@dataclass(frozen=True)
class _List:
    """The names in KEYS or ARGV, in order."""

    table: str
    names: tuple[str, ...]
    kinds: tuple[str, ...]

    @classmethod
    def in_header(cls, table: str, header: Sequence[str]) -> _List:
        found: list[tuple[str, str]] = []
        if f"-- {table}" in header:
            for line in header[header.index(f"-- {table}") + 1 :]:
                if match := _NAMES.fullmatch(line):
                    found += _NAME.findall(match[1])
                elif not line.startswith(_GOES_ON):
                    break
        return cls(table, tuple(name for name, _ in found), tuple(kind for _, kind in found))

    def locals(self) -> Iterator[str]:
        """A Lua line for each."""
        for place, (name, kind) in enumerate(zip(self.names, self.kinds, strict=True), 1):
            value = f"{self.table}[{place}]"
            if kind == ":number":
                value = f"tonumber({value})"
            elif kind == "...":
                value = f"from({self.table}, {place})"
            yield f"local {name} = {value}\n"

    def words(self, given: dict[str, Any]) -> list[Word]:
        """What is given, in order."""
        words: list[Word] = []
        for name, kind in zip(self.names, self.kinds, strict=True):
            value = given[name]
            if kind == "...":
                words += value
            elif kind != "?" or value is not None:
                words.append(value)
        return words


class Script:
    """One Lua file: the prelude, and its keys and arguments as locals, put in front of its body."""

    def __init__(self, name: str) -> None:
        folder = files("storage") / "lua"
        shebang, body = (folder / f"{name}.lua").read_text().split("\n", 1)
        header = body.split("\n")
        self.name = name
        self.keys, self.args = _List.in_header("KEYS", header), _List.in_header("ARGV", header)
        self._named = {*self.keys.names, *self.args.names}
        bound = "".join((*self.keys.locals(), *self.args.locals()))
        self.text = f"{shebang}\n{(folder / 'prelude.lua').read_text()}{bound}{body}"
        # SHA-1 is how the server names scripts; nothing rests on it.
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, client: Client, /, **given: Word | Sequence[Word] | None) -> Any:
        """Call it with its keys and arguments by name.

        Raises:
            TypeError: a name is missing, or is none of this script's
            StoreError
        """
        called = self._called(given)
        async with answered(client):
            try:
                return await ask(client, "EVALSHA", self.sha, *called)
            except NoScriptError:
                return await ask(client, "EVAL", self.text, *called)

    async def run_durably(
        self, client: Client, durability: Durability, /, **given: Word | Sequence[Word] | None
    ) -> Any:
        """The answer of `run`, once what it wrote is where `durability` wants it.

        Raises:
            StoreUnavailable: it is not there in time. It was written all the same; repeating it is safe.
        """
        if durability is Durability.NONE:
            return await self.run(client, **given)
        called = self._called(given)
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

    def _called(self, given: dict[str, Any]) -> list[Word]:
        if given.keys() != self._named:
            raise TypeError(f"{self.name}.lua is called with other names: {sorted(given.keys() ^ self._named)}")
        keys = self.keys.words(given)
        return [len(keys), *keys, *self.args.words(given)]


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
