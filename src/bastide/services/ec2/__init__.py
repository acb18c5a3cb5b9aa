"""EC2: VPCs, subnets, route tables, security groups, network ACLs, VPC endpoints, NAT and transit gateways.

The packets are real, see docs/network.md.

Source: Amazon EC2 API Reference.
"""

from __future__ import annotations

from bastide.kernel import Service
from bastide.services.ec2 import address as _address
from bastide.services.ec2 import dhcp_options as _dhcp_options
from bastide.services.ec2 import nat_gateway as _nat_gateway
from bastide.services.ec2 import network_acl as _network_acl
from bastide.services.ec2 import network_interface as _network_interface
from bastide.services.ec2 import places as _places
from bastide.services.ec2 import route as _route
from bastide.services.ec2 import tag as _tag
from bastide.services.ec2 import transit_gateway as _transit_gateway
from bastide.services.ec2 import transit_table as _transit_table
from bastide.services.ec2 import vpc as _vpc
from bastide.services.ec2 import vpn as _vpn
from bastide.services.ec2 import vpn_gateway as _vpn_gateway
from bastide.services.ec2.circuit import CircuitGateways
from bastide.services.ec2.flow_delivery import FlowLogs
from bastide.services.ec2.network import Ec2Network
from bastide.services.ec2.nouns import NOUNS
from bastide.services.ec2.vpc_endpoint import settle

__all__ = ["NOUNS", "SERVICE", "CircuitGateways", "Ec2Network", "FlowLogs", "settle"]

SERVICE = Service("ec2", kinds=NOUNS)
del (
    _address,
    _dhcp_options,
    _nat_gateway,
    _network_acl,
    _network_interface,
    _places,
    _route,
    _tag,
    _transit_gateway,
    _transit_table,
    _vpc,
    _vpn,
    _vpn_gateway,
)
