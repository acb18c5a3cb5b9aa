"""The condition operators, one by one."""

from __future__ import annotations

from typing import Any

import pytest

from bastide.policy import OPERATORS
from tests.unit.policy.asking import holds

TEAM = "aws:PrincipalTag/team"
NAMES = [
    # operator, wanted, value, holds
    ("StringEquals", "red", "red", True),
    ("StringEquals", "red", "Red", False),
    ("StringEquals", "r*", "red", False),
    ("StringEquals", "r*", "r*", True),
    ("StringEquals", ["blue", "red"], "red", True),
    ("StringNotEquals", ["blue", "red"], "red", False),
    ("StringNotEquals", ["blue", "green"], "red", True),
    ("StringEqualsIgnoreCase", "RED", "red", True),
    ("StringNotEqualsIgnoreCase", "RED", "red", False),
    ("StringLike", "r*", "red", True),
    ("StringLike", "r?d", "red", True),
    ("StringLike", "r?", "red", False),
    ("StringLike", "R*", "red", False),
    ("StringLike", "${*}", "*", True),
    ("StringLike", "${*}", "x", False),
    ("StringLike", "${?}${$}", "?$", True),
    ("StringNotLike", "r*", "red", False),
    ("NumericEquals", "10", "10.0", True),
    ("NumericEquals", 10, "10", True),
    ("NumericNotEquals", "10", "11", True),
    ("NumericLessThan", "10", "9.99", True),
    ("NumericLessThan", "10", "10", False),
    ("NumericLessThan", ["1", "10"], "5", True),
    ("NumericLessThanEquals", "10", "10", True),
    ("NumericGreaterThan", ["1", "10"], "5", True),
    ("NumericGreaterThanEquals", "-1", "-1", True),
    ("NumericLessThan", "10", "many", False),
    ("NumericEquals", "10", "1" * 5000, False),
    ("DateEquals", "2026-01-01T00:00:00Z", "2026-01-01", True),
    ("DateEquals", "2026-01-01T01:00:00+01:00", "2026-01-01T00:00:00Z", True),
    ("DateEquals", "1767225600", "2026-01-01T00:00:00Z", True),
    ("DateNotEquals", "2026-01-02", "2026-01-01", True),
    ("DateLessThan", "2026-01-01T00:00:00Z", "2025-12-31T23:59:59.999Z", True),
    ("DateGreaterThan", "2026", "2026-06-01T00:00:00Z", True),
    ("DateGreaterThanEquals", "2026-06", "2026-06-01T00:00:00Z", True),
    ("DateLessThanEquals", "2026-06", "2026-06-01T00:00:00Z", True),
    ("DateLessThan", "2026-06-01", "soon", False),
    ("Bool", "true", "true", True),
    ("Bool", True, "true", True),
    ("Bool", "TRUE", "true", True),
    ("Bool", "false", "true", False),
    ("Bool", "${aws:username, 'true'}", "true", True),
    ("BinaryEquals", "QmluYXJ5", "QmluYXJ5", True),
    ("BinaryEquals", "QmluYXJ5", "b3RoZXI=", False),
    ("BinaryEquals", "QmluYXJ5", "not base64", False),
    ("IpAddress", "10.0.0.0/8", "10.255.0.1", True),
    ("IpAddress", "10.0.0.0/8", "11.0.0.1", False),
    ("IpAddress", "10.1.2.3/8", "10.255.0.1", True),
    ("IpAddress", "10.1.2.3", "10.1.2.3", True),
    ("IpAddress", ["10.0.0.0/8", "2001:db8::/32"], "2001:db8::77", True),
    ("IpAddress", "2001:db8::/32", "10.0.0.1", False),
    ("IpAddress", "10.0.0.0/8", "nonsense", False),
    ("IpAddress", "10.0.0.0/8", "::a00:1", False),
    ("IpAddress", "10.0.0.0/8", "::ffff:10.1.2.3", True),
    ("IpAddress", "::ffff:10.0.0.0/104", "10.1.2.3", True),
    ("IpAddress", "::/0", "10.1.2.3", False),
    ("IpAddress", "0.0.0.0/0", "2001:db8::1", False),
    ("IpAddress", "2001:DB8:0:0::/64", "2001:db8::1", True),
    ("IpAddress", "fe80::/10", "fe80::1%eth0", False),
    ("NotIpAddress", "10.0.0.0/8", "::ffff:a01:203", False),
    ("NotIpAddress", "10.0.0.0/8", "11.0.0.1", True),
    ("NotIpAddress", ["10.0.0.0/8", "11.0.0.0/8"], "11.0.0.1", False),
    ("ArnLike", "arn:aws:iam::*:role/*", "arn:aws:iam::111122223333:role/x", True),
    ("ArnLike", "arn:aws:*:role/x", "arn:aws:iam::111122223333:role/x", False),
    ("ArnLike", "arn:aws:iam", "arn:aws:iam::111122223333:role/x", True),
    ("ArnLike", "arn:*", "arn:aws:iam::111122223333:role/x", True),
    ("ArnLike", "*", "arn:aws:iam::111122223333:role/x", True),
    ("ArnLike", "*", "no arn", False),
    ("ArnEquals", "arn:aws:iam::*:role/x", "arn:aws:iam::111122223333:role/x", True),
    ("ArnEquals", "arn:aws:sns:*:1:t:*", "arn:aws:sns:eu-west-1:1:t:sub:scription", True),
    ("ArnNotEquals", "arn:aws:iam::*:role/x", "arn:aws:iam::111122223333:role/y", True),
    ("ArnNotLike", "arn:aws:iam::*:role/*", "arn:aws:iam::111122223333:role/y", False),
]  # fmt: skip


@pytest.mark.parametrize(("operator", "wanted", "value", "expected"), NAMES)
def test_one_value(operator: str, wanted: Any, value: str, expected: bool) -> None:
    assert holds(operator, TEAM, wanted, {TEAM: value}) is expected
    assert holds(operator, TEAM, wanted, {TEAM: value}, effect="Deny") is expected
    assert holds(f"{operator}IfExists", TEAM, wanted, {TEAM: value}) is expected
    assert holds(f"ForAnyValue:{operator}", TEAM, wanted, {TEAM: [value]}) is expected
    assert holds(f"ForAllValues:{operator}", TEAM, wanted, {TEAM: [value]}) is expected


VALID = {
    "Numeric": "1",
    "Date": "2026-01-01",
    "Bool": "true",
    "Binary": "eA==",
    "Ip": "10.0.0.1",
    "Arn": "arn:a:b:c:d:e",
}


@pytest.mark.parametrize("operator", [name for name in OPERATORS if name != "Null"])
def test_a_missing_key(operator: str) -> None:
    family = operator.removeprefix("Not")
    wanted = next((value for prefix, value in VALID.items() if family.startswith(prefix)), "x")
    assert holds(operator, TEAM, wanted, {}) is ("Not" in operator)
    assert holds(operator, TEAM, wanted, {TEAM: []}) is ("Not" in operator)
    assert holds(f"{operator}IfExists", TEAM, wanted, {})
    assert holds(f"ForAllValues:{operator}", TEAM, wanted, {})
    assert not holds(f"ForAnyValue:{operator}", TEAM, wanted, {})
    assert holds(f"ForAnyValue:{operator}IfExists", TEAM, wanted, {})


def test_null() -> None:
    assert holds("Null", TEAM, "true", {})
    assert not holds("Null", TEAM, "false", {})
    assert holds("Null", TEAM, False, {TEAM: "x"})
    assert not holds("Null", TEAM, "TRUE", {TEAM: "x"})
    assert holds("Null", TEAM, "true", {TEAM: []})


def test_set_operators_on_several_values() -> None:
    keys = {"aws:TagKeys": ["a", "b"]}
    assert holds("ForAllValues:StringEquals", "aws:TagKeys", ["a", "b", "c"], keys)
    assert not holds("ForAllValues:StringEquals", "aws:TagKeys", ["a"], keys)
    assert holds("ForAnyValue:StringEquals", "aws:TagKeys", ["a"], keys)
    assert not holds("ForAnyValue:StringEquals", "aws:TagKeys", ["c"], keys)
    assert holds("ForAnyValue:StringNotEquals", "aws:TagKeys", ["a"], keys)
    assert not holds("ForAnyValue:StringNotEquals", "aws:TagKeys", ["a", "b"], keys)
    assert not holds("ForAllValues:StringNotEquals", "aws:TagKeys", ["a"], keys)
    assert holds("ForAllValues:StringNotEquals", "aws:TagKeys", ["c"], keys)
    # "if the key values resolve to a null data set, such as an empty string"
    assert holds("ForAllValues:StringEquals", "aws:TagKeys", ["c"], {"aws:TagKeys": [""]})
    assert not holds("ForAnyValue:StringNotEquals", "aws:TagKeys", ["c"], {"aws:TagKeys": [""]})


def test_several_values_without_a_set_operator_err_on_the_side_of_refusing() -> None:
    keys = {"aws:TagKeys": ["a", "b"]}
    assert not holds("StringEquals", "aws:TagKeys", "a", keys)
    assert holds("StringEquals", "aws:TagKeys", "a", keys, effect="Deny")
    assert not holds("StringNotEquals", "aws:TagKeys", "a", keys)
    assert holds("StringNotEquals", "aws:TagKeys", "a", keys, effect="Deny")


def test_keys_are_found_in_any_letter_case_and_values_are_not() -> None:
    assert holds("StringEquals", "AWS:principaltag/TEAM", "red", {TEAM: "red"})
    assert not holds("StringEquals", TEAM, "RED", {TEAM: "red"})


def test_variables() -> None:
    keys: dict[str, Any] = {TEAM: "red", "aws:username": "red", "aws:TagKeys": ["red"]}
    assert holds("StringEquals", TEAM, "${aws:username}", keys)
    assert holds("StringEquals", TEAM, "${AWS:UserName}", keys)
    assert holds("StringEqualsIgnoreCase", TEAM, "${aws:username}", {**keys, "aws:username": "RED"})
    assert holds("StringLike", TEAM, "r${aws:nothing, 'e'}?", keys)
    # without a value it matches nothing, and a negated operator does match
    assert not holds("StringEquals", TEAM, "${aws:nothing}", keys)
    assert not holds("StringLike", TEAM, "*${aws:nothing}*", keys)
    assert holds("StringNotEquals", TEAM, "${aws:nothing}", keys)
    # a key with several values has no single one
    assert not holds("StringEquals", TEAM, "${aws:TagKeys}", keys)
    assert holds("StringEquals", TEAM, "${aws:TagKeys, 'red'}", keys)
    # what is put in is literal
    assert not holds("StringLike", TEAM, "${aws:username}", {**keys, "aws:username": "*"})
    assert not holds("StringLike", TEAM, "${aws:nothing, '*'}", keys)
    assert holds("ArnLike", "aws:PrincipalArn", "${aws:SourceArn}",
                 {"aws:PrincipalArn": "arn:aws:iam::1:role/x", "aws:SourceArn": "arn:aws:iam::1:role/x"})  # fmt: skip
