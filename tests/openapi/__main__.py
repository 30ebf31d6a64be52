"""Lets schemathesis loose on a server with something in it: `python -m tests.openapi SCHEMATHESIS --seed 1`."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import uvloop

from tests.support.receiver import running_receiver
from tests.support.replica import ALICE, BOB, CACHED, MASTER_KEY, Replica, ended, make_config, running_replica
from tests.support.upstreams import running_simulator

ROOT = Path(__file__).parents[2]
SETTINGS = Path(__file__).with_name("schemathesis.toml")
SEED = 12
"""That of the gate, so that it says the same about the same code."""
RUNS: dict[str, tuple[str | None, str, int]] = {
    "with the master key": (MASTER_KEY, "examples,coverage,fuzzing,stateful", 4),
    "with a key": (BOB, "fuzzing", 3),
    "without a key": (None, "fuzzing", 2),
}
"""Each with its key, its phases, and how many cases there are of an operation in those that draw them."""
MOST_RESPONSES = 12


async def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.openapi", description=__doc__)
    parser.add_argument("binaries", type=Path, help="the folder with schemathesis and openapi-spec-validator")
    parser.add_argument("--seed", type=int, default=SEED, help="0 for another one each time (%(default)s)")
    parser.add_argument("--cases", type=int, default=1, help="how many times as many cases (%(default)s)")
    options = parser.parse_args()
    options.binaries = options.binaries.resolve()
    logging.basicConfig(level=logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="pollux-openapi-") as directory:
        folder = Path(directory)
        async with running_simulator() as simulator, running_receiver() as receiver:
            config = make_config(simulator, webhook_allow_private=True, webhook_per_request=True)
            # Most calls that the provider refuses are so odd that it must; none shall keep the others from it.
            config["router_settings"] = {"allowed_fails": 10**6}
            async with running_replica(config, f"embedded://{folder / 'store'}") as replica:
                await _fill(replica, receiver.url)
                await _validate(options.binaries, replica, folder / "openapi.json")
                failed = [name for name in RUNS if not await _run(name, options, replica, folder)]
    for name in failed:
        print(f"schemathesis has found something {name}")
    return len(failed)


async def _fill(replica: Replica, receiver: str) -> None:
    """Responses and endpoints of both who will ask."""
    for key in (MASTER_KEY, BOB, ALICE):
        async with replica.http(key) as http:
            endpoint = {"name": "all", "url": receiver, "event_types": ["response.completed"]}
            async with http.post("webhook_endpoints", json=endpoint) as answer:
                assert answer.status == 200, await answer.text()
            for number in range(MOST_RESPONSES):
                body: dict[str, Any] = {"model": CACHED, "input": f"Hello {number}!", "background": True}
                async with http.post("responses", json=body) as answer:
                    response_id = (await answer.json())["id"]
                await ended(http, response_id)


async def _validate(binaries: Path, replica: Replica, file: Path) -> None:
    async with replica.http(None) as http, http.get(f"{replica.url}/openapi.json") as answer:
        file.write_bytes(await answer.read())
    process = await asyncio.create_subprocess_exec(binaries / "openapi-spec-validator", file)
    if await process.wait():
        sys.exit("/openapi.json is no valid OpenAPI")


async def _run(name: str, options: argparse.Namespace, replica: Replica, folder: Path) -> bool:
    key, phases, cases = RUNS[name]
    settings = folder / "schemathesis.toml"
    settings.write_text(SETTINGS.read_text() + await _known(replica, key))
    print(f"-- {name}: phases {phases}", flush=True)
    process = await asyncio.create_subprocess_exec(
        *(options.binaries / "schemathesis", "--config-file", settings, "run", f"{replica.url}/openapi.json"),
        *("--phases", phases, "--max-examples", str(cases * options.cases), "--no-color", "--warnings", "off"),
        *(("--seed", str(options.seed)) if options.seed else ()),
        *(("--header", f"Authorization: Bearer {key}") if key else ()),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=asyncio.subprocess.DEVNULL,
    )
    return await process.wait() == 0


async def _known(replica: Replica, key: str | None) -> str:
    """Settings by which ids are mostly such as there are."""
    if key is None:
        return ""
    async with replica.http(key) as http:
        responses = [one["id"] for one in (await (await http.get("responses?limit=100")).json())["data"]]
        endpoints = [one["id"] for one in (await (await http.get("webhook_endpoints")).json())["data"]]
    return f"""
[dictionaries]
responses = {{ values = {json.dumps(responses)} }}
endpoints = {{ values = {json.dumps(endpoints)} }}
models = {{ values = {json.dumps([CACHED])} }}

[[operations]]
include-path-regex = "^/v1/(responses|jobs)/"
[operations.parameters]
"path.id" = {{ dictionary = "responses", probability = 0.7 }}

[[operations]]
include-path-regex = "^/v1/webhook_endpoints/"
[operations.parameters]
"path.id" = {{ dictionary = "endpoints", probability = 0.7 }}

[[operations]]
include-path-regex = "^/v1/models/"
[operations.parameters]
"path.id" = {{ dictionary = "models", probability = 0.7 }}
"""


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
