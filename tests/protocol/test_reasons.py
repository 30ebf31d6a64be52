"""A provider's reason, whatever shape it comes in, and what it means for another try."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.protocol.reasons import (
    LONGEST_EXCERPT,
    LONGEST_MESSAGE,
    Remedy,
    is_limited,
    pause_in,
    reason_in,
    reason_of,
    remedy_for,
    status_for,
)
from tests.support.generated import json_values, moderate


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"No such tool.","type":"invalid_request_error","code":null}}', "No such tool."),
        (b'{"error":"model not loaded"}', "model not loaded"),
        (b'{"error":true,"message":"the flag is no reason"}', "the flag is no reason"),
        (b'{"message":"no Route matched"}', "no Route matched"),
        (b'{"Message":"not authorized"}', "not authorized"),
        (b'{"detail":"Not Found"}', "Not Found"),
        (b'{"detail":[{"loc":["body","model"],"msg":"field required"}]}', "body.model: field required"),
        (b'{"detail":{"error":{"message":"deep"}}}', "deep"),
        (b'{"object":"error","message":"too long","type":"BadRequestError","code":400}', "too long"),
        (b'{"errors":[{"message":"one"},"two"]}', "one; two"),
        (b'[{"error":{"code":429,"message":"Quota","status":"RESOURCE_EXHAUSTED"}}]', "Quota"),
        (b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}', "Overloaded"),
        (b'{"title":"Bad Request","detail":"temperature is too high","status":400}', "temperature is too high"),
        (b'{"title":"Bad Request","status":400}', "Bad Request"),
        (b'{"fault":{"faultstring":"Rate limit quota violation"}}', "Rate limit quota violation"),
        (b"<html><head><title>502 Bad Gateway</title></head><body>x</body></html>", "502 Bad Gateway"),
        (b"<TITLE lang='x'>502 Bad Gateway</TITLE><p>x", "502 Bad Gateway"),
        (b"<title></title><style>p > a { color: red }</style><p>Tea</p> 1 < 2", "Tea 1 < 2"),
        (b"<p>Tea<script>if (a<b>c) {", "Tea"),
        (b"<html><body><h1>Tea</h1><script>x()</script> time &amp; more</body></html>", "Tea time & more"),
        (b"upstream connect error\n or disconnect", "upstream connect error or disconnect"),
        (b'{"code":7}', '{"code":7}'),
        (b'{"error":{"message":"cut \\ud83d"}}', "cut \ud83d"),
        (b'{"message":"cu', '{"message":"cu'),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_the_reason_is_found_in_every_shape(body: bytes, message: str) -> None:
    assert reason_of(body)["message"] == message


def test_no_body_is_no_reason() -> None:
    assert reason_of(b" \n") == {}
    assert reason_in({"output": []}) is None


def test_an_excerpt_is_short_and_a_message_bounded() -> None:
    assert reason_of(b"word " * 1000)["message"] == ("word " * 1000)[:LONGEST_EXCERPT] + "…"
    assert len(reason_of(b'{"error":"%s"}' % (b"x" * 100_000))["message"]) == LONGEST_MESSAGE


@moderate
@given(json_values)
def test_whatever_it_says_there_is_a_message_or_nothing(body: object) -> None:
    fields = reason_in(body)
    assert fields is None or isinstance(fields["message"], str)
    assert remedy_for(None, fields or {}) in Remedy


@pytest.mark.parametrize(
    ("status", "fields", "remedy"),
    [
        (None, {}, Remedy.AGAIN),
        (None, {"code": "server_error"}, Remedy.AGAIN),
        (None, {"code": "rate_limit_exceeded"}, Remedy.AGAIN),
        (None, {"type": "too_many_requests"}, Remedy.AGAIN),
        (None, {"type": "overloaded_error"}, Remedy.AGAIN),
        (None, {"code": "server_is_overloaded"}, Remedy.AGAIN),
        (None, {"code": "slow_down", "type": "requests"}, Remedy.AGAIN),
        (None, {"code": 503}, Remedy.AGAIN),
        (None, {"code": "429", "type": "RESOURCE_EXHAUSTED"}, Remedy.AGAIN),
        (None, {"code": "vector_store_timeout"}, Remedy.AGAIN),
        (None, {"code": "invalid_prompt"}, Remedy.NOTHING),
        (None, {"code": "cyber_policy"}, Remedy.NOTHING),
        (None, {"code": "image_content_policy_violation"}, Remedy.NOTHING),
        (None, {"code": "content_filter"}, Remedy.NOTHING),
        (None, {"code": "context_length_exceeded"}, Remedy.NOTHING),
        (None, {"code": "unknown_parameter"}, Remedy.NOTHING),
        (None, {"code": None, "type": "invalid_request_error"}, Remedy.NOTHING),
        (None, {"code": 400}, Remedy.NOTHING),
        (None, {"code": "insufficient_quota"}, Remedy.ELSEWHERE),
        (None, {"type": "authentication_error"}, Remedy.ELSEWHERE),
        (400, {}, Remedy.NOTHING),
        (400, {"code": "insufficient_quota"}, Remedy.ELSEWHERE),
        (401, {"code": "invalid_api_key"}, Remedy.ELSEWHERE),
        (404, {"code": "model_not_found"}, Remedy.ELSEWHERE),
        (404, {"code": "DeploymentNotFound"}, Remedy.ELSEWHERE),
        (404, {}, Remedy.ELSEWHERE),
        (422, {"type": "missing"}, Remedy.NOTHING),
        (429, {}, Remedy.AGAIN),
        (429, {"type": "insufficient_quota", "code": "insufficient_quota"}, Remedy.ELSEWHERE),
        (429, {"type": "invalid_request_error"}, Remedy.AGAIN),
        (500, {}, Remedy.AGAIN),
        (500, {"code": "context_length_exceeded"}, Remedy.NOTHING),
        (503, {"type": "invalid_request_error"}, Remedy.AGAIN),
    ],
)
def test_what_may_help(status: int | None, fields: dict[str, object], remedy: Remedy) -> None:
    assert remedy_for(status, fields) is remedy


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"code": "rate_limit_exceeded"}, 429),
        ({"type": "too_many_requests"}, 429),
        ({"code": 503}, 503),
        ({"code": "server_error"}, 502),
        ({}, 502),
        ({"code": "invalid_prompt"}, 400),
    ],
)
def test_an_error_behind_a_200_has_the_status_that_it_would_have_had(fields: dict[str, object], status: int) -> None:
    assert status_for(fields) == status
    assert is_limited(fields) == (status == 429)


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Rate limit reached. Please try again in 1.2s. Visit our page.", 1.2),
        ("Please try again in 20ms.", 0.02),
        ("Please try again in 1m2.5s.", 62.5),
        ("try again in 1h2m3s", 3723),
        ("Please retry after 37 seconds.", 37),
        ("Try again in 2 minutes", 120),
        ("Retry after 5", 5),
        ("Please try again later.", None),
        ("I'll try again in a moment", None),
        ("", None),
    ],
)
def test_a_time_in_a_message_is_understood(message: str, seconds: float | None) -> None:
    assert pause_in(message) == (None if seconds is None else pytest.approx(seconds))


@moderate
@given(st.text())
def test_no_message_is_too_odd(text: str) -> None:
    pause_in(text)
    pause_in(f"try again in {text}")
    pause_in(f"try again in 5{text}")
