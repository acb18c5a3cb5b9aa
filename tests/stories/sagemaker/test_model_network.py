"""What a model's server reaches: AWS with its role, through its VPC alone if it has one, nothing if it is isolated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import allow
from tests.stories.ec2.conftest import Vpc, make_vpc
from tests.stories.sagemaker.conftest import IMAGE, Workshop
from tests.stories.sagemaker.serving import config, container, model, serve, until, variant
from tests.stories.sagemaker.test_guardrails import refused, role
from tests.stories.sagemaker.test_job_network import ASK, grant_vpc
from tests.stories.sagemaker.test_job_role import policy
from tests.stories.sagemaker.test_transform import begin, ended, put
from tests.stories.sagemaker.test_variants import _capture

S3 = "https://s3.us-east-1.amazonaws.com"
# Runs what it is asked, so that one server tells all that can be reached from it.
SERVER = (
    ASK.encode()
    + b"""
def model_fn(folder): return ''
def transform_fn(model, body, kind, accept):
    try:
        found = eval(body)
    except Exception as error:
        found = type(error).__name__
    return json.dumps(found), 'application/json'
"""
)
NOTHING = (
    "[sorted(n for n in os.environ if 'CREDENTIAL' in n or 'ENDPOINT' in n), sorted(n for _, n in socket.if_nameindex()),"
    " [reaches(h) for h in ('127.0.0.1', '169.254.170.2', '10.0.1.1', '8.8.8.8')]]"
)


@pytest.fixture
def vpc(workshop: Workshop) -> Vpc:
    grant_vpc(workshop)
    made = make_vpc(workshop.account)
    route = [made.main_table()]
    made.ec2.create_vpc_endpoint(VpcId=made.id, ServiceName="com.amazonaws.us-east-1.s3", RouteTableIds=route)
    return made


def _asking(invoke: Callable[..., bytes]) -> Callable[[str], Any]:
    return lambda what: json.loads(invoke(what.encode()))


def _read(workshop: Workshop, key: str, base: str | None = S3) -> str:
    return f"call('s3', '/{workshop.bucket}/{key}', base={base!r})"


def _in(vpc: Vpc) -> dict[str, Any]:
    return {"Subnets": [vpc.subnet], "SecurityGroupIds": [vpc.group]}


@pytest.mark.control("XVE-02")
@pytest.mark.control("GRD-07")
@pytest.mark.control("EXP-17", lacking="containers of your own")
@pytest.mark.control("PRM-15")
@pytest.mark.control("ENC-04", lacking="monitoring outputs")
def test_a_model_in_a_vpc_goes_by_its_endpoints_and_groups(workshop: Workshop, vpc: Vpc, mission: Path) -> None:
    administrator, ec2 = workshop.sagemaker, vpc.ec2
    guardrail = policy(mission, "24-guardrail-vpc-deployment.json")
    bound = role(workshop.account, "Bound", free=allow("sagemaker:*", "iam:PassRole"), guardrail=guardrail)
    held = {"ExecutionRoleArn": workshop.role, "PrimaryContainer": {"Image": IMAGE}}
    refused(bound.create_model, ModelName="m", **held)
    for lacking in ("subnet-00000000", vpc.subnet):
        told = {"Subnets": [lacking], "SecurityGroupIds": ["sg-00000000"]}
        with pytest.raises(ClientError, match="ValidationException"):
            bound.create_model(ModelName="m", VpcConfig=told, **held)
    endpoint = ec2.describe_vpc_endpoints()["VpcEndpoints"][0]["VpcEndpointId"]
    parts = container(workshop, "V", SERVER)
    for key in ("told/a", "free"):
        workshop.s3.put_object(Bucket=workshop.bucket, Key=key, Body=b"by the endpoint")
    # What lies there, the model's data too, is to be had by the endpoint alone.
    closed = ("told", "models", "captured", "in", "out")
    document = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Deny",
                "Principal": {"AWS": workshop.role},
                "Action": ["s3:GetObject", "s3:PutObject"],
                "Resource": [f"arn:aws:s3:::{workshop.bucket}/{one}/*" for one in closed],
                "Condition": {"StringNotEquals": {"aws:SourceVpce": endpoint}},
            }
        ],
    }
    workshop.s3.put_bucket_policy(Bucket=workshop.bucket, Policy=json.dumps(document))
    workshop.sagemaker = bound
    model(workshop, "m", parts, VpcConfig=_in(vpc))
    assert bound.describe_model(ModelName="m")["VpcConfig"] == _in(vpc)
    workshop.sagemaker = administrator
    key = workshop.account.client("kms").create_key()["KeyMetadata"]["Arn"]
    capture = _capture(workshop, KmsKeyId=key)
    config(workshop, "c", variant("m", InitialInstanceCount=2), DataCaptureConfig=capture, KmsKeyId=key)
    ask = _asking(serve(workshop, "c"))
    interfaces = ec2.describe_network_interfaces()["NetworkInterfaces"]
    arn = administrator.describe_endpoint(EndpointName="e")["EndpointArn"]
    assert len(interfaces) == 2
    for one in interfaces:
        assert (one["Status"], one["SubnetId"], one["Groups"][0]["GroupId"]) == ("in-use", vpc.subnet, vpc.group)
        assert arn in one["Description"]
    assert ask(_read(workshop, "told/a")) == [200, "by the endpoint"]
    assert ask("[os.environ.get('AWS_ENDPOINT_URL'), reaches('8.8.8.8')]") == [None, False]
    assert ask("call('sagemaker', '/', base='https://api.sagemaker.us-east-1.amazonaws.com')[0]") == 0
    # What is captured goes that way too, under the customer's key, and so does what a transform job reads and writes.
    captured = {"Bucket": workshop.bucket, "Prefix": "captured/"}
    [entry, *_] = until(lambda: workshop.s3.list_objects_v2(**captured).get("Contents"))
    assert workshop.s3.head_object(Bucket=workshop.bucket, Key=entry["Key"])["SSEKMSKeyId"] == key
    put(workshop, asked="sorted(n for _, n in socket.if_nameindex())")
    job = ended(workshop, begin(workshop, "t", ContentType="text/plain"))
    assert job["TransformJobStatus"] == "Completed", job.get("FailureReason")
    assert b"eth0" in workshop.s3.get_object(Bucket=workshop.bucket, Key="out/asked.out")["Body"].read()
    # Nothing goes out when the group's egress is closed.
    every = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    ec2.revoke_security_group_egress(GroupId=vpc.group, IpPermissions=every)
    assert ask(_read(workshop, "told/a") + "[0]") == 0
    ec2.authorize_security_group_egress(GroupId=vpc.group, IpPermissions=every)
    assert ask(_read(workshop, "told/a") + "[0]") == 200
    # What the endpoint's policy does not allow is denied inside, whatever the role may.
    only = allow("s3:GetObject", resource=f"arn:aws:s3:::{workshop.bucket}/told/*")
    only["Statement"][0]["Principal"] = "*"
    ec2.modify_vpc_endpoint(VpcEndpointId=endpoint, PolicyDocument=json.dumps(only))
    assert (ask(_read(workshop, "told/a") + "[0]"), ask(_read(workshop, "free") + "[0]")) == (200, 403)
    ec2.modify_vpc_endpoint(VpcEndpointId=endpoint, ResetPolicy=True)
    # Interfaces come and go with their servers.
    desired = [{"VariantName": "AllTraffic", "DesiredInstanceCount": 1}]
    administrator.update_endpoint_weights_and_capacities(EndpointName="e", DesiredWeightsAndCapacities=desired)
    workshop.endpoint("e", "InService")
    until(lambda: len(ec2.describe_network_interfaces()["NetworkInterfaces"]) == 1)
    # Outside of the VPC the same role is denied the model's data.
    model(workshop, "outside", {**parts})
    administrator.create_endpoint(EndpointName="o", EndpointConfigName=config(workshop, "o", variant("outside")))
    reason = workshop.endpoint("o", "InService", "Failed").get("FailureReason", "")
    assert reason.startswith("Failed to download model data") and "AccessDenied" in reason
    administrator.delete_endpoint(EndpointName="e")
    until(lambda: ec2.describe_network_interfaces()["NetworkInterfaces"] == [])
    # No way to S3, no model; a role that may not make interfaces has no server.
    no = allow("ec2:CreateNetworkInterface")
    no["Statement"][0]["Effect"] = "Deny"
    iam = workshop.account.client("iam")
    iam.put_role_policy(RoleName="Execution", PolicyName="no", PolicyDocument=json.dumps(no))
    administrator.create_endpoint(EndpointName="n", EndpointConfigName="c")
    reason = workshop.endpoint("n", "InService", "Failed").get("FailureReason", "")
    assert reason.startswith("The network interface could not be made: UnauthorizedOperation")
    ec2.delete_vpc_endpoints(VpcEndpointIds=[endpoint])
    administrator.create_endpoint(EndpointName="w", EndpointConfigName="c")
    assert f"{vpc.subnet} has no way to S3" in workshop.endpoint("w", "InService", "Failed")["FailureReason"]
    assert ec2.describe_network_interfaces()["NetworkInterfaces"] == []


@pytest.mark.control("GRD-08", lacking="training and tuning jobs, which other stories have")
def test_an_isolated_model_reaches_nothing_and_another_aws_with_its_role(workshop: Workshop) -> None:
    parts = container(workshop, "I", SERVER)
    vpc = make_vpc(workshop.account)
    grant_vpc(workshop)
    workshop.s3.put_object(Bucket=workshop.bucket, Key="free", Body=b"with the role")
    for name, more in (("isolated", {"EnableNetworkIsolation": True, "VpcConfig": _in(vpc)}), ("plain", {})):
        model(workshop, name, parts, **more)
        config(workshop, name, variant(name))
    ask = _asking(serve(workshop, "isolated"))
    assert ask(NOTHING) == [[], ["lo"], [False] * 4]
    assert ask("credentials()") == "KeyError"
    assert ask("socket.gethostbyname('s3.us-east-1.amazonaws.com')") == "gaierror"
    assert vpc.ec2.describe_network_interfaces()["NetworkInterfaces"] == []
    workshop.sagemaker.update_endpoint(EndpointName="e", EndpointConfigName="plain")
    workshop.endpoint("e", "InService")
    assert ask(_read(workshop, "free", None)) == [200, "with the role"]
    assert ask("reaches('8.8.8.8')") is False
    # It is the model's role, no more and no less.
    no = allow("s3:GetObject")
    no["Statement"][0]["Effect"] = "Deny"
    workshop.account.client("iam").put_role_policy(RoleName="Execution", PolicyName="no", PolicyDocument=json.dumps(no))
    assert ask(_read(workshop, "free", None) + "[0]") == 403
