"""Service control policies limit and never grant, wherever they are attached, and never the management account."""

from __future__ import annotations

import json

import pytest

from tests.platform import HOME, Account, Running, allow
from tests.stories.organizations.tree import SCP, Tree, code, document, refusal
from tests.stories.sagemaker.conftest import workshop_of

DENIED = "explicit deny in a service control policy"


@pytest.mark.control("ACC-20")
@pytest.mark.control("GRD-02")
@pytest.mark.parametrize("level", ["unit", "unit below", "account"])
def test_each_level_binds(tree: Tree, account: Account, neighbour: Account, level: str) -> None:
    above = tree.unit()
    below = tree.unit(above)
    tree.move(account, below)
    iam = account.client("iam")
    iam.list_users()
    target = {"unit": above, "unit below": below, "account": account.id}[level]
    policy = tree.bind(target, document("Deny", "iam:ListUsers"))
    said = refusal(iam.list_users)
    assert said[0] == "AccessDenied" and DENIED in said[1] and policy in said[1]
    iam.list_roles()
    neighbour.client("iam").list_users()
    tree.free(target, policy)
    iam.list_users()


@pytest.mark.control("GRD-02")
def test_the_root_binds_every_member_and_not_the_management_account(
    platform: Running, tree: Tree, account: Account
) -> None:
    policy = tree.bind(tree.root, document("Deny", "kms:ListAliases"))
    try:
        said = refusal(account.client("kms").list_aliases)
        assert said[0] == "AccessDeniedException" and DENIED in said[1]
        platform.client("kms").list_aliases()
        # Attached to the management account itself it binds no more.
        tree.org.attach_policy(PolicyId=policy, TargetId=HOME)
        platform.client("kms").list_aliases()
        tree.free(HOME, policy)
    finally:
        tree.free(tree.root, policy)
    account.client("kms").list_aliases()


@pytest.mark.control("GRD-02")
def test_what_is_allowed_is_the_intersection(tree: Tree, account: Account) -> None:
    above = tree.unit()
    tree.move(account, above)
    account.role("Reader", allow("iam:ListUsers", "iam:ListGroups", "kms:ListKeys"))
    account.role("Nothing")
    reader, nothing = account.as_role("Reader"), account.as_role("Nothing")
    # FullAWSAccess at every level grants nothing to who has no grants.
    assert code(account.client("iam", nothing).list_users) == "AccessDenied"
    policy = tree.bind(above, document("Allow", "iam:*", "organizations:*"))
    tree.free(above, "p-FullAWSAccess")
    account.client("iam", reader).list_users()
    said = refusal(account.client("kms", reader).list_keys)
    assert "no service control policy allows" in said[1]
    assert code(account.client("kms").list_keys) == "AccessDeniedException", "an administrator cannot exceed it"
    assert code(account.client("iam", reader).list_roles) == "AccessDenied", "and it grants nothing"
    tree.org.attach_policy(PolicyId="p-FullAWSAccess", TargetId=above)
    tree.free(above, policy)
    account.client("kms", reader).list_keys()


def test_a_member_bites_as_soon_as_it_is_moved(tree: Tree, account: Account) -> None:
    strict = tree.unit()
    tree.bind(strict, document("Deny", "iam:ListUsers"))
    iam = account.client("iam")
    iam.list_users()
    tree.move(account, strict)
    assert code(iam.list_users) == "AccessDenied"
    tree.move(account, tree.root)
    iam.list_users()


def test_the_policy_sees_whose_the_resource_is(tree: Tree, account: Account, neighbour: Account) -> None:
    """A service control policy keeps members from resources outside of the organisation (`aws:ResourceOrgID`)."""
    theirs = neighbour.client("s3")
    theirs.create_bucket(Bucket=f"org-{neighbour.id}")
    anyone = allow("s3:ListBucket", resource=f"arn:aws:s3:::org-{neighbour.id}", Principal={"AWS": account.id})
    theirs.put_bucket_policy(Bucket=f"org-{neighbour.id}", Policy=json.dumps(anyone))
    inside = {"StringNotEquals": {"aws:ResourceOrgID": tree.id}}
    tree.bind(account.id, document("Deny", "s3:*", Condition=inside))
    ours = account.client("s3")
    ours.list_objects_v2(Bucket=f"org-{neighbour.id}")
    tree.org.remove_account_from_organization(AccountId=neighbour.id)
    said = refusal(ours.list_objects_v2, Bucket=f"org-{neighbour.id}")
    assert said[0] == "AccessDenied" and DENIED in said[1]


@pytest.mark.control("GRD-02")
def test_what_services_do_with_a_members_role_is_bound(tree: Tree, account: Account) -> None:
    workshop = workshop_of(account)
    bound = tree.bind(account.id, document("Deny", "s3:GetObject"))
    failed = workshop.trained(workshop.train(""))
    assert failed["TrainingJobStatus"] == "Failed" and "service control policy" in failed["FailureReason"]
    tree.free(account.id, bound)
    assert workshop.trained(workshop.train(""))["TrainingJobStatus"] == "Completed"


@pytest.mark.control("GRD-02")
def test_limits_of_attaching(tree: Tree) -> None:
    unit = tree.unit()
    policies = [tree.bind(unit, document("Deny", "s3:ListAllMyBuckets")) for _ in range(4)]
    again = {"PolicyId": policies[0], "TargetId": unit}
    assert code(tree.org.attach_policy, **again) == "DuplicatePolicyAttachmentException"
    fifth = tree.policy(document("Deny", "s3:ListAllMyBuckets"))
    assert code(tree.org.attach_policy, PolicyId=fifth, TargetId=unit) == "ConstraintViolationException"
    for policy in [*policies[1:], "p-FullAWSAccess"]:
        tree.free(unit, policy)
    assert code(tree.org.detach_policy, **again) == "ConstraintViolationException"
    assert [one["Id"] for one in tree.org.list_policies_for_target(TargetId=unit, Filter=SCP)["Policies"]] == [
        policies[0]
    ]
    targets = tree.org.list_targets_for_policy(PolicyId=policies[0])["Targets"]
    assert [(one["TargetId"], one["Type"]) for one in targets] == [(unit, "ORGANIZATIONAL_UNIT")]
    assert code(tree.org.delete_policy, PolicyId=policies[0]) == "PolicyInUseException"


@pytest.mark.control("ACC-20")
def test_malformed_policies_and_types_that_are_not_enabled(tree: Tree) -> None:
    given = {"Name": "bad", "Description": "", "Type": SCP}
    for text in ("{", document("Deny", "nonsense"), document("Perhaps", "s3:*")):
        assert code(tree.org.create_policy, **given, Content=text) == "MalformedPolicyDocumentException"
    long = json.dumps({"Version": "2012-10-17", "Statement": [], "Id": "x" * 6000})
    assert code(tree.org.create_policy, **given, Content=long) == "ConstraintViolationException"
    id = tree.policy(document("Deny", "kms:ListAliases"))
    tree.org.disable_policy_type(RootId=tree.root, PolicyType=SCP)
    try:
        assert code(tree.org.attach_policy, PolicyId=id, TargetId=tree.root) == "PolicyTypeNotEnabledException"
    finally:
        tree.org.enable_policy_type(RootId=tree.root, PolicyType=SCP)
