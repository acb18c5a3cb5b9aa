"""What the API reads of repositories and commits to them."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.stories.codecommit.remote import Remote
from tests.stories.codecommit.test_git import code


@pytest.mark.control("EXP-20", "PIP-03", lacking="runs that start from a commit have their own tests")
def test_files_are_put_read_compared_and_deleted(remote: Remote) -> None:
    client, name = remote.client, {"repositoryName": "code"}
    on_main = {**name, "branchName": "main"}
    assert code(client.get_branch, **on_main) == "BranchDoesNotExistException"
    assert code(client.get_file, **name, filePath="a") == "CommitDoesNotExistException"
    first = client.put_file(**on_main, filePath="src/train.py", fileContent=b"print(1)\n", name="Ada", email="a@b.c")
    read = client.get_file(**name, filePath="/src/train.py")
    assert (read["fileContent"], read["fileMode"], read["fileSize"]) == (b"print(1)\n", "NORMAL", 9)
    assert (read["commitId"], read["blobId"]) == (first["commitId"], first["blobId"])
    assert client.get_blob(**name, blobId=first["blobId"])["content"] == b"print(1)\n"
    more = {"filePath": "run.sh", "fileContent": b"#!/bin/sh\n", "fileMode": "EXECUTABLE"}
    assert code(client.put_file, **on_main, **more) == "ParentCommitIdRequiredException"
    assert code(client.put_file, **on_main, **more, parentCommitId="0" * 40) == "ParentCommitIdOutdatedException"
    same = {"filePath": "src/train.py", "fileContent": b"print(1)\n"}
    assert code(client.put_file, **on_main, **same, parentCommitId=first["commitId"]) == "SameFileContentException"

    second = client.create_commit(
        **on_main, parentCommitId=first["commitId"], authorName="Ada", email="a@b.c", commitMessage="second",
        putFiles=[
            more, {"filePath": "link", "fileContent": b"/etc/passwd", "fileMode": "SYMLINK"},
            {"filePath": "lib/model.py", "sourceFile": {"filePath": "src/train.py", "isMove": True}},
        ],
    )  # fmt: skip
    assert [one["absolutePath"] for one in second["filesAdded"]] == ["lib/model.py", "link", "run.sh"]
    assert [one["absolutePath"] for one in second["filesDeleted"]] == ["src/train.py"]
    folder = client.get_folder(**name, folderPath="/")
    assert [one["relativePath"] for one in folder["subFolders"]] == ["lib"]
    assert [(one["relativePath"], one["fileMode"]) for one in folder["files"]] == [("run.sh", "EXECUTABLE")]
    assert folder["symbolicLinks"][0]["absolutePath"] == "link" and folder["treeId"] == second["treeId"]
    told = client.get_differences(
        **name, beforeCommitSpecifier=first["commitId"], afterCommitSpecifier="main", MaxResults=2
    )
    rest = client.get_differences(
        **name, beforeCommitSpecifier=first["commitId"], afterCommitSpecifier="main", MaxResults=2,
        NextToken=told["NextToken"],
    )  # fmt: skip
    changes = {
        (one.get("afterBlob") or one["beforeBlob"])["path"]: one["changeType"]
        for one in [*told["differences"], *rest["differences"]]
    }
    assert changes == {"lib/model.py": "A", "link": "A", "run.sh": "A", "src/train.py": "D"}
    gone = client.delete_file(**on_main, filePath="run.sh", parentCommitId=second["commitId"])
    assert code(client.get_file, **name, filePath="run.sh") == "FileDoesNotExistException"
    both = client.batch_get_commits(**name, commitIds=[gone["commitId"], "f" * 40, first["commitId"]])
    assert [one["parents"] for one in both["commits"]] == [[second["commitId"]], []]
    assert both["errors"][0]["errorCode"] == "CommitIdDoesNotExistException"

    remote.git("clone", "-q", remote.url, "one")
    assert remote.head("one") == gone["commitId"]
    assert (remote.folder / "one" / "lib" / "model.py").read_text() == "print(1)\n"


@pytest.mark.parametrize(
    "path",
    [
        "../up",
        "a/../../b",
        ".git/config",
        "a/.GIT/hooks/post-checkout",
        "a//b",
        ".git\u200c/x",
        "git~1/x",
        ".git. /x",
        "a/./b",
    ],
)
def test_paths_that_lead_elsewhere_are_refused(remote: Remote, path: str) -> None:
    given = {"repositoryName": "code", "filePath": path}
    assert code(remote.client.put_file, **given, branchName="main", fileContent=b"x") == "InvalidPathException"
    assert not remote.client.list_branches(repositoryName="code")["branches"]


def test_files_and_folders_do_not_take_each_others_place(remote: Remote) -> None:
    client, given = remote.client, {"repositoryName": "code", "branchName": "main", "fileContent": b"x"}
    tip = client.put_file(**given, filePath="a/b")["commitId"]
    assert (
        code(client.put_file, **given, filePath="a", parentCommitId=tip)
        == "FileNameConflictsWithDirectoryNameException"
    )
    assert code(client.put_file, **given, filePath="a/b/c", parentCommitId=tip) == (
        "DirectoryNameConflictsWithFileNameException"
    )
    assert code(client.put_file, **given, filePath="c" * 300, parentCommitId=tip) == "InvalidPathException"
    big = {**given, "fileContent": b"x" * (6 * 1024 * 1024 + 1)}
    assert code(client.put_file, **big, filePath="c", parentCommitId=tip) in (
        "FileContentSizeLimitExceededException", "ValidationException",
    )  # fmt: skip


def test_a_link_in_a_tree_is_told_and_never_followed(remote: Remote) -> None:
    """Trees may say that a folder is a link and that something lies in it; whoever reads is given what git has."""
    remote.git("clone", "-q", remote.url, "one")
    (remote.folder / "one" / "etc").symlink_to("/etc")
    (remote.folder / "one" / "up").symlink_to("../../..")
    remote.work("one", a="1")
    remote.git("push", "-q", "origin", "HEAD:main", at="one")
    for path in ("etc/passwd", "up/root", "etc/hostname"):
        assert code(remote.client.get_file, repositoryName="code", filePath=path) == "FileDoesNotExistException"
        assert code(remote.client.get_folder, repositoryName="code", folderPath=path) == "FolderDoesNotExistException"
    read = remote.client.get_file(repositoryName="code", filePath="etc")
    assert (read["fileMode"], read["fileContent"]) == ("SYMLINK", b"/etc")


def test_names_and_pages_of_repositories(remote: Remote) -> None:
    client = remote.client
    for name in ("../up", "a/b", "x.git", ".", "..", "a b"):
        assert code(client.create_repository, repositoryName=name) in (
            "InvalidRepositoryNameException", "ValidationException",
        ), name  # fmt: skip
    assert code(client.create_repository, repositoryName="code") == "RepositoryNameExistsException"
    made = client.create_repository(repositoryName="b", repositoryDescription="B", tags={"team": "red"})
    arn = made["repositoryMetadata"]["Arn"]
    assert client.list_tags_for_resource(resourceArn=arn)["tags"] == {"team": "red"}
    client.tag_resource(resourceArn=arn, tags={"stage": "dev"})
    client.untag_resource(resourceArn=arn, tagKeys=["team"])
    assert client.list_tags_for_resource(resourceArn=arn)["tags"] == {"stage": "dev"}
    client.put_file(repositoryName="b", branchName="main", filePath="a", fileContent=b"1")
    client.update_repository_name(oldName="b", newName="c")
    client.update_repository_description(repositoryName="c", repositoryDescription="C")
    assert client.get_file(repositoryName="c", filePath="a")["fileContent"] == b"1"
    listed = client.list_repositories(sortBy="repositoryName", order="descending")["repositories"]
    assert [one["repositoryName"] for one in listed] == ["code", "c"]
    several = client.batch_get_repositories(repositoryNames=["c", "nothing"])
    assert several["repositories"][0]["repositoryDescription"] == "C" and several["repositoriesNotFound"] == ["nothing"]
    tip = client.get_branch(repositoryName="c", branchName="main")["branch"]["commitId"]
    client.create_branch(repositoryName="c", branchName="work/one", commitId=tip)
    assert (
        code(client.create_branch, repositoryName="c", branchName="work", commitId=tip) == "BranchNameExistsException"
    )
    assert (
        code(client.create_branch, repositoryName="c", branchName="a..b", commitId=tip) == "InvalidBranchNameException"
    )
    assert (
        code(client.create_branch, repositoryName="c", branchName="d", commitId="0" * 40)
        == "CommitDoesNotExistException"
    )
    assert code(client.delete_branch, repositoryName="c", branchName="main") == "DefaultBranchCannotBeDeletedException"
    client.update_default_branch(repositoryName="c", defaultBranchName="work/one")
    assert client.delete_branch(repositoryName="c", branchName="main")["deletedBranch"]["commitId"] == tip
    assert client.delete_repository(repositoryName="c")["repositoryId"] == made["repositoryMetadata"]["repositoryId"]
    assert "repositoryId" not in client.delete_repository(repositoryName="c")


_NAMES = st.sampled_from(["a", "b", "src/a", "src/b", "src/deep/c", "ü", "white space", 'quo"te', "back\\slash"])
_TREE = st.dictionaries(_NAMES, st.binary(max_size=200), min_size=1, max_size=5)


@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(trees=st.lists(_TREE, min_size=1, max_size=3))
def test_what_the_api_commits_git_reads(remote: Remote, trees: list[dict[str, bytes]]) -> None:
    """Law: after a commit that puts files and deletes all others, a clone holds those files and nothing else."""
    client: Any = remote.client
    name = {"repositoryName": "law"}
    client.delete_repository(**name)
    client.create_repository(**name)
    held: dict[str, bytes] = {}
    parent: dict[str, str] = {}
    for tree in trees:
        puts = [{"filePath": path, "fileContent": raw} for path, raw in tree.items()]
        gone = [{"filePath": path} for path in held if path not in tree]
        if held == tree:
            continue
        made = client.create_commit(**name, branchName="main", putFiles=puts, deleteFiles=gone, **parent)
        held, parent = tree, {"parentCommitId": made["commitId"]}
    law = Remote(remote.account, remote.folder, "law")
    raw = law.git("archive", "--format=zip", "-o", "law.zip", "HEAD", at=_clone(law)).stdout
    assert raw == ""
    with zipfile.ZipFile(io.BytesIO((law.folder / "clone" / "law.zip").read_bytes())) as archive:
        assert {one: archive.read(one) for one in archive.namelist() if not one.endswith("/")} == held


def _clone(law: Remote) -> str:
    law.git("-c", "core.autocrlf=false", "clone", "-q", law.url, "fresh")
    import shutil

    shutil.rmtree(law.folder / "clone", ignore_errors=True)
    (law.folder / "fresh").rename(law.folder / "clone")
    return "clone"
