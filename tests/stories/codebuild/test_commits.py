"""Builds of a commit of the platform's own repositories."""

from __future__ import annotations

import pytest

from tests.platform import allow
from tests.stories.codebuild.conftest import CODEBUILD, MAY, Bench, cause, phases, spec


@pytest.mark.control("PIP-03", lacking="a pipeline, which has tests of its own")
def test_a_build_has_the_tree_of_a_commit(bench: Bench) -> None:
    account = bench.account
    repositories = account.client("codecommit")
    url = repositories.create_repository(repositoryName="model")["repositoryMetadata"]["cloneUrlHttp"]
    buildspec = spec(
        build=[
            "cat train.py; echo of $CODEBUILD_RESOLVED_SOURCE_VERSION",
            "git rev-parse HEAD; git status --short; git tag",
        ]
    )

    def commit(branch: str, text: str, parent: str = "") -> str:
        files = [("train.py", text), ("buildspec.yml", buildspec)]
        puts = [{"filePath": path, "fileContent": f"{content}\n".encode()} for path, content in files]
        more = {"parentCommitId": parent} if parent else {}
        found: str = repositories.create_commit(repositoryName="model", branchName=branch, putFiles=puts, **more)[
            "commitId"
        ]
        return found

    first = commit("main", "print(1)")
    second = commit("main", "print(2)", first)
    role = account.role("puller", allow(*MAY, "codecommit:GitPull"), trust=CODEBUILD)
    name = bench.project("", source={"type": "CODECOMMIT", "location": url}, serviceRole=role)
    builds = {
        version: bench.start(name, **({"sourceVersion": version} if version else {})) for version in ("", "main", first)
    }
    for version, id in builds.items():
        build, wanted = bench.over(id), first if version == first else second
        assert build["resolvedSourceVersion"] == wanted, bench.lines(build)
        assert bench.said(build) == [f"print({1 if version == first else 2})", f"of {wanted}", wanted]
    unknown = bench.over(bench.start(name, sourceVersion="nowhere"))
    assert phases(unknown)["DOWNLOAD_SOURCE"] == "FAILED" and "nowhere" in cause(unknown)
    denied = bench.over(bench.start(name, serviceRoleOverride=bench.role))
    assert "AccessDenied" in cause(denied) and "codecommit:GitPull" in cause(denied)
