"""Tag policies: checked when written, merged down the tree, and what they enforce.

Source: Organizations User Guide, "Tag policy syntax", "Inheritance operators", "Understanding management policy
inheritance". What the guide leaves open is decided here: policies of one node are taken in the order they were attached,
and of two that assign a value on the same node the first counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bastide.domain import Refused

_CONTROL: Final = "@@operators_allowed_for_child_policies"
_SETTING: Final = ("@@assign", "@@append", "@@remove")
_FEATURES: Final = {"tag_key": False, "tag_value": True, "enforced_for": True, "report_required_tag_for": True}
"""The settings of a key, and whether they are lists."""
_TYPE: Final = re.compile(r"[a-z0-9-]+:(\*|[A-Za-z0-9*/-]+)")


# -- writing ---------------------------------------------------------------------------------------------------------


def check(text: str) -> None:
    """Raises Refused (MalformedPolicyDocumentException) for what is no tag policy."""
    try:
        document = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise _malformed("It is not JSON.") from None
    tags = _object(document, "the policy")
    if set(tags) != {"tags"}:
        raise _malformed("A tag policy has the one element tags.")
    keys = _object(tags["tags"], "tags")
    _controlled(keys, "tags")
    lower: set[str] = set()
    for key, settings in keys.items():
        if key == _CONTROL:
            continue
        if key.startswith("@@") or not 1 <= len(key) <= 128:
            raise _malformed(f"tags has no element {key[:128]}.")
        if key.lower() in lower:
            raise _malformed(f"The policy key {key} is there twice.")
        lower.add(key.lower())
        _settings(key, _object(settings, key))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an element is there twice")
    return found


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _malformed(f"{place} is not an object.")
    return value


def _settings(key: str, settings: dict[str, Any]) -> None:
    _controlled(settings, key)
    for name, value in settings.items():
        if name == _CONTROL:
            continue
        if name not in _FEATURES:
            raise _malformed(f"{key} has no element {name[:128]}.")
        place = f"{key}.{name}"
        operators = _object(value, place)
        _controlled(operators, place)
        for operator, given in operators.items():
            if operator == _CONTROL:
                continue
            many = _FEATURES[name]
            if operator not in (_SETTING if many else _SETTING[:1]):
                raise _malformed(f"{place} has no operator {operator[:128]}.")
            texts = given if isinstance(given, list) and many else [given]
            if not all(isinstance(one, str) for one in texts):
                raise _malformed(f"{place}.{operator} is not {'a list of texts' if many else 'a text'}.")
            if name == "tag_key" and given.lower() != key.lower():
                raise _malformed(f"{place} differs from the policy key in more than case.")
            if name == "tag_value" and any(one.count("*") > 1 for one in texts):
                raise _malformed(f"{place} has a value with more than one wildcard.")
            if name == "enforced_for" and not all(_TYPE.fullmatch(one) for one in texts):
                raise _malformed(f"{place} has an element that is no resource type.")


def _controlled(node: dict[str, Any], place: str) -> None:
    allowed = {"@@all", "@@none", *_SETTING}
    given = node.get(_CONTROL, ["@@all"])
    if not isinstance(given, list) or not given or not all(isinstance(one, str) and one in allowed for one in given):
        raise _malformed(f"{place}.{_CONTROL} is not a list of operators.")


def _malformed(fault: str) -> Refused:
    return Refused(
        "MalformedPolicyDocumentException",
        f"The provided policy document does not meet the requirements of the specified policy type. {fault}",
    )


# -- inheriting ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Node:
    """A node of the tree of settings, as far as it is inherited. allowed: operators that policies below may use."""

    allowed: frozenset[str]
    value: Any
    below: dict[str, _Node]
    assigned: int = -1
    """The level that assigned the value last."""
    name: str = ""


_ALL: Final = frozenset(_SETTING)


def merged(levels: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """The effective policy of checked policies, a list a level, root first: keys in lower case, values without
    operators; empty if nothing is set."""
    top = _Node(_ALL, None, {})
    for level, policies in enumerate(levels):
        # What policies of one level allow those below binds from the next level on.
        before = _allowed(top)
        for policy in policies:
            _apply(top, policy["tags"], level, before, ())
    keys = {key: _plain(node) for key, node in top.below.items()}
    known = {key: settings for key, settings in keys.items() if settings}
    return {"tags": known} if known else {}


def _allowed(node: _Node, place: tuple[str, ...] = ()) -> dict[tuple[str, ...], frozenset[str]]:
    found = {place: node.allowed}
    for name, below in node.below.items():
        found |= _allowed(below, (*place, name))
    return found


def _apply(
    node: _Node,
    given: dict[str, Any],
    level: int,
    before: dict[tuple[str, ...], frozenset[str]],
    place: tuple[str, ...],
) -> None:
    may = before.get(place, _ALL)
    for name, value in given.items():
        if name == _CONTROL:
            node.allowed &= _operators(value) & may
        elif name in _SETTING:
            if name in may:
                _set(node, name, value, level)
        else:
            key = name if len(place) == 1 else name.lower()
            if key not in node.below:
                if (*place, key) not in before and not may:
                    continue  # @@none: nothing may be added below
                node.below[key] = _Node(_ALL, None, {}, name=name)
            _apply(node.below[key], value, level, before, (*place, key))


def _operators(given: list[str]) -> frozenset[str]:
    if "@@none" in given:
        return frozenset()
    return _ALL if "@@all" in given else frozenset(given)


def _set(node: _Node, operator: str, value: Any, level: int) -> None:
    if operator == "@@assign":
        if node.assigned < level:
            node.value, node.assigned = (list(value) if isinstance(value, list) else value), level
        return
    given = value if isinstance(value, list) else [value]
    held = node.value if isinstance(node.value, list) else []
    if operator == "@@append":
        node.value = [*held, *(one for one in dict.fromkeys(given) if one not in held)]
    else:
        node.value = [one for one in held if one not in given]


def _plain(node: _Node) -> dict[str, Any]:
    found = {name: below.value for name, below in node.below.items() if below.value not in (None, [])}
    if node.below and "tag_key" not in found:
        found["tag_key"] = node.name.lower()
    return found


# -- enforcing -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rule:
    """How a tag must be written on resources of some types. values: None for any."""

    key: str
    values: tuple[re.Pattern[str], ...] | None
    types: frozenset[str]


def rules(effective: dict[str, Any]) -> dict[str, Rule]:
    """The rules of an effective policy, by the key in lower case; without types where nothing is enforced."""
    found: dict[str, Rule] = {}
    for key, settings in effective.get("tags", {}).items():
        values = settings.get("tag_value")
        patterns = None if values is None else tuple(_pattern(one) for one in values)
        types = frozenset(one.lower() for one in settings.get("enforced_for", ()))
        found[key] = Rule(settings["tag_key"], patterns, types)
    return found


def _pattern(value: str) -> re.Pattern[str]:
    head, star, tail = value.partition("*")
    return re.compile(re.escape(head) + (".*" if star else "") + re.escape(tail), re.DOTALL)


def forbids(rules: Mapping[str, Rule], type: str, key: str, value: str) -> bool:
    """Whether a rule that is enforced forbids the tag on resources of the type."""
    rule = rules.get(key.lower())
    if rule is None or not (type in rule.types or f"{type.partition(':')[0]}:*" in rule.types):
        return False
    return key != rule.key or not _fits(rule, value)


def _fits(rule: Rule, value: str) -> bool:
    return rule.values is None or any(one.fullmatch(value) for one in rule.values)


def faults(rules: Mapping[str, Rule], tags: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Keys of the wrong case, and keys with a wrong value."""
    keys: list[str] = []
    values: list[str] = []
    for key, value in tags.items():
        rule = rules.get(key.lower())
        if rule is None:
            continue
        if key != rule.key:
            keys.append(key)
        if not _fits(rule, value):
            values.append(key)
    return keys, values
