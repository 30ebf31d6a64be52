"""The Lua scripts: each is one atomic step, and running it twice has the outcome of running it once.

A script names its keys and arguments in its header and finds them as Lua locals of these names; its caller passes them
by the same names. A header is read like this:

    -- KEYS                         the lines that follow, up to one of another kind, hold names of keys
    --   record, log                names, and after two spaces what they mean
    --   idempotency?               may be None: only the last key may
    --                              (goes on)
    -- ARGV
    --   lease_ms:number            the local is a number, not a text
    --   fields...                  all that remain, as a table: only the last argument (or key) may be such a list

A server that lost its script cache (by a restart or a failover) is sent the whole script again.
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
    """Whether the write arrived: WAIT answers with a number of replicas, WAITAOF with [own disk, replicas' disks]."""
    return bool((answer[0] if isinstance(answer, list) else answer) >= 1)


@dataclass(frozen=True)
class _List:
    """The names of a script's KEYS or ARGV, in order."""

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
        """Lua lines that bind each name to its value."""
        for place, (name, kind) in enumerate(zip(self.names, self.kinds, strict=True), 1):
            value = f"{self.table}[{place}]"
            if kind == ":number":
                value = f"tonumber({value})"
            elif kind == "...":
                value = f"from({self.table}, {place})"
            yield f"local {name} = {value}\n"

    def words(self, given: dict[str, Any]) -> list[Word]:
        """Put the given values into the order of the names."""
        words: list[Word] = []
        for name, kind in zip(self.names, self.kinds, strict=True):
            value = given[name]
            if kind == "...":
                words += value
            elif kind != "?" or value is not None:
                words.append(value)
        return words


class Script:
    """One Lua file, with the prelude and locals for its keys and arguments put in front of its body."""

    def __init__(self, name: str) -> None:
        folder = files("storage") / "lua"
        shebang, body = (folder / f"{name}.lua").read_text().split("\n", 1)
        header = body.split("\n")
        self.name = name
        self.keys, self.args = _List.in_header("KEYS", header), _List.in_header("ARGV", header)
        self._named = {*self.keys.names, *self.args.names}
        bound = "".join((*self.keys.locals(), *self.args.locals()))
        self.text = f"{shebang}\n{(folder / 'prelude.lua').read_text()}{bound}{body}"
        # The server names scripts by their SHA-1; no security depends on it.
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, client: Client, /, **given: Word | Sequence[Word] | None) -> Any:
        """Run the script with its keys and arguments by name.

        Raises:
            TypeError: a name is missing, or the script does not know it
            StoreError
        """
        called = self._called(given)
        async with answered(client, self.name):
            try:
                return await ask(client, "EVALSHA", self.sha, *called)
            except NoScriptError:
                return await ask(client, "EVAL", self.text, *called)

    async def run_durably(
        self, client: Client, durability: Durability, /, **given: Word | Sequence[Word] | None
    ) -> Any:
        """Return the answer of `run` once its writes have arrived where `durability` wants them.

        Raises:
            StoreUnavailable: they did not arrive in time. The script has run all the same; repeating it is safe.
        """
        if durability is Durability.NONE:
            return await self.run(client, **given)
        called = self._called(given)
        # On one connection, because WAIT and WAITAOF count only the writes of the connection that they come on.
        async with answered(client, self.name):
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
KEEP = Script("keep")
CLAIM_CANCELS = Script("claim_cancels")
COUNT_JOBS = Script("count_jobs")
READ_FEED = Script("read_feed")
CLAIM_DELIVERIES = Script("claim_deliveries")
SETTLE_DELIVERY = Script("settle_delivery")
REDELIVER = Script("redeliver")
STORE_ENDPOINT = Script("store_endpoint")
COUNT_REQUEST = Script("count_request")
COUNT_USAGE = Script("count_usage")
READ_HASHES = Script("read_hashes")
LIST_RESPONSES = Script("list_responses")
SETTLE = Script("settle")
