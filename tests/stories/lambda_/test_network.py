"""A function in a VPC goes by its endpoints; what its role may not, its network may not."""

from __future__ import annotations

import json

import pytest
from botocore.exceptions import ClientError

from tests.moved import until
from tests.platform import REGION, allow
from tests.stories.ec2.conftest import make_vpc
from tests.stories.lambda_.conftest import LAMBDA, Bench

CODE = """
import os, socket, boto3, botocore.config
once = botocore.config.Config(connect_timeout=1, retries={"max_attempts": 0})
def reaches(host):
    try:
        return bool(socket.create_connection((host, 443), 0.3))
    except OSError:
        return False
def handler(event, context):
    try:
        read = boto3.client("s3", config=once).get_object(Bucket=event, Key="k")["Body"].read().decode()
    except Exception as error:
        read = type(error).__name__ + " " + str(getattr(error, "response", {}).get("Error", {}).get("Code"))
    return [read, os.environ.get("AWS_ENDPOINT_URL"), reaches("8.8.8.8"), socket.if_nameindex()[-1][1]]
"""


@pytest.mark.control("PRM-12")
def test_a_function_in_a_vpc_goes_by_its_endpoints(bench: Bench) -> None:
    account, vpc = bench.account, make_vpc(bench.account)
    s3, bucket = account.client("s3"), f"vpc-{account.id}"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="k", Body=b"by the endpoint")
    endpoint = vpc.ec2.create_vpc_endpoint(
        VpcId=vpc.id, ServiceName=f"com.amazonaws.{REGION}.s3", RouteTableIds=[vpc.main_table()]
    )["VpcEndpoint"]["VpcEndpointId"]
    deny = {
        "Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*",
        "Condition": {"StringNotEquals": {"aws:SourceVpce": endpoint}},
    }  # fmt: skip
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [deny]}))
    role = account.role("in-vpc", allow("s3:*", "logs:*", "ec2:*"), trust=LAMBDA)
    config = {"SubnetIds": [vpc.subnet], "SecurityGroupIds": [vpc.group]}
    with pytest.raises(ClientError, match="permissions to call CreateNetworkInterface"):
        bench.make(CODE, VpcConfig=config)
    name = bench.make(CODE, Role=role, VpcConfig=config)
    assert bench.client.get_function_configuration(FunctionName=name)["VpcConfig"]["VpcId"] == vpc.id
    assert bench.invoke(name, bucket).payload == ["by the endpoint", None, False, "eth0"]
    [interface] = vpc.ec2.describe_network_interfaces()["NetworkInterfaces"]
    assert (interface["Status"], interface["SubnetId"]) == ("in-use", vpc.subnet)
    outside = bench.make(CODE)
    assert bench.invoke(outside, bucket).payload[:3] == ["AccessDenied AccessDenied", "https://localhost", False]
    bench.client.delete_function(FunctionName=name)
    until(lambda: vpc.ec2.describe_network_interfaces()["NetworkInterfaces"] == [])
