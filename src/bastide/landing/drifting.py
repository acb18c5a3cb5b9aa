"""What stands and is not as it was made: stacks' resources, guardrails, units, accounts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import botocore.exceptions

from bastide.landing import applying
from bastide.landing.blueprint import MANAGEMENT, Blueprint
from bastide.landing.cloud import Cloud
from bastide.landing.guardrails import TYPES, packed, tag_policy
from bastide.landing.planning import owned
from bastide.landing.rendering import unit_word
from bastide.landing.words import account_word, known

_PAUSE: Final = 0.1
_PATIENCE: Final = 300.0
_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class Drift:
    """A difference. where: an account or the organisation; what: a resource, a policy, a unit or an account."""

    where: str
    what: str
    how: str


def drifts(blueprint: Blueprint, cloud: Cloud) -> list[Drift]:
    """Everything that is not as the landing zone made it; raises Failed where there is none."""
    stacks = cloud.client("cloudformation")
    top = applying.current(stacks, f"{blueprint.name}-landing-organisation")
    if top is None:
        raise applying.Failed(f"there is no landing zone {blueprint.name}; `bastide landing apply` makes it")
    values = applying.outputs(top) | {
        account_word(name): id_ for name, id_ in applying.enrolled(blueprint, cloud).items()
    }
    found = [*_accounts(blueprint, cloud, values), *_policies(blueprint, cloud, values)]
    places = [(MANAGEMENT, MANAGEMENT)]
    places += [(name, values[account_word(name)]) for name in blueprint.accounts if account_word(name) in values]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for more in pool.map(lambda place: _stacks(blueprint, cloud, *place), places):
            found += more
    return found


def _stacks(blueprint: Blueprint, cloud: Cloud, name: str, id_: str) -> list[Drift]:
    client = cloud.client("cloudformation", id_)
    found = []
    for stack in owned(client, blueprint):
        asked = client.detect_stack_drift(StackName=stack["StackId"])["StackDriftDetectionId"]
        until = time.monotonic() + _PATIENCE
        told = client.describe_stack_drift_detection_status(StackDriftDetectionId=asked)
        while told["DetectionStatus"] == "DETECTION_IN_PROGRESS" and time.monotonic() < until:
            time.sleep(_PAUSE)
            told = client.describe_stack_drift_detection_status(StackDriftDetectionId=asked)
        if told["DetectionStatus"] == "DETECTION_FAILED":
            found.append(Drift(name, stack["StackName"], told.get("DetectionStatusReason", "cannot be told")))
        if told.get("StackDriftStatus") != "DRIFTED":
            continue
        drifted = client.describe_stack_resource_drifts(
            StackName=stack["StackId"], StackResourceDriftStatusFilters=["MODIFIED", "DELETED"]
        )["StackResourceDrifts"]
        for one in drifted:
            how = "deleted" if one["StackResourceDriftStatus"] == "DELETED" else "changed: " + ", ".join(
                f"{each['PropertyPath']} is {each['ActualValue']}" for each in one.get("PropertyDifferences", ())
            )  # fmt: skip
            what = f"{stack['StackName']}: {one['LogicalResourceId']} ({one['ResourceType']})"
            found.append(Drift(name, what, how))
    return found


def _accounts(blueprint: Blueprint, cloud: Cloud, values: Mapping[str, str]) -> Iterator[Drift]:
    client = cloud.client("organizations")
    by_id = {values.get(f"{unit_word(path)}Id", ""): "/".join(path) for path in blueprint.units}
    for name, one in blueprint.accounts.items():
        id_ = values.get(account_word(name))
        if id_ is None:
            yield Drift("organisation", f"account {name}", "is not there")
            continue
        try:
            now = client.list_parents(ChildId=id_)["Parents"][0]["Id"]
        except botocore.exceptions.ClientError as error:
            yield Drift("organisation", f"account {name}", error.response["Error"]["Message"])
            continue
        if now != values.get(f"{unit_word(one.unit)}Id"):
            yield Drift("organisation", f"account {name}", f"is in {by_id.get(now, now)}, not in {'/'.join(one.unit)}")


def _policies(blueprint: Blueprint, cloud: Cloud, values: Mapping[str, str]) -> Iterator[Drift]:
    client = cloud.client("organizations")
    real = {**values, **applying.facts(cloud)}
    wanted: dict[str, tuple[str, Any, set[str]]] = {}
    for one in packed(blueprint):
        units = {values.get(f"{unit_word(path)}Id", "") for path in one.units}
        wanted[one.name] = (TYPES[one.type], known(one.document, real), units)
    tops = {values.get(f"{unit_word(path)}Id", "") for path in blueprint.units if len(path) == 1}
    wanted[f"{blueprint.name}-tags"] = ("TAG_POLICY", tag_policy(blueprint), tops)
    held = {
        one["Name"]: one["Id"]
        for type_ in (*TYPES.values(), "TAG_POLICY")
        for one in applying.pages(client, "list_policies", "Policies", Filter=type_)
        if not one["AwsManaged"]
    }
    for name, (_, document, units) in wanted.items():
        if name not in held:
            yield Drift("organisation", f"policy {name}", "is not there")
            continue
        content = json.loads(client.describe_policy(PolicyId=held[name])["Policy"]["Content"])
        if content != document:
            yield Drift("organisation", f"policy {name}", "says something else")
        targets = {
            one["TargetId"] for one in applying.pages(client, "list_targets_for_policy", "Targets", PolicyId=held[name])
        }
        for target in sorted(units - targets):
            yield Drift("organisation", f"policy {name}", f"is not attached to {target}")
        for target in sorted(targets - units):
            yield Drift("organisation", f"policy {name}", f"is attached to {target}, too")
    names = {id_: name for name, id_ in held.items()}
    for path in blueprint.units:
        unit = values.get(f"{unit_word(path)}Id")
        for type_ in (*TYPES.values(), "TAG_POLICY") if unit else ():
            listed = client.list_policies_for_target(TargetId=unit, Filter=type_)["Policies"]
            if type_ == "SERVICE_CONTROL_POLICY" and not any(one["Name"] == "FullAWSAccess" for one in listed):
                yield Drift("organisation", f"unit {'/'.join(path)}", "FullAWSAccess is not attached")
            for one in listed:
                if not one["AwsManaged"] and names.get(one["Id"], one["Name"]) not in wanted:
                    yield Drift("organisation", f"unit {'/'.join(path)}", f"policy {one['Name']} is attached, too")
