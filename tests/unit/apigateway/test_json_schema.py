"""Bodies fit models as the published validator of JSON Schema says, and nobody's schema takes long."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft4Validator

from bastide.services.apigateway.json_schema import Wrong, check, fits

SMALL = st.integers(-3, 3) | st.sampled_from([0.5, 2.0, "", "a", "ab", "b1"]) | st.booleans() | st.none()
VALUES = st.recursive(
    SMALL, lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from("abc"), below, max_size=3)
)
TYPES = st.sampled_from(["object", "array", "string", "number", "integer", "boolean", "null"])
LEAVES = st.fixed_dictionaries(
    {},
    optional={
        "type": TYPES | st.lists(TYPES, min_size=1, max_size=2, unique=True),
        "enum": st.lists(SMALL, min_size=1, max_size=3),
        "minimum": st.integers(-2, 2), "maximum": st.integers(-2, 2), "multipleOf": st.sampled_from([1, 2, 0.5]),
        "minLength": st.integers(0, 2), "maxLength": st.integers(0, 2), "pattern": st.sampled_from(["^a", "b$", "1", "^$"]),
        "minItems": st.integers(0, 2), "maxItems": st.integers(0, 2), "uniqueItems": st.booleans(),
        "minProperties": st.integers(0, 2), "maxProperties": st.integers(0, 2),
        "required": st.lists(st.sampled_from("abc"), min_size=1, max_size=2, unique=True),
    },
)  # fmt: skip


def _larger(below: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    named = st.dictionaries(st.sampled_from("abc"), below, max_size=2)
    several = st.lists(below, min_size=1, max_size=2)
    more = st.fixed_dictionaries(
        {},
        optional={
            "properties": named, "patternProperties": named, "additionalProperties": st.booleans() | below,
            "items": below | several, "additionalItems": st.booleans() | below,
            "allOf": several, "anyOf": several, "oneOf": several, "not": below,
        },
    )  # fmt: skip
    return st.builds(lambda one, other: {**one, **other}, LEAVES, more)


@given(VALUES, st.recursive(LEAVES, _larger, max_leaves=6))
def test_it_says_what_the_published_validator_says(value: Any, schema: dict[str, Any]) -> None:
    check(schema)
    whole = {**schema, "exclusiveMinimum": False} if "minimum" in schema else schema
    assert fits(value, whole, {}) == Draft4Validator(whole).is_valid(value)


@given(
    st.sampled_from(["^a|b$", "a|b", "a\\$", "a\\\\$", "^(a|b)c$", "[|]a", "[^|]$", "^", "a.b", "", "^$|c", "\\||^b"]),
    st.text("abc|$\\\n", max_size=4).filter(lambda one: not one.endswith("\n")),  # where Python's $ is not the end
)
def test_a_pattern_matches_anywhere(pattern: str, text: str) -> None:
    assert fits(text, {"pattern": pattern}, {}) == Draft4Validator({"pattern": pattern}).is_valid(text)


def test_models_refer_to_each_other_and_to_themselves() -> None:
    place = "https://apigateway.amazonaws.com/restapis/abc/models"
    tree = {"type": "object", "properties": {"below": {"type": "array", "items": {"$ref": f"{place}/Tree"}}}}
    models = {"Tree": tree}
    assert fits({"below": [{"below": []}]}, {"$ref": f"{place}/Tree"}, models)
    assert not fits({"below": [{"below": 1}]}, {"$ref": f"{place}/Tree"}, models)
    assert not fits({}, {"$ref": f"{place}/Nobody"}, models)
    local = {"definitions": {"a": {"type": "string", "nullable": True}}, "$ref": "#/definitions/a"}
    assert fits("x", local, {}) and fits(None, local, {}) and not fits(1, local, {})


def test_what_would_take_for_ever_ends() -> None:
    ring = {"definitions": {"a": {"$ref": "#/definitions/a"}}, "$ref": "#/definitions/a"}
    wide: dict[str, Any] = {
        f"m{number}": {"allOf": [{"$ref": f"#/definitions/m{number + 1}"}] * 2} for number in range(60)
    }
    bomb = {"definitions": wide, "$ref": "#/definitions/m0"}
    began = time.process_time()
    assert not fits(1, ring, {}) and not fits(1, bomb, {})
    assert time.process_time() - began < 20  # and not the two to the sixtieth


@pytest.mark.parametrize(
    "schema",
    [
        [],
        {"type": "thing"},
        {"items": {"type": 7}},
        {"pattern": "("},
        {"pattern": "a)|(b"},
        {"properties": []},
        {"$ref": "http://x"},
    ],
)
def test_what_is_no_schema_is_refused(schema: Any) -> None:
    with pytest.raises(Wrong):
        check(schema)
