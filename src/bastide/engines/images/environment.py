"""Environments: built from a hashed lock, named by a digest, moved into place whole or not at all."""

from __future__ import annotations

import contextlib
import ensurepip
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from bastide.domain import Refused

# Where an environment and its toolkit stand inside a sandbox. Scripts in the environment's bin name the interpreter
# by this path, so an environment is used in a sandbox and nowhere else.
INSIDE: Final = "/opt/environment"
TOOLKIT_INSIDE: Final = "/opt/bastide"

_SOURCES: Final = Path(__file__).parent / "environments"
_TOOLKIT: Final = _SOURCES / "toolkit"
_SYSTEM: Final = (Path("/usr"),)  # every sandbox sees it already
_NEEDS_JAVA: Final = frozenset({"spark"})
# What is published as source only: its archive, pinned by its hash, is built with the environment's own setuptools.
_FROM_SOURCE: Final = {"spark": ("pyspark",)}


@dataclass(frozen=True)
class Environment:
    """What a sandbox needs to run an image.

    name: the environment's name. digest: ``sha256:<64 hex>``, the identity that is recorded as the image's digest.
    readonly: (source on this machine, path inside) pairs to bind read only. path: the PATH inside. python: the
    interpreter inside. variables: environment variables that the image sets. train, serve, process: the commands of the
    contracts; an empty one says that the image has none. algorithm: the built-in algorithm that the image is, if it is
    one, and metrics the names and patterns that its jobs are watched for. scripts: whether it runs scripts of one's own.
    """

    name: str
    digest: str
    readonly: tuple[tuple[Path, str], ...]
    path: str = f"{INSIDE}/bin:{TOOLKIT_INSIDE}/bin:/usr/local/bin:/usr/bin:/bin"
    python: str = f"{INSIDE}/bin/python3"
    variables: Mapping[str, str] = field(default_factory=dict)
    train: tuple[str, ...] = ("train",)
    serve: tuple[str, ...] = ("serve",)
    process: tuple[str, ...] = ()
    algorithm: str = ""
    metrics: tuple[tuple[str, str], ...] = ()
    scripts: bool = True


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


def packages(name: str) -> dict[str, str]:
    """The packages of an environment and their versions, as its lock pins them. Raises ValueError for an unknown name."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", _lock(name).read_text(), re.MULTILINE)
    return dict(found)


def _hash(parts: list[tuple[str, bytes]]) -> str:
    seen = hashlib.sha256()
    for label, content in parts:
        seen.update(f"{label}\0{len(content)}\0".encode() + content)
    return seen.hexdigest()


def _tools() -> list[Path]:
    return sorted(p for p in _TOOLKIT.rglob("*.py") if p.is_file())


@cache
def _toolkit() -> str:
    return _hash([(f"toolkit/{p.relative_to(_TOOLKIT)}", p.read_bytes()) for p in _tools()])


@cache
def _base(name: str) -> str:
    """Names what is installed: the lock, which holds the hash of every wheel, the interpreter's version, the machine."""
    return _hash(
        [
            ("requirements.lock", _lock(name).read_bytes()),
            ("python", f"{platform.python_implementation()} {platform.python_version()}".encode()),
            ("machine", platform.machine().encode()),
        ]
    )


@cache
def digest_of(name: str) -> str:
    """The digest that an environment built from this installation has, ``sha256:<64 hex>``.

    It covers the lock (which holds the hash of every wheel), our toolkit, and the interpreter's version and machine.
    Raises ValueError when there is no such environment.
    """
    return f"sha256:{_hash([('environment', _base(name).encode()), ('toolkit', _toolkit().encode())])}"


def place_of(name: str, root: Path | None = None) -> Path:
    """The folder where an environment stands once it is built. Raises ValueError for an unknown name."""
    return (root or default_root()) / name / _base(name)


def is_built(name: str, root: Path | None = None) -> bool:
    """Whether the environment stands on this machine as this installation wants it."""
    place = place_of(name, root)
    return (place / "environment.json").exists() and (place / f"toolkit-{_toolkit()}").exists()


def located(name: str, root: Path | None = None) -> Environment:
    """The environment as it stands on this machine.

    Raises Refused ValidationException (400) when it has not been built.
    """
    place = place_of(name, root)
    try:
        told = json.loads((place / "environment.json").read_bytes())
        built = (place / f"toolkit-{_toolkit()}").exists()
    except FileNotFoundError:
        built = False
    if not built:
        raise Refused(
            "ValidationException",
            f"The environment {name!r} of this image is not built on this machine. "
            f"Whoever runs Bastide builds it with: bastide environments build {name}",
        )
    readonly = [(place / "environment", INSIDE), (place / f"toolkit-{_toolkit()}", TOOLKIT_INSIDE)]
    base = Path(told["base_prefix"])
    if not any(base.is_relative_to(seen) for seen in _SYSTEM):
        readonly.append((base, str(base)))
    readonly += [(Path(one), one) for one in told.get("readonly", ())]
    return Environment(name, digest_of(name), tuple(readonly), variables=dict(told["variables"]))


def build(name: str, root: Path | None = None, progress: Callable[[str], None] = lambda _: None) -> Environment:
    """Build an environment unless it stands already; safe to call from several processes at once.

    progress is told what happens, a line at a time. Older builds of the same environment stay, because running jobs
    may use them. Raises ValueError for an unknown name and RuntimeError with the installer's last lines when building
    fails; nothing half-built is left under the name.
    """
    place = place_of(name, root)
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    with _only_one(place.parent / ".building"):
        if is_built(name, root):
            progress(f"{name}: already built, {digest_of(name)}")
            return located(name, root)
        for stale in place.parent.glob(".new-*"):
            shutil.rmtree(stale)
        fresh = place.parent / f".new-{os.getpid()}"
        before = os.umask(0o022)  # a job's user reads this, whatever the installer's umask is
        try:
            if not (place / "environment.json").exists():
                fresh.mkdir(mode=0o755)
                _fill(name, fresh, progress)
                fresh.rename(place)
            tools = place / f"toolkit-{_toolkit()}"
            if not tools.exists():
                progress(f"{name}: adding the toolkit")
                _add_toolkit(fresh)
                fresh.rename(tools)
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
    # What Python brings along, pip among it, is installed by uv where there is one: pip needs seconds for itself.
    brought = sorted((Path(ensurepip.__file__).parent / "_bundled").glob("*.whl")) if _uv() is not None else []
    venv.EnvBuilder(symlinks=True, with_pip=not brought).create(environment)
    if brought:
        _fast(name, environment, "--no-index", *map(str, brought))
    progress(f"{name}: installing the locked packages")
    source = _FROM_SOURCE.get(name, ())
    wheels, built = _parted(_lock(name).read_text(), source)
    _install(name, environment, wheels, "--only-binary", ":all:")
    if built:
        _install(name, environment, built, "--no-build-isolation")
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
    told = {"base_prefix": str(Path(sys.base_prefix).resolve()), "variables": {"PYTHONUNBUFFERED": "1"}, **_java(name)}
    (fresh / "environment.json").write_text(json.dumps(told, indent=2) + "\n")


def _parted(lock: str, source: Sequence[str]) -> tuple[str, str]:
    """The lock's packages that come as wheels, and those named in source."""
    entries = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)
    apart = [one for one in entries if one.partition("==")[0] in source]
    return "".join(one for one in entries if one not in apart), "".join(apart)


def _install(name: str, environment: Path, lock: str, *how: str) -> None:
    """Raises RuntimeError with the installer's last lines. Wheels are installed by uv where there is one: it is faster."""
    what = ("--require-hashes", *how, "-r", "/dev/stdin")
    if "--only-binary" in how and _uv() is not None:
        _fast(name, environment, *what, lock=lock)
    else:
        python = str(environment / "bin" / "python")
        _run(name, [python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", *_ALONE, *what], lock)


def _uv() -> Path | None:
    fast = Path(sys.executable).with_name("uv")
    return fast if fast.exists() else None


_ALONE: Final = ("--quiet", "--no-deps")


def _fast(name: str, environment: Path, *what: str, lock: str = "") -> None:
    python = str(environment / "bin" / "python")
    how = ("--python", python, "--link-mode", "copy", "--compile-bytecode")
    _run(name, [str(_uv()), "pip", "install", *how, *_ALONE, *what], lock)


def _run(name: str, command: Sequence[str], lock: str) -> None:
    surroundings = dict(os.environ)
    if "PIP_INDEX_URL" in surroundings:  # one setting for both installers
        surroundings.setdefault("UV_DEFAULT_INDEX", surroundings["PIP_INDEX_URL"])
    done = subprocess.run(
        command, check=False, input=lock, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=surroundings
    )
    if done.returncode:
        raise RuntimeError(f"installing {name} failed:\n" + "\n".join(done.stdout.splitlines()[-12:]))


def _add_toolkit(fresh: Path) -> None:
    """Programs lie in bin, what they import in library, as in the sources."""
    for source in _tools():
        below = source.relative_to(_TOOLKIT)
        program = below.parent == Path()
        target = fresh / (Path("bin") / below.stem.replace("_", "-") if program else below)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((f"#!{INSIDE}/bin/python3\n".encode() if program else b"") + source.read_bytes())
        target.chmod(0o755 if program else 0o644)


def _java(name: str) -> dict[str, Any]:
    """Debian's Java for environments that need one: /usr is in every sandbox, its settings in /etc are not."""
    if name not in _NEEDS_JAVA:
        return {}
    program = shutil.which("java", path="/usr/bin")
    if program is None:
        raise RuntimeError(f"{name} needs Java: apt-get install default-jre-headless")
    home = Path(program).resolve().parent.parent
    settings = sorted({one for one in Path("/etc").glob("java-*-openjdk") if one.is_dir()})
    variables = {"PYTHONUNBUFFERED": "1", "JAVA_HOME": str(home)}
    return {"variables": variables, "readonly": [str(one) for one in settings]}


def _point_inside(script: Path, environment: Path) -> None:
    """Let a script in bin start the interpreter by its path inside the sandbox."""
    if script.is_symlink() or not script.is_file():
        return
    content = script.read_bytes()
    here = os.fsencode(environment)
    if here in content and b"\0" not in content:
        script.write_bytes(content.replace(here, INSIDE.encode()))
