"""The nouns, and the condition keys that follow from each.

Source: Service Authorization Reference, "Actions, resources, and condition keys for Amazon EC2", resource types.
"""

from __future__ import annotations

from typing import Final

from bastide.services.ec2.noun import Noun
from bastide.store import Row

VPC: Final = Noun(
    "Vpc", type="vpc", prefix="vpc", member="VpcId",
    missing=("InvalidVpcID.NotFound", "The vpc ID '{name}' does not exist"),
)  # fmt: skip
SUBNET: Final = Noun(
    "Subnet", type="subnet", prefix="subnet", member="SubnetId",
    missing=("InvalidSubnetID.NotFound", "The subnet ID '{name}' does not exist"),
)  # fmt: skip
ROUTE_TABLE: Final = Noun(
    "RouteTable", type="route-table", prefix="rtb", member="RouteTableId",
    missing=("InvalidRouteTableID.NotFound", "The routeTable ID '{name}' does not exist"),
)  # fmt: skip
SECURITY_GROUP: Final = Noun(
    "SecurityGroup", type="security-group", prefix="sg", member="GroupId",
    missing=("InvalidGroup.NotFound", "The security group '{name}' does not exist"),
)  # fmt: skip
SECURITY_GROUP_RULE: Final = Noun(
    "SecurityGroupRule", type="security-group-rule", prefix="sgr", member="SecurityGroupRuleId",
    missing=("InvalidSecurityGroupRuleId.NotFound", "The security group rule ID '{name}' does not exist"),
)  # fmt: skip
VPC_ENDPOINT: Final = Noun(
    "VpcEndpoint", type="vpc-endpoint", prefix="vpce", member="VpcEndpointId",
    missing=("InvalidVpcEndpointId.NotFound", "The Vpc Endpoint Id '{name}' does not exist"),
)  # fmt: skip
NETWORK_INTERFACE: Final = Noun(
    "NetworkInterface", type="network-interface", prefix="eni", member="NetworkInterfaceId",
    missing=("InvalidNetworkInterfaceID.NotFound", "The networkInterface ID '{name}' does not exist"),
)  # fmt: skip
INTERNET_GATEWAY: Final = Noun(
    "InternetGateway", type="internet-gateway", prefix="igw", member="InternetGatewayId",
    missing=("InvalidInternetGatewayID.NotFound", "The internetGateway ID '{name}' does not exist"),
)  # fmt: skip
TRANSIT_GATEWAY: Final = Noun(
    "TransitGateway", type="transit-gateway", prefix="tgw", member="TransitGatewayId",
    missing=("InvalidTransitGatewayID.NotFound", "Transit Gateway {name} was deleted or does not exist."),
)  # fmt: skip
TRANSIT_ATTACHMENT: Final = Noun(
    "TransitGatewayAttachment", type="transit-gateway-attachment", prefix="tgw-attach",
    member="TransitGatewayAttachmentId",
    missing=(
        "InvalidTransitGatewayAttachmentID.NotFound",
        "Transit Gateway Attachment {name} was deleted or does not exist.",
    ),
)  # fmt: skip
TRANSIT_TABLE: Final = Noun(
    "TransitGatewayRouteTable", type="transit-gateway-route-table", prefix="tgw-rtb",
    member="TransitGatewayRouteTableId",
    missing=(
        "InvalidRouteTableID.NotFound",
        "Transit Gateway Route Table {name} was deleted or does not exist.",
    ),
)  # fmt: skip
CUSTOMER_GATEWAY: Final = Noun(
    "CustomerGateway", type="customer-gateway", prefix="cgw", member="CustomerGatewayId",
    missing=("InvalidCustomerGatewayID.NotFound", "The customerGateway ID '{name}' does not exist"),
)  # fmt: skip
VPN_CONNECTION: Final = Noun(
    "VpnConnection", type="vpn-connection", prefix="vpn", member="VpnConnectionId",
    missing=("InvalidVpnConnectionID.NotFound", "The vpnConnection ID '{name}' does not exist"),
)  # fmt: skip
VPN_GATEWAY: Final = Noun(
    "VpnGateway", type="vpn-gateway", prefix="vgw", member="VpnGatewayId",
    missing=("InvalidVpnGatewayID.NotFound", "The vpnGateway ID '{name}' does not exist"),
)  # fmt: skip
FLOW_LOG: Final = Noun(
    "FlowLog", type="vpc-flow-log", prefix="fl", member="FlowLogId",
    missing=("InvalidFlowLogId.NotFound", "The flow log ID '{name}' does not exist"),
)  # fmt: skip
ADDRESS: Final = Noun(
    "ElasticIp", type="elastic-ip", prefix="eipalloc", member="AllocationId",
    missing=("InvalidAllocationID.NotFound", "The allocation ID '{name}' does not exist"),
)  # fmt: skip
NAT_GATEWAY: Final = Noun(
    "NatGateway", type="natgateway", prefix="nat", member="NatGatewayId",
    missing=("NatGatewayNotFound", "NAT gateway {name} was not found"),
)  # fmt: skip
DHCP_OPTIONS: Final = Noun(
    "DhcpOptions", type="dhcp-options", prefix="dopt", member="DhcpOptionsId",
    missing=("InvalidDhcpOptionID.NotFound", "The dhcpOption ID '{name}' does not exist"),
)  # fmt: skip
NETWORK_ACL: Final = Noun(
    "NetworkAcl", type="network-acl", prefix="acl", member="NetworkAclId",
    missing=("InvalidNetworkAclID.NotFound", "The networkAcl ID '{name}' does not exist"),
)  # fmt: skip
NOUNS: Final = (
    VPC, SUBNET, ROUTE_TABLE, SECURITY_GROUP, SECURITY_GROUP_RULE, VPC_ENDPOINT, NETWORK_INTERFACE, INTERNET_GATEWAY,
    TRANSIT_GATEWAY, TRANSIT_ATTACHMENT, TRANSIT_TABLE, CUSTOMER_GATEWAY, VPN_CONNECTION, VPN_GATEWAY, FLOW_LOG,
    ADDRESS, NAT_GATEWAY, DHCP_OPTIONS, NETWORK_ACL,
)  # fmt: skip

AMAZON: Final = "amazon"
"""Owner of the services that endpoints lead to, as ``ec2:VpceServiceOwner`` has it."""


def in_vpc(row: Row) -> str:
    """The ARN of the VPC that something lies in, as the condition key ``ec2:Vpc`` has it."""
    return VPC.arn(row.account, row.region, row.doc["VpcId"])


INTERNET_GATEWAY.fills = ("ec2:InternetGatewayID",)
TRANSIT_GATEWAY.fills = ("ec2:transitGatewayId",)
TRANSIT_ATTACHMENT.fills = ("ec2:transitGatewayAttachmentId",)
TRANSIT_TABLE.fills = ("ec2:transitGatewayRouteTableId",)
INTERNET_GATEWAY.keys = lambda row: {"ec2:internetgatewayid": row.name}
TRANSIT_GATEWAY.keys = lambda row: {"ec2:transitgatewayid": row.name}
TRANSIT_ATTACHMENT.keys = lambda row: {"ec2:transitgatewayattachmentid": row.name}
TRANSIT_TABLE.keys = lambda row: {"ec2:transitgatewayroutetableid": row.name}
TRANSIT_GATEWAY.shared = True
VPC.fills = ("ec2:VpcID", "ec2:Tenancy")
SUBNET.fills = ("ec2:SubnetID", "ec2:AvailabilityZone", "ec2:Vpc")
ROUTE_TABLE.fills = ("ec2:RouteTableID", "ec2:Vpc")
SECURITY_GROUP.fills = ("ec2:SecurityGroupID", "ec2:Vpc")
VPC_ENDPOINT.fills = ("ec2:VpceServiceName", "ec2:VpceServiceOwner")
NETWORK_INTERFACE.fills = ("ec2:NetworkInterfaceID", "ec2:Subnet", "ec2:AvailabilityZone", "ec2:Vpc")
VPC.keys = lambda row: {"ec2:vpcid": row.name, "ec2:tenancy": "default"}
SUBNET.keys = lambda row: {
    "ec2:subnetid": row.name, "ec2:availabilityzone": row.doc["Zone"], "ec2:vpc": in_vpc(row),
}  # fmt: skip
ROUTE_TABLE.keys = lambda row: {"ec2:routetableid": row.name, "ec2:vpc": in_vpc(row)}
SECURITY_GROUP.keys = lambda row: {"ec2:securitygroupid": row.name, "ec2:vpc": in_vpc(row)}
ADDRESS.fills = ("ec2:AllocationId", "ec2:Domain", "ec2:PublicIpAddress")
DHCP_OPTIONS.fills = ("ec2:DhcpOptionsID",)
NAT_GATEWAY.fills = ("ec2:Vpc",)
NETWORK_ACL.fills = ("ec2:NetworkAclID", "ec2:Vpc")
ADDRESS.keys = lambda row: {
    "ec2:allocationid": row.name, "ec2:domain": "vpc", "ec2:publicipaddress": row.doc["Address"],
}  # fmt: skip
DHCP_OPTIONS.keys = lambda row: {"ec2:dhcpoptionsid": row.name}
NAT_GATEWAY.keys = lambda row: {"ec2:vpc": in_vpc(row)}
NETWORK_ACL.keys = lambda row: {"ec2:networkaclid": row.name, "ec2:vpc": in_vpc(row)}
VPC_ENDPOINT.keys = lambda row: {"ec2:vpceservicename": row.doc["Service"], "ec2:vpceserviceowner": AMAZON}
NETWORK_INTERFACE.keys = lambda row: {
    "ec2:networkinterfaceid": row.name,
    "ec2:subnet": SUBNET.arn(row.account, row.region, row.doc["SubnetId"]),
    "ec2:availabilityzone": row.doc["Zone"],
    "ec2:vpc": in_vpc(row),
}
