"""Records of hosted zones: simple ones, and aliases of VPC endpoints and of records beside them."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import dns.exception
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from bastide.domain import Refused
from bastide.engines.network import Zone
from bastide.kernel import Ask, Asked, Authorised, Output
from bastide.services.route53.noun import (
    OF_VPC,
    RECORD,
    ZONE,
    backwards,
    bad,
    change,
    domain,
    of_zone,
    records,
    settling,
    this,
    zone,
)
from bastide.store import Row, Transaction, View

_TYPES: Final = ("A", "AAAA", "CNAME", "MX", "PTR", "SRV", "TXT")
_LACKING: Final = (
    "SetIdentifier", "Weight", "Region", "GeoLocation", "Failover", "MultiValueAnswer", "HealthCheckId",
    "TrafficPolicyInstanceId", "CidrRoutingConfig", "GeoProximityLocation",
)  # fmt: skip
_MOST: Final = 10_000
_ALIAS_TTL: Final = 60


def _refused(message: str) -> Refused:
    return Refused("InvalidChangeBatch", f"[{message}]")


def _key(row: Row, name: str, kind: str) -> str:
    return f"{row.name}/{backwards(name)}\0{kind}"


def _checked(row: Row, given: Mapping[str, Any]) -> dict[str, Any]:
    """A record as it is kept; raises InvalidChangeBatch for one that cannot be answered with."""
    lacking = [one for one in _LACKING if given.get(one) not in (None, False, {}, [])]
    if lacking:
        raise _refused(f"{', '.join(lacking)}: Bastide has simple records and aliases only.")
    name, kind = domain(str(given.get("Name") or "")), str(given.get("Type") or "")
    if name != row.doc["Name"] and not name.endswith(f".{row.doc['Name']}"):
        raise _refused(f"RRSet with DNS name {name} is not permitted in zone {row.doc['Name']}")
    if kind not in _TYPES:
        raise _refused(f"Records of the type {kind[:16]} are not supported by Bastide: {', '.join(_TYPES)}")
    if kind == "CNAME" and name == row.doc["Name"]:
        raise _refused(f"RRSet of type CNAME with DNS name {name} is not permitted at apex in zone {name}")
    alias = given.get("AliasTarget")
    values = [str(one.get("Value") or "") for one in given.get("ResourceRecords") or ()]
    if bool(alias) == bool(values):
        raise _refused("Either AliasTarget or ResourceRecords has to be given")
    if alias:
        if kind != "A" or alias.get("EvaluateTargetHealth"):
            raise _refused("Aliases are of the type A here, and nothing evaluates a target's health")
        return {"Name": name, "Type": kind, "Alias": domain(str(alias.get("DNSName") or ""))} | {
            "AliasZone": str(alias.get("HostedZoneId") or "")
        }
    if given.get("TTL") is None or not 0 <= int(given["TTL"]) <= 2_147_483_647:
        raise _refused("Missing field 'TTL'")
    if kind == "CNAME" and len(values) > 1:
        raise _refused("A CNAME has one value")
    for value in values:
        try:
            if kind == "A":
                ipaddress.IPv4Address(value)
            dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.from_text(kind), value)
        except (dns.exception.DNSException, ValueError):
            raise _refused(f"Invalid Resource Record: '{value[:255]}' is no value of the type {kind}") from None
    return {"Name": name, "Type": kind, "TTL": int(given["TTL"]), "Values": values}


def _shown(doc: Mapping[str, Any]) -> Output:
    told: Output = {"Name": doc["Name"].replace("*", "\\052"), "Type": doc["Type"]}
    if "Alias" in doc:
        target = {"HostedZoneId": doc["AliasZone"], "DNSName": doc["Alias"], "EvaluateTargetHealth": False}
        return {**told, "AliasTarget": target}
    return {**told, "TTL": doc["TTL"], "ResourceRecords": [{"Value": one} for one in doc["Values"]]}


def _changes(asked: Asked) -> list[Mapping[str, Any]]:
    return list((asked.input.get("ChangeBatch") or {}).get("Changes") or ())


def _each(read: Callable[[Mapping[str, Any]], str]) -> Callable[[Asked], list[str] | None]:
    return lambda asked: sorted({read(one) for one in _changes(asked)}) or None


@ZONE.operation(
    "ChangeResourceRecordSets",
    asks=[
        Ask(
            "route53:ChangeResourceRecordSets",
            this(),
            given={
                "route53:ChangeResourceRecordSetsNormalizedRecordNames": _each(
                    lambda one: str((one.get("ResourceRecordSet") or {}).get("Name") or "").lower().rstrip(".")
                ),
                "route53:ChangeResourceRecordSetsRecordTypes": _each(
                    lambda one: str((one.get("ResourceRecordSet") or {}).get("Type") or "")
                ),
                "route53:ChangeResourceRecordSetsActions": _each(lambda one: str(one.get("Action") or "")),
            },
        )
    ],
    **settling(of_zone),
)
def change_records(a: Authorised, tx: Transaction) -> Output:
    row = zone(a, tx)
    batch = a.input["ChangeBatch"]
    for one in batch.get("Changes") or ():
        doc = _checked(row, one.get("ResourceRecordSet") or {})
        name, kind, action = doc["Name"], doc["Type"], str(one.get("Action") or "")
        held = tx.get(RECORD, row.account, "", _key(row, name, kind))
        if action == "DELETE":
            if held is None or held.doc != doc:
                raise _refused(
                    f"Tried to delete resource record set [name='{name}', type='{kind}'] but it was not found"
                )
            tx.delete(held, keep=False)
            continue
        if action == "CREATE" and held is not None:
            raise _refused(f"Tried to create resource record set [name='{name}', type='{kind}'] but it already exists")
        if action not in ("CREATE", "UPSERT"):
            raise bad(f"The action {action[:16]} is none of CREATE, DELETE, UPSERT.")
        beside = [each for each in _TYPES if each != kind and tx.get(RECORD, row.account, "", _key(row, name, each))]
        if beside and "CNAME" in (kind, *beside):
            raise _refused(f"RRSet of type {kind} with DNS name {name} conflicts with one of type {beside[0]}")
        if held is None:
            tx.insert(Row(RECORD, row.account, "", _key(row, name, kind), doc), keep=False)
        else:
            held.doc = doc
            tx.update(held, keep=False)
    if len(records(tx, row)) > _MOST:
        raise _refused(f"A hosted zone has at most {_MOST} records")
    ZONE.change(tx, row, a.operation.name, a.request.id)
    return {"ChangeInfo": change(a, batch.get("Comment"))}


@ZONE.reads("ListResourceRecordSets", asks=[Ask("route53:ListResourceRecordSets", this())])
def listed(a: Authorised, view: View) -> Output:
    row = zone(a, view)
    text = str(a.input.get("MaxItems") or "300")
    if not text.isdecimal() or int(text) < 1:
        raise bad(f"MaxItems is not a number: {text[:16]}")
    size = min(int(text), 300)
    start = str(a.input.get("StartRecordName") or "")
    first = ""
    if start:
        first = _key(row, domain(start.replace("\\052", "*")), str(a.input.get("StartRecordType") or ""))
    rows = [one for one in records(view, row) if one.name >= first]
    output: Output = {
        "ResourceRecordSets": [_shown(one.doc) for one in rows[:size]],
        "IsTruncated": len(rows) > size,
        "MaxItems": str(size),
    }
    if len(rows) > size:
        output |= {"NextRecordName": rows[size].doc["Name"], "NextRecordType": rows[size].doc["Type"]}
    return output


# -- what a VPC's DNS is told ------------------------------------------------------------------------------------------


def zones_of(view: View, region: str, vpc: str, endpoint: Callable[[str], tuple[str, ...]]) -> Iterable[Zone]:
    """The zones that a VPC's DNS knows. endpoint: the addresses of an endpoint's own name."""
    for held in view.scan(OF_VPC, "", region, prefix=f"{vpc}/", limit=500):
        row = ZONE.get(view, held.doc["Account"], "", held.name.partition("/")[2])
        if row is None:
            continue
        docs = [one.doc for one in records(view, row)]
        plain = {(doc["Name"], doc["Type"]): doc["Values"] for doc in docs if "Values" in doc}
        found: dict[tuple[str, str], tuple[int, tuple[str, ...]]] = {}
        for doc in docs:
            name = doc["Name"].rstrip(".")
            if "Alias" in doc:
                values = plain.get((doc["Alias"], "A")) or endpoint(doc["Alias"].rstrip("."))
                if values:
                    found[name, "A"] = (_ALIAS_TTL, tuple(values))
            else:
                found[name, doc["Type"]] = (doc["TTL"], tuple(doc["Values"]))
        yield Zone(row.doc["Name"].rstrip("."), found)
