"""What users, groups and roles do with policies: inline ones, attached ones, and the permissions boundary.

Where a managed policy is used is kept a second time by the policy's ARN, so that it can be listed and counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Output
from bastide.kernel.kind import Given, each
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
from bastide.services.iam.managed import MANAGED
from bastide.services.iam.policy import MANAGED_USE, POLICY, USE, policy_name, text_of, usable
from bastide.store import Row, Transaction, View

MOST_ATTACHED: Final = 20
"""Managed policies of one user or role: the most that AWS raises its quota of 10 to."""
GROUP_ATTACHED: Final = 10
"""Managed policies of one group."""
INLINE: Final = {"User": 2_048, "Group": 5_120, "Role": 10_240}
"""Characters of all inline policies of an entity (IAM User Guide, "IAM and AWS STS quotas")."""
_COUNTS: Final = {"PermissionsPolicy": "AttachmentCount", "PermissionsBoundary": "PermissionsBoundaryUsageCount"}


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


def held_boundary(kind: Entity) -> Callable[[Asked], str | None]:
    """iam:PermissionsBoundary of a question about an entity that has one."""

    def boundary(asked: Asked) -> str | None:
        held = kind.held(asked.view, asked.call.account, str(asked.input[kind.named_by]))
        return None if held is None else str(held.doc["boundary"]) or None

    return boundary


def _place(arn: str, usage: str, row: Row) -> str:
    # A space stands in no ARN and no name.
    return f"{arn} {usage} {row.kind.partition(':')[2]} {row.name}"


def _count(a: Authorised, tx: Transaction, row: Row, arn: str, usage: str, by: int) -> None:
    """Keeps that a policy is used by the row (by 1) or is not any more (by -1)."""
    if by > 0:
        tx.insert(Row(USE, a.account, "", _place(arn, usage, row), {}), keep=False)
    else:
        use = tx.get(USE, a.account, "", _place(arn, usage, row))
        if use is not None:
            tx.delete(use, keep=False)
    member = _COUNTS[usage]
    own = POLICY.by_arn(tx, a.account, arn)
    if own is not None:
        own.doc[member] += by
        POLICY.save(a, tx, own)
    elif arn in MANAGED:
        counts = tx.get(MANAGED_USE, a.account, "", arn)
        if counts is None:
            tx.insert(
                Row(MANAGED_USE, a.account, "", arn, dict.fromkeys(_COUNTS.values(), 0) | {member: by}), keep=False
            )
        else:
            counts.doc[member] = max(0, counts.doc[member] + by)
            if any(counts.doc.values()):
                tx.update(counts, keep=False)
            else:
                tx.delete(counts, keep=False)


def moved(tx: Transaction, before: Row, after: Row) -> None:
    """Keeps the uses of policies under the new name of an entity."""
    used = [(arn, "PermissionsPolicy") for arn in after.doc["attached"]]
    if after.doc.get("boundary"):
        used.append((after.doc["boundary"], "PermissionsBoundary"))
    for arn, usage in used:
        use = tx.get(USE, before.account, "", _place(arn, usage, before))
        if use is not None:
            tx.delete(use, keep=False)
        tx.insert(Row(USE, after.account, "", _place(arn, usage, after), {}), keep=False)


def add(a: Authorised, tx: Transaction, row: Row, arn: str) -> None:
    """Attaches a policy that may be attached to a row that the caller then saves."""
    row.doc["attached"].append(arn)
    _count(a, tx, row, arn, "PermissionsPolicy", 1)


def take(a: Authorised, tx: Transaction, row: Row, arn: str) -> None:
    """Detaches a policy from a row that the caller then saves or removes."""
    row.doc["attached"].remove(arn)
    _count(a, tx, row, arn, "PermissionsPolicy", -1)


def set_boundary(a: Authorised, tx: Transaction, row: Row, arn: str) -> None:
    """Puts a boundary on a row that the caller then saves; raises Refused for a policy that does not exist."""
    usable(tx, a.account, arn)
    clear_boundary(a, tx, row)
    _count(a, tx, row, arn, "PermissionsBoundary", 1)
    row.doc["boundary"] = arn


def clear_boundary(a: Authorised, tx: Transaction, row: Row) -> None:
    """Takes the boundary off a row that the caller then saves or removes."""
    if row.doc["boundary"]:
        _count(a, tx, row, row.doc["boundary"], "PermissionsBoundary", -1)
        row.doc["boundary"] = ""


def attached(doc: dict[str, Any]) -> list[Output]:
    """The attached policies of an entity, as lists show them."""
    return [{"PolicyName": policy_name(arn), "PolicyArn": arn} for arn in doc["attached"]]


def inline(doc: dict[str, Any]) -> list[Output]:
    """The inline policies of an entity with their documents, in the order of their names."""
    return [{"PolicyName": name, "PolicyDocument": encoded(doc["inline"][name])} for name in sorted(doc["inline"])]


@dataclass(frozen=True, slots=True)
class Held:
    """A policy that an entity has. source: as decisions name it; arn: "" for an inline one; text: None for a managed
    policy that cannot be found."""

    source: str
    name: str
    arn: str
    text: str | None
    owner: Row


def held(view: View, row: Row) -> list[Held]:
    """The policies of a user (without its groups'), a group or a role."""
    found = [
        Held(f"inline policy {name} of {row.doc['Arn']}", name, "", text, row)
        for name, text in row.doc["inline"].items()
    ]
    found += [Held(arn, policy_name(arn), arn, text_of(view, row.account, arn), row) for arn in row.doc["attached"]]
    return found


def declare(kind: Entity, *, most: int = MOST_ATTACHED, bounded: bool = True) -> None:
    """Declares the operations of a kind that has policies. most: attached ones. bounded: it may have a boundary."""
    name, label, inline_quota = kind.name, kind.name.lower(), INLINE[kind.name]
    bound: dict[str, Given] = {NEW_BOUNDARY: held_boundary(kind)} if bounded else {}
    with_policy = {**bound, "iam:PolicyARN": each("PolicyArn")}

    def put_inline(a: Authorised, tx: Transaction) -> Output:
        row = kind.asked_for(a, tx)
        after = {**row.doc["inline"], a.input["PolicyName"]: checked(a.input["PolicyDocument"], Form.IDENTITY)}
        if sum(unspaced(text) for text in after.values()) > inline_quota:
            raise limit(f"Maximum policy size of {inline_quota} bytes exceeded for {label} {row.doc[kind.named_by]}")
        row.doc["inline"] = after
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
        if arn in MANAGED and MANAGED[arn].of_service:
            raise Refused("PolicyNotAttachable", "Cannot attach a Service Role Policy to a Customer Role.")
        if arn in row.doc["attached"]:
            return {}
        if len(row.doc["attached"]) >= most:
            raise limit(f"Cannot exceed quota for PoliciesPer{name}: {most}")
        add(a, tx, row, arn)
        kind.save(a, tx, row)
        return {}

    def detach(a: Authorised, tx: Transaction) -> Output:
        row = kind.asked_for(a, tx)
        arn = a.input["PolicyArn"]
        if arn not in row.doc["attached"]:
            raise no_entity(f"Policy {arn} was not found.")
        take(a, tx, row, arn)
        kind.save(a, tx, row)
        return {}

    def list_attached(a: Authorised, view: View) -> Output:
        prefix = str(a.input.get("PathPrefix") or "/")
        found = attached(kind.asked_for(a, view).doc)
        below = [one for one in found if f"/{one['PolicyArn'].partition('/')[2]}".startswith(prefix)]
        return sliced(a, "AttachedPolicies", below)

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

    kind.operation(f"Put{name}Policy", asks=ask(f"Put{name}Policy", bound))(put_inline)
    kind.reads(f"Get{name}Policy", asks=ask(f"Get{name}Policy"))(get_inline)
    kind.reads(f"List{name}Policies", asks=ask(f"List{name}Policies"))(list_inline)
    kind.operation(f"Delete{name}Policy", asks=ask(f"Delete{name}Policy", bound))(delete_inline)
    kind.operation(f"Attach{name}Policy", asks=ask(f"Attach{name}Policy", with_policy))(attach)
    kind.operation(f"Detach{name}Policy", asks=ask(f"Detach{name}Policy", with_policy))(detach)
    kind.reads(f"ListAttached{name}Policies", asks=ask(f"ListAttached{name}Policies"))(list_attached)
    if not bounded:
        return
    kind.operation(
        f"Put{name}PermissionsBoundary",
        asks=ask(f"Put{name}PermissionsBoundary", {NEW_BOUNDARY: each("PermissionsBoundary")}),
    )(put_boundary)
    kind.operation(f"Delete{name}PermissionsBoundary", asks=ask(f"Delete{name}PermissionsBoundary", bound))(
        delete_boundary
    )
