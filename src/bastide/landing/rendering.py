"""A blueprint as CloudFormation templates: what is deployed where, and in which order.

A template's parameters are outputs of stacks of earlier phases, under the same names, and what `applying.facts` finds out:
account ids, the organisation's id and root, the instance of Identity Center. So a template depends on the blueprint alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from bastide.engines.templates import read
from bastide.landing import catalog, delivery, imagery, network, pipelines, premises, resources, transit
from bastide.landing.blueprint import MANAGEMENT, Blueprint
from bastide.landing.guardrails import TYPES, document, packed, tag_policy
from bastide.landing.words import account_word, camel, filled, path_of, roles, sets, templated, words

Template = dict[str, Any]
INLINE: Final = 51_200
"""Bytes of a template that a request carries."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack: its account, its template, and the phase in which it is made; stacks of a phase do not need each other."""

    name: str
    account: str
    phase: int
    template: Template
    tags: Mapping[str, str] = field(default_factory=dict)
    uploads: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Objects that are to be there first, by bucket (with ``${Names}``) and key."""

    @property
    def body(self) -> str:
        """The template as it is sent."""
        return json.dumps(self.template, separators=(",", ":"))

    @property
    def parameters(self) -> tuple[str, ...]:
        """The values that it needs."""
        return tuple(self.template.get("Parameters", ()))


def rendered(blueprint: Blueprint, enrolled: Mapping[str, str] | None = None) -> list[Stack]:
    """All stacks, in the order of their phases; raises Refused for a template of the company's own that is none.

    enrolled: accounts that exist already and are not made, with their ids.
    """
    held = {name: one.id for name, one in blueprint.accounts.items() if one.id} | dict(enrolled or {})
    found = [
        _stack(blueprint, "organisation", MANAGEMENT, 0, _organisation(blueprint, held)),
        _stack(blueprint, "guardrails", MANAGEMENT, 1, _guardrails(blueprint)),
        _stack(blueprint, "baseline", MANAGEMENT, 1, _baseline(blueprint)),
    ]
    for account in blueprint.accounts:
        made = _roles(blueprint, account)
        if made["Resources"]:
            found.append(_stack(blueprint, "roles", account, 1 if account == "shared-services" else 2, made))
    for account, plan in blueprint.accounts.items():
        template = resources.foundation(blueprint, account)
        if plan.network:
            template = _joined(template, network.network(blueprint, account))
        if template["Resources"]:
            found.append(_stack(blueprint, "foundation", account, 2, template))
    for account in blueprint.accounts:
        template = _joined(_permissions(blueprint, account), resources.platform(blueprint, account))
        if template["Resources"]:
            found.append(_stack(blueprint, "platform", account, 3, template))
    if blueprint.transit:
        found.append(_stack(blueprint, "transit", transit.HUB, 2, transit.gateway(blueprint)))
        for account in transit.joined(blueprint):
            found.append(_stack(blueprint, "joint", account, 3, transit.attachment(blueprint, account)))
        found.append(_stack(blueprint, "ways", transit.HUB, 4, transit.ways(blueprint)))
    for account in blueprint.accounts:
        if premises.of(blueprint, account):
            found.append(_stack(blueprint, "premises", account, 3, premises.template(blueprint, account)))
    if "products" in blueprint.delivery:
        products = _stack(blueprint, "catalog", "shared-services", 4, catalog.portfolio(blueprint))
        found.append(replace(products, uploads=catalog.uploads(blueprint)))
        found.append(_stack(blueprint, "products", "data-science", 5, catalog.accepted(blueprint)))
    if pipelines.offered(blueprint):
        offered = _stack(blueprint, "pipelines", "shared-services", 4, pipelines.portfolio(blueprint))
        found.append(replace(offered, uploads=pipelines.uploads(blueprint)))
    template = delivery.delivery(blueprint)
    if template["Resources"]:
        found.append(_stack(blueprint, "delivery", "shared-services", 4, template))
    if "images" in blueprint.delivery:
        found.append(_stack(blueprint, "imagery", "shared-services", 4, imagery.central(blueprint)))
        for level in dict.fromkeys(one.level for one in blueprint.images):
            found.append(_stack(blueprint, f"imagery-{level}", "shared-services", 5, imagery.level(blueprint, level)))
        for team in blueprint.teams:
            if team.images:
                template = imagery.application(blueprint, team)
                found.append(_stack(blueprint, f"imagery-{team.name}", "shared-services", 5, template))
    found.append(_stack(blueprint, "trail", MANAGEMENT, 4, _trail(blueprint)))
    found.append(_stack(blueprint, "people", MANAGEMENT, 4, _people(blueprint)))
    for own in blueprint.templates:
        raw = read(own.file.read_text())
        found.append(
            Stack(f"{blueprint.name}-landing-own-{own.name}", own.account, 5, raw, tags(blueprint, own.account))
        )
    return sorted(found, key=lambda one: one.phase)


def _stack(blueprint: Blueprint, name: str, account: str, phase: int, template: Template) -> Stack:
    return Stack(f"{blueprint.name}-landing-{name}", account, phase, finished(template, name), tags(blueprint, account))


def tags(blueprint: Blueprint, account: str) -> dict[str, str]:
    """The tags of what the landing zone makes in an account."""
    known = {"data-science": "experiment", "test": "test"}
    environment = known.get(account, "production")
    if blueprint.environments and environment not in blueprint.environments:
        environment = blueprint.environments[-1]
    told = {"owner": "landing-zone", "environment": environment, "project": "landing-zone"}
    return {key: told.get(key, "landing-zone") for key in blueprint.required_tags}


def finished(template: Template, name: str) -> Template:
    """A template with its functions, and a declaration of each parameter that it refers to."""
    made = templated({key: template[key] for key in ("Resources", "Outputs") if template.get(key)})
    own = set(made["Resources"])
    wanted = sorted({one for one in _referred(made) if one not in own and not one.startswith("AWS::")})
    head: Template = {"AWSTemplateFormatVersion": "2010-09-09", "Description": f"Landing zone: {name}"}
    if wanted:
        head["Parameters"] = {one: {"Type": "String"} for one in wanted}
    return {**head, **made}


def _referred(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if set(value) == {"Ref"}:
            yield value["Ref"]
        elif set(value) == {"Fn::Sub"} and isinstance(value["Fn::Sub"], str):
            for part in value["Fn::Sub"].split("${")[1:]:
                name = part.partition("}")[0]
                if not name.startswith("!"):
                    yield name.partition(".")[0]
        else:
            for one in value.values():
                yield from _referred(one)
    elif isinstance(value, list):
        for one in value:
            yield from _referred(one)


def _joined(*templates: Template) -> Template:
    made: Template = {"Resources": {}, "Outputs": {}}
    for one in templates:
        made["Resources"] |= one.get("Resources", {})
        made["Outputs"] |= one.get("Outputs", {})
    return made


# -- the management account ------------------------------------------------------------------------------------------------


def unit_word(path: tuple[str, ...]) -> str:
    """The name under which a unit's id is known."""
    return "Unit" + "".join(camel(one) for one in path)


def _organisation(blueprint: Blueprint, enrolled: Mapping[str, str]) -> Template:
    made: Template = {"Resources": {}, "Outputs": {}}
    for path in blueprint.units:
        parent = {"Ref": unit_word(path[:-1])} if len(path) > 1 else {"Ref": "RootId"}
        made["Resources"][unit_word(path)] = {
            "Type": "AWS::Organizations::OrganizationalUnit",
            "Properties": {"Name": path[-1], "ParentId": parent},
        }
        made["Outputs"][f"{unit_word(path)}Id"] = {"Value": {"Ref": unit_word(path)}}
    for name, one in blueprint.accounts.items():
        if name in enrolled:
            continue
        made["Resources"][camel(name)] = {
            "Type": "AWS::Organizations::Account",
            "DeletionPolicy": "Retain",  # an account outlives the stack that made it; `destroy --close-accounts` closes it
            "UpdateReplacePolicy": "Retain",
            "Properties": {
                "AccountName": name,
                "Email": one.email,
                "ParentIds": [{"Ref": unit_word(one.unit)}],
                "RoleName": blueprint.deploying_role,
            },
        }
        made["Outputs"][account_word(name)] = {"Value": {"Ref": camel(name)}}
    return made


def _guardrails(blueprint: Blueprint) -> Template:
    made: Template = {"Resources": {}}
    for one in packed(blueprint):
        made["Resources"][camel(one.name)] = {
            "Type": "AWS::Organizations::Policy",
            "Properties": {
                "Name": one.name,
                "Description": one.title[:512],
                "Type": TYPES[one.type],
                "Content": one.document,
                "TargetIds": [{"Ref": f"{unit_word(path)}Id"} for path in one.units],
            },
        }
    made["Resources"]["Tags"] = {
        "Type": "AWS::Organizations::Policy",
        "Properties": {
            "Name": f"{blueprint.name}-tags",
            "Description": "How tags are spelt",
            "Type": "TAG_POLICY",
            "Content": tag_policy(blueprint),
            "TargetIds": [{"Ref": f"{unit_word(path)}Id"} for path in blueprint.units if len(path) == 1],
        },
    }
    return made


def _baseline(blueprint: Blueprint) -> Template:
    """A stack set: every account of the units gets the baseline when it comes, and loses it when it goes."""
    told = {
        "regions": ",".join(blueprint.regions),
        "tags": ",".join(blueprint.required_tags),
        **{f"instances/{kind}": ",".join(one) for kind, one in blueprint.instances.items()},
    }
    inner: Template = {
        "Resources": {
            camel(f"told-{key}"): {
                "Type": "AWS::SSM::Parameter",
                "Properties": {"Name": f"/{blueprint.name}/{key}", "Type": "String", "Value": value},
            }
            for key, value in told.items()
        }
    }
    inner["Resources"]["SecurityLog"] = {
        "Type": "AWS::Logs::LogGroup",
        "DeletionPolicy": "Delete",
        "UpdateReplacePolicy": "Delete",
        "Properties": {"LogGroupName": f"/{blueprint.name}/security", "RetentionInDays": 365},
    }
    units = [{"Ref": f"{unit_word(path)}Id"} for path in blueprint.units if len(path) == 1]
    return {
        "Resources": {
            "Baseline": {
                "Type": "AWS::CloudFormation::StackSet",
                "Properties": {
                    "StackSetName": f"{blueprint.name}-landing-baseline",
                    "Description": "What every account begins with",
                    "PermissionModel": "SERVICE_MANAGED",
                    "AutoDeployment": {"Enabled": True, "RetainStacksOnAccountRemoval": False},
                    "TemplateBody": json.dumps(finished(inner, "baseline"), separators=(",", ":")),
                    "OperationPreferences": {"MaxConcurrentPercentage": 100, "FailureTolerancePercentage": 0},
                    "StackInstancesGroup": [
                        {"DeploymentTargets": {"OrganizationalUnitIds": units}, "Regions": [blueprint.region]}
                    ],
                },
            }
        }
    }


def _trail(blueprint: Blueprint) -> Template:
    data = [{"Type": "AWS::S3::Object", "Values": ["arn:aws:s3"]}]
    properties = {
        "TrailName": f"{blueprint.name}-landing",
        "S3BucketName": "<LOGS>",
        "IsLogging": True,
        "IsMultiRegionTrail": True,
        "IsOrganizationTrail": True,
        "IncludeGlobalServiceEvents": True,
        "EventSelectors": [{"ReadWriteType": "All", "IncludeManagementEvents": True, "DataResources": data}],
    }
    found: Template = filled(
        {"Resources": {"Trail": {"Type": "AWS::CloudTrail::Trail", "Properties": properties}}}, words(blueprint)
    )
    return found


def _people(blueprint: Blueprint) -> Template:
    made: Template = {"Resources": {}}
    for _, name, accounts, entry in sets(blueprint):
        group, logical = camel(f"group-{entry['group']}"), camel(name)
        made["Resources"][group] = {
            "Type": "AWS::IdentityStore::Group",
            "Properties": {
                "IdentityStoreId": {"Ref": "IdentityStoreId"},
                "DisplayName": entry["group"],
                "Description": f"Of {blueprint.name}'s landing zone",
            },
        }
        made["Resources"][logical] = {
            "Type": "AWS::SSO::PermissionSet",
            "Properties": {
                "InstanceArn": {"Ref": "IdentityCenterArn"},
                "Name": name,
                "Description": entry["says"][:700],
                "SessionDuration": "PT4H",
                "InlinePolicy": document(entry["statements"]),
            },
        }
        for account in accounts:
            made["Resources"][f"{logical}In{camel(account)}"] = {
                "Type": "AWS::SSO::Assignment",
                "Properties": {
                    "InstanceArn": {"Ref": "IdentityCenterArn"},
                    "PermissionSetArn": {"Fn::GetAtt": [logical, "PermissionSetArn"]},
                    "PrincipalId": {"Fn::GetAtt": [group, "GroupId"]},
                    "PrincipalType": "GROUP",
                    "TargetId": {"Ref": account_word(account)},
                    "TargetType": "AWS_ACCOUNT",
                },
            }
    return made


# -- roles -----------------------------------------------------------------------------------------------------------------


def _trust(entry: Mapping[str, Any], account: str, blueprint: Blueprint) -> dict[str, Any]:
    """Services are trusted for calls of the role's own account; a role is trusted by its name."""
    given = entry["trust"]
    if isinstance(given, dict):  # a role that is made later: its account is named, and then the role
        where, name = f"${{{account_word(given['account'])}}}", f"/{blueprint.name}/{given['role']}"
        condition = {"ArnEquals": {"aws:PrincipalArn": f"arn:aws:iam::{where}:role{name}"}}
        principal = {"AWS": f"arn:aws:iam::{where}:root"}
        one = {"Sid": "TheRole", "Principal": principal, "Action": ["sts:AssumeRole"], "Condition": condition}
        return document([one])
    services = [given] if isinstance(given, str) else list(given)
    if not services[0].endswith(".amazonaws.com"):
        other = next(one for name, _, one in roles(blueprint) if name == services[0])
        home = account_word(other["account"])
        arn = f"arn:aws:iam::${{{home}}}:role{path_of(other, blueprint)}{other.get('name', services[0])}"
        statement: dict[str, Any] = {"Sid": "TheRoleBefore", "Principal": {"AWS": arn}, "Action": ["sts:AssumeRole"]}
    else:
        statement = {
            "Sid": "TheService",
            "Principal": {"Service": services if len(services) > 1 else services[0]},
            "Action": ["sts:AssumeRole"],
            "Condition": {"StringEquals": {"aws:SourceAccount": f"${{{account_word(account)}}}"}},
        }
    return document([statement])


def _roles(blueprint: Blueprint, account: str) -> Template:
    made: Template = {"Resources": {}}
    for name, where, entry in roles(blueprint):
        if where == account:
            made["Resources"][name] = {
                "Type": "AWS::IAM::Role",
                "Properties": {
                    "RoleName": entry.get("name", name),
                    "Path": path_of(entry, blueprint),
                    "Description": entry["says"],
                    "AssumeRolePolicyDocument": _trust(entry, account, blueprint),
                },
            }
    return made


def _permissions(blueprint: Blueprint, account: str) -> Template:
    """The roles' policies: they name keys, so they come after them."""
    made: Template = {"Resources": {}}
    for name, where, entry in roles(blueprint):
        if where == account:
            made["Resources"][f"{name}Policy"] = {
                "Type": "AWS::IAM::RolePolicy",
                "Properties": {
                    "RoleName": entry.get("name", name),
                    "PolicyName": "part",
                    "PolicyDocument": document(entry["statements"]),
                },
            }
    return made
