"""How deployments of Vertex AI are reached: host, project, path and account, as LiteLLM has it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from server.config import parse_config
from server.protocol.dialects.manners import Dialect
from server.upstream.credential import STATIC
from server.upstream.deployments import Deployment, Deployments
from tests.support.clouds import google_account
from tests.test_architecture import ROOT

ACCOUNT = google_account("https://oauth2.googleapis.com/token")
HERE = {"VERTEXAI_PROJECT": "p"}


def deployment(model: str, environ: dict[str, str] | None = None, info: Any = None, **params: Any) -> Deployment:
    entry = {"model_name": "m", "litellm_params": {"model": model, **params}, "model_info": info or {}}
    environ = HERE if environ is None else environ
    return Deployments(parse_config({"model_list": [entry]}, environ=environ), environ=environ).all[0]


@pytest.mark.parametrize(
    ("location", "host"),
    [
        (None, "us-central1-aiplatform.googleapis.com"),
        ("europe-west4", "europe-west4-aiplatform.googleapis.com"),
        ("global", "aiplatform.googleapis.com"),
        ("us", "aiplatform.us.rep.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
    ],
)
def test_the_location_tells_the_host(location: str | None, host: str) -> None:
    made = deployment("vertex_ai/gemini-2.5-pro", vertex_location=location)
    assert made.base_url == f"https://{host}/v1/projects/p/locations/{location or 'us-central1'}"
    assert made.unusable is None


@pytest.mark.parametrize("location", ["evil.example/", "eu#", "US-East1", "a@b"])
def test_a_location_can_name_no_other_host(location: str) -> None:
    made = deployment("vertex_ai/gemini-2.5-pro", vertex_location=location)
    assert made.base_url is None
    assert "vertex_location" in str(made.unusable)


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("https://h", "https://h/v1/projects/p/locations/global"),
        ("https://h/v1/", "https://h/v1/projects/p/locations/global"),
        ("https://h/v1beta1", "https://h/v1/projects/p/locations/global"),
        ("https://h/gateway", "https://h/gateway/v1/projects/p/locations/global"),
        (
            "https://h/v1/projects/q/locations/eu/publishers/anthropic/models/claude-x",
            "https://h/v1/projects/q/locations/eu",
        ),
    ],
)
def test_an_address_of_the_config_takes_the_place_of_the_host(base: str, expected: str) -> None:
    assert deployment("vertex_ai/claude-x", vertex_location="global", api_base=base).base_url == expected
    environ = {**HERE, "VERTEXAI_API_BASE": base, "VERTEXAI_LOCATION": "global"}
    assert deployment("vertex_ai/claude-x", environ).base_url == expected


@pytest.mark.parametrize(
    ("model", "dialect", "path", "named"),
    [
        ("gemini-2.5-pro", Dialect.CHAT, "/endpoints/openapi/chat/completions", "google/gemini-2.5-pro"),
        ("meta/llama-4", Dialect.CHAT, "/endpoints/openapi/chat/completions", "meta/llama-4"),
        ("openai/gpt-oss-120b-maas", Dialect.CHAT, "/endpoints/openapi/chat/completions", "openai/gpt-oss-120b-maas"),
        ("claude-x@1", Dialect.MESSAGES, "/publishers/anthropic/models/claude-x@1:rawPredict", None),
        ("codestral-2", Dialect.CHAT, "/publishers/mistralai/models/codestral-2:rawPredict", "codestral-2"),
        ("jamba-1.5", Dialect.CHAT, "/publishers/ai21/models/jamba-1.5:rawPredict", "jamba-1.5"),
    ],
)
def test_the_model_tells_the_api(model: str, dialect: Dialect, path: str, named: str | None) -> None:
    made = deployment(f"vertex_ai/{model}")
    assert made.manners.dialect is dialect
    assert made.create_url(made.upstream_model) == f"{made.base_url}{path}"
    body = made.operation.worded({"model": made.upstream_model, "stream": True})
    assert body.get("model") == named
    assert body["stream"] is True


def test_the_project_is_that_of_the_config_else_that_of_the_account(tmp_path: Path) -> None:
    def project(environ: dict[str, str] | None = None, **params: Any) -> str | None:
        base = deployment("vertex_ai/gemini-x", environ or {}, **params).base_url
        return base and base.split("/")[5]

    file = tmp_path / "account.json"
    file.write_text(json.dumps(ACCOUNT))
    assert project(HERE, vertex_project="q", vertex_credentials=ACCOUNT) == "q"
    assert project({}, vertex_ai_project="q", vertex_ai_credentials=ACCOUNT) == "q"
    assert project(HERE, vertex_credentials=ACCOUNT) == "p"
    for stated in (ACCOUNT, json.dumps(ACCOUNT), str(file)):
        assert project(vertex_credentials=stated) == "project-1"
        if isinstance(stated, str):
            assert project({"VERTEXAI_CREDENTIALS": stated}) == "project-1"
    assert project({"GOOGLE_APPLICATION_CREDENTIALS": str(file)}) == "project-1"
    assert project({"GOOGLE_CLOUD_PROJECT": "r"}) == "r"
    assert "vertex_project" in str(deployment("vertex_ai/gemini-x", {}).unusable)


@pytest.mark.parametrize("stated", ["/there/is/none.json", "{not json", '{"type": "other"}', "[]"])
def test_an_account_that_can_not_be_read_is_told(stated: str) -> None:
    made = deployment("vertex_ai/gemini-x", vertex_credentials=stated)
    assert "vertex_credentials" in str(made.unusable)


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.upstream.vertex.lacks", lambda *_: True)
    assert "pip install 'pollux-responses[vertex]'" in str(deployment("vertex_ai/gemini-x").unusable)
    assert deployment("vertex_ai/gemini-x", api_key="k").unusable is None, "a key needs no library"
    lacking = deployment("vertex_ai/gemini-x")
    monkeypatch.undo()
    assert lacking.id == deployment("vertex_ai/gemini-x").id, "it is the same deployment where the library is"


def test_a_key_is_shown_as_it_is() -> None:
    made = deployment("vertex_ai/claude-x", api_key="k")
    assert made.credential is STATIC
    assert made.headers == {"Authorization": "Bearer k"}


def test_a_gateway_in_front_of_it_speaks_responses() -> None:
    made = deployment("vertex_ai/gemini-x", {}, {"api": "responses"}, api_base="http://litellm:4000", api_key="k")
    assert made.create_url("gemini-x") == "http://litellm:4000/responses"


def test_nothing_of_an_account_is_shown() -> None:
    made = deployment("vertex_ai/gemini-x", vertex_credentials=ACCOUNT)
    assert made.credential.told == "Google, robot@project-1.example"
    assert "PRIVATE" not in repr(made)


def test_the_libraries_of_platforms_are_imported_only_where_they_are_needed() -> None:
    script = "import sys, server.process.app, server.cli; print({'google.auth', 'botocore'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_claude_counts_tokens_at_an_address_of_its_own() -> None:
    made = deployment("vertex_ai/claude-x")
    assert made.offers("input_tokens")
    assert made.counting_url == f"{made.base_url}/publishers/anthropic/models/count-tokens:rawPredict"
    assert not deployment("vertex_ai/gemini-x").offers("input_tokens")
