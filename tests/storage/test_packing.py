"""Packing: whatever goes in comes out, and it pays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import Store
from storage.packing import FIRST, pack, unpack
from tests.support.stored import append, log_of, numbered, run

DELTA = (
    b"event: response.output_text.delta\n"
    b'data: {"type":"response.output_text.delta","sequence_number":%d,"item_id":"msg_0c41d9b6a2f84e3f9f3e",'
    b'"output_index":0,"content_index":0,"delta":" word","logprobs":[],"obfuscation":"kX3vQ2"}\n\n'
)


@given(st.binary().map(lambda made: b"event: " + made))
def test_what_was_packed_is_unpacked_to_the_byte(frames: bytes) -> None:
    assert unpack(pack(frames)) == frames


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=50))
def test_a_delta_shrinks_to_a_half_alone_and_many_to_a_fifth(numbers: list[int]) -> None:
    frames = b"".join(DELTA % number for number in numbers)
    packed = pack(frames)
    assert packed.startswith(FIRST)
    assert len(packed) < len(frames) / (5 if len(numbers) >= 10 else 2)
    assert unpack(packed) == frames


def test_what_does_not_shrink_stays_as_it_is() -> None:
    assert pack(b"") == b""
    assert pack(b"e") == b"e"
    assert unpack(b"event: x\n\n") == b"event: x\n\n"


@pytest.mark.parametrize("stored", [FIRST, FIRST + b"nonsense", FIRST + pack(DELTA % 1)[1:-3]])
def test_what_nobody_packed_is_said_to_be_broken(stored: bytes) -> None:
    with pytest.raises(ValueError, match="can't be unpacked"):
        unpack(stored)


PACKED_BY_0_1 = (
    "0120e0dd01007402376d73675f3063343164396236613266383465336639663365776f72646b5833765132227d0a0a050060"
    "6ba86b428013418f1cc20933270304"
)


def test_the_dictionary_is_never_changed() -> None:
    """What was packed by the first release is read for ever."""
    assert unpack(bytes.fromhex(PACKED_BY_0_1)) == DELTA % 7


async def test_a_log_may_hold_both_forms(store: Store) -> None:
    taken = await run(store)
    await append(store, taken, 3, 3)
    store.jobs._pack = bytes
    await append(store, taken, 4, 60)
    store.jobs._pack = pack
    await append(store, taken, 61, 200)
    assert await log_of(store, taken.id) == numbered(200)
