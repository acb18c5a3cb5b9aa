"""What a hostile client of git tries."""

from __future__ import annotations

import base64
import datetime
import hashlib
import http.client
import os
import ssl
import struct
import subprocess
import time
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bastide.engines.git import legal_path, legal_reference
from tests.platform import Keys, lies_in, on_disk
from tests.stories.codecommit.remote import Remote
from tests.stories.codecommit.test_git import records

ZERO = "0" * 40


def ask(
    remote: Remote, method: str, path: str, body: bytes = b"", *, basic: tuple[str, str] | None = None, **headers: str
) -> tuple[int, bytes]:
    """A request of no known client; status and body."""
    parts = urlsplit(remote.account.platform.url)
    context = ssl.create_default_context(cafile=remote.account.platform.authority)
    connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=60, context=context)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if basic is not None:
        sent["Authorization"] = "Basic " + base64.b64encode(":".join(basic).encode()).decode()
    try:
        connection.request(method, path, body, sent)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def line(text: bytes) -> bytes:
    return b"%04x" % (len(text) + 4) + text


def push(remote: Remote, name: str, after: str, pack: bytes, before: str = ZERO) -> tuple[int, bytes]:
    """A push of one reference, whatever it is."""
    body = line(f"{before} {after} {name}\0report-status".encode()) + b"0000" + pack
    kind = "application/x-git-receive-pack-request"
    return ask(remote, "POST", "/v1/repos/code/git-receive-pack", body, basic=remote.signed(), Content_Type=kind)


def packed(*objects: tuple[int, bytes]) -> bytes:
    """A pack of objects: type (1 commit, 2 tree, 3 blob) and content."""
    found = b"PACK" + struct.pack(">II", 2, len(objects))
    for kind, raw in objects:
        size, head = len(raw) >> 4, (kind << 4) | (len(raw) & 15)
        while size:
            found += bytes([head | 128])
            head, size = size & 127, size >> 7
        found += bytes([head]) + zlib.compress(raw)
    return found + hashlib.sha1(found, usedforsecurity=False).digest()


def named(kind: str, raw: bytes) -> str:
    return hashlib.sha1(f"{kind} {len(raw)}\0".encode() + raw, usedforsecurity=False).hexdigest()


def commit_of(tree: bytes, *more: tuple[int, bytes]) -> tuple[str, bytes]:
    """A commit of a tree, and a pack of both."""
    who = "A <a@b> 1700000000 +0000"
    raw = f"tree {named('tree', tree)}\nauthor {who}\ncommitter {who}\n\nm\n".encode()
    return named("commit", raw), packed((1, raw), (2, tree), *more)


@pytest.mark.control("EXP-20", "STG-01")
def test_signatures_that_are_forged_old_foreign_or_of_something_else(remote: Remote) -> None:
    path = "/v1/repos/code/info/refs?service=git-upload-pack"
    name, password = remote.signed()
    assert ask(remote, "GET", path, basic=(name, password))[0] == 200
    assert ask(remote, "GET", path)[0] == 401
    now = datetime.datetime.now(datetime.UTC)
    other = Remote(remote.account, remote.folder, "other")
    stolen = Keys(remote.account.keys.access_key, "x" * 40, remote.account.keys.token)
    wrong = {
        "a signature changed in one place": (name, password[:-1] + ("0" if password[-1] != "0" else "1")),
        "a stamp changed": (name, f"{int(password[:8]) - 1}{password[8:]}"),
        "too old": remote.signed(at=now - datetime.timedelta(minutes=16)),
        "of the future": remote.signed(at=now + datetime.timedelta(minutes=6)),
        "for another repository": other.signed(),
        "with a secret that is guessed": remote.signed(stolen),
        "without its session": (name.partition("%")[0], password),
        "with another's session": (f"{name[:-1]}{'A' if name[-1] != 'A' else 'B'}", password),
        "of nobody": ("AKIA" + "Q" * 16, password),
        "for a region that does not exist": remote.signed(region="mars-north-1"),
        "a password": ("admin", "admin"),
        "nothing": ("", ""),
    }
    for what, basic in wrong.items():
        status, told = ask(remote, "GET", path, basic=basic)
        assert status in (401, 403), f"{what}: {status} {told!r}"
    found = [one.get("errorCode") for one in records(remote.account, "GitPull")]
    assert {"SignatureDoesNotMatch", "RequestExpired"} <= set(found)


def test_requests_that_are_none(remote: Remote) -> None:
    basic, kind = remote.signed(), "application/x-git-receive-pack-request"
    post = "/v1/repos/code/git-receive-pack"
    for path in (
        "/v1/repos/../../etc/passwd/info/refs?service=git-upload-pack", "/v1/repos/code/HEAD",
        "/v1/repos/code/objects/info/packs",
        "/v1/repos/a%2Fb/info/refs?service=git-upload-pack", "/v1/repos/%2e%2e/info/refs?service=git-upload-pack",
        "/v1/repos/code/info/refs", "/v1/repos/code/info/refs?service=git-shell", "/v1/repos/code/config",
    ):  # fmt: skip
        assert ask(remote, "GET", path, basic=basic)[0] in (403, 404), path
    bodies = [
        b"zzzz", b"0003", b"0001", b"fff", line(b"nonsense") + b"0000",
        line(f"{ZERO} {ZERO} refs/heads/a".encode()) + b"0000",
        line(b"shallow " + ZERO.encode()) + b"0000", line(f"{ZERO} {'1' * 40} refs/heads/a".encode()) * 2 + b"0000",
        b"".join(line(f"{ZERO} {'1' * 40} refs/heads/b{one}".encode()) for one in range(1001)) + b"0000",
    ]  # fmt: skip
    for body in bodies:
        status, told = ask(remote, "POST", post, body, basic=remote.signed(), Content_Type=kind)
        assert status == 400, (body[:60], status, told)
    assert ask(remote, "POST", post, b"0000", basic=basic, Content_Type="text/plain")[0] == 415
    bomb = zlib.compressobj(9, wbits=31)
    packed_body = bomb.compress(b"0" * (64 << 20)) + bomb.flush()
    fetch = "/v1/repos/code/git-upload-pack"
    status, _ = ask(
        remote, "POST", fetch, packed_body, basic=remote.signed(), Content_Encoding="gzip",
        Content_Type="application/x-git-upload-pack-request",
    )  # fmt: skip
    assert status == 413
    assert not remote.client.list_branches(repositoryName="code")["branches"]


def _entry(mode: str, name: str, id: str) -> bytes:
    return f"{mode} {name}\0".encode() + bytes.fromhex(id)


BLOB = b"hello\n"
HELLO = named("blob", BLOB)


@pytest.mark.parametrize(
    ("what", "tree", "more"),
    [
        ("leads up", _entry("100644", "..", HELLO), [(3, BLOB)]),
        ("writes git's own folder", _entry("40000", ".git", named("tree", b"")), [(2, b"")]),
        ("writes it under another name", _entry("100644", "GIT~1", HELLO), [(3, BLOB)]),
        ("has a path in a name", _entry("100644", "a/b", HELLO), [(3, BLOB)]),
        ("names what is not there", _entry("100644", "a", "12" * 20), []),
        ("has one name twice", _entry("100644", "a", HELLO) * 2, [(3, BLOB)]),
        ("is cut off", b"100644 a\0\1\2\3", []),
        (
            "brings a submodule that runs something",
            _entry("100644", ".gitmodules", named("blob", b'[submodule "a"]\n\turl = -u./x\n\tpath = a\n')),
            [(3, b'[submodule "a"]\n\turl = -u./x\n\tpath = a\n')],
        ),
    ],
)
def test_trees_that_no_clone_should_get(remote: Remote, what: str, tree: bytes, more: list[tuple[int, bytes]]) -> None:
    id, pack = commit_of(tree, *more)
    status, told = push(remote, "refs/heads/main", id, pack)
    assert status == 200 and b"unpack ok" not in told and b"ng refs/heads/main" in told, (what, told)
    assert not remote.client.list_branches(repositoryName="code")["branches"]


def test_packs_and_references_that_are_none(remote: Remote) -> None:
    tree = _entry("100644", "a", HELLO)
    id, pack = commit_of(tree, (3, BLOB))
    many = b"PACK" + struct.pack(">II", 2, 4_000_000_000) + b"x" * 100
    bad = {
        "empty": b"",
        "cut": pack[:-30],
        "many": many,
        "flipped": pack[:20] + b"\xff" + pack[21:],
        "text": b"hello" * 9,
    }
    for what, one in bad.items():
        status, told = push(remote, "refs/heads/main", id, one)
        assert status == 200 and b"ng refs/heads/main" in told, (what, status, told)
    for name in (
        "refs/heads/../../x", "refs/heads/a..b", "HEAD", "refs/remotes/x", "config", "refs/heads/a.lock", "refs/heads/.a",
        "refs/heads/-x", "refs/heads/a b", "refs/heads/" + "a" * 300,
    ):  # fmt: skip
        status, told = push(remote, name, id, pack)
        assert status in (200, 400) and b"ok refs" not in told, (name, told)
    assert b"ng refs/heads/main" in push(remote, "refs/heads/main", "34" * 20, pack)[1]
    assert b"ng refs/heads/main" in push(remote, "refs/heads/main", HELLO, pack)[1]
    assert b"ok refs/heads/main" in push(remote, "refs/heads/main", id, pack)[1]
    # Who believes that the branch stands elsewhere does not move it.
    assert b"ng refs/heads/main" in push(remote, "refs/heads/main", id, pack, before="56" * 20)[1]
    assert b"ng refs/heads/main/deep" in push(remote, "refs/heads/main/deep", id, pack)[1]
    assert remote.client.list_branches(repositoryName="code")["branches"] == ["main"]


def test_content_lies_nowhere_in_the_clear_and_what_was_refused_is_not_served(remote: Remote) -> None:
    began = time.time() - 1
    remote.git("clone", "-q", remote.url, "one")
    secret = "the recipe of the secret sauce " * 40
    remote.work("one", recipe=secret, noise=os.urandom(1_200_000).hex())  # more than git sends at once
    remote.git("-c", "core.compression=0", "-c", "pack.compression=0", "push", "-q", "origin", "HEAD:main", at="one")
    data = remote.account.platform.data
    written = [path for path in on_disk(data) if _since(path, began)]
    clear = [path for path in written if lies_in(path, b"recipe of the secret sauce", secret[:64].encode())]
    assert any("objects" in path.parts for path in written)
    assert not clear, clear
    tip = remote.head("one")
    remote.work("one", more="refused: somebody was faster")
    lost = remote.head("one")
    status, told = push(remote, "refs/heads/main", lost, _pack(remote, lost, tip), before="56" * 20)
    assert status == 200 and b"ng refs/heads/main" in told
    remote.git("clone", "-q", remote.url, "two")
    assert remote.git("fetch", "origin", lost, at="two", fine=False).returncode
    asked = zlib.compressobj(wbits=31)
    body = asked.compress(line(b"command=ls-refs\n") + b"0000") + asked.flush()
    status, told = ask(
        remote, "POST", "/v1/repos/code/git-upload-pack", body, basic=remote.signed(), Content_Encoding="gzip",
        Git_Protocol="version=2", Content_Type="application/x-git-upload-pack-request",
    )  # fmt: skip
    assert status == 200 and f"{tip} refs/heads/main".encode() in told
    assert not any(path.is_file() for path in (data / "run").glob("**/pack-*") if "clear" not in path.parts)


def _since(path: Path, began: float) -> bool:
    """Whether a file was written since; what is gone was not."""
    try:
        return path.stat().st_mtime >= began
    except FileNotFoundError:
        return False


def _pack(remote: Remote, tip: str, base: str) -> bytes:
    found = subprocess.run(
        ["git", "pack-objects", "--revs", "--stdout", "-q"], input=f"{tip}\n^{base}\n".encode(),
        cwd=remote.folder / "one", env=remote.environment(), capture_output=True, check=True,
    )  # fmt: skip
    return found.stdout


# -- laws ----------------------------------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.text(min_size=1, max_size=30).map(lambda text: f"refs/heads/{text}"))
@example("refs/heads/a@{b")
@example("refs/heads/@")
def test_what_is_taken_as_a_reference_git_takes_too(name: str) -> None:
    if legal_reference(name) and "\0" not in name:
        assert subprocess.run(["git", "check-ref-format", name], check=False).returncode == 0


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(["a", "..", ".", ".git", ".GIT", "", "git~1", ".git.", "b c", ".git\u200d", "x"]), max_size=4
    )
)
def test_no_legal_path_leaves_its_folder(tmp_path: Path, parts: list[Any]) -> None:
    path = "/".join(parts)
    if legal_path(path):
        assert (tmp_path / path).resolve().is_relative_to(tmp_path.resolve())
        assert not {".git", "..", "."} & {part.lower().strip(". \u200d") or "." for part in path.split("/")}


def unfolding(content: bytes, width: int, depth: int) -> tuple[str, bytes]:
    """A commit of a tree in which everything stands many times over, and its pack."""
    raw = b"".join(b"100644 f%02d\0" % one + bytes.fromhex(named("blob", content)) for one in range(width))
    objects = [(3, content), (2, raw)]
    for _ in range(depth):
        raw = b"".join(b"40000 d%02d\0" % one + bytes.fromhex(named("tree", raw)) for one in range(width))
        objects.append((2, raw))
    return commit_of(raw, *objects[:-1])


def test_a_tree_without_end_is_refused_before_it_is_read(remote: Remote) -> None:
    """A push of a few hundred bytes, and three million files; and two, whose files would all have to be merged."""
    ids = {}
    for name, shape in {"main": (b"x", 20, 4), "one": (b"y", 14, 2), "other": (b"z", 14, 2)}.items():
        ids[name], pack = unfolding(*shape)
        assert f"ok refs/heads/{name}".encode() in push(remote, f"refs/heads/{name}", ids[name], pack)[1]
    client, given = remote.client, {"repositoryName": "code"}
    with pytest.raises(client.exceptions.InvalidPathException):
        client.get_differences(**given, afterCommitSpecifier="main")
    with pytest.raises(client.exceptions.ClientError, match="MaximumItemsToCompareExceeded"):
        client.put_file(**given, branchName="main", filePath="a", fileContent=b"x", parentCommitId=ids["main"])
    assert client.get_folder(**given, folderPath="d00/d01")["subFolders"]
    sides = {"sourceCommitSpecifier": "one", "destinationCommitSpecifier": "other"}
    with pytest.raises(client.exceptions.MaximumItemsToCompareExceededException):
        client.get_merge_conflicts(**given, **sides, mergeOption="SQUASH_MERGE")


def test_what_was_pushed_into_one_repository_is_not_the_next_ones_of_its_name(remote: Remote) -> None:
    """The repository is deleted and made again while its pack comes in: a branch there would stand for nothing."""
    id, pack = unfolding(b"of the first", 2, 1)
    body = line(f"{ZERO} {id} refs/heads/main\0report-status".encode()) + b"0000" + pack
    name, password = remote.signed()
    parts = urlsplit(remote.account.platform.url)
    context = ssl.create_default_context(cafile=remote.account.platform.authority)
    connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=60, context=context)
    connection.putrequest("POST", "/v1/repos/code/git-receive-pack")
    for header, value in {
        "Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode(),
        "Content-Type": "application/x-git-receive-pack-request", "Content-Length": str(len(body)),
    }.items():  # fmt: skip
        connection.putheader(header, value)
    connection.endheaders(body[:-20])
    time.sleep(1)  # for the push to have begun; if it has not, there is nothing to be seen
    remote.client.delete_repository(repositoryName="code")
    remote.client.create_repository(repositoryName="code")
    connection.send(body[-20:])
    answer = connection.getresponse()
    told = answer.read()
    connection.close()
    branches = remote.client.list_branches(repositoryName="code")["branches"]
    if branches:  # the push began when the second one was there, and is its own
        assert remote.client.get_folder(repositoryName="code", folderPath="/")["subFolders"]
    else:
        assert b"ok refs/heads/main" not in told


def test_both_branches_of_a_pull_request_move_in_one_push(remote: Remote) -> None:
    """However many references move, each pull request is looked at once: what it knows of both is new."""
    remote.git("clone", "-q", remote.url, "c")
    remote.work("c", a="1")
    remote.git("branch", "f", at="c")
    remote.git("push", "-q", remote.url, "HEAD:main", "f", at="c")
    target = {"repositoryName": "code", "sourceReference": "f", "destinationReference": "main"}
    made = remote.client.create_pull_request(title="t", targets=[target])["pullRequest"]
    main = remote.work("c", b="2")
    remote.git("checkout", "-q", "f", at="c")
    other = remote.work("c", c="3")
    remote.git("push", "-q", remote.url, f"{main}:refs/heads/main", "f", at="c")
    told = remote.client.get_pull_request(pullRequestId=made["pullRequestId"])["pullRequest"]
    [at] = told["pullRequestTargets"]
    assert (at["sourceCommit"], at["destinationCommit"]) == (other, main)
    assert told["revisionId"] != made["revisionId"]
