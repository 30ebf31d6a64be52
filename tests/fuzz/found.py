"""Inputs that once broke a target. The modules that were mended have a test of each in plain words; these stay too."""

from __future__ import annotations

FOUND: list[tuple[str, bytes]] = []
