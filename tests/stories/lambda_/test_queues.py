"""Functions that queues feed, and queues that are told what became of events."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.moved import until
from tests.platform import REGION, allow
from tests.stories.lambda_.conftest import LAMBDA, Bench

CODE = """
import json
def handler(event, context):
    print("took", json.dumps(event))
    bodies = {one["body"]: one["messageId"] for one in event["Records"]}
    if "poison" in bodies: raise ValueError("poison")
    return {"batchItemFailures": [{"itemIdentifier": id} for body, id in bodies.items() if body == "later"]}
"""


def _queue(bench: Bench, name: str, **attributes: str) -> tuple[str, str]:
    """Address and ARN."""
    url = bench.account.client("sqs").create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    return url, f"arn:aws:sqs:{REGION}:{bench.account.id}:{name}"


def _held(bench: Bench, url: str) -> tuple[int, int]:
    """Messages that can be seen, and those that cannot."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = bench.account.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return int(found[names[0]]), int(found[names[1]])


def _received(bench: Bench, url: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    def more() -> bool:
        given = {"QueueUrl": url, "WaitTimeSeconds": 2, "MessageAttributeNames": ["All"]}
        found.extend(bench.account.client("sqs").receive_message(**given).get("Messages", []))
        return bool(found)

    until(more)
    return found[0]


@pytest.fixture
def role(bench: Bench) -> str:
    return bench.account.role("queued", allow("logs:*", "sqs:*"), trust=LAMBDA)


def test_a_queue_feeds_a_function(bench: Bench, role: str) -> None:
    client, sqs = bench.client, bench.account.client("sqs")
    url, arn = _queue(bench, "in")
    name = bench.make(CODE, Role=role)
    with pytest.raises(ClientError, match="NonExistentQueue"):
        client.create_event_source_mapping(EventSourceArn=f"{arn}-not", FunctionName=name)
    unable = bench.make(CODE)
    with pytest.raises(ClientError, match="permissions to call ReceiveMessage"):
        client.create_event_source_mapping(EventSourceArn=arn, FunctionName=unable)
    patient = bench.make(CODE, Role=role, Timeout=60)
    with pytest.raises(ClientError, match="visibility timeout: 30 seconds is less than"):
        client.create_event_source_mapping(EventSourceArn=arn, FunctionName=patient)
    made = client.create_event_source_mapping(
        EventSourceArn=arn, FunctionName=name, BatchSize=5, FunctionResponseTypes=["ReportBatchItemFailures"]
    )
    assert (made["State"], made["BatchSize"]) == ("Creating", 5)
    with pytest.raises(ClientError, match="already exists"):
        client.create_event_source_mapping(EventSourceArn=arn, FunctionName=name)
    attribute = {"colour": {"DataType": "String", "StringValue": "red"}}
    sqs.send_message(QueueUrl=url, MessageBody="now", MessageAttributes=attribute)
    taken = next(one for one in bench.lines(name, '"now"') if "took" in one)
    [record] = json.loads(taken.partition(" ")[2])["Records"]
    assert (record["body"], record["eventSource"], record["eventSourceARN"]) == ("now", "aws:sqs", arn)
    assert record["messageAttributes"]["colour"]["stringValue"] == "red"
    until(lambda: _held(bench, url) == (0, 0))
    id = made["UUID"]
    until(lambda: client.get_event_source_mapping(UUID=id).get("LastProcessingResult") == "OK")

    # What the function does not take stays.
    sqs.send_message(QueueUrl=url, MessageBody="later")
    until(lambda: "failed items" in client.get_event_source_mapping(UUID=id)["LastProcessingResult"])
    sqs.send_message(QueueUrl=url, MessageBody="poison")
    until(lambda: "call failed" in client.get_event_source_mapping(UUID=id)["LastProcessingResult"])
    assert _held(bench, url) == (0, 2)

    assert client.update_event_source_mapping(UUID=id, Enabled=False)["State"] == "Updating"
    assert client.get_event_source_mapping(UUID=id)["State"] == "Disabled"
    [listed] = client.list_event_source_mappings(FunctionName=name)["EventSourceMappings"]
    assert (
        listed["UUID"] == id
        and client.list_event_source_mappings(EventSourceArn=f"{arn}-not")["EventSourceMappings"] == []
    )
    client.tag_resource(Resource=made["EventSourceMappingArn"], Tags={"team": "red"})
    assert client.list_tags(Resource=made["EventSourceMappingArn"])["Tags"] == {"team": "red"}
    client.delete_event_source_mapping(UUID=id)
    with pytest.raises(ClientError, match="ResourceNotFound"):
        client.get_event_source_mapping(UUID=id)


def test_destinations_and_dead_letters(bench: Bench, role: str) -> None:
    url, arn = _queue(bench, "told")
    letters, buried = _queue(bench, "dead")
    code = "def handler(event, context):\n    if event.get('fail'): raise ValueError('no')\n    return event"
    name = bench.make(code, Role=role, DeadLetterConfig={"TargetArn": buried})
    bench.client.put_function_event_invoke_config(
        FunctionName=name, MaximumRetryAttempts=0, DestinationConfig={"OnSuccess": {"Destination": arn}}
    )
    bench.client.invoke(FunctionName=name, InvocationType="Event", Payload=b'{"n": 1}')
    told = json.loads(_received(bench, url)["Body"])
    assert told["requestContext"]["condition"] == "Success" and told["responsePayload"] == {"n": 1}
    bench.client.invoke(FunctionName=name, InvocationType="Event", Payload=b'{"fail": 1}')
    letter = _received(bench, letters)
    assert (
        json.loads(letter["Body"]) == {"fail": 1} and letter["MessageAttributes"]["ErrorMessage"]["StringValue"] == "no"
    )
