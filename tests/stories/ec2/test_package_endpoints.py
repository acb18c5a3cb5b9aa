"""Packages from inside of a VPC: the API and the repositories come over endpoints of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.platform import PROGRAM
from tests.stories.codeartifact.packages import Shelf, wheel
from tests.stories.codeartifact.test_channels import INSTALL, channel, conda, load
from tests.stories.ec2.conftest import Science


@pytest.mark.control("NET-13", lacking="CodePipeline and CodeBuild")
@pytest.mark.control("EXP-22", lacking="a notebook, for which a program in its subnet stands")
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
