"""Networks that packets really cross: one a VPC, closed to the machine's own network.

The port: a plan says how a VPC is to be, and `settle` makes it so. Services write plans from their rows; which driver
does it is settled in ``main/compose.py``.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bastide.domain import Instant


class NetworkError(Exception):
    """A network could not be made as planned; what could not be made is cut off. The message is for the operator."""


@dataclass(frozen=True, slots=True)
class Vpc:
    """Which VPC."""

    account: str
    region: str
    id: str


@dataclass(frozen=True, slots=True)
class Transit:
    """Which transit gateway."""

    account: str
    region: str
    id: str


@dataclass(frozen=True, slots=True)
class Way:
    """A route. network: the destination, an IPv4 CIDR. joint: the attachment that its packets leave by; empty for one whose
    packets are lost. The longest prefix counts. reason: why they are lost, for people. exit: the internet gateway or NAT
    gateway that it leads to, which passes what is meant for an address of AWS's services, and loses the rest."""

    network: str
    joint: str = ""
    reason: str = ""
    exit: str = ""


@dataclass(frozen=True, slots=True)
class Far:
    """What the operator declared to stand behind a link. name: the operator's word for it. namespace: the path of the
    network namespace it is reached in. ranges: the only addresses that are there."""

    name: str
    namespace: str
    ranges: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tunnel:
    """An IPsec tunnel as this side speaks it. outside: this side's address; inside: its address within the tunnel. key: the
    pre-shared one. version: of IKE, 0 for either. ike, esp: proposals in strongSwan's words. ike_seconds, esp_seconds: how
    long keys live; margin, fuzz: seconds before, and per cent of them at random, that they are replaced. dead_seconds: of
    silence until a peer is asked whether it is there; then `dead` is done: ``clear``, ``restart`` or ``none``. starts:
    whether this side begins."""

    outside: str
    inside: str
    key: str = field(repr=False)
    version: int
    ike: tuple[str, ...]
    esp: tuple[str, ...]
    ike_seconds: int
    esp_seconds: int
    margin: int
    fuzz: int
    dead_seconds: int
    dead: str
    starts: bool


@dataclass(frozen=True, slots=True)
class Ipsec:
    """The tunnels of a VPN connection. gateway: the peer's address."""

    gateway: str
    tunnels: tuple[Tunnel, ...]


@dataclass(frozen=True, slots=True)
class Telemetry:
    """A tunnel as it is. since: when that changed, 0 if it never did."""

    up: bool = False
    since: Instant = 0


@dataclass(frozen=True, slots=True)
class Joint:
    """An attachment of a transit gateway, to a VPC or to something declared. ranges: the addresses behind it; what comes
    from there with another one is dropped. table, ways: the route table it is associated with and its routes, which decide
    where its packets go. There are none without one. ipsec: how what is declared is reached, if not in the clear."""

    ranges: tuple[str, ...]
    ways: tuple[Way, ...] = ()
    vpc: Vpc | None = None
    far: Far | None = None
    table: str = ""
    ipsec: Ipsec | None = None


@dataclass(frozen=True, slots=True)
class TransitPlan:
    """How a transit gateway is to be: its attachments by id."""

    joints: Mapping[str, Joint]


@dataclass(frozen=True, slots=True)
class Rule:
    """What a security group lets pass. protocol: ``tcp``, ``udp``, ``icmp``, a number, or ``-1`` for all. first, last:
    ports, or type and code of ICMP; -1 for any. networks: peers as IPv4 CIDRs. group: peers that have this group."""

    protocol: str
    first: int = -1
    last: int = -1
    networks: tuple[str, ...] = ()
    group: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """A security group: what may come in and what may go out; everything else is dropped."""

    inward: tuple[Rule, ...]
    outward: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a network ACL. protocol: a number, or ``-1`` for all. network: the peers, an IPv4 CIDR. first, last:
    ports of TCP and UDP, or type and code of ICMP; -1 for any."""

    number: int
    allows: bool
    protocol: str
    network: str
    first: int = -1
    last: int = -1


@dataclass(frozen=True, slots=True)
class Acl:
    """A network ACL: what crosses a subnet's border, packet by packet, whatever went the other way before. The first entry
    that fits decides; what none fits is dropped."""

    id: str
    inward: tuple[Entry, ...]
    outward: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface. router: the address that its subnet's router answers to."""

    id: str
    address: str
    router: str
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entrance:
    """A VPC endpoint, or a public address: where the platform listens. names: those its certificate is for.

    interfaces: its own, of an interface endpoint. outside: of a gateway endpoint, the service's addresses as everybody sees
    them, and routed, the subnets whose route table leads to it. public: of a NAT gateway, or of an address that an
    interface has, the public address that calls come from; addresses: those of the services in the internet; routed: who
    goes that way; subnet: the CIDR that a NAT gateway lies in.
    """

    id: str
    names: tuple[str, ...]
    interfaces: tuple[Interface, ...] = ()
    routed: tuple[str, ...] = ()
    outside: str = ""
    public: str = ""
    addresses: tuple[str, ...] = ()
    subnet: str = ""


@dataclass(frozen=True, slots=True)
class Zone:
    """What a VPC's DNS knows below a name, and all that it knows there: name and names of records in lower case, without
    the last dot. records: by name and type, seconds that they are good for, and values as in a zone file."""

    name: str
    records: Mapping[tuple[str, str], tuple[int, tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a VPC is to be. resolver: the address of its DNS, empty without one. names: what resolves there, with the
    addresses; ``*.`` in front covers everything below. interfaces: those that something may be attached to. cidr: of the
    VPC. ways: of each subnet's CIDR the routes that lead out of the VPC. joints: the attachments by which transit gateways
    are reached. zones: what its DNS knows besides `names`; whichever is longer counts. watched: the
    interfaces whose flows are counted. publics: the entrance of each address of the VPC that has a public one. acls: by
    CIDR, of the subnets whose network ACL does not let everything pass. dns: the resolv.conf of what is attached, if it is
    not simply the resolver."""

    resolver: str
    names: Mapping[str, tuple[str, ...]]
    entrances: tuple[Entrance, ...]
    interfaces: Mapping[str, Interface]
    groups: Mapping[str, Group] = field(default_factory=dict)
    cidr: str = ""
    ways: Mapping[str, tuple[Way, ...]] = field(default_factory=dict)
    joints: Mapping[str, Transit] = field(default_factory=dict)
    zones: tuple[Zone, ...] = ()
    watched: frozenset[str] = frozenset()
    publics: Mapping[str, str] = field(default_factory=dict)
    acls: Mapping[str, Acl] = field(default_factory=dict)
    dns: str | None = None


class Opened(Protocol):
    """A way in that is being served."""

    def drop(self) -> None:
        """Ends the connections that stand; new ones may come."""
        ...

    def close(self) -> None:
        """Takes no more connections and ends those that stand."""
        ...


Door = Callable[[socket.socket, str, Sequence[str], str], Awaitable[Opened]]
"""Serves a listening socket as the VPC endpoint of that id, with a certificate for the names; or, with a public address, as
the internet does, where all that comes has that address."""


class Attachment(Protocol):
    """Something inside a subnet: a network namespace whose only link is one network interface."""

    @property
    def interface(self) -> Interface: ...
    @property
    def resolver(self) -> str:
        """The text of its resolv.conf: the VPC's DNS, or what its DHCP options name; empty without one."""
        ...

    @property
    def namespace(self) -> str:
        """A path for setns(2), good while the attachment stands."""
        ...

    async def close(self) -> None:
        """Cuts it off. Closing twice is fine."""
        ...


@dataclass(frozen=True, slots=True)
class Peer:
    """A host among others. namespace: a path for setns(2), good while they are joined. address, interface: those by which
    its peers reach it; 127.0.0.1 and ``lo`` of one that has none."""

    namespace: str
    address: str = "127.0.0.1"
    interface: str = "lo"


class Joined(Protocol):
    """Hosts that reach each other, and nothing else unless they are in a subnet as well."""

    @property
    def peers(self) -> Sequence[Peer]: ...

    def stands(self) -> bool:
        """Whether they still reach each other; False once a program that carries their packets has ended."""
        ...

    async def close(self) -> None:
        """Takes the network away. Closing twice is fine."""
        ...


@dataclass(frozen=True, slots=True)
class Flow:
    """Packets that crossed an interface. size: bytes. accepted: whether the interface's groups let them pass."""

    interface: str
    source: str
    target: str
    source_port: int
    target_port: int
    protocol: int
    packets: int
    size: int
    accepted: bool


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a connection. destination: an address, or a name that the source's DNS knows. protocol: ``tcp``,
    ``udp`` or ``icmp`` (an echo request)."""

    source: str
    destination: str
    protocol: str = "tcp"
    port: int = 443


@dataclass(frozen=True, slots=True)
class Hop:
    """A place on a packet's way. what: the kind of place. where: its id. passes: whether the packet goes on. why: in
    words."""

    what: str
    where: str
    passes: bool
    why: str


class Networks(Protocol):
    """All networks of a platform: VPCs, and those of the hosts of a job."""

    @property
    def authority(self) -> Path:
        """The certificate that clients inside are to trust."""
        ...

    async def join(self, hosts: int, *, encrypted: bool, attached: Sequence[Attachment] = ()) -> Joined:
        """A network for so many hosts. encrypted: what they send each other is, on the way. attached: they are in subnets
        and reach each other there already. Raises NetworkError."""
        ...

    def listen(self, namespace: str, port: int) -> socket.socket:
        """A socket bound to 127.0.0.1 of that namespace; raises OSError."""
        ...

    def connect(self, namespace: str, port: int) -> socket.socket:
        """A connection to 127.0.0.1 of that namespace; raises OSError."""
        ...

    async def serve(self, bound: socket.socket) -> Opened:
        """Serves AWS's API there, as ``https://localhost``, with no VPC endpoint."""
        ...

    def lacking(self, *, ipsec: bool = False) -> str:
        """What this machine lacks for networks, empty if nothing. ipsec: for tunnels of VPN connections as well."""
        ...

    async def settle(self, which: Vpc | Transit) -> None:
        """Makes a VPC or a transit gateway as planned now; when this returns, packets go accordingly. Raises NetworkError;
        then it is cut off as a whole until it is settled again."""
        ...

    async def flows(self, vpc: Vpc) -> list[Flow]:
        """What crossed the watched interfaces of a VPC since this was asked last. Raises NetworkError."""
        ...

    def explain(self, vpc: Vpc, interface: str, packet: Packet) -> list[Hop]:
        """What a packet from an interface would meet, hop by hop, there and back; the last one refuses, or all pass."""
        ...

    async def attach(self, vpc: Vpc, interface: str) -> Attachment:
        """A new namespace behind a planned network interface. Raises NetworkError, KeyError for an interface that is
        not planned, and ValueError for one that has something attached."""
        ...

    def attached(self, interface: str) -> bool:
        """Whether something is attached to a network interface."""
        ...

    def linked(self, joint: str) -> bool:
        """Whether an attachment of a transit gateway has its link now."""
        ...

    def tunnels(self, joint: str) -> Mapping[str, Telemetry]:
        """The tunnels of an attachment, by this side's address; empty if nothing listens there."""
        ...


__all__ = [
    "Acl", "Attachment", "Door", "Entrance", "Entry", "Far", "Flow", "Group", "Hop", "Interface", "Ipsec", "Joined",
    "Joint", "NetworkError", "Networks", "Opened", "Packet", "Peer", "Plan", "Rule", "Telemetry", "Transit",
    "TransitPlan", "Tunnel", "Vpc", "Way", "Zone",
]  # fmt: skip
