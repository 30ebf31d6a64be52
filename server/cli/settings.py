"""Which server a command asks, and with which key.

Options come first, then the environment (`POLLUX_URL`, `POLLUX_API_KEY`, `POLLUX_PROFILE`), then the file
`~/.config/pollux/config.toml`, then what `pollux dev` serves on this machine.
"""

from __future__ import annotations

import os
import stat
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from server.cli.trouble import Code, Trouble

DEFAULT_URL = "http://127.0.0.1:4000"
HOMELESS = Path("/nonexistent")
NAMES = {"url": str, "key": str, "model": str, "profile": str, "profiles": dict}
"""What may stand in the file: `url`, `key` and `model`, the same for each of `profiles`, and the `profile` to take."""


@dataclass(frozen=True)
class Settings:
    """A server, and who asks it."""

    url: str
    """Without `/v1`."""
    key: str | None = field(repr=False)
    model: str | None
    """The model of new responses, unless the command names one."""


def config_directory() -> Path:
    """Where the settings of this user are."""
    base = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    if not base.is_absolute():
        try:
            base = Path.home() / ".config"
        except RuntimeError:  # a container's user that nobody has told the system of
            base = HOMELESS
    return base / "pollux"


def dev_file() -> Path:
    """Where `pollux dev` leaves its address and its key while it runs."""
    return config_directory() / "dev.toml"


def settings_for(url: str | None, key: str | None, profile: str | None) -> Settings:
    """The settings, where options and the environment say this.

    Raises:
        Trouble: the file can't be read, or there is no such profile

    """
    written = _of_profile(read_file(config_directory() / "config.toml"), profile)
    if not (url or key or written):
        written = read_file(dev_file())
    wanted = url or written.get("url") or DEFAULT_URL
    # A key belongs to its server: one that was configured for another is not sent to whatever --url names.
    may_use = not url or url == written.get("url") or "url" not in written
    model = os.environ.get("POLLUX_MODEL") or written.get("model")
    return Settings(_base_of(wanted), sendable(key or (written.get("key") if may_use else None)), model)


def read_file(file: Path) -> dict[str, Any]:
    """What a file of settings says; nothing where there is none.

    Raises:
        Trouble

    """
    try:
        with file.open("rb") as opened:
            found = tomllib.load(opened)
            mode = os.fstat(opened.fileno()).st_mode
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Trouble(f"{file} can't be read: {getattr(error, 'strerror', None) or error}", code=Code.USAGE) from None
    _check(file, found, NAMES)
    for name, profile in found.get("profiles", {}).items():
        _check(file, profile, {"url": str, "key": str, "model": str}, f"profiles.{name}.")
    has_key = any("key" in part for part in (found, *found.get("profiles", {}).values()))
    if has_key and mode & (stat.S_IRWXG | stat.S_IRWXO):
        sys.stderr.write(f"pollux: warning: others can read {file}, and there is a key in it: chmod 600 {file}\n")
    return found


def _check(file: Path, found: Any, names: Mapping[str, type], where: str = "") -> None:
    if not isinstance(found, dict):
        raise Trouble(f"{file}: {where.rstrip('.')} must be a table", code=Code.USAGE)
    for name, value in found.items():
        if name not in names:
            raise Trouble(f"{file}: {where}{name} is not known; there are {', '.join(names)}", code=Code.USAGE)
        if not isinstance(value, names[name]):
            kind = "a table" if names[name] is dict else "a text"
            raise Trouble(f"{file}: {where}{name} must be {kind}", code=Code.USAGE)


def _of_profile(found: dict[str, Any], wanted: str | None) -> dict[str, Any]:
    name = wanted or found.get("profile")
    own = {key: value for key, value in found.items() if key not in ("profile", "profiles")}
    if not name:
        return own
    profiles = found.get("profiles", {})
    if name not in profiles:
        there = f"there are {', '.join(profiles)}" if profiles else "there are no profiles"
        raise Trouble(f"there is no profile {name!r} in {config_directory() / 'config.toml'}: {there}", code=Code.USAGE)
    # Of a profile nothing is added from outside of it but the model: a key must not reach another server.
    return {**({"model": own["model"]} if "model" in own else {}), **profiles[name]}


def _base_of(url: str) -> str:
    """The address without `/v1`, which clients of the API need and people paste."""
    url = url.strip()
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        _ = parts.port
        place = parts.netloc.encode("ascii" if parts.netloc.isascii() else "idna").decode()
    except ValueError:
        parts, place = urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not parts.hostname or " " in url or not url.isprintable():
        raise Trouble(f"{url!r} is no address of a server: write it as {DEFAULT_URL}", code=Code.USAGE)
    if "@" in place:
        raise Trouble("leave user and password out of the address: a key is said by POLLUX_API_KEY", code=Code.USAGE)
    return f"{parts.scheme}://{place}{quote(parts.path, safe='/%').rstrip('/').removesuffix('/v1')}"


def sendable(key: str | None) -> str | None:
    """A key as a header can carry it: pasted ones end with a line break. None if nothing is left.

    Raises:
        Trouble: none can carry it

    """
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise Trouble("the API key has characters that can't be sent: was it copied well?", code=Code.USAGE)
    return key or None
