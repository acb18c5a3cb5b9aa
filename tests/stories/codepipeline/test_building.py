"""Builds of a pipeline: what goes into them, what comes out, and what a failing one says."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, allow
from tests.stories.codebuild.conftest import CODEBUILD, ENVIRONMENT, MAY, cause, phases, spec
from tests.stories.codepipeline.releases import Releases, action, releases_of, stage, until, zipped


@pytest.fixture
def releases(account: Account) -> Releases:
    return releases_of(account, "codebuild:*")


def _build(name: str, project: str, **more: Any) -> dict[str, Any]:
    configuration = {"ProjectName": project, **more.pop("configuration", {})}
    return action(name, "Build", "CodeBuild", configuration, **more)


@pytest.mark.control("STG-03", "DEP-02", lacking="an image that is pushed")
def test_a_build_makes_artifacts_and_variables(account: Account, releases: Releases) -> None:
    role = account.role("Builds", allow(*MAY, "kms:*"), trust=CODEBUILD)
    client = account.client("codebuild")
    for name in ("make", "break"):
        client.create_project(
            name=name,
            source={"type": "CODEPIPELINE", "buildspec": f"{name}.json"},
            artifacts={"type": "CODEPIPELINE"},
            environment=ENVIRONMENT,
            serviceRole=role,
        )
    making = spec(
        build=[
            "mkdir out && cat README > out/README",
            'echo "$GREETING" > out/greeting',
            'ls "$CODEBUILD_SRC_DIR_More" > out/more',
            "export DIGEST=$(cksum out/README | cut -d' ' -f1)",
        ],
        env={"exported-variables": ["DIGEST"]},
        artifacts={
            "secondary-artifacts": {
                "Site": {"files": ["**/*"], "base-directory": "out"},
                "Notes": {"files": ["README"]},
            }
        },
    )
    releases.commit({"README": "hello", "make.json": making, "break.json": spec(build=["echo no && exit 7"])})
    releases.commit({"second.txt": "two"}, "more.zip")
    more = releases.source("more.zip")["actions"][0]
    more |= {"name": "More", "outputArtifacts": [{"name": "More"}], "namespace": "MoreVariables"}
    greeting = [{"name": "GREETING", "value": "#{SourceVariables.VersionId}"}]
    build = _build(
        "Build", "make", inputArtifacts=["Code", "More"], outputArtifacts=["Site", "Notes"], namespace="build",
        configuration={"PrimarySource": "Code", "EnvironmentVariables": json.dumps(greeting)},
    )  # fmt: skip
    copy = action(
        "Copy", "Deploy", "S3",
        {"BucketName": releases.sources, "Extract": "true", "ObjectKey": "site-#{build.DIGEST}"}, inputArtifacts=["Site"],
    )  # fmt: skip
    fails = _build("Fails", "break", inputArtifacts=["Code"])
    declared = releases.declared(stage("Build", build), stage("Use", copy, fails), name="builds")
    declared["stages"][0]["actions"].append(more)
    releases.client.create_pipeline(pipeline=declared)
    id = releases.newest("builds")
    done = releases.over("builds", id, 120)
    did = releases.actions("builds", id)
    version = did["Source"]["output"]["outputVariables"]["VersionId"]
    assert did["Build"]["status"] == "Succeeded", releases.error("builds", id, "Build")
    digest = did["Build"]["output"]["outputVariables"]["DIGEST"]
    made = releases.artifact("builds", id, "Build")
    assert made == {"README": b"hello", "greeting": f"{version}\n".encode(), "more": b"second.txt\n"}
    assert releases.artifact("builds", id, "Build", 1) == {"README": b"hello"}
    read = releases.s3.get_object(Bucket=releases.sources, Key=f"site-{digest}/README")["Body"].read()
    assert read == b"hello"
    build_id = did["Build"]["output"]["executionResult"]["externalExecutionId"]
    [held] = client.batch_get_builds(ids=[build_id])["builds"]
    assert (held["buildStatus"], held["encryptionKey"]) == ("SUCCEEDED", releases.key)
    assert done["status"] == "Failed"
    error = releases.error("builds", id, "Fails")
    assert error["code"] == "JobFailed" and "exit status 7" in error["message"] and "BUILD" in error["message"]
    assert did["Fails"]["output"]["executionResult"]["logStreamARN"].startswith("arn:aws:logs:")
    with pytest.raises(ClientError, match="started by its pipeline alone"):
        client.start_build(projectName="make", sourceLocationOverride=f"{releases.sources}/source.zip")
    # A build reads its sources later than the pipeline compared them. It was told what they have to be, both of them: what
    # somebody puts in their place in between is not built.
    places = [did[name]["output"]["outputArtifacts"][0]["s3location"] for name in ("Source", "More")]
    digests = [hashlib.sha256(_object(releases, one)).hexdigest() for one in places]
    assert held["sourceVersion"] == f"sha256:{digests[0]}"
    assert held["secondarySourceVersions"] == [{"sourceIdentifier": "More", "sourceVersion": f"sha256:{digests[1]}"}]
    releases.s3.put_object(Bucket=places[0]["bucket"], Key=places[0]["key"], Body=zipped({"make.json": making}))
    source = {"sourceTypeOverride": "S3", "sourceLocationOverride": held["source"]["location"]}
    id = client.start_build(projectName="make", **source, sourceVersion=held["sourceVersion"])["build"]["id"]
    [swapped] = until(lambda: one if (one := client.batch_get_builds(ids=[id])["builds"])[0]["buildComplete"] else None)
    assert phases(swapped)["DOWNLOAD_SOURCE"] == "FAILED" and "somebody changed it" in cause(swapped)


def _object(releases: Releases, place: dict[str, str]) -> bytes:
    return bytes(releases.s3.get_object(Bucket=place["bucket"], Key=place["key"])["Body"].read())
