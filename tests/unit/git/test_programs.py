"""What git could reach, if a pack took it over."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bastide.engines.git.programs import GitError, Place, run


def told(place: Place, script: str) -> str:
    """What a shell says where git runs."""
    return asyncio.run(run(place, "-c", f"alias.told=!{script}", "told")).decode()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    for name in ("mine", "others"):
        (tmp_path / name / "in" / "x" / "refs").mkdir(parents=True)
        (tmp_path / name / "in" / "x" / "objects").mkdir()
        (tmp_path / name / "objects").mkdir()
        (tmp_path / name / "in" / "x" / "HEAD").write_text("ref: refs/heads/main\n")
        (tmp_path / name / "secret").write_text(name)
    return Place(tmp_path / "mine", "in/x", objects=True)


def test_a_program_sees_its_repository_and_the_systems_programs_alone(place: Place, tmp_path: Path) -> None:
    assert set(told(place, "ls /").split()) == {"bin", "dev", "git", "lib", "lib64", "proc", "tmp", "usr"}
    assert told(place, "cat /git/secret") == "mine"
    for path in (tmp_path / "others" / "secret", Path("/etc/passwd"), Path.home()):
        with pytest.raises(GitError):
            told(place, f"ls {path}")
    status = dict(line.split(":", 1) for line in told(place, "cat /proc/self/status").splitlines())
    assert status["CapEff"].strip() == status["CapBnd"].strip() == "0" * 16
    assert (status["Seccomp"].strip(), status["NoNewPrivs"].strip()) == ("2", "1")
    names = [line.split(":")[0].strip() for line in told(place, "cat /proc/net/dev").splitlines()[2:]]
    assert names in ([], ["lo"])
    environment = told(place, "env")
    assert "AWS_" not in environment and str(Path.home()) not in environment


def test_a_program_writes_into_its_own_folder_alone_and_not_without_end(place: Place) -> None:
    told(place, "touch /git/in/x/fine")
    assert (place.repository / "in" / "x" / "fine").exists()
    for script in (
        "touch /git/secret",
        "touch /git/objects/x",
        "touch /usr/x",
        "mount -t tmpfs x /git",
        "unshare -U true",
    ):
        with pytest.raises(GitError):
            told(place, script)
    limits = told(place, "cat /proc/self/limits")
    assert all(name in limits for name in ("Max cpu time", "Max address space"))
    bounded = [line for line in limits.splitlines() if line.startswith(("Max cpu", "Max file size", "Max address"))]
    assert len(bounded) == 3 and not any("unlimited" in line for line in bounded)
    with pytest.raises(GitError, match="more than 1000 bytes"):
        asyncio.run(run(place, "-c", "alias.told=!cat /dev/zero", "told", most=1000))
