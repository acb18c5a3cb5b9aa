"""That the laws would notice: what is generated decides in every way, and an engine that is broken somewhere is caught."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from bastide.policy import OPERATORS, conditions, decide
from tests.laws.generated_policies import KINDS, Draw, asked, question
from tests.reference import decider
from tests.reference.decider import Question

QUESTIONS = 1500


@cache
def pool() -> list[tuple[Question, str, str]]:
    """Questions, what the reference says and their policies in one text; always the same."""
    found = []
    for seed in range(QUESTIONS):
        one = question(Draw(seed))
        found.append((one, decider.verdict(one), json.dumps(vars(one))))
    return found


def test_what_is_generated_decides_in_every_way() -> None:
    seen: Counter[Any] = Counter()
    for one, wanted, _ in pool():
        decision = decide(*asked(one))
        assert decision.verdict == wanted
        seen[decision.verdict] += 1
        seen[decision.verdict, decision.layer] += 1
        seen[one.kind, decision.allowed] += 1
        seen[one.resource_kind, decision.allowed] += 1
    for verdict in ("Allowed", "ImplicitlyDenied", "ExplicitlyDenied"):
        assert seen[verdict] > QUESTIONS / 10, seen
    layers = ("identity", "boundary", "session", "resource", "trust", "scp", "endpoint")
    for layer in layers:
        assert seen["ImplicitlyDenied", layer] >= 5, (layer, seen)
    for layer in (*layers, "rcp"):
        assert seen["ExplicitlyDenied", layer] >= 5, (layer, seen)
    for layer in ("identity", "resource", "trust"):
        assert seen["Allowed", layer] >= 5, (layer, seen)
    for kind in (*KINDS, "", "key", "trust"):
        assert seen[kind, True], (kind, seen)
        assert seen[kind, False] >= 5, (kind, seen)


@pytest.fixture
def mended() -> Iterator[None]:
    """Conditions that were compiled by a broken engine are forgotten."""
    conditions._shared.cache_clear()
    yield
    conditions._shared.cache_clear()


def noticed(pattern: str) -> bool:
    """Whether the reference contradicts the engine on a question whose policies contain the pattern."""
    found = re.compile(pattern)
    return any(found.search(text) and decide(*asked(one)).verdict != wanted for one, wanted, text in pool())


@pytest.mark.usefixtures("mended")
@pytest.mark.parametrize("operator", [name for name in OPERATORS if name != "Null"])
def test_a_broken_operator_is_noticed(operator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family, negated = conditions._FAMILIES[operator]
    monkeypatch.setitem(conditions._FAMILIES, operator, (family, not negated))
    assert noticed(f'"(For[A-Za-z]*:)?{operator}(IfExists)?"')


@pytest.mark.usefixtures("mended")
@pytest.mark.parametrize("answer", [True, False])
@pytest.mark.parametrize(
    ("name", "pattern"), [("_null", '"Null"'), ("_for_all", "ForAll"), ("_for_any", "ForAny"), ("_single", "Condition")]
)
def test_a_broken_qualifier_is_noticed(name: str, pattern: str, answer: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditions, name, lambda *_: lambda context: answer)
    assert noticed(pattern)


@pytest.mark.usefixtures("mended")
def test_what_a_missing_key_means_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = conditions._single
    monkeypatch.setattr(
        conditions, "_single", lambda name, test, negated, if_exists, deny: right(name, test, negated, False, deny)
    )
    assert noticed("IfExists")


@pytest.mark.parametrize(
    ("layer", "nothing"),
    [("identity", []), ("boundary", None), ("session", None), ("resource_policy", None), ("scps", []), ("rcps", []),
     ("endpoint", None), ("grants", []), ("resource_kind", ""), ("resource_account", None), ("role", ""), ("id", ""),
     ("canonical", "")],
)  # fmt: skip
def test_every_layer_matters(layer: str, nothing: Any) -> None:
    """A decision without one of them is now and then another one."""
    assert any(decider.verdict(replace(one, **{layer: nothing})) != wanted for one, wanted, _ in pool())
