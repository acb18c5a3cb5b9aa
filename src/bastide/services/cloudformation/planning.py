"""What an operation would change, before it does: the changes of a change set.

Source: CloudFormation API Reference, "ResourceChange".
"""

from __future__ import annotations

from typing import Any

from bastide.engines import templates
from bastide.engines.templates import LATER, Declared, schema
from bastide.services.cloudformation.changes import changed, replacing
from bastide.services.cloudformation.deployment import Deployment
from bastide.services.cloudformation.resource import Thing
from bastide.services.cloudformation.types import is_custom, type_of

Change = dict[str, Any]


def changes(deployment: Deployment) -> list[Change]:
    """The changes, in the order in which they would happen; raises Refused for a template that does not fit."""
    scope = deployment.scope()
    declared = deployment.template.active(scope)
    needs = deployment.template.dependencies(scope)
    moved: set[str] = set()

    def reference(name: str) -> Any:
        if name in moved:
            raise templates.Unknown
        return deployment.scope_reference(name)

    def attribute(name: str, member: str) -> Any:
        if name in moved:
            raise templates.Unknown
        return deployment.scope_attribute(name, member)

    scope.reference, scope.attribute = reference, attribute
    found: list[Change] = []
    for name in _order(needs):
        one = _change(deployment, declared[name], scope)
        if one is not None:
            found.append(one)
            if one["Action"] == "Add" or one.get("Replacement") != "False":
                moved.add(name)
    for name, held in deployment.held.items():
        if name not in declared and held.now is not None:
            kept = held.doc.get("deletion") in ("Retain", "RetainExceptOnCreate")
            one = {
                "Action": "Remove",
                "LogicalResourceId": name,
                "PhysicalResourceId": held.now.physical,
                "ResourceType": held.now.type,
                "PolicyAction": "Retain" if kept else "Delete",
                "Scope": [],
                "Details": [],
            }
            found.append(one)
    return found


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


def _change(deployment: Deployment, declared: Declared, scope: templates.Scope) -> Change | None:
    held = deployment.held.get(declared.name)
    shown = templates.preview(declared.properties, scope)
    properties = dict(shown) if isinstance(shown, dict) else {}
    if not is_custom(declared.type) and schema.has_schema(declared.type):
        properties, _ = schema.checked(declared.type, properties)
        deployment.inherit_tags(declared.type, properties)
    base: Change = {"LogicalResourceId": declared.name, "ResourceType": declared.type}
    if held is None or held.now is None:
        return {**base, "Action": "Add", "Scope": [], "Details": []}
    wanted = Thing(declared.type, properties)
    names = changed(held.now.properties, properties)
    if held.now.type == declared.type and not names:
        return None
    recreated = set(replacing(held.now, wanted)) if held.now.type == declared.type else set(names)
    tags = schema.tag_property(declared.type) if schema.has_schema(declared.type) else ""
    details: list[Change] = []
    for name in names:
        tagged = name == tags
        target: Change = {"Attribute": "Tags" if tagged else "Properties", "RequiresRecreation": "Never"}
        if not tagged:
            target["Name"] = name
        if name in recreated:
            target["RequiresRecreation"] = "Conditionally" if _later(properties.get(name)) else "Always"
        details.append(
            {
                "Target": target,
                "Evaluation": "Dynamic" if _later(properties.get(name)) else "Static",
                "ChangeSource": "ResourceReference" if _later(properties.get(name)) else "DirectModification",
            }
        )
    needs = [one["Target"]["RequiresRecreation"] for one in details]
    replaced = held.now.type != declared.type or type_of(declared.type).update is None or "Always" in needs
    return {
        **base,
        "Action": "Modify",
        "PhysicalResourceId": held.now.physical,
        "Replacement": "True" if replaced else "Conditional" if "Conditionally" in needs else "False",
        "Scope": sorted({one["Target"]["Attribute"] for one in details}),
        "Details": details,
    }


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
