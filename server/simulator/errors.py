"""The errors of the API, as exceptions: raised anywhere below, turned into HTTP in one middleware."""

from typing import Any

_TYPES = {429: "requests"}


class ApiError(Exception):
    """An answer in OpenAI's error shape. The type follows from the status, as it does at OpenAI."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        default = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = _TYPES.get(self.status, default)
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def invalid_type(param: str, expected: str, value: object) -> ApiError:
    """The 400 for a field of the wrong JSON type."""
    got = {str: "a string", bool: "a boolean", int: "an integer", float: "a decimal", list: "an array"}
    named = got.get(type(value), "null" if value is None else "an object")
    message = f"Invalid type for '{param}': expected {expected}, but got {named} instead."
    return ApiError(400, message, code="invalid_type", param=param)


def not_found(response_id: str) -> ApiError:
    return ApiError(404, f"Response with id '{response_id}' not found.")
