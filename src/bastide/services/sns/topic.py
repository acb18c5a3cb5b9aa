"""Topics: made, set, shared, listed, removed.

Source: Amazon SNS API Reference, CreateTopic, SetTopicAttributes; Developer Guide, "Example cases for access control".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from bastide.domain import Arn, Refused, tag_list, tag_map
from bastide.kernel import Ask, Asked, Authorised, Facts, Kind, Output, anything, pages, principals
from bastide.policy import Attached, Document, Form
from bastide.services.sns.retries import effective, policy_of
from bastide.store import Row, Transaction, View

TOPIC: Final = Kind(
    "Topic",
    service="sns",
    arn="{}",
    named_by="TopicArn",
    missing=("NotFound", "Topic does not exist", 404),
)
SUBSCRIPTIONS: Final = "sns:Subscription"
"""Rows ``TOPIC:ID`` of the topic's account and region."""
LINKED: Final = ("http", "https", "email", "email-json")
"""Protocols whose messages go to somebody without credentials, and so have links."""
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,256}|[A-Za-z0-9_-]{1,251}\.fifo")
_LABEL: Final = re.compile(r"[A-Za-z0-9_-]{1,80}")
_MOST_POLICY: Final = 30_720
_PAGE: Final = 100
_MOST_TAGS: Final = 50
_WORDS: Final = {
    "FifoTopic": ("true", "false"),
    "ContentBasedDeduplication": ("true", "false"),
    "FifoThroughputScope": ("Topic", "MessageGroup"),
    "SignatureVersion": ("1", "2"),
    "TracingConfig": ("PassThrough",),
}
_FIFO_ONLY: Final = ("ContentBasedDeduplication", "FifoThroughputScope")
_DISPLAY: Final = 100
SHARED: Final = (
    "GetTopicAttributes", "SetTopicAttributes", "AddPermission", "RemovePermission", "DeleteTopic", "Subscribe",
    "ListSubscriptionsByTopic", "Publish",
)  # fmt: skip
"""Actions that a topic's policy can give away."""


def invalid(message: str) -> Refused:
    """InvalidParameter."""
    return Refused("InvalidParameter", f"Invalid parameter: {message}")


def too_short(member: str, text: str) -> Refused:
    """InvalidParameter for what is no ARN."""
    return invalid(f"{member} Reason: An ARN must have at least 6 elements, not {text.count(':') + 1}")


def default_policy(arn: str, account: str) -> str:
    """The policy of a topic that nobody gave one: what a service does for the owner's account is allowed."""
    return json.dumps(
        {
            "Version": "2008-10-17",
            "Id": "__default_policy_ID",
            "Statement": [
                {
                    "Sid": "__default_statement_ID",
                    "Effect": "Allow",
                    "Principal": {"AWS": "*"},
                    "Action": [f"SNS:{action}" for action in SHARED],
                    "Resource": arn,
                    "Condition": {"StringEquals": {"AWS:SourceOwner": account}},
                }
            ],
        }
    )


def _policy_of(_: View, row: Row) -> Attached | None:
    return Attached(
        Document.parse_cached(row.doc["_policy"], Form.RESOURCE), TOPIC.arn(row.account, row.region, row.name)
    )


TOPIC.policy_of = _policy_of


def facts(view: View, arn: Arn, action: str) -> Facts | None:
    """Of a subscription to be confirmed: who has its token may, unless the topic's policy denies it. Of one to be ended by
    the link in its messages: whoever has the link may, unless who confirmed it wanted that to be authenticated."""
    name, _, id = arn.resource.partition(":")
    wanted = action.lower()
    if wanted == "sns:unsubscribe" and id:
        one = view.get(SUBSCRIPTIONS, arn.account, arn.region, arn.resource)
        open_ = one is not None and one.doc["protocol"] in LINKED and not one.doc.get("authenticated")
        return _opened(arn, "sns:Unsubscribe", None) if open_ else Facts(arn.account)
    row = TOPIC.get(view, arn.account, arn.region, name) if wanted == "sns:confirmsubscription" else None
    return None if row is None else _opened(arn, "sns:ConfirmSubscription", row)


def _opened(arn: Arn, action: str, row: Row | None) -> Facts:
    held = json.loads(row.doc["_policy"]) if row is not None else {"Version": "2012-10-17", "Statement": []}
    statements = held["Statement"] if isinstance(held["Statement"], list) else [held["Statement"]]
    everybody = {"Effect": "Allow", "Principal": "*", "Action": action, "Resource": str(arn)}
    text = json.dumps({**held, "Statement": [*statements, everybody]})
    policy = Attached(Document.parse_cached(text, Form.RESOURCE), str(arn))
    if row is None:
        return Facts(arn.account, {}, policy)
    return Facts(arn.account, row.tags, policy, type=TOPIC.name, text=text, principals=row.doc.get("_principals", {}))


# -- names -------------------------------------------------------------------------------------------------------------


def locate(text: str) -> tuple[str, str, str]:
    """Account, region and name of the topic whose ARN that is; raises InvalidParameter."""
    try:
        arn = Arn.parse(text)
    except ValueError:
        raise too_short("TopicArn", text) from None
    if str(Arn("sns", arn.region, arn.account, arn.resource)) != text or ":" in arn.resource or not arn.account:
        raise invalid("TopicArn")
    return arn.account, arn.region, arn.resource


def this(asked: Asked) -> Iterable[str]:
    """The ARN of the topic that the call names."""
    locate(str(asked.input["TopicArn"]))
    return (str(asked.input["TopicArn"]),)


def topic_of(a: Authorised, view: View, text: str | None = None) -> Row:
    """The topic that the call names; raises NotFound."""
    account, region, name = locate(text or str(a.input["TopicArn"]))
    if region != a.region:
        raise invalid("TopicArn: the topic is of another region")
    return TOPIC.find(view, account, region, name)


def arn_of(row: Row) -> str:
    """The ARN of a topic."""
    return TOPIC.arn(row.account, row.region, row.name)


def _by_name(asked: Asked) -> Iterable[str]:
    return (TOPIC.arn(asked.call.account, asked.call.region, str(asked.input["Name"])),)


# -- attributes --------------------------------------------------------------------------------------------------------


def _set(tx: Transaction, row: Row, name: str, value: str, *, new: bool) -> None:
    held: dict[str, str] = row.doc["attributes"]
    if name == "Policy":
        text = value or default_policy(arn_of(row), row.account)
        try:
            Document.parse(text, Form.RESOURCE, max_bytes=_MOST_POLICY)
        except Refused as refused:
            raise invalid(f"Policy Error: {refused.message}") from None
        row.doc["_policy"], row.doc["_principals"] = text, principals.kept(tx, text)
        return
    if name in _FIFO_ONLY and not row.doc["fifo"]:
        raise invalid(f"{name} can only be set for FIFO topics")
    if name == "FifoTopic" and not new:
        raise invalid("AttributeName: FifoTopic cannot be changed")
    if name in _WORDS:
        if value not in _WORDS[name]:
            raise invalid(f"{name}: it is one of {', '.join(_WORDS[name])} here")
    elif name == "MaximumMessageSize":
        if not (value.isascii() and value.isdigit() and 1024 <= int(value[:9]) <= 1_048_576):
            raise invalid("MaximumMessageSize: it is a number from 1024 to 1048576")
    elif name == "DisplayName":
        if len(value) > _DISPLAY:
            raise invalid("DisplayName: it has at most 100 characters")
    elif name == "DeliveryPolicy":
        policy_of(value, topic=True)
    elif name != "KmsMasterKeyId":
        raise invalid(f"AttributeName: {name} is not supported by Bastide")
    held[name] = value
    if not value or (name == "FifoTopic" and value == "false"):
        del held[name]


def _tags(a: Authorised) -> dict[str, str]:
    """The tags that a call brings; raises InvalidParameter."""
    given = a.input.get("Tags") or ()
    if len({one["Key"] for one in given}) != len(given):
        raise invalid("Duplicated keys are not allowed.")
    return tag_map(given, code="InvalidParameter")


@TOPIC.operation(
    "CreateTopic",
    asks=[
        Ask("sns:CreateTopic", _by_name),
        Ask("sns:TagResource", _by_name, when=lambda asked: bool(asked.input.get("Tags"))),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    name, given = str(a.input["Name"]), dict(a.input.get("Attributes") or {})
    if a.input.get("DataProtectionPolicy"):
        raise invalid("DataProtectionPolicy is not supported by Bastide")
    fifo = given.get("FifoTopic") == "true"
    if not _NAME.fullmatch(name) or name.endswith(".fifo") != fifo:
        raise invalid(
            "Topic Name: it has 1 to 256 letters, digits, hyphens and underscores, and ends in .fifo if FifoTopic is true"
        )
    tags = _tags(a)
    if len(tags) > _MOST_TAGS:
        raise Refused("TagLimitExceeded", f"A topic has at most {_MOST_TAGS} tags.")
    row = TOPIC.get(tx, a.account, a.region, name)
    if row is not None:
        shown = {"FifoTopic": "false", **_shown(tx, row)}
        if any(shown.get(key, "") != value for key, value in given.items() if key != "Policy"):
            raise invalid("Attributes Reason: Topic already exists with different attributes")
        if any(row.tags.get(key) != value for key, value in tags.items()):
            raise invalid("Tags Reason: Topic already exists with different tags")
        return {"TopicArn": arn_of(row)}
    row = Row(TOPIC.key, a.account, a.region, name, {"fifo": fifo, "attributes": {}}, "", tags)
    _set(tx, row, "Policy", "", new=True)
    for key, value in given.items():
        _set(tx, row, key, value, new=True)
    TOPIC.insert(tx, row, a.operation.name, a.request.id)
    return {"TopicArn": arn_of(row)}


@TOPIC.operation("SetTopicAttributes", asks=[Ask("sns:SetTopicAttributes", this)])
def set_attributes(a: Authorised, tx: Transaction) -> Output:
    row = topic_of(a, tx)
    _set(tx, row, str(a.input["AttributeName"]), str(a.input.get("AttributeValue") or ""), new=False)
    TOPIC.change(tx, row, a.operation.name, a.request.id)
    return {}


def _shown(view: View, row: Row) -> dict[str, str]:
    held: Mapping[str, str] = row.doc["attributes"]
    counts: Mapping[str, int] = row.doc.get("counts", {})
    told = {
        "TopicArn": arn_of(row), "Owner": row.account, "DisplayName": "",
        "Policy": principals.shown(view, row.doc["_policy"], row.doc.get("_principals", {})),
        "SubscriptionsConfirmed": str(counts.get("confirmed", 0)), "SubscriptionsPending": str(counts.get("pending", 0)),
        "SubscriptionsDeleted": str(counts.get("deleted", 0)),
        "EffectiveDeliveryPolicy": json.dumps({"http": effective(held.get("DeliveryPolicy"))}), **held,
    }  # fmt: skip
    if row.doc["fifo"]:
        told = {"ContentBasedDeduplication": "false", "FifoThroughputScope": "Topic", **told, "FifoTopic": "true"}
    return told


@TOPIC.reads("GetTopicAttributes", asks=[Ask("sns:GetTopicAttributes", this)])
def get_attributes(a: Authorised, view: View) -> Output:
    return {"Attributes": _shown(view, topic_of(a, view))}


@TOPIC.reads("ListTopics", asks=[Ask("sns:ListTopics", anything)])
def listed(a: Authorised, view: View) -> Output:
    after = pages.position(a, a.input.get("NextToken"), code="InvalidParameter")
    rows = view.scan(TOPIC.key, a.account, a.region, after=after, limit=_PAGE + 1)
    output: Output = {"Topics": [{"TopicArn": arn_of(row)} for row in rows[:_PAGE]]}
    if len(rows) > _PAGE:
        output["NextToken"] = pages.seal(a, rows[_PAGE - 1].name)
    return output


@TOPIC.operation("DeleteTopic", asks=[Ask("sns:DeleteTopic", this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    account, region, name = locate(str(a.input["TopicArn"]))
    row = TOPIC.get(tx, account, region, name)
    if row is None:
        return {}
    while rows := tx.scan(SUBSCRIPTIONS, account, region, prefix=f"{name}:", limit=500):
        for one in rows:
            forget(tx, one)
    TOPIC.remove(tx, row, a.operation.name, a.request.id)
    return {}


OWNED: Final = "sns:Owned"
"""Rows of an account and region: ARNs of the subscriptions it owns, of whatever topic."""
ENDPOINTS: Final = "sns:Endpoint"
"""Rows ``TOPIC|DIGEST``: which subscription an endpoint of a topic is."""
PENDING: Final = "sns:Pending"
"""Under account "": ARNs of subscriptions that are to be confirmed."""


def forget(tx: Transaction, row: Row) -> None:
    """Takes a subscription away, and whatever leads to it."""
    arn = TOPIC.arn(row.account, row.region, row.name)
    for kind, account, region, name in (
        (OWNED, row.doc["owner"], row.region, arn),
        (ENDPOINTS, row.account, row.region, row.doc["index"]),
        (PENDING, "", "", arn),
    ):
        held = tx.get(kind, account, region, name)
        if held is not None:
            tx.delete(held, keep=False)
    tx.delete(row, event="Unsubscribe")


def counted(tx: Transaction, topic: Row, name: str, number: int) -> None:
    """Keeps how many subscriptions a topic has of a kind: confirmed, pending, deleted."""
    counts = dict(topic.doc.get("counts", {}))
    counts[name] = max(0, counts.get(name, 0) + number)
    topic.doc["counts"] = counts
    tx.update(topic, keep=False)


# -- who may -----------------------------------------------------------------------------------------------------------


@TOPIC.operation("AddPermission", asks=[Ask("sns:AddPermission", this)])
def add_permission(a: Authorised, tx: Transaction) -> Output:
    row, label, actions = topic_of(a, tx), str(a.input["Label"]), a.input["ActionName"]
    if not _LABEL.fullmatch(label):
        raise invalid("Label: it has 1 to 80 letters, digits, hyphens and underscores")
    for action in actions:
        if action not in (*SHARED, "*"):
            raise invalid("Policy statement action out of service scope!")
    for account in a.input["AWSAccountId"]:
        if not re.fullmatch(r"\d{12}", account):
            raise invalid("AWSAccountId: it has twelve digits")
    document = json.loads(row.doc["_policy"])
    held = document["Statement"] if isinstance(document["Statement"], list) else [document["Statement"]]
    if any(one.get("Sid") == label for one in held):
        raise invalid("Statement already exists")
    given = [f"SNS:{action}" for action in actions]
    whom = [f"arn:aws:iam::{account}:root" for account in a.input["AWSAccountId"]]
    one = {
        "Sid": label, "Effect": "Allow", "Action": given if len(given) > 1 else given[0], "Resource": arn_of(row),
        "Principal": {"AWS": whom if len(whom) > 1 else whom[0]},
    }  # fmt: skip
    _set(tx, row, "Policy", json.dumps({**document, "Statement": [*held, one]}), new=False)
    TOPIC.change(tx, row, a.operation.name, a.request.id)
    return {}


@TOPIC.operation("RemovePermission", asks=[Ask("sns:RemovePermission", this)])
def remove_permission(a: Authorised, tx: Transaction) -> Output:
    row, label = topic_of(a, tx), str(a.input["Label"])
    document = json.loads(row.doc["_policy"])
    held = document["Statement"] if isinstance(document["Statement"], list) else [document["Statement"]]
    left = [one for one in held if one.get("Sid") != label]
    if len(left) != len(held):
        # A policy that says nothing gives nothing: the default one would give something back.
        deny = {"Effect": "Deny", "Principal": "*", "Action": "sns:Nothing", "Resource": arn_of(row)}
        _set(tx, row, "Policy", json.dumps({**document, "Statement": left or [deny]}), new=False)
        TOPIC.change(tx, row, a.operation.name, a.request.id)
    return {}


# -- tags --------------------------------------------------------------------------------------------------------------


def _tagged(asked: Asked) -> Iterable[str]:
    locate(str(asked.input["ResourceArn"]))
    return (str(asked.input["ResourceArn"]),)


def _tagged_row(a: Authorised, view: View) -> Row:
    row = TOPIC.get(view, *locate(str(a.input["ResourceArn"])))
    if row is None:
        raise Refused("ResourceNotFound", "Resource does not exist", 404)
    return row


@TOPIC.operation("TagResource", asks=[Ask("sns:TagResource", _tagged)])
def tag(a: Authorised, tx: Transaction) -> Output:
    row = _tagged_row(a, tx)
    row.tags = {**row.tags, **_tags(a)}
    if len(row.tags) > _MOST_TAGS:
        raise Refused("TagLimitExceeded", f"A topic has at most {_MOST_TAGS} tags.")
    TOPIC.change(tx, row, a.operation.name, a.request.id)
    return {}


@TOPIC.operation("UntagResource", asks=[Ask("sns:UntagResource", _tagged)])
def untag(a: Authorised, tx: Transaction) -> Output:
    row = _tagged_row(a, tx)
    row.tags = {key: value for key, value in row.tags.items() if key not in a.input["TagKeys"]}
    TOPIC.change(tx, row, a.operation.name, a.request.id)
    return {}


@TOPIC.reads("ListTagsForResource", asks=[Ask("sns:ListTagsForResource", _tagged)])
def list_tags(a: Authorised, view: View) -> Output:
    return {"Tags": tag_list(_tagged_row(a, view).tags)}


def attribute(row: Row, name: str, default: Any = "") -> str:
    """What an attribute of a topic is."""
    return str(row.doc["attributes"].get(name) or default)
