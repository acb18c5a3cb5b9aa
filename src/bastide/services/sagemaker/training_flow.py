"""How a training job runs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from bastide.engines.images import Environment
from bastide.engines.workflow import Run
from bastide.services.sagemaker import archive, digest, objects
from bastide.services.sagemaker.job_flow import GIB, HOST, JobFlow, Source, seconds_between, text_of
from bastide.services.sagemaker.training_job import TRAINING_JOB, submitted, transition
from bastide.store import Row

_MESSAGES = {
    "Completed": "Training job completed",
    "Failed": "Training job failed",
    "Stopped": "Training job stopped",
    "MaxRuntimeExceeded": "Training job runtime exceeded MaxRuntimeInSeconds provided",
}


class TrainingFlow(JobFlow):
    """See the developer guide, "your-algorithms-training-algo"."""

    name = "training"
    kind = TRAINING_JOB
    log_group = "/aws/sagemaker/TrainingJobs"

    def image(self, row: Row) -> str:
        return str(row.doc["AlgorithmSpecification"]["TrainingImage"])

    def resources(self, row: Row) -> dict[str, Any]:
        found: dict[str, Any] = row.doc["ResourceConfig"]
        return found

    def sources(self, row: Row) -> list[Source]:
        found = []
        for channel in row.doc.get("InputDataConfig") or ():
            bucket, key = objects.split(channel["DataSource"]["S3DataSource"]["S3Uri"])
            found.append(Source(channel["ChannelName"], bucket, key, f"input/data/{channel['ChannelName']}"))
        if code := submitted(row):
            bucket, key = objects.split(code)
            found.append(Source(" code", bucket, key, "input/source", prefix=False))
        return found

    def configure(self, row: Row, ml: Path) -> None:
        config = ml / "input" / "config"
        kind = row.doc["ResourceConfig"]["InstanceType"]
        channels = {
            one["ChannelName"]: {
                "TrainingInputMode": "File",
                "S3DistributionType": one["DataSource"]["S3DataSource"].get(
                    "S3DataDistributionType", "FullyReplicated"
                ),
                "RecordWrapperType": "None",
                **({"ContentType": one["ContentType"]} if one.get("ContentType") else {}),
            }
            for one in row.doc.get("InputDataConfig") or ()
        }
        group = {"instance_group_name": "homogeneousCluster", "instance_type": kind, "hosts": [HOST]}
        files: dict[str, Any] = {
            "hyperparameters.json": row.doc.get("HyperParameters") or {},
            "inputdataconfig.json": channels,
            "resourceconfig.json": {
                "current_host": HOST,
                "current_instance_type": kind,
                "current_group_name": "homogeneousCluster",
                "hosts": [HOST],
                "instance_groups": [group],
                "network_interface_name": "lo",
            },
        }
        for name, content in files.items():
            (config / name).write_bytes(orjson.dumps(content))

    def command(self, row: Row, environment: Environment) -> Sequence[str]:
        algorithm = row.doc["AlgorithmSpecification"]
        entry = algorithm.get("ContainerEntrypoint") or environment.train
        return [*entry, *(algorithm.get("ContainerArguments") or ())]

    def variables(self, row: Row) -> Mapping[str, str]:
        return {
            **(row.doc.get("Environment") or {}),
            "TRAINING_JOB_NAME": row.name,
            "TRAINING_JOB_ARN": TRAINING_JOB.arn(row.account, row.region, row.name),
            "AWS_REGION": row.region,
        }

    async def deliver(self, run: Run, row: Row, ml: Path) -> dict[str, Any]:
        bucket, base = objects.split(row.doc["OutputDataConfig"]["S3OutputPath"])
        kms_key = row.doc["OutputDataConfig"].get("KmsKeyId") or None
        folder = "/".join(part for part in (base.strip("/"), row.name, "output") if part)
        found: dict[str, Any] = {}
        most = int(self.resources(row)["VolumeSizeInGB"]) * GIB
        for source, name in (("model", "model.tar.gz"), ("output/data", "output.tar.gz")):
            made = archive.plain_folder(ml, source)
            if source == "output/data" and not await asyncio.to_thread(archive.files, made, most_bytes=most):
                continue
            packed = ml.parent / name  # on the volume: what the job made is never in the clear on the disk
            packed.unlink(missing_ok=True)
            await asyncio.to_thread(archive.pack, made, packed, most_bytes=most)
            content = await asyncio.to_thread(digest.of_file, packed)
            stored = await objects.store(run.held["session"], bucket, f"{folder}/{name}", packed, kms_key)
            found[f"{name} is"] = {**stored, "sha256": content}
            packed.unlink()
            found[name] = f"s3://{bucket}/{folder}/{name}"
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
        if "model.tar.gz" in delivered:
            doc["ModelArtifacts"] = {"S3ModelArtifacts": delivered["model.tar.gz"]}
        if run.state.get("metrics"):
            doc["FinalMetricDataList"] = run.state["metrics"]
        start = run.state.get("started")
        doc["TrainingEndTime"] = now
        if start is not None:
            doc["TrainingStartTime"] = start
            doc["TrainingTimeInSeconds"] = doc["BillableTimeInSeconds"] = seconds_between(start, now)
        doc["_pinned"] = run.state.get("pinned")
