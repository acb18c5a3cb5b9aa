"""The controls that can be enabled here: preventive ones, as statements of a service control policy.

Source: Control Tower Controls Reference Guide, "Controls that deny", each under its own name. What detects and what checks
templates is not among them: there is no Config, and `bastide landing plan` checks templates. Nor is what is named by an
opaque id; none of these takes parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bastide.domain import Refused

_ROOT: Final = {"ArnLike": {"aws:PrincipalArn": "arn:*:iam::*:root"}}


@dataclass(frozen=True, slots=True)
class Control:
    """A control. deny: actions; condition: when."""

    title: str
    deny: tuple[str, ...]
    condition: Mapping[str, Any] | None = None

    def statement(self, name: str) -> dict[str, Any]:
        """Its statement."""
        sid = "".join(char for char in name if char.isalnum())
        told = {"Sid": sid, "Effect": "Deny", "Action": list(self.deny), "Resource": "*"}
        return {**told, "Condition": self.condition} if self.condition else told


CONTROLS: Final[Mapping[str, Control]] = {
    "AWS-GR_DISALLOW_CROSS_REGION_NETWORKING": Control(
        "Disallow cross-region networking for EC2, CloudFront and Global Accelerator",
        ("cloudfront:CreateDistribution", "cloudfront:UpdateDistribution", "ec2:AcceptTransitGatewayPeeringAttachment",
         "ec2:AcceptVpcPeeringConnection", "ec2:CreateTransitGatewayPeeringAttachment", "ec2:CreateVpcPeeringConnection",
         "globalaccelerator:Create*", "globalaccelerator:Update*"),
    ),
    "AWS-GR_DISALLOW_VPC_INTERNET_ACCESS": Control(
        "Disallow internet access for a VPC that a customer manages",
        ("ec2:AttachEgressOnlyInternetGateway", "ec2:AttachInternetGateway", "ec2:CreateCarrierGateway",
         "ec2:CreateDefaultSubnet", "ec2:CreateDefaultVpc", "ec2:CreateEgressOnlyInternetGateway",
         "ec2:CreateInternetGateway", "ec2:CreateNatGateway"),
    ),
    "AWS-GR_DISALLOW_VPN_CONNECTIONS": Control(
        "Disallow VPN connections",
        ("ec2:AttachVpnGateway", "ec2:CreateClientVpn*", "ec2:CreateCustomerGateway", "ec2:CreateVpnConnection*",
         "ec2:CreateVpnGateway", "ec2:ModifyVpnConnection"),
    ),
    "AWS-GR_RESTRICT_ROOT_USER": Control("Disallow actions as a root user", ("*",), _ROOT),
    "AWS-GR_RESTRICT_ROOT_USER_ACCESS_KEYS": Control(
        "Disallow creation of access keys for the root user", ("iam:CreateAccessKey",), _ROOT
    ),
    "AWS-GR_RESTRICT_S3_DELETE_WITHOUT_MFA": Control(
        "Disallow delete actions on S3 buckets without MFA", ("s3:DeleteBucket", "s3:DeleteObject"),
        {"BoolIfExists": {"aws:MultiFactorAuthPresent": "false"}},
    ),
}  # fmt: skip


def wrong(message: str) -> Refused:
    """ValidationException."""
    return Refused("ValidationException", message)


def named(arn: str, region: str) -> tuple[str, Control]:
    """Name and control of an identifier; raises Refused."""
    name = arn.removeprefix(f"arn:aws:controltower:{region}::control/")
    found = CONTROLS.get(name)
    if found is None:
        known = ", ".join(CONTROLS)
        raise Refused(
            "ResourceNotFoundException", f"There is no control {arn[:256]} here. In {region} there are: {known}.", 404
        )
    return name, found
