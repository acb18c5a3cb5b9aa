"""Paths, intrinsic functions, and patterns of Choice states."""

from __future__ import annotations

import fnmatch
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.engines.asl import intrinsics, paths
from bastide.engines.asl.choice import fits
from bastide.engines.asl.values import instant

DATA = {
    "a": {"b": [1, 2, 3, 4], "c-d": "x", "it's": 7},
    "books": [{"t": "one", "p": 3}, {"t": "two", "p": 8, "x": True}, {"t": "three", "p": 5}],
}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("$", DATA),
        ("$.a.b[1]", 2),
        ("$['a']['c-d']", "x"),
        ("$.a.c-d", "x"),
        ("$.a.b[-1]", 4),
        ("$.a.b[1:3]", [2, 3]),
        ("$.a.b[0,2]", [1, 3]),
        ("$.a.b[*]", [1, 2, 3, 4]),
        ("$.a.b.length()", 4),
        ("$..t", ["one", "two", "three"]),
        ("$.books[?(@.p > 4)].t", ["two", "three"]),
        ("$.books[?(@.p > 4 && !@.x)].t", ["three"]),
        ("$.books[?(@.t == 'one' || @.x)].p", [3, 8]),
        ("$.books[?(@.t in ['one', 'three'])].p", [3, 5]),
        ("$.none[*]", []),
    ],
)
def test_paths(text: str, found: Any) -> None:
    assert paths.parse(text).read(DATA) == found


@pytest.mark.parametrize("text", ["", "a", "$.", "$[", "$[?(@.a)", "$.a b", "$.a[x]", "$.a()", "$.a[0:1:0]"])
def test_what_is_no_path(text: str) -> None:
    with pytest.raises(paths.BadPath):
        paths.parse(text)


def test_a_path_that_looks_at_too_much_ends() -> None:
    deep: Any = 1
    for _ in range(60):
        deep = [deep, deep]
    with pytest.raises(paths.TooMuch):
        paths.parse("$..*").read(deep)


@given(st.text(max_size=40))
def test_any_text_is_a_path_or_none(text: str) -> None:
    try:
        path = paths.parse(text)
        path.read({"a": [1, {"b": None}]}) if path.root == "$" else None
    except (paths.BadPath, KeyError):
        pass


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from("abc"), below, max_size=3),
    max_leaves=8,
)


@given(
    JSON.filter(lambda value: isinstance(value, dict)), st.lists(st.sampled_from("abc"), min_size=1, max_size=3), JSON
)
def test_what_was_written_at_a_path_is_read_there(value: Any, keys: list[str], result: Any) -> None:
    path = paths.reference("$." + ".".join(keys))
    before = repr(value)
    try:
        written = paths.written(path, value, result)
    except KeyError:
        return
    assert path.read(written) == result
    assert repr(value) == before, "what was given is changed"


@given(st.text(alphabet="ab*\\", max_size=8), st.text(alphabet="ab*", max_size=8))
def test_patterns_fit_as_those_of_the_shell(pattern: str, text: str) -> None:
    if "\\" in pattern:
        fits(text, pattern)  # it must only end
    else:
        assert fits(text, pattern) == fnmatch.fnmatchcase(text, pattern)


@pytest.mark.parametrize(
    ("call", "found"),
    [
        ("States.Format('{} and {}', $.n, 'x')", "5 and x"),
        (r"States.Format('\{\} {}', $.o)", "{} {k=[1, a]}"),
        ("States.Array(1, 'a', null, true)", [1, "a", None, True]),
        ("States.ArrayPartition($.l, 2)", [[1, 2], [3]]),
        ("States.ArrayRange(5, 1, -2)", [5, 3, 1]),
        ("States.ArrayUnique(States.Array(1, 1, true, '1'))", [1, True, "1"]),
        ("States.Base64Decode(States.Base64Encode('ä'))", "ä"),
        ("States.Hash('a', 'MD5')", "0cc175b9c0f1b6a831c399e269772661"),
        ("States.MathAdd(1.5, -1.5)", 1),
        ("States.StringSplit('a.b+c', '.+')", ["a", "b", "c"]),
        ("States.JsonMerge($.o, States.StringToJson('{\"z\":1}'), false)", {"k": [1, "a"], "z": 1}),
    ],
)
def test_intrinsic_functions(call: str, found: Any) -> None:
    data = {"n": 5, "l": [1, 2, 3], "o": {"k": [1, "a"]}}
    assert intrinsics.called(intrinsics.parse(call), lambda path: paths.parse(path).read(data)) == found


@pytest.mark.parametrize(
    "call",
    ["States.ArrayRange(0, 10000, 1)", "States.ArrayRange(0, 1, 0)", "States.Format('{}')", "States.MathRandom(5, 1)",
     "States.JsonMerge($.l, $.l, false)", "States.Hash('a', 'CRC')", "States.Base64Decode('?')"],
)  # fmt: skip
def test_functions_that_cannot(call: str) -> None:
    with pytest.raises(intrinsics.Failed):
        intrinsics.called(intrinsics.parse(call), lambda path: paths.parse(path).read({"l": []}))


def test_calls_are_not_nested_without_end() -> None:
    with pytest.raises(intrinsics.BadCall):
        intrinsics.parse("States.Array(" * 50 + ")" * 50)


def test_times() -> None:
    assert instant("2012-10-09T19:00:55Z") == 1_349_809_255_000_000
    assert instant("2012-10-09T19:00:55.123456789+01:00") == 1_349_805_655_123_456
    assert instant("2012-10-09T19:00:55") is None and instant("2012-13-09T19:00:55Z") is None and instant(5) is None
