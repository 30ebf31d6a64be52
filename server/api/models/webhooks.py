"""What webhook endpoints and deliveries look like: OpenAI's objects, with a few keys of ours."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from server.api.models.base import Described
from server.api.models.bodies import EventType

_OURS: Any = {"x-pollux-extension": True}


class WebhookEventTypeList(Described):
    """The types of events that endpoints can be told of."""

    object: Literal["list"]
    data: list[EventType]


class WebhookEndpoint(Described):
    """An endpoint that is told of the ends of its owner's responses."""

    id: str = Field(description="Its id.")
    object: Literal["webhook_endpoint"]
    created_at: int = Field(description="When it was made, in seconds of Unix's time.")
    updated_at: int = Field(description="When it was last changed.")
    name: str = Field(description="What people call it.")
    url: str = Field(description="Where events are sent.")
    event_types: list[EventType] = Field(description="Of which ends it is told.")
    signing_secret_hint: str = Field(description="The end of the secret, to tell it from others.")
    status: Literal["healthy", "failing", "paused"] = Field(
        description="Whether it takes what it is sent. One that is paused gets one event a minute until it takes one.",
        json_schema_extra=_OURS,
    )
    last_failure: str | None = Field(description="Why it last took none.", json_schema_extra=_OURS)


class WebhookEndpointWithSecret(WebhookEndpoint):
    """An endpoint with its secret, which no other answer shows."""

    signing_secret: str = Field(description="Signs events by the Standard Webhooks scheme.")


class WebhookEndpointList(Described):
    """A page of endpoints."""

    object: Literal["list"]
    data: list[WebhookEndpoint] = Field(description="Newest first.")
    first_id: str | None = Field(description="The id of the first one.")
    last_id: str | None = Field(description="The id of the last one.")
    has_more: bool = Field(description="Whether there are more behind the last one.")


class DeletedWebhookEndpoint(Described):
    """An endpoint that is no more."""

    id: str = Field(description="The id that it had.")
    object: Literal["webhook_endpoint.deleted"]
    deleted: Literal[True]


class WebhookEndpointTest(Described):
    """How an endpoint took a sample event."""

    object: Literal["webhook_endpoint.test"]
    webhook_endpoint_id: str = Field(description="The endpoint.")
    event_type: EventType
    success: Literal[True]
    status_code: int = Field(description="What it answered.")


class WebhookDelivery(Described):
    """An event on its way to an endpoint, or there."""

    object: Literal["webhook_delivery"]
    event_id: str = Field(description="The event.")
    event_type: EventType
    response_id: str = Field(description="The response that it is about.")
    status: Literal["pending", "delivered", "failed"]
    attempts: int = Field(description="How often it was sent.")
    last_attempt_at: int | None = Field(description="When it was last sent, in seconds of Unix's time.")
    status_code: int | None = Field(description="What the endpoint answered.")
    latency_ms: int | None = Field(description="How long that took.")
    error: str | None = Field(description="Why the endpoint did not take it.")


class WebhookDeliveryList(Described):
    """The last deliveries to an endpoint."""

    object: Literal["list"]
    data: list[WebhookDelivery] = Field(description="Newest first.")
    has_more: bool = Field(description="Always false: older ones are not kept.")
