"""pip, uv and twine against a repository, with the token that AWS's own login gives them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.platform import Account, allow, lies_in, on_disk
from tests.stories.codeartifact.packages import Shelf, wheel


@pytest.fixture
def shelf(account: Account) -> Shelf:
    client = account.client("codeartifact")
    client.create_domain(domain="shared")
    client.create_repository(domain="shared", repository="private")
    return Shelf(account, "shared", "private")


@pytest.mark.control("EXP-22", lacking="a notebook in a VPC")
def test_a_private_package_is_uploaded_and_installed(shelf: Shelf, tmp_path: Path) -> None:
    secret = "word-that-is-nowhere-in-the-clear"
    built = wheel(tmp_path / "dist", "house-tools", "1.0", f"secret = '{secret}'\n")
    done = shelf.twine(built)
    assert done.returncode == 0, done.stdout + done.stderr
    done = shelf.pip(tmp_path / "pip", "house-tools==1.0")
    assert done.returncode == 0, done.stderr
    done = shelf.uv(tmp_path / "uv", "House_Tools")
    assert done.returncode == 0, done.stderr
    for tool in ("pip", "uv"):
        assert secret in (tmp_path / tool / "house_tools.py").read_text()
    assert not [one for one in on_disk(shelf.owner.platform.data) if lies_in(one, secret.encode())]

    # The pages: PEP 503 and 691, hashes, metadata of its own, and what may not be had without a token.
    token = shelf.token()
    one = shelf.page("house-tools", token)[built.name]
    sha256 = hashlib.sha256(built.read_bytes()).hexdigest()
    assert one["hashes"] == {"sha256": sha256} and one["requires-python"] == ">=3.9" and not one["yanked"]
    status, _, metadata = shelf.ask(f"simple/house-tools/{one['url']}.metadata", token=token)
    assert status == 200 and hashlib.sha256(metadata).hexdigest() == one["core-metadata"]["sha256"]
    assert metadata.startswith(b"Metadata-Version: 2.1\nName: house-tools")
    _, head, page = shelf.ask("simple/house-tools/", token=token, accept="text/html")
    assert head["content-type"].startswith("text/html") and f"#sha256={sha256}".encode() in page
    assert json.loads(shelf.ask("simple/", token=token, accept="application/vnd.pypi.simple.v1+json")[2])[
        "projects"
    ] == [{"name": "house-tools"}]
    status, head, _ = shelf.ask("simple/house-tools/")
    assert status == 401 and head["www-authenticate"].startswith("Basic")

    # A version is never another one: neither the same file nor a changed one is taken.
    wheel(tmp_path / "dist", "house-tools", "1.0", "secret = 'changed'\n")
    done = shelf.twine(built)
    assert done.returncode != 0 and "409" in done.stdout + done.stderr
    assert shelf.page("house-tools", token)[built.name]["hashes"] == {"sha256": sha256}

    # What was read and uploaded is on record, as whoever did it.
    trail = shelf.owner.client("cloudtrail")
    names = {one["EventName"] for page in trail.get_paginator("lookup_events").paginate() for one in page["Events"]}
    assert {"PublishPackageVersion", "ReadFromRepository", "GetAuthorizationToken"} <= names


def test_aws_login_configures_pip_and_twine(shelf: Shelf, tmp_path: Path) -> None:
    keys, authority = shelf.owner.keys, shelf.owner.platform.authority
    environment = {
        **shelf.environment(),
        "AWS_ACCESS_KEY_ID": keys.access_key, "AWS_SECRET_ACCESS_KEY": keys.secret, "AWS_SESSION_TOKEN": keys.token or "",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": shelf.owner.platform.url, "AWS_CA_BUNDLE": authority,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "HOME": str(tmp_path), "PIP_CONFIG_FILE": str(tmp_path / "pip.conf"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    where = ["--domain", "shared", "--domain-owner", shelf.owner.id, "--repository", "private"]

    def run(*words: str) -> None:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr

    aws = str(Path(sys.executable).with_name("aws"))
    for tool in ("twine", "pip"):
        run(aws, "codeartifact", "login", "--tool", tool, *where)
    built = wheel(tmp_path / "dist", "logged-in", "2.0")
    run(sys.executable, "-m", "twine", "upload", "--disable-progress-bar", "--repository", "codeartifact", str(built))
    run(sys.executable, "-m", "pip", "install", "-q", "--target", str(tmp_path / "there"), "logged-in")
    assert (tmp_path / "there" / "logged_in.py").exists()


def test_unlisted_is_yanked_and_archived_is_gone(shelf: Shelf, tmp_path: Path) -> None:
    files = [wheel(tmp_path / "dist", "tool", version) for version in ("1.0", "2.0", "3.0")]
    assert [shelf.upload(one) for one in files] == [200] * 3
    client = shelf.owner.client("codeartifact")
    where = {"domain": "shared", "repository": "private", "format": "pypi", "package": "tool"}
    listed = client.list_package_versions(**where)
    assert [one["version"] for one in listed["versions"]] == ["3.0", "2.0", "1.0"]
    assert listed["defaultDisplayVersion"] == "3.0"
    client.update_package_versions_status(**where, versions=["3.0"], targetStatus="Archived")
    client.update_package_versions_status(**where, versions=["2.0"], targetStatus="Unlisted")
    done = shelf.pip(tmp_path / "newest", "tool")
    assert done.returncode == 0, done.stderr
    assert "1.0" in (tmp_path / "newest" / "tool.py").read_text()
    page = shelf.page("tool")
    assert {name: one["yanked"] for name, one in page.items()} == {files[0].name: False, files[1].name: True}
    assert shelf.ask(f"simple/tool/3.0/{files[2].name}", token=shelf.token())[0] == 404

    # What is disposed is never that version again.
    client.dispose_package_versions(**where, versions=["1.0"])
    assert client.describe_package_version(**where, packageVersion="1.0")["packageVersion"]["status"] == "Disposed"
    assert shelf.upload(files[0]) == 409
    described = client.describe_package_version(**where, packageVersion="2.0")["packageVersion"]
    assert described["summary"] == "A package." and described["licenses"] == [{"name": "MIT"}]
    assert described["origin"]["originType"] == "INTERNAL"
    assert client.get_package_version_readme(**where, packageVersion="2.0")["readme"].strip() == "# tool"
    asset = client.get_package_version_asset(**where, packageVersion="2.0", asset=files[1].name)
    assert asset["asset"].read() == files[1].read_bytes()


@pytest.mark.control("EXP-22", "ACC-02")
def test_who_may_read_and_publish_is_decided_each_time(shelf: Shelf, neighbour: Account, tmp_path: Path) -> None:
    built = wheel(tmp_path / "dist", "common", "1.0")
    assert shelf.upload(built) == 200
    owner = shelf.owner.client("codeartifact")
    domain = f"arn:aws:codeartifact:us-east-1:{shelf.owner.id}:domain/shared"
    repository = f"arn:aws:codeartifact:us-east-1:{shelf.owner.id}:repository/shared/private"
    with pytest.raises(owner.exceptions.AccessDeniedException):
        shelf.token(neighbour.keys)

    def statement(*actions: str) -> str:
        principal = {"AWS": f"arn:aws:iam::{neighbour.id}:root"}
        return json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [{"Effect": "Allow", "Principal": principal, "Action": list(actions), "Resource": "*"}],
            }
        )

    owner.put_domain_permissions_policy(domain="shared", policyDocument=statement("codeartifact:GetAuthorizationToken"))
    token = shelf.token(neighbour.keys)
    assert shelf.ask("simple/common/", token=token)[0] == 403
    held = owner.put_repository_permissions_policy(
        domain="shared", repository="private", policyDocument=statement("codeartifact:ReadFromRepository")
    )["policy"]
    assert held["resourceArn"] == repository
    done = shelf.pip(tmp_path / "there", "common", token=token)
    assert done.returncode == 0, done.stderr
    other = wheel(tmp_path / "dist", "common", "1.1")
    assert shelf.upload(other, token) == 403

    # The same token, after its holder lost the permission.
    with pytest.raises(owner.exceptions.ConflictException):
        owner.delete_repository_permissions_policy(domain="shared", repository="private", policyRevision="other")
    owner.delete_repository_permissions_policy(domain="shared", repository="private", policyRevision=held["revision"])
    assert shelf.ask("simple/common/", token=token)[0] == 403

    # Both questions of a token: the domain's and sts's own, which may say for whom and how long.
    shelf.owner.role("reader", allow("codeartifact:*", resource=[domain, repository]))
    with pytest.raises(owner.exceptions.AccessDeniedException, match="sts:GetServiceBearerToken"):
        shelf.token(shelf.owner.as_role("reader"))
    condition = {
        "StringEquals": {"sts:AWSServiceName": "codeartifact.amazonaws.com"},
        "NumericLessThanEquals": {"sts:DurationSeconds": "1800"},
    }
    shelf.owner.client("iam").put_role_policy(
        RoleName="reader",
        PolicyName="bearer",
        PolicyDocument=json.dumps(allow("sts:GetServiceBearerToken", Condition=condition)),
    )
    keys = shelf.owner.as_role("reader")
    with pytest.raises(owner.exceptions.AccessDeniedException):
        shelf.token(keys)
    assert shelf.token(keys, durationSeconds=1800)
    for wrong in (1, 899):
        with pytest.raises(owner.exceptions.ValidationException):
            shelf.token(durationSeconds=wrong)
