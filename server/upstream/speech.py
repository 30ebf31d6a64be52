"""Speech: a call in the words of its deployment, and how its answer is to be read."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from server.errors import Untranslatable
from server.protocol import jsontext
from server.protocol.defaults import of_responses, with_defaults
from server.protocol.dialects.counting import Count, counted
from server.protocol.dialects.reply import Reply
from server.protocol.dialects.request import translated
from server.protocol.ids import item_seed
from server.upstream.call import COMPACT, INPUT_TOKENS, Call
from server.upstream.deployments import Deployment

_BETA = "anthropic-beta"


_OF_INPUT = {
    INPUT_TOKENS: frozenset(
        {"instructions", "parallel_tool_calls", "reasoning", "text", "tool_choice", "tools", "truncation"}
    ),
    COMPACT: frozenset(
        {"instructions", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "service_tier"}
    ),
}
"""The fields with defaults that each operation on an input knows."""


class Speech(NamedTuple):
    """What is sent where."""

    url: str
    body: bytes | None = None
    headers: Mapping[str, str] = MappingProxyType({})
    """Further headers that it needs."""
    reply: Reply | Count | None = None
    """The translation of the answer; None if the deployment speaks the Responses API."""


def able_to_tell(
    deployments: list[Deployment], request_for: Callable[[Deployment], dict[str, Any]]
) -> list[Deployment]:
    """Those of the deployments that can be told all of a request.

    Raises:
        Untranslatable: none of them can; the error is that of the first one

    """
    if all(deployment.keeps_responses for deployment in deployments):
        return deployments  # nothing is translated
    able, refusals = [], []
    for deployment in deployments:
        try:
            if not deployment.keeps_responses:
                translated({**request_for(deployment), "model": deployment.upstream_model}, deployment.manners)
            able.append(deployment)
        except Untranslatable as refusal:
            refusals.append(refusal)
    if refusals and not able:
        raise refusals[0]
    return able


def spoken(deployment: Deployment, call: Call) -> Speech:
    """The call as it is sent to this deployment.

    Raises:
        Untranslatable: the provider can't be told a part of it

    """
    request = call.make_request() if call.make_request is not None else None
    if request is not None and call.operation:
        return _of_input(deployment, call, request)
    if request is None or not call.creates:
        body = None if request is None else jsontext.dumps(request)
        return Speech(deployment.url(*call.path, query=call.query), body)
    url = deployment.create_url(str(request["model"]), stream=bool(request.get("stream")))
    if deployment.keeps_responses:
        filled = with_defaults(request, of_responses(deployment.defaults))
        return Speech(url, jsontext.dumps(deployment.operation.worded({**filled, **deployment.extra_body})))
    told = translated(with_defaults(request, deployment.defaults), deployment.manners)
    seed = item_seed(call.response_id)
    dialect, created_at = deployment.manners.dialect, int(time.time())
    reply = Reply(dialect, call.response_id, seed, created_at, told.custom_tools, told.namespaced)
    worded = deployment.operation.worded({**told.body, **deployment.extra_body})
    headers = _headers(deployment, told.betas)
    if deployment.operation.betas_in_body and (betas := _betas_in({**deployment.headers, **headers})):
        worded = {"anthropic_beta": betas, **worded}
    return Speech(url, jsontext.dumps(worded), headers, reply)


def _of_input(deployment: Deployment, call: Call, request: dict[str, Any]) -> Speech:
    """An operation on an input. What a deployment adds to each request belongs to the input as well."""
    fields = _OF_INPUT[call.operation]
    defaults = {name: value for name, value in deployment.defaults.items() if name in fields}
    filled = with_defaults(request, defaults)
    if deployment.keeps_responses:
        return Speech(deployment.url(*call.path), jsontext.dumps(filled))
    told = translated(filled, deployment.manners)
    body = jsontext.dumps({**deployment.operation.adds, **counted(told.body)})
    return Speech(deployment.counting_url, body, _headers(deployment, told.betas), Count())


def _betas_in(headers: Mapping[str, str]) -> list[str]:
    """The trials of Anthropic's that a header names."""
    values = [value for name, value in headers.items() if name.lower() == _BETA]
    return [beta.strip() for value in values for beta in value.split(",") if beta.strip()]


def _headers(deployment: Deployment, betas: Sequence[str]) -> dict[str, str]:
    """The header that names trials of Anthropic's, with those that the config names."""
    name = next((name for name in deployment.headers if name.lower() == _BETA), _BETA)
    named = [configured] if (configured := deployment.headers.get(name)) else []
    return {name: ",".join([*named, *betas])} if betas else {}
