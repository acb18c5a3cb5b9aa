"""Service-linked roles and instance profiles."""

from __future__ import annotations

import json

from tests.platform import Account, Running, allow
from tests.stories.iam.test_entities import TRUST, refusal, text, user

SERVICE = "organizations.amazonaws.com"
NAME = "AWSServiceRoleForOrganizations"


def test_a_role_of_a_service_is_changed_by_nobody_else(account: Account) -> None:
    iam = account.client("iam")
    made = iam.create_service_linked_role(AWSServiceName=SERVICE, Description="d")["Role"]
    assert made["Arn"] == f"arn:aws:iam::{account.id}:role/aws-service-role/{SERVICE}/{NAME}"
    [statement] = made["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": SERVICE}
    [attached] = iam.list_attached_role_policies(RoleName=NAME)["AttachedPolicies"]
    assert attached["PolicyArn"] == "arn:aws:iam::aws:policy/aws-service-role/AWSOrganizationsServiceTrustPolicy"
    own = iam.create_policy(PolicyName="P", PolicyDocument=text("*"))["Policy"]["Arn"]
    for call, more in (
        (iam.put_role_policy, {"PolicyName": "p", "PolicyDocument": text("*")}),
        (iam.attach_role_policy, {"PolicyArn": own}),
        (iam.detach_role_policy, {"PolicyArn": attached["PolicyArn"]}),
        (iam.update_assume_role_policy, {"PolicyDocument": TRUST}),
        (iam.put_role_permissions_boundary, {"PermissionsBoundary": own}),
        (iam.update_role, {"MaxSessionDuration": 7200}),
        (iam.tag_role, {"Tags": [{"Key": "k", "Value": "v"}]}),
        (iam.delete_role, {}),
    ):
        assert refusal(call, RoleName=NAME, **more) == ("UnmodifiableEntity", 400)
    iam.update_role(RoleName=NAME, Description="other")
    assert iam.update_role_description(RoleName=NAME, Description="third")["Role"]["Description"] == "third"
    assert refusal(iam.create_service_linked_role, AWSServiceName=SERVICE) == ("InvalidInput", 400)
    task = iam.delete_service_linked_role(RoleName=NAME)["DeletionTaskId"]
    assert task.startswith(f"task/aws-service-role/{SERVICE}/{NAME}/")
    assert iam.get_service_linked_role_deletion_status(DeletionTaskId=task)["Status"] == "SUCCEEDED"
    assert refusal(iam.get_role, RoleName=NAME) == ("NoSuchEntity", 404)
    assert refusal(iam.get_service_linked_role_deletion_status, DeletionTaskId=f"{task}x") == ("NoSuchEntity", 404)
    iam.create_service_linked_role(AWSServiceName=SERVICE)


def test_which_services_have_one(account: Account) -> None:
    iam = account.client("iam")
    assert refusal(iam.create_service_linked_role, AWSServiceName="nobody.amazonaws.com") == ("InvalidInput", 400)
    given = {"AWSServiceName": SERVICE, "CustomSuffix": "x"}
    assert refusal(iam.create_service_linked_role, **given) == ("InvalidInput", 400)
    for suffix in ("a", "b"):
        made = iam.create_service_linked_role(AWSServiceName="autoscaling.amazonaws.com", CustomSuffix=suffix)
        assert made["Role"]["RoleName"] == f"AWSServiceRoleForAutoScaling_{suffix}"
    account.role("Plain")
    assert refusal(iam.delete_service_linked_role, RoleName="Plain") == ("NoSuchEntity", 404)


def test_who_may_make_one_for_which_service(platform: Running, account: Account) -> None:
    condition = {"StringEquals": {"iam:AWSServiceName": SERVICE}}
    mine = platform.client("iam", user(account, "U", allow("iam:CreateServiceLinkedRole", Condition=condition)))
    other = "replication.ecr.amazonaws.com"
    assert refusal(mine.create_service_linked_role, AWSServiceName=other) == ("AccessDenied", 403)
    mine.create_service_linked_role(AWSServiceName=SERVICE)
    resource = f"arn:aws:iam::{account.id}:role/aws-service-role/{other}/*"
    account.client("iam").put_user_policy(
        UserName="U",
        PolicyName="p",
        PolicyDocument=text("iam:CreateServiceLinkedRole", "iam:DeleteServiceLinkedRole", resource=resource),
    )
    mine.create_service_linked_role(AWSServiceName=other)
    mine.delete_service_linked_role(RoleName="AWSServiceRoleForECRReplication")
    account.client("iam").delete_user_policy(UserName="U", PolicyName="inline")
    assert refusal(mine.delete_service_linked_role, RoleName=NAME) == ("AccessDenied", 403)


def test_nobody_makes_a_role_that_guardrails_do_not_bind(account: Account) -> None:
    iam = account.client("iam")
    for path in ("/aws-service-role/", f"/aws-service-role/{SERVICE}/", "/aws-reserved/sso.amazonaws.com/"):
        assert refusal(iam.create_role, RoleName="R", Path=path, AssumeRolePolicyDocument=TRUST) == (
            "InvalidInput",
            400,
        )
    iam.create_role(RoleName="R", Path="/x/aws-service-role/", AssumeRolePolicyDocument=TRUST)


def test_an_instance_profile_lives(account: Account) -> None:
    iam = account.client("iam")
    made = iam.create_instance_profile(
        InstanceProfileName="Machine", Path="/ml/", Tags=[{"Key": "team", "Value": "a"}]
    )["InstanceProfile"]
    assert made["Arn"] == f"arn:aws:iam::{account.id}:instance-profile/ml/Machine" and made["Roles"] == []
    assert made["InstanceProfileId"].startswith("AIPA")
    for name in ("A", "B"):
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=TRUST)
    iam.add_role_to_instance_profile(InstanceProfileName="Machine", RoleName="A")
    assert refusal(iam.add_role_to_instance_profile, InstanceProfileName="Machine", RoleName="B") == (
        "LimitExceeded",
        409,
    )
    found = iam.get_instance_profile(InstanceProfileName="Machine")["InstanceProfile"]
    assert [one["RoleName"] for one in found["Roles"]] == ["A"] and found["Tags"] == [{"Key": "team", "Value": "a"}]
    iam.create_instance_profile(InstanceProfileName="Second")
    iam.add_role_to_instance_profile(InstanceProfileName="Second", RoleName="A")
    listed = iam.list_instance_profiles_for_role(RoleName="A")["InstanceProfiles"]
    assert [one["InstanceProfileName"] for one in listed] == ["Machine", "Second"]
    assert iam.list_instance_profiles_for_role(RoleName="B")["InstanceProfiles"] == []
    below = iam.list_instance_profiles(PathPrefix="/ml/")["InstanceProfiles"]
    assert [one["InstanceProfileName"] for one in below] == ["Machine"]
    iam.tag_instance_profile(InstanceProfileName="Machine", Tags=[{"Key": "cost", "Value": "1"}])
    iam.untag_instance_profile(InstanceProfileName="Machine", TagKeys=["team"])
    assert iam.list_instance_profile_tags(InstanceProfileName="Machine")["Tags"] == [{"Key": "cost", "Value": "1"}]

    assert refusal(iam.delete_role, RoleName="A") == ("DeleteConflict", 409)
    assert refusal(iam.delete_instance_profile, InstanceProfileName="Machine") == ("DeleteConflict", 409)
    assert refusal(iam.remove_role_from_instance_profile, InstanceProfileName="Machine", RoleName="B") == (
        "NoSuchEntity",
        404,
    )
    for name in ("Machine", "Second"):
        iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName="A")
        iam.delete_instance_profile(InstanceProfileName=name)
    iam.delete_role(RoleName="A")
    assert refusal(iam.get_instance_profile, InstanceProfileName="Machine") == ("NoSuchEntity", 404)


def test_a_role_is_put_into_a_profile_by_who_may_pass_it(platform: Running, account: Account) -> None:
    iam = account.client("iam")
    iam.create_instance_profile(InstanceProfileName="Machine")
    iam.create_role(RoleName="R", AssumeRolePolicyDocument=TRUST)
    mine = platform.client("iam", user(account, "U", allow("iam:AddRoleToInstanceProfile")))
    given = {"InstanceProfileName": "Machine", "RoleName": "R"}
    assert refusal(mine.add_role_to_instance_profile, **given) == ("AccessDenied", 403)
    for service, allowed in (("sagemaker.amazonaws.com", False), ("ec2.amazonaws.com", True)):
        passing = allow("iam:PassRole", Condition={"StringEquals": {"iam:PassedToService": service}})
        iam.put_user_policy(UserName="U", PolicyName="pass", PolicyDocument=json.dumps(passing))
        if allowed:
            mine.add_role_to_instance_profile(**given)
        else:
            assert refusal(mine.add_role_to_instance_profile, **given) == ("AccessDenied", 403)
