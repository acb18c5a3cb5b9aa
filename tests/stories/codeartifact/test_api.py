"""Packages over the API: copied, deleted, listed, and kept once for all who have them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.platform import Account, allow
from tests.stories.codeartifact.packages import Shelf, wheel


def publish(client: Any, repository: str, content: bytes, **more: Any) -> dict[str, Any]:
    given = {"format": "generic", "package": "set", "packageVersion": "1", "assetName": "data", **more}
    told: dict[str, Any] = client.publish_package_version(
        domain="shared", repository=repository, assetContent=content, assetSHA256=hashlib.sha256(content).hexdigest(),
        **given,
    )  # fmt: skip
    return told


@pytest.fixture
def client(account: Account) -> Any:
    found = account.client("codeartifact")
    found.create_domain(domain="shared", tags=[{"key": "team", "value": "red"}])
    for name in ("one", "two"):
        found.create_repository(domain="shared", repository=name)
    return found


def test_what_is_copied_stays_when_its_source_goes(client: Any, account: Account) -> None:
    content = b"rows" * 10_000
    first = publish(client, "one", content)
    where = {"domain": "shared", "format": "generic", "package": "set"}
    told = client.copy_package_versions(
        **where, sourceRepository="one", destinationRepository="two", versions=["1", "none"]
    )
    assert told["successfulVersions"] == {"1": {"revision": first["versionRevision"], "status": "Published"}}
    assert told["failedVersions"]["none"]["errorCode"] == "NOT_FOUND"
    size = client.describe_domain(domain="shared")["domain"]
    assert (size["assetSizeBytes"], size["repositoryCount"]) == (len(content), 2)
    client.delete_package(**where, repository="one")
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.describe_package(**where, repository="one")
    asked = {**where, "repository": "two", "packageVersion": "1"}
    assert client.get_package_version_asset(**asked, asset="data")["asset"].read() == content
    [asset] = client.list_package_version_assets(**asked)["assets"]
    assert asset["hashes"]["SHA-256"] == hashlib.sha256(content).hexdigest() and asset["size"] == len(content)
    gone = client.delete_package_versions(**where, repository="two", versions=["1"], expectedStatus="Archived")
    assert gone["failedVersions"]["1"]["errorCode"] == "MISMATCHED_STATUS"
    client.delete_package_versions(**where, repository="two", versions=["1"])
    assert client.describe_domain(domain="shared")["domain"]["assetSizeBytes"] == 0

    # A published version is closed; an unfinished one takes more, until it is said to be whole.
    publish(client, "one", b"a", packageVersion="2")
    for more in ({"assetName": "other"}, {}):
        with pytest.raises(client.exceptions.ConflictException):
            publish(client, "one", b"b", packageVersion="2", **more)
    publish(client, "one", b"a", packageVersion="3", unfinished=True)
    assert publish(client, "one", b"b", packageVersion="3", assetName="other")["status"] == "Published"
    for wrong in ("..", "."):
        with pytest.raises(client.exceptions.ValidationException):
            publish(client, "one", b"a", package=wrong)
    with pytest.raises(client.exceptions.ValidationException):
        publish(client, "one", b"a", format="pypi", package="tool")
    with pytest.raises(client.exceptions.ValidationException):
        publish(client, "one", b"a", format="npm")


def test_packages_versions_and_tags_are_listed(client: Any, account: Account, tmp_path: Path) -> None:
    shelf = Shelf(account, "shared", "one")
    requires = 'Requires-Dist: numpy>=1.20\nRequires-Dist: pytest; extra == "test"'
    for version in ("1.9", "1.10"):
        assert shelf.upload(wheel(tmp_path, "house_tools", version, requires=requires)) == 200
    publish(client, "one", b"a", namespace="team")
    told = client.list_packages(domain="shared", repository="one")["packages"]
    assert {(one["format"], one.get("namespace"), one["package"]) for one in told} == {
        ("pypi", None, "house-tools"), ("generic", "team", "set"),
    }  # fmt: skip
    where = {"domain": "shared", "repository": "one", "format": "pypi", "package": "House.Tools"}
    names: list[str] = []
    for page in client.get_paginator("list_package_versions").paginate(**where, PaginationConfig={"PageSize": 1}):
        names += [one["version"] for one in page["versions"]]
    assert names == ["1.10", "1.9"]
    found = client.list_package_version_dependencies(**where, packageVersion="1.10")["dependencies"]
    assert [(one["package"], one["dependencyType"], one["versionRequirement"]) for one in found] == [
        ("numpy", "regular", ">=1.20"), ("pytest", "extra", "*"),
    ]  # fmt: skip
    arn = client.describe_domain(domain="shared")["domain"]["arn"]
    client.tag_resource(resourceArn=arn, tags=[{"key": "more", "value": "1"}])
    client.untag_resource(resourceArn=arn, tagKeys=["team"])
    assert client.list_tags_for_resource(resourceArn=arn)["tags"] == [{"key": "more", "value": "1"}]
    everywhere = account.client("resourcegroupstaggingapi")
    everywhere.tag_resources(ResourceARNList=[arn], Tags={"third": "3"})
    [one] = everywhere.get_resources(TagFilters=[{"Key": "third"}])["ResourceTagMappingList"]
    assert one["ResourceARN"] == arn
    for wrong in ("arn:aws:codeartifact:us-east-1:1:domain/x", "shared"):
        with pytest.raises(client.exceptions.ClientError):
            client.list_tags_for_resource(resourceArn=wrong)


def test_repositories_of_another_account_in_a_domain(client: Any, account: Account, neighbour: Account) -> None:
    theirs = neighbour.client("codeartifact")
    where = {"domain": "shared", "domainOwner": account.id}
    with pytest.raises(theirs.exceptions.AccessDeniedException):
        theirs.create_repository(**where, repository="theirs")
    statement = {
        "Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{neighbour.id}:root"},
        "Action": "codeartifact:CreateRepository", "Resource": "*",
    }  # fmt: skip
    client.put_domain_permissions_policy(
        domain="shared", policyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    )
    made = theirs.create_repository(**where, repository="theirs")["repository"]
    assert made["administratorAccount"] == neighbour.id and made["domainOwner"] == account.id
    assert [one["name"] for one in theirs.list_repositories()["repositories"]] == ["theirs"]
    with pytest.raises(theirs.exceptions.AccessDeniedException):  # an upstream is asked about, too
        theirs.update_repository(**where, repository="theirs", upstreams=[{"repositoryName": "one"}])
    with pytest.raises(client.exceptions.ConflictException):
        client.delete_domain(domain="shared")
    client.update_repository(domain="shared", repository="one", upstreams=[{"repositoryName": "two"}])
    for upstream in ("one", "none"):
        with pytest.raises(client.exceptions.ClientError):  # no ring, and nothing that is not there
            client.update_repository(domain="shared", repository="two", upstreams=[{"repositoryName": upstream}])
    with pytest.raises(client.exceptions.ConflictException, match="upstream of one"):
        client.delete_repository(domain="shared", repository="two")

    # One package may be somebody's, and nothing beside it.
    arn = f"arn:aws:codeartifact:us-east-1:{account.id}:package/shared/one/generic//set"
    account.role("publisher", allow("codeartifact:PublishPackageVersion", resource=arn))
    as_role = account.client("codeartifact", account.as_role("publisher"))
    publish(as_role, "one", b"a")
    with pytest.raises(as_role.exceptions.AccessDeniedException):
        publish(as_role, "one", b"a", package="other")
