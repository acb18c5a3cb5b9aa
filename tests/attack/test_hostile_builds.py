"""Whoever writes a buildspec, a source or a Dockerfile is a stranger: none of it reaches further than the build's role."""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Iterator

import pytest

from bastide.services.codebuild import archive as archives
from bastide.services.codebuild import buildspec, results
from bastide.services.codebuild.script import Progress
from tests.platform import Account, Running, allow
from tests.stories.codebuild.conftest import ENVIRONMENT, Bench, archive, bench_of, cause, phases, spec

PROBE = """
import os, socket, urllib.request, sys
def tried(what, do):
    try:
        do(); print(what, "REACHED")
    except Exception as error:
        print(what, type(error).__name__)
def read(path):
    open(path, "rb").read(1)
tried("shadow", lambda: read("/etc/shadow"))
tried("keys", lambda: os.listdir("/root/.aws"))
tried("work", lambda: os.listdir("/work"))
tried("tools", lambda: open("/opt/environment/bin/x", "w"))
def connect(*where):
    socket.create_connection(where, 2)
tried("metadata", lambda: connect("169.254.169.254", 80))
tried("containers", lambda: connect("169.254.170.2", 80))
tried("internet", lambda: connect("93.184.216.34", 443))
tried("names", lambda: socket.getaddrinfo("example.com", 443))
request = lambda token: urllib.request.Request("http://127.0.0.1/credentials", headers={"Authorization": token})
tried("anybody's credentials", lambda: urllib.request.urlopen(request("guess"), timeout=3))
seen = {open(f"/proc/{pid}/cmdline").read() for pid in os.listdir("/proc") if pid.isdecimal()}
print("others", sum("bastide" in one or "gocryptfs" in one for one in seen))
print("capabilities", [line for line in open("/proc/self/status") if line.startswith("CapEff")][0].split()[1])
"""


@pytest.fixture(scope="module")
def bench(platform: Running) -> Iterator[Bench]:
    yield bench_of(platform.account())


@pytest.mark.control("PIP-04", lacking="images are built in stories of their own")
def test_a_build_reaches_nothing_but_its_role(bench: Bench, neighbour: Account) -> None:
    theirs = neighbour.role("theirs", allow("s3:*"), trust={"AWS": neighbour.id})
    commands = [
        "python3 probe.py",
        f"aws sts assume-role --role-arn {theirs} --role-session-name x || echo refused",
        "aws iam list-users || echo refused",
        "ln -s /etc/passwd stolen; ln -s / everything; mkdir real; echo mine > real/mine; ln -s real linked",
        r"printf '\036%032d end 0 0\n' 0; printf '\036%032d out\n' 0",
        "grep -o 'printf.*%s' /codebuild/scripts/build.sh | head -1 | cut -c1-8",
    ]
    buildspec = spec(build=commands, artifacts={"files": ["stolen", "everything/etc/hostname", "linked/*", "real/*"]})
    build = bench.build(
        "",
        source={"type": "S3", "location": bench.put("s.zip", archive(buildspec_dot_yml=buildspec, probe_dot_py=PROBE))},
        artifacts={"type": "S3", "location": bench.bucket, "name": "out"},
    )
    said = bench.said(build)
    assert build["buildStatus"] == "SUCCEEDED", said
    assert "REACHED" not in "\n".join(said), said
    assert said.count("refused") == 2
    assert "others 0" in said and "capabilities 0000000000000000" in said
    # Of what it left, links and what lies behind them were followed nowhere.
    kept = bench.account.client("s3").list_objects_v2(Bucket=bench.bucket, Prefix="out/")["Contents"]
    assert [one["Key"] for one in kept] == ["out/real/mine"]


def _linked(name: str, target: str, *files: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as made:
        link = zipfile.ZipInfo(name)
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        made.writestr(link, target)
        for one in files:
            made.writestr(one, "x")
    return packed.getvalue()


def test_hostile_sources_end_a_build_before_it_begins(bench: Bench) -> None:
    sources = {
        "leads out of the archive": _linked("link", "../../etc/passwd"),
        "leads out": archive(__evil="x"),
        "lies behind a link": _linked("link", "here", "link/evil"),
        "no .zip archive": b"PK\x03\x04 but not really",
        "is not in the source": archive(readme="x"),
        "aliases": archive(buildspec_dot_yml="version: 0.2\na: &a [x,x]\nb: [*a,*a]\n"),
        "well-formed": archive(buildspec_dot_yml="version: [0.2\n"),
        "leads out of the folder": archive(
            buildspec_dot_yml=spec(build=["true"], artifacts={"files": ["../../etc/passwd"]})
        ),
    }
    ids = {}
    for number, (says, content) in enumerate(sources.items()):
        place = bench.put(f"hostile{number}.zip", content)
        ids[says] = bench.start(bench.project("", source={"type": "S3", "location": place}))
    for says, id in ids.items():
        build = bench.over(id)
        assert (build["buildStatus"], phases(build)["DOWNLOAD_SOURCE"]) == ("FAILED", "FAILED")
        assert says in cause(build), (says, cause(build))


def test_an_archive_that_unfolds_is_cut_off(tmp_path: object) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    packed = folder / "bomb.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("zeros", b"\0" * (8 << 20))
    (folder / "out").mkdir()
    with pytest.raises(archives.Unfit, match="unpacks to more than"):
        archives.unpack(packed, folder / "out", most_bytes=1 << 20)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &a [l,l]\n" + "b: *a\n", "aliases"),
        ("[" * 100, "well-formed|deeper"),
        ("x: " + "{a: " * 40 + "1" + "}" * 40, "deeper"),
        ("version: 0.2\nphases: {build: {commands: [" + "x," * 30_000 + "]}}", "more than"),
        ("version: 0.2\n---\nversion: 0.2\n", "more than one"),
        ("version: 0.2\nphases: {build: {commands: [{echo: x}]}}", "list of texts"),
        ("version: 0.2\nphases: {install: {runtime-versions: {python: 3.12.99}}}", "Unknown runtime version"),
        ("version: 0.2\nphases: {install: {runtime-versions: {nodejs: 18}}}", "Unknown runtime named"),
        ("version: 0.1\nphases: {build: {commands: [x]}}", "version"),
        ("version: 0.2\nbatch: {}\nphases: {build: {commands: [x]}}", "batch"),
        ("version: 0.2\nphase: {build: {commands: [x]}}", "not known"),
    ],
)
def test_a_buildspec_is_read_in_bounds(text: str, says: str) -> None:
    with pytest.raises(buildspec.Wrong, match=says):
        buildspec.read(text)


def test_patterns_cost_what_they_are_long() -> None:
    hostile = archives.Glob("/".join(["**", "*a*a*a*a*b"] * 60))
    assert not hostile.matches("/".join(["a" * 60] * 100))
    assert archives.Glob("**/*.txt").matches("a.txt") and archives.Glob("**/*.txt").matches("a/b/c.txt")
    assert not archives.Glob("*.txt").matches("a/b.txt") and not archives.Glob("a/**").matches("a")


def test_results_with_entities_are_not_read() -> None:
    bomb = b'<!DOCTYPE t [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><testsuite><testcase name="&b;"/></testsuite>'
    outside = b'<!DOCTYPE t [<!ENTITY x SYSTEM "file:///etc/passwd">]><testsuite><testcase>&x;</testcase></testsuite>'
    for content in (bomb, outside, b"<testsuite", b"<html/>"):
        with pytest.raises(results.Unreadable):
            results.cases(content)


def test_marks_are_taken_in_their_order_alone() -> None:
    told = buildspec.read("version: 0.2\nphases: {install: {commands: [a]}, build: {commands: [b, c]}}")
    progress = Progress(told, "mark")
    for line in (
        b"mark end 0 0",
        b"mark begin 7",
        b"mark command 0 0",
        b"mark begin 0 0",
        b"other begin 0",
        b"mark begin x",
    ):
        assert progress.hear(line) is None, line
    assert progress.hear(b"mark begin 1") == ("begin", 1, 0)
    assert progress.hear(b"mark begin 0") is None and progress.hear(b"mark out") is None
    assert progress.hear(b"mark command 1 0") and progress.hear(b"mark ended 1 0 4")
    assert progress.hear(b"mark ended 1 1 0") is None
    assert progress.failures[1].code == 4
    assert progress.hear(b"mark end 1 4") and progress.hear(b"mark out") and progress.hear(b"mark out") is None


def test_a_build_that_is_not_trusted_has_a_kernel_of_its_own(platform: Running) -> None:
    account = platform.account()
    tags = [{"Key": "bastide:untrusted-code", "Value": "true"}]
    platform.client("organizations").tag_resource(ResourceId=account.id, Tags=tags)
    bench = bench_of(account)
    privileged = bench.start(bench.project(spec(build=["true"]), environment={**ENVIRONMENT, "privilegedMode": True}))
    build = bench.build(spec(build=["cut -c1-19 /proc/version", "cat /proc/1/cmdline > /dev/null; exit 3"]))
    assert bench.said(build) == ["Linux version 4.4.0"] and "exit status 3" in cause(build)
    assert "no images are built" in cause(bench.over(privileged))
