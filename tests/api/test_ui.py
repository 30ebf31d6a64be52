"""The files of the pages for people, as any client gets them: with what headers, and nothing but these files."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from server.config import parse_config
from server.process.app import running
from server.process.assembly import Role
from server.system.sockets import bound
from tests.support.refusals import checked, exchange, refusal
from tests.support.replica import ALICE, Replica, make_config

WEB = Path(__file__).parents[2] / "server" / "web"
FILES = sorted(str(path.relative_to(WEB)) for path in WEB.rglob("*") if path.is_file() and "docs" not in path.parts)
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}


@pytest.fixture
async def http(pollux: Replica) -> AsyncIterator[aiohttp.ClientSession]:
    """Somebody without a key."""
    async with aiohttp.ClientSession(pollux.url, auto_decompress=False) as session:
        yield session


async def test_every_file_is_served_as_it_is_to_whoever_asks(http: aiohttp.ClientSession) -> None:
    assert "index.html" in FILES
    for name in FILES:
        answer = await http.get(f"/ui/{name}")
        assert (answer.status, answer.headers["Content-Type"]) == (200, TYPES[Path(name).suffix]), name
        assert await answer.read() == (WEB / name).read_bytes(), name


async def test_the_page_itself_is_at_its_folder(http: aiohttp.ClientSession) -> None:
    moved = await http.get("/ui", allow_redirects=False)
    assert (moved.status, moved.headers["Location"]) == (308, "ui/")
    assert await (await http.get("/ui")).read() == (WEB / "index.html").read_bytes()


@pytest.mark.parametrize("place", ["/ui/", "/ui/app.js", "/ui/vendor/LICENSES.txt", "/ui/nothing", "/ui"])
async def test_nothing_from_elsewhere_may_run_in_it_or_frame_it(http: aiohttp.ClientSession, place: str) -> None:
    answer = await http.get(place, allow_redirects=False)
    rules = dict(rule.strip().partition(" ")[::2] for rule in answer.headers["Content-Security-Policy"].split(";"))
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert (rules["require-trusted-types-for"], rules["trusted-types"]) == ("'script'", "'none'")
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"


async def test_a_browser_asks_again_and_gets_only_what_has_changed(http: aiohttp.ClientSession) -> None:
    answer = await http.get("/ui/app.js")
    etag = answer.headers["ETag"]
    assert re.fullmatch(r'"[0-9a-f]{20}"', etag)
    assert answer.headers["Cache-Control"] == "no-cache", "after an update nobody works with the old page"
    for known in (etag, f"W/{etag}", f'"other", {etag}'):
        same = await http.get("/ui/app.js", headers={"If-None-Match": known})
        assert (same.status, await same.read(), same.headers["ETag"]) == (304, b"", etag)
        assert "Content-Security-Policy" in same.headers
    other = await http.get("/ui/style.css", headers={"If-None-Match": etag})
    assert other.status == 200


async def test_head_tells_the_same_without_the_body(http: aiohttp.ClientSession) -> None:
    whole, head = await http.get("/ui/app.js"), await http.head("/ui/app.js")
    assert (head.status, await head.read()) == (200, b"")
    for name in ("Content-Type", "Content-Length", "ETag", "Content-Security-Policy", "Cache-Control"):
        assert head.headers[name] == whole.headers[name], name


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_files_can_only_be_read(http: aiohttp.ClientSession, method: str) -> None:
    answer = await http.request(method, "/ui/app.js")
    assert answer.status in (401, 405)
    await refusal(answer)


OUTSIDE = [
    *("../pages.py", "../../pyproject.toml", "..%2f..%2fpyproject.toml", "%2e%2e/%2e%2e/pyproject.toml"),
    *("..%252f..%252fpyproject.toml", "..%5c..%5cpyproject.toml", "..\\..\\pyproject.toml", "....//app.js"),
    *("%2fetc%2fpasswd", "/etc/passwd", "//etc/passwd", "./app.js%00", "app.js%00.html", "%00", "vendor/..%2fapp.js"),
    *("..;/app.js", "%c0%ae%c0%ae/app.js", "%u002e%u002e/app.js", "APP.JS", "app.js/", "app.js.", "vendor", "vendor/"),
    *("docs/docs.js", "docs/index.html", "__pycache__/", "~root", "C:/app.js", "file:///etc/passwd"),
]


async def test_no_spelling_leads_out_of_the_folder(pollux: Replica) -> None:
    for place in OUTSIDE:
        raw = f"GET /ui/{place} HTTP/1.1\r\nHost: pollux\r\nConnection: close\r\n\r\n".encode()
        status, headers, body = await exchange(pollux.url, raw)
        assert status in (400, 401, 404), place
        checked(status, headers, body)


async def test_what_is_not_there_is_said_as_the_api_says_it(http: aiohttp.ClientSession) -> None:
    told = await refusal(await http.get(URL("/ui/<script>alert(1)</script>.js?key=sk-secret", encoded=True)))
    assert (told.status, told.type) == (404, "invalid_request_error")
    assert told.headers["Content-Type"].startswith("application/json")
    assert "sk-secret" not in told.message


async def test_a_query_changes_nothing(http: aiohttp.ClientSession) -> None:
    answer = await http.get("/ui/app.js?v=2")
    assert await answer.read() == (WEB / "app.js").read_bytes()


async def test_a_key_is_no_part_of_any_file(http: aiohttp.ClientSession) -> None:
    headers = {"Authorization": f"Bearer {ALICE}"}
    for name in ("", "app.js", "api.js"):
        answer = await http.get(f"/ui/{name}", headers=headers)
        assert ALICE.encode() not in await answer.read()
        assert ALICE not in str(answer.headers)
        assert "Set-Cookie" not in answer.headers


async def test_nothing_names_another_host() -> None:
    for name in FILES:
        found = set(re.findall(r"""(?:src|href|from|import)\s*[=(]?\s*["'](https?:)?//""", (WEB / name).read_text()))
        assert not found, name


async def test_a_process_that_only_runs_jobs_has_no_page(simulator: str, store_url: str) -> None:
    config = parse_config(make_config(simulator, store=store_url), environ={})
    with bound("127.0.0.1", 0) as sockets:
        async with running(config, sockets, Role.WORKER), aiohttp.ClientSession() as http:
            url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
            for place in ("/ui", "/ui/", "/ui/app.js", "/docs", "/openapi.json"):
                answer = await http.get(f"{url}{place}", headers={"Authorization": f"Bearer {ALICE}"})
                assert answer.status == 404, place
                await refusal(answer)
