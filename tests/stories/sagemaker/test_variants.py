"""What an endpoint configuration may say: variants, shadows, captured data, serverless, limits of time."""

from __future__ import annotations

import base64
import json
import threading
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import allow
from tests.stories.sagemaker.conftest import Workshop
from tests.stories.sagemaker.serving import config, container, model, serve, until, variant
from tests.stories.sagemaker.test_metrics import sums


def _captured(workshop: Workshop, prefix: str) -> list[dict[str, Any]]:
    found = workshop.s3.list_objects_v2(Bucket=workshop.bucket, Prefix=prefix).get("Contents", [])
    lines: list[dict[str, Any]] = []
    for one in found:
        body = workshop.s3.get_object(Bucket=workshop.bucket, Key=one["Key"])["Body"].read()
        lines += [json.loads(line) for line in body.splitlines()]
    return lines


def _capture(workshop: Workshop, **more: Any) -> dict[str, Any]:
    return {
        "EnableCapture": True,
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": f"s3://{workshop.bucket}/captured",
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        **more,
    }


@pytest.mark.control("ENC-04", lacking="monitoring outputs")
def test_requests_and_answers_are_captured_under_the_customers_key(workshop: Workshop) -> None:
    kms = workshop.account.client("kms")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    capture = _capture(workshop, KmsKeyId=key, CaptureContentTypeHeader={"CsvContentTypes": ["text/csv"]})
    model(workshop, "m", container(workshop, "A"))
    config(workshop, "c", variant("m"), DataCaptureConfig=capture, KmsKeyId=key)
    invoke = serve(workshop, "c")
    shown = workshop.sagemaker.describe_endpoint(EndpointName="e")["DataCaptureConfig"]
    assert (shown["CaptureStatus"], shown["CurrentSamplingPercentage"], shown["KmsKeyId"]) == ("Started", 100, key)
    invoke(b"1,2", ContentType="text/csv", InferenceId="mine")
    invoke(b"\xff", ContentType="application/x-other")
    with pytest.raises(ClientError):
        invoke(b"bad")
    lines = until(lambda: len(found := _captured(workshop, "captured/e/AllTraffic/")) >= 2 and found)
    assert len(lines) == 2  # what was refused is not captured
    first, second = lines
    assert first["captureData"]["endpointInput"] == {
        "observedContentType": "text/csv",
        "mode": "INPUT",
        "data": "1,2",
        "encoding": "CSV",
    }
    assert first["captureData"]["endpointOutput"]["data"] == "1,2"
    assert (first["eventMetadata"]["inferenceId"], first["eventVersion"]) == ("mine", "0")
    assert second["captureData"]["endpointInput"]["encoding"] == "BASE64"
    assert base64.b64decode(second["captureData"]["endpointInput"]["data"]) == b"\xff"
    entry = workshop.s3.list_objects_v2(Bucket=workshop.bucket, Prefix="captured/")["Contents"][0]["Key"]
    stamp = first["eventMetadata"]["inferenceTime"]
    assert entry.startswith(f"captured/e/AllTraffic/{stamp[:10].replace('-', '/')}/{stamp[11:13]}/")
    assert workshop.s3.head_object(Bucket=workshop.bucket, Key=entry)["SSEKMSKeyId"] == key
    # The other direction: a key that the model's role may not use captures nothing, and the log says why.
    kms.put_key_policy(
        KeyId=key,
        PolicyName="default",
        Policy=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Principal": {"AWS": f"arn:aws:iam::{workshop.account.id}:root"},
                        "Action": "kms:*",
                        "Resource": "*",
                    },
                    {
                        "Effect": "Deny",
                        "Principal": {"AWS": workshop.role},
                        "Action": "kms:GenerateDataKey*",
                        "Resource": "*",
                    },
                ],
            }
        ),
    )
    invoke(b"3,4", ContentType="text/csv")
    logs = workshop.account.client("logs")

    def told() -> str:
        streams = logs.describe_log_streams(logGroupName="/aws/sagemaker/Endpoints/e")["logStreams"]
        found = [one["logStreamName"] for one in streams if one["logStreamName"].endswith("data-capture")]
        if not found:
            return ""
        events = logs.get_log_events(logGroupName="/aws/sagemaker/Endpoints/e", logStreamName=found[0])["events"]
        return str(events[0]["message"]) if events else ""

    assert "AccessDenied" in until(told)
    assert len(_captured(workshop, "captured/e/")) == 2
    # It waited on the disk: with the key back it arrives.
    kms.put_key_policy(
        KeyId=key,
        PolicyName="default",
        Policy=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Principal": {"AWS": f"arn:aws:iam::{workshop.account.id}:root"},
                        "Action": "kms:*",
                        "Resource": "*",
                    }
                ],
            }
        ),
    )
    assert until(lambda: len(_captured(workshop, "captured/e/")) == 3)


def test_weights_share_the_calls_and_a_variant_can_be_named(workshop: Workshop) -> None:
    for name in ("A", "B"):
        model(workshop, name, container(workshop, name))
    one, other = variant("A", "One", InitialVariantWeight=1.0), variant("B", "Other", InitialVariantWeight=0.0)
    invoke = serve(workshop, config(workshop, "c", {**one, "InitialInstanceCount": 2}, other))
    assert {invoke() for _ in range(8)} == {b"A"}
    assert invoke(TargetVariant="Other") == b"B"
    with pytest.raises(ClientError, match="Variant Neither not found"):
        invoke(TargetVariant="Neither")
    weights = [{"VariantName": "One", "DesiredWeight": 0.0}, {"VariantName": "Other", "DesiredWeight": 1.0}]
    client = workshop.sagemaker
    client.update_endpoint_weights_and_capacities(EndpointName="e", DesiredWeightsAndCapacities=weights)
    found = workshop.endpoint("e", "InService")["ProductionVariants"]
    assert [one["CurrentWeight"] for one in found] == [0.0, 1.0]
    assert {invoke() for _ in range(8)} == {b"B"}
    # More servers, of the same deployment: both answer at once.
    more = [{"VariantName": "Other", "DesiredInstanceCount": 2}]
    client.update_endpoint_weights_and_capacities(EndpointName="e", DesiredWeightsAndCapacities=more)
    assert workshop.endpoint("e", "InService")["ProductionVariants"][1]["CurrentInstanceCount"] == 2
    for wrong, why in (
        ([{"VariantName": "Neither", "DesiredWeight": 1.0}], "Could not find variant"),
        ([{"VariantName": "One", "DesiredInstanceCount": 99}], "at most"),
    ):
        with pytest.raises(ClientError, match=why):
            client.update_endpoint_weights_and_capacities(EndpointName="e", DesiredWeightsAndCapacities=wrong)
    assert client.describe_endpoint(EndpointName="e")["EndpointStatus"] == "InService"


def test_a_shadow_gets_copies_and_nobody_its_answers(workshop: Workshop) -> None:
    for name in ("A", "B"):
        model(workshop, name, container(workshop, name))
    shadow = {"ShadowProductionVariants": [variant("B", "Shadow")]}
    capture = {"DataCaptureConfig": _capture(workshop)}
    invoke = serve(workshop, config(workshop, "c", variant("A"), **shadow, **capture))
    assert {invoke(b"x") for _ in range(5)} == {b"Ax"}
    with pytest.raises(ClientError, match="not found"):
        invoke(b"x", TargetVariant="Shadow")
    # Its failures are nobody's either.
    found = until(lambda: len(lines := _captured(workshop, "captured/e/Shadow/")) >= 5 and lines)
    assert base64.b64decode(found[0]["captureData"]["endpointOutput"]["data"]) == b"Bx"
    shown = workshop.sagemaker.describe_endpoint(EndpointName="e")
    assert [one["VariantName"] for one in shown["ShadowProductionVariants"]] == ["Shadow"]
    with pytest.raises(ClientError, match="only one"):
        config(workshop, "two", variant("A"), variant("A", "Second"), **shadow)


def test_a_serverless_variant_comes_on_demand_and_answers_no_more_than_it_may(workshop: Workshop) -> None:
    model(workshop, "m", container(workshop, "A"))
    serverless = {"ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 1}}
    plain = {"VariantName": "AllTraffic", "ModelName": "m"}
    for wrong, why in (
        ({"ServerlessConfig": {"MemorySizeInMB": 1500, "MaxConcurrency": 1}}, "multiple of 1024"),
        ({**serverless, "InstanceType": "ml.m5.large"}, "no InstanceType"),
        ({}, "InstanceType or ServerlessConfig"),
    ):
        with pytest.raises(ClientError, match=why):
            config(workshop, "wrong", {**plain, **wrong})
    invoke = serve(workshop, config(workshop, "c", {**plain, **serverless}))
    assert invoke(b"x") == b"Ax"
    answers: list[Any] = []

    def ask() -> None:
        try:
            answers.append(invoke(b"slow"))
        except ClientError as error:
            answers.append(error.response["Error"]["Code"])

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers.count(b"Aslow") == 1 and answers.count("ThrottlingException") == 2
    # Who asked too often, or for a container that there is not, is no error of the model nor of its server.
    with pytest.raises(ClientError, match="TargetContainerHostname"):
        invoke(b"x", TargetContainerHostname="none")
    watch, of = workshop.account.client("cloudwatch"), {"EndpointName": "e", "VariantName": "AllTraffic"}
    names = ("Invocations", "Invocation4XXErrors", "Invocation5XXErrors", "InvocationModelErrors")

    def counts() -> list[float]:
        return [sums(watch, "AWS/SageMaker", name, of, "Sum").get("Sum", 0) for name in names]

    # The client may have tried throttled calls again: two were answered, and all others count as their callers' mistakes.
    until(lambda: (found := counts())[0] >= 5 and found[1] == found[0] - 2)
    assert counts()[2:] == [0, 0]
    shown = workshop.sagemaker.describe_endpoint(EndpointName="e")["ProductionVariants"][0]
    assert shown["CurrentServerlessConfig"]["MaxConcurrency"] == 1 and "CurrentInstanceCount" not in shown
    more = [{"VariantName": "AllTraffic", "ServerlessUpdateConfig": {"MaxConcurrency": 3}}]
    workshop.sagemaker.update_endpoint_weights_and_capacities(EndpointName="e", DesiredWeightsAndCapacities=more)
    workshop.endpoint("e", "InService")
    answers.clear()
    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [b"Aslow"] * 3


def test_what_a_configuration_asks_for_in_vain_is_refused_by_name(workshop: Workshop) -> None:
    model(workshop, "m", container(workshop, "A"))
    for more, why in (
        ({"ManagedInstanceScaling": {"Status": "ENABLED"}}, "ManagedInstanceScaling"),
        ({"AcceleratorType": "ml.eia1.medium"}, "AcceleratorType"),
        ({"InitialInstanceCount": 5}, "at most 4"),
    ):
        with pytest.raises(ClientError, match=why):
            config(workshop, "wrong", variant("m", **more))
    topics = {"IncludeInferenceResponseIn": ["SUCCESS_NOTIFICATION_TOPIC"]}
    output = {"S3OutputPath": f"s3://{workshop.bucket}/out"}
    for given, why in (
        (
            {"ExplainerConfig": {"ClarifyExplainerConfig": {"ShapConfig": {"ShapBaselineConfig": {}}}}},
            "ExplainerConfig",
        ),
        (
            {"AsyncInferenceConfig": {"OutputConfig": {**output, "NotificationConfig": topics}}},
            "IncludeInferenceResponseIn",
        ),
        ({"AsyncInferenceConfig": {"OutputConfig": {}}}, "S3OutputPath"),
    ):
        with pytest.raises(ClientError, match=why):
            config(workshop, "wrong", variant("m"), **given)


@pytest.mark.control("EXP-17", lacking="containers of your own")
def test_a_model_that_does_not_come_up_fails_its_endpoint(workshop: Workshop) -> None:
    script = b"raise ValueError('no')\n"
    model(workshop, "dead", container(workshop, "B", script))
    config(workshop, "dead", variant("dead"))
    workshop.sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="dead")
    found = workshop.endpoint("e", "Failed", "InService")
    assert "ended before it answered" in found["FailureReason"]
    logs = workshop.account.client("logs")
    streams = logs.describe_log_streams(logGroupName="/aws/sagemaker/Endpoints/e")["logStreams"]
    events = logs.get_log_events(
        logGroupName="/aws/sagemaker/Endpoints/e", logStreamName=streams[0]["logStreamName"], startFromHead=True
    )["events"]
    assert any("ValueError: no" in one["message"] for one in events)


def test_a_role_that_may_not_invoke_is_refused_and_a_role_that_may_is_answered(workshop: Workshop) -> None:
    model(workshop, "m", container(workshop, "A"))
    serve(workshop, config(workshop, "c", variant("m")))
    arn = workshop.sagemaker.describe_endpoint(EndpointName="e")["EndpointArn"]
    workshop.account.role("Caller", allow("sagemaker:InvokeEndpoint", resource=arn))
    caller = workshop.account.client("sagemaker-runtime", workshop.account.as_role("Caller"))
    assert caller.invoke_endpoint(EndpointName="e", Body=b"x", ContentType="text/plain")["Body"].read() == b"Ax"
    with pytest.raises(ClientError, match="not authorized"):
        caller.invoke_endpoint_with_response_stream(EndpointName="e", Body=b"x")
    with pytest.raises(ClientError, match="not authorized"):
        caller.invoke_endpoint_async(EndpointName="e", InputLocation=f"s3://{workshop.bucket}/in")
