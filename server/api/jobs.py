"""Jobs, as somebody sees them who asks where a response is: those of the caller, and for the master key everybody's.

A job tells what has become of a response without what was asked and answered, so that a list of thousands stays small.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any

from aiohttp import web

from server.api.answers import json_answer
from server.api.context import Context, context_of, principal_of
from server.api.query import limit, listed_ids, several
from server.api.references import not_found
from server.errors import InvalidValue, shown
from server.keyring import Principal
from server.protocol import jsontext
from server.protocol.lifecycle import Status
from server.protocol.status_events import shown_metadata
from storage import Mark, Overview, Stay

PAGE = 200
"""How many jobs are read in one go while those are looked for that fit."""
MOST_READ = 5_000
"""How many are looked at for one answer. If few of them fit, the answer is short, and `next_page` goes on."""
LONGEST_SEARCH = 200

_MARK = re.compile(r"([0-9]{1,15}) (\S{1,200})")

Wanted = Callable[[Overview], bool]


async def list_jobs(request: web.Request) -> web.Response:
    """Newest first: `limit`, `page`; only those of a `status`, `model`, `owner`, or with a text (`search`).

    Or those that `ids` names, in that order. Of these, such as there are not are left out.
    """
    context, principal = context_of(request), principal_of(request)
    most, before, wanted = limit(request, 50, 500), _page(request), _wanted(request)
    if "ids" in request.query or "ids[]" in request.query:
        named = await context.store.overviews.of_many(listed_ids(request))
        return _list(request, [one for one in named if one is not None and _may_see(context, principal, one)], None)
    owner = principal.name if not principal.is_master else _one_owner(request)
    found: list[Overview] = []
    read = 0
    while len(found) < most and read < MOST_READ:
        page, before = await context.store.overviews.page(owner, before, PAGE)
        found += filter(wanted, page)
        read += PAGE
        if before is None:
            break
    if len(found) > most:
        found = _whole(found, most)
        before = found[-1].mark
    return _list(request, found, before)


def _list(request: web.Request, found: Sequence[Overview], before: Mark | None) -> web.Response:
    context, principal = context_of(request), principal_of(request)
    answer = {
        "object": "list",
        "data": [_job(context, principal, one) for one in found],
        "has_more": before is not None,
        "next_page": _encoded(before) if before else None,
    }
    return json_answer(request, answer)


async def retrieve_job(request: web.Request) -> web.Response:
    """One job, with what it has lived through."""
    context, principal = context_of(request), principal_of(request)
    response_id = request.match_info["id"]
    found = await context.store.overviews.of(response_id)
    if found is None or not _may_see(context, principal, found):
        raise not_found(response_id)
    return json_answer(request, {**_job(context, principal, found), "life": _life(found)})


def _whole(found: Sequence[Overview], most: int) -> list[Overview]:
    """The first ones, and those that share the last one's time: the next page begins behind that time."""
    last_ms = found[most - 1].created_ms
    return [*found[:most], *takewhile(lambda one: one.created_ms == last_ms, found[most:])]


def _may_see(context: Context, principal: Principal, one: Overview) -> bool:
    mine = principal.is_master or one.owner == principal.name
    return mine and context.ways.may_use(principal, one.model)


def _wanted(request: web.Request) -> Wanted:
    """What the query asks for.

    Raises:
        InvalidValue
    """
    context, principal = context_of(request), principal_of(request)
    statuses, models, owners = (several(request, name) for name in ("status", "model", "owner"))
    if unknown := [status for status in statuses if status not in tuple(Status)]:
        expected = ", ".join(Status)
        text = f"There is no status '{shown(unknown[0])}': expected some of {expected}."
        raise InvalidValue(text, param="status")
    if not principal.is_master and any(name != principal.name for name in owners):
        raise InvalidValue("Only the master key may see the jobs of other owners.", param="owner")
    given = request.query.get("search", "")
    if len(given) > LONGEST_SEARCH:
        text = f"Invalid 'search': expected at most {LONGEST_SEARCH} characters, but got {len(given)} instead."
        raise InvalidValue(text, param="search")
    search = given.strip().casefold()

    def fits(one: Overview) -> bool:
        return (
            _may_see(context, principal, one)
            and (not statuses or one.status in statuses)
            and (not models or one.model in models)
            and (not owners or one.owner in owners)
            and (not search or _has(one, search))
        )

    return fits


def _has(one: Overview, search: str) -> bool:
    texts = (one.id, one.model, one.metadata.decode("utf-8", "replace"))
    return any(search in text.casefold() for text in texts)


def _one_owner(request: web.Request) -> str | None:
    """The owner whose jobs alone are to be read; None: everybody's."""
    named = several(request, "owner")
    return named[0] if len(named) == 1 else None


def _page(request: web.Request) -> Mark | None:
    text = request.query.get("page")
    if not text:
        return None
    try:
        match = _MARK.fullmatch(urlsafe_b64decode(text).decode())
    except ValueError:
        match = None
    if match is None:
        raise InvalidValue("Invalid value for 'page': expected the 'next_page' of an earlier answer.", param="page")
    return Mark(int(match[1]), match[2])


def _encoded(mark: Mark) -> str:
    return urlsafe_b64encode(f"{mark.created_ms} {mark.id}".encode()).decode()


def _job(context: Context, principal: Principal, one: Overview) -> dict[str, Any]:
    leased = one.stays[0].from_ms if one.stays else None
    return {
        "id": one.id,
        "object": "job",
        "status": one.status,
        "model": one.model,
        **({"owner": one.owner} if principal.is_master else {}),
        "stream": one.stream,
        "created_at": _seconds(one.created_ms),
        "started_at": _seconds(leased),
        "first_event_at": _seconds(one.began_ms),
        "ended_at": _seconds(one.changed_ms if one.ended else None),
        "attempts": one.attempt,
        "events": one.last + 1,
        "deployment": _deployment(context, one.deployment),
        "worker": one.stays[-1].worker or None if one.stays and principal.is_master else None,
        "tokens": {"input": one.tokens[0], "output": one.tokens[1]} if one.tokens else None,
        "error": one.error_code or None,
        "metadata": shown_metadata(one.metadata),
    }


def _deployment(context: Context, deployment_id: str) -> dict[str, Any] | None:
    """A deployment in few words; by its id alone where the config does not have it any more."""
    if not deployment_id:
        return None
    made = context.deployments.get(deployment_id)
    named = {"model": made.upstream_model, "provider": made.provider} if made else {}
    return {"id": deployment_id, **named}


def _life(one: Overview) -> list[dict[str, Any]]:
    """The phases of a job, in order: where it was, from when until when."""
    phases: list[dict[str, Any]] = []
    queued_ms: int | None = one.created_ms
    for stay in one.stays:
        if queued_ms is not None:
            phases.append({"phase": "queued", "from": _seconds(queued_ms), "until": _seconds(stay.from_ms)})
        phases.append(_run(one, stay))
        queued_ms = stay.until_ms if stay.released else None
    if queued_ms is not None:
        until_ms = one.changed_ms if one.ended else None
        phases.append({"phase": "queued", "from": _seconds(queued_ms), "until": _seconds(until_ms)})
    return phases


def _run(one: Overview, stay: Stay) -> dict[str, Any]:
    return {
        "phase": "run",
        "from": _seconds(stay.from_ms),
        "until": _seconds(stay.until_ms),
        "attempt": stay.attempt,
        "worker": stay.worker or None,
        "reclaimed": stay.reclaimed,
        "released": stay.released,
        "failed_tries": _tries(one.notes.get(stay.attempt, b"")),
    }


def _tries(stored: bytes) -> Sequence[Any]:
    try:
        found = jsontext.loads(stored) if stored else []
    except ValueError:
        return []  # somebody has broken it by hand
    return found if isinstance(found, list) else []


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000
