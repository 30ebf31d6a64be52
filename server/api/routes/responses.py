"""Responses: making, reading, waiting for, cancelling and deleting them."""

from __future__ import annotations

from server.api import parameters as of
from server.api.control import cancel_response, delete_response
from server.api.create import create_response
from server.api.elsewhere import UNKNOWN, forward_elsewhere
from server.api.input import compact_input, count_input_tokens
from server.api.lists import list_input_items, list_responses
from server.api.many import cancel_many
from server.api.operation import Operation, Tag
from server.api.retrieve import retrieve_response
from server.errors import (
    BadRequest,
    Forbidden,
    IdempotencyKeyReused,
    InvalidType,
    InvalidValue,
    MissingParameter,
    ModelNotFound,
    ModelNotServed,
    NotFound,
    OperationNotServed,
    PreviousNotFinished,
    PreviousNotFound,
    RateLimited,
    ResponseNotFound,
    Untranslatable,
    UpstreamRefusal,
    UpstreamTimeout,
    UpstreamUnavailable,
)

_PROVIDERS = (UpstreamRefusal, UpstreamUnavailable, UpstreamTimeout)
"""What a provider can make of a request that is passed on to it."""
_ASKING = (InvalidType, InvalidValue, MissingParameter, ModelNotFound, ModelNotServed, Forbidden)
_CONTINUING = (PreviousNotFound, PreviousNotFinished)

CREATE = Operation(
    method="POST",
    path="/responses",
    handler=create_response,
    summary="Create a response",
    tag=Tag.RESPONSES,
    details="""Without `background` the request is passed on to a provider, and its answer passed back. With \
`background: true` the answer comes at once, and the response goes on without its client: at the provider, or run by \
Pollux, as the config says for the model. `GET /v1/responses/{id}` tells how it does.

With `stream: true` the answer is the events of the response. A stream of a background response can be resumed, on any \
replica: `GET /v1/responses/{id}?stream=true&starting_after=N`.""",
    parameters=(of.PREFER, of.WAIT, of.IDEMPOTENCY_KEY),
    body="CreateResponse",
    answer="ResponseResource",
    events="ResponseStreamEvent",
    headers=("ETag", "Preference-Applied", "openai-poll-after-ms", "x-litellm-model-group"),
    errors=(*_ASKING, *_CONTINUING, *_PROVIDERS, IdempotencyKeyReused, Untranslatable, RateLimited, BadRequest),
)
LIST = Operation(
    method="GET",
    path="/responses",
    handler=list_responses,
    summary="List responses, or wait for several",
    tag=Tag.RESPONSES,
    details="""The caller's own responses that Pollux runs, newest first.

With `ids`, these instead, in their order, native ones too; with `wait` as soon as any or all of them have ended. An \
object of type `error` stands in the place of one that can't be shown.""",
    parameters=(
        *of.ours(of.limit(20, 100), of.AFTER, of.STATUS, of.IDS, of.UNTIL),
        of.WAIT,
        of.PREFER,
    ),
    answer="ResponseList",
    headers=("Preference-Applied", "openai-poll-after-ms"),
    errors=(BadRequest, InvalidType, InvalidValue),
    ours=True,
)
RETRIEVE = Operation(
    method="GET",
    path="/responses/{id:[^/]+}",
    handler=retrieve_response,
    summary="Retrieve a response, or wait for it",
    tag=Tag.RESPONSES,
    details="""Its state, with all of its output that has arrived. With `wait` the answer comes when the response has \
ended, with `stream=true` it is the events of the response.""",
    parameters=(
        *(of.WAIT, of.PREFER, of.IF_NONE_MATCH, of.AFTER_STATE),
        *(of.STREAM, of.STARTING_AFTER, of.INCLUDE_OBFUSCATION, of.INCLUDE),
    ),
    answer="ResponseResource",
    events="ResponseStreamEvent",
    headers=("ETag", "Preference-Applied", "openai-poll-after-ms"),
    errors=(BadRequest, InvalidType, InvalidValue, ResponseNotFound, *_PROVIDERS),
    conditional=True,
)
CANCEL = Operation(
    method="POST",
    path="/responses/{id:[^/]+}/cancel",
    handler=cancel_response,
    summary="Cancel a background response",
    tag=Tag.RESPONSES,
    ends_work=True,
    details="Cancelling one that was cancelled before changes nothing; one that has ended otherwise is refused.",
    answer="ResponseResource",
    headers=("ETag",),
    errors=(BadRequest, ResponseNotFound, *_PROVIDERS),
)
DELETE = Operation(
    method="DELETE",
    path="/responses/{id:[^/]+}",
    handler=delete_response,
    summary="Delete a response",
    tag=Tag.RESPONSES,
    ends_work=True,
    details="One that is running is cancelled first, if Pollux runs it.",
    answer="DeletedResponse",
    errors=(ResponseNotFound, *_PROVIDERS),
)
INPUT_ITEMS = Operation(
    method="GET",
    path="/responses/{id:[^/]+}/input_items",
    handler=list_input_items,
    summary="List the input of a response",
    tag=Tag.RESPONSES,
    parameters=(of.limit(20, 100), of.ORDER, of.AFTER, of.INCLUDE),
    answer="ResponseItemList",
    errors=(BadRequest, InvalidType, InvalidValue, ResponseNotFound, *_PROVIDERS),
)
CANCEL_MANY = Operation(
    method="POST",
    path="/responses/cancel",
    handler=cancel_many,
    summary="Cancel several responses",
    tag=Tag.RESPONSES,
    ends_work=True,
    details="What hinders one does not hinder the others: an object of type `error` says it in the place of that one.",
    body="CancelResponses",
    answer="ResponseList",
    errors=(InvalidType, InvalidValue, MissingParameter),
    ours=True,
)
COMPACT = Operation(
    method="POST",
    path="/responses/compact",
    handler=compact_input,
    summary="Compact a conversation",
    tag=Tag.RESPONSES,
    details="Done by the model's provider, which alone can read the result.",
    body="CompactConversation",
    answer="CompactResource",
    errors=(*_ASKING, *_CONTINUING, *_PROVIDERS, OperationNotServed, Untranslatable, RateLimited),
)
INPUT_TOKENS = Operation(
    method="POST",
    path="/responses/input_tokens",
    handler=count_input_tokens,
    summary="Count the tokens of an input",
    tag=Tag.RESPONSES,
    details="Done by the model's provider. A request without a model is about that of its previous response.",
    body="TokenCountsBody",
    answer="TokenCountsResource",
    errors=(*_ASKING, *_CONTINUING, *_PROVIDERS, OperationNotServed, Untranslatable, RateLimited),
)
_UNKNOWN = tuple(
    Operation(
        method=method,
        path=f"/responses/{{id:[^/]+}}/{{operation:{UNKNOWN}}}",
        handler=forward_elsewhere,
        name=f"{method.lower()}_elsewhere",
        summary=f"{done} the provider of a response",
        tag=Tag.RESPONSES,
        details="Whatever else a provider offers for a response is left to it; `operation` may contain slashes. What a "
        "provider does not know is its refusal.",
        body="" if method == "GET" else "AnyObject",
        body_optional=True,
        answer="Anything",
        errors=(NotFound, ResponseNotFound, *_PROVIDERS),
        ours=True,
    )
    for method, done in (("GET", "Ask"), ("POST", "Tell"), ("DELETE", "Delete at"))
)

RESPONSES = (
    *(CREATE, LIST, RETRIEVE, CANCEL, DELETE, INPUT_ITEMS, CANCEL_MANY, COMPACT, INPUT_TOKENS),
    *_UNKNOWN,
)
