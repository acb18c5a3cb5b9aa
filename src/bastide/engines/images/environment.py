"""Environments: built from a hashed lock, named by a digest, moved into place whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

from bastide.domain import Refused

# Where an environment and its toolkit stand inside a sandbox. Scripts in the environment's bin name the interpreter
# by this path, so an environment is used in a sandbox and nowhere else.
INSIDE: Final = "/opt/environment"
TOOLKIT_INSIDE: Final = "/opt/bastide"

_SOURCES: Final = Path(__file__).parent / "environments"
_TOOLKIT: Final = _SOURCES / "toolkit"
_SYSTEM: Final = (Path("/usr"),)  # every sandbox sees it already


@dataclass(frozen=True)
class Environment:
    """What a sandbox needs to run an image.

    name: the environment's name. digest: ``sha256:<64 hex>``, the identity that is recorded as the image's digest.
    readonly: (source on this machine, path inside) pairs to bind read only. path: the PATH inside. python: the
    interpreter inside. variables: environment variables that the image sets. train, serve: the commands of the
    training and hosting contracts.
    """

    name: str
    digest: str
    readonly: tuple[tuple[Path, str], ...]
    path: str = f"{INSIDE}/bin:{TOOLKIT_INSIDE}/bin:/usr/local/bin:/usr/bin:/bin"
    python: str = f"{INSIDE}/bin/python3"
    variables: Mapping[str, str] = field(default_factory=dict)
    train: tuple[str, ...] = ("train",)
    serve: tuple[str, ...] = ("serve",)


def default_root() -> Path:
    """Where environments stand unless somebody says otherwise: ``<sys.prefix>/share/bastide/environments``."""
    return Path(sys.prefix) / "share" / "bastide" / "environments"


def names() -> list[str]:
    """The environments that can be built."""
    return sorted(p.parent.name for p in _SOURCES.glob("*/requirements.lock"))


def _lock(name: str) -> Path:
    path = _SOURCES / name / "requirements.lock"
    if not re.fullmatch(r"[a-z0-9-]+", name) or not path.is_file():
        raise ValueError(f"no environment {name!r}; there are: {', '.join(names())}")
    return path


@cache
def digest_of(name: str) -> str:
    """The digest that an environment built from this installation has, ``sha256:<64 hex>``.

    It covers the lock (which holds the hash of every wheel), our toolkit, and the interpreter's version and machine.
    Raises ValueError when there is no such environment.
    """
    seen = hashlib.sha256()
    parts = [("requirements.lock", _lock(name).read_bytes())]
    parts += [(f"toolkit/{p.name}", p.read_bytes()) for p in sorted(_TOOLKIT.glob("*.py"))]
    parts.append(("python", f"{platform.python_implementation()} {platform.python_version()}".encode()))
    parts.append(("machine", platform.machine().encode()))
    for label, content in parts:
        seen.update(f"{label}\0{len(content)}\0".encode() + content)
    return f"sha256:{seen.hexdigest()}"


def _place(name: str, root: Path | None) -> Path:
    return (root or default_root()) / name / digest_of(name).removeprefix("sha256:")


def located(name: str, root: Path | None = None) -> Environment:
    """The environment as it stands on this machine.

    Raises Refused InternalFailure (500) when it has not been built.
    """
    place = _place(name, root)
    try:
        told = json.loads((place / "environment.json").read_bytes())
    except FileNotFoundError:
        raise Refused(
            "InternalFailure",
            f"The environment {name!r} is not built on this machine: run python -m bastide.engines.images build {name}",
            500,
        ) from None
    readonly = [(place / "environment", INSIDE), (place / "toolkit", TOOLKIT_INSIDE)]
    base = Path(told["base_prefix"])
    if not any(base.is_relative_to(seen) for seen in _SYSTEM):
        readonly.append((base, str(base)))
    return Environment(name, digest_of(name), tuple(readonly), variables=dict(told["variables"]))


def build(name: str, root: Path | None = None, progress: Callable[[str], None] = lambda _: None) -> Environment:
    """Build an environment unless it stands already; safe to call from several processes at once.

    progress is told what happens, a line at a time. Older builds of the same environment stay, because running jobs
    may use them. Raises ValueError for an unknown name and RuntimeError with the installer's last lines when building
    fails; nothing half-built is left under the name.
    """
    place = _place(name, root)
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    with _only_one(place.parent / ".building"):
        if (place / "environment.json").exists():
            progress(f"{name}: already built, {digest_of(name)}")
            return located(name, root)
        for stale in place.parent.glob(".new-*"):
            shutil.rmtree(stale)
        fresh = place.parent / f".new-{os.getpid()}"
        before = os.umask(0o022)  # a job's user reads this, whatever the installer's umask is
        try:
            fresh.mkdir(mode=0o755)
            _fill(name, fresh, progress)
            fresh.rename(place)
        finally:
            os.umask(before)
            shutil.rmtree(fresh, ignore_errors=True)
    progress(f"{name}: built, {digest_of(name)}")
    return located(name, root)


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    with path.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _fill(name: str, fresh: Path, progress: Callable[[str], None]) -> None:
    progress(f"{name}: making a Python {platform.python_version()} environment")
    environment = fresh / "environment"
    venv.EnvBuilder(symlinks=True, with_pip=True).create(environment)
    progress(f"{name}: installing the locked packages")
    command = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-input", "--no-deps"]
    command += ["--disable-pip-version-check", "--require-hashes", "--only-binary", ":all:", "-r", str(_lock(name))]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"installing {name} failed:\n" + "\n".join(done.stdout.splitlines()[-12:]))
    base = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    for script in (environment / "bin").iterdir():
        if script.is_symlink() and script.readlink().is_absolute():
            script.unlink()
            script.symlink_to(base)
        else:
            _point_inside(script, environment)
    (environment / "pyvenv.cfg").write_text(
        f"home = {Path(sys.base_prefix).resolve() / 'bin'}\n"
        "include-system-site-packages = false\n"
        f"version = {platform.python_version()}\n"
    )
    progress(f"{name}: adding the toolkit")
    tools = fresh / "toolkit" / "bin"
    tools.mkdir(parents=True)
    for source in sorted(_TOOLKIT.glob("*.py")):
        target = tools / source.stem
        target.write_bytes(f"#!{INSIDE}/bin/python3\n".encode() + source.read_bytes())
        target.chmod(0o755)
    told = {"base_prefix": str(Path(sys.base_prefix).resolve()), "variables": {"PYTHONUNBUFFERED": "1"}}
    (fresh / "environment.json").write_text(json.dumps(told, indent=2) + "\n")


def _point_inside(script: Path, environment: Path) -> None:
    """Let a script in bin start the interpreter by its path inside the sandbox."""
    if script.is_symlink() or not script.is_file():
        return
    content = script.read_bytes()
    here = os.fsencode(environment)
    if here in content and b"\0" not in content:
        script.write_bytes(content.replace(here, INSIDE.encode()))
