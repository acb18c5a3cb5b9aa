"""Tag policies merged: the operators of the user guide, and what parents keep children from."""

from __future__ import annotations

from typing import Any

import pytest

from bastide.services.organizations import tag_policy

CONTROL = "@@operators_allowed_for_child_policies"


def values(*levels: list[dict[str, Any]]) -> Any:
    """What is in force of the values of one key, whose policies are given a level at a time."""
    found = tag_policy.merged([[{"tags": {"k": {"tag_value": one}}} for one in level] for level in levels])
    return found.get("tags", {}).get("k", {}).get("tag_value")


@pytest.mark.parametrize(
    ("levels", "wanted"),
    [
        ([[{"@@assign": ["a", "b"]}]], ["a", "b"]),
        ([[{"@@assign": ["a", "b"]}], [{"@@assign": ["c"]}]], ["c"]),
        ([[{"@@assign": ["a", "b"]}], [{"@@append": ["b", "c"]}]], ["a", "b", "c"]),
        ([[{"@@assign": ["a", "b"]}], [], [{"@@remove": ["a", "x"]}]], ["b"]),
        ([[{"@@append": ["a"]}]], ["a"]),
        ([[{"@@assign": ["a"]}], [{"@@remove": ["a"]}]], None),
        ([[{"@@assign": ["a"]}, {"@@append": ["b"]}]], ["a", "b"]),
        ([[{"@@assign": ["a"]}, {"@@assign": ["b"]}]], ["a"]),
        ([[{"@@assign": ["a"], CONTROL: ["@@none"]}], [{"@@assign": ["b"]}]], ["a"]),
        ([[{"@@assign": ["a"], CONTROL: ["@@append"]}], [{"@@assign": ["b"]}], [{"@@append": ["c"]}]], ["a", "c"]),
        ([[{"@@assign": ["a"], CONTROL: ["@@append"]}], [{"@@append": ["b"], "@@remove": ["a"]}]], ["a", "b"]),
        # A child may allow less than its parent, and not more.
        ([[{"@@assign": ["a"], CONTROL: ["@@none"]}], [{CONTROL: ["@@all"]}], [{"@@assign": ["b"]}]], ["a"]),
        ([[{"@@assign": ["a"]}], [{CONTROL: ["@@none"]}], [{"@@assign": ["b"]}]], ["a"]),
        # What a policy allows its children does not bind policies of its own level.
        ([[{"@@assign": ["a"], CONTROL: ["@@none"]}, {"@@append": ["b"]}], [{"@@append": ["c"]}]], ["a", "b"]),
    ],
)
def test_operators(levels: list[list[dict[str, Any]]], wanted: list[str] | None) -> None:
    assert values(*levels) == wanted


def test_a_key_is_one_in_any_case() -> None:
    policies = [
        [{"tags": {"CostCenter": {"tag_key": {"@@assign": "CostCenter"}}}}],
        [{"tags": {"COSTCENTER": {"tag_value": {"@@assign": ["1"]}}}}],
    ]
    assert tag_policy.merged(policies) == {"tags": {"costcenter": {"tag_key": "CostCenter", "tag_value": ["1"]}}}
    unnamed = tag_policy.merged([[{"tags": {"Stage": {"tag_value": {"@@assign": ["dev"]}}}}]])
    assert unnamed == {"tags": {"stage": {"tag_key": "stage", "tag_value": ["dev"]}}}


def test_nothing_is_in_force_of_nothing() -> None:
    assert tag_policy.merged([]) == tag_policy.merged([[{"tags": {}}], []]) == {}


def test_wildcards_and_types() -> None:
    effective = {
        "tags": {
            "k": {"tag_key": "K", "tag_value": ["a*z", "*@example.com"], "enforced_for": ["s3:bucket", "kms:*"]},
            "free": {"tag_key": "Free", "tag_value": ["x"]},
            "any": {"tag_key": "Any", "enforced_for": ["s3:bucket"]},
        }
    }
    rules = tag_policy.rules(effective)
    for value, wrong in (
        ("az", False),
        ("abcz", False),
        ("me@example.com", False),
        ("a", True),
        ("", True),
        ("A", True),
    ):
        assert tag_policy.forbids(rules, "s3:bucket", "K", value) is wrong
        assert tag_policy.forbids(rules, "kms:key", "K", value) is wrong
        assert not tag_policy.forbids(rules, "iam:role", "K", value)
    assert tag_policy.forbids(rules, "s3:bucket", "k", "az")
    assert not tag_policy.forbids(rules, "s3:bucket", "Free", "y") and not tag_policy.forbids(rules, "s3:x", "Any", "")
    assert tag_policy.forbids(rules, "s3:bucket", "ANY", "x") and not tag_policy.forbids(rules, "s3:bucket", "Any", "x")
    assert tag_policy.faults(rules, {"free": "x", "Free": "y", "other": "z"}) == (["free"], ["Free"])
