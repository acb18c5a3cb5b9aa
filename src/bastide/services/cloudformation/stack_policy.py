"""Stack policies: which resources an update may change, replace or remove.

Source: CloudFormation User Guide, "Prevent updates to stack resources".
"""

from __future__ import annotations

import re
from fnmatch import translate
from typing import Any, Final

import orjson

from bastide.domain import Refused

_MOST: Final = 16_384
_ACTIONS: Final = ("Update:*", "Update:Modify", "Update:Replace", "Update:Delete", "*")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def checked(body: str) -> str:
    """A policy's text; raises Refused for what is none."""
    try:
        policy = orjson.loads(body)
    except orjson.JSONDecodeError:
        policy = None
    if len(body) > _MOST or not isinstance(policy, dict) or not isinstance(policy.get("Statement"), dict | list):
        raise Refused("ValidationError", "Error validating stack policy: Invalid stack policy")
    for one in _list(policy["Statement"]):
        fits = (
            isinstance(one, dict)
            and one.get("Effect") in ("Allow", "Deny")
            and ("Action" in one) != ("NotAction" in one)
            and ("Resource" in one) != ("NotResource" in one)
            and one.get("Principal") in ("*", {"AWS": "*"})
            and all(action in _ACTIONS for action in _list(one.get("Action", one.get("NotAction"))))
            and all(isinstance(name, str) for name in _list(one.get("Resource", one.get("NotResource"))))
            and isinstance(one.get("Condition", {}), dict)
            and set(one.get("Condition", {})) <= {"StringEquals", "StringLike"}
        )
        if not fits:
            raise Refused(
                "ValidationError",
                "Error validating stack policy: Invalid stack policy: a statement has an Effect, the Principal *, actions "
                "Update:Modify, Update:Replace or Update:Delete, resources LogicalResourceId/..., and conditions on "
                "ResourceType.",
            )
    return body


def _matches(pattern: str, value: str) -> bool:
    return re.fullmatch(translate(pattern.replace("[", "[[]")), value) is not None


def _applies(statement: dict[str, Any], action: str, logical: str, type: str) -> bool:
    actions = _list(statement.get("Action", statement.get("NotAction")))
    if any(_matches(one, action) for one in actions) != ("Action" in statement):
        return False
    resources = _list(statement.get("Resource", statement.get("NotResource")))
    if any(one == "*" or _matches(one, f"LogicalResourceId/{logical}") for one in resources) != (
        "Resource" in statement
    ):
        return False
    for operator, tests in statement.get("Condition", {}).items():
        for key, wanted in tests.items():
            if key != "ResourceType":
                return False
            found = any(_matches(one, type) if operator == "StringLike" else one == type for one in _list(wanted))
            if not found:
                return False
    return True


def allows(policy: dict[str, Any], action: str, logical: str, type: str) -> bool:
    """Whether an update may do so; what no statement allows is denied, and a deny wins."""
    applying = [one for one in _list(policy["Statement"]) if _applies(one, action, logical, type)]
    return bool(applying) and all(one["Effect"] == "Allow" for one in applying)
