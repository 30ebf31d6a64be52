"""Webhook endpoints, as OpenAI's SDK manages them."""

from __future__ import annotations

from server.api import parameters as of
from server.api.operation import Operation, Tag
from server.api.webhooks import (
    create_endpoint,
    delete_endpoint,
    list_deliveries,
    list_endpoints,
    list_event_types,
    redeliver,
    retrieve_endpoint,
    rotate_secret,
    test_endpoint,
    update_endpoint,
)
from server.errors import BadRequest, Forbidden, InvalidType, InvalidValue, MissingParameter, NotFound

_ENDPOINT = "/webhook_endpoints/{id:[^/]+}"
_BODY = (InvalidType, InvalidValue)

WEBHOOKS = (
    Operation(
        method="GET",
        path="/webhook_event_types",
        handler=list_event_types,
        summary="List the types of events that webhooks can tell of",
        tag=Tag.WEBHOOKS,
        answer="WebhookEventTypeList",
    ),
    Operation(
        method="POST",
        path="/webhook_endpoints",
        handler=create_endpoint,
        summary="Create a webhook endpoint",
        tag=Tag.WEBHOOKS,
        details="It belongs to the key that made it, and is told of the ends of that owner's responses which Pollux "
        "runs. The answer is the only one that shows the signing secret.",
        body="CreateWebhookEndpoint",
        answer="WebhookEndpointWithSecret",
        errors=(*_BODY, MissingParameter, BadRequest, Forbidden),
    ),
    Operation(
        method="GET",
        path="/webhook_endpoints",
        handler=list_endpoints,
        summary="List webhook endpoints",
        tag=Tag.WEBHOOKS,
        parameters=(of.limit(20, 100), of.AFTER),
        answer="WebhookEndpointList",
        errors=(BadRequest, *_BODY),
    ),
    Operation(
        method="GET",
        path=_ENDPOINT,
        handler=retrieve_endpoint,
        summary="Retrieve a webhook endpoint",
        tag=Tag.WEBHOOKS,
        answer="WebhookEndpoint",
        errors=(NotFound,),
    ),
    Operation(
        method="POST",
        path=_ENDPOINT,
        handler=update_endpoint,
        summary="Change a webhook endpoint",
        tag=Tag.WEBHOOKS,
        body="UpdateWebhookEndpoint",
        answer="WebhookEndpoint",
        errors=(*_BODY, NotFound),
    ),
    Operation(
        method="DELETE",
        path=_ENDPOINT,
        handler=delete_endpoint,
        summary="Delete a webhook endpoint",
        tag=Tag.WEBHOOKS,
        answer="DeletedWebhookEndpoint",
        errors=(NotFound,),
    ),
    Operation(
        method="POST",
        path=f"{_ENDPOINT}/rotate_secret",
        handler=rotate_secret,
        summary="Replace the signing secret of a webhook endpoint",
        tag=Tag.WEBHOOKS,
        body="RotateSecret",
        body_optional=True,
        answer="WebhookEndpointWithSecret",
        errors=(InvalidType, NotFound),
    ),
    Operation(
        method="POST",
        path=f"{_ENDPOINT}/test",
        handler=test_endpoint,
        summary="Send a sample event to a webhook endpoint",
        tag=Tag.WEBHOOKS,
        details="Once, now; the answer tells how the endpoint took it.",
        body="TestWebhookEndpoint",
        answer="WebhookEndpointTest",
        errors=(*_BODY, MissingParameter, BadRequest, NotFound),
    ),
    Operation(
        method="GET",
        path=f"{_ENDPOINT}/deliveries",
        handler=list_deliveries,
        summary="List the last deliveries to a webhook endpoint",
        tag=Tag.WEBHOOKS,
        answer="WebhookDeliveryList",
        errors=(NotFound,),
        ours=True,
    ),
    Operation(
        method="POST",
        path=f"{_ENDPOINT}/redeliver",
        handler=redeliver,
        summary="Send one of the last events once more",
        tag=Tag.WEBHOOKS,
        body="RedeliverEvent",
        answer="WebhookDelivery",
        errors=(InvalidType, MissingParameter, NotFound),
        ours=True,
    ),
)
