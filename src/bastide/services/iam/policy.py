"""Managed policies and their versions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import Arn, Refused, tag_list
from bastide.kernel import Ask, Asked, Authorised, Output, unique_id
from bastide.policy import Form
from bastide.services.iam.entity import (
    Entity,
    below_path,
    checked,
    conflict,
    encoded,
    limit,
    new_tags,
    no_entity,
    paged,
    sliced,
    unspaced,
    with_tags,
)
from bastide.services.iam.managed import MANAGED, Managed
from bastide.store import Row, Transaction, View

_QUOTA: Final = 6144
_MOST_VERSIONS: Final = 5


def policy_name(arn: str) -> str:
    """The name at the end of a policy's ARN."""
    return arn.rpartition("/")[2]


class _Policies(Entity):
    """Managed policies are named by ARN."""

    def by_arn(self, view: View, account: str, arn: str) -> Row | None:
        """The row of a customer managed policy of that account, or None."""
        if not arn.startswith(f"arn:aws:iam::{account}:policy/"):
            return None
        row = self.held(view, account, policy_name(arn))
        return row if row is not None and row.doc["Arn"] == arn else None


POLICY = _Policies("Policy", "{name}", "A policy called {name} already exists. Duplicate names are not allowed.")


def _this(asked: Asked) -> Iterable[str]:
    return (str(asked.input["PolicyArn"]),)


def usable(view: View, account: str, arn: str) -> None:
    """Raises Refused if no such policy can be attached in the account."""
    try:
        known = Arn.parse(arn)
    except ValueError:
        known = Arn("", "", "", "")
    if known.service != "iam" or known.type != "policy":
        raise Refused("InvalidInput", f"ARN {arn} is not valid.")
    if arn not in MANAGED and POLICY.by_arn(view, account, arn) is None:
        raise no_entity(f"Policy {arn} does not exist or is not attachable.")


def _found(a: Authorised, view: View) -> Row:
    """The customer managed policy that the call names; raises Refused for others."""
    arn = str(a.input["PolicyArn"])
    row = POLICY.by_arn(view, a.account, arn)
    if row is None:
        if arn in MANAGED and a.operation.mutates:
            raise Refused("AccessDenied", f"{arn} belongs to AWS and cannot be changed.", 403)
        raise no_entity(f"Policy {arn} was not found.")
    return row


def _document(text: str) -> str:
    if unspaced(text) > _QUOTA:
        raise limit(f"Cannot exceed quota for PolicySize: {_QUOTA}")
    return checked(text, Form.IDENTITY)


def _shown(row: Row, *, whole: bool) -> Output:
    doc = row.doc
    found: Output = {
        "PolicyName": doc["PolicyName"],
        "PolicyId": doc["PolicyId"],
        "Arn": doc["Arn"],
        "Path": doc["Path"],
        "DefaultVersionId": doc["DefaultVersionId"],
        "AttachmentCount": doc["AttachmentCount"],
        "PermissionsBoundaryUsageCount": doc["PermissionsBoundaryUsageCount"],
        "IsAttachable": True,
        "CreateDate": row.created,
        "UpdateDate": doc["updated"],
    }
    if whole:
        if doc["Description"]:
            found["Description"] = doc["Description"]
        if row.tags:
            found["Tags"] = tag_list(row.tags)
    return found


def _brought(managed: Managed) -> Output:
    return {
        "PolicyName": managed.name,
        "PolicyId": managed.id,
        "Arn": managed.arn,
        "Path": "/",
        "DefaultVersionId": "v1",
        "IsAttachable": True,
    }


@POLICY.operation(
    "CreatePolicy",
    asks=[
        Ask("iam:CreatePolicy", POLICY.made),
        Ask("iam:TagPolicy", POLICY.made, when=lambda asked: bool(asked.input.get("Tags"))),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    name, path = a.input["PolicyName"], a.input.get("Path") or "/"
    doc: dict[str, Any] = {
        "PolicyName": name,
        "PolicyId": unique_id("ANPA"),
        "Arn": POLICY.address(a.account, path, name),
        "Path": path,
        "Description": a.input.get("Description") or "",
        "DefaultVersionId": "v1",
        "AttachmentCount": 0,
        "PermissionsBoundaryUsageCount": 0,
        "updated": a.now,
        "next": 2,
        "versions": {"v1": {"text": _document(a.input["PolicyDocument"]), "created": a.now}},
    }
    return {"Policy": _shown(POLICY.make(a, tx, doc, new_tags(a)), whole=True)}


@POLICY.reads("GetPolicy", asks=[Ask("iam:GetPolicy", _this)])
def get(a: Authorised, view: View) -> Output:
    managed = MANAGED.get(a.input["PolicyArn"])
    if managed is not None:
        return {"Policy": _brought(managed) | {"Description": managed.description}}
    return {"Policy": _shown(_found(a, view), whole=True)}


def _below(asked: Asked) -> Iterable[str]:
    return (f"arn:aws:iam::{asked.call.account}:policy{asked.input.get('PathPrefix') or '/'}",)


@POLICY.reads("ListPolicies", asks=[Ask("iam:ListPolicies", _below)])
def policies(a: Authorised, view: View) -> Output:
    scope = a.input.get("Scope") or "All"
    usage = a.input.get("PolicyUsageFilter")
    below = below_path(a)
    counts = {"PermissionsPolicy": ("AttachmentCount",), "PermissionsBoundary": ("PermissionsBoundaryUsageCount",)}
    either = counts.get(str(usage), ("AttachmentCount", "PermissionsBoundaryUsageCount"))
    only = bool(a.input.get("OnlyAttached")) or usage is not None

    def wanted(row: Row) -> bool:
        return below(row) and (not only or any(row.doc[member] for member in either))

    if only and scope != "Local":
        raise Refused(
            "ValidationError", "OnlyAttached and PolicyUsageFilter are supported with Scope Local only by Bastide yet."
        )
    brought: list[Output] = []
    if scope != "Local" and (a.input.get("PathPrefix") or "/") == "/":
        brought = [_brought(one) for one in MANAGED.values()]
    if scope == "AWS":
        return sliced(a, "Policies", brought)
    return paged(a, view, POLICY.key, "Policies", lambda row: _shown(row, whole=False), wanted=wanted, first=brought)


@POLICY.operation("DeletePolicy", asks=[Ask("iam:DeletePolicy", _this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = _found(a, tx)
    if row.doc["AttachmentCount"] or row.doc["PermissionsBoundaryUsageCount"]:
        raise conflict("Cannot delete a policy attached to entities.")
    if len(row.doc["versions"]) > 1:
        raise conflict(
            "This policy has more than one version. Before you delete a policy, you must delete the policy's versions. "
            "The default version is deleted with the policy."
        )
    POLICY.remove(tx, row, a.operation.name, a.request.id)
    return {}


# -- versions ----------------------------------------------------------------------------------------------------------


def _version(row: Row, name: str, *, whole: bool) -> Output:
    kept = row.doc["versions"].get(name)
    if kept is None:
        raise no_entity(f"Policy {row.doc['Arn']} version {name} does not exist or is not attachable.")
    found: Output = {
        "VersionId": name,
        "IsDefaultVersion": name == row.doc["DefaultVersionId"],
        "CreateDate": kept["created"],
    }
    if whole:
        found["Document"] = encoded(kept["text"])
    return found


@POLICY.operation("CreatePolicyVersion", asks=[Ask("iam:CreatePolicyVersion", _this)])
def create_version(a: Authorised, tx: Transaction) -> Output:
    row = _found(a, tx)
    if len(row.doc["versions"]) >= _MOST_VERSIONS:
        raise limit(
            "A managed policy can have up to 5 versions. Before you create a new version, you must delete an existing "
            "version."
        )
    name = f"v{row.doc['next']}"
    row.doc["versions"][name] = {"text": _document(a.input["PolicyDocument"]), "created": a.now}
    row.doc["next"] += 1
    row.doc["updated"] = a.now
    if a.input.get("SetAsDefault"):
        row.doc["DefaultVersionId"] = name
    POLICY.save(a, tx, row)
    return {"PolicyVersion": _version(row, name, whole=False)}


@POLICY.reads("GetPolicyVersion", asks=[Ask("iam:GetPolicyVersion", _this)])
def get_version(a: Authorised, view: View) -> Output:
    managed = MANAGED.get(a.input["PolicyArn"])
    if managed is not None:
        if a.input["VersionId"] != "v1":
            raise no_entity(f"Policy {managed.arn} version {a.input['VersionId']} does not exist or is not attachable.")
        shown = {"VersionId": "v1", "IsDefaultVersion": True, "Document": encoded(managed.document)}
        return {"PolicyVersion": shown}
    return {"PolicyVersion": _version(_found(a, view), a.input["VersionId"], whole=True)}


@POLICY.reads("ListPolicyVersions", asks=[Ask("iam:ListPolicyVersions", _this)])
def versions(a: Authorised, view: View) -> Output:
    if a.input["PolicyArn"] in MANAGED:
        return sliced(a, "Versions", [{"VersionId": "v1", "IsDefaultVersion": True}])
    row = _found(a, view)
    newest = sorted(row.doc["versions"], key=lambda name: -int(name[1:]))
    return sliced(a, "Versions", [_version(row, name, whole=False) for name in newest])


@POLICY.operation("SetDefaultPolicyVersion", asks=[Ask("iam:SetDefaultPolicyVersion", _this)])
def set_default(a: Authorised, tx: Transaction) -> Output:
    row = _found(a, tx)
    _version(row, a.input["VersionId"], whole=False)
    row.doc["DefaultVersionId"] = a.input["VersionId"]
    row.doc["updated"] = a.now
    POLICY.save(a, tx, row)
    return {}


@POLICY.operation("DeletePolicyVersion", asks=[Ask("iam:DeletePolicyVersion", _this)])
def delete_version(a: Authorised, tx: Transaction) -> Output:
    row = _found(a, tx)
    _version(row, a.input["VersionId"], whole=False)
    if a.input["VersionId"] == row.doc["DefaultVersionId"]:
        raise conflict("Cannot delete the default version of a policy.")
    del row.doc["versions"][a.input["VersionId"]]
    row.doc["updated"] = a.now
    POLICY.save(a, tx, row)
    return {}


with_tags(POLICY, _found, _this)
