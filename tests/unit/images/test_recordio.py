"""The reader of application/x-recordio-protobuf: what others write it reads, and nothing that is sent breaks it."""

from __future__ import annotations

import importlib
import struct
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.engines.images import environment

# Two records as Google's protobuf library wrote them: a dense one of float32 with a label and a uid, and a sparse one of
# float64 with a label of int32.
WRITTEN = bytes.fromhex(
    "0a23d7ce340000000a1a0a0676616c7565731210120e0a0c0000c03f000000c00000404012120a0676616c756573120812060a040000803f1a02"
    "75310a23d7ce430000000a270a0676616c756573121d1a1b0a109a9999999999b93f0000000000001c40120300ac021a02900312180a0676616c"
    "756573120e3a0c0a0affffffffffffffffff0100"
)
numbers = st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=20)


@pytest.fixture(scope="module")
def recordio() -> Iterator[Any]:
    sys.path.insert(0, str(environment._TOOLKIT / "library"))
    yield importlib.import_module("bastide_algorithms.recordio")
    sys.path.pop(0)


def test_what_others_wrote(recordio: Any) -> None:
    dense, sparse = recordio.read(WRITTEN)
    assert dense.features["values"].values.tolist() == [1.5, -2.0, 3.0]
    assert dense.features["values"].keys is None
    assert dense.label["values"].values.tolist() == [1.0]
    found = sparse.features["values"]
    assert (found.values.tolist(), found.keys.tolist(), found.shape, found.width()) == (
        [0.1, 7.0],
        [0, 300],
        (400,),
        400,
    )
    assert sparse.label["values"].values.tolist() == [-1]


@given(rows=st.lists(st.tuples(numbers, numbers), max_size=5))
def test_what_is_written_is_read(recordio: Any, rows: list[tuple[list[float], list[float]]]) -> None:
    data = b"".join(recordio.write({"values": x}, {"values": y}) for x, y in rows)
    found = [
        (one.features["values"].values.tolist(), one.label["values"].values.tolist()) for one in recordio.read(data)
    ]
    assert found == rows


def test_a_record_in_parts_is_one(recordio: Any) -> None:
    body = recordio.write({"values": [1.0, 2.0]}, {})[8:]
    pieces = [(1, body[:4]), (2, b""), (3, body[4:])]
    # A writer splits where the magic number occurs, and leaves it out.
    magic = struct.pack("<I", recordio.MAGIC)
    data = b"".join(
        magic + struct.pack("<I", kind << 29 | len(one)) + one + b"\0" * (-len(one) % 4) for kind, one in pieces
    )
    assert list(recordio.frames(data)) == [body[:4] + magic + magic + body[4:]]


@given(
    data=st.binary(max_size=200), at=st.integers(0, len(WRITTEN) - 1), byte=st.integers(0, 255), cut=st.integers(0, 140)
)
def test_no_data_breaks_the_reader(recordio: Any, data: bytes, at: int, byte: int, cut: int) -> None:
    unfit = importlib.import_module("bastide_algorithms").Unfit
    changed = bytearray(WRITTEN)
    changed[at] = byte
    framed = struct.pack("<II", recordio.MAGIC, len(data)) + data + b"\0" * (-len(data) % 4)
    for hostile in (data, framed, bytes(changed), WRITTEN[:cut], WRITTEN + data):
        try:
            for one in recordio.read(hostile):
                assert all(tensor.width() >= 0 for tensor in one.features.values())
        except unfit:
            pass
