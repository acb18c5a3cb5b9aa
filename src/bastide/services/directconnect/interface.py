"""Virtual interfaces: private ones lead to a VPC's gateway, transit ones by a Direct Connect gateway to transit gateways.

One that is allocated to another account waits until that account confirms it. Public ones would lead to an internet that is
not here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from bastide.engines.network import Transit, Vpc
from bastide.kernel import Ask, Asked, Authorised, Output, fills
from bastide.kernel.circuits import Gateways, lead, unlead
from bastide.kernel.context import tag_keys
from bastide.services.directconnect.noun import (
    CONNECTION,
    GATEWAY,
    INTERFACE,
    interfaces,
    new_id,
    paged,
    refuse,
    settling,
    tags_of,
    tags_shown,
    up,
    wrong,
)
from bastide.store import Row, Transaction, View

_WITHOUT_EFFECT: Final = (
    "authKey", "enableSiteLink", "prefixPoolAllocatedCountIpv4", "prefixPoolAllocatedCountIpv6", "rateLimit",
)  # fmt: skip
_MTU: Final = 1500
_WAITING: Final = "confirming"


def _shown(a: Authorised, row: Row) -> Output:
    doc = row.doc
    target = {"virtualGatewayId": doc["Target"]} if doc["Target"].startswith("vgw-") else {}
    target = {"directConnectGatewayId": doc["Target"]} if doc["Target"] and not target else target
    state = row.status if row.status != "available" or up(a, doc["Connection"]) else "down"
    return {
        "ownerAccount": row.account,
        "virtualInterfaceId": row.name,
        "connectionId": doc["Connection"],
        "location": doc["Location"],
        "region": row.region,
        "virtualInterfaceType": doc["Type"],
        "virtualInterfaceName": doc["Name"],
        "vlan": doc["Vlan"],
        "asn": doc["Asn"],
        "addressFamily": "ipv4",
        "amazonAddress": doc["Amazon"],
        "customerAddress": doc["Customer"],
        "virtualInterfaceState": state,
        "mtu": _MTU,
        "jumboFrameCapable": False,
        "bgpPeers": [],
        "tags": tags_shown(row),
        **target,
    }


def _addresses(given: Mapping[str, Any]) -> tuple[str, str]:
    """Both ends of the interface's own network."""
    found = []
    for member, usual in (("amazonAddress", "169.254.255.1/30"), ("customerAddress", "169.254.255.2/30")):
        text = str(given.get(member) or usual)
        try:
            found.append(str(ipaddress.IPv4Interface(text)))
        except ValueError:
            raise wrong(f"{text[:64]} is no address for {member}.") from None
    return found[0], found[1]


def _new(a: Authorised, tx: Transaction, kind: str, given: Mapping[str, Any], account: str, target: str) -> Row:
    refuse(given, *_WITHOUT_EFFECT)
    if given.get("mtu") not in (None, _MTU):
        raise wrong(f"The MTU of virtual interfaces is {_MTU} here.")
    if given.get("addressFamily") not in (None, "ipv4"):
        raise wrong("The address family of virtual interfaces is ipv4 here.")
    connection = CONNECTION.named(a, tx)
    vlan = int(given["vlan"])
    if not 1 <= vlan <= 4094 or any(one.doc["Vlan"] == vlan for one in interfaces(tx, connection.name)):
        raise wrong(f"The VLAN {vlan} is not free on {connection.name}.")
    amazon, customer = _addresses(given)
    doc = {
        "Type": kind, "Name": given["virtualInterfaceName"], "Vlan": vlan, "Amazon": amazon, "Customer": customer,
        "Asn": int(given.get("asn") or given.get("asnLong") or 65000), "Connection": connection.name,
        "Location": connection.doc["Location"], "Lessor": a.account, "Target": target,
    }  # fmt: skip
    row = Row(
        INTERFACE.key, account, a.region, new_id("dxvif"), doc, "available" if target else _WAITING, tags_of(given)
    )
    INTERFACE.insert(tx, row, a.operation.name, a.request.id)
    lead(tx, connection.name, row.name, _place(row))
    if target:
        lead(tx, target, row.name, _place(row))
    return row


def _place(row: Row) -> dict[str, Any]:
    return {"Account": row.account, "Region": row.region, "Connection": row.doc["Connection"]}


def _target(a: Authorised, view: View, kind: str, given: Mapping[str, Any]) -> str:
    """The gateway that an interface is to lead to; raises Refused."""
    virtual, gateway = str(given.get("virtualGatewayId") or ""), str(given.get("directConnectGatewayId") or "")
    if bool(virtual) == bool(gateway):
        raise wrong("Either virtualGatewayId or directConnectGatewayId has to be given.")
    if virtual:
        if a.engine(Gateways).kind(a, view, virtual) != "virtualPrivateGateway":
            raise wrong(f"{virtual} is no virtual private gateway.")
        return virtual
    held = GATEWAY.find(view, a.account, "", gateway)
    kinds = {one["Type"] for one in held.doc["Associations"].values()}
    kinds |= {"transitGateway" if one.doc["Type"] == "transit" else "virtualPrivateGateway" for one in
              interfaces(view, gateway)}  # fmt: skip
    wanted = "transitGateway" if kind == "transit" else "virtualPrivateGateway"
    if kinds - {wanted}:
        raise wrong(f"{gateway} is used for interfaces and gateways of the other kind.")
    return gateway


def concerned(a: Authorised, view: View, target: str) -> Iterable[Vpc | Transit]:
    """Whose packets go another way when an interface leads to a gateway."""
    if target.startswith("vgw-"):
        yield from a.engine(Gateways).concerned(view, a.region, target)
    held = GATEWAY.get(view, a.account, "", target)
    for id, one in held.doc["Associations"].items() if held is not None else ():
        yield from a.engine(Gateways).concerned(view, one["Region"], id)


_NEW: Final = {"private": "newPrivateVirtualInterface", "transit": "newTransitVirtualInterface"}


def _given(a: Authorised, kind: str) -> dict[str, Any]:
    return dict(a.input[_NEW[kind]])


def _named(given: Mapping[str, Any]) -> str:
    return str(given.get("virtualGatewayId") or given.get("directConnectGatewayId") or "")


def _answer(a: Authorised, kind: str, row: Row) -> Output:
    shown = {**_shown(a, row), "virtualInterfaceState": "pending" if row.status == "available" else row.status}
    return shown if kind == "private" else {"virtualInterface": shown}


def _declare(kind: str, word: str) -> None:
    """The operations of one kind of interface."""

    def create(a: Authorised, tx: Transaction) -> Output:
        given = _given(a, kind)
        return _answer(a, kind, _new(a, tx, kind, given, a.account, _target(a, tx, kind, given)))

    def allocate(a: Authorised, tx: Transaction) -> Output:
        account = str(a.input["ownerAccount"])
        if account == a.account or a.calls.organisation.place(tx, account) is None:
            raise wrong(f"{account[:12]} is no other account of this organisation.")
        return _answer(a, kind, _new(a, tx, kind, a.input[f"{_NEW[kind]}Allocation"], account, ""))

    def confirm(a: Authorised, tx: Transaction) -> Output:
        row = INTERFACE.named(a, tx)
        if row.status != _WAITING or row.doc["Type"] != kind:
            raise wrong(f"{row.name} does not wait to be confirmed as a {kind} virtual interface.")
        row.doc["Target"] = _target(a, tx, kind, a.input)
        row.status = "available"
        INTERFACE.change(tx, row, a.operation.name, a.request.id)
        lead(tx, row.doc["Target"], row.name, _place(row))
        return {"virtualInterfaceState": "pending"}

    def asks(verb: str, member: str) -> list[Ask]:
        @fills("aws:RequestTag/${TagKey}", "aws:TagKeys")
        def tags(asked: Asked) -> Mapping[str, str | Sequence[str]]:
            given = asked.input.get(member) or {}
            pairs = [(str(one.get("key", "")), str(one.get("value", ""))) for one in given.get("tags") or ()]
            keys = {"aws:tagkeys": tuple(key for key, _ in pairs)} if pairs else {}
            return {**tag_keys("aws:requesttag/", pairs), **keys}

        return [Ask(f"directconnect:{verb}{word}VirtualInterface", CONNECTION.this, more=tags)]

    INTERFACE.operation(
        f"Create{word}VirtualInterface", asks=asks("Create", _NEW[kind]),
        **settling(lambda a, view: concerned(a, view, _named(_given(a, kind)))),
    )(create)  # fmt: skip
    INTERFACE.operation(f"Allocate{word}VirtualInterface", asks=asks("Allocate", f"{_NEW[kind]}Allocation"))(allocate)
    INTERFACE.operation(
        f"Confirm{word}VirtualInterface", asks=[Ask(f"directconnect:Confirm{word}VirtualInterface", INTERFACE.this)],
        **settling(lambda a, view: concerned(a, view, _named(a.input))),
    )(confirm)  # fmt: skip


_declare("private", "Private")
_declare("transit", "Transit")


def _one_or_all(asked: Asked) -> Iterable[str]:
    call = asked.call
    if call.input.get("virtualInterfaceId"):
        return INTERFACE.this(asked)
    return CONNECTION.this(asked)


@INTERFACE.reads("DescribeVirtualInterfaces", asks=[Ask("directconnect:DescribeVirtualInterfaces", _one_or_all)])
def describe(a: Authorised, view: View) -> Output:
    connection = str(a.input.get("connectionId") or "")
    if a.input.get("virtualInterfaceId"):
        rows = [INTERFACE.named(a, view)]
    elif connection:
        rows = interfaces(view, CONNECTION.find(view, a.account, a.region, connection).name)
    else:
        return paged(a, view, INTERFACE, "virtualInterfaces", lambda row: _shown(a, row))
    return {"virtualInterfaces": [_shown(a, row) for row in rows if connection in ("", row.doc["Connection"])]}


def _before(a: Authorised, view: View) -> Iterable[Vpc | Transit]:
    row = INTERFACE.get(view, a.account, a.region, str(a.input["virtualInterfaceId"]))
    return [] if row is None else concerned(a, view, row.doc["Target"])


@INTERFACE.operation(
    "DeleteVirtualInterface", asks=[Ask("directconnect:DeleteVirtualInterface", INTERFACE.this)], **settling(_before)
)
def delete(a: Authorised, tx: Transaction) -> Output:
    row = INTERFACE.named(a, tx)
    unlead(tx, row.doc["Connection"], row.name)
    if row.doc["Target"]:
        unlead(tx, row.doc["Target"], row.name)
    INTERFACE.remove(tx, row, a.operation.name, a.request.id)
    return {"virtualInterfaceState": "deleting"}


@INTERFACE.reads("DescribeVirtualGateways", asks=[Ask("directconnect:DescribeVirtualGateways", lambda _: ("*",))])
def gateways(a: Authorised, view: View) -> Output:
    found = a.engine(Gateways).virtual(a, view)
    return {"virtualGateways": [{"virtualGatewayId": one, "virtualGatewayState": "available"} for one in found]}
