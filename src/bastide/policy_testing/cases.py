"""Reading a file of cases: every fault is told with the file and the line where it stands."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, Final

import yaml

from bastide.domain import Arn, Refused
from bastide.policy import Attached, Document, Form, Layers, Principal, Request, Value

_FULL = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}
BUILT_IN: Final = {"FullAWSAccess": _FULL, "AdministratorAccess": _FULL}
"""Policies of AWS that every file may name."""
DECISIONS: Final = ("allow", "deny", "explicit-deny", "implicit-deny")
LAYERS: Final = ("identity", "boundary", "session", "resource", "trust", "scp", "rcp", "endpoint")
COVERAGES: Final = ("off", "reached", "both-ways")


class Faulty(Exception):  # noqa: N818
    """A file of cases that cannot be read. The message is ``FILE:LINE: what is wrong``."""


class Skipped(Exception):  # noqa: N818
    """A file that needs something that is not there."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a case expects; "" and None leave open. statement: a Sid, or a place in the document."""

    decision: str
    layer: str = ""
    policy: str = ""
    statement: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """One question and the answer that is expected. live: asked of a running platform's own policies."""

    name: str
    line: int
    request: Request
    layers: Layers
    expected: Expected
    live: bool = False


@dataclass(slots=True)
class CaseFile:
    """A file that has been read. documents: its named policies, each in every form that a case uses it in."""

    path: Path
    cases: tuple[Case, ...]
    documents: dict[str, tuple[Attached, ...]]
    unused: tuple[str, ...]
    coverage: str


_MOST_NODES = 1_000_000


@dataclass(slots=True)
class _Reader:
    path: Path
    values: dict[str, str] = field(default_factory=dict)
    sources: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    """Named policies: the document, and the node to blame."""
    parsed: dict[tuple[str, Form], Attached] = field(default_factory=dict)
    nodes: int = 0
    """Of all documents in the file: an alias repeats what it stands for, aliases of aliases without end."""

    # -- nodes ---------------------------------------------------------------------------------------------------------

    def fault(self, node: Any, message: str) -> Faulty:
        line = node.start_mark.line + 1 if node is not None else 1
        return Faulty(f"{self.path}:{line}: {message}")

    def fields(self, node: Any, what: str, known: Sequence[str], needed: Sequence[str] = ()) -> dict[str, Any]:
        """The members of a mapping, by name."""
        if not isinstance(node, yaml.MappingNode):
            raise self.fault(node, f"{what} must be a mapping of {', '.join(known)}")
        found: dict[str, Any] = {}
        for key, value in node.value:
            name = str(key.value)
            if name not in known:
                raise self.fault(key, f"{what} has no `{name}`; it knows {', '.join(known)}")
            if name in found:
                raise self.fault(key, f"`{name}` is there twice")
            found[name] = value
        for name in needed:
            if name not in found:
                raise self.fault(node, f"{what} needs `{name}`")
        return found

    def pairs(self, node: Any, what: str) -> Iterator[tuple[str, Any, Any]]:
        if not isinstance(node, yaml.MappingNode):
            raise self.fault(node, f"{what} must be a mapping")
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                raise self.fault(key, f"`{name}` is there twice")
            seen.add(name)
            yield name, key, value

    def text(self, node: Any, what: str, known: Sequence[str] = ()) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self.fault(node, f"{what} must be a text")
        value = self.filled(str(node.value), node)
        if known and value not in known:
            raise self.fault(node, f"{what} is `{value}`; it can be {', '.join(known)}")
        return value

    def texts(self, node: Any, what: str) -> tuple[str, ...]:
        if isinstance(node, yaml.SequenceNode):
            found = tuple(self.text(one, f"each {what}") for one in node.value)
            if not found:
                raise self.fault(node, f"{what} is an empty list")
            return found
        return (self.text(node, what),)

    def listed(self, node: Any, what: str) -> list[Any]:
        if not isinstance(node, yaml.SequenceNode):
            raise self.fault(node, f"{what} must be a list")
        return list(node.value)

    def plain(self, node: Any) -> Any:
        """A document written in YAML; scalars stay texts, as policies compare texts."""
        self.nodes += 1
        if self.nodes > _MOST_NODES:
            raise self.fault(node, "the documents in the file are too large")
        if isinstance(node, yaml.MappingNode):
            return {name: self.plain(value) for name, _, value in self.pairs(node, "a policy")}
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(one) for one in node.value]
        return self.filled(str(node.value), node)

    # -- placeholders and files ------------------------------------------------------------------------------------------

    def filled(self, text: str, node: Any) -> str:
        """The text with every ``<NAME>`` replaced by its value; raises Faulty for one that has none."""

        def value(found: re.Match[str]) -> str:
            name = found.group(1)
            if name not in self.values:
                raise self.fault(node, f"the placeholder <{name}> has no value; add it under `values`")
            return self.values[name]

        return re.sub(r"<([A-Z][A-Z0-9_]*)>", value, text)

    def located(self, text: str, node: Any) -> Path:
        """A path relative to the file, ``$NAME``, ``${NAME}`` and ``${NAME:-default}`` from the environment."""

        def value(found: re.Match[str]) -> str:
            name = found.group("braced") or found.group("name")
            held = os.environ.get(name) or found.group("default")
            if held is None:
                raise self.fault(node, f"the environment variable {name} is not set")
            return held

        form = r"\$(?:\{(?P<braced>\w+)(?::-(?P<default>[^}]*))?\}|(?P<name>\w+))"
        return self.path.parent / re.sub(form, value, text)

    def file(self, node: Any) -> Any:
        path = self.located(self.text(node, "a policy's file"), node)
        try:
            return self.filled(path.read_text(encoding="utf-8"), node)
        except (OSError, UnicodeDecodeError) as error:
            raise self.fault(node, f"the policy {path} cannot be read: {error}") from None

    # -- policies --------------------------------------------------------------------------------------------------------

    def source(self, node: Any) -> Any:
        """A policy: a file's name, ``file:`` with one, or the document itself."""
        if isinstance(node, yaml.ScalarNode):
            return self.file(node)
        if isinstance(node, yaml.MappingNode) and any(key.value == "file" for key, _ in node.value):
            return self.file(self.fields(node, "a policy", ("file",))["file"])
        return self.plain(node)

    def policy(self, node: Any, form: Form) -> Attached:
        """A policy in a layer of a case: by name, or written there."""
        if isinstance(node, yaml.ScalarNode):
            name = str(node.value)
            if name not in self.sources:
                raise self.fault(node, f"no policy is named `{name}`; list it under `policies`")
            if (name, form) not in self.parsed:
                document, _ = self.sources[name]
                self.parsed[name, form] = self.document(document, form, name, node)
            return self.parsed[name, form]
        line = node.start_mark.line + 1
        return self.document(self.source(node), form, f"line {line}", node)

    def document(self, source: Any, form: Form, name: str, node: Any) -> Attached:
        try:
            return Attached(Document.parse(source, form), name)
        except Refused as refused:
            raise self.fault(node, f"`{name}` is no {form.value} policy: {refused.message}") from None

    def policies(self, node: Any, form: Form) -> tuple[Attached, ...]:
        if not isinstance(node, yaml.SequenceNode):
            return (self.policy(node, form),)
        return tuple(self.policy(one, form) for one in node.value)

    def levels(self, node: Any, form: Form) -> tuple[tuple[Attached, ...], ...]:
        """Levels, root first; a list without lists in it is one level."""
        listed = self.listed(node, f"{form.value}s")
        if any(isinstance(one, yaml.SequenceNode) for one in listed):
            return tuple(self.policies(one, form) for one in listed)
        return (tuple(self.policy(one, form) for one in listed),)

    # -- who ---------------------------------------------------------------------------------------------------------------

    def principal(self, node: Any) -> Principal:
        """Who asks: an ARN, a service's name, ``anonymous``, or a mapping that says more."""
        if isinstance(node, yaml.MappingNode):
            given = self.fields(node, "principal", ("arn", "role", "user", "federated"))
            if "federated" in given:
                return Principal("Federated", None, self.text(given["federated"], "federated"))
            if "arn" not in given:
                raise self.fault(node, "principal needs `arn` or `federated`")
            who = self.principal(given["arn"])
            for name in ("role", "user"):
                if name in given:
                    who = replace(who, principal_arn=self.text(given[name], name))
            return who
        text = self.text(node, "principal")
        if text in ("anonymous", "*"):
            return Principal("Anonymous", None, "")
        if re.fullmatch(r"[a-z0-9.-]+\.amazonaws\.com", text):
            return Principal("Service", None, text)
        try:
            arn = Arn.parse(text)
        except ValueError:
            raise self.fault(
                node, f"`{text}` is no principal: an ARN, a service such as x.amazonaws.com, or anonymous"
            ) from None
        account, (kind, _, name) = arn.account, arn.resource.partition("/")
        if arn.service == "iam" and kind == "user":
            return Principal("User", account, text, text)
        if arn.service == "iam" and kind == "role":
            session = f"arn:{arn.partition}:sts::{account}:assumed-role/{name.rpartition('/')[2]}/test"
            return Principal("AssumedRole", account, session, text)
        if arn.service == "iam" and arn.resource == "root":
            return Principal("Root", account, text, text)
        if arn.service == "sts" and kind == "assumed-role":
            role = f"arn:{arn.partition}:iam::{account}:role/{name.partition('/')[0]}"
            return Principal("AssumedRole", account, text, role)
        if arn.service == "sts" and kind == "federated-user":
            return Principal("FederatedUser", account, text, f"arn:{arn.partition}:iam::{account}:user/{name}")
        raise self.fault(node, f"`{text}` is not the ARN of a user, a role, a session or an account's root")

    def context(self, node: Any, held: dict[str, Value]) -> None:
        for name, key, value in self.pairs(node, "context"):
            if ":" not in name:
                raise self.fault(key, f"`{name}` is no condition key: keys have a prefix such as aws:")
            if isinstance(value, yaml.SequenceNode):
                held[name.lower()] = tuple(self.text(one, f"each value of {name}") for one in value.value)
            elif value.tag == "tag:yaml.org,2002:null":
                held.pop(name.lower(), None)
            else:
                held[name.lower()] = self.text(value, name)

    # -- cases -------------------------------------------------------------------------------------------------------------

    def expected(self, node: Any) -> Expected:
        if isinstance(node, yaml.ScalarNode):
            return Expected(self.text(node, "expect", DECISIONS))
        given = self.fields(node, "expect", ("decision", "layer", "policy", "statement"), ("decision",))
        policy = self.text(given["policy"], "policy") if "policy" in given else ""
        if policy and policy not in self.sources:
            raise self.fault(given["policy"], f"no policy is named `{policy}`")
        return Expected(
            self.text(given["decision"], "decision", DECISIONS),
            self.text(given["layer"], "layer", LAYERS) if "layer" in given else "",
            policy,
            self.text(given["statement"], "statement") if "statement" in given else "",
        )

    def case(self, node: Any, defaults: dict[str, Any]) -> Iterator[Case]:
        own = self.fields(node, "a case", (*_CASE, "name", "expect"), ("expect",))
        given = {**defaults, **own}
        live = "live" in given and self.text(given["live"], "live", ("true", "false")) == "true"
        for name in ("principal", "action"):
            if name not in given:
                raise self.fault(node, f"a case needs `{name}`")
        if live and "policies" in own:
            raise self.fault(own["policies"], "a live case is decided by the platform's policies; it takes none here")
        who = self.principal(given["principal"])
        actions = self.texts(given["action"], "action")
        for action in actions:
            if not re.fullmatch(r"[A-Za-z0-9-]+:[A-Za-z0-9]+", action):
                raise self.fault(given["action"], f"`{action}` is no action; actions have no wildcards here")
        resources = self.texts(given["resource"], "resource") if "resource" in given else ("*",)
        expected = self.expected(given["expect"])
        line = node.start_mark.line + 1
        title = self.text(own["name"], "name") if "name" in own else ""
        for action, resource in product(actions, resources):
            account = self.owner(given, resource)
            keys: dict[str, Value] = _of_principal(who)
            if account or who.account:
                keys["aws:resourceaccount"] = account or who.account or ""
            for part in (defaults.get("context"), own.get("context")):
                if part is not None:
                    self.context(part, keys)
            layers = self.layers(given, action)
            several = len(actions) * len(resources) > 1
            name = f"{title} [{action}]" if title and several else title or f"{action} on {resource}"
            if title and len(resources) > 1:
                name = f"{title} [{action} {resource}]"
            yield Case(name, line, Request(who, action, resource, account, keys), layers, expected, live)

    def owner(self, given: dict[str, Any], resource: str) -> str | None:
        if "resource_account" in given:
            return self.text(given["resource_account"], "resource_account")
        try:
            return Arn.parse(resource).account or None
        except ValueError:
            return None

    def layers(self, given: dict[str, Any], action: str) -> Layers:
        held: dict[str, Any] = {}
        if "policies" in given:
            held = self.fields(given["policies"], "policies of a case", tuple(_LAYER_FORMS))
        kind = {"kms": "key", "sts": "trust"}.get(action.partition(":")[0].lower(), "")
        if "resource_kind" in given:
            kind = self.text(given["resource_kind"], "resource_kind", ("none", "key", "trust")).replace("none", "")

        def several(name: str, form: Form) -> tuple[Attached, ...]:
            return self.policies(held[name], form) if name in held else ()

        def single(name: str, form: Form) -> Attached | None:
            return self.policy(held[name], form) if name in held else None

        return Layers(
            identity=several("identity", Form.IDENTITY),
            boundary=single("boundary", Form.BOUNDARY),
            session=several("session", Form.SESSION) if "session" in held else None,
            resource=single("resource", {"key": Form.KEY, "trust": Form.TRUST}.get(kind, Form.RESOURCE)),
            scps=self.levels(held["scps"], Form.SCP) if "scps" in held else (),
            rcps=self.levels(held["rcps"], Form.RCP) if "rcps" in held else (),
            endpoint=single("endpoint", Form.ENDPOINT),
            resource_kind=kind if "resource" in held else "",
            grants=several("grants", Form.KEY),
        )


_CASE: Final = ("principal", "action", "resource", "resource_account", "resource_kind", "context", "policies", "live")
_LAYER_FORMS: Final = ("identity", "boundary", "session", "resource", "scps", "rcps", "endpoint", "grants")
_TYPES: Final = {"AssumedRole": "AssumedRole", "Root": "Account", "Service": "AWSService", "Federated": "FederatedUser"}


def _of_principal(who: Principal) -> dict[str, Value]:
    """Keys that follow from who asks, and that it asks by itself over TLS; `context` of a case overrides them."""
    service = who.kind == "Service"
    keys: dict[str, Value] = {
        "aws:principaltype": _TYPES.get(who.kind, who.kind),
        "aws:principalisawsservice": "true" if service else "false",
        "aws:viaawsservice": "false",
        "aws:securetransport": "true",
    }
    if service:
        keys["aws:principalservicename"] = who.arn
    elif who.account is not None:
        keys["aws:principalarn"] = who.arn if who.kind == "FederatedUser" else who.principal_arn or who.arn
        keys["aws:principalaccount"] = who.account
        if who.kind == "User":
            keys["aws:username"] = who.arn.rpartition("/")[2]
    return keys


def read(path: Path) -> CaseFile:
    """Reads a file of cases.

    Raises Faulty, whose message names the file and the line, and Skipped if what the file `needs` is not there.
    """
    try:
        return _read(path)
    except RecursionError:
        raise Faulty(f"{path}:1: the file is nested too deeply") from None


def _read(path: Path) -> CaseFile:
    reader = _Reader(path)
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise Faulty(f"{path}:1: cannot be read: {error}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        raise Faulty(f"{path}:{line}: no YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise Faulty(f"{path}:1: no YAML: {error}") from None
    if root is None:
        raise Faulty(f"{path}:1: the file is empty")
    whole = reader.fields(
        root,
        "a file of cases",
        ("description", "needs", "values", "policies", "coverage", "defaults", "cases"),
        ("cases",),
    )
    if "needs" in whole:
        for one in reader.texts(whole["needs"], "needs"):
            if not reader.located(one, whole["needs"]).exists():
                raise Skipped(f"{path} needs {reader.located(one, whole['needs'])}, which is not there")
    if "values" in whole:
        for name, key, value in reader.pairs(whole["values"], "values"):
            if not re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
                raise reader.fault(key, f"`{name}` is no placeholder: these are written <UPPER_CASE>")
            reader.values[name] = reader.text(value, name)
    reader.sources.update({name: (document, None) for name, document in BUILT_IN.items()})
    if "policies" in whole:
        for name, key, value in reader.pairs(whole["policies"], "policies"):
            if name in BUILT_IN:
                raise reader.fault(key, f"`{name}` is there already")
            reader.sources[name] = (reader.source(value), key)
    coverage = reader.text(whole["coverage"], "coverage", COVERAGES) if "coverage" in whole else "off"
    defaults = reader.fields(whole["defaults"], "defaults", _CASE) if "defaults" in whole else {}
    cases = [case for node in reader.listed(whole["cases"], "cases") for case in reader.case(node, defaults)]
    documents: dict[str, tuple[Attached, ...]] = {}
    for (name, _), attached in reader.parsed.items():
        if name not in BUILT_IN:
            documents[name] = (*documents.get(name, ()), attached)
    unused = tuple(name for name in reader.sources if name not in BUILT_IN and name not in documents)
    return CaseFile(path, tuple(cases), documents, unused, coverage)
