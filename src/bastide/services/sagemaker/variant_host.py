"""Instances of an endpoint or a transform job: a volume with the models in it, and sandboxes that are started on it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines import images
from bastide.engines.network import Networks
from bastide.engines.placement import Claim, Place, Placement
from bastide.engines.placement.types import devices_of
from bastide.engines.sandbox import Limits, Running, SandboxError, Sandboxes, Spec, Volumes
from bastide.engines.serving import MOST_ANSWER, Container, Instance, Serving
from bastide.engines.telemetry import Dimensions
from bastide.engines.workflow import Failed
from bastide.kernel import Calls, LogStream
from bastide.services.sagemaker import job_network, model_data, objects, own_image
from bastide.services.sagemaker.channels import together
from bastide.services.sagemaker.host import public
from bastide.services.sagemaker.job_hosts import GIB
from bastide.services.sagemaker.measuring import Measures, Usages
from bastide.services.sagemaker.model import MODEL, MULTI
from bastide.services.sagemaker.session import RoleSession, cannot_assume
from bastide.services.sagemaker.untrusted import failed, untrusted
from bastide.services.sagemaker.volume_key import volume_key

_log = logging.getLogger("bastide.sagemaker")

_SOCKET_FOLDER: Final = "/run/bastide"
_MODELS_FOLDER: Final = "/opt/models"
_MIB: Final = 1 << 20
_SERVERLESS_GIB: Final = 5  # of temporary disk, as the developer guide has it
_CPU_OF_MIB: Final = 1769.0  # memory that comes with one whole processor, as Lambda has it


def server_of(arn: str, place: str) -> str:
    """What the description of a server's network interface says that it is for."""
    return f"{arn}, {place}"


class VariantHost:
    """Builds the instances of one execution of an endpoint or a transform job. Beside what an endpoint configuration says a
    variant may have `grant` (room that is claimed already), `log` (group and stream), `measured` (namespace and dimensions
    of its metrics), `arn` (what its network interfaces are for) and `most` (bytes of an answer)."""

    def __init__(self, calls: Calls, run_id: str, *, name: str, account: str, region: str, kms: str | None) -> None:
        """kms: the key of the volumes."""
        self._calls = calls
        self._run = run_id
        self._name = name
        self._where = {"account": account, "region": region}
        self._kms = kms
        self._number = 0
        self.fetched: dict[str, dict[str, str]] = {}
        """Of each variant, the URLs of its models' data and their ETags (empty: several objects)."""

    async def instance(self, variant: dict[str, Any]) -> Instance:
        """A server's volume with the models in it, and what starts the server and frees all that. Raises Failed and
        Refused, when nothing of it is left."""
        self._number += 1
        digest = hashlib.sha256(f"{self._run}/{variant['VariantName']}/{self._number}".encode()).hexdigest()[:24]
        building = _Building(self._calls, self._name, f"endpoint-{digest}", variant, **self._where)
        try:
            seconds = variant.get("ModelDataDownloadTimeoutInSeconds") or 3600
            containers = await building.build(self._kms, digest, seconds)
        except BaseException:
            await building.close()
            raise
        self.fetched[variant["VariantName"]] = building.fetched
        return Instance(containers, building.close)


@dataclass(slots=True)
class _Placed:
    """What a container gets. ml: its ``/opt/ml``."""

    ml: Path
    readonly: list[tuple[Path, str]] = field(default_factory=list)
    models: model_data.Several | None = None
    variables: dict[str, str] = field(default_factory=dict)


class _Building:
    """What an instance holds."""

    def __init__(
        self, calls: Calls, endpoint: str, place: str, variant: dict[str, Any], *, account: str, region: str
    ) -> None:
        self._calls = calls
        self._place = place
        self._variant = variant
        self._region = region
        self._most = variant.get("most") or MOST_ANSWER
        model = MODEL.arn(account, region, variant["ModelName"])
        self._session = RoleSession(calls, variant["role"], account=account, region=region, source_arn=model)
        self._endpoint = endpoint
        arn = variant.get("arn") or f"arn:aws:sagemaker:{region}:{account}:endpoint/{endpoint}"
        self._server = server_of(arn, place)
        self._network = job_network.Network()
        self._vpc = variant.get("vpc") if not variant["isolated"] else None
        self._log: LogStream | None = None
        self._claim: Claim | None = None
        self._granted: Place | None = variant.get("granted")
        self._volume = False
        self._folders: list[Any] = []
        self._bridges: list[own_image.Bridge] = []
        self._reading: set[asyncio.Task[None]] = set()
        self._dimensions: Dimensions = ()
        namespace = "/aws/sagemaker/Endpoints"
        if "measured" in variant:
            namespace, self._dimensions = variant["measured"]
        self._measures = Measures(self._session, namespace)
        self._usages: dict[str, Usages] = {}
        self.fetched: dict[str, str] = {}

    async def close(self) -> None:
        """Frees everything; bears repeating."""
        while self._usages:
            self._usages.popitem()[1].abandon()
        if "measured" in self._variant:
            await self._measures.close()  # what a job measured is there when it is over
        self._measures.abandon()
        log, self._log = self._log, None
        if log is not None:
            if self._reading:
                await asyncio.wait(self._reading, timeout=2.0)
            await log.close()
        await self._network.close()
        if self._vpc:
            await self._unplug()
        if self._volume:
            self._volume = False
            await self._calls.engine(Volumes).close(self._place)
        claim, self._claim = self._claim, None
        if claim is not None:
            self._calls.engine(Placement).release(claim)
        while self._bridges:
            await self._bridges.pop().close()
        serving = self._calls.engine(Serving)
        while self._folders:
            await asyncio.to_thread(serving.leave, self._folders.pop())
        self._session.end()

    async def _unplug(self) -> None:
        """Removes the server's network interface. A role that may not leaves it, as on AWS."""
        vpc, self._vpc = self._vpc, None
        try:
            await job_network.clean(self._session, self._server)
        except Refused as refused:
            self._vpc = vpc
            _log.warning("a network interface of %s is left: %s", self._server, refused.code)

    async def build(self, kms: str | None, digest: str, seconds: float) -> list[Container]:
        """The containers, ready to be launched."""
        variant = self._variant
        try:
            await self._session.caller()
        except Refused:
            raise Failed("ClientError", cannot_assume(variant["role"]).message) from None
        job_network.go_by_vpc(self._session, self._vpc, isolated=variant["isolated"])
        placement = self._calls.engine(Placement)
        serverless = variant.get("ServerlessConfig")
        if self._granted is not None:
            gib = int(variant.get("VolumeSizeInGB") or 30)
        elif serverless:
            memory = serverless["MemorySizeInMB"]
            part = placement.part(memory * _MIB, max(1.0, memory / _CPU_OF_MIB))
            self._claim = await placement.claim(self._place, part, here=True)
            gib = _SERVERLESS_GIB
        else:
            self._claim = await placement.claim(self._place, variant["InstanceType"], here=True)
            gib = int(variant.get("VolumeSizeInGB") or 30)
        volumes = self._calls.engine(Volumes)
        await volumes.close(self._place)
        self._volume = True
        key = await volume_key(self._session, kms)
        volume = await volumes.create(self._place, key, gib * GIB)
        if self._claim is not None:
            [self._granted] = self._claim.places
        stream = f"{variant['VariantName']}/i-{digest[:17]}"
        group, stream = variant.get("log") or (f"/aws/sagemaker/Endpoints/{self._endpoint}", stream)
        self._log = LogStream(self._session, group, stream)
        await self._log.open()
        self._measures.start()
        if not self._dimensions:
            self._dimensions = (("EndpointName", self._endpoint), ("VariantName", variant["VariantName"]))
        connecting = job_network.connect(
            self._session, self._network, self._server, 1, self._vpc, isolated=variant["isolated"], encrypted=False
        )
        placed = [_Placed(volume / f"ml-{number}") for number, _ in enumerate(variant["containers"])]
        data = [self._data(volume, number, one, placed[number]) for number, one in enumerate(variant["containers"])]
        try:
            async with asyncio.timeout(seconds):
                await together([connecting, *data])
        except TimeoutError:
            raise Failed("ClientError", f"The model data could not be downloaded within {seconds} s.") from None
        if self._network.authority:
            await asyncio.to_thread(public, volume / "authority.pem", self._network.authority)
            for each in placed:
                each.readonly.append((volume / "authority.pem", job_network.AUTHORITY))
        return [
            await self._container(digest, number, one, placed[number])
            for number, one in enumerate(variant["containers"])
        ]

    async def _data(self, volume: Path, number: int, container: dict[str, Any], placed: _Placed) -> None:
        """Puts what a container is to have into the volume."""
        session, several, ml = self._session, container.get("Mode") == MULTI, placed.ml
        await asyncio.to_thread((ml / "model").mkdir, parents=True)
        if several:
            folder = volume / f"models-{number}"
            folder.mkdir()
            folder.chmod(0o755)  # whatever the umask is: the server reads there as its own user
            placed.readonly.append((folder, _MODELS_FOLDER))
            placed.models = model_data.Several(session, container["ModelDataUrl"], volume, folder, _MODELS_FOLDER)
            placed.variables = {"SAGEMAKER_MULTI_MODEL": "true"}
        else:
            etag = await model_data.place(session, container, volume, ml / "model")
            if url := model_data.url(container):
                self.fetched[url] = etag
        source = str(container["Environment"].get("SAGEMAKER_SUBMIT_DIRECTORY") or "")
        if source.startswith("s3://") and not self._variant["isolated"]:
            bucket, key = objects.split(source)
            try:
                await objects.fetch(session, bucket, key, ml / "input" / "source" / key.rsplit("/", 1)[-1])
            except Refused as refused:
                raise model_data.no_data(source, refused) from None

    async def _container(self, digest: str, number: int, container: dict[str, Any], placed: _Placed) -> Container:
        environment = await own_image.environment(self._session, container["Image"], container.get("ImageDigest", ""))
        assert self._granted is not None
        grant = self._granted.grant
        [(namespace, _, _)] = job_network.peers(self._network, [self._place])
        sockets = await asyncio.to_thread(self._calls.engine(Serving).place, f"{digest}-{number}")
        self._folders.append(sockets)
        served = {"BASTIDE_SERVE_SOCKET": f"{_SOCKET_FOLDER}/model.sock"}
        bridged = isinstance(environment, images.Container)
        if bridged:
            # It listens on its own port, as everywhere; what Bastide brings listens on the socket itself. In a network
            # that they share, each has a port of its own (developer guide, "Inference pipeline").
            port = own_image.PORT + (number if namespace else 0)
            bridge = own_image.Bridge(self._calls.engine(Networks), sockets / "model.sock", namespace, port)
            self._bridges.append(bridge)
            namespace = await bridge.open()
            served = {"SAGEMAKER_BIND_TO_PORT": str(port)}
        spec = Spec(
            name=f"{self._place}-{number}",
            image=environment,
            command=list(environment.serve),
            workdir=placed.ml,
            limits=Limits(grant.memory_bytes, grant.cpus),
            env={
                "LOKY_MAX_CPU_COUNT": str(max(1, int(grant.cpus))),
                "AWS_REGION": self._region,
                **self._network.variables[0],
                **container["Environment"],
                **placed.variables,
                "BASTIDE_MEMORY_BYTES": str(grant.memory_bytes),
                **served,
            },
            readonly=placed.readonly,
            writable=[] if bridged else [(sockets, _SOCKET_FOLDER)],
            hostname="model",
            hosts=("model",),
            gpus=grant.gpus,
            devices=devices_of(self._granted.gpus),
            network=namespace,
            resolver=self._network.resolver,
        )
        keep = (container.get("MultiModelConfig") or {}).get("ModelCacheSetting", "Enabled") == "Enabled"
        host = str(container.get("ContainerHostname") or "primary")
        launch = self._launcher(spec, placed.ml, container["Image"])
        return Container(host, launch, sockets / "model.sock", self._tell, placed.models, keep, self._most)

    async def _tell(self, line: str) -> None:
        if self._log is not None:
            await self._log.write(line.encode())

    def _launcher(self, spec: Spec, folder: Path, image: str) -> Callable[[], Awaitable[Running]]:
        sandboxes = self._calls.engine(Sandboxes)

        async def read(running: Running) -> None:
            async for line in running.lines():
                if self._log is not None:
                    await self._log.write(line)

        async def launch() -> Running:
            now = replace(spec, untrusted=untrusted(self._calls, self._session.account, image))
            try:
                running = await sandboxes.start(now)
            except SandboxError as error:
                if now.untrusted:
                    raise failed(error) from error
                raise
            if spec.name in self._usages:
                self._usages.pop(spec.name).abandon()
            usages = Usages(self._measures, running, spec.limits.memory_bytes, folder, self._dimensions)
            self._usages[spec.name] = usages
            usages.start()
            task = asyncio.get_running_loop().create_task(read(running))
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)
            return running

        return launch
