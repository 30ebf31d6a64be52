"""A provider with several accounts: each reads only what it encrypted itself, and uses only its own containers."""

from __future__ import annotations

from itertools import count
from typing import Any

import orjson
from aiohttp import web

from tests.support.replica import make_config


def two_accounts(upstream: str, **pollux: Any) -> dict[str, Any]:
    """Each model of `make_config` twice: the two differ in the credential alone."""
    config = make_config(upstream, api_key="first", **pollux)
    config["model_list"] += make_config(upstream, api_key="second")["model_list"]
    return config


def account_of(request: web.Request) -> str:
    return request.headers["Authorization"].removeprefix("Bearer ")


class Accounts:
    """A handler for `running_script`. It keeps nothing but each account's background responses."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        """The account of each create call."""
        self._numbers = count(1)
        self._kept: dict[str, dict[str, Any]] = {}

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        account = account_of(request)
        named = request.path.partition("/responses/")[2].split("/")[0]
        if request.method != "POST":
            if named not in self._kept:
                return refused(404, f"Response with id '{named}' not found.")
            response = self._kept[named]
            if request.path.endswith("/input_items"):
                items = [reasoning(account, 0)]
                return web.json_response({"object": "list", "data": items, "first_id": "rs_0", "last_id": "rs_0"})
            return web.json_response(response)
        self.asked.append(account)
        body = orjson.loads(await request.read())
        if strange := [value for value in bound_values(body) if not value.startswith(own(account))]:
            return refused(400, f"The encrypted content {strange[0]} could not be verified.")
        response = self._response(account, body)
        self._kept[response["id"]] = response
        return await _stream(request, response) if body.get("stream") else web.json_response(response)

    def _response(self, account: str, body: dict[str, Any]) -> dict[str, Any]:
        number = next(self._numbers)
        compacted = [compaction(account)] if body.get("context_management") else []
        return {
            "id": f"resp_{account}_{number:020d}",
            "object": "response",
            "status": "completed",
            "background": body.get("background") or False,
            "previous_response_id": body.get("previous_response_id"),
            "output": [*compacted, reasoning(account, number), ran_code(account), message(account)],
            "tools": body.get("tools") or [],
            "metadata": body.get("metadata") or {},
        }


def own(account: str) -> tuple[str, str]:
    """What values that this account can use begin with."""
    return f"gAAAA_{account}_", f"cntr_{account}_"


def reasoning(account: str, number: int) -> dict[str, Any]:
    return {
        "type": "reasoning",
        "id": f"rs_{number}",
        "summary": [],
        "encrypted_content": f"gAAAA_{account}_{number}==",
    }


def compaction(account: str) -> dict[str, Any]:
    return {"type": "compaction", "id": "cmp_1", "encrypted_content": f"gAAAA_{account}_all=="}


def ran_code(account: str) -> dict[str, Any]:
    call = {"type": "code_interpreter_call", "id": "ci_1", "status": "completed", "code": "1", "outputs": []}
    return {**call, "container_id": f"cntr_{account}_0123456789"}


def message(account: str) -> dict[str, Any]:
    file = {
        "type": "container_file_citation",
        "file_id": "cfile_1",
        "filename": "a.csv",
        "start_index": 0,
        "end_index": 1,
    }
    content = {
        "type": "output_text",
        "text": "Here.",
        "annotations": [{**file, "container_id": f"cntr_{account}_9876543210"}],
    }
    return {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [content]}


def bound_values(value: Any) -> list[str]:
    """All encrypted contents and containers in a JSON value."""
    if isinstance(value, list):
        return [found for inner in value for found in bound_values(inner)]
    if not isinstance(value, dict):
        return []
    names = ("encrypted_content", "container_id", "container")
    here = [value[name] for name in names if isinstance(value.get(name), str)]
    return here + [found for name, inner in value.items() if name != "metadata" for found in bound_values(inner)]


def refused(status: int, text: str) -> web.Response:
    error = {"message": text, "type": "invalid_request_error", "code": "invalid_encrypted_content", "param": None}
    return web.json_response({"error": error}, status=status)


async def _stream(request: web.Request, response: dict[str, Any]) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    for event in _events(response):
        await answer.write(b"event: %b\ndata: %b\n\n" % (str(event["type"]).encode(), orjson.dumps(event)))
    return answer


def _events(response: dict[str, Any]) -> list[dict[str, Any]]:
    thought, code, text = response["output"][-3:]
    begun = {**thought, "encrypted_content": thought["encrypted_content"][:-1]}
    cited = {"annotation_index": 0, "annotation": text["content"][0]["annotations"][0]}
    part = text["content"][0]
    at = {"item_id": "msg_1", "output_index": 2, "content_index": 0}
    return [
        {"type": "response.created", "response": {**response, "status": "in_progress", "output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": begun},
        {"type": "response.output_item.done", "output_index": 0, "item": thought},
        {"type": "response.output_item.added", "output_index": 1, "item": code},
        {"type": "response.output_item.done", "output_index": 1, "item": code},
        {"type": "response.output_item.added", "output_index": 2, "item": {**text, "content": []}},
        {"type": "response.content_part.added", "part": {"type": "output_text", "text": "", "annotations": []}, **at},
        {"type": "response.output_text.delta", "delta": "Here.", **at},
        {"type": "response.output_text.annotation.added", **cited, **at},
        {"type": "response.content_part.done", "part": part, **at},
        {"type": "response.output_item.done", "output_index": 2, "item": text},
        {"type": "response.completed", "response": response},
    ]  # fmt: skip
