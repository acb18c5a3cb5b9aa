"""What a job reaches: AWS with its role, through its VPC alone where it has one, nothing where it is isolated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, allow
from tests.stories.cloudtrail.test_trail import Records
from tests.stories.ec2.conftest import Vpc, make_vpc
from tests.stories.mission.test_jobs import process
from tests.stories.sagemaker.conftest import IMAGE, Workshop
from tests.stories.sagemaker.test_guardrails import refused, role
from tests.stories.sagemaker.test_job_role import policy
from tests.stories.sagemaker.test_several_hosts import model_of
from tests.stories.sagemaker.test_tuning import config as tuning
from tests.stories.sagemaker.test_tuning import definition, tune

# What boto3 does, in the standard library: environments of jobs need not have boto3.
ASK = """
import datetime, hashlib, hmac, json, os, ssl, urllib.request, socket

def credentials():
    asked = urllib.request.Request(os.environ['AWS_CONTAINER_CREDENTIALS_FULL_URI'])
    asked.add_header('Authorization', os.environ['AWS_CONTAINER_AUTHORIZATION_TOKEN'])
    return json.load(urllib.request.urlopen(asked, timeout=20))

def call(service, path, method='GET', body=b'', base=None, patience=20):
    held, region = credentials(), os.environ['AWS_REGION']
    base = base or os.environ['AWS_ENDPOINT_URL']
    now = datetime.datetime.now(datetime.timezone.utc).strftime('%Y%m%dT%H%M%SZ')
    host = base.split('//')[1]
    digest = hashlib.sha256(body).hexdigest()
    headers = {'host': host, 'x-amz-content-sha256': digest, 'x-amz-date': now, 'x-amz-security-token': held['Token']}
    signed = ';'.join(sorted(headers))
    path, _, query = path.partition('?')
    told = '\\n'.join([method, path, query, *(f'{k}:{headers[k]}' for k in sorted(headers)), '', signed, digest])
    scope = f'{now[:8]}/{region}/{service}/aws4_request'
    text = '\\n'.join(['AWS4-HMAC-SHA256', now, scope, hashlib.sha256(told.encode()).hexdigest()])
    key = ('AWS4' + held['SecretAccessKey']).encode()
    for part in (now[:8], region, service, 'aws4_request'):
        key = hmac.new(key, part.encode(), 'sha256').digest()
    signature = hmac.new(key, text.encode(), 'sha256').hexdigest()
    headers['Authorization'] = (f"AWS4-HMAC-SHA256 Credential={held['AccessKeyId']}/{scope}, "
                                f"SignedHeaders={signed}, Signature={signature}")
    trusted = ssl.create_default_context(cafile=os.environ['AWS_CA_BUNDLE'])
    asked = urllib.request.Request(base + path + ('?' + query if query else ''), method=method, headers=headers,
                                   data=body or None)
    try:
        with urllib.request.urlopen(asked, timeout=patience, context=trusted) as answer:
            return [answer.status, answer.read().decode()]
    except urllib.error.HTTPError as error:
        return [error.code, error.read().decode()]
    except OSError as error:
        return [0, str(error)]

def reaches(host, port=443):
    try:
        socket.create_connection((host, port), 0.5)
        return True
    except OSError:
        return False
"""
PASS = "\nprint(json.dumps(found))\nopen('/opt/ml/output/failure', 'w').write(json.dumps(found))\nraise SystemExit(1)"


def said(shop: Workshop, script: str, **more: Any) -> dict[str, Any]:
    """What a script leaves in `found`; it goes out by the failure's reason, which needs no network."""
    job = shop.trained(shop.train(ASK + script + PASS, **more))
    reason = job["FailureReason"]
    assert reason.startswith("AlgorithmError: {"), reason
    found: dict[str, Any] = json.loads(reason.removeprefix("AlgorithmError: ").rpartition(", exit code")[0])
    return found


def test_a_job_calls_aws_with_its_role_and_reaches_nothing_else(workshop: Workshop) -> None:
    workshop.s3.put_object(Bucket=workshop.bucket, Key="told/a", Body=b"from s3")
    script = f"""
found = {{'read': call('s3', '/{workshop.bucket}/told/a'),
    'outside': [reaches(host) for host in ('8.8.8.8', '169.254.169.254', '192.168.1.1')],
    'links': sorted(name for _, name in socket.if_nameindex())}}
asked = urllib.request.Request(os.environ['AWS_CONTAINER_CREDENTIALS_FULL_URI'])
try:
    urllib.request.urlopen(asked, timeout=20)
except urllib.error.HTTPError as error:
    found['without'] = error.code
"""
    found = said(workshop, script)
    assert found["read"] == [200, "from s3"]
    assert found["outside"] == [False, False, False]
    assert found["without"] == 401
    assert "eth0" not in found["links"]


def test_what_the_role_may_not_its_job_may_not(workshop: Workshop) -> None:
    workshop.s3.put_object(Bucket=workshop.bucket, Key="secret/a", Body=b"x")
    policy = allow("s3:*", resource=f"arn:aws:s3:::{workshop.bucket}/secret/*")
    policy["Statement"][0]["Effect"] = "Deny"
    workshop.account.client("iam").put_role_policy(
        RoleName="Execution", PolicyName="no", PolicyDocument=json.dumps(policy)
    )
    found = said(workshop, f"found = {{'read': call('s3', '/{workshop.bucket}/secret/a')[0]}}")
    assert found == {"read": 403}


@pytest.mark.control("GRD-08")
def test_an_isolated_job_has_neither_network_nor_credentials(workshop: Workshop, mission: Path) -> None:
    # Script mode fetches its script; isolated, it comes in a channel.
    script = ASK + (
        "found = {'variables': sorted(name for name in os.environ if 'CREDENTIAL' in name or 'ENDPOINT' in name),"
        "'links': sorted(name for _, name in socket.if_nameindex()),"
        "'reached': [reaches(host) for host in ('127.0.0.1', '169.254.170.2', '10.0.1.1', '8.8.8.8')]}\n"
        "try:\n    found['name'] = socket.gethostbyname('s3.us-east-1.amazonaws.com')\n"
        "except OSError:\n    pass\n"
        "open('/opt/ml/model/found.json', 'w').write(json.dumps(found))"
    )
    workshop.s3.put_object(Bucket=workshop.bucket, Key="code/x.py", Body=script.encode())
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{workshop.bucket}/code/x.py"}
    vpc = make_vpc(workshop.account)
    grant_vpc(workshop)
    guardrail = policy(mission, "25-guardrail-network-isolation.json")
    workshop.sagemaker = role(workshop.account, "Bound", free=allow("sagemaker:*", "iam:PassRole"), guardrail=guardrail)
    for given in ({}, {"EnableNetworkIsolation": False}):
        refused(workshop.train, script="", **given)
    for more in ({}, {"VpcConfig": config(vpc)}):
        name = workshop.train(
            "",
            EnableNetworkIsolation=True,
            AlgorithmSpecification={
                "TrainingImage": IMAGE,
                "TrainingInputMode": "File",
                "ContainerEntrypoint": ["python3", "/opt/ml/input/data/code/x.py"],
            },
            InputDataConfig=[{"ChannelName": "code", "DataSource": {"S3DataSource": source}}],
            **more,
        )
        job = workshop.trained(name)
        assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
        found = json.loads(model_of(workshop, name)["found.json"])
        assert found == {"variables": [], "links": ["lo"], "reached": [False] * 4}


def grant_vpc(shop: Workshop) -> None:
    actions = ["CreateNetworkInterface", "DeleteNetworkInterface", "DescribeNetworkInterfaces", "DescribeSubnets"]
    given = allow(*(f"ec2:{one}" for one in actions), "ec2:DescribeSecurityGroups", "sts:*")
    shop.account.client("iam").put_role_policy(RoleName="Execution", PolicyName="vpc", PolicyDocument=json.dumps(given))


@pytest.fixture
def vpc(workshop: Workshop) -> Vpc:
    grant_vpc(workshop)
    made = make_vpc(workshop.account)
    made.ec2.create_vpc_endpoint(
        VpcId=made.id, ServiceName="com.amazonaws.us-east-1.s3", RouteTableIds=[made.main_table()]
    )
    return made


def config(vpc: Vpc) -> dict[str, Any]:
    return {"Subnets": [vpc.subnet], "SecurityGroupIds": [vpc.group]}


@pytest.mark.control("XVE-01", "XVE-02", "XVE-05")
@pytest.mark.control("GRD-07")
def test_a_job_in_a_vpc_goes_by_its_endpoints_and_groups(
    workshop: Workshop, vpc: Vpc, neighbour: Account, mission: Path
) -> None:
    """What it reads lies in another account, whose policy demands the endpoint."""
    administrator = workshop.sagemaker
    guardrail = policy(mission, "24-guardrail-vpc-deployment.json")
    bound = role(workshop.account, "Bound", free=allow("sagemaker:*", "iam:PassRole"), guardrail=guardrail)
    workshop.sagemaker = bound
    refused(workshop.train, script="")
    refused(tune, workshop=workshop, configured=tuning(most=1, parallel=1))
    refused(process, shop=workshop, script="pass", inputs=[], outputs=[])
    for lacking in ("subnet-00000000", vpc.subnet):
        told = {"Subnets": [lacking], "SecurityGroupIds": ["sg-00000000"]}
        with pytest.raises(ClientError, match="ValidationException"):
            workshop.train("", VpcConfig=told)
    endpoint = vpc.ec2.describe_vpc_endpoints()["VpcEndpoints"][0]["VpcEndpointId"]
    common = f"common-{neighbour.id}"
    theirs, arn = neighbour.client("s3"), f"arn:aws:s3:::{common}"
    theirs.create_bucket(Bucket=common)
    theirs.put_object(Bucket=common, Key="told/a", Body=b"by the endpoint")
    opened = allow("s3:GetObject", "s3:ListBucket", resource=[arn, f"{arn}/*"], Principal={"AWS": workshop.role})
    closed = {"StringNotEqualsIfExists": {"aws:SourceVpce": endpoint}, "ArnEquals": {"aws:PrincipalArn": workshop.role}}
    demand = {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": f"{arn}/*", "Condition": closed}
    opened["Statement"].append(demand)
    theirs.put_bucket_policy(Bucket=common, Policy=json.dumps(opened))
    objects = {"Type": "AWS::S3::Object", "Values": [f"{arn}/"]}
    selector = {"ReadWriteType": "ReadOnly", "IncludeManagementEvents": False, "DataResources": [objects]}
    records = Records(neighbour, [selector])
    script = f"""
found = {{'read': call('s3', '/{common}/told/a', base='https://s3.us-east-1.amazonaws.com'),
    'url': os.environ.get('AWS_ENDPOINT_URL'),
    'sagemaker': call('sagemaker', '/', base='https://api.sagemaker.us-east-1.amazonaws.com', patience=2)[0],
    'seen': [one for one in socket.if_nameindex()][-1][1], 'outside': reaches('8.8.8.8')}}
import time
until = time.monotonic() + 60
while call('s3', '/{workshop.bucket}/told/seen', base='https://s3.us-east-1.amazonaws.com')[0] != 200:
    assert time.monotonic() < until
    time.sleep(0.1)
"""
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{common}/told/"}
    told = [{"ChannelName": "told", "DataSource": {"S3DataSource": source}}]  # the service itself goes that way as well
    name = workshop.train(ASK + script + PASS, VpcConfig=config(vpc), InputDataConfig=told)
    seen: list[dict[str, Any]] = []
    while workshop.sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"] == "InProgress":
        seen += vpc.ec2.describe_network_interfaces()["NetworkInterfaces"]
        if any(one["Status"] == "in-use" for one in seen):
            workshop.s3.put_object(Bucket=workshop.bucket, Key="told/seen", Body=b"")
    job = workshop.trained(name)
    found = json.loads(job["FailureReason"].removeprefix("AlgorithmError: ").rpartition(", exit code")[0])
    assert found == {
        "read": [200, "by the endpoint"],
        "url": None,
        "sagemaker": 0,
        "seen": "eth0",
        "outside": False,
    }
    held = [one for one in seen if one["Status"] == "in-use"]
    assert {one["SubnetId"] for one in held} == {vpc.subnet}
    assert {one["Groups"][0]["GroupId"] for one in held} == {vpc.group}
    assert all(job["TrainingJobArn"] in one["Description"] for one in held)
    assert vpc.ec2.describe_network_interfaces()["NetworkInterfaces"] == []
    assert job["VpcConfig"] == config(vpc)
    workshop.sagemaker = administrator
    # The other direction: outside of the VPC the same role is denied, and without the group's leave nothing goes out.
    outside = said(workshop, f"found = {{'read': call('s3', '/{common}/told/a')[0]}}")
    assert outside == {"read": 403}
    every = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    vpc.ec2.revoke_security_group_egress(GroupId=vpc.group, IpPermissions=every)
    shut = said(
        workshop,
        f"base = 'https://s3.us-east-1.amazonaws.com'\n"
        f"found = {{'read': call('s3', '/{common}/told/a', base=base, patience=2)[0]}}",
        VpcConfig=config(vpc),
    )
    assert shut == {"read": 0}
    vpc.ec2.authorize_security_group_egress(GroupId=vpc.group, IpPermissions=every)
    far = f"far-{workshop.account.id}"
    workshop.account.client("s3", region_name="eu-west-1").create_bucket(
        Bucket=far, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{far}/told/"}
    beyond = workshop.train(
        "", VpcConfig=config(vpc), InputDataConfig=[{"ChannelName": "far", "DataSource": {"S3DataSource": source}}]
    )
    reason = workshop.trained(beyond)["FailureReason"]
    assert "Data download failed: PermanentRedirect" in reason and "is in eu-west-1" in reason
    denied = workshop.trained(workshop.train("", InputDataConfig=told))
    assert denied["FailureReason"].startswith("ClientError: Data download failed: AccessDenied")
    vpc.ec2.delete_vpc_endpoints(VpcEndpointIds=[endpoint])
    lost = workshop.trained(workshop.train("", VpcConfig=config(vpc)))
    assert f"{vpc.subnet} has no way to S3" in lost["FailureReason"]
    # The owner's record of what was read from the other account: by the endpoint, as the job's role.
    records.until("GetObject")
    reads = [one for one in records.delivered() if one["eventName"] == "GetObject" and "errorCode" not in one]
    assert reads and {one["vpcEndpointId"] for one in reads} == {endpoint}
    assert {one["userIdentity"]["accountId"] for one in reads} == {workshop.account.id}
    workshop.sagemaker = bound
    tune(workshop, tuning(most=1, parallel=1), definition(workshop, VpcConfig=config(vpc)))
    process(workshop, "pass", [], [], NetworkConfig={"VpcConfig": config(vpc)})


@pytest.mark.control("PRM-12")
def test_a_role_that_may_not_make_interfaces_fails_the_job_and_says_so(workshop: Workshop, vpc: Vpc) -> None:
    iam = workshop.account.client("iam")
    policy = allow("ec2:CreateNetworkInterface")
    policy["Statement"][0]["Effect"] = "Deny"
    iam.put_role_policy(RoleName="Execution", PolicyName="no", PolicyDocument=json.dumps(policy))
    job = workshop.trained(workshop.train("print(1)", VpcConfig=config(vpc)))
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith(
        "ClientError: The network interface could not be made: UnauthorizedOperation"
    )
    iam.delete_role_policy(RoleName="Execution", PolicyName="no")
    assert workshop.trained(workshop.train("print(1)", VpcConfig=config(vpc)))["TrainingJobStatus"] == "Completed"


@pytest.mark.parametrize("encrypted", [False, True])
def test_hosts_in_a_vpc_reach_each_other_by_their_groups(workshop: Workshop, vpc: Vpc, encrypted: bool) -> None:
    script = """
import json, socket, time
told = json.load(open('/opt/ml/input/config/resourceconfig.json'))
if told['current_host'] == 'algo-1':
    link, _ = socket.create_server(('', 5000)).accept()
    link.sendall(b'hello')
else:
    for _ in range(1200):
        try:
            assert socket.create_connection(('algo-1', 5000), 1).recv(5) == b'hello'
            break
        except OSError:
            time.sleep(0.05)
"""
    job = workshop.trained(
        workshop.train(
            script,
            VpcConfig=config(vpc),
            EnableInterContainerTrafficEncryption=encrypted,
            ResourceConfig={"InstanceType": "ml.t3.medium", "InstanceCount": 2, "VolumeSizeInGB": 1},
        )
    )
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert vpc.ec2.describe_network_interfaces()["NetworkInterfaces"] == []
