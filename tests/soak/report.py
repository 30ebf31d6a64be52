"""What the soak found, as tables, and what of it is a failure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import astuple, dataclass, field

from tests.soak.customer import Notes
from tests.soak.judging import Allowance, Drift, Growth, drift_of, growth_of, thirds
from tests.soak.load import MACHINE
from tests.soak.samples import (
    CHANNELS,
    CONNECTED,
    CPU,
    DESCRIPTORS,
    ENTRIES,
    KEYS,
    LOAD,
    MEMORY,
    METRICS,
    STORED,
    TASKS,
    THREADS,
    UNDER_WAY,
    Samples,
)

ALLOWED = {
    MEMORY: Allowance(0.004, 1.5),
    DESCRIPTORS: Allowance(0.005, 5),
    TASKS: Allowance(0.005, 5),
    THREADS: Allowance(0.005, 2),
    METRICS: Allowance(0.002, 60),
    KEYS: Allowance(0.005, 20),
    ENTRIES: Allowance(0.005, 20),
    STORED: Allowance(0.005, 0.2),
    CONNECTED: Allowance(0.005, 3),
    CHANNELS: Allowance(0.005, 5),
    # What more and more of is done for each answer. It goes up and down with what neighbours do to the processor.
    CPU: Allowance(0.03, 1.0),
    UNDER_WAY: Allowance(1.0, 200),
}
"""A leak of one percent a minute is found wherever less than that is allowed."""
MOST_LOAD, MOST_MACHINE = 1.5, 2.0
"""How many times as many visits may be under way at last, and how many times as slow the machine may be. Beyond that
neither growth nor drift says anything of Pollux."""
WITH_THE_LOAD = frozenset({DESCRIPTORS, TASKS, CONNECTED, CHANNELS, KEYS, ENTRIES, CPU})
"""What there is more of while more visits are under way. What stays of these is found when all has drained."""


@dataclass
class Report:
    """All that came of a run."""

    warm_at: float
    """From when on growth counts, on the clock `time.monotonic`."""
    ended_at: float
    samples: Samples
    notes: Notes
    left: list[str] = field(default_factory=list)
    """What did not drain after the load, in words."""
    kinds: Counter[str] = field(default_factory=Counter)
    """The keys that were there under load, by kind, at its end."""

    def growths(self) -> dict[tuple[str, str], Growth]:
        """Of all series, in the time that counts."""
        found = self.samples.since(self.warm_at)
        before, after = thirds([value for _, value in found[LOAD, UNDER_WAY]])
        load = after / before if before else 1.0
        return {
            (whose, what): growth_of(series, ALLOWED[what], load if what in WITH_THE_LOAD else 1.0)
            for (whose, what), series in found.items()
        }

    def unsteady(self) -> str:
        """Why growth and drift can't be judged, if they can't."""
        found = self.samples.since(self.warm_at)
        before, after = thirds([value for _, value in found[LOAD, UNDER_WAY]])
        if after > before * MOST_LOAD + 5:
            return f"{before:.0f} visits were under way at once, then {after:.0f}"
        if self.machine() > MOST_MACHINE:
            return f"the machine itself became {self.machine():.1f} times as slow"
        return ""

    def machine(self) -> float:
        """How many times as slow the machine itself was in the last third."""
        machine = drift_of(self.notes.timings[MACHINE], self.warm_at, self.ended_at)
        return machine.last.quick / machine.first.quick if machine else 1.0

    def drifts(self) -> dict[str, Drift]:
        """Of all waits, in the time that counts."""
        slower = self.machine()
        found = {
            kind: drift_of(waits, self.warm_at, self.ended_at, slower)
            for kind, waits in sorted(self.notes.timings.items())
        }
        return {kind: drift for kind, drift in found.items() if drift is not None}

    def failures(self) -> Iterator[str]:
        """What must not be, in words."""
        if not self.unsteady():
            yield from self._grown()
        yield from self.left
        for complaint in self.notes.complaints:
            yield f"a client was surprised: {complaint}"
        if more := self.notes.complained - len(self.notes.complaints):
            yield f"… and {more} more such"

    def _grown(self) -> Iterator[str]:
        for (whose, what), growth in self.growths().items():
            if growth.grows:
                rise = f"by {growth.share_a_minute:.1%} a minute, from {growth.first:.1f} to {growth.last:.1f}"
                yield f"{whose}: {what} grows {rise}"
        for kind, drift in self.drifts().items():
            if drift.drifts:
                yield f"{kind}: the quick ones took {drift.first.quick * 1e3:.0f} ms, then {drift.last.quick * 1e3:.0f}"

    def table(self) -> str:
        """For people: Markdown."""
        lines = ["| of | what | at first | at last | a minute | |", "|---|---|---:|---:|---:|---|"]
        for (whose, what), growth in self.growths().items():
            figures = f"{growth.first:,.1f} | {growth.last:,.1f} | {growth.share_a_minute:+.2%}"
            lines.append(f"| {whose} | {what} | {figures} | {'**grows**' if growth.grows else ''} |")
        lines += [
            "",
            "| wait, ms | count | at first: p20 | p50 | p95 | at last: p20 | p50 | p95 | |",
            "|---|---:|---:|---:|---:|---:|---:|---:|---|",
        ]
        for kind, drift in self.drifts().items():
            spreads = (value for spread in (drift.first, drift.last) for value in astuple(spread))
            figures = " | ".join(f"{value * 1e3:.1f}" for value in spreads)
            lines.append(f"| {kind} | {drift.count} | {figures} | {'**drifts**' if drift.drifts else ''} |")
        visits = ", ".join(f"{count} {name}" for name, count in sorted(self.notes.acts.items()))
        keys = ", ".join(f"{count} {kind}" for kind, count in sorted(self.kinds.items()))
        lines += ["", f"visits: {visits}", f"keys under load: {keys}"]
        return "\n".join(lines)
