"""Permission sets: what a person may do in an account, before it is said who and where."""

from __future__ import annotations

import re
import secrets
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Output
from bastide.policy import Document, Form
from bastide.services.identity_center.instance import (
    Instance,
    Noun,
    ask,
    conflict,
    in_center,
    invalid,
    missing,
    new_tags,
    paged,
    sliced,
)
from bastide.store import Row, Taken, Transaction, View

PERMISSION_SET: Final = Noun("PermissionSet", service="sso-admin", arn="permissionSet/{}", arn_service="sso")
TAKEN: Final = "sso-admin:Taken"
"""Rows by name of a permission set, so that no name is taken twice."""
PROVISIONED: Final = "sso-admin:Provisioned"
"""Rows ``ACCOUNT/SET``: the role that a permission set is in an account, and which version of the set it is."""
PLACE: Final = "sso-admin:Place"
"""Rows ``SET/ACCOUNT``: the same, to be walked from the set."""
_DURATION: Final = re.compile(r"PT(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?")
_HOUR: Final = 3600
_MOST_POLICIES: Final = 20
_INLINE: Final = 32_768


def seconds(duration: str) -> int:
    """An ISO 8601 duration of one to twelve hours, in seconds; raises Refused (ValidationException)."""
    found = _DURATION.fullmatch(duration)
    parts = (0, 0, 0) if found is None else tuple(int(part or 0) for part in found.groups())
    total = parts[0] * 3600 + parts[1] * 60 + parts[2]
    if not _HOUR <= total <= 12 * _HOUR:
        raise invalid("SessionDuration must be between 1 and 12 hours.")
    return total


def arn_of(here: Instance, id: str) -> str:
    """A permission set's ARN."""
    return f"arn:aws:sso:::permissionSet/{here.id}/{id}"


def find(view: View, here: Instance, arn: str) -> Row:
    """The row, fresh; raises Refused (ResourceNotFoundException)."""
    prefix = arn_of(here, "")
    row = PERMISSION_SET.row(view, arn[len(prefix) :]) if arn.startswith(prefix) else None
    if row is None:
        raise missing(f"PermissionSet {arn} not found.")
    return row


def _named(a: Authorised, view: View, here: Instance) -> Row:
    return find(view, here, a.input["PermissionSetArn"])


def _touch(a: Authorised, tx: Transaction, row: Row) -> None:
    """Writes a set whose roles are out of date from now on, until it is provisioned again."""
    row.doc["version"] += 1
    PERMISSION_SET.save(a, tx, row)


def _shown(here: Instance, row: Row) -> Output:
    found = {name: row.doc[name] for name in ("Name", "SessionDuration", "Description", "RelayState") if row.doc[name]}
    return {**found, "PermissionSetArn": arn_of(here, row.name), "CreatedDate": row.created}


def _create(a: Authorised, tx: Transaction, here: Instance) -> Output:
    duration = a.input.get("SessionDuration") or "PT1H"
    seconds(duration)
    id = f"ps-{secrets.token_hex(8)}"
    name = a.input["Name"]
    try:
        tx.insert(Row(TAKEN, "", "", name, {"id": id}), keep=False)
    except Taken:
        raise conflict(f"PermissionSet with name {name} already exists.") from None
    doc: dict[str, Any] = {
        "Name": name,
        "Description": a.input.get("Description") or "",
        "SessionDuration": duration,
        "RelayState": a.input.get("RelayState") or "",
        "inline": "",
        "managed": [],
        "customer": [],
        "boundary": {},
        "version": 1,
    }
    row = PERMISSION_SET.put(a, tx, id, doc, new_tags(a))
    a.touched.append(arn_of(here, id))
    return {"PermissionSet": _shown(here, row)}


def _describe(a: Authorised, view: View, here: Instance) -> Output:
    return {"PermissionSet": _shown(here, _named(a, view, here))}


def _list(a: Authorised, view: View, here: Instance) -> Output:
    return paged(a, view, PERMISSION_SET.key, "PermissionSets", lambda row: arn_of(here, row.name))


def _update(a: Authorised, tx: Transaction, here: Instance) -> Output:
    row = _named(a, tx, here)
    if a.input.get("SessionDuration") is not None:
        seconds(a.input["SessionDuration"])
    for name in ("Description", "SessionDuration", "RelayState"):
        if a.input.get(name) is not None:
            row.doc[name] = a.input[name]
    _touch(a, tx, row)
    return {}


def _delete(a: Authorised, tx: Transaction, here: Instance) -> Output:
    row = _named(a, tx, here)
    if tx.scan(PLACE, "", "", prefix=f"{row.name}/", limit=1):
        raise conflict("The permission set is assigned to accounts. Please delete its assignments first.")
    taken = tx.get(TAKEN, "", "", row.doc["Name"])
    if taken is not None:
        tx.delete(taken, keep=False)
    PERMISSION_SET.drop(a, tx, row)
    return {}


def _any_set(asked: Asked) -> list[str]:
    """What a new permission set is among: its id is not known yet."""
    return [f"{str(asked.input['InstanceArn']).replace(':instance/', ':permissionSet/')}/*"]


PERMISSION_SET.operation(
    "CreatePermissionSet", asks=[*ask("CreatePermissionSet"), Ask("sso:CreatePermissionSet", _any_set)]
)(in_center(_create))
PERMISSION_SET.reads("ListPermissionSets", asks=ask("ListPermissionSets"))(in_center(_list))
for _operation, _work in (("UpdatePermissionSet", _update), ("DeletePermissionSet", _delete)):
    PERMISSION_SET.operation(_operation, asks=ask(_operation, "instance", "set"))(in_center(_work))
PERMISSION_SET.reads("DescribePermissionSet", asks=ask("DescribePermissionSet", "instance", "set"))(
    in_center(_describe)
)


# -- the inline policy -------------------------------------------------------------------------------------------------


def _put_inline(a: Authorised, tx: Transaction, here: Instance) -> Output:
    row = _named(a, tx, here)
    text = a.input["InlinePolicy"]
    if len("".join(text.split())) > _INLINE:
        raise Refused("ServiceQuotaExceededException", f"An inline policy may have at most {_INLINE} characters.")
    try:
        Document.parse(text, Form.IDENTITY)
    except Refused as refused:
        raise invalid(refused.message) from None
    row.doc["inline"] = text
    _touch(a, tx, row)
    return {}


def _get_inline(a: Authorised, view: View, here: Instance) -> Output:
    return {"InlinePolicy": _named(a, view, here).doc["inline"]}


def _delete_inline(a: Authorised, tx: Transaction, here: Instance) -> Output:
    row = _named(a, tx, here)
    if not row.doc["inline"]:
        raise missing("The permission set has no inline policy.")
    row.doc["inline"] = ""
    _touch(a, tx, row)
    return {}


# -- managed policies --------------------------------------------------------------------------------------------------


def _attach(a: Authorised, tx: Transaction, row: Row, member: str, entry: Any) -> Output:
    if entry in row.doc[member]:
        raise conflict("The policy is attached to the permission set already.")
    if len(row.doc["managed"]) + len(row.doc["customer"]) >= _MOST_POLICIES:
        raise Refused("ServiceQuotaExceededException", f"A permission set may have at most {_MOST_POLICIES} policies.")
    row.doc[member].append(entry)
    _touch(a, tx, row)
    return {}


def _detach(a: Authorised, tx: Transaction, row: Row, member: str, entry: Any) -> Output:
    if entry not in row.doc[member]:
        raise missing("The policy is not attached to the permission set.")
    row.doc[member].remove(entry)
    _touch(a, tx, row)
    return {}


def reference(given: dict[str, Any]) -> dict[str, str]:
    """A customer managed policy as it is kept: by name and path."""
    return {"Name": given["Name"], "Path": given.get("Path") or "/"}


def _attach_managed(a: Authorised, tx: Transaction, here: Instance) -> Output:
    return _attach(a, tx, _named(a, tx, here), "managed", a.input["ManagedPolicyArn"])


def _detach_managed(a: Authorised, tx: Transaction, here: Instance) -> Output:
    return _detach(a, tx, _named(a, tx, here), "managed", a.input["ManagedPolicyArn"])


def _attach_customer(a: Authorised, tx: Transaction, here: Instance) -> Output:
    return _attach(a, tx, _named(a, tx, here), "customer", reference(a.input["CustomerManagedPolicyReference"]))


def _detach_customer(a: Authorised, tx: Transaction, here: Instance) -> Output:
    return _detach(a, tx, _named(a, tx, here), "customer", reference(a.input["CustomerManagedPolicyReference"]))


def _list_managed(a: Authorised, view: View, here: Instance) -> Output:
    arns = _named(a, view, here).doc["managed"]
    return sliced(a, "AttachedManagedPolicies", [{"Name": arn.rpartition("/")[2], "Arn": arn} for arn in arns])


def _list_customer(a: Authorised, view: View, here: Instance) -> Output:
    return sliced(a, "CustomerManagedPolicyReferences", _named(a, view, here).doc["customer"])


# -- the boundary ------------------------------------------------------------------------------------------------------


def _put_boundary(a: Authorised, tx: Transaction, here: Instance) -> Output:
    row = _named(a, tx, here)
    given = a.input["PermissionsBoundary"]
    customer, managed = given.get("CustomerManagedPolicyReference"), given.get("ManagedPolicyArn")
    if (customer is None) == (managed is None):
        raise invalid("A permissions boundary is either a customer managed policy or an AWS managed policy.")
    row.doc["boundary"] = (
        {"ManagedPolicyArn": managed} if customer is None else {"CustomerManagedPolicyReference": reference(customer)}
    )
    _touch(a, tx, row)
    return {}


def _get_boundary(a: Authorised, view: View, here: Instance) -> Output:
    found = _named(a, view, here).doc["boundary"]
    if not found:
        raise missing("The permission set has no permissions boundary.")
    return {"PermissionsBoundary": found}


def _delete_boundary(a: Authorised, tx: Transaction, here: Instance) -> Output:
    row = _named(a, tx, here)
    if not row.doc["boundary"]:
        raise missing("The permission set has no permissions boundary.")
    row.doc["boundary"] = {}
    _touch(a, tx, row)
    return {}


for _operation, _work in (
    ("PutInlinePolicyToPermissionSet", _put_inline),
    ("DeleteInlinePolicyFromPermissionSet", _delete_inline),
    ("AttachManagedPolicyToPermissionSet", _attach_managed),
    ("DetachManagedPolicyFromPermissionSet", _detach_managed),
    ("AttachCustomerManagedPolicyReferenceToPermissionSet", _attach_customer),
    ("DetachCustomerManagedPolicyReferenceFromPermissionSet", _detach_customer),
    ("PutPermissionsBoundaryToPermissionSet", _put_boundary),
    ("DeletePermissionsBoundaryFromPermissionSet", _delete_boundary),
):
    PERMISSION_SET.operation(_operation, asks=ask(_operation, "instance", "set"))(in_center(_work))
for _operation, _read in (
    ("GetInlinePolicyForPermissionSet", _get_inline),
    ("ListManagedPoliciesInPermissionSet", _list_managed),
    ("ListCustomerManagedPolicyReferencesInPermissionSet", _list_customer),
    ("GetPermissionsBoundaryForPermissionSet", _get_boundary),
):
    PERMISSION_SET.reads(_operation, asks=ask(_operation, "instance", "set"))(in_center(_read))
