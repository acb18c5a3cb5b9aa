"""A build makes a package, publishes it to the private index and installs it again; nothing comes from elsewhere."""

from __future__ import annotations

import pytest

from tests.platform import allow
from tests.stories.codebuild.conftest import CODEBUILD, MAY, Bench, archive, spec

PROJECT = """[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "house-tools"
version = "1.4"
[tool.setuptools]
py-modules = ["house_tools"]
"""
PUBLISH = (
    "codeartifact:GetAuthorizationToken", "codeartifact:GetRepositoryEndpoint", "codeartifact:ReadFromRepository",
    "codeartifact:PublishPackageVersion", "sts:GetServiceBearerToken",
)  # fmt: skip


@pytest.mark.control("PIP-04", lacking="images are built in test_images.py")
def test_a_build_publishes_and_installs_a_package(bench: Bench) -> None:
    account = bench.account
    packages = account.client("codeartifact")
    packages.create_domain(domain="shared")
    packages.create_repository(domain="shared", repository="own")
    role = account.role("packaging", allow(*MAY, *PUBLISH), trust=CODEBUILD)
    where = "--domain shared --repository own"
    buildspec = spec(
        pre_build=[f"aws codeartifact login --tool twine {where}", f"aws codeartifact login --tool pip {where}"],
        build=[
            "python3 -m build --no-isolation --wheel . > /dev/null",
            "twine upload --repository codeartifact --disable-progress-bar dist/*",
            "cd /tmp && pip install --quiet --no-deps house-tools==1.4 && python3 -c 'import house_tools'",
        ],
        post_build=["pip install --quiet --no-deps flask 2>&1 | grep -o 'No matching distribution' | head -1"],
    )
    content = archive(
        buildspec_dot_yml=buildspec, pyproject_dot_toml=PROJECT, house_tools_dot_py="print('from the private index')\n"
    )
    source = {"type": "S3", "location": bench.put("package.zip", content)}
    build = bench.build("", source=source, serviceRole=role)
    said = bench.said(build)
    assert build["buildStatus"] == "SUCCEEDED", "\n".join(bench.lines(build))
    assert "from the private index" in said and "No matching distribution" in said
    versions = packages.list_package_versions(domain="shared", repository="own", format="pypi", package="house-tools")
    assert [one["version"] for one in versions["versions"]] == ["1.4"]
