"""Groups: what their policies say holds for their members, and only while they are."""

from __future__ import annotations

import json

from bastide.services.iam.managed import ADMINISTRATOR
from tests.platform import Account, Running, allow
from tests.stories.iam.test_entities import refusal, text, user

READ = "arn:aws:iam::aws:policy/IAMReadOnlyAccess"


def test_members_may_what_their_groups_may(platform: Running, account: Account) -> None:
    iam = account.client("iam")
    mine = platform.client("iam", user(account, "Alice"))
    made = iam.create_group(GroupName="Admins", Path="/team/")["Group"]
    assert made["Arn"] == f"arn:aws:iam::{account.id}:group/team/Admins" and made["GroupId"].startswith("AGPA")
    iam.put_group_policy(GroupName="Admins", PolicyName="p", PolicyDocument=text("iam:ListUsers"))
    assert refusal(mine.list_users) == ("AccessDenied", 403)
    iam.add_user_to_group(GroupName="Admins", UserName="Alice")
    iam.add_user_to_group(GroupName="Admins", UserName="Alice")
    mine.list_users()
    assert refusal(mine.list_roles) == ("AccessDenied", 403)
    iam.attach_group_policy(GroupName="Admins", PolicyArn=READ)
    mine.list_roles()
    deny = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "iam:ListRoles", "Resource": "*"}]}
    iam.put_group_policy(GroupName="Admins", PolicyName="no", PolicyDocument=json.dumps(deny))
    assert refusal(mine.list_roles) == ("AccessDenied", 403)
    iam.delete_group_policy(GroupName="Admins", PolicyName="no")
    mine.list_roles()
    iam.detach_group_policy(GroupName="Admins", PolicyArn=READ)
    assert refusal(mine.list_roles) == ("AccessDenied", 403)
    mine.list_users()
    iam.remove_user_from_group(GroupName="Admins", UserName="Alice")
    assert refusal(mine.list_users) == ("AccessDenied", 403)
    assert refusal(iam.remove_user_from_group, GroupName="Admins", UserName="Alice") == ("NoSuchEntity", 404)


def test_a_managed_policy_of_a_group_changes_for_its_members_at_once(platform: Running, account: Account) -> None:
    iam = account.client("iam")
    mine = platform.client("iam", user(account, "Alice"))
    arn = iam.create_policy(PolicyName="P", PolicyDocument=text("iam:ListUsers"))["Policy"]["Arn"]
    iam.create_group(GroupName="G")
    iam.attach_group_policy(GroupName="G", PolicyArn=arn)
    iam.add_user_to_group(GroupName="G", UserName="Alice")
    mine.list_users()
    iam.create_policy_version(PolicyArn=arn, PolicyDocument=text("iam:ListRoles"), SetAsDefault=True)
    assert refusal(mine.list_users) == ("AccessDenied", 403)
    mine.list_roles()


def test_a_boundary_holds_for_what_groups_give(platform: Running, account: Account) -> None:
    iam = account.client("iam")
    mine = platform.client("iam", user(account, "Alice"))
    limit = iam.create_policy(PolicyName="Limit", PolicyDocument=text("iam:ListUsers"))["Policy"]["Arn"]
    iam.create_group(GroupName="G")
    iam.attach_group_policy(GroupName="G", PolicyArn=ADMINISTRATOR)
    iam.add_user_to_group(GroupName="G", UserName="Alice")
    mine.list_roles()
    iam.put_user_permissions_boundary(UserName="Alice", PermissionsBoundary=limit)
    mine.list_users()
    assert refusal(mine.list_roles) == ("AccessDenied", 403)


def test_who_is_in_a_group(account: Account) -> None:
    iam = account.client("iam")
    iam.create_group(GroupName="Big")
    iam.create_group(GroupName="Bigger")
    for number in range(5):
        iam.create_user(UserName=f"U{number}")
        iam.add_user_to_group(GroupName="Big", UserName=f"U{number}")
    iam.add_user_to_group(GroupName="Bigger", UserName="U3")
    pages = list(iam.get_paginator("get_group").paginate(GroupName="Big", PaginationConfig={"PageSize": 2}))
    assert [[one["UserName"] for one in page["Users"]] for page in pages] == [["U0", "U1"], ["U2", "U3"], ["U4"]]
    assert all(page["Group"]["GroupName"] == "Big" for page in pages)
    assert [one["UserName"] for one in iam.get_group(GroupName="Bigger")["Users"]] == ["U3"]
    assert [one["GroupName"] for one in iam.list_groups_for_user(UserName="U3")["Groups"]] == ["Big", "Bigger"]
    assert iam.list_groups_for_user(UserName="U3")["Groups"][0]["Arn"].endswith(":group/Big")
    assert [one["GroupName"] for one in iam.list_groups()["Groups"]] == ["Big", "Bigger"]
    assert iam.list_groups(PathPrefix="/none/")["Groups"] == []
    assert refusal(iam.create_group, GroupName="BIG") == ("EntityAlreadyExists", 409)
    assert refusal(iam.get_group, GroupName="None") == ("NoSuchEntity", 404)
    assert refusal(iam.add_user_to_group, GroupName="Big", UserName="None") == ("NoSuchEntity", 404)


def test_what_must_be_gone_before_a_group_or_a_user_is(account: Account) -> None:
    iam = account.client("iam")
    iam.create_group(GroupName="G")
    iam.create_user(UserName="U")
    iam.add_user_to_group(GroupName="G", UserName="U")
    assert refusal(iam.delete_group, GroupName="G") == ("DeleteConflict", 409)
    assert refusal(iam.delete_user, UserName="U") == ("DeleteConflict", 409)
    iam.remove_user_from_group(GroupName="G", UserName="U")
    iam.put_group_policy(GroupName="G", PolicyName="p", PolicyDocument=text("s3:*"))
    assert refusal(iam.delete_group, GroupName="G") == ("DeleteConflict", 409)
    iam.delete_group_policy(GroupName="G", PolicyName="p")
    iam.attach_group_policy(GroupName="G", PolicyArn=READ)
    assert refusal(iam.delete_group, GroupName="G") == ("DeleteConflict", 409)
    iam.detach_group_policy(GroupName="G", PolicyArn=READ)
    iam.delete_group(GroupName="G")
    iam.delete_user(UserName="U")


def test_quotas_of_groups(account: Account) -> None:
    iam = account.client("iam")
    iam.create_user(UserName="U")
    for number in range(11):
        iam.create_group(GroupName=f"G{number}")
    for number in range(10):
        iam.add_user_to_group(GroupName=f"G{number}", UserName="U")
    assert refusal(iam.add_user_to_group, GroupName="G10", UserName="U") == ("LimitExceeded", 409)
    assert refusal(
        iam.put_group_policy,
        GroupName="G0",
        PolicyName="p",
        PolicyDocument=text(*[f"s3:Get{number:04}" for number in range(500)]),
    ) == ("LimitExceeded", 409)
    for number in range(11):
        arn = iam.create_policy(PolicyName=f"P{number}", PolicyDocument=text("s3:*"))["Policy"]["Arn"]
        if number < 10:
            iam.attach_group_policy(GroupName="G0", PolicyArn=arn)
    assert refusal(iam.attach_group_policy, GroupName="G0", PolicyArn=arn) == ("LimitExceeded", 409)


def test_names_change_and_nothing_is_lost(platform: Running, account: Account) -> None:
    iam = account.client("iam")
    keys = user(account, "Old", allow("iam:GetUser", resource=f"arn:aws:iam::{account.id}:user/${{aws:username}}"))
    mine = platform.client("iam", keys)
    limit = iam.create_policy(PolicyName="Limit", PolicyDocument=text("iam:*"))["Policy"]["Arn"]
    iam.put_user_permissions_boundary(UserName="Old", PermissionsBoundary=limit)
    iam.tag_user(UserName="Old", Tags=[{"Key": "team", "Value": "a"}])
    iam.create_group(GroupName="Before")
    iam.put_group_policy(GroupName="Before", PolicyName="p", PolicyDocument=text("iam:ListUsers"))
    iam.attach_group_policy(GroupName="Before", PolicyArn=READ)
    iam.add_user_to_group(GroupName="Before", UserName="Old")
    before = mine.get_user()["User"]

    iam.update_user(UserName="Old", NewUserName="New", NewPath="/x/")
    iam.update_group(GroupName="Before", NewGroupName="After", NewPath="/g/")

    after = mine.get_user()["User"]
    assert (after["UserName"], after["Arn"]) == ("New", f"arn:aws:iam::{account.id}:user/x/New")
    assert after["UserId"] == before["UserId"] and after["CreateDate"] == before["CreateDate"]
    assert after["Tags"] == before["Tags"] and after["PermissionsBoundary"] == before["PermissionsBoundary"]
    assert platform.client("sts", keys).get_caller_identity()["Arn"] == after["Arn"]
    mine.list_users()
    [group] = iam.list_groups_for_user(UserName="New")["Groups"]
    assert group["Arn"] == f"arn:aws:iam::{account.id}:group/g/After"
    assert [one["UserName"] for one in iam.get_group(GroupName="After")["Users"]] == ["New"]
    assert [one["AccessKeyId"] for one in iam.list_access_keys(UserName="New")["AccessKeyMetadata"]] == [
        keys.access_key
    ]
    users = iam.list_entities_for_policy(PolicyArn=limit)["PolicyUsers"]
    assert users == [{"UserName": "New", "UserId": before["UserId"]}]
    groups = iam.list_entities_for_policy(PolicyArn=READ)["PolicyGroups"]
    assert groups == [{"GroupName": "After", "GroupId": group["GroupId"]}]
    assert refusal(iam.get_user, UserName="Old") == ("NoSuchEntity", 404)
    assert refusal(iam.get_group, GroupName="Before") == ("NoSuchEntity", 404)
    iam.create_user(UserName="Old")
    iam.create_group(GroupName="Before")
    assert refusal(iam.update_user, UserName="New", NewUserName="OLD") == ("EntityAlreadyExists", 409)
    assert refusal(iam.update_group, GroupName="After", NewGroupName="BEFORE") == ("EntityAlreadyExists", 409)
    iam.update_user(UserName="Old", NewUserName="OLD")
    assert iam.get_user(UserName="OLD")["User"]["UserName"] == "OLD"


def test_a_new_name_needs_permission_on_both(platform: Running, account: Account) -> None:
    iam = account.client("iam")
    for name in ("a", "b"):
        iam.create_user(UserName=name)
        iam.create_group(GroupName=name)
    arn = f"arn:aws:iam::{account.id}"
    keys = user(account, "Renamer")
    policy = allow("iam:UpdateUser", "iam:UpdateGroup", resource=[f"{arn}:user/a", f"{arn}:group/a"])
    iam.put_user_policy(UserName="Renamer", PolicyName="p", PolicyDocument=json.dumps(policy))
    mine = platform.client("iam", keys)
    assert refusal(mine.update_user, UserName="a", NewUserName="c") == ("AccessDenied", 403)
    assert refusal(mine.update_group, GroupName="a", NewGroupName="c") == ("AccessDenied", 403)
    assert refusal(mine.update_user, UserName="b", NewUserName="a") == ("AccessDenied", 403)
    both = allow(
        "iam:UpdateUser",
        "iam:UpdateGroup",
        resource=[f"{arn}:{kind}/{name}" for kind in ("user", "group") for name in "ac"],
    )
    iam.put_user_policy(UserName="Renamer", PolicyName="p", PolicyDocument=json.dumps(both))
    mine.update_user(UserName="a", NewUserName="c")
    mine.update_group(GroupName="a", NewGroupName="c")


def test_only_the_named_policy_may_be_attached_to_a_group(platform: Running, account: Account) -> None:
    iam = account.client("iam")
    iam.create_group(GroupName="G")
    keys = user(account, "Attacher", allow("iam:AttachGroupPolicy", Condition={"ArnEquals": {"iam:PolicyARN": READ}}))
    mine = platform.client("iam", keys)
    mine.attach_group_policy(GroupName="G", PolicyArn=READ)
    assert refusal(mine.attach_group_policy, GroupName="G", PolicyArn=ADMINISTRATOR) == ("AccessDenied", 403)
