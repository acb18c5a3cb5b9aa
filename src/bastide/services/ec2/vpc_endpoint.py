"""VPC endpoints: interfaces in subnets, or targets of routes, behind which the platform itself listens.

Each is a listener of its own that leads to its service alone; what passes it is subject to its policy. When a call that
changes one is answered, packets go accordingly. Source: AWS PrivateLink Guide, "Access AWS services through AWS
PrivateLink", "Gateway endpoints", "Control access to VPC endpoints using endpoint policies", "Quotas".
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import Any, Final

from bastide.domain import MICROS, Refused
from bastide.engines.network import Networks, Vpc
from bastide.kernel import Asked, Authorised, Calls, Output, once
from bastide.policy import Document, Form
from bastide.services.ec2 import noun
from bastide.services.ec2.network_interface import drop_interface, groups_of, new_interface, regroup
from bastide.services.ec2.noun import ask, creating, describes, invalid, missing, parameter, sliced, unsupported
from bastide.services.ec2.nouns import (
    AMAZON,
    NETWORK_INTERFACE,
    ROUTE_TABLE,
    SECURITY_GROUP,
    SUBNET,
    VPC,
    VPC_ENDPOINT,
)
from bastide.services.ec2.places import zone_id, zones
from bastide.services.ec2.services import EndpointService, endpoint_services, find, prefix_list
from bastide.store import Row, Transaction, View

OF: Final = "ec2:VpcEndpointOf"
"""Rows named by an endpoint's id, under no account: whose it is."""
FULL_ACCESS: Final = (
    '{"Version":"2008-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}]}'
)
_MOST_POLICY: Final = 20_480
_MOST_ENDPOINTS: Final = 50
"""A VPC, of either type; AWS's default quota for interface endpoints."""
_OTHER: Final = ("ServiceNetworkArn", "ResourceConfigurationArn", "SubnetConfigurations", "ServiceRegion")


def _checked_policy(text: str) -> str:
    if len(text) > _MOST_POLICY:
        raise Refused("InvalidPolicyDocument", f"The policy document may have at most {_MOST_POLICY} characters.")
    try:
        Document.parse(text, Form.ENDPOINT)
    except Refused as refused:
        raise Refused("InvalidPolicyDocument", f"The policy document is not valid: {refused.message}") from None
    return text


def _service(a: Authorised, name: str, kind: str) -> EndpointService:
    found = find(a.region, name, a.calls.registry.services, kind)
    if found is None:
        raise Refused("InvalidServiceName", f"The Vpc Endpoint Service '{name[:128]}' does not exist")
    return found


def _default_group(asked: Asked) -> Iterable[str]:
    """The group that an interface endpoint gets when none is given."""
    call = asked.call
    given = call.input
    if given.get("VpcEndpointType") != "Interface" or given.get("SecurityGroupIds"):
        return ()
    vpc = VPC.get(asked.view, call.account, call.region, str(given["VpcId"]))
    return () if vpc is None else (SECURITY_GROUP.arn(call.account, call.region, vpc.doc["Default"]),)


async def _before_create(a: Authorised) -> Any:
    noun.capable(a)
    return None


async def _after_create(a: Authorised, output: Output) -> Output:
    await settle(a.calls, Vpc(a.account, a.region, output["VpcEndpoint"]["VpcId"]))
    return output


async def settle(calls: Calls, vpc: Vpc) -> None:
    """Makes a VPC as it is to be; its endpoints that were pending are available then. Raises NetworkError."""
    await calls.engine(Networks).settle(vpc)

    def available(tx: Transaction) -> None:
        for row in VPC_ENDPOINT.inside(tx, vpc.account, vpc.region, vpc.id):
            if row.status == "pending":
                row.status = "available"
                VPC_ENDPOINT.change(tx, row, "Available")

    await calls.store.write(available)


@VPC_ENDPOINT.operation(
    "CreateVpcEndpoint",
    asks=creating(
        VPC_ENDPOINT,
        "CreateVpcEndpoint",
        ask("CreateVpcEndpoint", VPC.ids("VpcId")),
        ask("CreateVpcEndpoint", ROUTE_TABLE.ids("RouteTableIds")),
        ask("CreateVpcEndpoint", SUBNET.ids("SubnetIds")),
        ask("CreateVpcEndpoint", SECURITY_GROUP.ids("SecurityGroupIds")),
        ask("CreateVpcEndpoint", _default_group),
        ec2__VpceServiceName=lambda asked: asked.input.get("ServiceName"),
        ec2__VpceServiceOwner=lambda asked: AMAZON,
    ),
    before=_before_create,
    after=_after_create,
)
@noun.dry
def create(a: Authorised, tx: Transaction) -> Output:
    unsupported(a, *_OTHER)
    if a.input.get("IpAddressType", "ipv4") != "ipv4":
        raise parameter("Endpoints have IPv4 addresses.")
    if (a.input.get("DnsOptions") or {}).get("DnsRecordIpType", "ipv4") not in ("ipv4", "service-defined"):
        raise parameter("Endpoints have IPv4 records.")
    if not a.input.get("ServiceName"):
        raise missing("serviceName")

    def make() -> Output:
        vpc = VPC.held(a, tx, a.input["VpcId"])
        kind = a.input.get("VpcEndpointType") or "Gateway"
        service = _service(a, a.input["ServiceName"], kind)
        if kind != ("Gateway" if service.gateway else "Interface"):
            raise parameter(f"The VPC endpoint service {service.name} does not support the endpoint type {kind}.")
        if len(VPC_ENDPOINT.inside(tx, a.account, a.region, vpc.name)) >= _MOST_ENDPOINTS:
            raise Refused("VpcEndpointLimitExceeded", "The maximum number of VPC endpoints has been reached.")
        doc: dict[str, Any] = {
            "VpcId": vpc.name,
            "Service": service.name,
            "Type": kind,
            "Policy": _checked_policy(a.input.get("PolicyDocument") or FULL_ACCESS),
            "RouteTableIds": [],
            "Subnets": {},
            "Groups": [],
            "PrivateDns": False,
            "Label": secrets.token_hex(4),
        }
        id = VPC_ENDPOINT.new_id()
        if service.gateway:
            for member in ("SubnetIds", "SecurityGroupIds", "PrivateDnsEnabled"):
                if a.input.get(member):
                    raise parameter(f"{member} is not supported for gateway endpoints.")
            doc["RouteTableIds"] = _routed(a, tx, id, vpc.name, a.input.get("RouteTableIds") or (), service)
        else:
            if a.input.get("RouteTableIds"):
                raise parameter("RouteTableIds is not supported for interface endpoints.")
            doc["Groups"] = groups_of(a, tx, vpc.name, a.input.get("SecurityGroupIds"))
            if a.input.get("PrivateDnsEnabled", True):
                _private_dns(a, tx, vpc, service)
                doc["PrivateDns"] = True
            _placed(a, tx, id, doc, a.input.get("SubnetIds") or ())
        row = VPC_ENDPOINT.put(a, tx, id, doc, [vpc.name])
        row.status = "pending"
        VPC_ENDPOINT.save(a, tx, row)
        tx.insert(Row(OF, "", "", id, {"Account": a.account, "Region": a.region}), keep=False)
        return {"VpcEndpoint": _shown(a, tx, row), "ClientToken": a.input.get("ClientToken")}

    return once(a, tx, a.input.get("ClientToken"), make, code="IdempotentParameterMismatch")


def _private_dns(a: Authorised, view: View, vpc: Row, service: EndpointService, but: str = "") -> None:
    """Raises Refused where an endpoint cannot have its service's own name in a VPC."""
    if not (vpc.doc["DnsSupport"] and vpc.doc["DnsHostnames"]):
        raise parameter(
            "Enabling private DNS requires both enableDnsSupport and enableDnsHostnames VPC attributes set to true for "
            f"{vpc.name}"
        )
    for other in VPC_ENDPOINT.inside(view, a.account, a.region, vpc.name):
        if other.name != but and other.doc["Service"] == service.name and other.doc["PrivateDns"]:
            raise parameter(
                "private-dns-enabled cannot be set because there is already a conflicting DNS domain for "
                f"{service.hosts[0]} in the VPC {vpc.name}"
            )


def _routed(
    a: Authorised, tx: Transaction, id: str, vpc: str, tables: Sequence[str], service: EndpointService
) -> list[str]:
    """Puts the route to an endpoint into tables of its VPC; returns their ids."""
    found = list(dict.fromkeys(tables))
    for name in found:
        table = ROUTE_TABLE.held(a, tx, name)
        if table.doc["VpcId"] != vpc:
            raise parameter(f"Route table {name} and VPC {vpc} belong to different networks.")
        for other in table.doc["Endpoints"]:
            held = VPC_ENDPOINT.get(tx, a.account, a.region, other)
            if held is not None and held.doc["Service"] == service.name:
                raise Refused(
                    "RouteAlreadyExists",
                    f"route table {name} already has a route with destination-prefix-list-id "
                    f"{prefix_list(a.region, service.name.rpartition('.')[2])[0]}",
                )
        table.doc["Endpoints"] = [*table.doc["Endpoints"], id]
        ROUTE_TABLE.save(a, tx, table)
    return found


def _unrouted(a: Authorised, tx: Transaction, id: str, tables: Iterable[str]) -> None:
    for name in tables:
        table = ROUTE_TABLE.get(tx, a.account, a.region, name)
        if table is not None:
            table.doc["Endpoints"] = [one for one in table.doc["Endpoints"] if one != id]
            ROUTE_TABLE.save(a, tx, table)


def _placed(a: Authorised, tx: Transaction, id: str, doc: dict[str, Any], subnets: Sequence[str]) -> None:
    """Gives an endpoint an interface in each subnet, at most one an availability zone."""
    taken = {SUBNET.held(a, tx, one).doc["Zone"] for one in doc["Subnets"]}
    for name in dict.fromkeys(subnets):
        subnet = SUBNET.held(a, tx, name)
        if subnet.doc["VpcId"] != doc["VpcId"]:
            raise parameter(f"Subnet {name} and VPC {doc['VpcId']} belong to different networks.")
        if name in doc["Subnets"]:
            continue
        if subnet.doc["Zone"] in taken:
            raise Refused(
                "DuplicateSubnetsInSameZone",
                f"Found another VPC endpoint subnet in the availability zone of {name}. VPC endpoint subnets should be in "
                "different availability zones supported by the VPC endpoint service.",
            )
        taken.add(subnet.doc["Zone"])
        made = new_interface(a, tx, name, doc["Groups"], f"VPC Endpoint Interface {id}", endpoint=id)
        doc["Subnets"][name] = made.name


def dns_names(row: Row, service: EndpointService, view: View) -> list[tuple[str, tuple[str, ...]]]:
    """The names of an interface endpoint with their addresses: its own, its zones', and the service's."""
    found: list[tuple[str, str]] = []
    for id in row.doc["Subnets"].values():
        interface = NETWORK_INTERFACE.get(view, row.account, row.region, id)
        if interface is not None:
            found.append((interface.doc["Zone"], interface.doc["Address"]))
    label = f"{row.name}-{row.doc['Label']}"
    every = tuple(address for _, address in found)
    names = [(f"{label}.{service.base}", every)]
    names += [(f"{label}-{zone}.{service.base}", (address,)) for zone, address in sorted(found)]
    if row.doc["PrivateDns"]:
        names += [(host, every) for host in service.hosts]
    return names


def _shown(a: Authorised, view: View, row: Row) -> dict[str, Any]:
    doc = row.doc
    service = find(row.region, doc["Service"], a.calls.registry.services, doc["Type"])
    entries = [] if service is None or doc["Type"] == "Gateway" else dns_names(row, service, view)
    groups = [(id, SECURITY_GROUP.get(view, row.account, row.region, id)) for id in doc["Groups"]]
    return {
        "VpcEndpointId": row.name,
        "VpcEndpointType": doc["Type"],
        "VpcId": doc["VpcId"],
        "ServiceName": doc["Service"],
        "ServiceRegion": row.region,
        "State": row.status,
        "PolicyDocument": doc["Policy"],
        "RouteTableIds": doc["RouteTableIds"],
        "SubnetIds": list(doc["Subnets"]),
        "NetworkInterfaceIds": list(doc["Subnets"].values()),
        "Groups": [{"GroupId": id, "GroupName": held.doc["GroupName"]} for id, held in groups if held is not None],
        "IpAddressType": "ipv4",
        "DnsOptions": {"DnsRecordIpType": "ipv4"},
        "DnsEntries": [{"DnsName": name} for name, addresses in entries if addresses],
        "PrivateDnsEnabled": doc["PrivateDns"],
        "RequesterManaged": False,
        "CreationTimestamp": row.created // MICROS * MICROS,
        "OwnerId": row.account,
        "Tags": noun.tags_shown(row),
    }


describes(
    VPC_ENDPOINT, "DescribeVpcEndpoints", "VpcEndpoints", "VpcEndpointIds", _shown,
    {
        "vpc-endpoint-id": noun.name, "vpc-id": noun.doc("VpcId"), "service-name": noun.doc("Service"),
        "vpc-endpoint-type": noun.doc("Type"), "vpc-endpoint-state": lambda view, row: row.status,
        "ip-address-type": noun.fixed("ipv4"),
    },
)  # fmt: skip


# -- changes -----------------------------------------------------------------------------------------------------------


def _vpcs(a: Authorised, view: View) -> Iterable[str]:
    given = a.input.get("VpcEndpointIds") or [a.input.get("VpcEndpointId")]
    rows = [VPC_ENDPOINT.get(view, a.account, a.region, str(id)) for id in given]
    return [row.doc["VpcId"] for row in rows if row is not None]


@VPC_ENDPOINT.does(
    "ModifyVpcEndpoint",
    asks=[
        ask("ModifyVpcEndpoint", VPC_ENDPOINT.ids("VpcEndpointId")),
        *(
            ask("ModifyVpcEndpoint", kind.ids(f"{verb}{kind.name}Ids"))
            for kind in (ROUTE_TABLE, SUBNET, SECURITY_GROUP)
            for verb in ("Add", "Remove")
        ),
    ],
    settles=_vpcs,
)
def modify(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    unsupported(a, "SubnetConfigurations")
    if given.get("IpAddressType", "ipv4") != "ipv4" or given.get("DnsOptions"):
        raise Refused("UnsupportedOperation", "Endpoints have IPv4 addresses and records.")
    row = VPC_ENDPOINT.held(a, tx, given["VpcEndpointId"])
    doc = row.doc
    service = _service(a, doc["Service"], doc["Type"])
    gateway = doc["Type"] == "Gateway"
    for member in (
        ("AddSubnetIds", "RemoveSubnetIds", "AddSecurityGroupIds", "RemoveSecurityGroupIds", "PrivateDnsEnabled")
        if gateway
        else ("AddRouteTableIds", "RemoveRouteTableIds")
    ):
        if given.get(member):
            raise parameter(f"{member} is not supported for {doc['Type'].lower()} endpoints.")
    if given.get("ResetPolicy"):
        if given.get("PolicyDocument"):
            raise Refused("InvalidParameterCombination", "Use PolicyDocument or ResetPolicy, not both.")
        doc["Policy"] = FULL_ACCESS
    elif given.get("PolicyDocument"):
        doc["Policy"] = _checked_policy(given["PolicyDocument"])
    if gateway:
        removed = set(given.get("RemoveRouteTableIds") or ())
        _unrouted(a, tx, row.name, removed & set(doc["RouteTableIds"]))
        added = [one for one in given.get("AddRouteTableIds") or () if one not in doc["RouteTableIds"]]
        kept = [one for one in doc["RouteTableIds"] if one not in removed]
        doc["RouteTableIds"] = kept + _routed(a, tx, row.name, doc["VpcId"], added, service)
    else:
        _modify_interfaces(a, tx, row, service)
    VPC_ENDPOINT.save(a, tx, row)
    return {"Return": True}


def _modify_interfaces(a: Authorised, tx: Transaction, row: Row, service: EndpointService) -> None:
    given, doc = a.input, row.doc
    for name in given.get("RemoveSubnetIds") or ():
        if name not in doc["Subnets"]:
            raise invalid(f"The subnet {name[:64]} is not associated with the endpoint {row.name}")
        drop_interface(a, tx, NETWORK_INTERFACE.held(a, tx, doc["Subnets"].pop(name)))
    wanted = [one for one in doc["Groups"] if one not in (given.get("RemoveSecurityGroupIds") or ())]
    wanted += [one for one in given.get("AddSecurityGroupIds") or () if one not in wanted]
    if wanted != doc["Groups"]:
        if not wanted:
            raise parameter("An interface endpoint has at least one security group.")
        doc["Groups"] = groups_of(a, tx, doc["VpcId"], wanted)
        for id in doc["Subnets"].values():
            regroup(a, tx, NETWORK_INTERFACE.held(a, tx, id), doc["Groups"])
    _placed(a, tx, row.name, doc, given.get("AddSubnetIds") or ())
    private = given.get("PrivateDnsEnabled")
    if private is not None:
        if private:
            _private_dns(a, tx, VPC.held(a, tx, doc["VpcId"]), service, but=row.name)
        doc["PrivateDns"] = private


@VPC_ENDPOINT.does(
    "DeleteVpcEndpoints", asks=[ask("DeleteVpcEndpoints", VPC_ENDPOINT.ids("VpcEndpointIds"))], settles=_vpcs
)
def delete(a: Authorised, tx: Transaction) -> Output:
    failed: list[Output] = []
    for id in dict.fromkeys(a.input["VpcEndpointIds"]):
        try:
            row = VPC_ENDPOINT.held(a, tx, id)
        except Refused as refused:
            failed.append({"ResourceId": id, "Error": {"Code": refused.code, "Message": refused.message}})
            continue
        _unrouted(a, tx, id, row.doc["RouteTableIds"])
        for interface in row.doc["Subnets"].values():
            drop_interface(a, tx, NETWORK_INTERFACE.held(a, tx, interface))
        held = tx.get(OF, "", "", id)
        if held is not None:
            tx.delete(held, keep=False)
        VPC_ENDPOINT.drop(a, tx, row)
    return {"Unsuccessful": failed}


# -- services ----------------------------------------------------------------------------------------------------------


@VPC_ENDPOINT.tells("DescribeVpcEndpointServices", asks=[ask("DescribeVpcEndpointServices", noun.anything)])
def describe_services(a: Authorised, view: View) -> Output:
    unsupported(a, "ServiceRegions")
    have: dict[str, list[EndpointService]] = {}
    for one in endpoint_services(a.region, a.calls.registry.services):
        have.setdefault(one.name, []).append(one)
    wanted = a.input.get("ServiceNames") or sorted(have)
    for name in wanted:
        _service(a, name, "")
    kinds: dict[bool, str] = {True: "Gateway", False: "Interface"}
    chosen = noun.filters(
        a,
        {
            "service-name": noun.doc("Name"),
            "service-type": noun.doc("Type"),
            "owner": noun.fixed(AMAZON),
            "supported-ip-address-types": noun.fixed("ipv4"),
        },
    )
    found = [
        _detail(a, one)
        for name in wanted
        for one in have[name]
        if chosen(view, Row("", a.account, a.region, name, {"Name": name, "Type": kinds[one.gateway]}))
    ]
    output = sliced(a, "ServiceDetails", found)
    output["ServiceNames"] = list(dict.fromkeys(one["ServiceName"] for one in output["ServiceDetails"]))
    return output


def _detail(a: Authorised, service: EndpointService) -> Output:
    shown: Output = {
        "ServiceName": service.name,
        "ServiceId": service.id,
        "ServiceType": [{"ServiceType": "Gateway" if service.gateway else "Interface"}],
        "ServiceRegion": a.region,
        "AvailabilityZones": list(zones(a.region)),
        "AvailabilityZoneIds": [zone_id(zone) for zone in zones(a.region)],
        "Owner": AMAZON,
        "BaseEndpointDnsNames": [service.hosts[0] if service.gateway else service.base],
        "VpcEndpointPolicySupported": True,
        "AcceptanceRequired": False,
        "ManagesVpcEndpoints": False,
        "SupportedIpAddressTypes": ["ipv4"],
        "Tags": [],
    }
    if not service.gateway:
        shown["PrivateDnsName"] = service.hosts[0]
        shown["PrivateDnsNames"] = [{"PrivateDnsName": host} for host in service.hosts]
        shown["PrivateDnsNameVerificationState"] = "verified"
    return shown
