"""Archives that are unpacked over one another: what one links, the next must not write through.

A link that leads below the folder by itself leads out of it by way of another: `deep/a/x` is the folder, `y1`, which is
``deep/a/x/..``, the one above it, `y2` the one above that. The platform unpacks as root.
"""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import pytest

from bastide.engines import zips
from bastide.services.codebuild import archive
from bastide.services.lambda_ import code
from tests.attack.test_hostile_builds import bench
from tests.platform import below
from tests.stories.codebuild.conftest import Bench, spec

__all__ = ["bench"]

CHAIN = {"deep/a/x": "../..", "y1": "deep/a/x/..", **{f"y{n}": f"y{n - 1}/.." for n in range(2, 6)}}


def packed(links: dict[str, str], **files: str) -> bytes:
    """A .zip of links and of files; in their names ``__`` stands for a slash."""
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w") as made:
        for name, target in links.items():
            link = zipfile.ZipInfo(name)
            link.external_attr = (0o120000 | 0o777) << 16
            made.writestr(link, target)
        for name, text in files.items():
            made.writestr(name.replace("__", "/"), text)
    return found.getvalue()


OVER = packed({}, **{f"y{n}__owned{n}": "by a stranger" for n in range(1, 6)}, y1__="", y2__linked="x")


def outside(top: Path, folder: Path) -> list[Path]:
    return [one for one in below(top) if one.name.startswith("owned") and folder not in one.parents]


def test_a_layer_is_not_written_through_the_links_of_another(tmp_path: Path) -> None:
    opt = tmp_path / "a" / "b" / "c" / "d" / "opt"
    opt.mkdir(parents=True)
    for layer in (packed(CHAIN, readme="x"), OVER, packed({"y3/link": "../y1"}, y4__x="y")):
        code.look_through(layer, layer=True)
        code.unpack(layer, opt, layer=True)
    assert not outside(tmp_path, opt)
    # What came later counts, as where a file replaces another.
    assert (opt / "y2").is_dir() and not (opt / "y2").is_symlink()
    assert (opt / "y5" / "owned5").read_text() == "by a stranger" and (opt / "y5").stat().st_mode & 0o777 == 0o755


def test_a_cache_is_not_written_through_the_links_of_a_source(bench: Bench) -> None:
    buildspec = spec(build=["ls -l y3"], cache={"paths": ["kept/**"]})
    source = io.BytesIO(packed(CHAIN))
    with zipfile.ZipFile(source, "a") as made:
        made.writestr("buildspec.yml", buildspec)
    bench.put("cache/linked/0.zip", OVER)
    place = bench.put("linked.zip", source.getvalue())
    cache = {"type": "S3", "location": f"{bench.bucket}/cache"}
    build = bench.build("", name="linked", source={"type": "S3", "location": place}, cache=cache)
    lines = bench.lines(build)
    assert build["buildStatus"] == "SUCCEEDED", lines
    assert any("Unable to restore the cache" in one and "both a file and a folder" in one for one in lines), lines
    assert not outside(bench.account.platform.data, Path("/nowhere"))


def test_an_archive_whose_list_is_longer_than_it_may_be_is_not_read(tmp_path: Path) -> None:
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 3, 20, 0, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    count = 400_000
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count & 0xFFFF, count & 0xFFFF, len(entry) * count, 0, 0)
    with pytest.raises(zipfile.BadZipFile, match="longer than"):
        zips.opened(io.BytesIO(entry * count + end), 65_536)
    (tmp_path / "long.zip").write_bytes(entry * count + end)
    (tmp_path / "out").mkdir()
    with pytest.raises(archive.Unfit, match=r"no \.zip archive that can"):
        archive.unpack(tmp_path / "long.zip", tmp_path / "out", most_bytes=1 << 20)
    assert zips.opened(io.BytesIO(OVER), 10).namelist()
