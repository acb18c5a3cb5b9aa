"""Route 53's types: private hosted zones and their records."""

from __future__ import annotations

from typing import Any, Final

from bastide.domain import Refused
from bastide.services.cloudformation.resource import Resource, Type, is_gone
from bastide.services.cloudformation.types.network import lacking
from bastide.services.cloudformation.types.regular import calls_of


def _vpcs(properties: dict[str, Any]) -> list[dict[str, str]]:
    return [{"VPCRegion": one["VPCRegion"], "VPCId": one["VPCId"]} for one in properties.get("VPCs") or ()]


async def _create_zone(r: Resource) -> None:
    lacking(r, "QueryLoggingConfig", "HostedZoneFeatures")
    first, *others = _vpcs(r.properties) or [{}]
    asked: dict[str, Any] = {"Name": r.get("Name"), "CallerReference": r.name(100), "VPC": first}
    if r.get("HostedZoneConfig"):
        asked["HostedZoneConfig"] = r.get("HostedZoneConfig")
    made = (await r.do("CreateHostedZone", asked, key="create"))["HostedZone"]
    r.thing.physical = made["Id"].rpartition("/")[2]
    r.thing.attributes = {"Id": r.physical, "NameServers": []}
    for one in others:
        await r.do("AssociateVPCWithHostedZone", {"HostedZoneId": r.physical, "VPC": one})
    await _tag(r)


async def _tag(r: Resource) -> None:
    before = {one["Key"] for one in r.old.get("HostedZoneTags") or ()}
    after = r.tags("HostedZoneTags")
    gone = sorted(before - {one["Key"] for one in after})
    asked: dict[str, Any] = {"ResourceType": "hostedzone", "ResourceId": r.physical}
    if after or gone:
        more = {**({"AddTags": after} if after else {}), **({"RemoveTagKeys": gone} if gone else {})}
        await r.do("ChangeTagsForResource", {**asked, **more})


async def _update_zone(r: Resource) -> None:
    lacking(r, "QueryLoggingConfig", "HostedZoneFeatures")
    if r.changed("HostedZoneConfig"):
        comment = (r.get("HostedZoneConfig") or {}).get("Comment") or ""
        await r.do("UpdateHostedZoneComment", {"Id": r.physical, "Comment": comment})
    before, after = _vpcs(r.old), _vpcs(r.properties)
    for one in after:
        if one not in before:
            await r.do("AssociateVPCWithHostedZone", {"HostedZoneId": r.physical, "VPC": one})
    for one in before:
        if one not in after:
            await r.do("DisassociateVPCFromHostedZone", {"HostedZoneId": r.physical, "VPC": one})
    await _tag(r)


async def _delete_zone(r: Resource) -> None:
    await r.drop("DeleteHostedZone", {"Id": r.physical})


_RECORD: Final = ("Name", "Type", "SetIdentifier", "Weight", "Region", "GeoLocation", "Failover", "MultiValueAnswer",
                  "HealthCheckId", "CidrRoutingConfig", "GeoProximityLocation")  # fmt: skip


def _record(properties: dict[str, Any]) -> dict[str, Any]:
    told = {name: properties[name] for name in _RECORD if properties.get(name) is not None}
    if properties.get("TTL") is not None:
        told["TTL"] = int(properties["TTL"])
    if properties.get("ResourceRecords"):
        told["ResourceRecords"] = [{"Value": one} for one in properties["ResourceRecords"]]
    if properties.get("AliasTarget"):
        told["AliasTarget"] = {"EvaluateTargetHealth": False, **properties["AliasTarget"]}
    return told


async def _zone(r: Resource) -> str:
    if r.get("HostedZoneId"):
        return str(r.get("HostedZoneId"))
    name = str(r.get("HostedZoneName") or "").rstrip(".")
    found = (await r.read("ListHostedZonesByName", {"DNSName": name}))["HostedZones"] if name else []
    zones = [one for one in found if one["Name"] == f"{name}."]
    if len(zones) != 1:
        raise Refused(
            "ValidationError", f"There are {len(zones)} hosted zones of the name {name!r}; give a HostedZoneId."
        )
    return str(zones[0]["Id"])


def _batch(action: str, record: dict[str, Any]) -> dict[str, Any]:
    return {"Changes": [{"Action": action, "ResourceRecordSet": record}]}


async def _create_record(r: Resource) -> None:
    asked = {"HostedZoneId": await _zone(r), "ChangeBatch": _batch("CREATE", _record(r.properties))}
    await r.do("ChangeResourceRecordSets", asked, key="create")
    r.thing.physical = str(r.get("Name")).rstrip(".")


async def _update_record(r: Resource) -> None:
    record = _record(r.properties)
    await r.do("ChangeResourceRecordSets", {"HostedZoneId": await _zone(r), "ChangeBatch": _batch("UPSERT", record)})
    if r.changed("Type"):
        old = {"HostedZoneId": await _zone(r), "ChangeBatch": _batch("DELETE", _record(r.old))}
        await r.do("ChangeResourceRecordSets", old)


async def _delete_record(r: Resource) -> None:
    try:
        asked = {"HostedZoneId": await _zone(r), "ChangeBatch": _batch("DELETE", _record(r.properties))}
        await r.do("ChangeResourceRecordSets", asked)
    except Refused as refused:
        if not is_gone(refused) and "was not found" not in refused.message:
            raise


TYPES: Final = (
    Type("AWS::Route53::HostedZone", "route53", _create_zone, _delete_zone, _update_zone, None,
         calls_of("route53", ["CreateHostedZone", "DeleteHostedZone", "UpdateHostedZoneComment",
                              "AssociateVPCWithHostedZone", "DisassociateVPCFromHostedZone", "ChangeTagsForResource"])),
    Type("AWS::Route53::RecordSet", "route53", _create_record, _delete_record, _update_record, None,
         calls_of("route53", ["ChangeResourceRecordSets", "ListHostedZonesByName"])),
)  # fmt: skip
"""Types of names."""
