"""What the nouns of transit gateways have in common: whose they are, what is attached, and what a route table leads to.

A gateway and its tables are their owner's; an attachment is of whoever has the VPC, and both sides see it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from bastide.engines.network import Transit, Vpc
from bastide.engines.network.links import Declared, Links
from bastide.kernel import Asked, Authorised, shares
from bastide.kernel.circuits import circuits
from bastide.services.ec2.nouns import (
    CUSTOMER_GATEWAY,
    TRANSIT_ATTACHMENT,
    TRANSIT_GATEWAY,
    TRANSIT_TABLE,
    VPC,
    VPN_CONNECTION,
)
from bastide.store import Row, Transaction, View

OF: Final = "ec2:TransitOf"
"""Rows named by the id of a gateway or an attachment, under no account: whose it is."""
ATTACHED: Final = "ec2:TransitAttached"
"""Rows ``GATEWAY/ATTACHMENT``, under no account."""
ALIVE: Final = "available"
CIRCUITS: Final = "direct-connect-gateway"
"""The type of an attachment that Direct Connect leads to."""
_ORDER: Final = ("vpc", CIRCUITS, "vpn")
"""Whose propagated routes go first."""


def belongs(tx: Transaction, row: Row) -> None:
    """Has a new gateway or attachment be found by its id alone."""
    tx.insert(Row(OF, "", row.region, row.name, {"Account": row.account}), keep=False)


def gone(tx: Transaction, row: Row) -> None:
    """It is not found any more."""
    held = tx.get(OF, "", row.region, row.name)
    if held is not None:
        tx.delete(held, keep=False)


def _owner(view: View, region: str, id: str) -> str:
    held = view.get(OF, "", region, id)
    return "" if held is None else str(held.doc["Account"])


def gateway(view: View, region: str, id: str) -> Row | None:
    """A gateway by its id, whosever it is."""
    return TRANSIT_GATEWAY.get(view, _owner(view, region, id), region, id)


def attachment(view: View, region: str, id: str) -> Row | None:
    """An attachment by its id, whosever it is."""
    return TRANSIT_ATTACHMENT.get(view, _owner(view, region, id), region, id)


def attachments(view: View, region: str, id: str) -> list[Row]:
    """All attachments of a gateway."""
    found: list[Row] = []
    after: str | None = None
    while True:
        rows = view.scan(ATTACHED, "", region, prefix=f"{id}/", after=after, limit=500)
        for one in rows:
            row = attachment(view, region, one.name.partition("/")[2])
            if row is not None:
                found.append(row)
        if len(rows) < 500:
            return found
        after = rows[-1].name


def visible(a: Authorised, view: View) -> list[Row]:
    """The gateways that the caller's account has, or that are shared with it."""
    place = a.calls.organisation.place(view, a.account)
    found = {row.name: row for row in view.scan(TRANSIT_GATEWAY.key, a.account, a.region, limit=500)}
    for arn in shares.shared(view, a.region, a.account, place[1] if place else ""):
        kind, _, id = arn.rpartition(":")[2].partition("/")
        row = gateway(view, a.region, id) if kind == TRANSIT_GATEWAY.resource else None
        if row is not None:
            found[id] = row
    return [found[id] for id in sorted(found)]


def seen_gateway(a: Authorised, view: View, id: str) -> Row:
    """A gateway that the caller's account may see; raises InvalidTransitGatewayID.NotFound."""
    for row in visible(a, view):
        if row.name == id:
            return row
    return TRANSIT_GATEWAY.held(a, view, id)


def seen_attachment(a: Authorised, view: View, id: str) -> Row:
    """An attachment that is the caller's, or of a gateway that is; raises InvalidTransitGatewayAttachmentID.NotFound."""
    row = attachment(view, a.region, id)
    if row is None or a.account not in (row.account, row.doc["TgwOwner"]):
        return TRANSIT_ATTACHMENT.held(a, view, id)
    return row


def owned_attachment(a: Authorised, view: View, id: str) -> Row:
    """An attachment of a gateway that is the caller's; raises InvalidTransitGatewayAttachmentID.NotFound."""
    row = seen_attachment(a, view, id)
    if row.doc["TgwOwner"] != a.account:
        return TRANSIT_ATTACHMENT.find(view, "", a.region, id)
    return row


def gateway_arn(asked: Asked) -> Iterable[str]:
    """Of the gateway that a call names, with its owner's account: who is no owner needs a share."""
    call = asked.call
    id = call.input.get("TransitGatewayId")
    if id:
        yield TRANSIT_GATEWAY.arn(_owner(asked.view, call.region, str(id)) or call.account, call.region, str(id))


def transit(view: View, region: str, id: str) -> list[Transit]:
    """The gateway as the engine names it; none if it does not exist."""
    owner = _owner(view, region, id)
    return [Transit(owner, region, id)] if owner else []


def concerned(view: View, region: str, attachment_id: str) -> list[Vpc | Transit]:
    """Whose packets go another way when an attachment changes."""
    row = attachment(view, region, attachment_id)
    if row is None:
        return []
    vpc = [Vpc(row.account, region, row.doc["Resource"])] if row.doc["Type"] == "vpc" else []
    return [*vpc, *transit(view, region, row.doc["Tgw"])]


# -- what lies behind an attachment, and where a table leads -----------------------------------------------------------


def vpn_of(view: View, row: Row) -> Row | None:
    """The VPN connection that an attachment is of."""
    held = row.doc["Type"] == "vpn"
    return VPN_CONNECTION.get(view, row.account, row.region, row.doc["Resource"]) if held else None


def declared(view: View, vpn: Row | None, links: Links) -> Declared | None:
    """What the operator declared to stand behind a VPN connection."""
    held = None if vpn is None else CUSTOMER_GATEWAY.get(view, vpn.account, vpn.region, vpn.doc["CustomerGatewayId"])
    return None if held is None else links.find(held.doc["IpAddress"])


def ranges(view: View, row: Row, links: Links) -> tuple[str, ...]:
    """The addresses behind an attachment."""
    if row.doc["Type"] == "vpc":
        vpc = VPC.get(view, row.account, row.region, row.doc["Resource"])
        return () if vpc is None else (vpc.doc["CidrBlock"],)
    if row.doc["Type"] == CIRCUITS:
        ends = [links.find(one.connection) for one in circuits(view, row.doc["Tgw"]) if one.by == row.doc["Resource"]]
        return next((one.far.ranges for one in ends if one is not None), ())
    found = declared(view, vpn_of(view, row), links)
    return () if found is None else found.far.ranges


@dataclass(frozen=True, slots=True)
class Route:
    """A route of a transit gateway's table. attachment: None for a blackhole."""

    cidr: str
    attachment: Row | None
    static: bool
    active: bool


def routes(view: View, table: Row, links: Links) -> list[Route]:
    """All routes of a table: what is static goes before what is propagated, a VPC before a circuit, and that before a
    VPN."""
    found: dict[str, Route] = {}
    for cidr, id in table.doc["Routes"].items():
        held = attachment(view, table.region, id) if id else None
        found[cidr] = Route(cidr, held, static=True, active=held is not None and held.status == ALIVE)
    propagating = [
        row
        for row in attachments(view, table.region, table.doc["Tgw"])
        if table.name in row.doc["Propagates"] and row.status == ALIVE
    ]
    for row in sorted(propagating, key=lambda row: (_ORDER.index(row.doc["Type"]), row.name)):
        if row.doc.get("StaticOnly"):
            continue
        for cidr in ranges(view, row, links):
            found.setdefault(cidr, Route(cidr, row, static=False, active=True))
    return sorted(found.values(), key=lambda one: ipaddress.IPv4Network(one.cidr))


def table(a: Authorised, view: View, id: str) -> Row:
    """A table of the caller's; raises InvalidRouteTableID.NotFound."""
    return TRANSIT_TABLE.held(a, view, id)
