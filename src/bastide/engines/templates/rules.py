"""Rules: assertions about parameters that must hold before anything is made.

Source: CloudFormation User Guide, "CloudFormation template Rules syntax".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bastide.engines.templates.functions import Scope, text, truth
from bastide.engines.templates.reading import refused


def check_declared(rules: Any) -> None:
    """Raises Refused for a Rules section that is none."""
    if not isinstance(rules, dict):
        raise refused("Template format error: Rules must be a mapping.")
    for name, rule in rules.items():
        if not isinstance(rule, dict) or set(rule) - {"RuleCondition", "Assertions"}:
            raise refused(
                f"Template format error: the rule {name[:64]} has a RuleCondition and Assertions, nothing else."
            )
        assertions = rule.get("Assertions")
        if not isinstance(assertions, list) or not assertions:
            raise refused(f"Template format error: the rule {name[:64]} needs Assertions.")
        for one in assertions:
            if not isinstance(one, dict) or "Assert" not in one:
                raise refused(f"Template format error: an assertion of the rule {name[:64]} needs an Assert.")


def check(rules: Mapping[str, Any], scope: Scope) -> None:
    """Raises Refused with the words of every assertion that does not hold."""
    broken: list[str] = []
    for name, rule in rules.items():
        if "RuleCondition" in rule and not truth(rule["RuleCondition"], scope):
            continue
        broken += [
            text(one.get("AssertDescription") or f"An assertion of the rule {name} does not hold.")
            for one in rule["Assertions"]
            if not truth(one["Assert"], scope)
        ]
    if broken:
        raise refused(f"Template constraint violation: {' '.join(broken)}")
