"""Service control, resource control and tag policies, and the tags of everything in the organisation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Final

from bastide.domain import Refused, tag_list
from bastide.kernel import Ask, Asked, Authorised, Output
from bastide.kernel.kind import each
from bastide.policy import Document
from bastide.services.organizations import tag_policy
from bastide.services.organizations.attachment import attach, detach
from bastide.services.organizations.delegation import in_management, managed
from bastide.services.organizations.noun import (
    ACCOUNT,
    FULL_ACCESS,
    POLICY,
    RCP,
    RESOURCE_POLICY,
    ROOT,
    SCP,
    TAG,
    TAKEN,
    TARGET,
    TYPES,
    UNIT,
    Noun,
    about,
    address,
    ask,
    constraint,
    invalid,
    membership,
    paged,
    policy_type,
    random_id,
    sliced,
    tags_of,
)
from bastide.services.organizations.tree import FORMS, FULL_ACCESS_TEXT, attached, effective, enabled, node
from bastide.store import Row, Taken, Transaction, View

_LONGEST: Final = {SCP: 5120, RCP: 5120, TAG: 10_000}
"""Characters of a policy (Organizations User Guide, "Quotas")."""
_NAMES: Final = {
    SCP: ("FullAWSAccess", "Allows access to every operation"),
    RCP: ("RCPFullAWSAccess", "Allows access to every resource"),
}


def _managed(type: str) -> Output:
    """AWS's own policy of a type, as it is listed."""
    id, (name, description) = FULL_ACCESS[type], _NAMES[type]
    arn = f"arn:aws:organizations::aws:policy/{type.lower()}/{id}"
    return {"Id": id, "Arn": arn, "Name": name, "Description": description, "Type": type, "AwsManaged": True}


def _summary(row: Row) -> Output:
    doc = row.doc
    found: Output = {name: doc[name] for name in ("Id", "Arn", "Name", "Description", "Type")}
    return {**found, "AwsManaged": False}


def _listed(view: View, id: str) -> Output:
    return _managed(policy_type(view, id)) if id in FULL_ACCESS.values() else _summary(_found(view, id))


def _whole(row: Row) -> Output:
    return {"Policy": {"PolicySummary": _summary(row), "Content": row.doc["Content"]}}


def _content(text: str, type: str) -> str:
    if len(text) > _LONGEST[type]:
        raise constraint("You have exceeded the maximum size of a policy.", "POLICY_CONTENT_LIMIT_EXCEEDED")
    if type == TAG:
        tag_policy.check(text)
        return text
    try:
        Document.parse(text, FORMS[type])
        if type == RCP:
            _only_denies(text)
    except Refused as refused:
        raise Refused(
            "MalformedPolicyDocumentException",
            "The provided policy document does not meet the requirements of the specified policy type. "
            f"{refused.message}",
        ) from None
    return text


def _only_denies(text: str) -> None:
    """Of resource control policies AWS's own alone allows, and every action is named with its service.

    Source: Organizations User Guide, "RCP syntax".
    """
    statements = json.loads(text)["Statement"]
    for statement in statements if isinstance(statements, list) else [statements]:
        if statement["Effect"] != "Deny":
            raise Refused("", "The effect of a resource control policy must be Deny")
        actions = statement["Action"]
        if any(one.startswith("*") for one in (actions if isinstance(actions, list) else [actions])):
            raise Refused("", 'An action of a resource control policy names its service; "*" does not')


def _known(type: str) -> str:
    if type not in TYPES:
        raise Refused(
            "PolicyTypeNotAvailableForOrganizationException",
            "Policies of this type are not supported by Bastide yet.",
        )
    return type


def _filter(a: Authorised) -> str:
    type = str(a.input["Filter"])
    if type not in TYPES:
        raise invalid("Policies of this type are not supported by Bastide yet.", "INVALID_ENUM_POLICY_TYPE")
    return type


def _found(view: View, id: str) -> Row:
    row = POLICY.row(view, id)
    if row is None:
        raise Refused("PolicyNotFoundException", "You specified a policy that doesn't exist.")
    return row


def _own(view: View, id: str) -> Row:
    """A policy that may be changed."""
    if id in FULL_ACCESS.values():
        raise invalid("You can't change a policy that AWS manages.", "IMMUTABLE_POLICY")
    return _found(view, id)


def _take_name(tx: Transaction, name: str, id: str) -> None:
    try:
        tx.insert(Row(TAKEN, "", "", f"policy/{name}", {"id": id}), keep=False)
    except Taken:
        raise Refused("DuplicatePolicyException", "A policy with the same name already exists.") from None


def _free_name(tx: Transaction, name: str) -> None:
    row = tx.get(TAKEN, "", "", f"policy/{name}")
    if row is not None:
        tx.delete(row, keep=False)


def _create(a: Authorised, tx: Transaction, held: Row) -> Output:
    type = _known(a.input["Type"])
    id = random_id("p-", 8)
    name = a.input["Name"]
    if name in [known for known, _ in _NAMES.values()]:
        raise Refused("DuplicatePolicyException", "A policy with the same name already exists.")
    doc = {
        "Id": id,
        "Arn": address(held, id, type),
        "Name": name,
        "Description": a.input.get("Description") or "",
        "Type": type,
        "Content": _content(a.input["Content"], type),
    }
    _take_name(tx, name, id)
    row = POLICY.put(a, tx, id, doc, tags_of(a), type)
    a.touched.append(doc["Arn"])
    return _whole(row)


def _update(a: Authorised, tx: Transaction, held: Row) -> Output:
    row = _own(tx, a.input["PolicyId"])
    name = a.input.get("Name")
    if name is not None and name != row.doc["Name"]:
        _take_name(tx, name, row.name)
        _free_name(tx, row.doc["Name"])
        row.doc["Name"] = name
    if a.input.get("Description") is not None:
        row.doc["Description"] = a.input["Description"]
    if a.input.get("Content") is not None:
        row.doc["Content"] = _content(a.input["Content"], row.doc["Type"])
    POLICY.save(a, tx, row)
    return _whole(row)


def _describe(a: Authorised, view: View, held: Row) -> Output:
    id = a.input["PolicyId"]
    if id in FULL_ACCESS.values():
        return {"Policy": {"PolicySummary": _listed(view, id), "Content": FULL_ACCESS_TEXT[id]}}
    return _whole(_found(view, id))


def _list(a: Authorised, view: View, held: Row) -> Output:
    type = _filter(a)
    first = [_managed(type)] if type in FULL_ACCESS else []
    return paged(a, view, POLICY.key, "Policies", _summary, status=type, first=first)


def _delete(a: Authorised, tx: Transaction, held: Row) -> Output:
    row = _own(tx, a.input["PolicyId"])
    if tx.scan(TARGET, "", "", prefix=f"{row.name}/", limit=1):
        raise Refused(
            "PolicyInUseException",
            "The policy is attached to one or more entities. You must detach it from all roots, OUs, and accounts before "
            "performing this operation.",
        )
    _free_name(tx, row.doc["Name"])
    POLICY.drop(a, tx, row)
    return {}


# -- attaching ---------------------------------------------------------------------------------------------------------


def _target(view: View, id: str) -> Row:
    row = node(view, id)
    if row is None:
        raise Refused("TargetNotFoundException", "You specified a target that doesn't exist.")
    return row


def _of_type(view: View, id: str) -> str:
    """The type of a policy that exists; raises Refused."""
    if id not in FULL_ACCESS.values():
        _found(view, id)
    return policy_type(view, id)


def _attach(a: Authorised, tx: Transaction, held: Row) -> Output:
    id = a.input["PolicyId"]
    type = _of_type(tx, id)
    target = _target(tx, a.input["TargetId"])
    if not enabled(tx, type):
        raise Refused("PolicyTypeNotEnabledException", "This operation can be performed only for enabled policy types.")
    attach(a, tx, target, id, type)
    return {}


def _detach(a: Authorised, tx: Transaction, held: Row) -> Output:
    id = a.input["PolicyId"]
    type = _of_type(tx, id)
    detach(a, tx, _target(tx, a.input["TargetId"]), id, type)
    return {}


def _of_target(a: Authorised, view: View, held: Row) -> Output:
    policies = attached(_target(view, a.input["TargetId"]), _filter(a))
    return sliced(a, "Policies", [_listed(view, id) for id in policies])


def _targets(a: Authorised, view: View, held: Row) -> Output:
    id = a.input["PolicyId"]
    _of_type(view, id)
    types = {"r": "ROOT", "o": "ORGANIZATIONAL_UNIT"}

    def show(row: Row) -> Output:
        target = _target(view, row.name.rpartition("/")[2])
        return {
            "TargetId": target.name,
            "Arn": target.doc["Arn"],
            "Name": target.doc["Name"],
            "Type": types.get(target.name[0], "ACCOUNT"),
        }

    return paged(a, view, TARGET, "Targets", show, prefix=f"{id}/")


def _effective(a: Authorised, view: View) -> Output:
    held = membership(a, view)
    id = a.input.get("TargetId") or a.account
    if id != a.account:
        managed(a, view)
    type = a.input["PolicyType"]
    if ACCOUNT.row(view, id) is None:
        raise Refused("TargetNotFoundException", "You specified a target that doesn't exist.")
    found = effective(view, id) if type == TAG else {}
    if not found and (type != TAG or not enabled(view, TAG) or a.account != held.doc["MasterAccountId"]):
        raise Refused("EffectivePolicyNotFoundException", "There is no effective policy of this type for the account.")
    content = json.dumps(found or {"tags": {}}, separators=(",", ":"))
    shown = {"PolicyContent": content, "LastUpdatedTimestamp": a.now, "TargetId": id, "PolicyType": type}
    return {"EffectivePolicy": shown}


def _policy_type(asked: Asked) -> str:
    return policy_type(asked.view, str(asked.input["PolicyId"]))


def _own_or_named(asked: Asked) -> Iterable[str]:
    """The account that the call names; of its own account a member asks without naming one."""
    return about("TargetId")(asked) if asked.input.get("TargetId") not in (None, asked.call.account) else ("*",)


POLICY.operation("CreatePolicy", asks=ask("CreatePolicy", organizations__PolicyType=each("Type")))(
    in_management(_create)
)
POLICY.operation("UpdatePolicy", asks=ask("UpdatePolicy", "PolicyId", organizations__PolicyType=_policy_type))(
    in_management(_update)
)
POLICY.reads("DescribePolicy", asks=ask("DescribePolicy", "PolicyId", organizations__PolicyType=_policy_type))(
    in_management(_describe)
)
POLICY.reads("ListPolicies", asks=ask("ListPolicies", organizations__PolicyType=each("Filter")))(in_management(_list))
POLICY.operation("DeletePolicy", asks=ask("DeletePolicy", "PolicyId", organizations__PolicyType=_policy_type))(
    in_management(_delete)
)
POLICY.operation(
    "AttachPolicy", asks=ask("AttachPolicy", "PolicyId", "TargetId", organizations__PolicyType=_policy_type)
)(in_management(_attach))
POLICY.operation(
    "DetachPolicy", asks=ask("DetachPolicy", "PolicyId", "TargetId", organizations__PolicyType=_policy_type)
)(in_management(_detach))
POLICY.reads(
    "ListPoliciesForTarget", asks=ask("ListPoliciesForTarget", "TargetId", organizations__PolicyType=each("Filter"))
)(in_management(_of_target))
POLICY.reads(
    "ListTargetsForPolicy", asks=ask("ListTargetsForPolicy", "PolicyId", organizations__PolicyType=_policy_type)
)(in_management(_targets))


POLICY.reads(
    "DescribeEffectivePolicy",
    asks=[
        Ask(
            "organizations:DescribeEffectivePolicy",
            _own_or_named,
            given={"organizations:PolicyType": each("PolicyType")},
        )
    ],
)(_effective)


# -- tags --------------------------------------------------------------------------------------------------------------


_TAGGED: Final = {"p": POLICY, "rp": RESOURCE_POLICY, "r": ROOT, "ou": UNIT}


def _tagged(view: View, id: str) -> tuple[Noun, Row]:
    kind = _TAGGED.get(id.partition("-")[0], ACCOUNT)
    row = kind.row(view, id)
    if row is None:
        raise Refused("TargetNotFoundException", "You specified a target that doesn't exist.")
    return kind, row


def _with_tags(change: Callable[[Authorised, Row], None]) -> Callable[[Authorised, Transaction, Row], Output]:
    def work(a: Authorised, tx: Transaction, held: Row) -> Output:
        kind, row = _tagged(tx, a.input["ResourceId"])
        change(a, row)
        kind.save(a, tx, row)
        return {}

    return work


def _tag(a: Authorised, row: Row) -> None:
    row.tags = tags_of(a, row.tags)


def _untag(a: Authorised, row: Row) -> None:
    row.tags = {key: value for key, value in row.tags.items() if key not in a.input["TagKeys"]}


def _tags(a: Authorised, view: View, held: Row) -> Output:
    return sliced(a, "Tags", tag_list(_tagged(view, a.input["ResourceId"])[1].tags))


POLICY.operation("TagResource", asks=ask("TagResource", "ResourceId"))(in_management(_with_tags(_tag)))
POLICY.operation("UntagResource", asks=ask("UntagResource", "ResourceId"))(in_management(_with_tags(_untag)))
POLICY.reads("ListTagsForResource", asks=ask("ListTagsForResource", "ResourceId"))(in_management(_tags))
