"""Hosted zones as rows, and what the DNS of a VPC is told of them.

Source: Route 53 API Reference and Developer Guide, "Working with private hosted zones".
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import Arn, Refused
from bastide.engines.network import Networks, Vpc
from bastide.kernel import Asked, Authorised, Facts, Kind, Output
from bastide.store import Row, Transaction, View

ZONE: Final = Kind(
    "HostedZone", service="route53", arn="hostedzone/{}", named_by="HostedZoneId", global_=True, arn_account=False,
    missing=("NoSuchHostedZone", "No hosted zone found with ID: {name}", 404),
)  # fmt: skip
RECORD: Final = "route53:Record"
"""Rows ``ZONE/NAME BACKWARDS\\0TYPE`` of the zone's account: Name, Type, TTL, Values or Alias."""
OF: Final = "route53:ZoneOf"
"""Rows named by a zone's id, under no account: whose it is."""
OF_VPC: Final = "route53:OfVpc"
"""Rows ``VPC/ZONE`` under no account and the VPC's region: the zones that a VPC's DNS knows."""
MOST: Final = 500
_CHARACTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_NAME: Final = re.compile(r"(?:\*\.)?(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+", re.IGNORECASE)


def new_id() -> str:
    """An id as Route 53 makes them."""
    return "Z" + "".join(secrets.choice(_CHARACTERS) for _ in range(20))


def zone_id(given: Any) -> str:
    """The id alone, of what may be given as ``/hostedzone/ID``."""
    return str(given or "").rpartition("/")[2]


def bad(message: str) -> Refused:
    """InvalidInput."""
    return Refused("InvalidInput", message)


def domain(text: str) -> str:
    """A name in lower case that ends in a dot; raises InvalidDomainName."""
    found = text.lower() if text.endswith(".") else f"{text.lower()}."
    if not _NAME.fullmatch(found) or len(found) > 255:
        raise Refused("InvalidDomainName", f"{text[:255]} is not a valid domain name.")
    return found


def backwards(name: str) -> str:
    """A name as records are sorted: its labels from the last to the first."""
    return ".".join(reversed(name.rstrip(".").split(".")))


def account_of(view: View, id: str) -> str:
    """The account of a zone; empty for none."""
    held = view.get(OF, "", "", id)
    return "" if held is None else str(held.doc["Account"])


def zone(a: Authorised, view: View, member: str = "HostedZoneId") -> Row:
    """The zone that a call names, of the caller's account; raises NoSuchHostedZone."""
    return ZONE.find(view, a.account, "", zone_id(a.input.get(member)))


def this(member: str = "HostedZoneId") -> Any:
    """The ARN of the zone that a call names."""
    return lambda asked: (ZONE.arn("", "", zone_id(asked.input.get(member)) or "*"),)


def facts(view: View, arn: Arn, action: str) -> Facts | None:
    """A zone's owner and tags. Who associates a VPC of their own with another's zone needs the zone owner's authorisation,
    which is no policy: the operation looks for it."""
    if arn.type == "change":
        return Facts("", type="Change")
    id = arn.resource.removeprefix("hostedzone/")
    account = account_of(view, id)
    row = ZONE.get(view, account, "", id) if account else None
    across = action in ("route53:AssociateVPCWithHostedZone", "route53:DisassociateVPCFromHostedZone")
    if across:
        return Facts("", {} if row is None else row.tags, type=ZONE.name)
    return Facts(account, {} if row is None else row.tags, type=ZONE.name, own=True)


def vpcs_key(member: str) -> Any:
    """The condition key ``route53:VPCs``, as the Developer Guide writes it."""

    def read(asked: Asked) -> list[str] | None:
        given = asked.input.get(member) or {}
        if member == "VPCId":
            given = {"VPCId": asked.input.get("VPCId"), "VPCRegion": asked.input.get("VPCRegion")}
        if not given.get("VPCId"):
            return None
        return [f"VPCId={given['VPCId']},VPCRegion={given.get('VPCRegion') or ''}"]

    return read


def change(a: Authorised, comment: Any = None) -> Output:
    """A change that is in force: nothing is ever pending here."""
    told: Output = {"Id": f"/change/C{secrets.token_hex(10).upper()}", "Status": "INSYNC", "SubmittedAt": a.now}
    return {**told, "Comment": str(comment)} if comment else told


def own_vpc(a: Authorised, view: View, given: Any) -> tuple[str, str]:
    """Region and id of a VPC of the caller's account; raises InvalidVPCId."""
    region, id = str((given or {}).get("VPCRegion") or ""), str((given or {}).get("VPCId") or "")
    if view.get("ec2:Vpc", a.account, region, id) is None:
        raise Refused("InvalidVPCId", f"The VPC {id[:64]} does not exist in {region[:32]}, or is not of this account.")
    return region, id


def settling(read: Any) -> dict[str, Any]:
    """Of an operation: the VPCs whose DNS is another afterwards answer accordingly when the call is answered."""

    async def before(a: Authorised) -> Any:
        with a.calls.store.reading() as view:
            return list(read(a, view))

    async def after(a: Authorised, output: Output) -> Output:
        for vpc in a.staged:
            await a.engine(Networks).settle(vpc)
        return output

    return {"before": before, "after": after}


def of_zone(a: Authorised, view: View, member: str = "HostedZoneId") -> Iterable[Vpc]:
    """The VPCs that know the zone which a call names."""
    row = ZONE.get(view, a.account, "", zone_id(a.input.get(member)))
    for one in row.doc["VPCs"] if row is not None else ():
        yield Vpc(one["Account"], one["VPCRegion"], one["VPCId"])


def joined(tx: Transaction, row: Row, account: str, region: str, vpc: str) -> None:
    """Has a VPC's DNS know a zone; raises ConflictingDomainExists where it knows another one of that name."""
    for one in tx.scan(OF_VPC, "", region, prefix=f"{vpc}/", limit=MOST):
        if one.doc["Name"] == row.doc["Name"]:
            raise Refused(
                "ConflictingDomainExists", f"The VPC {vpc} is associated with a hosted zone {row.doc['Name']} already."
            )
    for one in tx.scan("ec2:In", account, region, prefix=f"{vpc}/vpc-endpoint/", limit=MOST):
        endpoint = tx.get("ec2:VpcEndpoint", account, region, one.name.rpartition("/")[2])
        host = "" if endpoint is None or not endpoint.doc["PrivateDns"] else endpoint.doc["Service"]
        if host and row.doc["Name"].rstrip(".") == f"{host.rpartition('.')[2]}.{region}.amazonaws.com":
            raise Refused("ConflictingDomainExists", f"The VPC {vpc} has an endpoint with that private name.")
    told = {"VPCRegion": region, "VPCId": vpc, "Account": account}
    row.doc["VPCs"] = [*row.doc["VPCs"], told]
    doc = {"Account": row.account, "Name": row.doc["Name"]}
    tx.insert(Row(OF_VPC, "", region, f"{vpc}/{row.name}", doc), keep=False)


def parted(tx: Transaction, row: Row, region: str, vpc: str) -> None:
    """A VPC's DNS knows a zone no longer."""
    held = tx.get(OF_VPC, "", region, f"{vpc}/{row.name}")
    if held is not None:
        tx.delete(held, keep=False)
    row.doc["VPCs"] = [one for one in row.doc["VPCs"] if (one["VPCRegion"], one["VPCId"]) != (region, vpc)]


def records(view: View, row: Row) -> list[Row]:
    """The records of a zone, sorted as Route 53 lists them."""
    found: list[Row] = []
    after: str | None = None
    while rows := view.scan(RECORD, row.account, "", prefix=f"{row.name}/", after=after, limit=500):
        found += rows
        after = rows[-1].name
    return found
