"""The products that are measured: how each is installed, started and stopped. All live below ``.bench/``."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import ClassVar

from bastide.store.database import connect

from .processes import Tree

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / ".bench"
PEERS = Path(__file__).resolve().parent / "peers"
REGION = "us-east-1"


@dataclass(frozen=True)
class Endpoint:
    """Where a server answers and with which credentials. ``ca`` is a PEM file, empty for plain HTTP."""

    url: str
    access_key: str
    secret_key: str
    region: str = REGION
    ca: str = ""

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


class Server:
    """One product in one configuration.

    :cvar name: what ``--only`` calls it.
    :cvar label: what the tables call it.
    :cvar lacks: services that it does not have, with what the table says.
    :cvar runs_code: whether CreateTrainingJob runs anything.
    """

    name: str
    label: str
    lacks: ClassVar[dict[str, str]] = {}
    runs_code = False

    def __init__(self, home: Path) -> None:
        """:param home: an empty folder for this instance's data and log."""
        self.home = home
        self.process: subprocess.Popen[bytes] | None = None
        self.tree: Tree | None = None
        self.spawned = 0.0

    def install(self) -> None:
        """Brings the product onto this machine, if it is not there."""
        raise NotImplementedError

    def available(self) -> str:
        """Why it cannot run here, or an empty string."""
        return ""

    def version(self) -> str:
        """The version that runs."""
        raise NotImplementedError

    def prepare(self) -> Endpoint:
        """All that comes before the start (ports, data folder), and how the administrator will reach it."""
        raise NotImplementedError

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {}

    def secure(self, user: Endpoint) -> Endpoint | None:
        """The same caller at the TLS listener, or ``None`` where none is measured."""
        return None

    def spawn(self) -> None:
        """Starts it and returns at once; its output goes to ``home/log``."""
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "log").open("wb") as log:
            self.spawned = time.perf_counter()
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.home,
                env=_bare_environment(self.home) | self.environment(),
                start_new_session=True,
            )
        self.tree = Tree(self.process.pid)

    def pids(self) -> list[int]:
        """The processes whose CPU counts."""
        assert self.tree is not None
        return self.tree.pids()

    def cpu(self) -> float:
        """Seconds of CPU that all of its processes took so far."""
        assert self.tree is not None
        return self.tree.cpu()

    def said(self) -> str:
        """The end of its output."""
        return (self.home / "log").read_text(errors="replace")[-2000:]

    def stop(self) -> None:
        if self.process is not None and self.tree is not None:
            self.tree.end(self.process)
        self.process = None


def _bare_environment(home: Path) -> dict[str, str]:
    """An environment without the caller's AWS settings and proxies, with a temporary folder of its own."""
    kept = {key: value for key, value in os.environ.items() if key in {"PATH", "HOME", "LANG", "LC_ALL", "USER"}}
    temporary = home / "tmp"
    temporary.mkdir(exist_ok=True)
    return kept | {"TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"}


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def install(package: str) -> Path:
    """The environment of ``peers/<package>.lock``, made if it is not there; returns its folder of programs."""
    lock = PEERS / f"{package}.lock"
    target = BENCH / package
    stamp = target / "lock.sha256"
    programs = target / "bin"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        return programs
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    python = str(programs / "python")
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv:
        _run([uv, "venv", "--quiet", "--python", sys.executable, str(target)])
        _run([uv, "pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", str(lock)])
    else:
        _run([sys.executable, "-m", "venv", str(target)])
        _run([python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(lock)])
    stamp.write_text(digest)
    return programs


class Peer(Server):
    """A product from the package index, in a virtual environment of its own, pinned by ``peers/<package>.lock``."""

    package: str

    @property
    def _bin(self) -> Path:
        return BENCH / self.package / "bin"

    def install(self) -> None:
        install(self.package)

    def version(self) -> str:
        code = f"import importlib.metadata as m; print(m.version({self.package!r}))"
        return _run([str(self._bin / "python"), "-c", code]).strip()


class Moto(Peer):
    """``moto_server`` as it comes: everything in memory, no signature or policy checks, a thread a connection."""

    name = "moto"
    label = "moto_server"
    package = "moto"

    def prepare(self) -> Endpoint:
        self.port = free_port()
        return Endpoint(f"http://127.0.0.1:{self.port}", "AKIABENCHBENCHBENCH0", "bench")

    def command(self) -> list[str]:
        return [str(self._bin / "moto_server"), "-H", "127.0.0.1", "-p", str(self.port)]


class Ministack(Peer):
    """``ministack`` as it comes: everything in memory, no signature or policy checks."""

    name = "ministack"
    label = "ministack"
    package = "ministack"
    lacks: ClassVar[dict[str, str]] = {"sagemaker": "no SageMaker"}
    checks = False

    def prepare(self) -> Endpoint:
        self.port = free_port()
        # "test" is its root: checks or not, it is asked neither for a signature nor for a policy
        return Endpoint(f"http://127.0.0.1:{self.port}", "test", "test")

    def command(self) -> list[str]:
        return [str(self._bin / "ministack")]

    def environment(self) -> dict[str, str]:
        return {
            "GATEWAY_PORT": str(self.port),
            "BIND_HOST": "127.0.0.1",
            "AUTH": "true" if self.checks else "false",
            "STATE_DIR": str(self.home / "state"),
            "S3_DATA_DIR": str(self.home / "s3"),
        }


class MinistackChecked(Ministack):
    """``ministack`` with ``AUTH=true``: signatures and IAM policies are checked for all callers but its root."""

    name = "ministack-auth"
    label = "ministack, checks on"
    checks = True


class Bare(Server):
    """No product: uvicorn with uvloop and httptools that writes and syncs, or reads, the same bytes (``bare.py``)."""

    name = "bare"
    label = "bare ASGI server"
    lacks: ClassVar[dict[str, str]] = {"s3": "no S3", "kms": "no KMS"}

    def install(self) -> None:
        """Nothing: it runs in the environment of the tests."""

    def version(self) -> str:
        return f"uvicorn {metadata.version('uvicorn')}"

    def prepare(self) -> Endpoint:
        self.port = free_port()
        return Endpoint(f"http://127.0.0.1:{self.port}", "bare", "bare")

    def command(self) -> list[str]:
        return [sys.executable, str(Path(__file__).with_name("bare.py")), str(self.port), str(self.home / "files")]


class Bastide(Server):
    """This platform: every call signed, decided, recorded and durable. There is no way to measure it without."""

    name = "bastide"
    label = "Bastide"
    runs_code = True

    @property
    def _program(self) -> str:
        return str(ROOT / ".venv" / "bin" / "bastide")

    def install(self) -> None:
        """Nothing: ``make setup`` has done it."""

    def available(self) -> str:
        done = subprocess.run([self._program, "up", "--help"], capture_output=True, text=True, check=False)
        return (
            "" if done.returncode == 0 else f"`bastide up --help` failed: {(done.stderr or done.stdout).strip()[-300:]}"
        )

    def version(self) -> str:
        code = "import importlib.metadata as m; print(m.version('bastide'))"
        return _run([str(ROOT / ".venv" / "bin" / "python"), "-c", code]).strip()

    @property
    def data(self) -> Path:
        """Its data folder."""
        return self.home / "data"

    def prepare(self) -> Endpoint:
        self.home.mkdir(parents=True, exist_ok=True)
        if not self.data.exists():
            _run([self._program, "init", "--data", str(self.data)])
        self.port, self.secure_port = free_port(), free_port()
        said = json.loads(_run([self._program, "credentials", "--data", str(self.data), "--format", "json"]))
        self._bundle = said.get("CaBundle") or ""
        region = said.get("Region") or REGION
        return Endpoint(f"http://127.0.0.1:{self.port}", said["AccessKeyId"], said["SecretAccessKey"], region)

    def command(self) -> list[str]:
        listen = ["--listen", f"127.0.0.1:{self.secure_port}", "--http", f"127.0.0.1:{self.port}"]
        return [self._program, "up", "--data", str(self.data), *listen]

    def secure(self, user: Endpoint) -> Endpoint:
        if self._bundle.startswith("-----BEGIN"):
            bundle = self.home / "ca.pem"
            bundle.write_text(self._bundle)
            self._bundle = str(bundle)
        return replace(user, url=f"https://127.0.0.1:{self.secure_port}", ca=self._bundle)

    def copy_jobs(self, size: int) -> None:
        """Copies the row of a job that ran under other names until the account has `size` of them.

        Done beside the running platform, which sees the rows after its next commit: the audit of the next call.
        """
        kind = "sagemaker:TrainingJob"
        with contextlib.closing(connect(self.data / "bastide.db")) as db, db:
            found = db.execute(
                "SELECT account, region, generation, created, modified, status, tags, doc FROM resource "
                "WHERE kind=? AND status='Completed' ORDER BY created DESC LIMIT 1",
                (kind,),
            ).fetchone()
            if found is None:
                raise RuntimeError("no training job has completed; there is nothing to copy")
            account, region, generation, created, modified, *rest = found
            stored = db.execute(
                "SELECT count(*) FROM resource WHERE kind=? AND account=? AND region=?", (kind, account, region)
            ).fetchone()[0]
            db.executemany(
                "INSERT INTO resource (kind, account, region, name, generation, created, modified, status, tags, doc) "
                "VALUES (?,?,?,?,?,?,?,?,?,?)",
                [
                    (kind, account, region, f"copied-{n:05d}", generation, created + n, modified + n, *rest)
                    for n in range(stored, size)
                ],
            )
        db.close()
        time.sleep(0.5)

    def copy_objects(self, bucket: str, keys: list[str]) -> None:
        """Copies the row of the first object of `bucket` under other keys, beside the running platform: for lists, which
        read nothing but rows."""
        db = connect(self.data / "bastide.db")
        with db:
            columns = "account, region, generation, created, modified, status, tags, doc"
            found = db.execute(
                f"SELECT {columns} FROM resource WHERE kind='s3:Object' AND name LIKE ? LIMIT 1", (f"{bucket}/%",)
            ).fetchone()
            if found is None:
                raise RuntimeError("no object to copy")
            db.executemany(
                f"INSERT INTO resource (kind, name, {columns}) VALUES ('s3:Object',?,?,?,?,?,?,?,?,?)",
                [(f"{bucket}/{key}", *found) for key in keys],
            )
        db.close()
        time.sleep(0.5)

    def model_server_socket(self, answers: Callable[[Path], bool]) -> Path | None:
        """The unix socket of a running model server below the data folder: the first that ``answers``."""
        for folder, _, names in os.walk(self.home):
            for name in names:
                path = Path(folder) / name
                if path.is_socket() and answers(path):
                    return path
        return None


PRODUCTS: list[type[Server]] = [Bastide, Ministack, MinistackChecked, Moto]


def _run(command: list[str]) -> str:
    """Runs a command to its end; its standard output, or an error that shows what it said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"`{' '.join(command[:3])} ...` ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout
