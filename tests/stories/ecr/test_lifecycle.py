"""What becomes of images: those that expire, tags that stay where they are, and what is about an image."""

from __future__ import annotations

import hashlib
import json
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from tests.platform import Account
from tests.stories.ecr.registry import Registry
from tests.stories.ecr.test_repositories import code, upload

OCI = "application/vnd.oci.image.manifest.v1+json"


def push(ecr: Any, name: str, content: bytes, *tags: str, **more: Any) -> str:
    """A small image over the API, under several tags; its digest."""
    blobs = []
    for data in (b'{"architecture": "amd64"}', content):
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        known = ecr.batch_check_layer_availability(repositoryName=name, layerDigests=[digest])["layers"][0]
        if known["layerAvailability"] != "AVAILABLE":
            upload(ecr, name, data)
        blobs.append({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": len(data)})
    manifest = json.dumps({"schemaVersion": 2, "mediaType": OCI, "config": blobs[0], "layers": blobs[1:], **more})
    for tag in tags or (None,):
        given = {"imageTag": tag} if tag else {}
        made = ecr.put_image(repositoryName=name, imageManifest=manifest, **given)["image"]
    return str(made["imageId"]["imageDigest"])


def rule(priority: int, status: str, way: str, count: int, **more: Any) -> dict[str, Any]:
    unit = {"countUnit": "days"} if way == "sinceImagePushed" else {}
    selection = {"tagStatus": status, "countType": way, "countNumber": count, **unit, **more}
    return {"rulePriority": priority, "selection": selection, "action": {"type": "expire"}}


def policy(*rules: dict[str, Any]) -> str:
    return json.dumps({"rules": rules})


def test_a_preview_tells_what_rules_say_together(account: Account) -> None:
    ecr = account.client("ecr")
    ecr.create_repository(repositoryName="app")
    digests = {
        name: push(ecr, "app", name.encode(), *tags)
        for name, tags in {
            "prod-1": ("prod-1",), "prod-2": ("prod-2", "stable"), "dev-1": ("dev-1",), "dev-2": ("dev-2",),
            "dev-3": ("dev-3", "keep"), "bare-1": (), "bare-2": (),
        }.items()
    }  # fmt: skip
    names = {digest: name for name, digest in digests.items()}

    def preview(*rules: dict[str, Any]) -> dict[str, int]:
        ecr.start_lifecycle_policy_preview(repositoryName="app", lifecyclePolicyText=policy(*rules))
        told = ecr.get_lifecycle_policy_preview(repositoryName="app")
        assert told["status"] == "COMPLETE"
        assert told["summary"]["expiringImageTotalCount"] == len(told["previewResults"])
        return {names[one["imageDigest"]]: one["appliedRulePriority"] for one in told["previewResults"]}

    count = "imageCountMoreThan"
    assert preview(rule(1, "untagged", count, 1)) == {"bare-1": 1}
    assert preview(rule(1, "tagged", count, 1, tagPrefixList=["dev-"])) == {"dev-1": 1, "dev-2": 1}
    assert preview(rule(1, "tagged", count, 1, tagPatternList=["*-1"])) == {"prod-1": 1}
    assert preview(rule(1, "tagged", count, 1, tagPrefixList=["prod-", "stable"])) == {}  # one image has both
    # What a rule speaks of, the rules behind it leave alone: prod stays though it is among all.
    both = (rule(1, "tagged", count, 10, tagPrefixList=["prod-"]), rule(2, "any", count, 2))
    assert preview(*both) == {"dev-1": 2, "dev-2": 2, "dev-3": 2}
    assert preview(rule(1, "any", "sinceImagePushed", 1)) == {}
    wrong = [
        "{}",
        '{"rules": []}',
        policy(rule(1, "any", count, 1), rule(2, "untagged", count, 1)),
        policy(rule(1, "untagged", count, 1), rule(1, "any", count, 1)),
        policy(rule(1, "tagged", count, 1)),
        policy(rule(1, "any", count, 0)),
        policy(rule(1, "any", "sinceImagePulled", 1)),
        policy({**rule(1, "any", count, 1), "action": {"type": "transition"}}),
        policy(rule(1, "any", count, 1, more=1)),
        policy(rule(1, "any", count, 1, tagPrefixList=["a"])),
    ]
    for text in wrong:
        given = {"repositoryName": "app", "lifecyclePolicyText": text.ljust(100)}
        assert code(ecr.put_lifecycle_policy, **given) == "InvalidParameterException", text
    assert code(ecr.get_lifecycle_policy, repositoryName="app") == "LifecyclePolicyNotFoundException"


@pytest.mark.control("IMG-07", "IMG-08", lacking="commits that hashes in tags lead to")
def test_tags_move_or_stay_as_the_repository_has_it(account: Account) -> None:
    ecr = account.client("ecr")
    ecr.create_repository(
        repositoryName="app", imageTagMutability="IMMUTABLE_WITH_EXCLUSION",
        imageTagMutabilityExclusionFilters=[{"filterType": "WILDCARD", "filter": "v*"}],
    )  # fmt: skip
    told = ecr.describe_repositories(repositoryNames=["app"])["repositories"][0]
    assert told["imageTagMutabilityExclusionFilters"] == [{"filterType": "WILDCARD", "filter": "v*"}]
    first = push(ecr, "app", b"one", "main-0a1b2c3", "v2.3")
    second = push(ecr, "app", b"two", "v2.3")
    found = ecr.batch_get_image(repositoryName="app", imageIds=[{"imageTag": "v2.3"}, {"imageDigest": first}])["images"]
    assert [one["imageId"]["imageDigest"] for one in found] == [second, first]
    with pytest.raises(ecr.exceptions.ImageTagAlreadyExistsException):
        push(ecr, "app", b"three", "main-0a1b2c3")
    ecr.put_image_tag_mutability(
        repositoryName="app", imageTagMutability="MUTABLE_WITH_EXCLUSION",
        imageTagMutabilityExclusionFilters=[{"filterType": "WILDCARD", "filter": "*-*"}],
    )  # fmt: skip
    with pytest.raises(ecr.exceptions.ImageTagAlreadyExistsException):
        push(ecr, "app", b"three", "main-0a1b2c3")
    for given in (
        {"imageTagMutability": "IMMUTABLE_WITH_EXCLUSION"},
        {
            "imageTagMutability": "MUTABLE",
            "imageTagMutabilityExclusionFilters": [{"filterType": "WILDCARD", "filter": "a"}],
        },
        {
            "imageTagMutability": "MUTABLE_WITH_EXCLUSION",
            "imageTagMutabilityExclusionFilters": [{"filterType": "WILDCARD", "filter": "*a*b*"}],
        },
    ):
        assert code(ecr.put_image_tag_mutability, repositoryName="app", **given) == "InvalidParameterException"


def test_what_is_about_an_image_is_found_and_goes_with_it(registry: Registry, tmp_path: Path) -> None:
    ecr, account = registry.ecr, registry.account
    ecr.create_repository(repositoryName="app")
    image = push(ecr, "app", b"image", "one")
    size = len(
        ecr.batch_get_image(repositoryName="app", imageIds=[{"imageDigest": image}])["images"][0]["imageManifest"]
    )
    subject = {"mediaType": OCI, "digest": image, "size": size}
    signature = push(ecr, "app", b"signature", subject=subject, artifactType="application/vnd.example.signature",
                     annotations={"who": "pipeline"})  # fmt: skip
    bill = push(ecr, "app", b"bill", subject=subject, artifactType="application/vnd.cyclonedx+json")
    told = ecr.list_image_referrers(repositoryName="app", subjectId={"imageDigest": image})["referrers"]
    assert {one["digest"] for one in told} == {signature, bill}

    def listed(query: str = "") -> dict[str, Any]:
        url = f"{account.platform.http}/v2/{account.id}.dkr.ecr.us-east-1/app/referrers/{image}{query}"
        told = b64encode(f"AWS:{registry.password()}".encode()).decode()
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": f"Basic {told}"})) as answer:
            assert answer.headers["content-type"] == "application/vnd.oci.image.index.v1+json"
            return dict(json.loads(answer.read()))

    assert {one["digest"] for one in listed()["manifests"]} == {signature, bill}
    [one] = listed("?artifactType=application/vnd.example.signature")["manifests"]
    assert one["digest"] == signature and one["annotations"] == {"who": "pipeline"}

    # They are no images that a policy counts, and go with what they are about.
    ecr.start_lifecycle_policy_preview(
        repositoryName="app", lifecyclePolicyText=policy(rule(1, "untagged", "imageCountMoreThan", 1)).ljust(100)
    )
    assert ecr.get_lifecycle_policy_preview(repositoryName="app")["previewResults"] == []
    ecr.batch_delete_image(repositoryName="app", imageIds=[{"imageDigest": image}])
    assert ecr.list_images(repositoryName="app")["imageIds"] == []


@pytest.mark.control("IMG-06")
def test_namespaces_are_images_of_their_own_with_own_rights(account: Account) -> None:
    ecr = account.client("ecr")
    for name in ("department1/serving", "department2/serving"):
        ecr.create_repository(repositoryName=name)
    digests = {name: push(ecr, f"{name}/serving", name.encode(), "v1") for name in ("department1", "department2")}
    assert digests["department1"] != digests["department2"]
    arn = f"arn:aws:ecr:us-east-1:{account.id}:repository/department2/*"
    account.role(
        "two", {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ecr:*", "Resource": arn}]}
    )
    theirs = account.client("ecr", account.as_role("two"))
    push(theirs, "department2/serving", b"more", "v2")
    with pytest.raises(ecr.exceptions.ClientError, match="AccessDenied"):
        push(theirs, "department1/serving", b"more", "v2")
    assert code(ecr.create_repository, repositoryName="department1/serving") == "RepositoryAlreadyExistsException"
    assert code(ecr.create_repository, repositoryName="Department 1/serving") == "InvalidParameterException"
