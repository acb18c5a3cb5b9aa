"""Wildcards and ARNs."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.policy import Document, Form
from bastide.policy.matching import arn_pattern, pattern
from bastide.policy.variables import template
from tests.unit.policy.asking import HOME, allow, ask, document, layers


def matches(wanted: str, text: str, **keys: str) -> bool:
    return pattern(template(wanted, "", variables=True, wildcards=True))(text, keys)


@given(st.text("ab*?", max_size=12), st.text("ab", max_size=12))
def test_wildcards_mean_what_a_regular_expression_says(wanted: str, text: str) -> None:
    expression = re.escape(wanted).replace(r"\*", ".*").replace(r"\?", ".")
    assert matches(wanted, text) is (re.fullmatch(expression, text) is not None)


@given(st.text("ab*?", max_size=8), st.text("ab*", max_size=3), st.text("ab*", max_size=8))
def test_what_a_variable_brings_is_literal(wanted: str, brought: str, text: str) -> None:
    expression = re.escape(wanted).replace(r"\*", ".*").replace(r"\?", ".") + re.escape(brought) + ".*"
    assert matches(wanted + "${a:b}*", text, **{"a:b": brought}) is (re.fullmatch(expression, text) is not None)


@pytest.mark.parametrize(
    ("wanted", "text", "expected"),
    [
        ("*", "anything", True),
        ("arn:aws:s3:::bucket/*", "arn:aws:s3:::bucket/a/b", True),
        ("arn:aws:s3:::bucket/*", "arn:aws:s3:::bucket", False),
        ("arn:aws:s3:::*", "arn:aws:s3:::bucket/a:b", True),
        ("arn:aws:s3:*:bucket", "arn:aws:s3:::bucket", False),
        ("arn:aws:s3", "arn:aws:s3:::bucket", True),
        ("arn:aws:*", "arn:aws:s3:::bucket", True),
        ("arn:aws:sagemaker:*:1:model/*", "arn:aws:sagemaker:eu-west-1:1:model/x:y", True),
        ("arn:aws:sagemaker:*:1:model/*", "arn:aws:sagemaker:eu-west-1:2:model/x", False),
        ("arn:aws:sagemaker:*:model/x", "arn:aws:sagemaker:eu-west-1:1:model/x", False),
        ("arn:aws:s3:::bucket", "*", False),
        ("arn:*:s3:::bucket", "*", False),
        ("arn:*:s3:::bucket", "arn:aws", False),
        ("arn:aws:s3:::ab*ba", "arn:aws:s3:::aba", False),
        ("arn:aws:s3:::ab*ba", "arn:aws:s3:::abba", True),
    ],
)
def test_arns_match_segment_by_segment(wanted: str, text: str, expected: bool) -> None:
    assert arn_pattern(template(wanted, "", variables=True, wildcards=True), complete=True)(text, {}) is expected


def test_a_value_cannot_move_the_borders_of_segments() -> None:
    test = arn_pattern(template("arn:aws:iam::${a:b}:role/*", "", variables=True, wildcards=True), complete=True)
    assert test("arn:aws:iam::1:role/x", {"a:b": "1"})
    assert not test("arn:aws:iam::1:role/admin:role/x", {"a:b": "1:role/admin"})


def test_resources_of_a_policy() -> None:
    policies = layers(identity=[allow("s3:*", ["arn:aws:s3:::a/*", "arn:aws:s3:::home/${aws:username}/*"])])
    assert ask(policies, resource="arn:aws:s3:::a/x").allowed
    assert not ask(policies, resource="arn:aws:s3:::b/x").allowed
    assert ask(policies, resource="arn:aws:s3:::home/ann/x", keys={"aws:username": "ann"}).allowed
    assert not ask(policies, resource="arn:aws:s3:::home/bob/x", keys={"aws:username": "ann"}).allowed
    assert not ask(policies, resource="arn:aws:s3:::home//x").allowed
    assert not ask(policies, resource="*").allowed


def test_not_resource_and_not_action() -> None:
    policies = layers(
        identity=[
            {"Effect": "Allow", "NotAction": "iam:*", "NotResource": ["arn:aws:s3:::secret", "arn:aws:s3:::secret/*"]}
        ]
    )
    assert ask(policies, resource="arn:aws:s3:::open/x").allowed
    assert not ask(policies, resource="arn:aws:s3:::secret/x").allowed
    assert not ask(policies, action="IAM:GetRole", resource=f"arn:aws:iam::{HOME}:role/x").allowed
    assert ask(policies, action="s3:ListAllMyBuckets", resource="*").allowed
    nothing = layers(identity=[{"Effect": "Allow", "Action": "*", "NotResource": "*"}])
    assert not ask(nothing).allowed


def test_variables_of_2008_are_text() -> None:
    old = Document.parse(document(allow("s3:*", "arn:aws:s3:::${aws:username}/*"), version="2008-10-17"), Form.IDENTITY)
    (statement,) = old.statements
    assert statement.applies("arn:aws:s3:::${aws:username}/x", {"aws:username": "ann"})
    assert not statement.applies("arn:aws:s3:::ann/x", {"aws:username": "ann"})


def test_many_statements_of_one_action_decide_like_few() -> None:
    """Beyond a handful of statements a document remembers which concern a resource."""
    many = [allow("s3:GetObject", f"arn:aws:s3:::b{index}/${{aws:username}}/*") for index in range(20)]
    many += [allow("s3:GetObject", f"arn:aws:s3:::c{index}/*") for index in range(20)]
    policies = layers(identity=many)
    for _ in range(2):
        assert ask(policies, resource="arn:aws:s3:::b7/ann/x", keys={"aws:username": "ann"}).statement == 7
        assert not ask(policies, resource="arn:aws:s3:::b7/ann/x", keys={"aws:username": "bob"}).allowed
        assert ask(policies, resource="arn:aws:s3:::c7/x").statement == 27
        assert not ask(policies, resource="arn:aws:s3:::d/x").allowed
