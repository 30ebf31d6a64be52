"""The lines that commands write, and what keeps them whole: on any terminal, in any encoding, into any pipe."""

from __future__ import annotations

import json
import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Any

_BIDIRECTIONAL = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""They show text in another order than it has."""
_BREAKS = (0x2028, 0x2029)
"""Some readers end lines at these."""
_CONTROLS = (*range(0x7F, 0xA0), *_BREAKS, *_BIDIRECTIONAL)
_LEFT_OUT = {code: None for code in (*range(0x20), *_CONTROLS) if chr(code) not in "\n\t"}
_ESCAPED = {code: f"\\u{code:04x}" for code in (*_CONTROLS, *range(0xD800, 0xE000))}
"""In JSON, which escapes those below 0x20 itself: what commands terminals, ends lines, or is half of a character."""


def open_streams() -> None:
    """See that all standard streams are there, and that no character is an error where its encoding lacks it."""
    # In this order a closed one gets its own number back, and no connection takes that.
    sys.stdin = sys.stdin or Path(os.devnull).open()  # noqa: SIM115  # they stay open
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def abandon_output() -> None:
    """Throw away what can't be written, which Python would try once more at its end."""
    if isinstance(sys.stdout, TextIOWrapper):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def safe(text: str) -> str:
    """Somebody else's text without characters that would command a terminal."""
    return text.translate(_LEFT_OUT)


def in_one_line(text: str) -> str:
    """The same, without breaks."""
    return " ".join(safe(text.replace("\r", "\n")).split())


def say(text: str) -> None:
    """A line of plain text on standard output; at once, because somebody may be reading along."""
    sys.stdout.write(f"{safe(text) if sys.stdout.isatty() else text}\n")
    sys.stdout.flush()


def say_json(found: Any) -> None:
    """One object, on one line."""
    as_utf8 = (sys.stdout.encoding or "utf-8").lower().replace("-", "") == "utf8"
    line = json.dumps(found, ensure_ascii=not as_utf8, separators=(",", ":"))
    sys.stdout.write(line.translate(_ESCAPED) + "\n")
    sys.stdout.flush()


def remark(text: str) -> None:
    """A line for people, on standard error."""
    sys.stderr.write(f"{safe(text)}\n")
    sys.stderr.flush()
