"""What an account's security people read: last use, the credential report, summary, everything at once."""

from __future__ import annotations

import csv
import datetime
import json
from typing import Any

import pytest

from bastide.services.iam.managed import ADMINISTRATOR
from tests.platform import Account, Keys, Running, allow
from tests.stories.iam.test_entities import TRUST, refusal, text, user


def just_now(at: datetime.datetime) -> bool:
    return abs((datetime.datetime.now(datetime.UTC) - at).total_seconds()) < 60


def test_when_a_key_was_last_used(platform: Running, account: Account) -> None:
    iam = account.client("iam")
    keys = user(account, "U", allow("s3:ListAllMyBuckets"))
    told = iam.get_access_key_last_used(AccessKeyId=keys.access_key)
    assert told["UserName"] == "U" and told["AccessKeyLastUsed"] == {"ServiceName": "N/A", "Region": "N/A"}
    platform.client("s3", keys).list_buckets()
    used = iam.get_access_key_last_used(AccessKeyId=keys.access_key)["AccessKeyLastUsed"]
    assert (used["ServiceName"], used["Region"]) == ("s3", "us-east-1") and just_now(used["LastUsedDate"])
    assert refusal(platform.client("logs", keys, region="eu-central-1").describe_log_groups)[0] in (
        "AccessDeniedException",
        "InvalidRegion",
    )
    assert refusal(platform.client("iam", keys).list_users) == ("AccessDenied", 403)
    used = iam.get_access_key_last_used(AccessKeyId=keys.access_key)["AccessKeyLastUsed"]
    assert used["ServiceName"] == "iam", "a call that is refused is a use of the key, too"
    forged = Keys(keys.access_key, "x" * 40)
    assert refusal(platform.client("s3", forged).list_buckets)[0] == "SignatureDoesNotMatch"
    used = iam.get_access_key_last_used(AccessKeyId=keys.access_key)["AccessKeyLastUsed"]
    assert used["ServiceName"] == "iam", "who cannot sign with a key has not used it"


def test_whose_keys_may_be_asked_about(platform: Running, account: Account, neighbour: Account) -> None:
    theirs = user(neighbour, "Theirs")
    mine = user(account, "Mine", allow("iam:GetAccessKeyLastUsed", resource=f"arn:aws:iam::{account.id}:user/Mine"))
    other = user(account, "Other")
    iam = platform.client("iam", mine)
    iam.get_access_key_last_used(AccessKeyId=mine.access_key)
    assert refusal(iam.get_access_key_last_used, AccessKeyId=other.access_key) == ("AccessDenied", 403)
    administrator = account.client("iam")
    unknown = refusal(administrator.get_access_key_last_used, AccessKeyId="AKIA" + "Z" * 16)
    assert refusal(administrator.get_access_key_last_used, AccessKeyId=theirs.access_key) == unknown
    assert unknown == ("NoSuchEntity", 404)


def test_keys_are_rotated(platform: Running, account: Account) -> None:
    iam = account.client("iam")
    old = user(account, "U", allow("iam:GetUser"))
    made = iam.create_access_key(UserName="U")["AccessKey"]
    new = Keys(made["AccessKeyId"], made["SecretAccessKey"])
    for keys in (old, new):
        platform.client("iam", keys).get_user()
    iam.update_access_key(UserName="U", AccessKeyId=old.access_key, Status="Inactive")
    assert refusal(platform.client("iam", old).get_user) == ("InvalidClientTokenId", 403)
    platform.client("iam", new).get_user()
    iam.delete_access_key(UserName="U", AccessKeyId=old.access_key)
    platform.client("iam", new).get_user()
    assert refusal(iam.get_access_key_last_used, AccessKeyId=old.access_key) == ("NoSuchEntity", 404)


def test_when_a_role_was_last_used(platform: Running, account: Account) -> None:
    iam = account.client("iam")
    account.role("R", allow("s3:ListAllMyBuckets"))
    assert iam.get_role(RoleName="R")["Role"]["RoleLastUsed"] == {}
    platform.client("s3", account.as_role("R")).list_buckets()
    used = iam.get_role(RoleName="R")["Role"]["RoleLastUsed"]
    assert used["Region"] == "us-east-1" and just_now(used["LastUsedDate"])
    assert "RoleLastUsed" not in iam.list_roles(PathPrefix="/")["Roles"][0]


def test_the_credential_report(platform: Running, account: Account) -> None:
    iam = account.client("iam")
    assert refusal(iam.get_credential_report) == ("ReportNotPresent", 410)
    used = user(account, "Used", allow("s3:ListAllMyBuckets"))
    platform.client("s3", used).list_buckets()
    user(account, "Idle")
    iam.update_access_key(
        UserName="Idle", AccessKeyId=iam.list_access_keys(UserName="Idle")["AccessKeyMetadata"][0]["AccessKeyId"],
        Status="Inactive",
    )  # fmt: skip
    iam.create_user(UserName="Bare")
    assert iam.generate_credential_report()["State"] == "STARTED"
    assert iam.generate_credential_report()["State"] == "COMPLETE"
    report = iam.get_credential_report()
    assert report["ReportFormat"] == "text/csv" and just_now(report["GeneratedTime"])
    lines = {line["user"]: line for line in csv.DictReader(report["Content"].decode().splitlines())}
    assert list(lines) == ["<root_account>", "Bare", "Idle", "Used"]
    assert list(lines["Used"])[:8] == [
        "user", "arn", "user_creation_time", "password_enabled", "password_last_used", "password_last_changed",
        "password_next_rotation", "mfa_active",
    ]  # fmt: skip
    assert list(lines["Used"])[8:13] == [
        "access_key_1_active", "access_key_1_last_rotated", "access_key_1_last_used_date",
        "access_key_1_last_used_region", "access_key_1_last_used_service",
    ]  # fmt: skip
    assert len(lines["Used"]) == 22
    told = lines["Used"]
    assert told["arn"] == f"arn:aws:iam::{account.id}:user/Used"
    assert (told["access_key_1_active"], told["access_key_1_last_used_service"]) == ("true", "s3")
    assert just_now(datetime.datetime.fromisoformat(told["access_key_1_last_used_date"]))
    assert just_now(datetime.datetime.fromisoformat(told["user_creation_time"]))
    assert lines["Idle"]["access_key_1_active"] == "false"
    assert lines["Idle"]["access_key_1_last_used_date"] == lines["Bare"]["access_key_1_last_rotated"] == "N/A"
    assert {line["password_enabled"] for line in lines.values()} == {"false"}
    root = lines["<root_account>"]
    assert root["arn"].endswith(":root") and root["access_key_1_active"] == root["mfa_active"] == "false"
    assert used.secret not in report["Content"].decode()


def test_the_account_in_numbers(account: Account) -> None:
    iam = account.client("iam")
    before = iam.get_account_summary()["SummaryMap"]
    for number in range(3):
        iam.create_user(UserName=f"U{number}")
    iam.create_group(GroupName="G")
    arn = iam.create_policy(PolicyName="P", PolicyDocument=text("s3:*"))["Policy"]["Arn"]
    iam.create_policy_version(PolicyArn=arn, PolicyDocument=text("s3:*"))
    iam.create_instance_profile(InstanceProfileName="I")
    iam.delete_user(UserName="U0")
    after = iam.get_account_summary()["SummaryMap"]
    moved = {key: after[key] - before[key] for key in after if after[key] != before[key]}
    assert moved == {"Users": 2, "Groups": 1, "Policies": 1, "PolicyVersionsInUse": 2, "InstanceProfiles": 1}
    assert before["Roles"] == 1 and after["UsersQuota"] == 5000 and after["VersionsPerPolicyQuota"] == 5


def test_an_account_has_one_alias_and_no_two_have_the_same(account: Account, neighbour: Account) -> None:
    iam, theirs = account.client("iam"), neighbour.client("iam")
    first, second = f"a-{account.id}", f"b-{account.id}"
    assert iam.list_account_aliases()["AccountAliases"] == []
    iam.create_account_alias(AccountAlias=first)
    iam.create_account_alias(AccountAlias=first)
    assert refusal(theirs.create_account_alias, AccountAlias=first) == ("EntityAlreadyExists", 409)
    iam.create_account_alias(AccountAlias=second)
    assert iam.list_account_aliases()["AccountAliases"] == [second]
    theirs.create_account_alias(AccountAlias=first)
    assert refusal(theirs.delete_account_alias, AccountAlias=second) == ("NoSuchEntity", 404)
    iam.delete_account_alias(AccountAlias=second)
    assert iam.list_account_aliases()["AccountAliases"] == []
    assert refusal(iam.create_account_alias, AccountAlias="No_Good") == ("ValidationError", 400)


def everything(account: Account) -> dict[str, Any]:
    iam = account.client("iam")
    iam.create_group(GroupName="G")
    iam.put_group_policy(GroupName="G", PolicyName="gp", PolicyDocument=text("s3:*"))
    limit = iam.create_policy(PolicyName="Limit", PolicyDocument=text("s3:*"), Description="d")["Policy"]["Arn"]
    iam.tag_policy(PolicyArn=limit, Tags=[{"Key": "k", "Value": "v"}])
    iam.create_policy_version(PolicyArn=limit, PolicyDocument=text("iam:*"))
    iam.create_user(UserName="U", PermissionsBoundary=limit, Tags=[{"Key": "k", "Value": "v"}])
    iam.put_user_policy(UserName="U", PolicyName="up", PolicyDocument=text("iam:*"))
    iam.add_user_to_group(GroupName="G", UserName="U")
    iam.create_user(UserName="V")
    iam.create_role(RoleName="R", AssumeRolePolicyDocument=TRUST, Description="d")
    iam.create_instance_profile(InstanceProfileName="I")
    iam.add_role_to_instance_profile(InstanceProfileName="I", RoleName="R")
    return {"limit": limit}


def test_everything_at_once(account: Account) -> None:
    iam = account.client("iam")
    limit = everything(account)["limit"]
    whole = iam.get_account_authorization_details()
    assert not whole["IsTruncated"]
    one, two = whole["UserDetailList"]
    assert (one["UserName"], one["GroupList"], one["Tags"]) == ("U", ["G"], [{"Key": "k", "Value": "v"}])
    assert one["UserPolicyList"] == [{"PolicyName": "up", "PolicyDocument": allow("iam:*")}]
    assert one["PermissionsBoundary"]["PermissionsBoundaryArn"] == limit
    assert two["UserName"] == "V" and two["GroupList"] == [] and "UserPolicyList" not in two
    [group] = whole["GroupDetailList"]
    assert group["GroupPolicyList"] == [{"PolicyName": "gp", "PolicyDocument": allow("s3:*")}]
    first, role = whole["RoleDetailList"]
    assert first["AttachedManagedPolicies"] == [{"PolicyName": "AdministratorAccess", "PolicyArn": ADMINISTRATOR}]
    assert role["AssumeRolePolicyDocument"] == json.loads(TRUST)
    assert [one["InstanceProfileName"] for one in role["InstanceProfileList"]] == ["I"]
    own, brought = whole["Policies"]
    assert (own["Arn"], own["Description"], own["PermissionsBoundaryUsageCount"]) == (limit, "d", 1)
    assert [(one["VersionId"], one["IsDefaultVersion"]) for one in own["PolicyVersionList"]] == [
        ("v2", False),
        ("v1", True),
    ]
    assert brought["Arn"] == ADMINISTRATOR and brought["AttachmentCount"] == 1
    assert brought["PolicyVersionList"][0]["Document"]["Statement"][0]["Action"] == "*"

    lists = ("UserDetailList", "GroupDetailList", "RoleDetailList", "Policies")
    assert first.pop("RoleLastUsed"), "this very session is of that role"
    for size in (1, 2, 3, 5, 7, 8):
        pages = list(
            iam.get_paginator("get_account_authorization_details").paginate(PaginationConfig={"PageSize": size})
        )
        for page in pages:
            for one in page["RoleDetailList"]:
                if one["RoleName"] == first["RoleName"]:
                    del one["RoleLastUsed"]
        counts = [sum(len(page[name]) for name in lists) for page in pages]
        assert all(0 < count <= size for count in counts) and sum(counts) == 7, size
        assert {name: [entity for page in pages for entity in page[name]] for name in lists} == {
            name: whole[name] for name in lists
        }, size
    only = iam.get_account_authorization_details(Filter=["Role", "AWSManagedPolicy"])
    assert [len(only[name]) for name in lists] == [0, 0, 2, 1]


def test_which_services_were_used(platform: Running, account: Account, neighbour: Account) -> None:
    iam = account.client("iam")
    keys = user(account, "U", allow("s3:List*"))
    iam.create_group(GroupName="G")
    iam.put_group_policy(GroupName="G", PolicyName="gp", PolicyDocument=text("logs:*"))
    iam.add_user_to_group(GroupName="G", UserName="U")
    platform.client("s3", keys).list_buckets()

    def services(arn: str) -> dict[str, Any]:
        job = iam.generate_service_last_accessed_details(Arn=arn)["JobId"]
        told = iam.get_service_last_accessed_details(JobId=job)
        assert (told["JobStatus"], told["JobType"]) == ("COMPLETED", "SERVICE_LEVEL")
        return {one["ServiceNamespace"]: one for one in told["ServicesLastAccessed"]}

    arn = f"arn:aws:iam::{account.id}:user/U"
    found = services(arn)
    assert set(found) == {"s3", "logs"}
    assert found["s3"]["LastAuthenticatedEntity"] == arn and just_now(found["s3"]["LastAuthenticated"])
    assert found["s3"]["TotalAuthenticatedEntities"] == 1 and found["s3"]["ServiceName"].startswith("Amazon Simple")
    assert found["logs"]["TotalAuthenticatedEntities"] == 0 and "LastAuthenticated" not in found["logs"]
    group = services(f"arn:aws:iam::{account.id}:group/G")
    assert set(group) == {"logs"}
    assert set(services(f"arn:aws:iam::{account.id}:role/OrganizationAccountAccessRole")) >= {"iam", "s3", "sagemaker"}
    reads = services("arn:aws:iam::aws:policy/IAMReadOnlyAccess")
    assert set(reads) == {"iam"} and reads["iam"]["TotalAuthenticatedEntities"] == 0
    given = {"Arn": arn, "ServiceNamespaces": ["s3", "logs", "iam"]}
    granting = iam.list_policies_granting_service_access(**given)["PoliciesGrantingServiceAccess"]
    inline = {"PolicyType": "INLINE"}
    assert granting == [
        {
            "ServiceNamespace": "s3",
            "Policies": [{"PolicyName": "inline", "EntityType": "USER", "EntityName": "U", **inline}],
        },
        {
            "ServiceNamespace": "logs",
            "Policies": [{"PolicyName": "gp", "EntityType": "GROUP", "EntityName": "G", **inline}],
        },
        {"ServiceNamespace": "iam", "Policies": []},
    ]
    job = iam.generate_service_last_accessed_details(Arn=arn)["JobId"]
    [who] = iam.get_service_last_accessed_details_with_entities(JobId=job, ServiceNamespace="s3")["EntityDetailsList"]
    assert (who["EntityInfo"]["Arn"], who["EntityInfo"]["Type"]) == (arn, "USER") and just_now(who["LastAuthenticated"])
    assert (
        iam.get_service_last_accessed_details_with_entities(JobId=job, ServiceNamespace="logs")["EntityDetailsList"]
        == []
    )
    other = user(account, "Other", allow("iam:GetServiceLastAccessedDetails"))
    assert refusal(platform.client("iam", other).get_service_last_accessed_details, JobId=job) == ("NoSuchEntity", 404)
    assert refusal(neighbour.client("iam").generate_service_last_accessed_details, Arn=arn) == ("AccessDenied", 403)


@pytest.mark.parametrize("arn", ["x" * 20, "arn:aws:s3:::bucket-of-mine", "arn:aws:iam::1:user/U"])
def test_of_what_last_use_may_be_asked(account: Account, arn: str) -> None:
    code = refusal(account.client("iam").generate_service_last_accessed_details, Arn=arn)[0]
    assert code in ("InvalidInput", "NoSuchEntity", "AccessDenied")
