"""What hosts of jobs and servers of models reach: each other, their subnet, AWS with the job's role, or nothing.

EnableNetworkIsolation: nothing but each other, and no credentials. VpcConfig: a network interface in a subnet each, and AWS
through the VPC's endpoints. Neither: AWS through an address of the host's own loopback. The internet, never.
Source: developer guide, "train-vpc", "mkt-algo-model-internet-free", "sagemaker-roles".
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines.network import Attachment, Joined, NetworkError, Networks, Opened, Vpc, credentials
from bastide.engines.network.credentials import LONGEST_HEAD, Credentials
from bastide.engines.workflow import Failed
from bastide.kernel import Calls
from bastide.services.sagemaker.session import RoleSession

_log = logging.getLogger("bastide.sagemaker")

AUTHORITY: Final = "/etc/bastide/authority.pem"
_API: Final = 443


@dataclass(slots=True)
class Network:
    """What was made for a job, to be closed. variables: of each host, for AWS's clients in it, and the
    certificate that they are to trust."""

    joined: Joined | None = None
    attached: list[Attachment] = field(default_factory=list)
    opened: list[Opened] = field(default_factory=list)
    servers: list[asyncio.Server] = field(default_factory=list)
    variables: list[dict[str, str]] = field(default_factory=list)
    resolver: str = ""
    authority: bytes = b""

    async def close(self) -> None:
        """Takes it away; closing twice is fine."""
        for server in self.servers:
            server.close()
        for one in self.opened:
            one.close()
        self.servers.clear()
        self.opened.clear()
        if self.joined is not None:
            await self.joined.close()
        while self.attached:
            await self.attached.pop().close()


def description(arn: str) -> str:
    """Of the network interfaces that a job's service makes."""
    return f"[DO NOT DELETE] ENI managed by SageMaker for {arn}"


async def check(calls: Calls, role_arn: str, config: Any, *, account: str, region: str, source_arn: str) -> None:
    """Raises Refused, before a job is taken, for subnets and groups that are not there or that its role may not see."""
    if not config:
        return
    session = RoleSession(calls, role_arn, account=account, region=region, source_arn=source_arn)
    try:
        subnets = (await session.act("ec2", "DescribeSubnets", {"SubnetIds": list(config["Subnets"])}))["Subnets"]
        asked = {"GroupIds": list(config["SecurityGroupIds"])}
        groups = (await session.act("ec2", "DescribeSecurityGroups", asked))["SecurityGroups"]
    except Refused as refused:
        raise Refused("ValidationException", f"VpcConfig: {refused.message}") from None
    if len({one["VpcId"] for one in (*subnets, *groups)}) != 1:
        raise Refused("ValidationException", "VpcConfig: subnets and security groups lie in different VPCs.")
    if lacking := calls.engine(Networks).lacking():
        raise Refused("ValidationException", f"VpcConfig: this machine lacks {lacking}.")


def go_by_vpc(session: RoleSession, config: Any, *, isolated: bool) -> None:
    """Has a session's data come and go through a VPC, as on AWS; so do the policies that see the way decide there. Raises
    Failed if no way leads to S3."""
    if config and not isolated:
        session.gateway = way_to_s3(session, config)


def way_to_s3(session: RoleSession, config: Any) -> str:
    """The gateway endpoint by which a job's subnets reach S3; raises Failed if one does not: no data would come."""
    with session.calls.store.reading() as view:
        found = [session.calls.network.gateway(view, session.account, session.region, one) for one in config["Subnets"]]
    for subnet, endpoint in zip(config["Subnets"], found, strict=True):
        if not endpoint:
            raise Failed(
                "ClientError",
                f"Data download failed: {subnet} has no way to S3. Make a gateway VPC endpoint for S3, and name the "
                "subnet's route table in it.",
            )
    return found[0]


async def clean(session: RoleSession, arn: str) -> None:
    """Removes the network interfaces that were made for a job. arn: a pattern, as of a filter of EC2."""
    told = {"Filters": [{"Name": "description", "Values": [description(arn)]}]}
    for one in (await session.act("ec2", "DescribeNetworkInterfaces", told))["NetworkInterfaces"]:
        await session.act("ec2", "DeleteNetworkInterface", {"NetworkInterfaceId": one["NetworkInterfaceId"]})


async def connect(
    session: RoleSession,
    network: Network,
    arn: str,
    hosts: int,
    config: Any,
    *,
    isolated: bool,
    encrypted: bool,
    direct: bool = False,
) -> None:
    """Makes the network of so many hosts in `network`, which is to be closed also if this fails. config: VpcConfig. direct:
    AWS is reached beside the VPC, too.

    Raises Failed where the role may not, or the machine cannot.
    """
    networks = session.calls.engine(Networks)
    network.variables = [{} for _ in range(hosts)]
    if isolated and hosts == 1:
        return
    try:
        if config and not isolated:
            await _attach(session, networks, network, arn, hosts, config)
        network.joined = await networks.join(hosts, encrypted=encrypted, attached=network.attached)
        if not isolated:
            network.authority = await asyncio.to_thread(networks.authority.read_bytes)
            for number, peer in enumerate(network.joined.peers):
                await _serve(session, networks, network, number, peer.namespace, direct=direct or not network.attached)
    except (NetworkError, OSError) as error:
        _log.exception("no network for %s", arn)
        raise Failed("InternalServerError", f"The network could not be made: {error}") from None


async def _attach(
    session: RoleSession, networks: Networks, network: Network, arn: str, hosts: int, config: Any
) -> None:
    try:
        await clean(session, arn)
        for number in range(hosts):
            asked = {
                "SubnetId": config["Subnets"][number % len(config["Subnets"])],
                "Groups": list(config["SecurityGroupIds"]),
                "Description": description(arn),
            }
            made = (await session.act("ec2", "CreateNetworkInterface", asked))["NetworkInterface"]
            vpc = Vpc(session.account, session.region, made["VpcId"])
            attachment = await networks.attach(vpc, made["NetworkInterfaceId"])
            network.attached.append(attachment)
            network.resolver = attachment.resolver
    except Refused as refused:
        raise Failed(
            "ClientError", f"The network interface could not be made: {refused.code}: {refused.message}"
        ) from None


async def _serve(
    session: RoleSession, networks: Networks, network: Network, number: int, namespace: str, *, direct: bool
) -> None:
    token = secrets.token_urlsafe(32)
    bound = networks.listen(namespace, credentials.PORT)
    server = await asyncio.start_server(Credentials(session.credentials, token), sock=bound, limit=LONGEST_HEAD)
    network.servers.append(server)
    network.variables[number] = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1/credentials",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": token,
        "AWS_CA_BUNDLE": AUTHORITY,
        "AWS_DEFAULT_REGION": session.region,
    }
    if direct:
        bound = networks.listen(namespace, _API)
        try:
            network.opened.append(await networks.serve(bound))
        except BaseException:
            bound.close()
            raise
        network.variables[number]["AWS_ENDPOINT_URL"] = "https://localhost"


def peers(network: Network, names: Sequence[str]) -> list[tuple[str, str, dict[str, str]]]:
    """Of each host: its namespace (empty for one that has none), its interface, and its peers' addresses by name."""
    if network.joined is None:
        return [("", "lo", {}) for _ in names]
    found = network.joined.peers
    return [
        (
            peer.namespace,
            peer.interface,
            {name: other.address for name, other in zip(names, found, strict=True)} if len(found) > 1 else {},
        )
        for peer in found
    ]
