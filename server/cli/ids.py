"""Ids of responses in few characters: what tables on a terminal show, and what every command takes."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

from server.cli.client import UNKNOWN, Client
from server.cli.trouble import Code, Trouble

SHOWN = 8
_OURS = re.compile(r"[^ ]*_([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
_SHORT = re.compile(r"[0-9a-f]{4,8}|[0-9a-f]{8}-[0-9a-f-]{1,27}")


def short(response_id: str) -> str:
    """The beginning of the number in an id; of a provider's long id, the beginning."""
    if ours := _OURS.fullmatch(response_id):
        return ours[1][:SHOWN]
    return response_id if len(response_id) <= 24 else f"{response_id[:23]}…"


def full(client: Client, given: Iterable[str]) -> list[str]:
    """The ids that are meant by these, whole or short, each once; `-` stands for those on standard input.

    Raises:
        Trouble: there are none, one can't be an id, or what is short begins none or several

    """
    words = [word for one in given for word in (sys.stdin.read().split() if one == "-" else [one])]
    if not words:
        raise Trouble("there are no ids on standard input", code=Code.USAGE)
    for word in words:
        if not word or "," in word or not word.isprintable():
            raise Trouble(f"{word!r} is no id", code=Code.USAGE)
    return list(dict.fromkeys(_full(client, word) if _SHORT.fullmatch(word) else word for word in words))


def _full(client: Client, begins: str) -> str:
    found = client.get("jobs", {"search": begins, "limit": 500})["data"]
    ids: list[str] = [job["id"] for job in found if (ours := _OURS.fullmatch(job["id"])) and ours[1].startswith(begins)]
    if not ids:
        raise Trouble(
            f"no response's number begins with {begins}",
            UNKNOWN,
            code=Code.USAGE,
        )
    if len(ids) > 1:
        raise Trouble(f"several responses' numbers begin with {begins}:", *ids[:10], code=Code.USAGE)
    return ids[0]
