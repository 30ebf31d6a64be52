"""What the kernel says of the processes of a replica: CPU, memory, open files and when they were started.

The library tells this of the process that is asked, in which case a scrape of one of several would tell of a different
one each time. So each leaves its process id in the directory that they share, and whoever is asked looks at all. That
costs nothing while nobody asks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

from server.metrics.files import Shared, pids_in

LABEL = "process"
PARENT = "parent"
"""The process that starts the others, and serves no request."""
ALONE = "1"


class Processes:
    """The `process_*` metrics of Prometheus's libraries, for each process of a replica. Only where there is `/proc`."""

    def __init__(self, shared: Shared | None) -> None:
        self._shared = shared
        self._pid = os.getpid()
        # One for all of them, because each finds out anew when the machine was booted, which may differ by a second.
        self._kernel = ProcessCollector(pid=lambda: self._pid, registry=None)

    def collect(self) -> Iterator[Metric]:
        found: dict[str, Metric] = {}
        for name, pid in self._pids():
            self._pid = pid
            for metric in self._kernel.collect():  # nothing of a process that has ended
                family = found.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
                family.samples.extend(_named(sample, name) for sample in metric.samples)
        yield from found.values()

    def _pids(self) -> Iterator[tuple[str, int]]:
        if self._shared is None:
            yield ALONE, os.getpid()
            return
        yield PARENT, os.getppid()
        for number, pid in pids_in(Path(self._shared.directory)):
            yield str(number), pid


def _named(sample: Sample, name: str) -> Sample:
    return sample._replace(labels={**sample.labels, LABEL: name})
