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
from bastide.engines import git
from bastide.kernel import Call, Caller, Request
from bastide.main.compose import Platform
from bastide.services import codecommit
from bastide.services.codecommit import content
from bastide.store.directory import DataDirectory
from tests.platform import HOME, PROGRAM, Account
from tests.stories.cloudformation.stacks import Stacks, template
from tests.stories.codecommit.remote import Remote

ROOT = Caller("Root", HOME, f"arn:aws:iam::{HOME}:root", f"arn:aws:iam::{HOME}:root", HOME, "root")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four packs are enough to be gathered."""
    monkeypatch.setattr(content, "_MOST_PACKS", 4)


@pytest.mark.control("PIP-03", lacking="runs of pipelines have their own tests")
def test_an_archive_is_exactly_the_tree_of_a_commit_however_many_packs_there_are(tmp_path: Path, few: None) -> None:
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
            for number in range(5):
                given = {"filePath": f"more{number}", "fileContent": b"%d" % number}
                later = await act("PutFile", **put, **given, parentCommitId=later["commitId"])
            with platform.store.reading() as view:
                held = codecommit.files(view)
            lying = {path.name for path in DataDirectory(data).objects.rglob("*") if path.is_file()}
            assert len(held) == 3 and {one.hex() for one in held} <= lying  # four, put into one, and two more
            assert len(lying) == 3, "what another pack took the place of is gone"
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
                ("GitPull", {"repositoryName": "code", "commitSpecifier": "nothing"}, "BranchDoesNotExistException"),
                ("GitPush", {"repositoryName": "code"}, "AccessDeniedException"),
            ):
                with pytest.raises(Refused) as raised:
                    await act(operation, by=role, **given)
                assert raised.value.code == code

            # No more fetches at a time than there is room for; who waits long enough is told so, and later has its turn.
            copies = platform.calls.engine(git.Git)
            copies.fetches, copies.patience = 2, 0.05

            async def fetched() -> Any:
                at = Request("r", platform.calls.clock(), "127.0.0.1", "git", True, "json")
                operation = platform.calls.registry.operations["codecommit", "GitPull"]
                call = Call(operation, {"repositoryName": "code"}, ROOT, HOME, "us-east-1", at)
                call.prepared = codecommit.Fetch()
                return await platform.calls.run(call)

            async with copies.turn(HOME):
                with pytest.raises(Refused, match="Try again in a moment: this platform serves 2 fetches") as raised:
                    await fetched()
                assert (raised.value.code, raised.value.status) == ("ThrottlingException", 429)
                async with copies.turn("444455556666"):
                    pass
            assert later["commitId"].encode() in (await fetched())["advertised"]
        finally:
            await platform.close()

    asyncio.run(work())
    pack = next(path for path in DataDirectory(data).objects.rglob("*") if path.is_file())
    pack.write_bytes(pack.read_bytes()[:-1] + b"x")
    told = subprocess.run(
        [*PROGRAM, "verify", "--data", str(data), "--format", "json"], capture_output=True, check=False
    )
    [found] = [one for one in json.loads(told.stdout) if one["part"] == "repositories (packs)"]
    assert told.returncode and found["read"] == 3
    assert len(found["damage"]) == 1 and pack.name in found["damage"][0]


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
