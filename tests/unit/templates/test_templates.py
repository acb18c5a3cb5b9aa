"""The template language: what it means, and what it refuses in words."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bastide.domain import Refused
from bastide.engines import templates
from bastide.engines.templates import LATER, NO_VALUE, Scope, parameters, schema

PLAIN = {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "v"}}


def _scope(**more: Any) -> Scope:
    values = {"P": "p", "L": ["a", "b"], "AWS::Region": "us-east-1", "AWS::NoValue": NO_VALUE}
    given_: dict[str, Any] = {
        "parameters": values,
        "mappings": {"M": {"k": {"v": "mapped", "l": ["1", "2"]}}},
        "conditions": {"Yes": {"Fn::Equals": [{"Ref": "P"}, "p"]}, "No": {"Fn::Not": [{"Condition": "Yes"}]}},
        "reference": lambda name: f"ref-{name}",
        "attribute": lambda name, member: f"{name}.{member}",
        "imported": lambda name: f"imported-{name}",
        "zones": lambda region: [f"{region}a", f"{region}b"],
        "resources": frozenset({"R"}),
        "extended": True,
        **more,
    }
    return Scope(**given_)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ({"Ref": "P"}, "p"),
        ({"Ref": "R"}, "ref-R"),
        ({"Fn::GetAtt": "R.Arn"}, "R.Arn"),
        ({"Fn::GetAtt": ["R", "A.B"]}, "R.A.B"),
        ({"Fn::Sub": "${P}-${R}-${R.Arn}-${!Literal}-${AWS::Region}"}, "p-ref-R-R.Arn-${Literal}-us-east-1"),
        ({"Fn::Sub": ["${X}${P}", {"X": {"Ref": "P"}}]}, "pp"),
        ({"Fn::Join": [",", [{"Ref": "P"}, 1, True]]}, "p,1,true"),
        ({"Fn::Join": ["-", {"Ref": "L"}]}, "a-b"),
        ({"Fn::Split": ["|", "a||b"]}, ["a", "", "b"]),
        ({"Fn::Select": ["1", {"Ref": "L"}]}, "b"),
        ({"Fn::FindInMap": ["M", "k", "v"]}, "mapped"),
        ({"Fn::FindInMap": ["M", "k", "none", {"DefaultValue": "d"}]}, "d"),
        ({"Fn::Base64": "hello"}, "aGVsbG8="),
        ({"Fn::Cidr": ["10.0.0.0/16", 3, 8]}, ["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24"]),
        ({"Fn::GetAZs": ""}, ["us-east-1a", "us-east-1b"]),
        ({"Fn::ImportValue": {"Fn::Sub": "x-${P}"}}, "imported-x-p"),
        ({"Fn::If": ["Yes", "y", "n"]}, "y"),
        ({"a": {"Fn::If": ["No", "y", {"Ref": "AWS::NoValue"}]}, "b": 1}, {"b": 1}),
        ({"Fn::And": [{"Condition": "Yes"}, {"Fn::Or": [{"Condition": "No"}, {"Condition": "Yes"}]}]}, True),
        ({"Fn::Contains": [["a", "p"], {"Ref": "P"}]}, True),
        ({"Fn::EachMemberIn": [{"Ref": "L"}, ["a", "b", "c"]]}, True),
        ({"Fn::EachMemberEquals": [{"Ref": "L"}, "a"]}, False),
        ({"Fn::Length": {"Ref": "L"}}, 2),
        ({"Fn::ToJsonString": {"a": {"Ref": "L"}}}, '{"a":["a","b"]}'),
    ],
)
def test_functions(value: Any, wanted: Any) -> None:
    assert templates.resolve(value, _scope()) == wanted


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"Ref": "Nobody"}, "Unresolved resource dependencies"),
        ({"Fn::GetAtt": "R"}, "requires two non-empty parameters"),
        ({"Fn::Select": [9, {"Ref": "L"}]}, "nonexistent value"),
        ({"Fn::FindInMap": ["M", "k", "none"]}, "Unable to get mapping"),
        ({"Fn::Cidr": ["10.0.0.0/30", 200, 1]}, "does not hold"),
        ({"Fn::Cidr": ["10.0.0.0/8", 99999, 1]}, "1 to 256"),
        ({"Fn::Nothing": 1}, "unsupported function"),
        ({"Fn::If": ["Who", 1, 2]}, "unresolved condition"),
        ({"Fn::ForEach::X": []}, "unsupported function"),
        ({"Fn::ValueOf": ["a", "b"]}, "not supported"),
    ],
)
def test_functions_that_are_used_wrongly(value: Any, words: str) -> None:
    with pytest.raises(Refused, match=words) as caught:
        templates.resolve(value, _scope())
    assert caught.value.code == "ValidationError"


def test_conditions_in_a_ring_are_refused() -> None:
    scope = _scope(conditions={"A": {"Condition": "B"}, "B": {"Fn::Not": [{"Condition": "A"}]}})
    with pytest.raises(Refused, match="Circular dependency"):
        scope.condition("A")


def test_what_functions_give_is_bounded() -> None:
    many = [{"Ref": "Long"}] * 4000
    with pytest.raises(Refused, match="too large"):
        templates.resolve(many, _scope(parameters={"Long": "x" * 4096}))


# -- bodies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "[" * 500_000,
        "{" * 500_000,
        '{"a":' * 200_000 + "1" + "}" * 200_000,
        "- " * 300_000 + "x",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
        "<<: {a: 1}",
        "a: 1\na: 2",
        "--- a\n--- b",
        "a: !Unknown x",
        "a: !!python/object/apply:os.system [ls]",
        "? [a]\n: b",
        "x: [" + "1," * 150_000 + "]",
        "a: \x00",
        "\t- a",
        json.dumps({"a": [0] * 150_000}),
        "a" * 2_000_000,
        "%YAML 9.9\n---\na",
        "",
    ],
    ids=lambda body: body[:12],
)
def test_hostile_bodies_are_refused_in_words_and_in_time(body: str) -> None:
    began = time.process_time()
    with pytest.raises(Refused) as caught:
        templates.read(body)
    assert caught.value.code == "ValidationError" and caught.value.message
    assert time.process_time() - began < 20


def test_short_forms_and_scalars() -> None:
    body = "a: !Ref x\nb: !GetAtt r.a.b\nc: !Sub\n  - ${x}\n  - {x: !Ref y}\n"
    body += "d: 2010-09-09\ne: 012\nf: 1.10\ng: yes\nh: 5\ni: '5'\nj: ~"
    assert templates.read(body) == {
        "a": {"Ref": "x"}, "b": {"Fn::GetAtt": ["r", "a.b"]}, "c": {"Fn::Sub": ["${x}", {"x": {"Ref": "y"}}]},
        "d": "2010-09-09", "e": "012", "f": "1.10", "g": True, "h": 5, "i": "5", "j": None,
    }  # fmt: skip


_TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.text(st.characters(codec="utf-8", exclude_categories=("C",))),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text("abc", min_size=1), below, max_size=4),
    max_leaves=20,
)


@given(_TREES)
def test_json_and_yaml_of_a_tree_are_the_same_tree(tree: Any) -> None:
    assert templates.parse(json.dumps([tree])) == [tree]
    assert templates.parse(yaml.safe_dump([tree], allow_unicode=True)) == [tree]


@given(st.text())
def test_any_text_is_read_or_refused(body: str) -> None:
    try:
        templates.read(body)
    except Refused as refused:
        assert refused.code == "ValidationError"


# -- templates ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({}, "At least one Resources member"),
        ({"Resources": {"A": PLAIN}, "Other": 1}, "Invalid template property"),
        ({"Resources": {"A-B": PLAIN}}, "non alphanumeric"),
        ({"Resources": {"A": {**PLAIN, "Oops": 1}}}, "Invalid template resource property"),
        ({"Resources": {"A": {**PLAIN, "DependsOn": "B"}}}, r"Unresolved resource dependencies \[B\]"),
        (
            {"Resources": {"A": {**PLAIN, "Properties": {"Value": {"Ref": "B"}}}}},
            r"Unresolved resource dependencies \[B\]",
        ),
        ({"Resources": {"A": PLAIN}, "Transform": "AWS::Mine"}, "No transform named AWS::Mine"),
        ({"Resources": {"A": PLAIN}, "Outputs": {"O": {"Value": {"Fn::GetAtt": "B.C"}}}}, "in the Outputs block"),
        ({"Resources": {f"A{n}": PLAIN for n in range(501)}}, "greater than maximum allowed, 500"),
        ({"Resources": {"A": PLAIN}, "Parameters": {"P": {"Type": "Strange"}}}, "Unrecognized parameter type"),
        (
            {"Resources": {"A": PLAIN}, "Conditions": {"C": {"Fn::Equals": [{"Ref": "A"}, "x"]}}},
            "Cannot reference resources",
        ),
    ],
)
def test_templates_that_are_none(raw: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused, match=words):
        templates.checked(raw)


def test_rings_are_named() -> None:
    ring = {
        name: {**PLAIN, "Properties": {"Value": {"Fn::Sub": f"${{{other}}}"}}}
        for name, other in zip("ABC", "BCA", strict=True)
    }
    template = templates.checked({"Resources": ring})
    with pytest.raises(Refused, match=r"Circular dependency between resources: \[A, B, C\]"):
        template.dependencies(template.scope({}))


def test_branches_that_are_not_taken_need_nothing() -> None:
    raw = {
        "Conditions": {"Yes": {"Fn::Equals": ["a", "a"]}, "No": {"Fn::Equals": ["a", "b"]}},
        "Resources": {
            "A": {**PLAIN, "Properties": {"Value": {"Fn::If": ["Yes", "x", {"Ref": "B"}]}}},
            "B": {**PLAIN, "Condition": "No"},
            "C": {**PLAIN, "DependsOn": ["A", "B"]},
        },
    }
    template = templates.checked(raw)
    assert template.dependencies(template.scope({})) == {"A": set(), "C": {"A"}}


def test_loops_are_bounded() -> None:
    names = [f"n{number}" for number in range(100)]
    loop: Any = {"X${A}${B}${C}": PLAIN}
    for name in "CBA":
        loop = {f"Fn::ForEach::{name}": [name, names, loop]}
    with pytest.raises(Refused, match="its loops make more than"):
        templates.unrolled({"Resources": loop}, _scope(parameters={}))


# -- parameters and properties -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "value", "words"),
    [
        ({"Type": "Number", "MinValue": 3}, "2", "not less than 3"),
        ({"Type": "Number"}, "x", "be a number"),
        ({"Type": "String", "AllowedValues": ["a", "b"]}, "c", r"AllowedValues: \[a, b\]"),
        ({"Type": "String", "AllowedPattern": "[a-z]+"}, "a1", "match pattern"),
        ({"Type": "String", "AllowedPattern": "(a+)+b"}, "a" * 4000 + "c", "match pattern"),
        ({"Type": "String", "MaxLength": 2, "ConstraintDescription": "be short"}, "abc", "be short"),
        ({"Type": "CommaDelimitedList", "AllowedValues": ["a"]}, "a,b", "AllowedValues"),
        ({"Type": "String"}, "x" * 5000, "maximum length"),
    ],
)
def test_constraints_of_parameters(declared: dict[str, Any], value: str, words: str) -> None:
    parameters.check_declared({"P": declared})
    with pytest.raises(Refused, match=words):
        parameters.given({"P": declared}, {"P": value})


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"Type": "String"}, "required key [Value] not found"),
        ({"Type": "Strange", "Value": "v"}, "not a valid enum value"),
        ({"Type": "String", "Value": ["v"]}, "expected type: string, found: array"),
        ({"Type": "String", "Value": "v", "More": 1}, "extraneous key [More]"),
    ],
)
def test_properties_are_checked_against_what_is_published(properties: dict[str, Any], words: str) -> None:
    _, faults = schema.checked("AWS::SSM::Parameter", properties)
    assert any(words in one for one in faults), faults


def test_scalars_are_converted_and_what_comes_later_is_let_pass() -> None:
    given_ = {"EnableKeyRotation": "true", "PendingWindowInDays": "7", "Description": 5, "KeyPolicy": LATER}
    found, faults = schema.checked("AWS::KMS::Key", given_)
    assert not faults
    assert found == {"EnableKeyRotation": True, "PendingWindowInDays": 7, "Description": "5", "KeyPolicy": LATER}
