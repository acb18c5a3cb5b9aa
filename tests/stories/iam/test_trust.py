"""Trust policies: who is named in them has to exist, and stays who it was."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, Running, allow
from tests.stories.iam.test_entities import TRUST, refusal, text, user


def trusting(*principals: str, **more: Any) -> str:
    named = principals[0] if len(principals) == 1 else list(principals)
    statement = {"Effect": "Allow", "Principal": {"AWS": named}, "Action": "sts:AssumeRole", **more}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def refused_to_assume(platform: Running, arn: str, keys: Any) -> str:
    with pytest.raises(ClientError) as caught:
        platform.assume(arn, keys)
    return str(caught.value.response["Error"]["Code"])


def test_a_role_made_anew_under_an_old_name_is_not_trusted(platform: Running, account: Account) -> None:
    iam = account.client("iam")
    account.role("Caller", allow("sts:AssumeRole"))
    caller = f"arn:aws:iam::{account.id}:role/Caller"
    id = iam.get_role(RoleName="Caller")["Role"]["RoleId"]
    target = iam.create_role(RoleName="Target", AssumeRolePolicyDocument=trusting(caller, account.id))["Role"]["Arn"]
    only = iam.create_role(RoleName="Only", AssumeRolePolicyDocument=trusting(caller))["Role"]["Arn"]
    for arn in (target, only):
        platform.assume(arn, account.as_role("Caller"))

    def shown(name: str) -> Any:
        return iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]["Statement"][0]["Principal"]["AWS"]

    assert shown("Only") == caller
    iam.delete_role_policy(RoleName="Caller", PolicyName="inline")
    iam.delete_role(RoleName="Caller")
    assert (shown("Only"), shown("Target")) == (id, [id, account.id])
    account.role("Caller", allow("sts:AssumeRole"))
    assert (shown("Only"), shown("Target")) == (id, [id, account.id])
    keys = account.as_role("Caller")
    assert refused_to_assume(platform, only, keys) == "AccessDenied"
    platform.assume(target, keys)  # its account is trusted still
    # What is shown cannot be written back: nobody has that id any more.
    assert refusal(iam.update_assume_role_policy, RoleName="Only", PolicyDocument=trusting(id)) == (
        "MalformedPolicyDocument",
        400,
    )
    iam.update_assume_role_policy(RoleName="Only", PolicyDocument=trusting(caller))
    assert shown("Only") == caller
    platform.assume(only, keys)


def test_a_deny_stays_with_whom_it_names(platform: Running, account: Account) -> None:
    iam = account.client("iam")
    account.role("Caller", allow("sts:AssumeRole"))
    caller = f"arn:aws:iam::{account.id}:role/Caller"
    document = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": account.id}, "Action": "sts:AssumeRole"},
            {"Effect": "Deny", "Principal": {"AWS": caller}, "Action": "sts:AssumeRole"},
        ],
    }
    target = iam.create_role(RoleName="T", AssumeRolePolicyDocument=json.dumps(document))["Role"]["Arn"]
    assert refused_to_assume(platform, target, account.as_role("Caller")) == "AccessDenied"
    iam.delete_role_policy(RoleName="Caller", PolicyName="inline")
    iam.delete_role(RoleName="Caller")
    account.role("Caller", allow("sts:AssumeRole"))
    platform.assume(target, account.as_role("Caller"))


def test_a_user_is_trusted_under_its_new_name(platform: Running, account: Account) -> None:
    iam = account.client("iam")
    keys = user(account, "Old", allow("sts:AssumeRole"))
    document = trusting(f"arn:aws:iam::{account.id}:user/Old")
    target = iam.create_role(RoleName="T", AssumeRolePolicyDocument=document)["Role"]["Arn"]
    platform.assume(target, keys)
    iam.update_user(UserName="Old", NewUserName="New", NewPath="/x/")
    platform.assume(target, keys)
    shown = iam.get_role(RoleName="T")["Role"]["AssumeRolePolicyDocument"]["Statement"][0]["Principal"]["AWS"]
    assert shown == f"arn:aws:iam::{account.id}:user/x/New"
    other = user(account, "Old", allow("sts:AssumeRole"))
    assert refused_to_assume(platform, target, other) == "AccessDenied"


def test_a_session_is_trusted_while_its_role_is_there(platform: Running, account: Account) -> None:
    iam = account.client("iam")
    account.role("Caller", allow("sts:AssumeRole"))
    session = f"arn:aws:sts::{account.id}:assumed-role/Caller/nightly"
    id = iam.get_role(RoleName="Caller")["Role"]["RoleId"]
    target = iam.create_role(RoleName="T", AssumeRolePolicyDocument=trusting(session))["Role"]["Arn"]
    platform.assume(target, account.as_role("Caller", "nightly"))
    assert refused_to_assume(platform, target, account.as_role("Caller", "daily")) == "AccessDenied"
    iam.delete_role_policy(RoleName="Caller", PolicyName="inline")
    iam.delete_role(RoleName="Caller")
    account.role("Caller", allow("sts:AssumeRole"))
    assert refused_to_assume(platform, target, account.as_role("Caller", "nightly")) == "AccessDenied"
    shown = iam.get_role(RoleName="T")["Role"]["AssumeRolePolicyDocument"]["Statement"][0]["Principal"]["AWS"]
    assert shown == f"{id}:nightly"


def test_whom_a_trust_policy_names_exists(platform: Running, account: Account, neighbour: Account) -> None:
    iam = account.client("iam")
    neighbour.role("Theirs")
    account.client("iam").create_role(RoleName="Pathed", Path="/ml/", AssumeRolePolicyDocument=TRUST)
    good = (
        "*",
        account.id,
        f"arn:aws:iam::{neighbour.id}:root",
        f"arn:aws:iam::{neighbour.id}:role/Theirs",
        f"arn:aws:iam::{account.id}:role/ml/Pathed",
    )
    iam.create_role(RoleName="Good", AssumeRolePolicyDocument=trusting(*good))
    for number, bad in enumerate(
        (
            "999988887777",
            "arn:aws:iam::999988887777:root",
            f"arn:aws:iam::{account.id}:role/None",
            f"arn:aws:iam::{account.id}:role/Pathed",
            f"arn:aws:iam::{account.id}:role/ml/pathed",
            f"arn:aws:iam::{account.id}:user/None",
            f"arn:aws:iam::{neighbour.id}:role/None",
            f"arn:aws:sts::{account.id}:assumed-role/None/s",
            f"arn:aws-cn:iam::{account.id}:role/ml/Pathed",
        )
    ):
        with pytest.raises(ClientError) as caught:
            iam.create_role(RoleName=f"Bad{number}", AssumeRolePolicyDocument=trusting(account.id, bad))
        error = caught.value.response["Error"]
        assert error["Code"] == "MalformedPolicyDocument"
        assert error["Message"] == f'Invalid principal in policy: "AWS":"{bad}"'
        assert refusal(iam.update_assume_role_policy, RoleName="Good", PolicyDocument=trusting(bad)) == (
            "MalformedPolicyDocument",
            400,
        )
    assert [one["RoleName"] for one in iam.list_roles()["Roles"]] == ["Good", "OrganizationAccountAccessRole", "Pathed"]
    assert refusal(iam.create_role, RoleName="R", AssumeRolePolicyDocument=text("sts:AssumeRole"))[0] == (
        "MalformedPolicyDocument"
    )
