"""The page on moving from LiteLLM: what it shows of a real config, and how nginx leads to both meanwhile."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from server.cli import main
from tests.support.balancers import DEPLOY
from tests.support.replica import ALICE, Replica, create, free_port
from tests.support.upstreams import running_script
from tests.support.waiting import wait_until

PAGE = (DEPLOY / "migration.md").read_text(encoding="utf-8")
SECRETS = {
    "AZURE_EU_API_KEY": "sk-azure-secret",
    "OPENAI_API_KEY": "sk-openai-secret",
    "ANTHROPIC_API_KEY": "sk-anthropic-secret",
    "REDIS_PASSWORD": "redis-secret",
    "LITELLM_MASTER_KEY": "sk-master-secret",
    "DATABASE_URL": "postgres://user:db-secret@db/litellm",
}


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [block for its, block in found if its == language]


def test_check_config_says_of_the_pages_file_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {**SECRETS, "REDIS_HOST": "redis.internal"}.items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "config.yaml"
    [config] = blocks("yaml")
    file.write_text(config)
    assert main(["check-config", str(file)]) == 0
    told, logged = capsys.readouterr()
    shown, warning = blocks("")
    assert told == shown
    assert warning.strip() in logged
    assert not [secret for secret in SECRETS.values() if secret in told + logged]


async def test_nginx_leads_old_ids_to_litellm_and_new_ones_to_pollux(pollux: Replica, tmp_path: Path) -> None:
    binary = shutil.which("nginx")
    if binary is None:
        pytest.skip("there is no nginx here: apt-get install nginx")
    old, unknown = "litellm_poll_0a1b2c3d-old", "litellm_poll_0a1b2c3d-unknown"

    async def litellm(request: web.Request) -> web.Response:
        if unknown in request.path:
            return web.json_response({"detail": "not found or expired"}, status=404)
        return web.json_response({"id": old, "by": "litellm", "method": request.method})

    async with running_script(litellm) as upstream:
        port = free_port()
        [locations] = blocks("nginx")
        config = tmp_path / "nginx.conf"
        temporary = "".join(
            f"{what}_temp_path {tmp_path}/{what};" for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config.write_text(
            f"events {{}}\nhttp {{ access_log off; {temporary}\n"
            f"upstream pollux {{ server {pollux.url.removeprefix('http://')}; }}\n"
            f"upstream litellm {{ server {URL(upstream.base_url).authority}; }}\n"
            f"server {{ listen 127.0.0.1:{port};\n{locations}location / {{ proxy_pass http://pollux; }} }} }}\n"
        )
        process = await asyncio.create_subprocess_exec(
            *(binary, "-p", str(tmp_path), "-c", str(config), "-e", "stderr", "-g", "daemon off; pid nginx.pid;"),
            stdin=asyncio.subprocess.DEVNULL,
        )
        try:
            headers = {"Authorization": f"Bearer {ALICE}"}
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=headers) as http:

                async def listens() -> bool:
                    try:
                        return (await http.get("/v1/models")).status == 200
                    except aiohttp.ClientConnectorError:
                        return False

                await wait_until(listens, what="nginx listens")
                new = await create(pollux, "hello")
                answer = await http.get(f"/v1/responses/{new}?wait=20")
                assert ((await answer.json())["id"], answer.status) == (new, 200)
                for method, path in (("GET", old), ("POST", f"{old}/cancel"), ("DELETE", old)):
                    answer = await http.request(method, f"/v1/responses/{path}")
                    assert await answer.json() == {"id": old, "by": "litellm", "method": method}
                answer = await http.get(f"/v1/responses/{unknown}")
                assert (answer.status, await answer.json()) == (404, {"detail": "not found or expired"})
        finally:
            process.terminate()
            await process.wait()
