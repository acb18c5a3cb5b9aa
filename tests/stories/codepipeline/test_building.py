"""Builds of a pipeline: what goes into them, what comes out, and what a failing one says."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, allow
from tests.stories.codebuild.conftest import CODEBUILD, ENVIRONMENT, MAY, spec
from tests.stories.codepipeline.releases import Releases, action, releases_of, stage, zipped


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

    # What is written over an artifact while its build waits is not built, by whoever may write into the store.
    again = releases.started("builds")
    while (latest := client.list_builds_for_project(projectName="make")["ids"][0]) == held["id"]:
        time.sleep(0.02)
    [build] = client.batch_get_builds(ids=[latest])["builds"]
    bucket, _, key = build["source"]["location"].partition("/")
    evil = zipped({"README": "evil", "make.json": making})
    releases.s3.put_object(Bucket=bucket, Key=key, Body=evil)
    releases.over("builds", again, 120)
    outcome = releases.actions("builds", again)["Build"]
    if outcome["status"] == "Succeeded":  # the build had read its source before
        assert releases.artifact("builds", again, "Build")["README"] == b"hello"
    else:
        assert "was written over since" in releases.error("builds", again, "Build")["message"]
