"""Reads a config file together with those that it includes, and merges them as LiteLLM does.

The files are merged one after another: first those that the first file includes, in their order, then those that these
include. Lists are added up, and of all else the last file's value counts. So `model_list` may be spread over files,
while a section such as `litellm_settings` is taken from one file as a whole.
"""

from __future__ import annotations

import os
import re
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from server.config.sections import ConfigError

DEEPEST = 10
MOST_FILES = 200
"""More is taken for a mistake. LiteLLM has no such limits."""

_TAGGED_WRONGLY = (ValueError, LookupError, AttributeError, TypeError, OverflowError)
"""What PyYAML raises besides its own errors, for values such as `!!timestamp x`, `!!bool x`, `!!int ""`, 2026-99-99."""

_PLACE = re.compile(r"(\w+)(?:\.(\d+))?")
"""How the dotted path at the beginning of a complaint begins: a section, and maybe the index of an entry."""


@dataclass(frozen=True, slots=True)
class _Include:
    """A file that is still to be merged."""

    entry: str
    by: Path
    ancestors: tuple[Path, ...]
    """The files on the way to it, from the first one to the one that includes it, without symbolic links."""


@dataclass
class Merged:
    """What a file and those that it includes say together."""

    path: Path
    data: dict[str, Any] = field(default_factory=dict)
    included: list[Path] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)
    """What is probably not intended."""
    _origins: dict[str, Path] = field(default_factory=dict)
    """Which file a section, or an entry of a list (`model_list.3`), comes from."""

    def located(self, complaint: str) -> str:
        """The complaint, which begins with a dotted path, with the file that is at fault if there are several."""
        place = _PLACE.match(complaint)
        if not self.included or place is None:
            return complaint
        file = self._origins.get(place[0]) or self._origins.get(place[1])
        return f"{complaint} (in {file})" if file else complaint

    def as_yaml(self) -> bytes:
        """All of it, for `all_in`."""
        about = {
            "path": str(self.path),
            "data": self.data,
            "included": [str(path) for path in self.included],
            "surprises": self.surprises,
            "origins": {place: str(path) for place, path in self._origins.items()},
        }
        text: bytes = yaml.safe_dump(about, encoding="utf-8", sort_keys=False, explicit_start=True)
        return text

    @classmethod
    def all_in(cls, text: bytes) -> list[Merged]:
        """What was written as YAML, one after another."""
        return [
            cls(
                Path(said["path"]),
                said["data"],
                [Path(included) for included in said["included"]],
                said["surprises"],
                {place: Path(path) for place, path in said["origins"].items()},
            )
            for said in yaml.safe_load_all(text)
        ]

    def add(self, path: Path, data: dict[str, Any]) -> None:
        """Merge one more file."""
        for name, value in data.items():
            known = self.data.get(name)
            if isinstance(value, list):
                start = len(known) if isinstance(known, list) else 0
                self._origins |= {f"{name}.{start + index}": path for index in range(len(value))}
                self.data[name] = [*known, *value] if isinstance(known, list) else value
                continue
            if name in self.data:
                self.surprises.append(f"{name} of {self._origins.get(name, self.path)} is replaced by that of {path}")
            self._origins[name] = path
            self.data[name] = value


def read_merged(path: Path) -> Merged:
    """Read a file and all that it includes.

    Raises:
        ConfigError: names the file that can't be read, and the one that includes it

    """
    merged = Merged(path)
    seen = {path.resolve()}
    pending = deque(_take(merged, path, ()))
    while pending:
        include = pending.popleft()
        found = _find(merged, include)
        real = found.resolve()
        if real in include.ancestors:
            raise ConfigError(f"{include.by} includes {include.entry}, which is the same file or includes it")
        if real in seen:
            continue
        if len(include.ancestors) > DEEPEST or len(seen) > MOST_FILES:
            limits = f"files may include each other {DEEPEST} deep, and {MOST_FILES} in all"
            raise ConfigError(f"{include.by} includes {include.entry}: {limits}")
        seen.add(real)
        merged.included.append(found)
        pending.extend(_take(merged, found, include.ancestors, f", which {include.by} includes"))
    return merged


def _take(merged: Merged, path: Path, ancestors: tuple[Path, ...], why: str = "") -> list[_Include]:
    """Merge a file, and give what it includes."""
    data = _read(path, why)
    included = data.pop("include", None) or []
    if not isinstance(included, list) or not all(isinstance(entry, str) and entry.strip() for entry in included):
        raise ConfigError(f"{path}: include must be a list of files")
    merged.add(path, data)
    return [_Include(entry.strip(), path, (*ancestors, path.resolve())) for entry in included]


def _find(merged: Merged, include: _Include) -> Path:
    """The file next to the one that includes it, else next to the first one, as older versions of LiteLLM have it."""
    beside = Path(os.path.abspath(include.by.parent / include.entry))  # noqa: PTH100 - `resolve` would follow links
    if beside.exists():
        return beside
    first = Path(os.path.abspath(merged.path.parent / include.entry))  # noqa: PTH100
    if first != beside and first.exists():
        merged.surprises.append(f"{include.by} includes {include.entry}, which is {first} and not next to it")
        return first
    return beside


def _read(path: Path, why: str) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"can't read {path}{why}: {error.strerror}") from error
    except (yaml.YAMLError, *_TAGGED_WRONGLY, RecursionError) as error:
        raise ConfigError(f"{path} is not valid YAML: {_yaml_problem(error)}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a mapping at the top: model_list, litellm_settings, pollux …")
    return data


def _yaml_problem(error: Exception) -> str:
    """The problem and its position. The line itself is not quoted, because it may contain a secret."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{error.problem} at line {mark.line + 1} column {mark.column + 1}"
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 at byte {error.start}"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error) if isinstance(error, yaml.YAMLError) else "a value is not of the type that its tag or form says"
