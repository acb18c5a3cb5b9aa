"""Repositories, images and layers over the API."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, allow, lies_in, on_disk
from tests.stories.ecr import oci
from tests.stories.ecr.registry import Registry

MB = 1 << 20
UNKNOWN = "00000000-0000-4000-8000-000000000000"


def code(work: Any, **given: Any) -> str:
    with pytest.raises(ClientError) as refused:
        work(**given)
    return str(refused.value.response["Error"]["Code"])


def upload(ecr: Any, name: str, data: bytes, **more: Any) -> str:
    """A layer, in parts as large as they may be."""
    id = ecr.initiate_layer_upload(repositoryName=name, **more)["uploadId"]
    for at in range(0, len(data), 10 * MB):
        piece = data[at : at + 10 * MB]
        ecr.upload_layer_part(
            repositoryName=name,
            uploadId=id,
            partFirstByte=at,
            partLastByte=at + len(piece) - 1,
            layerPartBlob=piece,
            **more,
        )
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return str(
        ecr.complete_layer_upload(repositoryName=name, uploadId=id, layerDigests=[digest], **more)["layerDigest"]
    )


def manifest(config: str, *layers: str, size: int = 12 * MB) -> str:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": config, "size": 2},
            "layers": [
                {"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": one, "size": size}
                for one in layers
            ],
        }
    )


def test_a_repository_from_its_making_to_its_end(account: Account) -> None:
    ecr = account.client("ecr")
    tags = [{"Key": "team", "Value": "red"}]
    made = ecr.create_repository(repositoryName="team/app", tags=tags)["repository"]
    assert made["repositoryArn"] == f"arn:aws:ecr:us-east-1:{account.id}:repository/team/app"
    assert made["repositoryUri"].endswith(f"/{account.id}.dkr.ecr.us-east-1/team/app")
    assert code(ecr.create_repository, repositoryName="team/app") == "RepositoryAlreadyExistsException"
    for wrong in ("Team", "a//b", "a/", "../a"):
        assert code(ecr.create_repository, repositoryName=wrong) in (
            "InvalidParameterException",
            "ValidationException",
        )
    names = [f"r{number}" for number in range(3)]
    for name in names:
        ecr.create_repository(repositoryName=name)
    pages = ecr.get_paginator("describe_repositories").paginate(PaginationConfig={"PageSize": 2})
    assert [one["repositoryName"] for page in pages for one in page["repositories"]] == [*names, "team/app"]
    arn = made["repositoryArn"]
    ecr.tag_resource(resourceArn=arn, tags=[{"Key": "more", "Value": "1"}])
    ecr.untag_resource(resourceArn=arn, tagKeys=["team"])
    assert ecr.list_tags_for_resource(resourceArn=arn)["tags"] == [{"Key": "more", "Value": "1"}]
    ecr.delete_repository(repositoryName="team/app")
    assert code(ecr.describe_repositories, repositoryNames=["team/app"]) == "RepositoryNotFoundException"


def test_layers_and_images_over_the_api(account: Account) -> None:
    ecr = account.client("ecr")
    ecr.create_repository(repositoryName="app")
    large = os.urandom(12 * MB)
    config, layer = upload(ecr, "app", b"{}"), upload(ecr, "app", large)
    with pytest.raises(ClientError, match="LayerAlreadyExists"):
        upload(ecr, "app", b"{}")
    found = ecr.batch_check_layer_availability(repositoryName="app", layerDigests=[layer, f"sha256:{'0' * 64}", "x"])
    assert [one["layerAvailability"] for one in found["layers"]] == ["AVAILABLE", "UNAVAILABLE"]
    assert found["layers"][0]["layerSize"] == len(large) and len(found["failures"]) == 1

    # What is not what it says it is, is not taken.
    id = ecr.initiate_layer_upload(repositoryName="app")["uploadId"]
    part = {"repositoryName": "app", "uploadId": id}
    assert code(ecr.complete_layer_upload, **part, layerDigests=[layer]) == "EmptyUploadException"
    assert code(ecr.upload_layer_part, **part, partFirstByte=5, partLastByte=7, layerPartBlob=b"abc") == (
        "InvalidLayerPartException"
    )
    ecr.upload_layer_part(**part, partFirstByte=0, partLastByte=2, layerPartBlob=b"abc")
    assert code(ecr.complete_layer_upload, **part, layerDigests=[layer]) == "InvalidLayerException"
    assert code(ecr.complete_layer_upload, repositoryName="app", uploadId=UNKNOWN, layerDigests=[layer]) == (
        "UploadNotFoundException"
    )

    text = manifest(config, layer)
    digest = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    missing = manifest(config, f"sha256:{'1' * 64}")
    assert code(ecr.put_image, repositoryName="app", imageManifest=missing) == "LayersNotFoundException"
    for lying in (manifest(config, layer, size=9), manifest(config, layer, config), manifest(layer, layer)):
        assert code(ecr.put_image, repositoryName="app", imageManifest=lying) == "InvalidParameterException"
    wrong = {"imageDigest": f"sha256:{'2' * 64}"}
    assert code(ecr.put_image, repositoryName="app", imageManifest=text, **wrong) == "ImageDigestDoesNotMatchException"
    for hostile in ("{", "[]", '{"schemaVersion":1}', '{"schemaVersion":2,"config":{},"layers":[]}'):
        assert code(ecr.put_image, repositoryName="app", imageManifest=hostile) == "InvalidParameterException"
    image = ecr.put_image(repositoryName="app", imageManifest=text, imageTag="one")["image"]
    assert image["imageId"] == {"imageDigest": digest, "imageTag": "one"}
    assert code(ecr.put_image, repositoryName="app", imageManifest=text, imageTag="one") == (
        "ImageAlreadyExistsException"
    )
    ecr.put_image(repositoryName="app", imageManifest=text, imageTag="two")
    ids = [{"imageTag": "one"}, {"imageTag": "none"}, {"imageDigest": digest}]
    got = ecr.batch_get_image(repositoryName="app", imageIds=ids)
    assert [one["imageManifest"] for one in got["images"]] == [text, text]
    assert [one["failureCode"] for one in got["failures"]] == ["ImageNotFound"]
    assert code(ecr.describe_images, repositoryName="app", imageIds=[{"imageTag": "none"}]) == "ImageNotFoundException"
    assert sorted(ecr.describe_images(repositoryName="app")["imageDetails"][0]["imageTags"]) == ["one", "two"]
    assert len(ecr.list_images(repositoryName="app", filter={"tagStatus": "TAGGED"})["imageIds"]) == 2
    assert not ecr.list_images(repositoryName="app", filter={"tagStatus": "UNTAGGED"})["imageIds"]

    # A tag goes alone; with the image go the layers that no other image has.
    ecr.batch_delete_image(repositoryName="app", imageIds=[{"imageTag": "two"}])
    assert code(ecr.delete_repository, repositoryName="app") == "RepositoryNotEmptyException"
    gone = ecr.batch_delete_image(repositoryName="app", imageIds=[{"imageDigest": digest}])
    assert gone["imageIds"] == [{"imageDigest": digest, "imageTag": "one"}]
    found = ecr.batch_check_layer_availability(repositoryName="app", layerDigests=[layer, config])
    assert [one["layerAvailability"] for one in found["layers"]] == ["UNAVAILABLE"] * 2
    ecr.delete_repository(repositoryName="app")


@pytest.mark.control("LIN-04")
def test_a_tag_of_an_immutable_repository_stays_what_it_is(registry: Registry) -> None:
    uri = registry.create("app", imageTagMutability="IMMUTABLE")
    labels = {
        "Labels": {"org.opencontainers.image.source": "https://git/team", "org.opencontainers.image.revision": "abc"}
    }
    first = registry.push(f"{uri}:one", config=labels)
    done = registry.skopeo("inspect", "ONE", f"docker://{uri}:one")
    told = json.loads(done.stdout)
    assert told["Digest"] == first and told["Labels"] == labels["Labels"]
    by_digest = json.loads(registry.skopeo("inspect", "ONE", f"docker://{uri}@{first}").stdout)
    assert by_digest["Digest"] == first and by_digest["Layers"] == told["Layers"]
    again = registry.folder / "again"
    oci.layout(again, [oci.system, oci.scripts(other="true")])
    refused = registry.skopeo("copy", "DEST", f"oci:{again}", f"docker://{uri}:one")
    assert refused.returncode and "immutable" in refused.stderr
    assert registry.skopeo("copy", "DEST", f"oci:{again}", f"docker://{uri}:two").returncode == 0
    read = registry.ecr.batch_get_image(repositoryName="app", imageIds=[{"imageTag": "one"}, {"imageTag": "two"}])
    third = read["images"][1]["imageManifest"]
    assert code(registry.ecr.put_image, repositoryName="app", imageManifest=third, imageTag="one") == (
        "ImageTagAlreadyExistsException"
    )
    registry.ecr.put_image_tag_mutability(repositoryName="app", imageTagMutability="MUTABLE")
    registry.ecr.put_image(repositoryName="app", imageManifest=third, imageTag="one")


@pytest.mark.control("ENC-07", lacking="Glue")
def test_layers_lie_under_the_key_of_the_repository(registry: Registry) -> None:
    kms = registry.account.client("kms")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    uri = registry.create("app", encryptionConfiguration={"encryptionType": "KMS", "kmsKey": key})
    shown = registry.ecr.describe_repositories(repositoryNames=["app"])["repositories"][0]
    assert shown["encryptionConfiguration"] == {"encryptionType": "KMS", "kmsKey": key}
    secret = os.urandom(64 * 1024).hex().encode()

    def content(tar: Any) -> None:
        oci.entry(tar, "secret", secret)

    registry.push(f"{uri}:one", [oci.system, content])
    objects = registry.account.platform.data / "objects"
    assert not [path for path in on_disk(objects) if lies_in(path, secret[:64])]
    # Who pulls needs no permission on the key: ECR has a grant. Without the key nobody pulls.
    registry.account.role(
        "Puller", allow("ecr:GetAuthorizationToken", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
    )
    puller = registry.account.as_role("Puller")
    target = f"dir:{registry.folder / 'pulled'}"
    assert registry.skopeo("copy", "SRC", f"docker://{uri}:one", target, keys=puller).returncode == 0
    kms.disable_key(KeyId=key)
    refused = registry.skopeo("copy", "SRC", f"docker://{uri}:one", f"{target}2", keys=puller)
    assert refused.returncode and "403" in refused.stderr
    assert code(registry.ecr.initiate_layer_upload, repositoryName="app") == "KmsException"
    kms.enable_key(KeyId=key)
    assert registry.skopeo("copy", "SRC", f"docker://{uri}:one", f"{target}3", keys=puller).returncode == 0
    assert code(
        registry.ecr.create_repository,
        repositoryName="b1",
        encryptionConfiguration={"encryptionType": "KMS", "kmsKey": key[:-4] + "0000"},
    ) in ("KmsException", "AccessDeniedException")
