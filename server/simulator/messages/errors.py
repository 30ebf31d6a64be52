"""Errors in Anthropic's shape, which has a type where OpenAI's has a code."""

from server.simulator.errors import ApiError
from server.simulator.turn import Json

_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_CLIENT, _SERVER = "invalid_request_error", "api_error"


def error_body(error: ApiError) -> Json:
    """The body of an error; in the stream it is this, and outside of it has a `request_id` too."""
    kind = _TYPES.get(error.status, _SERVER if error.status >= 500 else _CLIENT)
    if error.code in {*_TYPES.values(), _SERVER, _CLIENT}:
        kind = error.code
    return {"type": "error", "error": {"type": kind, "message": error.message}}
