"""Whatever an archive holds: it is refused, or unpacked whole and nowhere but in its folder."""

from __future__ import annotations

import io
import os
import stat
import tempfile
import warnings
import zipfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from bastide.domain import Refused
from bastide.services.lambda_.code import look_through, unpack

PARTS = st.sampled_from(["a", "b", "..", ".", "", "environment", "x\\y", "é", "\x01"])
NAMES = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
MODES = st.sampled_from(
    [0, stat.S_IFREG | 0o644, stat.S_IFREG | 0o6755, stat.S_IFLNK | 0o777, stat.S_IFIFO, stat.S_IFBLK]
)
ENTRIES = st.lists(
    st.tuples(NAMES, MODES, st.sampled_from([b"", b"a", b"../b", b"a/b", b"/etc", b"x" * 50])), max_size=6
)


def _archive(entries: list[tuple[str, int, bytes]]) -> bytes:
    packed = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        with zipfile.ZipFile(packed, "w") as made:
            for name, mode, content in entries:
                info = zipfile.ZipInfo(name)
                info.external_attr = mode << 16
                made.writestr(info, content)
    return packed.getvalue()


@given(ENTRIES, st.booleans())
def test_an_archive_stays_in_its_folder(entries: list[tuple[str, int, bytes]], layer: bool) -> None:
    data = _archive(entries)
    with tempfile.TemporaryDirectory() as held:
        outside = Path(held) / "outside"
        outside.mkdir()
        folder = Path(held) / "in" / "folder"
        folder.mkdir(parents=True)
        try:
            look_through(data, layer=layer)
        except Refused:
            return
        unpack(data, folder, layer=layer)
        there = {str(one.relative_to(held)) for one in Path(held).rglob("*") if folder not in one.parents}
        assert there == {"in", "in/folder", "outside"}
        for path in folder.rglob("*"):
            mode = path.lstat().st_mode
            assert stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)
            assert not mode & (stat.S_ISUID | stat.S_ISGID)
            if stat.S_ISLNK(mode):
                led = os.path.normpath(path.parent / path.readlink())
                assert led == str(folder) or led.startswith(f"{folder}{os.sep}")


@given(st.binary(max_size=400), st.integers(0, 400), st.integers(0, 255))
def test_a_damaged_archive_is_refused_or_is_none(noise: bytes, at: int, byte: int) -> None:
    whole = bytearray(_archive([("index.py", stat.S_IFREG | 0o644, b"code" * 20), ("b", 0, b"x")]))
    whole[at % len(whole)] = byte
    for data in (noise, bytes(whole), bytes(whole[:at])):
        try:
            assert look_through(data) >= 0
        except Refused as refused:
            assert refused.code == "InvalidParameterValueException"
