"""Subscriptions: asked for, confirmed, set, listed, ended.

Source: Amazon SNS API Reference, Subscribe, ConfirmSubscription, SetSubscriptionAttributes, Unsubscribe.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable
from typing import Any, Final

import orjson

from bastide.domain import MICROS, Arn, Refused, iso, new_id
from bastide.engines.mail import Mail, is_address
from bastide.engines.outgoing import Unreachable
from bastide.engines.outgoing import checked as checked_url
from bastide.kernel import Ask, Asked, Authorised, Output, anything, member, pages
from bastide.kernel.address import Address
from bastide.kernel.kind import Given
from bastide.services.sns import filtering
from bastide.services.sns.handing import deliver, room, seal, woken
from bastide.services.sns.retries import policy_of
from bastide.services.sns.topic import (
    ENDPOINTS,
    LINKED,
    OWNED,
    PENDING,
    SUBSCRIPTIONS,
    TOPIC,
    arn_of,
    counted,
    forget,
    invalid,
    this,
    too_short,
    topic_of,
)
from bastide.store import Row, Transaction, View

_PASSED: Final[dict[str, Given]] = {
    "iam:PassedToService": lambda _: "sns.amazonaws.com",
    "iam:AssociatedResourceArn": lambda asked: str(asked.input.get("SubscriptionArn") or asked.input.get("TopicArn")),
}
CONFIRM: Final = "sns/confirm"
_TOKEN_LIFE: Final = 48 * 3600 * MICROS
_SHORTEST: Final = 100
"""Characters of a token at least."""
_MOST: Final = 10_000
_PAGE: Final = 100
_RAW: Final = "RawMessageDelivery"
_TARGETS: Final = {"sqs": "sqs", "lambda": "lambda", "firehose": "firehose"}
"""Services that a protocol delivers to."""
_CALLED: Final = {"sqs": "SQS", "lambda": "Lambda", "firehose": "Firehose"}
_NOT_HERE: Final = ("sms", "application")
_ATTRIBUTES: Final = (
    "DeliveryPolicy", "FilterPolicy", "FilterPolicyScope", "RawMessageDelivery", "RedrivePolicy", "SubscriptionRoleArn",
)  # fmt: skip
_ASK: Final = (
    "You have chosen to subscribe to the topic {}.\nTo confirm the subscription, visit the SubscribeURL included in this "
    "message."
)


def named(row: Row) -> str:
    """The ARN of a subscription."""
    return TOPIC.arn(row.account, row.region, row.name)


def _endpoint_of(asked: Asked) -> str:
    return str(asked.input.get("Endpoint") or "")


# -- attributes --------------------------------------------------------------------------------------------------------


def _redrive(text: str, topic: Row, fifo: bool) -> None:
    try:
        held = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid(f"RedrivePolicy: failed to parse JSON. {error}") from None
    if not isinstance(held, dict) or set(held) != {"deadLetterTargetArn"}:
        raise invalid("RedrivePolicy: it is a JSON object with a deadLetterTargetArn")
    try:
        arn = Arn.parse(str(held["deadLetterTargetArn"]))
        if arn.service != "sqs" or arn.region != topic.region:
            raise ValueError
    except ValueError:
        raise invalid("RedrivePolicy: deadLetterTargetArn is an invalid arn of a queue of the topic's region") from None
    if arn.resource.endswith(".fifo") != fifo:
        kind = "FIFO queue as DLQ for a FIFO Subscription to a FIFO Topic" if fifo else "standard queue as DLQ"
        raise invalid(f"RedrivePolicy: must use a {kind}.")


def _set(row: Row, topic: Row, name: str, value: str) -> None:
    held: dict[str, str] = row.doc["attributes"]
    if name not in _ATTRIBUTES:
        raise invalid(f"AttributeName: {name} is not supported by Bastide")
    if name == "RawMessageDelivery":
        if value.lower() not in ("true", "false"):
            raise invalid(f"RawMessageDelivery: Invalid value [{value[:100]}]. Must be true or false.")
        value = value.lower()
        if value == "true" and row.doc["protocol"] not in ("sqs", "http", "https", "firehose"):
            raise invalid(f"RawMessageDelivery: Delivery protocol [{row.doc['protocol']}] does not support raw message")
    elif name == "DeliveryPolicy":
        if value and row.doc["protocol"] not in ("http", "https"):
            raise invalid("DeliveryPolicy: Delivery protocol does not support it")
        policy_of(value, topic=False)
    elif name == "RedrivePolicy" and value:
        _redrive(value, topic, row.doc["endpoint"].endswith(".fifo"))
    elif name == "SubscriptionRoleArn" and row.doc["protocol"] != "firehose":
        raise invalid("SubscriptionRoleArn: it is for delivery streams")
    elif name == "FilterPolicyScope" and value not in ("MessageAttributes", filtering.BODY):
        raise invalid(
            f"FilterPolicyScope: Invalid value [{value[:100]}]. Please use either MessageBody or MessageAttributes"
        )
    held[name] = value
    if not value or (name == "FilterPolicy" and value == "{}"):
        del held[name]
    if name in ("FilterPolicy", "FilterPolicyScope") and held.get("FilterPolicy"):
        filtering.checked(held["FilterPolicy"], held.get("FilterPolicyScope") or "MessageAttributes")


# -- asking for one ----------------------------------------------------------------------------------------------------


def _checked(a: Authorised, topic: Row, protocol: str, endpoint: str) -> None:
    """Raises InvalidParameter for an endpoint that nothing could be delivered to."""
    if protocol in ("http", "https"):
        try:
            scheme = checked_url(endpoint).scheme
        except Unreachable as wrong:
            raise invalid(f"Endpoint: {wrong}") from None
        if scheme != protocol:
            raise invalid("Endpoint must match the specified protocol")
    elif protocol in ("email", "email-json"):
        if not a.engine(Mail).there:
            raise invalid(
                "Protocol: the platform has no mail server; its operator can name one: `bastide up --smtp SERVER`"
            )
        if not is_address(endpoint):
            raise invalid("Email address")
    elif protocol in _TARGETS:
        try:
            arn = Arn.parse(endpoint)
        except ValueError:
            raise invalid(f"{_CALLED[protocol]} endpoint ARN") from None
        if arn.service != _TARGETS[protocol] or not arn.account or not arn.region:
            raise invalid(f"{_CALLED[protocol]} endpoint ARN")
        if protocol not in a.calls.registry.services:
            raise invalid(f"Protocol: {protocol} does not exist in Bastide yet")
        if protocol == "sqs" and arn.resource.endswith(".fifo") and not topic.doc["fifo"]:
            raise invalid("Endpoint Reason: FIFO SQS Queues can not be subscribed to standard SNS topics")
    elif protocol not in _NOT_HERE:
        raise invalid(f"Amazon SNS does not support this protocol string: {protocol[:50]}")
    else:
        raise invalid(
            f"Protocol: {protocol[:50]} is not supported by Bastide: there are {', '.join((*LINKED, *_TARGETS))}"
        )
    if topic.doc["fifo"] and protocol != "sqs":
        raise invalid(f"Protocol Reason: {protocol} is not supported for FIFO topics by Bastide")


@TOPIC.operation(
    "Subscribe",
    asks=[
        Ask(
            "sns:Subscribe",
            this,
            given={"sns:Endpoint": _endpoint_of, "sns:Protocol": lambda asked: str(asked.input["Protocol"])},
        ),
        Ask("iam:PassRole", member("Attributes.SubscriptionRoleArn"), given=_PASSED),
    ],
    before=room,
    after=woken,
)
def subscribe(a: Authorised, tx: Transaction) -> Output:
    topic, protocol, endpoint = topic_of(a, tx), str(a.input["Protocol"]), str(a.input.get("Endpoint") or "")
    _checked(a, topic, protocol, endpoint)
    index = f"{topic.name}|{hashlib.sha256(f'{protocol} {endpoint}'.encode()).hexdigest()[:40]}"
    wanted = a.input.get("Attributes") or {}
    known = tx.get(ENDPOINTS, topic.account, topic.region, index)
    row = tx.get(SUBSCRIPTIONS, topic.account, topic.region, known.doc["name"]) if known is not None else None
    if row is not None:
        now = {"RawMessageDelivery": "false", "FilterPolicyScope": "MessageAttributes", **row.doc["attributes"]}
        if any(now.get(name, "") != (value.lower() if name == _RAW else value) for name, value in wanted.items()):
            raise invalid("Attributes Reason: Subscription already exists with different attributes")
        if row.status == "pending":
            _ask(a, tx, topic, row)
        return _answer(a, row)
    if sum((topic.doc.get("counts") or {}).get(name, 0) for name in ("confirmed", "pending")) >= _MOST:
        raise Refused("SubscriptionLimitExceeded", f"A topic has at most {_MOST} subscriptions here.", 403)
    doc: dict[str, Any] = {
        "topic": topic.name, "protocol": protocol, "endpoint": endpoint, "owner": a.account, "attributes": {},
        "index": index, "_principal": a.caller.arn,
    }  # fmt: skip
    if protocol == "firehose" and not wanted.get("SubscriptionRoleArn"):
        raise invalid("SubscriptionRoleArn is needed for a delivery stream")
    # Whoever owns what is subscribed needs no confirmation of their own wish; an address is asked.
    owns = protocol in _TARGETS and Arn.parse(endpoint).account == a.account
    name = f"{topic.name}:{uuid.uuid4()}"
    row = Row(SUBSCRIPTIONS, topic.account, topic.region, name, doc, "confirmed" if owns else "pending")
    for key in sorted(wanted, key=lambda key: key != "FilterPolicyScope"):  # which says what a FilterPolicy may be
        try:
            _set(row, topic, key, wanted[key])
        except Refused as refused:
            raise invalid(f"Attributes Reason: {refused.message.removeprefix('Invalid parameter: ')}") from None
    tx.insert(row, event=a.operation.name, request_id=a.request.id)
    tx.insert(Row(ENDPOINTS, topic.account, topic.region, index, {"name": name}), keep=False)
    tx.insert(Row(OWNED, a.account, topic.region, named(row), {}), keep=False)
    counted(tx, topic, row.status, 1)
    if not owns:
        tx.insert(Row(PENDING, "", "", named(row), {}), keep=False)
        _ask(a, tx, topic, row)
    return _answer(a, row)


def _answer(a: Authorised, row: Row) -> Output:
    shown = row.status == "confirmed" or a.input.get("ReturnSubscriptionArn")
    return {"SubscriptionArn": named(row) if shown else "pending confirmation"}


def _ask(a: Authorised, tx: Transaction, topic: Row, row: Row) -> None:
    """Sends the endpoint what it needs to confirm."""
    token = a.calls.sealer.seal(orjson.dumps([named(row), row.doc["endpoint"], tx.now]), CONFIRM)
    arn = arn_of(topic)
    link = f"{a.engine(Address).url}/?Action=ConfirmSubscription&TopicArn={arn}&Token={token}"
    message = {
        "Type": "SubscriptionConfirmation", "MessageId": new_id(), "Token": token, "TopicArn": arn,
        "Message": _ASK.format(arn), "SubscribeURL": link, "Timestamp": f"{iso(tx.now, fraction=True)[:-4]}Z",
    }  # fmt: skip
    deliver(a, tx, topic, row, seal(a, {"whole": message}), name=f"{tx.now:020d}/{message['MessageId']}")


# -- confirming and ending ---------------------------------------------------------------------------------------------


@TOPIC.operation("ConfirmSubscription", asks=[Ask("sns:ConfirmSubscription", this)])
def confirm(a: Authorised, tx: Transaction) -> Output:
    try:
        arn, endpoint, issued = orjson.loads(a.calls.sealer.open(str(a.input["Token"]), CONFIRM))
    except (ValueError, Refused):
        if len(a.input["Token"]) < _SHORTEST:
            raise Refused("InvalidParameter", "Invalid token") from None
        raise invalid("Token") from None
    topic = topic_of(a, tx)
    if not arn.startswith(f"{arn_of(topic)}:") or tx.now - issued > _TOKEN_LIFE:
        raise invalid("Token")
    row = tx.get(SUBSCRIPTIONS, topic.account, topic.region, Arn.parse(arn).resource)
    if row is None or row.doc["endpoint"] != endpoint:
        raise Refused("NotFound", "Subscription does not exist", 404)
    if row.status == "pending":
        row.status = "confirmed"
        authenticated = str(a.input.get("AuthenticateOnUnsubscribe") or "").lower() == "true"
        if authenticated and a.caller.kind == "Anonymous":
            raise Refused("AuthorizationError", "AuthenticateOnUnsubscribe needs a signed request.", 403)
        row.doc["authenticated"] = authenticated
        tx.update(row, event=a.operation.name, request_id=a.request.id)
        held = tx.get(PENDING, "", "", arn)
        if held is not None:
            tx.delete(held, keep=False)
        counted(tx, topic, "pending", -1)
        counted(tx, topic, "confirmed", 1)
    return {"SubscriptionArn": arn}


def _own(a: Authorised, view: View, missing: bool = True) -> Row | None:
    """The subscription that the call names, if the caller's account owns it or its topic."""
    text = str(a.input["SubscriptionArn"])
    try:
        arn = Arn.parse(text)
    except ValueError:
        raise too_short("SubscriptionArn", text) from None
    if arn.service != "sns" or arn.resource.count(":") != 1:
        raise invalid("SubscriptionId")
    row = view.get(SUBSCRIPTIONS, arn.account, arn.region, arn.resource)
    owners = {arn.account} | ({row.doc["owner"]} if row is not None else set())
    if a.account not in owners and a.caller.kind != "Anonymous":
        raise Refused("AuthorizationError", f"{a.caller.arn} is not authorized to do this with {text[:300]}.", 403)
    if row is None and missing:
        raise Refused("NotFound", "Subscription does not exist", 404)
    return row


def _whose(asked: Asked) -> Iterable[str]:
    """Who did not sign has a link to one subscription, and asks about that."""
    return (str(asked.input["SubscriptionArn"]),) if asked.call.caller.kind == "Anonymous" else ("*",)


@TOPIC.operation("Unsubscribe", asks=[Ask("sns:Unsubscribe", _whose)])
def unsubscribe(a: Authorised, tx: Transaction) -> Output:
    row = _own(a, tx, missing=False)
    if row is None:
        return {}
    topic = TOPIC.get(tx, row.account, row.region, row.doc["topic"])
    forget(tx, row)
    if topic is not None:
        counted(tx, topic, row.status, -1)
        counted(tx, topic, "deleted", 1)
    return {}


# -- showing and setting -----------------------------------------------------------------------------------------------


def _told(row: Row) -> dict[str, str]:
    return {
        "SubscriptionArn": named(row) if row.status == "confirmed" else "PendingConfirmation",
        "Owner": row.doc["owner"],
        "Protocol": row.doc["protocol"],
        "Endpoint": row.doc["endpoint"],
        "TopicArn": TOPIC.arn(row.account, row.region, row.doc["topic"]),
    }


@TOPIC.reads("GetSubscriptionAttributes", asks=[Ask("sns:GetSubscriptionAttributes", anything)])
def get_attributes(a: Authorised, view: View) -> Output:
    row = _own(a, view)
    assert row is not None
    told = {
        **_told(row), "SubscriptionArn": named(row), "RawMessageDelivery": "false", **row.doc["attributes"],
        "ConfirmationWasAuthenticated": "false" if row.doc["protocol"] in LINKED else "true",
        "PendingConfirmation": "true" if row.status == "pending" else "false",
        "SubscriptionPrincipal": row.doc["_principal"],
    }  # fmt: skip
    if "FilterPolicy" in told:
        told.setdefault("FilterPolicyScope", "MessageAttributes")
    else:
        told.pop("FilterPolicyScope", None)
    return {"Attributes": told}


def _role(asked: Asked) -> Iterable[str]:
    given = asked.input
    return (str(given["AttributeValue"]),) if _gives_role(given) else ()


def _gives_role(given: dict[str, Any]) -> bool:
    return given.get("AttributeName") == "SubscriptionRoleArn" and bool(given.get("AttributeValue"))


@TOPIC.operation(
    "SetSubscriptionAttributes",
    asks=[Ask("sns:SetSubscriptionAttributes", anything), Ask("iam:PassRole", _role, given=_PASSED)],
)
def set_attributes(a: Authorised, tx: Transaction) -> Output:
    row = _own(a, tx)
    assert row is not None
    topic = TOPIC.find(tx, row.account, row.region, row.doc["topic"])
    _set(row, topic, str(a.input["AttributeName"]), str(a.input.get("AttributeValue") or ""))
    tx.update(row, event=a.operation.name, request_id=a.request.id)
    return {}


@TOPIC.reads("ListSubscriptions", asks=[Ask("sns:ListSubscriptions", anything)])
def listed(a: Authorised, view: View) -> Output:
    after = pages.position(a, a.input.get("NextToken"), code="InvalidParameter")
    owned = view.scan(OWNED, a.account, a.region, after=after, limit=_PAGE + 1)
    found = []
    for one in owned[:_PAGE]:
        arn = Arn.parse(one.name)
        row = view.get(SUBSCRIPTIONS, arn.account, arn.region, arn.resource)
        if row is not None:
            found.append(_told(row))
    output: Output = {"Subscriptions": found}
    if len(owned) > _PAGE:
        output["NextToken"] = pages.seal(a, owned[_PAGE - 1].name)
    return output


@TOPIC.reads("ListSubscriptionsByTopic", asks=[Ask("sns:ListSubscriptionsByTopic", this)])
def listed_by_topic(a: Authorised, view: View) -> Output:
    topic, after = topic_of(a, view), pages.position(a, a.input.get("NextToken"), code="InvalidParameter")
    prefix = f"{topic.name}:"
    rows = view.scan(SUBSCRIPTIONS, topic.account, topic.region, prefix=prefix, after=after, limit=_PAGE + 1)
    output: Output = {"Subscriptions": [_told(row) for row in rows[:_PAGE]]}
    if len(rows) > _PAGE:
        output["NextToken"] = pages.seal(a, rows[_PAGE - 1].name)
    return output
