"""The story: each step does what it says or ends it, refusals included."""

from __future__ import annotations

import io
import json
import math
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import botocore.exceptions

from bastide.commands import why
from bastide.commands.client import Credentials, Platform
from bastide.commands.demo import record
from bastide.commands.demo.data import PROTECTED, ROWS, Applications, applications, predictions
from bastide.commands.demo.organisation import ENDPOINT, Bank, found
from bastide.commands.demo.telling import StoryError, Telling
from bastide.commands.live import Reader

_SCRIPTS = resources.files("bastide.commands.demo") / "scripts"
# As the SageMaker SDK computes it for scikit-learn 1.2-1 in us-east-1.
_IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"
_INSTANCE = "ml.m5.large"
_JOB_SECONDS = 60.0
_SHOWN_LINES = 8
# Both sides compute in float64 from the same decimals with the same code; only the way to and from text differs.
SAME = 1e-9


@dataclass
class Story:
    """What the chapters hand on."""

    bank: Bank
    telling: Telling
    ada: Credentials
    """The data scientist, in her role."""
    began: float = field(default_factory=time.time)
    attempts: dict[str, str] = field(default_factory=dict)
    """Request ids of what was refused, and what it was."""
    source: str = ""
    model: str = ""
    package: str = ""
    training: str = ""
    evaluation: dict[str, Any] = field(default_factory=dict)

    def client(self, service: str, signer: Credentials | None = None) -> Any:
        """The data scientist's, unless somebody else is named."""
        return self.bank.desk.client(service, signer or self.ada)

    def check(self, holds: bool, claim: str) -> None:
        """Raises StoryError if the claim does not hold."""
        if not holds:
            raise StoryError(claim)

    def refuse(self, attempt: str, call: Callable[[], Any], *named: str) -> str:
        """Does what must be refused; `named` must stand in the message. The request's id."""
        try:
            call()
        except botocore.exceptions.ClientError as error:
            told = error.response["Error"]
            code, message = told["Code"], told.get("Message", "")
            if code not in ("AccessDenied", "AccessDeniedException"):
                raise StoryError(f"{attempt}: refused for another reason: {code}: {message}") from None
            for one in named:
                self.check(one in message, f"{attempt}: the refusal does not name {one}: {message}")
            self.telling.refused(attempt, code, message)
            request: str = error.response["ResponseMetadata"]["RequestId"]
            self.attempts[request] = attempt
            return request
        raise StoryError(f"{attempt}: this was allowed, and must not be")


def tell(platform: Platform, telling: Telling) -> Story:
    """Tells it all on a fresh platform; raises StoryError, or botocore's errors, at the first step that goes wrong."""
    telling.act("The first act: by hand, call by call")
    telling.chapter("A bank: accounts, guardrails, people, keys, buckets, a trail")
    bank = found(platform, telling)
    story = Story(bank, telling, bank.be("ada", "DataScientist"))
    for title, chapter in _CHAPTERS:
        telling.chapter(title)
        chapter(story)
    telling.chapter("What happened, who did it, what was refused and why")
    record.show(bank, telling, story.began, story.attempts)
    return story


def _data(story: Story) -> None:
    content = applications()
    bank = story.bank
    s3 = story.client("s3")
    s3.put_object(Bucket=bank.data_bucket, Key="raw/applications.csv", Body=content, ContentType="text/csv")
    head = s3.head_object(Bucket=bank.data_bucket, Key="raw/applications.csv")
    story.check(
        head["ServerSideEncryption"] == "aws:kms" and head["SSEKMSKeyId"] == bank.keys["data"],
        f"the data is not encrypted under the data key: {head.get('SSEKMSKeyId')}",
    )
    story.telling.done(f"{ROWS:,} real mortgage applications (HMDA, Boston) stored under the bank's own key")
    for name in ("split.py", "evaluate.py"):
        s3.put_object(Bucket=bank.data_bucket, Key=f"code/{name}/{name}", Body=(_SCRIPTS / name).read_bytes())
    s3.put_object(Bucket=bank.data_bucket, Key="code/training/sourcedir.tar.gz", Body=_sourcedir())
    story.source = f"s3://{bank.data_bucket}/split"
    outputs = {name: (f"{story.source}/{name}", "data") for name in ("train", "validation", "holdout")}
    _process(story, "split", {"data": f"s3://{bank.data_bucket}/raw/"}, outputs)
    train = s3.get_object(Bucket=bank.data_bucket, Key="split/train/train.csv")["Body"].read()
    header = train.split(b"\n", 1)[0].decode().split(",")
    story.check(PROTECTED not in header, f"the protected attribute is among the training data's columns: {header}")
    story.telling.done(f"the protected attribute `{PROTECTED}` is no feature; it travels with the held-out rows only")


def _sourcedir() -> bytes:
    """What the SageMaker SDK calls sourcedir.tar.gz."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name in ("train.py", "inference.py"):
            content = (_SCRIPTS / name).read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def _process(story: Story, task: str, inputs: dict[str, str], outputs: dict[str, tuple[str, str]]) -> None:
    """Runs scripts/<task>.py as a processing job, and waits; inputs: name to S3 URI; outputs: name to S3 URI and key."""
    bank, script, name = story.bank, f"{task}.py", f"mortgage-{task}"
    inputs = {**inputs, "code": f"s3://{bank.data_bucket}/code/{script}/"}
    keys = {key for _, key in outputs.values()}
    story.client("sagemaker").create_processing_job(
        ProcessingJobName=name,
        RoleArn=bank.roles["SageMakerJobRole"],
        AppSpecification={
            "ImageUri": _IMAGE,
            "ContainerEntrypoint": ["python3", f"/opt/ml/processing/input/code/{script}"],
        },
        ProcessingInputs=[
            {
                "InputName": one,
                "S3Input": {
                    "S3Uri": uri,
                    "LocalPath": f"/opt/ml/processing/input/{one}",
                    "S3DataType": "S3Prefix",
                    "S3InputMode": "File",
                },
            }
            for one, uri in inputs.items()
        ],
        ProcessingOutputConfig={
            "Outputs": [
                {
                    "OutputName": one,
                    "S3Output": {
                        "S3Uri": uri,
                        "LocalPath": f"/opt/ml/processing/output/{one}",
                        "S3UploadMode": "EndOfJob",
                    },
                }
                for one, (uri, _) in outputs.items()
            ],
            "KmsKeyId": bank.keys[keys.pop()],
        },
        ProcessingResources={
            "ClusterConfig": {
                "InstanceCount": 1,
                "InstanceType": _INSTANCE,
                "VolumeSizeInGB": 1,
                "VolumeKmsKeyId": bank.keys["data"],
            }
        },
        NetworkConfig={"EnableNetworkIsolation": True},
        StoppingCondition={"MaxRuntimeInSeconds": 600},
    )

    def poll() -> tuple[str, dict[str, Any] | None]:
        told = story.client("sagemaker").describe_processing_job(ProcessingJobName=name)
        status = told["ProcessingJobStatus"]
        return status, told if status in ("Completed", "Failed", "Stopped") else None

    lines = _Lines(story, "/aws/sagemaker/ProcessingJobs", name)
    told = story.telling.until(f"processing job {name} in a sealed sandbox", lines.beside(poll), _JOB_SECONDS)
    story.check(
        told["ProcessingJobStatus"] == "Completed",
        f"{name} ended {told['ProcessingJobStatus']}: {told.get('FailureReason') or told.get('ExitMessage')}",
    )


class _Lines:
    """A job's log, followed with the data scientist's own right to read it."""

    def __init__(self, story: Story, group: str, job: str) -> None:
        self._logs = story.client("logs")
        self._telling = story.telling
        self._group, self._job = group, job
        self._stream: str | None = None
        self._token: str | None = None
        self.shown = 0

    def beside(self, poll: Callable[[], tuple[str, Any]]) -> Callable[[], tuple[str, Any]]:
        """The same poll, showing new lines each time."""

        def both() -> tuple[str, Any]:
            at, found = poll()
            self._follow()
            return at, found

        return both

    def _follow(self) -> None:
        try:
            if self._stream is None:
                streams = self._logs.describe_log_streams(
                    logGroupName=self._group, logStreamNamePrefix=f"{self._job}/"
                )["logStreams"]
                if not streams:
                    return
                self._stream = streams[0]["logStreamName"]
            more = {"nextToken": self._token} if self._token else {}
            told = self._logs.get_log_events(
                logGroupName=self._group, logStreamName=self._stream, startFromHead=True, **more
            )
        except self._logs.exceptions.ResourceNotFoundException:
            return  # before the job's first line
        self._token = told["nextForwardToken"]
        for event in told["events"]:
            self.shown += 1
            if self.shown <= _SHOWN_LINES:
                self._telling.aside(event["message"])
            elif self.shown == _SHOWN_LINES + 1:
                self._telling.aside("...")


def _training(story: Story, name: str) -> dict[str, Any]:
    """What CreateTrainingJob is asked; the S3 folders end with a slash, so that a name is no prefix of another."""
    bank = story.bank

    def channel(one: str, uri: str) -> dict[str, Any]:
        source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
        return {"ChannelName": one, "DataSource": {"S3DataSource": source}}

    return {
        "TrainingJobName": name,
        "RoleArn": bank.roles["SageMakerJobRole"],
        "AlgorithmSpecification": {
            "TrainingImage": _IMAGE,
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": "validation:auc", "Regex": "validation:auc=([0-9.]+);"}],
        },
        "HyperParameters": {
            "sagemaker_program": "train.py",
            "sagemaker_submit_directory": "/opt/ml/input/data/code/sourcedir.tar.gz",
            "strengths": "0.01,0.1,1,10",
        },
        "InputDataConfig": [
            channel("train", f"{story.source}/train/"),
            channel("validation", f"{story.source}/validation/"),
            channel("code", f"s3://{bank.data_bucket}/code/training/"),
        ],
        "OutputDataConfig": {"S3OutputPath": f"s3://{bank.model_bucket}/models", "KmsKeyId": bank.keys["models"]},
        "ResourceConfig": {
            "InstanceCount": 1,
            "InstanceType": _INSTANCE,
            "VolumeSizeInGB": 1,
            "VolumeKmsKeyId": bank.keys["data"],
        },
        "EnableNetworkIsolation": True,
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
    }


def _against_the_rules(story: Story) -> None:
    bank, telling = story.bank, story.telling
    sagemaker = story.client("sagemaker")
    wanted = _training(story, "mortgage-careless")
    resources_only = {key: value for key, value in wanted["ResourceConfig"].items() if key != "VolumeKmsKeyId"}
    request = story.refuse(
        "training without VolumeKmsKeyId",
        lambda: sagemaker.create_training_job(**(wanted | {"ResourceConfig": resources_only})),
        "service control policy",
        bank.guardrails["job-encryption"],
    )
    _explain(story, request, "job-encryption")
    story.refuse(
        "training with the network open",
        lambda: sagemaker.create_training_job(**(wanted | {"EnableNetworkIsolation": False})),
        bank.guardrails["network-isolation"],
    )
    costly = wanted["ResourceConfig"] | {"InstanceType": "ml.p4d.24xlarge"}
    story.refuse(
        "training on eight GPUs",
        lambda: sagemaker.create_training_job(**(wanted | {"ResourceConfig": costly})),
        bank.guardrails["instance-types"],
    )
    started = sagemaker.list_training_jobs()["TrainingJobSummaries"]
    story.check(started == [], f"a refused training job was started all the same: {started}")
    telling.done("nothing was started by any of them")


def _explain(story: Story, request: str, guardrail: str) -> None:
    """Shows the deciding statement to the auditor, who may read it, and not to the data scientist, who may not."""
    bank, telling = story.bank, story.telling
    auditor = bank.desk.assume(bank.people["iris"], f"arn:aws:iam::{bank.ids['data-science']}:role/Auditor", "iris")
    found_record = why.find(bank.desk.platform, auditor, request)
    if found_record is None:
        raise StoryError(f"the refused request {request} is not in the account's event history")
    denied = [
        one
        for one in found_record["additionalEventData"]["bastide"]["questions"]
        if one["verdict"] == "ExplicitlyDenied"
    ]
    story.check(
        len(denied) == 1 and denied[0]["policy"] == bank.guardrails[guardrail],
        f"the record of {request} does not name the guardrail {guardrail}",
    )
    telling.say(f"`bastide why {request}`, asked by the auditor, who may read that policy:")
    shown = why.statement(bank.desk.platform, bank.people["iris"], denied[0])
    story.check('"Deny"' in shown, f"the statement is not shown to the auditor: {shown}")
    telling.aside(shown)
    reader = Reader(
        bank.desk.platform,
        lambda account: bank.people["iris"] if account == bank.desk.platform.configuration.account else auditor,
    )
    for question in why.explained(found_record, reader)["questions"]:
        for change in question.get("nearest", ()):
            telling.say(f"what would have allowed it: {change['change']}")
            if change["who"]:
                telling.say(f"who can: {change['who']}")
    hidden = why.statement(bank.desk.platform, story.ada, denied[0])
    story.check('"Deny"' not in hidden, "the statement is shown to the data scientist, who may not read the policy")
    telling.say(f"the same, asked by the data scientist: {hidden}")


def _train(story: Story) -> None:
    bank, telling, name = story.bank, story.telling, "mortgage-denial-1"
    sagemaker = story.client("sagemaker")
    story.training = sagemaker.create_training_job(**_training(story, name))["TrainingJobArn"]

    def poll() -> tuple[str, dict[str, Any] | None]:
        told = sagemaker.describe_training_job(TrainingJobName=name)
        ended = told["TrainingJobStatus"] in ("Completed", "Failed", "Stopped")
        return told.get("SecondaryStatus", told["TrainingJobStatus"]), told if ended else None

    lines = _Lines(story, "/aws/sagemaker/TrainingJobs", name)
    told = telling.until(f"training job {name} in a sealed sandbox", lines.beside(poll), _JOB_SECONDS)
    story.check(
        told["TrainingJobStatus"] == "Completed",
        f"{name} ended {told['TrainingJobStatus']}: {told.get('FailureReason')}",
    )
    story.check(lines.shown > 0, f"{name} left no lines in its log")
    metrics = {one["MetricName"]: one["Value"] for one in told.get("FinalMetricDataList", ())}
    auc = metrics.get("validation:auc", math.nan)
    story.check(0.6 < auc < 1, f"validation:auc was not read from the log: {metrics}")
    telling.done(f"validation:auc = {auc:.4f}, read from the job's log")
    story.model = told["ModelArtifacts"]["S3ModelArtifacts"]
    head = story.client("s3").head_object(Bucket=bank.model_bucket, Key=_key(story.model))
    story.check(
        head["ServerSideEncryption"] == "aws:kms" and head["SSEKMSKeyId"] == bank.keys["models"],
        f"model.tar.gz is not encrypted under the model key: {head.get('SSEKMSKeyId')}",
    )
    telling.done(f"{story.model}: {head['ContentLength']:,} bytes under {head['SSEKMSKeyId']}")


def _key(uri: str) -> str:
    return uri.removeprefix("s3://").partition("/")[2]


def _evaluate(story: Story) -> None:
    bank, telling = story.bank, story.telling
    _process(
        story,
        "evaluate",
        {"model": story.model, "holdout": f"{story.source}/holdout/"},
        {"evidence": (f"s3://{bank.model_bucket}/evidence/mortgage-denial-1", "models")},
    )
    story.evaluation = json.loads(_evidence(story, story.ada, "evaluation.json"))
    found_rates = story.evaluation["denial_rate"]
    telling.done(f"held-out AUC {story.evaluation['auc']:.4f} on {story.evaluation['rows']} applications")
    telling.done(
        f"predicted denial rates: {found_rates['afam']:.1%} of African American applicants, {found_rates['others']:.1%} "
        f"of others; difference {story.evaluation['denial_rate_difference']:+.1%}"
    )


def _evidence(story: Story, reader: Credentials, name: str) -> bytes:
    answer = story.client("s3", reader).get_object(
        Bucket=story.bank.model_bucket, Key=f"evidence/mortgage-denial-1/{name}"
    )
    return bytes(answer["Body"].read())


def _register(story: Story) -> None:
    bank, telling = story.bank, story.telling
    evidence = {
        "ContentType": "application/json",
        "S3Uri": f"s3://{bank.model_bucket}/evidence/mortgage-denial-1/evaluation.json",
    }
    story.package = story.client("sagemaker").create_model_package(
        ModelPackageGroupName=bank.group_arn,
        ModelPackageDescription="Logistic regression on HMDA mortgage applications",
        InferenceSpecification={
            "Containers": [
                {
                    "Image": _IMAGE,
                    "ModelDataUrl": story.model,
                    "Environment": {
                        "SAGEMAKER_PROGRAM": "inference.py",
                        "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
                    },
                }
            ],
            "SupportedContentTypes": ["text/csv"],
            "SupportedResponseMIMETypes": ["application/json"],
            "SupportedRealtimeInferenceInstanceTypes": [_INSTANCE],
        },
        ModelApprovalStatus="PendingManualApproval",
        ModelMetrics={"ModelQuality": {"Statistics": evidence}, "Bias": {"Report": evidence}},
        CustomerMetadataProperties={
            "auc": f"{story.evaluation['auc']:.6f}",
            "denial-rate-difference": f"{story.evaluation['denial_rate_difference']:.6f}",
            "protected-attribute": PROTECTED,
            "training-job": story.training,
        },
    )["ModelPackageArn"]
    told = story.client("sagemaker").describe_model_package(ModelPackageName=story.package)
    story.check(
        told["ModelPackageVersion"] == 1 and told["ModelApprovalStatus"] == "PendingManualApproval",
        f"not version 1, pending: {told.get('ModelPackageVersion')} {told.get('ModelApprovalStatus')}",
    )
    telling.done(f"{story.package} is version 1, PendingManualApproval, with its evidence")


def _overreach(story: Story) -> None:
    bank, sagemaker = story.bank, story.client("sagemaker")
    story.refuse(
        "the data scientist approves her own model",
        lambda: sagemaker.update_model_package(ModelPackageArn=story.package, ModelApprovalStatus="Approved"),
        "sagemaker:UpdateModelPackage",
    )
    story.telling.say(
        "approving belongs to a role of shared-services; neither her role nor the group's policy grants it"
    )
    story.refuse(
        "the data scientist reads production's decisions",
        lambda: story.client("s3").get_object(Bucket=bank.decision_bucket, Key="decisions/first.csv"),
        "s3:GetObject",
    )
    story.telling.say("across accounts her role and the bucket's policy would both have to allow it; neither does")


def _approve(story: Story) -> None:
    bank, telling = story.bank, story.telling
    rita, paul = bank.be("rita", "ModelRiskManager"), bank.be("paul", "ModelApprover")
    registry = story.client("sagemaker", rita)
    told = registry.describe_model_package(ModelPackageName=story.package)
    uri = told["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]
    story.check(_key(uri).endswith("/evaluation.json"), f"the evidence is not where it should be: {uri}")
    read = json.loads(_evidence(story, rita, "evaluation.json"))
    registered = told["CustomerMetadataProperties"]
    story.check(
        registered["auc"] == f"{read['auc']:.6f}"
        and registered["denial-rate-difference"] == f"{read['denial_rate_difference']:.6f}",
        f"what is registered is not what was measured: {registered}",
    )
    telling.done(
        f"the model risk manager reads the evidence from the other account: AUC {registered['auc']}, "
        f"denial rate difference {registered['denial-rate-difference']}"
    )
    story.refuse(
        "the model risk manager approves alone",
        lambda: registry.update_model_package(ModelPackageArn=story.package, ModelApprovalStatus="Approved"),
        "explicit deny",
    )
    approver = story.client("sagemaker", paul)
    approver.update_model_package(
        ModelPackageArn=story.package,
        ModelApprovalStatus="Approved",
        ApprovalDescription="Evidence read by model risk; the difference between groups is to be watched",
    )
    status = approver.describe_model_package(ModelPackageName=story.package)["ModelApprovalStatus"]
    story.check(status == "Approved", f"the version is {status} after its approval")
    telling.done("the approver, another role and another person, approves version 1")


def _deploy(story: Story) -> None:
    bank, telling = story.bank, story.telling
    deployer = bank.desk.assume(bank.be("otto", "MLOps"), bank.roles["Deployer"], "otto")
    telling.done("MLOps takes on the role Deployer of production")
    sagemaker = story.client("sagemaker", deployer)
    role = bank.roles["ModelExecutionRole"]
    story.refuse(
        "MLOps deploys a bare archive, past the registry",
        lambda: sagemaker.create_model(
            ModelName="mortgage-bare",
            ExecutionRoleArn=role,
            PrimaryContainer={"Image": _IMAGE, "ModelDataUrl": story.model},
            EnableNetworkIsolation=True,
        ),
        bank.guardrails["registered-models"],
    )
    story.refuse(
        "the administrator of test uses the version that was opened to production",
        lambda: bank.client("sagemaker", "test").create_model(
            ModelName="mortgage-denial-1",
            ExecutionRoleArn=role.replace(bank.ids["production"], bank.ids["test"]),
            PrimaryContainer={"ModelPackageName": story.package},
        ),
        "sagemaker:CreateModel",
    )
    sagemaker.create_model(
        ModelName="mortgage-denial-1",
        ExecutionRoleArn=role,
        Containers=[{"ModelPackageName": story.package}],
        EnableNetworkIsolation=True,
    )
    model = sagemaker.describe_model(ModelName="mortgage-denial-1")
    containers = model.get("Containers") or [model["PrimaryContainer"]]
    story.check(
        [one.get("ModelPackageName") for one in containers] == [story.package],
        f"the model does not name the version it comes from: {containers}",
    )
    sagemaker.create_endpoint_config(
        EndpointConfigName="mortgage-denial-1",
        KmsKeyId=bank.keys["production"],
        ProductionVariants=[
            {
                "VariantName": "AllTraffic",
                "ModelName": "mortgage-denial-1",
                "InitialInstanceCount": 1,
                "InstanceType": _INSTANCE,
            }
        ],
    )
    sagemaker.create_endpoint(EndpointName=ENDPOINT, EndpointConfigName="mortgage-denial-1")

    def poll() -> tuple[str, dict[str, Any] | None]:
        told = sagemaker.describe_endpoint(EndpointName=ENDPOINT)
        status = told["EndpointStatus"]
        return status, told if status in ("InService", "Failed") else None

    told = telling.until(f"endpoint {ENDPOINT} in production starts from {story.package}", poll, _JOB_SECONDS)
    story.check(
        told["EndpointStatus"] == "InService", f"the endpoint is {told['EndpointStatus']}: {told.get('FailureReason')}"
    )


def _decide(story: Story) -> None:
    bank, telling = story.bank, story.telling
    held_out = story.client("s3").get_object(Bucket=bank.data_bucket, Key="split/holdout/holdout.csv")["Body"].read()
    asked = Applications.read(held_out, story.evaluation["features"])
    probability, denied = predictions(_evidence(story, story.ada, "predictions.csv"))
    desk = bank.be("loan-desk", "LoanOrigination")
    runtime = story.client("sagemaker-runtime", desk)

    def invoke(lines: list[str]) -> dict[str, Any]:
        answer = runtime.invoke_endpoint(
            EndpointName=ENDPOINT, ContentType="text/csv", Accept="application/json", Body="\n".join(lines).encode()
        )
        told: dict[str, Any] = json.loads(answer["Body"].read())
        return told

    for number in range(3):
        answer = invoke([asked.lines[number]])
        ours, theirs = ("denied" if one else "granted" for one in (answer["deny"][0], asked.denied[number]))
        telling.say(
            f"application {number + 1}: probability of denial {answer['probability'][0]:.3f}, so {ours}; "
            f"the bank had {theirs} it"
        )
    answers = invoke(asked.lines)
    story.check(len(answers["probability"]) == len(probability) == len(asked.lines), "answers are missing")
    furthest = max(abs(one - other) for one, other in zip(answers["probability"], probability, strict=True))
    story.check(furthest <= SAME, f"the endpoint's answers are not the model's own: they differ by {furthest:g}")
    story.check(answers["deny"] == denied, "the endpoint's decisions are not the model's own")
    telling.done(
        f"{len(probability)} held-out applications answered; all equal to the model's own predictions "
        f"(largest difference {furthest:.1e})"
    )
    rows = "\n".join(f"{number},{one:.6f}" for number, one in enumerate(answers["probability"]))
    story.client("s3", desk).put_object(
        Bucket=bank.decision_bucket, Key="decisions/held-out.csv", Body=f"application,probability\n{rows}\n".encode()
    )
    story.refuse(
        "the data scientist asks production's endpoint",
        lambda: story.client("sagemaker-runtime").invoke_endpoint(
            EndpointName=ENDPOINT, ContentType="text/csv", Body=asked.lines[0].encode()
        ),
        "sagemaker:InvokeEndpoint",
    )


_CHAPTERS: tuple[tuple[str, Callable[[Story], None]], ...] = (
    ("The data scientist stores the applications and splits them", _data),
    ("She trains against the rules", _against_the_rules),
    ("She trains within them", _train),
    ("An evaluation: how good, and how fair", _evaluate),
    ("The model is registered in shared-services", _register),
    ("She reaches too far", _overreach),
    ("Model risk reads, the approver approves", _approve),
    ("MLOps deploys into production, from the registered version", _deploy),
    ("The endpoint answers mortgage applications", _decide),
)
