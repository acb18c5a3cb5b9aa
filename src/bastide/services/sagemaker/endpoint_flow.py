"""How an endpoint comes up, stays up and goes.

One execution serves one configuration of one endpoint: assume, deploy, serve, settle. It stays in `serve` as long as the
endpoint lives, so that a platform that was started again finds it and goes on from `assume`: with the role as it is
now, and with keys that still may be used. An update is a new execution, which tells the one before when it has taken over.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from typing import Any, Final

from bastide.domain import MICROS, Refused
from bastide.engines import images
from bastide.engines.placement import Claim, Placement
from bastide.engines.sandbox import Limits, Running, Sandboxes, Spec, Volumes
from bastide.engines.serving import Instance, Serving, Unhealthy, Variant
from bastide.engines.workflow import Failed, Flow, Run, Step, Wait, Workflows
from bastide.kernel import Calls
from bastide.services.sagemaker import archive, lineage_record, objects
from bastide.services.sagemaker.endpoint import ENDPOINT, shown
from bastide.services.sagemaker.endpoint_config import ENDPOINT_CONFIG
from bastide.services.sagemaker.job_flow import GIB, volume_key
from bastide.services.sagemaker.joblog import JobLog
from bastide.services.sagemaker.measuring import Measures, Usages
from bastide.services.sagemaker.model import MODEL
from bastide.services.sagemaker.session import RoleSession, cannot_assume
from bastide.store import Row, Transaction

_log = logging.getLogger("bastide.sagemaker")

_HEALTHY_SECONDS: Final = 240
_AGAIN: Final = 15 * MICROS
_MOST_UNPACKED: Final = 64 * GIB
_SOCKET_FOLDER: Final = "/run/bastide"
_INTERNAL: Final = "Request to service failed. If failure persists after retry, contact customer support."


class EndpointFlow:
    """The flow of endpoints; `workflows` is told by it when an execution is succeeded by another."""

    name = "endpoint"

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    def flow(self) -> Flow:
        """The flow."""
        return Flow(
            self.name,
            [
                Step("assume", self.assume),
                Step("deploy", self.deploy, again_from="assume"),
                Step("serve", self.serve, again_from="assume"),
                Step("settle", self.settle, always=True),
            ],
            drop=self.drop,
        )

    def _row(self, run: Run) -> Row:
        with self.calls.store.reading() as view:
            return ENDPOINT.find(view, run.state["account"], run.state["region"], run.state["name"])

    def _wanted(self, run: Run) -> bool:
        """Whether the endpoint still is to be served by this execution."""
        with self.calls.store.reading() as view:
            row = ENDPOINT.get(view, run.state["account"], run.state["region"], run.state["name"])
        return row is not None and run.id in (row.doc.get("_live"), row.doc.get("_next"))

    def _arn(self, run: Run) -> str:
        return ENDPOINT.arn(run.state["account"], run.state["region"], run.state["name"])

    # -- the steps ---------------------------------------------------------------------------------------------------------

    async def assume(self, run: Run) -> dict[str, Any]:
        """What is to be served, as configured when that was asked for, and a session of each model's role."""
        if not self._wanted(run):
            return {}
        if "variants" in run.state:
            return {}
        with self.calls.store.reading() as view:
            where = (run.state["account"], run.state["region"])
            config = ENDPOINT_CONFIG.find(view, *where, run.state["config"])
            variants = []
            for variant in config.doc["ProductionVariants"]:
                model = MODEL.find(view, *where, variant["ModelName"])
                variants.append(
                    {
                        **variant,
                        "role": model.doc["ExecutionRoleArn"],
                        "isolated": model.doc["EnableNetworkIsolation"],
                        "container": model.doc["_resolved"][0],
                    }
                )
        return {"variants": variants, "kms": config.doc.get("KmsKeyId")}

    async def deploy(self, run: Run) -> dict[str, Any]:
        """Brings the servers up; when all are well they take over."""
        if run.asked("stop") or not self._wanted(run):
            return {}
        try:
            resolved = await self._deploy(run)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            reason = _reason(error)
            if reason is None:
                _log.exception("the endpoint %s did not come up", run.id)
                reason = _INTERNAL
            if self._row(run).doc.get("_live") != run.id:
                raise Failed("Endpoint", reason) from None
            # It had been in service: it stays wanted, says what is wrong, and is tried until that is put right.
            await self._out_of_service(run, reason)
            raise Wait(run.clock() + _AGAIN) from None
        earlier: list[str] = []

        def work(tx: Transaction) -> None:
            row = ENDPOINT.find(tx, run.state["account"], run.state["region"], run.state["name"])
            earlier.clear()
            if row.doc.get("_next") == run.id:
                if row.doc.get("_live"):
                    earlier.append(row.doc["_live"])
                row.doc["_live"] = row.doc.pop("_next")
                row.doc["EndpointConfigName"] = row.doc.pop("_config", row.doc["EndpointConfigName"])
            elif row.doc.get("_live") != run.id or row.status == "InService":
                return
            row.doc.pop("FailureReason", None)
            row.doc["ProductionVariants"] = shown(run.state["variants"], resolved, tx.now)
            if row.status != "Deleting":
                row.status = "InService"
            ENDPOINT.change(tx, row, "EndpointStateChange")
            self._lineage(tx, row, run)

        run.also(work)
        return {"earlier": earlier}

    def _lineage(self, tx: Transaction, row: Row, run: Run) -> None:
        """What serves from now on, and where it came from."""
        models = {}
        for variant in run.state["variants"]:
            model = MODEL.get(tx, row.account, row.region, variant["ModelName"])
            if model is None:
                return  # removed while it was deployed: its lineage stays, and cannot be joined any more
            arn = MODEL.arn(row.account, row.region, model.name)
            models[variant["VariantName"]] = lineage_record.of_model(tx, arn, model)
        lineage_record.of_endpoint(tx, self._arn(run), row, run, models, run.held.get("etags") or {})

    async def _deploy(self, run: Run) -> dict[str, tuple[str, str, int]]:
        resolved: dict[str, tuple[str, str, int]] = {}
        variants = []
        healthy = _HEALTHY_SECONDS
        for variant in run.state["variants"]:
            container = variant["container"]
            environment = images.resolve(container["Image"])
            resolved[variant["VariantName"]] = (container["Image"], environment.digest, run.clock())
            healthy = max(healthy, int(variant.get("ContainerStartupHealthCheckTimeoutInSeconds") or 0))
            instances = []
            for number in range(int(variant["InitialInstanceCount"])):
                instances.append(await self._instance(run, variant, environment, number))
            variants.append(Variant(variant["VariantName"], float(variant["InitialVariantWeight"]), instances))
        serving = self.calls.engine(Serving)
        run.held["deployed"] = True
        built = run.held.pop("instances", [])
        try:
            await serving.deploy(self._arn(run), run.id, variants, healthy_seconds=healthy)
        except BaseException:
            run.held["deployed"] = False
            for instance in built:
                await instance.close()
            raise
        return resolved

    async def _instance(
        self, run: Run, variant: dict[str, Any], environment: images.Environment, number: int
    ) -> Instance:
        """A server's volume with the model in it; what starts the server, and what frees all that."""
        where = {"account": run.state["account"], "region": run.state["region"]}
        model = MODEL.arn(where["account"], where["region"], variant["ModelName"])
        session = RoleSession(self.calls, variant["role"], **where, source_arn=model)
        try:
            await session.caller()
        except Refused:
            raise Failed("ClientError", cannot_assume(variant["role"]).message) from None
        volumes = self.calls.engine(Volumes)
        placement = self.calls.engine(Placement)
        sandboxes = self.calls.engine(Sandboxes)
        digest = hashlib.sha256(f"{run.id}/{variant['VariantName']}/{number}".encode()).hexdigest()[:24]
        place = f"endpoint-{digest}"
        held: dict[str, Any] = {}

        async def close() -> None:
            for name in ("usages", "measures"):
                if name in held:
                    held.pop(name).abandon()
            log: JobLog | None = held.pop("log", None)
            if log is not None:
                await log.close()
            if held.pop("volume", None):
                await volumes.close(place)
            claim: Claim | None = held.pop("claim", None)
            if claim is not None:
                placement.release(claim)
            await asyncio.to_thread(self.calls.engine(Serving).release, digest)
            session.end()

        folder = self.calls.engine(Serving).place(digest)
        instance = Instance(self._launcher(held), folder / "model.sock", close)
        run.held.setdefault("instances", []).append(instance)
        held["claim"] = await placement.claim(place, variant["InstanceType"], here=True)
        await volumes.close(place)
        held["volume"] = True
        key = await volume_key(session, run.state.get("kms"))
        volume = await volumes.create(place, key, int(variant.get("VolumeSizeInGB") or 30) * GIB)
        ml = volume / "ml"
        await asyncio.to_thread((ml / "model").mkdir, parents=True)
        container = variant["container"]
        if container.get("ModelDataUrl"):
            etag = await _unpack_model(session, container, volume, ml / "model")
            run.held.setdefault("etags", {})[variant["VariantName"]] = etag
        source = str(container["Environment"].get("SAGEMAKER_SUBMIT_DIRECTORY") or "")
        if source.startswith("s3://") and not variant["isolated"]:
            bucket, key_of_source = objects.split(source)
            name = key_of_source.rsplit("/", 1)[-1]
            try:
                await objects.fetch(session, bucket, key_of_source, ml / "input" / "source" / name)
            except Refused as refused:
                raise _no_data(source, refused) from None
        group = f"/aws/sagemaker/Endpoints/{run.state['name']}"
        log = JobLog(session, group, f"{variant['VariantName']}/i-{digest[:17]}")
        held["log"] = log
        await log.open()
        limits = Limits(held["claim"].grant.memory_bytes, held["claim"].grant.cpus)
        spec = Spec(
            name=place,
            image=environment,
            command=list(environment.serve),
            workdir=ml,
            limits=limits,
            env={
                "LOKY_MAX_CPU_COUNT": str(max(1, int(limits.cpus))),
                "AWS_REGION": run.state["region"],
                **container["Environment"],
                "BASTIDE_SERVE_SOCKET": f"{_SOCKET_FOLDER}/model.sock",
            },
            writable=[(folder, _SOCKET_FOLDER)],
            hostname="model",
            hosts=("model",),
        )
        held["start"] = lambda: sandboxes.start(spec)
        measures = held["measures"] = Measures(session, "/aws/sagemaker/Endpoints")
        measures.start()
        dimensions = (("EndpointName", run.state["name"]), ("VariantName", variant["VariantName"]))
        held["measure"] = lambda running: Usages(measures, running, limits.memory_bytes, ml, dimensions)
        return instance

    @staticmethod
    def _launcher(held: dict[str, Any]) -> Any:
        async def read(running: Running, log: JobLog) -> None:
            async for line in running.lines():
                await log.write(line)

        async def launch() -> Running:
            running: Running = await held["start"]()
            if "usages" in held:
                held.pop("usages").abandon()
            held["usages"] = held["measure"](running)
            held["usages"].start()
            held["reading"] = asyncio.get_running_loop().create_task(read(running, held["log"]))
            return running

        return launch

    async def _out_of_service(self, run: Run, reason: str) -> None:
        def work(tx: Transaction) -> None:
            row = ENDPOINT.find(tx, run.state["account"], run.state["region"], run.state["name"])
            if row.status in ("InService", "OutOfService") and row.doc.get("FailureReason") != reason:
                row.status = "OutOfService"
                row.doc["FailureReason"] = reason
                ENDPOINT.change(tx, row, "EndpointStateChange")

        await self.calls.store.write(work)

    async def serve(self, run: Run) -> dict[str, Any]:
        """As long as the endpoint lives."""
        workflows = self.calls.engine(Workflows)
        for earlier in run.state.get("earlier") or ():
            await workflows.signal(earlier, "stop")
        if self._wanted(run):
            await run.signalled("stop")
        return {}

    async def settle(self, run: Run) -> dict[str, Any]:
        """What did not come up says why; what was to go is gone."""
        await self.drop(run)

        def work(tx: Transaction) -> None:
            row = ENDPOINT.get(tx, run.state["account"], run.state["region"], run.state["name"])
            if row is None:
                return
            if row.status == "Deleting" and run.id in (row.doc.get("_live"), row.doc.get("_next")):
                ENDPOINT.remove(tx, row, "EndpointDeleted")
            elif row.doc.get("_next") == run.id and run.failure is not None:
                del row.doc["_next"]
                row.doc.pop("_config", None)
                row.doc["FailureReason"] = run.failure.message[:1024]
                # A failed update leaves who answered before answering.
                row.status = "InService" if row.doc.get("_live") else "Failed"
                ENDPOINT.change(tx, row, "EndpointStateChange")

        run.also(work)
        return {}

    async def drop(self, run: Run) -> None:
        """Ends what this execution started."""
        if run.held.pop("deployed", False):
            await self.calls.engine(Serving).remove(self._arn(run), run.id)
        for instance in run.held.pop("instances", []):
            await instance.close()


async def _unpack_model(session: RoleSession, container: dict[str, Any], volume: Any, folder: Any) -> str:
    url = container["ModelDataUrl"]
    bucket, key = objects.split(url)
    etag = container.get("ModelDataETag")
    packed = volume / "model.tar.gz"
    try:
        got = await objects.fetch(session, bucket, key, packed, etag=f'"{etag}"' if etag else None)
    except Refused as refused:
        if refused.code == "PreconditionFailed":
            raise Failed(
                "ClientError", f"The model data at {url} is not what was registered: its content has changed."
            ) from None
        raise _no_data(url, refused) from None
    try:
        await asyncio.to_thread(archive.unpack, packed, folder, most_bytes=_MOST_UNPACKED)
    except archive.Unfit as unfit:
        raise Failed("ClientError", f"The model data at {url} cannot be unpacked: {unfit}.") from None
    except OSError as error:
        raise Failed("ClientError", f"The model data at {url} cannot be unpacked: {error.strerror}.") from None
    packed.unlink()
    return got["ETag"]


def _no_data(url: str, refused: Refused) -> Failed:
    return Failed(
        "ClientError",
        f"Failed to download model data from {url}. Please ensure that the object exists and that the model's role may "
        f"read and decrypt it ({refused.code}: {refused.message}).",
    )


def _reason(error: Exception) -> str | None:
    """What the endpoint's owner may know of an error; None for what only the operator may."""
    if isinstance(error, Failed):
        return error.message
    if isinstance(error, Refused):
        return f"{error.code}: {error.message}"
    if isinstance(error, Unhealthy):
        return (
            f"The primary container for production variant {error.variant} did not pass the ping health check "
            f"({error.why}). Please check CloudWatch logs for this endpoint."
        )
    return None
