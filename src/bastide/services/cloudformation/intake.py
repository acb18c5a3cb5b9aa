"""From what a call brings to what a stack is to be: the template fetched, expanded and checked, the parameters resolved.

All of it happens before anything is written; what is wrong is refused here, before anything is made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import orjson

from bastide.domain import Refused, tag_map
from bastide.engines import templates
from bastide.engines.templates import Scope, Template, parameters, text
from bastide.kernel import Authorised, Calls
from bastide.kernel.address import Address
from bastide.services.cloudformation import serverless
from bastide.services.cloudformation.acting import Actor, as_role, principal
from bastide.services.cloudformation.fetching import fetched, located, template_at
from bastide.services.cloudformation.macros import Macros, Untransformed
from bastide.services.cloudformation.record import EXPORT, STACK, State
from bastide.services.cloudformation.types import TYPES, is_custom, known

IAM: Final = "CAPABILITY_IAM"
NAMED: Final = "CAPABILITY_NAMED_IAM"
EXPAND: Final = "CAPABILITY_AUTO_EXPAND"
_REFUSED: Final = (
    "DeploymentConfig",
    "DisableValidation",
    "DeploymentMode",
    "ImportExistingResources",
)
_EXISTING: Final = {
    "AWS::EC2::VPC::Id": ("DescribeVpcs", "VpcIds"),
    "AWS::EC2::Subnet::Id": ("DescribeSubnets", "SubnetIds"),
    "AWS::EC2::SecurityGroup::Id": ("DescribeSecurityGroups", "GroupIds"),
    "AWS::EC2::SecurityGroup::GroupName": ("DescribeSecurityGroups", "GroupNames"),
    "AWS::EC2::AvailabilityZone::Name": ("DescribeAvailabilityZones", "ZoneNames"),
}


def actor_of(a: Authorised, arn: str) -> Actor:
    """Whoever asked, acting for a stack."""
    return Actor(a.calls, principal(a.caller), account=a.account, region=a.region, arn=arn)


def pseudo(account: str, region: str, arn: str, name: str, notifications: list[str]) -> dict[str, Any]:
    """Values of the pseudo parameters."""
    return {
        "AWS::AccountId": account,
        "AWS::Region": region,
        "AWS::Partition": "aws",
        "AWS::URLSuffix": "amazonaws.com",
        "AWS::StackId": arn,
        "AWS::StackName": name,
        "AWS::NotificationARNs": notifications,
    }


def refuse_idle(input: Mapping[str, Any]) -> None:
    """Raises Refused for members that would have no effect."""
    for name in _REFUSED:
        if input.get(name) and input[name] != "STANDARD":
            raise Refused("ValidationError", f"{name} is not supported by Bastide yet; please leave it out.")
    rollback = input.get("RollbackConfiguration") or {}
    if rollback.get("RollbackTriggers") or rollback.get("MonitoringTimeInMinutes"):
        raise Refused(
            "ValidationError", "RollbackConfiguration: there are no rollback triggers here; please leave it out."
        )


async def body_of(
    actor: Actor,
    input: Mapping[str, Any],
    earlier: State | None,
    hosts: tuple[str, ...],
    *,
    most: int = templates.MOST_INLINE,
) -> str:
    """The template's text; raises Refused if it is given twice, not at all, or with more than `most` bytes."""
    given = [name for name in ("TemplateBody", "TemplateURL") if input.get(name)]
    if input.get("UsePreviousTemplate"):
        given.append("UsePreviousTemplate")
    if len(given) != 1:
        raise Refused(
            "ValidationError",
            "Either Template URL or Template Body must be specified."
            if not given
            else f"Only one of {' and '.join(given)} may be given.",
        )
    if given == ["UsePreviousTemplate"]:
        if earlier is None:
            raise Refused("ValidationError", "UsePreviousTemplate: there is no previous template.")
        return earlier.body
    if given == ["TemplateURL"]:
        return await template_at(actor, input["TemplateURL"], hosts)
    body = str(input["TemplateBody"])
    if len(body.encode()) > most:
        raise Refused(
            "ValidationError",
            "1 validation error detected: Value at 'templateBody' failed to satisfy constraint: "
            "Member must have length less "
            f"than or equal to {most}",
        )
    return body


def told_parameters(input: Mapping[str, Any]) -> dict[str, str | None]:
    """The parameters that a call brings; None stands for the earlier value."""
    found: dict[str, str | None] = {}
    for one in input.get("Parameters") or ():
        key = one.get("ParameterKey")
        if not key:
            raise Refused("ValidationError", "A parameter needs a ParameterKey.")
        if key in found:
            raise Refused("ValidationError", f"The parameter {key} is given twice.")
        if one.get("UsePreviousValue"):
            if one.get("ParameterValue") is not None:
                raise Refused(
                    "ValidationError",
                    f"Invalid input for parameter key {key}. Cannot specify usePreviousValue as true and "
                    "non empty value for a parameter",
                )
            found[key] = None
        else:
            found[key] = one.get("ParameterValue") or ""
    return found


async def intake(
    a: Authorised,
    input: Mapping[str, Any],
    *,
    arn: str,
    name: str,
    role: str,
    earlier: State | None = None,
    reviewed: bool = False,
) -> State:
    """The state that a call asks for; raises Refused. reviewed: a change set shows what macros make of a template."""
    refuse_idle(input)
    actor = actor_of(a, arn)
    hosts = a.engine(Address).hosts
    most = templates.MOST_BYTES if a.call.prepared is templates.STORED else templates.MOST_INLINE
    body = await body_of(actor, input, earlier, hosts, most=most)
    if role:
        acting = Actor(a.calls, as_role(role), account=a.account, region=a.region, arn=arn)
        await acting.caller()
    else:
        acting = actor
    notifications = input.get("NotificationARNs")
    if notifications is None:
        notifications = earlier.notifications if earlier is not None else []
    if notifications and ("sns", "Publish") not in a.calls.registry.operations:
        raise Refused("ValidationError", "NotificationARNs: there are no topics here yet; please leave it out.")
    tags = tag_map(input["Tags"], code="ValidationError") if input.get("Tags") is not None else None
    if tags is None:
        tags = dict(earlier.tags) if earlier is not None else {}
    if len(tags) > 50:
        raise Refused("ValidationError", "A stack may have at most 50 tags.")
    fixed = pseudo(a.account, a.region, arn, name, list(notifications))
    told = told_parameters(input)
    capabilities = list(input.get("Capabilities") or ())
    template, given, values, stored = await expanded(
        actor, body, told, fixed, hosts, acting=acting, earlier=earlier, expand=reviewed or EXPAND in capabilities
    )
    check_capabilities(template, body, capabilities, reviewed=reviewed)
    check_types(a.calls, template, input.get("ResourceTypes"))
    await check(a.calls, actor, template, {**fixed, **values}, account=a.account, region=a.region)
    return State(
        body=body,
        processed=orjson.dumps(template.raw).decode(),
        parameters=given,
        values=values,
        stored=stored,
        hidden=sorted(parameters.hidden(template.parameters)),
        tags=tags,
        capabilities=capabilities,
        notifications=list(notifications),
        role=role,
        description=template.description,
    )


async def expanded(
    actor: Actor,
    body: str,
    told: Mapping[str, str | None],
    fixed: Mapping[str, Any],
    hosts: tuple[str, ...],
    *,
    acting: Actor,
    earlier: State | None = None,
    expand: bool = False,
) -> tuple[Template, dict[str, str], dict[str, Any], dict[str, str]]:
    """A template after its transforms; its parameters as given, as resolved, and what was stored of them. actor: who asks
    for the stack, whose own eyes parameters are looked up with. acting: who makes it, and runs its transforms. expand:
    whether macros may change it unseen."""
    raw = await asyncio.to_thread(templates.read, body)
    transforms = templates.transforms_of(raw)
    declared = raw.get("Parameters") or {}
    parameters.check_declared(declared)
    given = parameters.given(declared, told, earlier.parameters if earlier is not None else None)
    values, stored = await resolved(actor, declared, given)
    used = templates.macros.used(raw)
    if used and not expand:
        raise Refused("InsufficientCapabilitiesException", f"Requires capabilities : [{EXPAND}]")
    scope = _scope(raw, {**fixed, **values}, extended=templates.EXTENSIONS in transforms)
    pieces: dict[str, Any] = {}
    for location in templates.includes.locations(raw, scope):
        try:
            held = await fetched(acting, *located(location, hosts))
        except Refused as refused:
            raise Untransformed(f"Transform {templates.INCLUDE} failed with: {refused.message}") from None
        pieces[location] = templates.parse(held.decode("utf-8", "replace"))
    if pieces or templates.INCLUDE in transforms:
        raw = templates.includes.included(raw, scope, pieces)
        scope = _scope(raw, {**fixed, **values}, extended=templates.EXTENSIONS in transforms)
    if used:
        call = Macros(acting, values).call
        raw = await templates.macros.over(await templates.macros.inside(raw, scope, call), scope, call)
        again = raw.get("Parameters") or {}
        if again != declared:  # what they add has a default
            parameters.check_declared(again)
            given = parameters.given(again, {name: value for name, value in given.items() if name in again})
            values, stored = await resolved(actor, again, given)
        scope = _scope(raw, {**fixed, **values}, extended=templates.EXTENSIONS in transforms)
    if templates.EXTENSIONS in transforms:
        raw = templates.unrolled(raw, scope)
    if templates.SERVERLESS in transforms:
        raw = await asyncio.to_thread(serverless.translated, raw, {**fixed, **given}, actor.region)
    return templates.checked(raw), given, values, stored


def _scope(raw: Mapping[str, Any], values: Mapping[str, Any], *, extended: bool) -> Scope:
    def section(name: str) -> dict[str, Any]:
        found = raw.get(name)
        return found if isinstance(found, dict) else {}

    return Scope(values, mappings=section("Mappings"), conditions=section("Conditions"), extended=extended)


async def resolved(
    actor: Actor, declared: Mapping[str, Any], given: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Parameters' values: those that name parameters of Systems Manager are looked up, those that name resources must be
    there. Raises Refused."""
    values: dict[str, Any] = {}
    stored: dict[str, str] = {}
    for name, one in declared.items():
        kind = one["Type"]
        value = given[name]
        inner = parameters.stored_type(kind)
        if inner or kind == "AWS::SSM::Parameter::Name":
            held = await _parameter(actor, value)
            if inner:
                stored[name] = value = held
                parameters.check(name, {**one, "Type": inner, "AllowedPattern": None}, value)
        values[name] = parameters.split(kind, value)
        existing = parameters.existing_type(kind)
        if existing:
            await _exists(actor, name, existing, values[name])
    return values, stored


async def _parameter(actor: Actor, name: str) -> str:
    told = await actor.act("ssm", "GetParameters", {"Names": [name]})
    found = told.get("Parameters") or ()
    if not found:
        raise Refused("ValidationError", f"Unable to fetch parameters [{name}] from parameter store for this account.")
    if found[0]["Type"] == "SecureString":
        raise Refused(
            "ValidationError", f"Parameters [{name}] referenced by template have types not supported by CloudFormation."
        )
    return str(found[0]["Value"])


async def _exists(actor: Actor, name: str, kind: str, value: Any) -> None:
    wanted = value if isinstance(value, list) else [value]
    look = _EXISTING.get(kind)
    if look is None:
        raise Refused("ValidationError", f"Parameter validation failed: parameter {name}: Bastide has no {kind}.")
    if not wanted:
        return
    try:
        await actor.act("ec2", look[0], {look[1]: wanted})
    except Refused as refused:
        told = ", ".join(text(one) for one in wanted)[:256]
        why = f"Parameter validation failed: parameter value {told} for parameter name {name} does not exist"
        if "NotFound" in refused.code or "Malformed" in refused.code or refused.code.startswith("InvalidParameter"):
            raise Refused("ValidationError", why) from None
        raise Refused("ValidationError", f"{why}, or may not be looked up: {refused.message}") from None


def required_capabilities(template: Template) -> tuple[list[str], list[str]]:
    """The capabilities that a template's resources need, and the types that need them."""
    needs: set[str] = set()
    why: set[str] = set()
    for one in template.resources.values():
        held = TYPES.get(one.type)
        if held is not None and held.iam:
            why.add(one.type)
            needs.add(NAMED if held.named and held.named in one.properties else IAM)
    return ([NAMED] if NAMED in needs else [IAM] if IAM in needs else []), sorted(why)


def check_capabilities(template: Template, body: str, given: list[str], *, reviewed: bool) -> None:
    """Raises Refused("InsufficientCapabilitiesException") where something is not acknowledged."""
    needs, _ = required_capabilities(template)
    lacking = [one for one in needs if one not in given and not (one == IAM and NAMED in given)]
    if lacking:
        raise Refused("InsufficientCapabilitiesException", f"Requires capabilities : [{lacking[0]}]")
    if template.transforms and not reviewed and EXPAND not in given:
        raise Refused("InsufficientCapabilitiesException", f"Requires capabilities : [{EXPAND}]")


def check_types(calls: Calls, template: Template, allowed: list[str] | None = None) -> None:
    """Raises Refused naming every type that is not there, and those that `allowed` does not have."""
    missing = [one for one in template.types() if not known(calls, one)]
    if missing:
        raise Refused(
            "ValidationError",
            f"Template format error: Unrecognized resource types: [{', '.join(missing)}]. Bastide does not have them yet.",
        )
    if allowed is not None:
        not_allowed = [one for one in template.types() if not any(_covers(pattern, one) for pattern in allowed)]
        if not_allowed:
            raise Refused(
                "ValidationError",
                f"Resource type {not_allowed[0]} is not allowed by parameter ResourceTypes [{', '.join(allowed)}]",
            )


def _covers(pattern: str, type: str) -> bool:
    return type.startswith(pattern[:-1]) if pattern.endswith("*") else type == pattern


async def zones_of(actor: Actor, template_text: str) -> list[str]:
    """The Region's Availability Zones, if a template asks for them."""
    if "Fn::GetAZs" not in template_text:
        return []
    told = await actor.act("ec2", "DescribeAvailabilityZones", {})
    return sorted(one["ZoneName"] for one in told["AvailabilityZones"])


def importer(calls: Calls, account: str, region: str) -> Any:
    """What gives the value of an export; raises Refused for one that is not there."""

    def imported(name: str) -> str:
        with calls.store.reading() as view:
            held = view.get(EXPORT, account, region, name)
        if held is None:
            raise Refused("ValidationError", f"No export named {name} found.")
        return str(held.doc["value"])

    return imported


async def check(
    calls: Calls, actor: Actor, template: Template, values: Mapping[str, Any], *, account: str, region: str
) -> None:
    """Rules, rings, and properties as far as they are known; raises Refused with all that is wrong with a resource."""
    zones = await zones_of(actor, orjson.dumps(template.raw).decode())
    scope = template.scope(values, zones=lambda _: zones, imported=importer(calls, account, region))
    templates.rules.check(template.section("Rules"), scope)
    for name in template.section("Conditions"):
        scope.condition(name)
    template.dependencies(scope)
    templates.check_told(template, scope)
    for name, one in template.active(scope).items():
        templates.check_policies(one)
        templates.policy(one.deletion, scope, name, "DeletionPolicy", "Delete")
        templates.policy(one.replaced, scope, name, "UpdateReplacePolicy", "Delete")
        if is_custom(one.type) or not templates.schema.has_schema(one.type):
            continue
        shown = templates.preview(one.properties, scope)
        if not isinstance(shown, dict):
            continue
        _, faults = templates.schema.checked(one.type, shown)
        if faults:
            raise Refused(
                "ValidationError",
                f"Properties validation failed for resource {name} with message: [{'; '.join(faults)}]",
            )
    _check_attributes(template)


def _check_attributes(template: Template) -> None:
    """Raises Refused for an attribute that a type does not have, before anything is made."""
    for where in (*(one.properties for one in template.resources.values()), template.section("Outputs")):
        for name, attribute in templates.references(where):
            if not attribute or attribute == "?" or name not in template.resources:
                continue
            kind = template.resources[name].type
            if is_custom(kind) or kind == "AWS::CloudFormation::Stack" or not templates.schema.has_schema(kind):
                continue
            has = templates.schema.attributes(kind) | templates.schema.names(kind, "primaryIdentifier")
            has |= set(templates.schema.schema(kind).get("properties", {}))
            if attribute not in has and attribute.split(".")[0] not in has:
                raise Refused(
                    "ValidationError",
                    f"Template error: resource {name} does not support attribute type {attribute} in Fn::GetAtt",
                )


def stack_arn(account: str, region: str, name: str) -> str:
    """A stack's ARN, from its row's name."""
    return STACK.arn(account, region, name)
