"""Invitations: an account that stands alone is asked to join, and accepts or declines.

Source: Organizations API reference, InviteAccountToOrganization, Handshake; an invitation is open for 15 days.
"""

from __future__ import annotations

import secrets
from typing import Any, Final

from bastide.domain import MICROS, Refused, Tags
from bastide.kernel import Ask, Asked, Authorised, Output
from bastide.services.organizations.account import join
from bastide.services.organizations.delegation import in_management
from bastide.services.organizations.noun import (
    ACCOUNT,
    HANDSHAKE,
    TAKEN,
    address,
    ask,
    constraint,
    denied,
    invalid,
    organisation,
    paged,
    tags_of,
)
from bastide.store import Row, Transaction, View

_DAYS: Final = 15
_OF_ACCOUNT: Final = "organizations:HandshakeOfAccount"
"""Rows ``ACCOUNT/HANDSHAKE``."""
_MOST: Final = 20
"""Open invitations at a time (Organizations User Guide, "Quotas", a day)."""


def _state(a: Authorised, row: Row) -> str:
    return "EXPIRED" if row.status == "OPEN" and row.doc["ExpirationTimestamp"] <= a.now else row.status


def _shown(a: Authorised, row: Row) -> Output:
    names = ("Id", "Arn", "Parties", "RequestedTimestamp", "ExpirationTimestamp", "Action", "Resources")
    return {**{name: row.doc[name] for name in names}, "State": _state(a, row)}


def _target(tx: Transaction, party: dict[str, str]) -> str:
    """The id of the account that is meant; raises Refused unless it exists and stands alone."""
    id = party["Id"]
    if party["Type"] == "EMAIL":
        row = tx.get(TAKEN, "", "", f"email/{id.lower()}")
        id = "" if row is None else str(row.doc["id"])
    elif party["Type"] != "ACCOUNT":
        raise invalid("You can invite an account, by its id or its email address.", "INVALID_PARTY_TYPE_TARGET")
    if ACCOUNT.row(tx, id) is not None:
        raise Refused(
            "HandshakeConstraintViolationException",
            "The account is already a member of an organization.",
            members={"Reason": "ALREADY_IN_AN_ORGANIZATION"},
        )
    if not id or tx.get(TAKEN, "", "", f"account/{id}") is None:
        raise invalid("There is no such account.", "TARGET_NOT_SUPPORTED")
    return id


def _invite(a: Authorised, tx: Transaction, held: Row) -> Output:
    account = _target(tx, a.input["Target"])
    tags = tags_of(a)
    before = tx.scan(_OF_ACCOUNT, "", "", prefix=f"{account}/", limit=_MOST + 1)
    for one in before:
        row = HANDSHAKE.row(tx, one.name.rpartition("/")[2])
        if row is not None and _state(a, row) == "OPEN":
            raise Refused("DuplicateHandshakeException", "A handshake with the same action and target already exists.")
    if len(before) > _MOST:
        raise constraint("You invited this account too often.", "HANDSHAKE_RATE_LIMIT_EXCEEDED")
    id = f"h-{secrets.token_hex(16)}"
    organisation_id: str = held.doc["Id"]
    target: dict[str, Any] = {"Type": a.input["Target"]["Type"], "Value": a.input["Target"]["Id"]}
    of_organisation: list[dict[str, str]] = [
        {"Type": "MASTER_EMAIL", "Value": held.doc["MasterAccountEmail"]},
        {"Type": "ORGANIZATION_FEATURE_SET", "Value": held.doc["FeatureSet"]},
    ]
    resources: list[dict[str, Any]] = [
        {
            "Type": "ORGANIZATION",
            "Value": organisation_id,
            "Resources": of_organisation,
        },
        target,
    ]
    if a.input.get("Notes"):
        resources.append({"Type": "NOTES", "Value": a.input["Notes"]})
    doc: dict[str, Any] = {
        "Id": id,
        "Arn": address(held, id),
        "Parties": [{"Id": organisation_id, "Type": "ORGANIZATION"}, dict(a.input["Target"])],
        "RequestedTimestamp": a.now,
        "ExpirationTimestamp": a.now + _DAYS * 24 * 3600 * MICROS,
        "Action": "INVITE",
        "Resources": resources,
        "account": account,
        "tags": tags,
    }
    row = HANDSHAKE.put(a, tx, id, doc, {}, "OPEN")
    tx.insert(Row(_OF_ACCOUNT, "", "", f"{account}/{id}", {}), keep=False)
    a.touched.append(doc["Arn"])
    return {"Handshake": _shown(a, row)}


def _found(a: Authorised, view: View, *, party: bool) -> Row:
    """The handshake that the call names, if the caller is of the side that may. party: the invited account."""
    row = HANDSHAKE.row(view, a.input["HandshakeId"])
    held = organisation(view)
    sides = () if row is None or held is None else (row.doc["account"], held.doc["MasterAccountId"])
    if row is None or a.account not in sides:
        raise Refused(
            "HandshakeNotFoundException", "We can't find a handshake with the HandshakeId that you specified."
        )
    if party != (a.account == row.doc["account"]):
        raise denied()
    return row


def _end(a: Authorised, tx: Transaction, row: Row, state: str) -> Output:
    now = _state(a, row)
    if now == state:
        raise Refused("HandshakeAlreadyInStateException", "The specified handshake is already in the requested state.")
    if now != "OPEN":
        raise Refused(
            "InvalidHandshakeTransitionException", f"You can't make this change to a handshake that is {now}."
        )
    row.status = state
    HANDSHAKE.save(a, tx, row)
    return {"Handshake": _shown(a, row)}


def accept(a: Authorised, tx: Transaction) -> Output:
    """The invited account joins, below the root."""
    row = _found(a, tx, party=True)
    held = organisation(tx)
    alone = tx.get(TAKEN, "", "", f"account/{a.account}")
    output = _end(a, tx, row, "ACCEPTED")
    if held is None or alone is None:
        raise Refused(
            "HandshakeConstraintViolationException",
            "The account is already a member of an organization.",
            members={"Reason": "ALREADY_IN_AN_ORGANIZATION"},
        )
    tx.delete(alone, keep=False)
    tags: Tags = row.doc["tags"]
    joined = join(a, tx, held, a.account, {"Email": alone.doc["Email"], "Name": alone.doc["Name"]}, "INVITED", tags)
    a.touched.append(joined.doc["Arn"])
    return output


def decline(a: Authorised, tx: Transaction) -> Output:
    """The invited account does not want to."""
    return _end(a, tx, _found(a, tx, party=True), "DECLINED")


def _cancel(a: Authorised, tx: Transaction, held: Row) -> Output:
    return _end(a, tx, _found(a, tx, party=False), "CANCELED")


def describe(a: Authorised, view: View) -> Output:
    """A handshake, for both sides."""
    held = organisation(view)
    return {"Handshake": _shown(a, _found(a, view, party=held is None or a.account != held.doc["MasterAccountId"]))}


def of_account(a: Authorised, view: View) -> Output:
    """The invitations of the caller's account."""

    def show(row: Row) -> Output:
        found = HANDSHAKE.row(view, row.name.rpartition("/")[2])
        assert found is not None
        return _shown(a, found)

    return paged(a, view, _OF_ACCOUNT, "Handshakes", show, prefix=f"{a.account}/")


def _of_organisation(a: Authorised, view: View, held: Row) -> Output:
    return paged(a, view, HANDSHAKE.key, "Handshakes", lambda row: _shown(a, row))


def _this(asked: Asked) -> tuple[str]:
    held = organisation(asked.view)
    return ("*",) if held is None else (address(held, str(asked.input["HandshakeId"])),)


def _target_account(asked: Asked) -> tuple[str]:
    target = asked.input["Target"]
    held = organisation(asked.view)
    return ("*",) if held is None or target["Type"] != "ACCOUNT" else (address(held, str(target["Id"])),)


HANDSHAKE.operation(
    "InviteAccountToOrganization", asks=[Ask("organizations:InviteAccountToOrganization", _target_account)]
)(in_management(_invite))
HANDSHAKE.operation("CancelHandshake", asks=[Ask("organizations:CancelHandshake", _this)])(in_management(_cancel))
HANDSHAKE.operation("AcceptHandshake", asks=[Ask("organizations:AcceptHandshake", _this)])(accept)
HANDSHAKE.operation("DeclineHandshake", asks=[Ask("organizations:DeclineHandshake", _this)])(decline)
HANDSHAKE.reads("DescribeHandshake", asks=[Ask("organizations:DescribeHandshake", _this)])(describe)
HANDSHAKE.reads("ListHandshakesForAccount", asks=ask("ListHandshakesForAccount"))(of_account)
HANDSHAKE.reads("ListHandshakesForOrganization", asks=ask("ListHandshakesForOrganization"))(
    in_management(_of_organisation)
)
