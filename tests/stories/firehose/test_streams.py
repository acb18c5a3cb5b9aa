"""Delivery streams gather records into objects, as their role."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from bastide.services.firehose.prefix import key
from tests.moved import until
from tests.platform import REGION, Account, allow

FIREHOSE = {"Service": "firehose.amazonaws.com"}


def made(account: Account, name: str, role: str, **more: Any) -> str:
    to = {
        "RoleARN": role, "BucketARN": f"arn:aws:s3:::stream-{account.id}",
        "BufferingHints": {"SizeInMBs": 1, "IntervalInSeconds": 0}, **more,
    }  # fmt: skip
    arn: str = account.client("firehose").create_delivery_stream(
        DeliveryStreamName=name, ExtendedS3DestinationConfiguration=to, Tags=[{"Key": "team", "Value": "red"}]
    )["DeliveryStreamARN"]
    return arn


def objects(account: Account, prefix: str = "") -> dict[str, bytes]:
    s3, bucket = account.client("s3"), f"stream-{account.id}"
    names = [one["Key"] for one in s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])]
    return {name: s3.get_object(Bucket=bucket, Key=name)["Body"].read() for name in names}


@pytest.fixture
def role(account: Account) -> str:
    account.client("s3").create_bucket(Bucket=f"stream-{account.id}")
    return account.role("Stream", allow("s3:PutObject"), trust=FIREHOSE)


def test_records_become_objects(account: Account, role: str) -> None:
    client, sns = account.client("firehose"), account.client("sns")
    arn = made(account, "plain", role, Prefix="in/")
    made(account, "packed", role, Prefix="y=!{timestamp:yyyy}/", ErrorOutputPrefix="bad/", CompressionFormat="GZIP")
    client.put_record(DeliveryStreamName="plain", Record={"Data": b"one\n"})
    answer = client.put_record_batch(DeliveryStreamName="packed", Records=[{"Data": b"a"}, {"Data": b"b"}])
    assert answer["FailedPutCount"] == 0 and len(answer["RequestResponses"]) == 2
    until(lambda: list(objects(account, "in/").values()) == [b"one\n"])
    until(lambda: objects(account, "y="))
    [(name, body)] = objects(account, "y=").items()
    assert gzip.decompress(body) == b"ab" and name.startswith("y=20") and "/packed-1-" in name and name.endswith(".gz")
    # A topic's messages go there as the subscription's role.
    topic = sns.create_topic(Name="t")["TopicArn"]
    with pytest.raises(ClientError, match="SubscriptionRoleArn"):
        sns.subscribe(TopicArn=topic, Protocol="firehose", Endpoint=arn)
    writer = account.role("Writer", allow("firehose:PutRecord"), trust={"Service": "sns.amazonaws.com"})
    given = {"SubscriptionRoleArn": writer, "RawMessageDelivery": "true"}
    sns.subscribe(TopicArn=topic, Protocol="firehose", Endpoint=arn, Attributes=given)
    sns.publish(TopicArn=topic, Message="told")
    until(lambda: b"told\n" in objects(account, "in/").values())


def test_what_the_role_may_not_write_waits(account: Account, role: str) -> None:
    client = account.client("firehose")
    made(account, "waits", role)
    account.client("iam").delete_role_policy(RoleName="Stream", PolicyName="inline")
    client.put_record(DeliveryStreamName="waits", Record={"Data": b"late"})
    until(lambda: "could not be delivered" in (account.platform.data.parent / "up.log").read_text())
    assert objects(account) == {}
    policy = json.dumps(allow("s3:PutObject"))
    account.client("iam").put_role_policy(RoleName="Stream", PolicyName="inline", PolicyDocument=policy)
    until(lambda: list(objects(account).values()) == [b"late"], 20)


def test_streams_are_described_changed_tagged_and_removed(account: Account, role: str) -> None:
    client = account.client("firehose")
    arn = made(account, "s", role)
    told = client.describe_delivery_stream(DeliveryStreamName="s")["DeliveryStreamDescription"]
    assert (told["DeliveryStreamARN"], told["DeliveryStreamStatus"]) == (arn, "ACTIVE")
    assert arn == f"arn:aws:firehose:{REGION}:{account.id}:deliverystream/s"
    place = {
        "DeliveryStreamName": "s", "CurrentDeliveryStreamVersionId": told["VersionId"],
        "DestinationId": told["Destinations"][0]["DestinationId"],
    }  # fmt: skip
    client.update_destination(**place, ExtendedS3DestinationUpdate={"Prefix": "other/"})
    with pytest.raises(ClientError, match="ConcurrentModification"):
        client.update_destination(**place, ExtendedS3DestinationUpdate={"Prefix": "x/"})
    told = client.describe_delivery_stream(DeliveryStreamName="s")["DeliveryStreamDescription"]
    assert told["Destinations"][0]["ExtendedS3DestinationDescription"]["Prefix"] == "other/"
    client.tag_delivery_stream(DeliveryStreamName="s", Tags=[{"Key": "owner", "Value": "ann"}])
    client.untag_delivery_stream(DeliveryStreamName="s", TagKeys=["team"])
    assert client.list_tags_for_delivery_stream(DeliveryStreamName="s")["Tags"] == [{"Key": "owner", "Value": "ann"}]
    for more in (
        {"Prefix": "!{timestamp:yyyy}/"}, {"Prefix": "!{partitionKeyFromQuery:x}/", "ErrorOutputPrefix": "e/"},
        {"CompressionFormat": "Snappy"}, {"CustomTimeZone": "Nowhere"}, {"BucketARN": "arn:aws:s3:::A_b"},
        {"DynamicPartitioningConfiguration": {"Enabled": True}}, {"Prefix": "!{timestamp:QQ}", "ErrorOutputPrefix": "e/"},
    ):  # fmt: skip
        with pytest.raises(ClientError, match="InvalidArgumentException"):
            made(account, "bad", role, **more)
    with pytest.raises(ClientError, match="ResourceInUseException"):
        made(account, "s", role)
    assert client.list_delivery_streams()["DeliveryStreamNames"] == ["s"]
    client.delete_delivery_stream(DeliveryStreamName="s")
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        client.put_record(DeliveryStreamName="s", Record={"Data": b"x"})


def test_an_object_is_named_by_its_first_record() -> None:
    to = {
        "CompressionFormat": "UNCOMPRESSED",
        "Prefix": "!{firehose:random-string}/",
        "CustomTimeZone": "Europe/Berlin",
    }
    one, same, other = (key("s", 2, to, number, 1_767_225_600_000_000) for number in ("1", "1", "2"))
    assert one == same != other and "/2026/01/01/01/s-2-2026-01-01-01-00-00-" in one
