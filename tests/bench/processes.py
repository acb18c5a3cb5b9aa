"""CPU time of a server with everything it started, from ``/proc``."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
"""Ticks a second in ``/proc/<pid>/stat`` (proc_pid_stat(5))."""


def _stat(pid: int) -> list[str] | None:
    """Fields 3 and on of ``/proc/<pid>/stat`` (the name in field 2 may hold blanks), or ``None`` when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


class Tree:
    """A process and its descendants, followed by number and start time also after a parent has left them."""

    def __init__(self, root: int) -> None:
        self._known: dict[int, str] = {}
        self.root = root
        stat = _stat(root)
        if stat is not None:
            self._known[root] = stat[19]

    def _members(self) -> dict[int, list[str]]:
        stats: dict[int, list[str]] = {}
        for entry in os.listdir("/proc"):  # noqa: PTH208  names are all that is needed
            if entry.isdigit() and (stat := _stat(int(entry))) is not None:
                stats[int(entry)] = stat
        members = {pid: stats[pid] for pid, start in self._known.items() if pid in stats and stats[pid][19] == start}
        grown = True
        while grown:
            grown = False
            for pid, stat in stats.items():
                if pid not in members and int(stat[1]) in members:
                    members[pid] = stat
                    grown = True
        self._known = {pid: stat[19] for pid, stat in members.items()}
        return members

    def pids(self) -> list[int]:
        """The living members."""
        return sorted(self._members())

    def cpu(self) -> float:
        """Seconds of user and system time of all members, with those of the children they have waited for.

        A living child is counted itself and a reaped one in its parent, so that the sum never falls.
        """
        return sum(sum(int(stat[i]) for i in (11, 12, 13, 14)) for stat in self._members().values()) / TICKS

    def resident(self) -> int:
        """Bytes of resident memory of all members (shared pages count in each)."""
        return sum(int(stat[21]) for stat in self._members().values()) * os.sysconf("SC_PAGE_SIZE")

    def forget_peak(self) -> None:
        """Begins to measure `peak` anew (proc_pid_clear_refs(5))."""
        for pid in self._members():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak(self) -> int:
        """Bytes of resident memory of all members at the most since `forget_peak`."""
        found = 0
        for pid in self._members():
            with suppress(FileNotFoundError, ProcessLookupError):
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    if line.startswith("VmHWM:"):
                        found += int(line.split()[1]) * 1024
        return found

    def end(self, process: subprocess.Popen[bytes], patience: float = 20.0) -> None:
        """SIGTERM to the root, and SIGKILL to what is left of the tree after ``patience`` seconds."""
        members = self.pids()
        if process.poll() is None:
            process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
        deadline = time.monotonic() + 2
        while (left := [pid for pid in self.pids() if pid in members]) and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if process.poll() is None:
            process.wait(5)
