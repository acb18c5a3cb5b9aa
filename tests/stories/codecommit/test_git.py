"""git clones, fetches and pushes, as whom its credentials say, and nothing but what policies allow."""

from __future__ import annotations

import pytest

from tests.platform import allow
from tests.stories.codecommit.remote import Remote


@pytest.mark.control("EXP-20", "STG-01")
def test_a_clone_a_commit_a_push_and_a_pull_through_both_helpers(remote: Remote) -> None:
    client = remote.client
    remote.git("clone", "-q", remote.url, "one")
    first = remote.work("one", train_dot_py="print(1)\n", src__model_dot_py="x = 1\n")
    remote.git("push", "-q", "origin", "HEAD:main", at="one")
    assert client.get_branch(repositoryName="code", branchName="main")["branch"]["commitId"] == first
    assert client.get_repository(repositoryName="code")["repositoryMetadata"]["defaultBranch"] == "main"

    remote.git("clone", "-q", "codecommit::us-east-1://code", "two", helper=False)
    assert remote.head("two") == first
    second = remote.work("two", train_dot_py="print(2)\n")
    remote.git("push", "-q", at="two", helper=False)
    remote.git("pull", "-q", "origin", "main", at="one")
    assert remote.head("one") == second
    assert (remote.folder / "one" / "train.py").read_text() == "print(2)\n"
    commit = client.get_commit(repositoryName="code", commitId=second)["commit"]
    assert (commit["author"]["name"], commit["parents"]) == ("Ada", [first])


def test_refused(remote: Remote) -> None:
    remote.account.role("Reader", allow("codecommit:GitPull"))
    keys = remote.account.as_role("Reader")
    remote.git("clone", "-q", remote.url, "one", keys=keys)
    remote.work("one", a="1")
    found = remote.git("push", "-q", "origin", "HEAD:main", at="one", keys=keys, fine=False)
    assert "403" in found.stderr
