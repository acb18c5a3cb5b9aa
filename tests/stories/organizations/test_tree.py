"""The organisation: units, accounts, and the policies that bind them."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

import botocore.exceptions
import pytest

from tests.platform import HOME, Account, Running, allow

SCP = "SERVICE_CONTROL_POLICY"


def refusal(work: Any, *args: Any, **given: Any) -> str:
    """Code of a call that must be refused."""
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        work(*args, **given)
    return str(caught.value.response["Error"]["Code"])


def fresh(name: str) -> str:
    return f"{name}-{uuid.uuid4().hex[:8]}"


def deny(*actions: str, **more: Any) -> str:
    statement = {"Effect": "Deny", "Action": list(actions), "Resource": "*", **more}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@pytest.fixture
def org(platform: Running) -> Any:
    return platform.client("organizations")


@pytest.fixture
def root(org: Any) -> str:
    return str(org.list_roots()["Roots"][0]["Id"])


def unit(org: Any, parent: str) -> str:
    return str(org.create_organizational_unit(ParentId=parent, Name=fresh("unit"))["OrganizationalUnit"]["Id"])


def scp(org: Any, content: str) -> dict[str, Any]:
    made: dict[str, Any] = org.create_policy(Name=fresh("scp"), Description="d", Type=SCP, Content=content)["Policy"]
    return made["PolicySummary"]


def test_ids_and_arns(org: Any, root: str, account: Account) -> None:
    found = org.describe_organization()["Organization"]
    assert re.fullmatch(r"o-[a-z0-9]{10}", found["Id"]) and found["MasterAccountId"] == HOME
    assert found["FeatureSet"] == "ALL"
    assert re.fullmatch(r"r-[a-z0-9]{4}", root)
    made = org.create_organizational_unit(ParentId=root, Name=fresh("x"))["OrganizationalUnit"]
    assert re.fullmatch(f"ou-{root[2:]}-[a-z0-9]{{8}}", made["Id"])
    assert made["Arn"] == f"arn:aws:organizations::{HOME}:ou/{found['Id']}/{made['Id']}"
    shown = org.describe_account(AccountId=account.id)["Account"]
    assert shown["Arn"] == f"arn:aws:organizations::{HOME}:account/{found['Id']}/{account.id}"
    assert (shown["Status"], shown["JoinedMethod"], shown["Name"]) == ("ACTIVE", "CREATED", account.name)
    policy = scp(org, deny("s3:*"))
    assert policy["Arn"] == f"arn:aws:organizations::{HOME}:policy/{found['Id']}/service_control_policy/{policy['Id']}"
    assert refusal(org.create_organization, FeatureSet="ALL") == "AlreadyInOrganizationException"


def test_the_role_of_a_new_account(platform: Running, org: Any) -> None:
    name = fresh("named")
    made = org.create_account(AccountName=name, Email=f"{name}@example.com", RoleName="Entry")["CreateAccountStatus"]
    assert made["State"] == "SUCCEEDED"
    assert org.describe_create_account_status(CreateAccountRequestId=made["Id"])["CreateAccountStatus"] == made
    keys = platform.assume(f"arn:aws:iam::{made['AccountId']}:role/Entry")
    assert platform.client("sts", keys).get_caller_identity()["Account"] == made["AccountId"]
    attached = platform.client("iam", keys).list_attached_role_policies(RoleName="Entry")["AttachedPolicies"]
    assert [one["PolicyName"] for one in attached] == ["AdministratorAccess"]
    again = org.create_account(AccountName=name, Email=f"{name}@EXAMPLE.com")["CreateAccountStatus"]
    assert (again["State"], again["FailureReason"]) == ("FAILED", "EMAIL_ALREADY_EXISTS")


def test_the_tree(org: Any, root: str, account: Account) -> None:
    above = unit(org, root)
    below = unit(org, above)
    assert [one["Id"] for one in org.list_organizational_units_for_parent(ParentId=above)["OrganizationalUnits"]] == [
        below
    ]
    assert org.list_parents(ChildId=account.id)["Parents"] == [{"Id": root, "Type": "ROOT"}]
    org.move_account(AccountId=account.id, SourceParentId=root, DestinationParentId=below)
    assert org.list_parents(ChildId=account.id)["Parents"] == [{"Id": below, "Type": "ORGANIZATIONAL_UNIT"}]
    assert [one["Id"] for one in org.list_accounts_for_parent(ParentId=below)["Accounts"]] == [account.id]
    assert org.list_children(ParentId=below, ChildType="ACCOUNT")["Children"] == [{"Id": account.id, "Type": "ACCOUNT"}]
    again = {"AccountId": account.id, "SourceParentId": root, "DestinationParentId": above}
    assert refusal(org.move_account, **again) == "SourceParentNotFoundException"
    named = org.describe_organizational_unit(OrganizationalUnitId=below)["OrganizationalUnit"]["Name"]
    assert refusal(org.create_organizational_unit, ParentId=above, Name=named) == "DuplicateOrganizationalUnitException"
    deepest = below
    for _ in range(3):
        deepest = unit(org, deepest)
    assert refusal(org.create_organizational_unit, ParentId=deepest, Name="x") == "ConstraintViolationException"
    assert refusal(org.delete_organizational_unit, OrganizationalUnitId=below) == "OrganizationalUnitNotEmptyException"
    missing = f"ou-{root[2:]}-zzzzzzzz"
    assert (
        refusal(org.describe_organizational_unit, OrganizationalUnitId=missing) == "OrganizationalUnitNotFoundException"
    )


def test_accounts_come_in_pages(org: Any, account: Account, neighbour: Account) -> None:
    pages = list(org.get_paginator("list_accounts").paginate(PaginationConfig={"PageSize": 2}))
    assert all(len(page["Accounts"]) <= 2 for page in pages)
    ids = [one["Id"] for page in pages for one in page["Accounts"]]
    assert len(ids) == len(set(ids)) and {HOME, account.id, neighbour.id} <= set(ids)


@pytest.mark.parametrize("where", ["unit", "account"])
def test_a_policy_binds_whom_it_is_attached_to(
    platform: Running, org: Any, root: str, account: Account, neighbour: Account, where: str
) -> None:
    above = unit(org, root)
    org.move_account(AccountId=account.id, SourceParentId=root, DestinationParentId=above)
    iam = account.client("iam")
    iam.list_roles()
    policy = scp(org, deny("iam:ListRoles"))
    target = above if where == "unit" else account.id
    org.attach_policy(PolicyId=policy["Id"], TargetId=target)
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        iam.list_roles()
    message = caught.value.response["Error"]["Message"]
    assert "explicit deny in a service control policy" in message and policy["Arn"] in message
    neighbour.client("iam").list_roles()
    platform.client("iam").list_roles()
    assert [one["TargetId"] for one in org.list_targets_for_policy(PolicyId=policy["Id"])["Targets"]] == [target]
    names = [one["Id"] for one in org.list_policies_for_target(TargetId=target, Filter=SCP)["Policies"]]
    assert names == ["p-FullAWSAccess", policy["Id"]]
    assert refusal(org.delete_policy, PolicyId=policy["Id"]) == "PolicyInUseException"
    assert refusal(org.attach_policy, PolicyId=policy["Id"], TargetId=target) == "DuplicatePolicyAttachmentException"
    org.update_policy(PolicyId=policy["Id"], Content=deny("s3:ListAllMyBuckets"))
    iam.list_roles()
    org.detach_policy(PolicyId=policy["Id"], TargetId=target)
    assert refusal(org.detach_policy, PolicyId=policy["Id"], TargetId=target) == "PolicyNotAttachedException"
    org.delete_policy(PolicyId=policy["Id"])
    assert refusal(org.describe_policy, PolicyId=policy["Id"]) == "PolicyNotFoundException"


def test_every_level_has_to_allow(org: Any, account: Account) -> None:
    policy = scp(org, json.dumps(allow("iam:Get*")))
    iam = account.client("iam")
    assert refusal(org.detach_policy, PolicyId="p-FullAWSAccess", TargetId=account.id) == "ConstraintViolationException"
    org.attach_policy(PolicyId=policy["Id"], TargetId=account.id)
    iam.list_roles()
    org.detach_policy(PolicyId="p-FullAWSAccess", TargetId=account.id)
    assert refusal(iam.list_roles) == "AccessDenied"
    iam.get_role(RoleName="OrganizationAccountAccessRole")
    org.attach_policy(PolicyId="p-FullAWSAccess", TargetId=account.id)
    iam.list_roles()


def test_policies_are_read_when_they_are_written(org: Any) -> None:
    for content in (
        "{}",
        json.dumps(
            allow("s3:*") | {"Statement": [{"Effect": "Deny", "Principal": "*", "Action": "*", "Resource": "*"}]}
        ),
    ):
        given = {"Name": fresh("bad"), "Description": "", "Type": SCP, "Content": content}
        assert refusal(org.create_policy, **given) == "MalformedPolicyDocumentException"
    many = deny(*[f"s3:Get{number:05}" for number in range(500)])
    given = {"Name": fresh("bad"), "Description": "", "Type": SCP, "Content": many}
    assert refusal(org.create_policy, **given) == "ConstraintViolationException"
    made = scp(org, deny("s3:*"))
    given = {"Name": made["Name"], "Description": "", "Type": SCP, "Content": deny("s3:*")}
    assert refusal(org.create_policy, **given) == "DuplicatePolicyException"


def test_members_may_look_at_the_organisation_only(account: Account, root: str) -> None:
    org = account.client("organizations")
    assert org.describe_organization()["Organization"]["MasterAccountId"] == HOME
    for refused in (
        refusal(org.list_accounts),
        refusal(org.list_roots),
        refusal(org.create_account, AccountName="x", Email="x@example.com"),
        refusal(org.list_policies, Filter=SCP),
        refusal(org.describe_account, AccountId=account.id),
        refusal(org.create_organizational_unit, ParentId=root, Name="mine"),
        refusal(org.attach_policy, PolicyId="p-FullAWSAccess", TargetId=account.id),
    ):
        assert refused == "AccessDeniedException"


def test_tags(org: Any, account: Account) -> None:
    org.tag_resource(ResourceId=account.id, Tags=[{"Key": "stage", "Value": "test"}, {"Key": "x", "Value": "1"}])
    org.untag_resource(ResourceId=account.id, TagKeys=["x"])
    assert org.list_tags_for_resource(ResourceId=account.id)["Tags"] == [{"Key": "stage", "Value": "test"}]


def test_the_place_of_an_account_decides(
    platform: Running, org: Any, root: str, account: Account, neighbour: Account
) -> None:
    above = unit(org, root)
    found = org.describe_organization()["Organization"]["Id"]
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": "*"},
                "Action": "sts:AssumeRole",
                "Condition": {"ForAnyValue:StringLike": {"aws:PrincipalOrgPaths": [f"{found}/{root}/{above}/*"]}},
            }
        ],
    }
    arn = account.client("iam").create_role(RoleName="R", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    assert refusal(platform.assume, arn, neighbour.keys) == "AccessDenied"
    org.move_account(AccountId=neighbour.id, SourceParentId=root, DestinationParentId=above)
    platform.assume(arn, neighbour.keys)


def test_policy_types_are_switched(tmp_path: Any) -> None:
    running = Running(tmp_path / "data")
    running.start()
    try:
        running.found()
        account = running.account()
        org = running.client("organizations")
        [root] = org.list_roots()["Roots"]
        policy = scp(org, deny("iam:ListRoles"))
        org.attach_policy(PolicyId=policy["Id"], TargetId=root["Id"])
        assert refusal(account.client("iam").list_roles) == "AccessDenied"
        switched = {"RootId": root["Id"], "PolicyType": SCP}
        assert refusal(org.enable_policy_type, **switched) == "PolicyTypeAlreadyEnabledException"
        assert org.disable_policy_type(**switched)["Root"]["PolicyTypes"] == []
        account.client("iam").list_roles()
        assert refusal(org.attach_policy, PolicyId=policy["Id"], TargetId=root["Id"]) == "PolicyTypeNotEnabledException"
        org.enable_policy_type(**switched)
        attached = org.list_policies_for_target(TargetId=account.id, Filter=SCP)["Policies"]
        assert [one["Id"] for one in attached] == ["p-FullAWSAccess"]
        account.client("iam").list_roles()
    finally:
        running.kill()
