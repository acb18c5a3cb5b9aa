"""Elastic IP addresses: allocated, associated with interfaces, released.

What leaves a VPC by its internet gateway from an interface with one comes from that address. Source: EC2 User Guide,
"Elastic IP addresses".
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Asked, Authorised, Output
from bastide.services.ec2 import internet_gateway, noun
from bastide.services.ec2.address_noun import ASSOCIATION, OF, new_address, release, take
from bastide.services.ec2.noun import ask, creating, filters, fixed, invalid, missing, unsupported
from bastide.services.ec2.nouns import ADDRESS, NETWORK_INTERFACE
from bastide.store import Row, Transaction, View

_MOST: Final = 5
"""A region; AWS's default quota."""


def _shown(row: Row) -> Output:
    doc = row.doc
    used: dict[str, Any] = {}
    if doc["Association"]:
        used = {
            "AssociationId": doc["Association"],
            "NetworkInterfaceId": doc["Interface"],
            "NetworkInterfaceOwnerId": row.account,
            "PrivateIpAddress": doc["Private"],
        }
    return {
        "AllocationId": row.name,
        "PublicIp": doc["Address"],
        "PublicIpv4Pool": "amazon",
        "NetworkBorderGroup": row.region,
        "Domain": "vpc",
        "Tags": noun.tags_shown(row),
        **used,
    }


@ADDRESS.does("AllocateAddress", asks=creating(ADDRESS, "AllocateAddress", ec2__Domain=lambda _: "vpc"))
def allocate(a: Authorised, tx: Transaction) -> Output:
    unsupported(a, "Address", "CustomerOwnedIpv4Pool", "IpamPoolId")
    if a.input.get("Domain", "vpc") != "vpc":
        raise Refused("UnsupportedOperation", "Addresses are for VPCs.")
    if a.input.get("PublicIpv4Pool", "amazon") != "amazon":
        raise Refused("InvalidPublicIpv4PoolID.NotFound", "There are no pools but amazon's.")
    if a.input.get("NetworkBorderGroup", a.region) != a.region:
        raise invalid(f"The network border group of this region is {a.region}.")
    if len(tx.scan(ADDRESS.key, a.account, a.region, limit=_MOST)) == _MOST:
        raise Refused("AddressLimitExceeded", "The maximum number of addresses has been reached.")
    id = ADDRESS.new_id()
    doc = {"Address": new_address(a, tx, id), "Association": "", "Interface": "", "Private": ""}
    shown = _shown(ADDRESS.put(a, tx, id, doc))
    return {key: shown[key] for key in ("AllocationId", "PublicIp", "PublicIpv4Pool", "NetworkBorderGroup", "Domain")}


@ADDRESS.tells("DescribeAddresses", asks=[ask("DescribeAddresses", noun.anything)])
def describe(a: Authorised, view: View) -> Output:
    chosen = filters(
        a,
        {
            "allocation-id": noun.name, "association-id": noun.doc("Association"), "public-ip": noun.doc("Address"),
            "domain": fixed("vpc"), "network-interface-id": noun.doc("Interface"), "network-interface-owner-id": noun.owner,
            "private-ip-address": noun.doc("Private"), "network-border-group": fixed(a.region),
        },
    )  # fmt: skip
    rows = [ADDRESS.held(a, view, str(one)) for one in a.input.get("AllocationIds") or ()]
    rows += [_by_address(a, view, str(one)) for one in a.input.get("PublicIps") or ()]
    if not rows:
        rows = view.scan(ADDRESS.key, a.account, a.region, limit=1000)
    return {"Addresses": [_shown(row) for row in rows if chosen(view, row)]}


def _by_address(a: Authorised, view: View, address: str) -> Row:
    held = view.get(OF, "", "", address)
    if held is None or (held.doc["Account"], held.doc["Region"]) != (a.account, a.region):
        raise Refused("InvalidAddress.NotFound", f"Address '{address[:64]}' not found.")
    return ADDRESS.held(a, view, held.doc["Id"])


def _named(a: Authorised, view: View) -> Row:
    """The address that a call names by its allocation, or by itself."""
    if a.input.get("AllocationId"):
        return ADDRESS.held(a, view, str(a.input["AllocationId"]))
    if a.input.get("PublicIp"):
        return _by_address(a, view, str(a.input["PublicIp"]))
    raise missing("allocationId")


def _asked(asked: Asked) -> Iterable[str]:
    call = asked.call
    id = call.input.get("AllocationId")
    association = call.input.get("AssociationId")
    if not id and association:
        row = asked.view.get(ASSOCIATION, call.account, call.region, str(association))
        id = None if row is None else row.doc["Allocation"]
    if not id and call.input.get("PublicIp"):
        row = asked.view.get(OF, "", "", str(call.input["PublicIp"]))
        id = None if row is None or row.doc["Account"] != call.account else row.doc["Id"]
    yield ADDRESS.arn(call.account, call.region, str(id or "*"))


def _asked_interface(asked: Asked) -> Iterable[str]:
    call = asked.call
    if call.input.get("AssociationId"):
        row = asked.view.get(ASSOCIATION, call.account, call.region, str(call.input["AssociationId"]))
        address = None if row is None else ADDRESS.get(asked.view, call.account, call.region, row.doc["Allocation"])
        if address is not None and address.doc["Interface"]:
            yield NETWORK_INTERFACE.arn(call.account, call.region, address.doc["Interface"])
    if call.input.get("NetworkInterfaceId"):
        yield NETWORK_INTERFACE.arn(call.account, call.region, str(call.input["NetworkInterfaceId"]))


def _settled(a: Authorised, view: View) -> Iterable[str]:
    """The VPCs of the interface that is to have the address, and of the one that has it."""
    ids = [str(a.input.get("NetworkInterfaceId") or "")]
    with contextlib.suppress(Refused):
        ids.append(_held(a, view).doc["Interface"])
    for id in ids:
        row = NETWORK_INTERFACE.get(view, a.account, a.region, id) if id else None
        if row is not None:
            yield row.doc["VpcId"]


def _held(a: Authorised, view: View) -> Row:
    """The address of the association, or of the allocation, that a call names."""
    if not a.input.get("AssociationId"):
        return _named(a, view)
    id = str(a.input["AssociationId"])
    held = view.get(ASSOCIATION, a.account, a.region, id)
    if held is None:
        raise Refused("InvalidAssociationID.NotFound", f"The association ID '{id[:64]}' does not exist")
    return ADDRESS.held(a, view, held.doc["Allocation"])


@ADDRESS.does(
    "AssociateAddress",
    asks=[ask("AssociateAddress", _asked), ask("AssociateAddress", _asked_interface)],
    settles=_settled,
)
def associate(a: Authorised, tx: Transaction) -> Output:
    if a.input.get("InstanceId"):
        raise Refused(
            "InvalidInstanceID.NotFound", f"The instance ID '{str(a.input['InstanceId'])[:64]}' does not exist"
        )
    if not a.input.get("NetworkInterfaceId"):
        raise missing("networkInterfaceId")
    row = _named(a, tx)
    interface = NETWORK_INTERFACE.held(a, tx, str(a.input["NetworkInterfaceId"]))
    if interface.doc["Endpoint"]:
        raise Refused("OperationNotPermitted", "You are not allowed to manage 'ela-attach' attachments.")
    if a.input.get("PrivateIpAddress") not in (None, "", interface.doc["Address"]):
        raise invalid(f"{interface.name} has no address {str(a.input['PrivateIpAddress'])[:64]}")
    if not internet_gateway.of_vpc(tx, a.account, a.region, interface.doc["VpcId"]):
        raise Refused(
            "Gateway.NotAttached", f"Network {interface.doc['VpcId']} is not attached to any internet gateway"
        )
    if row.doc["Interface"] == interface.name:
        return {"AssociationId": row.doc["Association"]}
    if row.doc["Association"] and not a.input.get("AllowReassociation"):
        raise Refused(
            "Resource.AlreadyAssociated",
            f"resource {row.name} is already associated with associate-id {row.doc['Association']}",
        )
    had = NETWORK_INTERFACE.get(tx, a.account, a.region, row.doc["Interface"]) if row.doc["Interface"] else None
    if had is not None:
        if had.doc["Endpoint"]:
            raise _of_gateway()
        release(a, tx, had)
    release(a, tx, interface)
    return {"AssociationId": take(a, tx, ADDRESS.held(a, tx, row.name), interface)}


def _of_gateway() -> Refused:
    return Refused("OperationNotPermitted", "The address is a NAT gateway's, and goes with it.")


@ADDRESS.does(
    "DisassociateAddress",
    asks=[ask("DisassociateAddress", _asked), ask("DisassociateAddress", _asked_interface)],
    settles=_settled,
)
def disassociate(a: Authorised, tx: Transaction) -> Output:
    row = _held(a, tx)
    interface = NETWORK_INTERFACE.get(tx, a.account, a.region, row.doc["Interface"]) if row.doc["Interface"] else None
    if interface is None:
        raise Refused("InvalidAssociationID.NotFound", f"{row.name} is associated with nothing")
    if interface.doc["Endpoint"]:
        raise _of_gateway()
    release(a, tx, interface)
    return {}


@ADDRESS.does("ReleaseAddress", asks=[ask("ReleaseAddress", _asked)])
def free(a: Authorised, tx: Transaction) -> Output:
    if a.input.get("NetworkBorderGroup", a.region) != a.region:
        raise invalid(f"The network border group of this region is {a.region}.")
    row = _named(a, tx)
    if row.doc["Association"]:
        raise Refused("InvalidIPAddress.InUse", f"Address {row.doc['Address']} is in use.")
    held = tx.get(OF, "", "", row.doc["Address"])
    if held is not None:
        tx.delete(held, keep=False)
    ADDRESS.drop(a, tx, row)
    return {}
