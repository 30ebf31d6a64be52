"""What is in the store, looked at from behind: all of it, and what would stay in it for ever."""

from __future__ import annotations

from typing import Any

import redis

from storage.keys import SETTINGS
from storage.records import TERMINAL

Admin = redis.Redis | redis.RedisCluster
"""A client that looks at a store from behind."""


def contents(admin: Admin) -> dict[str, object]:
    """Every key with its value: equal before and after whatever changes nothing.

    Not the deadlines of leases, which are merely pushed on.
    """
    return {key: _value(admin, key) for key in _keys(admin)}


def leaked_keys(admin: Admin) -> list[str]:
    """The keys without a time to live that no unfinished response accounts for: after a test there is none.

    May stay for ever: the settings, the endpoints of owners, which are a few and stay until they are deleted, and each
    shard's rotation, which forgets an owner when it would be his turn.
    """
    keys = _keys(admin)
    with admin.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.pttl(key)
            if ":record:" in key:
                pipe.hget(key, "status")
        answers = iter(pipe.execute())
    immortal, unfinished = [], set()
    for key in keys:
        if next(answers) == -1:
            immortal.append(key)
        if ":record:" in key and next(answers).decode() not in TERMINAL:
            unfinished.add(key.rpartition(":")[2])
    return [key for key in immortal if not _accounted_for(admin, key, unfinished)]


def _accounted_for(admin: Admin, key: str, unfinished: set[str]) -> bool:
    kind, _, name = key.partition("}:")[2].partition(":")
    if key == SETTINGS or kind in ("rotation", "endpoints"):
        return True
    if kind in ("record", "log"):
        return name in unfinished
    if kind in ("queue", "leases"):
        members: Any = admin.zrange(key, 0, -1)
        return unfinished.issuperset(member.decode() for member in members)
    return False


def _keys(admin: Admin) -> list[str]:
    return sorted(key.decode() for key in admin.scan_iter())


def _value(admin: Admin, key: str) -> object:
    kind: Any = admin.type(key)
    match kind.decode():
        case "hash":
            return admin.hgetall(key)
        case "stream":
            return admin.xrange(key)
        case "zset":
            return admin.zrange(key, 0, -1, withscores=not key.endswith(":leases"))
        case _:
            return admin.get(key)
