"""Ids of tool calls as each provider takes them: a conversation may go on at another one than it began at.

Mistral wants nine letters and digits ("Tool call id was … but must be a-z, A-Z, 0-9, with a length of 9"), OpenAI's
Chat Completions at most 40 characters, Anthropic letters, digits, `_` and `-`. An id that fits is left as it is; any
other becomes a hash of itself, the same in the call and in its output.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from server.protocol.dialects.manners import Dialect, Manners

_NINE = re.compile(r"[A-Za-z0-9]{9}")
_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SHORT = re.compile(r"[\x21-\x7e]{1,40}")


def fitting(call_id: Any, manners: Manners) -> str:
    """The id that stands for this one at the provider."""
    given = call_id if isinstance(call_id, str) else ""
    if manners.dialect is Dialect.MESSAGES:
        return given if _PLAIN.fullmatch(given) else f"toolu_{_hash(given)[:32]}"
    if manners.nine_letter_ids:
        return given if _NINE.fullmatch(given) else _hash(given)[:9]
    return given if _SHORT.fullmatch(given) else f"call_{_hash(given)[:32]}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
