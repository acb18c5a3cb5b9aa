"""Files of tensors: what is written is read back, and nothing else is taken for it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bastide.engines.images

LIBRARY = Path(bastide.engines.images.__file__).parent / "environments" / "toolkit" / "library"


@pytest.fixture(scope="module")
def layout() -> Any:
    """The jobs' own module."""
    sys.path.append(str(LIBRARY))
    try:
        from bastide_debugger import layout as found
    finally:
        sys.path.remove(str(LIBRARY))
    return found


ARRAYS = st.builds(
    lambda values, kind, two: np.array(values, kind).reshape((2, -1) if two and len(values) % 2 == 0 else (-1,)),
    st.lists(st.integers(0, 100), max_size=40),
    st.sampled_from(["float32", "float64", "int64", "uint8", "bool", "float16"]),
    st.booleans(),
)


@given(array=ARRAYS, name=st.text(max_size=20), step=st.integers(0, 2**40))
def test_what_is_written_is_read(layout: Any, array: Any, name: str, step: int) -> None:
    read = layout.tensor(layout.record(name, array, step, "TRAIN", step))
    assert read.dtype == array.dtype and read.shape == array.shape and np.array_equal(read, array)


@given(array=ARRAYS, at=st.integers(0, 300), byte=st.integers(0, 255), cut=st.integers(0, 300))
def test_broken_bytes_are_refused_and_nothing_worse(layout: Any, array: Any, at: int, byte: int, cut: int) -> None:
    data = bytearray(layout.record("t", array, 1, "EVAL", 1))
    data[at % len(data)] = byte
    for one in (bytes(data), bytes(data[: cut % len(data)])):
        try:
            layout.tensor(one)
        except layout.Broken:
            continue


def test_a_shape_of_more_than_there_is_is_refused(layout: Any) -> None:
    made = layout.record("t", np.zeros(3), 1, "TRAIN", 1)
    assert made.count(b"\x08\x03") >= 1
    with pytest.raises(layout.Broken):
        layout.tensor(made.replace(b"\x08\x03", b"\x08\x7f"))
