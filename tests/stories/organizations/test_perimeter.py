"""Resource control policies: what is in the organisation stays with its own principals, whatever a resource allows."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.platform import HOME, Account, Running, allow
from tests.stories.organizations.tree import RCP, Tree, code, document, refusal
from tests.waiting import until

DENIED = "explicit deny in a resource control policy"
PERIMETER: dict[str, Any] = {
    "Principal": "*",
    "Condition": {
        "StringNotEqualsIfExists": {"aws:PrincipalOrgID": "ORG"},
        "BoolIfExists": {"aws:PrincipalIsAWSService": "false"},
    },
}


def perimeter(tree: Tree, *actions: str) -> str:
    return document("Deny", *actions, **json.loads(json.dumps(PERIMETER).replace("ORG", tree.id)))


@pytest.fixture
def outside(platform: Running, tree: Tree) -> Account:
    """An account that belongs to no organisation."""
    found = platform.account()
    assert found.keys
    tree.org.remove_account_from_organization(AccountId=found.id)
    return found


def read(running: Running, bucket: str) -> int:
    """Status of an unsigned read."""
    try:
        with urllib.request.urlopen(f"{running.http}/{bucket}/k", timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_a_bucket_that_is_open_to_everybody(
    platform: Running, tree: Tree, account: Account, neighbour: Account, outside: Account
) -> None:
    s3, bucket = account.client("s3"), f"perimeter-{account.id}"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.delete_public_access_block(Bucket=bucket)
    everybody = allow("s3:GetObject", resource=f"arn:aws:s3:::{bucket}/*", Principal="*")
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(everybody))
    given = {"Bucket": bucket, "Key": "k"}
    outside.client("s3").get_object(**given)
    assert read(platform, bucket) == 200
    unit = tree.unit()
    tree.move(account, unit)
    policy = tree.bind(unit, perimeter(tree, "s3:*"), RCP)
    said = refusal(outside.client("s3").get_object, **given)
    assert said[0] == "AccessDenied" and DENIED in said[1]
    assert read(platform, bucket) == 403
    neighbour.client("s3").get_object(**given)
    s3.get_object(**given)
    tree.free(unit, policy)
    outside.client("s3").get_object(**given)


def test_a_key_and_a_role_that_trust_an_account_outside(tree: Tree, account: Account, outside: Account) -> None:
    kms, there = account.client("kms"), {"AWS": [account.id, outside.id]}
    open_key = json.dumps(allow("kms:*", Principal=there))
    key = kms.create_key(Policy=open_key)["KeyMetadata"]["Arn"]
    role = account.role("Guest", trust=there)
    theirs, sts = outside.client("kms"), outside.client("sts")
    theirs.encrypt(KeyId=key, Plaintext=b"x")
    sts.assume_role(RoleArn=role, RoleSessionName="guest")
    tree.bind(account.id, perimeter(tree, "kms:*", "sts:AssumeRole"), RCP)
    assert code(theirs.encrypt, KeyId=key, Plaintext=b"x") == "AccessDeniedException"
    said = refusal(sts.assume_role, RoleArn=role, RoleSessionName="guest")
    assert said[0] == "AccessDenied" and DENIED in said[1]
    kms.encrypt(KeyId=key, Plaintext=b"x")
    account.as_role("Guest")


def test_services_are_let_in_for_accounts_of_the_organisation(tree: Tree, account: Account, outside: Account) -> None:
    """`aws:PrincipalIsAWSService` and `aws:SourceOrgID`: a service acts for whoever configured it."""
    s3, bucket = account.client("s3"), f"trails-{account.id}"
    s3.create_bucket(Bucket=bucket)
    statements = [
        {"Action": "s3:GetBucketAcl", "Resource": f"arn:aws:s3:::{bucket}"},
        {"Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{bucket}/*"},
    ]
    service = {"Effect": "Allow", "Principal": {"Service": "cloudtrail.amazonaws.com"}}
    open_to_all = {"Version": "2012-10-17", "Statement": [{**service, **one} for one in statements]}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(open_to_all))
    tree.bind(account.id, perimeter(tree, "s3:*"), RCP)
    trails = {}
    for one in (account, outside):
        trails[one.id] = one.client("cloudtrail")
        trails[one.id].create_trail(Name="t", S3BucketName=bucket)
        trails[one.id].start_logging(Name="t")

    def delivered(id: str) -> bool:
        return bool(s3.list_objects_v2(Bucket=bucket, Prefix=f"AWSLogs/{id}/", MaxKeys=1).get("Contents"))

    def failed(id: str) -> bool:
        return bool(trails[id].get_trail_status(Name="t").get("LatestDeliveryError"))

    until(lambda: delivered(account.id) and delivered(outside.id))
    foreign = {
        "StringNotEqualsIfExists": {"aws:SourceOrgID": tree.id},
        "Null": {"aws:SourceAccount": "false"},
        "Bool": {"aws:PrincipalIsAWSService": "true"},
    }
    tree.bind(account.id, document("Deny", "s3:PutObject", Principal="*", Condition=foreign), RCP)
    for one in (account, outside):
        one.client("iam").create_user(UserName="after")
    until(lambda: failed(outside.id))
    assert not failed(account.id)


def test_a_policy_may_spare_a_unit(tree: Tree, account: Account, neighbour: Account) -> None:
    """`aws:PrincipalOrgPaths`: only who stands below one unit may."""
    kms = account.client("kms")
    key = kms.create_key(Policy=json.dumps(allow("kms:*", Principal={"AWS": [account.id, neighbour.id]})))
    arn = key["KeyMetadata"]["Arn"]
    unit = tree.unit()
    below = tree.unit(unit)
    spared = {"ForAllValues:StringNotLike": {"aws:PrincipalOrgPaths": f"{tree.id}/{tree.root}/{unit}/*"}}
    tree.bind(account.id, document("Deny", "kms:Encrypt", Principal="*", Condition=spared), RCP)
    theirs = neighbour.client("kms")
    assert code(theirs.encrypt, KeyId=arn, Plaintext=b"x") == "AccessDeniedException"
    tree.move(neighbour, below)
    theirs.encrypt(KeyId=arn, Plaintext=b"x")


def test_what_they_do_not_touch(platform: Running, tree: Tree, account: Account) -> None:
    everybody = document("Deny", "kms:*", "s3:*", Principal="*")
    tree.bind(account.id, everybody, RCP)
    assert code(account.client("kms").list_aliases) == "AccessDeniedException", "the account's root of trust is no help"
    tree.org.attach_policy(PolicyId=tree.policy(everybody, RCP), TargetId=HOME)
    key = platform.client("kms").create_key()["KeyMetadata"]["Arn"]
    platform.client("kms").encrypt(KeyId=key, Plaintext=b"x")
    # A service that resource control policies do not reach yet.
    tree.bind(account.id, document("Deny", "iam:*", Principal="*"), RCP)
    account.client("iam").list_users()


def test_syntax_and_the_policy_that_is_always_there(tree: Tree, account: Account) -> None:
    org = tree.org
    [full] = org.list_policies_for_target(TargetId=account.id, Filter=RCP)["Policies"]
    assert (full["Id"], full["Name"], full["AwsManaged"]) == ("p-RCPFullAWSAccess", "RCPFullAWSAccess", True)
    assert json.loads(org.describe_policy(PolicyId=full["Id"])["Policy"]["Content"])["Statement"][0]["Principal"] == "*"
    assert code(org.detach_policy, PolicyId=full["Id"], TargetId=account.id) == "InvalidInputException"
    assert code(org.update_policy, PolicyId=full["Id"], Name="x") == "InvalidInputException"
    for text in (
        document("Allow", "s3:*", Principal="*"),
        document("Allow", "*", Principal="*"),
        document("Deny", "*", Principal="*"),
        document("Deny", "*:Get*", Principal="*"),
        document("Deny", "s3:*"),
        document("Deny", "s3:*", Principal={"AWS": account.id}),
        json.dumps(allow("s3:*") | {"Statement": [{"Effect": "Deny", "Principal": "*", "NotAction": "s3:*"}]}),
    ):
        given = {"Name": "bad", "Description": "", "Type": RCP, "Content": text}
        assert code(org.create_policy, **given) == "MalformedPolicyDocumentException", text
    text = document("Deny", "s3:GetObject", Principal="*")
    made = [tree.bind(account.id, text, RCP) for _ in range(4)]
    assert code(org.attach_policy, PolicyId=tree.policy(text, RCP), TargetId=account.id) == (
        "ConstraintViolationException"
    )
    shown = org.describe_policy(PolicyId=made[0])["Policy"]["PolicySummary"]
    assert shown["Type"] == RCP and f"/resource_control_policy/{made[0]}" in shown["Arn"]
    pages = org.get_paginator("list_policies").paginate(Filter=RCP, PaginationConfig={"PageSize": 2})
    listed = [one["Id"] for page in pages for one in page["Policies"]]
    assert listed[0] == "p-RCPFullAWSAccess" and set(made) < set(listed) and len(set(listed)) == len(listed)
    assert {one["Type"] for page in pages for one in page["Policies"]} == {RCP}
