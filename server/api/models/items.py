"""Items of input and output, and what they are made of. Only what most clients read is described: more types exist."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from server.api.models.base import Open, Passed


class InputItem(Open):
    """An item of the input: a message (`role` and `content`), or whatever its `type` says."""

    type: str | None = Field(None, description="`message` if left out, where there is a `role`.")
    id: str | None = Field(None, description="Its id; one is made if left out.")
    role: Passed[str] = Field("", description="Of a message: `user`, `assistant`, `system` or `developer`.")
    content: Passed[str | list[dict[str, Any]]] = Field("", description="Of a message: a text, or parts.")


class Tool(Open):
    """A tool that the model may call: `function` with a name and parameters, or one that the provider has."""

    type: str = Field(description="`function`, `web_search`, `mcp` …")


class Reasoning(Open):
    """How the model reasons."""

    effort: Passed[str | None] = Field(None, description="How much, such as `low` or `high`.")
    summary: Passed[str | None] = Field(None, description="Whether a summary of it is shown.")


class ResponseTextParam(Open):
    """The form of the text."""

    format: Passed[dict[str, Any] | None] = Field(None, description="`text`, or a JSON schema.")
    verbosity: Passed[str | None] = Field(None, description="How much is said.")


class OutputTextContent(Open):
    """A text of a message."""

    type: Literal["output_text"]
    text: str = Field(description="The text.")
    annotations: list[dict[str, Any]] = Field([], description="Sources and files that parts of the text come from.")


class RefusalContent(Open):
    """The model's refusal."""

    type: Literal["refusal"]
    refusal: str = Field(description="Why.")


class OutputMessage(Open):
    """A message of the model."""

    id: str = Field(description="Its id.")
    type: Literal["message"]
    role: Literal["assistant"]
    status: str | None = Field(None, description="`in_progress`, `completed` or `incomplete`.")
    content: list[OutputTextContent | RefusalContent | dict[str, Any]] = Field(description="Its parts.")


class FunctionToolCall(Open):
    """A call of a function that the client has."""

    id: str | None = Field(None, description="Its id.")
    type: Literal["function_call"]
    call_id: str = Field(description="What the result of the call names.")
    name: str = Field(description="The function.")
    arguments: str = Field(description="Its arguments, as JSON.")
    status: str | None = Field(None, description="`in_progress`, `completed` or `incomplete`.")


class ReasoningItem(Open):
    """What the model thought, as far as it is shown."""

    id: str = Field(description="Its id.")
    type: Literal["reasoning"]
    summary: list[dict[str, Any]] = Field([], description="A summary of it.")
    encrypted_content: str | None = Field(None, description="The whole, for the model alone.")


class OtherItem(Open):
    """An item of another type: the call of a tool of the provider's, a compaction …"""

    type: str = Field(description="Its type.")


OutputItem = OutputMessage | FunctionToolCall | ReasoningItem | OtherItem


class ItemResource(Open):
    """An item of the input, as it is listed."""

    type: str = Field(description="Its type.")
    id: str = Field(description="Its id.")
