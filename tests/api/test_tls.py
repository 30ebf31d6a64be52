"""TLS by config: what is agreed upon, how certificates are renewed, and what slow and unknown clients get."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI, DefaultAioHttpClient
from yarl import URL

from server.config import parse_config
from server.config.ours import Tls
from server.config.sections import ConfigError
from server.system.tls import Certificates
from tests.support.authority import KEY_PASSWORD, Authority, new_authority
from tests.support.replica import ALICE, CACHED, Replica, make_config, running_replica
from tests.support.sse import read_stream
from tests.support.waiting import wait_until


@pytest.fixture
def files(tmp_path: Path) -> Authority:
    return new_authority(tmp_path)


def tls_of(files: Authority, **more: Any) -> dict[str, str]:
    return {"cert_file": str(files.cert), "key_file": str(files.key), **more}


@asynccontextmanager
async def encrypted(simulator: str, store_url: str, tls: dict[str, str], **pollux: Any) -> AsyncIterator[Replica]:
    async with running_replica(make_config(simulator, tls=tls, **pollux), store_url) as replica:
        yield Replica(replica.url.replace("http://", "https://"), replica.context)


def trusting(files: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(files.authority))


@asynccontextmanager
async def alice(pollux: Replica, context: ssl.SSLContext) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"Bearer {ALICE}"}
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(f"{pollux.url}/v1/", headers=headers, connector=connector) as http:
        yield http


async def test_creates_waits_and_streams_work_over_tls(simulator: str, store_url: str, files: Authority) -> None:
    async with encrypted(simulator, store_url, tls_of(files)) as pollux, alice(pollux, trusting(files)) as http:
        body = {"model": CACHED, "input": "hello " * 100_000, "background": True, "stream": True}
        created = await read_stream(await http.post("responses", json=body))
        assert created[-1]["type"] == "response.completed"
        response_id = created[0]["response"]["id"]
        assert (await (await http.get(f"responses/{response_id}?wait=20")).json())["status"] == "completed"


async def serial_of(pollux: Replica, context: ssl.SSLContext) -> str:
    url = URL(pollux.url)
    _, writer = await asyncio.open_connection(url.host, url.port, ssl=context)
    try:
        shown: dict[str, str] = writer.get_extra_info("peercert")
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() is None
        return shown["serialNumber"]
    finally:
        writer.close()


async def test_a_renewed_certificate_is_taken_up_without_a_restart(
    simulator: str, store_url: str, files: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.api.front.RENEWALS_SEEN_WITHIN_S", 0.0)
    monkeypatch.setattr("server.api.front.LOOK_EVERY_S", 0.05)
    context = trusting(files)
    async with encrypted(simulator, store_url, tls_of(files)) as pollux, alice(pollux, context) as http:
        body = {"model": CACHED, "input": "[[first_delay_ms=700]]", "stream": True}
        streaming = await http.post("responses", json=body)
        files.key.write_bytes(b"half a renewal")
        assert int(await serial_of(pollux, context), 16) > 0, "the old pair stays"
        renewed = files.renew()

        async def shown() -> bool:
            return int(await serial_of(pollux, context), 16) == renewed

        await wait_until(shown, what="the renewed certificate is shown")
        assert b"response.completed" in await streaming.read(), "what is open goes on"


def versions(context: ssl.SSLContext, newest: ssl.TLSVersion) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = newest
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


@pytest.mark.parametrize(
    ("newest", "agreed"),
    [(ssl.TLSVersion.TLSv1_3, "TLSv1.3"), (ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_1, None)],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_only_modern_versions_are_spoken(
    newest: ssl.TLSVersion, agreed: str | None, simulator: str, store_url: str, files: Authority
) -> None:
    async with encrypted(simulator, store_url, tls_of(files)) as pollux:
        url = URL(pollux.url)
        context = versions(trusting(files), newest)
        context.set_alpn_protocols(["h2", "http/1.1"])
        if agreed is None:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.open_connection(url.host, url.port, ssl=context)
            return
        _, writer = await asyncio.open_connection(url.host, url.port, ssl=context)
        assert writer.get_extra_info("ssl_object").version() == agreed
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        writer.close()


async def test_a_handshake_that_does_not_end_is_cut_off_and_counts_meanwhile(
    simulator: str, store_url: str, files: Authority
) -> None:
    limits = {"header_timeout_s": 1.0, "max_connections": 1}
    async with encrypted(simulator, store_url, tls_of(files), **limits) as pollux:
        url = URL(pollux.url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        async with alice(pollux, trusting(files)) as http:
            assert (await http.get("models")).status == 503, "its place is taken"
            async with asyncio.timeout(5):
                assert await reader.read() == b""
            writer.close()

            async def served() -> bool:
                return (await http.get("models")).status == 200

            await wait_until(served, what="the place is free again")


async def test_plain_http_where_tls_is_spoken_is_cut_off(simulator: str, store_url: str, files: Authority) -> None:
    async with encrypted(simulator, store_url, tls_of(files)) as pollux:
        url = URL(pollux.url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(5):
            assert b"HTTP" not in await reader.read()
        writer.close()


async def test_clients_show_certificates_of_the_authority_where_one_is_named(
    simulator: str, store_url: str, files: Authority, tmp_path: Path
) -> None:
    (tmp_path / "strangers").mkdir()
    stranger = new_authority(tmp_path / "strangers").client(tmp_path / "strangers")
    tls = tls_of(files, client_ca_file=str(files.authority))
    async with encrypted(simulator, store_url, tls) as pollux:
        known = trusting(files)
        known.load_cert_chain(files.client(tmp_path))
        async with alice(pollux, known) as http:
            assert (await http.get("models")).status == 200
        async with alice(pollux, trusting(files)) as http:
            refused = await http.get("models")
            assert (refused.status, (await refused.json())["error"]["code"]) == (403, "certificate_required")
            assert (await http.get(f"{pollux.url}/livez")).status == 200, "a probe has none"
            assert (await http.get(f"{pollux.url}/metrics")).status == 403
        forged = trusting(files)
        forged.load_cert_chain(stranger)
        async with alice(pollux, forged) as http:
            with pytest.raises(aiohttp.ClientError):
                await http.get(f"{pollux.url}/livez")


async def test_the_official_sdk_works_over_tls(simulator: str, store_url: str, files: Authority) -> None:
    async with (
        encrypted(simulator, store_url, tls_of(files)) as pollux,
        DefaultAioHttpClient(verify=trusting(files)) as http,
        AsyncOpenAI(base_url=f"{pollux.url}/v1", api_key=ALICE, max_retries=0, http_client=http) as client,
    ):
        response = await client.responses.create(model=CACHED, input="hello")
        assert response.status == "completed"


def test_a_key_with_a_password_is_read(files: Authority) -> None:
    config = parse_config(
        {"pollux": {"tls": tls_of(files, key_file=str(files.locked), key_password="os.environ/P")}},
        environ={"P": KEY_PASSWORD},
    )
    assert Certificates.of(config.pollux.tls) is not None
    assert KEY_PASSWORD not in repr(config)


@pytest.mark.parametrize("missing", ["cert_file", "key_file", "client_ca_file"])
def test_a_missing_file_is_named(missing: str, files: Authority) -> None:
    tls = tls_of(files, **{missing: "/nowhere/x.pem"})
    with pytest.raises(ConfigError, match=r"pollux\.tls.*/nowhere/x\.pem.*No such file"):
        Certificates.of(Tls.model_validate(tls))


def test_what_does_not_fit_together_is_refused(files: Authority, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = new_authority(tmp_path / "other")
    for tls, words in (
        (tls_of(files, key_file=str(other.key)), "belongs to another certificate"),
        (tls_of(files, key_file=str(files.locked)), "key_password is wrong, or missing"),
        (tls_of(files, key_file=str(files.locked), key_password="not-this"), "key_password is wrong, or missing"),
        (tls_of(files, cert_file=__file__), "PEM"),
        ({"cert_file": str(files.cert)}, "its key"),
    ):
        with pytest.raises(ConfigError, match=words) as caught:
            Certificates.of(Tls.model_validate(tls))
        assert "not-this" not in str(caught.value)
