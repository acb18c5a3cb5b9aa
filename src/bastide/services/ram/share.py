"""Resource shares: which resources of an account others may use, and who."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Output, anything, each, once, pages, shares
from bastide.services.ram.invitation import invite, withdraw
from bastide.services.ram.noun import (
    SERVICE,
    SHARE,
    TYPES,
    malformed,
    mine,
    new_id,
    principal,
    resource,
    tell,
    this,
)
from bastide.store import Row, Transaction, View

_MOST: Final = 500
"""Shares an account and region, and entries of one; below AWS's quotas, which are soft."""


def _types(asked: Asked) -> list[str] | None:
    found = {one.type for arn in asked.input.get("resourceArns") or () for one in TYPES if f":{one.prefix}" in str(arn)}
    return sorted(found) or None


def _external(asked: Asked) -> str:
    return "false" if asked.input.get("allowExternalPrincipals") is False else "true"


_ENTRIES: Final[dict[str, Any]] = {
    "ram:Principal": each("principals"), "ram:ResourceArn": each("resourceArns"), "ram:RequestedResourceType": _types,
}  # fmt: skip


def _pairs(a: Authorised, before: Mapping[str, str] | None = None) -> dict[str, str]:
    found = dict(before or {})
    for one in a.input.get("tags") or ():
        key, value = str(one.get("key") or ""), str(one.get("value") or "")
        if not key or len(key) > 128 or len(value) > 256 or key.lower().startswith("aws:"):
            raise malformed(f"The tag {key[:128]!r} is not valid.")
        found[key] = value
    if len(found) > 50:
        raise Refused("TagLimitExceededException", "A resource share has at most 50 tags.")
    return found


def shown(row: Row) -> Output:
    """A share as it is listed."""
    return {
        "resourceShareArn": SHARE.arn(row.account, row.region, row.name),
        "name": row.doc["Name"],
        "owningAccountId": row.account,
        "allowExternalPrincipals": row.doc["External"],
        "status": row.status,
        "tags": [{"key": key, "value": value} for key, value in row.tags.items()],
        "creationTime": row.created,
        "lastUpdatedTime": row.modified,
        "featureSet": "STANDARD",
    }


def _unsupported(a: Authorised, *members: str) -> None:
    for member in members:
        if a.input.get(member):
            raise malformed(f"{member} is not supported by Bastide yet.")


def _entered(a: Authorised, tx: Transaction, row: Row) -> list[Output]:
    """Puts the principals and resources of a call into a share; returns the associations."""
    found: list[Output] = []
    for text in dict.fromkeys(str(one) for one in a.input.get("resourceArns") or ()):
        kind, arn = resource(a, tx, text)
        row.doc["Resources"] = {**row.doc["Resources"], str(arn): {"Type": kind.type, "At": a.now}}
        found.append(association(row, "RESOURCE", str(arn), "ASSOCIATING"))
    for text in dict.fromkeys(str(one) for one in a.input.get("principals") or ()):
        if text in row.doc["Principals"]:
            continue
        kept, invited = principal(a, tx, text, external=row.doc["External"])
        one = {"As": kept, "Status": "ASSOCIATING" if invited else "ASSOCIATED", "At": a.now, "External": invited}
        row.doc["Principals"] = {**row.doc["Principals"], text: one}
        if invited:
            invite(a, tx, row, text)
        found.append(association(row, "PRINCIPAL", text, "ASSOCIATING"))
    if len(row.doc["Resources"]) + len(row.doc["Principals"]) > _MOST:
        raise Refused("ResourceShareLimitExceededException", f"A resource share has at most {_MOST} associations.")
    tell(tx, row)
    return found


def association(row: Row, kind: str, entity: str, status: str) -> Output:
    """An association as it is listed."""
    one = row.doc["Principals" if kind == "PRINCIPAL" else "Resources"].get(entity, {})
    return {
        "resourceShareArn": SHARE.arn(row.account, row.region, row.name),
        "resourceShareName": row.doc["Name"],
        "associatedEntity": entity,
        "associationType": kind,
        "status": status,
        "creationTime": one.get("At", row.modified),
        "lastUpdatedTime": row.modified,
        "external": bool(one.get("External")),
    }


@SHARE.operation(
    "CreateResourceShare",
    asks=[
        Ask(
            "ram:CreateResourceShare", anything,
            given={
                **_ENTRIES, "ram:RequestedAllowsExternalPrincipals": _external, "ram:AllowsExternalPrincipals": _external
            },
        )
    ],
)  # fmt: skip
def create(a: Authorised, tx: Transaction) -> Output:
    _unsupported(a, "sources", "permissionTemplateParameters", "resourceShareConfiguration")
    known = {one.permission_arn for one in TYPES}
    for arn in a.input.get("permissionArns") or ():
        if arn not in known:
            raise Refused("UnknownResourceException", f"Permission {str(arn)[:256]} does not exist here.")

    def make() -> Output:
        if len(tx.scan(SHARE.key, a.account, a.region, limit=_MOST)) >= _MOST:
            raise Refused("ResourceShareLimitExceededException", f"There are {_MOST} resource shares already.")
        doc = {
            "Name": a.input["name"], "External": a.input.get("allowExternalPrincipals") is not False,
            "Principals": {}, "Resources": {}, "Told": [],
        }  # fmt: skip
        row = SHARE.create(a, tx, new_id(), doc, status="ACTIVE", tags=_pairs(a))
        _entered(a, tx, row)
        SHARE.change(tx, row, a.operation.name, a.request.id)
        return {"resourceShare": shown(row), "clientToken": a.input.get("clientToken")}

    return once(a, tx, a.input.get("clientToken"), make, code="IdempotentParameterMismatchException")


@SHARE.operation(
    "UpdateResourceShare",
    asks=[
        Ask("ram:UpdateResourceShare", this, given={
            "ram:RequestedAllowsExternalPrincipals": lambda asked: (
                None if asked.input.get("allowExternalPrincipals") is None else _external(asked)
            )
        })
    ],
)  # fmt: skip
def update(a: Authorised, tx: Transaction) -> Output:
    row = mine(a, tx)
    if a.input.get("name"):
        row.doc["Name"] = a.input["name"]
    if a.input.get("allowExternalPrincipals") is not None:
        external = bool(a.input["allowExternalPrincipals"])
        if not external:
            for text in row.doc["Principals"]:
                principal(a, tx, text, external=False)
        row.doc["External"] = external
    SHARE.change(tx, row, a.operation.name, a.request.id)
    return {"resourceShare": shown(row), "clientToken": a.input.get("clientToken")}


@SHARE.operation("AssociateResourceShare", asks=[Ask("ram:AssociateResourceShare", this, given=_ENTRIES)])
def associate(a: Authorised, tx: Transaction) -> Output:
    _unsupported(a, "sources")
    row = mine(a, tx)
    found = _entered(a, tx, row)
    SHARE.change(tx, row, a.operation.name, a.request.id)
    return {"resourceShareAssociations": found, "clientToken": a.input.get("clientToken")}


@SHARE.operation("DisassociateResourceShare", asks=[Ask("ram:DisassociateResourceShare", this, given=_ENTRIES)])
def disassociate(a: Authorised, tx: Transaction) -> Output:
    _unsupported(a, "sources")
    row = mine(a, tx)
    found: list[Output] = []
    for member, kind in (("resourceArns", "RESOURCE"), ("principals", "PRINCIPAL")):
        held = "Resources" if kind == "RESOURCE" else "Principals"
        for text in dict.fromkeys(str(one) for one in a.input.get(member) or ()):
            if text not in row.doc[held]:
                raise Refused("UnknownResourceException", f"{text[:256]} is not associated with the resource share.")
            found.append(association(row, kind, text, "DISASSOCIATING"))
            row.doc[held] = {key: value for key, value in row.doc[held].items() if key != text}
            if kind == "PRINCIPAL":
                withdraw(a, tx, row, text)
    tell(tx, row)
    SHARE.change(tx, row, a.operation.name, a.request.id)
    return {"resourceShareAssociations": found, "clientToken": a.input.get("clientToken")}


@SHARE.operation("DeleteResourceShare", asks=[Ask("ram:DeleteResourceShare", this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = mine(a, tx)
    row.status = "DELETED"
    tell(tx, row)
    for text in row.doc["Principals"]:
        withdraw(a, tx, row, text)
    SHARE.remove(tx, row, a.operation.name, a.request.id)
    return {"returnValue": True, "clientToken": a.input.get("clientToken")}


@SHARE.operation("TagResource", asks=[Ask("ram:TagResource", this)])
def tag(a: Authorised, tx: Transaction) -> Output:
    _unsupported(a, "resourceArn")
    row = mine(a, tx)
    row.tags = _pairs(a, row.tags)
    SHARE.change(tx, row, a.operation.name, a.request.id)
    return {}


@SHARE.operation("UntagResource", asks=[Ask("ram:UntagResource", this)])
def untag(a: Authorised, tx: Transaction) -> Output:
    _unsupported(a, "resourceArn")
    row = mine(a, tx)
    row.tags = {key: value for key, value in row.tags.items() if key not in a.input["tagKeys"]}
    SHARE.change(tx, row, a.operation.name, a.request.id)
    return {}


@SHARE.operation("EnableSharingWithAwsOrganization", asks=[Ask("ram:EnableSharingWithAwsOrganization", anything)])
def enable(a: Authorised, tx: Transaction) -> Output:
    if a.account != a.calls.home:
        raise Refused(
            "OperationNotPermittedException", "Only the organisation's management account can enable sharing with it."
        )
    a.forward(tx, "organizations", "EnableAWSServiceAccess", {"ServicePrincipal": SERVICE}, SERVICE)
    return {"returnValue": True}


# -- lists -------------------------------------------------------------------------------------------------------------


def _own(a: Authorised, view: View) -> list[Row]:
    return view.scan(SHARE.key, a.account, a.region, limit=_MOST)


def _others(a: Authorised, view: View) -> list[Row]:
    """The shares that the caller's account takes part in."""
    place = a.calls.organisation.place(view, a.account)
    path = place[1] if place else ""
    found: dict[str, Row] = {}
    for row in shares.granted(view, a.region):
        arn = row.name.partition("\0")[2]
        if shares.takes_part(row.doc["Principals"], a.account, path):
            _, _, _, _, account, name = arn.split(":", 5)
            held = SHARE.get(view, account, a.region, name.removeprefix("resource-share/"))
            if held is not None and account != a.account:
                found[arn] = held
    return [found[arn] for arn in sorted(found)]


def _seen(a: Authorised, view: View) -> list[Row]:
    rows = _own(a, view) if a.input["resourceOwner"] == "SELF" else _others(a, view)
    wanted = a.input.get("resourceShareArns")
    return [row for row in rows if not wanted or SHARE.arn(row.account, row.region, row.name) in wanted]


def _paged(a: Authorised, member: str, found: list[Output]) -> Output:
    start = int(pages.position(a, a.input.get("nextToken"), code="InvalidNextTokenException") or 0)
    limit = int(a.input.get("maxResults") or 100)
    output: Output = {member: found[start : start + limit]}
    if start + limit < len(found):
        output["nextToken"] = pages.seal(a, start + limit)
    return output


@SHARE.reads("GetResourceShares", asks=[Ask("ram:GetResourceShares", anything)])
def get(a: Authorised, view: View) -> Output:
    _unsupported(a, "permissionArn", "permissionVersion")
    name, status = a.input.get("name"), a.input.get("resourceShareStatus")
    found = [
        shown(row)
        for row in _seen(a, view)
        if (not name or row.doc["Name"] == name)
        and (not status or row.status == status)
        and all(
            row.tags.get(one.get("tagKey", "")) in (one.get("tagValues") or [row.tags.get(one.get("tagKey", ""))])
            and one.get("tagKey") in row.tags
            for one in a.input.get("tagFilters") or ()
        )
    ]
    return _paged(a, "resourceShares", found)


@SHARE.reads("GetResourceShareAssociations", asks=[Ask("ram:GetResourceShareAssociations", anything)])
def associations(a: Authorised, view: View) -> Output:
    kind = a.input["associationType"]
    if kind not in ("PRINCIPAL", "RESOURCE"):
        raise malformed(f"{str(kind)[:32]} is not supported by Bastide yet.")
    wanted, only = a.input.get("resourceShareArns"), a.input.get("principal" if kind == "PRINCIPAL" else "resourceArn")
    found: list[Output] = []
    for row in _own(a, view):
        if wanted and SHARE.arn(row.account, row.region, row.name) not in wanted:
            continue
        held: Mapping[str, Any] = row.doc["Principals" if kind == "PRINCIPAL" else "Resources"]
        for entity, one in held.items():
            status = one.get("Status", "ASSOCIATED")
            if only in (None, entity) and a.input.get("associationStatus") in (None, status):
                found.append(association(row, kind, entity, status))
    return _paged(a, "resourceShareAssociations", found)


@SHARE.reads("ListResources", asks=[Ask("ram:ListResources", anything)])
def resources(a: Authorised, view: View) -> Output:
    found = [
        {
            "arn": arn,
            "type": one["Type"],
            "resourceShareArn": SHARE.arn(row.account, row.region, row.name),
            "status": "AVAILABLE",
            "creationTime": one["At"],
            "lastUpdatedTime": row.modified,
            "resourceRegionScope": "REGIONAL",
        }
        for row in _seen(a, view)
        for arn, one in row.doc["Resources"].items()
        if a.input.get("resourceType") in (None, one["Type"])
        and (not a.input.get("resourceArns") or arn in a.input["resourceArns"])
        and a.input.get("resourceRegionScope") in (None, "ALL", "REGIONAL")
        and _of(row, a.input.get("principal"), a.input["resourceOwner"])
    ]
    return _paged(a, "resources", found)


def _of(row: Row, principal: str | None, owner: str) -> bool:
    if not principal:
        return True
    return principal in (row.doc["Principals"] if owner == "SELF" else (row.account,))


@SHARE.reads("ListPrincipals", asks=[Ask("ram:ListPrincipals", anything)])
def principals(a: Authorised, view: View) -> Output:
    found: list[Output] = []
    for row in _seen(a, view):
        ids: Iterable[str] = row.doc["Principals"] if a.input["resourceOwner"] == "SELF" else (row.account,)
        if a.input.get("resourceArn") and a.input["resourceArn"] not in row.doc["Resources"]:
            continue
        for id in ids:
            if not a.input.get("principals") or id in a.input["principals"]:
                found.append(
                    {
                        "id": id,
                        "resourceShareArn": SHARE.arn(row.account, row.region, row.name),
                        "creationTime": row.created,
                        "lastUpdatedTime": row.modified,
                        "external": bool(row.doc["Principals"].get(id, {}).get("External")),
                    }
                )
    return _paged(a, "principals", found)
