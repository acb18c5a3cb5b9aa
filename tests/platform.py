"""A platform started by its own commands, and boto3 clients for it."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import botocore.config

from bastide.protocol import MODELS
from tests import kept

HOME = "111122223333"
REGION = "us-east-1"
SESSION = boto3.session.Session()
"""One for all: it keeps the service models it has read."""
SESSION._session.get_component("data_loader").search_paths.append(str(MODELS))
kept.keep()
KEPT_CLIENTS = 48
"""As many clients of a platform are at hand as a test may ask for again and again."""
PROGRAM = [sys.executable, "-m", "bastide"]


@dataclass(frozen=True)
class Keys:
    """What signs."""

    access_key: str
    secret: str
    token: str | None = None


def initialise(data: Path, program: list[str] = PROGRAM) -> None:
    """A data directory as `bastide init` leaves it; a copy of one that is made once a process."""
    if program == PROGRAM and not data.exists():
        shutil.copytree(_initialised(), data)
    else:
        subprocess.run([*program, "init", "--data", str(data), "--account-id", HOME], check=True, capture_output=True)


_MADE: list[tempfile.TemporaryDirectory[str]] = []


@atexit.register
def forget() -> None:
    """Removes what this process copies. A process of xdist's ends without what atexit knows: there pytest's end does it."""
    while _MADE:
        _MADE.pop().cleanup()
    _initialised.cache_clear()


@cache
def _initialised() -> Path:
    _MADE.append(tempfile.TemporaryDirectory(prefix="bastide-initialised-"))
    data = Path(_MADE[-1].name) / "data"
    subprocess.run([*PROGRAM, "init", "--data", str(data), "--account-id", HOME], check=True, capture_output=True)
    return data


@dataclass
class Running:
    """`bastide init` and `bastide up` on a data directory of their own."""

    data: Path
    url: str = ""
    http: str = ""
    process: subprocess.Popen[str] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    program: list[str] = field(default_factory=lambda: PROGRAM)
    _clients: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def start(self, **environment: str) -> None:
        """Initialises if needed, starts, and waits for the line `ready`."""
        if not (self.data / "bastide.json").exists():
            initialise(self.data, self.program)
        self.launch(**environment)

    def launch(self, **environment: str) -> None:
        """Starts on an existing data directory."""
        self.log = (self.data.parent / "up.log").open("a")
        self.process = subprocess.Popen(
            [
                *self.program,
                "up",
                "--data",
                str(self.data),
                "--listen",
                "127.0.0.1:0",
                "--http",
                "127.0.0.1:0",
                "--deliver-to",
                "127.0.0.0/8",
                *self.arguments,
            ],
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**os.environ, **self.environment, **environment},
            start_new_session=True,
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("ready "):
                _, self.url, self.http = line.split()
                return
        raise RuntimeError(f"the platform did not start:\n{(self.data.parent / 'up.log').read_text()[-4000:]}")

    def stop(self) -> None:
        """SIGTERM, and waits."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.kill()
        self._closed()

    def kill(self) -> None:
        """SIGKILL, at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self._closed()

    def _closed(self) -> None:
        if self.process is not None and self.process.stdout is not None:
            self.process.stdout.close()
            self.log.close()
        self.process = None
        self._clients.clear()

    def processor_seconds(self) -> float:
        """What its process has used, which does not grow with what else the machine has to do."""
        assert self.process is not None
        told = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def authority(self) -> str:
        return str(self.data / "tls" / "ca.pem")

    @property
    def administrator(self) -> Keys:
        told = json.loads((self.data / "administrator.json").read_text())
        return Keys(told["AccessKeyId"], told["SecretAccessKey"])

    def client(
        self,
        service: str,
        keys: Keys | None = None,
        *,
        plain: bool = False,
        region: str = REGION,
        fresh: bool = False,
        **config: Any,
    ) -> Any:
        """A boto3 client; the administrator's without keys. The same one for the same words, unless it is to be `fresh`:
        for who adds handlers to it."""
        held = keys or self.administrator
        words = (service, held, plain, region, repr(sorted(config.items())), self.http if plain else self.url)
        made = None if fresh else self._clients.pop(words, None)
        if made is None:
            made = self._client(service, held, plain, region, config)
        if not fresh:
            self._clients[words] = made
            while len(self._clients) > KEPT_CLIENTS:
                del self._clients[next(iter(self._clients))]
        return made

    def _client(self, service: str, held: Keys, plain: bool, region: str, config: dict[str, Any]) -> Any:
        settings: dict[str, Any] = {
            "retries": {"max_attempts": 1, "mode": "standard"},
            "read_timeout": 90,
            "inject_host_prefix": False,  # of operations that AWS has a host of its own for
            **config,
        }
        return SESSION.client(
            service,
            region_name=region,
            endpoint_url=self.http if plain else self.url,
            verify=False if plain else self.authority,
            aws_access_key_id=held.access_key,
            aws_secret_access_key=held.secret,
            aws_session_token=held.token,
            config=botocore.config.Config(**settings),
        )

    def found(self) -> None:
        """Makes the organisation, with SCPs enabled."""
        organizations = self.client("organizations")
        organizations.create_organization(FeatureSet="ALL")
        root = organizations.list_roots()["Roots"][0]
        if not any(one["Type"] == "SERVICE_CONTROL_POLICY" for one in root["PolicyTypes"]):
            organizations.enable_policy_type(RootId=root["Id"], PolicyType="SERVICE_CONTROL_POLICY")

    def account(self, name: str = "") -> Account:
        """A new account of the organisation."""
        name = name or f"test-{uuid.uuid4().hex[:8]}"
        organizations = self.client("organizations")
        asked = organizations.create_account(AccountName=name, Email=f"{name}@example.com")["CreateAccountStatus"]
        while asked["State"] == "IN_PROGRESS":
            time.sleep(0.02)
            asked = organizations.describe_create_account_status(CreateAccountRequestId=asked["Id"])[
                "CreateAccountStatus"
            ]
        assert asked["State"] == "SUCCEEDED", asked
        return Account(self, asked["AccountId"], name)

    def assume(self, arn: str, keys: Keys | None = None, session: str = "test", **given: Any) -> Keys:
        """A role session."""
        answer = self.client("sts", keys).assume_role(RoleArn=arn, RoleSessionName=session, **given)["Credentials"]
        return Keys(answer["AccessKeyId"], answer["SecretAccessKey"], answer["SessionToken"])


@dataclass
class Account:
    """One account, and its administrator's clients."""

    platform: Running
    id: str
    name: str
    _keys: Keys | None = None

    @property
    def keys(self) -> Keys:
        if self._keys is None:
            self._keys = self.platform.assume(f"arn:aws:iam::{self.id}:role/OrganizationAccountAccessRole")
        return self._keys

    def client(self, service: str, keys: Keys | None = None, **more: Any) -> Any:
        return self.platform.client(service, keys or self.keys, **more)

    def role(self, name: str, policy: dict[str, Any] | None = None, *, trust: Any = None, **more: Any) -> str:
        """A role with one inline policy, trusting the account itself unless told otherwise; its ARN."""
        iam = self.client("iam")
        principal = trust or {"AWS": f"arn:aws:iam::{self.id}:root"}
        document = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Principal": principal, "Action": ["sts:AssumeRole", "sts:TagSession"]}],
        }
        arn: str = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(document), **more)["Role"]["Arn"]
        if policy is not None:
            iam.put_role_policy(RoleName=name, PolicyName="inline", PolicyDocument=json.dumps(policy))
        return arn

    def as_role(self, name: str, session: str = "test") -> Keys:
        """A session of one of its roles, taken on by its administrator."""
        return self.platform.assume(f"arn:aws:iam::{self.id}:role/{name}", self.keys, session)


def below(top: Path) -> Iterator[Path]:
    """Whatever lies below a folder that others change meanwhile: os.walk passes over what goes, Path.rglob raises."""
    return (Path(at) / name for at, folders, files in os.walk(top) for name in folders + files)


def on_disk(data: Path) -> list[Path]:
    """Every file of a data directory as it lies there: not what the encrypted volumes show while they are open."""
    found: list[Path] = []
    for at, folders, files in os.walk(data):
        folders[:] = [one for one in folders if one != "clear"]
        found += [Path(at) / name for name in files]
    return [one for one in found if one.is_file()]


def lies_in(path: Path, *needles: bytes) -> bool:
    """Whether one of these stands in a file, which may be larger than memory and mostly holes; what is gone holds none."""
    reach = max(map(len, needles)) - 1
    try:
        handle, at, kept = os.open(path, os.O_RDONLY), 0, b""
    except FileNotFoundError:
        return False
    try:
        while True:
            try:
                begins = os.lseek(handle, at, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing but a hole is left
                return False
            piece = os.pread(handle, 1 << 22, begins)
            if not piece:
                return False
            kept = (kept if begins == at else b"") + piece
            if any(one in kept for one in needles):
                return True
            at, kept = begins + len(piece), kept[-reach:] if reach else b""
    finally:
        os.close(handle)


def allow(*actions: str, resource: str | list[str] = "*", **more: Any) -> dict[str, Any]:
    """A policy of one Allow statement."""
    return {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": resource, **more}],
    }
