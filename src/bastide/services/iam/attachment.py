"""What users and roles do with policies: inline ones, attached ones, and the permissions boundary."""

from __future__ import annotations

from typing import Any, Final

from bastide.kernel import Ask, Asked, Authorised, Output
from bastide.kernel.kind import each
from bastide.policy import Form
from bastide.services.iam.entity import (
    NEW_BOUNDARY,
    Entity,
    checked,
    conflict,
    encoded,
    limit,
    no_entity,
    sliced,
    unspaced,
)
from bastide.services.iam.policy import POLICY, policy_name, usable
from bastide.store import Row, Transaction, View

MOST_ATTACHED: Final = 20
"""Managed policies of one user or role: the most that AWS raises its quota of 10 to."""


def show_boundary(doc: dict[str, Any], found: Output) -> None:
    """Adds PermissionsBoundary where there is one. Source: IAM API reference, "AttachedPermissionsBoundary"."""
    if doc["boundary"]:
        found["PermissionsBoundary"] = {
            "PermissionsBoundaryType": "Policy",
            "PermissionsBoundaryArn": doc["boundary"],
        }


def must_be_bare(row: Row) -> None:
    """Raises Refused (DeleteConflict) while the entity has policies."""
    if row.doc["inline"]:
        raise conflict("Cannot delete entity, must delete policies first.")
    if row.doc["attached"]:
        raise conflict("Cannot delete entity, must detach all policies first.")


def _count(a: Authorised, tx: Transaction, arn: str, member: str, by: int) -> None:
    """Moves a customer managed policy's count of uses."""
    row = POLICY.by_arn(tx, a.account, arn)
    if row is not None:
        row.doc[member] += by
        POLICY.save(a, tx, row)


def set_boundary(a: Authorised, tx: Transaction, row: Row, arn: str) -> None:
    """Puts a boundary on a row that the caller then saves; raises Refused for a policy that does not exist."""
    usable(tx, a.account, arn)
    clear_boundary(a, tx, row)
    _count(a, tx, arn, "PermissionsBoundaryUsageCount", 1)
    row.doc["boundary"] = arn


def clear_boundary(a: Authorised, tx: Transaction, row: Row) -> None:
    """Takes the boundary off a row that the caller then saves or removes."""
    if row.doc["boundary"]:
        _count(a, tx, row.doc["boundary"], "PermissionsBoundaryUsageCount", -1)
        row.doc["boundary"] = ""


def declare(kind: Entity, *, inline_quota: int) -> None:
    """Declares the operations of a kind that has policies. inline_quota: characters of all its inline policies."""
    name, label = kind.name, kind.name.lower()

    def boundary(asked: Asked) -> str | None:
        held = kind.held(asked.view, asked.call.account, str(asked.input[kind.named_by]))
        return None if held is None else str(held.doc["boundary"]) or None

    held = {NEW_BOUNDARY: boundary}
    with_policy = {**held, "iam:PolicyARN": each("PolicyArn")}

    def put_inline(a: Authorised, tx: Transaction) -> Output:
        row = kind.asked_for(a, tx)
        inline = {**row.doc["inline"], a.input["PolicyName"]: checked(a.input["PolicyDocument"], Form.IDENTITY)}
        if sum(unspaced(text) for text in inline.values()) > inline_quota:
            raise limit(f"Maximum policy size of {inline_quota} bytes exceeded for {label} {row.doc[kind.named_by]}")
        row.doc["inline"] = inline
        kind.save(a, tx, row)
        return {}

    def of(row: Row, policy: str) -> str:
        if policy not in row.doc["inline"]:
            raise no_entity(f"The {label} policy with name {policy} cannot be found.")
        return str(row.doc["inline"][policy])

    def get_inline(a: Authorised, view: View) -> Output:
        row = kind.asked_for(a, view)
        policy = a.input["PolicyName"]
        return {
            kind.named_by: row.doc[kind.named_by],
            "PolicyName": policy,
            "PolicyDocument": encoded(of(row, policy)),
        }

    def list_inline(a: Authorised, view: View) -> Output:
        return sliced(a, "PolicyNames", sorted(kind.asked_for(a, view).doc["inline"]))

    def delete_inline(a: Authorised, tx: Transaction) -> Output:
        row = kind.asked_for(a, tx)
        of(row, a.input["PolicyName"])
        del row.doc["inline"][a.input["PolicyName"]]
        kind.save(a, tx, row)
        return {}

    def attach(a: Authorised, tx: Transaction) -> Output:
        row = kind.asked_for(a, tx)
        arn = a.input["PolicyArn"]
        usable(tx, a.account, arn)
        if arn in row.doc["attached"]:
            return {}
        if len(row.doc["attached"]) >= MOST_ATTACHED:
            raise limit(f"Cannot exceed quota for PoliciesPer{name}: {MOST_ATTACHED}")
        row.doc["attached"].append(arn)
        kind.save(a, tx, row)
        _count(a, tx, arn, "AttachmentCount", 1)
        return {}

    def detach(a: Authorised, tx: Transaction) -> Output:
        row = kind.asked_for(a, tx)
        arn = a.input["PolicyArn"]
        if arn not in row.doc["attached"]:
            raise no_entity(f"Policy {arn} was not found.")
        row.doc["attached"].remove(arn)
        kind.save(a, tx, row)
        _count(a, tx, arn, "AttachmentCount", -1)
        return {}

    def list_attached(a: Authorised, view: View) -> Output:
        prefix = str(a.input.get("PathPrefix") or "/")
        found = [
            {"PolicyName": policy_name(arn), "PolicyArn": arn}
            for arn in kind.asked_for(a, view).doc["attached"]
            if f"/{arn.partition('/')[2]}".startswith(prefix)
        ]
        return sliced(a, "AttachedPolicies", found)

    def put_boundary(a: Authorised, tx: Transaction) -> Output:
        row = kind.asked_for(a, tx)
        set_boundary(a, tx, row, a.input["PermissionsBoundary"])
        kind.save(a, tx, row)
        return {}

    def delete_boundary(a: Authorised, tx: Transaction) -> Output:
        row = kind.asked_for(a, tx)
        if not row.doc["boundary"]:
            raise no_entity(f"The {label} with name {row.doc[kind.named_by]} has no permissions boundary.")
        clear_boundary(a, tx, row)
        kind.save(a, tx, row)
        return {}

    def ask(operation: str, given: Any = None) -> list[Ask]:
        return [Ask(f"iam:{operation}", kind.this, given=given or {})]

    kind.operation(f"Put{name}Policy", asks=ask(f"Put{name}Policy", held))(put_inline)
    kind.reads(f"Get{name}Policy", asks=ask(f"Get{name}Policy"))(get_inline)
    kind.reads(f"List{name}Policies", asks=ask(f"List{name}Policies"))(list_inline)
    kind.operation(f"Delete{name}Policy", asks=ask(f"Delete{name}Policy", held))(delete_inline)
    kind.operation(f"Attach{name}Policy", asks=ask(f"Attach{name}Policy", with_policy))(attach)
    kind.operation(f"Detach{name}Policy", asks=ask(f"Detach{name}Policy", with_policy))(detach)
    kind.reads(f"ListAttached{name}Policies", asks=ask(f"ListAttached{name}Policies"))(list_attached)
    kind.operation(
        f"Put{name}PermissionsBoundary",
        asks=ask(f"Put{name}PermissionsBoundary", {NEW_BOUNDARY: each("PermissionsBoundary")}),
    )(put_boundary)
    kind.operation(f"Delete{name}PermissionsBoundary", asks=ask(f"Delete{name}PermissionsBoundary", held))(
        delete_boundary
    )
