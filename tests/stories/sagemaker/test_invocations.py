"""Invocations: streamed, asynchronous, and of servers that fall, hang and talk nonsense."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError, EventStreamError

from tests.platform import allow
from tests.stories.sagemaker.conftest import Workshop
from tests.stories.sagemaker.serving import config, container, model, serve, until, variant


def _runtime(workshop: Workshop) -> Any:
    return workshop.account.client("sagemaker-runtime")


def test_an_answer_is_streamed_as_the_server_gives_it(workshop: Workshop) -> None:
    model(workshop, "m", container(workshop, "A"))
    serve(workshop, config(workshop, "c", variant("m")))
    runtime = _runtime(workshop)

    def stream(body: bytes) -> Any:
        return runtime.invoke_endpoint_with_response_stream(EndpointName="e", Body=body, ContentType="text/plain")

    def parts(body: bytes) -> list[tuple[float, bytes]]:
        """When each piece was here, and what it was."""
        answer = stream(body)
        assert (answer["ContentType"], answer["InvokedProductionVariant"]) == ("text/plain", "AllTraffic")
        with contextlib.closing(answer["Body"]) as events:
            return [(time.monotonic(), event["PayloadPart"]["Bytes"]) for event in events]

    def apart() -> bool:
        pieces = parts(b"stream")
        assert [piece for _, piece in pieces] == [b"A0", b"A1", b"A2", b"A3"]
        return pieces[-1][0] - pieces[0][0] >= 0.6

    # The first is here before the server has made the last: it sleeps 0.3 s before each. Whoever gave the answer whole
    # would never be seen to; a machine that stood still while the first came may be.
    until(apart)
    # An answer that the model gives whole comes as one piece; one that breaks off says so.
    assert [piece for _, piece in parts(b"x")] == [b"Ax"]
    with pytest.raises(EventStreamError, match="ModelStreamError"):
        parts(b"broken")
    with pytest.raises(ClientError) as refused:
        stream(b"bad")
    assert refused.value.response["Error"]["Code"] == "ModelError"
    # InvokeEndpoint gives the same answer whole.
    whole = runtime.invoke_endpoint(EndpointName="e", Body=b"stream", ContentType="text/plain")
    assert whole["Body"].read() == b"A0A1A2A3"


def _topics(workshop: Workshop) -> tuple[dict[str, str], Callable[[], dict[str, dict[str, Any]]]]:
    """Two topics that the model's role may tell, and how to hear what they were told, by inference."""
    account = workshop.account
    sns, sqs = account.client("sns"), account.client("sqs")
    topics = {kind: sns.create_topic(Name=kind)["TopicArn"] for kind in ("SuccessTopic", "ErrorTopic")}
    queue = sqs.create_queue(QueueName="told")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": arn,
        "Condition": {"ArnEquals": {"aws:SourceArn": list(topics.values())}},
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": policy})
    for topic in topics.values():
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"})
    may = json.dumps(allow("sns:Publish", resource=list(topics.values())))
    account.client("iam").put_role_policy(RoleName="Execution", PolicyName="tell", PolicyDocument=may)
    told: dict[str, dict[str, Any]] = {}

    def hear() -> dict[str, dict[str, Any]]:
        for one in sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", []):
            message = json.loads(one["Body"])
            told[message["inferenceId"]] = message
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=one["ReceiptHandle"])
        return told

    return topics, hear


def test_asynchronous_invocations_are_answered_in_s3(workshop: Workshop) -> None:
    model(workshop, "m", container(workshop, "A"))
    output = {
        "S3OutputPath": f"s3://{workshop.bucket}/out/",
        "S3FailurePath": f"s3://{workshop.bucket}/failed/",
        "KmsKeyId": workshop.account.client("kms").create_key()["KeyMetadata"]["Arn"],
    }
    topics, hear = _topics(workshop)
    asked = {
        "OutputConfig": {**output, "NotificationConfig": topics},
        "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 1},
    }
    serve(workshop, config(workshop, "c", variant("m"), AsyncInferenceConfig=asked))
    runtime = _runtime(workshop)

    def ask(body: bytes | None, **more: Any) -> dict[str, Any]:
        key = workshop.name("in")
        if body is not None:
            workshop.s3.put_object(Bucket=workshop.bucket, Key=key, Body=body)
        location = f"s3://{workshop.bucket}/{key}"
        answer: dict[str, Any] = runtime.invoke_endpoint_async(
            EndpointName="e", InputLocation=location, ContentType="text/plain", **more
        )
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 202
        return answer

    def got(location: str) -> bytes | None:
        try:
            found = workshop.s3.get_object(Bucket=workshop.bucket, Key=location.partition(f"{workshop.bucket}/")[2])
        except ClientError:
            return None
        body: bytes = found["Body"].read()
        assert found["SSEKMSKeyId"] == output["KmsKeyId"]
        return body

    answers = [ask(str(number).encode(), InferenceId=f"i-{number}") for number in range(3)]
    assert [one["InferenceId"] for one in answers] == ["i-0", "i-1", "i-2"]
    for number, one in enumerate(answers):
        assert until(lambda one=one: got(one["OutputLocation"])) == b"A%d" % number
    refused = ask(b"bad")
    assert b"transform_fn failed" in until(lambda: got(refused["FailureLocation"]))
    assert got(refused["OutputLocation"]) is None
    missing = ask(None)
    assert b"NoSuchKey" in until(lambda: got(missing["FailureLocation"]))
    late = ask(b"slow", InvocationTimeoutSeconds=1)
    assert b"did not answer within 1 s" in until(lambda: got(late["FailureLocation"]))
    # Topics are told how each ended.
    heard = until(lambda: len(hear()) >= 6 and hear())
    assert [heard[f"i-{number}"]["invocationStatus"] for number in range(3)] == ["Completed"] * 3
    assert heard["i-0"]["responseParameters"]["outputLocation"] == answers[0]["OutputLocation"]
    assert heard["i-0"]["requestParameters"]["endpointName"] == "e"
    for one in (refused, missing, late):
        failed = heard[one["InferenceId"]]
        assert failed["invocationStatus"] == "Failed" and "responseParameters" not in failed
    assert "did not answer within 1 s" in heard[late["InferenceId"]]["failureReason"]
    # Each kind of endpoint answers its kind of call.
    with pytest.raises(ClientError, match="call InvokeEndpointAsync"):
        runtime.invoke_endpoint(EndpointName="e", Body=b"x")
    with pytest.raises(ClientError, match="InputLocation is needed"):
        runtime.invoke_endpoint_async(EndpointName="e")


NONSENSE = b"""
import os, socket
def model_fn(folder): return ''
def transform_fn(model, body, kind, accept):
    if body == 'die': os._exit(3)
    if body == 'large': return 'x' * (26 << 20), 'text/plain'
    if body == 'leak':
        held = []
        while True: held.append(b'x' * (64 << 20))
    return body, 'text/plain'
"""


def test_a_server_that_falls_or_answers_too_much_gives_errors_and_comes_back(workshop: Workshop) -> None:
    model(workshop, "m", container(workshop, "A", NONSENSE))
    invoke = serve(workshop, config(workshop, "c", variant("m")))
    for body, why in ((b"large", "more than"), (b"die", "closed the connection")):
        with pytest.raises(ClientError, match=why) as refused:
            invoke(body)
        assert refused.value.response["Error"]["Code"] == "ModelError"
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 424

    def back() -> bytes | None:
        try:
            return invoke(b"well")
        except ClientError as error:
            assert error.response["Error"]["Code"] in ("ServiceUnavailable", "ModelError")
            return None

    assert until(back) == b"well"
    logs = workshop.account.client("logs")
    group = "/aws/sagemaker/Endpoints/e"

    def told() -> bool:
        streams = logs.describe_log_streams(logGroupName=group)["logStreams"]
        events = logs.get_log_events(logGroupName=group, logStreamName=streams[0]["logStreamName"], startFromHead=True)
        text = "\n".join(one["message"] for one in events["events"])
        return "The server of primary ended; it is started again" in text and "answers again" in text

    assert until(told)


def test_a_server_that_eats_all_memory_takes_nothing_from_others(workshop: Workshop) -> None:
    model(workshop, "m", container(workshop, "A", NONSENSE))
    small = {"ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 1}}
    invoke = serve(workshop, config(workshop, "c", {"VariantName": "AllTraffic", "ModelName": "m", **small}))
    with pytest.raises(ClientError) as refused:
        invoke(b"leak")
    assert refused.value.response["Error"]["Code"] == "ModelError"
    assert invoke(b"well") == b"well"


def test_calls_go_to_the_server_that_stands_when_its_neighbour_falls(workshop: Workshop) -> None:
    model(workshop, "m", container(workshop, "A", NONSENSE))
    invoke = serve(workshop, config(workshop, "c", variant("m", InitialInstanceCount=2)))
    with pytest.raises(ClientError):
        invoke(b"die")
    # From here on nothing fails: one server answers until the other is back.
    assert {invoke(b"x") for _ in range(40)} == {b"x"}


def test_what_a_call_may_hold_is_limited(workshop: Workshop) -> None:
    model(workshop, "m", container(workshop, "A"))
    invoke = serve(workshop, config(workshop, "c", variant("m")))
    with pytest.raises(ClientError, match="less than or equal to 6291456"):
        invoke(b"x" * (6 * 1024 * 1024 + 1))
    assert invoke(b"x" * (6 * 1024 * 1024)).startswith(b"Ax")
    with pytest.raises(ClientError, match="InferenceComponentName"):
        invoke(b"x", InferenceComponentName="c")
