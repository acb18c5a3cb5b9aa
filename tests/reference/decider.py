"""A decider of IAM requests written straight from the documentation: slow, without cleverness, and independent.

It reads raw JSON documents at every decision and shares nothing with the engine. The engine is held against it on
generated policies. Each function quotes or names the page of the IAM User Guide that it follows. Refusals of documents
are not its business: it is given valid ones.
"""

from __future__ import annotations

import base64
import ipaddress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

Json = dict[str, Any]


@dataclass
class Question:
    """A request and the policies in force, as raw JSON.

    kind: User, AssumedRole, FederatedUser, Role, Root, Service, Federated or Anonymous. arn: "" for Anonymous, a service's
    name. role: the role's ARN for a session, the user's for a federated user. id: AIDA..., AROA...:session. canonical: the
    canonical user id of the account. resource_kind: "", "key" or "trust". grants: of a key, as policies.
    """

    kind: str
    account: str | None
    arn: str
    action: str
    resource: str
    resource_account: str | None
    context: dict[str, str | list[str]]
    role: str = ""
    identity: list[Json] = field(default_factory=list)
    boundary: Json | None = None
    session: list[Json] | None = None
    resource_policy: Json | None = None
    scps: list[list[Json]] = field(default_factory=list)
    rcps: list[list[Json]] = field(default_factory=list)
    endpoint: Json | None = None
    resource_kind: str = ""
    grants: list[Json] = field(default_factory=list)
    id: str = ""
    canonical: str = ""


def verdict(question: Question) -> str:
    """Allowed, ImplicitlyDenied or ExplicitlyDenied. Pages: "Policy evaluation logic" and the pages below it."""
    every = [*question.identity, *(question.session or [])]
    every += [policy for levels in (question.scps, question.rcps) for level in levels for policy in level]
    every += [policy for policy in (question.boundary, question.resource_policy, question.endpoint) if policy]
    # "An explicit deny in any of these policies overrides the allow."
    if any(
        statement["Effect"] == "Deny" and applies(question, policy, statement) for policy, statement in _pairs(every)
    ):
        return "ExplicitlyDenied"

    # SCPs: "there must be an explicit Allow statement at every level from the root through each OU".
    for level in question.scps:
        if not _allows(question, level):
            return "ImplicitlyDenied"
    if question.endpoint is not None and not _allows(question, [question.endpoint]):
        return "ImplicitlyDenied"
    return "Allowed" if _granted(question) else "ImplicitlyDenied"


def _granted(question: Question) -> bool:
    # "Grants: a grant is a policy instrument" that allows beside the key policy. A service-linked role of another account,
    # whose own policies say nothing of KMS, uses a key by its grant (EC2 Auto Scaling User Guide, on encrypted volumes).
    granted = _ways(question, question.grants)
    ways = _ways(question, [one for one in (question.resource_policy, *question.grants) if one])
    if question.kind == "Anonymous" and question.resource_kind in ("key", "trust"):
        return False  # KMS and STS AssumeRole take signed requests only.
    if question.kind in ("Service", "Federated", "Anonymous"):
        return bool(ways)
    identity = question.kind == "Root" or _allows(question, question.identity)
    boundary = question.boundary is None or _allows(question, [question.boundary])
    session = question.session is None or _allows(question, question.session)
    if question.kind == "FederatedUser" and question.session is None:
        # "If you do not pass a policy, the resulting federated user session has no permissions", but for what a
        # resource-based policy grants to the session itself.
        session = False
    if question.resource_account not in (None, question.account):
        if "direct" in granted or ("role" in granted and boundary and session):
            return True
        # "Cross-account: the request must be allowed by both."
        return bool(ways) and identity and boundary and session
    if "direct" in ways:
        # "not limited by an implicit deny in an identity-based policy, a permissions boundary, or session policy"
        return True
    if "role" in ways:
        # "grant permissions to an IAM role ARN are limited by an implicit deny in a permissions boundary or session policy"
        return boundary and session
    if question.resource_kind in ("key", "trust") and not ways:
        # "Unless the key policy explicitly allows it, you cannot use IAM policies to allow access to a KMS key."
        return False
    return identity and boundary and session


def _pairs(policies: list[Json]) -> list[tuple[Json, Json]]:
    return [(policy, statement) for policy in policies for statement in _list(policy["Statement"])]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _allows(question: Question, policies: list[Json]) -> bool:
    return any(
        statement["Effect"] == "Allow" and applies(question, policy, statement)
        for policy, statement in _pairs(policies)
    )


def _ways(question: Question, policies: list[Json]) -> set[str]:
    ways: set[str] = set()
    for policy, statement in _pairs(policies):
        if statement["Effect"] == "Allow" and applies(question, policy, statement):
            ways |= ways_named(question, statement)
    return ways


def applies(question: Question, policy: Json, statement: Json) -> bool:
    """Whether all elements of a statement match."""
    return (
        _principal_matches(question, policy, statement)
        and _action_matches(question, statement)
        and _resource_matches(question, policy, statement)
        and _conditions_match(question, policy, statement)
    )


# Principals: "AWS JSON policy elements: Principal"


def ways_named(question: Question, statement: Json) -> set[str]:
    """In which ways a statement's Principal names the caller: direct, role, account."""
    if "NotPrincipal" in statement:
        return {"direct"}
    element = statement["Principal"]
    ways: set[str] = set()
    for kind, name in _names(element):
        if kind == "AWS" and name == "*":
            ways.add("direct")
        elif kind == "Service":
            if question.kind == "Service" and name == question.arn:
                ways.add("direct")
        elif kind == "Federated":
            if question.kind == "Federated" and name == question.arn:
                ways.add("direct")
        elif kind == "CanonicalUser":
            # "A canonical user ID is an identifier for an account."
            if question.account and name == question.canonical:
                ways.add("account")
        elif question.kind in ("User", "AssumedRole", "FederatedUser", "Role", "Root"):
            if name in (question.account, f"arn:aws:iam::{question.account}:root"):
                ways.add("account")
            elif question.kind != "Role" and name == question.arn:
                ways.add("direct")
            elif name == (question.role or question.arn):
                ways.add("role")
            elif question.id and name == question.id.split(":")[0]:
                ways.add("direct" if question.kind == "User" else "role")
    return ways


def _names(element: Any) -> list[tuple[str, str]]:
    if element == "*":
        return [("AWS", "*")]
    return [(kind, name) for kind, names in element.items() for name in _list(names)]


def _principal_matches(question: Question, policy: Json, statement: Json) -> bool:
    if "Principal" in statement:
        if question.kind == "Federated" and statement["Effect"] == "Allow" and policy is not question.endpoint:
            # Whom a foreign provider asserts is trusted only where that provider is named.
            return ("Federated", question.arn) in _names(statement["Principal"])
        return bool(ways_named(question, statement))
    if "NotPrincipal" not in statement:
        return True
    element = statement["NotPrincipal"]
    listed = {name for _, name in _names(element)}
    account = {f"arn:aws:iam::{question.account}:root", question.account} & listed
    if question.account and question.canonical in listed:
        account.add(question.canonical)
    if statement["Effect"] == "Allow":
        mine = {question.arn, question.role, question.id.split(":")[0]} & listed
        foreign = question.kind == "Federated" and policy is not question.endpoint
        return not (foreign or "*" in listed or account or mine)
    # Deny: "you must also specify the account ARN of the not-denied principal"; for sessions also the role.
    if "*" in listed:
        return False
    if question.kind in ("Service", "Federated", "Anonymous"):
        kind = {"Service": "Service", "Federated": "Federated"}.get(question.kind)
        return (kind, question.arn) not in _names(element)
    # "will always deny any IAM principal that has a permissions boundary policy attached"
    if question.boundary is not None:
        return True
    if question.kind == "Root":
        return not account
    forms = {question.arn} | ({question.role} if question.kind in ("AssumedRole", "FederatedUser") else set())
    return not (account and forms <= listed)


# Actions and resources


def _action_matches(question: Question, statement: Json) -> bool:
    negated = "NotAction" in statement
    patterns = _list(statement["NotAction" if negated else "Action"])
    return any(like(question.action.lower(), plain(pattern.lower())) for pattern in patterns) is not negated


def _resource_matches(question: Question, policy: Json, statement: Json) -> bool:
    if "Resource" not in statement and "NotResource" not in statement:
        return True
    negated = "NotResource" in statement
    patterns = _list(statement["NotResource" if negated else "Resource"])
    return any(_resource_like(question, policy, pattern) for pattern in patterns) is not negated


def _resource_like(question: Question, policy: Json, pattern: str) -> bool:
    if pattern == "*":
        return True
    wanted = _arn_parts(pattern, policy)
    wanted += ["*"] * (6 - len(wanted))
    found = question.resource.split(":", 5)
    if len(found) != 6:
        return False
    return all(_substituted_like(text, part, question, policy) for text, part in zip(found, wanted, strict=True))


def _arn_parts(pattern: str, policy: Json) -> list[str]:
    """Cuts at the first five colons that stand outside a variable.

    In the old version "variables such as ${aws:username} aren't recognized as variables and are instead treated as literal
    strings" ("IAM JSON policy elements: Version"), and the colon in such a string is a colon like any other.
    """
    variables = policy.get("Version", "2008-10-17") == "2012-10-17"
    parts, inside = [""], False
    for index, char in enumerate(pattern):
        inside = (inside or (variables and pattern.startswith("${", index))) and char != "}"
        if char == ":" and not inside and len(parts) < 6:
            parts.append("")
        else:
            parts[-1] += char
    return parts


def _substituted_like(text: str, pattern: str, question: Question, policy: Json) -> bool:
    tokens = substituted(pattern, question, policy)
    return tokens is not None and like(text, tokens)


# Wildcards and variables: "IAM policy elements: Variables and tags"

Token = tuple[str, bool]
"""A character, and whether it is a wildcard."""


def plain(pattern: str, wildcards: bool = True) -> list[Token]:
    """A pattern without variables."""
    return [(char, wildcards and char in "*?") for char in pattern]


def substituted(pattern: str, question: Question, policy: Json, wildcards: bool = True) -> list[Token] | None:
    """The pattern with its variables replaced by literal characters; None if one has no value."""
    if policy.get("Version", "2008-10-17") != "2012-10-17":
        return plain(pattern, wildcards)
    tokens: list[Token] = []
    rest = pattern
    while rest:
        if not rest.startswith("${"):
            tokens += plain(rest[0], wildcards)
            rest = rest[1:]
            continue
        inside, rest = rest[2:].split("}", 1)
        if inside in ("*", "?", "$"):
            tokens += plain(inside, wildcards=False)
            continue
        name, *default = inside.split(",", 1)
        value = lookup(question, name.strip())
        if not isinstance(value, str):
            if not default:
                return None
            value = default[0].strip()[1:-1]
        tokens += plain(value, wildcards=False)
    return tokens


def like(text: str, tokens: list[Token]) -> bool:
    """Dynamic programming over prefixes: reached[i] says that the tokens so far match the first i characters."""
    reached = [True] + [False] * len(text)
    for char, wild in tokens:
        if wild and char == "*":
            for index in range(1, len(reached)):
                reached[index] = reached[index] or reached[index - 1]
        else:
            reached = [False] + [
                reached[index] and ((wild and char == "?") or text[index] == char) for index in range(len(text))
            ]
    return reached[-1]


def lookup(question: Question, key: str) -> str | list[str] | None:
    """Condition key names are not case-sensitive."""
    for name, value in question.context.items():
        if name.lower() == key.lower():
            return value
    return None


# Conditions: "IAM JSON policy elements: Condition operators"


def _conditions_match(question: Question, policy: Json, statement: Json) -> bool:
    return all(
        _condition_matches(question, policy, statement["Effect"], operator, key, [str(one) for one in _list(wanted)])
        for operator, block in statement.get("Condition", {}).items()
        for key, wanted in block.items()
    )


def _condition_matches(
    question: Question, policy: Json, effect: str, operator: str, key: str, wanted: list[str]
) -> bool:
    value = lookup(question, key)
    if operator == "Null":
        missing = value is None or value == []
        return any((one.lower() == "true") is missing for one in wanted)
    quantifier, _, name = operator.rpartition(":")
    if_exists = name.endswith("IfExists")
    name = name.removesuffix("IfExists")
    negated = "Not" in name
    name = name.replace("Not", "")

    def holds(one: str) -> bool:
        return any(_compare(name, one, other, question, policy) for other in wanted) is not negated

    if quantifier:
        values = [] if value in (None, "", [""]) else _list(value)
        if quantifier == "ForAllValues":
            return all(holds(one) for one in values)
        return any(holds(one) for one in values) if value is not None else if_exists
    if value is None or value == []:
        return negated or if_exists
    answers = [holds(one) for one in _list(value)]
    return all(answers) if effect == "Allow" else any(answers)


def _compare(name: str, value: str, wanted: str, question: Question, policy: Json) -> bool:
    if name in ("StringEquals", "StringEqualsIgnoreCase", "Bool"):
        tokens = substituted(wanted, question, policy, wildcards=False)
        if tokens is None:
            return False
        text = "".join(char for char, _ in tokens)
        return value == text if name == "StringEquals" else value.lower() == text.lower()
    if name == "StringLike":
        return _substituted_like(value, wanted, question, policy)
    if name in ("ArnEquals", "ArnLike"):
        parts, found = _arn_parts(wanted, policy), value.split(":", 5)
        if len(found) != 6:
            return False
        parts += ["*"] * (6 - len(parts))
        return all(_substituted_like(one, part, question, policy) for one, part in zip(found, parts, strict=True))
    if name == "IpAddress":
        try:
            return _as_six(value).network_address in _as_six(wanted)
        except ValueError:
            return False
    if name == "BinaryEquals":
        return base64.b64decode(value) == base64.b64decode(wanted)
    if name.startswith("Numeric"):
        try:
            return _order(name.removeprefix("Numeric"), Decimal(value), Decimal(wanted))
        except InvalidOperation:
            return False
    return _order(name.removeprefix("Date"), _moment(value), _moment(wanted))


def _as_six(text: str) -> ipaddress.IPv6Network:
    """An address or a range in IPv6, where IPv4 has its place below ::ffff:0:0/96; wider IPv6 ranges do not reach it."""
    network = ipaddress.ip_network(text, strict=False)
    if isinstance(network, ipaddress.IPv4Network):
        return ipaddress.IPv6Network((f"::ffff:{network.network_address}", network.prefixlen + 96))
    mapped = ipaddress.IPv6Network("::ffff:0:0/96")
    if network.overlaps(mapped) and not network.subnet_of(mapped):
        raise ValueError("not asked here")
    return network


def _moment(text: str) -> Decimal:
    if text.isdigit():
        return Decimal(text)
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return Decimal(str(moment.timestamp()))


def _order(order: str, value: Decimal, wanted: Decimal) -> bool:
    return {
        "Equals": value == wanted,
        "LessThan": value < wanted,
        "LessThanEquals": value <= wanted,
        "GreaterThan": value > wanted,
        "GreaterThanEquals": value >= wanted,
    }[order]
