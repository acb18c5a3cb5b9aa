"""Users, roles, keys and policies as boto3 sees them."""

from __future__ import annotations

import json
import time
from typing import Any

import botocore.exceptions
import pytest

from bastide.services.iam.managed import MANAGED
from tests.platform import Account, Keys, Running, allow

TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ],
    }
)


def refusal(work: Any, *args: Any, **given: Any) -> tuple[str, int]:
    """Code and status of a call that must be refused."""
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        work(*args, **given)
    answer = caught.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]


def text(*actions: str, resource: str = "*") -> str:
    return json.dumps(allow(*actions, resource=resource))


def user(account: Account, name: str, policy: dict[str, Any] | None = None) -> Keys:
    """A user with a key and one inline policy."""
    iam = account.client("iam")
    iam.create_user(UserName=name)
    if policy is not None:
        iam.put_user_policy(UserName=name, PolicyName="inline", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return Keys(key["AccessKeyId"], key["SecretAccessKey"])


def test_a_role_lives(account: Account) -> None:
    iam = account.client("iam")
    made = iam.create_role(
        RoleName="Trainer",
        Path="/ml/",
        AssumeRolePolicyDocument=TRUST,
        Description="trains",
        MaxSessionDuration=7200,
        Tags=[{"Key": "team", "Value": "risk"}],
    )["Role"]
    assert made["Arn"] == f"arn:aws:iam::{account.id}:role/ml/Trainer"
    assert made["RoleId"].startswith("AROA") and len(made["RoleId"]) == 21
    found = iam.get_role(RoleName="Trainer")["Role"]
    assert found["AssumeRolePolicyDocument"] == json.loads(TRUST)
    assert found["MaxSessionDuration"] == 7200 and found["Tags"] == [{"Key": "team", "Value": "risk"}]
    assert refusal(iam.create_role, RoleName="TRAINER", AssumeRolePolicyDocument=TRUST) == ("EntityAlreadyExists", 409)
    assert refusal(iam.get_role, RoleName="Nobody") == ("NoSuchEntity", 404)

    iam.update_role(RoleName="Trainer", Description="rests", MaxSessionDuration=3600)
    other = json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": {"Effect": "Allow", "Principal": {"AWS": account.id}, "Action": "sts:AssumeRole"},
        }
    )
    iam.update_assume_role_policy(RoleName="Trainer", PolicyDocument=other)
    iam.tag_role(RoleName="Trainer", Tags=[{"Key": "Team", "Value": "credit"}, {"Key": "cost", "Value": "1"}])
    iam.untag_role(RoleName="Trainer", TagKeys=["COST"])
    found = iam.get_role(RoleName="Trainer")["Role"]
    assert (found["Description"], found["MaxSessionDuration"]) == ("rests", 3600)
    assert found["AssumeRolePolicyDocument"] == json.loads(other)
    assert iam.list_role_tags(RoleName="Trainer")["Tags"] == [{"Key": "Team", "Value": "credit"}]
    assert [one["RoleName"] for one in iam.list_roles(PathPrefix="/ml/")["Roles"]] == ["Trainer"]

    iam.put_role_policy(RoleName="Trainer", PolicyName="p", PolicyDocument=text("s3:GetObject"))
    assert refusal(iam.delete_role, RoleName="Trainer") == ("DeleteConflict", 409)
    assert iam.get_role_policy(RoleName="Trainer", PolicyName="p")["PolicyDocument"] == allow("s3:GetObject")
    assert iam.list_role_policies(RoleName="Trainer")["PolicyNames"] == ["p"]
    iam.delete_role_policy(RoleName="Trainer", PolicyName="p")
    assert refusal(iam.get_role_policy, RoleName="Trainer", PolicyName="p") == ("NoSuchEntity", 404)
    iam.delete_role(RoleName="Trainer")
    assert refusal(iam.get_role, RoleName="Trainer") == ("NoSuchEntity", 404)


def test_documents_are_read_when_they_are_written(account: Account) -> None:
    iam = account.client("iam")
    bad = [
        "{}",
        "not json",
        text("s3"),
        json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Maybe", "Action": "*", "Resource": "*"}]}),
        json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*", "Principal": "*"}],
            }
        ),
        json.dumps(allow("s3:*", Condition={"StringEqualz": {"aws:username": "x"}})),
    ]
    account.role("Held")
    for document in bad:
        for call in (
            lambda document: iam.create_policy(PolicyName="p", PolicyDocument=document),
            lambda document: iam.put_role_policy(RoleName="Held", PolicyName="p", PolicyDocument=document),
        ):
            assert refusal(call, document) == ("MalformedPolicyDocument", 400), document
    assert refusal(iam.create_role, RoleName="R", AssumeRolePolicyDocument=text("sts:AssumeRole")) == (
        "MalformedPolicyDocument",
        400,
    )
    assert refusal(
        iam.put_role_policy,
        RoleName="Held",
        PolicyName="p",
        PolicyDocument=text(*[f"s3:Get{n:04}" for n in range(1200)]),
    ) == (
        "LimitExceeded",
        409,
    )
    assert iam.list_role_policies(RoleName="Held")["PolicyNames"] == []


def test_a_managed_policy_and_its_versions(account: Account) -> None:
    iam = account.client("iam")
    made = iam.create_policy(PolicyName="Read", Path="/x/", PolicyDocument=text("iam:GetRole"), Description="d")[
        "Policy"
    ]
    arn = made["Arn"]
    assert (arn, made["DefaultVersionId"]) == (f"arn:aws:iam::{account.id}:policy/x/Read", "v1")
    account.role("R")
    account.role("Other")
    iam.attach_role_policy(RoleName="R", PolicyArn=arn)
    iam.attach_role_policy(RoleName="R", PolicyArn=arn)
    assert iam.list_attached_role_policies(RoleName="R")["AttachedPolicies"] == [
        {"PolicyName": "Read", "PolicyArn": arn}
    ]
    assert iam.get_policy(PolicyArn=arn)["Policy"]["AttachmentCount"] == 1
    session = account.client("iam", account.as_role("R"))
    session.get_role(RoleName="Other")
    for _ in range(4):
        version = iam.create_policy_version(PolicyArn=arn, PolicyDocument=text("iam:GetUser"))["PolicyVersion"]
    assert (version["VersionId"], version["IsDefaultVersion"]) == ("v5", False)
    assert refusal(iam.create_policy_version, PolicyArn=arn, PolicyDocument=text("s3:*")) == ("LimitExceeded", 409)
    session.get_role(RoleName="Other")
    iam.set_default_policy_version(PolicyArn=arn, VersionId="v5")
    assert refusal(session.get_role, RoleName="Other") == ("AccessDenied", 403)
    assert refusal(iam.delete_policy_version, PolicyArn=arn, VersionId="v5") == ("DeleteConflict", 409)
    for name in ("v1", "v2", "v3", "v4"):
        iam.delete_policy_version(PolicyArn=arn, VersionId=name)
    shown = iam.get_policy_version(PolicyArn=arn, VersionId="v5")["PolicyVersion"]
    assert shown["Document"] == allow("iam:GetUser") and shown["IsDefaultVersion"]
    assert [one["VersionId"] for one in iam.list_policy_versions(PolicyArn=arn)["Versions"]] == ["v5"]
    assert refusal(iam.delete_policy, PolicyArn=arn) == ("DeleteConflict", 409)
    iam.detach_role_policy(RoleName="R", PolicyArn=arn)
    assert refusal(iam.detach_role_policy, RoleName="R", PolicyArn=arn) == ("NoSuchEntity", 404)
    iam.delete_policy(PolicyArn=arn)
    assert refusal(iam.get_policy, PolicyArn=arn) == ("NoSuchEntity", 404)
    assert refusal(iam.attach_role_policy, RoleName="R", PolicyArn=arn) == ("NoSuchEntity", 404)
    assert refusal(iam.attach_role_policy, RoleName="R", PolicyArn="arn:aws:iam::aws:policy/NoSuch") == (
        "NoSuchEntity",
        404,
    )


def test_the_policies_that_aws_brings(account: Account) -> None:
    iam = account.client("iam")
    arn = "arn:aws:iam::aws:policy/AdministratorAccess"
    shown = iam.get_policy(PolicyArn=arn)["Policy"]
    document = iam.get_policy_version(PolicyArn=arn, VersionId=shown["DefaultVersionId"])["PolicyVersion"]["Document"]
    assert document == allow("*") | {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    assert refusal(iam.delete_policy, PolicyArn=arn) == ("AccessDenied", 403)
    own = iam.create_policy(PolicyName="Own", PolicyDocument=text("s3:*"))["Policy"]["Arn"]
    count = len(MANAGED) + 1
    for size in (67, count - 1, count, 1000):
        pages = iam.get_paginator("list_policies").paginate(PaginationConfig={"PageSize": size})
        found = [[one["Arn"] for one in page["Policies"]] for page in pages]
        assert all(len(page) <= size for page in found)
        names = [name for page in found for name in page]
        assert arn in names and names[-1] == own and len(names) == len(set(names)) == count
    assert [one["Arn"] for one in iam.list_policies(Scope="Local")["Policies"]] == [own]


def test_a_user_and_its_keys(platform: Running, account: Account) -> None:
    iam = account.client("iam")
    keys = user(
        account,
        "Alice",
        allow("iam:GetUser", "iam:ListAccessKeys", resource=f"arn:aws:iam::{account.id}:user/${{aws:username}}"),
    )
    mine = platform.client("iam", keys)
    assert mine.get_user()["User"]["UserName"] == "Alice"
    assert platform.client("sts", keys).get_caller_identity()["Arn"] == f"arn:aws:iam::{account.id}:user/Alice"
    assert refusal(mine.get_user, UserName="Bob") == ("AccessDenied", 403)
    assert refusal(iam.get_user) == ("ValidationError", 400)
    [held] = mine.list_access_keys()["AccessKeyMetadata"]
    assert (held["AccessKeyId"], held["Status"]) == (keys.access_key, "Active")
    iam.create_access_key(UserName="Alice")
    assert refusal(iam.create_access_key, UserName="Alice") == ("LimitExceeded", 409)
    iam.update_access_key(UserName="Alice", AccessKeyId=keys.access_key, Status="Inactive")
    assert refusal(mine.get_user) == ("InvalidClientTokenId", 403)
    iam.update_access_key(UserName="Alice", AccessKeyId=keys.access_key, Status="Active")
    mine.get_user()
    assert refusal(iam.delete_user, UserName="Alice") == ("DeleteConflict", 409)
    for one in iam.list_access_keys(UserName="Alice")["AccessKeyMetadata"]:
        iam.delete_access_key(UserName="Alice", AccessKeyId=one["AccessKeyId"])
    assert refusal(mine.get_user) == ("InvalidClientTokenId", 403)
    iam.delete_user_policy(UserName="Alice", PolicyName="inline")
    iam.delete_user(UserName="Alice")


def test_secrets_are_nowhere(platform: Running, account: Account) -> None:
    keys = user(account, "Carol")
    time.sleep(0.2)
    for file in [*platform.data.glob("bastide.db*"), *platform.data.glob("journal*")]:
        if file.is_file():
            assert keys.secret.encode() not in file.read_bytes(), file


@pytest.mark.control("IAM-01")
def test_a_boundary_limits(platform: Running, account: Account) -> None:
    iam = account.client("iam")
    boundary = iam.create_policy(PolicyName="Limit", PolicyDocument=text("iam:GetUser"))["Policy"]["Arn"]
    keys = user(account, "Dave", allow("iam:*"))
    mine = platform.client("iam", keys)
    mine.list_roles()
    iam.put_user_permissions_boundary(UserName="Dave", PermissionsBoundary=boundary)
    assert refusal(mine.list_roles) == ("AccessDenied", 403)
    shown = mine.get_user()["User"]
    assert shown["PermissionsBoundary"]["PermissionsBoundaryArn"] == boundary
    assert refusal(mine.delete_user_permissions_boundary, UserName="Dave") == ("AccessDenied", 403)
    assert refusal(iam.delete_policy, PolicyArn=boundary) == ("DeleteConflict", 409)
    iam.delete_user_permissions_boundary(UserName="Dave")
    mine.list_roles()
    iam.delete_policy(PolicyArn=boundary)


def test_who_delegates_may_insist_on_a_boundary(platform: Running, account: Account) -> None:
    iam = account.client("iam")
    limit = iam.create_policy(PolicyName="Limit", PolicyDocument=text("s3:*"))["Policy"]["Arn"]
    condition = {"StringEquals": {"iam:PermissionsBoundary": limit}}
    keys = user(
        account, "Delegate", allow("iam:CreateRole", "iam:PutRolePolicy", "iam:AttachRolePolicy", Condition=condition)
    )
    mine = platform.client("iam", keys)
    assert refusal(mine.create_role, RoleName="Free", AssumeRolePolicyDocument=TRUST) == ("AccessDenied", 403)
    mine.create_role(RoleName="Bound", AssumeRolePolicyDocument=TRUST, PermissionsBoundary=limit)
    mine.put_role_policy(RoleName="Bound", PolicyName="p", PolicyDocument=text("s3:*"))
    account.role("Unbound")
    assert refusal(mine.put_role_policy, RoleName="Unbound", PolicyName="p", PolicyDocument=text("*")) == (
        "AccessDenied",
        403,
    )


def test_only_the_named_policy_may_be_attached(platform: Running, account: Account) -> None:
    iam = account.client("iam")
    wanted = iam.create_policy(PolicyName="Wanted", PolicyDocument=text("s3:*"))["Policy"]["Arn"]
    keys = user(account, "Attacher", allow("iam:AttachRolePolicy", Condition={"ArnEquals": {"iam:PolicyARN": wanted}}))
    mine = platform.client("iam", keys)
    account.role("R")
    mine.attach_role_policy(RoleName="R", PolicyArn=wanted)
    administrator = "arn:aws:iam::aws:policy/AdministratorAccess"
    assert refusal(mine.attach_role_policy, RoleName="R", PolicyArn=administrator) == ("AccessDenied", 403)


def test_tags_decide(platform: Running, account: Account) -> None:
    iam = account.client("iam")
    iam.create_role(RoleName="Mine", AssumeRolePolicyDocument=TRUST, Tags=[{"Key": "team", "Value": "a"}])
    iam.create_role(RoleName="Theirs", AssumeRolePolicyDocument=TRUST, Tags=[{"Key": "team", "Value": "b"}])
    keys = user(
        account,
        "Tagged",
        allow("iam:GetRole", Condition={"StringEquals": {"iam:ResourceTag/team": "${aws:PrincipalTag/team}"}}),
    )
    mine = platform.client("iam", keys)
    assert refusal(mine.get_role, RoleName="Mine") == ("AccessDenied", 403)
    iam.tag_user(UserName="Tagged", Tags=[{"Key": "team", "Value": "a"}])
    mine.get_role(RoleName="Mine")
    assert refusal(mine.get_role, RoleName="Theirs") == ("AccessDenied", 403)


def test_names_of_nothing_reveal_nothing(platform: Running, account: Account) -> None:
    account.role("Exists")
    mine = platform.client("iam", user(account, "Curious"))
    assert (
        refusal(mine.get_role, RoleName="Exists") == refusal(mine.get_role, RoleName="Missing") == ("AccessDenied", 403)
    )


@pytest.mark.control("ACC-01")
def test_neighbours_stay_out(account: Account, neighbour: Account) -> None:
    arn = account.client("iam").create_policy(PolicyName="P", PolicyDocument=text("s3:*"))["Policy"]["Arn"]
    theirs = neighbour.client("iam")
    assert refusal(theirs.get_policy, PolicyArn=arn) == ("AccessDenied", 403)
    neighbour.role("R")
    assert refusal(theirs.attach_role_policy, RoleName="R", PolicyArn=arn) == ("NoSuchEntity", 404)


def test_lists_come_in_pages(account: Account) -> None:
    iam = account.client("iam")
    for number in range(7):
        iam.create_user(UserName=f"U{number}", Path="/even/" if number % 2 == 0 else "/odd/")
    pages = list(iam.get_paginator("list_users").paginate(PaginationConfig={"PageSize": 3}))
    assert [len(page["Users"]) for page in pages] == [3, 3, 1]
    even = iam.get_paginator("list_users").paginate(PathPrefix="/even/", PaginationConfig={"PageSize": 2})
    assert [one["UserName"] for page in even for one in page["Users"]] == ["U0", "U2", "U4", "U6"]
    marker = pages[0]["Marker"]
    assert refusal(iam.list_users, Marker=marker, PathPrefix="/even/") == ("ValidationError", 400)
    assert refusal(iam.list_users, Marker="made-up") == ("ValidationError", 400)
