"""What applying a blueprint would change: stacks and their resources, accounts, and who gains and loses what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from bastide.domain import Refused
from bastide.landing import access, applying, proactive
from bastide.landing.blueprint import MANAGEMENT, Blueprint
from bastide.landing.cloud import Cloud, Unreachable
from bastide.landing.rendering import Stack, rendered
from bastide.landing.words import account_word

_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class StackChange:
    """A stack that would be created, updated or deleted, or stays. resources: what is with each that changes."""

    name: str
    account: str
    what: str
    resources: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Plan:
    """What would happen. made, enrolled: accounts by name."""

    stacks: list[StackChange]
    made: tuple[str, ...]
    enrolled: tuple[str, ...]
    access: list[access.Change]
    violations: list[proactive.Violation]
    faults: list[str]
    asked: int

    @property
    def changes(self) -> bool:
        """Whether anything would change."""
        return bool(self.made) or any(one.what != "unchanged" for one in self.stacks)

    @property
    def refused(self) -> bool:
        """Whether it may not be applied."""
        return bool(self.violations or self.faults)


def planned(blueprint: Blueprint, cloud: Cloud) -> Plan:
    """Compares what stands with what the blueprint says; changes nothing."""
    exists = applying.organisation(cloud) is not None
    enrolled = applying.enrolled(blueprint, cloud) if exists else {}
    wanted = rendered(blueprint, enrolled)
    standing = deployed(blueprint, cloud) if exists else []
    found, faults, asked, changes = proactive.violations(wanted, blueprint), [], 0, []
    try:
        after = access.landscape(wanted, blueprint)
        before = access.landscape(standing, blueprint, blueprint.accounts)
        questions = list(access.steps(blueprint, after))
        asked = len(questions) * len({*before.actors, *after.actors})
        changes = access.changes(before, after, questions)
    except Refused as refused:
        faults.append(refused.message)
    held = {(one.name, one.account): one for one in standing}
    stacks = [_compared(one, held.pop((one.name, one.account), None)) for one in wanted]
    stacks += [StackChange(one.name, one.account, "delete") for one in held.values()]
    made = tuple(
        name for name, one in blueprint.accounts.items()
        if name not in enrolled and not _stands(standing, blueprint, name)
    )  # fmt: skip
    return Plan(stacks, made, tuple(enrolled), changes, found, faults, asked)


def _stands(standing: Iterable[Stack], blueprint: Blueprint, name: str) -> bool:
    top = next((one for one in standing if one.name == f"{blueprint.name}-landing-organisation"), None)
    return top is not None and account_word(name) in top.template.get("Outputs", {})


def _compared(wanted: Stack, held: Stack | None) -> StackChange:
    if held is None:
        return StackChange(wanted.name, wanted.account, "create", dict.fromkeys(wanted.template["Resources"], "add"))
    new, old = wanted.template["Resources"], held.template.get("Resources", {})
    told = {name: "add" for name in new if name not in old}
    told |= {name: "remove" for name in old if name not in new}
    told |= {name: "change" for name in new if name in old and new[name] != old[name]}
    same = wanted.template == held.template and dict(wanted.tags) == dict(held.tags)
    return StackChange(wanted.name, wanted.account, "unchanged" if same else "update", told)


def deployed(blueprint: Blueprint, cloud: Cloud) -> list[Stack]:
    """The landing zone's stacks as they stand."""
    top = applying.current(cloud.client("cloudformation"), f"{blueprint.name}-landing-organisation")
    if top is None:
        return []
    ids = {key: one for key, one in applying.outputs(top).items() if key.endswith("Account")}
    ids |= {account_word(name): id_ for name, id_ in applying.enrolled(blueprint, cloud).items()}
    names = {account_word(name): name for name in blueprint.accounts}
    where = [(MANAGEMENT, MANAGEMENT), *((names.get(word, word), id_) for word, id_ in ids.items())]

    def look(place: tuple[str, str]) -> list[Stack]:
        name, id_ = place
        try:
            client = cloud.client("cloudformation", id_)
        except Unreachable:
            return []  # closed, or never ours
        return [_read(client, one, name) for one in owned(client, blueprint)]

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return [one for found in pool.map(look, where) for one in found]


_PHASES: Final = {
    "organisation": 0, "guardrails": 1, "baseline": 1, "roles": 2, "foundation": 2, "platform": 3,
    "transit": 2, "joint": 3, "premises": 3,
}  # fmt: skip


def owned(client: Any, blueprint: Blueprint) -> list[dict[str, Any]]:
    """The stacks of an account that the landing zone made."""
    told = applying.pages(client, "describe_stacks", "Stacks")
    prefix = f"{blueprint.name}-landing-"
    return [
        one for one in told
        if one["StackName"].startswith(prefix) and one["StackStatus"] != "DELETE_COMPLETE" and not one.get("ParentId")
    ]  # fmt: skip


def _read(client: Any, told: Mapping[str, Any], account: str) -> Stack:
    name = told["StackName"]
    short = name.partition("-landing-")[2]
    phase = 5 if short.startswith("own-") or short == "products" else _PHASES.get(short, 4)
    if short == "roles" and account == "shared-services":
        phase = 1
    tags = {one["Key"]: one["Value"] for one in told.get("Tags", ())}
    return Stack(name, account, phase, applying.template(client, told["StackId"]), tags)
