"""A VPC with a subnet, and programs inside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from tests.platform import PROGRAM, REGION, Account, Keys, Running

_CLIENT = '''
import json, socket, sys, boto3, botocore.config, botocore.exceptions
config = botocore.config.Config(connect_timeout=0.6, read_timeout=20, retries={"max_attempts": 0, "mode": "standard"})
answers = []
for service, method, given in json.load(sys.stdin):
    try:
        if service == "resolve":
            answers.append(["", sorted({one[4][0] for one in socket.getaddrinfo(method, 443, socket.AF_INET)})])
            continue
        client = boto3.client(service, config=config, **given.pop("_client", {}))
        answer = getattr(client, method)(**given)
        answer = {key: one.read().decode() if hasattr(one, "read") else one for key, one in answer.items()}
        answers.append(["", answer])
    except botocore.exceptions.ClientError as error:
        answers.append([error.response["Error"]["Code"], error.response["Error"]["Message"]])
    except Exception as error:
        answers.append([type(error).__name__, str(error)])
print(json.dumps(answers, default=str))
'''


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

    def asks(self, *calls: tuple[Any, ...], keys: Keys | None = None, subnet: str = "", groups: tuple[str, ...] = ()) -> Any:
        """What a client in the subnet is answered, call by call: error code or exception, and answer or message."""
        held = keys or self.account.keys
        environment = {
            "PATH": os.environ["PATH"],
            "AWS_ACCESS_KEY_ID": held.access_key,
            "AWS_SECRET_ACCESS_KEY": held.secret,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CA_BUNDLE": self.account.platform.authority,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        if held.token:
            environment["AWS_SESSION_TOKEN"] = held.token
        chosen = [word for group in groups for word in ("--security-group", group)]
        told = [[*call, {}] if len(call) == 2 else list(call) for call in calls]
        done = subprocess.run(
            [*PROGRAM, "network", "run", "--data", str(self.account.platform.data), "--account", self.account.id,
             "--subnet", subnet or self.subnet, *chosen, "--", sys.executable, "-c", _CLIENT],
            input=json.dumps(told), capture_output=True, text=True, env=environment, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


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


@pytest.fixture(scope="module")
def somebody(platform: Running) -> Account:
    return platform.account()
