"""Event notifications: what is refused, and what leaves through the outbox."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.moved import Moved, moved, until

QUEUE = "arn:aws:sqs:us-east-1:111122223333:arrivals"
TOPIC = "arn:aws:sns:us-east-1:111122223333:departures"


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moved]:
    yield from moved(tmp_path_factory.mktemp("moved"))


def bucket(client: Any) -> str:
    name = f"b-{uuid.uuid4().hex[:16]}"
    client.create_bucket(Bucket=name)
    return name


def queue(*events: str, arn: str = QUEUE, **affixes: str) -> dict[str, Any]:
    told: dict[str, Any] = {"QueueArn": arn, "Events": list(events)}
    if affixes:
        told["Filter"] = {"Key": {"FilterRules": [{"Name": name, "Value": value} for name, value in affixes.items()]}}
    return told


def put(client: Any, name: str, *, skip: bool = True, **said: Any) -> None:
    client.put_bucket_notification_configuration(
        Bucket=name, NotificationConfiguration=said, SkipDestinationValidation=skip
    )


@pytest.mark.parametrize(
    "queues",
    [
        [queue("s3:ObjectCreated:Put", arn="arn:aws:sns:us-east-1:111122223333:not-a-queue")],
        [queue("s3:ObjectCreated:Put", arn="nonsense")],
        [queue("s3:ObjectCreated:Put", arn="arn:aws:sqs:eu-west-1:111122223333:far")],
        [queue("s3:ObjectCreated:Put", arn=f"{QUEUE}.fifo")],
        [queue("s3:ObjectCreated:*", prefix="a"), queue("s3:ObjectCreated:Put", prefix="ab")],
        [{**queue("s3:ObjectCreated:Put", prefix="a"), "Id": "x"}, {**queue("s3:ObjectRemoved:*"), "Id": "x"}],
        [queue("s3:ObjectCreated:Put", prefix="x" * 1025)],
        [{**queue("s3:ObjectCreated:Put"), "Id": "x" * 256}],
    ],
)
def test_what_is_no_configuration_is_refused(timed: Moved, queues: list[dict[str, Any]]) -> None:
    client = timed.client("s3")
    name = bucket(client)
    with pytest.raises(ClientError) as refused:
        put(client, name, QueueConfigurations=queues)
    assert refused.value.response["Error"]["Code"] == "InvalidArgument"
    with pytest.raises(ClientError, match="MalformedXML"):
        put(client, name, QueueConfigurations=[queue("s3:ObjectEaten:*")])


def test_a_destination_that_does_not_exist_cannot_be_validated(timed: Moved) -> None:
    client = timed.client("s3")
    name = bucket(client)
    with pytest.raises(ClientError, match="Unable to validate the following destination configurations"):
        put(client, name, skip=False, QueueConfigurations=[queue("s3:ObjectCreated:*")])
    put(client, name, QueueConfigurations=[{**queue("s3:ObjectCreated:*", prefix="in/"), "Id": "q"}])
    found = client.get_bucket_notification_configuration(Bucket=name)
    assert found["QueueConfigurations"] == [{**queue("s3:ObjectCreated:*", prefix="in/"), "Id": "q"}]
    put(client, name)
    assert "QueueConfigurations" not in client.get_bucket_notification_configuration(Bucket=name)


def test_each_change_is_told_to_who_asked_for_it(timed: Moved) -> None:
    client = timed.client("s3")
    name = bucket(client)
    client.put_object(Bucket=name, Key="in/before.csv", Body=b"x")
    put(
        client, name,
        QueueConfigurations=[{**queue("s3:ObjectCreated:*", prefix="in/", suffix=".csv"), "Id": "q"}],
        TopicConfigurations=[{"TopicArn": TOPIC, "Events": ["s3:ObjectRemoved:*", "s3:ObjectTagging:Put"], "Id": "t"}],
        EventBridgeConfiguration={},
    )  # fmt: skip
    client.put_object(Bucket=name, Key="in/a b.csv", Body=b"12345")
    client.put_object(Bucket=name, Key="in/a.txt", Body=b"1")
    client.copy_object(Bucket=name, Key="in/c.csv", CopySource=f"{name}/in/a.txt")
    client.put_object_tagging(Bucket=name, Key="in/a.txt", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    id = client.create_multipart_upload(Bucket=name, Key="in/m.csv")["UploadId"]
    part = client.upload_part(Bucket=name, Key="in/m.csv", UploadId=id, PartNumber=1, Body=b"part")
    client.complete_multipart_upload(
        Bucket=name, Key="in/m.csv", UploadId=id, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    )
    client.delete_object(Bucket=name, Key="in/a.txt")
    client.delete_object(Bucket=name, Key="never/was")
    client.delete_objects(Bucket=name, Delete={"Objects": [{"Key": "in/c.csv"}]})
    with pytest.raises(ClientError):
        client.put_object(Bucket=name, Key="in/refused.csv", Body=b"x", IfMatch='"0"')
    until(lambda: len(timed.told) >= 13)
    records = [(one["destination"], one["message"]["Records"][0]) for one in timed.told if "Records" in one["message"]]
    assert [(where, one["eventName"], one["s3"]["object"]["key"]) for where, one in records] == [
        (QUEUE, "ObjectCreated:Put", "in/a+b.csv"),
        (QUEUE, "ObjectCreated:Copy", "in/c.csv"),
        (TOPIC, "ObjectTagging:Put", "in/a.txt"),
        (QUEUE, "ObjectCreated:CompleteMultipartUpload", "in/m.csv"),
        (TOPIC, "ObjectRemoved:Delete", "in/a.txt"),
        (TOPIC, "ObjectRemoved:Delete", "in/c.csv"),
    ]
    first = records[0][1]
    assert first["s3"]["object"]["size"] == 5
    assert first["s3"]["bucket"]["arn"] == f"arn:aws:s3:::{name}"
    assert first["s3"]["configurationId"] == "q"
    assert first["eventSource"] == "aws:s3"
    bridged = [one["message"]["detail"]["reason"] for one in timed.told if "reason" in one["message"].get("detail", {})]
    assert bridged == [
        "PutObject", "PutObject", "CopyObject", "CompleteMultipartUpload", "DeleteObject", "DeleteObject",
    ]  # fmt: skip
