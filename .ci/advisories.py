"""Asks for advisories about what the locks name, and fails on one that is not in `IGNORED`.

A lock is read as it is, and nothing is installed. Where no database can be asked, that is said, and it is no failure.
Nor must it look like a success: pip-audit itself takes a database that does not know a package for one without
advisories.
"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple


class Ignored(NamedTuple):
    """An advisory that does not concern us, for now."""

    advisory: str
    reason: str
    until: date
    """From this day on it must be judged again."""


IGNORED: tuple[Ignored, ...] = ()
SERVICES = ("pypi", "osv")
"""The databases, in the order in which they are asked; the next one where one can't be."""
PATIENCE_S = 300


class Unreachable(Exception):
    """No database could be asked. The message says why."""


def main(locks: list[str]) -> int:
    today = datetime.now(UTC).date()
    expired = [f"{one.advisory} was ignored until {one.until} ({one.reason})" for one in IGNORED if one.until <= today]
    ignored = {one.advisory for one in IGNORED}
    found: list[str] = []
    for lock in locks:
        try:
            advisories = _advisories(lock)
        except Unreachable as error:
            print(f"skipped: the advisories about {lock} ({error})")
            continue
        print(f"{lock}: {len(advisories)} advisories")
        found += [f"{lock}: {one.package}: {', '.join(one.names)}" for one in advisories if not ignored & {*one.names}]
    for complaint in dict.fromkeys([*expired, *found]):
        print(complaint)
    return int(bool(expired or found))


class Advisory(NamedTuple):
    """What a database knows against a version of a package."""

    package: str
    names: tuple[str, ...]
    """Its id there, and those that it has elsewhere."""


def _advisories(lock: str) -> list[Advisory]:
    """The advisories about what a lock names.

    Raises:
        Unreachable

    """
    whys = []
    for service in SERVICES:
        try:
            return _answer(lock, service)
        except Unreachable as error:
            whys.append(f"{service}: {error}")
    raise Unreachable("; ".join(whys))


def _answer(lock: str, service: str) -> list[Advisory]:
    command = ["--require-hashes", "--disable-pip", "--progress-spinner", "off", "--format", "json", "--timeout", "20"]
    program = Path(sys.executable).with_name("pip-audit")
    done = subprocess.run(
        [program, *command, "--vulnerability-service", service, "--requirement", lock],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    if not done.stdout.startswith("{"):
        if "ConnectionError" in done.stderr or "Timeout" in done.stderr or "HTTPError" in done.stderr:
            raise Unreachable("no connection")
        raise SystemExit(f"pip-audit can't read {lock}:\n{done.stderr[-2000:]}")
    packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    if unknown:
        raise Unreachable(f"it does not know {len(unknown)} of {len(packages)} packages, such as {unknown[0]}")
    return [
        Advisory(f"{package['name']} {package['version']}", (one["id"], *one["aliases"]))
        for package in packages
        for one in package["vulns"]
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
