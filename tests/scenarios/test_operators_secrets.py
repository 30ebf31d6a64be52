"""What the operator entrusts to Pollux, and clients' keys: used where they belong, and shown nowhere else."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from server.config import parse_config
from server.config.sections import ConfigError
from tests.support.authority import KEY_PASSWORD, Authority, new_authority
from tests.support.replica import CACHED, NATIVE, make_config, replica_process, running_replica
from tests.support.scripts import OUTPUT, RAW_ID, lifecycle, streaming
from tests.support.upstreams import running_script

SECRETS = {
    "MASTER": "sk-marked-master-00000001",
    "CLIENT": "sk-marked-client-00000002",
    "METRICS": "sk-marked-metrics-0000003",
    "PROVIDER": "sk-marked-provider-000004",
    "SHARED": "sk-marked-shared-credential-5",
    "HEADER": "marked-header-of-a-deployment-6",
    "WEBHOOK": "whsec_bWFya2VkLXNlY3JldC1vZi1hLXdlYmhvb2stMDAwNw==",
    "IDS": "marked-secret-of-ids-0000000008",
    "KEY_PASSWORD": KEY_PASSWORD,
}
STORE_PASSWORD = "marked-password-of-the-store-9"
STRANGERS = "sk-marked-stranger-000000010"


def shown_in(text: str) -> list[str]:
    """The secrets that a text gives away."""
    return [secret for secret in (*SECRETS.values(), STORE_PASSWORD, STRANGERS) if secret in text]


def marked(upstream: str, files: Authority | None = None) -> dict[str, Any]:
    """A config with a secret wherever one may stand, each from the environment."""

    def secret(name: str) -> str:
        return f"os.environ/{name}"

    config = make_config(upstream, api_key=secret("PROVIDER"))
    config["model_list"][0]["litellm_params"]["extra_headers"] = {"X-Tenant": secret("HEADER")}
    shared = {"model": f"openai/{NATIVE}", "api_base": upstream, "litellm_credential_name": "shared"}
    config["model_list"][1]["litellm_params"] = shared
    config["credential_list"] = [{"credential_name": "shared", "credential_values": {"api_key": secret("SHARED")}}]
    config["general_settings"]["master_key"] = secret("MASTER")
    config["litellm_settings"]["num_retries"] = 0
    config["pollux"] |= {
        "keys": [{"name": "alice", "key": secret("CLIENT")}],
        "metrics_key": secret("METRICS"),
        "id_secrets": [secret("IDS")],
        "webhooks": [{"url": "https://127.0.0.1:9/hook", "secret": secret("WEBHOOK")}],
        "webhook_allow_private": True,
        "access_log": True,
    }
    if files is not None:
        password = secret("KEY_PASSWORD")
        config["pollux"]["tls"] = {
            "cert_file": str(files.cert),
            "key_file": str(files.locked),
            "key_password": password,
        }
    return config


async def telling(request: web.Request) -> web.StreamResponse:
    """A provider that quotes its caller's credential in its refusals, and otherwise answers."""
    asked = json.loads(await request.read() or b"{}")
    if "fail" in str(asked.get("input")):
        key = request.headers["Authorization"].removeprefix("Bearer ")
        tenant = request.headers.get("X-Tenant", "")
        status = int(str(asked["input"]).split()[1])
        return web.json_response({"error": {"message": f"{key} of {tenant} is no good"}}, status=status)
    if asked.get("stream"):
        end = lifecycle("response.completed", "completed", output=[])
        return await streaming(lifecycle("response.created", "in_progress"), OUTPUT[0], end)(request)
    return web.json_response({"id": RAW_ID % 0, "object": "response", "status": "completed", "output": []})


WAYS: tuple[dict[str, Any], ...] = (
    {"model": CACHED},
    {"model": CACHED, "stream": True},
    {"model": CACHED, "background": True},
    {"model": CACHED, "background": True, "stream": True},
    {"model": NATIVE, "background": True},
)


async def test_no_answer_no_metric_and_no_line_of_the_log_shows_one(
    store_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """At the level DEBUG of every library, through success and each kind of failure."""
    caplog.set_level(logging.DEBUG)
    told: list[str] = []
    files = new_authority(tmp_path)
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(files.authority)))
    async with (
        running_script(telling) as upstream,
        running_replica(marked(upstream.base_url, files), store_url, environ=SECRETS) as pollux,
        aiohttp.ClientSession(connector=connector) as http,
    ):
        url = pollux.url.replace("http://", "https://")

        async def ask(method: str, path: str, key: str = SECRETS["CLIENT"], **options: Any) -> str:
            headers = {"Authorization": f"Bearer {key}", **options.pop("headers", {})}
            async with http.request(method, f"{url}{path}", headers=headers, **options) as answer:
                told.append(f"{answer.status} {dict(answer.headers)} {await answer.text()}")
                return told[-1]

        for way in WAYS:
            for text in ("fine", "fail 401", "fail 400", "fail 429", "fail 500"):
                await ask("POST", "/v1/responses", json={**way, "input": text}, headers={"Prefer": "wait=20"})
        assert any("completed" in text for text in told)
        assert any("no good" in text for text in told), "the provider's words are passed on"
        for path in ("/v1/responses", "/v1/models", "/v1/webhook_endpoints", "/v1/usage", "/readyz", "/v1/nothing"):
            await ask("GET", path)
            await ask("GET", path, key=SECRETS["MASTER"])
        assert "pollux_" in await ask("GET", "/metrics", key=SECRETS["METRICS"])
        await ask("GET", f"/v1/responses?key={STRANGERS}", key=STRANGERS)
        await ask("POST", "/v1/responses", data=b"{", headers={"X-Long": f"{STRANGERS}" * 1000})
        assert pollux.context is not None
        told.append(repr(pollux.context.config))
        told.append(repr(pollux.context))
        sent = {request.headers["Authorization"] for request in upstream.requests}
        assert sent == {f"Bearer {SECRETS['PROVIDER']}", f"Bearer {SECRETS['SHARED']}"}, "they are used"
    assert [text for text in told if shown_in(text)] == []
    assert shown_in(caplog.text) == []


def test_no_command_prints_one(tmp_path: Path) -> None:
    """Neither where all is well, nor where the config or the store is at fault."""
    config = marked("http://127.0.0.1:9/v1", new_authority(tmp_path))
    config["pollux"]["store"] = f"redis://:{STORE_PASSWORD}@127.0.0.1:9/0"
    told = [printed(tmp_path, config, "check-config")]
    assert "credential set" in told[0]
    config["pollux"]["tls"]["key_password"] = STRANGERS
    told.append(printed(tmp_path, config, "check-config"))
    assert "key_password is wrong" in told[1]
    del config["pollux"]["tls"]
    for name, value in {"webhooks": SECRETS["WEBHOOK"], "max_run_s": SECRETS["IDS"], "keys": SECRETS["CLIENT"]}.items():
        broken = {**config, "pollux": {**config["pollux"], name: value}}
        told.append(printed(tmp_path, broken, "check-config"))
        assert f"pollux.{name}" in told[-1]
    assert [shown_in(text) for text in told] == [[]] * len(told)


def printed(folder: Path, config: dict[str, Any], command: str) -> str:
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    words = [sys.executable, "-m", "server", command, str(file)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, env=SECRETS, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize("place", ["pollux.keys.0.key", "pollux.id_secrets.0", "general_settings.master_key"])
def test_no_error_of_the_config_quotes_one(place: str) -> None:
    config = marked("http://127.0.0.1:9/v1")
    at: Any = config
    *steps, last = place.split(".")
    for step in steps:
        at = at[int(step) if step.isdigit() else step]
    at[int(last) if last.isdigit() else last] = {"a mapping": SECRETS["MASTER"]}
    with pytest.raises(ConfigError) as caught:
        parse_config(config, environ=SECRETS)
    assert place.rpartition(".")[0] in str(caught.value)
    assert shown_in(str(caught.value)) == []


async def test_no_command_line_of_a_process_shows_one(store_url: str, tmp_path: Path) -> None:
    """Whoever may list the processes of a machine sees their command lines."""
    config = marked("http://127.0.0.1:9/v1")
    written = json.loads(_filled(json.dumps(config)))
    async with replica_process(written, store_url, tmp_path, forked=False) as pollux:
        assert pollux.process is not None
        lines = await asyncio.to_thread(_command_lines)
        assert any(str(tmp_path) in line for line in lines)
        assert [line for line in lines if shown_in(line)] == []
        [log] = tmp_path.glob("replica-*.log")
        assert shown_in(log.read_text()) == []


def _filled(text: str) -> str:
    for name, secret in SECRETS.items():
        text = text.replace(f'"os.environ/{name}"', json.dumps(secret))
    return text


def _command_lines() -> list[str]:
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it has ended meanwhile
    return lines
