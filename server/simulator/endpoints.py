"""All URLs of the simulator: those of each dialect, and what belongs to none of them."""

from aiohttp import web

from server.simulator.answering import json_response
from server.simulator.chat.endpoints import routes as chat_routes
from server.simulator.context import SIMULATOR
from server.simulator.errors import ApiError
from server.simulator.messages.endpoints import routes as messages_routes
from server.simulator.responses.endpoints import routes as responses_routes
from server.simulator.turn import Json

# Providers serve the dialects at many a path, such as /openai/v1/ or /compatibility/v1/: any will do.
_ANY_BASE = "/{base:(?:.+/)?}"
# For clients that look before they ask. A create call may name any model.
_MODELS = ("gpt-5.2", "gpt-4o", "o4-mini-deep-research", "claude-sonnet-4-5", "simulated")


def routes() -> list[web.RouteDef]:
    return [
        web.get("/simulator/requests", report),
        web.post("/simulator/reset", reset),
        *responses_routes(_ANY_BASE),
        *chat_routes(_ANY_BASE),
        *messages_routes(_ANY_BASE),
        web.get(f"{_ANY_BASE}models", list_models, allow_head=False),
        web.get(f"{_ANY_BASE}models/{{id}}", retrieve_model, allow_head=False),
    ]


def is_for_the_api(request: web.Request) -> bool:
    """Whether a request is one that a provider would get, and not one about the simulator."""
    return not request.path.startswith("/simulator/")


async def list_models(_: web.Request) -> web.Response:
    return json_response({"object": "list", "data": [_model(name) for name in _MODELS]})


async def retrieve_model(request: web.Request) -> web.Response:
    name = request.match_info["id"]
    if name not in _MODELS:
        message = f"The model '{name}' does not exist or you do not have access to it."
        raise ApiError(404, message, code="model_not_found", param="model")
    return json_response(_model(name))


async def report(request: web.Request) -> web.Response:
    return json_response(request.app[SIMULATOR].traffic.report())


async def reset(request: web.Request) -> web.Response:
    simulator = request.app[SIMULATOR]
    simulator.traffic.clear()
    simulator.failures.clear()
    simulator.runs.clear()
    return json_response({"reset": True})


def _model(name: str) -> Json:
    return {"id": name, "object": "model", "created": 1735689600, "owned_by": "simulator"}
