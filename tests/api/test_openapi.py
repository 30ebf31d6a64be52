"""`/openapi.json` names what is served, says all that must be said of it, and its models take what the server takes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import web
from pydantic import ValidationError

from server.api.models.base import PASSED
from server.api.models.named import MODELS
from server.api.models.request import CreateResponse
from server.api.openapi.document import document
from server.api.openapi.samples import BODIES, PROGRAMS
from server.api.operation import REQUESTED, Auth
from server.api.pages import POLICIES
from server.api.router import add_routes
from server.api.routes.table import PREFIXES, ROUTES, UNPREFIXED
from tests.support.described import operations
from tests.support.replica import CACHED, Replica

DOCUMENT = document()
EXTENSION = "x-pollux-extension"
OPERATIONS = {
    (method.upper(), path): operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
each = pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=lambda part: part)


def plain(path: str) -> str:
    """Without names and patterns of what varies."""
    return re.sub(r"\{[^}]*\}", "{}", path)


# The same operations everywhere.


def served() -> Iterator[tuple[str, str, Auth]]:
    """What the router serves, but for what it adds to each path: OPTIONS, HEAD, and the slash at the end."""
    app = web.Application()
    add_routes(app)
    for route, requested in app[REQUESTED].items():
        assert route.resource is not None
        if route.method not in ("OPTIONS", "HEAD") and not route.resource.canonical.endswith("/"):
            yield route.method, route.resource.canonical, requested.auth


def test_the_router_serves_the_operations_that_are_described_and_no_others() -> None:
    wanted = {
        (method, prefix + path.removeprefix("/v1"))
        for method, path in OPERATIONS
        for prefix in ([re.sub(r":[^}]*", "", one) for one in PREFIXES] if path.startswith("/v1/") else [""])
    }
    assert {(method, path) for method, path, _ in served()} == wanted


def test_the_table_has_the_operations_that_are_described() -> None:
    table = {(one.method, plain("/v1" + one.path)) for one in ROUTES}
    table |= {(one.method, plain(one.path)) for one in UNPREFIXED}
    assert {(method, plain(path)) for method, path in OPERATIONS} == table


async def test_the_document_is_served_to_everybody_once(pollux: Replica) -> None:
    async with pollux.http(None) as http:
        answer = await http.get(f"{pollux.url}/openapi.json")
        assert (answer.status, await answer.json()) == (200, DOCUMENT)
        again = await http.get(f"{pollux.url}/openapi.json", headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status, await again.read()) == (304, b"")


def sdks() -> set[tuple[str, str]]:
    """The operations that OpenAI's SDK has of what we serve."""
    resources = Path(openai.__file__).parent / "resources"
    texts = [(resources / name / "api.md").read_text() for name in ("responses", "webhooks")]
    found = {(verb.upper(), path) for text in texts for verb, path in re.findall(r'title="(\w+) (/[^"?]+)', text)}
    return {(verb, plain(f"/v1{path}")) for verb, path in found} | {("GET", "/v1/models"), ("GET", "/v1/models/{}")}


def test_what_the_sdk_has_is_served_and_all_else_is_marked_as_an_extension() -> None:
    unmarked = {(method, plain(path)) for (method, path), one in OPERATIONS.items() if EXTENSION not in one}
    assert unmarked == sdks()


# All that must be said.


@each
def test_an_operation_says_all_that_a_caller_must_know(method: str, path: str) -> None:
    operation = OPERATIONS[method, path]
    assert operation["summary"]
    assert not operation["summary"].endswith(".")
    assert set(operation["tags"]) <= {tag["name"] for tag in DOCUMENT["tags"]}
    assert [one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"] == re.findall(
        r"\{(\w+)", path
    )
    for parameter in operation.get("parameters", ()):
        assert parameter["in"] == "path" or parameter["description"]
        assert parameter["schema"]
    assert ("requestBody" in operation) == bool(operations()[method, path.removeprefix("/v1")].body)
    for status, answer in operation["responses"].items():
        assert answer["description"]
        assert "X-Request-Id" in answer["headers"]
        if status[0] in "45":
            schema = answer["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ErrorResponse"}
    assert {"200", "400", "500", "503"} <= operation["responses"].keys()


@each
def test_an_operation_says_whom_it_answers(method: str, path: str) -> None:
    operation = OPERATIONS[method, path]
    [auth] = {auth for verb, place, auth in served() if (verb, place) == (method, path)}
    assert bool(operation["security"]) == (auth is not Auth.NONE)
    assert ("401" in operation["responses"]) == (auth is not Auth.NONE)
    if auth in (Auth.MASTER, Auth.SCRAPER):
        assert "master key" in operation["description"]


def test_nothing_under_a_prefix_is_open_to_everybody() -> None:
    closed = {path for (_, path), operation in OPERATIONS.items() if operation["security"]}
    assert closed == {path for _, path in OPERATIONS if path.startswith("/v1/")} | {"/metrics"}
    for_few = {path for _, path, auth in served() if auth in (Auth.MASTER, Auth.SCRAPER)}
    assert for_few >= {"/v1/processes", "/metrics"}


@each
async def test_who_need_not_have_a_key_is_who_gets_an_answer_without_one(
    method: str, path: str, pollux: Replica
) -> None:
    async with pollux.http(None) as http:
        place = re.sub(r"\{\w+\}", "x", path)
        async with http.request(method, pollux.url + place, allow_redirects=False) as answer:
            assert (answer.status == 401) == bool(OPERATIONS[method, path]["security"])


def test_names_are_unique_and_fit_for_functions_of_clients() -> None:
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len({*names}) == len(names)
    assert all(re.fullmatch(r"[a-z]+([A-Z][a-z]*)*", name) for name in names), names
    assert PROGRAMS.keys() <= {*names}


def test_what_is_referred_to_is_there_and_what_is_there_is_referred_to() -> None:
    referred: set[str] = set()

    def visit(node: Any) -> None:
        for name, part in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
            if name == "$ref":
                referred.add(part)
            if name == "operationId":
                assert part in {operation["operationId"] for operation in OPERATIONS.values()}
            visit(part)

    visit(DOCUMENT)
    components = DOCUMENT["components"]
    assert referred == {f"#/components/{kind}/{name}" for kind in ("schemas", "headers") for name in components[kind]}


# The models.


@pytest.mark.parametrize("model", BODIES)
def test_examples_fit_their_models(model: str) -> None:
    for example in BODIES[model].values():
        MODELS[model].model_validate(example["value"])


VALUES: tuple[Any, ...] = (True, 1, -1, 0.5, 10**9, "", "x", [], ["x"], [1], [{}], {}, {"x": "y"}, {"x": 1})


@pytest.mark.undescribed("what is passed on comes back as it is, whatever it is")
@pytest.mark.parametrize("name", CreateResponse.model_fields)
async def test_the_server_refuses_of_a_create_call_what_its_model_does(name: str, pollux: Replica) -> None:
    field = CreateResponse.model_fields[name]
    async with pollux.http() as http:
        for value in VALUES:
            body = {"model": CACHED, "input": "hi", "background": True, name: value}
            async with http.post("responses", json=body) as answer:
                error = (await answer.json()).get("error") if answer.status >= 400 else None
            refused = _refuses(body)
            if PASSED in field.metadata:
                assert not refused, "what is passed on is not judged"
            elif refused:
                assert error, f"{name}: {value!r} was taken"
                assert error["param"].split(".")[0].split("[")[0] == name, value
            elif error:
                assert error["code"] != "invalid_type", f"{name}: {value!r} fits its model: {error}"


def _refuses(body: dict[str, Any]) -> bool:
    try:
        CreateResponse.model_validate(body)
    except ValidationError:
        return True
    return False


# The page.


async def test_the_page_runs_what_comes_from_here_alone(pollux: Replica) -> None:
    assert "default-src 'none'; script-src 'self';" in POLICIES["docs"]
    async with pollux.http(None) as http:
        page = await http.get(f"{pollux.url}/docs/")
        assert page.headers["Content-Security-Policy"] == POLICIES["docs"]
        text = await page.text()
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|https?:", text), "nothing within the page runs"
        for place in re.findall(r'(?:src|href)="([^"#]+)', text):
            async with http.get(f"{pollux.url}/docs/{place}") as answer:
                assert answer.status == 200, place
