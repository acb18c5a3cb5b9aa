"""Training jobs: their operations."""

from __future__ import annotations

import posixpath
import re
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines import images
from bastide.kernel import Ask, Authorised, Kind, Output, anything, fill, page, regular, tags_of
from bastide.protocol import codec
from bastide.services.sagemaker import debug_rule, job_network, job_record, own_image, quota
from bastide.services.sagemaker.asking import at, keys, lacking, otherwise, passing, several, tagging
from bastide.services.sagemaker.objects import split
from bastide.services.sagemaker.relation import WARM
from bastide.services.sagemaker.session import check_role
from bastide.store import Row, Transaction, View

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
AVAILABLE: Final = "Available"
"""Of a warm pool: it waits for a job."""
WITHOUT_EFFECT: Final = (
    "ProfilerConfig",
    "TensorBoardOutputConfig",
    "InfraCheckConfig",
)
"""Members that are kept and shown and change nothing: clients send them unasked."""

_UNSUPPORTED: Final = (
    "ProfilerRuleConfigurations",
    "AlgorithmSpecification.AlgorithmName",
    "AlgorithmSpecification.TrainingImageConfig.TrainingRepositoryAuthConfig",
    "RemoteDebugConfig.EnableRemoteDebug",
    "SessionChainingConfig.EnableSessionTagChaining",
    "ServerlessJobConfig",
    "MlflowConfig",
    "ModelPackageConfig",
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
    where = {"account": a.account, "region": a.region, "source_arn": arn}
    await check_role(a.calls, a.input["RoleArn"], **where)
    await job_network.check(a.calls, a.input["RoleArn"], a.input.get("VpcConfig"), **where)


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
    environment = check(a, tx, given)
    resources = given.get("ResourceConfig") or {}
    name = given["TrainingJobName"]
    doc = {key: value for key, value in given.items() if key not in ("Tags", "TrainingJobName")}
    if environment is not None and environment.metrics and not in_script_mode(given):
        watched = [{"Name": metric, "Regex": pattern} for metric, pattern in environment.metrics]
        doc["AlgorithmSpecification"] = {**given["AlgorithmSpecification"], "MetricDefinitions": watched}
    doc.setdefault("EnableNetworkIsolation", False)
    doc.setdefault("EnableInterContainerTrafficEncryption", False)
    doc.setdefault("EnableManagedSpotTraining", False)
    doc["OutputDataConfig"] = {"KmsKeyId": "", **given["OutputDataConfig"]}
    count = {} if resources.get("InstanceGroups") else {"InstanceCount": 1}
    doc["ResourceConfig"] = {**count, "VolumeSizeInGB": 30, **resources}
    doc["StoppingCondition"] = {"MaxRuntimeInSeconds": LONGEST, **(given.get("StoppingCondition") or {})}
    if a.caller.kind == "Service" and a.caller.source_arn:
        doc["TuningJobArn"] = a.caller.source_arn
    doc["SecondaryStatusTransitions"] = []
    if rules := doc.get("DebugRuleConfigurations"):
        doc["DebugRuleEvaluationStatuses"] = debug_rule.statuses(rules, a.account, a.region, name, tx.now)
    if keep_alive(doc):
        doc["WarmPoolStatus"] = {"Status": "InUse", "ResourceRetainedBillableTimeInSeconds": 0}
    row = Row(TRAINING_JOB.key, a.account, a.region, name, doc)
    transition(row, "Starting", "Starting the training job", tx.now)
    job_record.begin(a, tx, TRAINING_JOB, TRAINING_JOB.create(a, tx, name, doc, status="InProgress", tags=tags_of(a)))
    return {"TrainingJobArn": TRAINING_JOB.arn(a.account, a.region, name)}


def check(a: Authorised, tx: Transaction, given: Any) -> images.Environment | None:
    """The environment that a job would run in, None if the image is one's own. Raises Refused for a request,
    CreateTrainingJob's or one that will be, that no job can follow from."""
    lacking(given, *_UNSUPPORTED)
    resources = given.get("ResourceConfig") or {}
    check_instances(a, tx, resources, given.get("InputDataConfig") or ())
    check_warm_pool(a, tx, given)
    debug_rule.check(given)
    algorithm = given["AlgorithmSpecification"]
    if (algorithm.get("TrainingImageConfig") or {}).get("TrainingRepositoryAccessMode", "Platform") != "Platform":
        raise Refused(
            "ValidationException", "TrainingRepositoryAccessMode is not supported by Bastide yet except Platform."
        )
    if not algorithm.get("TrainingImage"):
        raise Refused("ValidationException", "AlgorithmSpecification.TrainingImage is needed.")
    environment = own_image.check(a, tx, algorithm["TrainingImage"])
    if environment is not None:
        check_algorithm(given, environment)
    check_channels(given)
    split(given["OutputDataConfig"]["S3OutputPath"])
    if given.get("CheckpointConfig"):
        split(given["CheckpointConfig"]["S3Uri"])
        checkpoints(given["CheckpointConfig"])
    check_times(given)
    check_metrics(algorithm.get("MetricDefinitions") or ())
    return environment


regular(TRAINING_JOB, "Describe")


@TRAINING_JOB.reads("ListTrainingJobs", asks=[Ask("sagemaker:ListTrainingJobs", anything)])
def every(a: Authorised, view: View) -> Output:
    wanted = a.input.get("WarmPoolStatusEquals")
    shape = codec("sagemaker").operations["ListTrainingJobs"].output_shape.members["TrainingJobSummaries"].member

    def keep(row: Row) -> bool:
        return not wanted or at(row.doc, "WarmPoolStatus.Status") == wanted

    rows, token = page(TRAINING_JOB, a, view, keep=keep)
    return {"TrainingJobSummaries": [fill(TRAINING_JOB, shape, row) for row in rows], "NextToken": token}


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


def checkpoints(config: Any) -> str:
    """Where checkpoints are, relative to ``/opt/ml``; raises Refused for a path that leads elsewhere."""
    path = posixpath.normpath(config.get("LocalPath") or "/opt/ml/checkpoints/")
    taken = ("input", "model", "output", "code")
    below = path.removeprefix("/opt/ml/")
    if below == path or below.split("/")[0] in taken:
        raise Refused(
            "ValidationException",
            "CheckpointConfig.LocalPath must be below /opt/ml, and not in its input, model, output or code.",
        )
    return below


def check_times(given: Any) -> None:
    """Raises Refused for a spot job that does not say how long it may wait, and for others that do."""
    condition = given.get("StoppingCondition") or {}
    wait = condition.get("MaxWaitTimeInSeconds")
    if bool(given.get("EnableManagedSpotTraining")) != (wait is not None):
        raise Refused(
            "ValidationException",
            "MaxWaitTimeInSeconds belongs to a job with EnableManagedSpotTraining, which needs it.",
        )
    if wait is not None and wait < condition.get("MaxRuntimeInSeconds", LONGEST):
        raise Refused(
            "ValidationException",
            "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds",
        )


def check_metrics(definitions: Any) -> None:
    """Raises Refused for patterns that are none, or have no group to take a value from."""
    names = [one["Name"] for one in definitions]
    if len(set(names)) < len(names):
        raise Refused("ValidationException", "The names of MetricDefinitions must be unique.")
    for one in definitions:
        try:
            groups = re.compile(one["Regex"]).groups
        except (re.error, OverflowError, RecursionError) as error:
            raise Refused(
                "ValidationException", f"The Regex of the metric {one['Name']} is not a pattern: {error}"
            ) from None
        if not groups:
            raise Refused(
                "ValidationException", f"The Regex of the metric {one['Name']} has no group () for the metric's value."
            )


def in_script_mode(given: Any) -> bool:
    """Whether a job brings a script, or a command of its own."""
    told = {**(given.get("HyperParameters") or {}), **(given.get("Environment") or {})}
    scripts = told.get("sagemaker_program") or told.get("SAGEMAKER_PROGRAM")
    return bool(scripts or given["AlgorithmSpecification"].get("ContainerEntrypoint"))


def check_algorithm(given: Any, environment: images.Environment) -> None:
    """Raises Refused for what an image cannot do, and what a built-in algorithm cannot."""
    algorithm = given["AlgorithmSpecification"]
    image, scripts = algorithm["TrainingImage"], in_script_mode(given)
    if not environment.train and not algorithm.get("ContainerEntrypoint"):
        raise Refused("ValidationException", f"The image {image} does not train: take the one for training.")
    if not environment.algorithm or (scripts and environment.scripts):
        return
    name = environment.algorithm
    if scripts:
        raise Refused("ValidationException", f"The built-in algorithm {name} runs no scripts.")
    if algorithm.get("MetricDefinitions"):
        raise Refused(
            "ValidationException",
            "You can't override the metric definitions for Amazon SageMaker algorithms. "
            "Please retry the request without specifying metric definitions.",
        )
    resources = given.get("ResourceConfig") or {}
    groups = resources.get("InstanceGroups") or [resources]
    if sum(int(one.get("InstanceCount") or 1) for one in groups) > 1:
        raise Refused("ValidationException", f"The built-in algorithm {name} trains on one instance in Bastide.")
    channels = [one["ChannelName"] for one in given.get("InputDataConfig") or ()]
    if "train" not in channels:
        raise Refused("ValidationException", f"The built-in algorithm {name} needs the channel train.")


def input_mode(given: Any, channel: dict[str, Any]) -> str:
    """How a channel is read: as it says, otherwise as the algorithm does."""
    return str(channel.get("InputMode") or given["AlgorithmSpecification"]["TrainingInputMode"])


def check_instances(a: Authorised, tx: Transaction, resources: Any, channels: Any) -> None:
    """Raises Refused for instances that there are not, or that are said in two ways."""
    groups = resources.get("InstanceGroups") or ()
    one = [name for name in ("InstanceType", "InstanceCount") if resources.get(name)]
    if groups and one:
        raise Refused("ValidationException", f"ResourceConfig has {one[0]} or InstanceGroups, not both.")
    names = [group["InstanceGroupName"] for group in groups]
    if len(set(names)) < len(names):
        raise Refused("ValidationException", "An instance group's name occurs twice.")
    if not groups and not resources.get("InstanceType"):
        raise Refused("ValidationException", "ResourceConfig.InstanceType is needed.")
    wanted = [(group["InstanceType"], int(group["InstanceCount"])) for group in groups]
    quota.check(
        a,
        tx,
        TRAINING_JOB,
        "training",
        wanted or [(resources["InstanceType"], int(resources.get("InstanceCount") or 1))],
    )
    for channel in channels:
        source = channel["DataSource"].get("S3DataSource") or {}
        if unknown := set(source.get("InstanceGroupNames") or ()) - set(names):
            raise Refused("ValidationException", f"There is no instance group {min(unknown)}.")


def keep_alive(doc: Any) -> int:
    """Seconds for which a job's instances are kept when it has ended."""
    return int(at(doc, "ResourceConfig.KeepAlivePeriodInSeconds") or 0)


def check_warm_pool(a: Authorised, tx: Transaction, given: Any) -> None:
    """Raises Refused for instances that cannot be kept, or are more than the account may keep.

    Source: developer guide, "train-warm-pools", "Considerations".
    """
    if not keep_alive(given):
        return
    resources = given["ResourceConfig"]
    if resources.get("InstanceGroups") or given.get("EnableManagedSpotTraining"):
        raise Refused(
            "ValidationException",
            "KeepAlivePeriodInSeconds is neither for InstanceGroups nor for EnableManagedSpotTraining.",
        )
    kept = [TRAINING_JOB.get(tx, a.account, a.region, name) for name in WARM.rights(tx, a.account, a.region, AVAILABLE)]
    wanted = [(resources["InstanceType"], int(resources.get("InstanceCount") or 1))]
    also = [row for row in kept if row is not None]
    quota.check(a, tx, TRAINING_JOB, "training-warm-pool", wanted, also=also, keep=lambda row: keep_alive(row.doc) > 0)


def check_channels(given: Any) -> None:
    """Raises Refused for channels that contradict themselves, as AWS's reference of Channel has it."""
    seen = set()
    for channel in given.get("InputDataConfig") or ():
        name = channel["ChannelName"]
        if name in seen:
            raise Refused("ValidationException", f"The channel {name} occurs twice.")
        seen.add(name)
        source = channel["DataSource"].get("S3DataSource")
        if source is None:
            named = ", ".join(channel["DataSource"]) or "an empty DataSource"
            raise Refused(
                "ValidationException", f"Channel {name}: {named} is not supported by Bastide, only S3DataSource is."
            )
        for member in ("ModelAccessConfig", "HubAccessConfig"):
            if source.get(member):
                raise Refused("ValidationException", f"Channel {name}: {member} is not supported by Bastide yet.")
        kind, mode = source["S3DataType"], input_mode(given, channel)
        if kind not in ("S3Prefix", "ManifestFile", "AugmentedManifestFile"):
            raise Refused("ValidationException", f"Channel {name}: S3DataType {kind} is not supported by Bastide yet.")
        augmented = kind == "AugmentedManifestFile"
        if augmented and mode != "Pipe":
            raise Refused("ValidationException", f"Channel {name}: an AugmentedManifestFile needs the InputMode Pipe.")
        if augmented != bool(source.get("AttributeNames")):
            raise Refused(
                "ValidationException",
                f"Channel {name}: AttributeNames belong to an AugmentedManifestFile, which needs one or more.",
            )
        for member in ("CompressionType", "RecordWrapperType"):
            if channel.get(member, "None") != "None" and mode != "Pipe":
                raise Refused("ValidationException", f"Channel {name}: {member} needs the InputMode Pipe.")
        if mode == "FastFile" and channel.get("ShuffleConfig"):
            raise Refused("ValidationException", f"Channel {name}: FastFile is not shuffled; leave ShuffleConfig out.")
        split(source["S3Uri"])


def submitted(row: Row) -> str:
    """``s3://`` address of the script's archive in script mode, where the job's isolation allows it to be fetched."""
    if at(row.doc, "EnableNetworkIsolation"):
        return ""
    told = str((row.doc.get("HyperParameters") or {}).get("sagemaker_submit_directory") or "").strip('"')
    told = told or str((row.doc.get("Environment") or {}).get("SAGEMAKER_SUBMIT_DIRECTORY") or "")
    return told if told.startswith("s3://") else ""
