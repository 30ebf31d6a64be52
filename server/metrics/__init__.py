"""What a process tells of itself in numbers. Whoever has something to tell knows `Metrics` alone, and no Prometheus."""

from server.metrics.counting import Counting
from server.metrics.families import FAMILIES, Family, Kind
from server.metrics.files import Shared, forget_levels, new_directory
from server.metrics.lag import keep_watching
from server.metrics.levels import Levels, Tally
from server.metrics.port import SILENT, Metrics
from server.metrics.reloads import ReloadCounts

__all__ = [
    "FAMILIES",
    "SILENT",
    "Counting",
    "Family",
    "Kind",
    "Levels",
    "Metrics",
    "ReloadCounts",
    "Shared",
    "Tally",
    "forget_levels",
    "keep_watching",
    "new_directory",
]
