"""The form of errors."""

from __future__ import annotations

from pydantic import Field

from server.api.models.base import Described


class Error(Described):
    """What went wrong."""

    message: str = Field(description="What to do, for people.")
    type: str = Field(description="The kind of error, such as `invalid_request_error`.")
    param: str | None = Field(description="The field or parameter that it is about.")
    code: str | None = Field(description="What went wrong, for programs.")


class ErrorResponse(Described):
    """The answer to a request that is refused."""

    error: Error
