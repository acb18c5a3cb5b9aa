"""What administrators do: the identity store, permission sets, assignments, and the roles that come of them."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from tests.platform import Account, allow
from tests.stories.identity_center.browser import Centre, refusal

READ_ONLY = "arn:aws:iam::aws:policy/AdministratorAccess"


# -- the identity store ------------------------------------------------------------------------------------------------


def test_users(centre: Centre) -> None:
    store, at = centre.store, {"IdentityStoreId": centre.store_id}
    name, email = f"Dora-{uuid.uuid4().hex[:6]}", f"dora-{uuid.uuid4().hex[:6]}@example.com"
    id = centre.user(name, Emails=[{"Value": email, "Type": "work", "Primary": True}], Title="Analyst")
    shown = store.describe_user(**at, UserId=id)
    assert shown["UserName"] == name and shown["UserStatus"] == "ENABLED" and shown["Title"] == "Analyst"
    assert shown["UserArn"] == f"arn:aws:identitystore:::user/{id}" and shown["Revision"] == "1"
    assert store.describe_user(**at, UserId=shown["UserArn"])["UserId"] == id
    for given in ({"UserName": name.upper()}, {"UserName": "x" + name, "Emails": [{"Value": email.upper()}]}):
        assert refusal(store.create_user, **at, **given) == "ConflictException"
    for given in ({}, {"UserName": "Administrator"}):
        assert refusal(store.create_user, **at, **given) == "ValidationException"
    unique = {"UniqueAttribute": {"AttributePath": "emails.value", "AttributeValue": email}}
    assert store.get_user_id(**at, AlternateIdentifier=unique)["UserId"] == id
    listed = store.list_users(**at, Filters=[{"AttributePath": "UserName", "AttributeValue": name}])["Users"]
    assert [one["UserId"] for one in listed] == [id]

    def update(path: str, value: Any = None, **more: Any) -> Any:
        operation = {"AttributePath": path, **({} if value is None else {"AttributeValue": value})}
        return store.update_user(**at, UserId=id, Operations=[operation], **more)

    update("name.givenName", "Dorothea")
    update("emails", [{"value": "new-" + email, "primary": True}])
    update("title")
    shown = store.describe_user(**at, UserId=id)
    assert shown["Name"]["GivenName"] == "Dorothea" and shown["Name"]["FamilyName"] == "X"
    assert shown["Emails"][0]["Value"] == "new-" + email and "Title" not in shown
    assert refusal(store.get_user_id, **at, AlternateIdentifier=unique) == "ResourceNotFoundException"
    assert refusal(update, "title", "x", Revision="1") == "ConflictException"
    for path, value in (("userId", "x"), ("title", 7), ("title.x", "y"), ("emails", "x"), ("userName", None)):
        assert refusal(update, path, value) == "ValidationException", path
    store.delete_user(**at, UserId=id)
    assert refusal(store.describe_user, **at, UserId=id) == "ResourceNotFoundException"
    centre.user(name)


def test_groups_and_memberships(centre: Centre) -> None:
    store, at = centre.store, {"IdentityStoreId": centre.store_id}
    users = [centre.user() for _ in range(3)]
    name = f"Group {uuid.uuid4().hex[:6]}"
    group, other = centre.group(*users, name=name), centre.group()
    assert refusal(store.create_group, **at, DisplayName=name.lower()) == "ConflictException"
    join = {**at, "GroupId": group, "MemberId": {"UserId": users[0]}}
    assert refusal(store.create_group_membership, **join) == "ConflictException"
    found, token = [], None
    while True:
        page = store.list_group_memberships(
            **at, GroupId=group, MaxResults=2, **({"NextToken": token} if token else {})
        )
        assert len(page["GroupMemberships"]) <= 2
        found += [one["MemberId"]["UserId"] for one in page["GroupMemberships"]]
        token = page.get("NextToken")
        if token is None:
            break
    assert sorted(found) == sorted(users)
    told = store.is_member_in_groups(**at, MemberId={"UserId": users[0]}, GroupIds=[group, other])["Results"]
    assert [one["MembershipExists"] for one in told] == [True, False]
    membership = store.get_group_membership_id(**join)["MembershipId"]
    store.delete_group_membership(**at, MembershipId=membership)
    assert refusal(store.describe_group_membership, **at, MembershipId=membership) == "ResourceNotFoundException"
    mine = store.list_group_memberships_for_member(**at, MemberId={"UserId": users[1]})["GroupMemberships"]
    assert [one["GroupId"] for one in mine] == [group]
    store.delete_group(**at, GroupId=group)
    mine = store.list_group_memberships_for_member(**at, MemberId={"UserId": users[1]})["GroupMemberships"]
    assert mine == []
    store.update_group(**at, GroupId=other, Operations=[{"AttributePath": "displayName", "AttributeValue": name}])
    unique = {"UniqueAttribute": {"AttributePath": "displayName", "AttributeValue": name}}
    assert store.get_group_id(**at, AlternateIdentifier=unique)["GroupId"] == other


def test_the_store_is_the_management_accounts_alone(centre: Centre, account: Account) -> None:
    store, admin = account.client("identitystore"), account.client("sso-admin")
    at = {"IdentityStoreId": centre.store_id}
    assert refusal(store.list_users, **at) == "AccessDeniedException"
    assert refusal(store.create_user, **at, UserName="mine") == "AccessDeniedException"
    assert refusal(store.list_users, IdentityStoreId="d-0123456789") == "AccessDeniedException"
    assert refusal(centre.store.list_users, IdentityStoreId="d-0123456789") == "ResourceNotFoundException"
    assert refusal(admin.create_permission_set, InstanceArn=centre.arn, Name="Mine") == "AccessDeniedException"
    assert admin.list_instances()["Instances"][0]["InstanceArn"] == centre.arn
    other = "arn:aws:sso:::instance/ssoins-0123456789abcdef"
    assert refusal(centre.admin.list_permission_sets, InstanceArn=other) == "ResourceNotFoundException"


# -- permission sets ---------------------------------------------------------------------------------------------------


def test_permission_sets(centre: Centre) -> None:
    admin = centre.admin
    arn, name = centre.permission_set(Description="first", SessionDuration="PT4H", Tags=[{"Key": "team", "Value": "x"}])
    at = {"InstanceArn": centre.arn, "PermissionSetArn": arn}
    shown = admin.describe_permission_set(**at)["PermissionSet"]
    assert shown["Name"] == name and shown["SessionDuration"] == "PT4H" and shown["Description"] == "first"
    assert refusal(admin.create_permission_set, InstanceArn=centre.arn, Name=name) == "ConflictException"
    for duration in ("PT0H", "PT13H", "P1D", "PT30M"):
        assert refusal(admin.update_permission_set, **at, SessionDuration=duration) == "ValidationException"
    admin.update_permission_set(**at, SessionDuration="PT90M")
    assert admin.describe_permission_set(**at)["PermissionSet"]["SessionDuration"] == "PT90M"
    listed = [one for page in admin.get_paginator("list_permission_sets").paginate(
        InstanceArn=centre.arn, PaginationConfig={"PageSize": 2}) for one in page["PermissionSets"]]  # fmt: skip
    assert arn in listed and len(listed) == len(set(listed))

    policy = json.dumps(allow("iam:ListUsers"))
    admin.put_inline_policy_to_permission_set(**at, InlinePolicy=policy)
    assert admin.get_inline_policy_for_permission_set(**at)["InlinePolicy"] == policy
    for text in ("{", json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Perhaps"}]})):
        assert refusal(admin.put_inline_policy_to_permission_set, **at, InlinePolicy=text) == "ValidationException"
    admin.delete_inline_policy_from_permission_set(**at)
    assert admin.get_inline_policy_for_permission_set(**at)["InlinePolicy"] == ""
    assert refusal(admin.delete_inline_policy_from_permission_set, **at) == "ResourceNotFoundException"

    admin.attach_managed_policy_to_permission_set(**at, ManagedPolicyArn=READ_ONLY)
    attach = admin.attach_managed_policy_to_permission_set
    assert refusal(attach, **at, ManagedPolicyArn=READ_ONLY) == "ConflictException"
    held = admin.list_managed_policies_in_permission_set(**at)["AttachedManagedPolicies"]
    assert held == [{"Name": "AdministratorAccess", "Arn": READ_ONLY}]
    admin.detach_managed_policy_from_permission_set(**at, ManagedPolicyArn=READ_ONLY)
    detach = admin.detach_managed_policy_from_permission_set
    assert refusal(detach, **at, ManagedPolicyArn=READ_ONLY) == "ResourceNotFoundException"
    customer = {"Name": "Guard", "Path": "/teams/"}
    admin.attach_customer_managed_policy_reference_to_permission_set(**at, CustomerManagedPolicyReference=customer)
    held = admin.list_customer_managed_policy_references_in_permission_set(**at)["CustomerManagedPolicyReferences"]
    assert held == [customer]
    admin.detach_customer_managed_policy_reference_from_permission_set(**at, CustomerManagedPolicyReference=customer)

    assert refusal(admin.get_permissions_boundary_for_permission_set, **at) == "ResourceNotFoundException"
    both = {"ManagedPolicyArn": READ_ONLY, "CustomerManagedPolicyReference": customer}
    put = admin.put_permissions_boundary_to_permission_set
    assert refusal(put, **at, PermissionsBoundary=both) == "ValidationException"
    put(**at, PermissionsBoundary={"ManagedPolicyArn": READ_ONLY})
    found = admin.get_permissions_boundary_for_permission_set(**at)["PermissionsBoundary"]
    assert found == {"ManagedPolicyArn": READ_ONLY}
    admin.delete_permissions_boundary_from_permission_set(**at)

    named = {"InstanceArn": centre.arn, "ResourceArn": arn}
    admin.tag_resource(**named, Tags=[{"Key": "stage", "Value": "y"}])
    admin.untag_resource(**named, TagKeys=["team"])
    assert admin.list_tags_for_resource(**named)["Tags"] == [{"Key": "stage", "Value": "y"}]
    admin.delete_permission_set(**at)
    assert refusal(admin.describe_permission_set, **at) == "ResourceNotFoundException"


def test_tags_of_a_permission_set_decide(centre: Centre) -> None:
    iam = centre.platform.client("iam")
    trust = {"AWS": f"arn:aws:iam::{centre.platform.client('sts').get_caller_identity()['Account']}:root"}
    document = {"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": trust, "Action": "sts:AssumeRole"}]}  # fmt: skip
    name = f"Delegate{uuid.uuid4().hex[:6]}"
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(document))["Role"]["Arn"]
    statements = [
        {"Effect": "Allow", "Action": "sso:*", "Resource": "arn:aws:sso:::instance/*"},
        {"Effect": "Allow", "Action": "sso:*", "Resource": "arn:aws:sso:::permissionSet/*",
         "Condition": {"StringEquals": {"aws:ResourceTag/team": "red"}}},
    ]  # fmt: skip
    policy = {"Version": "2012-10-17", "Statement": statements}
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=json.dumps(policy))
    delegate = centre.platform.client("sso-admin", centre.platform.assume(role))
    red, _ = centre.permission_set(Tags=[{"Key": "team", "Value": "red"}])
    blue, _ = centre.permission_set(Tags=[{"Key": "team", "Value": "blue"}])
    delegate.describe_permission_set(InstanceArn=centre.arn, PermissionSetArn=red)
    describe = delegate.describe_permission_set
    assert refusal(describe, InstanceArn=centre.arn, PermissionSetArn=blue) == "AccessDeniedException"


# -- assignments and roles ---------------------------------------------------------------------------------------------


def _reserved(account: Account) -> list[dict[str, Any]]:
    roles: list[dict[str, Any]] = account.client("iam").list_roles(PathPrefix="/aws-reserved/")["Roles"]
    return roles


@pytest.mark.control("IAM-03")
def test_a_permission_set_is_a_real_role_while_it_is_assigned(centre: Centre, account: Account) -> None:
    admin, user, group = centre.admin, centre.user(), centre.group()
    arn, name = centre.permission_set(allow("iam:ListUsers"), SessionDuration="PT2H")
    at = {"InstanceArn": centre.arn, "PermissionSetArn": arn}
    admin.attach_managed_policy_to_permission_set(**at, ManagedPolicyArn=READ_ONLY)
    first = centre.assign(account, arn, user)
    assert first["Status"] == "SUCCEEDED" and first["TargetId"] == account.id
    assert centre.assign(account, arn, user)["Status"] == "SUCCEEDED"
    centre.assign(account, arn, group, "GROUP")
    [role] = _reserved(account)
    assert role["Path"] == "/aws-reserved/sso.amazonaws.com/" and role["MaxSessionDuration"] == 7200
    assert role["RoleName"].startswith(f"AWSReservedSSO_{name}_") and len(role["RoleName"].rpartition("_")[2]) == 16
    iam = account.client("iam")
    attached = iam.list_attached_role_policies(RoleName=role["RoleName"])["AttachedPolicies"]
    assert [one["PolicyArn"] for one in attached] == [READ_ONLY]
    inline = iam.get_role_policy(RoleName=role["RoleName"], PolicyName="AwsSSOInlinePolicy")["PolicyDocument"]
    assert inline == allow("iam:ListUsers")
    listed = admin.list_account_assignments(**at, AccountId=account.id)["AccountAssignments"]
    assert {(one["PrincipalType"], one["PrincipalId"]) for one in listed} == {("USER", user), ("GROUP", group)}
    centre.join(group, user)
    mine = admin.list_account_assignments_for_principal(InstanceArn=centre.arn, PrincipalId=user, PrincipalType="USER")[
        "AccountAssignments"
    ]
    assert {one["PrincipalType"] for one in mine} == {"USER", "GROUP"}
    sets = admin.list_permission_sets_provisioned_to_account(InstanceArn=centre.arn, AccountId=account.id)
    assert sets["PermissionSets"] == [arn]
    assert refusal(admin.delete_permission_set, **at) == "ConflictException"

    # What changes in the set reaches the account when it is provisioned, not before.
    admin.detach_managed_policy_from_permission_set(**at, ManagedPolicyArn=READ_ONLY)
    stale = {**at, "ProvisioningStatus": "LATEST_PERMISSION_SET_NOT_PROVISIONED"}
    assert admin.list_accounts_for_provisioned_permission_set(**stale)["AccountIds"] == [account.id]
    assert len(iam.list_attached_role_policies(RoleName=role["RoleName"])["AttachedPolicies"]) == 1
    asked = admin.provision_permission_set(**at, TargetType="ALL_PROVISIONED_ACCOUNTS")
    told = admin.describe_permission_set_provisioning_status(
        InstanceArn=centre.arn,
        ProvisionPermissionSetRequestId=asked["PermissionSetProvisioningStatus"]["RequestId"],
    )["PermissionSetProvisioningStatus"]
    assert told["Status"] == "SUCCEEDED"
    assert admin.list_accounts_for_provisioned_permission_set(**stale)["AccountIds"] == []
    assert iam.list_attached_role_policies(RoleName=role["RoleName"])["AttachedPolicies"] == []

    # With the last assignment the role goes.
    for kind, principal in (("USER", user), ("GROUP", group)):
        assert _reserved(account)
        given = centre.assignment(account, arn, principal, kind)
        assert admin.delete_account_assignment(**given)["AccountAssignmentDeletionStatus"]["Status"] == "SUCCEEDED"
        assert refusal(admin.delete_account_assignment, **given) == "ResourceNotFoundException"
    assert _reserved(account) == []
    admin.delete_permission_set(**at)


def test_the_role_is_nobody_elses_to_change(centre: Centre, account: Account) -> None:
    arn, _ = centre.permission_set(allow("iam:ListUsers"))
    centre.assign(account, arn, centre.user())
    [role] = _reserved(account)
    iam, name = account.client("iam"), role["RoleName"]
    document = json.dumps(allow("*"))
    trust = json.dumps({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"AWS": account.id}, "Action": "sts:AssumeRole"}]})  # fmt: skip
    for work, given in (
        (iam.put_role_policy, {"PolicyName": "mine", "PolicyDocument": document}),
        (iam.delete_role_policy, {"PolicyName": "AwsSSOInlinePolicy"}),
        (iam.attach_role_policy, {"PolicyArn": READ_ONLY}),
        (iam.update_role, {"MaxSessionDuration": 43200}),
        (iam.update_assume_role_policy, {"PolicyDocument": trust}),
        (iam.put_role_permissions_boundary, {"PermissionsBoundary": READ_ONLY}),
        (iam.tag_role, {"Tags": [{"Key": "a", "Value": "b"}]}),
        (iam.delete_role, {}),
    ):
        assert refusal(work, RoleName=name, **given) == "UnmodifiableEntity"
    made = {"RoleName": "Mine", "AssumeRolePolicyDocument": trust}
    for path in ("/aws-reserved/sso.amazonaws.com/", "/aws-reserved/x/"):
        assert refusal(iam.create_role, **made, Path=path) == "InvalidInput"
    assert refusal(account.client("sts").assume_role, RoleArn=role["Arn"], RoleSessionName="x1") == "AccessDenied"
    iam.get_role(RoleName=name)


def test_what_cannot_be_provisioned_fails_whole(centre: Centre, account: Account) -> None:
    arn, _ = centre.permission_set(allow("iam:ListUsers"))
    at = {"InstanceArn": centre.arn, "PermissionSetArn": arn}
    reference = {"Name": "Guard", "Path": "/"}
    centre.admin.attach_customer_managed_policy_reference_to_permission_set(
        **at, CustomerManagedPolicyReference=reference
    )
    user = centre.user()
    told = centre.assign(account, arn, user)
    assert told["Status"] == "FAILED" and "Guard" in told["FailureReason"]
    assert _reserved(account) == []
    assert centre.admin.list_account_assignments(**at, AccountId=account.id)["AccountAssignments"] == []
    account.client("iam").create_policy(PolicyName="Guard", PolicyDocument=json.dumps(allow("iam:ListRoles")))
    assert centre.assign(account, arn, user)["Status"] == "SUCCEEDED"
    failed = centre.admin.list_account_assignment_creation_status(InstanceArn=centre.arn, Filter={"Status": "FAILED"})[
        "AccountAssignmentsCreationStatus"
    ]
    assert told["RequestId"] in [one["RequestId"] for one in failed]


def test_assignments_name_what_there_is(centre: Centre, account: Account) -> None:
    arn, _ = centre.permission_set()
    user = centre.user()
    create = centre.admin.create_account_assignment
    good = centre.assignment(account, arn, user)
    nobody = f"{centre.store_id[2:]}-{uuid.uuid4()}"
    for other in (
        {"TargetId": "999988887777"},
        {"PrincipalId": nobody},
        {"PrincipalType": "GROUP"},
        {"PermissionSetArn": arn[:-4] + "0000"},
    ):
        assert refusal(create, **{**good, **other}) == "ResourceNotFoundException", other


@pytest.mark.control("SVR-02")
def test_a_person_does_not_get_the_execution_role(centre: Centre, account: Account) -> None:
    """The person's permission set and the execution role stay apart: the person cannot take the execution role on, and
    what it may do the person may not."""
    execution = account.role(
        "Execution", allow("sagemaker:CreateTrainingJob", "iam:ListUsers"), trust={"Service": "sagemaker.amazonaws.com"}
    )
    arn, name = centre.permission_set(allow("sts:AssumeRole", "sts:GetCallerIdentity"))
    token = centre.token("ana")["accessToken"]
    centre.assign(account, arn, centre.known("ana"))
    keys = centre.session(token, account, name)
    sts = centre.platform.client("sts", keys)
    assert "AWSReservedSSO_" in sts.get_caller_identity()["Arn"]
    assert refusal(sts.assume_role, RoleArn=execution, RoleSessionName="me") == "AccessDenied"
    assert refusal(centre.platform.client("iam", keys).list_users) == "AccessDenied"
