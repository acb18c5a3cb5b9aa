"""Public addresses, which may be given to an interface or a NAT gateway: what of them other nouns need.

They are of 240.0.0.0/8, which no machine on earth has: who comes from one came through this platform's gateway, and a
condition on ``aws:SourceIp`` that names it is met by nobody else.
"""

from __future__ import annotations

import ipaddress
import secrets
from typing import Final

from bastide.domain import Refused
from bastide.kernel import Authorised, Output
from bastide.services.ec2.nouns import ADDRESS
from bastide.store import Row, Transaction, View

POOL: Final = ipaddress.IPv4Network("240.0.0.0/8")
OF: Final = "ec2:AddressOf"
"""Rows named by an address, under no account: whose it is."""
USED: Final = "ec2:AddressUse"
"""Rows named by an interface: which allocation it has."""
ASSOCIATION: Final = "ec2:AddressAssociation"
"""Rows named by an association's id: which allocation it is of."""
_TRIES: Final = 64


def new_address(a: Authorised, tx: Transaction, id: str) -> str:
    """An address that nobody has."""
    for _ in range(_TRIES):
        found = str(POOL[1 + secrets.randbelow(POOL.num_addresses - 2)])
        if tx.get(OF, "", "", found) is None:
            tx.insert(Row(OF, "", "", found, {"Account": a.account, "Region": a.region, "Id": id}), keep=False)
            return found
    raise Refused("InsufficientAddressCapacity", "There are no free addresses.")


def allocation_of(view: View, interface: Row) -> Row | None:
    """The allocation that an interface has, if any."""
    held = view.get(USED, interface.account, interface.region, interface.name)
    return None if held is None else ADDRESS.get(view, interface.account, interface.region, held.doc["Allocation"])


def take(a: Authorised, tx: Transaction, row: Row, interface: Row) -> str:
    """Gives an address to an interface; the association's id. The address lies in the interface's VPC then."""
    association = f"eipassoc-0{secrets.token_hex(8)}"
    doc = {**row.doc, "Association": association, "Interface": interface.name, "Private": interface.doc["Address"]}
    vpc = interface.doc["VpcId"]
    ADDRESS.drop(a, tx, row)
    ADDRESS.put(a, tx, row.name, doc, [vpc], dict(row.tags))
    tx.insert(Row(USED, a.account, a.region, interface.name, {"Allocation": row.name}), keep=False)
    tx.insert(Row(ASSOCIATION, a.account, a.region, association, {"Allocation": row.name}), keep=False)
    return association


def release(a: Authorised, tx: Transaction, interface: Row) -> None:
    """Takes an interface's public address from it, if it has one."""
    row = allocation_of(tx, interface)
    if row is None:
        return
    for kind, name in ((USED, interface.name), (ASSOCIATION, row.doc["Association"])):
        held = tx.get(kind, a.account, a.region, name)
        if held is not None:
            tx.delete(held, keep=False)
    doc = {**row.doc, "Association": "", "Interface": "", "Private": ""}
    ADDRESS.drop(a, tx, row)
    ADDRESS.put(a, tx, row.name, doc, [], dict(row.tags))


def associated(view: View, interface: Row) -> Output | None:
    """An interface's public address as it is shown."""
    row = allocation_of(view, interface)
    if row is None:
        return None
    return {
        "AllocationId": row.name,
        "AssociationId": row.doc["Association"],
        "IpOwnerId": row.account,
        "PublicIp": row.doc["Address"],
        "PublicDnsName": "",
    }
