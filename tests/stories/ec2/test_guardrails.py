"""Guardrails that key on the network: which endpoints may exist, and where calls may come from."""

from __future__ import annotations

import http.client
import json
import ssl
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
from botocore.exceptions import ClientError

from tests.platform import REGION, Account, Keys, Running, allow
from tests.stories.ec2.conftest import make_vpc
from tests.stories.sagemaker.conftest import IMAGE, Workshop, archive, workshop_of

RUNTIME = f"com.amazonaws.{REGION}.sagemaker.runtime"
SCRIPT = b"""
def model_fn(folder): return 'answered'
def input_fn(body, kind): return body
def predict_fn(data, model): return model
def output_fn(prediction, accept): return prediction, 'text/plain'
"""


def bind(platform: Running, account: Account, policy: dict[str, Any]) -> None:
    """Attaches an SCP to an account."""
    org = platform.client("organizations")
    given = {"Name": f"guardrail-{uuid.uuid4().hex[:8]}", "Description": "", "Type": "SERVICE_CONTROL_POLICY"}
    made = org.create_policy(**given, Content=json.dumps(policy))["Policy"]["PolicySummary"]["Id"]
    org.attach_policy(PolicyId=made, TargetId=account.id)


def serving(account: Account) -> Workshop:
    """An account with an endpoint `e` that answers."""
    workshop = workshop_of(account)
    packed = archive(**{"m.txt": b"m", "code/inference.py": SCRIPT})
    workshop.s3.put_object(Bucket=workshop.bucket, Key="m.tar.gz", Body=packed)
    url = f"s3://{workshop.bucket}/m.tar.gz"
    container = {"Image": IMAGE, "ModelDataUrl": url, "Environment": {"SAGEMAKER_PROGRAM": "inference.py"}}
    sagemaker = workshop.sagemaker
    sagemaker.create_model(ModelName="m", ExecutionRoleArn=workshop.role, PrimaryContainer=container)
    variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.t2.medium", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="m", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="m")
    return workshop


@pytest.mark.control("NET-09")
def test_the_runtime_endpoint_exists_only_where_invoking_is_allowed(
    platform: Running, account: Account, neighbour: Account
) -> None:
    workshop = serving(account)
    on, off = make_vpc(account), make_vpc(neighbour)
    bind(
        platform,
        neighbour,
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Deny",
                    "Action": "ec2:CreateVpcEndpoint",
                    "Resource": "arn:aws:ec2:*:*:vpc-endpoint/*",
                    "Condition": {"StringEquals": {"ec2:VpceServiceName": RUNTIME}},
                }
            ],
        },
    )
    on.interface("sagemaker.runtime")
    with pytest.raises(ClientError) as refused:
        off.interface("sagemaker.runtime")
    error = refused.value.response["Error"]
    assert error["Code"] == "UnauthorizedOperation"
    assert "explicit deny in a service control policy" in error["Message"]
    off.interface("sagemaker.api")
    wanted = [{"Name": "service-name", "Values": [RUNTIME]}]
    assert len(on.ec2.describe_vpc_endpoints(Filters=wanted)["VpcEndpoints"]) == 1
    assert off.ec2.describe_vpc_endpoints(Filters=wanted)["VpcEndpoints"] == []
    assert workshop.endpoint("e", "InService", "Failed")["EndpointStatus"] == "InService"
    invoke = ("sagemaker-runtime", "invoke_endpoint", {"EndpointName": "e", "Body": "x", "ContentType": "text/plain"})
    with on.inside() as inside, off.inside() as outside:
        code, answer = inside.one(*invoke)
        assert not code, answer
        assert answer["Body"] == "answered"
        assert outside.lost(invoke)
    workshop.sagemaker.delete_endpoint(EndpointName="e")


def from_address(
    platform: Running, keys: Keys, source: str, target: str, given: dict[str, Any], **headers: str
) -> tuple[int, str]:
    """A call to the public listener from one of the machine's addresses; status and body."""
    url = f"{platform.url}/"
    told = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": f"SageMaker.{target}", **headers}
    request = botocore.awsrequest.AWSRequest("POST", url, told, json.dumps(given))
    held = botocore.credentials.Credentials(keys.access_key, keys.secret, keys.token)
    botocore.auth.SigV4Auth(held, "sagemaker", REGION).add_auth(request)
    place = urlsplit(url)
    context = ssl.create_default_context(cafile=platform.authority)
    link = http.client.HTTPSConnection("127.0.0.1", place.port, source_address=(source, 0), context=context, timeout=60)
    # The certificate names 127.0.0.1 and the signature names localhost, which is the same place.
    link.request("POST", "/", request.body, {**request.headers, "Host": place.netloc})
    answer = link.getresponse()
    found = answer.status, answer.read().decode()
    link.close()
    return found


@pytest.mark.control("GRD-09")
def test_calls_come_from_the_allowed_range_or_through_the_endpoints_of_the_vpc(
    platform: Running, account: Account, mission: Path
) -> None:
    workshop = workshop_of(account)
    vpc, other = make_vpc(account), make_vpc(account, "10.1.0.0/16")
    for one in (vpc, other):
        one.interface("sagemaker.api")
        one.interface("sagemaker.runtime")
    text = (mission / "policies" / "26-guardrail-api-source-ip.json").read_text()
    text = text.replace("<ALLOWED_PUBLIC_CIDR>", "127.0.0.1/32").replace("<DATA_SCIENCE_VPC_ID>", vpc.id)
    account.role("Scientist", allow("sagemaker:*", "iam:PassRole", "s3:*"))
    bind(platform, account, json.loads(text))
    keys = account.as_role("Scientist")
    model = {"ExecutionRoleArn": workshop.role, "PrimaryContainer": {"Image": IMAGE, "Mode": "SingleModel"}}

    def create(name: str, source: str, **headers: str) -> tuple[int, str]:
        return from_address(platform, keys, source, "CreateModel", {"ModelName": name, **model}, **headers)

    assert create("near", "127.0.0.1")[0] == 200
    for headers in ({}, {"X-Forwarded-For": "127.0.0.1"}, {"Forwarded": "for=127.0.0.1", "X-Real-IP": "127.0.0.1"}):
        status, body = create("far", "127.0.0.9", **headers)
        assert (status, json.loads(body)["__type"].rpartition("#")[2]) == (400, "AccessDeniedException"), body
        assert "explicit deny in a service control policy" in body
    make = ("sagemaker", "create_model", {"ModelName": "private", **model})
    invoke = ("sagemaker-runtime", "invoke_endpoint", {"EndpointName": "none", "Body": "x"})
    with vpc.inside(keys=keys) as inside, other.inside(keys=keys) as elsewhere:
        (code, answer), (asked, _) = inside.ask(make, invoke)
        assert not code, answer
        assert asked == "ValidationError"  # it may invoke; there is no such endpoint
        forged = {"_headers": {"X-Forwarded-For": "127.0.0.1"}}
        elsewhere_make = (*make[:2], {**make[2], "ModelName": "elsewhere", **forged})
        assert [code for code, _ in elsewhere.ask(elsewhere_make, invoke)] == ["AccessDeniedException"] * 2
    assert {one["ModelName"] for one in workshop.sagemaker.list_models()["Models"]} == {"near", "private"}
