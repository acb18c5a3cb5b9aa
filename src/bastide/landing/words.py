"""The package's YAML, filled in: ``<NAMES>`` with what the blueprint says, ``${Names}`` with what CloudFormation knows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

import yaml

from bastide.landing.blueprint import DATA, MANAGEMENT, NEEDED, Blueprint, Team

Words = Mapping[str, str | tuple[str, ...]]

_WORD: Final = re.compile(r"<([A-Z_]+)>")
_NAMED: Final = re.compile(r"\$\{([^}]*)\}")


@cache
def source(name: str) -> dict[str, Any]:
    """A file of the package's data, as it is written."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same in C, where it is there
    found: dict[str, Any] = yaml.load((DATA / f"{name}.yaml").read_text(), Loader=loader)  # noqa: S506
    return found


def camel(name: str) -> str:
    """``data-science`` as ``DataScience``, as names in templates have it."""
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"[^A-Za-z0-9]+", name))


def account_word(account: str) -> str:
    """The name of the parameter that holds an account's id."""
    return f"{camel(account)}Account"


def words(blueprint: Blueprint) -> dict[str, str | tuple[str, ...]]:
    """What the blueprint says, by the names that the package's data use."""
    name, home = blueprint.name, blueprint.region
    shared, data = "${SharedServicesAccount}", "${DataManagementAccount}"
    image = next((f"{team.name}/{one}" for team in blueprint.teams for one in team.images), "none/none")
    model = next((one for team in blueprint.teams for one in team.models), "none")
    published = f"{name}-published-{data}"
    return {
        "NAME": name,
        "HOME": home,
        "REGIONS": blueprint.regions,
        "DEPLOYING_ROLE": blueprint.deploying_role,
        "JOB_INSTANCES": blueprint.instances["jobs"],
        "ENDPOINT_INSTANCES": blueprint.instances["endpoints"],
        "NOTEBOOK_INSTANCES": blueprint.instances["notebooks"],
        "APP_INSTANCES": blueprint.instances["apps"],
        "ARTIFACTS": f"{name}-artifacts-{shared}",
        "MODELS": f"{name}-models-{shared}",
        "BUILD_ROLES": tuple(
            f"arn:aws:iam::{shared}:role/service-role/{name}-BuildRole-{team.name}" for team in blueprint.teams
        ),
        "PUBLISHED": published,
        "PUBLISHED_PREFIXES": tuple(f"arn:aws:s3:::{published}/{team.name}/*" for team in blueprint.teams),
        "PUBLISHED_LISTS": tuple(f"{team.name}/*" for team in blueprint.teams),
        "LAKE": f"{name}-lake-{data}",
        "LOGS": f"{name}-logs-${{LogArchiveAccount}}",
        "TRAIL": f"arn:aws:cloudtrail:{home}:${{ManagementAccount}}:trail/{name}-landing",
        "IMAGE": f"arn:aws:ecr:{home}:{shared}:repository/{image}",
        "IMAGE_ARNS": tuple(
            f"arn:aws:ecr:{home}:{shared}:repository/{team.name}/*" for team in blueprint.teams if team.images
        )
        or (f"arn:aws:ecr:{home}:{shared}:repository/none/*",),
        "GROUP": f"arn:aws:sagemaker:{home}:{shared}:model-package-group/{model}",
        "PACKAGES": f"arn:aws:sagemaker:{home}:{shared}:model-package/{model}/*",
        "PACKAGE": f"arn:aws:sagemaker:{home}:{shared}:model-package/{model}/1",
    }


def filled(value: Any, given: Words, **renamed: str) -> Any:
    """A tree with its words put in; a list that is a word's value takes the place of its item.

    renamed: names in ``${...}`` that stand for others. Raises KeyError for a word that has no value.
    """
    if isinstance(value, dict):
        return {_text(key, given, renamed): filled(one, given, **renamed) for key, one in value.items()}
    if isinstance(value, list):
        found = []
        for one in value:
            whole = _WORD.fullmatch(one) if isinstance(one, str) else None
            several = given[whole[1]] if whole else None
            if isinstance(several, tuple):
                found += [_text(each, given, renamed) for each in several]
            else:
                found.append(filled(one, given, **renamed))
        return found
    return _text(value, given, renamed) if isinstance(value, str) else value


def _text(text: str, given: Words, renamed: Mapping[str, str]) -> str:
    for _ in range(3):  # a word's value may hold words
        text = _WORD.sub(lambda match: str(given[match[1]]), text)
    return _NAMED.sub(lambda match: "${" + renamed.get(match[1], match[1]) + "}", text)


def is_policy_variable(name: str) -> bool:
    """Whether a name in ``${...}`` is IAM's (``aws:userid``) and none of a template's."""
    return ":" in name.replace("::", "")


def templated(value: Any) -> Any:
    """A tree in which texts with ``${Names}`` became CloudFormation's functions; IAM's variables are left to IAM."""
    if isinstance(value, dict):
        return {key: templated(one) for key, one in value.items()}
    if isinstance(value, list):
        return [templated(one) for one in value]
    if not isinstance(value, str):
        return value
    names = [name for name in _NAMED.findall(value) if not is_policy_variable(name)]
    if not names:
        return value
    if len(names) == 1 and value == "${" + names[0] + "}":
        return {"Ref": names[0]}
    return {
        "Fn::Sub": _NAMED.sub(lambda match: "${!" + match[1] + "}" if is_policy_variable(match[1]) else match[0], value)
    }


def known(value: Any, values: Mapping[str, str]) -> Any:
    """A tree in which ``${Names}`` have their values; raises KeyError for one that has none."""
    if isinstance(value, dict):
        return {known(key, values): known(one, values) for key, one in value.items()}
    if isinstance(value, list):
        return [known(one, values) for one in value]
    if not isinstance(value, str):
        return value
    return _NAMED.sub(lambda match: match[0] if is_policy_variable(match[1]) else values[match[1]], value)


# -- roles, as they are written ------------------------------------------------------------------------------------------


def accounts_of(entry: Mapping[str, Any], blueprint: Blueprint) -> tuple[str, ...]:
    """The accounts that something is for."""
    given = entry.get("accounts", entry.get("account"))
    if given == "all":
        return tuple(blueprint.accounts)
    return (given,) if isinstance(given, str) else tuple(given)


def renamed(account: str) -> dict[str, str]:
    """What ``${Here}`` and ``${HereKeyArn}`` stand for in an account."""
    return {"Here": account_word(account), "HereKeyArn": f"{camel(account)}KeyArn"}


def roles(blueprint: Blueprint) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every role of services: its name in the package's data, with the team's if each has one, its account, and its entry,
    filled in."""
    given = words(blueprint)
    for name, entry in source("roles").items():
        teams = blueprint.teams if entry.get("each") == "team" else (None,)
        for account, team in ((one, team) for one in accounts_of(entry, blueprint) for team in teams):
            own = given if team is None else {**given, **_of_team(team)}
            yield f"{name}{camel(team.name) if team else ''}", account, filled(entry, own, **renamed(account))


def _of_team(team: Team) -> Words:
    return {"TEAM": team.name, "TEAM_IMAGE": team.images[0] if team.images else "none"}


def sets(blueprint: Blueprint) -> Iterator[tuple[str, str, tuple[str, ...], dict[str, Any]]]:
    """Every permission set: its name in the data, its own name, its accounts, and its entry, filled in."""
    given = words(blueprint)
    for name, entry in source("people").items():
        group = blueprint.groups[entry["group"]]
        accounts = accounts_of(entry, blueprint)
        if entry.get("each") == "team":
            for team in blueprint.teams:
                told = filled(entry, {**given, "TEAM": team.name})
                yield name, f"{name}-{team.name}", accounts, {**told, "group": f"{team.name}-{group}"}
        else:
            yield name, name, accounts, {**filled(entry, given), "group": group}


def path_of(entry: Mapping[str, Any], blueprint: Blueprint) -> str:
    """A role's path."""
    return str(entry.get("path") or f"/{blueprint.name}/")


ALL: Final = (MANAGEMENT, *NEEDED)
"""Accounts of every landing zone."""
