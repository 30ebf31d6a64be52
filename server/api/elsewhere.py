"""Operations on a response that Pollux does not know: they are left to the provider that has the response."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

from aiohttp import web

from server.api.body import read_body
from server.api.context import context_of, principal_of
from server.api.headers import forwarded_headers
from server.api.query import includes
from server.api.references import Foreign, named_response, new_rewriter
from server.api.relay import Target, relay
from server.errors import NotFound, shown
from server.protocol.requests import parse_object
from server.upstream.call import Call
from storage import Record

UNKNOWN = r"(?!(?:cancel|input_items)(?:/|$))[\w-]+(?:/[\w-]+)*"
"""The path of such an operation, without dots and escapes, so that it stays below its response at the provider."""
_NOT_SENT = frozenset({"include", "include[]", "api-version"})
"""Query parameters that are not sent as they are: the values of `include` are checked, the version is the config's."""


async def forward_elsewhere(request: web.Request) -> web.StreamResponse:
    found = await named_response(request)
    there = _at_provider(request, found) if isinstance(found, Record) else found
    if there is None:
        text = f"There is no {request.method} {shown(request.path)}: its provider does not keep the response."
        raise NotFound(text)
    raw = await read_body(request)
    body = parse_object(raw) if raw.strip() else None
    if body is not None:
        context, owner = context_of(request), principal_of(request).name
        body = context.affinity.unmarked(body, there.deployment, owner)
    there.rewriter.only_known = True
    call = Call(
        "GET" if request.method == "HEAD" else request.method,
        (there.provider_id, *request.match_info["operation"].split("/")),
        _query(request),
        make_request=None if body is None else lambda: body,
        headers=forwarded_headers(request),
    )
    return await relay(request, Target(there.deployment, call, there.rewriter))


def _query(request: web.Request) -> str:
    pairs = parse_qsl(request.query_string, keep_blank_values=True)
    kept = [(name, value) for name, value in pairs if name not in _NOT_SENT]
    return urlencode([*kept, *(("include[]", value) for value in includes(request))])


def _at_provider(request: web.Request, record: Record) -> Foreign | None:
    """The cached response as its provider has it; None if that keeps nothing, or no run has begun."""
    context = context_of(request)
    deployment = context.deployments.get(record.ran_on)
    if deployment is None or not (deployment.keeps_responses and record.provider_id):
        return None
    rewriter = new_rewriter(context, principal_of(request), deployment)
    rewriter.subject = rewriter.public_ids[record.provider_id] = record.id
    return Foreign(record.id, record.provider_id, deployment, rewriter)
