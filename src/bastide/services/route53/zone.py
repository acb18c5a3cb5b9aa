"""Private hosted zones, and which VPCs' DNS knows them. Public ones would be of no use: nobody outside asks here."""

from __future__ import annotations

from typing import Any, Final

from bastide.domain import Refused
from bastide.engines.network import Vpc
from bastide.kernel import Ask, Authorised, Output, anything, pages
from bastide.services.route53.noun import (
    MOST,
    OF,
    OF_VPC,
    ZONE,
    account_of,
    bad,
    change,
    domain,
    joined,
    new_id,
    of_zone,
    own_vpc,
    parted,
    records,
    settling,
    this,
    vpcs_key,
    zone,
    zone_id,
)
from bastide.store import Row, Transaction, View

_VPCS: Final = {"route53:VPCs": vpcs_key("VPC")}


def _shown(view: View, row: Row) -> Output:
    return {
        "Id": f"/hostedzone/{row.name}",
        "Name": row.doc["Name"],
        "CallerReference": row.doc["CallerReference"],
        "Config": {"Comment": row.doc["Comment"], "PrivateZone": True},
        "ResourceRecordSetCount": len(records(view, row)),
    }


def _vpc(one: Any) -> Output:
    return {"VPCRegion": one["VPCRegion"], "VPCId": one["VPCId"]}


def _given(a: Authorised, view: View) -> list[Vpc]:
    given = a.input.get("VPC") or {}
    return [Vpc(a.account, str(given.get("VPCRegion") or ""), str(given.get("VPCId") or ""))] if given else []


@ZONE.operation("CreateHostedZone", asks=[Ask("route53:CreateHostedZone", anything, given=_VPCS)], **settling(_given))
def create(a: Authorised, tx: Transaction) -> Output:
    config = a.input.get("HostedZoneConfig") or {}
    if a.input.get("DelegationSetId"):
        raise bad("Private hosted zones have no delegation set.")
    if not a.input.get("VPC"):
        raise bad("Hosted zones are private here: name a VPC. Nobody outside of the platform asks it for names.")
    name = domain(str(a.input["Name"]))
    if name.startswith("*"):
        raise Refused("InvalidDomainName", f"{name} is not a valid domain name.")
    region, vpc = own_vpc(a, tx, a.input["VPC"])
    reference = str(a.input["CallerReference"])
    held = tx.scan(ZONE.key, a.account, "", limit=MOST)
    if any(one.doc["CallerReference"] == reference for one in held):
        raise Refused("HostedZoneAlreadyExists", f"A hosted zone has been created with the reference {reference}.", 409)
    if len(held) >= MOST:
        raise Refused("TooManyHostedZones", f"An account has at most {MOST} hosted zones.")
    doc = {
        "Name": name, "CallerReference": reference, "Comment": str(config.get("Comment") or ""), "VPCs": [],
        "Authorised": [],
    }  # fmt: skip
    row = ZONE.create(a, tx, new_id(), doc)
    tx.insert(Row(OF, "", "", row.name, {"Account": a.account}), keep=False)
    joined(tx, row, a.account, region, vpc)
    ZONE.change(tx, row, a.operation.name, a.request.id)
    return {
        "HostedZone": _shown(tx, row),
        "ChangeInfo": change(a),
        "VPC": {"VPCRegion": region, "VPCId": vpc},
        "Location": f"https://route53.amazonaws.com/2013-04-01/hostedzone/{row.name}",
    }


@ZONE.reads("GetHostedZone", asks=[Ask("route53:GetHostedZone", this("Id"))])
def get(a: Authorised, view: View) -> Output:
    row = zone(a, view, "Id")
    return {"HostedZone": _shown(view, row), "VPCs": [_vpc(one) for one in row.doc["VPCs"]]}


@ZONE.operation("UpdateHostedZoneComment", asks=[Ask("route53:UpdateHostedZoneComment", this("Id"))])
def comment(a: Authorised, tx: Transaction) -> Output:
    row = zone(a, tx, "Id")
    row.doc["Comment"] = str(a.input.get("Comment") or "")
    ZONE.change(tx, row, a.operation.name, a.request.id)
    return {"HostedZone": _shown(tx, row)}


@ZONE.operation(
    "DeleteHostedZone",
    asks=[Ask("route53:DeleteHostedZone", this("Id"))],
    **settling(lambda a, view: of_zone(a, view, "Id")),
)
def delete(a: Authorised, tx: Transaction) -> Output:
    row = zone(a, tx, "Id")
    if records(tx, row):
        raise Refused("HostedZoneNotEmpty", "The specified hosted zone contains resource record sets.")
    for one in row.doc["VPCs"]:
        parted(tx, row, one["VPCRegion"], one["VPCId"])
    held = tx.get(OF, "", "", row.name)
    if held is not None:
        tx.delete(held, keep=False)
    ZONE.remove(tx, row, a.operation.name, a.request.id)
    return {"ChangeInfo": change(a)}


def _size(a: Authorised) -> int:
    text = str(a.input.get("MaxItems") or "100")
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise bad(f"MaxItems is not a number between 1 and 10000: {text[:16]}")
    return min(int(text), 100)


@ZONE.reads("ListHostedZones", asks=[Ask("route53:ListHostedZones", anything)])
def listed(a: Authorised, view: View) -> Output:
    size = _size(a)
    after = str(a.input.get("Marker") or "") or None
    rows = [] if a.input.get("DelegationSetId") else view.scan(ZONE.key, a.account, "", after=after, limit=size + 1)
    output: Output = {
        "HostedZones": [_shown(view, row) for row in rows[:size]],
        "IsTruncated": len(rows) > size,
        "MaxItems": str(size),
    }
    if after:
        output["Marker"] = after
    if len(rows) > size:
        output["NextMarker"] = rows[size - 1].name
    return output


@ZONE.reads("ListHostedZonesByName", asks=[Ask("route53:ListHostedZonesByName", anything)])
def by_name(a: Authorised, view: View) -> Output:
    size = _size(a)
    name = domain(str(a.input["DNSName"])) if a.input.get("DNSName") else ""
    first = (".".join(reversed(name.split("."))), zone_id(a.input.get("HostedZoneId")))
    rows = sorted(
        view.scan(ZONE.key, a.account, "", limit=MOST),
        key=lambda row: (".".join(reversed(row.doc["Name"].split("."))), row.name),
    )
    rows = [row for row in rows if (".".join(reversed(row.doc["Name"].split("."))), row.name) >= first]
    output: Output = {
        "HostedZones": [_shown(view, row) for row in rows[:size]],
        "IsTruncated": len(rows) > size,
        "MaxItems": str(size),
    }
    if len(rows) > size:
        output |= {"NextDNSName": rows[size].doc["Name"], "NextHostedZoneId": rows[size].name}
    return output


@ZONE.reads(
    "ListHostedZonesByVPC",
    asks=[Ask("route53:ListHostedZonesByVPC", anything, given={"route53:VPCs": vpcs_key("VPCId")})],
)
def by_vpc(a: Authorised, view: View) -> Output:
    region, vpc = own_vpc(a, view, a.input)
    size = _size(a)
    after = pages.position(a, a.input.get("NextToken"), code="InvalidPaginationToken")
    rows = view.scan(OF_VPC, "", region, prefix=f"{vpc}/", after=after, limit=size + 1)
    output: Output = {
        "HostedZoneSummaries": [
            {
                "HostedZoneId": row.name.partition("/")[2],
                "Name": row.doc["Name"],
                "Owner": {"OwningAccount": row.doc["Account"]},
            }
            for row in rows[:size]
        ],
        "MaxItems": str(size),
    }
    if len(rows) > size:
        output["NextToken"] = pages.seal(a, rows[size - 1].name)
    return output


# -- associations ------------------------------------------------------------------------------------------------------


@ZONE.operation(
    "AssociateVPCWithHostedZone",
    asks=[Ask("route53:AssociateVPCWithHostedZone", this(), given=_VPCS)],
    **settling(_given),
)
def associate(a: Authorised, tx: Transaction) -> Output:
    region, vpc = own_vpc(a, tx, a.input["VPC"])
    id = zone_id(a.input["HostedZoneId"])
    row = ZONE.get(tx, account_of(tx, id), "", id)
    # Of a zone that is not there the same is said: whoever guesses ids learns nothing.
    if row is None or (row.account != a.account and {"VPCRegion": region, "VPCId": vpc} not in row.doc["Authorised"]):
        raise Refused(
            "NotAuthorizedException",
            f"The VPC: {vpc} has not authorized to associate with your hosted zone. The zone's account has to create an "
            "association authorization first.",
            401,
        )
    joined(tx, row, a.account, region, vpc)
    ZONE.change(tx, row, a.operation.name, a.request.id)
    return {"ChangeInfo": change(a, a.input.get("Comment"))}


@ZONE.operation(
    "DisassociateVPCFromHostedZone",
    asks=[Ask("route53:DisassociateVPCFromHostedZone", this(), given=_VPCS)],
    **settling(_given),
)
def disassociate(a: Authorised, tx: Transaction) -> Output:
    given = a.input["VPC"]
    region, vpc = str(given.get("VPCRegion") or ""), str(given.get("VPCId") or "")
    id = zone_id(a.input["HostedZoneId"])
    row = ZONE.find(tx, account_of(tx, id), "", id)
    held = [one for one in row.doc["VPCs"] if (one["VPCRegion"], one["VPCId"]) == (region, vpc)]
    if row.account != a.account and (not held or held[0]["Account"] != a.account):
        raise Refused("NoSuchHostedZone", f"No hosted zone found with ID: {id}", 404)
    if not held or a.account not in (row.account, held[0]["Account"]):
        raise Refused("VPCAssociationNotFound", f"The VPC {vpc[:64]} is not associated with the hosted zone.", 404)
    if len(row.doc["VPCs"]) == 1:
        raise Refused("LastVPCAssociation", f"The VPC {vpc} is the only one that is associated with the hosted zone.")
    parted(tx, row, region, vpc)
    ZONE.change(tx, row, a.operation.name, a.request.id)
    return {"ChangeInfo": change(a, a.input.get("Comment"))}


@ZONE.operation(
    "CreateVPCAssociationAuthorization", asks=[Ask("route53:CreateVPCAssociationAuthorization", this(), given=_VPCS)]
)
def authorise(a: Authorised, tx: Transaction) -> Output:
    row = zone(a, tx)
    told = _vpc({"VPCRegion": "", "VPCId": "", **a.input["VPC"]})
    if told not in row.doc["Authorised"]:
        row.doc["Authorised"] = [*row.doc["Authorised"], told]
    if len(row.doc["Authorised"]) > MOST:
        raise Refused("TooManyVPCAssociationAuthorizations", f"A hosted zone has at most {MOST} authorizations.")
    ZONE.change(tx, row, a.operation.name, a.request.id)
    return {"HostedZoneId": row.name, "VPC": told}


@ZONE.operation(
    "DeleteVPCAssociationAuthorization", asks=[Ask("route53:DeleteVPCAssociationAuthorization", this(), given=_VPCS)]
)
def forbid(a: Authorised, tx: Transaction) -> Output:
    row = zone(a, tx)
    told = _vpc({"VPCRegion": "", "VPCId": "", **a.input["VPC"]})
    if told not in row.doc["Authorised"]:
        raise Refused("VPCAssociationAuthorizationNotFound", "The authorization does not exist.", 404)
    row.doc["Authorised"] = [one for one in row.doc["Authorised"] if one != told]
    ZONE.change(tx, row, a.operation.name, a.request.id)
    return {}


@ZONE.reads("ListVPCAssociationAuthorizations", asks=[Ask("route53:ListVPCAssociationAuthorizations", this())])
def authorisations(a: Authorised, view: View) -> Output:
    row = zone(a, view)
    return {"HostedZoneId": row.name, "VPCs": row.doc["Authorised"]}


# -- changes and tags --------------------------------------------------------------------------------------------------


@ZONE.reads("GetChange", asks=[Ask("route53:GetChange", lambda asked: (_change_arn(asked.input.get("Id")),))])
def changed(a: Authorised, view: View) -> Output:
    """Every change is in force when it is answered, so there is none that could be another."""
    id = zone_id(a.input["Id"])
    if not id.startswith("C"):
        raise Refused("NoSuchChange", f"Could not find resource with ID: {id[:64]}", 404)
    return {"ChangeInfo": {"Id": f"/change/{id}", "Status": "INSYNC", "SubmittedAt": a.now}}


def _change_arn(given: Any) -> str:
    return f"arn:aws:route53:::change/{zone_id(given) or '*'}"


def _tagged(a: Authorised, view: View) -> Row:
    if a.input["ResourceType"] != "hostedzone":
        raise Refused("NoSuchHealthCheck", "There are no health checks here.", 404)
    return zone(a, view, "ResourceId")


@ZONE.operation("ChangeTagsForResource", asks=[Ask("route53:ChangeTagsForResource", this("ResourceId"))])
def tag(a: Authorised, tx: Transaction) -> Output:
    row = _tagged(a, tx)
    gone = set(a.input.get("RemoveTagKeys") or ())
    tags = {key: value for key, value in row.tags.items() if key not in gone}
    for one in a.input.get("AddTags") or ():
        key = str(one.get("Key") or "")
        if not key or len(key) > 128 or key.lower().startswith("aws:"):
            raise bad(f"The tag key {key[:128]!r} is not valid.")
        tags[key] = str(one.get("Value") or "")
    if len(tags) > 50:
        raise bad("A hosted zone has at most 50 tags.")
    row.tags = tags
    ZONE.change(tx, row, a.operation.name, a.request.id)
    return {}


@ZONE.reads("ListTagsForResource", asks=[Ask("route53:ListTagsForResource", this("ResourceId"))])
def tags(a: Authorised, view: View) -> Output:
    row = _tagged(a, view)
    shown = [{"Key": key, "Value": value} for key, value in row.tags.items()]
    return {"ResourceTagSet": {"ResourceType": "hostedzone", "ResourceId": row.name, "Tags": shown}}
