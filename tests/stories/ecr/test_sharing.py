"""Images of a shared services account, for principals of other accounts that its policies name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.platform import Account, allow
from tests.stories.cloudformation.stacks import Stacks, template
from tests.stories.ecr.test_lifecycle import policy, push, rule
from tests.stories.ecr.test_repositories import code

_PULL = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:BatchCheckLayerAvailability"]
_PUSH = ["ecr:PutImage", "ecr:InitiateLayerUpload", "ecr:UploadLayerPart", "ecr:CompleteLayerUpload"]


class Of:
    """A client that names the registry of another account in every call."""

    def __init__(self, client: Any, account: str) -> None:
        self._client, self._account = client, account
        self.exceptions = client.exceptions

    def __getattr__(self, name: str) -> Any:
        return lambda **given: getattr(self._client, name)(registryId=self._account, **given)


@pytest.mark.control("ACC-02", "IMG-14", "XVE-04")
def test_the_named_role_of_another_account_pulls_and_pushes(account: Account, neighbour: Account) -> None:
    ecr = account.client("ecr")
    ecr.create_repository(repositoryName="base/serving")
    digest = push(ecr, "base/serving", b"image", "v1")
    everything = allow("ecr:*")
    named, other = neighbour.role("named", everything), neighbour.role("other", everything)
    neighbour.role("bare", allow("s3:*"))
    statement = {"Effect": "Allow", "Principal": {"AWS": [named, named.replace("/named", "/bare")]},
                 "Action": [*_PULL, *_PUSH]}  # fmt: skip
    text = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    ids = {"repositoryName": "base/serving", "imageIds": [{"imageTag": "v1"}]}

    def as_role(name: str) -> Of:
        return Of(neighbour.client("ecr", neighbour.as_role(name)), account.id)

    assert other and code(as_role("named").batch_get_image, **ids) == "AccessDeniedException"
    assert code(as_role("named").set_repository_policy, repositoryName="base/serving", policyText=text) == (
        "AccessDeniedException"
    )
    ecr.set_repository_policy(repositoryName="base/serving", policyText=text)
    found = as_role("named").batch_get_image(**ids)["images"]
    assert [one["imageId"]["imageDigest"] for one in found] == [digest]
    push(as_role("named"), "base/serving", b"theirs", "v2")
    for role in ("other", "bare"):
        assert code(as_role(role).batch_get_image, **ids) == "AccessDeniedException"
    for role in ("named", "other"):
        assert code(as_role(role).batch_delete_image, **ids) == "AccessDeniedException"
    ecr.delete_repository_policy(repositoryName="base/serving")
    assert code(as_role("named").batch_get_image, **ids) == "AccessDeniedException"
    assert code(ecr.get_repository_policy, repositoryName="base/serving") == "RepositoryPolicyNotFoundException"

    # What the registry's policy says holds in all repositories that it names, those to come too; a deny in either is final.
    assert code(ecr.get_registry_policy) == "RegistryPolicyNotFoundException"
    where = f"arn:aws:ecr:us-east-1:{account.id}:repository/base/*"
    lets = {"Sid": "A", "Effect": "Allow", "Principal": {"AWS": named}, "Action": [*_PULL, *_PUSH], "Resource": where}
    stays = {"Sid": "B", "Effect": "Deny", "Principal": "*", "Action": "ecr:BatchDeleteImage", "Resource": where}
    for wrong in (
        {**lets, "Action": "s3:GetObject"}, {**lets, "Action": "ecr:GetAuthorizationToken"},
        {key: value for key, value in lets.items() if key != "Resource"},
    ):  # fmt: skip
        document = json.dumps({"Version": "2012-10-17", "Statement": [wrong]})
        assert code(ecr.put_registry_policy, policyText=document) == "InvalidParameterException"
    document = json.dumps({"Version": "2012-10-17", "Statement": [lets, stays]})
    ecr.put_registry_policy(policyText=document)
    assert json.loads(ecr.get_registry_policy()["policyText"]) == json.loads(document)
    for name in ("base/later", "elsewhere"):
        ecr.create_repository(repositoryName=name)
        push(ecr, name, b"image", "v1")
    for name in ("base/serving", "base/later"):
        assert as_role("named").batch_get_image(**{**ids, "repositoryName": name})["images"]
    assert code(as_role("named").batch_get_image, **{**ids, "repositoryName": "elsewhere"}) == "AccessDeniedException"
    assert code(as_role("other").batch_get_image, **ids) == "AccessDeniedException"
    more = {**lets, "Action": "ecr:BatchDeleteImage"}
    del more["Resource"]
    ecr.set_repository_policy(
        repositoryName="base/serving", policyText=json.dumps({"Version": "2012-10-17", "Statement": [more]})
    )
    assert code(as_role("named").batch_delete_image, **ids) == "AccessDeniedException"
    assert code(ecr.batch_delete_image, **ids) == "AccessDeniedException", "nor whoever administers the account"
    ecr.delete_registry_policy()
    assert code(as_role("named").batch_get_image, **ids) == "AccessDeniedException"
    assert as_role("named").batch_delete_image(**ids)["imageIds"]
    assert code(ecr.delete_registry_policy) == "RegistryPolicyNotFoundException"


def test_a_repository_from_a_template_with_all_that_it_has(account: Account) -> None:
    stacks, ecr = Stacks(account), account.client("ecr")

    def resources(word: str) -> dict[str, Any]:
        one = word == "one"
        properties: dict[str, Any] = {
            "RepositoryName": "team/app",
            "ImageTagMutability": "IMMUTABLE_WITH_EXCLUSION" if one else "MUTABLE",
            "ImageScanningConfiguration": {"ScanOnPush": one},
            "EmptyOnDelete": True,
        }
        if one:
            properties["LifecyclePolicy"] = {"LifecyclePolicyText": policy(rule(1, "untagged", "sinceImagePushed", 14))}
            properties["ImageTagMutabilityExclusionFilters"] = [
                {"ImageTagMutabilityExclusionFilterType": "WILDCARD", "ImageTagMutabilityExclusionFilterValue": "v*"}
            ]
        return {"Repository": {"Type": "AWS::ECR::Repository", "Properties": properties}}

    told = stacks.create("images", template(resources("one")))
    assert told["StackStatus"] == "CREATE_COMPLETE", stacks.client.describe_stack_events(StackName="images")
    shown = ecr.describe_repositories(repositoryNames=["team/app"])["repositories"][0]
    assert shown["imageTagMutability"] == "IMMUTABLE_WITH_EXCLUSION"
    assert shown["imageTagMutabilityExclusionFilters"] == [{"filterType": "WILDCARD", "filter": "v*"}]
    assert shown["imageScanningConfiguration"] == {"scanOnPush": True}
    held = json.loads(ecr.get_lifecycle_policy(repositoryName="team/app")["lifecyclePolicyText"])
    assert held["rules"][0]["selection"]["countNumber"] == 14

    assert stacks.update("images", template(resources("two")))["StackStatus"] == "UPDATE_COMPLETE"
    shown = ecr.describe_repositories(repositoryNames=["team/app"])["repositories"][0]
    assert shown["imageTagMutability"] == "MUTABLE" and not shown["imageScanningConfiguration"]["scanOnPush"]
    assert code(ecr.get_lifecycle_policy, repositoryName="team/app") == "LifecyclePolicyNotFoundException"
    broken = resources("one")
    broken["Repository"]["Properties"]["LifecyclePolicy"] = {"LifecyclePolicyText": '{"rules": []}'.ljust(120)}
    assert stacks.update("images", template(broken))["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert code(ecr.get_lifecycle_policy, repositoryName="team/app") == "LifecyclePolicyNotFoundException"
    assert stacks.delete("images")["StackStatus"] == "DELETE_COMPLETE"
