"""EC2: VPCs, subnets, route tables, security groups, VPC endpoints, transit gateways.

The packets are real, see docs/network.md.

Source: Amazon EC2 API Reference.
"""

from __future__ import annotations

from bastide.kernel import Service
from bastide.services.ec2 import network_interface as _network_interface
from bastide.services.ec2 import places as _places
from bastide.services.ec2 import route as _route
from bastide.services.ec2 import tag as _tag
from bastide.services.ec2 import transit_gateway as _transit_gateway
from bastide.services.ec2 import transit_table as _transit_table
from bastide.services.ec2 import vpc as _vpc
from bastide.services.ec2 import vpn as _vpn
from bastide.services.ec2.network import Ec2Network
from bastide.services.ec2.nouns import NOUNS
from bastide.services.ec2.vpc_endpoint import settle

__all__ = ["NOUNS", "SERVICE", "Ec2Network", "settle"]

SERVICE = Service("ec2", kinds=NOUNS)
del _network_interface, _places, _route, _tag, _transit_gateway, _transit_table, _vpc, _vpn
