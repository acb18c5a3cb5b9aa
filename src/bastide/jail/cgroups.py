"""Limits and use of a group of processes, by the kernel's control groups: version 2, version 1 and the mix of both.

A group lies below the one the platform itself runs in (version 1) or below a ``bastide`` group at the root (version 2,
whose inner groups may hold no processes). Where the kernel does not let us, ``create`` says which limits the caller has
to set in another way. Sources: Documentation/admin-guide/cgroup-v1/ and cgroup-v2.rst.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Final, NamedTuple

MOUNT: Final = Path("/sys/fs/cgroup")
_PERIOD_US: Final = 100_000
_V1: Final = ("memory", "pids", "cpu", "cpuacct")


class Use(NamedTuple):
    """What a group used. cpu_seconds, peak_bytes: None where the kernel does not tell. oom_kills: how many of its
    processes the kernel ended for want of memory."""

    cpu_seconds: float | None
    peak_bytes: int | None
    oom_kills: int


class Group(NamedTuple):
    """The folders of one group, a controller each (version 1) or one for all (version 2, under the key ``""``).

    limited: the controllers among memory, pids and cpu whose limit is in force.
    """

    folders: dict[str, str]
    limited: frozenset[str]

    def join(self, process: int = 0) -> None:
        """Move a process, by default the caller, into the group."""
        for folder in self.folders.values():
            _write(Path(folder) / "cgroup.procs", str(process))

    def processes(self) -> set[int]:
        """Who is in it; empty when the group is gone."""
        found: set[int] = set()
        for folder in self.folders.values():
            with contextlib.suppress(OSError):
                found.update(int(line) for line in (Path(folder) / "cgroup.procs").read_text().split())
        return found

    def signal(self, number: int, but: frozenset[int] = frozenset()) -> None:
        """Signal every process of the group; one that left meanwhile is not hit, even if its number was given away."""
        for process in self.processes() - but:
            with contextlib.suppress(OSError):
                held = os.pidfd_open(process)
                try:
                    if process in self.processes():
                        signal.pidfd_send_signal(held, number)
                finally:
                    os.close(held)

    def kill(self, seconds: float = 5.0) -> bool:
        """Kill until nobody is left, at most so long; says whether the group is empty."""
        until = time.monotonic() + seconds
        if "" in self.folders:
            with contextlib.suppress(OSError):  # cgroup.kill: Linux 5.14
                _write(Path(self.folders[""]) / "cgroup.kill", "1")
        while self.processes():
            self.signal(signal.SIGKILL)
            if time.monotonic() > until:
                return False
            time.sleep(0.002)
        return True

    def use(self) -> Use:
        """What the group used until now."""
        if "" in self.folders:
            folder = Path(self.folders[""])
            cpu = _field(folder / "cpu.stat", "usage_usec")
            return Use(
                None if cpu is None else cpu / 1e6,
                _number(folder / "memory.peak"),
                _field(folder / "memory.events", "oom_kill") or 0,
            )
        memory = Path(self.folders.get("memory", "/nonexistent"))
        cpu = _number(Path(self.folders.get("cpuacct", "/nonexistent")) / "cpuacct.usage")
        return Use(
            None if cpu is None else cpu / 1e9,
            _number(memory / "memory.max_usage_in_bytes"),
            _field(memory / "memory.oom_control", "oom_kill") or 0,
        )

    def memory_bytes(self) -> int | None:
        """Memory in use now, without what is merely cached of files and can be given back; None if the kernel does not
        tell."""
        if "" in self.folders:
            folder, name, cached = Path(self.folders[""]), "memory.current", "inactive_file"
        else:
            folder, name = Path(self.folders.get("memory", "/nonexistent")), "memory.usage_in_bytes"
            cached = "total_inactive_file"
        used = _number(folder / name)
        return None if used is None else max(0, used - (_field(folder / "memory.stat", cached) or 0))

    def remove(self) -> bool:
        """Remove the empty group; says whether it is gone."""
        gone = True
        for folder in self.folders.values():
            try:
                Path(folder).rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                gone = False
        return gone


def version() -> str:
    """``v2``, ``v1``, ``hybrid`` (version 1 controllers beside a version 2 tree) or ``none``."""
    if (MOUNT / "cgroup.controllers").exists():
        return "v2"
    if any((MOUNT / c).is_dir() for c in ("memory", "pids")):
        return "hybrid" if (MOUNT / "unified").is_dir() else "v1"
    return "none"


def create(name: str, *, memory_bytes: int, processes: int, cpus: float) -> Group:
    """Make a group with limits. A limit that the kernel refuses is missing from ``limited``; the group may be empty of
    folders where there are no control groups at all. name: one path component, unique on this machine."""
    if not name or "/" in name or name.startswith("."):
        raise ValueError("a group's name is one path component")
    wanted = {"memory": memory_bytes, "pids": processes, "cpu": max(1_000, int(cpus * _PERIOD_US))}
    return _create_v2(name, wanted) if version() == "v2" else _create_v1(name, wanted)


def _create_v2(name: str, wanted: dict[str, int]) -> Group:
    parent = MOUNT / "bastide"
    try:
        with contextlib.suppress(OSError):
            _write(MOUNT / "cgroup.subtree_control", "+memory +pids +cpu")
        parent.mkdir(exist_ok=True)
        for controller in wanted:
            with contextlib.suppress(OSError):
                _write(parent / "cgroup.subtree_control", f"+{controller}")
        folder = parent / name
        folder.mkdir()
    except OSError:
        return Group({}, frozenset())
    limited = set()
    files = {"memory": "memory.max", "pids": "pids.max", "cpu": "cpu.max"}
    for controller, value in wanted.items():
        with contextlib.suppress(OSError):
            _write(folder / files[controller], f"{value} {_PERIOD_US}" if controller == "cpu" else str(value))
            limited.add(controller)
    for file, text in (("memory.swap.max", "0"), ("memory.oom.group", "1")):
        with contextlib.suppress(OSError):
            _write(folder / file, text)
    return Group({"": str(folder)}, frozenset(limited))


def _create_v1(name: str, wanted: dict[str, int]) -> Group:
    own = _own_v1()
    folders: dict[str, str] = {}
    limited: set[str] = set()
    for controller in _V1:
        base = MOUNT / controller
        if not base.is_dir():
            continue
        for parent in (base / own.get(controller, "").lstrip("/"), base):
            folder = parent / f"bastide-{name}"
            try:
                folder.mkdir()
            except OSError:
                continue
            folders[controller] = str(folder)
            break
        else:
            continue
        try:
            if controller == "memory":
                _write(folder / "memory.limit_in_bytes", str(wanted["memory"]))
                with contextlib.suppress(OSError):  # only where swap is accounted
                    _write(folder / "memory.memsw.limit_in_bytes", str(wanted["memory"]))
            elif controller == "pids":
                _write(folder / "pids.max", str(wanted["pids"]))
            elif controller == "cpu":
                _write(folder / "cpu.cfs_period_us", str(_PERIOD_US))
                _write(folder / "cpu.cfs_quota_us", str(wanted["cpu"]))
            limited.add(controller)
        except OSError:
            continue
    return Group(folders, frozenset(limited & wanted.keys()))


def _own_v1() -> dict[str, str]:
    """The caller's own group by controller, from lines ``4:memory:/path`` (cgroups(7))."""
    found = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            found[controller] = path
    return found


def _write(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _field(path: Path, name: str) -> int | None:
    try:
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    except (OSError, ValueError):
        pass
    return None
