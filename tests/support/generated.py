"""What property tests draw from, and how long they go on."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

# No deadline: a machine under load is no defect. No database: a run depends on nothing but the code.
moderate = settings(deadline=None, max_examples=40, database=None)

_scalars: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from(['"sequence_number":5', "sequence_number", "\\", '\\"', "}", "{[", "\n", "é😀"])
)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4)


keys = st.text(max_size=8) | st.sampled_from(["type", "sequence_number", "error", "response", "item", "status"])
json_values = st.recursive(_scalars, _containers, max_leaves=8)
json_objects = st.dictionaries(keys, json_values, max_size=6)
