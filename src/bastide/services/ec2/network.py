"""What the kernel and the network engine may ask of EC2: an endpoint by its id, and how a VPC is to be."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from bastide.engines.network import Entrance, Group, Interface, Joint, Plan, Rule, Transit, TransitPlan, Vpc, Way, Zone
from bastide.engines.network.links import Links
from bastide.kernel import Endpoint
from bastide.kernel.circuits import Circuit, circuits
from bastide.kernel.identity import Sealer
from bastide.policy import Attached, Document, Form
from bastide.services.ec2 import dhcp_options, internet_gateway, network_acl, vpn_gateway, vpn_tunnel
from bastide.services.ec2.address_noun import allocation_of
from bastide.services.ec2.flow_log import watched
from bastide.services.ec2.nouns import (
    NAT_GATEWAY,
    NETWORK_INTERFACE,
    ROUTE_TABLE,
    SECURITY_GROUP,
    SECURITY_GROUP_RULE,
    SUBNET,
    TRANSIT_ATTACHMENT,
    TRANSIT_GATEWAY,
    TRANSIT_TABLE,
    VPC,
    VPC_ENDPOINT,
    VPN_CONNECTION,
    VPN_GATEWAY,
)
from bastide.services.ec2.route_table import way_out
from bastide.services.ec2.services import PUBLIC, find, outside, prefix_list
from bastide.services.ec2.subnet import router
from bastide.services.ec2.transit_noun import ALIVE, CIRCUITS, Route, attachments, declared, ranges, routes, vpn_of
from bastide.services.ec2.transit_noun import OF as OF_TRANSIT
from bastide.services.ec2.vpc_endpoint import OF, dns_names
from bastide.store import Row, View

Zones = Callable[[View, str, str, Callable[[str], tuple[str, ...]]], Iterable[Zone]]
"""The hosted zones of a VPC (region, id), given what finds the addresses of endpoints' own names."""


class Ec2Network:
    """Reads endpoints, VPCs and transit gateways from EC2's rows. services: botocore's names of those the platform has.
    links: what the operator declared. zones: the hosted zones that a VPC's DNS knows. sealer: reads the keys of tunnels."""

    def __init__(self, services: Collection[str], links: Links, zones: Zones, sealer: Sealer) -> None:
        self._services = frozenset(services)
        self._links = links
        self._zones = zones
        self._sealer = sealer

    def endpoint(self, view: View, id: str) -> Endpoint | None:
        """The endpoint of that id, None when it is gone."""
        whose = view.memo(("ec2:whose", id), [(OF, "")], lambda: _whose(view, id))
        if whose is None:
            return None
        account, region = whose
        return view.memo(
            ("ec2:endpoint", id), [(VPC_ENDPOINT.key, account)], lambda: self._endpoint(view, account, region, id)
        )

    def _endpoint(self, view: View, account: str, region: str, id: str) -> Endpoint | None:
        row = VPC_ENDPOINT.get(view, account, region, id)
        if row is None:
            return None
        service = find(region, row.doc["Service"], self._services, row.doc["Type"])
        policy = Attached(Document.parse_cached(row.doc["Policy"], Form.ENDPOINT), id)
        return Endpoint(
            id, row.doc["VpcId"], account, service.services if service is not None else frozenset(), policy, region
        )

    def gateway(self, view: View, account: str, region: str, subnet: str) -> str:
        """The gateway endpoint by which a subnet reaches S3; empty if there is no way."""
        held = SUBNET.get(view, account, region, subnet)
        vpc = VPC.get(view, account, region, held.doc["VpcId"]) if held is not None else None
        if held is None or vpc is None:
            return ""
        for endpoint in VPC_ENDPOINT.inside(view, account, region, vpc.name):
            service = find(region, endpoint.doc["Service"], self._services, endpoint.doc["Type"])
            if service is not None and service.gateway and _routed(endpoint, [held], vpc, view):
                return endpoint.name
        return ""

    def vpcs(self, view: View) -> list[Vpc]:
        """The VPCs that have endpoints."""
        found: dict[Vpc, None] = {}
        after: str | None = None
        while True:
            rows = view.scan(OF, "", "", after=after, limit=500)
            for one in rows:
                account, region = one.doc["Account"], one.doc["Region"]
                row = VPC_ENDPOINT.get(view, account, region, one.name)
                if row is not None:
                    found[Vpc(account, region, row.doc["VpcId"])] = None
            if len(rows) < 500:
                return list(found)
            after = rows[-1].name

    def plan(self, view: View, vpc: Vpc) -> Plan | None:
        """How a VPC is to be; None for one that is gone."""
        row = VPC.get(view, vpc.account, vpc.region, vpc.id)
        if row is None:
            return None
        where = (vpc.account, vpc.region)
        subnets = {one.name: one for one in SUBNET.inside(view, *where, vpc.id)}
        held = NETWORK_INTERFACE.inside(view, *where, vpc.id)
        interfaces = {one.name: _interface(one, subnets[one.doc["SubnetId"]]) for one in held}
        zones = tuple(self._zones(view, vpc.region, vpc.id, lambda name: self._of_endpoint(view, name)))
        hidden = tuple(f".{one.name}" for one in zones)
        names = {name: held for name, held in outside(vpc.region).items() if not f".{name}".endswith(hidden)}
        entrances: list[Entrance] = []
        private = row.doc["DnsSupport"] and row.doc["DnsHostnames"]
        for endpoint in VPC_ENDPOINT.inside(view, *where, vpc.id):
            service = find(vpc.region, endpoint.doc["Service"], self._services, endpoint.doc["Type"])
            if service is None:
                continue
            if service.gateway:
                routed = _routed(endpoint, subnets.values(), row, view)
                cidr = prefix_list(vpc.region, service.name.rpartition(".")[2])[1]
                entrances.append(Entrance(endpoint.name, service.hosts, routed=routed, outside=cidr))
                continue
            own = tuple(interfaces[id] for id in endpoint.doc["Subnets"].values())
            told = [(name, found) for name, found in dns_names(endpoint, service, view) if found]
            names |= {name: found for name, found in told if private or name not in service.hosts}
            certified = tuple(dict.fromkeys([*service.hosts, f"*.{service.base}"]))
            entrances.append(Entrance(endpoint.name, certified, interfaces=own))
        free = {one.name: interfaces[one.name] for one in held if not one.doc["Endpoint"]}
        ways = {one.doc["CidrBlock"]: _ways(view, one, row, self._links) for one in subnets.values()}
        public = _publics(view, [one for one in held if not one.doc["Endpoint"]])
        entrances += public.values()
        entrances += _gateways(view, row, ways, subnets)
        acls = {one.doc["CidrBlock"]: network_acl.planned(view, one) for one in subnets.values()}
        wanted = {group for one in interfaces.values() for group in one.groups}
        groups = {id: _group(view, *where, id) for id in sorted(wanted)}
        resolver = str(ipaddress.IPv4Network(row.doc["CidrBlock"])[2]) if row.doc["DnsSupport"] else ""
        return Plan(
            resolver,
            names,
            tuple(entrances),
            free,
            groups,
            row.doc["CidrBlock"],
            ways,
            {
                **{
                    one.name: Transit(one.doc["TgwOwner"], vpc.region, one.doc["Tgw"])
                    for one in TRANSIT_ATTACHMENT.inside(view, *where, vpc.id)
                    if one.status == ALIVE
                },
                **{one.name: Transit(*where, one.name) for one in VPN_GATEWAY.inside(view, *where, vpc.id)},
            },
            zones,
            frozenset(watched(view, vpc, held)),
            {address: one.id for address, one in public.items()},
            {cidr: acl for cidr, acl in acls.items() if acl is not None},
            dhcp_options.told(view, row, resolver),
        )

    def _of_endpoint(self, view: View, name: str) -> tuple[str, ...]:
        """The addresses of an interface endpoint's own name, whosever it is: such names are no secret."""
        id = "-".join(name.split(".", maxsplit=1)[0].split("-")[:2])
        whose = _whose(view, id) if name.startswith("vpce-") else None
        row = VPC_ENDPOINT.get(view, *whose, id) if whose is not None else None
        service = None if row is None else find(row.region, row.doc["Service"], self._services, row.doc["Type"])
        if row is None or service is None or service.gateway:
            return ()
        return dict(dns_names(row, service, view)).get(name, ())

    def transit(self, view: View, transit: Transit) -> TransitPlan | None:
        """How a transit gateway, or a virtual private gateway, is to be; None for one that is gone."""
        if transit.id.startswith(f"{VPN_GATEWAY.prefix}-"):
            return self._vpn_gateway(view, transit)
        if TRANSIT_GATEWAY.get(view, transit.account, transit.region, transit.id) is None:
            return None
        ways: dict[str, tuple[Way, ...]] = {}
        for table in TRANSIT_TABLE.inside(view, transit.account, transit.region, transit.id):
            ways[table.name] = tuple(
                Way(one.cidr, one.attachment.name if one.active and one.attachment is not None else "", _lost(one))
                for one in routes(view, table, self._links)
            )
        joints: dict[str, Joint] = {}
        for row in attachments(view, transit.region, transit.id):
            if row.status != ALIVE:
                continue
            table = row.doc["Table"]
            vpn = vpn_of(view, row)
            if vpn is not None:
                joints[row.name] = self._vpn(view, vpn, ways.get(table, ()), table)
                continue
            if row.doc["Type"] == CIRCUITS:
                found = [one for one in circuits(view, transit.id) if one.by == row.doc["Resource"]]
                joints[row.name] = self._circuit(found, ways.get(table, ()), table)
                continue
            vpc = Vpc(row.account, row.region, row.doc["Resource"])
            joints[row.name] = Joint(ranges(view, row, self._links), ways.get(table, ()), vpc, None, table)
        return TransitPlan(joints)

    def _vpn(self, view: View, vpn: Row, ways: tuple[Way, ...], table: str) -> Joint:
        held = declared(view, vpn, self._links)
        if held is None:
            return Joint((), ways, table=table)
        return Joint(held.far.ranges, ways, None, held.far, table, vpn_tunnel.ipsec(vpn, held.end, self._sealer))

    def _circuit(self, found: Iterable[Circuit], ways: tuple[Way, ...], table: str) -> Joint:
        """What the first of these circuits that is declared leads to. The other side is told of the prefixes alone."""
        for one in found:
            held = self._links.find(one.connection)
            if held is not None:
                told = tuple(way for way in ways if not one.prefixes or _within(way.network, one.prefixes))
                return Joint(held.far.ranges, told, None, held.far, table)
        return Joint((), ways, table=table)

    def _vpn_gateway(self, view: View, transit: Transit) -> TransitPlan | None:
        row = VPN_GATEWAY.get(view, transit.account, transit.region, transit.id)
        vpc = None if row is None else VPC.get(view, row.account, row.region, row.doc["VpcId"])
        if row is None or vpc is None:
            return None
        outward = tuple(Way(cidr, id) for cidr, id in vpn_gateway.routes(view, row, self._links).items())
        inward = (Way(vpc.doc["CidrBlock"], row.name),)
        joints = {
            one.name: self._vpn(view, one, inward, row.name)
            for one in VPN_CONNECTION.inside(view, row.account, row.region, row.name)
        }
        for circuit in circuits(view, row.name):
            joint = self._circuit([circuit], inward, row.name)
            if joint.far is not None:
                joints[circuit.interface] = joint
        own = Joint((vpc.doc["CidrBlock"],), outward, Vpc(row.account, row.region, vpc.name), table=row.name)
        return TransitPlan({row.name: own, **joints})

    def transits(self, view: View, regions: Iterable[str]) -> list[Transit]:
        """All transit gateways."""
        found: list[Transit] = []
        for region in regions:
            after: str | None = None
            while rows := view.scan(OF_TRANSIT, "", region, after=after, limit=500):
                after = rows[-1].name
                gateways = [one for one in rows if not one.name.startswith(f"{TRANSIT_ATTACHMENT.prefix}-")]
                found += [Transit(one.doc["Account"], region, one.name) for one in gateways]
        return found


def _within(network: str, prefixes: Iterable[str]) -> bool:
    return any(ipaddress.IPv4Network(network).subnet_of(ipaddress.IPv4Network(one)) for one in prefixes)


def _lost(route: Route) -> str:
    return "" if route.active else f"the route {route.cidr} is a blackhole"


def _ways(view: View, subnet: Row, vpc: Row, links: Links) -> tuple[Way, ...]:
    """Where packets that leave the VPC go from a subnet."""
    id = subnet.doc.get("Table") or vpc.doc["Main"]
    table = ROUTE_TABLE.get(view, subnet.account, subnet.region, id)
    found: list[Way] = []
    held_routes = {} if table is None else table.doc.get("Routes", {}) | vpn_gateway.propagated(view, table, links)
    for cidr, target in held_routes.items():
        if target.startswith("vgw-"):
            stands = table is not None and vpn_gateway.attached(view, table, target)
            lost = "" if stands else f"{id}: {cidr} leads to {target}, which is not attached to {vpc.name}"
            found.append(Way(cidr, target if stands else "", lost))
            continue
        if target.startswith("igw-"):
            stands = table is not None and internet_gateway.attached(view, table, target)
            lost = "" if stands else f"{id}: {cidr} leads to {target}, which is not attached to {vpc.name}"
            found.append(Way(cidr, "", lost, target if stands else ""))
            continue
        if target.startswith("nat-"):
            lost = _nat_lost(view, subnet, vpc, target)
            found.append(Way(cidr, "", lost and f"{id}: {cidr} leads to {target}, {lost}", "" if lost else target))
            continue
        held = way_out(view, table, target) if table is not None else None
        zones = {
            one.doc["Zone"]
            for name in (held.doc["Subnets"] if held is not None else ())
            if (one := SUBNET.get(view, subnet.account, subnet.region, name)) is not None
        }
        if held is None:
            found.append(Way(cidr, "", f"{id}: {cidr} leads to {target}, which {vpc.name} is not attached to"))
        elif subnet.doc["Zone"] not in zones:
            found.append(Way(cidr, "", f"{held.name} has no subnet in the zone {subnet.doc['Zone']} of {subnet.name}"))
        else:
            found.append(Way(cidr, held.name))
    return tuple(found)


def _nat_lost(view: View, subnet: Row, vpc: Row, id: str) -> str:
    """Why what a NAT gateway gets from a subnet is lost; empty if it is not."""
    row = NAT_GATEWAY.get(view, vpc.account, vpc.region, id)
    if row is None or row.status != "available":
        return "which is gone" if row is None else f"which is {row.status}"
    place = SUBNET.get(view, vpc.account, vpc.region, row.doc["SubnetId"])
    if place is None or place.name == subnet.name:
        return "which lies in that subnet itself"
    table = ROUTE_TABLE.get(view, vpc.account, vpc.region, place.doc.get("Table") or vpc.doc["Main"])
    held = table.doc.get("Routes", {}) if table is not None else {}
    there = [cidr for cidr in held if ipaddress.IPv4Network(PUBLIC).subnet_of(ipaddress.IPv4Network(cidr))]
    best = held[max(there, key=lambda one: ipaddress.IPv4Network(one).prefixlen)] if there else ""
    if table is None or not best.startswith("igw-") or not internet_gateway.attached(view, table, best):
        return f"whose subnet {place.name} has no route to an internet gateway"
    return ""


def _internet(region: str, id: str, public: str, routed: tuple[str, ...], subnet: str = "") -> Entrance:
    held = outside(region)
    addresses = tuple(sorted({one for found in held.values() for one in found}))
    return Entrance(id, tuple(held), routed=routed, public=public, addresses=addresses, subnet=subnet)


def _publics(view: View, interfaces: Iterable[Row]) -> dict[str, Entrance]:
    """By address of an interface that has a public one, where it comes out."""
    found: dict[str, Entrance] = {}
    for one in interfaces:
        held = allocation_of(view, one)
        if held is not None:
            address = one.doc["Address"]
            found[address] = _internet(one.region, held.name, held.doc["Address"], (address,))
    return found


def _gateways(
    view: View, vpc: Row, ways: Mapping[str, tuple[Way, ...]], subnets: Mapping[str, Row]
) -> Iterable[Entrance]:
    """Where what goes by each NAT gateway comes out."""
    for row in NAT_GATEWAY.inside(view, vpc.account, vpc.region, vpc.name):
        routed = tuple(sorted(cidr for cidr, held in ways.items() if any(one.exit == row.name for one in held)))
        interface = NETWORK_INTERFACE.get(view, row.account, row.region, row.doc["Interface"])
        address = allocation_of(view, interface) if interface is not None else None
        if routed and address is not None:
            cidr = subnets[row.doc["SubnetId"]].doc["CidrBlock"]
            yield _internet(row.region, row.name, address.doc["Address"], routed, cidr)


def _whose(view: View, id: str) -> tuple[str, str] | None:
    held = view.get(OF, "", "", id)
    return None if held is None else (held.doc["Account"], held.doc["Region"])


def _interface(row: Row, subnet: Row) -> Interface:
    return Interface(row.name, row.doc["Address"], router(subnet), tuple(row.doc["Groups"]))


def _routed(endpoint: Row, subnets: Iterable[Row], vpc: Row, view: View) -> tuple[str, ...]:
    """The subnets whose table has a route to a gateway endpoint."""
    leading: set[str] = set()
    for id in endpoint.doc["RouteTableIds"]:
        table = ROUTE_TABLE.get(view, endpoint.account, endpoint.region, id)
        if table is not None and endpoint.name in table.doc["Endpoints"]:
            leading.add(id)
    return tuple(
        sorted(one.doc["CidrBlock"] for one in subnets if (one.doc.get("Table") or vpc.doc["Main"]) in leading)
    )


def _group(view: View, account: str, region: str, id: str) -> Group:
    if SECURITY_GROUP.get(view, account, region, id) is None:
        return Group((), ())
    inward: list[Rule] = []
    outward: list[Rule] = []
    for row in SECURITY_GROUP_RULE.inside(view, account, region, id):
        (outward if row.doc["Egress"] else inward).append(_rule(row.doc, region))
    return Group(tuple(inward), tuple(outward))


def _rule(doc: dict[str, Any], region: str) -> Rule:
    networks: tuple[str, ...] = ()
    if doc.get("Cidr"):
        networks = (doc["Cidr"],)
    elif doc.get("Prefix"):
        held = prefix_list(region, "s3")
        networks = (held[1],) if held[0] == doc["Prefix"] else ()
    return Rule(doc["Protocol"], doc["From"], doc["To"], networks, doc.get("Group") or "")
