"""What the simulator says is what happens."""

from __future__ import annotations

import itertools
import json
import uuid
from typing import Any

import botocore.exceptions
import pytest

from tests.platform import Account, Keys, Running, allow

ROLES = "iam:ListRoles"


def deny(*actions: str) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": list(actions), "Resource": "*"}]}


def really(work: Any, **given: Any) -> str:
    """What a real call is answered, in the simulator's words."""
    try:
        work(**given)
    except botocore.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] == "AccessDenied", error
        return "explicitDeny" if "explicit deny" in error.response["Error"]["Message"] else "implicitDeny"
    return "allowed"


@pytest.mark.control("IAM-01")
def test_the_simulator_and_a_real_call_agree(platform: Running, account: Account) -> None:
    iam, org = account.client("iam"), platform.client("organizations")
    iam.create_user(UserName="Eve")
    key = iam.create_access_key(UserName="Eve")["AccessKey"]
    mine = platform.client("iam", Keys(key["AccessKeyId"], key["SecretAccessKey"]))
    boundary = iam.create_policy(PolicyName="Limit", PolicyDocument=json.dumps(allow("s3:*")))["Policy"]["Arn"]
    scp = org.create_policy(
        Name=f"scp-{uuid.uuid4().hex[:8]}",
        Description="",
        Type="SERVICE_CONTROL_POLICY",
        Content=json.dumps(deny("iam:ListRoles")),
    )["Policy"]["PolicySummary"]["Id"]
    arn = iam.get_user(UserName="Eve")["User"]["Arn"]
    seen = set()
    for policy, bounded, organised in itertools.product(
        (None, allow(ROLES), deny(ROLES)), (False, True), (False, True)
    ):
        if policy is not None:
            iam.put_user_policy(UserName="Eve", PolicyName="p", PolicyDocument=json.dumps(policy))
        if bounded:
            iam.put_user_permissions_boundary(UserName="Eve", PermissionsBoundary=boundary)
        if organised:
            org.attach_policy(PolicyId=scp, TargetId=account.id)
        [said] = iam.simulate_principal_policy(PolicySourceArn=arn, ActionNames=[ROLES])["EvaluationResults"]
        happened = really(mine.list_roles)
        if organised:
            org.detach_policy(PolicyId=scp, TargetId=account.id)
        assert said["EvalDecision"] == happened, (policy, bounded, organised)
        assert said["OrganizationsDecisionDetail"]["AllowedByOrganizations"] is not organised
        if bounded:
            assert said["PermissionsBoundaryDecisionDetail"] == {"AllowedByPermissionsBoundary": False}
            iam.delete_user_permissions_boundary(UserName="Eve")
        if policy is not None:
            iam.delete_user_policy(UserName="Eve", PolicyName="p")
        seen.add(happened)
    assert seen == {"allowed", "implicitDeny", "explicitDeny"}


def test_conditions_and_what_is_missing(account: Account) -> None:
    iam = account.client("iam")
    here = {"StringEquals": {"aws:RequestedRegion": "eu-west-1"}}
    policy = allow("s3:GetObject", resource="arn:aws:s3:::b/*", Condition=here)
    arn = account.role("Simulated", policy)
    given: dict[str, Any] = {"PolicySourceArn": arn, "ActionNames": ["s3:GetObject", "s3:PutObject"]}
    resources = ["arn:aws:s3:::b/x", "arn:aws:s3:::c/x"]
    found = iam.simulate_principal_policy(**given, ResourceArns=resources)["EvaluationResults"]
    assert [one["EvalDecision"] for one in found] == ["implicitDeny"] * 4
    assert found[0]["MissingContextValues"] == ["aws:RequestedRegion"]
    entry = {"ContextKeyName": "aws:RequestedRegion", "ContextKeyValues": ["eu-west-1"], "ContextKeyType": "string"}
    found = iam.simulate_principal_policy(**given, ResourceArns=resources, ContextEntries=[entry])["EvaluationResults"]
    assert [one["EvalDecision"] for one in found] == ["allowed", "implicitDeny", "implicitDeny", "implicitDeny"]
    at = json.dumps(policy).index("[{") + 2  # columns count from 1
    place = {
        "StartPosition": {"Line": 1, "Column": at},
        "EndPosition": {"Line": 1, "Column": len(json.dumps(policy)) - 2},
    }
    matched = [{"SourcePolicyId": "role_Simulated_inline", "SourcePolicyType": "role", **place}]
    assert found[0]["MatchedStatements"] == matched
    paged = iam.get_paginator("simulate_principal_policy").paginate(
        **given, ResourceArns=resources, PaginationConfig={"PageSize": 3}
    )
    assert [len(page["EvaluationResults"]) for page in paged] == [3, 1]


def test_what_may_be_simulated(account: Account, neighbour: Account) -> None:
    arn = account.role("Simulated")
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        neighbour.client("iam").simulate_principal_policy(PolicySourceArn=arn, ActionNames=["s3:GetObject"])
    assert caught.value.response["Error"]["Code"] == "AccessDenied"
    more = [json.dumps(allow("s3:GetObject"))]
    limits = [json.dumps(allow("s3:PutObject"))]
    iam = account.client("iam")
    given: dict[str, Any] = {"PolicySourceArn": arn, "ActionNames": ["s3:GetObject"], "PolicyInputList": more}
    assert iam.simulate_principal_policy(**given)["EvaluationResults"][0]["EvalDecision"] == "allowed"
    given["PermissionsBoundaryPolicyInputList"] = limits
    assert iam.simulate_principal_policy(**given)["EvaluationResults"][0]["EvalDecision"] == "implicitDeny"
