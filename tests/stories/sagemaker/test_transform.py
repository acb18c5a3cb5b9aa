"""Batch transform: objects through a model, with boto3."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import allow
from tests.stories.sagemaker.conftest import Workshop
from tests.stories.sagemaker.serving import config, container, model, serve, until, variant
from tests.stories.sagemaker.test_guardrails import role
from tests.stories.sagemaker.test_job_role import policy

SCRIPT = b"""
import json, os, time
def model_fn(folder): return open(folder + '/m.txt').read()
def transform_fn(model, body, kind, accept):
    text = body if isinstance(body, str) else body.decode('latin-1')
    if 'die once' in text and not os.path.exists('/opt/ml/died'):
        open('/opt/ml/died', 'w').close()
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
        ContentType="text/csv",
        SplitType="Line",
        Accept="text/csv",
        AssembleWith="Line",
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


CSV = {"ContentType": "text/csv", "SplitType": "Line", "Accept": "text/csv", "AssembleWith": "Line"}
JSONL = {**CSV, "ContentType": "application/jsonlines", "Accept": "application/jsonlines"}


def test_filters_and_joins_of_rows_and_of_json(served: Workshop) -> None:
    put(served, a__csv='"x, y",1,2\r\nz,3,4\n')
    chosen = {"InputFilter": "$[1:]", "JoinSource": "Input", "OutputFilter": "$[0,-1]"}
    whole = {"InputFilter": "$[1:]", "JoinSource": "Input"}
    silent = {key: value for key, value in CSV.items() if key != "Accept"}  # then answers are asked for as CSV, too
    assert done(served, "csv", **CSV, DataProcessing=chosen)["a.csv.out"] == b'"x, y",3.0\nz,7.0\n'
    assert done(served, "whole", **silent, DataProcessing=whole)["a.csv.out"] == b'"x, y",1,2,3.0\nz,3,4,7.0\n'
    served.s3.delete_object(Bucket=served.bucket, Key="in/a.csv")
    put(served, a__jsonl='{"id": 123456789012345678901, "x": [1, 2]}\n{"id": "\u00e9", "x": [3]}\n')
    chosen = {"InputFilter": "$.x", "JoinSource": "Input", "OutputFilter": "$['id','SageMakerOutput']"}
    capture = {"DestinationS3Uri": f"s3://{served.bucket}/seen", "GenerateInferenceId": True}
    found = done(served, "jsonl", **JSONL, DataProcessing=chosen, DataCaptureConfig=capture)["a.jsonl.out"]
    lines = [json.loads(one) for one in found.splitlines()]
    assert [(one["id"], one["SageMakerOutput"]) for one in lines] == [
        (123456789012345678901, {"sum": 3}),
        ("\u00e9", {"sum": 3}),
    ]
    assert len({one["SageMakerInferenceId"] for one in lines}) == 2
    started = served.sagemaker.describe_transform_job(TransformJobName="jsonl")["TransformStartTime"]
    assert lines[0]["SageMakerInferenceTime"] == started.strftime("%Y-%m-%dT%H:%M:%SZ")
    manifests = {key.partition("/")[0]: json.loads(one) for key, one in outputs(served, "seen/").items()}
    assert manifests["input"] == [{"prefix": f"s3://{served.bucket}/in/"}, "a.jsonl"]
    assert manifests["output"] == [{"prefix": f"s3://{served.bucket}/out/"}, "a.jsonl.out"]
    assert all(key[key.index("/") :].startswith(f"/{started:%Y/%m/%d/%H}/") for key in outputs(served, "seen/"))
    served.s3.delete_object(Bucket=served.bucket, Key="in/a.jsonl")
    put(served, a__json="[1, 2]")
    kinds = {"ContentType": "application/json", "Accept": "application/json"}
    found = done(served, "json", **kinds, DataProcessing={"JoinSource": "Input"})["a.json.out"]
    assert found == b'{"SageMakerInput":[1,2],"SageMakerOutput":["m",[1,2]]}'


def test_data_that_fits_no_filter_or_is_no_data_says_so(served: Workshop) -> None:
    put(served, a__csv="1,2\n3\n", b__csv="1,2\n")
    for number, (processing, said) in enumerate(
        [
            ({"InputFilter": "$[1]"}, "asks for the place 1 of 1"),
            ({"OutputFilter": "$[5]"}, "asks for the place 5 of 1"),
        ]
    ):
        job = ended(served, begin(served, f"t{number}", **CSV, DataProcessing=processing))
        assert job["TransformJobStatus"] == "Failed"
        assert job["FailureReason"].startswith("ClientError: ") and said in job["FailureReason"]
    put(served, a__csv="1,2\ncount\n")
    job = ended(served, begin(served, "t3", **CSV, DataProcessing={"JoinSource": "Input"}))
    assert (
        "mismatched line count between the input and the output: 2 records went in, 1 came out" in job["FailureReason"]
    )
    # The other object is there all the same, the one that failed is not.
    assert set(outputs(served)) == {"b.csv.out"} and "(1 of 2 objects failed)" in job["FailureReason"]
    put(served, a__csv='1,"2\n3",4\n')
    job = ended(served, begin(served, "t4", **CSV, DataProcessing={"InputFilter": "$[0]"}))
    assert "a cell must not have a line break" in job["FailureReason"]


def test_what_does_not_go_together_is_refused_at_once(served: Workshop) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"DataProcessing": {"InputFilter": "$.."}}, "InputFilter"),
        ({**CSV, "DataProcessing": {"InputFilter": "$.name"}}, "rows of CSV have places"),
        ({"DataProcessing": {"JoinSource": "Input"}}, "ContentType has to be"),
        ({**CSV, "Accept": "application/json", "DataProcessing": {"JoinSource": "Input"}}, "of one format"),
        ({**CSV, "AssembleWith": "None", "DataProcessing": {"JoinSource": "Input"}}, "AssembleWith has to be Line"),
        ({"BatchStrategy": "SingleRecord"}, "needs a SplitType"),
        ({"MaxPayloadInMB": 101}, "cannot be greater than 100"),
        ({"MaxPayloadInMB": 60, "MaxConcurrentTransforms": 2}, r"it is 2 \* 60"),
        ({"MaxPayloadInMB": 0, "SplitType": "Line"}, "SplitType has to be None"),
        ({"ModelName": "nobody"}, "Could not find model"),
        ({"S3OutputPath": "https://b/x"}, "is not an S3 URI"),
    ]
    for more, said in cases:
        with pytest.raises(ClientError, match=said) as refused:
            begin(served, "t", **more)
        assert refused.value.response["Error"]["Code"] == "ValidationException"


def test_records_of_every_format_reach_the_model_as_they_are(served: Workshop) -> None:
    tf = b"".join(struct.pack("<QI", len(one), 0) + one + b"crc." for one in (b"one", b"three"))
    io = b"".join(struct.pack("<II", 0xCED7230A, len(one)) + one + bytes(-len(one) % 4) for one in (b"one", b"three"))
    put(served, tf=tf)
    single = {"BatchStrategy": "SingleRecord", "AssembleWith": "Line"}
    assert done(served, "tf", **single, SplitType="TFRecord")["tf.out"] == b"m<one>\nm<three>\n"
    assert done(served, "tfs", SplitType="TFRecord")["tf.out"] == b"m<" + tf + b">"
    served.s3.delete_object(Bucket=served.bucket, Key="in/tf")
    put(served, io=io)
    assert done(served, "io", **single, SplitType="RecordIO")["io.out"] == b"m<one>\nm<three>\n"
    served.s3.delete_object(Bucket=served.bucket, Key="in/io")
    put(served, zipped=gzip.compress(b"one\n\nthree") + gzip.compress(b"\nlast"), other__txt=b"x")
    manifest = [{"prefix": f"s3://{served.bucket}/in/"}, "zipped"]
    served.s3.put_object(Bucket=served.bucket, Key="manifest", Body=json.dumps(manifest))
    source = {"S3DataSource": {"S3DataType": "ManifestFile", "S3Uri": f"s3://{served.bucket}/manifest"}}
    packed = {
        "CompressionType": "Gzip",
        "DataSource": source,
        "SplitType": "Line",
        "S3OutputPath": f"s3://{served.bucket}/z",
    }
    assert done(served, "zip", **single, **packed) == {"zipped.out": b"m<one>\nm<three>\nm<last>\n"}
    # Without CompressionType it is text; cut off or no gzip at all, no data.
    put(served, zipped=gzip.compress(b"one")[:-4])
    job = ended(served, begin(served, "cut", **single, **packed))
    assert "gzip data of the object ends too early" in job["FailureReason"]


def test_an_object_as_large_as_it_likes_is_streamed(served: Workshop) -> None:
    large = b"count" + bytes(9 << 20)
    put(served, large=large)
    job = ended(served, begin(served, "whole"))
    assert job["FailureReason"].startswith("ClientError: Too much data for max payload size")
    assert "large: ClientError: Too much data" in logged(served, "whole", data=True)
    assert done(served, "streamed", MaxPayloadInMB=0)["large.out"] == str(len(large)).encode()


@pytest.mark.control("SVR-05")
def test_the_container_knows_the_job_and_the_job_its_container(served: Workshop) -> None:
    script = (
        SCRIPT.replace(b"def model_fn", b"def unused", 1)
        + b"""
def model_fn(folder): return 'second '
"""
    )
    second = container(served, "second", script)
    model(served, "pipeline", container(served, "m", SCRIPT), second)
    put(served, a="x")
    assert done(served, "p", ModelName="pipeline")["a.out"] == b"second <m<x>>"
    put(served, a="env")
    told = {"MY_OWN": "1"}
    given = {"BatchStrategy": "MultiRecord", "MaxConcurrentTransforms": 2, "MaxPayloadInMB": 3, "SplitType": "Line"}
    found = json.loads(done(served, "env", Environment=told, **given)["a.out"])
    arn = served.sagemaker.describe_transform_job(TransformJobName="env")["TransformJobArn"]
    assert found["TRANSFORM_JOB_ARN"] == arn and found["MY_OWN"] == "1"
    names = (
        "SAGEMAKER_BATCH",
        "SAGEMAKER_BATCH_STRATEGY",
        "SAGEMAKER_MAX_PAYLOAD_IN_MB",
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS",
    )
    assert [found[one] for one in names] == ["true", "MULTI_RECORD", "3", "2"]
    found = json.loads(done(served, "bare")["a.out"])
    assert "SAGEMAKER_MAX_PAYLOAD_IN_MB" not in found and found["SAGEMAKER_BATCH"] == "true"


def test_a_model_that_hangs_dies_or_breaks_costs_its_object_and_no_other(served: Workshop) -> None:
    put(served, a="fine", b="hang", c="fine too")
    quick = {"InvocationsTimeoutInSeconds": 1, "InvocationsMaxRetries": 0}
    job = ended(served, begin(served, "hangs", ModelClientConfig=quick, InstanceCount=2))
    assert "did not respond to /invocations request within 1 seconds" in job["FailureReason"]
    assert job["FailureReason"].startswith("AlgorithmError: ") and "in/b (" in job["FailureReason"]
    put(served, b="die once")
    assert done(served, "dies")["b.out"] == b"m<die once>"
    assert "it is started again" in logged(served, "dies", data=False)
    put(served, b="die")
    # One at a time: what else a server had in hand when it fell is tried again, and counts too.
    alone = {"ModelClientConfig": {"InvocationsMaxRetries": 1}, "MaxConcurrentTransforms": 1}
    job = ended(served, begin(served, "dead", **alone, S3OutputPath=f"s3://{served.bucket}/d"))
    assert "Unable to get response from algorithm" in job["FailureReason"]
    assert set(outputs(served, "d/")) == {"a.out", "c.out"}
    put(served, b="bad")
    job = ended(served, begin(served, "bad", **alone))
    assert "Bad HTTP status received from algorithm: 500: transform_fn failed: ValueError" in job["FailureReason"]
    assert "b: Message:\n" in logged(served, "bad", data=True)


def test_a_job_that_is_stopped_leaves_whole_objects_only(served: Workshop) -> None:
    put(served, a="fine", b="hang")
    begin(served, "t")
    until(lambda: outputs(served))
    served.sagemaker.stop_transform_job(TransformJobName="t")
    job = ended(served, "t")
    assert job["TransformJobStatus"] == "Stopped" and "FailureReason" not in job
    assert set(outputs(served)) == {"a.out"}
    with pytest.raises(ClientError, match="in status Stopped"):
        served.sagemaker.stop_transform_job(TransformJobName="t")
    with pytest.raises(ClientError, match="already exists") as taken:
        begin(served, "t")
    assert taken.value.response["Error"]["Code"] == "ResourceInUse"


@pytest.mark.control("ENC-03", lacking="AutoML")
def test_a_job_works_and_stores_under_the_keys_that_it_names(served: Workshop) -> None:
    kms = served.account.client("kms")
    volume, output = (kms.create_key()["KeyMetadata"]["Arn"] for _ in range(2))
    put(served, a="x")
    named = {"VolumeKmsKeyId": volume, "KmsKeyId": output}
    capture = {"DestinationS3Uri": f"s3://{served.bucket}/seen", "KmsKeyId": output}
    done(served, "t", **named, DataCaptureConfig=capture)
    shown = served.sagemaker.describe_transform_job(TransformJobName="t")
    assert shown["TransformResources"]["VolumeKmsKeyId"] == volume
    assert shown["TransformOutput"]["KmsKeyId"] == output
    keys = ["out/a.out", *(f"seen/{key}" for key in outputs(served, "seen/"))]
    assert len(keys) == 3
    for key in keys:
        head = served.s3.head_object(Bucket=served.bucket, Key=key)
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", output)
    kms.disable_key(KeyId=output)
    job = ended(served, begin(served, "output", **named))
    assert job["TransformJobStatus"] == "Failed" and "DisabledException" in job["FailureReason"]
    with pytest.raises(ClientError, match="DisabledException"):
        served.s3.get_object(Bucket=served.bucket, Key="out/a.out")
    kms.enable_key(KeyId=output)
    kms.disable_key(KeyId=volume)
    job = ended(served, begin(served, "volume", **named))
    assert "The volume's key cannot be used" in job["FailureReason"] and volume in job["FailureReason"]


@pytest.mark.control("SVR-05")
def test_a_role_that_may_not_read_or_write_says_which_object(served: Workshop) -> None:
    put(served, a="x")
    iam = served.account.client("iam")
    closed = {"Effect": "Deny", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{served.bucket}/out/*"}
    document = {"Version": "2012-10-17", "Statement": [closed]}
    iam.put_role_policy(RoleName="Execution", PolicyName="closed", PolicyDocument=json.dumps(document))
    job = ended(served, begin(served, "t"))
    assert job["FailureReason"].startswith("ClientError: Output upload failed: AccessDenied")
    assert "out/a.out" in job["FailureReason"]
    closed |= {"Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{served.bucket}/in/*"}
    iam.put_role_policy(RoleName="Execution", PolicyName="closed", PolicyDocument=json.dumps(document))
    job = ended(served, begin(served, "t2"))
    assert job["FailureReason"].startswith("ClientError: Data download failed: AccessDenied")
    job = ended(
        served,
        begin(
            served, "t3", DataSource={"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{served.bucket}/no/"}}
        ),
    )
    assert "no objects found at" in job["FailureReason"]


@pytest.mark.control("GRD-05")
def test_guardrails_see_the_keys_the_model_and_the_type_of_a_job(served: Workshop, mission: Path) -> None:
    free = allow("sagemaker:*", "iam:PassRole")
    model(served, "other", container(served, "other", SCRIPT))
    only = {"Effect": "Deny", "Action": "sagemaker:CreateTransformJob", "Resource": "*"}
    arn = served.sagemaker.describe_model(ModelName="m")["ModelArn"]
    put(served, a="x")

    def denied(**condition: Any) -> dict[str, Any]:
        return {"Version": "2012-10-17", "Statement": [{**only, "Condition": condition}]}

    encrypted = policy(mission, "22-guardrail-job-volume-encryption.json")
    bound = role(served.account, "Bound", free=free, guardrail=encrypted)
    tied = role(served.account, "Tied", free=free, guardrail=denied(ArnNotEquals={"sagemaker:ModelArn": arn}))
    types = {"ForAnyValue:StringNotLike": {"sagemaker:InstanceTypes": ["ml.m5.*"]}}
    small = role(served.account, "Small", free=free, guardrail=denied(**types))
    key = served.account.client("kms").create_key()["KeyMetadata"]["Arn"]
    admin = served.sagemaker
    for client, offends, complies in (
        (bound, {"KmsKeyId": key}, {"VolumeKmsKeyId": key}),
        (tied, {"ModelName": "other"}, {}),
        (small, {"InstanceType": "ml.c5.xlarge"}, {}),
    ):
        served.sagemaker = client
        with pytest.raises(ClientError, match="explicit deny") as error:
            begin(served, served.name("t"), **offends)
        assert error.value.response["Error"]["Code"] == "AccessDeniedException"
        name = begin(served, served.name("t"), **complies)
        served.sagemaker = admin
        assert ended(served, name)["TransformJobStatus"] == "Completed"


@pytest.mark.control("PIP-07")
def test_a_registered_version_answers_alike_in_both_modes(workshop: Workshop) -> None:
    client = workshop.sagemaker
    client.create_model_package_group(ModelPackageGroupName="credit")
    inside = container(workshop, "registered", SCRIPT)
    specification = {
        "Containers": [inside],
        "SupportedContentTypes": ["text/csv"],
        "SupportedResponseMIMETypes": ["text/csv"],
    }
    made = client.create_model_package(ModelPackageGroupName="credit", InferenceSpecification=specification)
    arn = made["ModelPackageArn"]
    with pytest.raises(ClientError, match="PendingManualApproval"):
        model(workshop, "m", {"ModelPackageName": arn})
    client.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    model(workshop, "m", {"ModelPackageName": arn})
    put(workshop, a__csv="1,2\n3,4\n")
    batch = done(workshop, "t", **CSV)["a.csv.out"]
    invoke = serve(workshop, config(workshop, "m", variant("m")))
    online = b"".join(invoke(row, ContentType="text/csv") + b"\n" for row in (b"1,2", b"3,4"))
    assert batch == online == b"3.0\n7.0\n"
    client.delete_model_package(ModelPackageName=arn)
    with pytest.raises(ClientError, match="ValidationException"):
        model(workshop, "again", {"ModelPackageName": arn})


def test_a_job_is_in_its_trial_in_the_lineage_and_among_the_metrics(served: Workshop) -> None:
    client = served.sagemaker
    client.create_experiment(ExperimentName="e")
    client.create_trial(TrialName="tr", ExperimentName="e")
    put(served, a="x")
    done(served, "t", ExperimentConfig={"ExperimentName": "e", "TrialName": "tr"})
    found = client.describe_trial_component(TrialComponentName="t-aws-transform-job")
    assert found["Status"]["PrimaryStatus"] == "Completed"
    assert found["InputArtifacts"]["SageMaker.ModelName"]["Value"] == "m"
    listed = client.list_trial_components(TrialName="tr")["TrialComponentSummaries"]
    assert [one["TrialComponentName"] for one in listed] == ["t-aws-transform-job"]
    graph = client.query_lineage(StartArns=[found["TrialComponentArn"]], Direction="Both", IncludeEdges=True)
    kinds = sorted(one["Type"] for one in graph["Vertices"] if one["LineageType"] == "Artifact")
    assert kinds == ["DataSet", "DataSet", "Image", "Model"]
    with pytest.raises(ClientError, match="ResourceNotFound"):
        begin(served, "nowhere", ExperimentConfig={"ExperimentName": "nobody"})
