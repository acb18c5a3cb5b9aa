"""The blueprint: one YAML file, checked against `blueprint.schema.json`; every fault names file, line and key."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

import yaml

DATA: Final = resources.files("bastide.landing") / "data"
NEEDED: Final = ("log-archive", "shared-services", "data-management", "data-science", "test", "production")
"""Accounts of every landing zone, beside the management account."""
MANAGEMENT: Final = "management"


class Faulty(Exception):  # noqa: N818
    """A blueprint that cannot be read. The message is ``FILE:LINE: KEY: what is wrong``."""


@dataclass(frozen=True, slots=True)
class AccountPlan:
    """An account. unit: names of its organisational units, outermost first. id: of one that exists and is enrolled."""

    name: str
    unit: tuple[str, ...]
    email: str = ""
    id: str = ""
    network: str = ""


@dataclass(frozen=True, slots=True)
class Team:
    """A team, its model package groups and its image repositories."""

    name: str
    project: str
    models: tuple[str, ...] = ()
    images: tuple[str, ...] = ()

    @property
    def tags(self) -> list[dict[str, str]]:
        """What stands in Shared Services for the team, and moves it to Production, says so."""
        told = {"team": self.name, "owner": self.name, "project": self.project, "environment": "production"}
        return [{"Key": key, "Value": value} for key, value in told.items()]


@dataclass(frozen=True, slots=True)
class Image:
    """An image of the central levels. base: REPOSITORY:TAG that it is built on; line: its stable tag."""

    level: str
    name: str
    base: str
    line: str

    @property
    def repository(self) -> str:
        """As it is named in the registry."""
        return f"{self.level}/{self.name}"


@dataclass(frozen=True, slots=True)
class Premises:
    """Networks of the company's own. accounts: whose networks reach them; ports: of TCP, that jobs there may call. gateway:
    the address of the device that a VPN ends at; without one, location, bandwidth and vlan of a circuit."""

    name: str
    ranges: tuple[str, ...]
    accounts: tuple[str, ...]
    ports: tuple[int, ...]
    gateway: str = ""
    location: str = ""
    bandwidth: str = ""
    vlan: int = 0


@dataclass(frozen=True, slots=True)
class OwnTemplate:
    """A template of the company's own, deployed beside the blueprint's."""

    account: str
    name: str
    file: Path


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What a landing zone is to be."""

    name: str
    regions: tuple[str, ...]
    deploying_role: str
    units: tuple[tuple[str, ...], ...]
    """Paths of names, parents before their children."""
    accounts: Mapping[str, AccountPlan]
    teams: tuple[Team, ...]
    groups: Mapping[str, str]
    required_tags: tuple[str, ...]
    environments: tuple[str, ...]
    instances: Mapping[str, tuple[str, ...]]
    endpoints: tuple[str, ...]
    off: frozenset[str]
    """Guardrails that are not wanted."""
    delivery: frozenset[str]
    """Parts of what leads from a commit to production: packages, public-packages, products, code, builds, pipelines,
    images."""
    transit: bool = True
    """Whether a transit gateway joins the networks."""
    images: tuple[Image, ...] = ()
    """Base and framework images, those before that others are built on."""
    stops: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Severities of findings that stop an image, by level."""
    templates: tuple[OwnTemplate, ...] = ()
    premises: tuple[Premises, ...] = ()
    text: str = field(default="", compare=False)

    @property
    def region(self) -> str:
        """Where everything stands."""
        return self.regions[0]


def default() -> str:
    """The text of the default blueprint."""
    return (DATA / "blueprint.yaml").read_text()


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema of blueprints."""
    found: dict[str, Any] = json.loads((DATA / "blueprint.schema.json").read_text())
    return found


def read(path: Path) -> Blueprint:
    """The blueprint in a file; raises Faulty."""
    try:
        return parse(path.read_text(), path)
    except (OSError, UnicodeDecodeError) as error:
        raise Faulty(f"{path}: cannot be read: {error}") from None


def parse(text: str, path: Path = Path("blueprint.yaml")) -> Blueprint:
    """The blueprint in a text; raises Faulty. path: for faults, and for the files that it names."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        raise Faulty(f"{path}:{line}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise Faulty(f"{path}: {error}") from None
    if node is None:
        raise Faulty(f"{path}:1: the file is empty; `bastide landing init` writes one to begin with")
    reader = _Reader(path)
    value = reader.checked(node, schema(), ())
    return _built(value, reader, text)


# -- the schema, on nodes that know their lines ------------------------------------------------------------------------

_KINDS: Final = {"object": "a mapping", "array": "a list", "string": "a text", "boolean": "on or off"}
_SCALARS: Final = {"string": str, "boolean": bool}
_MOST_NODES: Final = 20_000


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[tuple[str | int, ...], int] = {}

    def fault(self, at: tuple[str | int, ...], message: str) -> Faulty:
        line = 1
        for count in range(len(at) + 1):
            line = self.lines.get(at[:count], line)
        return Faulty(f"{self.path}:{line}: {'.'.join(map(str, at)) or 'the blueprint'}: {message}")

    def checked(self, node: Any, rule: Mapping[str, Any], at: tuple[str | int, ...]) -> Any:
        """A node's value; raises Faulty where the rule does not hold."""
        if "$ref" in rule:
            rule = schema()["$defs"][rule["$ref"].rpartition("/")[2]]
        self.lines.setdefault(at, node.start_mark.line + 1)
        if len(self.lines) > _MOST_NODES:
            raise self.fault(at, "the file is too large")
        kind = rule["type"]
        if isinstance(node, yaml.MappingNode) and kind == "object":
            return self._mapping(node, rule, at)
        if isinstance(node, yaml.SequenceNode) and kind == "array":
            if len(node.value) < rule.get("minItems", 0):
                raise self.fault(at, f"at least {rule['minItems']} is needed")
            return [self.checked(one, rule["items"], (*at, index)) for index, one in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and kind in _SCALARS:
            return self._scalar(node, rule, at)
        raise self.fault(at, f"{_KINDS[kind]} is needed")

    def _mapping(self, node: Any, rule: Mapping[str, Any], at: tuple[str | int, ...]) -> dict[str, Any]:
        known, more = rule.get("properties", {}), rule.get("additionalProperties", False)
        found: dict[str, Any] = {}
        for key, value in node.value:
            name = str(key.value)
            self.lines[*at, name] = key.start_mark.line + 1
            if name in found:
                raise self.fault((*at, name), "is there twice")
            if name not in known and not more:
                raise self.fault((*at, name), f"is not known here; there are {', '.join(sorted(known))}")
            found[name] = self.checked(value, known.get(name, more), (*at, name))
        for name in rule.get("required", ()):
            if name not in found:
                raise self.fault(at, f"`{name}` is missing")
        return found

    def _scalar(self, node: Any, rule: Mapping[str, Any], at: tuple[str | int, ...]) -> Any:
        text = str(node.value)
        if rule["type"] == "boolean":
            if node.tag != "tag:yaml.org,2002:bool":
                raise self.fault(at, f"`{text}` is neither on nor off")
            return text.lower() in ("on", "true", "yes")
        pattern = rule.get("pattern")
        if pattern and not re.search(pattern, text):
            raise self.fault(at, f"`{text}` is not {rule['description']}")
        if not text:
            raise self.fault(at, "is empty")
        return text


# -- what a schema cannot say ------------------------------------------------------------------------------------------


def _paths(units: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, below in units.items():
        yield (*above, name)
        yield from _paths(below, (*above, name))


def _built(value: dict[str, Any], reader: _Reader, text: str) -> Blueprint:
    units = tuple(_paths(value["units"]))
    for path in units:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9 -]{0,60}", path[-1]):
            raise reader.fault(("units", *path), "a unit's name has letters, digits, blanks and hyphens")
    accounts = {name: _account(name, one, units, reader) for name, one in value["accounts"].items()}
    _apart(accounts, reader)
    guardrails = value.get("guardrails", {})
    known = guardrail_names()
    for name in guardrails:
        if name not in known:
            raise reader.fault(("guardrails", name), f"there is no such guardrail; there are {', '.join(known)}")
    templates = []
    for index, one in enumerate(value.get("templates", [])):
        if one["account"] not in (*accounts, MANAGEMENT):
            raise reader.fault(("templates", index, "account"), f"there is no account `{one['account']}`")
        file = reader.path.parent / one["file"]
        if not file.is_file():
            raise reader.fault(("templates", index, "file"), f"there is no file {file}")
        templates.append(OwnTemplate(one["account"], one["name"], file))
    return Blueprint(
        value["name"],
        tuple(value["regions"]),
        value.get("deployingRole", "OrganizationAccountAccessRole"),
        units,
        accounts,
        tuple(_team(name, one, reader) for name, one in value["teams"].items()),
        value["groups"],
        tuple(value["tags"]["required"]),
        tuple(value["tags"].get("environments", ())),
        {name: tuple(one) for name, one in value["instances"].items()},
        tuple(value.get("endpoints", ())),
        frozenset(name for name, wanted in guardrails.items() if not wanted),
        _delivery(value.get("delivery", {}), reader),
        bool(value.get("transit", True)),
        _images(value, reader),
        {level: tuple(value.get("images", {}).get("stopAt", {}).get(level, stop)) for level, stop in _STOPS.items()},
        tuple(templates),
        tuple(_premises(name, one, accounts, reader) for name, one in value.get("premises", {}).items()),
        text,
    )


@cache
def guardrail_names() -> tuple[str, ...]:
    """The guardrails that there are."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return tuple(yaml.load((DATA / "guardrails.yaml").read_text(), Loader=loader))  # noqa: S506


def _account(name: str, one: Mapping[str, str], units: Sequence[tuple[str, ...]], reader: _Reader) -> AccountPlan:
    at = ("accounts", name)
    if not re.fullmatch(r"[a-z][a-z0-9-]{1,30}", name) or name == MANAGEMENT:
        raise reader.fault(at, "an account's name has 2 to 31 small letters, digits and hyphens, and is not management")
    unit = tuple(one["unit"].split("/"))
    if unit not in units:
        known = ", ".join("/".join(path) for path in units)
        raise reader.fault((*at, "unit"), f"there is no unit `{one['unit']}`; there are {known}")
    if ("email" in one) == ("id" in one):
        raise reader.fault(at, "an account is made with an `email`, or enrolled with its `id`")
    if name in NEEDED[1:] and "network" not in one:
        raise reader.fault(at, "`network` is missing")
    return AccountPlan(name, unit, one.get("email", ""), one.get("id", ""), one.get("network", ""))


def _premises(name: str, one: Mapping[str, Any], accounts: Mapping[str, AccountPlan], reader: _Reader) -> Premises:
    at: tuple[str | int, ...] = ("premises", name)
    if not re.fullmatch(r"[a-z][a-z0-9-]{1,30}", name):
        raise reader.fault(at, "a name of premises has 2 to 31 small letters, digits and hyphens")
    if ("vpn" in one) == ("direct-connect" in one):
        raise reader.fault(at, "premises are reached by a `vpn` or by `direct-connect`")
    for index, account in enumerate(one["accounts"]):
        if account not in accounts or not accounts[account].network:
            raise reader.fault((*at, "accounts", index), f"there is no account `{account}` with a network")
    circuit = one.get("direct-connect", {})
    if circuit and len(one["accounts"]) != 1:
        raise reader.fault((*at, "accounts"), "a circuit leads to one account; name others in premises of their own")
    for index, text in enumerate(one["ranges"]):
        try:
            range_ = ipaddress.IPv4Network(text)
        except ValueError:
            raise reader.fault((*at, "ranges", index), f"`{text}` is no range such as 10.200.0.0/16") from None
        for account, plan in accounts.items():
            if plan.network and range_.overlaps(ipaddress.IPv4Network(plan.network)):
                raise reader.fault((*at, "ranges", index), f"{text} overlaps the network of {account}")
    return Premises(
        name,
        tuple(one["ranges"]),
        tuple(one["accounts"]),
        tuple(int(port) for port in one.get("ports", ["443"])),
        one.get("vpn", ""),
        circuit.get("location", ""),
        circuit.get("bandwidth", ""),
        int(circuit.get("vlan", 0)),
    )


def _apart(accounts: Mapping[str, AccountPlan], reader: _Reader) -> None:
    """Networks can be joined only where no two ranges overlap; mail addresses name one account each."""
    seen: dict[str, ipaddress.IPv4Network] = {}
    mails: dict[str, str] = {}
    for name, one in accounts.items():
        if one.email and mails.setdefault(one.email, name) != name:
            raise reader.fault(("accounts", name, "email"), f"{one.email} is that of {mails[one.email]}, too")
        if not one.network:
            continue
        at = ("accounts", name, "network")
        try:
            range_ = ipaddress.IPv4Network(one.network)
        except ValueError as error:
            raise reader.fault(at, str(error)) from None
        if not 16 <= range_.prefixlen <= 24:
            raise reader.fault(at, f"{one.network} is not between /16 and /24, as a VPC's subnets need it")
        for other, taken in seen.items():
            if taken.overlaps(range_):
                raise reader.fault(at, f"{one.network} overlaps {taken} of {other}")
        seen[name] = range_


_BEFORE: Final = {"builds": "code", "pipelines": "code", "public-packages": "packages"}


def _delivery(given: Mapping[str, bool], reader: _Reader) -> frozenset[str]:
    """The parts that are on, as those are that are not named; some need another."""
    known = schema()["properties"]["delivery"]["properties"]
    found = frozenset(name for name, rule in known.items() if given.get(name, rule.get("default", True)))
    for name, needed in _BEFORE.items():
        if name in found and needed not in found:
            raise reader.fault(("delivery", name), f"needs `{needed}`, which is off")
    return found


_STOPS: Final = {
    "base": ("CRITICAL", "HIGH"),
    "framework": ("CRITICAL", "HIGH"),
    "application": ("CRITICAL", "HIGH"),
}


def _images(value: Mapping[str, Any], reader: _Reader) -> tuple[Image, ...]:
    """Base images stand on public ones, framework images on base ones that there are."""
    found: list[Image] = []
    for level, below in (("base", "public"), ("framework", "base")):
        for name, one in value.get("images", {}).get(level, {}).items():
            at = ("images", level, name)
            known = [f"{each.repository}:{each.line}" for each in found if each.level == below]
            if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name):
                raise reader.fault(at, "an image's name has small letters, digits and hyphens")
            if below == "base" and one["from"] not in known:
                raise reader.fault((*at, "from"), f"there is no base image {one['from']}; there are {', '.join(known)}")
            if not one["from"].startswith(f"{below}/"):
                raise reader.fault((*at, "from"), f"`{one['from']}` is not below {below}/")
            found.append(Image(level, name, one["from"], one["line"]))
    for team in value["teams"]:
        if team in ("public", "base", "framework"):
            raise reader.fault(("teams", team), "is a level of images")
    if value.get("delivery", {}).get("images") and not found:
        raise reader.fault(("delivery", "images"), "needs `images`, which names none")
    return tuple(found)


def _team(name: str, one: Mapping[str, Any], reader: _Reader) -> Team:
    if not re.fullmatch(r"[a-z][a-z0-9-]{1,15}", name):
        raise reader.fault(("teams", name), "a team's name has 2 to 16 small letters, digits and hyphens")
    return Team(name, one["project"], tuple(one.get("models", ())), tuple(one.get("images", ())))
