"""AWS Config's types: rules of one's own."""

from __future__ import annotations

import json
from typing import Any, Final

from bastide.services.cloudformation.resource import Resource, Type
from bastide.services.cloudformation.types.regular import calls_of

_MEMBERS: Final = ("Description", "Scope", "Source", "MaximumExecutionFrequency", "EvaluationModes")


async def _put(r: Resource, name: str, key: str) -> None:
    rule: dict[str, Any] = {member: r.get(member) for member in _MEMBERS if r.get(member) is not None}
    given = r.get("InputParameters")
    if given is not None:
        rule["InputParameters"] = given if isinstance(given, str) else json.dumps(given)
    await r.do("PutConfigRule", {"ConfigRule": {**rule, "ConfigRuleName": name}}, key=key)
    [held] = (await r.read("DescribeConfigRules", {"ConfigRuleNames": [name]}))["ConfigRules"]
    r.thing.physical = name
    r.thing.attributes = {"Arn": held["ConfigRuleArn"], "ConfigRuleId": held["ConfigRuleId"]}


async def _create(r: Resource) -> None:
    await _put(r, r.name(128, given=r.get("ConfigRuleName")), "create")


async def _update(r: Resource) -> None:
    await _put(r, r.physical, "update")


async def _delete(r: Resource) -> None:
    await r.drop("DeleteConfigRule", {"ConfigRuleName": r.physical})


TYPES: Final = (
    Type(
        "AWS::Config::ConfigRule", "config", _create, _delete, _update, None,
        calls_of("config", ["PutConfigRule", "DescribeConfigRules", "DeleteConfigRule"]),
        frozenset({"ConfigRuleName"}), named="ConfigRuleName",
    ),
)  # fmt: skip
"""AWS Config's types."""
