"""Records of objects: however they arrive in pieces, the payloads are the same, and put together they are the object."""

from __future__ import annotations

import gzip
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.domain import Refused
from bastide.services.sagemaker.transform_data import Payload, Processing
from bastide.services.sagemaker.transform_fault import Fault
from bastide.services.sagemaker.transform_records import Lines, RecordIO, Splitter, TFRecords, Unpacked, Whole

RECORDS = st.lists(st.binary(max_size=20), max_size=12)
CUTS = st.lists(st.integers(1, 9), min_size=1, max_size=8)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    found, at, turn = [], 0, 0
    while at < len(data):
        size = cuts[turn % len(cuts)]
        found.append(data[at : at + size])
        at, turn = at + size, turn + 1
    return found


def split(splitter: Splitter, parts: list[bytes]) -> list[bytes]:
    return [one for part in parts for one in splitter.feed(part)] + list(splitter.end())


@given(st.lists(st.binary(max_size=20).map(lambda one: one.replace(b"\n", b"").replace(b"\r", b"")), max_size=12), CUTS)
def test_lines_are_cut_between_records_and_nowhere_else(lines: list[bytes], cuts: list[int]) -> None:
    data = b"\n".join(lines)
    many = split(Lines(24, single=False), pieces(data, cuts))
    assert all(len(one) <= 25 for one in many)
    assert [one for one in b"".join(many).split(b"\n") if one.strip()] == [one for one in lines if one.strip()]
    assert all(one.endswith(b"\n") for one in many[:-1])
    single = split(Lines(24, single=True), pieces(data, cuts))
    assert single == [one for one in lines if one]


@given(RECORDS, CUTS)
def test_framed_records_lose_their_frames_one_by_one_and_keep_them_together(
    records: list[bytes], cuts: list[int]
) -> None:
    tf = b"".join(struct.pack("<QI", len(one), 1) + one + b"crc." for one in records)
    io = b"".join(struct.pack("<II", 0xCED7230A, len(one)) + one + bytes(-len(one) % 4) for one in records)
    for kind, data in ((TFRecords, tf), (RecordIO, io)):
        assert split(kind(40, single=True), pieces(data, cuts)) == records
        many = split(kind(40, single=False), pieces(data, cuts))
        assert b"".join(many) == data and all(len(one) <= 40 for one in many)
        if data:
            with pytest.raises(Fault):
                split(kind(40, single=False), pieces(data[:-1], cuts))


def test_a_record_in_parts_gets_the_magic_back_that_parted_it() -> None:
    magic = struct.pack("<I", 0xCED7230A)
    told = ((1, b"abcd"), (2, b"efgh"), (3, b"ijkl"))
    parts = b"".join(magic + struct.pack("<I", flag << 29 | 4) + text for flag, text in told)
    assert split(RecordIO(100, single=True), [parts]) == [b"abcd" + magic + b"efgh" + magic + b"ijkl"]


@given(st.binary(max_size=200), CUTS)
def test_what_is_no_record_is_refused_and_never_held_for_long(data: bytes, cuts: list[int]) -> None:
    for kind in (TFRecords, RecordIO, Lines, Whole):
        for single in (True, False):
            splitter = kind(30, single=single)
            try:
                found = split(splitter, pieces(data, cuts))
            except Fault:
                continue
            assert all(len(one) <= 31 for one in found)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=3), CUTS)
def test_gzip_comes_out_however_it_comes_in(members: list[bytes], cuts: list[int]) -> None:
    data = b"".join(gzip.compress(one) for one in members)
    unpacked = Unpacked()
    found = b"".join(out for part in pieces(data, cuts) for out in unpacked.feed(part)) + b"".join(unpacked.end())
    assert found == b"".join(members)
    broken = Unpacked()
    with pytest.raises(Fault):
        for part in pieces(data[:-1], cuts):
            list(broken.feed(part))
        list(broken.end())


def test_a_bomb_comes_out_in_small_pieces() -> None:
    bomb = gzip.compress(bytes(50 << 20))
    assert max(len(one) for one in Unpacked().feed(bomb)) <= 1 << 20


def processing(source: str, target: str = "", **more: Any) -> Processing:
    lines = source != "application/json"
    return Processing(
        {
            "TransformInput": {"ContentType": source, "SplitType": "Line" if lines else "None"},
            "TransformOutput": {"Accept": target or source, "AssembleWith": "Line" if lines else "None"},
            "DataProcessing": more,
        }
    )


CELLS = st.text(alphabet="ab,\"' 1é", max_size=5)


@given(st.lists(st.lists(CELLS, min_size=2, max_size=4), min_size=1, max_size=5))
def test_cells_of_any_text_come_through_filters_as_they_are(rows: list[list[str]]) -> None:
    import csv
    import io

    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    one = processing("text/csv", InputFilter="$[1:]", JoinSource="Input", OutputFilter="$[0,-1]")
    payload = one.prepare(out.getvalue().encode())
    assert list(csv.reader(io.StringIO(payload.body.decode()))) == [row[1:] for row in rows]
    answer = b"\n".join(b"%d" % number for number in range(len(rows)))
    found, count = one.finish(payload, answer, b"", 0, "")
    assert count == len(rows)
    expected = [[row[0], str(number)] for number, row in enumerate(rows)]
    assert list(csv.reader(io.StringIO(found.decode()))) == expected


@pytest.mark.parametrize("hostile", [b"[" * 100_000, b"\xff", b'{"a":', b"", b"9" * 5000])
def test_json_that_is_none_is_a_fault_of_the_data(hostile: bytes) -> None:
    one = processing("application/json", JoinSource="Input", InputFilter="$.a")
    with pytest.raises(Fault) as fault:
        one.prepare(hostile)
    assert fault.value.code == "ClientError"
    joined = processing("application/json", JoinSource="Input")
    with pytest.raises(Fault) as fault:
        joined.finish(Payload(b"1", [b"1"]), hostile, b"", 0, "")
    assert fault.value.code == "AlgorithmError"


def test_half_a_pair_of_an_escape_stays_one() -> None:
    one = processing("application/json", JoinSource="Input")
    assert one.finish(Payload(b"", [rb'{"a":"\ud800"}']), b"1", b"", 0, "")[0] == rb'{"a":"\ud800","SageMakerOutput":1}'


def test_a_filter_that_nobody_can_read_names_itself() -> None:
    with pytest.raises(Refused, match="InputFilter"):
        processing("text/csv", InputFilter="$..x")
