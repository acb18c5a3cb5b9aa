"""Batch transform: objects through a model, with boto3."""

from __future__ import annotations

import gzip
import json
import struct
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.stories.sagemaker.conftest import Workshop
from tests.stories.sagemaker.serving import container, model, until

SCRIPT = b"""
import json, os, time
def model_fn(folder): return open(folder + '/m.txt').read()
def transform_fn(model, body, kind, accept):
    text = body if isinstance(body, str) else body.decode('latin-1')
    if 'die once' in text and not os.path.exists('/tmp/died'):
        open('/tmp/died', 'w').close()
        os._exit(3)
    if 'die' in text and 'once' not in text: os._exit(3)
    if 'hang' in text: time.sleep(3600)
    if 'bad' in text: raise ValueError('x')
    if 'env' in text:
        return json.dumps({k: v for k, v in os.environ.items() if k.startswith(('SAGEMAKER_', 'TRANSFORM_', 'MY_'))}), kind
    if 'count' in text: return str(len(text)), kind
    if kind == 'text/csv':
        return '\\n'.join(str(sum(float(c) for c in row.split(','))) for row in text.split('\\n') if row), 'text/csv'
    if kind == 'application/jsonlines':
        return '\\n'.join(json.dumps({'sum': sum(json.loads(r))}) for r in text.split('\\n') if r), kind
    if kind == 'application/json': return json.dumps([model, json.loads(text)]), kind
    return (model + '<' + text + '>').encode('latin-1'), 'text/plain'
"""


def put(workshop: Workshop, **objects: bytes | str) -> None:
    """Objects below ``in/``; two underscores stand for a dot."""
    for name, content in objects.items():
        body = content.encode() if isinstance(content, str) else content
        workshop.s3.put_object(Bucket=workshop.bucket, Key=f"in/{name.replace('__', '.')}", Body=body)


def begin(workshop: Workshop, name: str, **more: Any) -> str:
    """Starts a job over ``in/`` into ``out``; members of TransformInput and TransformOutput may be given flat."""
    source: dict[str, Any] = {
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{workshop.bucket}/in/"}}
    }
    target: dict[str, Any] = {"S3OutputPath": f"s3://{workshop.bucket}/out"}
    resources: dict[str, Any] = {"InstanceType": "ml.m5.large", "InstanceCount": 1}
    for where, members in (
        (source, ("DataSource", "ContentType", "CompressionType", "SplitType")),
        (target, ("S3OutputPath", "Accept", "AssembleWith", "KmsKeyId")),
        (resources, ("InstanceType", "InstanceCount", "VolumeKmsKeyId")),
    ):
        where.update({one: more.pop(one) for one in members if one in more})
    workshop.sagemaker.create_transform_job(
        TransformJobName=name,
        **{"ModelName": "m", **more},
        TransformInput=source,
        TransformOutput=target,
        TransformResources=resources,
    )
    return name


def ended(workshop: Workshop, name: str) -> dict[str, Any]:
    """The job when it is over."""

    def found() -> dict[str, Any] | None:
        job: dict[str, Any] = workshop.sagemaker.describe_transform_job(TransformJobName=name)
        return job if job["TransformJobStatus"] not in ("InProgress", "Stopping") else None

    job: dict[str, Any] = until(found, 90)
    return job


def outputs(workshop: Workshop, prefix: str = "out/") -> dict[str, bytes]:
    """What lies below a prefix."""
    found = workshop.s3.list_objects_v2(Bucket=workshop.bucket, Prefix=prefix).get("Contents") or []
    return {
        one["Key"].removeprefix(prefix): workshop.s3.get_object(Bucket=workshop.bucket, Key=one["Key"])["Body"].read()
        for one in found
    }


def done(workshop: Workshop, name: str, **more: Any) -> dict[str, bytes]:
    """What a job that completes leaves."""
    job = ended(workshop, begin(workshop, name, **more))
    assert job["TransformJobStatus"] == "Completed", job.get("FailureReason")
    return outputs(workshop, more.get("S3OutputPath", f"s3://{workshop.bucket}/out").split("/", 3)[3] + "/")


def logged(workshop: Workshop, name: str, *, data: bool) -> str:
    """The lines of a job's log: of its servers, or of its data."""
    logs, group = workshop.account.client("logs"), "/aws/sagemaker/TransformJobs"
    streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")["logStreams"]
    wanted = [one["logStreamName"] for one in streams if one["logStreamName"].endswith("/data-log") == data]
    events = [logs.get_log_events(logGroupName=group, logStreamName=one, startFromHead=True) for one in wanted]
    return "\n".join(event["message"] for one in events for event in one["events"])


@pytest.fixture
def served(workshop: Workshop) -> Workshop:
    """A workshop with the model ``m``."""
    model(workshop, "m", container(workshop, "m", SCRIPT))
    return workshop


@pytest.mark.control("ACC-12")
def test_every_object_becomes_one_with_its_answers_in_order(served: Workshop) -> None:
    rows = "".join(f"{n},{n}\n" for n in range(1000))
    put(served, a__csv=rows, **{"deep/b__csv": "1,2\n3,4"}, folder="")
    found = done(
        served,
        "t",
        **{"ContentType": "text/csv", "SplitType": "Line", "Accept": "text/csv", "AssembleWith": "Line"},
        MaxConcurrentTransforms=3,
        BatchStrategy="MultiRecord",
    )
    assert found["a.csv.out"] == b"".join(b"%.1f\n" % (2 * n) for n in range(1000))
    assert found["deep/b.csv.out"] == b"3.0\n7.0\n"
    assert set(found) == {"a.csv.out", "deep/b.csv.out", "folder.out"}
    assert "MaxConcurrentTransforms=3, MaxPayloadInMB=6, BatchStrategy=MULTI_RECORD" in logged(served, "t", data=True)
    shown = served.sagemaker.describe_transform_job(TransformJobName="t")
    assert shown["TransformOutput"]["KmsKeyId"] == "" and shown["DataProcessing"]["JoinSource"] == "None"
    assert shown["TransformEndTime"] >= shown["TransformStartTime"] >= shown["CreationTime"]
    listed = served.sagemaker.list_transform_jobs(StatusEquals="Completed")["TransformJobSummaries"]
    assert [one["TransformJobName"] for one in listed] == ["t"]


