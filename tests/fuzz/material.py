"""Turns bytes into inputs: each byte decides one thing, so that a small change of the bytes is one of the input too.

No bytes at all are material too: when they have run out, every decision is the first of its choices.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar

T = TypeVar("T")

_NUMBERS = (
    *("0", "1", "2", "-1", "7", "1.5", "-0", "0.1", "1e3", "1E+2", "255", "404", "429", "500", "1e400", "-1e400"),
    *("4294967296", "9007199254740993", "9223372036854775807", "9223372036854775808", "18446744073709551616"),
    *("123456789012345678901234567890", "-99999999999999999999", "1" + "0" * 400, "0." + "3" * 40),
)
_BAD_NUMBERS = ("NaN", "Infinity", "-Infinity", "01", "+1", ".5", "1.", "0x1")
_TEXTS = (
    *("", "x", "é", "😀", "\u2028", "\ufeff", "\x00", "\x7f", "\n", "\r\n", " ", "a b", "\\", '"', "/", "{", "]"),
    *("null",),
    *("\ud83d", "\ude00", "\ud83d\ude00", "os.environ/HOME", "[DONE]", "data: x\n\n", '"sequence_number":5', "💡" * 9),
)
_BLANKS = ("", "", "", "", " ", "\n", "\r\n", "\t ")
MOST_DEPTH = 5


class Material:
    """A supply of decisions, taken from bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def __bool__(self) -> bool:
        """Whether any bytes are left."""
        return self._place < len(self._data)

    def number(self, below: int) -> int:
        """A whole number from zero on."""
        taken = self.raw(1 if below <= 256 else 4)
        return int.from_bytes(taken, "big") % below

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.number(len(choices))]

    def raw(self, most: int) -> bytes:
        """The next bytes, as they are; fewer at the end."""
        taken = self._data[self._place : self._place + most]
        self._place += most
        return taken

    def rest(self) -> bytes:
        return self.raw(len(self._data))

    def times(self, most: int) -> range:
        """For a loop that takes what is left, but not for ever."""
        return range(self.number(most + 1) if self else 0)

    def text(self, words: Sequence[str] = ()) -> str:
        """A text: often one of these words, else an odd one."""
        kind = self.number(8)
        if words and kind < 5:
            return self.pick(words)
        if kind < 7:
            return self.pick(_TEXTS)
        return self.raw(self.number(24)).decode("utf-8", "replace")

    def cuts(self, raw: bytes) -> list[bytes]:
        """The bytes in chunks, some of which may be empty."""
        ends = sorted(self.number(len(raw) + 1) for _ in range(self.number(8)))
        return [raw[start:end] for start, end in zip([0, *ends], [*ends, len(raw)], strict=True)]

    def value(self, keys: Sequence[str], words: Sequence[str] = (), depth: int = MOST_DEPTH) -> Any:
        """A value as a parser of JSON would give it."""
        kind = self.number(10)
        if kind >= 7 and depth:
            return {self.text(keys): self.value(keys, words, depth - 1) for _ in self.times(6)}
        if kind >= 5 and depth:
            return [self.value(keys, words, depth - 1) for _ in self.times(4)]
        if kind == 0:
            return self.pick((None, True, False))
        if kind == 1:
            return self.pick((0, 1, 2, -1, 7, 0.5, 429, 1e308, 2**53 + 1, -(2**63)))
        return self.text(words)

    def object(self, keys: Sequence[str], words: Sequence[str] = (), depth: int = MOST_DEPTH) -> dict[str, Any]:
        return {self.text(keys): self.value(keys, words, depth - 1) for _ in self.times(9)}

    def json(self, keys: Sequence[str], words: Sequence[str] = (), *, strict: bool = False) -> bytes:
        """A JSON object as text, with what parsers differ about: keys that are there twice, escapes of all kinds.

        Keys that we know are written plainly, as everybody does.

        `strict`: nothing in it that a standard parser refuses.
        """
        return self._object(keys, words, MOST_DEPTH, strict=strict).encode("utf-8", "surrogatepass")

    def _object(self, keys: Sequence[str], words: Sequence[str], depth: int, *, strict: bool) -> str:
        pairs = [
            f"{self._key(keys, strict=strict)}{self.pick(_BLANKS)}:{self.pick(_BLANKS)}"
            f"{self._json(keys, words, depth - 1, strict=strict)}"
            for _ in self.times(7)
        ]
        return "{" + f"{self.pick(_BLANKS)},".join(pairs) + "}"

    def _json(self, keys: Sequence[str], words: Sequence[str], depth: int, *, strict: bool) -> str:
        kind = self.number(12)
        if kind >= 8 and depth > 0:
            return self._object(keys, words, depth, strict=strict)
        if kind == 7 and depth > 0:
            return "[" + ",".join(self._json(keys, words, depth - 1, strict=strict) for _ in self.times(4)) + "]"
        if kind == 0:
            return self.pick(("null", "true", "false", '""', "{}", "[]"))
        if kind == 1:
            return self.pick(_NUMBERS)
        if kind == 2 and not strict:
            return self.pick(_BAD_NUMBERS)
        return self._string(words, strict=strict)

    def _key(self, keys: Sequence[str], *, strict: bool) -> str:
        return f'"{self.pick(keys)}"' if keys and self.number(8) else self._string((), strict=strict)

    def _string(self, words: Sequence[str], *, strict: bool) -> str:
        text, way = self.text(words), self.number(6)
        if way == 0:
            return json.dumps(text)
        if way == 1:
            return '"' + "".join(f"\\u{unit:04X}" for unit in _units(text)) + '"'
        if way == 2:
            return json.dumps(text).replace("/", "\\/")
        if way == 3 and not strict:
            return f'"{text}"'
        written = json.dumps(text, ensure_ascii=False)
        return json.dumps(text) if strict and _is_cut(text) else written


def _units(text: str) -> list[int]:
    raw = text.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(raw[place : place + 2], "big") for place in range(0, len(raw), 2)]


def _is_cut(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
