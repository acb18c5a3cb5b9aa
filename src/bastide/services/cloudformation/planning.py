"""What an operation would change, before it does: the changes of a change set.

Source: CloudFormation API Reference, "ResourceChange", "ResourceChangeDetail"; what AWS answered to others, where that says
less.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from bastide.engines import templates
from bastide.engines.templates import LATER, Declared, schema
from bastide.services.cloudformation import record
from bastide.services.cloudformation.changes import changed, replacing
from bastide.services.cloudformation.deployment import Deployment
from bastide.services.cloudformation.record import Held
from bastide.services.cloudformation.resource import Thing
from bastide.services.cloudformation.types import is_custom

Change = dict[str, Any]
UNKNOWN: Final = "{{changeSet:KNOWN_AFTER_APPLY}}"
"""Stands for what only the execution will tell."""
_ABOUT: Final = ("DeletionPolicy", "Metadata", "UpdateReplacePolicy")
"""Attributes of a resource that are compared as they are written."""


class Plan:
    """What was, what is to be, and what is found to change on the way."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.found: dict[str, Change] = {}
        self.contexts: dict[str, dict[str, Any]] = {}
        """What resources were (``before``) and will be (``after``), as far as it is known."""
        earlier = record.state_of(deployment.calls, deployment.row) if "state" in deployment.row.doc else None
        self.before: Mapping[str, Any] = orjson.loads(earlier.processed).get("Resources") or {} if earlier else {}
        given = earlier.parameters if earlier else {}
        self.parameters = {
            name for name, value in deployment.state.parameters.items() if name in given and given[name] != value
        }
        self.hidden = [
            value
            for state in (earlier, deployment.state)
            if state is not None
            for name in state.hidden
            if (value := state.parameters.get(name))
        ]

    def replaced(self, name: str) -> str:
        """Whether a resource is another one afterwards: True, Conditional, or False."""
        one = self.found.get(name)
        if one is None:
            return "False"
        return "True" if one["Action"] == "Add" else str(one.get("Replacement") or "False")

    def shown(self, value: Any) -> Any:
        """A value as people may see it."""
        if value is LATER:
            return UNKNOWN
        if isinstance(value, dict):
            return {name: self.shown(one) for name, one in value.items()}
        if isinstance(value, list):
            return [self.shown(one) for one in value]
        if isinstance(value, str):
            for secret in self.hidden:
                value = value.replace(secret, templates.parameters.HIDDEN)
        return value


def changes(deployment: Deployment) -> Plan:
    """The changes, in the order in which they would happen; raises Refused for a template that does not fit."""
    plan = Plan(deployment)
    scope = deployment.scope()
    declared = deployment.template.active(scope)
    needs = deployment.template.dependencies(scope)

    def reference(name: str) -> Any:
        if plan.replaced(name) != "False":
            raise templates.Unknown
        return deployment.scope_reference(name)

    def attribute(name: str, member: str) -> Any:
        if plan.replaced(name) != "False":
            raise templates.Unknown
        return deployment.scope_attribute(name, member)

    scope.reference, scope.attribute = reference, attribute
    for name in _order(needs):
        one = _change(plan, declared[name], scope)
        if one is not None:
            plan.found[name] = one
    for name, held in deployment.held.items():
        if name not in declared and held.now is not None:
            kept = held.doc.get("deletion") in ("Retain", "RetainExceptOnCreate")
            plan.found[name] = {
                "Action": "Remove",
                "LogicalResourceId": name,
                "PhysicalResourceId": held.now.physical,
                "ResourceType": held.now.type,
                "PolicyAction": "Retain" if kept else "Delete",
                "Scope": [],
                "Details": [],
            }
            plan.contexts[name] = {"before": {"Properties": plan.shown(held.now.properties)}}
    return plan


def _order(needs: dict[str, set[str]]) -> list[str]:
    left = {name: set(needed) for name, needed in needs.items()}
    found: list[str] = []
    while left:
        free = sorted(name for name, needed in left.items() if not needed)
        found += free
        for name in free:
            del left[name]
        for needed in left.values():
            needed.difference_update(free)
    return found


def _change(plan: Plan, declared: Declared, scope: templates.Scope) -> Change | None:
    deployment, name = plan.deployment, declared.name
    held = deployment.held.get(name)
    shown = templates.preview(declared.properties, scope)
    properties = dict(shown) if isinstance(shown, dict) else {}
    if not is_custom(declared.type) and schema.has_schema(declared.type):
        properties, _ = schema.checked(declared.type, properties)
        deployment.inherit_tags(declared.type, properties)
    base: Change = {"LogicalResourceId": name, "ResourceType": declared.type}
    after = {"Properties": plan.shown(properties)}
    if held is None or held.now is None:
        plan.contexts[name] = {"after": after}
        return {**base, "Action": "Add", "Scope": [], "Details": []}
    details = [*_of_properties(plan, held, declared, properties), *_of_itself(plan, declared)]
    other = held.now.type != declared.type
    if not details and not other:
        return None
    plan.contexts[name] = {"before": {"Properties": plan.shown(held.now.properties)}, "after": after}
    needs = {(one["Target"]["RequiresRecreation"], one["Evaluation"]) for one in details}
    if other or ("Always", "Static") in needs:
        replacement = "True"
    else:
        replacement = "Conditional" if any(need == "Always" for need, _ in needs) else "False"
    found: Change = {
        **base,
        "Action": "Modify",
        "PhysicalResourceId": held.now.physical,
        "Replacement": replacement,
        "Scope": sorted({one["Target"]["Attribute"] for one in details}),
        "Details": details,
    }
    if replacement == "True":
        kept = templates.policy(declared.replaced, scope, name, "UpdateReplacePolicy", "Delete") == "Retain"
        found["PolicyAction"] = "ReplaceAndRetain" if kept else "ReplaceAndDelete"
    return found


def _of_properties(plan: Plan, held: Held, declared: Declared, properties: dict[str, Any]) -> Iterator[Change]:
    assert held.now is not None
    before = held.now
    wanted = Thing(declared.type, properties)
    names = changed(before.properties, properties)
    recreated = set(replacing(before, wanted)) if before.type == declared.type else set(names)
    tags = schema.tag_property(declared.type) if schema.has_schema(declared.type) else ""
    for name in sorted({*names, *declared.properties}):
        target: Change = {"Attribute": "Tags" if name == tags else "Properties", "RequiresRecreation": "Never"}
        if name != tags:
            target["Name"] = name
        if name in names:
            if name in recreated:
                target["RequiresRecreation"] = "Always"
            yield from _details(plan, declared, name, target, later=_later(properties.get(name)))
        else:
            # Of a resource that changes in place AWS does not say whether its attribute stays what it is.
            for cause in _attributes(plan, declared.properties[name]):
                yield {
                    "Target": target, "Evaluation": "Dynamic", "ChangeSource": "ResourceAttribute",
                    "CausingEntity": cause, "_only": "names",
                }  # fmt: skip


def _attributes(plan: Plan, value: Any) -> Iterator[str]:
    for other, attribute in dict.fromkeys(templates.references(value)):
        one = plan.found.get(other)
        if (
            attribute
            and one is not None
            and one["Action"] == "Modify"
            and any("_only" not in d for d in one["Details"])
        ):
            yield f"{other}.{attribute}"


def _details(plan: Plan, declared: Declared, name: str, target: Change, *, later: bool) -> Iterator[Change]:
    """Why a property changes: its text does, or a parameter or another resource that it refers to."""
    now = declared.properties.get(name)
    earlier = (plan.before.get(declared.name) or {}).get("Properties") or {}
    causes: list[Change] = []
    values_only = True
    for other, attribute in dict.fromkeys(templates.references(now)):
        if other in plan.parameters and earlier.get(name) == now:
            causes.append({"ChangeSource": "ParameterReference", "CausingEntity": other, "Evaluation": "Static"})
            values_only = False
        elif plan.replaced(other) != "False":
            causes.append(
                {
                    "ChangeSource": "ResourceAttribute" if attribute else "ResourceReference",
                    "CausingEntity": f"{other}.{attribute}" if attribute else other,
                    "Evaluation": "Static" if plan.replaced(other) == "True" else "Dynamic",
                }
            )
    for cause in causes:
        yield {"Target": target, **cause}
    if not causes or earlier.get(name) != now:
        yield {"Target": target, "Evaluation": "Dynamic" if later else "Static", "ChangeSource": "DirectModification"}
    else:
        direct = {"Target": target, "Evaluation": "Dynamic", "ChangeSource": "DirectModification"}
        yield {**direct, "_only": "values"} if values_only else direct


def _of_itself(plan: Plan, declared: Declared) -> Iterator[Change]:
    before = plan.before.get(declared.name) or {}
    now = (plan.deployment.template.raw.get("Resources") or {}).get(declared.name) or {}
    for name in _ABOUT:
        if declared.name in plan.before and before.get(name) != now.get(name):
            yield {
                "Target": {"Attribute": name, "RequiresRecreation": "Never"}, "Evaluation": "Static",
                "ChangeSource": "DirectModification",
            }  # fmt: skip


def told(change: Change, contexts: Mapping[str, Any] | None) -> Change | None:
    """A change as it is described, with the values of properties if there are contexts; None if it is not shown so."""
    skipped = "names" if contexts is not None else "values"
    kept = [one for one in change["Details"] if one.get("_only") != skipped]
    if change["Details"] and not kept:
        return None
    held = (contexts or {}).get(change["LogicalResourceId"]) or {}
    before, after = held.get("before"), held.get("after")
    details = []
    for one in kept:
        target = dict(one["Target"])
        if contexts is not None and "Name" in target:
            target |= _values(target["Name"], before or {}, after or {})
        details.append({**{name: value for name, value in one.items() if name != "_only"}, "Target": target})
    found = {**change, "Details": details, "Scope": sorted({one["Target"]["Attribute"] for one in details})}
    if before is not None:
        found["BeforeContext"] = orjson.dumps(before).decode()
    if after is not None:
        found["AfterContext"] = orjson.dumps(after).decode()
    return found


def _values(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Change:
    was, will = (one.get("Properties", {}).get(name) for one in (before, after))
    found: Change = {"Path": f"/Properties/{name}"}
    found["AttributeChangeType"] = "Add" if was is None else "Remove" if will is None else "Modify"
    for member, value in (("BeforeValue", was), ("AfterValue", will)):
        if value is not None:
            found[member] = value if isinstance(value, str) else orjson.dumps(value).decode()
    return found


def _later(value: Any) -> bool:
    here = [value]
    while here:
        one = here.pop()
        if one is LATER:
            return True
        if isinstance(one, dict):
            here += one.values()
        elif isinstance(one, list):
            here += one
    return False
