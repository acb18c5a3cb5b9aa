"""The registry from inside a VPC: its API, the registry itself and the layers each come over an endpoint of their own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.platform import PROGRAM, REGION
from tests.stories.ec2.conftest import Science
from tests.stories.ecr.registry import Registry, canonical


def inside(science: Science, registry: Registry, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs skopeo in the subnet."""
    account = science.vpc.account
    command = [*PROGRAM, "network", "run", "--data", str(account.platform.data), "--account", account.id]
    options = ["--cert-dir", str(registry.folder / "certificates"), "--creds", f"AWS:{registry.password()}"]
    said = [one for word in words for one in (options if word == "ONE" else [word])]
    if words[0] == "copy":
        said = [one.replace("--cert-dir", "--src-cert-dir").replace("--creds", "--src-creds") for one in said]
    return subprocess.run(
        [*command, "--subnet", science.vpc.subnet, "--", "skopeo", "--insecure-policy", "--command-timeout", "3s", *said],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.control("NET-12", "XVE-01", "XVE-05")
def test_login_manifest_and_layers_come_over_three_endpoints(science: Science, tmp_path: Path) -> None:
    vpc = science.vpc
    registry = Registry(vpc.account, tmp_path)
    uri = registry.create("team/app")
    digest = registry.push(f"{uri}:one")
    image = f"docker://{canonical(vpc.account.id, 'team/app')}@{digest}"
    vpc.interface("ecr.api")
    dkr = vpc.interface("ecr.dkr")["VpcEndpointId"]
    table = vpc.main_table()
    s3 = vpc.ec2.create_vpc_endpoint(VpcId=vpc.id, ServiceName=f"com.amazonaws.{REGION}.s3", RouteTableIds=[table])[
        "VpcEndpoint"
    ]["VpcEndpointId"]

    def pull(number: int) -> subprocess.CompletedProcess[str]:
        return inside(science, registry, "copy", "ONE", image, f"dir:{tmp_path / str(number)}")

    code, answer = science.inside.one("ecr", "get_authorization_token")
    assert not code, answer
    done = pull(1)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "1" / "manifest.json").read_text())
    assert (tmp_path / "1" / manifest["layers"][0]["digest"].removeprefix("sha256:")).exists()
    seen = vpc.account.client("cloudtrail").lookup_events(
        LookupAttributes=[{"AttributeKey": "EventName", "AttributeValue": "BatchGetImage"}]
    )["Events"]
    assert any(json.loads(one["CloudTrailEvent"]).get("vpcEndpointId") == dkr for one in seen)

    # Endpoints are of their own Region: the name of another one's registry means nothing here.
    vpc.account.client("ecr", region="eu-west-1").create_repository(repositoryName="team/app")
    elsewhere = {"_client": {"region_name": "eu-west-1"}}
    assert science.inside.one("ecr", "describe_repositories", elsewhere)[0] == "EndpointConnectionError"
    host = canonical(vpc.account.id, "team/app", "eu-west-1").partition("/")[0]
    assert science.inside.one("resolve", host)[0] == "gaierror"

    # The policy of each endpoint has a say: the registry's about the pull, the one for S3 about where layers lie.
    def policy(action: str, resource: str) -> str:
        statement = {"Effect": "Allow", "Principal": "*", "Action": action, "Resource": resource}
        return json.dumps({"Version": "2012-10-17", "Statement": [statement]})

    layers = f"arn:aws:s3:::prod-{REGION}-starport-layer-bucket/*"
    vpc.ec2.modify_vpc_endpoint(VpcEndpointId=s3, PolicyDocument=policy("s3:GetObject", layers))
    assert pull(2).returncode == 0
    vpc.ec2.modify_vpc_endpoint(VpcEndpointId=s3, PolicyDocument=policy("s3:GetObject", "arn:aws:s3:::mine/*"))
    refused = pull(3)
    assert refused.returncode and "403" in refused.stderr, refused.stderr
    vpc.ec2.modify_vpc_endpoint(VpcEndpointId=s3, ResetPolicy=True)
    vpc.ec2.modify_vpc_endpoint(VpcEndpointId=dkr, PolicyDocument=policy("ecr:DescribeImages", "*"))
    refused = pull(4)
    assert refused.returncode and "denied" in refused.stderr.lower(), refused.stderr
    vpc.ec2.modify_vpc_endpoint(VpcEndpointId=dkr, ResetPolicy=True)

    # Without the way to S3 the manifest arrives and the layers do not; without the registry's own, nothing does.
    vpc.ec2.delete_vpc_endpoints(VpcEndpointIds=[s3])
    shown = inside(science, registry, "inspect", "--raw", "ONE", image)
    assert shown.returncode == 0 and json.loads(shown.stdout) == manifest
    assert pull(5).returncode
    vpc.ec2.delete_vpc_endpoints(VpcEndpointIds=[dkr])
    assert science.inside.one("ecr", "get_authorization_token")[0] == ""
    assert inside(science, registry, "inspect", "--raw", "ONE", image).returncode
