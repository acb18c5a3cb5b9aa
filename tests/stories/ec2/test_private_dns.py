"""Private hosted zones: names that a VPC's DNS knows, also those of another account's zone."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import REGION, Running
from tests.stories.ec2.conftest import Science, make_vpc


def refused(call: Any, **given: Any) -> str:
    with pytest.raises(ClientError) as error:
        call(**given)
    return str(error.value.response["Error"]["Code"])


def record(name: str, kind: str, *values: str) -> dict[str, Any]:
    return {"Name": name, "Type": kind, "TTL": 60, "ResourceRecords": [{"Value": one} for one in values]}


def alias(name: str, target: str) -> dict[str, Any]:
    to = {"HostedZoneId": "Z7HUB22UULQXV", "DNSName": target, "EvaluateTargetHealth": False}
    return {"Name": name, "Type": "A", "AliasTarget": to}


def batch(action: str, *records: dict[str, Any]) -> dict[str, Any]:
    return {"Changes": [{"Action": action, "ResourceRecordSet": one} for one in records]}


def in_vpc(id: str) -> dict[str, str]:
    return {"VPCRegion": REGION, "VPCId": id}


def test_a_zone_of_another_account_is_known_where_both_sides_agreed(platform: Running, science: Science) -> None:
    owner = platform.account()
    hub = make_vpc(owner, "10.3.0.0/16")
    zones, theirs = owner.client("route53"), science.vpc.account.client("route53")
    made = zones.create_hosted_zone(Name="models.bank", VPC=in_vpc(hub.id), CallerReference=uuid.uuid4().hex)
    zone = made["HostedZone"]["Id"]
    assert made["HostedZone"]["Config"]["PrivateZone"] and made["ChangeInfo"]["Status"] == "INSYNC"
    there = {"HostedZoneId": zone}
    zones.change_resource_record_sets(
        **there,
        ChangeBatch=batch(
            "CREATE",
            record("risk.models.bank", "A", "10.3.1.10", "10.3.1.11"),
            record("*.test.models.bank", "A", "10.3.1.12"),
            record("credit.models.bank", "CNAME", "risk.models.bank."),
            record("models.bank", "TXT", '"owned by risk"'),
        ),
    )

    def resolves(name: str) -> list[str] | str:
        code, found = science.inside.one("resolve", name)
        return code or found

    assert resolves("risk.models.bank") == "gaierror"
    ours = {**there, "VPC": in_vpc(science.vpc.id)}
    assert refused(zones.associate_vpc_with_hosted_zone, **ours) == "InvalidVPCId"
    for id in (zone, "Z" + "A" * 20):  # another account's, and none: nobody tells them apart
        assert (
            refused(theirs.associate_vpc_with_hosted_zone, **{**ours, "HostedZoneId": id}) == "NotAuthorizedException"
        )
        assert refused(theirs.disassociate_vpc_from_hosted_zone, **{**ours, "HostedZoneId": id}) == "NoSuchHostedZone"
        assert refused(theirs.get_hosted_zone, Id=id) == "NoSuchHostedZone"
    zones.create_vpc_association_authorization(**ours)
    theirs.associate_vpc_with_hosted_zone(**ours)
    assert refused(theirs.get_hosted_zone, Id=zone) == "NoSuchHostedZone"
    listed = theirs.list_hosted_zones_by_vpc(**in_vpc(science.vpc.id))["HostedZoneSummaries"]
    assert [(one["Name"], one["Owner"]["OwningAccount"]) for one in listed] == [("models.bank.", owner.id)]
    assert resolves("risk.models.bank") == ["10.3.1.10", "10.3.1.11"] == resolves("CREDIT.models.bank")
    assert resolves("any.test.models.bank") == ["10.3.1.12"] == resolves("deep.any.test.models.bank")
    assert resolves("none.models.bank") == resolves("models.bank") == resolves("models.example") == "gaierror"

    # What changes is answered at once; what was not agreed in full is not there.
    zones.change_resource_record_sets(
        **there, ChangeBatch=batch("UPSERT", record("risk.models.bank", "A", "10.3.1.20"))
    )
    assert resolves("credit.models.bank") == ["10.3.1.20"]
    wrong = batch("DELETE", record("*.test.models.bank", "A", "10.3.1.12"), record("gone.models.bank", "A", "10.3.1.1"))
    assert refused(zones.change_resource_record_sets, **there, ChangeBatch=wrong) == "InvalidChangeBatch"
    assert resolves("any.test.models.bank") == ["10.3.1.12"]

    # A service's own name, which leads to an endpoint that several VPCs share.
    endpoint = hub.interface("sts", PrivateDnsEnabled=False)["DnsEntries"][0]["DnsName"]
    central = zones.create_hosted_zone(
        Name=f"sts.{REGION}.amazonaws.com", VPC=in_vpc(hub.id), CallerReference=uuid.uuid4().hex
    )["HostedZone"]["Id"]
    zones.change_resource_record_sets(
        HostedZoneId=central, ChangeBatch=batch("CREATE", alias(f"sts.{REGION}.amazonaws.com", endpoint))
    )
    before = resolves(f"sts.{REGION}.amazonaws.com")
    zones.create_vpc_association_authorization(HostedZoneId=central, VPC=in_vpc(science.vpc.id))
    theirs.associate_vpc_with_hosted_zone(HostedZoneId=central, VPC=in_vpc(science.vpc.id))
    found = resolves(f"sts.{REGION}.amazonaws.com")
    assert found != before and str(found[0]).startswith("10.3.1.")
    conflicting = zones.create_hosted_zone(Name="models.bank", VPC=in_vpc(make_vpc(owner, "10.4.0.0/16").id),
                                           CallerReference=uuid.uuid4().hex)["HostedZone"]["Id"]  # fmt: skip
    zones.create_vpc_association_authorization(HostedZoneId=conflicting, VPC=in_vpc(science.vpc.id))
    code = refused(theirs.associate_vpc_with_hosted_zone, HostedZoneId=conflicting, VPC=in_vpc(science.vpc.id))
    assert code == "ConflictingDomainExists"

    for one in (zone, central):
        theirs.disassociate_vpc_from_hosted_zone(HostedZoneId=one, VPC=in_vpc(science.vpc.id))
    assert resolves("risk.models.bank") == "gaierror"
    assert resolves(f"sts.{REGION}.amazonaws.com") == before
    assert refused(zones.disassociate_vpc_from_hosted_zone, **there, VPC=in_vpc(hub.id)) == "LastVPCAssociation"
    assert refused(zones.delete_hosted_zone, Id=zone) == "HostedZoneNotEmpty"
    held = zones.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    assert [(one["Name"], one["Type"]) for one in held] == [
        ("models.bank.", "TXT"), ("credit.models.bank.", "CNAME"), ("risk.models.bank.", "A"),
        ("\\052.test.models.bank.", "A"),
    ]  # fmt: skip
    zones.change_resource_record_sets(
        HostedZoneId=zone,
        ChangeBatch=batch("DELETE", *({**one, "Name": one["Name"].replace("\\052", "*")} for one in held)),
    )
    zones.delete_hosted_zone(Id=zone)


def test_what_would_not_be_answered_is_refused(platform: Running) -> None:
    vpc = make_vpc(platform.account(), "10.5.0.0/16")
    zones = vpc.account.client("route53")
    assert refused(zones.create_hosted_zone, Name="a.bank", CallerReference="1") == "InvalidInput"
    there = {"Name": "a.bank", "CallerReference": "2", "VPC": in_vpc(vpc.id)}
    assert refused(zones.create_hosted_zone, **{**there, "Name": "no domain"}) == "InvalidDomainName"
    assert refused(zones.create_hosted_zone, **{**there, "VPC": in_vpc("vpc-0123456789abcdef0")}) == "InvalidVPCId"
    zone = zones.create_hosted_zone(**there)["HostedZone"]["Id"]
    assert refused(zones.create_hosted_zone, **there) == "HostedZoneAlreadyExists"
    for wrong in (
        record("b.other", "A", "10.0.0.1"),
        record("b.a.bank", "A", "nonsense"),
        record("b.a.bank", "NAPTR", "1 1 U x y ."),
        record("a.bank", "CNAME", "b.a.bank."),
        {**record("b.a.bank", "A", "10.0.0.1"), "SetIdentifier": "x", "Weight": 1},
        {"Name": "b.a.bank", "Type": "A"},
    ):
        code = refused(zones.change_resource_record_sets, HostedZoneId=zone, ChangeBatch=batch("CREATE", wrong))
        assert code == "InvalidChangeBatch", wrong
    assert zones.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"] == []
