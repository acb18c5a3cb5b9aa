"""Invitations: an account that sharing is not enabled with takes part when it has accepted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Output, anything, pages
from bastide.services.ram.noun import INVITATION, SHARE, new_id, tell
from bastide.store import Row, Transaction, View

_DAYS: Final = 7 * 24 * 3600 * 1_000_000


def invite(a: Authorised, tx: Transaction, share: Row, account: str) -> None:
    """Invites an account to a share."""
    doc = {
        "Share": SHARE.arn(share.account, share.region, share.name), "Name": share.doc["Name"], "Sender": share.account,
        "Receiver": account, "At": a.now,
    }  # fmt: skip
    INVITATION.insert(
        tx, Row(INVITATION.key, "", share.region, new_id(), doc, "PENDING"), a.operation.name, a.request.id
    )


def withdraw(a: Authorised, tx: Transaction, share: Row, account: str) -> None:
    """Takes the invitations of an account to a share back."""
    arn = SHARE.arn(share.account, share.region, share.name)
    for row in _all(tx, share.region):
        if row.doc["Share"] == arn and row.doc["Receiver"] == account:
            INVITATION.remove(tx, row, a.operation.name, a.request.id)


def _all(view: View, region: str) -> Iterable[Row]:
    after: str | None = None
    while rows := view.scan(INVITATION.key, "", region, after=after, limit=200):
        yield from rows
        after = rows[-1].name


def _arn(row: Row) -> str:
    return INVITATION.arn(row.doc["Sender"], row.region, row.name)


def _shown(a: Authorised, row: Row) -> Output:
    expired = row.status == "PENDING" and a.now - row.doc["At"] > _DAYS
    return {
        "resourceShareInvitationArn": _arn(row),
        "resourceShareName": row.doc["Name"],
        "resourceShareArn": row.doc["Share"],
        "senderAccountId": row.doc["Sender"],
        "receiverAccountId": row.doc["Receiver"],
        "invitationTimestamp": row.doc["At"],
        "status": "EXPIRED" if expired else row.status,
    }


@INVITATION.reads("GetResourceShareInvitations", asks=[Ask("ram:GetResourceShareInvitations", anything)])
def get(a: Authorised, view: View) -> Output:
    wanted, of = a.input.get("resourceShareInvitationArns"), a.input.get("resourceShareArns")
    found = [
        _shown(a, row)
        for row in _all(view, a.region)
        if row.doc["Receiver"] == a.account
        and (not wanted or _arn(row) in wanted)
        and (not of or row.doc["Share"] in of)
    ]
    start = int(pages.position(a, a.input.get("nextToken"), code="InvalidNextTokenException") or 0)
    limit = int(a.input.get("maxResults") or 100)
    output: Output = {"resourceShareInvitations": found[start : start + limit]}
    if start + limit < len(found):
        output["nextToken"] = pages.seal(a, start + limit)
    return output


def _this(asked: Asked) -> Iterable[str]:
    return (str(asked.input["resourceShareInvitationArn"]),)


def _answered(a: Authorised, tx: Transaction, status: str) -> Output:
    arn = str(a.input["resourceShareInvitationArn"])
    row = tx.get(INVITATION.key, "", a.region, arn.rpartition("/")[2])
    if row is None or _arn(row) != arn or row.doc["Receiver"] != a.account:
        raise Refused("ResourceShareInvitationArnNotFoundException", f"Invitation {arn[:256]} could not be found.")
    now = _shown(a, row)["status"]
    if now != "PENDING":
        code = {"ACCEPTED": "AlreadyAccepted", "REJECTED": "AlreadyRejected", "EXPIRED": "Expired"}[now]
        raise Refused(f"ResourceShareInvitation{code}Exception", f"Invitation {arn} is {now}.")
    _, _, _, _, owner, name = row.doc["Share"].split(":", 5)
    share = SHARE.find(tx, owner, a.region, name.removeprefix("resource-share/"))
    row.status = status
    INVITATION.change(tx, row, a.operation.name, a.request.id)
    held = share.doc["Principals"]
    if status == "ACCEPTED":
        share.doc["Principals"] = {**held, a.account: {**held[a.account], "Status": "ASSOCIATED"}}
    else:
        share.doc["Principals"] = {key: value for key, value in held.items() if key != a.account}
    tell(tx, share)
    SHARE.change(tx, share, a.operation.name, a.request.id)
    return {"resourceShareInvitation": _shown(a, row), "clientToken": a.input.get("clientToken")}


@INVITATION.operation("AcceptResourceShareInvitation", asks=[Ask("ram:AcceptResourceShareInvitation", _this)])
def accept(a: Authorised, tx: Transaction) -> Output:
    return _answered(a, tx, "ACCEPTED")


@INVITATION.operation("RejectResourceShareInvitation", asks=[Ask("ram:RejectResourceShareInvitation", _this)])
def reject(a: Authorised, tx: Transaction) -> Output:
    return _answered(a, tx, "REJECTED")
