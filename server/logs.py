"""Log lines: one per lifecycle edge, for people or as JSON. Never a body, never a key."""

from __future__ import annotations

import logging
import logging.config
import time
from typing import Any

from server.errors import shown
from server.protocol import jsontext

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _PLAIN and value is not None}


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extras(record),
        }
        if record.exc_info:
            line["stack"] = self.formatException(record.exc_info)
        return jsontext.dumps(line, default=str).decode()


class ConsoleFormatter(logging.Formatter):
    """A line to read: what happened, then `name=value` of what it happened to."""

    def format(self, record: logging.LogRecord) -> str:
        # A client may have chosen the value: a line break in it must not begin another line.
        extras = " ".join(f"{name}={shown(str(value))}" for name, value in _extras(record).items())
        line = f"{self.formatTime(record, '%H:%M:%S')} {record.levelname:<7} {record.getMessage()} {extras}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure_logs(form: str, level: str = "INFO") -> None:
    """Send all lines to standard error, as `console` or `json`."""
    formatter = JsonFormatter if form == "json" else ConsoleFormatter
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"lines": {"()": formatter}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
            "root": {"handlers": ["stderr"], "level": "WARNING"},
            "loggers": {"pollux": {"level": level}},
        }
    )
