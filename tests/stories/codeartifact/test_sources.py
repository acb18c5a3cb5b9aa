"""Upstreams, the public mirror, and names that somebody else has in public."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.platform import PROGRAM, Account, Running, lies_in, on_disk
from tests.stories.codeartifact.packages import Shelf, form, wheel


@pytest.fixture(scope="module")
def mirror(platform: Running, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Public packages that the operator loaded."""
    folder = tmp_path_factory.mktemp("mirror")
    wheel(folder, "public-one", "1.0", requires="Requires-Dist: public-two>=1")
    wheel(folder, "public-two", "1.5")
    wheel(folder, "poisoned", "99.0", "hostile = True\n")
    changed = wheel(folder, "exchanged", "1.0")
    (folder / "..not-a-wheel.txt").write_text("no")
    loaded = load(platform, folder)
    assert loaded.returncode == 0 and "4 new" in loaded.stdout and "not-a-wheel" in loaded.stderr
    # Somebody with the machine exchanges the bytes behind a name.
    digest = hashlib.sha256(changed.read_bytes()).hexdigest()
    (platform.data / "packages" / "files" / digest).write_bytes(b"something else")
    return folder


def load(platform: Running, folder: Path) -> subprocess.CompletedProcess[str]:
    words = [*PROGRAM, "packages", "load", "--data", str(platform.data), str(folder)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)


class Shop:
    """Three repositories: one asked, behind it one for own packages and one with the public connection."""

    def __init__(self, account: Account, upstreams: tuple[str, str] = ("private", "public")) -> None:
        self.client: Any = account.client("codeartifact")
        self.client.create_domain(domain="shop")
        for name in ("private", "public"):
            self.client.create_repository(domain="shop", repository=name)
        self.client.create_repository(
            domain="shop", repository="all", upstreams=[{"repositoryName": one} for one in upstreams]
        )
        self.client.associate_external_connection(domain="shop", repository="public", externalConnection="public:pypi")
        self.asked, self.private, self.public = (Shelf(account, "shop", one) for one in ("all", "private", "public"))

    def versions(self, repository: str, package: str) -> dict[str, str]:
        told = self.client.list_package_versions(domain="shop", repository=repository, format="pypi", package=package)
        return {one["version"]: one["origin"]["originType"] for one in told["versions"]}


@pytest.mark.control("EXP-22", lacking="a notebook in a VPC")
def test_what_is_public_is_taken_over_at_its_first_use(
    platform: Running, account: Account, mirror: Path, tmp_path: Path
) -> None:
    shop = Shop(account)
    with pytest.raises(shop.client.exceptions.ResourceNotFoundException):
        shop.versions("all", "public-one")
    done = shop.asked.pip(tmp_path / "there", "public-one")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "there" / "public_two.py").exists()  # what it requires came the same way
    for repository in ("public", "all"):
        assert shop.versions(repository, "public-one") == {"1.0": "EXTERNAL"}
    told = shop.client.describe_package(domain="shop", repository="public", format="pypi", package="public-two")
    assert told["package"]["originConfiguration"]["restrictions"] == {"publish": "BLOCK", "upstream": "ALLOW"}

    # A name that is the public's is not published under, and a file of the mirror is never another one.
    assert shop.public.upload(wheel(tmp_path / "dist", "public-one", "2.0")) == 409
    wheel(tmp_path / "changed", "public-two", "1.5", "changed = True\n")
    assert "other bytes" in load(platform, tmp_path / "changed").stderr

    # What is not what was offered is not taken over.
    [one] = shop.asked.page("exchanged").values()
    assert shop.asked.ask(f"simple/exchanged/{one['url']}", token=shop.asked.token())[0] == 400
    with pytest.raises(shop.client.exceptions.ResourceNotFoundException):
        shop.versions("public", "exchanged")

    # What was kept stays when the way to it is gone.
    shop.client.disassociate_external_connection(domain="shop", repository="public", externalConnection="public:pypi")
    shop.client.update_repository(domain="shop", repository="all", upstreams=[])
    assert list(shop.asked.page("public-one")) == ["public_one-1.0-py3-none-any.whl"]
    assert shop.asked.page("poisoned") == {}


@pytest.mark.parametrize("upstreams", [("private", "public"), ("public", "private")])
def test_private_beats_public(account: Account, mirror: Path, tmp_path: Path, upstreams: tuple[str, str]) -> None:
    shop = Shop(account, upstreams)
    assert list(shop.asked.page("poisoned")) == ["poisoned-99.0-py3-none-any.whl"]
    first = upstreams[0] == "public"
    if first:  # somebody had it from the public before anybody published
        name, one = next(iter(shop.asked.page("poisoned").items()))
        assert shop.asked.ask(f"simple/poisoned/{one['url']}", token=shop.asked.token())[0] == 200
        assert shop.versions("all", "poisoned") == {"99.0": "EXTERNAL"}
        assert name.startswith("poisoned-99.0")
    built = wheel(tmp_path / "dist", "poisoned", "1.0", "hostile = False\n")
    assert shop.private.upload(built) == 200
    assert list(shop.asked.page("Poisoned")) == [built.name]
    assert shop.asked.ask("simple/poisoned/99.0/poisoned-99.0-py3-none-any.whl", token=shop.asked.token())[0] == 404
    if first:
        done = shop.asked.pip(tmp_path / "there", "poisoned")
        assert done.returncode == 0, done.stderr
        assert "False" in (tmp_path / "there" / "poisoned.py").read_text()

    # Who wants both says so.
    for repository in ("private", "all"):
        shop.client.put_package_origin_configuration(
            domain="shop", repository=repository, format="pypi", package="poisoned",
            restrictions={"publish": "ALLOW", "upstream": "ALLOW"},
        )  # fmt: skip
    assert set(shop.asked.page("poisoned")) == {built.name, "poisoned-99.0-py3-none-any.whl"}


def test_a_group_of_packages_keeps_the_public_out_before_anybody_publishes(
    account: Account, mirror: Path, tmp_path: Path
) -> None:
    shop = Shop(account)
    client = shop.client
    where = {"domain": "shop", "packageGroup": "/pypi//poison~"}
    client.create_package_group(**where)
    client.create_package_group(domain="shop", packageGroup="/pypi//poison*", description="all of them")
    wrong = {"domain": "shop", "packageGroup": "pypi/x"}
    with pytest.raises(client.exceptions.ValidationException):
        client.create_package_group(**wrong)
    client.update_package_group_origin_configuration(
        domain="shop", packageGroup="/pypi//poison*",
        restrictions={"EXTERNAL_UPSTREAM": "BLOCK", "PUBLISH": "ALLOW_SPECIFIC_REPOSITORIES"},
        addAllowedRepositories=[{"repositoryName": "private", "originRestrictionType": "PUBLISH"}],
    )  # fmt: skip
    told = client.get_associated_package_group(domain="shop", format="pypi", package="poisoned")["packageGroup"]
    assert told["pattern"] == "/pypi//poison*" and told["parent"]["pattern"] == "/*"
    below = client.describe_package_group(**where)["packageGroup"]["originConfiguration"]["restrictions"]
    assert below["PUBLISH"]["mode"] == "INHERIT"
    assert below["PUBLISH"]["inheritedFrom"]["pattern"] == "/pypi//poison*"
    assert shop.asked.page("poisoned") == {}
    assert list(shop.asked.page("public-two")) == ["public_two-1.5-py3-none-any.whl"]
    built = wheel(tmp_path / "dist", "poisoned", "1.0")
    assert [one.upload(built) for one in (shop.public, shop.private)] == [409, 200]
    listed = client.list_associated_packages(domain="shop", packageGroup="/pypi//poison*")["packages"]
    assert [one["package"] for one in listed] == ["poisoned"]


def test_hostile_uploads_and_tokens_are_refused(account: Account, neighbour: Account, tmp_path: Path) -> None:
    client = account.client("codeartifact")
    client.create_domain(domain="door")
    client.create_repository(domain="door", repository="own")
    shelf = Shelf(account, "door", "own")
    token = shelf.token()
    good = wheel(tmp_path, "tool", "1.0")

    def put(fields: dict[str, str], name: str, content: bytes, with_token: str | None = token) -> int:
        told = {":action": "file_upload", "name": "tool", "version": "1.0", **fields}
        body, kind = form(told, name, content)
        return shelf.ask("", token=with_token, body=body, kind=kind)[0]

    bad_names = (
        "../tool-1.0-py3-none-any.whl",
        "..",
        "tool-1.0.exe",
        "tool-2.0-py3-none-any.whl",
        "other-1.0.tar.gz",
        "",
    )
    for name in bad_names:
        assert put({}, name, good.read_bytes()) == 400, name
    for fields in ({"name": "../tool"}, {"name": "a b"}, {"version": "../1"}, {":action": "submit"}, {"name": ""}):
        assert put(fields, good.name, good.read_bytes()) == 400, fields
    assert put({"sha256_digest": "0" * 64}, good.name, good.read_bytes()) == 400
    for content in (b"not a zip", b"", wheel(tmp_path / "inner", "tool", "1.0", inner="other").read_bytes()):
        assert put({}, good.name, content) == 400
    assert shelf.page("tool", token) == {}
    assert put({}, good.name, good.read_bytes(), None) == 401
    assert put({}, good.name, good.read_bytes(), "nonsense") == 401

    # A token is good for its domain only, whoever has another of that name.
    theirs = neighbour.client("codeartifact")
    theirs.create_domain(domain="door")
    theirs.create_repository(domain="door", repository="own")
    assert put({}, good.name, good.read_bytes(), Shelf(neighbour, "door", "own").token()) == 403
    assert put({}, good.name, good.read_bytes()) == 200
    assert list(shelf.page("tool", token)) == [good.name]


def test_under_a_key_of_ones_own_and_until_a_token_is_over(account: Account, tmp_path: Path) -> None:
    kms, client = account.client("kms"), account.client("codeartifact")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    made = client.create_domain(domain="sealed", encryptionKey=key)["domain"]
    assert made["encryptionKey"] == key
    client.create_repository(domain="sealed", repository="own")
    content = b"an asset that nobody reads on the disk"
    where = {"domain": "sealed", "repository": "own", "format": "generic", "package": "set", "namespace": "team"}
    told = client.publish_package_version(
        **where, packageVersion="1", assetName="a/../b.txt", assetContent=content, unfinished=True,
        assetSHA256=hashlib.sha256(content).hexdigest(),
    )  # fmt: skip
    assert told["status"] == "Unfinished" and told["asset"]["size"] == len(content)
    assert not [one for one in on_disk(account.platform.data) if lies_in(one, content)]
    asked = {**where, "packageVersion": "1", "asset": "a/../b.txt"}
    assert client.get_package_version_asset(**asked)["asset"].read() == content
    kms.disable_key(KeyId=key)
    with pytest.raises(client.exceptions.AccessDeniedException, match="key of the domain"):
        client.get_package_version_asset(**asked)
    kms.enable_key(KeyId=key)
    assert client.get_package_version_asset(**asked)["asset"].read() == content
    client.delete_repository(domain="sealed", repository="own")
    assert client.describe_domain(domain="sealed")["domain"]["assetSizeBytes"] == 0
    client.delete_domain(domain="sealed")


def test_an_index_that_is_no_address_is_refused_at_the_start(platform: Running) -> None:
    words = [*PROGRAM, "up", "--data", str(platform.data), "--package-index", "ftp://index.example.com/"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1 and "no URL" in done.stderr
