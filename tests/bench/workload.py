"""What is asked of the servers: what must be there first, and the requests of each row."""

from __future__ import annotations

import http.client
import io
import json
import socket
import tarfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from .servers import Endpoint, Server
from .signing import client

VARIETIES = 64
"""Requests that are signed for one measurement; they are played in turn."""
SMALL = b"bastide " * 128
LARGE_BYTES = 64 * 1024 * 1024
IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"
MARK = "BENCH-FIRST-LINE"
USER_CODE = f"import time; print('{MARK}', repr(time.time()), flush=True)"
ENDPOINT_NAME = "bench"
INVOCATION = b"0.5,0.25,0.125,1.0\n"

USER_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Sid": "Who", "Effect": "Allow", "Action": "sts:GetCallerIdentity", "Resource": "*"},
        {
            "Sid": "Roles",
            "Effect": "Allow",
            "Action": ["iam:GetRole", "iam:ListRoles"],
            "Resource": "arn:aws:iam::*:role/*",
        },
        {"Sid": "Pass", "Effect": "Allow", "Action": "iam:PassRole", "Resource": "arn:aws:iam::*:role/bench-*"},
        {
            "Sid": "Objects",
            "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:PutObject", "s3:ListBucket", "s3:ListBucketVersions", "s3:CreateBucket"],
            "Resource": ["arn:aws:s3:::bench-*", "arn:aws:s3:::bench-*/*"],
        },
        {
            "Sid": "Keys",
            "Effect": "Allow",
            "Action": ["kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey", "kms:DescribeKey"],
            "Resource": "arn:aws:kms:*:*:key/*",
        },
        {
            "Sid": "Jobs",
            "Effect": "Allow",
            "Action": ["sagemaker:Create*", "sagemaker:Describe*", "sagemaker:List*", "sagemaker:InvokeEndpoint"],
            "Resource": "*",
        },
        {"Sid": "Logs", "Effect": "Allow", "Action": ["logs:GetLogEvents", "logs:DescribeLogStreams"], "Resource": "*"},
        {"Sid": "Never", "Effect": "Deny", "Action": ["iam:Delete*", "s3:DeleteBucket"], "Resource": "*"},
    ],
}
"""What the measured user may do: the same eight statements in every product."""

ROLE_POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": ["s3:*", "kms:*", "logs:*"], "Resource": "*"}],
}


@dataclass
class Stage:
    """A running server with everything the rows need in it.

    :ivar user: the measured caller: an IAM user with :data:`USER_POLICY`, no administrator.
    :ivar missing: what could not be set up, by noun, with what the table says in its place.
    :ivar broken: those of ``missing`` that are failures, not lacks.
    """

    server: Server
    admin: Endpoint
    user: Endpoint
    bucket: str = ""
    key: str = ""
    role: str = ""
    job: str = ""
    missing: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    models: int = 0
    jobs: int = 0
    notes: list[str] = field(default_factory=list)

    def attempt(self, noun: str, step: Callable[[], None]) -> None:
        """Runs one step of the preparation; what fails is remembered and makes the whole run end non-zero."""
        try:
            step()
        except (ClientError, BotoCoreError, RuntimeError, OSError) as error:
            self.missing[noun] = "failed"
            self.broken.append(f"{self.server.label}: {noun}: {error}")


@dataclass(frozen=True)
class Operation:
    """One row of the calls table. ``inputs`` makes the arguments of the boto3 call for a variety."""

    title: str
    service: str
    method: str
    noun: str
    inputs: Callable[[Stage, int], dict[str, Any]]
    body_length: int | None = None


OPERATIONS = [
    Operation("sts GetCallerIdentity", "sts", "get_caller_identity", "user", lambda _s, _i: {}),
    Operation("iam GetRole", "iam", "get_role", "role", lambda _s, _i: {"RoleName": "bench-role"}),
    Operation(
        "sagemaker DescribeTrainingJob",
        "sagemaker",
        "describe_training_job",
        "job",
        lambda s, _i: {"TrainingJobName": s.job},
    ),
]

LIST_MODELS = Operation("ListModels", "sagemaker", "list_models", "models", lambda _s, _i: {"MaxResults": 100})
LIST_JOBS = Operation("ListTrainingJobs", "sagemaker", "list_training_jobs", "job", lambda _s, _i: {"MaxResults": 100})
PUT_LARGE = Operation(
    "put 64 MiB, SSE-KMS",
    "s3",
    "put_object",
    "large",
    lambda s, _i: {
        "Bucket": s.bucket,
        "Key": "large",
        "Body": large(),
        "ServerSideEncryption": "aws:kms",
        "SSEKMSKeyId": s.key,
    },
)
INVOKE = Operation(
    "InvokeEndpoint",
    "sagemaker-runtime",
    "invoke_endpoint",
    "endpoint",
    lambda _s, _i: {"EndpointName": ENDPOINT_NAME, "ContentType": "text/csv", "Body": INVOCATION},
)


def large() -> bytes:
    """64 MiB that do not compress away at a glance: a counter of 8 bytes."""
    return b"".join(i.to_bytes(8, "little") for i in range(65536)) * (LARGE_BYTES // (65536 * 8))


def model_input(stage: Stage, number: int) -> dict[str, Any]:
    """The arguments of CreateModel for the model of that number."""
    return {
        "ModelName": f"bench-model-{number:05d}",
        "ExecutionRoleArn": stage.role,
        "PrimaryContainer": {"Image": IMAGE},
    }


def job_input(stage: Stage, name: str) -> dict[str, Any]:
    """The arguments of CreateTrainingJob: no data, one line of user code that prints the time it ran."""
    return {
        "TrainingJobName": name,
        "RoleArn": stage.role,
        "AlgorithmSpecification": {
            "TrainingImage": IMAGE,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["python3", "-u", "-c"],
            "ContainerArguments": [USER_CODE],
        },
        "OutputDataConfig": {"S3OutputPath": f"s3://{stage.bucket}/jobs"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 120},
        "EnableNetworkIsolation": True,
    }


def set_up(server: Server, admin: Endpoint, *, job: bool = True) -> Stage:
    """Makes, with the administrator's credentials, what the rows ask about; answers with the measured user's stage.

    :param job: whether a training job is among it.
    """
    stage = Stage(server, admin, admin)
    sagemaker_lack = server.lacks.get("sagemaker")
    if sagemaker_lack:
        for noun in ("job", "models", "endpoint"):
            stage.missing[noun] = sagemaker_lack
    suffix = uuid.uuid4().hex[:8]
    iam = client("iam", admin)

    def user() -> None:
        iam.create_user(UserName="bench")
        iam.put_user_policy(UserName="bench", PolicyName="bench", PolicyDocument=json.dumps(USER_POLICY))
        made = iam.create_access_key(UserName="bench")["AccessKey"]
        stage.user = Endpoint(admin.url, made["AccessKeyId"], made["SecretAccessKey"], admin.region, admin.ca)

    def role() -> None:
        trust = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "sagemaker.amazonaws.com"},
                    "Action": "sts:AssumeRole",
                }
            ],
        }
        made = iam.create_role(RoleName="bench-role", AssumeRolePolicyDocument=json.dumps(trust))
        iam.put_role_policy(RoleName="bench-role", PolicyName="bench", PolicyDocument=json.dumps(ROLE_POLICY))
        stage.role = made["Role"]["Arn"]

    def bucket() -> None:
        stage.bucket = f"bench-{suffix}"
        client("s3", admin).create_bucket(Bucket=stage.bucket)
        s3 = client("s3", stage.user)
        for number in range(VARIETIES):
            s3.put_object(Bucket=stage.bucket, Key=f"small/{number:02d}", Body=SMALL)
        read = s3.get_object(Bucket=stage.bucket, Key="small/00")["Body"].read()
        if read != SMALL:
            raise RuntimeError("the object that was read is not the object that was written")

    def key() -> None:
        made = client("kms", admin).create_key(Description="bench")
        stage.key = made["KeyMetadata"]["Arn"]
        kms = client("kms", stage.user)
        sealed = kms.encrypt(KeyId=stage.key, Plaintext=b"open")["CiphertextBlob"]
        if kms.decrypt(CiphertextBlob=sealed)["Plaintext"] != b"open":
            raise RuntimeError("Decrypt did not undo Encrypt")

    stage.attempt("user", user)
    stage.attempt("role", role)
    stage.attempt("bucket", bucket)
    stage.attempt("key", key)
    if job and "job" not in stage.missing:
        stage.attempt("job", lambda: _first_job(stage))
    return stage


def check_refusals(stage: Stage) -> str:
    """Whether the checks are really on: asks with a false signature and for what the policy denies.

    :return: ``both`` when each was refused, else what was let through.
    """
    liar = Endpoint(stage.user.url, stage.user.access_key, "not-the-secret", stage.user.region, stage.user.ca)
    through = []
    for what, asked in (
        ("a false signature", lambda: client("iam", liar).get_role(RoleName="bench-role")),
        ("a denied action", lambda: client("iam", stage.user).delete_role(RoleName="bench-none")),
    ):
        try:
            asked()
            through.append(what)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] not in {401, 403}:
                through.append(what)
    return "lets through " + " and ".join(through) if through else "refuses a false signature and a denied action"


def _first_job(stage: Stage) -> None:
    """A training job that DescribeTrainingJob can be asked about, at its end."""
    stage.job = "bench-first"
    sagemaker = client("sagemaker", stage.user)
    sagemaker.create_training_job(**job_input(stage, stage.job))
    stage.jobs = 1
    if stage.server.runs_code:
        wait_for_jobs(stage, 120)


def wait_for_jobs(stage: Stage, patience: float) -> None:
    """Waits until no job is in progress; :class:`RuntimeError` where that takes longer than ``patience`` seconds."""
    sagemaker = client("sagemaker", stage.user)
    deadline = time.monotonic() + patience
    while sagemaker.list_training_jobs(StatusEquals="InProgress", MaxResults=1)["TrainingJobSummaries"]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"training jobs were still in progress after {patience:.0f} s")
        time.sleep(0.1)
    failed = sagemaker.list_training_jobs(StatusEquals="Failed", MaxResults=1)["TrainingJobSummaries"]
    if failed:
        name = failed[0]["TrainingJobName"]
        reason = sagemaker.describe_training_job(TrainingJobName=name).get("FailureReason", "no reason given")
        raise RuntimeError(f"the training job {name} failed: {reason}")


def first_line(stage: Stage, number: int) -> float:
    """Seconds from sending CreateTrainingJob to the first line of user code, which prints the clock as it runs."""
    name = f"bench-line-{number}"
    sagemaker, logs = client("sagemaker", stage.user), client("logs", stage.user)
    arguments = job_input(stage, name)
    sent = time.time()
    sagemaker.create_training_job(**arguments)
    stage.jobs += 1
    deadline = time.monotonic() + 60
    group = "/aws/sagemaker/TrainingJobs"
    while time.monotonic() < deadline:
        try:
            streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")["logStreams"]
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceNotFoundException":
                raise
            streams = []
        for stream in streams:
            events = logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True)
            for event in events["events"]:
                if event["message"].startswith(MARK):
                    wait_for_jobs(stage, 60)
                    return float(event["message"].split()[1]) - sent
        time.sleep(0.05)
    raise RuntimeError(f"no first line of {name} in its log within 60 s")


SERVED = """
def model_fn(folder):
    return None


def input_fn(body, content_type):
    return body


def predict_fn(data, model):
    return "1.0"


def output_fn(prediction, accept):
    return prediction
"""


def serve(stage: Stage) -> None:
    """Brings up the endpoint of the InvokeEndpoint row: a model whose answer costs next to nothing."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        entry = tarfile.TarInfo("code/inference.py")
        entry.size = len(SERVED)
        archive.addfile(entry, io.BytesIO(SERVED.encode()))
    client("s3", stage.user).put_object(Bucket=stage.bucket, Key="served/model.tar.gz", Body=packed.getvalue())
    sagemaker = client("sagemaker", stage.user)
    sagemaker.create_model(
        ModelName="bench-served",
        ExecutionRoleArn=stage.role,
        PrimaryContainer={
            "Image": IMAGE,
            "ModelDataUrl": f"s3://{stage.bucket}/served/model.tar.gz",
            "Environment": {
                "SAGEMAKER_PROGRAM": "inference.py",
                "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
            },
        },
    )
    stage.models += 1
    variant = {
        "VariantName": "only",
        "ModelName": "bench-served",
        "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.large",
    }
    sagemaker.create_endpoint_config(EndpointConfigName="bench", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=ENDPOINT_NAME, EndpointConfigName="bench")
    deadline = time.monotonic() + 120
    while (described := sagemaker.describe_endpoint(EndpointName=ENDPOINT_NAME))["EndpointStatus"] == "Creating":
        if time.monotonic() > deadline:
            raise RuntimeError("the endpoint was still Creating after 120 s")
        time.sleep(0.1)
    if described["EndpointStatus"] != "InService":
        raise RuntimeError(f"the endpoint is {described['EndpointStatus']}: {described.get('FailureReason')}")


BARE_INVOCATION = (
    b"POST /invocations HTTP/1.1\r\nHost: model\r\nContent-Type: text/csv\r\nAccept: */*\r\n"
    b"Content-Length: %d\r\n\r\n" % len(INVOCATION)
) + INVOCATION
"""What InvokeEndpoint asks of the model server, asked of it directly."""


def answers_ping(path: Path) -> bool:
    """Whether an HTTP server with the hosting contract listens on that unix socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2)
        try:
            connection.connect(str(path))
            connection.sendall(b"GET /ping HTTP/1.1\r\nHost: model\r\nConnection: close\r\n\r\n")
            answer = http.client.HTTPResponse(connection)
            answer.begin()
        except (OSError, http.client.HTTPException):
            return False
        return answer.status == 200
