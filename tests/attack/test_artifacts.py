"""What a hostile job leaves behind, and hostile archives: the platform reads and unpacks both as root.

docs/threat-model.md, "a hostile job": it gets nothing of the host; a platform that reads its output for it is a way around
the sandbox.
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest

from bastide.services.sagemaker import archive
from bastide.services.sagemaker.outcome import text_of
from tests.platform import Account, Running
from tests.stories.sagemaker.conftest import workshop_of

_SCRIPT = """
import os, shutil
shutil.rmtree("/opt/ml/model")
os.symlink({target!r}, "/opt/ml/model")
"""


def test_a_model_folder_that_is_a_link_carries_nothing_of_the_host_away(platform: Running, account: Account) -> None:
    workshop = workshop_of(account)
    name = workshop.train(_SCRIPT.format(target=str(platform.data)))
    found = workshop.trained(name)
    keys = [
        one["Key"] for one in workshop.s3.list_objects_v2(Bucket=workshop.bucket, Prefix="out/").get("Contents", [])
    ]
    stolen: list[str] = []
    for key in keys:
        body = workshop.s3.get_object(Bucket=workshop.bucket, Key=key)["Body"].read()
        with tarfile.open(fileobj=io.BytesIO(body)) as tar:
            stolen += tar.getnames()
    assert stolen == []
    assert found["TrainingJobStatus"] == "Failed"
    assert "is a link" in found["FailureReason"]


def test_a_link_on_the_way_to_a_failure_file_is_not_followed(tmp_path: Path) -> None:
    host, ml = tmp_path / "host", tmp_path / "ml"
    host.mkdir()
    ml.mkdir()
    (host / "failure").write_text("secret of the host")
    (ml / "output").symlink_to(host)
    assert text_of(ml, "output", "failure", 1024) == ""


@pytest.mark.parametrize("relative", ["model", "output/data", "processing/out/deep"])
@pytest.mark.parametrize("depth", [0, 1])
def test_no_folder_on_the_way_may_be_a_link(tmp_path: Path, relative: str, depth: int) -> None:
    host, ml = tmp_path / "host", tmp_path / "ml"
    host.mkdir()
    (host / "root.key").write_text("key")
    parts = relative.split("/")
    link = ml.joinpath(*parts[: min(depth + 1, len(parts))])
    link.parent.mkdir(parents=True)
    link.symlink_to(host)
    with pytest.raises(archive.Unfit, match="link"):
        archive.plain_folder(ml, relative)


def test_a_folder_that_is_gone_is_an_empty_one(tmp_path: Path) -> None:
    assert archive.files(archive.plain_folder(tmp_path, "model"), most_bytes=1) == []


def test_files_with_holes_do_not_fill_the_disk(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(archive.Unfit, match="more than"):
        archive.files(tmp_path, most_bytes=1 << 30)


def _header(kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo("long")
    info.type = kind
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK])
def test_a_name_of_a_gigabyte_is_not_read_into_memory(tmp_path: Path, kind: bytes) -> None:
    bomb = tmp_path / "model.tar.gz"
    with gzip.open(bomb, "wb", 1) as packed:
        packed.write(_header(kind, 1 << 30))
        for _ in range(16):
            packed.write(bytes(1 << 20))
    (tmp_path / "out").mkdir()
    with pytest.raises(archive.Unfit, match="longer than"):
        archive.unpack(bomb, tmp_path / "out", most_bytes=1 << 30)


def test_a_map_of_holes_is_not_read_into_memory(tmp_path: Path) -> None:
    bomb = tmp_path / "model.tar.gz"
    info = tarfile.TarInfo("sparse")
    info.size = 1 << 26
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "x",
        "GNU.sparse.realsize": "1",
    }
    with gzip.open(bomb, "wb", 1) as packed:
        packed.write(info.tobuf(tarfile.PAX_FORMAT))
        packed.write(b"9000000\n" + b"0\n" * (8 << 20))
    (tmp_path / "out").mkdir()
    with pytest.raises(archive.Unfit, match="longer than"):
        archive.unpack(bomb, tmp_path / "out", most_bytes=1 << 30)


def test_an_honest_archive_of_many_folders_and_files_still_unpacks(tmp_path: Path) -> None:
    made, packed, out = tmp_path / "made", tmp_path / "packed", tmp_path / "out"
    for number in range(300):
        folder = made / f"folder-{number}" / ("d" * 120)
        folder.mkdir(parents=True)
        (folder / ("f" * 120)).write_bytes(os.urandom(20_000))
    out.mkdir()
    archive.pack(archive.files(made, most_bytes=1 << 30), packed)
    archive.unpack(packed, out, most_bytes=1 << 30)
    assert [name for name, _ in archive.files(out, most_bytes=1 << 30)] == [
        name for name, _ in archive.files(made, most_bytes=1 << 30)
    ]
