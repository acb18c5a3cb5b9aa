"""Paths into records: what is read, what is picked, and what is not taken for a path."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.services.sagemaker.json_path import LONGEST, NoMatch, Path, Unreadable

VALUE: dict[str, Any] = {"id": 7, "x": {"a": 1, "b": [10, 20, 30]}, "it's": 1, "rows": [{"v": 1}, {"v": 2}]}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$", VALUE),
        ("$.id", 7),
        ("$.x.b[1]", 20),
        ("$['x']['b'][-1]", 30),
        ("$.x.b[0,2]", [10, 30]),
        ("$.x.b[1:]", [20, 30]),
        ("$.x.b[:1]", [10]),
        ("$.x.b[0,1:]", [10, 20, 30]),
        ("$.x.b[:-1]", [10, 20]),
        ("$.x.b[5:]", []),
        ("$.x.b[0,-3]", [10]),
        ("$.x.['a','b']", {"a": 1, "b": [10, 20, 30]}),
        ("$['id', \"x\"]", {"id": 7, "x": VALUE["x"]}),
        (r"$['it\'s']", 1),
        ("$.rows[*].v", [1, 2]),
        ("$.rows.*.v", [1, 2]),
        ("$.rows[0:2]['v']", [1, 2]),
        ("$.x.b[ 1 , 2 ]", [20, 30]),
    ],
)
def test_what_is_picked(path: str, found: Any) -> None:
    assert Path(path).pick(VALUE) == found


@pytest.mark.parametrize(
    "path",
    [
        "", "id", "$id", "$.", "$..id", "$[", "$[]", "$[1", "$['a]", "$['a',]", "$[1,]", "$[a]", "$[?(@.x)]", "$[(1)]",
        "$[1 2]", "$[1:2:3]", "$.a b", "$[0,0]", "$['a','a']", "$.x.", "$[99999999999]", "$" + "a" * LONGEST,
        "$['a'", "$[\"a']", "$ .a", "$.*.", "$[--1]",
    ],
)  # fmt: skip
def test_what_is_no_path(path: str) -> None:
    with pytest.raises(Unreadable):
        Path(path)


@pytest.mark.parametrize(
    "path", ["$.no", "$['id','no']", "$.id.x", "$[0]", "$.x.b[3]", "$.x.b[-4]", "$.x.b.c", "$.id.*"]
)
def test_what_a_record_has_not(path: str) -> None:
    with pytest.raises(NoMatch):
        Path(path).pick(VALUE)


SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=4)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab'", max_size=2), inner, max_size=4)
)


@given(st.text(alphabet="$.[]*,:'\"\\-01ab ?@()", max_size=LONGEST + 2), VALUES)
def test_any_text_is_read_or_refused_and_never_makes_more_of_a_record(text: str, value: Any) -> None:
    try:
        found = Path("$" + text).pick(value)
    except (Unreadable, NoMatch):
        return
    assert _leaves(found) <= _leaves(value)


def _leaves(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(_leaves, value.values()))
    return sum(map(_leaves, value)) if isinstance(value, list) else 1


@given(st.lists(st.text(max_size=5), max_size=6), st.data())
def test_places_of_a_row_are_those_of_python(row: list[str], data: st.DataObject) -> None:
    place = st.none() | st.integers(-8, 8)
    start, end = data.draw(place), data.draw(place)
    text = f"$[{'' if start is None else start}:{'' if end is None else end}]"
    assert Path(text).pick_cells(row) == row[start:end]
    if row:
        at = data.draw(st.integers(-len(row), len(row) - 1))
        assert Path(f"$[{at}]").pick_cells(row) == [row[at]]


@given(VALUES)
def test_a_name_of_any_characters_finds_its_member(value: Any) -> None:
    for name in value if isinstance(value, dict) else ():
        quoted = name.replace("\\", r"\\").replace("'", r"\'")
        assert Path(f"$['{quoted}']").pick(value) == value[name]
    assert json.loads(json.dumps(Path("$").pick(value))) == value
