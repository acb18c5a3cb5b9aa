"""How a training job runs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from bastide.engines.images import Environment
from bastide.engines.placement import Grant, Placement
from bastide.engines.workflow import Run
from bastide.kernel import Calls
from bastide.services.sagemaker import archive, debugger, digest, objects, own_image
from bastide.services.sagemaker.channels import Source
from bastide.services.sagemaker.debug_rule import tensors_of
from bastide.services.sagemaker.debugger import Debugger
from bastide.services.sagemaker.host import Host
from bastide.services.sagemaker.job_flow import JobFlow
from bastide.services.sagemaker.job_hosts import GIB
from bastide.services.sagemaker.mirror import Mirror
from bastide.services.sagemaker.outcome import seconds_between, text_of, verdict
from bastide.services.sagemaker.training_job import (
    TRAINING_JOB,
    checkpoints,
    input_mode,
    keep_alive,
    submitted,
    transition,
)
from bastide.services.sagemaker.warm_pool import WarmPools
from bastide.store import Row, Transaction

_MESSAGES = {
    "Completed": "Training job completed",
    "Failed": "Training job failed",
    "Stopped": "Training job stopped",
    "MaxWaitTimeExceeded": "Training job wait time exceeded MaxWaitTimeInSeconds provided",
    "MaxRuntimeExceeded": "Training job runtime exceeded MaxRuntimeInSeconds provided",
}


class TrainingFlow(JobFlow):
    """See the developer guide, "your-algorithms-training-algo"."""

    name = "training"
    kind = TRAINING_JOB
    log_group = "/aws/sagemaker/TrainingJobs"

    def __init__(self, calls: Calls, grace_seconds: float, pools: WarmPools) -> None:
        super().__init__(calls, grace_seconds)
        self._pools = pools

    async def reserve(self, run: Run) -> dict[str, Any]:
        """On the instances that a job like it left, if there are such, ahead of all who wait."""
        row = self.row(run)
        claim = await self._pools.take(row, run.id, here=bool(self.bound(row)))
        if claim is None:
            return await super().reserve(run)
        run.held["claim"], run.held["interrupt"] = claim, asyncio.Event()
        return {"started": run.state.get("started") or run.clock()}

    async def settle(self, run: Run) -> dict[str, Any]:
        if keep_alive(self.row(run).doc) and verdict(run)[0] == "Completed" and "claim" in run.held:
            self._pools.retain(run.id, run.held.pop("claim"))
        return await super().settle(run)

    def further(self, row: Row) -> list[Grant]:
        return debugger.part(self.calls.engine(Placement), row.doc)

    def beside(self, run: Run, row: Row, hosts: Sequence[Host]) -> Debugger | None:
        if not row.doc.get("DebugHookConfig"):
            return None
        most = int(self.resources(row).get("VolumeSizeInGB") or 30) * GIB
        return Debugger(self.calls, run.held["session"], row, hosts, most)

    def over(self, tx: Transaction, row: Row, run: Run) -> None:
        debugger.leave(row, tx.now)
        if "WarmPoolStatus" in row.doc:
            self._pools.leave(tx, row)

    def image(self, row: Row) -> str:
        return str(row.doc["AlgorithmSpecification"]["TrainingImage"])

    def resources(self, row: Row) -> dict[str, Any]:
        found: dict[str, Any] = row.doc["ResourceConfig"]
        return found

    def sources(self, row: Row) -> list[Source]:
        found = []
        for channel in row.doc.get("InputDataConfig") or ():
            given = channel["DataSource"]["S3DataSource"]
            bucket, key = objects.split(given["S3Uri"])
            shuffle = channel.get("ShuffleConfig")
            found.append(
                Source(
                    channel["ChannelName"],
                    bucket,
                    key,
                    f"input/data/{channel['ChannelName']}",
                    mode=input_mode(row.doc, channel),
                    data=given["S3DataType"],
                    sharded=given.get("S3DataDistributionType") == "ShardedByS3Key",
                    seed=None if shuffle is None else int(shuffle["Seed"]),
                    packed=channel.get("CompressionType") == "Gzip",
                    recordio=channel.get("RecordWrapperType") == "RecordIO",
                    attributes=tuple(given.get("AttributeNames") or ()),
                    groups=tuple(given.get("InstanceGroupNames") or ()),
                )
            )
        if code := submitted(row):
            bucket, key = objects.split(code)
            found.append(Source(" code", bucket, key, "input/source", prefix=False))
        return found

    def configure(self, row: Row, host: Host, hosts: Sequence[Host], ml: Path) -> None:
        config = ml / "input" / "config"
        channels = {
            one["ChannelName"]: {
                "TrainingInputMode": input_mode(row.doc, one),
                "S3DistributionType": one["DataSource"]["S3DataSource"].get(
                    "S3DataDistributionType", "FullyReplicated"
                ),
                "RecordWrapperType": one.get("RecordWrapperType", "None"),
                **({"ContentType": one["ContentType"]} if one.get("ContentType") else {}),
            }
            for one in row.doc.get("InputDataConfig") or ()
            if host.group in (one["DataSource"]["S3DataSource"].get("InstanceGroupNames") or (host.group,))
        }
        groups: dict[str, dict[str, Any]] = {}
        for one in hosts:
            group = groups.setdefault(
                one.group, {"instance_group_name": one.group, "instance_type": one.type, "hosts": []}
            )
            group["hosts"].append(one.name)
        files: dict[str, Any] = {
            "hyperparameters.json": row.doc.get("HyperParameters") or {},
            "inputdataconfig.json": channels,
            "resourceconfig.json": {
                "current_host": host.name,
                "current_instance_type": host.type,
                "current_group_name": host.group,
                "hosts": sorted(one.name for one in hosts),
                "instance_groups": list(groups.values()),
                "network_interface_name": host.interface,
            },
        }
        if hook := row.doc.get("DebugHookConfig"):
            files["debughookconfig.json"] = {**hook, "LocalPath": f"/opt/ml/{tensors_of(row.doc)}"}
        for name, content in files.items():
            (config / name).write_bytes(orjson.dumps(content))

    def spot(self, row: Row) -> bool:
        return bool(row.doc.get("EnableManagedSpotTraining"))

    def follows(self, row: Row) -> str:
        return "CheckpointConfig" if row.doc.get("CheckpointConfig") else ""

    async def mirror(self, run: Run, row: Row, host: Host) -> list[Mirror]:
        config = row.doc.get("CheckpointConfig")
        if not config:
            return []
        bucket, base = objects.split(config["S3Uri"])
        made = Mirror(
            run.held["session"],
            bucket,
            base,
            host.ml,
            checkpoints(config),
            deletes=True,
            most_bytes=int(self.resources(row).get("VolumeSizeInGB") or 30) * GIB,
        )
        await made.restore()
        return [made]

    def network(self, row: Row) -> tuple[Any, bool, bool]:
        doc = row.doc
        return (
            doc.get("VpcConfig"),
            bool(doc["EnableNetworkIsolation"]),
            bool(doc["EnableInterContainerTrafficEncryption"]),
        )

    def command(self, row: Row, environment: Environment) -> Sequence[str]:
        algorithm = row.doc["AlgorithmSpecification"]
        given = algorithm.get("ContainerEntrypoint"), algorithm.get("ContainerArguments")
        return own_image.command(environment, *given, "train")

    def variables(self, row: Row) -> Mapping[str, str]:
        return {
            **(row.doc.get("Environment") or {}),
            "TRAINING_JOB_NAME": row.name,
            "TRAINING_JOB_ARN": TRAINING_JOB.arn(row.account, row.region, row.name),
            "AWS_REGION": row.region,
        }

    async def deliver(self, run: Run, row: Row, hosts: Sequence[Host]) -> dict[str, Any]:
        target = row.doc["OutputDataConfig"]
        bucket, base = objects.split(target["S3OutputPath"])
        kms_key = target.get("KmsKeyId") or None
        folder = "/".join(part for part in (base.strip("/"), row.name, "output") if part)
        most = int(self.resources(row).get("VolumeSizeInGB") or 30) * GIB
        session = run.held["session"]
        found: dict[str, Any] = {}
        for source, name in (("model", "model"), ("output/data", "output")):
            every = await asyncio.to_thread(merged, [host.ml for host in hosts], source, most)
            if name == "output" and not every:
                continue
            if target.get("CompressionType") == "NONE":
                await objects.store_all(session, bucket, f"{folder}/{name}", every, kms_key)
                content = await asyncio.to_thread(digest.of_files, every)
                found[f"{name} is"] = {"ETag": "", "VersionId": "", "sha256": content}
                found[name] = f"s3://{bucket}/{folder}/{name}/"
                continue
            packed = hosts[0].ml.parent / f"{name}.tar.gz"  # on the volume: it is never in the clear on the disk
            packed.unlink(missing_ok=True)
            await asyncio.to_thread(archive.pack, every, packed)
            content = await asyncio.to_thread(digest.of_file, packed)
            stored = await objects.store(session, bucket, f"{folder}/{name}.tar.gz", packed, kms_key)
            found[f"{name} is"] = {**stored, "sha256": content}
            packed.unlink()
            found[name] = f"s3://{bucket}/{folder}/{name}.tar.gz"
        return found

    def ended(self, row: Row, ml: Path, outcome: dict[str, Any]) -> None:
        outcome["failure"] = text_of(ml, "output", "failure", 1024)

    def secondary(self, row: Row, status: str, message: str, now: int) -> bool:
        if row.doc["SecondaryStatus"] == status:
            return False
        transition(row, status, message, now)
        return True

    def finish(self, row: Row, status: str, run: Run, now: int) -> None:
        doc = row.doc
        message = _MESSAGES[status]
        transition(row, status, message, now)
        doc["SecondaryStatusTransitions"][-1]["EndTime"] = now
        delivered = run.state.get("delivered") or {}
        if "model" in delivered:
            doc["ModelArtifacts"] = {"S3ModelArtifacts": delivered["model"]}
        if run.state.get("metrics"):
            doc["FinalMetricDataList"] = run.state["metrics"]
        if run.state.get("course"):
            doc["_course"] = run.state["course"]
        start = run.state.get("started")
        doc["TrainingEndTime"] = now
        if start is not None:
            doc["TrainingStartTime"] = start
            doc["TrainingTimeInSeconds"] = doc["BillableTimeInSeconds"] = seconds_between(start, now)
            if self.spot(row):  # what it waited for others is not billed
                doc["BillableTimeInSeconds"] = seconds_between(0, run.state.get("ran") or 0)
        doc["_pinned"] = run.state.get("pinned")


def merged(places: Sequence[Path], folder: str, most: int) -> list[tuple[str, Path]]:
    """The files below a folder of several hosts, with their names in it, sorted. Of two hosts that have a file, the later
    one's counts, as on a disk that both wrote to. Raises Unfit (see ``archive.files``)."""
    found: dict[str, Path] = {}
    for ml in places:
        found.update(archive.files(archive.plain_folder(ml, folder), most_bytes=most))
    for name in found:
        if any(str(parent) in found for parent in PurePosixPath(name).parents):
            raise archive.Unfit(f"`{name[:200]}` is below what is a file on another host")
    return sorted(found.items())
