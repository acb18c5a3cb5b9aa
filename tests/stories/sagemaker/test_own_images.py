"""Containers of one's own train, process and serve, pulled with the role's permissions and no others."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, allow, on_disk
from tests.stories.ecr import oci
from tests.stories.ecr.registry import Registry, canonical
from tests.stories.sagemaker import serving
from tests.stories.sagemaker import test_tuning as tuning
from tests.stories.sagemaker.conftest import Workshop, archive
from tests.stories.sagemaker.test_transform import begin, ended, outputs

PULL = ("ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:BatchCheckLayerAvailability")
TRAIN = r"""
set -e
test "$1" = train
cat /opt/ml/input/data/train/part/a.csv
echo "me=$(id -u):$(id -g) host=$(hostname) at=$(env | grep -c TRAINING_JOB_NAME) greeting=$GREETING here=$PWD"
grep algo-1 /etc/hosts >/dev/null && echo hosts
echo scratch >/var-is-writable && cat /var-is-writable
echo "acc=0.75"
mkdir -p /opt/ml/model && echo weights >/opt/ml/model/weights.txt
"""
SERVE = """
test "$1" = serve || exit 64
echo serving for $GREETING
exec nc -ll -p 8080 -e /usr/local/bin/answer
"""
ANSWER = r"""
read -r line
length=0
while read -r header; do
  header=$(printf %s "$header" | tr -d '\r')
  test -n "$header" || break
  case "$header" in content-length:*) length=${header#*: };; esac
done
body=$(dd bs=1 count="$length" 2>/dev/null)
case "$line" in
  "GET /ping "*) said=;;
  "POST /invocations "*) said="seen $body";;
  *) printf 'HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'; exit;;
esac
printf 'HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s' "${#said}" "$said"
"""


@pytest.fixture
def own(workshop: Workshop, tmp_path: Path) -> Iterator[tuple[Workshop, Registry]]:
    workshop.account.client("iam").put_role_policy(
        RoleName="Execution",
        PolicyName="pull",
        PolicyDocument=json.dumps(allow(*PULL, "ecr:GetAuthorizationToken")),
    )
    yield workshop, Registry(workshop.account, tmp_path)


def train(workshop: Workshop, image: str, **more: Any) -> dict[str, Any]:
    """A training job with an image, when it is over."""
    algorithm = {"TrainingImage": image, "TrainingInputMode": "File", **more.pop("algorithm", {})}
    name = workshop.train("", AlgorithmSpecification=algorithm, HyperParameters={}, **more)
    return workshop.trained(name)


def said(workshop: Workshop, group: str, name: str) -> list[str]:
    """What a job printed."""
    logs = workshop.account.client("logs")
    streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=name)["logStreams"]
    found: list[str] = []
    for stream in streams:
        events = logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True)
        found += [event["message"] for event in events["events"]]
    return found


@pytest.mark.control("EXP-13", "EXP-21")
def test_a_container_trains(own: tuple[Workshop, Registry]) -> None:
    workshop, registry = own
    uri = registry.create("team/trainer")
    config = {
        "Env": ["PATH=/usr/local/bin:/bin", "GREETING=hello"],
        "Entrypoint": ["program"],
        "WorkingDir": "/opt/here",
        "User": "app",
    }
    digest = registry.push(f"{uri}:one", [oci.system, oci.scripts(program=TRAIN)], config)
    job = train(workshop, canonical(workshop.account.id, "team/trainer:one"))
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    lines = said(workshop, "/aws/sagemaker/TrainingJobs", job["TrainingJobName"])
    assert "1,2" in lines and "hosts" in lines and "scratch" in lines
    assert "me=4711:4712 host=algo-1 at=1 greeting=hello here=/opt/here" in lines
    assert workshop.s3.get_object(Bucket=workshop.bucket, Key=f"out/{job['TrainingJobName']}/output/model.tar.gz")[
        "ContentLength"
    ]

    # The same image again, by its digest and by the platform's own address; what the first job wrote is not there.
    again = train(
        workshop,
        f"{uri}@{digest}",
        algorithm={
            "ContainerEntrypoint": ["sh", "-c", 'ls /var-is-writable; id -u; echo "$0 $@"; exit 3'],
            "ContainerArguments": ["a", "b"],
        },
    )
    assert again["TrainingJobStatus"] == "Failed"
    lines = said(workshop, "/aws/sagemaker/TrainingJobs", again["TrainingJobName"])
    assert lines[-2:] == ["4711", "a b"] and "No such file" in lines[0]
    assert "exit code: 3" in again["FailureReason"]


@pytest.mark.control("PRM-14", "PRM-15", "INV-04", "EXP-21", "STG-06", "XVE-04", "XVE-05")
def test_the_role_pulls_and_nobody_else(own: tuple[Workshop, Registry], neighbour: Account, tmp_path: Path) -> None:
    workshop, registry = own
    tagged = registry.create("team/tagged", tags=[{"Key": "CreatedBy", "Value": "SageMaker"}])
    plain = registry.create("team/plain")
    for uri in (tagged, plain):
        registry.push(f"{uri}:one", [oci.system, oci.scripts(train="echo fine")], {"Env": ["PATH=/usr/local/bin:/bin"]})
    condition = {"StringEquals": {"aws:ResourceTag/CreatedBy": "SageMaker"}}
    workshop.account.client("iam").put_role_policy(
        RoleName="Execution", PolicyName="pull", PolicyDocument=json.dumps(allow(*PULL, Condition=condition))
    )
    assert train(workshop, f"{tagged}:one")["TrainingJobStatus"] == "Completed"
    refused = train(workshop, f"{plain}:one")
    assert refused["TrainingJobStatus"] == "Failed"
    assert "AccessDeniedException" in refused["FailureReason"] and "ecr:BatchGetImage" in refused["FailureReason"]
    missing = train(workshop, f"{tagged}:two")
    assert "ImageNotFoundException" in missing["FailureReason"]
    gone = train(workshop, canonical(workshop.account.id, "team/none:one"))
    assert gone["TrainingJobStatus"] == "Failed"
    with pytest.raises(ClientError, match="is in eu-west-1: it must be in us-east-1"):
        train(workshop, canonical(workshop.account.id, "team/tagged:one", "eu-west-1"))

    # An image of another account: both sides have to allow it, and what is here already is no way round it.
    folder = tmp_path / "shared"
    folder.mkdir()
    shared = Registry(neighbour, folder)
    uri = shared.create("shared/trainer")
    shared.push(f"{uri}:one", [oci.system, oci.scripts(train="echo fine")], {"Env": ["PATH=/usr/local/bin:/bin"]})
    workshop.account.client("iam").put_role_policy(
        RoleName="Execution", PolicyName="pull", PolicyDocument=json.dumps(allow(*PULL))
    )
    image = canonical(neighbour.id, "shared/trainer:one")
    before = train(workshop, image)
    assert before["TrainingJobStatus"] == "Failed" and "AccessDeniedException" in before["FailureReason"]
    statement = {"Effect": "Allow", "Principal": {"AWS": workshop.role}, "Action": list(PULL)}
    shared.ecr.set_repository_policy(
        repositoryName="shared/trainer", policyText=json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    )
    after = train(workshop, image)
    assert after["TrainingJobStatus"] == "Completed", after.get("FailureReason")
    assert (
        workshop.sagemaker.describe_training_job(TrainingJobName=after["TrainingJobName"])["AlgorithmSpecification"][
            "TrainingImage"
        ]
        == image
    )
    shared.ecr.delete_repository_policy(repositoryName="shared/trainer")
    assert train(workshop, image)["TrainingJobStatus"] == "Failed"
    seen = neighbour.client("cloudtrail").lookup_events(
        LookupAttributes=[{"AttributeKey": "EventName", "AttributeValue": "BatchGetImage"}]
    )["Events"]
    callers = [json.loads(one["CloudTrailEvent"])["userIdentity"]["arn"] for one in seen]
    assert f"arn:aws:sts::{workshop.account.id}:assumed-role/Execution/SageMaker" in callers


@pytest.mark.control("PRM-10")
def test_what_bastide_brings_needs_no_permission_to_pull(workshop: Workshop, tmp_path: Path) -> None:
    name = workshop.train("print('acc=1.0')")
    assert workshop.trained(name)["TrainingJobStatus"] == "Completed"
    registry = Registry(workshop.account, tmp_path)
    uri = registry.create("private")
    registry.push(f"{uri}:one", [oci.system, oci.scripts(train="echo fine")])
    refused = train(workshop, f"{uri}:one")
    assert refused["TrainingJobStatus"] == "Failed" and "AccessDeniedException" in refused["FailureReason"]


def processed(workshop: Workshop, image: str, **application: Any) -> dict[str, Any]:
    """A processing job with an image, when it is over."""
    name = workshop.name("process")
    workshop.sagemaker.create_processing_job(
        ProcessingJobName=name,
        RoleArn=workshop.role,
        AppSpecification={"ImageUri": image, **application},
        ProcessingResources={
            "ClusterConfig": {"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 1}
        },
        ProcessingOutputConfig={
            "Outputs": [
                {
                    "OutputName": "out",
                    "S3Output": {
                        "S3Uri": f"s3://{workshop.bucket}/processed",
                        "LocalPath": "/opt/ml/processing/out",
                        "S3UploadMode": "EndOfJob",
                    },
                }
            ]
        },
    )
    until = time.monotonic() + 60
    while time.monotonic() < until:
        found: dict[str, Any] = workshop.sagemaker.describe_processing_job(ProcessingJobName=name)
        if found["ProcessingJobStatus"] not in ("InProgress", "Stopping"):
            return found
        time.sleep(0.05)
    raise AssertionError(f"{name} does not end")


@pytest.mark.control("EXP-10")
def test_a_container_processes_with_its_own_entrypoint_and_command(own: tuple[Workshop, Registry]) -> None:
    workshop, registry = own
    uri = registry.create("tools")
    registry.push(
        f"{uri}:one", [oci.system], {"Entrypoint": ["sh", "-c"], "Cmd": ["echo made >/opt/ml/processing/out/a.txt"]}
    )
    job = processed(workshop, f"{uri}:one")
    assert job["ProcessingJobStatus"] == "Completed", job.get("FailureReason")
    assert workshop.s3.get_object(Bucket=workshop.bucket, Key="processed/a.txt")["Body"].read() == b"made\n"
    job = processed(workshop, f"{uri}:one", ContainerEntrypoint=["no-such-program"])
    assert job["ProcessingJobStatus"] == "Failed"


@pytest.mark.control("EXP-17")
def test_a_container_serves(own: tuple[Workshop, Registry]) -> None:
    workshop, registry = own

    uri = registry.create("server")
    digest = registry.push(
        f"{uri}:one",
        [oci.system, oci.scripts(program=SERVE, answer=ANSWER)],
        {"Entrypoint": ["program"], "Env": ["PATH=/usr/local/bin:/bin", "GREETING=all"]},
    )
    name = workshop.name("own")
    workshop.sagemaker.create_model(
        ModelName=name, ExecutionRoleArn=workshop.role, PrimaryContainer={"Image": f"{uri}:one"}
    )
    # What a tag means later changes nothing for a model that is there.
    registry.push(f"{uri}:one", [oci.system, oci.scripts(program="exit 3")], {"Entrypoint": ["program"]})
    variant = {
        "VariantName": "one", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1,
    }  # fmt: skip
    workshop.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    workshop.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    found = workshop.endpoint(name, "InService", "Failed")
    assert found["EndpointStatus"] == "InService", found.get("FailureReason")
    deployed = found["ProductionVariants"][0]["DeployedImages"][0]
    assert deployed["ResolvedImage"].endswith(digest)
    runtime = workshop.account.client("sagemaker-runtime")
    for number in range(3):
        body = f"row {number}".encode()
        assert runtime.invoke_endpoint(EndpointName=name, Body=body)["Body"].read() == b"seen " + body

    # One whose server does not answer fails.
    registry.push(f"{uri}:bad", [oci.system, oci.scripts(program="exit 3")], {"Entrypoint": ["program"]})
    bad = workshop.name("bad")
    workshop.sagemaker.create_model(
        ModelName=bad, ExecutionRoleArn=workshop.role, PrimaryContainer={"Image": f"{uri}:bad"}
    )
    workshop.sagemaker.create_endpoint_config(
        EndpointConfigName=bad, ProductionVariants=[{**variant, "ModelName": bad}]
    )
    workshop.sagemaker.create_endpoint(EndpointName=bad, EndpointConfigName=bad)
    failed = workshop.endpoint(bad, "InService", "Failed")
    assert failed["EndpointStatus"] == "Failed" and "ping" in failed["FailureReason"]


def test_a_damaged_layer_is_not_run(own: tuple[Workshop, Registry]) -> None:
    workshop, registry = own
    objects = workshop.account.platform.data / "objects"
    before = set(on_disk(objects))
    uri = registry.create("app")
    registry.push(
        f"{uri}:one", [oci.system, oci.scripts(train="echo of this test alone")], {"Env": ["PATH=/usr/local/bin:/bin"]}
    )
    layer = max(set(on_disk(objects)) - before, key=lambda path: path.stat().st_size)
    held = bytearray(layer.read_bytes())
    held[len(held) // 2] ^= 1
    layer.write_bytes(held)
    job = train(workshop, f"{uri}:one")
    assert job["TrainingJobStatus"] == "Failed" and "damaged" in job["FailureReason"]


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (lambda tar: oci.entry(tar, "../../../../tmp/escaped", b"x"), "upwards"),
        (lambda tar: oci.link(tar, "x", "/etc/shadow", b"1"), "No such file"),
    ],
)
def test_a_hostile_image_fails_its_own_job(own: tuple[Workshop, Registry], layer: oci.Layer, why: str) -> None:
    workshop, registry = own
    uri = registry.create("hostile")
    registry.push(f"{uri}:one", [layer])
    job = train(workshop, f"{uri}:one")
    assert job["TrainingJobStatus"] == "Failed" and why in job["FailureReason"], job["FailureReason"]
    assert not Path("/tmp/escaped").exists()


SERVE_MANY = """
test "$1" = serve || exit 64
exec nc -ll -p "${SAGEMAKER_BIND_TO_PORT:-8080}" -e /usr/local/bin/many
"""
MANY = r"""
read -r line
length=0
while read -r header; do
  header=$(printf %s "$header" | tr -d '\r')
  test -n "$header" || break
  case "$header" in content-length:*) length=${header#*: };; esac
done
body=$(dd bs=1 count="$length" 2>/dev/null)
status="200 OK"
said=
case "$line" in
  "GET /ping "*) ;;
  "POST /invocations "*) said="$NAME<$body>";;
  "POST /models "*)
    id=$(printf %s "$body" | tr -d '"{}' | tr , '\n' | grep '^model_name:' | cut -d: -f2)
    printf %s "$body" | tr -d '"{}' | tr , '\n' | grep '^url:' | cut -d: -f2 >"/tmp/$id"
    ;;
  "POST /models/"*)
    id=${line#POST /models/}; id=${id%%/*}
    if test -e "/tmp/$id"; then said="$(cat "$(cat "/tmp/$id")/m.txt")<$body>"; else status="404 Not Found"; fi
    ;;
esac
printf 'HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s' "$status" "${#said}" "$said"
"""


@pytest.mark.control("EXP-21")
def test_one_image_serves_in_pipelines_in_batches_and_many_models(own: tuple[Workshop, Registry]) -> None:
    workshop, registry = own
    uri = registry.create("server")
    layers = [oci.system, oci.scripts(program=SERVE_MANY, many=MANY)]
    digest = registry.push(f"{uri}:one", layers, {"Entrypoint": ["program"], "Env": ["PATH=/usr/local/bin:/bin"]})
    image = canonical(workshop.account.id, "server:one")
    serving.model(workshop, "m", *({"Image": image, "Environment": {"NAME": name}} for name in ("first", "last")))
    invoke = serving.serve(workshop, serving.config(workshop, "m", serving.variant("m")))
    assert invoke(b"x") == b"last<first<x>>"

    for name in ("a", "b"):
        packed = archive(**{"m.txt": name.encode()})
        workshop.s3.put_object(Bucket=workshop.bucket, Key=f"many/{name}.tar.gz", Body=packed)
    many = {"Image": image, "Mode": "MultiModel", "ModelDataUrl": f"s3://{workshop.bucket}/many/"}
    serving.model(workshop, "many", many)
    several = serving.serve(workshop, serving.config(workshop, "many", serving.variant("many")), "several")
    assert several(b"x", TargetModel="a.tar.gz") == b"a<x>" and several(b"y", TargetModel="b.tar.gz") == b"b<y>"

    workshop.s3.put_object(Bucket=workshop.bucket, Key="in/one", Body=b"1")
    job = ended(workshop, begin(workshop, workshop.name("batch")))
    assert job["TransformJobStatus"] == "Completed", job.get("FailureReason")
    assert outputs(workshop) == {"one.out": b"last<first<1>>"}
    client = workshop.sagemaker
    [artifact] = client.list_artifacts(SourceUri=image)["ArtifactSummaries"]
    told = client.describe_artifact(ArtifactArn=artifact["ArtifactArn"])["Source"]["SourceTypes"]
    assert told == [{"SourceIdType": "Custom", "Value": digest}]


@pytest.mark.control("EXP-15", "EXP-21")
def test_an_image_is_tuned(own: tuple[Workshop, Registry]) -> None:
    workshop, registry = own
    uri = registry.create("tuned")
    script = r"""
at=$(tr -d '"{}' </opt/ml/input/config/hyperparameters.json | tr , '\n' | grep '^at:' | cut -d: -f2)
echo "loss=$at;"
"""
    registry.push(f"{uri}:one", [oci.system, oci.scripts(train=script)], {"Env": ["PATH=/usr/local/bin:/bin"]})
    grid = [{"Name": "at", "Values": ["3", "1", "2"]}]
    defined = tuning.definition(workshop)
    defined["AlgorithmSpecification"]["TrainingImage"] = f"{uri}:one"
    defined.pop("StaticHyperParameters")
    searched = {"ParameterRanges": {"CategoricalParameterRanges": grid}}
    wrong = defined | {
        "AlgorithmSpecification": {**defined["AlgorithmSpecification"], "MetricDefinitions": []},
    }
    with pytest.raises(ClientError, match="objective metric loss is neither"):
        tuning.tune(workshop, tuning.config("Grid", None, 3, **searched), wrong)
    found = tuning.tuned(workshop, tuning.tune(workshop, tuning.config("Grid", None, 3, **searched), defined))
    assert found["HyperParameterTuningJobStatus"] == "Completed", found
    assert found["BestTrainingJob"]["TunedHyperParameters"] == {"at": "1"}
