"""What a platform is told once, at `bastide init`, and where its files lie."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

REGIONS = ("us-east-1", "us-east-2", "us-west-2", "eu-central-1", "eu-west-1", "ap-southeast-2")


@dataclass(frozen=True, slots=True)
class Configuration:
    """account: the management account's id. regions: those that exist, the default first. objects: the URL of the store
    where objects lie; empty if they lie with the other files. metrics_bytes, metrics_days: room for measured values, and
    after how many days they go at the latest. quotas: instances that an account's jobs may have at a time, by type (see
    ``engines.placement``). cluster: HOST:PORT of a Ray cluster whose nodes run jobs; empty without one."""

    account: str
    regions: tuple[str, ...] = REGIONS
    hosts: tuple[str, ...] = ("localhost",)
    version: int = 1
    objects: str = ""
    metrics_bytes: int = 2 << 30
    metrics_days: int = 455
    quotas: Mapping[str, int] = field(default_factory=dict)
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """The files of one platform; every one readable by its owner alone."""

    root: Path

    @property
    def configuration(self) -> Path:
        """What `init` was told."""
        return self.root / "bastide.json"

    @property
    def database(self) -> Path:
        """SQLite's file."""
        return self.root / "bastide.db"

    @property
    def journal(self) -> Path:
        """Audit entries of reads on their way into the database."""
        return self.root / "journal"

    @property
    def metrics(self) -> Path:
        """Measured values, SQLite's file."""
        return self.root / "metrics.db"

    @property
    def objects(self) -> Path:
        """Encrypted bytes of objects."""
        return self.root / "objects"

    @property
    def captured(self) -> Path:
        """Captured data of endpoints on its way to S3, sealed."""
        return self.root / "captured"

    @property
    def packages(self) -> Path:
        """The mirror of public packages that the operator loaded."""
        return self.root / "packages"

    @property
    def advisories(self) -> Path:
        """Known vulnerabilities that the operator loaded, SQLite's file."""
        return self.root / "advisories.db"

    @property
    def tracking(self) -> Path:
        """Encrypted volumes of MLflow tracking servers."""
        return self.root / "tracking"

    @property
    def notebooks(self) -> Path:
        """Encrypted volumes of notebook instances."""
        return self.root / "notebooks"

    @property
    def run(self) -> Path:
        """Mounts and sockets of running sandboxes; empty when nothing runs."""
        return self.root / "run"

    @property
    def cluster_key(self) -> Path:
        """The secret that the platform and the nodes of its cluster share; each node gets a copy."""
        return self.root / "cluster.key"

    def cluster_secret(self) -> bytes:
        """32 bytes, made at the first use. Raises ValueError for a file that does not hold them."""
        if not self.cluster_key.exists():
            write_private(self.cluster_key, os.urandom(32).hex().encode() + b"\n")
        return secret_in(self.cluster_key)

    @property
    def attaching(self) -> Path:
        """The socket over which something is attached to a network interface."""
        return self.root / "run" / "attach.sock"

    @property
    def links(self) -> Path:
        """What the operator says stands behind links to elsewhere; there need be none."""
        return self.root / "links.json"

    @property
    def root_key(self) -> Path:
        """The key that wraps all others."""
        return self.root / "root.key"

    @property
    def safe(self) -> Path:
        """The shards that customers' keys need beside the root key; in no backup."""
        return self.root / "safe"

    @property
    def authority(self) -> Path:
        """The certificate clients trust."""
        return self.root / "tls" / "ca.pem"

    @property
    def tls(self) -> Path:
        """Certificates and their keys."""
        return self.root / "tls"

    @property
    def administrator(self) -> Path:
        """Credentials of the first administrator."""
        return self.root / "administrator.json"

    @property
    def endpoint(self) -> Path:
        """Where the running platform listens."""
        return self.root / "endpoint.json"

    @property
    def identity_provider(self) -> Path:
        """The identity provider that people sign in at."""
        return self.root / "identity-provider.json"

    @property
    def development_people(self) -> Path:
        """The people of the development identity provider."""
        return self.root / "development-people.json"

    @property
    def development_key(self) -> Path:
        """What the development identity provider signs with, sealed."""
        return self.root / "development-identity-provider.key"

    def load(self) -> Configuration:
        """What `init` wrote; raises FileNotFoundError if it never ran here."""
        told = json.loads(self.configuration.read_text())
        names = ("objects", "metrics_bytes", "metrics_days", "quotas", "cluster")
        more = {name: told[name] for name in names if name in told}
        return Configuration(told["account"], tuple(told["regions"]), tuple(told["hosts"]), told["version"], **more)

    def save(self, configuration: Configuration) -> None:
        """Keeps it."""
        write_private(self.configuration, json.dumps(asdict(configuration), indent=2).encode())

    def lock(self) -> int:
        """Holds the directory for this process; raises RuntimeError if another one runs on it."""
        held = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
            raise RuntimeError(f"another bastide already runs on {self.root}") from None
        return held


def secret_in(path: Path) -> bytes:
    """32 bytes that a file holds in hexadecimal, which its owner alone may read; raises OSError and ValueError."""
    text = path.read_text().strip()
    if path.stat().st_mode & 0o077 or not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError(f"{path} has to hold 64 hexadecimal digits and to be readable by its owner alone (chmod 600)")
    return bytes.fromhex(text)


def write_private(path: Path, content: bytes) -> None:
    """Writes a file of mode 0600, whole or not at all, on the disk when this returns."""
    draft = path.with_name(f".{path.name}.new")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Names in a folder are on the disk when this returns."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def legal_account(text: str) -> bool:
    """Twelve digits."""
    return re.fullmatch(r"\d{12}", text) is not None
