"""The platform is killed while it builds: a build that had not begun its commands runs, one that had is over and says so,
and nothing of either is left."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from tests.crash.points import around
from tests.platform import Running
from tests.stories.codebuild.conftest import ENVIRONMENT, Bench, bench_of, cause, phases, spec

BEFORE = ("assume", "provision", "source")
POINTS = around("codebuild", *BEFORE, "begin", "commands", "deliver", "settle")


def _left(running: Running) -> list[str]:
    """Mounts and processes that know the platform's folder, beside the platform."""
    data = str(running.data)
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if data in line]
    listed = subprocess.run(["ps", "-ewwo", "pid,args"], capture_output=True, text=True, check=True).stdout
    loops = [one.read_text().strip() for one in Path("/sys/block").glob("loop*/loop/backing_file")]
    mounts += [one for one in loops if data in one]
    return mounts + [line for line in listed.splitlines() if data in line and "bastide up" not in line]


def _true(bench: Bench, point: str, id: str) -> None:
    build = bench.over(id)
    step, _, when = point.removeprefix("codebuild/").partition(":")
    # What a step did counts once its end is written down.
    begun = step not in (*BEFORE, "begin")
    if step == "settle" or not begun:
        assert build["buildStatus"] == "SUCCEEDED", (point, build["phases"])
        assert bench.object(f"out-{step}-{when}/ran.txt") == b"ran\n"
    else:
        assert build["buildStatus"] == "FAULT", point
        assert "was lost while its commands ran" in cause(build)
    assert [*phases(build)][-2:] == ["FINALIZING", "COMPLETED"] and [*phases(build)][:2] == ["SUBMITTED", "QUEUED"]
    assert len(build["phases"]) == len(phases(build))


def test_the_end_is_equal_or_true(tmp_path: Path) -> None:
    crashing = Running(tmp_path / "data")
    # In CI one of each kind of end.
    points = POINTS if "BASTIDE_CRASH_ROUNDS" in os.environ else ["codebuild/commands:before", "codebuild/source:after"]
    crashing.start(BASTIDE_TEST_KILL_AT=points[0])
    try:
        crashing.found()
        bench = bench_of(crashing.account())
        for point, following in zip(points, [*points[1:], ""], strict=True):
            step, _, when = point.removeprefix("codebuild/").partition(":")
            target = {"type": "S3", "location": bench.bucket, "name": f"out-{step}-{when}"}
            told = spec(build=["echo ran > ran.txt"], artifacts={"files": ["ran.txt"]})
            # With the file system that images are built on, which lies in the volume.
            given = {"artifacts": target, "environment": {**ENVIRONMENT, "privilegedMode": True}}
            id = bench.start(bench.project(told, **given))
            assert crashing.process is not None
            assert crashing.process.wait(60) == -9
            crashing.kill()
            # A build that is over without its commands does not come to the next point.
            over = step in ("commands", "deliver")
            crashing.launch(BASTIDE_TEST_KILL_AT=following if over else "")
            bench.client = bench.account.client("codebuild")
            _true(bench, point, id)
            if following and not over:
                crashing.stop()
                crashing.launch(BASTIDE_TEST_KILL_AT=following)
                bench.client = bench.account.client("codebuild")
        until = time.monotonic() + 60
        while (left := _left(crashing)) and time.monotonic() < until:
            time.sleep(0.1)
        assert not left
    finally:
        crashing.stop()
