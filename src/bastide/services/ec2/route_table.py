"""Route tables: the local route, a route to the prefix list of each gateway endpoint that is associated, and those of
`route.py`.

A subnet without an association of its own goes by the VPC's main table.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import Refused, Tags
from bastide.engines.network.links import Links
from bastide.kernel import Asked, Authorised, Output, once
from bastide.services.ec2 import internet_gateway, noun, vpn_gateway
from bastide.services.ec2.noun import IN, ask, creating, describes, invalid
from bastide.services.ec2.nouns import NAT_GATEWAY, ROUTE_TABLE, SUBNET, TRANSIT_ATTACHMENT, VPC, VPC_ENDPOINT
from bastide.services.ec2.services import prefix_list
from bastide.services.ec2.transit_noun import ALIVE
from bastide.store import Row, Transaction, View

ASSOCIATION: Final = "ec2:RouteTableAssociation"
"""Rows named by an association's id, which say which table it is in."""
_MOST_TABLES: Final = 200
_MEMBERS: Final = {"igw": "GatewayId", "nat": "NatGatewayId", "tgw": "TransitGatewayId", "vgw": "GatewayId"}
"""By what a route's target begins with, the member that names it."""


def new_table(a: Authorised, tx: Transaction, vpc: str, *, main: bool, tags: Tags | None = None) -> Row:
    """A new table of a VPC."""
    id = ROUTE_TABLE.new_id()
    held = [_associate(a, tx, id, None)] if main else []
    doc = {"VpcId": vpc, "Associations": held, "Endpoints": [], "Routes": {}}
    return ROUTE_TABLE.put(a, tx, id, doc, inside=[vpc], tags=tags)


def _associate(a: Authorised, tx: Transaction, table: str, subnet: str | None) -> dict[str, Any]:
    id = f"rtbassoc-0{secrets.token_hex(8)}"
    tx.insert(Row(ASSOCIATION, a.account, a.region, id, {"Table": table}), keep=False)
    return {"Id": id, "Subnet": subnet}


def is_main(row: Row) -> bool:
    """Whether a table is its VPC's main one."""
    return any(one["Subnet"] is None for one in row.doc["Associations"])


def _routes(row: Row, vpc: Row | None, view: View, links: Links | None = None) -> list[Output]:
    routes: list[Output] = []
    if vpc is not None:
        routes.append(
            {
                "DestinationCidrBlock": vpc.doc["CidrBlock"],
                "GatewayId": "local",
                "Origin": "CreateRouteTable",
                "State": "active",
            }
        )
    for id in row.doc["Endpoints"]:
        endpoint = VPC_ENDPOINT.get(view, row.account, row.region, id)
        if endpoint is not None:
            routes.append(
                {
                    "DestinationPrefixListId": prefix_list(row.region, endpoint.doc["Service"].rpartition(".")[2])[0],
                    "GatewayId": id,
                    "Origin": "CreateRoute",
                    "State": "active",
                }
            )
    for cidr, id in sorted(row.doc.get("Routes", {}).items()):
        kind = id.partition("-")[0]
        stands = (
            internet_gateway.attached(view, row, id)
            if kind == "igw"
            else vpn_gateway.attached(view, row, id)
            if kind == "vgw"
            else nat_stands(view, row, id)
            if kind == "nat"
            else way_out(view, row, id) is not None
        )
        routes.append(
            {
                "DestinationCidrBlock": cidr,
                _MEMBERS[kind]: id,
                "Origin": "CreateRoute",
                "State": "active" if stands else "blackhole",
            }
        )
    if links is not None:
        routes += [
            {
                "DestinationCidrBlock": cidr,
                "GatewayId": id,
                "Origin": "EnableVgwRoutePropagation",
                "State": "active",
            }
            for cidr, id in sorted(vpn_gateway.propagated(view, row, links).items())
        ]
    return routes


def nat_stands(view: View, table: Row, id: str) -> bool:
    """Whether a NAT gateway is there, in the VPC of a route table."""
    row = NAT_GATEWAY.get(view, table.account, table.region, id)
    return row is not None and row.doc["VpcId"] == table.doc["VpcId"] and row.status == "available"


def way_out(view: View, table: Row, transit_gateway: str) -> Row | None:
    """The attachment by which a table's VPC reaches a transit gateway; None if there is none that is accepted."""
    for row in TRANSIT_ATTACHMENT.inside(view, table.account, table.region, table.doc["VpcId"]):
        if row.doc["Tgw"] == transit_gateway and row.status == ALIVE:
            return row
    return None


def _shown(a: Authorised, view: View, row: Row) -> Output:
    return {
        "RouteTableId": row.name,
        "VpcId": row.doc["VpcId"],
        "OwnerId": row.account,
        "Associations": [
            {
                "Main": one["Subnet"] is None,
                "RouteTableAssociationId": one["Id"],
                "RouteTableId": row.name,
                "SubnetId": one["Subnet"],
                "AssociationState": {"State": "associated"},
            }
            for one in row.doc["Associations"]
        ],
        "PropagatingVgws": [{"GatewayId": one} for one in row.doc.get("Propagating", ())],
        "Routes": _routes(row, VPC.get(view, a.account, a.region, row.doc["VpcId"]), view, a.engine(Links)),
        "Tags": noun.tags_shown(row),
    }


@ROUTE_TABLE.does(
    "CreateRouteTable", asks=creating(ROUTE_TABLE, "CreateRouteTable", ask("CreateRouteTable", VPC.ids("VpcId")))
)
def create(a: Authorised, tx: Transaction) -> Output:
    vpc = VPC.held(a, tx, a.input["VpcId"])
    if (
        len(tx.scan(IN, a.account, a.region, prefix=f"{vpc.name}/{ROUTE_TABLE.resource}/", limit=_MOST_TABLES))
        == _MOST_TABLES
    ):
        raise Refused("RouteTableLimitExceeded", "The maximum number of route tables has been reached.")

    def make() -> Output:
        made = new_table(a, tx, vpc.name, main=False)
        return {"RouteTable": _shown(a, tx, made), "ClientToken": a.input.get("ClientToken")}

    return once(a, tx, a.input.get("ClientToken"), make, code="IdempotentParameterMismatch")


def _associated(of: str) -> noun.Field:
    return lambda view, row: [one[of] for one in row.doc["Associations"] if one[of] is not None]


def _of_routes(member: str) -> noun.Field:
    def read(view: View, row: Row) -> Iterable[str]:
        routes = _routes(row, VPC.get(view, row.account, row.region, row.doc["VpcId"]), view)
        return [route[member] for route in routes if route.get(member)]

    return read


describes(
    ROUTE_TABLE, "DescribeRouteTables", "RouteTables", "RouteTableIds", _shown,
    {
        "route-table-id": noun.name, "vpc-id": noun.doc("VpcId"), "owner-id": noun.owner,
        "association.main": lambda view, row: "true" if is_main(row) else "false",
        "association.route-table-association-id": _associated("Id"),
        "association.subnet-id": _associated("Subnet"),
        "association.route-table-id": lambda view, row: row.name if row.doc["Associations"] else None,
        "route.gateway-id": _of_routes("GatewayId"), "route.state": _of_routes("State"),
        "route.nat-gateway-id": _of_routes("NatGatewayId"),
        "route.transit-gateway-id": _of_routes("TransitGatewayId"), "route.origin": _of_routes("Origin"),
        "route.destination-cidr-block": _of_routes("DestinationCidrBlock"),
        "route.destination-prefix-list-id": _of_routes("DestinationPrefixListId"),
    },
)  # fmt: skip


def vpc_of_table(a: Authorised, view: View) -> Iterable[str]:
    row = ROUTE_TABLE.get(view, a.account, a.region, str(a.input.get("RouteTableId", "")))
    return [] if row is None else [row.doc["VpcId"]]


@ROUTE_TABLE.does(
    "DeleteRouteTable", asks=[ask("DeleteRouteTable", ROUTE_TABLE.ids("RouteTableId"))], settles=vpc_of_table
)
def delete(a: Authorised, tx: Transaction) -> Output:
    row = ROUTE_TABLE.held(a, tx, a.input["RouteTableId"])
    if row.doc["Associations"]:
        raise Refused("DependencyViolation", f"The routeTable '{row.name}' has dependencies and cannot be deleted.")
    for id in row.doc["Endpoints"]:
        endpoint = VPC_ENDPOINT.get(tx, a.account, a.region, id)
        if endpoint is not None:
            endpoint.doc["RouteTableIds"] = [one for one in endpoint.doc["RouteTableIds"] if one != row.name]
            VPC_ENDPOINT.save(a, tx, endpoint)
    ROUTE_TABLE.drop(a, tx, row)
    return {}


# -- associations ------------------------------------------------------------------------------------------------------


@ROUTE_TABLE.does(
    "AssociateRouteTable",
    asks=[
        ask("AssociateRouteTable", ROUTE_TABLE.ids("RouteTableId")),
        ask("AssociateRouteTable", SUBNET.ids("SubnetId")),
    ],
    settles=vpc_of_table,
)
def associate(a: Authorised, tx: Transaction) -> Output:
    noun.unsupported(a, "GatewayId", "PublicIpv4Pool")
    if not a.input.get("SubnetId"):
        raise noun.missing("subnetId")
    table = ROUTE_TABLE.held(a, tx, a.input["RouteTableId"])
    subnet = SUBNET.held(a, tx, a.input["SubnetId"])
    if subnet.doc["VpcId"] != table.doc["VpcId"]:
        raise invalid(f"Route table {table.name} and subnet {subnet.name} belong to different networks")
    if subnet.doc.get("Table") is not None:
        raise Refused(
            "Resource.AlreadyAssociated",
            f"the specified association for route table {table.name} conflicts with an existing association",
        )
    return _joined(a, tx, table, subnet)


def _joined(a: Authorised, tx: Transaction, table: Row, subnet: Row) -> Output:
    made = _associate(a, tx, table.name, subnet.name)
    table.doc["Associations"] = [*table.doc["Associations"], made]
    ROUTE_TABLE.save(a, tx, table)
    subnet.doc["Table"] = table.name
    SUBNET.save(a, tx, subnet)
    return {"AssociationId": made["Id"], "AssociationState": {"State": "associated"}}


def _table_of(view: View, account: str, region: str, association: str) -> Row | None:
    held = view.get(ASSOCIATION, account, region, association)
    return None if held is None else ROUTE_TABLE.get(view, account, region, held.doc["Table"])


def _associated_table(asked: Asked) -> Iterable[str]:
    call = asked.call
    row = _table_of(asked.view, call.account, call.region, str(call.input["AssociationId"]))
    return (ROUTE_TABLE.arn(call.account, call.region, "*" if row is None else row.name),)


def _associated_subnet(asked: Asked) -> Iterable[str]:
    call = asked.call
    row = _table_of(asked.view, call.account, call.region, str(call.input["AssociationId"]))
    for one in row.doc["Associations"] if row is not None else ():
        if one["Id"] == call.input["AssociationId"] and one["Subnet"] is not None:
            yield SUBNET.arn(call.account, call.region, one["Subnet"])


def _vpc_of_association(a: Authorised, view: View) -> Iterable[str]:
    row = _table_of(view, a.account, a.region, str(a.input["AssociationId"]))
    return [] if row is None else [row.doc["VpcId"]]


def _taken_out(a: Authorised, tx: Transaction) -> tuple[Row, dict[str, Any]]:
    """The table of the association named, without it; raises InvalidAssociationID.NotFound."""
    id = str(a.input["AssociationId"])
    table = _table_of(tx, a.account, a.region, id)
    held = tx.get(ASSOCIATION, a.account, a.region, id)
    if table is None or held is None:
        raise Refused("InvalidAssociationID.NotFound", f"The association ID '{id}' does not exist")
    found = next(one for one in table.doc["Associations"] if one["Id"] == id)
    tx.delete(held, keep=False)
    table.doc["Associations"] = [one for one in table.doc["Associations"] if one["Id"] != id]
    return table, found


def leave(a: Authorised, tx: Transaction, subnet: Row) -> None:
    """Takes a subnet that is about to go out of its table."""
    table = ROUTE_TABLE.get(tx, a.account, a.region, subnet.doc.get("Table") or "")
    if table is None:
        return
    for one in table.doc["Associations"]:
        held = tx.get(ASSOCIATION, a.account, a.region, one["Id"])
        if one["Subnet"] == subnet.name and held is not None:
            tx.delete(held, keep=False)
    table.doc["Associations"] = [one for one in table.doc["Associations"] if one["Subnet"] != subnet.name]
    ROUTE_TABLE.save(a, tx, table)


@ROUTE_TABLE.does(
    "DisassociateRouteTable",
    asks=[ask("DisassociateRouteTable", _associated_table), ask("DisassociateRouteTable", _associated_subnet)],
    settles=_vpc_of_association,
)
def disassociate(a: Authorised, tx: Transaction) -> Output:
    table, found = _taken_out(a, tx)
    if found["Subnet"] is None:
        raise invalid(f"cannot disassociate the main route table association {found['Id']}")
    ROUTE_TABLE.save(a, tx, table)
    subnet = SUBNET.held(a, tx, found["Subnet"])
    subnet.doc["Table"] = None
    SUBNET.save(a, tx, subnet)
    return {}


@ROUTE_TABLE.does(
    "ReplaceRouteTableAssociation",
    asks=[
        ask("ReplaceRouteTableAssociation", ROUTE_TABLE.ids("RouteTableId")),
        ask("ReplaceRouteTableAssociation", _associated_table),
        ask("ReplaceRouteTableAssociation", _associated_subnet),
    ],
    settles=_vpc_of_association,
)
def replace(a: Authorised, tx: Transaction) -> Output:
    table, found = _taken_out(a, tx)
    wanted = ROUTE_TABLE.held(a, tx, a.input["RouteTableId"])
    if wanted.doc["VpcId"] != table.doc["VpcId"]:
        raise invalid(f"Route tables {wanted.name} and {table.name} belong to different networks")
    ROUTE_TABLE.save(a, tx, table)
    wanted = ROUTE_TABLE.held(a, tx, wanted.name)
    if found["Subnet"] is not None:
        joined = _joined(a, tx, wanted, SUBNET.held(a, tx, found["Subnet"]))
        return {"NewAssociationId": joined["AssociationId"], "AssociationState": joined["AssociationState"]}
    made = _associate(a, tx, wanted.name, None)
    wanted.doc["Associations"] = [*wanted.doc["Associations"], made]
    ROUTE_TABLE.save(a, tx, wanted)
    vpc = VPC.held(a, tx, wanted.doc["VpcId"])
    vpc.doc["Main"] = wanted.name
    VPC.save(a, tx, vpc)
    return {"NewAssociationId": made["Id"], "AssociationState": {"State": "associated"}}
