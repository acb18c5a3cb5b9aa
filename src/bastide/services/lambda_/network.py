"""What a function reaches: AWS with its role, or a VPC; never the internet.

Without `VpcConfig` an environment is alone in a network of its own, where AWS's API answers as ``https://localhost``, also
at the port that the platform's own address has: so addresses that were signed for people are good inside, too. With it a
network interface is made with the function's role, and AWS is reached through the VPC's endpoints. Source: Lambda Developer
Guide, "Giving Lambda functions access to resources in an Amazon VPC".
"""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from bastide.domain import Refused
from bastide.engines.functions import Runtime, Unavailable
from bastide.engines.network import Attachment, Joined, NetworkError, Networks, Opened, Vpc
from bastide.services.lambda_.noun import invalid
from bastide.services.lambda_.session import RoleSession

_log = logging.getLogger("bastide.lambda")

AUTHORITY: Final = "/etc/bastide/authority.pem"
RUNTIME_PORT: Final = 9001
_API: Final = 443
_TURN: Final = itertools.count()


@dataclass(slots=True)
class Network:
    """Of one environment. variables: for AWS's clients in it. hosts: names of 127.0.0.1."""

    namespace: str = ""
    resolver: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    hosts: tuple[str, ...] = ()
    joined: Joined | None = None
    attached: Attachment | None = None
    opened: list[Opened] = field(default_factory=list)
    interface: str = ""

    async def close(self, session: RoleSession) -> None:
        """Takes it away; closing twice is fine."""
        while self.opened:
            self.opened.pop().close()
        joined, self.joined = self.joined, None
        if joined is not None:
            await joined.close()
        attached, self.attached = self.attached, None
        if attached is not None:
            await attached.close()
        interface, self.interface = self.interface, ""
        if interface:
            try:
                await session.act("ec2", "DeleteNetworkInterface", {"NetworkInterfaceId": interface})
            except Refused as refused:
                # A role that may not leaves it, as on AWS.
                _log.warning("the network interface %s of %s is left: %s", interface, session.source_arn, refused.code)


def wanted(config: Any) -> bool:
    """Whether a VpcConfig names a VPC: an empty one takes a function out of it."""
    return bool(config and config.get("SubnetIds"))


def description(arn: str) -> str:
    """Of the network interfaces that are made for a function."""
    name = arn.rpartition(":")[2]
    return f"AWS Lambda VPC ENI-{name}-{hashlib.sha256(arn.encode()).hexdigest()[:12]}"


async def check(session: RoleSession, config: Mapping[str, Any]) -> None:
    """Raises Refused for subnets and groups that are not there, or that the function's role may not see."""
    subnets, groups = list(config.get("SubnetIds") or ()), list(config.get("SecurityGroupIds") or ())
    try:
        found = (await session.act("ec2", "DescribeSubnets", {"SubnetIds": subnets}))["Subnets"]
        held = (await session.act("ec2", "DescribeSecurityGroups", {"GroupIds": groups}))["SecurityGroups"]
    except Refused as refused:
        if refused.code == "UnauthorizedOperation":
            raise invalid(
                "The provided execution role does not have permissions to call CreateNetworkInterface on EC2, nor to "
                f"describe subnets and security groups: {refused.message}"
            ) from None
        raise invalid(f"Error occurred while looking at VpcConfig: {refused.message}") from None
    if len({one["VpcId"] for one in (*found, *held)}) != 1:
        raise invalid("Security Groups are required to be in the same VPC, and so are subnets.")
    if lacking := session.calls.engine(Networks).lacking():
        raise invalid(f"VpcConfig: this machine lacks {lacking}.")


async def connect(session: RoleSession, network: Network, runtime: Runtime, config: Any, url: str) -> None:
    """Makes an environment's network in `network`, which is to be closed also if this fails; the Runtime API answers in it.
    url: where people reach the platform. Raises Unavailable, and Refused where the role may not."""
    networks = session.calls.engine(Networks)
    network.variables = {
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{RUNTIME_PORT}",
        "AWS_CA_BUNDLE": AUTHORITY,
        "SSL_CERT_FILE": AUTHORITY,
    }
    try:
        if wanted(config):
            await _attach(session, networks, network, config)
        else:
            network.joined = await networks.join(1, encrypted=False)
            network.namespace = network.joined.peers[0].namespace
            host = urlsplit(url)
            for port in sorted({_API, host.port or _API}):
                await _serve(networks, network, port)
            network.hosts = tuple({str(host.hostname)} - {"localhost", "127.0.0.1", "::1"})
            network.variables["AWS_ENDPOINT_URL"] = "https://localhost"
        await runtime.serve(networks.listen(network.namespace, RUNTIME_PORT))
    except (NetworkError, OSError) as error:
        _log.exception("no network for %s", session.source_arn)
        raise Unavailable(f"The network could not be made: {error}") from None


async def _serve(networks: Networks, network: Network, port: int) -> None:
    bound = networks.listen(network.namespace, port)
    try:
        network.opened.append(await networks.serve(bound))
    except BaseException:
        bound.close()
        raise


async def _attach(session: RoleSession, networks: Networks, network: Network, config: Mapping[str, Any]) -> None:
    subnets = list(config["SubnetIds"])
    asked = {
        "SubnetId": subnets[next(_TURN) % len(subnets)],
        "Groups": list(config["SecurityGroupIds"]),
        "Description": description(session.source_arn),
    }
    try:
        made = (await session.act("ec2", "CreateNetworkInterface", asked))["NetworkInterface"]
    except Refused as refused:
        code = "EC2AccessDeniedException" if refused.code == "UnauthorizedOperation" else "EC2UnexpectedException"
        raise Refused(
            code,
            "Lambda could not make a network interface with the function's role. EC2 Error Code: "
            f"{refused.code}. EC2 Error Message: {refused.message}",
            502,
        ) from None
    network.interface = made["NetworkInterfaceId"]
    vpc = Vpc(session.account, session.region, made["VpcId"])
    network.attached = await networks.attach(vpc, network.interface)
    network.resolver = network.attached.resolver
    network.namespace = network.attached.namespace


async def left(session: RoleSession) -> None:
    """Removes what a killed platform left of a function's network interfaces."""
    told = {"Filters": [{"Name": "description", "Values": [description(session.source_arn)]}]}
    networks = session.calls.engine(Networks)
    for one in (await session.act("ec2", "DescribeNetworkInterfaces", told))["NetworkInterfaces"]:
        if not networks.attached(one["NetworkInterfaceId"]):
            await session.act("ec2", "DeleteNetworkInterface", {"NetworkInterfaceId": one["NetworkInterfaceId"]})
