"""Topics tell those who subscribed and confirmed it, what they want to hear, and nobody else."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any
from urllib.parse import urlsplit

import pytest
import urllib3
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from tests.listening import Heard, listening
from tests.moved import until
from tests.platform import REGION, Account, allow
from tests.stories.sqs.test_queues import arn_of, bodies, made


def opened(account: Account, url: str, topic: str, **more: Any) -> str:
    """Lets a topic send to a queue; the queue's ARN."""
    sqs = account.client("sqs")
    arn = arn_of(sqs, url)
    statement = {
        "Effect": "Allow", "Principal": {"Service": "sns.amazonaws.com"}, "Action": "sqs:SendMessage", "Resource": arn,
        "Condition": {"ArnEquals": {"aws:SourceArn": topic}}, **more,
    }  # fmt: skip
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    return arn


def arrived(account: Account, url: str, number: int = 1, **more: Any) -> list[dict[str, Any]]:
    """So many messages of a queue, deleted."""
    sqs, found = account.client("sqs"), []

    def all_there() -> bool:
        got = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], **more)
        for one in got.get("Messages", []):
            sqs.delete_message(QueueUrl=url, ReceiptHandle=one["ReceiptHandle"])
            found.append(one)
        return len(found) >= number

    until(all_there)
    assert len(found) == number
    return found


def verified(account: Account, message: dict[str, Any]) -> bool:
    """Whether a message is signed as SDKs verify it, with the certificate that it names."""
    assert message["SigningCertURL"].startswith(account.platform.url)
    path = urlsplit(message["SigningCertURL"]).path
    pem = urllib3.request("GET", account.platform.http + path, retries=False).data
    key: Any = x509.load_pem_x509_certificate(pem).public_key()
    names = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
    if message["Type"] != "Notification":
        names = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    text = "".join(f"{name}\n{message[name]}\n" for name in names if name in message)
    digest = {"1": hashes.SHA1(), "2": hashes.SHA256()}[message["SignatureVersion"]]
    key.verify(base64.b64decode(message["Signature"]), text.encode(), padding.PKCS1v15(), digest)
    return True


@pytest.mark.control("MON-04")
def test_a_queue_hears_what_its_policy_lets_in(account: Account) -> None:
    sns, sqs = account.client("sns"), account.client("sqs")
    topic = sns.create_topic(Name="news")["TopicArn"]
    open_, closed = made(sqs), made(sqs)
    there = opened(account, open_, topic)
    for arn in (there, arn_of(sqs, closed)):
        answer = sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
        assert answer["SubscriptionArn"].startswith(f"{topic}:")
    sent = sns.publish(
        TopicArn=topic,
        Message="hello \u20ac",
        Subject="s",
        MessageAttributes={"k": {"DataType": "Number", "StringValue": "7"}},
    )
    [got] = arrived(account, open_)
    told = json.loads(got["Body"])
    assert (told["MessageId"], told["Message"], told["Subject"]) == (sent["MessageId"], "hello \u20ac", "s")
    assert told["MessageAttributes"] == {"k": {"Type": "Number", "Value": "7"}} and verified(account, told)
    assert bodies(sqs, closed) == []
    attributes = sns.get_topic_attributes(TopicArn=topic)["Attributes"]
    assert (attributes["SubscriptionsConfirmed"], attributes["Owner"]) == ("2", account.id)
    sns.set_topic_attributes(TopicArn=topic, AttributeName="SignatureVersion", AttributeValue="2")
    sns.publish(TopicArn=topic, Message="two")
    assert verified(account, json.loads(arrived(account, open_)[0]["Body"]))


@pytest.fixture
def heard() -> Any:
    with listening() as one:
        yield one


def follow(account: Account, url: str) -> tuple[int, str]:
    """Opens a link of a message, without credentials."""
    parts = urlsplit(url)
    answer = urllib3.request("GET", f"{account.platform.http}{parts.path}?{parts.query}", retries=False)
    return answer.status, answer.data.decode()


@pytest.mark.control("MON-04")
def test_an_address_hears_after_it_confirmed(account: Account, neighbour: Account, heard: Heard) -> None:
    sns = account.client("sns")
    topic = sns.create_topic(Name="posts")["TopicArn"]
    assert (
        sns.subscribe(TopicArn=topic, Protocol="http", Endpoint=heard.url)["SubscriptionArn"] == "pending confirmation"
    )
    until(lambda: heard.of("SubscriptionConfirmation"))
    [ask] = heard.of("SubscriptionConfirmation")
    assert ask["TopicArn"] == topic and verified(account, ask)
    sns.publish(TopicArn=topic, Message="too early")
    with pytest.raises(ClientError, match="InvalidParameter"):
        sns.confirm_subscription(TopicArn=topic, Token=ask["Token"][:-3] + "abc")
    status, text = follow(account, ask["SubscribeURL"])
    assert status == 200 and "<ConfirmSubscriptionResult><SubscriptionArn>" in text
    sns.publish(TopicArn=topic, Message="now", Subject="s")
    until(lambda: heard.of("Notification"))
    [told] = heard.of("Notification")
    assert told["Message"] == "now" and verified(account, told)
    head = next(head for head, _ in heard.posts if head.get("x-amz-sns-message-type") == "Notification")
    assert head["x-amz-sns-topic-arn"] == topic and head["content-type"] == "text/plain; charset=UTF-8"
    with pytest.raises(ClientError) as refused:
        neighbour.client("sns").publish(TopicArn=topic, Message="x")
    assert refused.value.response["Error"]["Code"] == "AuthorizationError"
    [one] = sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    with pytest.raises(ClientError, match="AuthorizationError"):
        neighbour.client("sns").unsubscribe(SubscriptionArn=one["SubscriptionArn"])
    assert follow(account, told["UnsubscribeURL"])[0] == 200
    assert sns.list_subscriptions()["Subscriptions"] == []
    assert follow(account, told["UnsubscribeURL"])[0] == 403


def test_who_wants_it_is_unsubscribed_with_credentials_alone(account: Account, heard: Heard) -> None:
    sns = account.client("sns")
    topic = sns.create_topic(Name="kept")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="http", Endpoint=heard.url)
    until(lambda: heard.of("SubscriptionConfirmation"))
    token = heard.of("SubscriptionConfirmation")[0]["Token"]
    arn = sns.confirm_subscription(TopicArn=topic, Token=token, AuthenticateOnUnsubscribe="true")["SubscriptionArn"]
    link = f"{account.platform.url}/?Action=Unsubscribe&SubscriptionArn={arn}"
    assert follow(account, link)[0] == 403
    sns.unsubscribe(SubscriptionArn=arn)
    with pytest.raises(ClientError, match="NotFound"):
        sns.get_subscription_attributes(SubscriptionArn=arn)


def test_what_fails_is_tried_again_and_ends_in_the_dead_letter_queue(account: Account, heard: Heard) -> None:
    sns, sqs = account.client("sns"), account.client("sqs")
    topic = sns.create_topic(Name="retried")["TopicArn"]
    dead = made(sqs)
    sns.subscribe(TopicArn=topic, Protocol="http", Endpoint=heard.url)
    until(lambda: heard.of("SubscriptionConfirmation"))
    arn = sns.confirm_subscription(TopicArn=topic, Token=heard.of("SubscriptionConfirmation")[0]["Token"])[
        "SubscriptionArn"
    ]
    policy = {"healthyRetryPolicy": {"minDelayTarget": 1, "maxDelayTarget": 1, "numRetries": 2, "numNoDelayRetries": 2}}
    for name, value in (
        ("DeliveryPolicy", policy), ("RedrivePolicy", {"deadLetterTargetArn": opened(account, dead, topic)}),
        ("RawMessageDelivery", True),
    ):  # fmt: skip
        sns.set_subscription_attributes(SubscriptionArn=arn, AttributeName=name, AttributeValue=json.dumps(value))
    answers = iter([500, 503, 200])
    heard.posts.clear()
    heard.answer = lambda: next(answers)
    sns.publish(TopicArn=topic, Message="persistent")
    until(lambda: len(heard.posts) == 3)
    assert heard.posts[0][1] == b"persistent" and heard.posts[0][0]["x-amz-sns-rawdelivery"] == "true"
    heard.answer = lambda: 404
    heard.posts.clear()
    sns.publish(TopicArn=topic, Message="lost", MessageAttributes={"k": {"DataType": "String", "StringValue": "v"}})
    [letter] = arrived(account, dead)
    assert (letter["Body"], letter["MessageAttributes"]["k"]["StringValue"], len(heard.posts)) == ("lost", "v", 1)


def test_filters_choose(account: Account) -> None:
    sns, sqs = account.client("sns"), account.client("sqs")
    topic = sns.create_topic(Name="filtered")["TopicArn"]
    policies: dict[str, tuple[str, dict[str, Any]]] = {
        "red": ("MessageAttributes", {"color": ["red", {"prefix": "dark"}], "price": [{"numeric": [">", 10]}]}),
        "tagged": ("MessageAttributes", {"tags": ["new"]}), "none": ("MessageAttributes", {"color": [{"exists": False}]}),
        "body": ("MessageBody", {"order": {"state": [{"anything-but": ["open"]}]}}),
    }  # fmt: skip
    urls = {}
    for name, (scope, policy) in policies.items():
        urls[name] = made(sqs)
        arn = sns.subscribe(
            TopicArn=topic, Protocol="sqs", Endpoint=opened(account, urls[name], topic),
            Attributes={"FilterPolicy": json.dumps(policy), "FilterPolicyScope": scope, "RawMessageDelivery": "true"},
        )["SubscriptionArn"]  # fmt: skip
        told = sns.get_subscription_attributes(SubscriptionArn=arn)["Attributes"]
        assert told["FilterPolicyScope"] == scope and told["PendingConfirmation"] == "false"

    def publish(message: str, **attributes: str) -> None:
        kinds = {"price": "Number", "tags": "String.Array"}
        given = {name: {"DataType": kinds.get(name, "String"), "StringValue": one} for name, one in attributes.items()}
        sns.publish(TopicArn=topic, Message=message, MessageAttributes=given)

    publish("a", color="darkblue", price="10.5")
    publish("b", color="red", price="9")
    publish("c", tags='["old", "new"]', color="x")
    publish('{"order": {"state": "closed"}}', color="y")
    publish('{"order": {"state": "open"}}')
    wanted = {
        "red": "a",
        "tagged": "c",
        "none": '{"order": {"state": "open"}}',
        "body": '{"order": {"state": "closed"}}',
    }
    for name, body in wanted.items():
        [one] = arrived(account, urls[name])
        assert one["Body"] == body, name


def test_a_fifo_topic_keeps_the_order(account: Account) -> None:
    sns, sqs = account.client("sns"), account.client("sqs")
    topic = sns.create_topic(Name="t.fifo", Attributes={"FifoTopic": "true", "ContentBasedDeduplication": "true"})[
        "TopicArn"
    ]
    url = made(sqs, f"{uuid.uuid4().hex}.fifo", FifoQueue="true")
    raw = {"RawMessageDelivery": "true"}
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=opened(account, url, topic), Attributes=raw)
    first = sns.publish(TopicArn=topic, Message="0", MessageGroupId="g")
    assert sns.publish(TopicArn=topic, Message="0", MessageGroupId="g")["SequenceNumber"] == first["SequenceNumber"]
    entries = [{"Id": str(n), "Message": str(n), "MessageGroupId": "g"} for n in range(1, 10)]
    assert len(sns.publish_batch(TopicArn=topic, PublishBatchRequestEntries=entries)["Successful"]) == 9
    got = arrived(account, url, 10)
    assert [one["Body"] for one in got] == [str(n) for n in range(10)]
    with pytest.raises(ClientError, match="MessageGroupId"):
        sns.publish(TopicArn=topic, Message="x")


def test_a_queue_of_another_account_is_asked(account: Account, neighbour: Account) -> None:
    sns = account.client("sns")
    topic = sns.create_topic(Name="shared")["TopicArn"]
    url = made(neighbour.client("sqs"))
    arn = opened(neighbour, url, topic)
    assert sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)["SubscriptionArn"] == "pending confirmation"
    [ask] = arrived(neighbour, url)
    assert follow(account, json.loads(ask["Body"])["SubscribeURL"])[0] == 200
    sns.publish(TopicArn=topic, Message="over there")
    assert json.loads(arrived(neighbour, url)[0]["Body"])["Message"] == "over there"
    # With the topic's permission its owner subscribes it, and needs no confirmation.
    other = sns.create_topic(Name="open")["TopicArn"]
    theirs = neighbour.client("sns")
    with pytest.raises(ClientError, match="AuthorizationError"):
        theirs.subscribe(TopicArn=other, Protocol="sqs", Endpoint=arn)
    sns.add_permission(TopicArn=other, Label="in", AWSAccountId=[neighbour.id], ActionName=["Subscribe"])
    assert theirs.subscribe(TopicArn=other, Protocol="sqs", Endpoint=arn)["SubscriptionArn"].startswith(other)
    assert [one["TopicArn"] for one in theirs.list_subscriptions()["Subscriptions"]] == [other]
    sns.delete_topic(TopicArn=other)
    assert theirs.list_subscriptions()["Subscriptions"] == []


def test_a_customer_s_key_decides_who_publishes(account: Account) -> None:
    sns, kms = account.client("sns"), account.client("kms")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    topic = sns.create_topic(Name="sealed", Attributes={"KmsMasterKeyId": key})["TopicArn"]
    url = made(account.client("sqs"))
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=opened(account, url, topic))
    account.role("Publisher", allow("sns:Publish"))
    publisher = account.client("sns", account.as_role("Publisher"))
    with pytest.raises(ClientError, match="KMSAccessDenied"):
        publisher.publish(TopicArn=topic, Message="x")
    sns.publish(TopicArn=topic, Message="under the key")
    assert json.loads(arrived(account, url)[0]["Body"])["Message"] == "under the key"


def test_nobody_reaches_through_the_platform_what_is_not_theirs(account: Account) -> None:
    sns, sqs = account.client("sns"), account.client("sqs")
    topic, dead = sns.create_topic(Name="reach")["TopicArn"], made(sqs)
    # The platform's own listeners, though loopback is allowed here, and addresses that are not public.
    for url in (
        account.platform.http,
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1/",
        "http://[::ffff:10.0.0.1]/",
    ):
        sns.subscribe(TopicArn=topic, Protocol="http", Endpoint=url)
    assert sns.get_topic_attributes(TopicArn=topic)["Attributes"]["SubscriptionsPending"] == "4"
    for url in ("http://user:pass@example.com/", "ftp://example.com", "http://", "http://a b/", "https://x"):
        with pytest.raises(ClientError, match="InvalidParameter"):
            sns.subscribe(TopicArn=topic, Protocol="http", Endpoint=url)
    for protocol, endpoint in (
        ("email", "a@example.com"),
        ("sms", "+15555550100"),
        ("lambda", "x"),
        ("sqs", "arn:aws:sns:x:1:y"),
    ):
        with pytest.raises(ClientError, match="InvalidParameter"):
            sns.subscribe(TopicArn=topic, Protocol=protocol, Endpoint=endpoint)
    assert bodies(sqs, dead) == []


def test_hostile_input_is_refused_in_words(account: Account) -> None:
    sns = account.client("sns")
    topic = sns.create_topic(Name="plain", Tags=[{"Key": "team", "Value": "red"}])["TopicArn"]
    assert sns.create_topic(Name="plain")["TopicArn"] == topic
    arn = sns.subscribe(TopicArn=topic, Protocol="http", Endpoint="http://127.0.0.1:1/", ReturnSubscriptionArn=True)[
        "SubscriptionArn"
    ]
    for name, value in (
        ("FilterPolicy", '{"a": [{"nearly": 1}]}'), ("FilterPolicy", '{"a": {"b": ["x"]}}'), ("RedrivePolicy", "{}"),
        ("FilterPolicy", json.dumps({str(n): ["x"] for n in range(6)})), ("DeliveryPolicy", '{"healthyRetryPolicy": 1}'),
        ("FilterPolicy", json.dumps({"a": [str(n) for n in range(151)]})), ("RawMessageDelivery", "maybe"), ("No", "x"),
    ):  # fmt: skip
        with pytest.raises(ClientError, match="InvalidParameter"):
            sns.set_subscription_attributes(SubscriptionArn=arn, AttributeName=name, AttributeValue=value)
    for given in (
        {"Message": ""}, {"Message": "x" * 262_145}, {"Message": "x", "Subject": "a\nb"},
        {"Message": "{}", "MessageStructure": "json"},
        {"Message": "x", "MessageAttributes": {"a": {"DataType": "Number", "StringValue": "many"}}},
        {"Message": "x", "MessageAttributes": {"a": {"DataType": "String.Array", "StringValue": "[[]]"}}},
    ):  # fmt: skip
        with pytest.raises(ClientError, match=r"Invalid|must contain"):
            sns.publish(TopicArn=topic, **given)
    with pytest.raises(ClientError, match="InvalidParameter"):
        sns.publish(PhoneNumber="+15555550100", Message="x")
    for arn in ("", "randomstring", "randomstring:1"):
        with pytest.raises(ClientError, match=f"An ARN must have at least 6 elements, not {arn.count(':') + 1}"):
            sns.publish(TopicArn=arn, Message="x")
    # What is wrong with one entry of a batch refuses all of it.
    entries = [{"Id": "1", "Message": "x"}, {"Id": "2", "Message": "{}", "MessageStructure": "json"}]
    with pytest.raises(ClientError, match="No default entry"):
        sns.publish_batch(TopicArn=topic, PublishBatchRequestEntries=entries)
    with pytest.raises(ClientError, match=r"message\.id"):
        sns.publish_batch(TopicArn=topic, PublishBatchRequestEntries=[{"Id": "message.id", "Message": "x"}])
    with pytest.raises(ClientError, match="Invalid token"):
        sns.confirm_subscription(TopicArn=topic, Token="randomtoken")
    again = {"Name": "again", "Attributes": {"DisplayName": "one"}, "Tags": [{"Key": "a", "Value": "1"}]}
    made_again = sns.create_topic(**again)["TopicArn"]
    assert sns.create_topic(Name="again", Attributes={"FifoTopic": "false"}, Tags=[])["TopicArn"] == made_again
    with pytest.raises(ClientError, match="different attributes"):
        sns.create_topic(Name="again", Attributes={"DisplayName": "two"})
    sns.delete_topic(TopicArn=made_again)
    for name in ("a b", "x.fifo", "y" * 257):
        with pytest.raises(ClientError, match="InvalidParameter"):
            sns.create_topic(Name=name)
    assert [one["TopicArn"] for one in sns.list_topics()["Topics"]] == [topic]
    sns.untag_resource(ResourceArn=topic, TagKeys=["team"])
    assert sns.list_tags_for_resource(ResourceArn=topic)["Tags"] == []
    sns.delete_topic(TopicArn=topic)
    with pytest.raises(ClientError, match="NotFound"):
        sns.publish(TopicArn=topic, Message="x")
    assert REGION in topic
