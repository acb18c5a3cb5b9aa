"""How a transform job runs.

assume, reserve, pin, deploy, transform, settle. Servers and what they hold live in this process and end with it; a platform
that was started again goes on from `assume`, with the inputs that were pinned. What was stored before is stored again, the
same: nothing tells the two apart but their versions.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from typing import Any, Final

import orjson

from bastide.domain import MICROS, Refused, iso
from bastide.engines.placement import Claim, Placement
from bastide.engines.serving import Lost, NotReady, Serving, Unhealthy, Variant
from bastide.engines.workflow import Failed, Flow, Run, Step
from bastide.kernel import Bytes, Calls, LogStream
from bastide.services.sagemaker import channels, job_network, job_record, objects
from bastide.services.sagemaker.job_flow import JobFlow
from bastide.services.sagemaker.model import MODEL
from bastide.services.sagemaker.outcome import REASON, STOPPED
from bastide.services.sagemaker.session import RoleSession, cannot_assume
from bastide.services.sagemaker.transform_fault import Fault
from bastide.services.sagemaker.transform_job import MOST_PAYLOAD, TRANSFORM_JOB
from bastide.services.sagemaker.transform_records import MIB
from bastide.services.sagemaker.transform_work import MOST_ANSWER, Item, Place, Settings, Work
from bastide.services.sagemaker.variant_host import VariantHost
from bastide.store import Row, Transaction

_log = logging.getLogger("bastide.sagemaker")

_GROUP: Final = "/aws/sagemaker/TransformJobs"
_LONGEST: Final = 28 * 86400
"""Seconds that a job runs at most."""
_HEALTHY_SECONDS: Final = 240.0
_TELLING_SECONDS: Final = 10.0
_SECONDS, _RETRIES, _PAYLOAD = 600, 3, 6
_INTERNAL: Final = "InternalServerError: We encountered an internal error. Please try again."
_SINGLE: Final = "SINGLE_RECORD"
_STRATEGIES: Final = {"SingleRecord": _SINGLE, "MultiRecord": "MULTI_RECORD"}


class TransformFlow:
    """The flow of transform jobs."""

    name = "transform"

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    def flow(self) -> Flow:
        """The flow."""
        return Flow(
            self.name,
            [
                Step("assume", self.assume),
                *(
                    Step(step.__name__, step, again_from="assume")
                    for step in (self.reserve, self.pin, self.deploy, self.transform)
                ),
                Step("settle", self.settle, always=True),
            ],
            drop=self.drop,
        )

    def _row(self, run: Run) -> Row:
        with self.calls.store.reading() as view:
            return TRANSFORM_JOB.find(view, run.state["account"], run.state["region"], run.state["name"])

    # -- the steps ---------------------------------------------------------------------------------------------------------

    async def assume(self, run: Run) -> dict[str, Any]:
        """Credentials of the model's execution role."""
        row = self._row(run)
        role = row.doc["_model"]["role"]
        model = MODEL.arn(row.account, row.region, row.doc["ModelName"])
        session = RoleSession(self.calls, role, account=row.account, region=row.region, source_arn=model)
        try:
            await session.caller()
        except Refused:
            raise Failed("ClientError", cannot_assume(role).message) from None
        held = row.doc["_model"]
        job_network.go_by_vpc(session, held.get("vpc"), isolated=held["isolated"])
        run.held["session"] = session
        return {}

    async def reserve(self, run: Run) -> dict[str, Any]:
        """Room for all instances, or none."""
        resources = self._row(run).doc["TransformResources"]
        types = [resources["InstanceType"]] * int(resources["InstanceCount"])
        claiming = self.calls.engine(Placement).claim(run.id, *types, here=True)
        run.held["claim"] = await JobFlow.unless_stopped(run, claiming)
        return {"started": run.state.get("started") or run.clock()}

    async def pin(self, run: Run) -> dict[str, Any]:
        """Which objects, and of which content; a job that is taken up again goes by what was written down."""
        if "items" in run.state:
            return {}
        row = self._row(run)
        given = row.doc["TransformInput"]["DataSource"]["S3DataSource"]
        bucket, key = objects.split(given["S3Uri"])
        source = channels.Source("input", bucket, key, "", data=given["S3DataType"])
        found = await JobFlow.unless_stopped(run, channels.content(run.held["session"], source))
        paths: set[str] = set()
        for one in found.items:
            if one.path in paths:
                raise Failed("ClientError", f"Two objects of the input would become {one.path}.out.")
            paths.add(one.path)
        pinned = {
            "uri": given["S3Uri"],
            "objects": len(found.items),
            "bytes": sum(one.size for one in found.items),
            "sha256": hashlib.sha256(orjson.dumps(found.told)).hexdigest(),
        }
        return {"items": [[one.bucket, one.key, one.etag, one.path] for one in found.items], "pinned": pinned}

    async def deploy(self, run: Run) -> dict[str, Any]:
        """Brings the servers up."""
        try:
            return {"fetched": await JobFlow.unless_stopped(run, self._deploy(run))}
        except Unhealthy as error:
            raise Failed("AlgorithmError", f"The model did not come up: {error.why}. See job logs.") from None

    async def _deploy(self, run: Run) -> dict[str, str]:
        """URLs of the models' data, and their ETags."""
        row = self._row(run)
        doc, session = row.doc, run.held["session"]
        resources = doc["TransformResources"]
        model = doc["_model"]
        claim: Claim = run.held["claim"]
        epoch = run.clock() // 1000
        kms = resources.get("VolumeKmsKeyId")
        host = VariantHost(self.calls, run.id, account=row.account, region=row.region, name=row.name, kms=kms)
        told = self._variables(row)
        containers = [{**one, "Environment": {**one["Environment"], **told}} for one in model["containers"]]
        run.held["deployed"] = True
        places: list[Place] = run.held.setdefault("places", [])
        variants: list[Variant] = []

        async def build(number: int) -> None:
            name = f"i-{hashlib.sha256(f'{run.id}/{number}'.encode()).hexdigest()[:17]}"
            variant = {
                "VariantName": name,
                "ModelName": doc["ModelName"],
                "role": model["role"],
                "isolated": model["isolated"],
                "vpc": model.get("vpc"),
                "arn": self._arn(run),
                "containers": containers,
                "granted": claim.places[number],
                "most": MOST_ANSWER,
                "log": (_GROUP, f"{row.name}/{name}-{epoch}"),
                "measured": (_GROUP, (("Host", f"{row.name}/{name}"),)),
            }
            log = LogStream(session, _GROUP, f"{row.name}/{name}-{epoch}/data-log")
            variants.append(Variant(name, 1.0, [await host.instance(variant)]))
            await log.open()
            places.append(Place(name, log))

        try:
            await channels.together(build(number) for number in range(int(resources["InstanceCount"])))
        except BaseException:
            for one in variants:
                for instance in one.instances:
                    await instance.close()
            raise
        serving, arn = self.calls.engine(Serving), self._arn(run)
        await serving.bring(arn, run.id, variants, healthy_seconds=_HEALTHY_SECONDS)
        serving.shift(arn, run.id, 1.0)
        return next(iter(host.fetched.values()))

    def _variables(self, row: Row) -> dict[str, str]:
        doc = row.doc
        told = {
            **(doc.get("Environment") or {}),
            "SAGEMAKER_BATCH": "true",
            "TRANSFORM_JOB_ARN": TRANSFORM_JOB.arn(row.account, row.region, row.name),
        }
        if doc.get("MaxPayloadInMB") is not None:
            told["SAGEMAKER_MAX_PAYLOAD_IN_MB"] = str(doc["MaxPayloadInMB"])
        if doc.get("BatchStrategy"):
            told["SAGEMAKER_BATCH_STRATEGY"] = _STRATEGIES[doc["BatchStrategy"]]
        if doc.get("MaxConcurrentTransforms"):
            told["SAGEMAKER_MAX_CONCURRENT_TRANSFORMS"] = str(doc["MaxConcurrentTransforms"])
        return told

    def _arn(self, run: Run) -> str:
        return TRANSFORM_JOB.arn(run.state["account"], run.state["region"], run.state["name"])

    async def transform(self, run: Run) -> dict[str, Any]:
        """All objects; one that cannot be transformed keeps none of the others from it."""
        row = self._row(run)
        work = asyncio.ensure_future(self._transform(run, row))
        stop = asyncio.ensure_future(run.signalled("stop"))
        left = _LONGEST - (run.clock() - run.state["started"]) / MICROS
        try:
            await asyncio.wait({work, stop}, timeout=max(0.0, left), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            if stop.done():
                raise Failed(STOPPED, "The job was stopped.")
            raise Failed("ClientError", f"The job ran for more than {_LONGEST} seconds.")
        finally:
            for one in (work, stop):
                one.cancel()
            await asyncio.gather(work, stop, return_exceptions=True)

    async def _transform(self, run: Run, row: Row) -> dict[str, Any]:
        places: list[Place] = run.held["places"]
        settings = await self._settings(run, row.doc, places)
        began = iso(run.state["started"])[:19] + "Z"
        work = Work(run.held["session"], self.calls.engine(Serving), self._arn(run), row.doc, settings, began)
        items = [Item(*one) for one in run.state["items"]]
        waiting = iter(items)
        faults: dict[str, Fault] = {}

        async def lane(place: Place) -> None:
            for item in waiting:  # shared: the next instance that is free takes the next object
                try:
                    await work.transform(item, place)
                except Fault as fault:
                    faults[item.where] = fault
                    await _tell(place, item, fault)

        for place in places:
            place.slots = asyncio.Semaphore(settings.at_once)
        await channels.together(lane(place) for place in places for _ in range(settings.at_once))
        if row.doc.get("DataCaptureConfig"):
            done = [item for item in items if item.where not in faults]
            await self._capture(run, row, work, done)
        first = next((item.where for item in items if item.where in faults), None)
        if first is None:
            return {"stored": work.stored}
        fault, many = faults[first], len(faults)
        others = f" ({many} of {len(items)} objects failed)" if len(items) > 1 else ""
        return {"failed": f"{fault.code}: {fault.text}: {first}{others}. See job logs for more information"}

    async def _settings(self, run: Run, doc: dict[str, Any], places: list[Place]) -> Settings:
        """What the request says, or else the container, or else the default."""
        told: dict[str, Any] = {}
        try:
            answer = await self.calls.engine(Serving).get(
                self._arn(run), places[0].name, "/execution-parameters", seconds=_TELLING_SECONDS
            )
            if answer.status == 200:
                told = _parameters(answer.body)
        except (Lost, NotReady, TimeoutError):
            pass  # it is optional
        payload = doc.get("MaxPayloadInMB")
        if payload is None:
            payload = told.get("MaxPayloadInMB", _PAYLOAD)
            cut = doc["TransformInput"]["SplitType"] != "None"
            payload = _PAYLOAD if payload == 0 and cut else payload
        at_once = doc.get("MaxConcurrentTransforms") or told.get("MaxConcurrentTransforms") or 1
        if payload and at_once * payload > MOST_PAYLOAD:
            at_once = max(1, MOST_PAYLOAD // payload)
        strategy = _STRATEGIES[doc["BatchStrategy"]] if doc.get("BatchStrategy") else told.get("BatchStrategy")
        strategy = strategy or "MULTI_RECORD"
        line = f"MaxConcurrentTransforms={at_once}, MaxPayloadInMB={payload}, BatchStrategy={strategy}"
        for place in places:
            await place.log.write(f"[sagemaker logs]: {line}".encode())
        client = doc.get("ModelClientConfig") or {}
        return Settings(
            at_once,
            payload * MIB,
            strategy == _SINGLE and doc["TransformInput"]["SplitType"] != "None",
            float(client.get("InvocationsTimeoutInSeconds") or _SECONDS),
            int(client.get("InvocationsMaxRetries", _RETRIES)),
        )

    async def _capture(self, run: Run, row: Row, work: Work, done: list[Item]) -> None:
        """Manifests of what went in and came out, below the hour of the job's start."""
        if not done:
            return
        config = row.doc["DataCaptureConfig"]
        bucket, base = objects.split(config["DestinationS3Uri"])
        hour = iso(run.state["started"])[:13].replace("-", "/").replace("T", "/")
        name = hashlib.sha256(self._arn(run).encode()).hexdigest()[:32]
        sources = [(item.bucket, item.key) for item in done]
        for folder, every in (("input", sources), ("output", [work.target(item) for item in done])):
            key = "/".join(part for part in (base.strip("/"), folder, hour, f"{name}.json") if part)
            asked = {"Bucket": bucket, "Key": key}
            if config.get("KmsKeyId"):
                asked |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": config["KmsKeyId"]}
            manifest = orjson.dumps(_manifest(every))
            try:
                await work.session.act("s3", "PutObject", asked, body=Bytes(manifest))
            except Refused as refused:
                where = f"s3://{bucket}/{key}"
                raise Failed(
                    "ClientError", f"Data capture failed: {refused.code}: {refused.message} ({where})"
                ) from None

    async def settle(self, run: Run) -> dict[str, Any]:
        """The last status, whatever happened."""
        await self.drop(run)
        now = run.clock()

        def work(tx: Transaction) -> None:
            row = TRANSFORM_JOB.find(tx, run.state["account"], run.state["region"], run.state["name"])
            if row.status not in ("InProgress", "Stopping"):
                return
            row.status, reason = _verdict(run)
            if reason:
                row.doc["FailureReason"] = reason[:REASON]
            if run.state.get("started") is not None:
                row.doc["TransformStartTime"] = run.state["started"]
            row.doc["TransformEndTime"] = now
            row.doc["_pinned"] = run.state.get("pinned")
            TRANSFORM_JOB.change(tx, row, "TransformJobStateChange")
            job_record.ended(tx, TRANSFORM_JOB, row, run)

        run.also(work)
        return {"ended": now}

    async def drop(self, run: Run) -> None:
        """Ends what runs and frees what is held; bears repeating."""
        held = run.held
        if held.pop("deployed", False):
            # At once: what the servers had to say they have said.
            await self.calls.engine(Serving).remove(self._arn(run), run.id, grace=0.0)
        for place in held.pop("places", []):
            await place.log.close()
        claim: Claim | None = held.pop("claim", None)
        if claim is not None:
            self.calls.engine(Placement).release(claim)
        session: RoleSession | None = held.pop("session", None)
        if session is not None:
            session.end()


def _verdict(run: Run) -> tuple[str, str]:
    failure = run.failure
    if failure is not None:
        if failure.code == STOPPED:
            return STOPPED, ""
        return "Failed", f"{failure.code}: {failure.message}" if failure.foreseen else _INTERNAL
    if run.state.get("failed"):
        return "Failed", run.state["failed"]
    return "Completed", ""


def _parameters(body: bytes) -> dict[str, Any]:
    """What a container says of itself, as far as it makes sense."""
    try:
        given = orjson.loads(body) if len(body) < MIB else None
    except ValueError:
        given = None
    if not isinstance(given, dict):
        return {}
    found: dict[str, Any] = {}
    for name, least in (("MaxConcurrentTransforms", 1), ("MaxPayloadInMB", 0)):
        value = given.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= MOST_PAYLOAD:
            found[name] = value
    if given.get("BatchStrategy") in _STRATEGIES.values():
        found["BatchStrategy"] = given["BatchStrategy"]
    return found


def _manifest(every: list[tuple[str, str]]) -> list[Any]:
    """Objects as SageMaker's manifests name them: the longest folder that all are in, and what is behind it."""
    keys = [key for _, key in every]
    low, high = min(keys), max(keys)
    shared = next((at for at, one in enumerate(low) if at >= len(high) or one != high[at]), len(low))
    folder = low[:shared].rpartition("/")[0]
    folder = f"{folder}/" if folder else ""
    return [{"prefix": f"s3://{every[0][0]}/{folder}"}, *(key[len(folder) :] for key in keys)]


async def _tell(place: Place, item: Item, fault: Fault) -> None:
    """Writes to the job's log why an object failed, as SageMaker does."""
    for line in (str(fault), *(["", "Message:", *fault.detail.splitlines()[:100]] if fault.detail else [])):
        await place.log.write(f"[sagemaker logs]: {item.where}: {line}".encode())
