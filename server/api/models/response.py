"""Responses, and what else is told of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from server.api.models.base import Described, Open
from server.api.models.errors import Error
from server.api.models.items import ItemResource, OutputItem

ResponseStatus = Literal["queued", "in_progress", "completed", "failed", "incomplete", "cancelled"]


class ResponseError(Open):
    """Why a response failed."""

    code: str = Field(description="`timeout` and `worker_lost` are Pollux's own.")
    message: str = Field(description="The same in words.")


class IncompleteDetails(Open):
    """Why a response is incomplete."""

    reason: str | None = Field(None, description="Such as `max_output_tokens`.")


class InputTokensDetails(Open):
    """What kinds of tokens the input had."""

    cached_tokens: int = Field(0, description="Those that were read from a cache.")


class OutputTokensDetails(Open):
    """What kinds of tokens the output has."""

    reasoning_tokens: int = Field(0, description="Those of reasoning.")


class ResponseUsage(Open):
    """The tokens of a response."""

    input_tokens: int = Field(description="Those of the input.")
    input_tokens_details: InputTokensDetails | None = Field(None, description="Of what kinds they are.")
    output_tokens: int = Field(description="Those of the output, reasoning included.")
    output_tokens_details: OutputTokensDetails | None = Field(None, description="Of what kinds they are.")
    total_tokens: int = Field(description="All together.")


class ResponseResource(Open):
    """A response. One that Pollux runs has all of these keys; others are the provider's own objects."""

    id: str = Field(description="The same in every answer about it.")
    object: Literal["response"]
    created_at: int | float = Field(description="When it was created, in seconds of Unix's time.")
    status: ResponseStatus | None = Field(
        None,
        description="How it is doing; the last four are final. A provider may leave it out of an answer.",
    )
    model: str = Field(description="The model, as the request named it.")
    output: list[OutputItem] = Field(description="What it has said and done; while it runs, what has arrived.")
    background: bool | None = Field(None, description="Whether it goes on without its client.")
    completed_at: int | float | None = Field(None, description="When it was completed.")
    error: ResponseError | None = Field(None, description="Why it failed.")
    incomplete_details: IncompleteDetails | None = Field(None, description="Why it is incomplete.")
    previous_response_id: str | None = Field(None, description="The response that it continues.")
    usage: ResponseUsage | None = Field(None, description="The tokens that it took; null until it has ended.")
    metadata: dict[str, Any] | None = Field(None, description="As in the request.")
    instructions: str | list[Any] | None = Field(None, description="As in the request.")
    max_output_tokens: int | None = Field(None, description="As in the request.")
    max_tool_calls: int | None = Field(None, description="As in the request.")
    prompt_cache_key: str | None = Field(None, description="As in the request.")
    prompt_cache_retention: str | None = Field(None, description="As in the request.")
    safety_identifier: str | None = Field(None, description="As in the request.")
    user: str | None = Field(None, description="As in the request.")
    parallel_tool_calls: bool | None = Field(None, description="As in the request, or the default.")
    store: bool | None = Field(None, description="As in the request, or the default.")
    reasoning: dict[str, Any] | None = Field(None, description="As in the request, or the default.")
    text: dict[str, Any] | None = Field(None, description="As in the request, or the default.")
    service_tier: str | None = Field(None, description="As in the request, or the default.")
    truncation: str | None = Field(None, description="As in the request, or the default.")
    tool_choice: str | dict[str, Any] | None = Field(None, description="As in the request, or the default.")
    tools: list[dict[str, Any]] | None = Field(None, description="As in the request, without secrets.")
    temperature: float | None = Field(None, description="As in the request, or the default.")
    top_p: float | None = Field(None, description="As in the request, or the default.")
    presence_penalty: float | None = Field(None, description="As in the request, or the default.")
    frequency_penalty: float | None = Field(None, description="As in the request, or the default.")
    top_logprobs: int | None = Field(None, description="As in the request, or the default.")


class NotShown(Described):
    """In the place of a response in a list: why it can't be shown, or was not cancelled."""

    id: str = Field(description="The id that was asked for.")
    object: Literal["error"]
    status_code: int = Field(description="The status that a request for it alone would have.")
    error: Error


Listed = Annotated[ResponseResource | NotShown, Field(discriminator="object")]


class ResponseList(Described):
    """Responses."""

    object: Literal["list"]
    data: list[Listed] = Field(description="Newest first, or in the order of the ids that were asked for.")
    first_id: str | None = Field(description="The id of the first one.")
    last_id: str | None = Field(description="The id of the last one.")
    has_more: bool = Field(description="Whether there are more behind the last one.")


class ResponseItemList(Open):
    """Items of the input of a response."""

    object: Literal["list"]
    data: list[ItemResource] = Field(description="The items.")
    first_id: str | None = Field(None, description="The id of the first one.")
    last_id: str | None = Field(None, description="The id of the last one.")
    has_more: bool = Field(False, description="Whether there are more behind the last one.")


class DeletedResponse(Open):
    """A response that is no more."""

    id: str = Field(description="The id that it had.")
    object: str | None = Field(None, description="`response`; a provider may say `response.deleted`.")
    deleted: Literal[True]


class CompactResource(Open):
    """A compacted conversation."""

    id: str = Field(description="Its id.")
    object: Literal["response.compaction"]
    created_at: int | float = Field(description="When it was made, in seconds of Unix's time.")
    output: list[OutputItem] = Field(description="The input of the next request.")
    usage: ResponseUsage | None = Field(None, description="The tokens that it took.")


class TokenCountsResource(Open):
    """The size of an input."""

    object: Literal["response.input_tokens"]
    input_tokens: int = Field(description="Its tokens.")


class Model(Open):
    """A model."""

    id: str = Field(description="Its name.")
    object: Literal["model"]
    created: int = Field(description="The same for all: the config does not know it.")
    owned_by: str = Field(description="Its provider.")


class ListModelsResponse(Described):
    """Models."""

    object: Literal["list"]
    data: list[Model] = Field(description="In the order of the config.")
