"""Route tables of transit gateways: which attachments go by one, which ones tell it their addresses, and static routes."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Any, Final

from bastide.domain import MICROS, Refused
from bastide.engines.network import Transit
from bastide.engines.network.links import Links
from bastide.kernel import Authorised, Output
from bastide.kernel.kind import Handler
from bastide.services.ec2 import noun
from bastide.services.ec2.noun import ask, creating, describes, invalid, sliced
from bastide.services.ec2.nouns import TRANSIT_ATTACHMENT, TRANSIT_GATEWAY, TRANSIT_TABLE
from bastide.services.ec2.transit_gateway import new_table
from bastide.services.ec2.transit_noun import (
    ALIVE,
    Route,
    attachments,
    gateway,
    owned_attachment,
    routes,
    table,
    transit,
)
from bastide.store import Row, Transaction, View

_ID: Final = "TransitGatewayRouteTableId"
_THIS: Final = TRANSIT_TABLE.ids(_ID)
_ATTACHMENT: Final = TRANSIT_ATTACHMENT.ids("TransitGatewayAttachmentId")


def _settles(a: Authorised, view: View) -> list[Transit]:
    row = TRANSIT_TABLE.get(view, a.account, a.region, str(a.input[_ID]))
    return [] if row is None else transit(view, a.region, row.doc["Tgw"])


def _does_with_attachment(operation: str) -> Callable[[Handler], Handler]:
    """Declares an operation that asks for a table and an attachment, and changes which way packets go."""
    return TRANSIT_TABLE.does(operation, asks=[ask(operation, _THIS), ask(operation, _ATTACHMENT)], settles=_settles)


def _shown(a: Authorised, view: View, row: Row) -> Output:
    tgw = gateway(view, row.region, row.doc["Tgw"])
    options = tgw.doc["Options"] if tgw is not None else {}
    default = row.doc["Default"]
    return {
        _ID: row.name,
        "TransitGatewayId": row.doc["Tgw"],
        "State": "available",
        "DefaultAssociationRouteTable": default and options.get("DefaultRouteTableAssociation") == "enable",
        "DefaultPropagationRouteTable": default and options.get("DefaultRouteTablePropagation") == "enable",
        "CreationTime": row.created // MICROS * MICROS,
        "Tags": noun.tags_shown(row),
    }


@TRANSIT_TABLE.does(
    "CreateTransitGatewayRouteTable",
    asks=creating(
        TRANSIT_TABLE,
        "CreateTransitGatewayRouteTable",
        ask("CreateTransitGatewayRouteTable", TRANSIT_GATEWAY.ids("TransitGatewayId")),
    ),
)
def create(a: Authorised, tx: Transaction) -> Output:
    tgw = TRANSIT_GATEWAY.held(a, tx, a.input["TransitGatewayId"])
    row = new_table(a, tx, tgw.name, default=False, tags=None)
    return {"TransitGatewayRouteTable": {**_shown(a, tx, row), "State": "pending"}}


describes(
    TRANSIT_TABLE, "DescribeTransitGatewayRouteTables", "TransitGatewayRouteTables", "TransitGatewayRouteTableIds",
    _shown,
    {
        "transit-gateway-route-table-id": noun.name, "transit-gateway-id": noun.doc("Tgw"),
        "state": noun.fixed("available"),
        "default-association-route-table": lambda view, row: "true" if row.doc["Default"] else "false",
        "default-propagation-route-table": lambda view, row: "true" if row.doc["Default"] else "false",
    },
)  # fmt: skip


@TRANSIT_TABLE.does("DeleteTransitGatewayRouteTable", asks=[ask("DeleteTransitGatewayRouteTable", _THIS)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = table(a, tx, a.input[_ID])
    held = attachments(tx, a.region, row.doc["Tgw"])
    if row.doc["Default"] or any(one.doc["Table"] == row.name for one in held):
        raise Refused("IncorrectState", f"{row.name} has non-deleted associations, or is the default of its gateway.")
    for one in held:
        if row.name in one.doc["Propagates"]:
            one.doc["Propagates"] = [each for each in one.doc["Propagates"] if each != row.name]
            TRANSIT_ATTACHMENT.save(a, tx, one)
    TRANSIT_TABLE.drop(a, tx, row)
    return {"TransitGatewayRouteTable": {**_shown(a, tx, row), "State": "deleting"}}


# -- associations and propagations -------------------------------------------------------------------------------------


def _pair(a: Authorised, tx: Transaction) -> tuple[Row, Row]:
    """The table and the attachment that are named, of one gateway."""
    row = table(a, tx, a.input[_ID])
    if not a.input.get("TransitGatewayAttachmentId"):
        raise noun.missing("TransitGatewayAttachmentId")
    held = owned_attachment(a, tx, str(a.input["TransitGatewayAttachmentId"]))
    if held.doc["Tgw"] != row.doc["Tgw"]:
        raise invalid(f"{row.name} and {held.name} are of different transit gateways.")
    if held.status != ALIVE:
        raise Refused("IncorrectState", f"{held.name} is in invalid state")
    return row, held


def _saved(a: Authorised, tx: Transaction, row: Row, held: Row, state: str, **changed: Any) -> Output:
    held.doc |= changed
    TRANSIT_ATTACHMENT.save(a, tx, held)
    return _joined(row, held, state)


def _joined(row: Row, held: Row, state: str) -> Output:
    return {
        _ID: row.name,
        "TransitGatewayAttachmentId": held.name,
        "ResourceId": held.doc["Resource"],
        "ResourceType": held.doc["Type"],
        "State": state,
    }


@_does_with_attachment("AssociateTransitGatewayRouteTable")
def associate(a: Authorised, tx: Transaction) -> Output:
    row, held = _pair(a, tx)
    if held.doc["Table"]:
        raise Refused("Resource.AlreadyAssociated", f"Transit Gateway Attachment {held.name} is already associated.")
    return {"Association": _saved(a, tx, row, held, "associating", Table=row.name)}


@_does_with_attachment("DisassociateTransitGatewayRouteTable")
def disassociate(a: Authorised, tx: Transaction) -> Output:
    row, held = _pair(a, tx)
    if held.doc["Table"] != row.name:
        raise Refused("InvalidAssociation.NotFound", f"{held.name} is not associated with {row.name}.")
    return {"Association": _saved(a, tx, row, held, "disassociating", Table="")}


@_does_with_attachment("EnableTransitGatewayRouteTablePropagation")
def propagate(a: Authorised, tx: Transaction) -> Output:
    noun.unsupported(a, "TransitGatewayRouteTableAnnouncementId")
    row, held = _pair(a, tx)
    if row.name in held.doc["Propagates"]:
        raise Refused(
            "TransitGatewayRouteTablePropagation.Duplicate", f"Propagation of {held.name} to {row.name} exists."
        )
    return {"Propagation": _saved(a, tx, row, held, "enabled", Propagates=[*held.doc["Propagates"], row.name])}


@_does_with_attachment("DisableTransitGatewayRouteTablePropagation")
def stop_propagating(a: Authorised, tx: Transaction) -> Output:
    noun.unsupported(a, "TransitGatewayRouteTableAnnouncementId")
    row, held = _pair(a, tx)
    if row.name not in held.doc["Propagates"]:
        raise Refused("TransitGatewayRouteTablePropagation.NotFound", f"{held.name} does not propagate to {row.name}.")
    left = [one for one in held.doc["Propagates"] if one != row.name]
    return {"Propagation": _saved(a, tx, row, held, "disabled", Propagates=left)}


_JOINED: Final[dict[str, noun.Field]] = {
    "resource-id": noun.doc("Resource"),
    "resource-type": noun.doc("Type"),
    "transit-gateway-attachment-id": noun.name,
}


@TRANSIT_TABLE.tells(
    "GetTransitGatewayRouteTableAssociations", asks=[ask("GetTransitGatewayRouteTableAssociations", noun.anything)]
)
def associations(a: Authorised, view: View) -> Output:
    row = table(a, view, a.input[_ID])
    chosen = noun.filters(a, _JOINED)
    held = [one for one in attachments(view, a.region, row.doc["Tgw"]) if one.doc["Table"] == row.name]
    return sliced(a, "Associations", [_joined(row, one, "associated") for one in held if chosen(view, one)])


@TRANSIT_TABLE.tells(
    "GetTransitGatewayRouteTablePropagations", asks=[ask("GetTransitGatewayRouteTablePropagations", noun.anything)]
)
def propagations(a: Authorised, view: View) -> Output:
    row = table(a, view, a.input[_ID])
    chosen = noun.filters(a, _JOINED)
    held = [one for one in attachments(view, a.region, row.doc["Tgw"]) if row.name in one.doc["Propagates"]]
    found = [{key: value for key, value in _joined(row, one, "enabled").items() if key != _ID} for one in held]
    return sliced(
        a,
        "TransitGatewayRouteTablePropagations",
        [one for one, each in zip(found, held, strict=True) if chosen(view, each)],
    )


# -- routes ------------------------------------------------------------------------------------------------------------


def cidr_of(text: str) -> str:
    """An IPv4 destination in canonical form; raises InvalidParameterValue."""
    try:
        found = ipaddress.IPv4Network(text, strict=False)
    except ValueError:
        found = None
    if found is None or "/" not in text:
        raise invalid(
            f"Value ({text[:64]}) for parameter destinationCidrBlock is invalid. This is not a valid CIDR block."
        )
    if found.overlaps(ipaddress.IPv4Network("169.254.0.0/16")) and found.prefixlen > 0:
        raise invalid(f"The destination CIDR block {found} is reserved.")
    return str(found)


def _route(one: Route) -> Output:
    shown: dict[str, Any] = {
        "DestinationCidrBlock": one.cidr,
        "Type": "static" if one.static else "propagated",
        "State": "active" if one.active else "blackhole",
        "TransitGatewayAttachments": [],
    }
    if one.attachment is not None:
        shown["TransitGatewayAttachments"] = [
            {
                "ResourceId": one.attachment.doc["Resource"],
                "TransitGatewayAttachmentId": one.attachment.name,
                "ResourceType": one.attachment.doc["Type"],
            }
        ]
    return shown


def _put(a: Authorised, tx: Transaction, *, exists: bool) -> Output:
    row = table(a, tx, a.input[_ID])
    cidr = cidr_of(str(a.input["DestinationCidrBlock"]))
    if exists != (cidr in row.doc["Routes"]):
        if exists:
            raise Refused("InvalidRoute.NotFound", f"Route {cidr} does not exist in {row.name}.")
        raise Refused("RouteAlreadyExists", f"Route {cidr} already exists in {row.name}.")
    id = str(a.input.get("TransitGatewayAttachmentId") or "")
    if bool(id) == bool(a.input.get("Blackhole")):
        raise Refused("InvalidParameterCombination", "Either an attachment or Blackhole has to be given.")
    if id:
        _pair(a, tx)
    row.doc["Routes"] = {**row.doc["Routes"], cidr: id}
    TRANSIT_TABLE.save(a, tx, row)
    found = next(one for one in routes(tx, row, a.engine(Links)) if one.cidr == cidr)
    return {"Route": _route(found)}


@_does_with_attachment("CreateTransitGatewayRoute")
def create_route(a: Authorised, tx: Transaction) -> Output:
    return _put(a, tx, exists=False)


@_does_with_attachment("ReplaceTransitGatewayRoute")
def replace_route(a: Authorised, tx: Transaction) -> Output:
    return _put(a, tx, exists=True)


@TRANSIT_TABLE.does("DeleteTransitGatewayRoute", asks=[ask("DeleteTransitGatewayRoute", _THIS)], settles=_settles)
def delete_route(a: Authorised, tx: Transaction) -> Output:
    row = table(a, tx, a.input[_ID])
    cidr = cidr_of(str(a.input["DestinationCidrBlock"]))
    if cidr not in row.doc["Routes"]:
        raise Refused("InvalidRoute.NotFound", f"Route {cidr} does not exist in {row.name}.")
    found = next(one for one in routes(tx, row, a.engine(Links)) if one.cidr == cidr)
    row.doc["Routes"] = {key: value for key, value in row.doc["Routes"].items() if key != cidr}
    TRANSIT_TABLE.save(a, tx, row)
    return {"Route": {**_route(found), "State": "deleted"}}


def _asked_networks(value: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(value, strict=False)
    except ValueError:
        raise invalid(f"'{value[:64]}' is no CIDR block.") from None


def _matches(name: str, values: list[str], one: Route, best: int) -> bool:
    """Whether a route passes a filter of SearchTransitGatewayRoutes."""
    held = one.attachment
    texts: dict[str, Iterable[str]] = {
        "type": ["static" if one.static else "propagated"],
        "state": ["active" if one.active else "blackhole"],
        "attachment.transit-gateway-attachment-id": [held.name] if held else [],
        "attachment.resource-id": [held.doc["Resource"]] if held else [],
        "attachment.resource-type": [held.doc["Type"]] if held else [],
    }
    if name in texts:
        return any(noun.wildcard(value)(text) for value in values for text in texts[name])
    cidr = ipaddress.IPv4Network(one.cidr)
    networks = [_asked_networks(value) for value in values]
    if name == "route-search.exact-match":
        return cidr in networks
    if name == "route-search.subnet-of-match":
        return any(cidr.subnet_of(each) for each in networks)
    if name == "route-search.supernet-of-match":
        return any(cidr.supernet_of(each) for each in networks)
    if name == "route-search.longest-prefix-match":
        return any(cidr.supernet_of(each) for each in networks) and cidr.prefixlen == best
    raise invalid(f"The filter '{name}' is invalid")


@TRANSIT_TABLE.tells("SearchTransitGatewayRoutes", asks=[ask("SearchTransitGatewayRoutes", _THIS)])
def search(a: Authorised, view: View) -> Output:
    row = table(a, view, a.input[_ID])
    held = routes(view, row, a.engine(Links))
    for one in a.input.get("Filters") or ():
        name, values = str(one.get("Name", "")), [str(value) for value in one.get("Values") or ()]
        best = -1
        if name == "route-search.longest-prefix-match":
            wanted = [_asked_networks(value) for value in values]
            best = max(
                (
                    ipaddress.IPv4Network(each.cidr).prefixlen
                    for each in held
                    if any(ipaddress.IPv4Network(each.cidr).supernet_of(asked) for asked in wanted)
                ),
                default=-1,
            )
        held = [each for each in held if _matches(name, values, each, best)]
    limit = noun.page_size(a)
    return {"Routes": [_route(one) for one in held[:limit]], "AdditionalRoutesAvailable": len(held) > limit}
