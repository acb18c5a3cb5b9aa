"""The questions people ask, in terms of the search.

Source: IAM User Guide, "IAM Access Analyzer custom policy checks", for the three that Access Analyzer asks, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any, Final

from bastide.domain import Refused
from bastide.policy.conditions import Condition
from bastide.policy.decide import Attached, Layers
from bastide.policy.documents import Document, Form
from bastide.policy.faults import malformed
from bastide.policy.nearest import written
from bastide.policy.principals import Principal
from bastide.policy.prove.search import SECONDS, Proof, Scope, Situation, search

_ALL: Final = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}
EVERYTHING: Final = Attached(Document.parse(_ALL, Form.IDENTITY), "everything")
_OWNER: Final = "000000000000"
"""The account that stands for a resource's own; no real one has this number."""
_STRANGER: Final = "999999999999"


def may(situations: Iterable[Situation], actions: Sequence[str], resources: Sequence[str] | None, **more: Any) -> Proof:
    """Whether anybody may do one of the actions: refuted shows who and how, proved says nobody can."""
    return search(situations, Scope(tuple(actions), None if resources is None else tuple(resources)), **more)


def no_more_permissive(new: Document, old: Document, *, scope: Scope | None = None, **more: Any) -> Proof:
    """Whether everything that the new document allows is allowed by the old one."""
    if _unnamed_accounts((new, old)):
        return _CANONICAL
    return search(_compared(new, old), scope or Scope(), **more)


def not_granted(document: Document, actions: Sequence[str], resources: Sequence[str] | None, **more: Any) -> Proof:
    """Whether the document allows nobody any of the actions on any of the resources, both without wildcards' help:
    patterns stand for all that they match."""
    if _unnamed_accounts((document,)):
        return _CANONICAL
    scope = Scope(tuple(actions) or None, None if resources is None else tuple(resources))
    return search(_compared(document, None), scope, **more)


def not_public(document: Document, **more: Any) -> Proof:
    """Whether a resource's policy gives nothing to everybody: to nobody in particular, or to any account.

    An Allow that a condition ties to fixed values of where or who (`TRUSTED`) gives nothing to everybody. Elsewhere those
    keys are absent, as they are for a stranger, unless an Allow compares them with values that are not fixed: wildcards,
    variables, wide ranges of addresses.
    Source: IAM User Guide, "CheckNoPublicAccess"; Amazon S3 User Guide, "The meaning of public".
    """
    role = f"arn:aws:iam::{_STRANGER}:role/stranger"
    stranger = Principal("AssumedRole", _STRANGER, f"arn:aws:sts::{_STRANGER}:assumed-role/stranger/s", role)
    held = {
        one.index
        for one in document.statements
        if not one.deny and any(_names_somebody(each) and _is_fixed(each) for each in one.conditions)
    }
    loose = {
        each.key.lower()
        for one in document.statements
        if not one.deny and one.index not in held
        for each in one.conditions
        if _names_somebody(each)
    }
    for one in document.statements:
        # What a stranger's own keys are put in for is no fixed value either.
        texts = [*(one.resources or ()), *(text for each in one.conditions for text in each.wanted)]
        if not one.deny and one.index not in held:
            loose |= {key.strip().lower() for text in texts for key in re.findall(r"\$\{([^,}]+)", text)}
    kind = _kind(document)
    public = _without(document, held)
    situations = [_situation(who, public, None, kind) for who in (Principal("Anonymous", None, ""), stranger)]
    scope = Scope(context={key: None for key in TRUSTED if key not in loose})
    return search(situations, scope, **more)


_POSITIVE: Final = frozenset(
    {"StringEquals", "StringEqualsIgnoreCase", "StringLike", "ArnEquals", "ArnLike", "IpAddress"}
)
_WIDEST: Final = {4: 8, 6: 32}


def _names_somebody(condition: Condition) -> bool:
    operator = condition.operator.removeprefix("ForAnyValue:")
    return operator in _POSITIVE and condition.key.lower() in TRUSTED


def _is_fixed(condition: Condition) -> bool:
    """Whether all values of a condition are fixed: no wildcard, no variable, no range so wide that it is anywhere."""
    for text in condition.wanted:
        if any(char in text for char in "*?$"):
            return False
        if condition.operator.endswith("IpAddress"):
            network = ip_network(text, strict=False)
            if network.prefixlen < _WIDEST[network.version]:
                return False
    return True


def _without(document: Document, numbers: set[int]) -> Document:
    """The document with some statements made to match nothing; the others keep their places."""
    statements = []
    for one in document.statements:
        source = written(one)
        if one.index in numbers:
            source.pop("NotAction", None)
            source["Action"] = "sts:Nothing"
        statements.append(source)
    return Document.parse({"Version": document.version, "Statement": statements}, document.form)


TRUSTED: Final = (
    "aws:principalorgid", "aws:principalorgpaths", "aws:principalaccount", "aws:principalarn", "aws:sourceaccount",
    "aws:sourcearn", "aws:sourceorgid", "aws:sourceorgpaths", "aws:sourcevpc", "aws:sourcevpce", "aws:vpcsourceip",
    "aws:sourceip", "aws:userid", "aws:username", "aws:vpceaccount", "aws:vpceorgid", "aws:vpceorgpaths",
    "s3:dataaccesspointarn", "s3:dataaccesspointaccount", "kms:calleraccount", "kms:viaservice",
)  # fmt: skip
"""Keys whose fixed values keep access from being public (Amazon S3 User Guide, "The meaning of public")."""


# Comparing documents


def _kind(document: Document) -> str:
    return {Form.KEY: "key", Form.TRUST: "trust"}.get(document.form, "")


def _compared(new: Document, old: Document | None) -> Iterator[Situation]:
    """Every kind of principal that either document can tell from the others."""
    if new.form not in (Form.RESOURCE, Form.KEY, Form.TRUST, Form.ENDPOINT):
        who = Principal("User", _OWNER, f"arn:aws:iam::{_OWNER}:user/somebody")
        none = None if old is None else Layers((Attached(old, "the old policy"),), None, None, None, (), ())
        yield Situation(
            "the policy", who, Layers((Attached(new, "the new policy"),), None, None, None, (), ()), None, none
        )
        return
    kind = _kind(new)
    for who in told_apart([new, *([old] if old is not None else [])]):
        yield _situation(who, new, old, kind)


def _situation(who: Principal, new: Document, old: Document | None, kind: str) -> Situation:
    """A principal that may do everything by its own policies and asks from outside: only the document decides."""

    def layers(document: Document, name: str) -> Layers:
        return Layers((EVERYTHING,), None, None, Attached(document, name), (), (), resource_kind=kind)

    name = who.principal_arn or who.arn or "anybody"
    beside = None if old is None else layers(old, "the old policy")
    return Situation(name, who, layers(new, "the new policy"), _OWNER, beside)


def told_apart(documents: Sequence[Document]) -> list[Principal]:
    """One principal of each kind that the Principal elements can tell apart: those named, others of their accounts, and
    strangers."""
    accounts: set[str] = set()
    found: dict[tuple[str, str, str], Principal] = {}

    def add(who: Principal) -> None:
        found.setdefault((who.kind, who.arn, who.principal_arn), who)

    ids: set[str] = set()
    add(Principal("Anonymous", None, ""))
    add(Principal("Service", None, "unknown.amazonaws.com"))
    add(Principal("Federated", None, "unknown.example.com"))
    for document in documents:
        for statement in document.statements:
            element = statement.principals
            if not isinstance(element, Mapping):
                continue
            for service in element.get("Service", ()):
                add(Principal("Service", None, service))
            for provider in element.get("Federated", ()):
                add(Principal("Federated", None, provider))
            for name in element.get("AWS", ()):
                if name.startswith(("AIDA", "AROA")):
                    ids.add(name)
                else:
                    accounts |= _named(name, add)
    for account in sorted({*accounts, _STRANGER}):
        _anybody_of(account, add)
        for id in sorted(ids):
            arn = f"arn:aws:iam::{account}:"
            if id.startswith("AIDA"):
                add(Principal("User", account, f"{arn}user/{id}", f"{arn}user/{id}", id))
            else:
                session = f"arn:aws:sts::{account}:assumed-role/{id}/any-session"
                add(Principal("AssumedRole", account, session, f"{arn}role/{id}", f"{id}:any-session"))
    return list(found.values())


def _unnamed_accounts(documents: Sequence[Document]) -> bool:
    """Whether a Principal element names accounts by canonical user ids, from which no account can be told."""
    return any(
        isinstance(one.principals, Mapping) and "CanonicalUser" in one.principals
        for document in documents
        for one in document.statements
    )


_CANONICAL: Final = Proof("not proved", "a canonical user id stands for an account that it does not tell")


def _named(name: str, add: Any) -> set[str]:
    if name == "*":
        return set()
    if not name.startswith("arn:"):
        return {name}
    parts = name.split(":", 5)
    account, (kind, _, rest) = parts[4], parts[5].partition("/")
    if kind == "user":
        add(Principal("User", account, name, name))
    elif kind == "role":
        short = rest.rpartition("/")[2]
        add(Principal("AssumedRole", account, f"arn:aws:sts::{account}:assumed-role/{short}/any-session", name))
    elif kind == "assumed-role":
        role = rest.partition("/")[0]
        add(Principal("AssumedRole", account, name, f"arn:aws:iam::{account}:role/{role}"))
        add(Principal("AssumedRole", account, name, f"arn:aws:iam::{account}:role/some/path/{role}"))
    elif kind == "federated-user":
        add(Principal("FederatedUser", account, name, f"arn:aws:iam::{account}:user/any-user"))
    return {account}


def _anybody_of(account: str, add: Any) -> None:
    add(Principal("Root", account, f"arn:aws:iam::{account}:root", f"arn:aws:iam::{account}:root"))
    user = f"arn:aws:iam::{account}:user/any-user"
    add(Principal("User", account, user, user))
    role = f"arn:aws:iam::{account}:role/any-role"
    add(Principal("AssumedRole", account, f"arn:aws:sts::{account}:assumed-role/any-role/any-session", role))


# Guardrails


@dataclass(frozen=True, slots=True)
class Guardrail:
    """A claim about all requests of a scope: under these policies none of them is allowed.

    situations: the policies, for each principal that the claim is about.
    """

    name: str
    scope: Scope
    situations: tuple[Situation, ...] = field(default=())


def guardrail_of(
    source: Mapping[str, Any], guard: Layers, principal: Principal | None = None, name: str = "the guardrail"
) -> Guardrail:
    """A guardrail from what was read from JSON or YAML: ``actions``, ``resources``, ``when``, ``unless``, ``context``.

    guard: the policies that guard; whoever asks may do everything else.
    Raises Refused (MalformedPolicyDocument) for what it does not know.
    """
    known = ("actions", "resources", "when", "unless", "context", "description")
    for member in source:
        if member not in known:
            raise malformed(str(member), f"a guardrail has no such member; it knows {', '.join(known)}")
    scope = Scope(
        _patterns(source.get("actions"), "actions"),
        _patterns(source.get("resources"), "resources"),
        source.get("when") or {},
        source.get("unless") or {},
        {
            str(key).lower(): tuple(map(str, one))
            if isinstance(one, (list, tuple))
            else None
            if one is None
            else str(one)
            for key, one in (source.get("context") or {}).items()
        },
    )
    try:
        scope.documents()
    except (AttributeError, TypeError):
        raise Refused("MalformedPolicyDocument", "when and unless are Condition elements") from None
    who = principal or Principal("User", _OWNER, f"arn:aws:iam::{_OWNER}:user/administrator")
    layers = Layers(
        guard.identity or (EVERYTHING,),
        guard.boundary,
        guard.session,
        guard.resource,
        guard.scps,
        guard.rcps,
        guard.endpoint,
        guard.resource_kind,
        guard.grants,
    )
    return Guardrail(name, scope, (Situation(name, who, layers, who.account),))


def _patterns(value: Any, name: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, (list, tuple)) or not found or not all(isinstance(one, str) for one in found):
        raise malformed(name, "a text or a list of texts is needed")
    return tuple(found)


def guardrail_holds(guardrail: Guardrail, *, seconds: float = SECONDS, known_actions: Iterable[str] = ()) -> Proof:
    """Whether a guardrail holds for all requests."""
    return search(guardrail.situations, guardrail.scope, seconds=seconds, known_actions=known_actions)
