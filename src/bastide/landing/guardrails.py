"""Guardrails: service and resource control policies for the units of the accounts that they bind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from bastide.landing.blueprint import Blueprint
from bastide.landing.words import filled, source, words

LONGEST: Final = 5000
"""Characters of a policy before its ids are put in; AWS allows 5,120 (Organizations User Guide, "Quotas")."""
_STATEMENT: Final = ("Sid", "Effect", "Principal", "Action", "NotAction", "Resource", "Condition")
TYPES: Final = {"scp": "SERVICE_CONTROL_POLICY", "rcp": "RESOURCE_CONTROL_POLICY"}


@dataclass(frozen=True, slots=True)
class Guardrail:
    """A guardrail that is on. statements: filled in, with what they refuse and let pass."""

    name: str
    title: str
    type: str
    units: tuple[tuple[str, ...], ...]
    statements: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Packed:
    """A policy as it is attached: as many statements as fit."""

    name: str
    title: str
    type: str
    units: tuple[tuple[str, ...], ...]
    document: dict[str, Any]


def document(statements: Any, effect: str = "Allow") -> dict[str, Any]:
    """A policy document of statements as the package's data has them."""
    kept = [{"Effect": effect} | {key: one[key] for key in _STATEMENT if key in one} for one in statements]
    return {"Version": "2012-10-17", "Statement": [{key: one[key] for key in _STATEMENT if key in one} for one in kept]}


def guardrails(blueprint: Blueprint) -> Iterator[Guardrail]:
    """The guardrails that are on."""
    given = words(blueprint)
    for name, entry in source("guardrails").items():
        if name in blueprint.off:
            continue
        statements: list[dict[str, Any]] = []
        for one in entry["statements"]:
            if one.get("each") == "tag":
                for tag in blueprint.required_tags:
                    told = filled(one, {**given, "TAG": tag})
                    statements.append({**told, "Sid": "".join(char for char in told["Sid"] if char.isalnum())})
            else:
                statements.append(filled(one, given))
        yield Guardrail(name, entry["title"], entry["type"], _units(entry["binds"], blueprint), tuple(statements))


def _units(binds: Any, blueprint: Blueprint) -> tuple[tuple[str, ...], ...]:
    if binds == "all":
        return tuple(path for path in blueprint.units if len(path) == 1)
    return tuple(dict.fromkeys(blueprint.accounts[name].unit for name in binds))


def packed(blueprint: Blueprint) -> list[Packed]:
    """All guardrails in as few policies as they fit into: a target takes no more than five of a type."""
    found: list[Packed] = []
    together: dict[tuple[str, tuple[tuple[str, ...], ...]], list[Guardrail]] = {}
    for one in guardrails(blueprint):
        together.setdefault((one.type, one.units), []).append(one)
    for (type_, units), held in together.items():
        where = "all" if units == _units("all", blueprint) else "-".join(path[-1].lower() for path in units)
        pages: list[list[tuple[str, dict[str, Any]]]] = [[]]
        for guardrail in held:
            for statement in guardrail.statements:
                page = [*pages[-1], (guardrail.name, statement)]
                if pages[-1] and _length(page) > LONGEST:
                    pages.append([(guardrail.name, statement)])
                else:
                    pages[-1] = page
        for number, page in enumerate(pages, 1):
            suffix = f"-{number}" if len(pages) > 1 else ""
            titles = ", ".join(dict.fromkeys(name for name, _ in page))
            name = f"{blueprint.name}-{where.replace(' ', '')}-{type_}{suffix}"
            found.append(Packed(name, titles, type_, units, document([one for _, one in page], "Deny")))
    return found


def _length(page: list[tuple[str, dict[str, Any]]]) -> int:
    return len(json.dumps(document([one for _, one in page], "Deny"), separators=(",", ":")))


def tag_policy(blueprint: Blueprint) -> dict[str, Any]:
    """How the required tags are spelt, and which environments there are."""
    tags: dict[str, Any] = {}
    for key in blueprint.required_tags:
        tags[key] = {"tag_key": {"@@assign": key}}
        if key == "environment" and blueprint.environments:
            tags[key]["tag_value"] = {"@@assign": list(blueprint.environments)}
    return {"tags": tags}
