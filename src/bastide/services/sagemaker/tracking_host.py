"""What stands behind an MLflow tracking server: a sandbox on an encrypted volume that outlives it.

A server's row says what is wanted; `Trackers` makes it so, and may be asked as often as one likes: after a crash it is
asked again for all. MLflow knows no users here. It listens on a socket that only this process reaches, and reaches nothing
but AWS with the server's role. Runs are in SQLite on the volume; artifacts lie in the customer's bucket.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections import deque
from pathlib import Path
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines import images
from bastide.engines.keys import RootKey
from bastide.engines.placement import Claim, Placement
from bastide.engines.sandbox import Limits, Running, SandboxError, Sandboxes, Spec, Volumes
from bastide.engines.serving import Container, Instance, Serving, Standing, Unhealthy
from bastide.engines.workflow import Failed
from bastide.kernel import Calls
from bastide.services.sagemaker import job_network, tracks
from bastide.services.sagemaker.host import public
from bastide.services.sagemaker.session import RoleSession
from bastide.services.sagemaker.settling import Settling
from bastide.services.sagemaker.tracking_server import ENVIRONMENT, INDEX, PASSING, TRACKING_SERVER, arn_of
from bastide.store import Row, Transaction

_log = logging.getLogger("bastide.tracking")

_SOCKETS: Final = "/run/bastide"
_GIB: Final = 1 << 30
_SIZES: Final = {"Small": (2, 1.0), "Medium": (4, 2.0), "Large": (8, 4.0)}
"""Memory in GiB, processors."""
_SECONDS: Final = 180.0
_GRACE: Final = 10.0
_DONE: Final = {
    "Creating": ("Created", "CreateFailed"),
    "Starting": ("Started", "StartFailed"),
    "Updating": ("Updated", "UpdateFailed"),
    "Stopping": ("Stopped", "StopFailed"),
    "Deleting": ("", "DeleteFailed"),
}


class Trackers(Settling):
    """The tracking servers of this platform. folder: where their volumes lie."""

    def __init__(self, calls: Calls, folder: Path) -> None:
        super().__init__(TRACKING_SERVER)
        self._calls = calls
        self._folder = folder
        self._open.set()

    def recover(self) -> None:
        """Takes up what is to stand, and what was under way."""
        with self._calls.store.reading() as view:
            names = [row.name for row in view.scan(INDEX, "", "", limit=100_000)]
            found = [TRACKING_SERVER.get(view, *TRACKING_SERVER.locate(name, "", "")) for name in names]
        for row in found:
            if row is not None and (row.status in PASSING or row.doc["IsActive"] == "Active"):
                self.settle(row.account, row.region, row.name)

    async def close(self) -> None:
        """Ends all servers; what is to stand stands again at the next start."""
        await self._stop()
        await self._calls.engine(Standing).close(_GRACE)

    async def _settle(self, account: str, region: str, name: str, arn: str) -> None:
        with self._calls.store.reading() as view:
            row = TRACKING_SERVER.get(view, account, region, name)
        if row is None:
            return
        standing = self._calls.engine(Standing)
        passing = row.status if row.status in PASSING else ""
        wanted = row.status in ("Creating", "Starting", "Updating") or row.doc["IsActive"] == "Active"
        if not passing and wanted == (arn in standing):
            return
        failed = False
        try:
            if passing:
                await standing.end(arn, _GRACE)
            if wanted:
                await standing.start(arn, await _Building(self._calls, self._folder, row).build(), _SECONDS)
            elif row.status == "Deleting":
                await asyncio.to_thread(shutil.rmtree, self._folder / row.doc["_id"], ignore_errors=True)
        except (Failed, Refused, SandboxError, Unhealthy, OSError) as error:
            _log.warning("%s could not be brought to what it is to be: %s", arn, error)
            failed = True
        await self._calls.store.write(lambda tx: _told(tx, row, failed, wanted))


def _told(tx: Transaction, known: Row, failed: bool, wanted: bool) -> None:
    row = TRACKING_SERVER.get(tx, known.account, known.region, known.name)
    if row is None or row.doc["_id"] != known.doc["_id"] or row.status != known.status:
        return
    if row.status not in _DONE:  # it stood before a restart of the platform
        if failed:
            row.status, row.doc["IsActive"] = "StartFailed", "Inactive"
            TRACKING_SERVER.change(tx, row, "TrackingServerSettled")
        return
    if row.status == "Deleting" and not failed:
        TRACKING_SERVER.remove(tx, row, "TrackingServerDeleted")
        index = tx.get(INDEX, "", "", arn_of(row))
        if index is not None:
            tx.delete(index, keep=False)
        return
    row.status = _DONE[row.status][failed]
    row.doc["IsActive"] = "Active" if wanted and not failed else "Inactive"
    if wanted and not failed:
        row.doc["_stored"] = True
    TRACKING_SERVER.change(tx, row, "TrackingServerSettled")


class _Building:
    """What a running server holds."""

    def __init__(self, calls: Calls, folder: Path, row: Row) -> None:
        self._calls = calls
        self._place = folder / row.doc["_id"]
        self._row = row
        self._name = tracks.volume_of(row.doc["_id"])
        self._session = RoleSession(
            calls, row.doc["RoleArn"], account=row.account, region=row.region, source_arn=arn_of(row)
        )
        self._network = job_network.Network()
        self._claim: Claim | None = None
        self._sockets: Path | None = None
        self._said: deque[bytes] = deque(maxlen=20)
        self._reading: set[asyncio.Task[None]] = set()

    async def build(self) -> Instance:
        """The server, ready to be launched; raises what `settle` knows, when nothing of it is left."""
        try:
            return Instance([await self._container()], self.close)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Frees everything; bears repeating."""
        if self._reading:
            await asyncio.wait(self._reading, timeout=2.0)
        await self._network.close()
        await self._calls.engine(Volumes).close(self._name)
        if self._sockets is not None:
            await asyncio.to_thread(self._calls.engine(Serving).leave, self._sockets)
            self._sockets = None
        claim, self._claim = self._claim, None
        if claim is not None:
            self._calls.engine(Placement).release(claim)
        self._session.end()

    async def _container(self) -> Container:
        row, calls = self._row, self._calls
        await self._session.caller()
        environment = images.located(ENVIRONMENT)
        placement = calls.engine(Placement)
        memory, cpus = _SIZES[row.doc["TrackingServerSize"]]
        self._claim = await placement.claim(self._name, placement.part(memory * _GIB, cpus))
        if row.doc.get("_stored") and not await asyncio.to_thread(self._place.is_dir):
            raise Failed("InternalServerError", "the volume that its runs are on is gone")
        volumes = calls.engine(Volumes)
        await volumes.close(self._name)
        key = tracks.key_of(calls.engine(RootKey), arn_of(row), row.doc["_id"])
        volume = await volumes.keep(self._name, key, self._place)
        await job_network.connect(self._session, self._network, arn_of(row), 1, None, isolated=False, encrypted=False)
        work = (volume / tracks.STORE).parent
        await asyncio.to_thread(work.mkdir, exist_ok=True)
        trusted = volume / "authority.pem"
        await asyncio.to_thread(public, trusted, self._network.authority)
        self._sockets = await asyncio.to_thread(calls.engine(Serving).place, self._name)
        ((namespace, _, _),) = job_network.peers(self._network, ["server"])
        grant = self._claim.grant
        spec = Spec(
            name=self._name,
            image=environment,
            command=["python3", "-m", "uvicorn", "--uds", f"{_SOCKETS}/server.sock", "--no-access-log",
                     "--log-level", "warning", "mlflow.server.fastapi_app:app"],
            workdir=work,
            limits=Limits(grant.memory_bytes, grant.cpus),
            env={
                **self._network.variables[0],
                "_MLFLOW_SERVER_FILE_STORE": "sqlite:////opt/ml/mlflow.db",
                "_MLFLOW_SERVER_REGISTRY_STORE": "sqlite:////opt/ml/mlflow.db",
                "_MLFLOW_SERVER_ARTIFACT_ROOT": row.doc["ArtifactStoreUri"],
                "_MLFLOW_SERVER_SERVE_ARTIFACTS": "false",
                "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "true",  # of browsers; none reaches it
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                "GIT_PYTHON_REFRESH": "quiet",
            },
            readonly=[(trusted, job_network.AUTHORITY)],
            writable=[(self._sockets, _SOCKETS)],
            hostname="server",
            hosts=("server",),
            network=namespace,
        )  # fmt: skip
        return Container(
            "MLflow", lambda: self._launch(spec), self._sockets / "server.sock", self._tell, ping="/health"
        )

    async def _launch(self, spec: Spec) -> Running:
        volumes = self._calls.engine(Volumes)
        if volumes.lost(self._name):
            raise SandboxError(f"the volume of {spec.name} is gone")
        running = await self._calls.engine(Sandboxes).start(spec)

        async def read() -> None:
            async for line in running.lines():
                self._said.append(line)

        task = asyncio.get_running_loop().create_task(read())
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)
        return running

    async def _tell(self, line: str) -> None:
        said = b"\n".join(self._said).decode(errors="replace")
        _log.warning("%s: %s It said last:\n%s", arn_of(self._row), line, said[-4000:])


def events(trackers: Trackers) -> Any:
    """The subscriber that brings servers to what their rows want."""

    async def server(body: dict[str, Any]) -> None:
        if body["status"] in PASSING:
            trackers.settle(body["account"], body["region"], body["name"])

    return server
