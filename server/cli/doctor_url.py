"""Checking a running server from outside."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

from server import __version__
from server.cli.answers import error_of
from server.cli.client import Client, Refused, path_of
from server.cli.findings import Finding, fine, remark, wrong
from server.cli.trouble import Trouble
from server.cli.words import duration, several

Json = dict[str, Any]
MOST_SKEW_S = 5.0
MANY_FAILURES = 0.5
ENDS_WITHIN_S = 50


def examine_server(client: Client, *, upstreams: bool) -> Iterator[Finding]:
    """All findings about the server that the client asks, one after the other."""
    try:
        yield from _examine(client, upstreams=upstreams)
    except Trouble as trouble:
        yield wrong("server", str(trouble))


def _examine(client: Client, *, upstreams: bool) -> Iterator[Finding]:
    url = client.settings.url
    try:
        with client.open("GET", "/livez", patience_s=0) as answer:
            skew_s = parsedate_to_datetime(answer.headers["Date"]).timestamp() - time.time()
    except (TypeError, ValueError):
        yield wrong("server", f"what answers at {url} is no Pollux: it does not tell the time")
        return
    yield fine("server", f"{url} answers")
    yield _ready(client)
    if abs(skew_s) > MOST_SKEW_S:
        yield remark("clock", f"the server's is {abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} ours")
    try:
        models = client.get("models", patience_s=0)["data"]
    except Trouble as trouble:
        yield wrong("key", str(trouble))
        return
    yield fine("key", f"it is taken, for {several(len(models), 'model')}")
    yield from _processes(client)
    yield from _deployments(client)
    if upstreams:
        for model in models:
            if "*" not in model["id"]:
                yield _asked(client, model["id"])


def _ready(client: Client) -> Finding:
    try:
        with client.open("GET", "/readyz", patience_s=0):
            return fine("server", "it is ready: it takes new work, and its store answers")
    except Trouble as trouble:
        return wrong("server", f"it is not ready: {trouble}")


def _processes(client: Client) -> Iterator[Finding]:
    try:
        processes = client.get("processes", patience_s=0)["data"]
    except Refused as refused:
        if refused.status == 403:
            yield remark("processes", "only the master key may see them")
            return
        yield wrong("processes", str(refused))
        return
    versions = sorted({one["version"] for one in processes})
    told = f"{len(processes)} on the store, of version {', '.join(versions)}"
    yield fine("processes", told) if len(versions) == 1 else remark("processes", told)
    if versions != [__version__]:
        yield remark("processes", f"this command is of version {__version__}")
    if not any(one["role"] in ("all", "worker") and not one["leaving"] for one in processes):
        yield wrong("processes", "none of them runs jobs: start one without --role api")


def _deployments(client: Client) -> Iterator[Finding]:
    found = client.get("deployments", patience_s=0)
    minutes = duration(found["within_s"])
    for one in found["data"]:
        name = f"{one['model']} ({one['provider']} {one['upstream_model']})"
        calls, failed = one["calls"], one["failed"]
        told = f"{name}: {one['state'].replace('_', ' ')}, {failed} of {calls} calls failed in {minutes}"
        if one["state"] == "unusable":
            yield wrong("upstreams", f"{name} can't be used: pollux check-config FILE says why")
        elif one["state"] != "healthy" or failed > calls * MANY_FAILURES:
            yield remark("upstreams", told)
        else:
            yield fine("upstreams", told)


def _asked(client: Client, model: str) -> Finding:
    """A short response of a model, from end to end."""
    began = time.monotonic()
    body = {"model": model, "input": "Say: fine.", "background": True, "max_output_tokens": 64}
    try:
        response = client.call("POST", "responses", body, patience_s=0).body
        path = path_of(response["id"])
        response = client.get(path, {"wait": ENDS_WITHIN_S}, wait_s=ENDS_WITHIN_S)
        client.call("DELETE", path, patience_s=0)
    except Trouble as trouble:
        return wrong("upstreams", f"{model}: {trouble}")
    took = duration(time.monotonic() - began)
    # Whether a model has ended its answer in so few tokens is not the question.
    if response["status"] in ("completed", "incomplete"):
        return fine("upstreams", f"{model} has answered in {took}")
    return wrong(
        "upstreams", f"{model} is {response['status']} after {took}: {error_of(response) or 'no reason given'}"
    )
