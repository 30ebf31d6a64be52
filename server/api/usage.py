"""GET /usage: what the caller's key has used, by day and model; for the master key that of all owners.

Rows come sorted, in pages: the cursor of a page is the last row's date, model and owner.
"""

from __future__ import annotations

import asyncio
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Sequence
from datetime import date, timedelta
from typing import Any, NamedTuple

import orjson
from aiohttp import web

from server.api.answers import json_answer
from server.api.context import context_of, principal_of
from server.api.query import limit, several
from server.errors import InvalidValue
from storage import NANO, Spent, Usage, today

DEFAULT_DAYS, MOST_DAYS = 30, 366
DEFAULT_ROWS, MOST_ROWS = 1000, 10_000
"""Rows in one answer."""
MOST_GROUPS = 50_000
"""Rows in all pages together: they are added up in memory, and sorted while others wait."""
OWNERS_AT_ONCE = 16
GROUPS = ("day", "model", "owner")

_DATE = re.compile(r"\d{4}-\d\d-\d\d")


class Group(NamedTuple):
    """What the requests of one row have in common. Empty: the rows are not told apart by it."""

    date: str
    model: str
    owner: str


async def report_usage(request: web.Request) -> web.Response:
    context, is_master = context_of(request), principal_of(request).is_master
    most, days, behind = limit(request, DEFAULT_ROWS, MOST_ROWS), _days(request), _page(request)
    report = _Report(_groups(request), {context.deployments.canonical(name) for name in several(request, "model")})
    async for owner, used in _used(context.store.usage, _owners(request), days):
        for day, amounts in zip(days, used, strict=True):
            report.add(owner, day, amounts)
    rows = [row for row in sorted(report.sums.items()) if behind is None or row[0] > behind]
    shown, more = rows[:most], len(rows) > most
    answer = {
        "object": "list",
        "data": [_row(group, spent, is_master=is_master) for group, spent in shown],
        "has_more": more,
        "next_page": urlsafe_b64encode(orjson.dumps(list(shown[-1][0]))).decode() if more else None,
    }
    return json_answer(request, answer)


class _Report:
    """Adds up amounts by group."""

    def __init__(self, groups: Sequence[str], models: set[str]) -> None:
        self.sums: dict[Group, Spent] = {}
        self._groups, self._models = groups, models

    def add(self, owner: str, day: date, amounts: Sequence[Spent]) -> None:
        """Add what an owner has used on a day.

        Raises:
            InvalidValue: the report becomes too long
        """
        for spent in amounts:
            if self._models and spent.model not in self._models:
                continue
            words = zip(GROUPS, (day.isoformat(), spent.model, owner), strict=True)
            group = Group(*(word if name in self._groups else "" for name, word in words))
            known = self.sums.get(group)
            self.sums[group] = known + spent if known else spent
        if len(self.sums) > MOST_GROUPS:
            text = f"This report has more than {MOST_GROUPS} rows: ask for fewer days or owners, or group it by less."
            raise InvalidValue(text, param="group_by")


async def _used(
    usage: Usage, owners: AsyncIterator[str], days: Sequence[date]
) -> AsyncIterator[tuple[str, list[list[Spent]]]]:
    """What each owner has used on each day. Of many owners, only some are asked for at once."""
    some: list[str] = []
    async for owner in owners:
        some.append(owner)
        if len(some) == OWNERS_AT_ONCE:
            for found in zip(some, await asyncio.gather(*(usage.read(one, days) for one in some)), strict=True):
                yield found
            some = []
    for found in zip(some, await asyncio.gather(*(usage.read(one, days) for one in some)), strict=True):
        yield found


async def _owners(request: web.Request) -> AsyncIterator[str]:
    principal, named = principal_of(request), several(request, "owner")
    if not principal.is_master:
        if any(name != principal.name for name in named):
            raise InvalidValue("Only the master key may ask for the usage of other owners.", param="owner")
        yield principal.name
        return
    for name in named:
        yield name
    if not named:
        seen: set[str] = set()  # of the index, pages may overlap
        async for owner in context_of(request).store.usage.owners():
            if owner not in seen:
                seen.add(owner)
                yield owner


def _days(request: web.Request) -> list[date]:
    """The days that are asked for: from `start_date` to `end_date`, both included; else the last thirty."""
    first, last = _date(request, "start_date"), _date(request, "end_date")
    try:
        last = last or max(today(), first or date.min)
        first = first or last - timedelta(days=DEFAULT_DAYS - 1)
    except OverflowError:
        raise InvalidValue("Invalid value for 'end_date': there is no day so early.", param="end_date") from None
    if first > last:
        raise InvalidValue("Invalid value for 'start_date': it lies behind 'end_date'.", param="start_date")
    count = (last - first).days + 1
    if count > MOST_DAYS:
        text = f"Invalid value for 'start_date': at most {MOST_DAYS} days can be asked for at once, not {count}."
        raise InvalidValue(text, param="start_date")
    return [first + timedelta(days=number) for number in range(count)]


def _date(request: web.Request, name: str) -> date | None:
    text = request.query.get(name)
    if text is None:
        return None
    try:
        if _DATE.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise InvalidValue(f"Invalid value for '{name}': expected a day as 2026-01-31.", param=name)


def _groups(request: web.Request) -> list[str]:
    named = several(request, "group_by")
    if any(name not in GROUPS for name in named):
        raise InvalidValue(f"Invalid value for 'group_by': expected some of {', '.join(GROUPS)}.", param="group_by")
    return named or list(GROUPS)


def _page(request: web.Request) -> Group | None:
    """Behind which row the page begins."""
    text = request.query.get("page")
    if text is None:
        return None
    try:
        words = orjson.loads(urlsafe_b64decode(text))
        if len(words) == len(GROUPS) and all(isinstance(word, str) for word in words):
            return Group(*words)
    except (ValueError, TypeError):
        pass
    raise InvalidValue("Invalid value for 'page': expected the 'next_page' of an earlier answer.", param="page")


def _row(group: Group, spent: Spent, *, is_master: bool) -> dict[str, Any]:
    return {
        "object": "usage",
        "date": group.date or None,
        "model": group.model or None,
        **({"owner": group.owner or None} if is_master else {}),
        "requests": spent.requests,
        "input_tokens": spent.input,
        "cached_input_tokens": spent.cached,
        "output_tokens": spent.output,
        "reasoning_tokens": spent.reasoning,
        "total_tokens": spent.input + spent.output,
        "cost": None if spent.cost is None else spent.cost / NANO,
    }
