"""Messages reach subscribers: queues, functions, addresses, people.

Source: Amazon SNS Developer Guide, "Parsing Amazon SNS message formats", "Amazon SNS message delivery retries", "Amazon SNS
dead-letter queues", "Fanout to Lambda functions".
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import logging
from typing import Any, Final

import orjson

from bastide.domain import MICROS, Arn, Instant, Refused
from bastide.engines.mail import Mail, Undelivered
from bastide.engines.outgoing import Outgoing, Unreachable
from bastide.kernel import Calls, service_caller
from bastide.kernel.address import Address
from bastide.services.sns.handing import SEALED, Sender
from bastide.services.sns.publishing import DEDUPLICATION, REMEMBERED, count, opened
from bastide.services.sns.retries import DEFAULT, MAIL, pause, policy_of
from bastide.services.sns.signing import Signer
from bastide.services.sns.subscription import named
from bastide.services.sns.topic import PENDING, SUBSCRIPTIONS, TOPIC, arn_of, attribute, counted, forget
from bastide.store import Row, Transaction

_log = logging.getLogger("bastide.sns")
_PRINCIPAL: Final = "sns.amazonaws.com"
_KIND: Final = "sns:Delivery"
_AGENT: Final = "Amazon Simple Notification Service Agent"
_PENDING_LIFE: Final = 3 * 86400 * MICROS
_ROUND: Final = 60
_MOST_ATTRIBUTES: Final = 10
_FINAL: Final = (
    "AccessDenied",
    "QueueDoesNotExist",
    "Invalid",
    "ResourceNotFound",
    "NotFound",
    "Kms",
    "KMS",
    "Validation",
)
"""Beginnings of codes that trying again does not help: the subscriber's own side is wrong."""


class Post:
    """Delivers what was published, and forgets what nobody confirmed."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self.sender = Sender(calls, _KIND, self._attempt, self._pause, self._give_up)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """From now on, with what an earlier run left."""
        self.sender.start()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Ends; what is not delivered waits for the next start."""
        await self.sender.close()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    # -- one delivery ------------------------------------------------------------------------------------------------------

    def _places(self, doc: dict[str, Any]) -> tuple[Row, Row] | None:
        account, region, name = doc["subscription"]
        with self._calls.store.reading() as view:
            row = view.get(SUBSCRIPTIONS, account, region, name)
            topic = TOPIC.get(view, account, region, name.partition(":")[0])
        return None if row is None or topic is None else (topic, row)

    async def _attempt(self, doc: dict[str, Any]) -> None:
        places = self._places(doc)
        if places is None:
            return  # nobody listens any more
        topic, row = places
        held = opened(self._calls, arn_of(topic), doc["sealed"], SEALED)
        protocol = row.doc["protocol"]
        if protocol == "sqs":
            await self._to_queue(topic, row.doc["endpoint"], self._letter(topic, row, held))
        elif protocol == "lambda":
            await self._to_function(topic, row, held)
        elif protocol == "firehose":
            await self._to_stream(topic, row, held)
        elif protocol in ("http", "https"):
            await self._to_address(topic, row, held)
        else:
            await self._to_person(topic, row, held)
        count(self._calls, topic, "NumberOfNotificationsDelivered")

    def _pause(self, doc: dict[str, Any], refused: Refused, now: Instant) -> float | None:
        places = self._places(doc)
        if places is None or refused.code.startswith(_FINAL):
            return None
        topic, row = places
        if row.doc["protocol"] in ("email", "email-json"):
            return pause(MAIL, doc["attempts"])
        if row.doc["protocol"] not in ("http", "https"):
            return pause(None, doc["attempts"])
        held = policy_of(topic.doc["attributes"].get("DeliveryPolicy") or "", topic=True)
        own = policy_of(row.doc["attributes"].get("DeliveryPolicy") or "", topic=False) if held.get("own", True) else {}
        return pause(own.get("retries") or held.get("retries") or DEFAULT, doc["attempts"])

    async def _give_up(self, doc: dict[str, Any], refused: Refused) -> None:
        places = self._places(doc)
        if places is None:
            return
        topic, row = places
        count(self._calls, topic, "NumberOfNotificationsFailed")
        _log.warning("a message of %s was not delivered to %s: %s", arn_of(topic), named(row), refused)
        text = row.doc["attributes"].get("RedrivePolicy")
        held = opened(self._calls, arn_of(topic), doc["sealed"], SEALED)
        if not text or "whole" in held:
            return
        target = orjson.loads(text)["deadLetterTargetArn"]
        try:
            await self._to_queue(topic, target, self._letter(topic, row, held))
            count(self._calls, topic, "NumberOfNotificationsRedrivenToDlq")
        except Refused as error:
            count(self._calls, topic, "NumberOfNotificationsFailedToRedriveToDlq")
            _log.warning("the dead letter could not be left in %s: %s", target, error)

    # -- what is sent ------------------------------------------------------------------------------------------------------

    def _envelope(self, topic: Row, row: Row, held: dict[str, Any]) -> dict[str, Any]:
        """The message as JSON has it, signed."""
        version = attribute(topic, "SignatureVersion", "1")
        signer = self._calls.engine(Signer)
        if "whole" in held:
            return signer.signed(held["whole"], version)
        told: dict[str, Any] = {"Type": "Notification", "MessageId": held["id"], "TopicArn": arn_of(topic)}
        if held["number"] is not None:
            told["SequenceNumber"] = held["number"]
        if held["subject"] is not None:
            told["Subject"] = held["subject"]
        told |= {"Message": _text(held, row.doc["protocol"]), "Timestamp": held["at"]}
        if not topic.doc["fifo"]:  # what a FIFO topic delivers is not signed
            told = signer.signed(told, version)
        told["UnsubscribeURL"] = f"{self._calls.engine(Address).url}/?Action=Unsubscribe&SubscriptionArn={named(row)}"
        if held["attributes"]:
            told["MessageAttributes"] = {
                name: {"Type": kind, "Value": value} for name, (kind, value) in held["attributes"].items()
            }
        return told

    def _letter(self, topic: Row, row: Row, held: dict[str, Any]) -> dict[str, Any]:
        """The message as a queue gets it: members of SendMessage."""
        raw = row.doc["attributes"].get("RawMessageDelivery") == "true" and "whole" not in held
        told: dict[str, Any] = {}
        if raw:
            told["MessageBody"] = _text(held, "sqs")
            if len(held["attributes"]) > _MOST_ATTRIBUTES:
                raise Refused("InvalidParameter", "A queue's message has at most 10 attributes.")
            if held["attributes"]:
                told["MessageAttributes"] = {name: _unpacked(*one) for name, one in held["attributes"].items()}
        else:
            told["MessageBody"] = orjson.dumps(self._envelope(topic, row, held), option=orjson.OPT_INDENT_2).decode()
        if held.get("group"):
            told["MessageGroupId"] = held["group"]
        if held.get("token"):
            told["MessageDeduplicationId"] = held["token"]
        return told

    async def _to_queue(self, topic: Row, queue: str, letter: dict[str, Any]) -> None:
        arn = Arn.parse(queue)
        given = {**letter, "QueueUrl": f"{self._calls.engine(Address).url}/{arn.account}/{arn.resource}"}
        if not arn.resource.endswith(".fifo"):
            given.pop("MessageDeduplicationId", None)
        elif "MessageGroupId" not in given:
            digest = hashlib.sha256(letter["MessageBody"].encode("utf-8", "surrogatepass")).hexdigest()
            given |= {"MessageGroupId": topic.name[:128], "MessageDeduplicationId": digest}
        caller = service_caller(_PRINCIPAL, topic.account, arn_of(topic))
        await self._calls.act(caller, "sqs", "SendMessage", given, region=arn.region, source=_PRINCIPAL)

    async def _to_function(self, topic: Row, row: Row, held: dict[str, Any]) -> None:
        if ("lambda", "Invoke") not in self._calls.registry.operations:
            raise Refused("ResourceNotFound", "There are no functions.")
        told = self._envelope(topic, row, held)
        told = {"SigningCertUrl" if key == "SigningCertURL" else "UnsubscribeUrl" if key == "UnsubscribeURL" else key: value
                for key, value in told.items()}  # fmt: skip
        told = {"Subject": None, "MessageAttributes": {}, **told}
        record = {
            "EventSource": "aws:sns", "EventVersion": "1.0", "EventSubscriptionArn": named(row), "Sns": told,
        }  # fmt: skip
        given = {
            "FunctionName": row.doc["endpoint"], "InvocationType": "Event",
            "Payload": orjson.dumps({"Records": [record]}),
        }  # fmt: skip
        caller = service_caller(_PRINCIPAL, topic.account, arn_of(topic))
        region = Arn.parse(row.doc["endpoint"]).region
        await self._calls.act(caller, "lambda", "Invoke", given, region=region, source=_PRINCIPAL)

    async def _to_stream(self, topic: Row, row: Row, held: dict[str, Any]) -> None:
        """As the subscription's role; each message ends with a line break."""
        arn = Arn.parse(row.doc["endpoint"])
        role = row.doc["attributes"]["SubscriptionRoleArn"]
        session = await self._calls.assume(
            _PRINCIPAL, role, "sns", account=row.doc["owner"], region=topic.region, source_arn=arn_of(topic)
        )
        raw = row.doc["attributes"].get("RawMessageDelivery") == "true"
        data = _text(held, "firehose").encode() if raw else orjson.dumps(self._envelope(topic, row, held))
        given = {"DeliveryStreamName": arn.name, "Record": {"Data": data + b"\n"}}
        await self._calls.act(session, "firehose", "PutRecord", given, region=arn.region, source=_PRINCIPAL)

    async def _to_address(self, topic: Row, row: Row, held: dict[str, Any]) -> None:
        attributes = row.doc["attributes"]
        policy = policy_of(attributes.get("DeliveryPolicy") or "", topic=False)
        whole = policy_of(topic.doc["attributes"].get("DeliveryPolicy") or "", topic=True)
        content = policy.get("content") or whole.get("content") or "text/plain; charset=UTF-8"
        told = self._envelope(topic, row, held)
        headers = {
            "x-amz-sns-message-type": told["Type"], "x-amz-sns-message-id": told["MessageId"],
            "x-amz-sns-topic-arn": arn_of(topic), "Content-Type": content, "User-Agent": _AGENT,
        }  # fmt: skip
        if told["Type"] == "Notification":
            headers["x-amz-sns-subscription-arn"] = named(row)
        body = orjson.dumps(told, option=orjson.OPT_INDENT_2)
        if attributes.get("RawMessageDelivery") == "true" and "whole" not in held:
            headers["x-amz-sns-rawdelivery"] = "true"
            body = _text(held, row.doc["protocol"]).encode("utf-8", "surrogatepass")
        try:
            reply = await self._calls.engine(Outgoing).send("POST", row.doc["endpoint"], headers, body)
        except Unreachable as error:
            raise Refused("Unreachable", str(error)) from None
        if not 200 <= reply.status < 300:
            final = 400 <= reply.status < 500 and reply.status != 429
            raise Refused("InvalidAnswer" if final else "Answer", f"The endpoint answered {reply.status}.")

    async def _to_person(self, topic: Row, row: Row, held: dict[str, Any]) -> None:
        told = self._envelope(topic, row, held)
        title = "AWS Notification - Subscription Confirmation" if "whole" in held else "AWS Notification Message"
        if row.doc["protocol"] == "email-json":
            text = orjson.dumps(told, option=orjson.OPT_INDENT_2).decode()
        elif "whole" in held:
            text = (
                f"You have chosen to subscribe to the topic:\n{arn_of(topic)}\n\nTo confirm this subscription, visit this "
                f"link (if this was in error no action is necessary):\n{told['SubscribeURL']}\n"
            )
        else:
            text = f"{told['Message']}\n\n--\nTo stop receiving notifications, visit:\n{told['UnsubscribeURL']}\n"
        try:
            subject = held.get("subject") or title
            await self._calls.engine(Mail).send(row.doc["endpoint"], subject, text, id=told["MessageId"])
        except Undelivered as error:
            raise Refused("InvalidAnswer" if error.final else "Undelivered", str(error)) from None

    # -- by the clock ------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                await self._calls.store.write(self._forget)
            except Exception:
                _log.exception("what is over could not be forgotten")
            await asyncio.sleep(_ROUND)

    def _forget(self, tx: Transaction) -> None:
        for row in tx.scan(DEDUPLICATION, "", "", order="created", created_to=tx.now - REMEMBERED, limit=500):
            tx.delete(row, keep=False)
        for held in tx.scan(PENDING, "", "", order="created", created_to=tx.now - _PENDING_LIFE, limit=500):
            arn = Arn.parse(held.name)
            one = tx.get(SUBSCRIPTIONS, arn.account, arn.region, arn.resource)
            topic = TOPIC.get(tx, arn.account, arn.region, arn.resource.partition(":")[0])
            if one is None or one.status != "pending":
                tx.delete(held, keep=False)
                continue
            forget(tx, one)
            if topic is not None:
                counted(tx, topic, "pending", -1)


def _text(held: dict[str, Any], protocol: str) -> str:
    """The message for a protocol, which may have its own."""
    if held["structure"] != "json":
        return str(held["message"])
    every = orjson.loads(held["message"])
    own = every.get(protocol)
    return str(own if isinstance(own, str) else every["default"])


def _unpacked(kind: str, value: str) -> dict[str, Any]:
    if kind.startswith("Binary"):
        return {"DataType": kind, "BinaryValue": base64.b64decode(value)}
    return {"DataType": kind, "StringValue": value}
