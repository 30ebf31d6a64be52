"""How deployments of Amazon Bedrock are reached: region, host, path and account, as LiteLLM has it."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from server.config import parse_config
from server.protocol.dialects.manners import Dialect
from server.upstream.amazon import AmazonAccount
from server.upstream.amazon_frames import AmazonFrames
from server.upstream.credential import STATIC
from server.upstream.deployments import Deployment, Deployments
from tests.support.amazon import chunks, framed, message
from tests.support.clouds import CLAUDE_EVENTS

CLAUDE = "anthropic.claude-sonnet-4-5-20250929-v1:0"
PROFILE = "arn:aws:bedrock:eu-central-1:1:application-inference-profile/abc"
KEYS = {"aws_access_key_id": "AKIA1", "aws_secret_access_key": "very-secret"}


def deployment(model: str, environ: dict[str, str] | None = None, info: Any = None, **params: Any) -> Deployment:
    entry = {"model_name": "m", "litellm_params": {"model": f"bedrock/{model}", **params}, "model_info": info or {}}
    environ = environ or {}
    return Deployments(parse_config({"model_list": [entry]}, environ=environ), environ=environ).all[0]


def url(made: Deployment, *, stream: bool = False) -> str:
    return made.create_url(made.upstream_model, stream=stream)


@pytest.mark.parametrize(
    ("model", "environ", "params", "region"),
    [
        (CLAUDE, {}, {}, "us-west-2"),
        (CLAUDE, {"AWS_DEFAULT_REGION": "eu-north-1"}, {}, "eu-north-1"),
        (CLAUDE, {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-north-1"}, {}, "eu-west-1"),
        (CLAUDE, {"AWS_REGION_NAME": "eu-west-3", "AWS_REGION": "eu-west-1"}, {}, "eu-west-3"),
        (f"us-gov-west-1/{CLAUDE}", {"AWS_REGION": "eu-west-1"}, {}, "us-gov-west-1"),
        (CLAUDE, {"AWS_REGION": "eu-west-1"}, {"model_id": PROFILE}, "eu-central-1"),
        (f"us-gov-west-1/{CLAUDE}", {}, {"aws_region_name": "ap-south-1"}, "ap-south-1"),
    ],
)
def test_the_region_is_found_as_litellm_finds_it(
    model: str, environ: dict[str, str], params: dict[str, str], region: str
) -> None:
    made = deployment(model, environ, **params)
    assert made.base_url == f"https://bedrock-runtime.{region}.amazonaws.com"
    assert made.unusable is None
    assert isinstance(made.credential, AmazonAccount)
    assert made.credential.region == region


def test_a_region_can_name_no_other_host() -> None:
    assert "aws_region_name" in str(deployment(CLAUDE, aws_region_name="evil.example/").unusable)
    assert url(deployment(CLAUDE, aws_region_name="cn-north-1")).startswith(
        "https://bedrock-runtime.cn-north-1.amazonaws.com.cn/model/"
    )


@pytest.mark.parametrize(
    ("model", "info", "params", "dialect", "path"),
    [
        (CLAUDE, {}, {}, Dialect.MESSAGES, "/model/anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke"),
        ("converse/us.anthropic.claude-x", {}, {}, Dialect.MESSAGES, "/model/us.anthropic.claude-x/invoke"),
        ("invoke/anthropic.claude-x", {"mode": "chat"}, {}, Dialect.MESSAGES, "/model/anthropic.claude-x/invoke"),
        (
            "anthropic.claude-x",
            {},
            {"model_id": PROFILE},
            Dialect.MESSAGES,
            "/model/arn%3Aaws%3Abedrock%3Aeu-central-1%3A1%3Aapplication-inference-profile%2Fabc/invoke",
        ),
        (
            PROFILE,
            {"base_model": "anthropic.claude-x"},
            {},
            Dialect.MESSAGES,
            "/model/arn%3Aaws%3Abedrock%3Aeu-central-1%3A1%3Aapplication-inference-profile%2Fabc/invoke",
        ),
        ("openai.gpt-oss-20b-1:0", {}, {}, Dialect.CHAT, "/openai/v1/chat/completions"),
        ("openai.gpt-oss-20b-1:0", {"api": "responses"}, {}, Dialect.RESPONSES, "/openai/v1/responses"),
    ],
)
def test_the_model_tells_the_api(model: str, info: Any, params: Any, dialect: Dialect, path: str) -> None:
    made = deployment(model, {}, info, aws_bedrock_runtime_endpoint="https://h", **params)
    assert made.manners.dialect is dialect
    assert url(made) == f"https://h{path}"
    if dialect is Dialect.MESSAGES:
        assert url(made, stream=True) == f"https://h{path}-with-response-stream"
        assert made.operation.worded({"model": "m", "stream": True}) == {"anthropic_version": "bedrock-2023-05-31"}


@pytest.mark.parametrize("base", ["https://h", "https://h/", "https://h/openai/v1"])
def test_an_address_of_the_config_takes_the_place_of_the_host(base: str) -> None:
    given: list[Any] = [{"api_base": base}, {"aws_bedrock_runtime_endpoint": base}]
    made = [deployment("openai.x", {}, **one) for one in given]
    made.append(deployment("openai.x", {"AWS_BEDROCK_RUNTIME_ENDPOINT": base}))
    assert {url(one) for one in made} == {"https://h/openai/v1/chat/completions"}


def test_keys_are_found_as_litellm_finds_them() -> None:
    def account(environ: dict[str, str] | None = None, **params: Any) -> Any:
        return deployment(CLAUDE, {"AWS_REGION": "eu-west-9", **(environ or {})}, **params).credential

    of_environ = {"AWS_ACCESS_KEY_ID": "E", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t"}
    assert account({"AWS_BEARER_TOKEN_BEDROCK": "k"}, **KEYS) is STATIC, "a key goes before all others"
    assert account() == AmazonAccount("eu-west-9")
    assert account(of_environ) == AmazonAccount("eu-west-9", "E", "s", "t")
    assert account(of_environ, **KEYS) == AmazonAccount("eu-west-9", "AKIA1", "very-secret"), "not with another's token"
    assert account(of_environ, aws_profile_name="p") == AmazonAccount("eu-west-9", profile="p")
    role = account(of_environ, aws_profile_name="p", aws_role_name="arn:r")
    assert role == AmazonAccount("eu-west-9", "E", "s", "t", role="arn:r")
    assert account({"AWS_ROLE_ARN": "arn:r"}, aws_role_name="arn:r") == AmazonAccount("eu-west-9"), "it has that role"


def test_no_secret_is_shown() -> None:
    made = deployment(CLAUDE, {}, **KEYS, aws_session_token="temporary")
    assert "very-secret" not in repr(made)
    assert "temporary" not in repr(made)
    assert made.credential.told == "Amazon, keys of the config"


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.upstream.bedrock.lacks", lambda *_: True)
    assert "pip install 'pollux-responses[bedrock]'" in str(deployment(CLAUDE).unusable)
    assert "or a key (AWS_BEARER_TOKEN_BEDROCK)" in str(deployment("openai.x").unusable)
    assert "to read Claude's streams" in str(deployment(CLAUDE, api_key="k").unusable)
    assert deployment("openai.x", api_key="k").unusable is None, "a key needs no library"


@pytest.mark.parametrize("size", [1, 7, 100, 100_000])
def test_a_stream_is_read_however_it_is_chunked(size: int) -> None:
    other = message({":message-type": "event", ":event-type": "other"}, b"{}")
    raw = chunks(CLAUDE_EVENTS[:3]) + other + chunks(CLAUDE_EVENTS[3:])
    frames = AmazonFrames()
    read = [event for start in range(0, len(raw), size) for event in frames.feed(raw[start : start + size])]
    assert [event.name for event in read] == [event["type"] for event in CLAUDE_EVENTS]


@pytest.mark.parametrize(
    "raw",
    [
        b"data: {}\n\n" * 100,
        b"\0" * 100,
        message({":message-type": "event", ":event-type": "chunk"}, b"{}"),
        message({":message-type": "event", ":event-type": "chunk"}, b'{"bytes": "bm8="}'),
        message({":message-type": "event", ":event-type": "chunk"}, b'{"bytes": "W10="}'),
        pytest.param(framed(b"\x05:mess", b""), id="a header that is cut"),
        pytest.param(framed(b"\x01x", b""), id="a header without a type"),
    ],
)
def test_bytes_that_are_no_such_stream_break_the_connection(raw: bytes) -> None:
    with pytest.raises(aiohttp.ClientPayloadError):
        AmazonFrames().feed(raw)


def test_a_clients_own_key_takes_the_place_of_ours() -> None:
    made = deployment("openai.x", {}, {"forward_client_key": True}, **KEYS)
    assert made.credential is STATIC
    assert made.headers_with("theirs") == {"Authorization": "Bearer theirs"}
