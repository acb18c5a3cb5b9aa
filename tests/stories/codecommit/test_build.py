"""A build of a repository: the tree of one commit, fetched as the project's role."""

from __future__ import annotations

import pytest

from tests.platform import allow
from tests.stories.codebuild.conftest import CODEBUILD, MAY, bench_of, cause, phases, spec
from tests.stories.codecommit.remote import Remote


@pytest.mark.control("PIP-03", lacking="runs of pipelines have their own tests")
def test_a_build_has_the_tree_of_the_commit_that_it_names(remote: Remote) -> None:
    bench = bench_of(remote.account)
    first = remote.client.put_file(
        repositoryName="code", branchName="main", filePath="src/word", fileContent=b"first\n"
    )["commitId"]
    remote.client.put_file(
        repositoryName="code", branchName="main", filePath="src/word", fileContent=b"second\n", parentCommitId=first
    )
    source = {"type": "CODECOMMIT", "location": remote.url, "buildspec": spec(build=["cat src/word"])}
    project = bench.project("", source=source)
    refused = bench.over(bench.start(project))
    assert phases(refused).get("DOWNLOAD_SOURCE") == "FAILED" and "codecommit:GitPull" in cause(refused), [
        one.get("contexts") for one in refused["phases"]
    ]
    may = allow(*MAY, "codecommit:GitPull")
    remote.account.role("pulls", may, trust=CODEBUILD)
    bench.client.update_project(name=project, serviceRole=f"arn:aws:iam::{remote.account.id}:role/pulls")
    built = [bench.over(bench.start(project, **more)) for more in ({}, {"sourceVersion": first})]
    assert [bench.said(one) for one in built] == [["second"], ["first"]]
    assert built[1]["resolvedSourceVersion"] == first
