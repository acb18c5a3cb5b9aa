"""Types of Direct Connect: circuits, their virtual interfaces, and the gateways that they lead to."""

from __future__ import annotations

from typing import Any, Final

from bastide.domain import Refused
from bastide.services.cloudformation.resource import Action, Resource, Type
from bastide.services.cloudformation.types.network import lacking
from bastide.services.cloudformation.types.regular import calls_of

_TAGS: Final = ("TagResource", "UntagResource")


def _tags(r: Resource) -> dict[str, list[dict[str, str]]]:
    tags = [{"key": one["Key"], "value": one["Value"]} for one in r.tags()]
    return {"tags": tags} if tags else {}


def _arn(r: Resource, kind: str, id: str) -> str:
    region = "" if kind == "dx-gateway" else r.stack.region
    return f"arn:aws:directconnect:{region}:{r.stack.account}:{kind}/{id}"


def _named(value: Any) -> str:
    """The id of what is named by id or ARN: Ref is the ARN."""
    return str(value or "").rpartition("/")[2]


async def _retag(r: Resource) -> None:
    left = {one["Key"] for one in r.old.get("Tags") or ()} - {one["Key"] for one in r.tags()}
    if left:
        await r.do("UntagResource", {"resourceArn": r.physical, "tagKeys": sorted(left)})
    if r.changed("Tags") and r.tags():
        await r.do("TagResource", {"resourceArn": r.physical, **_tags(r)})


def _made(r: Resource, kind: str, id: str, word: str) -> None:
    r.thing.physical = _arn(r, kind, id)
    r.thing.attributes = {f"{word}Arn": r.physical, f"{word}Id": id}


async def _create_connection(r: Resource) -> None:
    lacking(r, "LagId", "ProviderName", "RequestMACSec")
    asked = {"connectionName": r.get("ConnectionName"), "location": r.get("Location"), "bandwidth": r.get("Bandwidth")}
    made = await r.do("CreateConnection", {**asked, **_tags(r)}, key="create")
    _made(r, "dxcon", made["connectionId"], "Connection")


async def _update_connection(r: Resource) -> None:
    if r.changed("ConnectionName"):
        asked = {"connectionId": _named(r.physical), "connectionName": r.get("ConnectionName")}
        await r.do("UpdateConnection", asked)
    await _retag(r)


async def _delete_connection(r: Resource) -> None:
    await r.drop("DeleteConnection", {"connectionId": _named(r.physical)})


async def _create_gateway(r: Resource) -> None:
    asked: dict[str, Any] = {"directConnectGatewayName": r.get("DirectConnectGatewayName")}
    if r.get("AmazonSideAsn"):
        asked["amazonSideAsn"] = int(r.get("AmazonSideAsn"))
    made = (await r.do("CreateDirectConnectGateway", {**asked, **_tags(r)}, key="create"))["directConnectGateway"]
    _made(r, "dx-gateway", made["directConnectGatewayId"], "DirectConnectGateway")


async def _delete_gateway(r: Resource) -> None:
    await r.drop("DeleteDirectConnectGateway", {"directConnectGatewayId": _named(r.physical)})


async def _associate(r: Resource) -> None:
    lacking(r, "AcceptDirectConnectGatewayAssociationProposalRoleArn")
    prefixes = [{"cidr": one} for one in r.get("AllowedPrefixesToDirectConnectGateway") or ()]
    asked = {
        "directConnectGatewayId": _named(r.get("DirectConnectGatewayId")),
        "gatewayId": r.get("AssociatedGatewayId"),
        **({"addAllowedPrefixesToDirectConnectGateway": prefixes} if prefixes else {}),
    }
    made = await r.do("CreateDirectConnectGatewayAssociation", asked, key="create")
    r.thing.physical = made["directConnectGatewayAssociation"]["associationId"]
    r.thing.attributes = {"AssociationId": r.physical}


async def _dissociate(r: Resource) -> None:
    await r.drop("DeleteDirectConnectGatewayAssociation", {"associationId": r.physical})


def _interface(kind: str) -> Action:
    """Creates a virtual interface; the only BGP peer says the addresses."""

    async def create(r: Resource) -> None:
        lacking(r, f"Allocate{kind}VirtualInterfaceRoleArn", "EnableSiteLink", "RateLimit")
        peers = r.get("BgpPeers") or []
        if len(peers) != 1:
            raise Refused("ValidationError", "A virtual interface has one BGP peer here.")
        peer = peers[0]
        new: dict[str, Any] = {
            "virtualInterfaceName": r.get("VirtualInterfaceName"), "vlan": int(r.get("Vlan")), **_tags(r),
        }  # fmt: skip
        for name, member in (("Asn", "asn"), ("AuthKey", "authKey"), ("AddressFamily", "addressFamily"),
                             ("AmazonAddress", "amazonAddress"), ("CustomerAddress", "customerAddress")):  # fmt: skip
            if peer.get(name) is not None:
                new[member] = int(peer[name]) if name == "Asn" else peer[name]
        if r.get("Mtu"):
            new["mtu"] = int(r.get("Mtu"))
        if r.get("VirtualGatewayId"):
            new["virtualGatewayId"] = r.get("VirtualGatewayId")
        if r.get("DirectConnectGatewayId"):
            new["directConnectGatewayId"] = _named(r.get("DirectConnectGatewayId"))
        asked = {"connectionId": _named(r.get("ConnectionId")), f"new{kind}VirtualInterface": new}
        made = await r.do(f"Create{kind}VirtualInterface", asked, key="create")
        _made(r, "dxvif", made.get("virtualInterface", made)["virtualInterfaceId"], "VirtualInterface")

    return create


async def _delete_interface(r: Resource) -> None:
    await r.drop("DeleteVirtualInterface", {"virtualInterfaceId": _named(r.physical)})


def _own(r: Resource) -> str:
    return r.physical


def _type(
    name: str, create: Action, delete: Action, update: Action | None, *calls: str, replaces: tuple[str, ...] = ()
) -> Type:
    """replaces: properties that only another resource can have otherwise."""
    return Type(
        f"AWS::DirectConnect::{name}", "directconnect", create, delete, update, None,
        calls_of("directconnect", calls), frozenset(replaces), _own,
    )  # fmt: skip


TYPES: Final = (
    _type("Connection", _create_connection, _delete_connection, _update_connection, "CreateConnection",
          "DeleteConnection", "UpdateConnection", *_TAGS),
    _type("DirectConnectGateway", _create_gateway, _delete_gateway, _retag, "CreateDirectConnectGateway",
          "DeleteDirectConnectGateway", *_TAGS, replaces=("DirectConnectGatewayName",)),
    _type("DirectConnectGatewayAssociation", _associate, _dissociate, None, "CreateDirectConnectGatewayAssociation",
          "DeleteDirectConnectGatewayAssociation", replaces=("AllowedPrefixesToDirectConnectGateway",)),
    *(
        _type(f"{kind}VirtualInterface", _interface(kind), _delete_interface, _retag, f"Create{kind}VirtualInterface",
              "DeleteVirtualInterface", *_TAGS, replaces=("BgpPeers", "ConnectionId", "Mtu", "VirtualInterfaceName"))
        for kind in ("Private", "Transit")
    ),
)  # fmt: skip
"""Types of circuits."""
