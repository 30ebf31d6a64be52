"""Secrets of tools are shown nowhere: by the name of a key, and wherever a provider repeats them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from server.protocol.redaction import Secrets, shown_tools
from tests.support.generated import json_objects, moderate

MCP = {
    "type": "mcp",
    "server_label": "git",
    "server_url": "https://user:word@mcp.example:8443/tenant-4711/mcp?key=abcdefgh12345678#top",
    "authorization": "oauth-token-0123456789",
    "headers": {"Authorization": "Bearer header-token-0123", "X-Tenant": "tenant-secret"},
    "allowed_tools": ["read"],
    "require_approval": "never",
}


def test_what_is_called_a_secret_is_null_where_a_tool_is_shown() -> None:
    (shown,) = shown_tools([MCP])
    assert shown == {
        **MCP,
        "server_url": "https://mcp.example:8443",
        "authorization": None,
        "headers": None,
    }


@pytest.mark.parametrize(
    ("tool", "shown"),
    [
        ({"type": "mcp", "connector_id": "c", "access_token": "t"}, {"access_token": None}),
        ({"type": "novelty", "auth": {"client_secret": "s", "kind": "oauth"}}, {"auth": {"client_secret": None}}),
        ({"type": "novelty", "x-api-key": "s", "apiKey": "s"}, {"x-api-key": None, "apiKey": None}),
        ({"type": "mcp", "server_url": "not a url"}, {"server_url": "***"}),
        (
            {"type": "shell", "environment": {"network_policy": {"domain_secrets": [{"name": "N", "value": "s"}]}}},
            {"environment": {"network_policy": {"domain_secrets": [{"name": "N", "value": None}]}}},
        ),
    ],
)
def test_the_rule_is_the_name_of_a_key(tool: dict[str, Any], shown: dict[str, Any]) -> None:
    (made,) = shown_tools([tool])
    for name, value in shown.items():
        assert made[name] == value if not isinstance(value, dict) else value.items() <= made[name].items()


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "function", "name": "f", "parameters": {"properties": {"token": {"type": "string"}}}},
        {"type": "file_search", "filters": {"key": "token", "value": "x", "type": "eq"}},
        {"type": "mcp", "server_label": "a", "headers": None, "authorization": None},
        {"type": "web_search", "user_location": {"country": "DE"}},
        {"type": "mcp", "server_url": "https://mcp.example", "max_output_tokens_hint": 5},
        "no tool at all",
    ],
)
def test_what_is_no_secret_stays(tool: Any) -> None:
    assert shown_tools([tool]) == [tool]


def test_a_secret_is_hidden_wherever_a_provider_repeats_it() -> None:
    secrets = Secrets({"tools": [MCP], "input": [{"type": "more_tools", "tools": [{"token": "another-secret"}]}]})
    said = json.dumps({"text": f"401 for {MCP['server_url']} with header-token-0123 and another-secret"}).encode()
    hidden = secrets.hidden_in(said)
    for secret in ("header-token-0123", "another-secret", "abcdefgh12345678", "tenant-4711", "user:word"):
        assert secret.encode() not in hidden
    assert b"mcp.example" in hidden
    assert json.loads(hidden)
    assert secrets.hidden_in_text("token oauth-token-0123456789!") == "token ***!"


def test_a_request_without_secrets_hides_nothing() -> None:
    assert not Secrets({"tools": [{"type": "function", "name": "f"}], "input": "token"})
    assert not Secrets({"tools": [{"type": "mcp", "authorization": "short"}]}), "it may occur by chance"
    assert not Secrets({"tools": "none"})


@moderate
@given(json_objects)
def test_no_tool_is_too_odd(tool: dict[str, Any]) -> None:
    shown_tools([tool])
    assert Secrets({"tools": [tool, None, 5], "input": [tool]}).hidden_in(b"{}") == b"{}"


@pytest.mark.parametrize("url", ["https://[", "https://\u2100.example/", "http://a]b/secret-path"])
def test_an_url_that_is_none_is_hidden_as_a_whole(url: str) -> None:
    tool = {"type": "mcp", "server_url": url}
    assert shown_tools([tool]) == [{"type": "mcp", "server_url": "***"}]
    assert (
        url not in json.loads(Secrets({"tools": [tool]}).hidden_in(json.dumps([f"no {url}"]).encode()))[0].split()
        or len(url) < 10
    )


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(b'"sl\\/ash&<\xc3\xa9>+1"', id="PHP"),
        pytest.param(b'"sl/ash&<\\u00e9>+1"', id="Python"),
        pytest.param(b'"sl/ash\\u0026\\u003c\xc3\xa9\\u003e+1"', id="Go"),
        pytest.param(b'"sl/ash\\u0026\\u003C\\u00E9\\u003E\\u002B1"', id=".NET"),
    ],
)
def test_a_secret_is_hidden_however_a_provider_writes_it(written: bytes) -> None:
    secret = "sl/ash&<\xe9>+1"
    assert json.loads(written) == secret
    secrets = Secrets({"tools": [{"type": "mcp", "headers": {"x": secret}}]})
    assert json.loads(secrets.hidden_in(b'{"a": "\\\\u0041", "said": %b}' % written)) == {"a": "\\u0041", "said": "***"}


def test_what_holds_no_secret_keeps_its_bytes() -> None:
    secrets = Secrets({"tools": [{"type": "mcp", "headers": {"x": "a-long-secret"}}]})
    for said in (b'{"text": "\\u00e9 \\/ \\ud83d\\ude00 \\ud83d \\\\"}', b"no \\json \\u12 \\"):
        assert secrets.hidden_in(said) is said
