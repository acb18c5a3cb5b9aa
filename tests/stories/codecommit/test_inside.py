"""What other services ask of repositories: a commit's tree, or the whole repository; and repositories of stacks."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bastide.domain import Refused
from bastide.kernel import Caller
from bastide.main.compose import Platform
from bastide.store.directory import DataDirectory
from tests.platform import HOME, PROGRAM, Account
from tests.stories.cloudformation.stacks import Stacks, template
from tests.stories.codecommit.remote import Remote

ROOT = Caller("Root", HOME, f"arn:aws:iam::{HOME}:root", f"arn:aws:iam::{HOME}:root", HOME, "root")


@pytest.mark.control("PIP-03", lacking="runs of pipelines have their own tests")
def test_an_archive_is_exactly_the_tree_of_a_commit(tmp_path: Path) -> None:
    data = tmp_path / "data"
    subprocess.run([*PROGRAM, "init", "--data", str(data), "--account-id", HOME], check=True, capture_output=True)

    async def work() -> None:
        platform = await Platform.start(DataDirectory(data), "https://localhost:4566")

        async def act(operation: str, service: str = "codecommit", by: Caller = ROOT, **given: Any) -> dict[str, Any]:
            return await platform.calls.act(by, service, operation, given, region="us-east-1", source="test")

        try:
            await act("CreateRepository", repositoryName="code")
            put = {"repositoryName": "code", "branchName": "main"}
            files = {"a.txt": b"$Format:%H$\r\n", ".gitattributes": b"* export-subst text=auto\nsecret export-ignore\n"}
            files |= {"secret": b"kept", "deep/b": b"b"}
            puts = [{"filePath": path, "fileContent": raw} for path, raw in files.items()]
            first = (await act("CreateCommit", **put, putFiles=puts))["commitId"]
            later = await act("DeleteFile", **put, filePath="a.txt", parentCommitId=first)
            for operation in ("GitPull", "UploadArchive"):
                made = await act(operation, repositoryName="code", commitSpecifier=first, format="zip")
                with zipfile.ZipFile(io.BytesIO(made["archive"])) as archive:
                    found = {one: archive.read(one) for one in archive.namelist() if not one.endswith("/")}
                assert (found, made["commitId"]) == (files, first)
            told = await act("UploadArchive", repositoryName="code", commitSpecifier="main", format="bundle")
            assert (told["commitId"], told["branchName"]) == (later["commitId"], "main")
            (tmp_path / "bundle").write_bytes(told["archive"])
            subprocess.run(["git", "clone", "-q", str(tmp_path / "bundle"), str(tmp_path / "clone")], check=True)
            assert (tmp_path / "clone" / "deep" / "b").read_bytes() == b"b"

            statement = {"Effect": "Allow", "Action": "codecommit:GitPull", "Resource": "*"}
            trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "codebuild.amazonaws.com"}}
            documents = [json.dumps({"Version": "2012-10-17", "Statement": [one]}) for one in (trust, statement)]
            await act("CreateRole", "iam", RoleName="r", AssumeRolePolicyDocument=documents[0])
            await act("PutRolePolicy", "iam", RoleName="r", PolicyName="p", PolicyDocument=documents[1])
            role = await platform.calls.assume(
                "codebuild.amazonaws.com", f"arn:aws:iam::{HOME}:role/r", "s", account=HOME, region="us-east-1"
            )
            await act("GitPull", by=role, repositoryName="code", commitSpecifier="main", format="zip")
            for operation, given, code in (
                ("UploadArchive", {"repositoryName": "code"}, "AccessDeniedException"),
                ("GitPull", {"repositoryName": "nothing"}, "RepositoryDoesNotExistException"),
                ("GitPull", {"repositoryName": "code", "commitSpecifier": "nothing"}, "CommitDoesNotExistException"),
                ("GitPush", {"repositoryName": "code"}, "AccessDeniedException"),
            ):
                with pytest.raises(Refused) as raised:
                    await act(operation, by=role, **given)
                assert raised.value.code == code
        finally:
            await platform.close()

    asyncio.run(work())


def test_a_repository_of_a_stack_is_made_of_an_archive(account: Account, tmp_path: Path) -> None:
    s3 = account.client("s3")
    s3.create_bucket(Bucket=f"seed-{account.id}")

    def seed(key: str, **files: bytes) -> None:
        raw = io.BytesIO()
        with zipfile.ZipFile(raw, "w") as archive:
            for name, content in files.items():
                archive.writestr(name.replace("__", "/"), content)
        s3.put_object(Bucket=f"seed-{account.id}", Key=key, Body=raw.getvalue())

    seed("good", **{f"src__f{number}": b"%d" % number for number in range(120)})
    seed("bad", **{"..__up": b"x"})
    stacks = Stacks(account)

    def text(name: str, key: str, tag: str) -> str:
        code = {"S3": {"Bucket": f"seed-{account.id}", "Key": key}, "BranchName": "trunk"}
        properties = {
            "RepositoryName": name, "Code": code, "Tags": [{"Key": "t", "Value": tag}], "RepositoryDescription": tag,
        }  # fmt: skip
        outputs = {"Url": {"Value": {"Fn::GetAtt": ["Code", "CloneUrlHttp"]}}, "Id": {"Value": {"Ref": "Code"}}}
        return template({"Code": {"Type": "AWS::CodeCommit::Repository", "Properties": properties}}, Outputs=outputs)

    failed = stacks.create("bad", text("evil", "bad", "one"))
    assert failed["StackStatus"] == "ROLLBACK_COMPLETE" and "InvalidPath" in str(stacks.story("bad"))
    made = stacks.create("code", text("code", "good", "one"))
    assert made["StackStatus"] == "CREATE_COMPLETE", stacks.story("code")
    outputs = {one["OutputKey"]: one["OutputValue"] for one in made["Outputs"]}
    remote = Remote(account, tmp_path)
    assert outputs["Url"] == remote.url
    client = remote.client
    assert client.get_repository(repositoryName="code")["repositoryMetadata"]["repositoryId"] == outputs["Id"]
    assert client.get_file(repositoryName="code", commitSpecifier="trunk", filePath="src/f119")["fileContent"] == b"119"
    assert stacks.update("code", text("renamed", "good", "two"))["StackStatus"] == "UPDATE_COMPLETE"
    held = client.get_repository(repositoryName="renamed")["repositoryMetadata"]
    assert (held["repositoryId"], held["repositoryDescription"]) == (outputs["Id"], "two")
    assert client.list_tags_for_resource(resourceArn=held["Arn"])["tags"]["t"] == "two"
    stacks.delete("code")
    assert not client.list_repositories()["repositories"]
