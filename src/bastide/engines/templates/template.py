"""A template, checked: its sections, its resources, what depends on what.

Source: CloudFormation User Guide, "CloudFormation template sections" and "Understand CloudFormation quotas".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bastide.engines.templates import loops, parameters, rules
from bastide.engines.templates.functions import Scope, is_scalar, resolve, text
from bastide.engines.templates.reading import no_nulls, refused
from bastide.engines.templates.references import conditions as asked_of
from bastide.engines.templates.references import references

PSEUDO: Final = (
    "AWS::AccountId", "AWS::NoValue", "AWS::NotificationARNs", "AWS::Partition", "AWS::Region", "AWS::StackId",
    "AWS::StackName", "AWS::URLSuffix",
)  # fmt: skip
EXTENSIONS: Final = "AWS::LanguageExtensions"
SERVERLESS: Final = "AWS::Serverless-2016-10-31"
INCLUDE: Final = "AWS::Include"
TRANSFORMS: Final = (EXTENSIONS, SERVERLESS, INCLUDE)
_SECTIONS: Final = frozenset(
    {
        "AWSTemplateFormatVersion", "Description", "Metadata", "Parameters", "Rules", "Mappings", "Conditions", "Transform",
        "Resources", "Outputs", "Hooks", "Globals",
    }
)  # fmt: skip
_MEMBERS: Final = frozenset(
    {
        "Type", "Properties", "DependsOn", "Condition", "Metadata", "DeletionPolicy", "UpdateReplacePolicy",
        "CreationPolicy",
        "UpdatePolicy",
    }
)  # fmt: skip
_DELETION: Final = ("Delete", "Retain", "RetainExceptOnCreate", "Snapshot")
_NAME: Final = re.compile(r"[A-Za-z0-9]{1,255}")
MOST_RESOURCES: Final = 500
MOST_OUTPUTS: Final = 200
_LONGEST_DESCRIPTION: Final = 1024
_AFTER: Final = {
    f"AWS::ServiceCatalog::{name}": ("AWS::ServiceCatalog::PortfolioProductAssociation", ("PortfolioId", "ProductId"))
    for name in (
        "LaunchNotificationConstraint", "LaunchRoleConstraint", "LaunchTemplateConstraint", "ResourceUpdateConstraint",
    )
}  # fmt: skip
"""Types that need another with the same properties to be there first. A template that does not say so stands on AWS as long
as the two, made at once, happen to come in this order; here they always do."""


@dataclass(frozen=True, slots=True)
class Declared:
    """A resource as a template declares it. condition: the name of its condition, empty without one."""

    name: str
    type: str
    properties: Mapping[str, Any]
    depends: tuple[str, ...]
    condition: str
    deletion: Any
    replaced: Any
    metadata: Any
    creation: Mapping[str, Any]
    updating: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Template:
    """A template whose form was checked; `raw` is its tree."""

    raw: dict[str, Any]
    transforms: tuple[str, ...]
    resources: dict[str, Declared] = field(default_factory=dict)

    @property
    def extended(self) -> bool:
        """Whether it uses AWS::LanguageExtensions."""
        return EXTENSIONS in self.transforms

    def section(self, name: str) -> dict[str, Any]:
        """A section that is a mapping; empty if it is not there."""
        found = self.raw.get(name)
        return found if isinstance(found, dict) else {}

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters' declarations."""
        return self.section("Parameters")

    @property
    def description(self) -> str:
        """What it says of itself."""
        return str(self.raw.get("Description") or "")

    def types(self) -> list[str]:
        """The types of its resources, each once."""
        return sorted({one.type for one in self.resources.values()})

    def scope(self, values: Mapping[str, Any], **more: Any) -> Scope:
        """What its references mean, with these values of parameters and pseudo parameters."""
        return Scope(
            values,
            mappings=self.section("Mappings"),
            conditions=self.section("Conditions"),
            resources=frozenset(self.resources),
            extended=self.extended,
            lists={name: one["Type"] for name, one in self.parameters.items()},
            **more,
        )

    def active(self, scope: Scope) -> dict[str, Declared]:
        """The resources whose condition holds."""
        return {
            name: one for name, one in self.resources.items() if not one.condition or scope.condition(one.condition)
        }

    def dependencies(self, scope: Scope) -> dict[str, set[str]]:
        """For each active resource, on which others it depends; raises Refused for a reference to one that is not there and
        for a ring."""
        active = self.active(scope)
        found: dict[str, set[str]] = {}
        for name, one in active.items():
            needed = {other for other in one.depends if other in active}
            for other, _ in references([one.properties, one.updating], scope):
                if other in active:
                    needed.add(other)
                elif other in self.resources:
                    raise unresolved([other], "Resources")
            needed_self = name in needed
            if needed_self:
                raise refused(f"Circular dependency between resources: [{name}]")
            found[name] = needed
        ring = _ring(found)
        if ring:
            raise refused(f"Circular dependency between resources: [{', '.join(ring)}]")
        return _implied(active, found)


def _implied(active: Mapping[str, Declared], needs: dict[str, set[str]]) -> dict[str, set[str]]:
    """The dependencies, with those of `_AFTER` that make no ring."""
    more = {name: set(needed) for name, needed in needs.items()}
    for name, one in active.items():
        type, members = _AFTER.get(one.type, ("", ()))
        for other in active.values() if type else ():
            same = all(one.properties.get(member) == other.properties.get(member) for member in members)
            if other.type == type and same:
                more[name].add(other.name)
    return needs if _ring(more) else more


def _ring(needs: Mapping[str, set[str]]) -> list[str]:
    left = {name: set(needed) for name, needed in needs.items()}
    while True:
        free = [name for name, needed in left.items() if not needed]
        if not free:
            return sorted(left)
        for name in free:
            del left[name]
        done = set(free)
        for needed in left.values():
            needed.difference_update(done)


def unresolved(names: Iterable[str], section: str) -> Exception:
    """What AWS says of references that lead nowhere."""
    told = ", ".join(sorted(set(names)))
    return refused(
        f"Template format error: Unresolved resource dependencies [{told}] in the {section} block of the template"
    )


def transforms_of(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of a template's transforms, macros among them; raises Refused for one of AWS's that is not there."""
    given = raw.get("Transform")
    if given is None:
        return ()
    found = []
    for one in given if isinstance(given, list) else [given]:
        name = one.get("Name") if isinstance(one, dict) else one
        if not isinstance(name, str):
            raise refused("Key Name of transform definition must be a string.")
        if name not in TRANSFORMS and name.startswith("AWS::"):
            raise refused(f"No transform named {name[:128]} found.")
        found.append(name)
    return tuple(found)


def checked(raw: dict[str, Any]) -> Template:
    """A template of a tree; raises Refused for what its form forbids. Loops and transforms that change the tree have been
    done before, except where only parameters are looked at."""
    no_nulls(raw)
    unknown = sorted(set(raw) - _SECTIONS)
    if unknown:
        raise refused(f"Invalid template property or properties [{', '.join(unknown)[:256]}]")
    version = raw.get("AWSTemplateFormatVersion")
    if version is not None and version != "2010-09-09":
        raise refused("Template format error: unsupported value for AWSTemplateFormatVersion.")
    description = raw.get("Description")
    if description is not None and (not isinstance(description, str) or len(description) > _LONGEST_DESCRIPTION):
        raise refused(
            f"Template format error: Description must be a string of at most {_LONGEST_DESCRIPTION} characters."
        )
    if raw.get("Hooks"):
        raise refused("Template format error: Hooks (blue/green deployments of ECS) are not supported by Bastide.")
    template = Template(raw, transforms_of(raw))
    parameters.check_declared(raw.get("Parameters") or {})
    rules.check_declared(raw.get("Rules") or {})
    _check_mappings(raw.get("Mappings") or {})
    conditions = raw.get("Conditions") or {}
    if not isinstance(conditions, dict):
        raise refused("Template format error: Conditions must be a mapping.")
    given = raw.get("Resources")
    if given and not (isinstance(given, dict) and all(isinstance(one, dict) for one in given.values())):
        raise refused("Template format error: Any Resources member must be an object.")
    if not given:
        raise refused("Template format error: At least one Resources member must be defined.")
    if len(given) > MOST_RESOURCES:
        raise refused(
            f"Template format error: Number of resources, {len(given)}, is greater than maximum allowed, {MOST_RESOURCES}"
        )
    for name, one in given.items():
        template.resources[name] = _resource(name, one)
    _check_references(template, conditions)
    _check_outputs(template)
    return template


def _check_mappings(given: Any) -> None:
    for name, table in given.items() if isinstance(given, dict) else ():
        if name.startswith("Fn::Transform"):
            continue
        if not isinstance(table, dict):
            raise refused(f"Template format error: Every Mappings member {name[:255]} must be a map")
        for row, cells in table.items():
            if not isinstance(cells, dict) and not row.startswith("Fn::Transform"):
                raise refused(f"Template format error: Every Mappings member {row[:255]} must be a map")
    fits = isinstance(given, dict) and all(
        isinstance(table, dict)
        and all(
            isinstance(row, dict) and all(is_scalar(cell) or isinstance(cell, list) for cell in row.values())
            for row in table.values()
        )
        for name, table in given.items()
        if not name.startswith("Fn::Transform")
    )
    if not fits:
        raise refused("Template format error: Every Mappings attribute must be a String or a List.")


def _resource(name: str, given: Any) -> Declared:
    if not _NAME.fullmatch(name):
        raise refused(f"Template format error: Resource name {name[:64]} is non alphanumeric.")
    more = sorted(set(given) - _MEMBERS)
    if more:
        raise refused(f"Invalid template resource property '{more[0][:64]}'")
    type = given.get("Type")
    if not isinstance(type, str):
        raise refused(f"Template format error: [/Resources/{name}] Every Resources object must contain a Type member.")
    properties = given.get("Properties")
    if properties is None:
        properties = {}
    if not isinstance(properties, dict):
        raise refused(f"Template format error: [/Resources/{name}/Properties] must be a mapping.")
    depends = given.get("DependsOn") or ()
    depends = (depends,) if isinstance(depends, str) else depends
    if not isinstance(depends, list | tuple) or not all(isinstance(one, str) for one in depends):
        raise refused(f"Template format error: DependsOn of {name} must be a name or a list of names.")
    condition = given.get("Condition") or ""
    if not isinstance(condition, str):
        raise refused(f"Template format error: Condition of {name} must be a name.")
    updating = given.get("UpdatePolicy") or {}
    if updating and (
        type != "AWS::Lambda::Alias"
        or not isinstance(updating, dict)
        or set(updating) != {"CodeDeployLambdaAliasUpdate"}
    ):
        raise refused(f"Template error: UpdatePolicy of {name} has no effect on {type[:64]}; please leave it out.")
    creation = given.get("CreationPolicy") or {}
    if creation and type != "AWS::CloudFormation::WaitCondition":
        raise refused(f"Template error: CreationPolicy of {name} has no effect on {type[:64]}; please leave it out.")
    return Declared(
        name, type, properties, tuple(depends), condition, given.get("DeletionPolicy"), given.get("UpdateReplacePolicy"),
        given.get("Metadata"), creation if isinstance(creation, dict) else {}, updating,
    )  # fmt: skip


def _check_references(template: Template, conditions: Mapping[str, Any]) -> None:
    for where in (*(one.properties for one in template.resources.values()), template.section("Outputs")):
        for name in asked_of(where):
            if name not in conditions:
                raise refused(f"Template error: unresolved condition dependency {name[:255]} in Fn::If")
    known = {*template.parameters, *template.resources, *PSEUDO}
    missing: set[str] = set()
    for one in template.resources.values():
        for other in one.depends:
            if other not in template.resources:
                raise unresolved([other], "Resources")
        if one.condition and one.condition not in conditions:
            raise refused(
                f"Template format error: Unresolved condition dependency {one.condition[:255]} in the Resources block of "
                "the template"
            )
        missing |= {
            name
            for name, attribute in references([one.properties, one.updating])
            if name not in known or (attribute and name not in template.resources)
        }
    if missing:
        raise unresolved(missing, "Resources")
    for definition in conditions.values():
        for name, attribute in references(definition):
            if attribute or (name not in template.parameters and name not in PSEUDO):
                raise refused(
                    f"Template format error: Unresolved dependencies [{name[:128]}]. Cannot reference resources in the "
                    "Conditions block of the template"
                )


def _check_outputs(template: Template) -> None:
    given = template.raw.get("Outputs") or {}
    if not isinstance(given, dict):
        raise refused("Template format error: Outputs must be a mapping.")
    if len(given) > MOST_OUTPUTS:
        raise refused(
            f"Template format error: Number of outputs, {len(given)}, is greater than maximum allowed, {MOST_OUTPUTS}"
        )
    known = {*template.parameters, *template.resources, *PSEUDO}
    conditions = template.section("Conditions")
    for name, one in given.items():
        if not _NAME.fullmatch(name):
            raise refused(f"Template format error: Output name {name[:64]} is non alphanumeric.")
        if not isinstance(one, dict) or "Value" not in one:
            raise refused("Template format error: Every Outputs member must contain a Value object")
        more = sorted(set(one) - {"Value", "Description", "Export", "Condition"})
        if more:
            raise refused(f"Template format error: Output {name} has an unknown member {more[0][:64]}.")
        if one.get("Condition") and one["Condition"] not in conditions:
            raise refused(
                f"Template format error: Unresolved condition {text(one['Condition'])[:128]} of the output {name}."
            )
        missing = [other for other, _ in references([one["Value"], one.get("Export")]) if other not in known]
        if missing:
            raise unresolved(missing, "Outputs")


def check_told(template: Template, scope: Scope) -> None:
    """Raises Refused for an output that refers to a resource whose condition does not hold."""
    active = template.active(scope)
    for one in template.section("Outputs").values():
        if one.get("Condition") and not scope.condition(one["Condition"]):
            continue
        missing = [
            name
            for name, _ in references([one["Value"], one.get("Export")], scope)
            if name in template.resources and name not in active
        ]
        if missing:
            told = ", ".join(sorted(set(missing)))
            raise refused(f"Unresolved resource dependencies [{told}] in the Outputs block of the template")


def policy(given: Any, scope: Scope, name: str, member: str, default: str) -> str:
    """A DeletionPolicy or UpdateReplacePolicy; raises Refused for another than AWS's, and for one that has no effect
    here."""
    if given is None:
        return default
    found = resolve(given, scope)
    if found not in _DELETION or (member == "UpdateReplacePolicy" and found == "RetainExceptOnCreate"):
        raise refused(f"Template error: unsupported {member} {text(found)[:64]} of {name}.")
    if found == "Snapshot":
        raise refused(
            f"Template error: {member} Snapshot of {name}: no type here has snapshots. Please use Delete or Retain."
        )
    return str(found)


def unrolled(raw: dict[str, Any], scope: Scope) -> dict[str, Any]:
    """The tree with the loops of AWS::LanguageExtensions written out; raises Refused."""
    found: dict[str, Any] = loops.unrolled(raw, scope)
    return found
