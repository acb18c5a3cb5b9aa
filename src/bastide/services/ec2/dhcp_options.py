"""DHCP options: which DNS and which domain what is in a VPC is told of. Options that nothing here would see are refused.

A VPC without options of its own has its own DNS. Source: VPC User Guide, "DHCP option sets in Amazon VPC".
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Final

from bastide.domain import Refused
from bastide.kernel import Authorised, Output
from bastide.services.ec2 import noun
from bastide.services.ec2.noun import ask, creating, describes, invalid, naming
from bastide.services.ec2.nouns import DHCP_OPTIONS, VPC
from bastide.store import Row, Transaction, View

OWN: Final = "AmazonProvidedDNS"
_SERVERS, _DOMAIN = "domain-name-servers", "domain-name"
_MOST_SERVERS: Final = 4
_LONGEST: Final = 1024
"""All domains together."""
_NAME: Final = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))*\.?")
_WITHOUT_EFFECT: Final = (
    "ntp-servers",
    "netbios-name-servers",
    "netbios-node-type",
    "ipv6-address-preferred-lease-time",
)


def _checked(key: str, values: Sequence[str]) -> list[str]:
    if key in _WITHOUT_EFFECT:
        raise Refused("UnsupportedOperation", f"{key} is not supported by Bastide yet: nothing here would ask for it.")
    if key not in (_SERVERS, _DOMAIN):
        raise invalid(f"Invalid DHCP option '{key[:64]}'")
    if not values:
        raise invalid(f"The DHCP option {key} needs a value.")
    if key == _DOMAIN:
        names = [name for value in values for name in value.split(" ") if name]
        if not names or sum(len(name) + 1 for name in names) > _LONGEST or not all(map(_NAME.fullmatch, names)):
            raise invalid(f"Invalid value for the DHCP option {key}: it takes domain names.")
        return names
    servers = [one.strip() for value in values for one in value.split(",")]
    if len(servers) > _MOST_SERVERS:
        raise invalid(f"The DHCP option {key} takes at most {_MOST_SERVERS} servers.")
    for one in servers:
        if one != OWN:
            try:
                ipaddress.IPv4Address(one)
            except ValueError:
                raise invalid(
                    f"Invalid value for the DHCP option {key}: {one[:64]} is no address and not {OWN}."
                ) from None
    return servers


@DHCP_OPTIONS.does("CreateDhcpOptions", asks=creating(DHCP_OPTIONS, "CreateDhcpOptions"))
def create(a: Authorised, tx: Transaction) -> Output:
    held: dict[str, list[str]] = {}
    for one in a.input["DhcpConfigurations"]:
        key = str(one.get("Key") or "")
        if key in held:
            raise invalid(f"Duplicate DHCP option '{key}'")
        held[key] = _checked(key, [str(value) for value in one.get("Values") or ()])
    if not held:
        raise noun.missing("dhcpConfiguration")
    return {"DhcpOptions": _shown(DHCP_OPTIONS.put(a, tx, DHCP_OPTIONS.new_id(), {"Options": held}))}


def _shown(row: Row) -> Output:
    return {
        "DhcpOptionsId": row.name,
        "OwnerId": row.account,
        "DhcpConfigurations": [
            {"Key": key, "Values": [{"Value": one} for one in values]} for key, values in row.doc["Options"].items()
        ],
        "Tags": noun.tags_shown(row),
    }


describes(
    DHCP_OPTIONS, "DescribeDhcpOptions", "DhcpOptions", "DhcpOptionsIds", lambda a, view, row: _shown(row),
    {
        "dhcp-options-id": noun.name, "owner-id": noun.owner, "key": lambda view, row: list(row.doc["Options"]),
        "value": lambda view, row: [one for values in row.doc["Options"].values() for one in values],
    },
)  # fmt: skip


@DHCP_OPTIONS.does(
    "AssociateDhcpOptions",
    asks=naming("AssociateDhcpOptions", DHCP_OPTIONS, VPC),
    settles=noun.vpc_named,
)
def associate(a: Authorised, tx: Transaction) -> Output:
    vpc = VPC.held(a, tx, a.input["VpcId"])
    wanted = str(a.input["DhcpOptionsId"])
    if wanted != "default":
        DHCP_OPTIONS.held(a, tx, wanted)
    old = DHCP_OPTIONS.get(tx, a.account, a.region, vpc.doc.get("Dhcp") or "")
    if old is not None:
        _used(a, tx, old, [one for one in old.doc.get("Vpcs", ()) if one != vpc.name])
    vpc.doc["Dhcp"] = "" if wanted == "default" else wanted
    VPC.save(a, tx, vpc)
    if wanted != "default":
        new = DHCP_OPTIONS.held(a, tx, wanted)
        _used(a, tx, new, [*new.doc.get("Vpcs", ()), vpc.name])
    return {}


def _used(a: Authorised, tx: Transaction, row: Row, vpcs: list[str]) -> None:
    row.doc["Vpcs"] = list(dict.fromkeys(vpcs))
    DHCP_OPTIONS.save(a, tx, row)


@DHCP_OPTIONS.does("DeleteDhcpOptions", asks=[ask("DeleteDhcpOptions", DHCP_OPTIONS.ids("DhcpOptionsId"))])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = DHCP_OPTIONS.held(a, tx, a.input["DhcpOptionsId"])
    if any(VPC.get(tx, a.account, a.region, one) is not None for one in row.doc.get("Vpcs", ())):
        raise Refused("DependencyViolation", f"The dhcpOptions '{row.name}' has dependencies and cannot be deleted.")
    DHCP_OPTIONS.drop(a, tx, row)
    return {}


def told(view: View, vpc: Row, resolver: str) -> str | None:
    """The resolv.conf that a VPC's options give to what is in it; None without options. resolver: the VPC's own DNS."""
    row = DHCP_OPTIONS.get(view, vpc.account, vpc.region, vpc.doc.get("Dhcp") or "")
    if row is None:
        return None
    servers = [resolver if one == OWN else one for one in row.doc["Options"].get(_SERVERS, ())]
    lines = [f"nameserver {one}\n" for one in servers if one]
    domains = row.doc["Options"].get(_DOMAIN)
    if lines and domains:
        lines.append(f"search {' '.join(domains)}\n")
    return "".join(lines)
