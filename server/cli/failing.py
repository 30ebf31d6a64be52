"""The errors of commands that serve or read a config."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from server.cli.trouble import Trouble
from server.config.sections import ConfigError
from storage import StoreError


@contextmanager
def told() -> Iterator[None]:
    """Turn what may be wrong with a config, a store or an address into a message and exit code 1."""
    try:
        yield
    except (ConfigError, StoreError) as error:
        raise Trouble(str(error)) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise Trouble(f"{where}{error.strerror or error}") from error
