"""Queues keep what they are sent, give it to one at a time, and to nobody who may not have it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
import urllib3
from botocore.exceptions import ClientError

from bastide.kernel import Caller
from tests.moved import Moved, moved, until
from tests.platform import HOME, REGION, Account, allow, lies_in, on_disk

ALL = {"MessageSystemAttributeNames": ["All"], "MessageAttributeNames": ["All"]}


def made(client: Any, name: str = "", **attributes: str) -> str:
    url: str = client.create_queue(QueueName=name or f"q-{uuid.uuid4().hex[:8]}", Attributes=attributes)["QueueUrl"]
    return url


def arn_of(client: Any, url: str) -> str:
    arn: str = client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    return arn


def bodies(client: Any, url: str, **more: Any) -> list[str]:
    got = client.receive_message(QueueUrl=url, MaxNumberOfMessages=10, **more).get("Messages", [])
    return [one["Body"] for one in got]


def counts(client: Any, url: str) -> tuple[int, int, int]:
    told = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    names = ("Messages", "MessagesNotVisible", "MessagesDelayed")
    return tuple(int(told[f"ApproximateNumberOf{name}"]) for name in names)  # type: ignore[return-value]


def test_a_message_is_received_hidden_and_deleted(account: Account) -> None:
    sqs = account.client("sqs")
    url = made(sqs, "first")
    assert url.endswith(f"/{account.id}/first") and sqs.get_queue_url(QueueName="first")["QueueUrl"] == url
    assert made(sqs, "first") == url
    with pytest.raises(ClientError, match="QueueAlreadyExists"):
        made(sqs, "first", VisibilityTimeout="7")
    attributes = {
        "text": {"DataType": "String", "StringValue": "é"}, "raw": {"DataType": "Binary.png", "BinaryValue": b"\0\xff"},
        "n": {"DataType": "Number", "StringValue": "7"},
    }  # fmt: skip
    trace = {"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1"}}
    # boto3 verifies the digests of body and attributes.
    sent = sqs.send_message(
        QueueUrl=url, MessageBody="<one> & \u20ac", MessageAttributes=attributes, MessageSystemAttributes=trace
    )
    assert sent["MD5OfMessageAttributes"]
    assert counts(sqs, url) == (1, 0, 0)
    [one] = sqs.receive_message(QueueUrl=url, **ALL)["Messages"]
    assert (one["Body"], one["MessageId"]) == ("<one> & \u20ac", sent["MessageId"])
    assert one["MessageAttributes"] == attributes and one["MD5OfMessageAttributes"] == sent["MD5OfMessageAttributes"]
    told = one["Attributes"]
    assert (told["ApproximateReceiveCount"], told["AWSTraceHeader"]) == ("1", "Root=1")
    assert abs(int(told["SentTimestamp"]) / 1000 - time.time()) < 60 and told["SenderId"]
    assert counts(sqs, url) == (0, 1, 0) and bodies(sqs, url) == []
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=one["ReceiptHandle"], VisibilityTimeout=0)
    # The handle is good until somebody else receives the message, though it stands in the queue again.
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=one["ReceiptHandle"], VisibilityTimeout=0)
    [again] = sqs.receive_message(QueueUrl=url, MessageAttributeNames=["te.*", "n"])["Messages"]
    assert set(again["MessageAttributes"]) == {"n", "text"} and "Attributes" not in again
    with pytest.raises(ClientError, match=r"InvalidParameterValue.*Message does not exist or is not available"):
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=one["ReceiptHandle"], VisibilityTimeout=5)
    # Only who received it last can delete it.
    sqs.delete_message(QueueUrl=url, ReceiptHandle=one["ReceiptHandle"])
    assert counts(sqs, url) == (0, 1, 0)
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=again["ReceiptHandle"], VisibilityTimeout=600)
    sqs.delete_message(QueueUrl=url, ReceiptHandle=again["ReceiptHandle"])
    assert counts(sqs, url) == (0, 0, 0)
    with pytest.raises(ClientError, match="ReceiptHandleIsInvalid"):
        sqs.delete_message(QueueUrl=url, ReceiptHandle="made-up")
    sqs.delete_queue(QueueUrl=url)
    with pytest.raises(ClientError) as refused:
        sqs.send_message(QueueUrl=url, MessageBody="x")
    assert refused.value.response["Error"]["Code"] == "AWS.SimpleQueueService.NonExistentQueue"


def test_a_long_poll_ends_when_a_message_comes(account: Account) -> None:
    sqs = account.client("sqs")
    url = made(sqs, ReceiveMessageWaitTimeSeconds="20")
    got: list[Any] = []
    waiting = [threading.Thread(target=lambda: got.append(bodies(account.client("sqs"), url))) for _ in range(2)]
    for one in waiting:
        one.start()
    time.sleep(0.5)
    sqs.send_message_batch(QueueUrl=url, Entries=[{"Id": "a", "MessageBody": "now"}])
    until(lambda: got)
    assert got == [["now"]]
    sqs.send_message(QueueUrl=url, MessageBody="then")
    for one in waiting:
        one.join(60)
    assert sorted(got) == [["now"], ["then"]]
    assert bodies(sqs, url, WaitTimeSeconds=0) == []


def test_what_is_delayed_waits(account: Account) -> None:
    sqs = account.client("sqs")
    url = made(sqs, DelaySeconds="900")
    sqs.send_message(QueueUrl=url, MessageBody="late")
    sqs.send_message(QueueUrl=url, MessageBody="soon", DelaySeconds=0)
    assert counts(sqs, url) == (1, 0, 1) and bodies(sqs, url) == ["soon"]


def test_batches_fail_entry_by_entry(account: Account) -> None:
    sqs = account.client("sqs")
    url = made(sqs, MaximumMessageSize="1024")
    entries = [
        {"Id": "good", "MessageBody": "x"}, {"Id": "long", "MessageBody": "x" * 1025},
        {"Id": "late", "MessageBody": "x", "DelaySeconds": 901}, {"Id": "odd", "MessageBody": "\x01"},
        {"Id": "list", "MessageBody": "x", "MessageAttributes": {"a": {"DataType": "Strange", "StringValue": "x"}}},
    ]  # fmt: skip
    answer = sqs.send_message_batch(QueueUrl=url, Entries=entries)
    assert [one["Id"] for one in answer["Successful"]] == ["good"]
    assert {one["Id"]: one["Code"] for one in answer["Failed"]} == {
        "long": "InvalidParameterValue", "late": "InvalidParameterValue", "odd": "InvalidMessageContents",
        "list": "InvalidParameterValue",
    }  # fmt: skip
    for entries, code in (
        ([], "EmptyBatchRequest"), ([{"Id": "a b", "MessageBody": "x"}], "InvalidBatchEntryId"),
        ([{"Id": "a", "MessageBody": "x"}] * 2, "BatchEntryIdsNotDistinct"),
        ([{"Id": str(n), "MessageBody": "x"} for n in range(11)], "TooManyEntriesInBatchRequest"),
        ([{"Id": str(n), "MessageBody": "x" * 600_000} for n in range(2)], "BatchRequestTooLong"),
    ):  # fmt: skip
        with pytest.raises(ClientError, match=code):
            sqs.send_message_batch(QueueUrl=url, Entries=entries)
    [one] = sqs.receive_message(QueueUrl=url)["Messages"]
    handle = one["ReceiptHandle"]
    changed = sqs.change_message_visibility_batch(
        QueueUrl=url,
        Entries=[{"Id": "a", "ReceiptHandle": handle, "VisibilityTimeout": 9}, {"Id": "b", "ReceiptHandle": "x"}],
    )
    assert [one["Id"] for one in changed["Successful"]] == ["a"] and changed["Failed"][0]["Id"] == "b"
    gone = sqs.delete_message_batch(
        QueueUrl=url, Entries=[{"Id": "a", "ReceiptHandle": handle}, {"Id": "b", "ReceiptHandle": "x"}]
    )
    assert [one["Id"] for one in gone["Successful"]] == ["a"]
    assert gone["Failed"][0]["Code"] == "ReceiptHandleIsInvalid" and counts(sqs, url) == (0, 0, 0)


def test_a_fifo_queue_keeps_the_order_of_each_group_and_takes_nothing_twice(account: Account) -> None:
    sqs = account.client("sqs")
    url = made(sqs, "orders.fifo", FifoQueue="true", ContentBasedDeduplication="true")

    def send(body: str, group: str, **more: str) -> dict[str, Any]:
        answer: dict[str, Any] = sqs.send_message(QueueUrl=url, MessageBody=body, MessageGroupId=group, **more)
        return answer

    first = send("a1", "a")
    assert send("a1", "a")["MessageId"] == first["MessageId"]
    second = send("a2", "a")
    assert int(second["SequenceNumber"]) > int(first["SequenceNumber"]) and len(first["SequenceNumber"]) == 20
    send("b1", "b")
    got = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=1, **ALL)["Messages"]
    assert [one["Body"] for one in got] == ["a1"] and got[0]["Attributes"]["MessageGroupId"] == "a"
    # While a1 is in flight nothing of its group is given away.
    others = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    assert [one["Body"] for one in others] == ["b1"] and counts(sqs, url) == (1, 2, 0)
    sqs.delete_message(QueueUrl=url, ReceiptHandle=got[0]["ReceiptHandle"])
    token = {"ReceiveRequestAttemptId": "try"}
    [one] = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, **token)["Messages"]
    [same] = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, **token)["Messages"]
    assert (one["Body"], one["MessageId"]) == (same["Body"], same["MessageId"]) == ("a2", second["MessageId"])
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=same["ReceiptHandle"], VisibilityTimeout=0)
    with pytest.raises(ClientError, match="expired"):
        sqs.delete_message(QueueUrl=url, ReceiptHandle=same["ReceiptHandle"])
    for body in ("a3", "a4"):
        send(body, "a")
    got = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    assert [one["Body"] for one in got] == ["a2", "a3", "a4"]
    with pytest.raises(ClientError, match="MessageGroupId"):
        sqs.send_message(QueueUrl=url, MessageBody="x")
    with pytest.raises(ClientError, match="DelaySeconds"):
        send("x", "a", DelaySeconds=1)  # type: ignore[arg-type]
    scoped = made(
        sqs, "fast.fifo", FifoQueue="true", DeduplicationScope="messageGroup", FifoThroughputLimit="perMessageGroupId"
    )
    for group in ("a", "b", "a"):
        sqs.send_message(QueueUrl=scoped, MessageBody="x", MessageGroupId=group, MessageDeduplicationId="same")
    assert counts(sqs, scoped)[0] == 2
    with pytest.raises(ClientError, match="ContentBasedDeduplication"):
        sqs.send_message(QueueUrl=scoped, MessageBody="x", MessageGroupId="a")
    for bad in ({}, {"FifoQueue": "true", "FifoThroughputLimit": "perMessageGroupId"}):
        with pytest.raises(ClientError):
            made(sqs, "bad.fifo", **bad)


def test_dead_letters_go_where_they_belong_and_come_back(account: Account) -> None:
    sqs = account.client("sqs")
    dead, other = made(sqs, "dead"), made(sqs, "other")
    policy = {"deadLetterTargetArn": arn_of(sqs, dead), "maxReceiveCount": 2}
    url = made(sqs, "work", VisibilityTimeout="0", RedrivePolicy=json.dumps(policy))
    told = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy"])["Attributes"]["RedrivePolicy"]
    assert json.loads(told) == policy
    assert sqs.list_dead_letter_source_queues(QueueUrl=dead)["queueUrls"] == [url]
    sent = sqs.send_message(QueueUrl=url, MessageBody="bad")
    assert [bodies(sqs, url) for _ in range(3)] == [["bad"], ["bad"], []]
    [one] = sqs.receive_message(QueueUrl=dead, VisibilityTimeout=0, **ALL)["Messages"]
    assert (one["MessageId"], one["Attributes"]["DeadLetterQueueSourceArn"]) == (sent["MessageId"], arn_of(sqs, url))
    with pytest.raises(ClientError, match="Dead Letter Queue"):
        sqs.start_message_move_task(SourceArn=arn_of(sqs, other))
    task = sqs.start_message_move_task(SourceArn=arn_of(sqs, dead))["TaskHandle"]

    def status(source: str = dead) -> str:
        return str(sqs.list_message_move_tasks(SourceArn=arn_of(sqs, source))["Results"][0]["Status"])

    until(lambda: status() == "COMPLETED")
    with pytest.raises(ClientError, match="Only active"):
        sqs.cancel_message_move_task(TaskHandle=task)
    [back] = sqs.receive_message(QueueUrl=url, **ALL)["Messages"]
    assert back["Body"] == "bad" and back["Attributes"]["ApproximateReceiveCount"] == "1"
    for policy_of, text in (
        ("RedriveAllowPolicy", {"redrivePermission": "denyAll"}),
        ("RedriveAllowPolicy", {"redrivePermission": "byQueue", "sourceQueueArns": [arn_of(sqs, other)]}),
    ):
        sqs.set_queue_attributes(QueueUrl=dead, Attributes={policy_of: json.dumps(text)})
        with pytest.raises(ClientError, match="RedriveAllowPolicy"):
            sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": json.dumps(policy)})
    sqs.set_queue_attributes(QueueUrl=other, Attributes={"RedrivePolicy": json.dumps(policy)})
    for text in ("x", '{"maxReceiveCount": 1}', json.dumps({**policy, "maxReceiveCount": 0})):
        with pytest.raises(ClientError, match="RedrivePolicy"):
            sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": text})


def test_who_is_named_may(account: Account, neighbour: Account) -> None:
    sqs, theirs = account.client("sqs"), neighbour.client("sqs")
    url = made(sqs)
    with pytest.raises(ClientError, match="AccessDenied"):
        theirs.send_message(QueueUrl=url, MessageBody="x")
    sqs.add_permission(QueueUrl=url, Label="in", AWSAccountIds=[neighbour.id], Actions=["SendMessage"])
    theirs.send_message(QueueUrl=url, MessageBody="from there")
    with pytest.raises(ClientError, match="AccessDenied"):
        theirs.receive_message(QueueUrl=url)
    with pytest.raises(ClientError, match="Already exists"):
        sqs.add_permission(QueueUrl=url, Label="in", AWSAccountIds=[neighbour.id], Actions=["SendMessage"])
    sqs.remove_permission(QueueUrl=url, Label="in")
    with pytest.raises(ClientError, match="AccessDenied"):
        theirs.send_message(QueueUrl=url, MessageBody="x")
    deny = {"Effect": "Deny", "Principal": "*", "Action": "sqs:SendMessage", "Resource": arn_of(sqs, url)}
    document = {"Version": "2012-10-17", "Statement": [deny]}
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(document)})
    with pytest.raises(ClientError, match="AccessDenied"):
        sqs.send_message(QueueUrl=url, MessageBody="x")
    told = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"])["Attributes"]["Policy"]
    assert json.loads(told) == document
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": ""})
    assert bodies(sqs, url) == ["from there"]


def test_a_customer_s_key_decides_who_reads(account: Account) -> None:
    sqs, kms = account.client("sqs"), account.client("kms")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    url = made(sqs, KmsMasterKeyId=key, KmsDataKeyReusePeriodSeconds="60")
    told = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert (told["KmsMasterKeyId"], told["SqsManagedSseEnabled"]) == (key, "false")
    plain, body = made(sqs), f"secret-{uuid.uuid4().hex}"
    for one in (url, plain):
        sqs.send_message(QueueUrl=one, MessageBody=body)
    assert bodies(sqs, url, VisibilityTimeout=0) == [body]
    # Neither message lies on the disk in the clear.
    assert not [one for one in on_disk(account.platform.data) if lies_in(one, body.encode())]
    account.role("Reader", allow("sqs:*"))
    reader = account.client("sqs", account.as_role("Reader"))
    assert bodies(reader, plain) == [body]
    with pytest.raises(ClientError) as refused:
        reader.receive_message(QueueUrl=url)
    assert refused.value.response["Error"]["Code"] == "KMS.AccessDeniedException"
    assert counts(sqs, url) == (1, 0, 0)


def test_queues_are_listed_tagged_and_emptied(account: Account) -> None:
    sqs = account.client("sqs")
    urls = [sqs.create_queue(QueueName=f"list-{n}", tags={"team": "red"})["QueueUrl"] for n in range(3)]
    page = sqs.list_queues(QueueNamePrefix="list-", MaxResults=2)
    rest = sqs.list_queues(QueueNamePrefix="list-", MaxResults=2, NextToken=page["NextToken"])
    assert page["QueueUrls"] + rest["QueueUrls"] == urls and "NextToken" not in rest
    sqs.tag_queue(QueueUrl=urls[0], Tags={"owner": "ann"})
    sqs.untag_queue(QueueUrl=urls[0], TagKeys=["team"])
    assert sqs.list_queue_tags(QueueUrl=urls[0])["Tags"] == {"owner": "ann"}
    account.role("Red", allow("sqs:*", Condition={"StringEquals": {"aws:ResourceTag/team": "red"}}))
    red = account.client("sqs", account.as_role("Red"))
    red.send_message(QueueUrl=urls[1], MessageBody="x")
    with pytest.raises(ClientError, match="AccessDenied"):
        red.send_message(QueueUrl=urls[0], MessageBody="x")
    sqs.purge_queue(QueueUrl=urls[1])
    assert counts(sqs, urls[1]) == (0, 0, 0)
    with pytest.raises(ClientError, match="PurgeQueueInProgress"):
        sqs.purge_queue(QueueUrl=urls[1])


def old_client(account: Account, **fields: str) -> tuple[int, str]:
    """A request as clients sent it before SQS spoke JSON."""
    where = account.platform.http + "/"
    request = botocore.awsrequest.AWSRequest("POST", where, data={"Version": "2012-11-05", **fields})
    held = botocore.credentials.Credentials(account.keys.access_key, account.keys.secret, account.keys.token)
    botocore.auth.SigV4Auth(held, "sqs", REGION).add_auth(request)
    sent = request.prepare()
    answer = urllib3.request("POST", where, body=sent.body, headers=dict(sent.headers), retries=False)
    return answer.status, answer.data.decode()


def test_older_clients_speak_query(account: Account) -> None:
    status, text = old_client(
        account, Action="CreateQueue", QueueName="old", **{"Attribute.1.Name": "DelaySeconds", "Attribute.1.Value": "0"}
    )
    assert status == 200 and "<CreateQueueResult><QueueUrl>" in text
    url = text.partition("<QueueUrl>")[2].partition("<")[0]
    status, text = old_client(
        account, Action="SendMessage", QueueUrl=url, MessageBody="a<b",
        **{"MessageAttribute.1.Name": "k", "MessageAttribute.1.Value.DataType": "String",
           "MessageAttribute.1.Value.StringValue": "v"},
    )  # fmt: skip
    assert status == 200 and "<MD5OfMessageAttributes>" in text
    status, text = old_client(
        account, Action="ReceiveMessage", QueueUrl=url, VisibilityTimeout="0",
        **{"AttributeName.1": "ApproximateReceiveCount", "MessageAttributeName.1": "All"},
    )  # fmt: skip
    assert "<ReceiveMessageResult><Message>" in text and "<Body>a&lt;b</Body>" in text
    assert "<Attribute><Name>ApproximateReceiveCount</Name><Value>1</Value></Attribute>" in text
    assert "<MessageAttribute><Name>k</Name><Value><" in text
    status, text = old_client(
        account, Action="SendMessageBatch", QueueUrl=url,
        **{"SendMessageBatchRequestEntry.1.Id": "a", "SendMessageBatchRequestEntry.1.MessageBody": "x"},
    )  # fmt: skip
    assert "<SendMessageBatchResultEntry><Id>a</Id>" in text, text
    status, text = old_client(account, Action="GetQueueUrl", QueueName="nowhere")
    assert status == 400 and "<Code>AWS.SimpleQueueService.NonExistentQueue</Code>" in text
    assert "<Code>InvalidAddress</Code>" in old_client(account, Action="PurgeQueue", QueueUrl="non/sense")[1]


def test_hostile_input_is_refused_in_words(account: Account) -> None:
    sqs = account.client("sqs")
    url = made(sqs)
    for attributes in (
        {"No": "x"},
        {"DelaySeconds": "901"},
        {"Policy": "{"},
        {"FifoQueue": "true"},
        {"VisibilityTimeout": "-1"},
    ):
        with pytest.raises(ClientError, match="Invalid"):
            sqs.set_queue_attributes(QueueUrl=url, Attributes=attributes)
    many = {f"a{n}": {"DataType": "String", "StringValue": "x"} for n in range(11)}
    for given in (
        {"MessageAttributes": many}, {"MessageAttributes": {"AWS.x": {"DataType": "String", "StringValue": "x"}}},
        {"MessageAttributes": {"a": {"DataType": "Number", "StringValue": "x"}}}, {"MessageDeduplicationId": "x"},
        {"MessageBody": "\ufffe"}, {"MessageAttributes": {"a": {"DataType": "String", "StringValue": ""}}},
    ):  # fmt: skip
        with pytest.raises(ClientError, match="Invalid"):
            sqs.send_message(**{"QueueUrl": url, "MessageBody": "x", **given})
    for given in ({"MaxNumberOfMessages": 11}, {"WaitTimeSeconds": 21}, {"VisibilityTimeout": 43201}):
        with pytest.raises(ClientError, match="InvalidParameterValue"):
            sqs.receive_message(QueueUrl=url, **given)
    other = made(sqs)
    # A name is as good as an address; what one account may do once is written as one.
    sqs.add_permission(
        QueueUrl=url.rpartition("/")[2], Label="one", AWSAccountIds=[account.id], Actions=["SendMessage"]
    )
    policy = json.loads(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"])["Attributes"]["Policy"])
    assert policy["Statement"][0]["Action"] == "SQS:SendMessage" and policy["Id"].endswith("/SQSDefaultPolicy")
    sqs.remove_permission(QueueUrl=url, Label="one")
    sqs.send_message(QueueUrl=url, MessageBody="x")
    [one] = sqs.receive_message(QueueUrl=url)["Messages"]
    with pytest.raises(ClientError, match="ReceiptHandleIsInvalid"):
        sqs.delete_message(QueueUrl=other, ReceiptHandle=one["ReceiptHandle"])


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moved]:
    yield from moved(tmp_path_factory.mktemp("sqs"))


def acted(here: Moved, service: str, operation: str, **given: Any) -> Any:
    """A call at the moved clock, which nobody could sign for."""
    arn = f"arn:aws:iam::{HOME}:root"
    root = Caller("Root", HOME, arn, arn, HOME, "root")
    asked = here.running.calls.act(root, service, operation, given, region=REGION, source="test")
    return asyncio.run_coroutine_threadsafe(asked, here.loop).result(30)


def test_messages_come_back_and_end_when_their_time_is_over(here: Moved) -> None:
    sqs = here.client("sqs")
    short, long = made(sqs, "short", MessageRetentionPeriod="60"), made(sqs, "long")
    for url in (short, long):
        sqs.send_message(QueueUrl=url, MessageBody="x")
        assert bodies(sqs, url) == ["x"]
    with here.days_later(61 / 86400):
        assert acted(here, "sqs", "ReceiveMessage", QueueUrl=short) == {}
        [again] = acted(here, "sqs", "ReceiveMessage", QueueUrl=long)["Messages"]
        assert again["Body"] == "x"
