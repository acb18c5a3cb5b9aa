"""Training jobs: their operations."""

from __future__ import annotations

from typing import Any, Final

from bastide.domain import Refused
from bastide.engines import images
from bastide.engines.placement import Placement
from bastide.kernel import Ask, Authorised, Kind, Output, regular, tags_of
from bastide.services.sagemaker import job_record, metrics
from bastide.services.sagemaker.asking import at, keys, otherwise, passing, several, tagging, unsupported
from bastide.services.sagemaker.objects import split
from bastide.services.sagemaker.session import check_role
from bastide.store import Row, Transaction

TRAINING_JOB = Kind(
    "TrainingJob",
    service="sagemaker",
    arn="training-job/{}",
    states=("InProgress", "Completed", "Failed", "Stopping", "Stopped"),
    missing=("ValidationException", "Requested resource not found.", 400),
    taken=(
        "ResourceInUse",
        "Training job names must be unique within an AWS account and region, and a training job with this name "
        "already exists ({arn})",
        400,
    ),
)

LONGEST: Final = 86400
"""Seconds a job may take that says nothing of it."""
WITHOUT_EFFECT: Final = (
    "DebugHookConfig",
    "DebugRuleConfigurations",
    "ProfilerConfig",
    "ProfilerRuleConfigurations",
    "TensorBoardOutputConfig",
    "InfraCheckConfig",
)
"""Members that are kept and shown and change nothing: clients send them unasked."""

_UNSUPPORTED: Final = (
    "AlgorithmSpecification.AlgorithmName",
    "AlgorithmSpecification.TrainingImageConfig",
    "EnableManagedSpotTraining",
    "CheckpointConfig",
    "RetryStrategy",
    "RemoteDebugConfig.EnableRemoteDebug",
    "SessionChainingConfig.EnableSessionTagChaining",
    "ServerlessJobConfig",
    "MlflowConfig",
    "ModelPackageConfig",
    "ResourceConfig.KeepAlivePeriodInSeconds",
    "ResourceConfig.InstanceGroups",
    "ResourceConfig.TrainingPlanArn",
    "ResourceConfig.InstancePlacementConfig",
    "ResourceConfig.InstancePreferences",
)


def no_network(config: Any) -> None:
    """Raises Refused for subnets and security groups, of which there are none yet."""
    if config:
        raise Refused(
            "ValidationException",
            f"The subnet ID '{next(iter(config['Subnets']), '')}' does not exist: VPCs are not supported by Bastide yet. "
            "Jobs and endpoints have no network at all.",
        )


def transition(row: Row, status: str, message: str, now: int) -> None:
    """Moves the secondary status on."""
    line: list[dict[str, Any]] = row.doc["SecondaryStatusTransitions"]
    if line and "EndTime" not in line[-1]:
        line[-1]["EndTime"] = now
    line.append({"Status": status, "StartTime": now, "StatusMessage": message})
    row.doc["SecondaryStatus"] = status


async def _before(a: Authorised) -> None:
    arn = TRAINING_JOB.arn(a.account, a.region, a.input["TrainingJobName"])
    await check_role(a.calls, a.input["RoleArn"], account=a.account, region=a.region, source_arn=arn)


@TRAINING_JOB.operation(
    "CreateTrainingJob",
    asks=[
        Ask(
            "sagemaker:CreateTrainingJob",
            TRAINING_JOB.this,
            given=keys(
                FileSystemAccessMode="InputDataConfig.DataSource.FileSystemDataSource.FileSystemAccessMode",
                FileSystemDirectoryPath="InputDataConfig.DataSource.FileSystemDataSource.DirectoryPath",
                FileSystemId="InputDataConfig.DataSource.FileSystemDataSource.FileSystemId",
                FileSystemType="InputDataConfig.DataSource.FileSystemDataSource.FileSystemType",
                InstanceTypes_=several("ResourceConfig.InstanceType", "ResourceConfig.InstanceGroups.InstanceType"),
                VolumeKmsKey="ResourceConfig.VolumeKmsKeyId",
                OutputKmsKey="OutputDataConfig.KmsKeyId",
                NetworkIsolation=otherwise("EnableNetworkIsolation", "false"),
                InterContainerTrafficEncryption=otherwise("EnableInterContainerTrafficEncryption", "false"),
                MaxRuntimeInSeconds=otherwise("StoppingCondition.MaxRuntimeInSeconds", str(LONGEST)),
                VpcSubnets_="VpcConfig.Subnets",
                VpcSecurityGroupIds_="VpcConfig.SecurityGroupIds",
                KeepAlivePeriod="ResourceConfig.KeepAlivePeriodInSeconds",
                EnableRemoteDebug=otherwise("RemoteDebugConfig.EnableRemoteDebug", "false"),
            ),
        ),
        passing(TRAINING_JOB, "RoleArn"),
        tagging(TRAINING_JOB, "CreateTrainingJob"),
    ],
    before=_before,
)
def create(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    unsupported(a, *_UNSUPPORTED)
    no_network(given.get("VpcConfig"))
    resources = given.get("ResourceConfig") or {}
    if resources.get("InstanceCount", 1) != 1:
        raise Refused("ValidationException", "InstanceCount greater than 1 is not supported by Bastide yet.")
    if not resources.get("InstanceType"):
        raise Refused("ValidationException", "ResourceConfig.InstanceType is needed.")
    a.engine(Placement).grant(resources["InstanceType"])
    algorithm = given["AlgorithmSpecification"]
    if not algorithm.get("TrainingImage"):
        raise Refused("ValidationException", "AlgorithmSpecification.TrainingImage is needed.")
    images.resolve(algorithm["TrainingImage"])
    if algorithm["TrainingInputMode"] != "File":
        raise Refused("ValidationException", "TrainingInputMode is not supported by Bastide yet except File.")
    seen = set()
    for channel in given.get("InputDataConfig") or ():
        name = channel["ChannelName"]
        if name in seen:
            raise Refused("ValidationException", f"The channel {name} occurs twice.")
        seen.add(name)
        source = channel["DataSource"].get("S3DataSource")
        if source is None:
            raise Refused("ValidationException", f"Channel {name}: data sources are not supported except S3DataSource.")
        if source["S3DataType"] not in ("S3Prefix",) or source.get("AttributeNames") or source.get("ModelAccessConfig"):
            raise Refused("ValidationException", f"Channel {name}: S3DataType is not supported except S3Prefix.")
        if channel.get("InputMode", "File") != "File" or channel.get("ShuffleConfig"):
            raise Refused("ValidationException", f"Channel {name}: InputMode is not supported except File, unshuffled.")
        if channel.get("CompressionType", "None") != "None" or channel.get("RecordWrapperType", "None") != "None":
            raise Refused("ValidationException", f"Channel {name}: compression and record wrappers are not supported.")
        split(source["S3Uri"])
    if given["OutputDataConfig"].get("CompressionType", "GZIP") != "GZIP":
        raise Refused("ValidationException", "OutputDataConfig.CompressionType is not supported except GZIP.")
    split(given["OutputDataConfig"]["S3OutputPath"])
    metrics.check(given["AlgorithmSpecification"].get("MetricDefinitions") or ())
    name = given["TrainingJobName"]
    doc = {key: value for key, value in given.items() if key not in ("Tags", "TrainingJobName")}
    doc.setdefault("EnableNetworkIsolation", False)
    # A job has one container: there is no traffic between several that would be in clear.
    doc.setdefault("EnableInterContainerTrafficEncryption", False)
    doc["EnableManagedSpotTraining"] = False
    doc["OutputDataConfig"] = {"KmsKeyId": "", **given["OutputDataConfig"]}
    doc["ResourceConfig"] = {"InstanceCount": 1, "VolumeSizeInGB": 30, **resources}
    doc["StoppingCondition"] = {"MaxRuntimeInSeconds": LONGEST, **(given.get("StoppingCondition") or {})}
    doc["SecondaryStatusTransitions"] = []
    row = Row(TRAINING_JOB.key, a.account, a.region, name, doc)
    transition(row, "Starting", "Starting the training job", tx.now)
    job_record.begin(a, tx, TRAINING_JOB, TRAINING_JOB.create(a, tx, name, doc, status="InProgress", tags=tags_of(a)))
    return {"TrainingJobArn": TRAINING_JOB.arn(a.account, a.region, name)}


regular(TRAINING_JOB, "Describe", "List")


@TRAINING_JOB.operation("StopTrainingJob", asks=[Ask("sagemaker:StopTrainingJob", TRAINING_JOB.this)])
def stop(a: Authorised, tx: Transaction) -> Output:
    row = TRAINING_JOB.named(a, tx)
    if row.status == "Stopping":
        return {}
    if row.status != "InProgress":
        raise Refused(
            "ValidationException", f"The request was rejected because the training job is in status {row.status}."
        )
    row.status = "Stopping"
    transition(row, "Stopping", "Stopping the training job", tx.now)
    TRAINING_JOB.change(tx, row, a.operation.name, a.request.id)
    return {}


def submitted(row: Row) -> str:
    """``s3://`` address of the script's archive in script mode, where the job's isolation allows it to be fetched."""
    if at(row.doc, "EnableNetworkIsolation"):
        return ""
    told = str((row.doc.get("HyperParameters") or {}).get("sagemaker_submit_directory") or "").strip('"')
    told = told or str((row.doc.get("Environment") or {}).get("SAGEMAKER_SUBMIT_DIRECTORY") or "")
    return told if told.startswith("s3://") else ""
