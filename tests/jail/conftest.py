"""Real sandboxes on this machine: an environment built once, a driver with a run folder of its own for each test."""

from __future__ import annotations

import asyncio
import itertools
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bastide.engines.images import Environment, build
from bastide.engines.sandbox import Ended, Limits, Spec
from bastide.engines.sandbox.drivers.gocryptfs import Gocryptfs
from bastide.engines.sandbox.drivers.gvisor import Gvisor

SMALL = Limits(memory_bytes=512 << 20, cpus=2.0, processes=64, open_files=1024)
_numbers = itertools.count()
BOTH = pytest.mark.parametrize("cell", ["bubblewrap", "gvisor"], indirect=True)
"""For what holds on a kernel of one's own as on the machine's."""


@dataclass
class Told:
    """What a program in a sandbox printed, and how it ended."""

    lines: list[str]
    ended: Ended

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@pytest.fixture(scope="session")
def environment() -> Environment:
    """The scikit-learn environment, built at the first use on this machine."""
    return build("scikit-learn", progress=lambda line: sys.stderr.write(f"{line}\n"))


class Cell:
    """Runs Python programs and commands in sandboxes."""

    def __init__(self, environment: Environment, folder: Path, kind: str = "bubblewrap") -> None:
        self.kind = kind
        self.environment = environment
        self.folder = folder
        self.driver = Gvisor(folder / "run")

    def workdir(self) -> Path:
        path = self.folder / f"job-{next(_numbers)}"
        path.mkdir()
        return path

    def spec(self, command: Sequence[str], **more: Any) -> Spec:
        values: dict[str, Any] = {"name": f"test-{next(_numbers)}", "limits": SMALL, **more}
        values.setdefault("untrusted", self.kind == "gvisor")
        values.setdefault("workdir", self.workdir())
        return Spec(image=self.environment, command=command, **values)

    def python(self, code: str, **more: Any) -> Told:
        """Run code to its end."""
        return self.run(["python3", "-c", textwrap.dedent(code)], **more)

    def run(self, command: Sequence[str], **more: Any) -> Told:
        """Run a command to its end, at most two minutes."""

        async def all_of_it() -> Told:
            async with asyncio.timeout(120):
                running = await self.driver.start(self.spec(command, **more))
                lines = [line.decode(errors="replace") async for line in running.lines()]
                return Told(lines, await running.wait())

        return asyncio.run(all_of_it())


@pytest.fixture
def cell(request: pytest.FixtureRequest, environment: Environment, tmp_path: Path) -> Cell:
    """In bubblewrap, or as `BOTH` has it."""
    tmp_path.chmod(0o755)  # so that only the sandbox, not this folder's mode, keeps a job out
    return Cell(environment, tmp_path, getattr(request, "param", "bubblewrap"))


@pytest.fixture(autouse=True)
def unmounted(tmp_path: Path) -> Iterator[None]:
    """A test that fails half-way leaves no mount behind."""
    yield
    asyncio.run(Gocryptfs(tmp_path / "volumes").recover())


@pytest.fixture
def refused() -> Callable[[Told], None]:
    """Checks that every attempt that a program printed as ``name: outcome`` failed."""

    def check(told: Told) -> None:
        assert told.lines, told.ended
        open_doors = [line for line in told.lines if not line.split(": ", 1)[-1].startswith("refused")]
        assert not open_doors, told.text

    return check
