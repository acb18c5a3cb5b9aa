"""How a processing job runs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from bastide.engines.images import Environment
from bastide.engines.workflow import Run
from bastide.services.sagemaker import archive, digest, monitoring_metrics, objects, own_image
from bastide.services.sagemaker.channels import Source
from bastide.services.sagemaker.host import Host
from bastide.services.sagemaker.job_flow import JobFlow
from bastide.services.sagemaker.job_hosts import GIB
from bastide.services.sagemaker.mirror import Mirror
from bastide.services.sagemaker.outcome import text_of
from bastide.services.sagemaker.processing_job import PROCESSING_JOB, local_path
from bastide.store import Row


class ProcessingFlow(JobFlow):
    """See the developer guide, "build-your-own-processing-container"."""

    name = "processing"
    kind = PROCESSING_JOB
    log_group = "/aws/sagemaker/ProcessingJobs"

    def image(self, row: Row) -> str:
        return str(row.doc["AppSpecification"]["ImageUri"])

    def resources(self, row: Row) -> dict[str, Any]:
        found: dict[str, Any] = row.doc["ProcessingResources"]["ClusterConfig"]
        return found

    def sources(self, row: Row) -> list[Source]:
        found = []
        for one in row.doc.get("ProcessingInputs") or ():
            bucket, key = objects.split(one["S3Input"]["S3Uri"])
            given = one["S3Input"]
            found.append(
                Source(
                    one["InputName"],
                    bucket,
                    key,
                    local_path(given["LocalPath"], one["InputName"]),
                    mode=given.get("S3InputMode") or "File",
                    data=given["S3DataType"],
                    sharded=given.get("S3DataDistributionType") == "ShardedByS3Key",
                    packed=given.get("S3CompressionType") == "Gzip",
                )
            )
        return found

    @staticmethod
    def _outputs(row: Row) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (row.doc.get("ProcessingOutputConfig") or {}).get("Outputs") or []
        return found

    def configure(self, row: Row, host: Host, hosts: Sequence[Host], ml: Path) -> None:
        for one in self._outputs(row):
            (ml / local_path(one["S3Output"]["LocalPath"], one["OutputName"])).mkdir(parents=True, exist_ok=True)
        config = ml / "config"
        config.mkdir(exist_ok=True)
        arn = PROCESSING_JOB.arn(row.account, row.region, row.name)
        told = {key: value for key, value in row.doc.items() if not key.startswith("_")}
        told |= {"ProcessingJobArn": arn, "ProcessingJobName": row.name}
        (config / "processingjobconfig.json").write_bytes(orjson.dumps(told))
        names = {"current_host": host.name, "hosts": [one.name for one in hosts]}
        (config / "resourceconfig.json").write_bytes(orjson.dumps(names))

    def follows(self, row: Row) -> str:
        modes = (one["S3Output"]["S3UploadMode"] for one in self._outputs(row))
        return "S3UploadMode" if "Continuous" in modes else ""

    async def mirror(self, run: Run, row: Row, host: Host) -> list[Mirror]:
        most = int(self.resources(row).get("VolumeSizeInGB") or 30) * GIB
        found = []
        for one in self._outputs(row):
            target = one["S3Output"]
            if target["S3UploadMode"] == "Continuous":
                bucket, base = objects.split(target["S3Uri"])
                folder = local_path(target["LocalPath"], one["OutputName"])
                kms_key = row.doc["ProcessingOutputConfig"].get("KmsKeyId") or None
                session = run.held["session"]
                found.append(
                    Mirror(session, bucket, base, host.ml, folder, deletes=False, most_bytes=most, kms_key=kms_key)
                )
        return found

    def network(self, row: Row) -> tuple[Any, bool, bool]:
        given = row.doc.get("NetworkConfig") or {}
        return (
            given.get("VpcConfig"),
            bool(given.get("EnableNetworkIsolation")),
            bool(given.get("EnableInterContainerTrafficEncryption")),
        )

    def command(self, row: Row, environment: Environment) -> Sequence[str]:
        application = row.doc["AppSpecification"]
        given = application.get("ContainerEntrypoint"), application.get("ContainerArguments")
        return own_image.command(environment, *given, "")

    def variables(self, row: Row) -> Mapping[str, str]:
        arn = PROCESSING_JOB.arn(row.account, row.region, row.name)
        return {**(row.doc.get("Environment") or {}), "PROCESSING_JOB_ARN": arn, "AWS_REGION": row.region}

    async def deliver(self, run: Run, row: Row, hosts: Sequence[Host]) -> dict[str, Any]:
        kms_key = row.doc["ProcessingOutputConfig"].get("KmsKeyId") or None if self._outputs(row) else None
        found: dict[str, Any] = {}
        most = int(self.resources(row).get("VolumeSizeInGB") or 30) * GIB
        for one in self._outputs(row):
            if one["S3Output"]["S3UploadMode"] == "Continuous":
                continue  # it is there already
            bucket, base = objects.split(one["S3Output"]["S3Uri"])
            made: dict[str, Path] = {}
            number = 0
            for host in hosts:
                folder = archive.plain_folder(host.ml, local_path(one["S3Output"]["LocalPath"], one["OutputName"]))
                every = await asyncio.to_thread(archive.files, folder, most_bytes=most)
                for name, path in every:
                    key = f"{base.rstrip('/')}/{name}" if base else name
                    await objects.store(run.held["session"], bucket, key, path, kms_key)
                    number += 1
                made.update(every)
            found[one["OutputName"]] = number
            found[f"{one['OutputName']} is"] = await asyncio.to_thread(digest.of_files, made.items())
        if "MonitoringScheduleArn" in row.doc:
            await monitoring_metrics.publish(run.held["session"], row, hosts[0].ml)
        return found

    def ended(self, row: Row, ml: Path, outcome: dict[str, Any]) -> None:
        outcome["message"] = text_of(ml, "output", "message", 1024)
        outcome["failure"] = outcome["message"]

    def finish(self, row: Row, status: str, run: Run, now: int) -> None:
        doc = row.doc
        if run.state.get("started") is not None:
            doc["ProcessingStartTime"] = run.state["started"]
        doc["ProcessingEndTime"] = now
        message = (run.state.get("outcome") or {}).get("message")
        if message:
            doc["ExitMessage"] = message
        doc["_pinned"] = run.state.get("pinned")
