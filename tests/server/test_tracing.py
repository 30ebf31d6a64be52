"""The switch of tracing: what turns it on, where spans go then, and what is said where that can't be."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest

from server.check import describe
from server.config import Config, parse_config
from server.config.sections import ConfigError
from server.config.unused import told_in_one
from server.tracing import UNTRACED, destination_in, tracing_by
from server.tracing.attributes import error_type, of_address, of_call, of_response
from server.tracing.port import Call, Tracing
from server.tracing.switch import Destination

URL = "http://collector:4318"
HERE = ("otlp_proto_http",)


def config(tracing: bool | None = None, **settings: Any) -> Config:
    return parse_config({"litellm_settings": settings, "pollux": {"tracing": tracing}}, environ={})


@pytest.mark.parametrize(
    ("tracing", "environ", "exporters"),
    [
        (None, {}, None),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": URL}, HERE),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, None),
        (None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": URL}, HERE),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_SDK_DISABLED": "TRUE"}, None),
        (None, {"OTEL_TRACES_EXPORTER": "console"}, ("console",)),
        (None, {"OTEL_TRACES_EXPORTER": "otlp, console"}, ("otlp_proto_http", "console")),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_TRACES_EXPORTER": "none"}, None),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ("otlp_proto_grpc",)),
        (None, {"OTEL_ENDPOINT": URL, "OTEL_EXPORTER": "otlp_http"}, None),
        (True, {}, HERE),
        (True, {"OTEL_SDK_DISABLED": "true"}, None),
        (False, {"OTEL_EXPORTER_OTLP_ENDPOINT": URL}, None),
    ],
)
def test_the_environment_and_the_config_decide(
    tracing: bool | None, environ: dict[str, str], exporters: tuple[str, ...] | None
) -> None:
    found = destination_in(config(tracing), environ)
    assert (found and found.exporters) == exporters


@pytest.mark.parametrize("settings", [{"callbacks": ["otel"]}, {"success_callback": "otel"}])
@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Destination(HERE, service="pollux")),
        (
            {"OTEL_EXPORTER": "otlp_http", "OTEL_ENDPOINT": f"{URL}/", "OTEL_HEADERS": "X-Team=a,b=c=d"},
            Destination(HERE, f"{URL}/v1/traces", {"x-team": "a", "b": "c=d"}, "pollux"),
        ),
        ({"OTEL_ENDPOINT": f"{URL}/v1/traces"}, Destination(HERE, f"{URL}/v1/traces", service="pollux")),
        (
            {"OTEL_ENDPOINT": URL, "OTEL_EXPORTER": "grpc"},
            Destination(("otlp_proto_grpc",), URL, service="pollux"),
        ),
        ({"OTEL_EXPORTER": "console"}, Destination(("console",), service="pollux")),
        (
            {
                "OTEL_ENDPOINT": URL,
                "OTEL_HEADERS": "a=b",
                "OTEL_EXPORTER_OTLP_HEADERS": "c=d",
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://other:4318",
                "OTEL_SERVICE_NAME": "mine",
            },
            Destination(HERE),
        ),
    ],
)
def test_litellms_callback_and_its_variables_are_taken_over(
    settings: dict[str, Any], environ: dict[str, str], expected: Destination
) -> None:
    assert destination_in(config(**settings), environ) == expected


def test_other_callbacks_of_litellms_are_still_told_to_have_no_effect() -> None:
    assert told_in_one(config(callbacks=["otel"])) is None
    for others in (["otel", "langfuse"], "langfuse"):
        assert "litellm_settings.callbacks" in str(told_in_one(config(callbacks=others)))
    assert destination_in(config(callbacks=["langfuse"]), {}) is None


def test_without_the_extra_the_log_says_what_to_install_and_an_explicit_wish_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "server.tracing.spans", None)
    with caplog.at_level(logging.WARNING):
        assert tracing_by(config(), {"OTEL_EXPORTER_OTLP_ENDPOINT": URL}) is UNTRACED
    assert "pip install 'pollux-responses[tracing]'" in caplog.text
    with pytest.raises(ConfigError, match=r"pollux\.tracing: .*pollux-responses\[tracing\]"):
        tracing_by(config(tracing=True), {})
    assert tracing_by(config(), {}) is UNTRACED


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "opentelemetry-exporter-otlp-proto-grpc"),
        ({"OTEL_PROPAGATORS": "unheard-of"}, "opentelemetry-propagator-unheard-of"),
        ({"OTEL_TRACES_EXPORTER": "unheard-of"}, "no exporter unheard-of"),
    ],
)
def test_what_the_environment_names_and_nobody_has_is_said(
    environ: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=says):
        tracing_by(config(tracing=True))


def test_check_config_says_where_traces_go_but_no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "traces:" not in describe(config())
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:secret@collector:4318")
    assert "traces: by otlp_proto_http, to http://collector:4318" in describe(config())


def test_the_port_does_nothing_and_leaves_headers_alone() -> None:
    headers = {"traceparent": "00-1-2-01"}
    call = Call("create", generates=True, provider="openai", model="m", base_url=None, deployment="d", stream=False)
    one: Tracing = UNTRACED
    for told in (
        one.answering("POST", "/responses", headers),
        one.queueing("m", "alice"),
        one.running("id", "m", "alice", 1, headers),
        one.calling(call),
        one.delivering("response.completed", "id", 1, URL, headers),
    ):
        with told as span:
            span.note(a=1)
            span.produced({"id": "x"})
            assert span.carried_by(headers) is span.kept_in(headers) is headers
            assert (span.trace_id, span.exemplar) == ("", None)


# Attributes.


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ({"status": "completed", "output": [{"type": "message"}]}, "stop"),
        ({"status": "completed", "output": [{"type": "function_call"}]}, "tool_calls"),
        ({"status": "completed", "output": None}, "stop"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_filter"),
        ({"status": "incomplete", "incomplete_details": None}, "length"),
        ({"status": "failed"}, "error"),
        ({"status": "in_progress"}, None),
        ({"status": ["odd"], "id": 7, "model": {}, "usage": "odd"}, None),
    ],
)
def test_the_reason_why_a_model_stopped(response: dict[str, Any], reason: str | None) -> None:
    told = dict(of_response(response))
    assert told.get("gen_ai.response.finish_reasons") == (reason and (reason,))
    assert set(told) <= {"gen_ai.response.finish_reasons"}


@pytest.mark.parametrize(
    ("provider", "name"),
    [
        ("openai", "openai"),
        ("azure", "azure.ai.openai"),
        ("vertex_ai", "gcp.vertex_ai"),
        ("hosted_vllm", "hosted_vllm"),
    ],
)
def test_providers_have_the_names_of_the_conventions(provider: str, name: str) -> None:
    call = Call(
        "create", generates=True, provider=provider, model="m", base_url=f"{URL}/v1", deployment="d", stream=True
    )
    told = of_call(call)
    assert (told["gen_ai.provider.name"], told["server.address"], told["server.port"]) == (name, "collector", 4318)


def test_an_error_is_a_word_and_an_address_a_host() -> None:
    assert error_type("rate_limit_exceeded") == "rate_limit_exceeded"
    assert error_type("your prompt was: hello") == error_type("") == "_OTHER"
    assert of_address("https://user:secret@h.example/path?token=x") == {
        "server.address": "h.example",
        "server.port": 443,
    }
    assert of_address("http://[broken") == of_address("http://h:99999") == of_address(None) == {}
