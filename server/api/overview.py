"""What operators see of the whole: processes, deployments, and how many responses took which status when."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from server.api.answers import json_answer
from server.api.context import Context, context_of, principal_of
from server.api.query import integer
from server.errors import InvalidValue
from server.keyring import Principal
from server.upstream.deployments import Deployment
from server.upstream.lately import WITHIN_S
from storage import ProcessReport

MOST_MINUTES, DEFAULT_MINUTES = 120, 60


async def list_processes(request: web.Request) -> web.Response:
    """The processes that live, of all replicas."""
    reports = await context_of(request).store.processes.all()
    return json_answer(request, {"object": "list", "data": [_process(report) for report in reports]})


def _process(report: ProcessReport) -> dict[str, Any]:
    about = {name: value for name, value in report.about.items() if name != "deployments"}
    return {"id": report.name, "object": "process", "reported_at": report.at, **about}


async def list_deployments(request: web.Request) -> web.Response:
    """The deployments of the models that the caller may use, and how they do at all replicas together."""
    context, principal = context_of(request), principal_of(request)
    reports = await context.store.processes.all()
    made = [one for one in context.deployments.all if context.ways.may_use(principal, one.model_name)]
    data = [_deployment(principal, one, reports) for one in made]
    return json_answer(request, {"object": "list", "data": data, "within_s": WITHIN_S})


def _deployment(principal: Principal, made: Deployment, reports: list[ProcessReport]) -> dict[str, Any]:
    told = {report.name: report.about.get("deployments", {}).get(made.id) for report in reports}
    courses = [course for course in told.values() if isinstance(course, dict)]
    calls, failed = (sum(int(course.get(name) or 0) for course in courses) for name in ("calls", "failed"))
    cooling = sorted(name for name, course in told.items() if isinstance(course, dict) and course.get("cools_for_s"))
    return {
        "id": made.id,
        "object": "deployment",
        "model": made.model_name,
        "upstream_model": made.upstream_model,
        "provider": made.provider,
        "dialect": made.manners.dialect,
        "usable": made.unusable is None,
        "state": _state(made, len(cooling), len(courses)),
        "cooling_at": cooling if principal.is_master else None,
        "cools_for_s": max((float(course.get("cools_for_s") or 0) for course in courses), default=0.0),
        "in_flight": sum(int(course.get("in_flight") or 0) for course in courses),
        "most_in_flight": made.max_parallel_requests,
        "calls": calls,
        "failed": failed,
        "median_s": _mean(courses, "median_s"),
        "first_event_median_s": _mean(courses, "first_median_s"),
    }


def _state(made: Deployment, cooling: int, all_of: int) -> str:
    if made.unusable is not None:
        return "unusable"
    if not cooling:
        return "healthy"
    return "cooling" if cooling == all_of else "partly_cooling"


def _mean(courses: list[dict[str, Any]], name: str) -> float | None:
    """The mean of the processes' medians, each with the weight of its calls."""
    parts = [(float(course[name]), int(course.get("calls") or 0)) for course in courses if course.get(name) is not None]
    weight = sum(calls for _, calls in parts)
    return sum(value * calls for value, calls in parts) / weight if weight else None


async def show_tallies(request: web.Request) -> web.Response:
    """How many of the caller's responses took each status in each of the last minutes, oldest first."""
    context, principal = context_of(request), principal_of(request)
    minutes = integer(request, "minutes")
    minutes = DEFAULT_MINUTES if minutes is None else minutes
    if not 1 <= minutes <= MOST_MINUTES:
        text = f"Invalid 'minutes': expected 1 to {MOST_MINUTES}, but got {minutes} instead."
        raise InvalidValue(text, param="minutes")
    owner = None if principal.is_master else principal.name
    tallies = await context.store.overviews.tallies(owner, minutes)
    queued, running = await _unfinished(context, owner)
    return json_answer(request, {"object": "tallies", "data": tallies, "queued": queued, "running": running})


async def _unfinished(context: Context, owner: str | None) -> tuple[int | None, int | None]:
    """How many responses are queued and in progress now; None where the store does not say."""
    if owner is not None:
        return await context.store.overviews.unfinished(owner)
    counts = await context.job_counts.now()
    return (counts.queued, counts.leased) if counts else (None, None)
