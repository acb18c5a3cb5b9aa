"""Test results and code coverage as tools write them, read from a stranger's XML: no entities, no documents beside it.

Source: CodeBuild User Guide, "Test reports", "Code coverage reports"; the schemas that JUnit and Cobertura write.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from lxml import etree

MOST_BYTES: Final = 16 << 20
MOST_TOGETHER: Final = 32 << 20
"""Bytes of all files of a report."""
MOST_RESULTS: Final = 500
"""Test cases of a report; source files of a coverage report. AWS keeps as many ("Quotas for AWS CodeBuild")."""
_NANOS: Final = 1_000_000_000
_MOST_TEXT: Final = 2000


class Unreadable(Exception):  # noqa: N818
    """Why a report's file cannot be read."""


@dataclass(frozen=True, slots=True)
class Case:
    """A test case. status: SUCCEEDED, FAILED, ERROR or SKIPPED."""

    suite: str
    prefix: str
    name: str
    status: str
    nanos: int
    message: str


@dataclass(frozen=True, slots=True)
class Covered:
    """What of a source file ran: lines and branches, covered and missed."""

    path: str
    lines: tuple[int, int]
    branches: tuple[int, int]


def _root(content: bytes) -> Any:
    if len(content) > MOST_BYTES:
        raise Unreadable(f"it is longer than {MOST_BYTES} bytes")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False, remove_pis=True,
        remove_comments=True,
    )  # fmt: skip
    try:
        root = etree.fromstring(content, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise Unreadable(f"it is no well-formed XML ({type(error).__name__})") from None
    told = root.getroottree().docinfo
    if told.internalDTD is not None and next(root.getroottree().docinfo.internalDTD.iterentities(), None) is not None:
        raise Unreadable("it declares entities")
    if next(root.iter(etree.Entity), None) is not None:
        raise Unreadable("it has entities in it")
    return root


def cases(content: bytes) -> list[Case]:
    """The test cases of a JUnit file; raises Unreadable."""
    root = _root(content)
    if root.tag not in ("testsuites", "testsuite"):
        raise Unreadable(f"its root is <{str(root.tag)[:40]}>, not <testsuites> or <testsuite>")
    return list(_cases(root))


def _cases(root: Any) -> Iterator[Case]:
    for suite in root.iter("testsuite"):
        name = suite.get("name", "")[:_MOST_TEXT]
        for one in suite.findall("testcase"):
            status, message = "SUCCEEDED", ""
            for tag, meaning in (("skipped", "SKIPPED"), ("failure", "FAILED"), ("error", "ERROR")):
                held = one.find(tag)
                if held is not None:
                    status, message = meaning, held.get("message") or (held.text or "").strip()
            yield Case(
                name,
                one.get("classname", "")[:_MOST_TEXT],
                one.get("name", "")[:_MOST_TEXT],
                status,
                _nanos(one.get("time")),
                message[:_MOST_TEXT],
            )


def _nanos(text: str | None) -> int:
    try:
        seconds = float(text or 0)
    except ValueError:
        return 0
    return int(seconds * _NANOS) if 0 <= seconds < 1e9 else 0


def coverage(content: bytes) -> list[Covered]:
    """The source files of a Cobertura file; raises Unreadable."""
    root = _root(content)
    if root.tag != "coverage":
        raise Unreadable(f"its root is <{str(root.tag)[:40]}>, not <coverage>")
    found: dict[str, list[int]] = {}
    for one in root.iter("class"):
        counts = found.setdefault(one.get("filename", "")[:_MOST_TEXT] or "?", [0, 0, 0, 0])
        for line in one.iterfind("./lines/line"):
            hit = (line.get("hits") or "0") not in ("0", "")
            counts[0 if hit else 1] += 1
            told = line.get("condition-coverage", "").partition("(")[2].rstrip(")").split("/")
            if line.get("branch") == "true" and len(told) == 2 and all(n.isdecimal() and len(n) < 9 for n in told):
                covered, all_ = int(told[0]), int(told[1])
                counts[2] += min(covered, all_)
                counts[3] += max(0, all_ - covered)
    return [Covered(path, (c[0], c[1]), (c[2], c[3])) for path, c in found.items()]


def share(counts: tuple[int, int]) -> float:
    """Percent covered; of nothing, all."""
    covered, missed = counts
    return 100.0 * covered / (covered + missed) if covered + missed else 100.0


def summary(found: list[Case]) -> dict[str, Any]:
    """TestReportSummary."""
    counts = dict.fromkeys(("SUCCEEDED", "FAILED", "ERROR", "SKIPPED", "UNKNOWN"), 0)
    for one in found:
        counts[one.status] += 1
    return {"total": len(found), "statusCounts": counts, "durationInNanoSeconds": sum(one.nanos for one in found)}


def coverage_summary(found: list[Covered]) -> dict[str, Any]:
    """CodeCoverageReportSummary."""
    lines = (sum(one.lines[0] for one in found), sum(one.lines[1] for one in found))
    branches = (sum(one.branches[0] for one in found), sum(one.branches[1] for one in found))
    return covered_members(lines, branches)


def covered_members(lines: tuple[int, int], branches: tuple[int, int]) -> dict[str, Any]:
    """The members that a report and each of its files have of what ran."""
    return {
        "lineCoveragePercentage": share(lines),
        "linesCovered": lines[0],
        "linesMissed": lines[1],
        "branchCoveragePercentage": share(branches),
        "branchesCovered": branches[0],
        "branchesMissed": branches[1],
    }
