"""What a create call sends. What Pollux reads of it is checked; the rest is described, and the provider judges it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from server.api.models.base import Open, Passed, extension
from server.api.models.items import InputItem, Reasoning, ResponseTextParam, Tool
from server.protocol.litellm_fields import LONGEST_TIMEOUT_S, MOST_RETRIES

Seconds = Annotated[float, Field(gt=0, le=LONGEST_TIMEOUT_S)]


class BackgroundOptions(Open):
    """How a background response is run."""

    completion_window: Literal["soonest", "2h", "8h"] | None = Field(
        None,
        description="Within what time the response should be completed. In Pollux's own queue it decides which of an "
        "owner's jobs begins first.",
    )


class WebhookOfResponse(Open):
    """An endpoint that is told of the end of one response alone."""

    url: str = Field(description="Where the event is sent.")
    secret: str | None = Field(
        None, description="Signs it: `whsec_` and the base64 of 24 to 64 random bytes. Not signed if left out."
    )


class ResponseStreamOptions(Open):
    """How events are sent."""

    include_obfuscation: bool | None = Field(None, description="Whether events carry padding.")


class AboutInput(Open):
    """What calls have in common that are about an input. A null means the same as a field that is left out."""

    input: str | list[InputItem] | None = Field(
        None, description="A text, or items: messages, results of tool calls, output of earlier responses."
    )
    instructions: Passed[str | None] = Field(None, description="A system message, which is not carried over.")
    previous_response_id: str | None = Field(
        None,
        description="The response that this one continues. It works on providers that keep nothing, too: its turns are "
        "put in front of the input.",
    )
    tools: list[Passed[Tool]] | None = Field(None, description="The tools that the model may call.")
    tool_choice: Passed[str | dict[str, Any] | None] = Field(None, description="`auto`, `none`, `required`, or a tool.")
    reasoning: Reasoning | None = Field(None, description="How the model reasons.")
    text: ResponseTextParam | None = Field(None, description="The form of the text, such as a JSON schema.")
    parallel_tool_calls: Passed[bool | None] = Field(None, description="Whether tools may be called side by side.")
    truncation: Passed[Literal["auto", "disabled"] | None] = Field(None, description="What happens to long input.")


class CreateResponse(AboutInput):
    """A request for a response. Fields that are not named here are passed on to the provider."""

    model: str = Field(min_length=1, description="A name of the config; `GET /v1/models` lists them.")
    background: bool | None = Field(
        None, description="Whether the response goes on without its client, which asks for it later."
    )
    stream: bool | None = Field(None, description="Whether the answer is the events of the response.")
    store: bool | None = Field(
        None,
        description="Whether the response is kept. One in the background is kept for ten minutes anyway.",
    )
    background_options: BackgroundOptions | None = Field(None, description="How it is run in the background.")
    metadata: dict[str, Passed[str]] | None = Field(
        None, description="Up to 16 texts of the client's own, shown with the response and in its events."
    )
    include: list[Passed[str]] | None = Field(None, description="What else the output shall contain.")
    max_output_tokens: Passed[int | None] = Field(None, description="The most tokens of the output and of reasoning.")
    max_tool_calls: Passed[int | None] = Field(None, description="The most calls of built-in tools.")
    temperature: Passed[float | None] = Field(None, description="How random the output is, 0 to 2.")
    top_p: Passed[float | None] = Field(None, description="From how much of the likeliest tokens is drawn, 0 to 1.")
    top_logprobs: Passed[int | None] = Field(None, description="How many likely tokens are told at each place.")
    service_tier: Passed[str | None] = Field(
        None, description="The provider's tier of processing. `flex` counts as the window `8h` in Pollux's queue."
    )
    prompt: Passed[dict[str, Any] | None] = Field(None, description="A template that the provider keeps.")
    prompt_cache_key: Passed[str | None] = Field(None, description="What makes requests share a cache.")
    prompt_cache_retention: Passed[str | None] = Field(None, description="How long the cache is kept.")
    safety_identifier: Passed[str | None] = Field(None, description="A stable name of the end user, best a hash.")
    user: Passed[str | None] = Field(None, description="The former name of `safety_identifier`.")
    conversation: Passed[str | dict[str, Any] | None] = Field(
        None, description="A conversation that the provider keeps. Such ids are not bound to a key."
    )
    stream_options: Passed[ResponseStreamOptions | None] = Field(None, description="How events are sent.")

    num_retries: Annotated[int, Field(ge=0, le=MOST_RETRIES)] | None = extension(
        "How often another try is made before output. LiteLLM's field."
    )
    timeout: Seconds | None = extension(
        "Within how many seconds an answer must have come, or a stream begun. LiteLLM's field."
    )
    stream_timeout: Seconds | None = extension("Within how many seconds a stream must have begun. LiteLLM's field.")
    fallbacks: list[Any] | None = extension("The models that follow if this one fails. LiteLLM's field.")
    webhook: Passed[WebhookOfResponse | None] = extension(
        "An endpoint that is told of the end of this response alone. Where `webhook_per_request` allows it."
    )


class TokenCountsBody(AboutInput):
    """A request for the number of tokens of an input."""

    model: str | None = Field(
        None, description="A name of the config. If left out, the model of the previous response, which is then needed."
    )


class CompactConversation(AboutInput):
    """A request for a shorter form of a conversation."""

    model: str = Field(min_length=1, description="A name of the config.")
