"""A notebook instance that is up, or on its way there: what it holds, and what its first program says."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import shutil
from collections import deque
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import orjson

from bastide.domain import MICROS, Refused
from bastide.engines import images
from bastide.engines.keys import RootKey
from bastide.engines.placement import Claim, Placement
from bastide.engines.sandbox import Limits, Running, Sandboxes, Spec, Volumes
from bastide.engines.serving import Client, Lost, Serving
from bastide.engines.workflow import Failed
from bastide.kernel import Calls, LogStream, Unforeseen
from bastide.services.sagemaker import job_network
from bastide.services.sagemaker.code_repository import cloned
from bastide.services.sagemaker.host import public
from bastide.services.sagemaker.notebook_instance import (
    ENVIRONMENT,
    NOTEBOOK,
    arn_of,
    repositories,
    vpc_of,
)
from bastide.services.sagemaker.notebook_lifecycle_config import LIFECYCLE_CONFIG, scripts
from bastide.services.sagemaker.session import RoleSession, cannot_assume
from bastide.store import Row, Transaction

_log = logging.getLogger("bastide.notebooks")

LOG_GROUP: Final = "/aws/sagemaker/NotebookInstances"
_INSIDE: Final = Path(images.__file__).parent / "environments" / ENVIRONMENT / "inside"
_SOCKETS: Final = "/run/bastide"
_GIB: Final = 1 << 30
_SCRIPT_SECONDS: Final = 300
_START_SECONDS: Final = 180
"""Until Jupyter answers, once nothing else is to be done; and for a repository to be cloned."""
_LOOK_SECONDS: Final = 0.1
_GRACE: Final = 8.0
_MOST_ANSWER: Final = 512 << 20
_PERSON: Final = "ec2-user"


class Machine:
    """What an instance holds while it is up, or on its way there."""

    def __init__(self, calls: Calls, folder: Path, row: Row) -> None:
        self.client: Client | None = None
        self.socket: Path | None = None
        self.watched: asyncio.Task[None] | None = None
        self._calls = calls
        self._place = folder / row.doc["_id"]
        self._row = row
        self._name = f"notebook-{row.doc['_id']}"
        self._session = RoleSession(
            calls, row.doc["RoleArn"], account=row.account, region=row.region, source_arn=arn_of(row)
        )
        self._network = job_network.Network()
        self._attached = False
        self._claim: Claim | None = None
        self._sockets: Path | None = None
        self._running: Running | None = None
        self._reading: asyncio.Task[None] | None = None
        self._logs: dict[str, LogStream] = {}
        self._begun: tuple[str, int] | None = None
        self._said: deque[str] = deque(maxlen=10)
        self._failed = ""

    # -- its beginning -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Until Jupyter answers. Raises what `Notebooks` knows; then it is to be closed."""
        row, calls = self._row, self._calls
        try:
            await self._session.caller()
        except Refused:
            raise cannot_assume(row.doc["RoleArn"]) from None
        environment = images.located(ENVIRONMENT)
        order = await self._order()
        key = await self._key()
        self._claim = await calls.engine(Placement).claim(self._name, row.doc["InstanceType"], here=True)
        if row.doc.get("_created") and not await asyncio.to_thread(self._place.is_dir):
            raise Failed("InternalServerError", "InternalServerError: the volume of the notebook instance is gone.")
        volumes = calls.engine(Volumes)
        await volumes.close(self._name)
        await volumes.keep(self._name, key, self._place)
        system = await volumes.system(self._name, int(row.doc["VolumeSizeInGB"]) * _GIB)
        config = vpc_of(row.doc)
        self._attached = bool(config)
        await job_network.connect(
            self._session, self._network, arn_of(row), 1, config, isolated=False, encrypted=False,
            direct=row.doc["DirectInternetAccess"] == "Enabled",
        )  # fmt: skip
        if config:
            await self._show_interface()
        self._sockets = await asyncio.to_thread(calls.engine(Serving).place, self._name)
        await asyncio.to_thread(self._lay_down, system, order)
        await self._launch(system, environment)
        await self._until_up()

    async def _order(self) -> dict[str, Any]:
        """What its first program is told."""
        row = self._row
        with self._calls.store.reading() as view:
            found = [cloned(view, row.account, row.region, one) for one in repositories(row.doc)]
            named = row.doc.get("NotebookInstanceLifecycleConfigName")
            config = LIFECYCLE_CONFIG.find(view, row.account, row.region, named) if named else None
        told = []
        for one in found:
            about = {
                "url": one.url,
                "branch": one.branch,
                "folder": one.folder,
                "host": one.host,
                "codecommit": one.codecommit,
            }
            told.append({**about, **(await self._secret(one.secret) if one.secret else {})})
        instead = [f"https://git-codecommit.{row.region}.amazonaws.com/", "https://localhost/"]
        return {
            "scripts": scripts(config, first=not row.doc.get("_created")) if config is not None else [],
            "repositories": told,
            "default": found[0].folder if row.doc.get("DefaultCodeRepository") else "",
            "root": row.doc["RootAccess"] == "Enabled",
            "socket": f"{_SOCKETS}/server.sock",
            "instead": [] if vpc_of(row.doc) and row.doc["DirectInternetAccess"] == "Disabled" else instead,
        }

    async def _secret(self, arn: str) -> dict[str, str]:
        """User name and password of a repository, read as the role."""
        try:
            told = await self._session.act("secretsmanager", "GetSecretValue", {"SecretId": arn})
            found = orjson.loads(told.get("SecretString") or b"")
            return {name: quote(str(found[name]), safe="") for name in ("username", "password")}
        except Refused as refused:
            raise Failed("ClientError", f"The secret {arn} of a repository cannot be read: {refused.message}") from None
        except (ValueError, KeyError, TypeError):
            raise Failed(
                "ClientError", f"The secret {arn} is to be a JSON object with username and password."
            ) from None

    async def _key(self) -> bytes:
        """The volume's key: wrapped by the customer's key, from its first start on, or derived from the platform's own."""
        row = self._row
        if not row.doc.get("KmsKeyId"):
            key: bytes = self._calls.engine(RootKey).derive(f"notebook/{arn_of(row)}/{row.doc['_id']}")
            return key
        named, context = row.doc["KmsKeyId"], {"aws:sagemaker:notebook-instance": arn_of(row)}
        via = {"kms:viaservice": f"sagemaker.{row.region}.amazonaws.com"}
        asked: dict[str, Any] = {"KeyId": named, "EncryptionContext": context}
        try:
            if row.doc.get("_key"):
                wrapped = base64.b64decode(row.doc["_key"])
                told = await self._session.act("kms", "Decrypt", {**asked, "CiphertextBlob": wrapped}, context=via)
                return bytes(told["Plaintext"])
            told = await self._session.act("kms", "GenerateDataKey", {**asked, "KeySpec": "AES_256"}, context=via)
        except Refused as refused:
            raise Failed(
                "ClientError", f"The volume's key {named} cannot be used: {refused.code}: {refused.message}"
            ) from None
        await self._keep(_key=base64.b64encode(told["CiphertextBlob"]).decode())
        return bytes(told["Plaintext"])

    async def _keep(self, **members: Any) -> None:
        """Writes down what is known of the instance now."""

        def work(tx: Transaction) -> None:
            row = NOTEBOOK.get(tx, self._row.account, self._row.region, self._row.name)
            if row is not None and row.doc["_id"] == self._row.doc["_id"]:
                row.doc |= members
                tx.update(row, keep=False)

        await self._calls.store.write(work)
        self._row.doc |= members

    async def _show_interface(self) -> None:
        told = {"Filters": [{"Name": "description", "Values": [job_network.description(arn_of(self._row))]}]}
        (found,) = (await self._session.act("ec2", "DescribeNetworkInterfaces", told))["NetworkInterfaces"]
        await self._keep(NetworkInterfaceId=found["NetworkInterfaceId"])

    def _lay_down(self, system: Path, order: dict[str, Any]) -> None:
        """What the sandbox finds on the volume: files of an earlier start, and a home that is new. The order is root's."""
        (system / "ml").mkdir(exist_ok=True)
        root = (system / "ml").stat().st_uid  # by which the sandbox knows whose the files are
        for folder in ("home", "ml"):
            shutil.rmtree(system / folder, ignore_errors=True)
            (system / folder).mkdir()
        os.chown(system / "ml", root, root)
        (system / "files").mkdir(exist_ok=True)
        (system / "ml" / "metadata").mkdir()
        told = {"ResourceArn": arn_of(self._row), "ResourceName": self._row.name}
        public(system / "ml" / "metadata" / "resource-metadata.json", orjson.dumps(told))
        place = system / "ml" / "notebook.json"
        place.touch(mode=0o600, exist_ok=False)
        place.write_bytes(orjson.dumps(order))
        if self._network.authority:
            trusted = system.parent / "authority.pem"
            trusted.unlink(missing_ok=True)
            public(trusted, self._network.authority)

    async def _launch(self, system: Path, environment: images.Environment) -> None:
        assert self._claim is not None and self._sockets is not None
        grant = self._claim.grant
        ((namespace, _, _),) = job_network.peers(self._network, ["notebook"])
        trusted = system.parent / "authority.pem"
        spec = Spec(
            name=self._name,
            image=environment,
            command=["python3", "/opt/notebook/start.py"],
            workdir=system / "ml",
            limits=Limits(grant.memory_bytes, grant.cpus),
            env={
                **self._network.variables[0],
                "AWS_REGION": self._row.region,
                "SSL_CERT_FILE": job_network.AUTHORITY,
                "REQUESTS_CA_BUNDLE": job_network.AUTHORITY,
                "PIP_CERT": job_network.AUTHORITY,
                "GIT_SSL_CAINFO": job_network.AUTHORITY,
                "PIP_DISABLE_PIP_VERSION_CHECK": "1",
                "PATH": f"/run/notebook/bin:{environment.path}:/usr/sbin:/sbin",
            },
            readonly=[(_INSIDE, "/opt/notebook"), (trusted, job_network.AUTHORITY)],
            writable=[
                (system / "home", f"/home/{_PERSON}"),
                (system / "files", f"/home/{_PERSON}/SageMaker"),
                (self._sockets, _SOCKETS),
            ],
            hostname="notebook",
            hosts=("notebook",),
            network=namespace,
            resolver=self._network.resolver,
            person=_PERSON,
        )
        self._running = await self._calls.engine(Sandboxes).start(spec)
        self._reading = asyncio.get_running_loop().create_task(self._read(self._running))

    async def _until_up(self) -> None:
        assert self._running is not None and self._sockets is not None
        socket = self._sockets / "server.sock"
        client = Client(socket, _MOST_ANSWER)
        ended = asyncio.ensure_future(self._running.wait())
        until = self._calls.clock() + _START_SECONDS * MICROS * (1 + len(repositories(self._row.doc)))
        try:
            while not await _answers(client):
                now = self._calls.clock()
                if self._begun is not None:
                    name, at = self._begun
                    if now - at > _SCRIPT_SECONDS * MICROS:
                        raise Failed("ClientError", self._of_script(name, "took longer than 5 minutes"))
                    until = now + _START_SECONDS * MICROS
                if now > until:
                    raise Failed("InternalServerError", "InternalServerError: Jupyter did not answer in time.")
                done, _ = await asyncio.wait({ended}, timeout=_LOOK_SECONDS)
                if done:
                    await self._heard_all()
                    raise Failed("ClientError", self._failed or self._why(ended.result()))
        finally:
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)
        await self._keep(_created=True)
        self.client, self.socket = client, socket

    # -- what it says ------------------------------------------------------------------------------------------------------

    async def _read(self, running: Running) -> None:
        """Takes in what its first program says, and hands on what is for the log. All of it is a stranger's."""
        async for line in running.lines():
            try:
                told = orjson.loads(line)
                if isinstance(told, dict):
                    await self._hear(told)
            except ValueError:
                continue
            except Unforeseen:
                _log.exception("a line of %s was lost", self._name)

    async def _hear(self, told: dict[str, Any]) -> None:
        name, text = str(told.get("log"))[:64], str(told.get("line"))
        if name in ("LifecycleConfigOnCreate", "LifecycleConfigOnStart", "jupyter.log") and "line" in told:
            self._said.append(text[:500])
            await (await self._stream(name)).write(text.encode("utf-8", "replace"))
        elif told.get("begin") in ("OnCreate", "OnStart"):
            self._begun = (told["begin"], self._calls.clock())
        elif told.get("over") in ("OnCreate", "OnStart"):
            self._begun = None
            if told.get("status") != 0:
                self._failed = self._of_script(told["over"], f"failed with exit status {str(told.get('status'))[:8]}")
        elif "failed" in told:
            self._failed = str(told["failed"])[:1000]

    async def _stream(self, name: str) -> LogStream:
        if name not in self._logs:
            self._logs[name] = LogStream(self._session, LOG_GROUP, f"{self._row.name}/{name}")
            await self._logs[name].open()
        return self._logs[name]

    def _of_script(self, hook: str, what: str) -> str:
        config = self._row.doc.get("NotebookInstanceLifecycleConfigName", "")
        arn = LIFECYCLE_CONFIG.arn(self._row.account, self._row.region, config)
        return (
            f"Notebook Instance Lifecycle Config '{arn}' for Notebook Instance '{arn_of(self._row)}' {what} ({hook}). "
            f"Please check the log stream {self._row.name}/LifecycleConfig{hook} of {LOG_GROUP} for what it printed."
        )

    def _why(self, ended: Any) -> str:
        if ended.oom:
            return "The notebook instance used more memory than its instance type has, and was ended."
        said = " | ".join(self._said)
        return f"The notebook instance ended by itself (exit status {ended.exit_code}). It said last: {said[-600:]}"

    async def _heard_all(self) -> None:
        if self._reading is not None:
            await asyncio.wait({self._reading}, timeout=5.0)

    # -- its end -----------------------------------------------------------------------------------------------------------

    async def ended(self) -> str:
        """Until it is gone; why."""
        assert self._running is not None
        volumes, waiting = self._calls.engine(Volumes), asyncio.ensure_future(self._running.wait())
        try:
            while True:
                done, _ = await asyncio.wait({waiting}, timeout=1.0)
                if done:
                    return self._why(waiting.result())
                if lost := volumes.lost(self._name):
                    return f"InternalServerError: {lost}"
        finally:
            waiting.cancel()

    async def clean(self) -> None:
        """Removes its network interface, as far as the role may."""
        try:
            await job_network.clean(self._session, arn_of(self._row))
        except (Refused, Unforeseen):
            _log.warning("the network interface of %s could not be removed", arn_of(self._row))

    async def close(self) -> None:
        """Frees everything; bears repeating."""
        watched, self.watched = self.watched, None
        if watched is not None:
            watched.cancel()
            await asyncio.gather(watched, return_exceptions=True)
        client, self.client = self.client, None
        if client is not None:
            client.close()
        running, self._running = self._running, None
        if running is not None:
            await running.stop(_GRACE)
            await self._heard_all()
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        for one in self._logs.values():
            try:
                async with asyncio.timeout(10.0):
                    await one.close()
            except TimeoutError:
                await one.abandon()
        self._logs.clear()
        await self._network.close()
        if self._attached:
            await self.clean()
        await self._calls.engine(Volumes).close(self._name)
        if self._sockets is not None:
            await asyncio.to_thread(self._calls.engine(Serving).leave, self._sockets)
            self._sockets = None
        claim, self._claim = self._claim, None
        if claim is not None:
            self._calls.engine(Placement).release(claim)
        self._session.end()


async def _answers(client: Client) -> bool:
    try:
        return (await client.request("GET", "/api", (), b"", seconds=5.0)).status == 200
    except (Lost, TimeoutError):
        return False
