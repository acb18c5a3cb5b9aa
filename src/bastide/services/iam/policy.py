"""Managed policies and their versions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import Arn, Refused, tag_list
from bastide.kernel import Ask, Asked, Authorised, Output, unique_id
from bastide.policy import Form
from bastide.services.iam.entity import (
    Entity,
    below,
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

QUOTA: Final = 6144
"""Characters of a managed policy."""
MOST_VERSIONS: Final = 5
USE: Final = "iam:PolicyUse"
"""Rows that tell which entities of an account use a policy: its ARN, as what, the entity's kind and its row's name."""
MANAGED_USE: Final = "iam:ManagedPolicyUse"
"""Rows that tell how often an account uses a policy of AWS's, by ARN; none while it does not."""


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


POLICY = _Policies(
    "Policy",
    "{name}",
    "A policy called {name} already exists. Duplicate names are not allowed.",
    most=5000,
    plural="Policies",
)


def this(asked: Asked) -> Iterable[str]:
    """The ARN of the policy that the call names."""
    return (str(asked.input["PolicyArn"]),)


def text_of(view: View, account: str, arn: str) -> str | None:
    """The default version of a managed policy that may be used in the account, or None."""
    managed = MANAGED.get(arn)
    if managed is not None:
        return managed.document
    row = POLICY.by_arn(view, account, arn)
    return None if row is None else str(row.doc["versions"][row.doc["DefaultVersionId"]]["text"])


def usable(view: View, account: str, arn: str) -> None:
    """Raises Refused if no such policy can be attached in the account."""
    try:
        known = Arn.parse(arn)
    except ValueError:
        raise Refused("ValidationError", "Invalid ARN:  Could not be parsed!") from None
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


def named(a: Authorised, view: View) -> None:
    """Raises Refused unless the policy that the call names exists."""
    if a.input["PolicyArn"] not in MANAGED:
        _found(a, view)


def _document(text: str) -> str:
    if unspaced(text) > QUOTA:
        raise limit(f"Cannot exceed quota for PolicySize: {QUOTA}")
    return checked(text, Form.IDENTITY)


def shown(row: Row, *, whole: bool) -> Output:
    """A customer managed policy."""
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


def _counts(view: View, account: str, arn: str) -> dict[str, int]:
    row = view.get(MANAGED_USE, account, "", arn)
    return {"AttachmentCount": 0, "PermissionsBoundaryUsageCount": 0} if row is None else row.doc


def brought(view: View, account: str, managed: Managed, *, whole: bool) -> Output:
    """A policy of AWS's as the account sees it."""
    found: Output = {
        "PolicyName": managed.name,
        "PolicyId": managed.id,
        "Arn": managed.arn,
        "Path": managed.path,
        "DefaultVersionId": managed.version,
        **_counts(view, account, managed.arn),
        "IsAttachable": True,
        "CreateDate": managed.created,
        "UpdateDate": managed.updated,
    }
    if whole and managed.description:
        found["Description"] = managed.description
    return found


def brought_version(managed: Managed, *, whole: bool) -> Output:
    """The version of a policy of AWS's that is at hand."""
    found: Output = {"VersionId": managed.version, "IsDefaultVersion": True, "CreateDate": managed.updated}
    return {"Document": encoded(managed.document), **found} if whole else found


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
    return {"Policy": shown(POLICY.make(a, tx, doc, new_tags(a)), whole=True)}


@POLICY.reads("GetPolicy", asks=[Ask("iam:GetPolicy", this)])
def get(a: Authorised, view: View) -> Output:
    managed = MANAGED.get(a.input["PolicyArn"])
    if managed is not None:
        return {"Policy": brought(view, a.account, managed, whole=True)}
    return {"Policy": shown(_found(a, view), whole=True)}


@POLICY.reads("ListPolicies", asks=[Ask("iam:ListPolicies", below(POLICY))])
def policies(a: Authorised, view: View) -> Output:
    scope = a.input.get("Scope") or "All"
    usage = a.input.get("PolicyUsageFilter")
    prefix = str(a.input.get("PathPrefix") or "/")
    counts = {"PermissionsPolicy": ("AttachmentCount",), "PermissionsBoundary": ("PermissionsBoundaryUsageCount",)}
    either = counts.get(str(usage), ("AttachmentCount", "PermissionsBoundaryUsageCount"))
    only = bool(a.input.get("OnlyAttached")) or usage is not None

    def wanted(path: str, doc: dict[str, Any]) -> bool:
        return path.startswith(prefix) and (not only or any(doc[member] for member in either))

    managed: list[Output] = []
    if scope != "Local":
        # Few enough to look at all of them; which of them are in use stands in rows of their own.
        managed = [
            brought(view, a.account, one, whole=False)
            for one in MANAGED.values()
            if wanted(one.path, _counts(view, a.account, one.arn) if only else {})
        ]
    if scope == "AWS":
        return sliced(a, "Policies", managed)
    return paged(
        a,
        view,
        POLICY.key,
        "Policies",
        lambda row: shown(row, whole=False),
        wanted=lambda row: wanted(row.doc["Path"], row.doc),
        first=managed,
    )


@POLICY.operation("DeletePolicy", asks=[Ask("iam:DeletePolicy", this)])
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


def version_of(row: Row, name: str, *, whole: bool) -> Output:
    """A version of a customer managed policy; raises Refused (NoSuchEntity)."""
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


@POLICY.operation("CreatePolicyVersion", asks=[Ask("iam:CreatePolicyVersion", this)])
def create_version(a: Authorised, tx: Transaction) -> Output:
    row = _found(a, tx)
    if len(row.doc["versions"]) >= MOST_VERSIONS:
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
    return {"PolicyVersion": version_of(row, name, whole=False)}


@POLICY.reads("GetPolicyVersion", asks=[Ask("iam:GetPolicyVersion", this)])
def get_version(a: Authorised, view: View) -> Output:
    managed = MANAGED.get(a.input["PolicyArn"])
    if managed is not None:
        if a.input["VersionId"] != managed.version:
            raise no_entity(f"Policy {managed.arn} version {a.input['VersionId']} does not exist or is not attachable.")
        return {"PolicyVersion": brought_version(managed, whole=True)}
    return {"PolicyVersion": version_of(_found(a, view), a.input["VersionId"], whole=True)}


@POLICY.reads("ListPolicyVersions", asks=[Ask("iam:ListPolicyVersions", this)])
def versions(a: Authorised, view: View) -> Output:
    managed = MANAGED.get(a.input["PolicyArn"])
    if managed is not None:
        return sliced(a, "Versions", [brought_version(managed, whole=False)])
    row = _found(a, view)
    newest = sorted(row.doc["versions"], key=lambda name: -int(name[1:]))
    return sliced(a, "Versions", [version_of(row, name, whole=False) for name in newest])


@POLICY.operation("SetDefaultPolicyVersion", asks=[Ask("iam:SetDefaultPolicyVersion", this)])
def set_default(a: Authorised, tx: Transaction) -> Output:
    row = _found(a, tx)
    version_of(row, a.input["VersionId"], whole=False)
    row.doc["DefaultVersionId"] = a.input["VersionId"]
    row.doc["updated"] = a.now
    POLICY.save(a, tx, row)
    return {}


@POLICY.operation("DeletePolicyVersion", asks=[Ask("iam:DeletePolicyVersion", this)])
def delete_version(a: Authorised, tx: Transaction) -> Output:
    row = _found(a, tx)
    version_of(row, a.input["VersionId"], whole=False)
    if a.input["VersionId"] == row.doc["DefaultVersionId"]:
        raise conflict("Cannot delete the default version of a policy.")
    del row.doc["versions"][a.input["VersionId"]]
    row.doc["updated"] = a.now
    POLICY.save(a, tx, row)
    return {}


with_tags(POLICY, _found, this)
