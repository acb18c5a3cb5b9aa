"""Instances of an endpoint or a transform job: a volume with the models in it, and sandboxes that are started on it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines import images
from bastide.engines.network import Networks
from bastide.engines.placement import Claim, Place, Placement
from bastide.engines.placement.types import devices_of
from bastide.engines.sandbox import Limits, Running, Sandboxes, Spec, Volumes
from bastide.engines.serving import MOST_ANSWER, Container, Instance, Serving
from bastide.engines.telemetry import Dimensions
from bastide.engines.workflow import Failed
from bastide.kernel import Calls
from bastide.services.sagemaker import model_data, objects, own_image
from bastide.services.sagemaker.job_flow import GIB, volume_key
from bastide.services.sagemaker.joblog import JobLog
from bastide.services.sagemaker.measuring import Measures, Usages
from bastide.services.sagemaker.model import MODEL, MULTI
from bastide.services.sagemaker.session import RoleSession, cannot_assume

_SOCKET_FOLDER: Final = "/run/bastide"
_MODELS_FOLDER: Final = "/opt/models"
_MIB: Final = 1 << 20
_SERVERLESS_GIB: Final = 5  # of temporary disk, as the developer guide has it
_CPU_OF_MIB: Final = 1769.0  # memory that comes with one whole processor, as Lambda has it


class VariantHost:
    """Builds the instances of one execution of an endpoint or a transform job. Beside what an endpoint configuration says a
    variant may have `grant` (room that is claimed already), `log` (group and stream), `measured` (namespace and dimensions
    of its metrics) and `most` (bytes of an answer)."""

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
        building = _Building(self._calls, f"endpoint-{digest}", variant, **self._where)
        try:
            seconds = variant.get("ModelDataDownloadTimeoutInSeconds") or 3600
            containers = await building.build(self._name, self._kms, digest, seconds)
        except BaseException:
            await building.close()
            raise
        self.fetched[variant["VariantName"]] = building.fetched
        return Instance(containers, building.close)


class _Building:
    """What an instance holds."""

    def __init__(self, calls: Calls, place: str, variant: dict[str, Any], *, account: str, region: str) -> None:
        self._calls = calls
        self._place = place
        self._variant = variant
        self._region = region
        self._most = variant.get("most") or MOST_ANSWER
        model = MODEL.arn(account, region, variant["ModelName"])
        self._session = RoleSession(calls, variant["role"], account=account, region=region, source_arn=model)
        self._log: JobLog | None = None
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

    async def build(self, endpoint: str, kms: str | None, digest: str, seconds: float) -> list[Container]:
        """The containers, ready to be launched."""
        variant = self._variant
        try:
            await self._session.caller()
        except Refused:
            raise Failed("ClientError", cannot_assume(variant["role"]).message) from None
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
        group, stream = variant.get("log") or (f"/aws/sagemaker/Endpoints/{endpoint}", stream)
        self._log = JobLog(self._session, group, stream)
        await self._log.open()
        self._measures.start()
        if not self._dimensions:
            self._dimensions = (("EndpointName", endpoint), ("VariantName", variant["VariantName"]))
        try:
            async with asyncio.timeout(seconds):
                return [
                    await self._container(volume, digest, number, one)
                    for number, one in enumerate(variant["containers"])
                ]
        except TimeoutError:
            raise Failed("ClientError", f"The model data could not be downloaded within {seconds} s.") from None

    async def _container(self, volume: Any, digest: str, number: int, container: dict[str, Any]) -> Container:
        session, several = self._session, container.get("Mode") == MULTI
        environment = await own_image.environment(session, container["Image"], container.get("ImageDigest", ""))
        ml = volume / f"ml-{number}"
        await asyncio.to_thread((ml / "model").mkdir, parents=True)
        readonly, models, more = [], None, {}
        if several:
            folder = volume / f"models-{number}"
            folder.mkdir()
            folder.chmod(0o755)  # whatever the umask is: the server reads there as its own user
            readonly.append((folder, _MODELS_FOLDER))
            models = model_data.Several(session, container["ModelDataUrl"], volume, folder, _MODELS_FOLDER)
            more = {"SAGEMAKER_MULTI_MODEL": "true"}
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
        assert self._granted is not None
        grant = self._granted.grant
        sockets = await asyncio.to_thread(self._calls.engine(Serving).place, f"{digest}-{number}")
        self._folders.append(sockets)
        namespace = ""
        if isinstance(environment, images.Container):
            # It listens on its own port, as everywhere; what Bastide brings listens on the socket itself.
            bridge = own_image.Bridge(self._calls.engine(Networks), sockets / "model.sock")
            self._bridges.append(bridge)
            namespace = await bridge.open()
        spec = Spec(
            name=f"{self._place}-{number}",
            image=environment,
            command=list(environment.serve),
            workdir=ml,
            limits=Limits(grant.memory_bytes, grant.cpus),
            env={
                "LOKY_MAX_CPU_COUNT": str(max(1, int(grant.cpus))),
                "AWS_REGION": self._region,
                **container["Environment"],
                **more,
                "BASTIDE_MEMORY_BYTES": str(grant.memory_bytes),
                **({} if namespace else {"BASTIDE_SERVE_SOCKET": f"{_SOCKET_FOLDER}/model.sock"}),
            },
            readonly=readonly,
            writable=[] if namespace else [(sockets, _SOCKET_FOLDER)],
            network=namespace,
            hostname="model",
            hosts=("model",),
            gpus=grant.gpus,
            devices=devices_of(self._granted.gpus),
        )
        keep = (container.get("MultiModelConfig") or {}).get("ModelCacheSetting", "Enabled") == "Enabled"
        host = str(container.get("ContainerHostname") or "primary")
        return Container(host, self._launcher(spec, ml), sockets / "model.sock", self._tell, models, keep, self._most)

    async def _tell(self, line: str) -> None:
        if self._log is not None:
            await self._log.write(line.encode())

    def _launcher(self, spec: Spec, folder: Path) -> Callable[[], Awaitable[Running]]:
        sandboxes = self._calls.engine(Sandboxes)

        async def read(running: Running) -> None:
            async for line in running.lines():
                if self._log is not None:
                    await self._log.write(line)

        async def launch() -> Running:
            running = await sandboxes.start(spec)
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
