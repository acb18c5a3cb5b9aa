"""How an endpoint comes up, changes, stays up and goes.

One execution serves one configuration of one endpoint: assume, deploy, serve, settle. It stays in `serve` as long as the
endpoint lives, so that a platform that was started again finds it and goes on from `assume`: with the role as it is
now, and with keys that still may be used. An update is a new execution, which takes over as its deployment says and tells
the one before when it has; until then that one answers, and if it fails goes on doing so. A change of weights or counts
is an update that keeps the servers that are there.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from bastide.domain import MICROS, Refused
from bastide.engines.serving import OnDemand, Serving, Unhealthy, Variant
from bastide.engines.telemetry import Meter
from bastide.engines.workflow import Failed, Flow, Run, Step, Wait, Workflows
from bastide.kernel import Calls
from bastide.services.sagemaker import job_network, lineage_record, own_image
from bastide.services.sagemaker.capture import Capture
from bastide.services.sagemaker.endpoint import ENDPOINT, retain, shown
from bastide.services.sagemaker.endpoint_config import ENDPOINT_CONFIG
from bastide.services.sagemaker.model import MODEL
from bastide.services.sagemaker.observing import Observing
from bastide.services.sagemaker.session import RoleSession
from bastide.services.sagemaker.traffic import Shift
from bastide.services.sagemaker.variant_host import VariantHost, server_of
from bastide.store import Row, Transaction, View

_log = logging.getLogger("bastide.sagemaker")

_HEALTHY_SECONDS: Final = 240
_AGAIN: Final = 15 * MICROS
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
        """What is to be served, as configured when that was asked for: the plan."""
        if not self._wanted(run) or "plan" in run.state:
            return {}
        if "variants" in run.state:
            return {"plan": _earlier(run.state)}
        where = (run.state["account"], run.state["region"])
        retained = run.state.get("retained") or {}
        with self.calls.store.reading() as view:
            doc = ENDPOINT_CONFIG.find(view, *where, run.state["config"]).doc
            kept = retained.get("variants") or {}
            plan = {
                "variants": [
                    self._planned(view, where, retain(one, kept.get(one["VariantName"]) or {}))
                    for one in doc["ProductionVariants"]
                ],
                "shadows": [self._planned(view, where, one) for one in doc.get("ShadowProductionVariants") or ()],
                "kms": doc.get("KmsKeyId"),
                "capture": retained["capture"] if "capture" in retained else doc.get("DataCaptureConfig"),
                "async": doc.get("AsyncInferenceConfig"),
            }
        return {"plan": plan}

    @staticmethod
    def _planned(view: View, where: tuple[str, str], variant: dict[str, Any]) -> dict[str, Any]:
        doc = MODEL.find(view, *where, variant["ModelName"]).doc
        return {
            **variant,
            "role": doc["ExecutionRoleArn"],
            "isolated": doc["EnableNetworkIsolation"],
            "vpc": doc.get("VpcConfig"),
            "containers": doc["_resolved"],
            "direct": (doc.get("InferenceExecutionConfig") or {}).get("Mode") == "Direct",
        }

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
        await self._take_over(run)
        earlier: list[str] = []
        plan = run.state["plan"]

        def work(tx: Transaction) -> None:
            row = ENDPOINT.find(tx, run.state["account"], run.state["region"], run.state["name"])
            earlier.clear()
            if row.doc.get("_next") == run.id:
                if row.doc.get("_live"):
                    earlier.append(row.doc["_live"])
                row.doc["_live"] = row.doc.pop("_next")
                row.doc["EndpointConfigName"] = run.state.get("config") or row.doc["EndpointConfigName"]
                if run.state.get("deployment"):
                    row.doc["LastDeploymentConfig"] = run.state["deployment"]
            elif row.doc.get("_live") != run.id:
                return
            elif row.status != "OutOfService":
                if "_plan" not in row.doc:
                    row.doc["_plan"] = plan
                    ENDPOINT.change(tx, row, "EndpointStateChange")
                return
            _show(row, plan, resolved)
            if row.status != "Deleting":
                row.status = "InService"
            ENDPOINT.change(tx, row, "EndpointStateChange")
            self._lineage(tx, row, run)

        run.also(work)
        return {"earlier": earlier}

    def _lineage(self, tx: Transaction, row: Row, run: Run) -> None:
        """What serves from now on, and where it came from; nothing if the servers are those that served before."""
        fetched = run.held.get("fetched") or {}
        if not fetched:
            return
        models = {}
        for variant in (*run.state["plan"]["variants"], *run.state["plan"]["shadows"]):
            model = MODEL.get(tx, row.account, row.region, variant["ModelName"])
            if model is None:
                return  # removed while it was deployed: its lineage stays, and cannot be joined any more
            arn = MODEL.arn(row.account, row.region, model.name)
            models[variant["VariantName"]] = lineage_record.of_model(tx, arn, model)
        lineage_record.of_endpoint(tx, self._arn(run), row, run, models, fetched)

    async def _deploy(self, run: Run) -> dict[str, list[tuple[str, str, int]]]:
        """Brings up what the plan has and is not there yet."""
        plan, serving, arn = run.state["plan"], self.calls.engine(Serving), self._arn(run)
        row = self._row(run)
        # Servers are kept only of what this process started for the very plan that is changed.
        keeps = "config" not in run.state and row.doc.get("_live") != run.id
        where = {key: run.state[key] for key in ("account", "region", "name")}
        host = VariantHost(self.calls, run.id, **where, kms=plan["kms"])
        run.held["deployed"] = True
        resolved: dict[str, list[tuple[str, str, int]]] = {}
        variants: list[Variant] = []
        every = (*plan["variants"], *plan["shadows"])
        healthy = max(int(one.get("ContainerStartupHealthCheckTimeoutInSeconds") or _HEALTHY_SECONDS) for one in every)
        built: list[Any] = []
        try:
            for one in every:
                name = one["VariantName"]
                resolved[name] = [
                    (each["Image"], own_image.served(self.calls, where["account"], each), run.clock())
                    for each in one["containers"]
                ]
                variant = Variant(name, float(one["InitialVariantWeight"]), direct=one["direct"])
                variant.shadow = one in plan["shadows"]
                serverless = one.get("ServerlessConfig")
                if serverless:
                    variant.on_demand = OnDemand(
                        _growing(host, one), serverless["MaxConcurrency"], serverless.get("ProvisionedConcurrency") or 0
                    )
                else:
                    count = int(one["InitialInstanceCount"])
                    variant.keep = min(count, serving.servers(arn, name)) if keeps else 0
                    mine = [await host.instance(one) for _ in range(count - variant.keep)]
                    built += mine
                    variant.instances = mine
                variants.append(variant)
        except BaseException:
            run.held["deployed"] = False
            for instance in built:
                await instance.close()
            raise
        observer = Observing(self.calls.engine(Capture), self.calls.engine(Meter), arn, where, plan)
        try:
            await serving.bring(arn, run.id, variants, healthy_seconds=healthy, observer=observer)
        except BaseException:
            run.held["deployed"] = False
            raise
        run.held["fetched"] = host.fetched
        return resolved

    async def _take_over(self, run: Run) -> None:
        """Has the new servers answer, as the deployment says; raises Failed if it is to be rolled back."""
        serving, arn = self.calls.engine(Serving), self._arn(run)
        row = self._row(run)
        if "config" not in run.state or row.doc.get("_live") in (None, run.id) or not serving.ready(arn):
            serving.shift(arn, run.id, 1.0)
            return

        async def tell(status: str, message: str, share: float) -> None:
            await self._pending(run, status, message, share)

        await Shift(self.calls, run, arn, run.state["plan"], run.state.get("deployment") or {}, tell).through()

    async def _pending(self, run: Run, status: str, message: str, share: float) -> None:
        """DescribeEndpoint tells how far an update is: its servers are up, and so much of the calls goes there."""

        def work(tx: Transaction) -> None:
            row = ENDPOINT.find(tx, run.state["account"], run.state["region"], run.state["name"])
            summary = row.doc.get("PendingDeploymentSummary")
            if row.doc.get("_next") != run.id or not summary:
                return
            for one in summary["ProductionVariants"]:
                one["CurrentWeight"] = one["DesiredWeight"] * share
                if "DesiredInstanceCount" in one:
                    one["CurrentInstanceCount"] = one["DesiredInstanceCount"]
                one["VariantStatus"] = [{"Status": status, "StatusMessage": message, "StartTime": tx.now}]
            tx.update(row, event="EndpointStateChange", keep=False)

        await self.calls.store.write(work)

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
        if self._wanted(run):
            # After a restart the one that is to take over may have come up first: it is not in the way.
            following = self._row(run).doc.get("_next")
            self.calls.engine(Serving).settle(self._arn(run), run.id, beside=following)
        workflows = self.calls.engine(Workflows)
        for earlier in run.state.get("earlier") or ():
            await workflows.signal(earlier, "stop")
        if self._wanted(run):
            await run.signalled("stop")
        return {}

    async def settle(self, run: Run) -> dict[str, Any]:
        """What did not come up says why; what was to go is gone."""
        await self.drop(run)
        if self._gone(run):
            await self._unplug(run)

        def work(tx: Transaction) -> None:
            row = ENDPOINT.get(tx, run.state["account"], run.state["region"], run.state["name"])
            if row is None:
                return
            if row.status == "Deleting" and run.id in (row.doc.get("_live"), row.doc.get("_next")):
                ENDPOINT.remove(tx, row, "EndpointDeleted")
            elif row.doc.get("_next") == run.id and run.failure is not None:
                for member in ("_next", "_asked", "PendingDeploymentSummary"):
                    row.doc.pop(member, None)
                row.doc["FailureReason"] = run.failure.message[:1024]
                # A failed update leaves who answered before answering.
                row.status = "InService" if row.doc.get("_live") else "Failed"
                for one in row.doc.get("ProductionVariants") or ():
                    for member in ("Weight", "InstanceCount"):
                        if f"Current{member}" in one:
                            one[f"Desired{member}"] = one[f"Current{member}"]
                ENDPOINT.change(tx, row, "EndpointStateChange")

        run.also(work)
        return {}

    def _gone(self, run: Run) -> bool:
        with self.calls.store.reading() as view:
            row = ENDPOINT.get(view, run.state["account"], run.state["region"], run.state["name"])
        return row is not None and row.status == "Deleting"

    async def _unplug(self, run: Run) -> None:
        """Removes the network interfaces of servers that a killed platform left. A role that may not leaves them, too."""
        plan = run.state.get("plan") or {}
        for variant in (*plan.get("variants", ()), *plan.get("shadows", ())):
            if not variant.get("vpc") or variant["isolated"]:
                continue
            where = (run.state["account"], run.state["region"])
            model = MODEL.arn(*where, variant["ModelName"])
            session = RoleSession(self.calls, variant["role"], account=where[0], region=where[1], source_arn=model)
            try:
                await job_network.clean(session, server_of(self._arn(run), "*"))
            except Refused as refused:
                _log.warning("network interfaces of %s are left: %s", run.id, refused.code)

    async def drop(self, run: Run) -> None:
        """Ends what this execution started."""
        if run.held.pop("deployed", False):
            await self.calls.engine(Serving).remove(self._arn(run), run.id)


def _earlier(state: dict[str, Any]) -> dict[str, Any]:
    """The plan of an execution that was begun before there were plans."""
    variants = [{**one, "containers": [one["container"]], "direct": False} for one in state["variants"]]
    return {"variants": variants, "shadows": [], "kms": state.get("kms"), "capture": None, "async": None}


def _growing(host: VariantHost, variant: dict[str, Any]) -> Any:
    return lambda: host.instance(variant)


def _show(row: Row, plan: dict[str, Any], resolved: dict[str, list[tuple[str, str, int]]]) -> None:
    """What DescribeEndpoint tells of what is served."""
    for member in (
        "FailureReason",
        "_asked",
        "PendingDeploymentSummary",
        "DataCaptureConfig",
        "ShadowProductionVariants",
    ):
        row.doc.pop(member, None)
    row.doc["_plan"] = plan
    row.doc["ProductionVariants"] = shown(plan["variants"], resolved)
    if plan["shadows"]:
        row.doc["ShadowProductionVariants"] = shown(plan["shadows"], resolved)
    if plan["async"]:
        row.doc["AsyncInferenceConfig"] = plan["async"]
    capture = plan["capture"]
    if capture:
        enabled = bool(capture.get("EnableCapture"))
        row.doc["DataCaptureConfig"] = {
            "EnableCapture": enabled,
            "CaptureStatus": "Started" if enabled else "Stopped",
            "CurrentSamplingPercentage": capture["InitialSamplingPercentage"],
            "DestinationS3Uri": capture["DestinationS3Uri"],
            "KmsKeyId": capture.get("KmsKeyId") or "",
        }


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
