"""Network ACLs and their entries: what crosses a subnet's border, in either direction, decided packet by packet.

Each subnet is under one; a VPC's default ACL lets everything pass, until somebody changes it. IPv6 entries are kept and
match nothing: there is no IPv6 here. Source: VPC User Guide, "Control subnet traffic with network access control lists".
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines.network import Acl, Entry
from bastide.engines.network.acls import is_open
from bastide.kernel import Asked, Authorised, Output, once
from bastide.kernel.kind import Handler
from bastide.services.ec2 import noun
from bastide.services.ec2.network_acl_noun import ASSOCIATION, LAST, associate, new_acl
from bastide.services.ec2.noun import ask, creating, describes, invalid, missing
from bastide.services.ec2.nouns import NETWORK_ACL, SUBNET, VPC
from bastide.store import Row, Transaction, View

_MOST_ACLS: Final = 200
_MOST_ENTRIES: Final = 20
"""An ACL and direction; AWS's default quota."""
_NUMBERS: Final = {"all": "-1", "tcp": "6", "udp": "17", "icmp": "1", "icmpv6": "58"}
_PORTED: Final = ("6", "17")
_ICMP: Final = ("1", "58")
_PORTS: Final = 65535


def _shown_entry(entry: dict[str, Any]) -> Output:
    shown: Output = {
        "RuleNumber": entry["Number"],
        "Protocol": entry["Protocol"],
        "RuleAction": "allow" if entry["Allows"] else "deny",
        "Egress": entry["Egress"],
        "CidrBlock": entry.get("Cidr"),
        "Ipv6CidrBlock": entry.get("Cidr6"),
    }
    if entry["Protocol"] in _PORTED:
        shown["PortRange"] = {"From": entry["First"], "To": entry["Last"]}
    if entry["Protocol"] in _ICMP:
        shown["IcmpTypeCode"] = {"Type": entry["First"], "Code": entry["Last"]}
    return shown


def _under(view: View, row: Row) -> list[Row]:
    """The subnets under an ACL."""
    found = SUBNET.inside(view, row.account, row.region, row.doc["VpcId"])
    return [one for one in found if (one.doc.get("Acl") or {}).get("Acl") == row.name]


def _shown(a: Authorised, view: View, row: Row) -> Output:
    last = {"Number": LAST, "Protocol": "-1", "Allows": False, "Cidr": "0.0.0.0/0"}
    entries = [*row.doc["Entries"], *({**last, "Egress": egress} for egress in (True, False))]
    return {
        "NetworkAclId": row.name,
        "VpcId": row.doc["VpcId"],
        "OwnerId": row.account,
        "IsDefault": row.doc["Default"],
        "Entries": [_shown_entry(one) for one in sorted(entries, key=lambda one: (not one["Egress"], one["Number"]))],
        "Associations": [
            {"NetworkAclAssociationId": one.doc["Acl"]["Id"], "NetworkAclId": row.name, "SubnetId": one.name}
            for one in _under(view, row)
        ],
        "Tags": noun.tags_shown(row),
    }


@NETWORK_ACL.does(
    "CreateNetworkAcl",
    asks=creating(
        NETWORK_ACL, "CreateNetworkAcl", ask("CreateNetworkAcl", VPC.ids("VpcId")),
        ec2__Vpc=lambda asked: VPC.arn(asked.call.account, asked.call.region, str(asked.input["VpcId"])),
    ),
)  # fmt: skip
def create(a: Authorised, tx: Transaction) -> Output:
    def make() -> Output:
        vpc = VPC.held(a, tx, a.input["VpcId"])
        if len(NETWORK_ACL.inside(tx, a.account, a.region, vpc.name)) >= _MOST_ACLS:
            raise Refused("NetworkAclLimitExceeded", "The maximum number of network ACLs has been reached.")
        row = new_acl(a, tx, vpc.name, default=False)
        return {"NetworkAcl": _shown(a, tx, row), "ClientToken": a.input.get("ClientToken")}

    return once(a, tx, a.input.get("ClientToken"), make, code="IdempotentParameterMismatch")


def _of_entries(member: str) -> noun.Field:
    def read(view: View, row: Row) -> Iterable[str]:
        shown = [_shown_entry(one) for one in row.doc["Entries"]]
        return [str(one[member]).lower() for one in shown if one.get(member) is not None]

    return read


describes(
    NETWORK_ACL, "DescribeNetworkAcls", "NetworkAcls", "NetworkAclIds", _shown,
    {
        "network-acl-id": noun.name, "vpc-id": noun.doc("VpcId"), "owner-id": noun.owner,
        "default": lambda view, row: str(row.doc["Default"]).lower(),
        "association.subnet-id": lambda view, row: [one.name for one in _under(view, row)],
        "association.network-acl-id": lambda view, row: row.name if _under(view, row) else None,
        "association.association-id": lambda view, row: [one.doc["Acl"]["Id"] for one in _under(view, row)],
        "entry.cidr": _of_entries("CidrBlock"), "entry.egress": _of_entries("Egress"),
        "entry.protocol": _of_entries("Protocol"), "entry.rule-action": _of_entries("RuleAction"),
        "entry.rule-number": _of_entries("RuleNumber"),
    },
)  # fmt: skip


def _vpc_of(a: Authorised, view: View) -> Iterable[str]:
    row = NETWORK_ACL.get(view, a.account, a.region, str(a.input["NetworkAclId"]))
    return [] if row is None else [row.doc["VpcId"]]


@NETWORK_ACL.does("DeleteNetworkAcl", asks=[ask("DeleteNetworkAcl", NETWORK_ACL.ids("NetworkAclId"))])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = NETWORK_ACL.held(a, tx, a.input["NetworkAclId"])
    if row.doc["Default"]:
        raise Refused("Client.CannotDelete", f"the default network ACL {row.name} cannot be deleted")
    if _under(tx, row):
        raise Refused("DependencyViolation", f"The networkAcl '{row.name}' has dependencies and cannot be deleted.")
    NETWORK_ACL.drop(a, tx, row)
    return {}


# -- entries -----------------------------------------------------------------------------------------------------------


def _entry(a: Authorised) -> dict[str, Any]:
    given = a.input
    number = int(given["RuleNumber"])
    if not 1 <= number < LAST:
        raise invalid(f"Value ({number}) for parameter ruleNumber is invalid. It must be between 1 and {LAST - 1}.")
    if given["RuleAction"] not in ("allow", "deny"):
        raise invalid(f"Value ({str(given['RuleAction'])[:32]}) for parameter ruleAction is invalid.")
    text = str(given["Protocol"]).lower()
    protocol = _NUMBERS.get(text, text)
    if protocol != "-1" and not (protocol.isdecimal() and int(protocol) < 256):
        raise invalid(f"Invalid value '{text[:32]}' for IP protocol. Unknown protocol.")
    if protocol != "-1":
        protocol = str(int(protocol))
    found: dict[str, Any] = {
        "Number": number, "Protocol": protocol, "Allows": given["RuleAction"] == "allow", "Egress": bool(given["Egress"]),
    }  # fmt: skip
    if bool(given.get("CidrBlock")) == bool(given.get("Ipv6CidrBlock")):
        raise missing("cidrBlock or ipv6CidrBlock")
    six = bool(given.get("Ipv6CidrBlock"))
    cidr = str(given.get("Ipv6CidrBlock") or given.get("CidrBlock"))
    try:
        if "/" not in cidr:
            raise ValueError
        network = (ipaddress.IPv6Network if six else ipaddress.IPv4Network)(cidr, strict=False)
    except ValueError:
        raise invalid(f"CIDR block {cidr[:64]} is malformed") from None
    found["Cidr6" if six else "Cidr"] = str(network)
    if protocol in _PORTED:
        ports = given.get("PortRange") or {}
        first, last = ports.get("From"), ports.get("To")
        if first is None or last is None:
            raise missing("portRange")
        if (first, last) == (-1, -1):
            first, last = 0, _PORTS
        if not 0 <= first <= last <= _PORTS:
            raise invalid(f"Invalid port range ({first}:{last}).")
        found |= {"First": int(first), "Last": int(last)}
    elif protocol in _ICMP:
        told = given.get("IcmpTypeCode") or {}
        first, last = told.get("Type"), told.get("Code")
        if first is None or last is None:
            raise missing("icmpTypeCode")
        if not (-1 <= first <= 255 and -1 <= last <= 255) or (first == -1 and last != -1):
            raise invalid(f"ICMP type ({first}) or code ({last}) out of range.")
        found |= {"First": int(first), "Last": int(last)}
    return found


def _place(row: Row, number: int, *, egress: bool) -> int | None:
    """Where an entry is in the list."""
    return next(
        (at for at, one in enumerate(row.doc["Entries"]) if (one["Number"], one["Egress"]) == (number, egress)), None
    )


def _existing(a: Authorised, row: Row) -> int:
    number, egress = int(a.input["RuleNumber"]), bool(a.input["Egress"])
    found = _place(row, number, egress=egress)
    if found is None:
        way = "egress" if egress else "ingress"
        raise Refused(
            "InvalidNetworkAclEntry.NotFound", f"no entry with rule number {number} and {way} in network acl {row.name}"
        )
    return found


def _changes(action: str) -> Callable[[Handler], Handler]:
    return NETWORK_ACL.does(action, asks=[ask(action, NETWORK_ACL.ids("NetworkAclId"))], settles=_vpc_of)


@_changes("CreateNetworkAclEntry")
def create_entry(a: Authorised, tx: Transaction) -> Output:
    row = NETWORK_ACL.held(a, tx, a.input["NetworkAclId"])
    entry = _entry(a)
    if _place(row, entry["Number"], egress=entry["Egress"]) is not None:
        raise Refused(
            "NetworkAclEntryAlreadyExists", f"The network acl entry identified by {entry['Number']} already exists."
        )
    if sum(one["Egress"] is entry["Egress"] for one in row.doc["Entries"]) >= _MOST_ENTRIES:
        raise Refused("NetworkAclEntryLimitExceeded", "The maximum number of network ACL entries has been reached.")
    row.doc["Entries"] = [*row.doc["Entries"], entry]
    NETWORK_ACL.save(a, tx, row)
    return {}


@_changes("ReplaceNetworkAclEntry")
def replace_entry(a: Authorised, tx: Transaction) -> Output:
    row = NETWORK_ACL.held(a, tx, a.input["NetworkAclId"])
    entry, at = _entry(a), _existing(a, row)
    row.doc["Entries"] = [*row.doc["Entries"][:at], entry, *row.doc["Entries"][at + 1 :]]
    NETWORK_ACL.save(a, tx, row)
    return {}


@_changes("DeleteNetworkAclEntry")
def delete_entry(a: Authorised, tx: Transaction) -> Output:
    row = NETWORK_ACL.held(a, tx, a.input["NetworkAclId"])
    at = _existing(a, row)
    row.doc["Entries"] = [*row.doc["Entries"][:at], *row.doc["Entries"][at + 1 :]]
    NETWORK_ACL.save(a, tx, row)
    return {}


# -- associations ------------------------------------------------------------------------------------------------------


def _subnet_of(view: View, account: str, region: str, association: str) -> Row | None:
    held = view.get(ASSOCIATION, account, region, association)
    return None if held is None else SUBNET.get(view, account, region, held.doc["Subnet"])


def _asked_subnet(asked: Asked) -> Iterable[str]:
    call = asked.call
    row = _subnet_of(asked.view, call.account, call.region, str(call.input["AssociationId"]))
    yield SUBNET.arn(call.account, call.region, "*" if row is None else row.name)


def _settled(a: Authorised, view: View) -> Iterable[str]:
    row = _subnet_of(view, a.account, a.region, str(a.input["AssociationId"]))
    return [] if row is None else [row.doc["VpcId"]]


@NETWORK_ACL.does(
    "ReplaceNetworkAclAssociation",
    asks=[
        ask("ReplaceNetworkAclAssociation", NETWORK_ACL.ids("NetworkAclId")),
        ask("ReplaceNetworkAclAssociation", _asked_subnet),
    ],
    settles=_settled,
)
def replace_association(a: Authorised, tx: Transaction) -> Output:
    id = str(a.input["AssociationId"])
    subnet = _subnet_of(tx, a.account, a.region, id)
    if subnet is None:
        raise Refused("InvalidAssociationID.NotFound", f"The association ID '{id[:64]}' does not exist")
    acl = NETWORK_ACL.held(a, tx, a.input["NetworkAclId"])
    if acl.doc["VpcId"] != subnet.doc["VpcId"]:
        raise invalid(f"Network ACL {acl.name} and subnet {subnet.name} belong to different networks")
    return {"NewAssociationId": associate(a, tx, subnet, acl.name)}


# -- packets -----------------------------------------------------------------------------------------------------------


def planned(view: View, subnet: Row) -> Acl | None:
    """A subnet's ACL as packets meet it; None if it lets everything pass."""
    row = NETWORK_ACL.get(view, subnet.account, subnet.region, (subnet.doc.get("Acl") or {}).get("Acl", ""))
    if row is None:
        return None
    held = sorted((one for one in row.doc["Entries"] if one.get("Cidr")), key=lambda one: int(one["Number"]))
    ways = [
        tuple(
            Entry(one["Number"], one["Allows"], one["Protocol"], one["Cidr"], one.get("First", -1), one.get("Last", -1))
            for one in held
            if one["Egress"] is egress
        )
        for egress in (False, True)
    ]
    return None if all(is_open(one) for one in ways) else Acl(row.name, ways[0], ways[1])
