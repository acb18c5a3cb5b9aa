"""Messages are published. Source: Amazon SNS API Reference, Publish, PublishBatch; Developer Guide, "Message deduplication
for FIFO topics", "Encrypting an Amazon SNS topic with server-side encryption".

A message is a row for each subscription that wants it, in one transaction, before the answer.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from bastide.domain import MICROS, Instant, Refused, iso, new_id
from bastide.engines import keys
from bastide.engines.telemetry import Meter
from bastide.kernel import Ask, Asked, Authorised, Calls, Output
from bastide.services.sns import filtering
from bastide.services.sns.handing import deliver, room, seal, woken
from bastide.services.sns.topic import SUBSCRIPTIONS, TOPIC, arn_of, attribute, invalid, this, too_short, topic_of
from bastide.store import Row, Transaction, View

DEDUPLICATION: Final = "sns:Deduplication"
"""Under account "": ``TOPIC ARN|DIGEST``, what a FIFO topic took in the last five minutes."""
REMEMBERED: Final = 300 * MICROS
_PRINCIPAL: Final = "sns.amazonaws.com"
_MOST: Final = 262_144
_MOST_ENTRIES: Final = 10
_ENTRY: Final = re.compile(r"[A-Za-z0-9_-]{1,80}")
_TOKEN: Final = re.compile(r"[A-Za-z0-9!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]{1,128}")
_STRANGER: Final = re.compile(r"[^A-Za-z0-9_.-]")
_TYPE: Final = re.compile(r"(String|String\.Array|Number|Binary)(\..{1,200})?", re.DOTALL)
_NUMBER: Final = re.compile(r"[+-]?(\d{1,30}(\.\d{0,30})?|\.\d{1,30})([eE][+-]?\d{1,3})?")
_SUBJECT: Final = re.compile(r"[^\x00-\x1f\x7f]{1,100}")


class _Numbers:
    def __init__(self) -> None:
        self._last = 0

    def next(self, now: Instant) -> str:
        self._last = max(self._last + 1, now * 1000)
        return f"{self._last:020d}"


_numbers = _Numbers()


def count(calls: Calls, topic: Row, name: str, value: float = 1.0, unit: str = "Count") -> None:
    """A value of a topic in the namespace AWS/SNS."""
    calls.engine(Meter).record(topic.account, topic.region, "AWS/SNS", (("TopicName", topic.name),), name, value, unit)


def _attributes(given: Mapping[str, Mapping[str, Any]]) -> int:
    size = 0
    for name, one in given.items():
        kind = str(one.get("DataType") or "")
        text, raw = one.get("StringValue"), one.get("BinaryValue")
        _named(name)
        if not _TYPE.fullmatch(kind):
            raise Refused(
                "ParameterValueInvalid",
                f"The message attribute '{name[:100]}' has an invalid message attribute type, the set of supported type "
                "prefixes is Binary, Number, and String.",
            )
        binary = kind.startswith("Binary")
        value = raw if binary else text
        if not value and (text if binary else raw):
            field = "Binary" if binary else "String"
            raise Refused(
                "ParameterValueInvalid",
                f"The message attribute '{name[:100]}' with type '{kind[:100]}' must use field '{field}'.",
            )
        if not value or (text is not None and raw is not None):
            raise Refused(
                "ParameterValueInvalid",
                f"The message attribute '{name[:100]}' must contain non-empty message attribute value for message "
                f"attribute type '{kind[:100]}'.",
            )
        if kind.startswith("Number") and not _NUMBER.fullmatch(str(text)):
            raise Refused("ParameterValueInvalid", f"The message attribute '{name[:100]}' is no number.")
        if kind.startswith("String.Array"):
            _array(name, str(text))
        size += len(name.encode()) + len(kind.encode())
        size += len(value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass"))
    return size


def _named(name: str) -> None:
    """Raises ParameterValueInvalid for what no message attribute is called."""
    stranger = _STRANGER.search(name)
    if len(name) > 256:
        why = "Length of message attribute name must be less than 256 bytes."
    elif stranger is not None:
        why = (
            f"Invalid non-alphanumeric character '#x{ord(stranger[0]):X}' was found in the message attribute name. Can "
            "only include alphanumeric characters, hyphens, underscores, or dots."
        )
    elif name.startswith("."):
        why = "Invalid message attribute name starting with character '.' was found."
    elif name.endswith("."):
        why = "Invalid message attribute name ending with character '.' was found."
    elif ".." in name:
        why = "Message attribute name can not have successive '.' character."
    elif not name:
        why = "The message attribute name is empty."
    else:
        return
    raise Refused("ParameterValueInvalid", why)


def _array(name: str, text: str) -> None:
    try:
        held = orjson.loads(text)
    except orjson.JSONDecodeError:
        held = None
    if not isinstance(held, list) or any(isinstance(one, (list, dict)) for one in held):
        raise Refused(
            "ParameterValueInvalid", f"The message attribute '{name[:100]}' is no JSON array of plain values."
        )


def _structured(given: Mapping[str, Any]) -> None:
    if given.get("MessageStructure") is None:
        return
    if given["MessageStructure"] != "json":
        raise invalid("MessageStructure: it is json")
    try:
        held = orjson.loads(given["Message"])
    except orjson.JSONDecodeError:
        raise invalid("Message Structure - JSON message body failed to parse") from None
    if not isinstance(held, dict) or not isinstance(held.get("default"), str):
        raise invalid("Message Structure - No default entry in JSON message body")


def _fifo(topic: Row, given: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Group and deduplication id of a FIFO topic's message, and under which name it is remembered."""
    group, token = given.get("MessageGroupId"), given.get("MessageDeduplicationId")
    if not topic.doc["fifo"]:
        if token is not None:
            raise invalid(
                "MessageDeduplicationId Reason: The request includes MessageDeduplicationId parameter that is not valid "
                "for this topic type"
            )
        return None
    if not group or not _TOKEN.fullmatch(group):
        raise invalid("The MessageGroupId parameter is required for FIFO topics, with 1 to 128 characters")
    if token is None:
        if attribute(topic, "ContentBasedDeduplication") != "true":
            raise invalid(
                "The topic should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided "
                "explicitly"
            )
        token = hashlib.sha256(given["Message"].encode()).hexdigest()
    elif not _TOKEN.fullmatch(token):
        raise invalid("MessageDeduplicationId has 1 to 128 characters")
    scope = group if attribute(topic, "FifoThroughputScope", "Topic") == "MessageGroup" else ""
    return group, token, hashlib.sha256(f"{scope}\0{token}".encode()).hexdigest()


def _sealed(a: Authorised, tx: Transaction, topic: Row, content: dict[str, Any]) -> str:
    """A message as it waits. Where the topic has a KMS key, who publishes gets a data key of it for each; it lies beside
    the message under the platform's own, so that what was taken is delivered also after a start."""
    key = attribute(topic, "KmsMasterKeyId")
    if not key:
        return seal(a, content)
    if not key.startswith("arn:"):
        key = f"arn:aws:kms:{topic.region}:{topic.account}:{'' if key.startswith('alias/') else 'key/'}{key}"
    context = {"aws:sns:topicArn": arn_of(topic)}
    given = {"KeyId": key, "KeySpec": "AES_256", "EncryptionContext": context}
    via = f"sns.{a.region}.amazonaws.com"
    try:
        made = a.forward(tx, "kms", "GenerateDataKey", given, _PRINCIPAL, kms__ViaService=via)
    except Refused as refused:
        codes = {
            "AccessDeniedException": "KMSAccessDenied", "NotFoundException": "KMSNotFound",
            "DisabledException": "KMSDisabled",
        }  # fmt: skip
        raise Refused(codes.get(refused.code, "KMSInvalidState"), refused.message, kept=refused.kept) from None
    raw = keys.encrypt(made["Plaintext"], arn_of(topic), 1, orjson.dumps(content), context)
    return seal(a, {"x": base64.b64encode(raw).decode(), "key": base64.b64encode(made["Plaintext"]).decode()})


def opened(calls: Calls, topic_arn: str, sealed: str, purpose: str) -> dict[str, Any]:
    """The message again."""
    held: dict[str, Any] = orjson.loads(calls.sealer.open(sealed, purpose))
    if "x" in held:
        raw = keys.decrypt(base64.b64decode(held["key"]), base64.b64decode(held["x"]), {"aws:sns:topicArn": topic_arn})
        held = orjson.loads(raw)
    return held


def _subscribers(view: View, topic: Row) -> list[Row]:
    def load() -> list[Row]:
        found: list[Row] = []
        after: str | None = None
        while True:
            rows = view.scan(
                SUBSCRIPTIONS, topic.account, topic.region, prefix=f"{topic.name}:", after=after, limit=1000
            )
            found += [row for row in rows if row.status == "confirmed"]
            if len(rows) < 1000:
                return found
            after = rows[-1].name

    where = ("sns:subscribers", topic.account, topic.region, topic.name)
    return view.memo(where, ((SUBSCRIPTIONS, topic.account),), load)


def _publish(a: Authorised, tx: Transaction, topic: Row, given: Mapping[str, Any]) -> Output:
    message, subject, own = str(given["Message"]), given.get("Subject"), given.get("MessageAttributes") or {}
    if not message:
        raise invalid("Empty message")
    if subject is not None and not _SUBJECT.fullmatch(subject):
        raise invalid("Subject: it has 1 to 100 characters and no line breaks")
    size = len(message.encode("utf-8", "surrogatepass")) + _attributes(own)
    if size > int(attribute(topic, "MaximumMessageSize", _MOST)):
        raise invalid("Message too long")
    _structured(given)
    fifo, now, id = _fifo(topic, given), tx.now, new_id()
    number = _numbers.next(now)
    output: Output = {"MessageId": id}
    if fifo is not None:
        name = f"{arn_of(topic)}|{fifo[2]}"
        held = tx.get(DEDUPLICATION, "", "", name)
        if held is not None and now - held.created < REMEMBERED:
            return {"MessageId": held.doc["id"], "SequenceNumber": held.doc["number"]}
        if held is not None:
            tx.delete(held, keep=False)
        tx.insert(Row(DEDUPLICATION, "", "", name, {"id": id, "number": number}), keep=False)
        output["SequenceNumber"] = number
    content: dict[str, Any] = {
        "id": id, "message": message, "subject": subject, "structure": given.get("MessageStructure"),
        "attributes": {key: _packed(one) for key, one in own.items()}, "at": f"{iso(now, fraction=True)[:-4]}Z",
        "group": given.get("MessageGroupId"), "token": fifo[1] if fifo is not None else None,
        "number": number if fifo is not None else None,
    }  # fmt: skip
    sealed = ""
    for row in _subscribers(tx, topic):
        policy = row.doc["attributes"].get("FilterPolicy")
        scope = row.doc["attributes"].get("FilterPolicyScope") or "MessageAttributes"
        if policy and not filtering.wants(policy, scope, message, own):
            count(a.calls, topic, "NumberOfNotificationsFilteredOut")
            continue
        sealed = sealed or _sealed(a, tx, topic, content)
        subscriber = row.name.rpartition(":")[2]
        lane = f"{subscriber}/{fifo[0]}" if fifo is not None else ""
        deliver(a, tx, topic, row, sealed, name=f"{number}/{id}/{subscriber}", lane=lane)
    if not sealed and attribute(topic, "KmsMasterKeyId"):
        _sealed(a, tx, topic, content)  # who may not use the key may not publish, whoever listens
    count(a.calls, topic, "NumberOfMessagesPublished")
    count(a.calls, topic, "PublishSize", size, "Bytes")
    return output


def _packed(one: Mapping[str, Any]) -> list[str]:
    if one.get("BinaryValue") is not None and str(one["DataType"]).startswith("Binary"):
        return [one["DataType"], base64.b64encode(one["BinaryValue"]).decode()]
    return [one["DataType"], one["StringValue"]]


def _about(asked: Asked) -> Iterable[str]:
    given = asked.input
    return (str(given.get("TopicArn") or given.get("TargetArn") or "*"),)


@TOPIC.operation("Publish", asks=[Ask("sns:Publish", _about)], data=True, before=room, after=woken)
def publish(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    if given.get("PhoneNumber") is not None:
        raise invalid("PhoneNumber: there are no text messages here")
    if (given.get("TopicArn") is None) == (given.get("TargetArn") is None):
        raise invalid("TopicArn or TargetArn Reason: one of them, and no more, is needed")
    if ":endpoint/" in str(given.get("TargetArn")):
        raise invalid("TargetArn: there are no mobile endpoints here")
    named = given["TopicArn"] if given.get("TopicArn") is not None else given["TargetArn"]
    if not named:
        raise too_short("TopicArn", "")
    return _publish(a, tx, topic_of(a, tx, named), given)


@TOPIC.operation("PublishBatch", asks=[Ask("sns:Publish", this)], data=True, before=room, after=woken)
def publish_batch(a: Authorised, tx: Transaction) -> Output:
    entries, topic = a.input["PublishBatchRequestEntries"], topic_of(a, tx)
    if not entries:
        raise Refused("EmptyBatchRequest", "The batch request doesn't contain any entries.")
    if len(entries) > _MOST_ENTRIES:
        raise Refused("TooManyEntriesInBatchRequest", "The batch request contains more entries than permissible (10).")
    for one in entries:
        if not _ENTRY.fullmatch(one["Id"]):
            why = "is too long" if len(one["Id"]) > 80 else "contains an impermissible character"
            raise Refused(
                "InvalidBatchEntryId", f"The Id of a batch entry in the batch request {why}: {one['Id'][:200]}"
            )
    if len({one["Id"] for one in entries}) != len(entries):
        raise Refused("BatchEntryIdsNotDistinct", "Two or more batch entries in the request have the same Id.")
    if sum(map(_length, entries)) > _MOST:
        raise Refused(
            "BatchRequestTooLong",
            f"The length of all the messages put together is more than the limit. It is {_MOST} bytes.",
        )
    # What is wrong with one entry refuses all: only what fails on the way would fail by itself.
    return {"Successful": [{"Id": one["Id"], **_publish(a, tx, topic, one)} for one in entries], "Failed": []}


def _length(given: Mapping[str, Any]) -> int:
    """Bytes of a message with its attributes."""
    text = str(given["Message"]).encode("utf-8", "surrogatepass")
    return len(text) + _attributes(given.get("MessageAttributes") or {})
