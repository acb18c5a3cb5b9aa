"""Builds in a VPC: by its endpoints, as its groups let them, and nowhere else."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, allow
from tests.stories.codebuild.conftest import CODEBUILD, MAY, archive, bench_of, cause, phases, spec
from tests.stories.ec2.conftest import make_vpc

QUICK = "--cli-connect-timeout 1 --cli-read-timeout 10"


@pytest.mark.control("NET-13")
def test_a_build_goes_by_its_vpc(account: Account) -> None:
    vpc = make_vpc(account)
    bench = bench_of(account)
    may = allow(
        *MAY, "codebuild:ListBuilds", "ec2:Describe*", "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface"
    )
    role = account.role("inside", may, trust=CODEBUILD)
    config = {"vpcId": vpc.id, "subnets": [vpc.subnet], "securityGroupIds": [vpc.group]}
    buildspec = spec(
        build=[
            f"aws codebuild list-builds {QUICK} --query 'length(ids)' && echo by the endpoint",
            f"AWS_MAX_ATTEMPTS=1 aws sts get-caller-identity {QUICK} || echo no endpoint for it",
            "python3 -c 'import socket; print([name for _, name in socket.if_nameindex()])'",
        ],
        artifacts={"files": ["a.txt"]},
    )
    content = archive(buildspec_dot_yml=buildspec, a_dot_txt="a")
    target = {"type": "S3", "location": bench.bucket, "name": "made"}
    given = {"source": {"type": "S3", "location": bench.put("s.zip", content)}, "artifacts": target}
    with pytest.raises(ClientError, match="vpcConfig"):
        bench.project("", vpcConfig=config, **given)  # its role may not see the subnets
    name = bench.project("", vpcConfig=config, serviceRole=role, **given)
    # Without a way to S3 there is no source, and it says so.
    failed = bench.over(bench.start(name))
    assert phases(failed)["DOWNLOAD_SOURCE"] == "FAILED" and "gateway VPC endpoint for S3" in cause(failed)
    gateway = vpc.ec2.create_vpc_endpoint(
        VpcId=vpc.id,
        VpcEndpointType="Gateway",
        ServiceName="com.amazonaws.us-east-1.s3",
        RouteTableIds=[vpc.main_table()],
    )["VpcEndpoint"]["VpcEndpointId"]
    endpoint = vpc.interface("codebuild", SecurityGroupIds=[vpc.group])
    assert endpoint["VpcEndpointId"] != gateway
    build = bench.over(bench.start(name))
    assert build["buildStatus"] == "SUCCEEDED", "\n".join(bench.lines(build))
    said = bench.said(build)
    assert "by the endpoint" in said and "no endpoint for it" in said
    assert any("eth0" in one for one in said)
    assert build["networkInterface"]["subnetId"] == vpc.subnet
    assert bench.object("made/a.txt") == b"a"
    # Its interface went with it.
    left = vpc.ec2.describe_network_interfaces()["NetworkInterfaces"]
    assert build["networkInterface"]["networkInterfaceId"] not in [one["NetworkInterfaceId"] for one in left]
