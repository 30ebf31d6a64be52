"""Checking a config file, and what it names, on the machine that is to serve it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import uvloop

from server.check import unusable_in, warnings_about
from server.cli.findings import Finding, fine, remark, wrong
from server.cli.words import several
from server.config import Config, load_config
from server.config.sections import ConfigError
from server.config.unused import told_in_one
from server.keyring import Keyring
from server.system.files import OpenFiles, raise_limit
from server.upstream.client import new_session
from server.upstream.deployments import Deployments
from server.upstream.grants import Grants
from server.upstream.probe import probe
from storage import Checkup, Durability, StoreError, open_store

STORE_WITHIN_S = 5.0
MOST_SKEW_S = 1.0
"""Leases and expiry go by the store's clock alone; beyond this, times in logs and objects don't fit each other."""
SLOW_S = 0.05
AT_ONCE = 8


def examine_file(file: Path, *, upstreams: bool) -> list[Finding]:
    """All findings about a config file."""
    logging.getLogger("pollux").setLevel(logging.CRITICAL)  # what is worth saying stands in the findings
    try:
        config = load_config(file)
    except (ConfigError, OSError) as error:
        return [wrong("config", str(error))]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_examine(file, config, upstreams=upstreams))


async def _examine(file: Path, config: Config, *, upstreams: bool) -> list[Finding]:
    found = [*_config(file, config), _open_files(config)]
    found += [finding async for finding in _store(config)]
    if upstreams:
        found += await _upstreams(config)
    return found


def _config(file: Path, config: Config) -> Iterator[Finding]:
    models, keys = len({entry.model_name for entry in config.model_list}), Keyring(config)
    yield fine("config", f"{file} is valid: {several(models, 'model')}")
    if text := told_in_one(config):
        yield remark("config", text)
    cant_be_used = set(unusable_in(config))
    for text in warnings_about(config):
        yield wrong("config", text) if text in cant_be_used else remark("config", text)
    if keys.empty:
        yield remark("keys", "there are none: only this machine is served; set general_settings.master_key")
    else:
        yield fine(
            "keys", f"{len(config.pollux.keys)} and {'a' if config.general_settings.master_key else 'no'} master key"
        )


def _open_files(config: Config) -> Finding:
    files = OpenFiles(raise_limit(), jobs=config.pollux.worker_concurrency)
    try:
        files.check()
    except ConfigError as error:
        return wrong("open files", str(error))
    return fine("open files", f"room for {files}, for each process")


async def _store(config: Config) -> AsyncIterator[Finding]:
    ours = config.pollux
    try:
        async with open_store(
            config.store_url(), ours.shards, Durability(ours.store_sync), patience_s=STORE_WITHIN_S
        ) as store:
            found = await store.check_up()
            yield fine("store", f"{store.name} answers in {found.answer_s * 1000:.1f} ms")
            shards = several(store.shards, "shard")
            yield fine("store", f"{found.server}, which keeps its data by {found.keeps}; {shards}")
            for finding in _checked(found):
                yield finding
    except ConfigError as error:
        yield wrong("store", str(error))
    except StoreError as error:
        yield wrong("store", f"{error}\n  Start it, or name another one: POLLUX_STORE, pollux.store or cache_params.")


def _checked(found: Checkup) -> Iterator[Finding]:
    if found.refused:
        lacking = " ".join(f"+{name.lower().replace(' ', '|', 1)}" for name in found.refused)
        yield wrong("store", f"its user lacks rights, see deploy/README.md (Rights): {lacking}")
    else:
        yield fine("store", "its user has all rights that are needed")
    if found.keeps == "nothing":
        yield remark("store", "it keeps nothing over a restart: switch appendonly on")
    if found.answer_s > SLOW_S:
        yield remark("store", f"it is slow: {found.answer_s * 1000:.0f} ms for the least command")
    for text in found.remarks:
        yield remark("store", text)
    if abs(found.skew_s) > MOST_SKEW_S:
        way = "ahead of" if found.skew_s > 0 else "behind"
        yield remark("clock", f"the store's is {abs(found.skew_s):.1f} s {way} ours: synchronise them (NTP)")
    else:
        yield fine("clock", f"the store's and ours differ by {abs(found.skew_s) * 1000:.0f} ms")


async def _upstreams(config: Config) -> list[Finding]:
    turns = asyncio.Semaphore(AT_ONCE)
    async with new_session() as session:
        grants = Grants(session)

        async def one(number: int) -> Finding:
            deployment = deployments[number]
            async with turns:
                probed = await probe(session, grants, deployment)
            told = f"{deployment.model_name} ({deployment.provider} {deployment.upstream_model}) {probed.told}"
            if probed.lets_in is False:
                return wrong("upstreams", f"{told}\n  Correct its api_key.")
            if not probed.reached:
                return wrong("upstreams", told + ("" if deployment.unusable else "\n  Is its api_base right?"))
            return fine("upstreams", told)

        deployments = Deployments(config).all
        try:
            return list(await asyncio.gather(*map(one, range(len(deployments)))))
        finally:
            await grants.close()
