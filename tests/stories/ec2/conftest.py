"""A VPC with a subnet, and programs inside it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.platform import PROGRAM, REGION, Account, Keys, Running

_CLIENT = """
import json, socket, sys, urllib.request, boto3, botocore.config, botocore.exceptions
session = boto3.session.Session()
kept = {}

def asked(patience, service, method, given):
    once = {"max_attempts": 0, "mode": "standard"}
    config = botocore.config.Config(connect_timeout=patience, read_timeout=60, retries=once)
    if service == "resolve":
        return sorted({one[4][0] for one in socket.getaddrinfo(method, 443, socket.AF_INET)})
    if service == "fetch":
        with urllib.request.urlopen(f"http://{method}/", timeout=patience) as page:
            return page.read().decode()
    if service == "connect":
        with socket.create_connection((method, given.get("port", 443)), patience) as link:
            return link.getsockname()[0]
    # A new client each time, unless told otherwise: a connection that stands is not what a test of rules wants.
    keep = given.pop("_keep", None)
    if "_keys" in given:
        names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
        given["_client"] = dict(zip(names, given.pop("_keys")))
    client = kept.get(keep) or session.client(service, config=config, **given.pop("_client", {}))
    if keep:
        kept[keep] = client
    for name, value in given.pop("_headers", {}).items():
        client.meta.events.register("before-sign", lambda request, **_: request.headers.add_header(name, value))
    answer = getattr(client, method)(**given)
    return {key: one.read().decode() if hasattr(one, "read") else one for key, one in answer.items()}

for line in sys.stdin:
    answers = []
    patience, calls = json.loads(line)
    for call in calls:
        try:
            answers.append(["", asked(patience, *call)])
        except botocore.exceptions.ClientError as error:
            answers.append([error.response["Error"]["Code"], error.response["Error"]["Message"]])
        except Exception as error:
            answers.append([type(error).__name__, str(error)])
    print(json.dumps(answers, default=str), flush=True)
"""


class Inside:
    """A client in a subnet, as long as it is open."""

    def __init__(self, vpc: Vpc, subnet: str, groups: tuple[str, ...], keys: Keys | None) -> None:
        held = keys or vpc.account.keys
        environment = {
            "PATH": os.environ["PATH"],
            "AWS_ACCESS_KEY_ID": held.access_key,
            "AWS_SECRET_ACCESS_KEY": held.secret,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CA_BUNDLE": vpc.account.platform.authority,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        if held.token:
            environment["AWS_SESSION_TOKEN"] = held.token
        chosen = [word for group in groups for word in ("--security-group", group)]
        self.running = subprocess.Popen(
            [*PROGRAM, "network", "run", "--data", str(vpc.account.platform.data), "--account", vpc.account.id,
             "--subnet", subnet, *chosen, "--", sys.executable, "-c", _CLIENT],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def ask(self, *calls: tuple[Any, ...], patience: float = 10.0) -> list[tuple[str, Any]]:
        """What is answered, call by call: error code or exception, and answer or message. patience: seconds until a
        connection that does not come about is given up."""
        told = [[*call, {}] if len(call) == 2 else list(call) for call in calls]
        assert self.running.stdin is not None and self.running.stdout is not None
        self.running.stdin.write(json.dumps([patience, told]) + "\n")
        self.running.stdin.flush()
        line = self.running.stdout.readline()
        if not line:
            assert self.running.stderr is not None
            raise AssertionError(self.running.stderr.read())
        return [(code, answer) for code, answer in json.loads(line)]

    def one(self, *call: Any) -> tuple[str, Any]:
        """One call."""
        return self.ask(call)[0]

    def lost(self, *calls: tuple[Any, ...]) -> bool:
        """Whether no call gets an answer or a refusal: there is no path."""
        return all("Timeout" in code for code, _ in self.ask(*calls, patience=0.3))

    def close(self) -> None:
        self.running.communicate(timeout=30)


@dataclass
class Vpc:
    """A VPC of an account, with one subnet, and both attributes of DNS on."""

    account: Account
    id: str
    subnet: str
    group: str
    cidr: str

    @property
    def ec2(self) -> Any:
        return self.account.client("ec2")

    def interface(self, service: str, **more: Any) -> dict[str, Any]:
        """An interface endpoint in the subnet."""
        given = {"SubnetIds": [self.subnet], **more}
        return self.ec2.create_vpc_endpoint(
            VpcId=self.id, VpcEndpointType="Interface", ServiceName=f"com.amazonaws.{REGION}.{service}", **given
        )["VpcEndpoint"]

    def main_table(self) -> str:
        found = self.ec2.describe_route_tables(
            Filters=[{"Name": "vpc-id", "Values": [self.id]}, {"Name": "association.main", "Values": ["true"]}]
        )
        return found["RouteTables"][0]["RouteTableId"]

    @contextlib.contextmanager
    def inside(self, *groups: str, subnet: str = "", keys: Keys | None = None) -> Iterator[Inside]:
        """A client in the subnet."""
        made = Inside(self, subnet or self.subnet, groups, keys)
        try:
            yield made
        finally:
            made.close()


def make_vpc(account: Account, cidr: str = "10.0.0.0/16") -> Vpc:
    ec2 = account.client("ec2")
    vpc = ec2.create_vpc(CidrBlock=cidr)["Vpc"]["VpcId"]
    ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})
    first = cidr.replace(".0.0/16", ".1.0/24")
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock=first)["Subnet"]["SubnetId"]
    groups = ec2.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["SecurityGroups"]
    return Vpc(account, vpc, subnet, groups[0]["GroupId"], first)


@pytest.fixture
def vpc(account: Account) -> Vpc:
    return make_vpc(account)


@dataclass
class Science:
    """A VPC and a client in its subnet that several tests share; each finds it as a new one is."""

    vpc: Vpc
    inside: Inside

    @property
    def interface(self) -> str:
        """The client's network interface."""
        found = self.vpc.ec2.describe_network_interfaces(
            Filters=[{"Name": "description", "Values": ["bastide network run"]}]
        )["NetworkInterfaces"]
        return next(one["NetworkInterfaceId"] for one in found if one["Status"] == "in-use")

    def clear(self) -> None:
        ec2 = self.vpc.ec2
        ec2.modify_network_interface_attribute(NetworkInterfaceId=self.interface, Groups=[self.vpc.group])
        held = [one["VpcEndpointId"] for one in ec2.describe_vpc_endpoints()["VpcEndpoints"]]
        if held:
            ec2.delete_vpc_endpoints(VpcEndpointIds=held)
        for table in ec2.describe_route_tables()["RouteTables"]:
            if not table["Associations"]:
                ec2.delete_route_table(RouteTableId=table["RouteTableId"])
        for one in ec2.describe_network_interfaces()["NetworkInterfaces"]:
            if one["Status"] == "available":
                ec2.delete_network_interface(NetworkInterfaceId=one["NetworkInterfaceId"])


@pytest.fixture(scope="module")
def shared(platform: Running) -> Iterator[Science]:
    vpc = make_vpc(platform.account())
    with vpc.inside() as inside:
        assert inside.one("resolve", "localhost")[0] == ""
        yield Science(vpc, inside)


@pytest.fixture
def science(shared: Science) -> Iterator[Science]:
    yield shared
    shared.clear()
