"""Regions, availability zones, and the prefix lists of gateway services.

Every region has three zones, ``a`` to ``c``; all of them are this one machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Authorised, Output
from bastide.services.ec2 import noun
from bastide.services.ec2.noun import ask, filters, fixed, invalid, sliced
from bastide.services.ec2.nouns import VPC
from bastide.services.ec2.services import endpoint_services, prefix_list
from bastide.store import Row, View
from bastide.store.directory import Configuration

_SHORT: Final = {
    "north": "n", "south": "s", "east": "e", "west": "w", "central": "c", "northeast": "ne", "southeast": "se",
    "northwest": "nw", "southwest": "sw",
}  # fmt: skip


def zones(region: str) -> tuple[str, ...]:
    """The zones of a region."""
    return tuple(f"{region}{letter}" for letter in "abc")


def zone_id(zone: str) -> str:
    """``use1-az1`` of ``us-east-1a``; which letter has which number is the same in all accounts here."""
    found = re.fullmatch(r"([a-z]+)-(.+)-(\d)([a-z])", zone)
    if found is None:
        return zone
    area, way, number, letter = found.groups()
    short = "".join(_SHORT.get(part, part[:1]) for part in way.split("-"))
    return f"{area}{short}{number}-az{ord(letter) - ord('a') + 1}"


def _rows(a: Authorised, names: list[str]) -> list[Row]:
    """Names as rows, so that filters work on them."""
    return [Row("", a.account, a.region, name, {}) for name in names]


def _chosen(a: Authorised, view: View, names: list[str], fields: Mapping[str, noun.Field]) -> list[str]:
    test = filters(a, fields)
    return [row.name for row in _rows(a, names) if test(view, row)]


@VPC.tells("DescribeAvailabilityZones", asks=[ask("DescribeAvailabilityZones", noun.anything)])
def describe_zones(a: Authorised, view: View) -> Output:
    found = list(zones(a.region))
    for member, of in (("ZoneNames", str), ("ZoneIds", zone_id)):
        wanted = a.input.get(member)
        if wanted:
            for one in wanted:
                if one not in [of(zone) for zone in zones(a.region)]:
                    raise invalid(f"Invalid availability zone: [{one[:64]}]")
            found = [zone for zone in found if of(zone) in wanted]
    fields: dict[str, noun.Field] = {
        "zone-name": noun.name, "zone-id": lambda view, row: zone_id(row.name), "region-name": fixed(a.region),
        "state": fixed("available"), "zone-type": fixed("availability-zone"), "group-name": fixed(f"{a.region}-zg-1"),
        "opt-in-status": fixed("opt-in-not-required"),
    }  # fmt: skip
    return {
        "AvailabilityZones": [
            {
                "ZoneName": zone,
                "ZoneId": zone_id(zone),
                "RegionName": a.region,
                "State": "available",
                "ZoneType": "availability-zone",
                "GroupName": f"{a.region}-zg-1",
                "NetworkBorderGroup": a.region,
                "OptInStatus": "opt-in-not-required",
                "Messages": [],
            }
            for zone in _chosen(a, view, found, fields)
        ]
    }


@VPC.tells("DescribeRegions", asks=[ask("DescribeRegions", noun.anything)])
def describe_regions(a: Authorised, view: View) -> Output:
    have = a.engine(Configuration).regions
    wanted = a.input.get("RegionNames") or list(have)
    for one in wanted:
        if one not in have:
            raise invalid(f"Invalid region name: [{one[:64]}]")
    fields: dict[str, noun.Field] = {
        "region-name": noun.name,
        "endpoint": lambda view, row: f"ec2.{row.name}.amazonaws.com",
        "opt-in-status": fixed("opt-in-not-required"),
    }
    return {
        "Regions": [
            {"RegionName": one, "Endpoint": f"ec2.{one}.amazonaws.com", "OptInStatus": "opt-in-not-required"}
            for one in _chosen(a, view, wanted, fields)
        ]
    }


# -- prefix lists ------------------------------------------------------------------------------------------------------


def lists(a: Authorised) -> dict[str, tuple[str, str]]:
    """The prefix lists of the region: by id their name and their CIDR."""
    found: dict[str, tuple[str, str]] = {}
    for one in endpoint_services(a.region, a.calls.registry.services):
        if one.gateway:
            id, cidr = prefix_list(a.region, one.name.rpartition(".")[2])
            found[id] = (one.name, cidr)
    return found


def _named(a: Authorised, view: View, fields: Mapping[str, noun.Field]) -> list[tuple[str, str, str]]:
    have = lists(a)
    wanted = a.input.get("PrefixListIds") or list(have)
    for id in wanted:
        if id not in have:
            raise Refused("InvalidPrefixListId.NotFound", f"The prefix list ID '{id[:64]}' does not exist")
    return [(id, *have[id]) for id in sorted(_chosen(a, view, wanted, fields))]


@VPC.tells("DescribePrefixLists", asks=[ask("DescribePrefixLists", noun.anything)])
def describe_lists(a: Authorised, view: View) -> Output:
    have = lists(a)
    fields: dict[str, noun.Field] = {
        "prefix-list-id": noun.name, "prefix-list-name": lambda view, row: have[row.name][0]
    }  # fmt: skip
    found = [
        {"PrefixListId": id, "PrefixListName": name, "Cidrs": [cidr]} for id, name, cidr in _named(a, view, fields)
    ]
    return sliced(a, "PrefixLists", found)


@VPC.tells("DescribeManagedPrefixLists", asks=[ask("DescribeManagedPrefixLists", noun.anything)])
def describe_managed_lists(a: Authorised, view: View) -> Output:
    have = lists(a)
    fields: dict[str, noun.Field] = {
        "prefix-list-id": noun.name, "prefix-list-name": lambda view, row: have[row.name][0], "owner-id": fixed("AWS"),
    }  # fmt: skip
    found: list[dict[str, Any]] = [
        {
            "PrefixListId": id,
            "PrefixListArn": f"arn:aws:ec2:{a.region}:aws:prefix-list/{id}",
            "PrefixListName": name,
            "AddressFamily": "IPv4",
            "OwnerId": "AWS",
            "State": "create-complete",
            "Tags": [],
        }
        for id, name, _ in _named(a, view, fields)
    ]
    return sliced(a, "PrefixLists", found)
