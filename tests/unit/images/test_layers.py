"""What is in layers is hostile: nothing of it reaches anything outside of the folder."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.engines.images.layers import Root, Unfit
from tests.stories.ecr import oci


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """Lays layers over each other in a folder beside one that must stay as it is."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").write_text("kept")
    folder = tmp_path / "root"
    folder.mkdir()

    def lay(*layers: oci.Layer | tuple[bytes, str], most: int = 1 << 30, media: str = "") -> Path:
        root = Root(folder, most_bytes=most)
        try:
            for layer in layers:
                data, digest = oci.packed(layer) if callable(layer) else layer
                packed = tmp_path / "layer"
                packed.write_bytes(data)
                assert root.put(packed, media) == digest
        finally:
            root.close()
            assert (tmp_path / "outside" / "kept").read_text() == "kept"
            assert [path.name for path in (tmp_path / "outside").iterdir()] == ["kept"]
        return folder

    return lay


def entries(*given: tuple[Any, ...]) -> oci.Layer:
    """A layer of entries, or of links told as (name, target, kind)."""

    def layer(tar: tarfile.TarFile) -> None:
        for one in given:
            if len(one) == 3:
                oci.link(tar, *one)
            else:
                oci.entry(tar, one[0], one[1])

    return layer


def test_layers_lie_over_each_other(put: Callable[..., Path]) -> None:
    def base(tar: tarfile.TarFile) -> None:
        oci.entry(tar, "./usr/", type=tarfile.DIRTYPE, mode=0o755)
        oci.entry(tar, "usr/lib/a.py", b"a = 1", mode=0o640, mtime=1_600_000_000)
        oci.link(tar, "lib", "usr/lib")
        oci.link(tar, "usr/lib/same.py", "usr/lib/a.py", tarfile.LNKTYPE)
        oci.entry(tar, "gone/one", b"1")
        oci.entry(tar, "hollow/old", b"old")
        oci.entry(tar, "was/file", b"1")
        oci.entry(tar, "setuid", b"x", mode=0o4755)

    def over(tar: tarfile.TarFile) -> None:
        oci.entry(tar, "lib/b.py", b"b = 2")
        oci.entry(tar, "gone/.wh.one")
        oci.entry(tar, "hollow/new", b"new")
        oci.entry(tar, "hollow/.wh..wh..opq")
        oci.entry(tar, "was", b"a file now")

    root = put(base, over)
    assert sorted(path.name for path in (root / "usr/lib").iterdir()) == ["a.py", "b.py", "same.py"]
    assert (root / "lib").is_symlink() and not (root / "gone/one").exists()
    assert [path.name for path in (root / "hollow").iterdir()] == ["new"]
    assert (root / "was").read_text() == "a file now"
    assert (root / "usr/lib/same.py").stat().st_ino == (root / "usr/lib/a.py").stat().st_ino
    assert (root / "usr/lib/a.py").stat().st_mtime == 1_600_000_000
    # Of modes the owner's bits are everybody's, and nothing is setuid.
    assert stat.S_IMODE((root / "usr/lib/a.py").stat().st_mode) == 0o666
    assert stat.S_IMODE((root / "setuid").stat().st_mode) == 0o777


@pytest.mark.parametrize(
    "layer",
    [
        entries(("../outside/x", b"x")),
        entries(("a/../../outside/x", b"x")),
        entries(("x", "../outside/kept", tarfile.LNKTYPE)),
        entries(("x", "/etc/passwd", tarfile.LNKTYPE)),
        entries(("s", "s", tarfile.SYMTYPE), ("s/x", b"x")),
        entries((".wh...", b"")),
        entries((".wh.", b"")),
        entries(("a" * 300, b"")),
        entries(("/".join("a" * 200), b"")),
        entries(("file", b"1"), ("file/below", b"2")),
    ],
)
def test_what_leads_out_or_nowhere_is_refused(put: Callable[..., Path], layer: oci.Layer) -> None:
    with pytest.raises(Unfit):
        put(layer)


def test_links_lead_nowhere_but_inside(put: Callable[..., Path], tmp_path: Path) -> None:
    outside = str(tmp_path / "outside")
    root = put(
        entries(
            ("up", "../outside", tarfile.SYMTYPE),
            ("abs", outside, tarfile.SYMTYPE),
            ("deep", "../../../..", tarfile.SYMTYPE),
        ),
        entries(("deep/x", b"x")),
    )
    assert (root / "x").read_bytes() == b"x"
    for name in ("up/y", "abs/y"):
        with pytest.raises(Unfit):
            put(entries((name, b"y")))
    # A whiteout behind a link takes away what is inside, and a link itself, never its target.
    put(entries(("up", b"now a file")))
    assert (root / "up").read_bytes() == b"now a file"


def test_devices_and_pipes_are_left_out(put: Callable[..., Path]) -> None:
    def layer(tar: tarfile.TarFile) -> None:
        for name, kind in (("null", tarfile.CHRTYPE), ("disk", tarfile.BLKTYPE), ("pipe", tarfile.FIFOTYPE)):
            oci.entry(tar, f"dev/{name}", type=kind, devmajor=1, devminor=3, mode=0o666)

    assert not list((put(layer) / "dev").iterdir())


def test_a_bomb_is_stopped(put: Callable[..., Path]) -> None:
    plain = io.BytesIO()
    with gzip.GzipFile(fileobj=plain, mode="wb", compresslevel=9) as packed:
        head = tarfile.TarInfo("zeros")
        head.size = 1 << 34
        packed.write(head.tobuf())
        for _ in range(300):
            packed.write(bytes(1 << 20))
    with pytest.raises(Unfit, match="unpacks to more"):
        put((plain.getvalue(), ""))
    with pytest.raises(Unfit, match="unpacks to more"):
        put(entries(("a", os.urandom(70_000)), ("b", os.urandom(70_000))), most=100_000)


def test_headers_are_bounded(put: Callable[..., Path]) -> None:
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_SPARSE):
        head = tarfile.TarInfo("x")
        head.type, head.size = kind, 1 << 33
        with pytest.raises(Unfit):
            put((head.tobuf(tarfile.GNU_FORMAT) + bytes(1024), ""))
    for damaged in (b"", b"nonsense", gzip.compress(b"x" * 2000), gzip.compress(bytes(2048))[:-10]):
        if damaged:
            with pytest.raises(Unfit):
                put((damaged, "sha256:"))
    with pytest.raises(Unfit, match="zstd"):
        put(entries(("a", b"")), media="application/vnd.oci.image.layer.v1.tar+zstd")


NAMES = st.sampled_from(
    ["a", "b", "..", ".", "", "a/b", "../a", "/a", "l", "l/a", "l/l", ".wh.a", ".wh..wh..opq", "a/.wh.b"]
)
TARGETS = st.sampled_from(
    ["..", "../..", "/", "a", "l", "../outside", "/proc/self/cwd", "/proc/self/root", "a/b", "../outside/kept"]
)
KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])


@given(st.lists(st.tuples(NAMES, KINDS, TARGETS), max_size=12))
def test_whatever_is_in_a_layer_nothing_outside_changes(
    tmp_path_factory: pytest.TempPathFactory, told: list[tuple[str, bytes, str]]
) -> None:
    place = tmp_path_factory.mktemp("law")
    (place / "outside").mkdir()
    (place / "outside" / "kept").write_text("kept")
    (place / "root").mkdir()

    def layer(tar: tarfile.TarFile) -> None:
        for name, kind, target in told:
            oci.entry(tar, name or "x", b"" if kind != tarfile.REGTYPE else b"new", type=kind, linkname=target)

    data, digest = oci.packed(layer)
    (place / "layer").write_bytes(data)
    root = Root(place / "root", most_bytes=1 << 20)
    try:
        assert root.put(place / "layer", "") == digest
    except Unfit:
        pass
    finally:
        root.close()
    assert sorted(path.name for path in place.iterdir()) == ["layer", "outside", "root"]
    assert [path.name for path in (place / "outside").iterdir()] == ["kept"]
    kept = place / "outside" / "kept"
    assert kept.read_text() == "kept" and kept.stat().st_nlink == 1
    assert hashlib.sha256(data).digest() == hashlib.sha256((place / "layer").read_bytes()).digest()


_RENAMES = """
import os, sys
os.chdir(sys.argv[1])
open("a", "w").close()
print("on", flush=True)
while True:
    os.rename("a", "b")
    os.rename("b", "a")
"""


def test_paths_with_dots_are_followed_while_others_rename(tmp_path: Path) -> None:
    """What is renamed anywhere on the machine makes the kernel ask for another try."""
    inside, beside = tmp_path / "inside", tmp_path / "beside"
    (inside / "a" / "b").mkdir(parents=True)
    (inside / "file").write_text("found")
    beside.mkdir()
    with subprocess.Popen([sys.executable, "-c", _RENAMES, str(beside)], stdout=subprocess.PIPE) as busy:
        root = Root(inside, most_bytes=1 << 20)
        try:
            assert busy.stdout is not None and busy.stdout.readline() == b"on\n"
            for _ in range(2000):
                handle = root.open("a/b/../../a/../a/b/../../../file", os.O_RDONLY)
                os.close(handle)
        finally:
            root.close()
            busy.kill()
