"""Images of a team: pushed by its people (07), run under the job role (09), and nobody else's."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.platform import Account, Keys, allow
from tests.stories.ecr import oci
from tests.stories.ecr.registry import Registry, canonical
from tests.stories.ecr.test_repositories import code
from tests.stories.sagemaker.test_job_role import Study, policy, study

__all__ = ["study"]

CONFIG = {"Env": ["PATH=/usr/local/bin:/bin"]}
TRAIN = oci.scripts(train="cat /opt/ml/input/data/train/part/a.csv >/opt/ml/model/m.txt")
RIGHT = [{"Key": "CreatedBy", "Value": "SageMaker"}]


def run(study: Study, image: str, path: str = "models") -> dict[str, Any]:
    """A training job with an image, when it is over."""
    name = study.shop.train(
        "",
        AlgorithmSpecification={"TrainingImage": image, "TrainingInputMode": "File"},
        HyperParameters={},
        OutputDataConfig={"S3OutputPath": f"s3://{study.output}/{path}"},
    )
    return study.shop.trained(name)


@pytest.mark.control("PRM-14")
def test_the_job_role_runs_tagged_images_and_writes_below_its_path(study: Study, tmp_path: Path) -> None:
    registry = Registry(study.account, tmp_path)
    digests, uris = {}, {}
    for name, tags in (("team/tagged", RIGHT), ("team/plain", []), ("team/other", [{**RIGHT[0], "Value": "Me"}])):
        uris[name] = registry.create(name, tags=tags)
        digests[name] = registry.push(f"{uris[name]}:one", [oci.system, TRAIN], CONFIG)
    image = canonical(study.account.id, "team/tagged:one")
    job = run(study, image)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert job["AlgorithmSpecification"]["TrainingImage"] == image
    # What the tag meant is in the lineage, and stays when the tag moves on.
    moved = registry.push(f"{uris['team/tagged']}:one", [oci.system, oci.scripts(train="exit 3")], CONFIG)
    lineage = study.account.client("sagemaker")
    [artifact] = lineage.list_artifacts(SourceUri=image)["ArtifactSummaries"]
    told = lineage.describe_artifact(ArtifactArn=artifact["ArtifactArn"])["Source"]["SourceTypes"]
    assert told == [{"SourceIdType": "Custom", "Value": digests["team/tagged"]}] and moved != told[0]["Value"]
    again = run(study, f"{canonical(study.account.id, 'team/tagged')}@{digests['team/tagged']}")
    assert again["TrainingJobStatus"] == "Completed", again.get("FailureReason")

    elsewhere = run(study, f"{canonical(study.account.id, 'team/tagged')}@{digests['team/tagged']}", "elsewhere")
    assert elsewhere["TrainingJobStatus"] == "Failed" and "AccessDenied" in elsewhere["FailureReason"]
    assert "s3:PutObject" in elsewhere["FailureReason"] and "ModelArtifacts" not in elsewhere
    for name in ("team/plain", "team/other"):
        refused = run(study, canonical(study.account.id, f"{name}:one"))
        assert refused["TrainingJobStatus"] == "Failed" and "AccessDeniedException" in refused["FailureReason"]
        assert "ecr:BatchGetImage" in refused["FailureReason"] and study.shop.role in refused["FailureReason"]


class Podman:
    """Podman as people have it, with its images in a folder of the test. short: its socket's path bears no long one."""

    def __init__(self, registry: Registry, short: str) -> None:
        self.registry = registry
        self.folder = registry.folder
        self.short = short
        (self.folder / "auth.json").write_text("{}")

    def __call__(self, *words: str, password: str = "") -> subprocess.CompletedProcess[str]:
        folder = self.folder
        policy = folder / "policy.json"
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        where = ["--root", str(folder / "store"), "--runroot", self.short, "--storage-driver", "vfs"]
        trust = ["--cert-dir", str(folder / "certificates"), "--authfile", str(folder / "auth.json")]
        if words[0] in ("push", "pull"):
            trust += ["--signature-policy", str(policy)]
        said = [one for word in words for one in (trust if word == "TRUST" else [word])]
        return subprocess.run(
            ["podman", *where, *said], input=password, capture_output=True, text=True, check=False, timeout=120
        )

    def login(self, host: str, keys: Keys | None = None) -> subprocess.CompletedProcess[str]:
        """`aws ecr get-login-password | podman login --username AWS --password-stdin HOST`."""
        words = ("login", "TRUST", "--username", "AWS", "--password-stdin", host)
        return self(*words, password=self.registry.password(keys))


@pytest.fixture
def podman(study: Study, tmp_path: Path) -> Iterator[Podman]:
    with tempfile.TemporaryDirectory() as short:
        yield Podman(Registry(study.account, tmp_path), short)


@pytest.mark.control("EXP-21", "PRM-08", "PRM-09")
def test_a_team_keeps_its_images_in_its_account_and_no_other_team_pulls_them(
    study: Study, podman: Podman, tmp_path: Path
) -> None:
    account, registry = study.account, podman.registry
    for name, namespace in (("Red", "red"), ("Blue", "blue")):
        document = policy(
            study.mission, "07-notebook-execution-role-ecr-build-push.json",
            ACCOUNT_ID=account.id, TEAM_NAMESPACE=namespace,
        )  # fmt: skip
        account.role(name, document)
    red, blue = account.as_role("Red"), account.as_role("Blue")
    ecr = account.client("ecr", red)
    assert code(ecr.create_repository, repositoryName="red/app") == "AccessDeniedException"
    uri = ecr.create_repository(repositoryName="red/app", tags=RIGHT)["repository"]["repositoryUri"]
    plain = registry.create("red/plain")
    oci.layout(tmp_path / "layout", [oci.system, TRAIN], CONFIG)
    assert podman("pull", "TRUST", f"oci:{tmp_path / 'layout'}").returncode == 0
    held = podman("images", "--quiet").stdout.split()[0]

    host = uri.partition("/")[0]
    assert podman("push", "TRUST", held, f"docker://{uri}:one").returncode, "not logged in"
    done = podman.login(host, red)
    assert done.returncode == 0 and "Login Succeeded" in done.stdout, done.stderr
    done = podman("push", "TRUST", held, f"docker://{uri}:one")
    assert done.returncode == 0, done.stderr
    refused = podman("push", "TRUST", held, f"docker://{plain}:one")
    assert refused.returncode and "403 (Forbidden)" in refused.stderr, refused.stderr
    [detail] = ecr.describe_images(repositoryName="red/app")["imageDetails"]
    assert detail["imageTags"] == ["one"]
    done = podman("pull", "TRUST", f"{uri}@{detail['imageDigest']}")
    assert done.returncode == 0, done.stderr
    job = run(study, f"{canonical(account.id, 'red/app')}@{detail['imageDigest']}")
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")

    # Another team has permissions on its own namespace only.
    only = allow(*("ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"))
    only["Statement"][0]["Resource"] = f"arn:aws:ecr:*:{account.id}:repository/blue/*"
    only["Statement"].append({"Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*"})
    account.client("iam").put_role_policy(RoleName="Blue", PolicyName="inline", PolicyDocument=json.dumps(only))
    assert podman.login(host, blue).returncode == 0
    refused = podman("pull", "TRUST", f"{uri}:one")
    assert refused.returncode and "denied" in refused.stderr, refused.stderr
    assert podman.login(host, red).returncode == 0
    missing = podman("pull", "TRUST", f"{uri}:none")
    assert missing.returncode and "manifest unknown" in missing.stderr, missing.stderr
    asked: dict[str, Any] = {"repositoryName": "red/app", "imageIds": [{"imageTag": "none"}]}
    assert code(ecr.describe_images, **asked) == "ImageNotFoundException"
    assert ecr.batch_get_image(**asked)["failures"][0]["failureCode"] == "ImageNotFound"
    unknown = registry.ecr.describe_images
    assert code(unknown, repositoryName="red/none") == "RepositoryNotFoundException"


def test_images_are_listed_in_pages(account: Account, tmp_path: Path) -> None:
    registry = Registry(account, tmp_path)
    uri = registry.create("app")
    registry.push(f"{uri}:t0", [oci.scripts(train="exit 0")])
    ecr = registry.ecr
    text = ecr.batch_get_image(repositoryName="app", imageIds=[{"imageTag": "t0"}])["images"][0]["imageManifest"]
    for number in range(1, 5):  # the same image as somebody formatted it differently: another digest
        ecr.put_image(repositoryName="app", imageManifest=text + " " * number, imageTag=f"t{number}")
    ecr.batch_delete_image(repositoryName="app", imageIds=[{"imageTag": "t4"}])
    ecr.put_image(repositoryName="app", imageManifest=text + " " * 9)
    for operation, members in (("list_images", "imageIds"), ("describe_images", "imageDetails")):
        pages = list(ecr.get_paginator(operation).paginate(repositoryName="app", PaginationConfig={"PageSize": 2}))
        every = [one for page in pages for one in page[members]]
        assert [len(page[members]) for page in pages] == [2, 2, 1] and len({one["imageDigest"] for one in every}) == 5
        tagged = ecr.get_paginator(operation).paginate(
            repositoryName="app", filter={"tagStatus": "UNTAGGED"}, PaginationConfig={"PageSize": 2}
        )
        assert len([one for page in tagged for one in page[members]]) == 1
    for wrong in ("x", "AAAA"):
        assert code(ecr.list_images, repositoryName="app", nextToken=wrong) == "InvalidParameterException"
    first = ecr.list_images(repositoryName="app", maxResults=2)["nextToken"]
    registry.create("other")
    assert code(ecr.list_images, repositoryName="other", nextToken=first) == "InvalidParameterException"
