"""Deploying a blueprint: organisation and accounts first, then stack by stack, phase by phase.

Every step finds out what is there before it does anything, so that a run that was killed is taken up by the next one, and
a second run changes nothing.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import botocore.exceptions

from bastide.landing.blueprint import MANAGEMENT, Blueprint
from bastide.landing.cloud import Cloud
from bastide.landing.proactive import violations
from bastide.landing.rendering import INLINE, Stack, rendered, unit_word
from bastide.landing.words import account_word, known

_PAUSE: Final = 0.15
_PATIENCE: Final = 900.0
_AT_ONCE: Final = 4
_TYPES: Final = ("SERVICE_CONTROL_POLICY", "RESOURCE_CONTROL_POLICY", "TAG_POLICY")
_DEAD: Final = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED", "CREATE_FAILED", "REVIEW_IN_PROGRESS")
Tell = Callable[[str, str, str], None]
"""Progress: a stack or step, its account, and what is with it."""


class Failed(Exception):  # noqa: N818
    """A step that did not succeed. The message names stack, resource and cause."""


def silent(_: str, __: str, ___: str) -> None:
    """Tells nobody."""


@dataclass(slots=True)
class Report:
    """What a run did. stacks: by name and account, "created", "updated" or "unchanged"."""

    stacks: dict[tuple[str, str], str] = field(default_factory=dict)
    accounts: dict[str, str] = field(default_factory=dict)
    enrolled: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()
    seconds: float = 0.0


# -- what is there ---------------------------------------------------------------------------------------------------------


def organisation(cloud: Cloud) -> dict[str, Any] | None:
    """The organisation, None if there is none."""
    try:
        found: dict[str, Any] = cloud.client("organizations").describe_organization()["Organization"]
    except botocore.exceptions.ClientError as error:
        if error.response["Error"]["Code"] == "AWSOrganizationsNotInUseException":
            return None
        raise
    return found


def pages(client: Any, operation: str, key: str, **asked: Any) -> Iterator[Any]:
    """All items of a listing."""
    for page in client.get_paginator(operation).paginate(**asked):
        yield from page[key]


def accounts(cloud: Cloud) -> list[dict[str, Any]]:
    """The organisation's accounts."""
    return list(pages(cloud.client("organizations"), "list_accounts", "Accounts"))


def current(client: Any, name: str) -> dict[str, Any] | None:
    """A stack, None if there is none."""
    try:
        found: dict[str, Any] = client.describe_stacks(StackName=name)["Stacks"][0]
    except botocore.exceptions.ClientError as error:
        if "does not exist" in error.response["Error"]["Message"]:
            return None
        raise
    return found


def template(client: Any, name: str) -> dict[str, Any]:
    """A stack's template, as it was sent."""
    body = client.get_template(StackName=name, TemplateStage="Original")["TemplateBody"]
    found: dict[str, Any] = json.loads(body) if isinstance(body, str) else json.loads(json.dumps(body))
    return found


def outputs(stack: Mapping[str, Any]) -> dict[str, str]:
    """A stack's outputs."""
    return {one["OutputKey"]: one["OutputValue"] for one in stack.get("Outputs", ())}


def enrolled(blueprint: Blueprint, cloud: Cloud) -> dict[str, str]:
    """Accounts of the blueprint that exist and that its organisation stack did not make, with their ids.

    Those with an id in the blueprint, and those whose address an account of the organisation has already: what an earlier
    landing zone left.
    """
    found = {name: one.id for name, one in blueprint.accounts.items() if one.id}
    held = current(cloud.client("cloudformation"), f"{blueprint.name}-landing-organisation")
    made = set(outputs(held).values()) if held is not None else set()
    if held is not None:
        told = cloud.client("cloudformation").describe_stack_resources(StackName=held["StackId"])["StackResources"]
        made |= {one.get("PhysicalResourceId", "") for one in told}
    by_mail = {one["Email"]: one["Id"] for one in accounts(cloud) if one["Status"] == "ACTIVE"}
    for name, one in blueprint.accounts.items():
        id_ = by_mail.get(one.email)
        if id_ is not None and id_ not in made:
            found[name] = id_
    return found


def facts(cloud: Cloud) -> dict[str, str]:
    """What templates need to know of the organisation and of Identity Center."""
    held = organisation(cloud)
    if held is None:
        raise Failed("there is no organisation")
    client = cloud.client("organizations")
    found = {
        "OrganizationId": held["Id"],
        "ManagementAccount": held["MasterAccountId"],
        "RootId": client.list_roots()["Roots"][0]["Id"],
    }
    instances = cloud.client("sso-admin").list_instances()["Instances"]
    if not instances:
        raise Failed("Identity Center is not enabled; enable it in the management account, as there is no API for it")
    return found | {
        "IdentityCenterArn": instances[0]["InstanceArn"],
        "IdentityStoreId": instances[0]["IdentityStoreId"],
    }


# -- what no template can say ----------------------------------------------------------------------------------------------


def prepare(cloud: Cloud, tell: Tell = silent) -> None:
    """An organisation with all policy types, whose accounts stack sets may reach."""
    client = cloud.client("organizations")
    if organisation(cloud) is None:
        tell("organisation", MANAGEMENT, "creating")
        client.create_organization(FeatureSet="ALL")
    root = client.list_roots()["Roots"][0]
    on = {one["Type"] for one in root.get("PolicyTypes", ()) if one["Status"] == "ENABLED"}
    for type_ in _TYPES:
        if type_ not in on:
            client.enable_policy_type(RootId=root["Id"], PolicyType=type_)
    cloud.client("ram").enable_sharing_with_aws_organization()
    stacks = cloud.client("cloudformation")
    if stacks.describe_organizations_access()["Status"] != "ENABLED":
        stacks.activate_organizations_access()
    tell("organisation", MANAGEMENT, "ready")


def place(blueprint: Blueprint, cloud: Cloud, values: Mapping[str, str], tell: Tell = silent) -> tuple[str, ...]:
    """Moves accounts that are not where the blueprint has them; their names."""
    client = cloud.client("organizations")
    moved = []
    for name, one in blueprint.accounts.items():
        id_, wanted = values[account_word(name)], values[f"{unit_word(one.unit)}Id"]
        now = client.list_parents(ChildId=id_)["Parents"][0]["Id"]
        if now != wanted:
            client.move_account(AccountId=id_, SourceParentId=now, DestinationParentId=wanted)
            tell("account", name, f"moved to {'/'.join(one.unit)}")
            moved.append(name)
    return tuple(moved)


# -- stacks --------------------------------------------------------------------------------------------------------------


def settled(client: Any, id_: str, tell: Callable[[str], None]) -> dict[str, Any]:
    """A stack that nothing happens to any more; raises Failed when it takes too long."""
    until = time.monotonic() + _PATIENCE
    while True:
        found: dict[str, Any] = client.describe_stacks(StackName=id_)["Stacks"][0]
        tell(found["StackStatus"])
        if not found["StackStatus"].endswith("_IN_PROGRESS") or found["StackStatus"] == "REVIEW_IN_PROGRESS":
            return found
        if time.monotonic() > until:
            raise Failed(f"{found['StackName']} is {found['StackStatus']} for more than {_PATIENCE:.0f} s")
        time.sleep(_PAUSE)


def cause(client: Any, id_: str) -> str:
    """The first failure that is no consequence of another one."""
    told = list(pages(client, "describe_stack_events", "StackEvents", StackName=id_))
    for one in reversed(told):
        reason = one.get("ResourceStatusReason", "")
        if one["ResourceStatus"].endswith("_FAILED") and "cancelled" not in reason:
            return f"{one['LogicalResourceId']} ({one['ResourceType']}): {reason}"
    return "no cause was told"


class Deployer:
    """Brings stacks to what they are to be. values: what parameters may take, which grows with every stack's outputs."""

    def __init__(self, cloud: Cloud, values: dict[str, str], tell: Tell = silent) -> None:
        self.cloud = cloud
        self.values = values
        self.tell = tell

    def place_of(self, stack: Stack) -> str:
        """The id of a stack's account, as `Cloud.client` takes it."""
        return MANAGEMENT if stack.account == MANAGEMENT else self.values[account_word(stack.account)]

    def parameters(self, stack: Stack) -> list[dict[str, str]]:
        """The values of a stack's parameters; raises Failed for one that nothing gives."""
        declared = stack.template.get("Parameters", {})
        lacking = [name for name, one in declared.items() if name not in self.values and "Default" not in one]
        if lacking:
            raise Failed(f"{stack.name} in {stack.account} needs {', '.join(lacking)}, which no stack before it gives")
        return [
            {"ParameterKey": name, "ParameterValue": str(self.values.get(name, one.get("Default")))}
            for name, one in declared.items()
        ]

    def differs(self, stack: Stack, held: Mapping[str, Any], client: Any) -> bool:
        """Whether a stack is not what it is to be."""
        now = {one["ParameterKey"]: one.get("ParameterValue") for one in held.get("Parameters", ())}
        wanted = {one["ParameterKey"]: one["ParameterValue"] for one in self.parameters(stack)}
        tags = {one["Key"]: one["Value"] for one in held.get("Tags", ())}
        return now != wanted or tags != dict(stack.tags) or template(client, held["StackId"]) != stack.template

    def deploy(self, stack: Stack) -> str:
        """Creates or updates a stack, or leaves it; what was done. Raises Failed with the one cause."""

        def tell(what: str) -> None:
            self.tell(stack.name, stack.account, what)

        client = self.cloud.client("cloudformation", self.place_of(stack))
        held = current(client, stack.name)
        if held is not None and held["StackStatus"].endswith("_IN_PROGRESS"):
            held = settled(client, held["StackId"], tell)  # an earlier run was killed; what it began goes on
        if held is not None and held["StackStatus"] in _DEAD:
            client.delete_stack(StackName=held["StackId"])
            held = settled(client, held["StackId"], tell)
            if held["StackStatus"] != "DELETE_COMPLETE":
                raise Failed(f"{stack.name} in {stack.account}: {cause(client, held['StackId'])}")
        if held is not None and held["StackStatus"] == "DELETE_COMPLETE":
            held = None
        if held is not None and not self.differs(stack, held, client):
            tell("unchanged")
            self.values |= outputs(held)
            return "unchanged"
        asked: dict[str, Any] = {
            "StackName": stack.name,
            "TemplateBody": stack.body,
            "Parameters": self.parameters(stack),
            "Capabilities": ["CAPABILITY_NAMED_IAM"],
            "Tags": [{"Key": key, "Value": value} for key, value in stack.tags.items()],
        }
        if len(stack.body.encode()) > INLINE:
            raise Failed(f"{stack.name} in {stack.account} has more than {INLINE} bytes; a request carries no more")
        for (bucket, key), text in stack.uploads.items():
            s3 = self.cloud.client("s3", self.place_of(stack))
            s3.put_object(Bucket=known(bucket, self.values), Key=key, Body=text.encode())
        try:
            made = client.update_stack(**asked) if held is not None else client.create_stack(**asked)
        except botocore.exceptions.ClientError as error:
            if "No updates are to be performed" in error.response["Error"]["Message"]:
                assert held is not None
                self.values |= outputs(held)
                return "unchanged"
            raise Failed(f"{stack.name} in {stack.account}: {error.response['Error']['Message']}") from None
        done = settled(client, made["StackId"], tell)
        if done["StackStatus"] not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            raise Failed(f"{stack.name} in {stack.account}: {cause(client, made['StackId'])}")
        self.values |= outputs(done)
        return "created" if held is None else "updated"


def together(stacks: Sequence[Stack], work: Callable[[Stack], str]) -> dict[tuple[str, str], str]:
    """Stacks that do not need each other, some at a time; raises what the first raised when all have ended."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        futures = {(one.name, one.account): pool.submit(work, one) for one in stacks}
    return {key: one.result() for key, one in futures.items()}


def apply(blueprint: Blueprint, cloud: Cloud, tell: Tell = silent) -> Report:
    """Makes the landing zone what the blueprint says; raises Failed, Unreachable or botocore's ClientError."""
    began = time.monotonic()
    for one in violations(rendered(blueprint), blueprint):
        raise Failed(f"{one.stack} in {one.account}: {one.resource}: rule {one.rule}: {one.why}")
    prepare(cloud, tell)
    existing = enrolled(blueprint, cloud)
    deployer = Deployer(cloud, {account_word(name): id_ for name, id_ in existing.items()} | facts(cloud), tell)
    report = Report(enrolled=tuple(existing))
    for phase, stacks in itertools.groupby(rendered(blueprint, existing), key=lambda one: one.phase):
        report.stacks |= together(list(stacks), deployer.deploy)
        if phase == 0:
            report.moved = place(blueprint, cloud, deployer.values, tell)
    report.accounts = {name: deployer.values[account_word(name)] for name in blueprint.accounts}
    report.seconds = time.monotonic() - began
    return report
