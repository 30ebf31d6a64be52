"""Events: those of a response's stream, and those that tell of a change of its status."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, RootModel

from server.api.models.base import Described, Open
from server.api.models.items import OutputItem
from server.api.models.response import ResponseResource


class _OfStream(Open):
    sequence_number: int | None = Field(
        None, description="Its place in the stream: of a response that Pollux runs 0, 1, 2 … without a gap, for ever."
    )


class ResponseLifecycleEvent(_OfStream):
    """The response has taken a status. The last three types are the end of the stream."""

    type: Literal[
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.completed",
        "response.failed",
        "response.incomplete",
    ] = Field(description="A cancelled response ends with `response.failed`; its status says `cancelled`.")
    response: ResponseResource


class ResponseOutputItemEvent(_OfStream):
    """An item of the output begins or is done."""

    type: Literal["response.output_item.added", "response.output_item.done"]
    output_index: int = Field(description="Its place in the output.")
    item: OutputItem


class ResponseTextDeltaEvent(_OfStream):
    """A piece of a text."""

    type: Literal["response.output_text.delta"]
    item_id: str = Field(description="The message.")
    output_index: int = Field(description="Its place in the output.")
    content_index: int = Field(description="The part of the message.")
    delta: str = Field(description="The piece.")


class OtherStreamEvent(_OfStream):
    """An event of another type. There are some sixty, and more come: pass over those that you do not know."""

    type: str


class ResponseStreamEvent(
    RootModel[ResponseLifecycleEvent | ResponseOutputItemEvent | ResponseTextDeltaEvent | OtherStreamEvent]
):
    """The data of one event of a response's stream: a frame of `event: <type>` and one line of `data: <this>`.

    A stream that breaks off before its last event goes on with `GET /v1/responses/{id}?stream=true&starting_after=N`.
    """


class StatusEventData(Described):
    """The response that a status event is about."""

    id: str | None = Field(None, description="The response.")
    status: str | None = Field(None, description="The status that it took, or `deleted`.")
    model: str | None = Field(None, description="Its model.")
    metadata: dict[str, Any] | None = Field(None, description="Its metadata; null where that is very long.")
    owner: str | None = Field(None, description="Whose it is, for the master key alone.")
    oldest: str | None = Field(None, description="Of `feed.gap`: the id of the oldest event that is still kept.")


class StatusEvent(Described):
    """A change of a response's status: the data of a frame of `GET /v1/events`, whose `id:` is the cursor."""

    id: str = Field(description="The same wherever the event is told of: here, by webhooks, in the log.")
    object: Literal["event"]
    created_at: int = Field(description="When it happened, in seconds of Unix's time.")
    type: Literal[
        "response.queued",
        "response.in_progress",
        "response.completed",
        "response.failed",
        "response.incomplete",
        "response.cancelled",
        "response.deleted",
        "feed.gap",
    ]
    data: StatusEventData


class WebhookData(Open):
    """The response that has ended."""

    id: str = Field(description="The response.")
    status: str = Field(description="How it ended.", json_schema_extra={"x-pollux-extension": True})
    model: str | None = Field(description="Its model.", json_schema_extra={"x-pollux-extension": True})
    metadata: dict[str, Any] | None = Field(description="Its metadata.", json_schema_extra={"x-pollux-extension": True})


class _Webhook(Open):
    id: str = Field(description="The same in every attempt: what was seen before can be passed over.")
    object: Literal["event"]
    created_at: int = Field(description="When it happened, in seconds of Unix's time.")
    data: WebhookData


class WebhookResponseCompleted(_Webhook):
    """A background response was completed."""

    type: Literal["response.completed"]


class WebhookResponseFailed(_Webhook):
    """A background response has failed."""

    type: Literal["response.failed"]


class WebhookResponseIncomplete(_Webhook):
    """A background response is incomplete."""

    type: Literal["response.incomplete"]


class WebhookResponseCancelled(_Webhook):
    """A background response was cancelled."""

    type: Literal["response.cancelled"]
