"""Jobs as rows of a table."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.text import Text

from server.cli.ids import short
from server.cli.output import in_one_line
from server.cli.terminal import status_text
from server.cli.words import age, count, duration

Json = dict[str, Any]
NUMBERS = ("AGE", "TIME", "TOKENS")


def columns(jobs: list[Json]) -> tuple[str, ...]:
    """The columns of a table of these jobs. Who sees those of all owners is told whose they are."""
    owner = ("OWNER",) if any("owner" in job for job in jobs) else ()
    return ("ID", "STATUS", "MODEL", *owner, *NUMBERS, "METADATA")


def row(job: Json, *, owners: bool) -> list[str | Text]:
    """A job in these columns."""
    return [
        short(job["id"]) if sys.stdout.isatty() else job["id"],
        status_text(job["status"]) + Text(f" {in_one_line(str(job['error']))}" if job.get("error") else "", "dim"),
        str(job.get("model") or ""),
        *([str(job.get("owner", ""))] if owners else []),
        age(job["created_at"]),
        run_time(job),
        tokens(job),
        " ".join(f"{name}={value}" for name, value in (job.get("metadata") or {}).items())[:60],
    ]


def run_time(job: Json) -> str:
    """How long it has run, or did run."""
    if not job.get("started_at"):
        return "-"
    return duration((job.get("ended_at") or time.time()) - job["started_at"])


def tokens(job: Json) -> str:
    """What it put out; while it runs, so many events."""
    if job.get("tokens"):
        return count(job["tokens"]["output"])
    return f"{count(job['events'])} ev" if job.get("events") else "-"
