"""Encrypted volumes: what reaches the disk, where the key is, and what remains."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bastide.engines.sandbox import SandboxError
from bastide.engines.sandbox.drivers.gocryptfs import Gocryptfs

MARKER = b"plaintext-marker-of-the-bank"


def on_disk(folder: Path, wanted: bytes) -> list[str]:
    """Where the bytes are found in names or contents, the view in clear left out."""
    found = []
    for here, folders, files in os.walk(folder):
        if here.endswith("/clear"):
            folders.clear()
            continue
        for name in files + folders:
            path = Path(here) / name
            if wanted in os.fsencode(name) or (path.is_file() and wanted in path.read_bytes()):
                found.append(str(path))
    return found


@pytest.mark.parametrize("limit", [None, 32 << 20])
def test_only_ciphertext_reaches_the_disk(tmp_path: Path, limit: int | None) -> None:
    async def story() -> None:
        key = secrets.token_bytes(32)
        volumes = Gocryptfs(tmp_path / "volumes")
        clear = await volumes.create("job-1", key, limit)
        name = MARKER.decode()
        (clear / name).write_bytes(MARKER * 1000)
        (clear / f"folder-{name}").mkdir()
        os.sync()
        assert (clear / name).read_bytes() == MARKER * 1000
        assert on_disk(tmp_path / "volumes", MARKER) == []
        for form in (key, key.hex().encode(), key.hex().upper().encode()):
            assert on_disk(tmp_path / "volumes", form) == []
        await volumes.close("job-1")
        assert not (tmp_path / "volumes" / "job-1").exists()
        assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()

    asyncio.run(story())


def test_the_key_is_in_no_argument_and_no_variable(tmp_path: Path) -> None:
    async def story() -> None:
        key = secrets.token_bytes(32)
        volumes = Gocryptfs(tmp_path / "volumes")
        await volumes.create("job-1", key)
        seen = 0
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                told = (entry / "cmdline").read_bytes()
                seen += b"gocryptfs" in told
                told += (entry / "environ").read_bytes()
            except OSError:
                continue
            assert key not in told
            assert key.hex().encode() not in told.lower()
        assert seen
        await volumes.close("job-1")

    asyncio.run(story())


def test_it_cannot_be_read_again_without_the_key(tmp_path: Path) -> None:
    """The ciphertext, copied away while the volume was open, under another key."""

    async def story() -> None:
        volumes = Gocryptfs(tmp_path / "volumes")
        clear = await volumes.create("job-1", secrets.token_bytes(32))
        (clear / "model").write_bytes(MARKER)
        os.sync()
        shutil.copytree(tmp_path / "volumes" / "job-1" / "cipher", tmp_path / "stolen")
        await volumes.close("job-1")

    asyncio.run(story())
    mount = tmp_path / "mount"
    mount.mkdir()
    command = ["gocryptfs", "-q", "-masterkey=stdin", "-nosyslog", str(tmp_path / "stolen"), str(mount)]
    quiet: Any = {"text": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "timeout": 20}
    subprocess.run(command, input=secrets.token_hex(32) + "\n", check=True, **quiet)
    try:
        left = list(mount.iterdir())
        assert "model" not in {path.name for path in left}
        for path in left:
            with pytest.raises(OSError):
                path.read_bytes()
    finally:
        subprocess.run(["fusermount3", "-u", str(mount)], check=True)
    none = subprocess.run([*command[:2], *command[3:]], input="\n", check=False, **quiet)
    assert none.returncode != 0


def test_a_job_works_on_it(cell: Any, tmp_path: Path) -> None:
    async def story() -> None:
        volumes = Gocryptfs(tmp_path / "volumes")
        work = await volumes.create("job-1", secrets.token_bytes(32), 64 << 20)
        (work / "input").mkdir(mode=0o700)
        (work / "input" / "data.csv").write_bytes(MARKER)
        spec = cell.spec(["sh", "-c", "cat input/data.csv; mkdir model; cp input/data.csv model/"], workdir=work)
        running = await cell.driver.start(spec)
        assert [line async for line in running.lines()] == [MARKER]
        assert (await running.wait()).exit_code == 0
        assert (work / "model" / "data.csv").read_bytes() == MARKER
        full = cell.spec(["dd", "if=/dev/zero", "of=/opt/ml/big", "bs=1M", "count=100"], workdir=work)
        running = await cell.driver.start(full)
        told = b" ".join([line async for line in running.lines()])
        assert b"No space left" in told
        assert (await running.wait()).exit_code == 1
        await volumes.close("job-1")

    asyncio.run(story())


def test_it_is_closed_while_a_job_still_holds_it(cell: Any, tmp_path: Path) -> None:
    async def story() -> None:
        volumes = Gocryptfs(tmp_path / "volumes")
        work = await volumes.create("job-1", secrets.token_bytes(32))
        running = await cell.driver.start(
            cell.spec(["sh", "-c", "echo up; sleep 3; ls /opt/ml || echo gone; exec cat"], workdir=work)
        )
        lines = running.lines()
        assert await anext(lines) == b"up"
        await volumes.close("job-1")
        assert not (tmp_path / "volumes" / "job-1").exists()
        rest = b" ".join([line async for line in lines])
        assert b"gone" in rest
        await running.wait()

    asyncio.run(story())


def test_it_can_be_used_the_moment_it_is_there(tmp_path: Path) -> None:
    """Creating a file while gocryptfs was still about to be ready once hung both for good."""

    async def story() -> None:
        volumes = Gocryptfs(tmp_path / "volumes")
        for number in range(25):
            async with asyncio.timeout(60):
                clear = await volumes.create(f"job-{number}", bytes(32))
                (clear / "x").write_bytes(MARKER)
                await volumes.close(f"job-{number}")

    asyncio.run(story())


def test_recovering_clears_what_was_left(tmp_path: Path) -> None:
    async def story() -> None:
        earlier = Gocryptfs(tmp_path / "volumes")
        clear = await earlier.create("job-1", secrets.token_bytes(32), 16 << 20)
        (clear / "x").write_bytes(MARKER)
        later = Gocryptfs(tmp_path / "volumes")
        assert await later.recover() == ["job-1"]
        assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
        assert list((tmp_path / "volumes").iterdir()) == []
        await earlier.close("job-1")
        await earlier.close("never-was")

    asyncio.run(story())


@pytest.mark.parametrize(("name", "key"), [("../x", bytes(32)), ("", bytes(32)), ("a", b"short")])
def test_what_is_not_legal_is_refused(tmp_path: Path, name: str, key: bytes) -> None:
    with pytest.raises(ValueError):
        asyncio.run(Gocryptfs(tmp_path / "volumes").create(name, key))
    assert not (tmp_path / "volumes").exists()


def test_a_name_is_taken_once(tmp_path: Path) -> None:
    async def story() -> None:
        volumes = Gocryptfs(tmp_path / "volumes")
        await volumes.create("job-1", bytes(32))
        with pytest.raises(ValueError, match="there is a volume"):
            await volumes.create("job-1", bytes(32))
        await volumes.close("job-1")

    asyncio.run(story())


def test_it_fails_closed_without_gocryptfs(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "setpriv").write_text("#!/bin/sh\necho no gocryptfs here >&2\nexit 1\n")
    (programs / "setpriv").chmod(0o755)
    with pytest.raises(SandboxError, match="no gocryptfs here"):
        asyncio.run(Gocryptfs(tmp_path / "volumes", str(programs)).create("job-1", bytes(32)))
    assert not (tmp_path / "volumes" / "job-1").exists()


def test_a_kept_volume_is_there_again_under_its_key(tmp_path: Path) -> None:
    async def story() -> None:
        key, place = secrets.token_bytes(32), tmp_path / "kept" / "one"
        volumes = Gocryptfs(tmp_path / "volumes")
        (await volumes.keep("job-1", key, place) / "model").write_bytes(MARKER)
        await volumes.close("job-1")
        assert place.is_dir() and on_disk(tmp_path, MARKER) == [] and not (tmp_path / "volumes" / "job-1").exists()
        assert (await volumes.keep("job-1", key, place) / "model").read_bytes() == MARKER
        await volumes.close_all()
        other = await volumes.keep("job-2", secrets.token_bytes(32), place)
        assert not (other / "model").exists()
        await volumes.close_all()
        assert (await volumes.keep("job-3", key, place) / "model").read_bytes() == MARKER
        await volumes.close_all()

    asyncio.run(story())


_MAKES = """
import os, sys
os.chdir(sys.argv[1])  # through folders that only root can enter
top, user = ".", int(sys.argv[2])
os.setgroups([]); os.setgid(user); os.setuid(user)
for number in range(300):
    open(f"{top}/shared/{number % 100}").read()
    path = f"{top}/{user}/{number}"
    os.mkdir(path)
    with open(f"{path}/file", "w") as file:
        file.write("made")
    assert {os.stat(one).st_uid for one in (path, f"{path}/file")} == {user}, "made by another"
"""


def test_who_makes_files_side_by_side_makes_its_own_and_hinders_nobody(tmp_path: Path) -> None:
    async def story() -> list[tuple[int, str]]:
        volumes = Gocryptfs(tmp_path / "volumes")
        clear = await volumes.create("job-1", secrets.token_bytes(32))
        clear.chmod(0o755)
        (clear / "shared").mkdir()
        for number in range(100):
            (clear / "shared" / str(number)).write_text("read")
        users = (2000, 2001, 2002)
        for user in users:
            (clear / str(user)).mkdir()
            os.chown(clear / str(user), user, user)
        commands = [[sys.executable, "-I", "-S", "-c", _MAKES, str(clear), str(user)] for user in users]
        try:
            running = [await asyncio.create_subprocess_exec(*one, stderr=asyncio.subprocess.PIPE) for one in commands]
            told = await asyncio.gather(*(one.communicate() for one in running))
            return [(one.returncode or 0, text.decode()) for one, (_, text) in zip(running, told, strict=True)]
        finally:
            await volumes.close("job-1")

    assert asyncio.run(story()) == [(0, "")] * 3


def test_one_that_is_given_up_while_it_is_made_leaves_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        volumes = Gocryptfs(tmp_path / "volumes")
        for number in range(12):
            making = asyncio.ensure_future(volumes.create(f"job-{number}", secrets.token_bytes(32), 32 << 20))
            await asyncio.sleep(number * 0.004)
            # A machine that stood still in between has made the volume: then it is closed like any other.
            made = not making.cancel()
            assert not (made and number == 0), "the first is given up before it began"
            if made:
                await volumes.close(f"job-{number}")
            else:
                with pytest.raises(asyncio.CancelledError):
                    await making
            assert list((tmp_path / "volumes").iterdir()) == []
        await volumes.create("job-0", secrets.token_bytes(32))
        await volumes.close_all()

    asyncio.run(story())
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
