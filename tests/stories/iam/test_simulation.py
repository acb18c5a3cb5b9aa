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
        "StartPosition": {"Line": 1, "Column": at + 1},
        "EndPosition": {"Line": 1, "Column": len(json.dumps(policy)) - 1},
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


def decisions(answer: Any) -> list[str]:
    return [one["EvalDecision"] for one in answer["EvaluationResults"]]


def texts(*policies: dict[str, Any]) -> list[str]:
    return [json.dumps(one) for one in policies]


def test_policies_as_text(account: Account) -> None:
    iam = account.client("iam")
    given: dict[str, Any] = {"ActionNames": ["s3:GetObject", "s3:PutObject"]}
    both = texts(allow("s3:*"), deny("s3:PutObject"))
    answer = iam.simulate_custom_policy(PolicyInputList=both, **given)
    assert decisions(answer) == ["allowed", "explicitDeny"]
    one, two = answer["EvaluationResults"]
    assert one["MatchedStatements"][0]["SourcePolicyId"] == "PolicyInputList.1"
    assert one["MatchedStatements"][0]["SourcePolicyType"] == "none"
    assert two["MatchedStatements"][0]["SourcePolicyId"] == "PolicyInputList.2"
    assert "EvalDecisionDetails" not in one and "ResourceSpecificResults" not in one
    limit = iam.simulate_custom_policy(
        PolicyInputList=texts(allow("s3:*")), PermissionsBoundaryPolicyInputList=texts(allow("s3:GetObject")), **given
    )
    assert decisions(limit) == ["allowed", "implicitDeny"]
    assert [one["PermissionsBoundaryDecisionDetail"] for one in limit["EvaluationResults"]] == [
        {"AllowedByPermissionsBoundary": True},
        {"AllowedByPermissionsBoundary": False},
    ]
    levels = [
        {"ServiceControlPolicyInputList": texts(allow("*"))},
        {"ServiceControlPolicyInputList": texts(allow("s3:Get*"))},
    ]
    organised = iam.simulate_custom_policy(
        PolicyInputList=texts(allow("s3:*")), OrderedOrganizationPolicyInputList=levels, **given
    )
    assert decisions(organised) == ["allowed", "implicitDeny"]
    assert [one["OrganizationsDecisionDetail"] for one in organised["EvaluationResults"]] == [
        {"AllowedByOrganizations": True},
        {"AllowedByOrganizations": False},
    ]


def test_where_the_statement_stands(account: Account) -> None:
    document = json.dumps(
        {"Version": "2012-10-17", "Statement": [deny("s3:Put*")["Statement"][0], allow("s3:*")["Statement"][0]]},
        indent=4,
    )
    [one] = account.client("iam").simulate_custom_policy(PolicyInputList=[document], ActionNames=["s3:GetObject"])[
        "EvaluationResults"
    ]
    [matched] = one["MatchedStatements"]
    lines = document.split("\n")
    start, end = matched["StartPosition"], matched["EndPosition"]
    assert lines[start["Line"] - 1][start["Column"] - 2] == "{" and lines[end["Line"] - 1][end["Column"] - 2] == "}"
    between = "\n".join(lines[start["Line"] - 1 : end["Line"]])
    assert '"Allow"' in between and '"Deny"' not in between


def test_a_policy_of_the_resource(account: Account, neighbour: Account) -> None:
    iam = account.client("iam")
    iam.create_user(UserName="Eve")
    eve = f"arn:aws:iam::{account.id}:user/Eve"
    bucket = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"AWS": eve}, "Action": "s3:*", "Resource": "arn:aws:s3:::b/*"}],
    }
    given: dict[str, Any] = {
        "PolicySourceArn": eve,
        "ActionNames": ["s3:GetObject"],
        "ResourceArns": ["arn:aws:s3:::b/x"],
        "ResourcePolicy": json.dumps(bucket),
    }
    [same] = iam.simulate_principal_policy(**given)["EvaluationResults"]
    assert same["EvalDecision"] == "allowed" and same["EvalDecisionDetails"] == {}
    assert same["MatchedStatements"][0]["SourcePolicyId"] == "ResourcePolicy"
    assert same["MatchedStatements"][0]["SourcePolicyType"] == "resource"
    [part] = same["ResourceSpecificResults"]
    assert (part["EvalResourceName"], part["EvalResourceDecision"]) == ("arn:aws:s3:::b/x", "allowed")
    [across] = iam.simulate_principal_policy(**given, ResourceOwner=neighbour.id)["EvaluationResults"]
    assert across["EvalDecision"] == "implicitDeny"
    assert set(across["EvalDecisionDetails"].values()) == {"allowed", "implicitDeny"}
    [both] = iam.simulate_principal_policy(**given, ResourceOwner=neighbour.id, PolicyInputList=texts(allow("s3:*")))[
        "EvaluationResults"
    ]
    assert both["EvalDecision"] == "allowed" and set(both["EvalDecisionDetails"].values()) == {"allowed"}
    other = f"arn:aws:iam::{account.id}:user/Other"
    [asked] = iam.simulate_principal_policy(**given, CallerArn=other)["EvaluationResults"]
    assert asked["EvalDecision"] == "implicitDeny"
    del given["PolicySourceArn"]
    with pytest.raises(botocore.exceptions.ClientError, match="InvalidInput"):
        iam.simulate_custom_policy(PolicyInputList=texts(allow("s3:*")), **given)
    for bad in ("x", "arn:aws:s3:::b", f"arn:aws:sts::{account.id}:assumed-role/R/s"):
        with pytest.raises(botocore.exceptions.ClientError, match="InvalidInput"):
            iam.simulate_custom_policy(PolicyInputList=texts(allow("s3:*")), CallerArn=bad, **given)


def test_groups_and_what_they_give(account: Account) -> None:
    iam = account.client("iam")
    iam.create_user(UserName="U")
    iam.create_group(GroupName="G")
    iam.put_group_policy(GroupName="G", PolicyName="gp", PolicyDocument=json.dumps(allow("s3:GetObject")))
    given = {"ActionNames": ["s3:GetObject"]}
    user, group = (f"arn:aws:iam::{account.id}:{one}" for one in ("user/U", "group/G"))
    assert decisions(iam.simulate_principal_policy(PolicySourceArn=user, **given)) == ["implicitDeny"]
    iam.add_user_to_group(GroupName="G", UserName="U")
    for arn in (user, group):
        [one] = iam.simulate_principal_policy(PolicySourceArn=arn, **given)["EvaluationResults"]
        assert one["EvalDecision"] == "allowed"
        [matched] = one["MatchedStatements"]
        assert (matched["SourcePolicyId"], matched["SourcePolicyType"]) == ("group_G_gp", "group")


def test_what_would_be_without_a_policy(account: Account) -> None:
    iam = account.client("iam")
    own = iam.create_policy(PolicyName="Own", PolicyDocument=json.dumps(deny("s3:PutObject")))["Policy"]["Arn"]
    limit = iam.create_policy(PolicyName="Limit", PolicyDocument=json.dumps(allow("s3:*")))["Policy"]["Arn"]
    iam.create_user(UserName="U", PermissionsBoundary=limit)
    iam.put_user_policy(UserName="U", PolicyName="p", PolicyDocument=json.dumps(allow("s3:*", "iam:GetUser")))
    iam.attach_user_policy(UserName="U", PolicyArn=own)
    arn = f"arn:aws:iam::{account.id}:user/U"

    def without(*excluded: Any) -> list[str]:
        return decisions(
            iam.simulate_principal_policy(
                PolicySourceArn=arn,
                ActionNames=["s3:GetObject", "s3:PutObject", "iam:GetUser"],
                PolicyExclusionList=list(excluded),
            )
        )

    whole = ["allowed", "explicitDeny", "implicitDeny"]
    assert without() == whole
    assert without({"PolicyArn": own}) == ["allowed", "allowed", "implicitDeny"]
    assert without({"PolicyArn": f"arn:aws:iam::{account.id}:policy/O?n"}) == ["allowed", "allowed", "implicitDeny"]
    assert without({"PolicyType": "permission-boundary"}) == ["allowed", "explicitDeny", "allowed"]
    assert without({"PolicyType": "inline"}) == ["implicitDeny", "explicitDeny", "implicitDeny"]
    assert without({"PolicyType": "aws-managed"}, {"PolicyArn": f"{own}x"}) == whole
    with pytest.raises(botocore.exceptions.ClientError, match="InvalidInput"):
        without({"PolicyArn": "arn:aws:iam::*:policy/x"})


def test_a_scenario_needs_all_of_its_resources(account: Account) -> None:
    iam = account.client("iam")
    kinds = ("instance/*", "security-group/*", "network-interface/*")
    arns = [f"arn:aws:ec2:us-east-1:{account.id}:{kind}" for kind in kinds]
    image = "arn:aws:ec2:us-east-1::image/ami-1"
    given: dict[str, Any] = {"ActionNames": ["ec2:RunInstances"], "ResourceHandlingOption": "EC2-VPC-InstanceStore"}
    policy = texts(allow("ec2:RunInstances", resource=arns))
    with pytest.raises(botocore.exceptions.ClientError, match="image"):
        iam.simulate_custom_policy(PolicyInputList=policy, ResourceArns=arns, **given)
    [one] = iam.simulate_custom_policy(PolicyInputList=policy, ResourceArns=[*arns, image], **given)[
        "EvaluationResults"
    ]
    assert one["EvalDecision"] == "implicitDeny" and one["MatchedStatements"] == []
    assert [part["EvalResourceDecision"] for part in one["ResourceSpecificResults"]] == ["allowed"] * 3 + [
        "implicitDeny"
    ]
    whole = texts(allow("ec2:RunInstances", resource=[*arns, image]))
    [one] = iam.simulate_custom_policy(PolicyInputList=whole, ResourceArns=[*arns, image], **given)["EvaluationResults"]
    assert (one["EvalResourceName"], one["EvalDecision"]) == ("*", "allowed") and len(one["MatchedStatements"]) == 1
    given["ResourceHandlingOption"] = "EC2-Moon"
    with pytest.raises(botocore.exceptions.ClientError, match="InvalidInput"):
        iam.simulate_custom_policy(PolicyInputList=whole, ResourceArns=[image], **given)


def test_roles_of_services_are_free_of_guardrails(platform: Running, account: Account) -> None:
    iam, org = account.client("iam"), platform.client("organizations")
    scp = org.create_policy(
        Name=f"scp-{uuid.uuid4().hex[:8]}",
        Description="",
        Type="SERVICE_CONTROL_POLICY",
        Content=json.dumps(deny("ecr:*")),
    )["Policy"]["PolicySummary"]["Id"]
    linked = iam.create_service_linked_role(AWSServiceName="replication.ecr.amazonaws.com")["Role"]["Arn"]
    plain = account.role("Plain", allow("ecr:CreateRepository"))
    given = {"ActionNames": ["ecr:CreateRepository"]}
    org.attach_policy(PolicyId=scp, TargetId=account.id)
    said = [decisions(iam.simulate_principal_policy(PolicySourceArn=arn, **given)) for arn in (linked, plain)]
    org.detach_policy(PolicyId=scp, TargetId=account.id)
    assert said == [["allowed"], ["explicitDeny"]]


def test_which_context_keys_policies_speak_of(account: Account) -> None:
    iam = account.client("iam")
    first = allow(
        "s3:*", resource="arn:aws:s3:::b/${aws:username}/*", Condition={"Bool": {"aws:SecureTransport": "true"}}
    )
    second = allow(
        "s3:*",
        Condition={
            "StringEquals": {"AWS:SecureTransport": "true", "s3:prefix": ["${aws:PrincipalTag/team, 'none'}", "${*}"]},
            "Null": {"aws:TokenIssueTime": "false"},
        },
    )
    keys = ["aws:SecureTransport", "aws:username", "s3:prefix", "aws:TokenIssueTime", "aws:PrincipalTag/team"]
    found = iam.get_context_keys_for_custom_policy(PolicyInputList=texts(first, second))["ContextKeyNames"]
    assert sorted(found) == sorted(keys)
    arn = account.role("R", first)
    found = iam.get_context_keys_for_principal_policy(PolicySourceArn=arn, PolicyInputList=texts(second))
    assert sorted(found["ContextKeyNames"]) == sorted(keys)
    with pytest.raises(botocore.exceptions.ClientError, match="InvalidInput"):
        iam.get_context_keys_for_custom_policy(PolicyInputList=["{}"])
