"""The way to a provider: proxies and certificates, as the environment and LiteLLM's `ssl_verify` say."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from server.config.sections import ConfigError
from server.upstream.transport import proxy_for, verify_by
from tests.support.replica import CACHED, make_config, running_replica
from tests.support.scripts import RAW_ID

WHOLE = {"id": RAW_ID % 0, "object": "response", "status": "completed", "output": []}
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_verify", "ssl_cert_file", "requests_ca_bundle")


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@dataclass
class Proxy:
    """A forward proxy of the simplest kind: it relays what is sent, wherever the request line says."""

    url: str = ""
    seen: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def running_proxy() -> AsyncIterator[Proxy]:
    proxy = Proxy()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            writer.write(piece)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        proxy.seen.append(head)
        method, target, _ = head.split(b" ", 2)
        place = target if method == b"CONNECT" else target.split(b"/")[2]
        host, _, port = place.decode().partition(":")
        there, back = await asyncio.open_connection(host, int(port))
        if method == b"CONNECT":
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            back.write(head)
        await asyncio.gather(pipe(reader, back), pipe(there, writer), return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()


@asynccontextmanager
async def provider(context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    async def answer(_request: web.Request) -> web.Response:
        return web.json_response(WHOLE)

    app = web.Application()
    app.router.add_post("/v1/responses", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        yield f"{'https' if context else 'http'}://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


async def status_through_pollux(upstream: str, store_url: str, **general: Any) -> int:
    config = make_config(upstream)
    config["litellm_settings"] |= {"num_retries": 0, **general}
    async with running_replica(config, store_url) as pollux, pollux.http() as http:
        return (await http.post("responses", json={"model": CACHED, "input": "x"})).status


async def test_the_environments_proxy_is_used(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with provider() as upstream, running_proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("http://", "http://user:word@"))
        assert await status_through_pollux(upstream, store_url) == 200
        assert proxy.seen[0].startswith(b"POST http://127.0.0.1:")
        assert b"Proxy-Authorization: Basic" in proxy.seen[0]
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,other.example")
        assert await status_through_pollux(upstream, store_url) == 200
        assert len(proxy.seen) == 1


async def test_a_netrc_is_never_read(store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password hush")
    monkeypatch.setenv("NETRC", str(netrc))
    async with provider() as upstream, running_proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert await status_through_pollux(upstream, store_url) == 200
        assert b"Basic" not in proxy.seen[0]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that vouches for itself, with its key in the same file."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl here")
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(file), "-out", f"{file}.crt"),
        ],
        check=True,
        capture_output=True,
    )
    file.write_text(file.read_text() + Path(f"{file}.crt").read_text())
    return file


async def test_a_certificate_is_checked_by_whom_the_config_or_the_environment_trusts(
    certificate: Path, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    async with provider(context) as upstream:
        assert await status_through_pollux(upstream, store_url) == 502
        assert await status_through_pollux(upstream, store_url, ssl_verify=str(certificate)) == 200
        assert await status_through_pollux(upstream, store_url, ssl_verify=False) == 200
        monkeypatch.setenv("SSL_VERIFY", "False")
        assert await status_through_pollux(upstream, store_url) == 200
        monkeypatch.delenv("SSL_VERIFY")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert await status_through_pollux(upstream, store_url) == 200
        async with running_proxy() as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            assert await status_through_pollux(upstream, store_url) == 200
            assert proxy.seen[0].startswith(b"CONNECT 127.0.0.1:")


def test_a_proxy_of_another_kind_is_refused_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://h:1080")
    with pytest.raises(ConfigError, match="socks5://"):
        proxy_for("https://api.openai.com/v1")
    monkeypatch.setenv("HTTPS_PROXY", "h:3128")
    assert proxy_for("https://api.openai.com/v1") == "http://h:3128"


@pytest.mark.parametrize(
    ("stated", "environ", "verify"),
    [
        (None, {}, True),
        (True, {}, True),
        (False, {"SSL_VERIFY": "true"}, False),
        (None, {"SSL_VERIFY": "false"}, False),
        ("False", {}, False),
        ("/ca.pem", {}, "/ca.pem"),
        (None, {"REQUESTS_CA_BUNDLE": "/ca.pem"}, "/ca.pem"),
        (None, {"REQUESTS_CA_BUNDLE": "/ca.pem", "SSL_CERT_FILE": "/other.pem"}, True),
    ],
)
def test_how_certificates_are_checked(stated: Any, environ: dict[str, str], verify: Any) -> None:
    assert verify_by(stated, environ) == verify
