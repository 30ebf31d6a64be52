"""Many responses at once: GET /responses?ids=a,b,c, with or without a wait, and POST /responses/cancel.

Both answer with a list in the order of the ids. In the place of a response that can't be shown or cancelled stands an
object of type `error`, which names the id and says why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from aiohttp import web

from server.api.answers import status_in
from server.api.context import REQUEST_ID, context_of, principal_of
from server.api.control import cancel_record
from server.api.headers import client_headers
from server.api.hold import hold, parts_of
from server.api.models.bodies import CancelResponses
from server.api.query import choice, listed_ids, unconditional_wait_of
from server.api.reading import read_as
from server.api.references import Foreign, find_foreign, may_see, not_found
from server.api.relay import Target, fetch
from server.api.retrieve import poll_foreign, target_of
from server.errors import Internal, InvalidValue, PolluxError, Unavailable, UpstreamTimeout, UpstreamUnavailable
from server.protocol import jsontext
from server.protocol.ids import has_polling_form
from server.protocol.inplace import parsed
from server.protocol.lifecycle import UNFINISHED
from server.responses.many import Until, each, find_each, side_by_side, watch_ends
from server.upstream.call import Call
from server.upstream.refusals import is_passing
from storage import Record, StoreError, StoreFull, StoreUnavailable

log = logging.getLogger("pollux.api")

FETCHED_WITHIN_S = 10.0
"""How long a provider may take to tell the state of a native response. Beyond that, its place in the list says so."""
CANCELLED_WITHIN_S = 30.0
"""How long a provider may take to cancel a native response."""
ALL_WITHIN_S = 45.0
"""And how long for all of one request together: load balancers cut a connection that is silent for a minute."""
_OF_OTHER_LISTS = ("after", "status", "limit")


async def retrieve_many(request: web.Request) -> web.StreamResponse:
    for name in _OF_OTHER_LISTS:
        if name in request.query:
            raise InvalidValue(f"Invalid '{name}': it can't be combined with 'ids'.", param=name)
    ids, wait = listed_ids(request), unconditional_wait_of(request)
    asked = _Asked(request, ids, Until(choice(request, "until", tuple(Until), Until.ANY)))
    silent_s, held_s = parts_of(request, wait)
    await asked.find()
    await asked.wait(silent_s)
    if held_s and not asked.answered and not context_of(request).phase.draining:
        return await hold(request, wait, asked.body_after(held_s))
    headers = {"Cache-Control": "private, no-cache", **wait.headers}
    if not asked.answered:
        headers["openai-poll-after-ms"] = str(context_of(request).config.pollux.openai_poll_after_ms)
    return web.Response(body=await asked.body(), content_type="application/json", headers=headers)


@dataclass
class _Native:
    """A native response, and its state as last fetched: a Response object, or why there is none."""

    found: Foreign
    state: bytes | PolluxError

    @property
    def running(self) -> bool:
        """Whether its end is still to come. It is not if the provider refuses to show the response."""
        return is_passing(self.state) if isinstance(self.state, PolluxError) else status_in(self.state) in UNFINISHED

    def ends_with(self, body: bytes) -> bool:
        """Take a newly fetched body. Returns whether the response has ended."""
        self.state = _object_in(body)
        return not self.running

    def entry(self, response_id: str) -> bytes:
        return _error(response_id, self.state) if isinstance(self.state, PolluxError) else self.state


@dataclass
class _Asked:
    """The responses that one request asks about. An id that names none, or none of the caller's, counts as ended."""

    request: web.Request
    ids: list[str]
    until: Until
    cached: set[str] = field(default_factory=set)
    """The cached responses that the caller may see."""
    running: set[str] = field(default_factory=set)
    """Those of them that have not ended."""
    native: dict[str, _Native] = field(default_factory=dict)

    @property
    def answered(self) -> bool:
        """Whether any (all) of the responses have ended."""
        running = len(self.running) + sum(native.running for native in self.native.values())
        return not running or (self.until is Until.ANY and running < len(self.ids))

    async def find(self) -> None:
        """Find out which of the ids name responses of the caller, and how those are doing.

        Raises:
            StoreUnavailable

        """
        context, principal = context_of(self.request), principal_of(self.request)
        for record in await context.store.responses.find_many(_polling_ids(self.ids)):
            if record is not None and may_see(context, principal, record):
                self.cached.add(record.id)
                if not record.terminal:
                    self.running.add(record.id)
        foreign = {response_id: find_foreign(context, principal, response_id) for response_id in self.ids}
        named = {response_id: found for response_id, found in foreign.items() if found is not None}
        until = _now() + ALL_WITHIN_S
        states = await each(named, lambda response_id: self._fetch(named[response_id], until))
        self.native = {
            response_id: _Native(found, state)
            for (response_id, found), state in zip(named.items(), states, strict=True)
        }

    async def _fetch(self, found: Foreign, until: float) -> bytes | PolluxError:
        try:
            async with asyncio.timeout_at(min(_now() + FETCHED_WITHIN_S, until)):
                body = await fetch(self.request, target_of(self.request, found))
        except PolluxError as error:
            return error
        except TimeoutError:
            return UpstreamTimeout("The provider did not answer in time.")
        return _object_in(body)

    async def wait(self, seconds: float) -> None:
        """Sleep until any (all) of the responses have ended, the seconds are over, or the process drains.

        Raises:
            StoreUnavailable: the store was away when the seconds were over

        """
        if self.answered or not seconds:
            return
        context = context_of(self.request)
        waits = [self._poll(native, seconds) for native in self.native.values() if native.running]
        if self.running:
            waits.append(watch_ends(context.store, context.hub, self.running, self.until, seconds))
        await side_by_side(waits, self.until)

    async def _poll(self, native: _Native, seconds: float) -> None:
        try:
            await poll_foreign(self.request, native.found, native.ends_with, seconds)
        except PolluxError as error:
            native.state = error

    async def body_after(self, seconds: float) -> bytes:
        await self.wait(seconds)
        return await self.body()

    async def body(self) -> bytes:
        """The list of all responses as they are now.

        Raises:
            StoreUnavailable

        """
        return _list_of(self.ids, await each(self.ids, self._entry))

    async def _entry(self, response_id: str) -> bytes:
        if native := self.native.get(response_id):
            return native.entry(response_id)
        if response_id not in self.cached:
            return _error(response_id, not_found(response_id))
        return await _shown(self.request, response_id)


async def cancel_many(request: web.Request) -> web.Response:
    """Cancel each of the responses that the body names. What hinders one does not hinder the others."""
    ids = (await read_as(request, CancelResponses)).ids
    context = context_of(request)
    records = await find_each(context.store, _polling_ids(ids))
    until = _now() + ALL_WITHIN_S
    entries = await each(ids, lambda response_id: _cancelled(request, response_id, records.get(response_id), until))
    return web.Response(body=_list_of(ids, entries), content_type="application/json")


async def _cancelled(request: web.Request, response_id: str, found: Record | StoreError | None, until: float) -> bytes:
    """The cancelled response, or why it is none."""
    try:
        return await _cancel(request, response_id, found, until)
    except PolluxError as error:
        return _error(response_id, error)
    except (StoreUnavailable, StoreFull):
        return _error(response_id, Unavailable("The service can't reach its store right now. Try again shortly."))
    except Exception:
        log.exception("cancel broke", extra={"response_id": response_id, "request_id": request[REQUEST_ID]})
        return _error(response_id, Internal())


async def _cancel(request: web.Request, response_id: str, record: Record | StoreError | None, until: float) -> bytes:
    if isinstance(record, StoreError):
        raise record
    context, principal = context_of(request), principal_of(request)
    if record is not None and may_see(context, principal, record):
        await cancel_record(request, record)
        return await _shown(request, response_id)
    if found := find_foreign(context, principal, response_id):
        return await _cancel_foreign(request, found, until)
    raise not_found(response_id)


async def _cancel_foreign(request: web.Request, found: Foreign, until: float) -> bytes:
    call = Call("POST", (found.provider_id, "cancel"), headers=client_headers(request))
    try:
        async with asyncio.timeout_at(min(_now() + CANCELLED_WITHIN_S, until)):
            body = await fetch(request, Target(found.deployment, call, found.rewriter))
    except TimeoutError:
        raise UpstreamTimeout("The provider did not answer in time.") from None
    state = _object_in(body)
    return state if isinstance(state, bytes) else _error(found.id, state)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _polling_ids(ids: Iterable[str]) -> list[str]:
    return [response_id for response_id in ids if has_polling_form(response_id)]


async def _shown(request: web.Request, response_id: str) -> bytes:
    """The object of a cached response, or an error in its place.

    Raises:
        StoreUnavailable, StoreFull

    """
    try:
        view = await context_of(request).views.view(response_id)
    except (StoreUnavailable, StoreFull):
        raise
    except StoreError as error:
        log.warning("unreadable response in a list: %s", error, extra={"response_id": response_id})
        return _error(response_id, Internal())
    return _error(response_id, not_found(response_id)) if view is None else view.body


def _object_in(body: bytes) -> bytes | PolluxError:
    """The JSON object that a provider answered with, fit to stand in a list; an error if the answer is none."""
    found = parsed(body)
    return UpstreamUnavailable("The provider's answer is not a JSON object.") if found is None else found[1]


def _error(response_id: str, error: PolluxError) -> bytes:
    return jsontext.dumps({"id": response_id, "object": "error", "status_code": error.status, "error": error.as_dict()})


def _list_of(ids: list[str], entries: list[bytes]) -> bytes:
    """The list around objects that are JSON already, which may be long."""
    frame = jsontext.dumps({"first_id": ids[0], "last_id": ids[-1], "has_more": False})
    return b'{"object":"list","data":[' + b",".join(entries) + b"]," + frame[1:]
