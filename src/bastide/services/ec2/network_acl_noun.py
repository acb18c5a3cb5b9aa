"""Network ACLs: what of them VPCs and subnets need."""

from __future__ import annotations

import secrets
from typing import Any, Final

from bastide.domain import Tags
from bastide.kernel import Authorised
from bastide.services.ec2.nouns import NETWORK_ACL, SUBNET
from bastide.store import Row, Transaction

ASSOCIATION: Final = "ec2:NetworkAclAssociation"
"""Rows named by an association's id: which subnet it is of."""
LAST: Final = 32767
"""Number of the entry that every ACL ends with, and that denies the rest."""


def new_acl(a: Authorised, tx: Transaction, vpc: str, *, default: bool, tags: Tags | None = None) -> Row:
    """A new ACL. default: of a VPC's own, which lets everything pass; others let nothing pass."""
    every: dict[str, Any] = {"Number": 100, "Protocol": "-1", "Allows": True, "Cidr": "0.0.0.0/0"}
    entries = [{**every, "Egress": egress} for egress in (True, False)] if default else []
    doc = {"VpcId": vpc, "Default": default, "Entries": entries}
    return NETWORK_ACL.put(a, tx, NETWORK_ACL.new_id(), doc, [vpc], tags)


def associate(a: Authorised, tx: Transaction, subnet: Row, acl: str) -> str:
    """Puts a subnet under an ACL; the association's id."""
    part(a, tx, subnet)
    id = f"aclassoc-0{secrets.token_hex(8)}"
    tx.insert(Row(ASSOCIATION, a.account, a.region, id, {"Subnet": subnet.name}), keep=False)
    subnet.doc["Acl"] = {"Id": id, "Acl": acl}
    SUBNET.save(a, tx, subnet)
    return id


def part(a: Authorised, tx: Transaction, subnet: Row) -> None:
    """Takes a subnet's association away."""
    held = tx.get(ASSOCIATION, a.account, a.region, (subnet.doc.get("Acl") or {}).get("Id", ""))
    if held is not None:
        tx.delete(held, keep=False)
