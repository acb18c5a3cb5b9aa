"""The platform that the demo runs on: started by its own commands, as a person would, and stopped again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from bastide.commands.client import Platform
from bastide.commands.demo.telling import StoryError

_PROGRAM = (sys.executable, "-m", "bastide")
_START_SECONDS = 60.0
_STOP_SECONDS = 40.0  # `bastide up` drains for 25 s at most


@dataclass
class Host:
    """A data directory, and the process that serves it."""

    folder: Path
    """What is removed at the end; of mode 0700."""
    data: Path
    _process: subprocess.Popen[bytes] | None = field(default=None)

    @classmethod
    def temporary(cls) -> Host:
        """In a folder of its own that nobody else can enter."""
        folder = Path(tempfile.mkdtemp(prefix="bastide-demo-"))
        return cls(folder, folder / "data")

    @classmethod
    def kept(cls, data: Path) -> Host:
        """In a folder that stays; raises StoryError if something is there."""
        data = data.absolute()
        if data.exists() and any(data.iterdir()):
            raise StoryError(f"{data} is not empty; name another folder with --data, or remove it")
        return cls(data, data)

    @property
    def pid(self) -> int | None:
        """The platform's process."""
        return self._process.pid if self._process is not None else None

    @property
    def _log(self) -> Path:
        return self.data / "up.log"

    def start(self) -> Platform:
        """`bastide init` and `bastide up` on a free port; raises StoryError if they do not come up."""
        made = subprocess.run(
            [*_PROGRAM, "init", "--data", str(self.data)], capture_output=True, text=True, check=False
        )
        if made.returncode:
            raise StoryError(f"`bastide init` ended with {made.returncode}: {made.stderr.strip()}")
        with os.fdopen(os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as log:
            # A session of its own, so that Ctrl-C ends the story, and the story then ends the platform.
            self._process = subprocess.Popen(
                [
                    *_PROGRAM,
                    "up",
                    "--data",
                    str(self.data),
                    "--listen",
                    "127.0.0.1:0",
                    "--development-identity-provider",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not any(line.startswith("ready ") for line in self._lines()):
            if self._process.poll() is not None:
                raise StoryError(f"`bastide up` ended with {self._process.returncode}:\n{self.complaints()}")
            if time.monotonic() > deadline:
                raise StoryError(f"`bastide up` was not ready after {_START_SECONDS:.0f} s:\n{self.complaints()}")
            time.sleep(0.05)
        return Platform(self.data)

    def enforcement(self) -> list[str]:
        """What `bastide up` printed of how enforcement stands."""
        return [line for line in self._lines() if not line.startswith("ready ")]

    def complaints(self) -> str:
        """The end of what the platform logged."""
        return "\n".join(self._lines()[-25:])

    def stop(self) -> str | None:
        """SIGTERM, and waits; what went wrong, if something did."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return None
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return f"the platform did not drain within {_STOP_SECONDS:.0f} s and was killed"
        return None if process.returncode == 0 else f"the platform ended with {process.returncode}"

    def remove(self) -> str | None:
        """Stops and removes everything; what went wrong, if something did."""
        wrong = self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.folder.exists():
            return f"{self.folder} could not be removed altogether"
        return wrong

    def _lines(self) -> list[str]:
        try:
            return self._log.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return []
