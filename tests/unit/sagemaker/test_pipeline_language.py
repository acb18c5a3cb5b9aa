"""The language of pipeline definitions: whatever comes is understood or refused in words, and values keep their types."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.services.sagemaker.pipeline_language import (
    Malformed,
    Scope,
    Unresolved,
    holds,
    key,
    lifetime,
    parse,
    policy_for,
    resolve,
    wanted,
)

SCOPE = Scope(
    {"Count": 3, "Rate": 0.5, "On": True, "Name": "a"},
    {"PipelineExecutionId": "abc"},
    {
        "Prep": {
            "Outputs": [{"OutputName": "train", "S3Uri": "s3://b/t"}, {"OutputName": "test", "S3Uri": "s3://b/u"}]
        },
        "Ask": {"OutputParameters": {"n": 7}},
    },
    {"Prep/Report": {"m": [{"v": 1.5}], "text": "x"}},
)


def document(*steps: dict[str, Any], **more: Any) -> str:
    return json.dumps({"Version": "2020-12-01", "Steps": list(steps), **more})


def step(name: str, after: list[str] | None = None, **more: Any) -> dict[str, Any]:
    return {"Name": name, "Type": "Model", "Arguments": {}, "DependsOn": after or [], **more}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
    | st.sampled_from(["Get", "Std:Join", "Steps.A.B", "Parameters.X", "Training", "Condition", "A", "2020-12-01"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(
            ["Version", "Parameters", "Steps", "Name", "Type", "Arguments", "DependsOn", "Conditions", "IfSteps", "Get",
             "Std:Join", "Std:JsonGet", "On", "Values", "Path", "PropertyFile", "RetryPolicies", "CacheConfig",
             "PropertyFiles", "OutputParameters", "DefaultValue", "EnumValues", "ElseSteps", "PipelineExperimentConfig"]
        ),
        inner,
        max_size=6,
    ),
    max_leaves=20,
)  # fmt: skip


@given(JSON)
def test_whatever_comes_is_understood_or_refused_in_words(value: Any) -> None:
    for told in (value, {"Version": "2020-12-01", "Steps": value}, {"Version": "2020-12-01", "Steps": [value]}):
        try:
            parse(json.dumps(told))
        except Malformed as error:
            assert str(error).endswith((".", "it.")) or ":" in str(error)


@given(st.lists(st.sets(st.integers(0, 11)), min_size=1, max_size=12))
def test_steps_are_in_an_order_or_stand_in_a_circle(edges: list[set[int]]) -> None:
    names = [f"S{number}" for number in range(len(edges))]
    text = document(
        *(
            step(name, [names[one] for one in after if one < len(names)])
            for name, after in zip(names, edges, strict=True)
        )
    )
    try:
        found = parse(text)
    except Malformed as error:
        assert "circle" in str(error) or "depends on itself" in str(error)
        return
    done: set[str] = set()
    for _ in names:
        done |= {name for name, one in found.steps.items() if one.after <= done}
    assert done == set(names)


@pytest.mark.parametrize(
    ("value", "becomes"),
    [
        ({"Get": "Parameters.Count"}, 3),
        (
            {"Std:Join": {"On": "-", "Values": ["x", {"Get": "Parameters.Rate"}, {"Get": "Parameters.On"}]}},
            "x-0.5-true",
        ),
        ({"a": [{"Get": "Steps.Prep.Outputs['test'].S3Uri"}]}, {"a": ["s3://b/u"]}),
        ({"Get": 'Steps.Prep.Outputs["train"].S3Uri'}, "s3://b/t"),
        ({"Get": "Steps.Prep.Outputs[1].OutputName"}, "test"),
        ({"Get": "Steps.Ask.OutputParameters['n']"}, 7),
        ({"Std:JsonGet": {"PropertyFile": {"Get": "Steps.Prep.PropertyFiles.Report"}, "Path": "m[0].v"}}, 1.5),
        ({"Get": "Execution.PipelineExecutionId"}, "abc"),
        ({"Get": 1, "other": 2}, {"Get": 1, "other": 2}),
    ],
)
def test_expressions_have_values_of_their_types(value: Any, becomes: Any) -> None:
    found = resolve(value, SCOPE)
    assert found == becomes and type(found) is type(becomes)


@pytest.mark.parametrize(
    "value",
    [
        {"Get": "Steps.Nobody.X"},
        {"Get": "Steps.Prep.Outputs['x'].S3Uri"},
        {"Get": "Steps.Prep.Outputs[9]"},
        {"Std:Join": {"On": "", "Values": [[1]]}},
        {"Std:JsonGet": {"PropertyFile": {"Get": "Steps.Prep.PropertyFiles.Report"}, "Path": "m[0].w"}},
    ],
)
def test_what_has_no_value_says_why(value: Any) -> None:
    with pytest.raises(Unresolved, match=r"\.$"):
        resolve(value, SCOPE)


def test_a_document_is_asked_for_once_and_its_place_may_be_open() -> None:
    place = {"Std:Join": {"On": "/", "Values": ["s3://b", {"Get": "Execution.PipelineExecutionId"}, "r.json"]}}
    get = {"Std:JsonGet": {"S3Uri": place, "Path": "$.Result"}}
    assert wanted([get, {"x": get}], SCOPE) == {"s3://b/abc/r.json": "s3://b/abc/r.json"}


def test_many_small_expressions_do_not_become_something_enormous() -> None:
    scope = Scope({"Long": "x" * 1024}, {}, {})
    with pytest.raises(Unresolved, match="more than"):
        resolve([{"Get": "Parameters.Long"}] * 5000, scope)


ON = {"Get": "Parameters.On"}
RATE = {"Get": "Parameters.Rate"}


@pytest.mark.parametrize(
    ("condition", "outcome"),
    [
        ({"Type": "Equals", "LeftValue": RATE, "RightValue": 0.5}, True),
        ({"Type": "Equals", "LeftValue": {"Get": "Parameters.Count"}, "RightValue": 3.0}, True),
        ({"Type": "GreaterThan", "LeftValue": RATE, "RightValue": 0.5}, False),
        ({"Type": "GreaterThanOrEqualTo", "LeftValue": RATE, "RightValue": 0.5}, True),
        ({"Type": "LessThan", "LeftValue": "a", "RightValue": "b"}, True),
        ({"Type": "LessThanOrEqualTo", "LeftValue": 2, "RightValue": {"Get": "Parameters.Count"}}, True),
        ({"Type": "In", "QueryValue": {"Get": "Parameters.Name"}, "Values": ["b", "a"]}, True),
        ({"Type": "Not", "Expression": {"Type": "In", "QueryValue": "c", "Values": ["b"]}}, True),
        ({"Type": "Not", "Condition": {"Type": "Equals", "LeftValue": True, "RightValue": ON}}, False),
        ({"Type": "Or", "Conditions": [
            {"Type": "Equals", "LeftValue": 1, "RightValue": 2},
            {"Type": "Equals", "LeftValue": 1, "RightValue": 1}]}, True),
    ],
)  # fmt: skip
def test_conditions(condition: dict[str, Any], outcome: bool) -> None:
    parse(document({"Name": "C", "Type": "Condition", "Arguments": {"Conditions": [condition]}},
                   Parameters=[{"Name": name, "Type": "String"} for name in SCOPE.parameters]))  # fmt: skip
    assert holds([condition], SCOPE) is outcome
    assert holds([condition, condition], SCOPE) is outcome


@pytest.mark.parametrize(("left", "right"), [(1, "1"), (True, 1), ("a", None), ([1], [1])])
def test_what_cannot_be_compared_decides_nothing(left: Any, right: Any) -> None:
    for type in ("GreaterThan", "LessThanOrEqualTo"):
        with pytest.raises(Unresolved):
            holds([{"Type": type, "LeftValue": left, "RightValue": right}], SCOPE)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("P30d", 2592000), ("30d", 2592000), ("PT1H", 3600), ("T16m", 960), ("30dT5h", 2610000), ("P5Y", 157680000),
        ("p1w", 604800),
    ],
)  # fmt: skip
def test_lifetimes(text: str, seconds: int) -> None:
    assert lifetime(text) == seconds


@pytest.mark.parametrize("text", ["", "P", "soon", "30", "-1d", "PT", None, 5, "P1d "])
def test_what_is_no_lifetime(text: Any) -> None:
    with pytest.raises(Malformed):
        lifetime(text)


def test_the_cache_looks_at_what_counts_only() -> None:
    arguments = {"AppSpecification": {"ImageUri": "i"}, "RoleArn": "r", "ProcessingResources": {"n": 1}}
    same = {**arguments, "RoleArn": "s", "ProcessingResources": {"n": 2}}
    assert key("Processing", arguments) == key("Processing", same)
    assert key("Processing", arguments) != key("Processing", {**arguments, "Environment": {"a": "b"}})
    tuned = {"TrainingJobDefinition": {"StaticHyperParameters": {"a": "1"}, "RoleArn": "r"}}
    assert key("Tuning", tuned) == key("Tuning", {"TrainingJobDefinition": {"StaticHyperParameters": {"a": "1"}}})
    assert key("Lambda", {"a": 1}, "f") != key("Lambda", {"a": 1}, "g")


def test_policies_say_when_and_how_often() -> None:
    told = {"ExceptionType": ["SageMaker.CAPACITY_ERROR"], "IntervalSeconds": 10, "BackoffRate": 3.0, "MaxAttempts": 2}
    late = {"ExceptionType": "Step.THROTTLING", "ExpireAfterMin": 1, "IntervalSeconds": 50, "BackoffRate": 1}
    found = parse(document(step("A", RetryPolicies=[told, late]))).steps["A"].retries
    first, second = policy_for(found, "SageMaker.CAPACITY_ERROR"), policy_for(found, "Step.THROTTLING")
    assert first is not None and second is not None
    assert [first.pause(number, 0) for number in range(3)] == [10, 30, None]
    assert [second.pause(number, 50.0 * number) for number in range(2)] == [50, None]
    assert policy_for((), "Step.SERVICE_FAULT") is not None and policy_for(found, "") is None
    assert policy_for((), "SageMaker.JOB_INTERNAL_ERROR") is None


def test_parameters_are_read_as_their_type_says() -> None:
    parameters = [
        {"Name": "I", "Type": "Integer", "DefaultValue": 1},
        {"Name": "F", "Type": "Float", "DefaultValue": 1},
        {"Name": "B", "Type": "Boolean", "DefaultValue": True},
        {"Name": "S", "Type": "String", "EnumValues": ["x", "y"], "DefaultValue": "x"},
    ]
    found = parse(document(step("A"), Parameters=parameters))
    assert found.values({"I": "7", "B": "False"}, {"F": 2.5, "I": 3}) == {"I": 7, "F": 2.5, "B": False, "S": "x"}
    for wrong in (
        {"I": "1.5"},
        {"I": "1_0"},
        {"I": "9" * 19},
        {"F": "nan"},
        {"B": "yes"},
        {"S": "z"},
        {"X": "1"},
        {"S": "x" * 1025},
    ):
        with pytest.raises(Malformed):
            found.values(wrong, {})
