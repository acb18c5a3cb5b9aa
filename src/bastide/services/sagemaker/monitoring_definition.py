"""Definitions of monitoring jobs: of data quality, model quality, bias and explainability.

Source: API Reference, CreateDataQualityJobDefinition and its like; developer guide, "model-monitor".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines import images
from bastide.kernel import Ask, Authorised, Calls, Kind, Output, anything, fill, page, regular, tags_of
from bastide.protocol import codec
from bastide.services.sagemaker import job_network, own_image
from bastide.services.sagemaker.asking import keys, otherwise, passing, tagging
from bastide.services.sagemaker.objects import split
from bastide.services.sagemaker.processing_job import PROCESSING_JOB, local_path
from bastide.services.sagemaker.session import check_role
from bastide.services.sagemaker.training_job import LONGEST
from bastide.store import Transaction, View

MERGER: Final = "156813124566.dkr.ecr.{}.amazonaws.com/sagemaker-model-monitor-groundtruth-merger"
"""What puts captured data and ground truth together, before a model's quality or bias is looked at."""
CLARIFY: Final = ("ModelBias", "ModelExplainability")
MERGED: Final = ("ModelQuality", "ModelBias")


def _kind(type: str) -> Kind:
    dashed = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type).lower()
    return Kind(
        f"{type}JobDefinition",
        service="sagemaker",
        arn=f"{dashed}-job-definition/{{}}",
        named_by="JobDefinitionName",
        missing=("ResourceNotFound", "The job definition {arn} does not exist.", 400),
        taken=("ResourceInUse", "A job definition with this name already exists ({arn}).", 400),
    )


DEFINITIONS: Final[Mapping[str, Kind]] = {
    type: _kind(type) for type in ("DataQuality", "ModelQuality", "ModelBias", "ModelExplainability")
}
"""By what MonitoringType calls them."""


@dataclass(frozen=True, slots=True)
class Monitoring:
    """What a monitoring job is, however it was written. source: the EndpointInput or BatchTransformInput; truth: the S3Uri
    of the ground truth; baseline: its members' S3Uris by file, ``constraints`` and ``statistics``."""

    type: str
    application: Mapping[str, Any]
    source: Mapping[str, Any]
    truth: str
    baseline: Mapping[str, str]
    outputs: Mapping[str, Any]
    cluster: Mapping[str, Any]
    network: Mapping[str, Any] | None
    role: str
    seconds: int
    environment: Mapping[str, str]

    @property
    def endpoint(self) -> str:
        """The endpoint's name; empty for data of batch transform jobs."""
        return str(self.source.get("EndpointName") or "")

    @property
    def output(self) -> Mapping[str, Any]:
        """Where results go: LocalPath, S3Uri, S3UploadMode."""
        found: Mapping[str, Any] = self.outputs["MonitoringOutputs"][0]["S3Output"]
        return found


def defined(view: View, account: str, region: str, type: str, doc: Mapping[str, Any]) -> Monitoring:
    """What a definition says, or an inline MonitoringJobDefinition (with an empty type); raises Refused."""
    if type:
        application, given = doc[f"{type}AppSpecification"], doc[f"{type}JobInput"]
        baseline, outputs = doc.get(f"{type}BaselineConfig"), doc[f"{type}JobOutputConfig"]
        resources, environment = doc["JobResources"], application.get("Environment")
    else:
        if len(doc["MonitoringInputs"]) != 1:
            raise Refused("ValidationException", "MonitoringInputs has one input.")
        application, given = doc["MonitoringAppSpecification"], doc["MonitoringInputs"][0]
        baseline, outputs = doc.get("BaselineConfig"), doc["MonitoringOutputConfig"]
        resources, environment = doc["MonitoringResources"], doc.get("Environment")
    sources = [given[one] for one in ("EndpointInput", "BatchTransformInput") if given.get(one)]
    if len(sources) != 1:
        raise Refused("ValidationException", "A monitoring job has either an EndpointInput or a BatchTransformInput.")
    if len(outputs["MonitoringOutputs"]) != 1:
        raise Refused("ValidationException", "MonitoringOutputs has one output.")
    return Monitoring(
        type or "DataQuality",
        application,
        sources[0],
        (given.get("GroundTruthS3Input") or {}).get("S3Uri") or "",
        _baseline(view, account, region, type, baseline or {}),
        outputs,
        resources["ClusterConfig"],
        doc.get("NetworkConfig"),
        doc["RoleArn"],
        int((doc.get("StoppingCondition") or {}).get("MaxRuntimeInSeconds") or LONGEST),
        environment or {},
    )


def _baseline(view: View, account: str, region: str, type: str, given: Mapping[str, Any]) -> dict[str, str]:
    """The files of a baseline; those that are not named are what the job that made it stored."""
    found = {}
    for member, file in (("ConstraintsResource", "constraints"), ("StatisticsResource", "statistics")):
        if (given.get(member) or {}).get("S3Uri"):
            found[file] = str(given[member]["S3Uri"])
    name = given.get("BaseliningJobName")
    if found or not name:
        return found
    job = PROCESSING_JOB.find(view, account, region, name)
    outputs = (job.doc.get("ProcessingOutputConfig") or {}).get("Outputs") or [{}]
    base = (outputs[0].get("S3Output") or {}).get("S3Uri", "").rstrip("/")
    if not base:
        raise Refused("ValidationException", f"The job {name} has no output where a baseline could be.")
    if type in CLARIFY:
        return {"constraints": f"{base}/analysis.json"}
    names = ("constraints", "statistics") if type in ("", "DataQuality") else ("constraints",)
    return {file: f"{base}/{file}.json" for file in names}


def check(a: Authorised, tx: Transaction, one: Monitoring) -> None:
    """Raises Refused for a monitoring job that could not run as it says."""
    application = one.application
    environment = own_image.check(a, tx, application["ImageUri"])
    if environment is not None and not application.get("ContainerEntrypoint") and not environment.process:
        raise Refused("ValidationException", "ContainerEntrypoint is needed: this image has no default one.")
    if one.type in MERGED:
        images.resolve(MERGER.format(a.region))
        if not one.truth:
            raise Refused("ValidationException", f"GroundTruthS3Input is needed for {one.type}.")
    uris = [one.output["S3Uri"], *one.baseline.values(), one.truth, application.get("ConfigUri")]
    scripts = [application.get(member) for member in ("RecordPreprocessorSourceUri", "PostAnalyticsProcessorSourceUri")]
    for uri in (*uris, *scripts, one.source.get("DataCapturedDestinationS3Uri")):
        if uri:
            split(uri)
    if one.source.get("S3InputMode") == "Pipe":
        raise Refused("ValidationException", "S3InputMode Pipe is not supported by Bastide for monitoring jobs.")
    local_path(one.source["LocalPath"], "the input")
    local_path(one.output["LocalPath"], "the output")


async def before(calls: Calls, account: str, region: str, arn: str, doc: Mapping[str, Any]) -> None:
    """Raises Refused for a role that cannot be assumed, and for a network that is not there."""
    where = {"account": account, "region": region, "source_arn": arn}
    await check_role(calls, doc["RoleArn"], **where)
    await job_network.check(calls, doc["RoleArn"], (doc.get("NetworkConfig") or {}).get("VpcConfig"), **where)


# -- operations --------------------------------------------------------------------------------------------------------


def _create(type: str, kind: Kind) -> None:
    operation = f"Create{kind.name}"

    async def checked(a: Authorised) -> None:
        await before(a.calls, a.account, a.region, kind.arn(a.account, a.region, a.input["JobDefinitionName"]), a.input)

    given = keys(
        InstanceTypes_="JobResources.ClusterConfig.InstanceType",
        VolumeKmsKey="JobResources.ClusterConfig.VolumeKmsKeyId",
        OutputKmsKey=f"{type}JobOutputConfig.KmsKeyId",
        NetworkIsolation=otherwise("NetworkConfig.EnableNetworkIsolation", "false"),
        InterContainerTrafficEncryption=otherwise("NetworkConfig.EnableInterContainerTrafficEncryption", "false"),
        MaxRuntimeInSeconds=otherwise("StoppingCondition.MaxRuntimeInSeconds", str(LONGEST)),
        VpcSubnets_="NetworkConfig.VpcConfig.Subnets",
        VpcSecurityGroupIds_="NetworkConfig.VpcConfig.SecurityGroupIds",
    )
    asks = [
        Ask(f"sagemaker:{operation}", kind.this, given=given), passing(kind, "RoleArn"), tagging(kind, operation),
    ]  # fmt: skip

    def handle(a: Authorised, tx: Transaction) -> Output:
        name = a.input["JobDefinitionName"]
        doc = {key: value for key, value in a.input.items() if key not in ("Tags", "JobDefinitionName")}
        check(a, tx, defined(tx, a.account, a.region, type, doc))
        kind.create(a, tx, name, doc, tags=tags_of(a))
        return {"JobDefinitionArn": kind.arn(a.account, a.region, name)}

    kind.operation(operation, asks=asks, before=checked)(handle)


def _describe(kind: Kind) -> None:
    operation = f"Describe{kind.name}"

    def handle(a: Authorised, view: View) -> Output:
        row = kind.named(a, view)
        found = fill(kind, codec("sagemaker").operations[operation].output_shape, row)
        return {**found, "JobDefinitionArn": kind.arn(row.account, row.region, row.name)}

    kind.reads(operation, asks=[Ask(f"sagemaker:{operation}", kind.this)])(handle)


def _list(type: str, kind: Kind) -> None:
    operation = f"List{kind.name}s"

    def handle(a: Authorised, view: View) -> Output:
        wanted = a.input.get("EndpointName")

        def endpoint(doc: Mapping[str, Any]) -> str:
            return str((doc[f"{type}JobInput"].get("EndpointInput") or {}).get("EndpointName") or "")

        rows, token = page(
            kind, a, view, descending=True, keep=lambda row: wanted is None or endpoint(row.doc) == wanted
        )
        found = [
            {
                "MonitoringJobDefinitionName": row.name,
                "MonitoringJobDefinitionArn": kind.arn(row.account, row.region, row.name),
                "CreationTime": row.created,
                "EndpointName": endpoint(row.doc),
            }
            for row in rows
        ]
        return {"JobDefinitionSummaries": found, "NextToken": token}

    kind.reads(operation, asks=[Ask(f"sagemaker:{operation}", anything)])(handle)


for _type, _of in DEFINITIONS.items():
    _create(_type, _of)
    _describe(_of)
    _list(_type, _of)
    regular(_of, "Delete")
