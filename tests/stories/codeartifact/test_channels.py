"""Conda channels: the operator's mirror of one, read over a repository by a client of conda's own ecosystem."""

from __future__ import annotations

import bz2
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.platform import PROGRAM, Account, Running, allow
from tests.stories.codeartifact.packages import Shelf


def conda(folder: Path, name: str, version: str, text: str, depends: tuple[str, ...] = ()) -> dict[str, Any]:
    """Writes a package of one file, as conda's first format has it; what a channel lists of it."""
    index = {"name": name, "version": version, "build": "0", "build_number": 0, "depends": list(depends)}
    index |= {"noarch": "generic", "subdir": "noarch", "timestamp": 1_750_000_000_000}
    content, path = text.encode(), f"share/{name}.txt"
    one = {"_path": path, "path_type": "hardlink", "sha256": hashlib.sha256(content).hexdigest(),
           "size_in_bytes": len(content)}  # fmt: skip
    files = {"info/index.json": json.dumps(index), "info/paths.json": json.dumps({"paths": [one], "paths_version": 1}),
             "info/files": f"{path}\n", path: text}  # fmt: skip
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for entry, held in files.items():
            info = tarfile.TarInfo(entry)
            info.size, info.mode = len(held.encode()), 0o644
            archive.addfile(info, io.BytesIO(held.encode()))
    data = bz2.compress(packed.getvalue())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}-{version}-0.tar.bz2").write_bytes(data)
    told = {"sha256": hashlib.sha256(data).hexdigest(), "md5": hashlib.md5(data).hexdigest(), "size": len(data)}
    return {**index, **told}


def channel(folder: Path, *packages: dict[str, Any], **wrong: dict[str, Any]) -> Path:
    """Lists packages as a channel does; wrong: by name of a file, what is listed beside."""
    listed = {f"{one['name']}-{one['version']}-0.tar.bz2": one for one in packages}
    told = {"info": {"subdir": "noarch"}, "packages": {**listed, **wrong}, "packages.conda": {}}
    (folder / "noarch/repodata.json").write_text(json.dumps(told))
    return folder


def load(platform: Running, folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    words = [*PROGRAM, "packages", "load", "--data", str(platform.data), "--channel", name, str(folder)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)


INSTALL = """
import asyncio, os, pathlib, sys, rattler

async def work(url, folder, *wanted):
    client = rattler.Client()
    gateway = rattler.Gateway(cache_dir=folder / "repodata", client=client)
    records = await rattler.solve([rattler.Channel(url)], list(wanted), gateway, platforms=["noarch"])
    await rattler.install(records, folder / "prefix", cache_dir=folder / "cache", client=client, show_progress=False)

asyncio.run(work(sys.argv[1], pathlib.Path(sys.argv[2]), *sys.argv[3:]))
os._exit(0)  # the library's threads may outlive the interpreter, which that does not bear
"""
"""Solves and installs from one channel and nothing else, with a cache of its own: URL, FOLDER, what is wanted."""


def install(url: str, folder: Path, *wanted: str) -> None:
    words = [sys.executable, "-c", INSTALL, url, str(folder), *wanted]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.control("EXP-22", lacking="a notebook in a VPC")
def test_conda_packages_come_from_a_mirrored_channel(platform: Running, account: Account, tmp_path: Path) -> None:
    client = account.client("codeartifact")
    client.create_domain(domain="shared")
    for name, upstreams in (("forge", ()), ("main", ()), ("all", ("main", "forge"))):
        given = [{"repositoryName": one} for one in upstreams]
        client.create_repository(domain="shared", repository=name, upstreams=given)
    with pytest.raises(client.exceptions.ValidationException, match="packages load --channel"):
        client.associate_external_connection(
            domain="shared", repository="forge", externalConnection="public:forge-test"
        )
    noarch = tmp_path / "forge/noarch"
    library = conda(noarch, "library", "1.0", "of the forge\n")
    tool = conda(noarch, "tool", "2.0", "a tool\n", ("library >=1",))
    other = conda(noarch, "other", "1.0", "x")
    lies = {**other, "name": "lies", "sha256": "0" * 64}
    (noarch / "lies-1.0-0.tar.bz2").write_bytes(b"not what is listed")
    listed = {
        "lies-1.0-0.tar.bz2": lies,
        "../../x-1-0.tar.bz2": other,
        "absent-1.0-0.tar.bz2": {**other, "name": "absent"},
    }
    done = load(platform, channel(tmp_path / "forge", library, tool, **listed), "forge-test")
    assert done.returncode == 0 and done.stdout.startswith("2 new packages"), done.stderr
    assert "lies-1.0-0.tar.bz2: its SHA-256 is" in done.stderr and "x-1-0.tar.bz2" in done.stderr
    done = load(
        platform,
        channel(tmp_path / "main", conda(tmp_path / "main/noarch", "library", "0.5", "of main\n")),
        "main-test",
    )
    assert done.returncode == 0, done.stderr
    for name in ("forge", "main"):
        client.associate_external_connection(domain="shared", repository=name, externalConnection=f"public:{name}-test")
    shelf = Shelf(account, "shared", "all")
    host = shelf.endpoint().partition("/_codeartifact/")[2].partition("/")[0]

    def url(repository: str, token: str = "") -> str:
        base = platform.http.replace("://", f"://aws:{token or shelf.token()}@")
        return f"{base}/_codeartifact/{host}/conda/{repository}"

    install(url("forge"), tmp_path / "one", "tool")
    assert (tmp_path / "one/prefix/share/tool.txt").read_text() == "a tool\n"
    assert (tmp_path / "one/prefix/share/library.txt").read_text() == "of the forge\n"
    # The first channel on the way has a name for itself: nobody slips a newer one under it from behind.
    install(url("all"), tmp_path / "two", "library")
    assert (tmp_path / "two/prefix/share/library.txt").read_text() == "of main\n"

    # Without a token, with one of somebody who may not read, and for what is not there.
    def ask(path: str, token: str | None, body: bytes | None = None) -> int:
        return forge.ask(path, token=token, body=body, format="conda")[0]

    forge, listing = Shelf(account, "shared", "forge"), "noarch/repodata.json"
    account.role("Reader", allow("codeartifact:GetAuthorizationToken", "sts:GetServiceBearerToken"))
    stranger = shelf.token(account.as_role("Reader"))
    for token, status in ((None, 401), ("nonsense", 401), (stranger, 403), (shelf.token(), 200)):
        assert ask(listing, token) == status
        assert ask("noarch/tool-2.0-0.tar.bz2", token) == status
    assert ask(listing, shelf.token(), b"x") == 405
    assert ask("noarch/lies-1.0-0.tar.bz2", shelf.token()) == 404
    assert ask("linux-64/tool-2.0-0.tar.bz2", shelf.token()) == 404
    # What was loaded stays what it is, and what somebody exchanged on the machine is not given out.
    changed = conda(tmp_path / "changed/noarch", "tool", "2.0", "another\n")
    assert "other bytes" in load(platform, channel(tmp_path / "changed", changed), "forge-test").stderr
    (platform.data / "packages/channels/forge-test/files" / tool["sha256"]).write_bytes(b"something else")
    assert ask("noarch/tool-2.0-0.tar.bz2", shelf.token()) == 404
    client.disassociate_external_connection(domain="shared", repository="forge", externalConnection="public:forge-test")
    assert ask(listing, shelf.token()) == 404
