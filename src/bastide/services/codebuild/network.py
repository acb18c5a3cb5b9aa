"""What a build reaches: AWS with the project's role, or a VPC; never the internet.

Without `vpcConfig` a build is alone in a network of its own, where AWS's API and the registry answer at ``localhost``, also
at the port that the platform's own address has, so that addresses which were given to people are good inside, too. With it
a network interface is made with the service role, and AWS is reached through the VPC's endpoints. Credentials of the role
come over the build's own loopback. Source: CodeBuild User Guide, "Use AWS CodeBuild with Amazon Virtual Private Cloud".
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from bastide.domain import Refused
from bastide.engines.network import Attachment, Joined, NetworkError, Networks, Opened, Vpc
from bastide.engines.network.credentials import LONGEST_HEAD, PORT, Credentials
from bastide.engines.workflow import Failed
from bastide.kernel import Calls
from bastide.kernel.address import Address
from bastide.services.codebuild.noun import invalid
from bastide.services.codebuild.session import RoleSession

_log = logging.getLogger("bastide.codebuild")

AUTHORITY: Final = "/etc/bastide/authority.pem"
_API: Final = 443


@dataclass(slots=True)
class Network:
    """Of one build, to be closed. variables: for AWS's clients in it. hosts: names of 127.0.0.1. interface: of EC2."""

    namespace: str = ""
    resolver: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    hosts: tuple[str, ...] = ()
    authority: bytes = b""
    interface: tuple[str, str] | None = None
    joined: Joined | None = None
    attached: Attachment | None = None
    opened: list[Opened] = field(default_factory=list)
    server: asyncio.Server | None = None

    async def close(self) -> None:
        """Takes it away; closing twice is fine."""
        if self.server is not None:
            self.server.close()
        self.server = None
        while self.opened:
            self.opened.pop().close()
        joined, self.joined = self.joined, None
        if joined is not None:
            await joined.close()
        attached, self.attached = self.attached, None
        if attached is not None:
            await attached.close()


def description(arn: str) -> str:
    """Of the network interface that is made for a build."""
    return f"[DO NOT DELETE] ENI managed by CodeBuild for {arn}"


async def check(
    calls: Calls, role: str, config: Mapping[str, Any], *, account: str, region: str, source_arn: str
) -> None:
    """Raises Refused, before a project is taken, for subnets and groups that are not there or that its role may not see."""
    if not config:
        return
    session = RoleSession(calls, role, account=account, region=region, source_arn=source_arn)
    try:
        asked = {"SubnetIds": list(config["subnets"])}
        subnets = (await session.act("ec2", "DescribeSubnets", asked))["Subnets"]
        named = {"GroupIds": list(config["securityGroupIds"])}
        groups = (await session.act("ec2", "DescribeSecurityGroups", named))["SecurityGroups"]
    except Refused as refused:
        raise invalid(f"Invalid vpcConfig: {refused.message}") from None
    if {one["VpcId"] for one in (*subnets, *groups)} != {config["vpcId"]}:
        raise invalid(f"Invalid vpcConfig: the subnets and security groups do not all lie in {config['vpcId']}.")
    if lacking := calls.engine(Networks).lacking():
        raise invalid(f"Invalid vpcConfig: this machine lacks {lacking}.")


def go_by_vpc(session: RoleSession, config: Mapping[str, Any]) -> None:
    """Has a session's objects come and go through the VPC, as on AWS, where the build itself fetches them."""
    session.in_vpc = bool(config)
    if config:
        with session.calls.store.reading() as view:
            ways = [
                session.calls.network.gateway(view, session.account, session.region, one) for one in config["subnets"]
            ]
        session.gateway = ways[0] if all(ways) else ""


async def connect(session: RoleSession, network: Network, build: str, config: Mapping[str, Any]) -> None:
    """Makes a build's network in `network`, which is to be closed also if this fails; raises Failed."""
    networks = session.calls.engine(Networks)
    try:
        network.authority = await asyncio.to_thread(networks.authority.read_bytes)
        if config:
            await _attach(session, networks, network, build, config)
        else:
            await _alone(session, networks, network)
        token = secrets.token_urlsafe(32)
        bound = networks.listen(network.namespace, PORT)
        serving = Credentials(session.credentials, token)
        network.server = await asyncio.start_server(serving, sock=bound, limit=LONGEST_HEAD)
    except (NetworkError, OSError) as error:
        _log.exception("no network for %s", build)
        raise Failed("FAULT", f"The build's network could not be made: {error}") from None
    network.variables |= {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1/credentials",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": token,
        "AWS_CA_BUNDLE": AUTHORITY,
        "SSL_CERT_FILE": AUTHORITY,
        "REQUESTS_CA_BUNDLE": AUTHORITY,
        "PIP_CERT": AUTHORITY,
        "GIT_SSL_CAINFO": AUTHORITY,
    }


async def _alone(session: RoleSession, networks: Networks, network: Network) -> None:
    address = session.calls.engine(Address)
    network.joined = await networks.join(1, encrypted=False)
    network.namespace = network.joined.peers[0].namespace
    host = urlsplit(address.url)
    for port in sorted({_API, host.port or _API}):
        bound = networks.listen(network.namespace, port)
        try:
            network.opened.append(await networks.serve(bound))
        except BaseException:
            bound.close()
            raise
    registry = f"{session.account}.dkr.ecr.{session.region}.amazonaws.com"
    network.hosts = tuple(sorted({str(host.hostname), registry} - {"localhost", "127.0.0.1", "::1"}))
    network.variables["AWS_ENDPOINT_URL"] = "https://localhost"


async def _attach(
    session: RoleSession, networks: Networks, network: Network, build: str, config: Mapping[str, Any]
) -> None:
    asked = {
        "SubnetId": config["subnets"][0],
        "Groups": list(config["securityGroupIds"]),
        "Description": description(build),
    }
    try:
        await clean(session, build)
        made = (await session.act("ec2", "CreateNetworkInterface", asked))["NetworkInterface"]
    except Refused as refused:
        raise Failed(
            "VPC_CLIENT_ERROR", f"The network interface could not be made: {refused.code}: {refused.message}"
        ) from None
    network.interface = (asked["SubnetId"], made["NetworkInterfaceId"])
    vpc = Vpc(session.account, session.region, made["VpcId"])
    network.attached = await networks.attach(vpc, made["NetworkInterfaceId"])
    network.namespace = network.attached.namespace
    network.resolver = network.attached.resolver


async def clean(session: RoleSession, build: str) -> None:
    """Removes the network interfaces that were made for a build."""
    told = {"Filters": [{"Name": "description", "Values": [description(build)]}]}
    for one in (await session.act("ec2", "DescribeNetworkInterfaces", told))["NetworkInterfaces"]:
        await session.act("ec2", "DeleteNetworkInterface", {"NetworkInterfaceId": one["NetworkInterfaceId"]})
