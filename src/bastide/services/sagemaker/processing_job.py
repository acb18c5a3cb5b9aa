"""Processing jobs: their operations."""

from __future__ import annotations

import posixpath
from typing import Final

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Kind, Output, regular, tags_of
from bastide.services.sagemaker import job_network, job_record, own_image, quota
from bastide.services.sagemaker.asking import keys, otherwise, passing, tagging, unsupported
from bastide.services.sagemaker.objects import split
from bastide.services.sagemaker.session import check_role
from bastide.services.sagemaker.training_job import LONGEST
from bastide.store import Transaction

PROCESSING_JOB = Kind(
    "ProcessingJob",
    service="sagemaker",
    arn="processing-job/{}",
    states=("InProgress", "Completed", "Failed", "Stopping", "Stopped"),
    missing=("ValidationException", "Could not find requested job with name: {name}", 400),
    taken=(
        "ResourceInUse",
        "Job name must be unique within an AWS account and region, and a job with this name already exists ({arn})",
        400,
    ),
)

_UNSUPPORTED: Final = ("ProcessingResources.ClusterConfig.InstancePreferences",)


def local_path(given: str | None, what: str) -> str:
    """A path below ``/opt/ml/processing``, relative to ``/opt/ml``; raises Refused for one that leads elsewhere."""
    path = posixpath.normpath(given or "")
    if not path.startswith("/opt/ml/processing/"):
        raise Refused("ValidationException", f"LocalPath of {what} must be below /opt/ml/processing")
    return path.removeprefix("/opt/ml/")


async def _before(a: Authorised) -> None:
    arn = PROCESSING_JOB.arn(a.account, a.region, a.input["ProcessingJobName"])
    where = {"account": a.account, "region": a.region, "source_arn": arn}
    await check_role(a.calls, a.input["RoleArn"], **where)
    await job_network.check(a.calls, a.input["RoleArn"], (a.input.get("NetworkConfig") or {}).get("VpcConfig"), **where)


@PROCESSING_JOB.operation(
    "CreateProcessingJob",
    asks=[
        Ask(
            "sagemaker:CreateProcessingJob",
            PROCESSING_JOB.this,
            given=keys(
                InstanceTypes_="ProcessingResources.ClusterConfig.InstanceType",
                VolumeKmsKey="ProcessingResources.ClusterConfig.VolumeKmsKeyId",
                OutputKmsKey="ProcessingOutputConfig.KmsKeyId",
                NetworkIsolation=otherwise("NetworkConfig.EnableNetworkIsolation", "false"),
                InterContainerTrafficEncryption=otherwise(
                    "NetworkConfig.EnableInterContainerTrafficEncryption", "false"
                ),
                MaxRuntimeInSeconds=otherwise("StoppingCondition.MaxRuntimeInSeconds", str(LONGEST)),
                VpcSubnets_="NetworkConfig.VpcConfig.Subnets",
                VpcSecurityGroupIds_="NetworkConfig.VpcConfig.SecurityGroupIds",
            ),
        ),
        passing(PROCESSING_JOB, "RoleArn"),
        tagging(PROCESSING_JOB, "CreateProcessingJob"),
    ],
    before=_before,
)
def create(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    unsupported(a, *_UNSUPPORTED)
    cluster = given["ProcessingResources"]["ClusterConfig"]
    if not cluster.get("InstanceType"):
        raise Refused("ValidationException", "ProcessingResources.ClusterConfig.InstanceType is needed.")
    quota.check(
        a, tx, PROCESSING_JOB, "processing", [(cluster["InstanceType"], int(cluster.get("InstanceCount") or 1))]
    )
    environment = own_image.check(a, tx, given["AppSpecification"]["ImageUri"])
    entry = given["AppSpecification"].get("ContainerEntrypoint")
    if environment is not None and not entry and not environment.process:
        raise Refused(
            "ValidationException",
            "AppSpecification.ContainerEntrypoint is needed: this image has no default one.",
        )
    seen = set()
    for one in given.get("ProcessingInputs") or ():
        what = f"the input {one['InputName']}"
        source = one.get("S3Input")
        if source is None or one.get("DatasetDefinition") or one.get("AppManaged"):
            named = next((m for m in ("DatasetDefinition", "AppManaged") if one.get(m)), "an input without S3Input")
            raise Refused("ValidationException", f"{what}: {named} is not supported by Bastide, only S3Input is.")
        if source["S3DataType"] not in ("S3Prefix", "ManifestFile"):
            raise Refused("ValidationException", f"{what}: S3DataType is S3Prefix or ManifestFile.")
        if source.get("S3CompressionType", "None") != "None" and source.get("S3InputMode") != "Pipe":
            raise Refused("ValidationException", f"{what}: S3CompressionType Gzip needs the S3InputMode Pipe.")
        split(source["S3Uri"])
        if (path := local_path(source.get("LocalPath"), what)) in seen:
            raise Refused("ValidationException", f"{what}: the LocalPath is another input's.")
        seen.add(path)
    for one in (given.get("ProcessingOutputConfig") or {}).get("Outputs") or ():
        what = f"the output {one['OutputName']}"
        target = one.get("S3Output")
        if target is None or one.get("FeatureStoreOutput") or one.get("AppManaged"):
            named = next((m for m in ("FeatureStoreOutput", "AppManaged") if one.get(m)), "an output without S3Output")
            raise Refused("ValidationException", f"{what}: {named} is not supported by Bastide, only S3Output is.")
        split(target["S3Uri"])
        local_path(target.get("LocalPath"), what)
    name = given["ProcessingJobName"]
    doc = {key: value for key, value in given.items() if key not in ("Tags", "ProcessingJobName")}
    doc["ProcessingResources"] = {"ClusterConfig": {"InstanceCount": 1, **cluster}}
    doc["StoppingCondition"] = given.get("StoppingCondition") or {"MaxRuntimeInSeconds": LONGEST}
    job_record.begin(
        a, tx, PROCESSING_JOB, PROCESSING_JOB.create(a, tx, name, doc, status="InProgress", tags=tags_of(a))
    )
    return {"ProcessingJobArn": PROCESSING_JOB.arn(a.account, a.region, name)}


regular(PROCESSING_JOB, "Describe", "List")


@PROCESSING_JOB.operation("StopProcessingJob", asks=[Ask("sagemaker:StopProcessingJob", PROCESSING_JOB.this)])
def stop(a: Authorised, tx: Transaction) -> Output:
    row = PROCESSING_JOB.named(a, tx)
    if row.status == "Stopping":
        return {}
    if row.status != "InProgress":
        raise Refused(
            "ValidationException", f"The request was rejected because the processing job is in status {row.status}."
        )
    row.status = "Stopping"
    PROCESSING_JOB.change(tx, row, a.operation.name, a.request.id)
    return {}
