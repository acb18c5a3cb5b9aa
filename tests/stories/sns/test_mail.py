"""People hear by mail what they confirmed by its link, from a server that answers as servers do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from email.message import EmailMessage

import pytest
import urllib3

from bastide.engines.mail import Mail
from tests.mail_server import Mailbox, links, mail_server
from tests.moved import Moved, until
from tests.stories.sns.test_topics import arrived, opened
from tests.stories.sqs.test_queues import made


@pytest.fixture(scope="module")
def box() -> Iterator[Mailbox]:
    with mail_server() as box:
        yield box


@pytest.fixture(scope="module")
def posting(tmp_path_factory: pytest.TempPathFactory, box: Mailbox) -> Iterator[Moved]:
    running = Moved(tmp_path_factory.mktemp("posting") / "data")
    running.mail = Mail(f"smtp://{box.url}", "platform@bank.example")
    running.start()
    running.found()
    yield running
    running.stop()


def _letter(box: Mailbox, number: int) -> EmailMessage:
    until(lambda: len(box.letters) >= number)
    assert len(box.letters) == number
    return box.letters[-1]


@pytest.mark.control("MON-04")
def test_a_person_confirms_hears_and_stops(posting: Moved, box: Mailbox) -> None:
    account = posting.account()
    sns, sqs = account.client("sns"), account.client("sqs")
    topic, dead = sns.create_topic(Name="news")["TopicArn"], made(sqs)
    asked = sns.subscribe(TopicArn=topic, Protocol="email", Endpoint="eva@bank.example")
    assert asked["SubscriptionArn"] == "pending confirmation"
    letter = _letter(box, 1)
    assert (letter["To"], letter["From"]) == ("eva@bank.example", "platform@bank.example")
    sns.publish(TopicArn=topic, Message="too early")
    [link] = links(letter)
    assert urllib3.request("GET", link, retries=False).status == 200
    [held] = sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    redrive = json.dumps({"deadLetterTargetArn": opened(account, dead, topic)})
    sns.set_subscription_attributes(
        SubscriptionArn=held["SubscriptionArn"], AttributeName="RedrivePolicy", AttributeValue=redrive
    )
    # A server that has no time gets the same letter again, after pauses.
    box.refuse = ["451 later", "452 no room"]
    sns.publish(TopicArn=topic, Subject="drift\u2026", Message="The model drifts, r\u00e9ally.\n.\n\nFrom: nobody")
    until(lambda: len(box.seen) >= 2)  # the first attempt is made by the clock of now
    with posting.days_later(0.01):
        until(lambda: len(box.seen) >= 3)
    with posting.days_later(0.02):
        letter = _letter(box, 2)
    assert len(set(box.seen[1:])) == 1 and len(box.seen) == 4
    assert letter["Subject"] == "drift\u2026" and "The model drifts, r\u00e9ally." in letter.get_content()
    assert letter["From"] == "platform@bank.example"
    # One that refuses a letter for good makes it a dead letter, at once.
    box.refuse = ["554 we do not like it"]
    sns.publish(TopicArn=topic, Message="disliked")
    [one] = arrived(account, dead)
    assert json.loads(one["Body"])["Message"] == "disliked"
    # The link under each letter ends it.
    assert urllib3.request("GET", links(letter)[-1], retries=False).status == 200
    until(lambda: sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"] == [])
    sns.publish(TopicArn=topic, Message="too late")
    # As JSON, whole.
    sns.subscribe(TopicArn=topic, Protocol="email-json", Endpoint="ops@bank.example")
    told = json.loads(_letter(box, 3).get_content())
    assert told["Type"] == "SubscriptionConfirmation"
    sns.confirm_subscription(TopicArn=topic, Token=told["Token"])
    sns.publish(TopicArn=topic, Message="machine")
    told = json.loads(_letter(box, 4).get_content())
    assert (told["Type"], told["Message"], told["TopicArn"]) == ("Notification", "machine", topic)
