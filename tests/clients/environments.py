"""The clients' environments: built from hashed locks, named by a digest, moved into place whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

_LOCKS = Path(__file__).parent
ROOT = Path(__file__).parents[2] / ".venvs"
"""Not below ``.venv``: a new virtual environment of Bastide's own leaves these as they are."""


LARGE = ("airflow",)
"""Built where a long form of the tests wants them alone."""
_FROM_SOURCE = {"stepfunctions": "stepfunctions"}
"""The one package of an environment that was never published as a wheel."""


def names() -> list[str]:
    """The environments that can be built."""
    return sorted(one.parent.name for one in _LOCKS.glob("*/requirements.lock"))


def _digest(name: str) -> str:
    seen = hashlib.sha256((_LOCKS / name / "requirements.lock").read_bytes())
    seen.update(f"{platform.python_implementation()} {platform.python_version()} {platform.machine()}".encode())
    return seen.hexdigest()[:16]


def build(name: str, progress: Callable[[str], None] = lambda _: None) -> Path:
    """The environment's interpreter; built unless it stands already. Several processes may ask at once.

    Raises RuntimeError with the installer's last lines when building fails.
    """
    place = ROOT / name / _digest(name)
    python = place / "bin" / "python"
    place.parent.mkdir(parents=True, exist_ok=True)
    with (place.parent / ".building").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if (place / ".built").exists():
            progress(f"{name}: already built")
            return python
        for stale in place.parent.iterdir():
            if stale.is_dir():
                shutil.rmtree(stale)
        progress(f"{name}: installing the locked packages ...")
        began = time.monotonic()
        # Built where it will stand, because scripts name their interpreter by its path; `.built` is the last step.
        _uv("venv", "--python", sys.executable, str(place))
        lock = (_LOCKS / name / "requirements.lock").read_text()
        source = _FROM_SOURCE.get(name, "")
        install = ("pip", "install", "--python", str(python), "--require-hashes", "-r")
        _uv(*install, _written(place, _only(lock, source, without=True)), "--no-deps", "--only-binary", ":all:")
        if source:  # with what is installed by now, and nothing that is fetched besides
            _uv(*install, _written(place, _only(lock, source)), "--no-deps", "--no-build-isolation")
        (place / ".built").touch()
        progress(f"{name}: built in {time.monotonic() - began:.0f} s")
    return python


def _only(lock: str, package: str, *, without: bool = False) -> str:
    """The lines of a lock that are about a package, or all the others."""
    kept, on = [], False
    for line in lock.splitlines():
        if line and not line[0].isspace():
            on = bool(package) and line.startswith(f"{package}==")
        if on is not without:
            kept.append(line)
    return "\n".join(kept) + "\n"


def _written(place: Path, text: str) -> str:
    target = place / "requirements.lock"
    target.write_text(text)
    return str(target)


def _uv(*words: str) -> None:
    environment = dict(os.environ)
    if "PIP_INDEX_URL" in environment:  # one setting for both installers
        environment.setdefault("UV_DEFAULT_INDEX", environment["PIP_INDEX_URL"])
    command = [str(Path(sys.executable).with_name("uv")), "--quiet", *words]
    done = subprocess.run(
        command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    if done.returncode:
        raise RuntimeError("\n".join([f"{' '.join(words[:2])} failed:", *done.stdout.splitlines()[-12:]]))
