"""Archives that mean harm, and values that would like to be more than a text."""

from __future__ import annotations

import io
import json
import stat
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.services.codepipeline import artifacts
from bastide.services.codepipeline.artifacts import Broken, member, members, zipped
from bastide.services.codepipeline.variables import Unresolved, resolved

BOMB = zipped({"zeros": b"\0" * (4 << 20), "more": b"\0" * (4 << 20)})


def test_a_bomb_is_read_no_further_than_it_may_be_long() -> None:
    assert len(BOMB) < 20_000
    with pytest.raises(Broken, match="more than 1000 bytes"):
        member(BOMB, "zeros", 1000)
    with pytest.raises(Broken, match="more than 1048576 bytes"):
        list(members(BOMB, 1 << 20))
    with pytest.raises(Broken, match="more than"):
        list(members(BOMB, room=5 << 20))
    # What the archive says of a file's length is not believed.
    lied = BOMB.replace((4 << 20).to_bytes(4, "little"), (7).to_bytes(4, "little"))
    assert lied != BOMB
    with pytest.raises(Broken):
        list(members(lied, 1 << 20))


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "a/../../b", "a//b", "a\\b", "./a"])
def test_names_that_lead_elsewhere(name: str) -> None:
    with pytest.raises(Broken, match="leads elsewhere"):
        list(members(zipped({name: b"x"})))


def test_links_and_what_is_no_archive() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(Broken, match="no plain file"):
        list(members(buffer.getvalue()))
    for data in (b"", b"PK", BOMB[: len(BOMB) // 2], b"\x1f\x8b" + bytes(100)):
        with pytest.raises(Broken):
            list(members(data))
    with pytest.raises(Broken, match="no file nothing"):
        member(BOMB, "nothing", 10)
    many = zipped({str(number): b"" for number in range(artifacts.MOST_MEMBERS + 1)})
    with pytest.raises(Broken, match="more than 20000 files"):
        next(members(many))


@given(st.text(), st.text())
def test_a_value_stays_inside_its_string(value: str, other: str) -> None:
    scope = {"a": {"b": value}, "c": {"d": other}}
    text = json.dumps({"x": "#{a.b}", "y": ["<#{c.d}>", "#{a.b}#{c.d}"], "#{c.d}": 1})
    assert json.loads(resolved(text, scope)) == {"x": value, "y": [f"<{other}>", value + other], other: 1} or (
        other in ("x", "y")
    )
    assert resolved("#{a.b}/#{c.d}", scope) == f"{value}/{other}"


def test_what_cannot_be_resolved_is_told() -> None:
    with pytest.raises(Unresolved, match=r"no variable X .it has: b."):
        resolved("#{a.X}", {"a": {"b": "1"}})
    with pytest.raises(Unresolved, match="namespace z"):
        resolved("#{z.X}", {"a": {}})
    # Nothing is read twice.
    assert resolved("#{a.b}", {"a": {"b": "#{a.c}", "c": "secret"}}) == "#{a.c}"
