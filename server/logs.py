"""Log lines: one for each step in the life of a response, as text or JSON. They contain no bodies and no keys."""

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
    """Formats each record as one line with a JSON object."""

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
    """Formats each record as text: the message, then its fields as `name=value`."""

    def format(self, record: logging.LogRecord) -> str:
        # `shown` escapes line breaks: a client may have chosen the value, and must not be able to forge a line.
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
