"""Spools: what was taken is there again, whatever happened in between, and nobody reads it on the disk."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from bastide.engines.spool import Spools

KEY = bytes(32)


def test_records_outlive_the_process_and_are_read_by_none_but_it(tmp_path: Path) -> None:
    spool = Spools(tmp_path, KEY).open("one", b"head", 1 << 20)
    assert all(spool.put(b"secret %d" % number) for number in range(3))
    # The process ends here: nothing was cut, nothing closed.
    again = Spools(tmp_path, KEY)
    assert again.left() == [("one", b"head")]
    found = again.open("one", b"head", 1 << 20)
    [segment] = found.waiting()
    assert found.records(segment) == [b"head", b"secret 0", b"secret 1", b"secret 2"]
    assert b"secret" not in segment.path.read_bytes()
    assert Spools(tmp_path, bytes(31) + b"x").open("one", b"", 1 << 20).records(segment) == []
    found.done(segment)
    assert found.backlog == 0 and again.left() == []


@settings(max_examples=20)
@given(records=st.lists(st.binary(max_size=200), min_size=1, max_size=8), lost=st.integers(0, 400))
def test_a_torn_end_costs_only_what_was_torn(tmp_path_factory: object, records: list[bytes], lost: int) -> None:
    folder = Path(tmp_path_factory.mktemp("spool"))  # type: ignore[attr-defined]
    spool = Spools(folder, KEY).open("one", b"head", 1 << 20)
    for record in records:
        assert spool.put(record)
    spool.cut()
    [segment] = spool.waiting()
    whole = segment.path.read_bytes()
    segment.path.write_bytes(whole[: max(0, len(whole) - lost)])
    found = spool.records(segment)
    assert found == [b"head", *records][: len(found)]
    if not lost:
        assert len(found) == len(records) + 1


def test_a_full_spool_takes_nothing_more_and_counts_it(tmp_path: Path) -> None:
    spool = Spools(tmp_path, KEY).open("one", b"head", 1000)
    taken = sum(spool.put(bytes(100)) for _ in range(20))
    assert 0 < taken < 10 and spool.dropped == 20 - taken
    spool.cut()
    for segment in spool.waiting():
        spool.done(segment)
    assert spool.put(bytes(100))
