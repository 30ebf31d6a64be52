"""Log lines: one for each step in the life of a response, as text or JSON. They contain no bodies and no keys.

Modules log by Python's own `logging`, with fields as `extra`; structlog renders the lines. What was bound to a task is
on each line that is written in it: the request, the response, and the trace.
"""

from __future__ import annotations

import logging
import logging.config
import os
import sys
from datetime import UTC, datetime

from structlog.contextvars import bind_contextvars, merge_contextvars, unbind_contextvars
from structlog.processors import format_exc_info
from structlog.stdlib import ExtraAdder, ProcessorFormatter
from structlog.typing import EventDict, WrappedLogger

from server.errors import shown
from server.protocol import jsontext
from server.tracing import current_span

_add_extras = ExtraAdder()
_DIM, _PLAIN = "\033[2m", "\033[0m"
_COLOURS = {"DEBUG": _DIM, "INFO": "\033[32m", "WARNING": "\033[33m", "ERROR": "\033[31m", "CRITICAL": "\033[31m"}
_FIRST = ("time", "level", "message")
"""What a line of text begins with; `logger` is left out there."""


def bind(**fields: str) -> None:
    """Put these fields onto all further lines of this task, and of tasks that it starts. A line's own fields win."""
    bind_contextvars(**fields)


def unbind(*names: str) -> None:
    """Leave these fields out of all further lines of this task: it works for others too."""
    unbind_contextvars(*names)


def _begin(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """What every line begins with, then its own fields."""
    record: logging.LogRecord = event["_record"]
    made = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
        "level": record.levelname.lower(),
        "logger": record.name,
        # Under another name than structlog's, as our field `event` is the id of a status event.
        "message": event.pop("event"),
        **event,
    }
    return _add_extras(logger, method, made)


def _end(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Add the trace, and leave out what has no value."""
    span = current_span()
    if span.trace_id:
        event["trace_id"], event["span_id"] = span.trace_id, span.span_id
    if event.get("exc_info"):
        event["stack"] = format_exc_info(logger, method, event).pop("exception")
    return {name: value for name, value in event.items() if value is not None}


def _as_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    return jsontext.dumps(event, default=str).decode()


def _as_text(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """The message, then its fields as `name=value`."""
    time, level, message, fields, stack = _parts(event)
    line = f"{time} {level:<7} {message} {fields}".rstrip()
    return line + stack


def _as_coloured_text(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """The same, for a terminal."""
    time, level, message, fields, stack = _parts(event)
    line = f"{_DIM}{time}{_PLAIN} {_COLOURS.get(level, '')}{level:<7}{_PLAIN} {message} {_DIM}{fields}{_PLAIN}"
    return line + stack


def _parts(event: EventDict) -> tuple[str, str, str, str, str]:
    time, level, message, stack = (event.pop(name, "") for name in (*_FIRST, "stack"))
    event.pop("logger", None)
    # `shown` escapes line breaks: a client may have chosen the value, and must not be able to forge a line.
    fields = " ".join(f"{name}={shown(str(value))}" for name, value in event.items())
    # Indented and escaped too, because it quotes the text of the error, in which somebody may have written a line.
    lines = "".join(f"\n    {_one_line(part)}" for part in stack.split("\n")) if stack else ""
    return time[11:19], level.upper(), _one_line(message), fields, lines


def _one_line(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def formatter(form: str, *, coloured: bool = False) -> logging.Formatter:
    """What renders records as `console` or `json`."""
    as_text = _as_coloured_text if coloured else _as_text
    return ProcessorFormatter(
        foreign_pre_chain=[_begin, merge_contextvars],
        processors=[_end, ProcessorFormatter.remove_processors_meta, _as_json if form == "json" else as_text],
        use_get_message=True,
    )


def configure_logs(form: str, level: str = "INFO") -> None:
    """Send all lines to standard error, as `console` or `json`; in colour where that is a terminal that wants it."""
    coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"lines": {"()": formatter, "form": form, "coloured": coloured}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
            "root": {"handlers": ["stderr"], "level": "WARNING"},
            "loggers": {"pollux": {"level": level}},
        }
    )
