"""Packages from inside of a VPC: the API and the repositories come over endpoints of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.platform import PROGRAM
from tests.stories.codeartifact.packages import Shelf, wheel
from tests.stories.ec2.conftest import Science


@pytest.mark.control("NET-13", lacking="CodePipeline and CodeBuild")
def test_pip_installs_over_the_repositories_endpoint(science: Science, tmp_path: Path) -> None:
    vpc = science.vpc
    client = vpc.account.client("codeartifact")
    client.create_domain(domain="inside")
    client.create_repository(domain="inside", repository="own")
    shelf = Shelf(vpc.account, "inside", "own")
    assert shelf.upload(wheel(tmp_path / "dist", "from-inside", "1.0")) == 200
    vpc.interface("codeartifact.api")
    named = {"domain": "inside", "domainOwner": vpc.account.id}
    code, told = science.inside.one("codeartifact", "get_authorization_token", named)
    assert not code, told
    code, answer = science.inside.one(
        "codeartifact", "get_repository_endpoint", {**named, "repository": "own", "format": "pypi"}
    )
    assert not code, answer
    where = answer["repositoryEndpoint"]
    assert where == f"https://inside-{vpc.account.id}.d.codeartifact.us-east-1.amazonaws.com/pypi/own/"

    def install(number: int) -> subprocess.CompletedProcess[str]:
        index = where.replace("https://", f"https://aws:{told['authorizationToken']}@") + "simple/"
        command = [*PROGRAM, "network", "run", "--data", str(vpc.account.platform.data), "--account", vpc.account.id]
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-compile", "--timeout", "1"]
        return subprocess.run(
            [*command, "--subnet", vpc.subnet, "--", *pip, "--target", str(tmp_path / str(number)), "from-inside"],
            capture_output=True, text=True, check=False, timeout=60,
            env={**shelf.environment(), "PIP_INDEX_URL": index},
        )  # fmt: skip

    done = install(1)  # the token call succeeds, and pip cannot connect
    assert done.returncode != 0, done.stdout
    vpc.interface("codeartifact.repositories")
    done = install(2)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "2" / "from_inside.py").exists()
