"""Patterns of events, where AWS's answer is not the first that one would think of."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bastide.domain import Refused
from bastide.kernel.pattern import Pattern


@pytest.mark.parametrize(
    ("pattern", "event", "matches"),
    [
        # What is no text is anything but a text.
        ({"a": [{"anything-but": {"prefix": "x"}}]}, {"a": 12}, True),
        ({"a": [{"anything-but": {"suffix": [".txt"]}}]}, {"a": None}, True),
        ({"a": [{"anything-but": {"prefix": "x"}}]}, {"a": "xy"}, False),
        ({"a": [{"anything-but": {"prefix": "x"}}]}, {}, False),
        # An empty list holds nothing that exists.
        ({"a": [{"exists": True}]}, {"a": []}, False),
        ({"a": [{"exists": False}]}, {"a": []}, True),
        # Lists of lists are as flat as lists.
        ({"a": {"b": ["c"]}}, {"a": [[{"b": "c"}], {"b": "d"}]}, True),
        # A dot in a name is a step into an object, on either side.
        ({"a.b": ["c"]}, {"a": {"b": "c"}}, True),
        ({"a.b": ["c"]}, {"a.b": "c"}, True),
        ({"a": {"b": ["c"]}}, {"a.b": "c"}, True),
        ({"a.b.c": ["d"]}, {"a.b": {"c": "d"}}, True),
        ({"a.b": ["c"]}, {"a": {"b": "d"}}, False),
        ({"a.b": [{"exists": False}]}, {"a": "b"}, True),
    ],
)
def test_what_matches(pattern: dict[str, Any], event: dict[str, Any], matches: bool) -> None:
    assert Pattern(json.dumps(pattern)).matches(event) is matches


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([], "Empty arrays are not allowed"),
        ([{"anything-but": {"prefix": ""}}], "Null prefix/suffix not allowed"),
        ([{"anything-but": {"prefix": 1}}], "prefix/suffix match pattern must be a string"),
        ([{"anything-but": None}], "Value of anything-but must be an array or single string/number value."),
        ([{"numeric": 1}], "Value of numeric must be an array."),
        ([{"numeric": [">", 0, "<"]}], "Value of < must be numeric"),
        ([{"numeric": [">", 0, ">", 1]}], "Bad numeric range operator: >"),
        ([{"cidr": "10.0.0.0"}], "Malformed CIDR, one '/' required"),
        ([{"cidr": "10.0.0.x/8"}], "Nonstandard IP address: 10.0.0.x"),
        ([{"cidr": "10.0.0.0/33"}], "Malformed CIDR"),
        ([{"EXISTS": True}], "Unrecognized match type EXISTS"),
        ([{"wildcard": "a**b"}], "Consecutive wildcard characters at pos 2"),
    ],
)
def test_what_is_no_pattern(values: list[Any], reason: str) -> None:
    with pytest.raises(Refused) as refused:
        Pattern(json.dumps({"a": values}))
    assert refused.value.message.startswith(f"Event pattern is not valid. Reason: {reason}")
