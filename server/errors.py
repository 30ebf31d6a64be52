"""Every error that a client can get. Each class defines its status, type and code; the JSON has OpenAI's error format.

PolluxError
├── BadRequest 400                 MalformedHttp, InvalidJson, InvalidType, MissingParameter, PreviousNotFound …
├── Unauthorized 401
├── Forbidden 403, MasterOnly 403
├── NotFound 404                   ResponseNotFound, ModelNotFound
├── RequestTimeout 408             the client was too slow
├── TooLarge 413, UriTooLong 414, UnknownEncoding 415, ExpectationFailed 417, UpgradeRequired 426
├── RateLimited 429
├── HeadTooLarge 431
├── Unavailable 503                the store is away, or this process is draining
├── UpstreamUnavailable 502, UpstreamTimeout 504
└── UpstreamRefusal                an upstream's own status and error, passed on

409 is never used, because SDKs retry it, even for a POST, and without an idempotency key.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from server.protocol import jsontext


class PolluxError(Exception):
    """An error that becomes an HTTP answer. The client gets `message`, so it contains no key, URL or stack."""

    status = 500
    type = "server_error"
    code: str | None = None
    param: str | None = None
    retry_after_s: str | None = None

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param or self.param
        self.code = code or self.code

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": self.retry_after_s} if self.retry_after_s else {}

    def body(self) -> bytes:
        """The JSON that the client gets. The error always has four keys."""
        return jsontext.dumps({"error": self.as_dict()})

    def as_dict(self) -> dict[str, Any]:
        return {"message": self.message, "type": self.type, "param": self.param, "code": self.code}


class BadRequest(PolluxError):
    status = 400
    type = "invalid_request_error"


class MalformedHttp(BadRequest):
    code = "malformed_http"

    def __init__(self, kind: str) -> None:
        super().__init__(f"This is not a valid HTTP request ({kind}).")


class InvalidJson(BadRequest):
    code = "invalid_json"


class MalformedBody(InvalidJson):
    def __init__(self) -> None:
        super().__init__("The request body is not encoded as its Content-Encoding or Transfer-Encoding says.")


class InvalidType(BadRequest):
    code = "invalid_type"

    def __init__(self, param: str, expected: str, got: Any) -> None:
        super().__init__(
            f"Invalid type for '{param}': expected {expected}, but got {json_type(got)} instead.", param=param
        )


class InvalidValue(BadRequest):
    code = "invalid_value"


class Untranslatable(BadRequest):
    """A request has a part that its provider can't be told. Another provider of the model may take it."""

    code = "unsupported_parameter"

    def __init__(self, provider: str, param: str, what: str) -> None:
        super().__init__(
            f"The provider '{shown(provider)}' has no equivalent of {what}, so '{shown(param)}' can't be sent to it. "
            "Leave it out, use a model of another provider, or let such fields be dropped (drop_params).",
            param=param,
        )


class MissingParameter(BadRequest):
    code = "missing_required_parameter"

    def __init__(self, param: str) -> None:
        super().__init__(f"Missing required parameter: '{param}'.", param=param)


class PreviousNotFinished(BadRequest):
    code = "previous_response_not_finished"
    param = "previous_response_id"

    def __init__(self, response_id: str, status: str) -> None:
        super().__init__(f"Previous response with id '{response_id}' is {status}: wait until it has ended.")


class PreviousNotFound(BadRequest):
    code = "previous_response_not_found"
    param = "previous_response_id"

    def __init__(self, response_id: str, why: str = "not found", hint: str = "") -> None:
        super().__init__(f"Previous response with id '{shown(response_id)}' {why}. {hint}".rstrip())


class IdempotencyKeyReused(BadRequest):
    code = "idempotency_key_reused"

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was used with another request body. Use a new key for a new request.")


class Unauthorized(PolluxError):
    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


class Forbidden(PolluxError):
    """The key is accepted because a provider decides about it, and here none would."""

    status = 403
    type = "invalid_request_error"
    code = "key_not_configured"


class MasterOnly(PolluxError):
    """What is asked for is shown to the master key alone."""

    status = 403
    type = "invalid_request_error"
    code = "master_key_required"


class NotFound(PolluxError):
    status = 404
    type = "invalid_request_error"


class ResponseNotFound(NotFound):
    def __init__(self, response_id: str, hint: str = "") -> None:
        super().__init__(f"Response with id '{shown(response_id)}' not found. {hint}".rstrip())


class ModelNotFound(NotFound):
    code = "model_not_found"
    param = "model"

    def __init__(self, model: str, *, param: str | None = None) -> None:
        super().__init__(f"The model '{shown(model)}' does not exist or you do not have access to it.", param=param)


class ModelNotServed(BadRequest):
    """The config has the model, but none of its deployments can be used. The reason says what to write there."""

    code = "model_not_served"
    param = "model"

    def __init__(self, model: str, why: str) -> None:
        super().__init__(f"The model '{shown(model)}' can't be served here: {why}.")


class OperationNotServed(BadRequest):
    """The provider of a model lacks an operation, and nothing here stands in for it."""

    code = "operation_not_served"
    param = "model"

    def __init__(self, model: str, provider: str, what: str) -> None:
        super().__init__(f"The provider '{shown(provider)}' of the model '{shown(model)}' can't {what}.")


class MethodNotAllowed(PolluxError):
    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"

    def __init__(self, method: str, allowed: Collection[str]) -> None:
        self.allowed = ", ".join(sorted(allowed))
        super().__init__(f"{method} is not allowed here. Allowed are: {self.allowed}.")

    @property
    def headers(self) -> dict[str, str]:
        return {"Allow": self.allowed}


class RequestTimeout(PolluxError):
    """A part of the request is missing, and the client was too slow with it. SDKs send it again on their own."""

    status = 408
    type = "invalid_request_error"
    code = "request_timeout"

    def __init__(self, missing: str) -> None:
        super().__init__(f"The request is incomplete: {missing} did not come in time.")


class CertificateRequired(PolluxError):
    """The config has `pollux.tls.client_ca_file`, and the client has shown no certificate."""

    status = 403
    type = "invalid_request_error"
    code = "certificate_required"

    def __init__(self) -> None:
        super().__init__("This server serves only clients that show a certificate when they connect.")


class UriTooLong(PolluxError):
    status = 414
    type = "invalid_request_error"
    code = "uri_too_long"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"The path with its query is longer than the limit of {limit_bytes} bytes.")


class HeadTooLarge(PolluxError):
    status = 431
    type = "invalid_request_error"
    code = "headers_too_large"

    def __init__(self) -> None:
        super().__init__("The request has a header of more than 8190 bytes, or more than 128 headers.")


class TooLarge(PolluxError):
    status = 413
    type = "invalid_request_error"
    code = "request_too_large"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"The request body is larger than the limit of {limit_bytes} bytes.")


class UnknownEncoding(PolluxError):
    status = 415
    type = "invalid_request_error"
    code = "unsupported_encoding"

    def __init__(self, given: str, known: str) -> None:
        super().__init__(f"The Content-Encoding '{shown(given)}' is not supported. Supported are: {known}.")
        self.known = known

    @property
    def headers(self) -> dict[str, str]:
        return {"Accept-Encoding": self.known}  # RFC 9110, section 15.5.16


class ExpectationFailed(PolluxError):
    status = 417
    type = "invalid_request_error"
    code = "expectation_failed"

    def __init__(self, given: str) -> None:
        super().__init__(f"The expectation '{shown(given)}' can't be met. Known is: 100-continue.")


class UpgradeRequired(PolluxError):
    """The client asked for a WebSocket. After this error Codex, for example, uses plain HTTP."""

    status = 426
    type = "invalid_request_error"
    code = "websocket_not_supported"

    def __init__(self) -> None:
        super().__init__("WebSockets are not served here. Send the request over HTTP, with stream=true for events.")

    @property
    def headers(self) -> dict[str, str]:
        return {"Upgrade": "HTTP/1.1", "Connection": "Upgrade"}  # RFC 9110, section 15.5.22


class RateLimited(PolluxError):
    """The key, the service or the deployment has as many requests in flight, or in a minute, as it may."""

    status = 429
    type = "requests"
    code = "rate_limit_exceeded"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        # Above 120 s the SDKs do not retry on their own.
        self.retry_after_s = str(min(max(retry_after_s, 1), 120))


class Unavailable(PolluxError):
    status = 503
    code = "service_unavailable"
    retry_after_s = "2"


class Internal(PolluxError):
    """A defect in Pollux. The log has the stack, under the request id."""

    code = "internal_error"

    def __init__(self) -> None:
        super().__init__("Pollux met an internal error. The log tells more under this request's id.")


class UpstreamUnavailable(PolluxError):
    status = 502
    code = "upstream_unavailable"

    def __init__(self, message: str, *, begun: bool = False) -> None:
        super().__init__(message)
        self.begun = begun
        """Whether the upstream had begun to answer. If so, it may have carried out the call, or still be doing so."""


class UpstreamTimeout(PolluxError):
    status = 504
    code = "upstream_timeout"


class UpstreamRefusal(PolluxError):
    """An upstream's error answer: its status, its four fields, and the pause that it asked for."""

    def __init__(
        self,
        status: int,
        error: dict[str, Any],
        passed_on: Mapping[str, str] | None = None,
        pause_s: float | None = None,
    ) -> None:
        super().__init__(str(error.get("message") or f"The provider answered with status {status}."))
        self.status = status
        self.given_type = None if error.get("type") is None else str(error["type"])
        self.type = self.given_type or ("server_error" if status >= 500 else "invalid_request_error")
        self.code = None if error.get("code") is None else str(error["code"])
        self.param = None if error.get("param") is None else str(error["param"])
        self.passed_on = dict(passed_on or {})
        """The upstream's headers that the client gets."""
        self.pause_s = pause_s
        """The pause that the upstream asked for, in seconds, in a header or in words."""

    @property
    def headers(self) -> dict[str, str]:
        if self.pause_s is None or any(name.lower() == "retry-after" for name in self.passed_on):
            return self.passed_on
        return {"Retry-After": str(max(1, math.ceil(self.pause_s))), **self.passed_on}


def json_type(value: Any) -> str:
    """The JSON name of a value's type, with its article."""
    names = {bool: "a boolean", str: "a string", int: "an integer", float: "a number", list: "an array"}
    if value is None:
        return "null"
    return names.get(type(value), "an object")


def shown(text: str) -> str:
    """A client's text made safe for a message: printable and short."""
    clean = "".join(c if c.isprintable() else "?" for c in text[:200])
    return clean + ("…" if len(text) > 200 else "")
