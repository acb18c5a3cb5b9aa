"""Whether a version is affected, and how bad that is."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.engines.advisories import Advisories, affecting, base_score, level, scheme

# From the highest to the lowest, as dpkg --compare-versions, apk version -t and PEP 440 have them.
ORDERED = {
    "deb": ["1:0.9", "3.0.11-1~deb12u10", "3.0.11-1~deb12u2", "3.0.11-1~deb12u1", "3.0.9", "3.0~rc1", "2.36-9+deb12u4"],
    "apk": ["1.36.1-r15", "1.36.1-r2", "1.36.1-r0", "1.36_rc1", "1.9.4b-r1", "1.9.4-r1", "1.2.3_alpha2"],
    "pypi": ["2!1.0", "1.10", "1.9.post1", "1.9", "1.9rc1", "1.9.dev3"],
}


def entry(*ranges: list[dict[str, str]], versions: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"ranges": list(ranges), "versions": list(versions)}


@pytest.mark.parametrize("kind", ORDERED)
def test_a_fix_is_a_bound(kind: str) -> None:
    read, ordered = scheme(kind), ORDERED[kind]
    for number, fixed in enumerate(ordered):
        events = entry([{"introduced": "0"}, {"fixed": fixed}])
        last = entry([{"introduced": "0"}, {"last_affected": fixed}])
        since = entry([{"introduced": fixed}])
        for place, version in enumerate(ordered):
            older = place > number
            assert (affecting(read, events, version) == fixed) == older, (fixed, version)
            assert (affecting(read, last, version) == "") == (place >= number), (fixed, version)
            assert (affecting(read, since, version) == "") == (place <= number), (fixed, version)


def test_several_ranges_and_listed_versions() -> None:
    read = scheme("pypi")
    told = entry(
        [{"fixed": "1.5"}, {"introduced": "1.0"}, {"introduced": "2.0"}, {"fixed": "2.3"}], versions=("3.0.beta",)
    )
    assert [affecting(read, told, one) for one in ("0.9", "1.0", "1.4", "1.5", "2.1", "2.3")] == [
        None, "1.5", "1.5", None, "2.3", None,
    ]  # fmt: skip
    assert affecting(read, entry(versions=("1.0",)), "1.0") == ""
    assert affecting(read, entry([{"introduced": "0"}]), "not a version!") is None
    assert affecting(read, entry([{"introduced": "nonsense!"}]), "1.0") is None


@given(st.text(max_size=40), st.sampled_from(sorted(ORDERED)))
def test_no_version_is_too_strange(text: str, kind: str) -> None:
    assert affecting(scheme(kind), entry([{"introduced": "0"}, {"fixed": text}]), text) in (None, "", text)


@pytest.mark.parametrize(
    ("vector", "score"),
    [
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", 9.8),
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H", 10.0),
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N", 6.1),
        ("CVSS:3.0/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H", 7.8),
        ("CVSS:3.1/AV:L/AC:H/PR:L/UI:N/S:U/C:L/I:N/A:N", 2.5),
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N", 0.0),
        ("CVSS:3.1/AV:N", -1),
        ("CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N", -1),
        ("", -1),
    ],
)
def test_base_scores_are_the_specification_s(vector: str, score: float) -> None:
    """FIRST's calculator gives these."""
    assert base_score(vector) == score
    assert level(9.8) == "CRITICAL" and level(6.9) == "MEDIUM"


def test_loading_replaces_what_is_newer_and_drops_what_was_withdrawn(tmp_path: Path) -> None:
    def told(id: str, modified: str, fixed: str, **more: Any) -> str:
        ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": fixed}]}]
        affected = [{"package": {"ecosystem": "PyPI", "name": "A_Package"}, "ranges": ranges}]
        return json.dumps({"id": id, "modified": modified, "affected": affected, **more})

    source, held = tmp_path / "source", Advisories(tmp_path / "advisories.db")
    source.mkdir()
    assert held.version() == "" and held.affecting("pypi", ["PyPI"], [("a-package", "1.0")]) == [[]]
    with zipfile.ZipFile(source / "all.zip", "w") as archive:
        archive.writestr("../../A-1.json", told("A-1", "2026-01-02", "2.0", aliases=["CVE-2026-1000"]))
        archive.writestr("A-2.json", told("A-2", "2026-01-01", "3.0"))
    (source / "broken.json").write_text("{")
    (source / "list.json").write_text("[]")
    count, passed = held.load(source)
    assert count == 2 and len(passed) == 2 and not (tmp_path / "A-1.json").exists()
    first = held.version()
    [found] = held.affecting("pypi", ["PyPI"], [("a-package", "1.0")])
    assert [(one.name, one.fixed, one.severity) for one in found] == [
        ("A-2", "3.0", "UNDEFINED"), ("CVE-2026-1000", "2.0", "UNDEFINED"),
    ]  # fmt: skip

    again = tmp_path / "again"
    again.mkdir()
    (again / "A-1.json").write_text(told("A-1", "2026-01-01", "9.0"))  # older than what is there
    assert held.load(again)[0] == 0 and held.version() == first
    (again / "A-1.json").write_text(told("A-1", "2026-01-03", "0.5"))
    (again / "A-2.json").write_text(told("A-2", "2026-01-03", "3.0", withdrawn="2026-01-03"))
    assert held.load(again)[0] == 2 and held.version() != first
    assert held.affecting("pypi", ["PyPI"], [("a-package", "1.0"), ("a-package", "0.1")])[0] == []
    assert [one.fixed for one in held.affecting("pypi", ["PyPI"], [("a-package", "0.1")])[0]] == ["0.5"]
