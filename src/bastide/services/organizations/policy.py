"""Service control policies, and the tags of everything in the organisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bastide.domain import Refused, tag_list
from bastide.kernel import Asked, Authorised, Output
from bastide.kernel.kind import each
from bastide.policy import Document, Form
from bastide.services.organizations.attachment import attach, detach
from bastide.services.organizations.noun import (
    ACCOUNT,
    FULL_ACCESS,
    FULL_ACCESS_ARN,
    POLICY,
    ROOT,
    SCP,
    TAKEN,
    TARGET,
    UNIT,
    Noun,
    address,
    ask,
    constraint,
    in_management,
    paged,
    random_id,
    sliced,
    tags_of,
)
from bastide.services.organizations.tree import FULL_ACCESS_TEXT, enabled, node
from bastide.store import Row, Taken, Transaction, View

_LONGEST: Final = 5120
"""Characters of a service control policy (Organizations User Guide, "Quotas")."""

_FULL_SHOWN: Final = {
    "Id": FULL_ACCESS,
    "Arn": FULL_ACCESS_ARN,
    "Name": "FullAWSAccess",
    "Description": "Allows access to every operation",
    "Type": SCP,
    "AwsManaged": True,
}


def _summary(row: Row) -> Output:
    doc = row.doc
    found: Output = {name: doc[name] for name in ("Id", "Arn", "Name", "Description")}
    return {**found, "Type": SCP, "AwsManaged": False}


def _whole(row: Row) -> Output:
    return {"Policy": {"PolicySummary": _summary(row), "Content": row.doc["Content"]}}


def _content(text: str) -> str:
    if len(text) > _LONGEST:
        raise constraint("You have exceeded the maximum size of a policy.", "POLICY_CONTENT_LIMIT_EXCEEDED")
    try:
        Document.parse(text, Form.SCP)
    except Refused as refused:
        raise Refused(
            "MalformedPolicyDocumentException",
            "The provided policy document does not meet the requirements of the specified policy type. "
            f"{refused.message}",
        ) from None
    return text


def _only_scps(type: str) -> None:
    if type != SCP:
        raise Refused(
            "PolicyTypeNotAvailableForOrganizationException",
            "Policies of this type are not supported by Bastide yet.",
        )


def _found(view: View, id: str) -> Row:
    row = POLICY.row(view, id)
    if row is None:
        raise Refused("PolicyNotFoundException", "You specified a policy that doesn't exist.")
    return row


def _own(view: View, id: str) -> Row:
    """A policy that may be changed."""
    if id == FULL_ACCESS:
        raise Refused("AccessDeniedException", "You can't change a policy that AWS manages.")
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
    _only_scps(a.input["Type"])
    id = random_id("p-", 8)
    name = a.input["Name"]
    if name == "FullAWSAccess":
        raise Refused("DuplicatePolicyException", "A policy with the same name already exists.")
    doc = {
        "Id": id,
        "Arn": address(held, id),
        "Name": name,
        "Description": a.input.get("Description") or "",
        "Content": _content(a.input["Content"]),
    }
    _take_name(tx, name, id)
    return _whole(POLICY.put(a, tx, id, doc, tags_of(a)))


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
        row.doc["Content"] = _content(a.input["Content"])
    POLICY.save(a, tx, row)
    return _whole(row)


def _describe(a: Authorised, view: View, held: Row) -> Output:
    if a.input["PolicyId"] == FULL_ACCESS:
        return {"Policy": {"PolicySummary": _FULL_SHOWN, "Content": FULL_ACCESS_TEXT}}
    return _whole(_found(view, a.input["PolicyId"]))


def _list(a: Authorised, view: View, held: Row) -> Output:
    _only_scps(a.input["Filter"])
    return paged(a, view, POLICY.key, "Policies", _summary, first=[_FULL_SHOWN])


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


def _attach(a: Authorised, tx: Transaction, held: Row) -> Output:
    id = a.input["PolicyId"]
    if id != FULL_ACCESS:
        _found(tx, id)
    target = _target(tx, a.input["TargetId"])
    if not enabled(tx):
        raise Refused("PolicyTypeNotEnabledException", "This operation can be performed only for enabled policy types.")
    attach(a, tx, target, id)
    return {}


def _detach(a: Authorised, tx: Transaction, held: Row) -> Output:
    id = a.input["PolicyId"]
    if id != FULL_ACCESS:
        _found(tx, id)
    detach(a, tx, _target(tx, a.input["TargetId"]), id)
    return {}


def _of_target(a: Authorised, view: View, held: Row) -> Output:
    _only_scps(a.input["Filter"])
    policies = _target(view, a.input["TargetId"]).doc["policies"]
    return sliced(a, "Policies", [_FULL_SHOWN if id == FULL_ACCESS else _summary(_found(view, id)) for id in policies])


def _targets(a: Authorised, view: View, held: Row) -> Output:
    id = a.input["PolicyId"]
    if id != FULL_ACCESS:
        _found(view, id)
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


def _policy_type(_: Asked) -> str:
    return SCP


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


# -- tags --------------------------------------------------------------------------------------------------------------


def _tagged(view: View, id: str) -> tuple[Noun, Row]:
    kind = POLICY if id.startswith("p-") else ROOT if id.startswith("r-") else UNIT if id.startswith("ou-") else ACCOUNT
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
