"""Packages, code and images of another account from inside of a VPC: each comes over endpoints of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.platform import PROGRAM, REGION, Account, allow
from tests.stories.codeartifact.packages import Shelf, wheel
from tests.stories.codeartifact.test_channels import INSTALL, channel, conda, load
from tests.stories.codecommit.remote import Remote
from tests.stories.ec2.conftest import Science
from tests.stories.ecr.registry import Registry, canonical


def _for(account: Account, *actions: str) -> str:
    """The policy of a resource that another account may use."""
    return json.dumps(allow(*actions, Principal={"AWS": f"arn:aws:iam::{account.id}:root"}))


@pytest.mark.control("NET-13")
@pytest.mark.control("ACC-02", "ACC-08")
@pytest.mark.control("EXP-22", lacking="a notebook, for which a program in its subnet stands")
def test_pip_installs_over_the_repositories_endpoint(science: Science, neighbour: Account, tmp_path: Path) -> None:
    vpc = science.vpc
    client = neighbour.client("codeartifact")
    client.create_domain(domain="inside")
    client.create_repository(domain="inside", repository="own")
    may = _for(vpc.account, "codeartifact:GetAuthorizationToken")
    client.put_domain_permissions_policy(domain="inside", policyDocument=may)
    may = _for(vpc.account, "codeartifact:ReadFromRepository", "codeartifact:GetRepositoryEndpoint")
    client.put_repository_permissions_policy(domain="inside", repository="own", policyDocument=may)
    shelf = Shelf(neighbour, "inside", "own")
    assert shelf.upload(wheel(tmp_path / "dist", "from-inside", "1.0")) == 200
    # The services that build and release are reached by endpoints of theirs, too.
    services = {"codepipeline": ("codepipeline", "list_pipelines"), "codebuild": ("codebuild", "list_builds")}
    assert science.inside.lost(*services.values())
    for name in (*services, "codeartifact.api"):
        vpc.interface(name)
    assert [code for code, _ in science.inside.ask(*services.values())] == ["", ""]
    named = {"domain": "inside", "domainOwner": neighbour.id}
    code, told = science.inside.one("codeartifact", "get_authorization_token", named)
    assert not code, told
    code, answer = science.inside.one(
        "codeartifact", "get_repository_endpoint", {**named, "repository": "own", "format": "pypi"}
    )
    assert not code, answer
    where = answer["repositoryEndpoint"]
    assert where == f"https://inside-{neighbour.id}.d.codeartifact.us-east-1.amazonaws.com/pypi/own/"

    def inside(*words: str) -> subprocess.CompletedProcess[str]:
        index = where.replace("https://", f"https://aws:{told['authorizationToken']}@") + "simple/"
        command = [*PROGRAM, "network", "run", "--data", str(vpc.account.platform.data), "--account", vpc.account.id]
        return subprocess.run(
            [*command, "--subnet", vpc.subnet, "--", *words],
            capture_output=True, text=True, check=False, timeout=120,
            env={**shelf.environment(), "PIP_INDEX_URL": index},
        )  # fmt: skip

    def install(number: int) -> subprocess.CompletedProcess[str]:
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-compile", "--timeout", "1"]
        return inside(*pip, "--target", str(tmp_path / str(number)), "from-inside")

    done = install(1)  # the token call succeeds, and pip cannot connect
    assert done.returncode != 0, done.stdout
    vpc.interface("codeartifact.repositories")
    done = install(2)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "2" / "from_inside.py").exists()
    # So does a conda channel; the public index is out of reach.
    held = channel(tmp_path / "conda", conda(tmp_path / "conda/noarch", "from-channel", "1.0", "conda\n"))
    assert load(vpc.account.platform, held, "inside-test").returncode == 0
    client.associate_external_connection(domain="inside", repository="own", externalConnection="public:inside-test")
    base = where.replace("https://", f"https://aws:{told['authorizationToken']}@").replace("/pypi/", "/conda/")
    done = inside(sys.executable, "-c", INSTALL, base, str(tmp_path / "3"), "from-channel")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "3/prefix/share/from-channel.txt").read_text() == "conda\n"
    where = "https://pypi.org/pypi/"
    assert install(4).returncode != 0


class _Private(Remote):
    """A repository as AWS's clients name it."""

    @property
    def url(self) -> str:
        return f"https://git-codecommit.{REGION}.amazonaws.com/v1/repos/{self.name}"


@pytest.mark.control("ACC-02", "ACC-08")
def test_code_and_images_of_another_account_come_over_endpoints(
    science: Science, neighbour: Account, tmp_path: Path
) -> None:
    vpc = science.vpc
    code, registry = neighbour.client("codecommit"), Registry(neighbour, tmp_path)
    code.create_repository(repositoryName="code")
    code.put_file(repositoryName="code", branchName="main", filePath="a", fileContent=b"shared")
    trust = {"AWS": f"arn:aws:iam::{vpc.account.id}:root"}
    role = neighbour.role("Reader", allow("codecommit:GitPull"), trust=trust)
    remote = _Private(neighbour, tmp_path)
    user, password = remote.signed(neighbour.platform.assume(role, vpc.account.keys))
    digest = registry.push(registry.create("team/app"))
    pull = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:BatchCheckLayerAvailability"]
    policy = {"repositoryName": "team/app", "policyText": _for(vpc.account, *pull)}
    registry.ecr.set_repository_policy(**policy)
    image = f"docker://{canonical(neighbour.id, 'team/app')}@{digest}"
    login = registry.password(vpc.account.keys)
    environment = {**remote.environment(vpc.account.keys), "CLONE": remote.with_password(user, password)}

    def tried(number: int) -> list[str]:
        """What fails of: a clone, and a pull by digest."""
        copy = ["skopeo", "--insecure-policy", "--command-timeout", "5s", "copy", "--src-cert-dir"]
        copy += [str(tmp_path / "certificates"), "--src-creds", f"AWS:{login}", image, f"dir:{tmp_path}/image-{number}"]
        script = f'git clone -q "$CLONE" {tmp_path}/clone-{number} || echo clone\n"$@" || echo pull\n'
        command = [*PROGRAM, "network", "run", "--data", str(vpc.account.platform.data), "--account", vpc.account.id]
        done = subprocess.run(
            [*command, "--subnet", vpc.subnet, "--", "timeout", "20", "sh", "-c", script, "sh", *copy],
            capture_output=True, text=True, check=False, timeout=60, env=environment,
        )  # fmt: skip
        said.append(done.stderr)
        return [line for line in done.stdout.splitlines() if line in ("clone", "pull")]

    said: list[str] = []
    for name in ("git-codecommit", "ecr.dkr"):
        vpc.interface(name)
    vpc.ec2.create_vpc_endpoint(
        VpcId=vpc.id, ServiceName=f"com.amazonaws.{REGION}.s3", RouteTableIds=[vpc.main_table()]
    )
    assert tried(1) == [], said
    assert (tmp_path / "clone-1" / "a").read_text() == "shared"
    manifest = json.loads((tmp_path / "image-1" / "manifest.json").read_text())
    assert (tmp_path / "image-1" / manifest["layers"][0]["digest"].removeprefix("sha256:")).exists()
    # The repository's policy is what lets another account in.
    registry.ecr.delete_repository_policy(repositoryName="team/app")
    assert tried(2) == ["pull"] and "denied" in said[-1].lower(), said
