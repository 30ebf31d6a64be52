"""The blocks of a message, told to the library one after the other: it loses what does not come so.

Anthropic itself sends them in order. Of those that call themselves compatible some leave out the end of a block, some
send several tool calls at once, and some number their blocks in a way of their own.
"""

from __future__ import annotations

from typing import Any

from server.protocol.dialects.reading import Reading

Block = dict[str, Any]


class Blocks:
    """The blocks of one message. What is said of a block waits until those that began before it have ended."""

    def __init__(self) -> None:
        self._open: dict[Any, int] = {}
        """The provider's index of each open block, and the one that we give it."""
        self._waiting: dict[int, list[Reading]] = {}
        """What is still to be said, by our index; the first block is the one whose turn it is."""
        self._count = 0

    def __contains__(self, index: object) -> bool:
        return index in self._open

    def begin(self, index: Any, block: Block) -> list[Reading]:
        """A block begins. One with the same index has ended by that."""
        ended = self.end(index)
        self._open[index] = self._count
        self._waiting[self._count] = []
        self._count += 1
        return ended + self._said(index, {"type": "content_block_start", "content_block": block})

    def add(self, index: Any, delta: Block) -> list[Reading]:
        """More of an open block."""
        return self._said(index, {"type": "content_block_delta", "delta": delta})

    def end(self, index: Any) -> list[Reading]:
        """A block ends; nothing happens if none with this index is open."""
        if index not in self._open:
            return []
        made = self._said(index, {"type": "content_block_stop"})
        del self._open[index]
        return made + self._next()

    def close(self) -> list[Reading]:
        """The message is over, and so are all blocks."""
        return [reading for index in list(self._open) for reading in self.end(index)]

    def _said(self, index: Any, event: Block) -> list[Reading]:
        ours = self._open[index]
        is_extra = event.get("delta", {}).get("type") == "citations_delta"
        reading = Reading({**event, "index": ours}, is_extra=is_extra)
        if ours == next(iter(self._waiting)):
            return [reading]
        self._waiting[ours].append(reading)
        return []

    def _next(self) -> list[Reading]:
        """What waited for the blocks that have ended."""
        made: list[Reading] = []
        for ours in list(self._waiting):
            made += self._waiting[ours]
            self._waiting[ours] = []
            if ours in self._open.values():
                break
            del self._waiting[ours]
        return made
