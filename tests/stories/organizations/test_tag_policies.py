"""Tag policies: what is in force down the tree, and what they keep from being tagged."""

from __future__ import annotations

import json
from typing import Any

from tests.platform import Account
from tests.stories.organizations.tree import TAG, Tree, code, refusal


def policy(**keys: Any) -> str:
    return json.dumps({"tags": keys})


def effective(tree: Tree, account: Account) -> Any:
    found = tree.org.describe_effective_policy(PolicyType=TAG, TargetId=account.id)["EffectivePolicy"]
    return json.loads(found["PolicyContent"])["tags"]


def test_policies_are_inherited(tree: Tree, account: Account) -> None:
    unit = tree.unit()
    tree.move(account, unit)
    ours = account.client("organizations")
    assert code(ours.describe_effective_policy, PolicyType=TAG) == "EffectivePolicyNotFoundException"
    tree.bind(
        unit,
        policy(
            CostCenter={
                "tag_key": {"@@assign": "CostCenter", "@@operators_allowed_for_child_policies": ["@@none"]},
                "tag_value": {
                    "@@assign": ["100", "200"],
                    "@@operators_allowed_for_child_policies": ["@@append"],
                },
            },
            Stage={"tag_value": {"@@assign": ["dev", "prod"]}},
        ),
        TAG,
    )
    tree.bind(
        account.id,
        policy(
            costcenter={"tag_key": {"@@assign": "costcenter"}, "tag_value": {"@@assign": ["9"], "@@append": ["300"]}},
            stage={"tag_value": {"@@remove": ["prod"]}, "enforced_for": {"@@assign": ["kms:key"]}},
        ),
        TAG,
    )
    wanted = {
        "costcenter": {"tag_key": "CostCenter", "tag_value": ["100", "200", "300"]},
        "stage": {"tag_key": "stage", "tag_value": ["dev"], "enforced_for": ["kms:key"]},
    }
    assert effective(tree, account) == wanted
    own = json.loads(ours.describe_effective_policy(PolicyType=TAG)["EffectivePolicy"]["PolicyContent"])
    assert own == {"tags": wanted}


def test_a_locked_tree_takes_no_new_keys(tree: Tree, account: Account) -> None:
    unit = tree.unit()
    tree.move(account, unit)
    locked = {"@@operators_allowed_for_child_policies": ["@@none"], "Team": {"tag_key": {"@@assign": "Team"}}}
    tree.bind(unit, json.dumps({"tags": locked}), TAG)
    tree.bind(account.id, policy(Other={"tag_key": {"@@assign": "Other"}}), TAG)
    assert effective(tree, account) == {"team": {"tag_key": "Team"}}


def test_noncompliant_tags_are_refused(tree: Tree, account: Account, neighbour: Account) -> None:
    rule = {
        "tag_key": {"@@assign": "CostCenter"},
        "tag_value": {"@@assign": ["100", "2*"]},
        "enforced_for": {"@@assign": ["kms:key", "s3:bucket", "sagemaker:*", "sqs:queue", "codecommit:*"]},
    }
    bound = tree.bind(account.id, policy(CostCenter=rule), TAG)
    kms, s3 = account.client("kms"), account.client("s3")

    def tags(key: str, value: str) -> list[dict[str, str]]:
        return [{"TagKey": key, "TagValue": value}]

    for key, value in (("CostCenter", "300"), ("costcenter", "100")):
        said = refusal(kms.create_key, Tags=tags(key, value))
        assert said[0] == "TagPolicyException" and f"'{key}'" in said[1]
    made = kms.create_key(Tags=tags("CostCenter", "212"))["KeyMetadata"]["KeyId"]
    assert code(kms.tag_resource, KeyId=made, Tags=tags("CostCenter", "1")) == "TagPolicyException"
    kms.tag_resource(KeyId=made, Tags=tags("CostCenter", "100"))
    kms.tag_resource(KeyId=made, Tags=tags("Anything", "300"))
    kms.untag_resource(KeyId=made, TagKeys=["CostCenter"])
    bucket = f"tags-{account.id}"
    s3.create_bucket(Bucket=bucket)
    wrong = {"TagSet": [{"Key": "CostCenter", "Value": "300"}]}
    assert code(s3.put_bucket_tagging, Bucket=bucket, Tagging=wrong) == "TagPolicyException"
    s3.put_object(Bucket=bucket, Key="k", Tagging="CostCenter=300")
    sagemaker = account.client("sagemaker")
    group = {"ModelPackageGroupName": "g", "Tags": [{"Key": "CostCenter", "Value": "300"}]}
    assert code(sagemaker.create_model_package_group, **group) == "TagPolicyException"
    # ARNs that do not say what they are of.
    dear = {"CostCenter": "300"}
    assert code(account.client("sqs").create_queue, QueueName="q", tags=dear) == "TagPolicyException"
    code_of = account.client("codecommit").create_repository
    assert code(code_of, repositoryName="r", tags=dear) == "TagPolicyException"
    account.client("sns").create_topic(Name="t", Tags=[{"Key": "CostCenter", "Value": "300"}])
    account.client("iam").create_user(UserName="u", Tags=[{"Key": "CostCenter", "Value": "300"}])
    neighbour.client("kms").create_key(Tags=tags("CostCenter", "300"))
    tree.free(account.id, bound)
    s3.put_bucket_tagging(Bucket=bucket, Tagging=wrong)


def test_what_is_no_tag_policy(tree: Tree) -> None:
    create, given = tree.org.create_policy, {"Name": "bad", "Description": "", "Type": TAG}
    for text in (
        "{",
        "[]",
        "{}",
        json.dumps({"tags": {}, "more": {}}),
        policy(a={"tag_key": {"@@append": "a"}}),
        policy(a={"tag_key": {"@@assign": "b"}}),
        policy(a={"tag_key": "a"}),
        policy(a={"tag_value": {"@@assign": ["x*y*z"]}}),
        policy(a={"enforced_for": {"@@assign": ["everything"]}}),
        policy(a={"tag_value": {"@@sometimes": ["x"]}}),
        policy(a={"@@operators_allowed_for_child_policies": "@@none"}),
        policy(a={}, A={}),
        '{"tags":{"a":{},"a":{}}}',
    ):
        assert code(create, **given, Content=text) == "MalformedPolicyDocumentException", text
    long = policy(a={"tag_value": {"@@assign": ["x" * 200] * 60}})
    assert code(create, **given, Content=long) == "ConstraintViolationException"
