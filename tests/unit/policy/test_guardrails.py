"""The guardrails: every sample document decides compliant and other requests as its heading says."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from bastide.policy import Attached, Document, Form, Layers, Principal, Request, context, decide
from tests.unit.policy.asking import HOME, SESSION, allow, attached

PLACEHOLDERS = {
    "ALLOWED_PUBLIC_CIDR": "203.0.113.0/24",
    "DATA_SCIENCE_VPC_ID": "vpc-1234",
    "REGION": "eu-central-1",
    "SAGEMAKER_PRINCIPAL_ARN_IN_OTHER_ACCOUNT": "arn:aws:iam::444455556666:role/sagemaker",
}
FOLDER = Path(os.environ.get("BASTIDE_MISSION", Path(__file__).parents[4] / "shared" / "mission")) / "policies"


def _filled(text: str) -> str:
    def value(found: re.Match[str]) -> str:
        name = found.group(1)
        if name in PLACEHOLDERS:
            return PLACEHOLDERS[name]
        if name.endswith("ACCOUNT_ID"):
            return HOME
        if name.endswith("_ARN"):
            return f"arn:aws:iam::{HOME}:role/{name.lower()}"
        return name.lower().replace("_", "-")

    return re.sub(r"<([A-Z0-9_]+)>", value, text)


def sample(number: str) -> str:
    """A sample document with its placeholders filled."""
    if not FOLDER.is_dir():
        pytest.skip(f"no sample policies in {FOLDER}")
    (path,) = FOLDER.glob(f"{number}-*.json")
    return _filled(path.read_text(encoding="utf-8"))


FORMS = {"11": Form.ENDPOINT, "40": Form.RESOURCE, "70": Form.RESOURCE, "71": Form.KEY}
SAMPLES = [*(f"{n:02}" for n in range(1, 12)), *map(str, range(20, 35)), "40", "50", "51", *map(str, range(70, 84))]


@pytest.mark.parametrize("number", SAMPLES)
def test_every_sample_policy_is_a_document(number: str) -> None:
    form = Form.TRUST if number >= "78" else FORMS.get(number, Form.IDENTITY)
    assert Document.parse(sample(number), form).statements


JOB = {
    "sagemaker:VolumeKmsKey": f"arn:aws:kms:eu-central-1:{HOME}:key/1",
    "sagemaker:InterContainerTrafficEncryption": "true",
    "sagemaker:NetworkIsolation": "true",
    "sagemaker:VpcSubnets": ["subnet-1"],
    "sagemaker:VpcSecurityGroupIds": ["sg-1"],
    "sagemaker:InstanceTypes": ["ml.m5.xlarge"],
    "sagemaker:DirectInternetAccess": "Disabled",
    "sagemaker:RootAccess": "Disabled",
    "sagemaker:AppNetworkAccessType": "VpcOnly",
    "aws:RequestTag/environment": "dev",
    "aws:RequestTag/Project": "data_science",
    "aws:SourceIp": "203.0.113.7",
    "aws:ViaAWSService": "false",
}
VPC = {"aws:SourceIp": None, "aws:SourceVpc": "vpc-1234"}
TRAINING, TUNING, PROCESSING, TRANSFORM, MODEL, NOTEBOOK, DOMAIN = (
    "CreateTrainingJob", "CreateHyperParameterTuningJob", "CreateProcessingJob", "CreateTransformJob", "CreateModel",
    "CreateNotebookInstance", "CreateDomain",
)  # fmt: skip

CASES: list[tuple[str, list[str], dict[str, Any], bool]] = [
    # document, actions, what is different from a compliant request, allowed
    ("20", [NOTEBOOK], {}, True),
    ("20", [NOTEBOOK], {"sagemaker:VolumeKmsKey": None}, False),
    ("20", ["UpdateNotebookInstance", TRAINING], {"sagemaker:VolumeKmsKey": None}, True),
    ("21", [DOMAIN], {}, True),
    ("21", [DOMAIN], {"sagemaker:VolumeKmsKey": None}, False),
    ("22", [TRAINING, TUNING, PROCESSING, TRANSFORM], {}, True),
    ("22", [TRAINING, TUNING, PROCESSING, TRANSFORM], {"sagemaker:VolumeKmsKey": None}, False),
    ("22", [NOTEBOOK, "DescribeTrainingJob"], {"sagemaker:VolumeKmsKey": None}, True),
    ("23", [TRAINING, TUNING], {}, True),
    ("23", [TRAINING, TUNING], {"sagemaker:InterContainerTrafficEncryption": "false"}, False),
    ("23", [TRAINING, TUNING], {"sagemaker:InterContainerTrafficEncryption": None}, False),
    ("23", [PROCESSING], {"sagemaker:InterContainerTrafficEncryption": None}, True),
    ("24", [TRAINING, TUNING, MODEL, NOTEBOOK, PROCESSING], {}, True),
    ("24", [TRAINING, TUNING, MODEL, NOTEBOOK, PROCESSING], {"sagemaker:VpcSubnets": None}, False),
    ("24", [TRAINING, TUNING, MODEL, NOTEBOOK, PROCESSING], {"sagemaker:VpcSecurityGroupIds": None}, False),
    ("24", [TRAINING], {"sagemaker:VpcSubnets": []}, False),
    ("25", [TRAINING, TUNING], {}, True),
    ("25", [TRAINING, TUNING], {"sagemaker:NetworkIsolation": "false"}, False),
    ("25", [TRAINING, TUNING], {"sagemaker:NetworkIsolation": None}, False),
    ("26", [TRAINING, TUNING, MODEL, PROCESSING, "InvokeEndpoint", "InvokeEndpointAsync"], {}, True),
    ("26", [TRAINING, TUNING, MODEL, PROCESSING, "InvokeEndpoint", "InvokeEndpointAsync"], VPC, True),
    ("26", [TRAINING, TUNING, MODEL, PROCESSING, "InvokeEndpoint"], {"aws:SourceIp": "198.51.100.1"}, False),
    ("26", [TRAINING], {"aws:SourceIp": None, "aws:SourceVpc": "vpc-other"}, False),
    ("26", [TRAINING], {"aws:SourceIp": "198.51.100.1", "aws:ViaAWSService": "true"}, True),
    ("26", ["DescribeTrainingJob"], {"aws:SourceIp": "198.51.100.1"}, True),
    ("27", ["CreatePresignedDomainUrl", "CreatePresignedNotebookInstanceUrl"], {}, True),
    ("27", ["CreatePresignedDomainUrl", "CreatePresignedNotebookInstanceUrl"], VPC, True),
    ("27", ["CreatePresignedDomainUrl", "CreatePresignedNotebookInstanceUrl"], {"aws:SourceIp": "2001:db8::1"}, False),
    ("28", [NOTEBOOK], {}, True),
    ("28", [NOTEBOOK], {"sagemaker:DirectInternetAccess": "Enabled"}, False),
    ("28", [NOTEBOOK], {"sagemaker:DirectInternetAccess": None}, False),
    ("29", [DOMAIN], {}, True),
    ("29", [DOMAIN], {"sagemaker:AppNetworkAccessType": "PublicInternetOnly"}, False),
    ("29", [DOMAIN], {"sagemaker:AppNetworkAccessType": None}, False),
    ("29", ["UpdateDomain"], {"sagemaker:AppNetworkAccessType": None}, True),
    ("29", ["UpdateDomain"], {"sagemaker:AppNetworkAccessType": "PublicInternetOnly"}, False),
    ("30", [NOTEBOOK], {}, True),
    ("30", [NOTEBOOK], {"sagemaker:RootAccess": None}, False),
    ("30", [NOTEBOOK, "UpdateNotebookInstance"], {"sagemaker:RootAccess": "Enabled"}, False),
    ("30", ["UpdateNotebookInstance"], {"sagemaker:RootAccess": None}, True),
    ("31", ["CreateEndpoint"], {}, True),
    ("31", ["CreateEndpoint"], {"aws:RequestTag/environment": None}, False),
    ("31", ["CreateEndpoint"], {"aws:RequestTag/environment": "prod"}, False),
    ("31", ["CreateEndpoint"], {"aws:RequestTag/environment": None, "aws:RequestTag/Environment": "dev"}, True),
    ("31", ["CreateEndpoint"], {"aws:RequestTag/environment": "Dev"}, False),
    ("32", [DOMAIN, "CreateApp", NOTEBOOK], {}, True),
    ("32", [DOMAIN, "CreateApp", NOTEBOOK], {"aws:RequestTag/Project": None}, False),
    ("32", [DOMAIN, "CreateApp", NOTEBOOK], {"aws:RequestTag/Project": "other"}, False),
    ("33", [NOTEBOOK, "UpdateNotebookInstance"], {}, True),
    ("33", [NOTEBOOK, "UpdateNotebookInstance"], {"sagemaker:InstanceTypes": ["ml.p4d.24xlarge"]}, False),
    ("33", [NOTEBOOK], {"sagemaker:InstanceTypes": ["ml.m5.xlarge", "ml.p4d.24xlarge"]}, False),
    ("33", ["UpdateNotebookInstance"], {"sagemaker:InstanceTypes": None}, True),
    ("34", ["CreateApp", "CreateSpace"], {"sagemaker:InstanceTypes": ["system"]}, True),
    ("34", ["CreateApp", DOMAIN, "UpdateUserProfile"], {"sagemaker:InstanceTypes": ["ml.g5.xlarge"]}, False),
]


def decision(source: str, action: str, different: dict[str, Any], *, scp: bool) -> bool:
    """Whether an otherwise allowed request of a session is allowed under the guardrail."""
    keys = {key: value for key, value in {**JOB, **different}.items() if value is not None}
    guard = Attached(Document.parse(source, Form.SCP if scp else Form.IDENTITY), "guardrail")
    everything = attached(Form.IDENTITY, allow())
    kind = "endpoint" if action == "CreateEndpoint" else action.removeprefix("Create").lower()
    resource = f"arn:aws:sagemaker:eu-central-1:{HOME}:{kind}/x"
    policies = Layers(
        identity=[everything] if scp else [everything, guard],
        boundary=None,
        session=None,
        resource=None,
        scps=[[attached(Form.SCP, allow())], [attached(Form.SCP, allow()), guard]] if scp else [],
        rcps=[],
    )
    request = Request(SESSION, f"sagemaker:{action}", resource, HOME, context(keys))
    return decide(request, policies).allowed


@pytest.mark.parametrize("scp", [True, False], ids=["scp", "identity"])
@pytest.mark.parametrize(("number", "actions", "different", "allowed"), CASES)
def test_a_guardrail_lets_the_compliant_through_and_nobody_else(
    number: str, actions: list[str], different: dict[str, Any], allowed: bool, scp: bool
) -> None:
    source = sample(number)
    for action in actions:
        assert decision(source, action, different, scp=scp) is allowed, action


INLINE = {
    "null": {"Null": {"sagemaker:VolumeKmsKey": "true"}},
    "bool": {"BoolIfExists": {"sagemaker:NetworkIsolation": "false"}},
    "address": {
        "NotIpAddress": {"aws:SourceIp": ["203.0.113.0/24"]},
        "StringNotEquals": {"aws:SourceVpc": "vpc-1234"},
        "Bool": {"aws:ViaAWSService": "false"},
    },
    "types": {"ForAnyValue:StringNotLike": {"sagemaker:InstanceTypes": ["ml.c5.xlarge", "ml.m5.xlarge"]}},
    "tag": {"StringNotLike": {"aws:RequestTag/Project": "data_science"}},
}


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("null", {"sagemaker:VolumeKmsKey": None}),
        ("bool", {"sagemaker:NetworkIsolation": "false"}),
        ("bool", {"sagemaker:NetworkIsolation": None}),
        ("address", {"aws:SourceIp": "198.51.100.1"}),
        ("types", {"sagemaker:InstanceTypes": ["ml.p4d.24xlarge"]}),
        ("tag", {"aws:RequestTag/Project": None}),
    ],
)
def test_the_forms_of_condition_that_guardrails_use(name: str, broken: dict[str, Any]) -> None:
    """The same without the samples: what a guardrail is made of."""
    statement = {"Effect": "Deny", "Action": "sagemaker:Create*", "Resource": "*", "Condition": INLINE[name]}
    source = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    assert decision(source, TRAINING, {}, scp=True)
    assert not decision(source, TRAINING, broken, scp=True)


def test_a_notebook_belongs_to_its_owner() -> None:
    """02: the tag ``owner`` has to be the caller's ``aws:userid``."""
    text = sample("02")
    assert "${aws:userid}" in text
    policy = Attached(Document.parse(text, Form.IDENTITY), "02")
    policies = Layers(identity=[policy], boundary=None, session=None, resource=None, scps=[], rcps=[])

    def may(owner: str | None) -> bool:
        keys = {"aws:userid": "AROAEXAMPLE:ann"} | ({} if owner is None else {"sagemaker:ResourceTag/Owner": owner})
        resource = f"arn:aws:sagemaker:eu-central-1:{HOME}:notebook-instance/x"
        request = Request(SESSION, "sagemaker:StartNotebookInstance", resource, HOME, context(keys))
        return decide(request, policies).allowed

    assert may("AROAEXAMPLE:ann")
    assert not may("AROAEXAMPLE:bob")
    assert not may(None)


def test_a_shared_service_role_trusts_its_service_for_its_account_only() -> None:
    """81: a service may assume the role for the account it was written for."""
    trust = Attached(Document.parse(sample("81"), Form.TRUST), "trust")
    policies = Layers((), None, None, trust, (), (), resource_kind="trust")

    def may(service: str, account: str | None) -> bool:
        keys = {} if account is None else {"aws:SourceAccount": account}
        role = f"arn:aws:iam::{HOME}:role/job"
        who = Principal("Service", None, service, service)
        return decide(Request(who, "sts:AssumeRole", role, HOME, context(keys)), policies).allowed

    assert may("sagemaker.amazonaws.com", HOME)
    assert not may("sagemaker.amazonaws.com", "444455556666")
    assert not may("sagemaker.amazonaws.com", None)
    assert not may("ec2.amazonaws.com", HOME)


def test_only_shared_objects_are_read() -> None:
    """51: objects without the tag ``security=shared`` are refused whatever else allows."""
    policies = Layers(
        identity=[attached(Form.IDENTITY, allow()), Attached(Document.parse(sample("51"), Form.IDENTITY), "51")],
        boundary=None, session=None, resource=None, scps=[], rcps=[],
    )  # fmt: skip

    def may(tag: str | None) -> bool:
        keys = {} if tag is None else {"s3:ExistingObjectTag/security": tag}
        return decide(Request(SESSION, "s3:GetObject", "arn:aws:s3:::b/k", HOME, context(keys)), policies).allowed

    assert may("shared")
    assert not may("secret")
    assert not may(None)
