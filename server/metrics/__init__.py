"""What a process tells of itself in numbers. Whoever has something to tell knows `Metrics` alone, and no Prometheus."""

from server.metrics.counting import Counting
from server.metrics.families import FAMILIES, Family, Kind
from server.metrics.files import Files, new_directory
from server.metrics.levels import Levels, Tally
from server.metrics.port import SILENT, Metrics

__all__ = ["FAMILIES", "SILENT", "Counting", "Family", "Files", "Kind", "Levels", "Metrics", "Tally", "new_directory"]
