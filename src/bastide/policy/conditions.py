"""The condition operators.

Source: IAM User Guide, "IAM JSON policy elements: Condition operators" and "Set operators for multivalued context
keys". What is written here once:

- several operators and several keys are ANDed, several values ORed; under a negated operator (``...Not...``) no value
  may match;
- a missing key makes an operator false, a negated one true, and one with ``IfExists`` true;
- ``ForAllValues`` is true on a missing key or a null data set (no value, or one empty text); ``ForAnyValue`` is false;
- context keys are looked up without regard to case, values are compared as they are;
- a request value that is not of the operator's type matches nothing.

AWS leaves open what an operator without set operator does on a key with several values. Here every value has to meet
the condition of an Allow, and one is enough for a Deny: both err on the side of refusing.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from operator import ge, gt, le, lt
from typing import Any, Final

from bastide.domain import Refused
from bastide.policy.faults import malformed, shown
from bastide.policy.matching import ARN_PARTS, Test, any_of, arn_pattern, pattern
from bastide.policy.variables import (
    Context,
    Template,
    Value,
    Wild,
    has_variables,
    literal_of,
    resolve,
    segments,
    template,
)

Held = Callable[[Context], bool]
"""Whether a condition holds in a request context."""

Entry = tuple[bool, str]
"""A text that a value has to begin with (True) or to be (False)."""


@dataclass(frozen=True, slots=True)
class Matcher:
    """What one operator makes of the policy's values, negation left out.

    test: whether one request value matches any of them. The rest is for those who index and compile, None where there is
    nothing to say. exact: the test is that the value, in lower case if `folded`, is one of these. entries: no value
    matches that answers to none of these. order: the test is that what is read off the value stands so to a number.
    templates: the test is that the value matches one of these, which have no variables; arns: matches one as an ARN.
    ranges: the test is that the number of the address (see `address_number`) lies in one of these.
    """

    test: Test
    exact: frozenset[str] | None = None
    folded: bool = False
    entries: tuple[Entry, ...] | None = None
    order: tuple[Callable[[str], Decimal | None], str, Any] | None = None
    templates: tuple[Template, ...] | None = None
    arns: tuple[Template, ...] | None = None
    ranges: tuple[tuple[int, int], ...] | None = None


_FOR_ALL: Final = "ForAllValues:"
_FOR_ANY: Final = "ForAnyValue:"
_IF_EXISTS: Final = "IfExists"
_SHARED: Final = 32
"""Values up to which equal conditions of many statements are made once."""
_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*:[!-.0-9;-~]+(?:[/:][^\x00-\x1f]+)?")
"""What follows a further slash or colon is often the key of a tag or of an encryption context, in any script; the names
before it are AWS's own, in ASCII."""


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """One key under one operator: as written (for explanations), and as a test."""

    operator: str
    key: str
    wanted: tuple[str, ...]
    holds: Held
    name: str
    """The key in lower case."""
    matcher: Matcher | None = None
    """None for Null."""
    negated: bool = False
    needed: bool = False
    """The condition holds only if a value of the key matches: no negation, no IfExists, no ForAllValues."""
    single: bool = False
    """On a key with one value the condition is the matcher's test, or with `negated` its opposite."""
    missing: bool = False
    """What the condition is when the key is missing."""

    def seen(self, context: Context) -> Value | None:
        """The request's value of the key; None if the key is missing."""
        return context.get(self.name)


def condition(
    operator: str, key: str, wanted: tuple[str, ...], place: str, *, deny: bool, variables: bool
) -> Condition:
    """Compiles one key under one operator; equal conditions are one object.

    deny: the statement's effect is Deny. variables: the document's version has policy variables.
    Raises Refused (MalformedPolicyDocument) for an operator, key or value that is not known.
    """
    if len(wanted) > _SHARED:
        return _condition(operator, key, wanted, place, deny, variables)
    try:
        return _shared(operator, key, wanted, deny, variables)
    except Refused:
        return _condition(operator, key, wanted, place, deny, variables)  # raises again, and names the place


@lru_cache(maxsize=8192)
def _shared(operator: str, key: str, wanted: tuple[str, ...], deny: bool, variables: bool) -> Condition:
    return _condition(operator, key, wanted, "", deny, variables)


def _condition(operator: str, key: str, wanted: tuple[str, ...], place: str, deny: bool, variables: bool) -> Condition:
    base, quantifier, if_exists = operator, "", False
    for prefix in (_FOR_ALL, _FOR_ANY):
        if base.startswith(prefix):
            base, quantifier = base[len(prefix) :], prefix
            break
    if base.endswith(_IF_EXISTS):
        base, if_exists = base[: -len(_IF_EXISTS)], True
    if not _KEY.fullmatch(key):
        raise malformed(
            place, f"Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.: {shown(key)}"
        )
    if not wanted:
        raise malformed(place, "A condition must have at least one value")
    name = key.lower()
    if base == "Null" and not quantifier and not if_exists:
        return Condition(operator, key, wanted, _null(name, wanted, place), name)
    family = _FAMILIES.get(base)
    if family is None:
        raise malformed(place, f"Invalid Condition type : {shown(operator)}")
    compare, negated = family
    matcher = compare(base, wanted, place, variables)
    if quantifier == _FOR_ALL:
        holds = _for_all(name, matcher.test, negated)
    elif quantifier == _FOR_ANY:
        holds = _for_any(name, matcher.test, negated, if_exists)
    else:
        holds = _single(name, matcher, negated, if_exists, deny)
    needed = not negated and not if_exists and quantifier != _FOR_ALL
    if not needed and matcher.entries is not None:
        matcher = replace(matcher, entries=None)  # nobody looks them up
    return Condition(
        operator,
        key,
        wanted,
        holds,
        name,
        matcher,
        negated,
        needed=needed,
        single=not quantifier,
        missing=if_exists or quantifier == _FOR_ALL or (negated and not quantifier),
    )


# Qualifiers


def _single(name: str, matcher: Matcher, negated: bool, if_exists: bool, deny: bool) -> Held:
    missing = negated or if_exists
    matches, exact = matcher.test, matcher.exact
    if exact is not None and not matcher.folded:

        def equals(context: Context) -> bool:
            value = context.get(name)
            if value.__class__ is str:
                return (value in exact) is not negated
            return _no_text(value, context, matches, negated, missing, deny)

        return equals

    def holds(context: Context) -> bool:
        value = context.get(name)
        if value.__class__ is str:
            return matches(value, context) is not negated
        return _no_text(value, context, matches, negated, missing, deny)

    return holds


def _no_text(value: Value | None, context: Context, matches: Test, negated: bool, missing: bool, deny: bool) -> bool:
    """A condition without set operator on a key that is missing or has several values."""
    if not value:
        return missing
    held = (matches(one, context) is not negated for one in value)
    return any(held) if deny else all(held)


def _for_all(name: str, matches: Test, negated: bool) -> Held:
    def holds(context: Context) -> bool:
        return all(matches(value, context) is not negated for value in _set(context.get(name)))

    return holds


def _for_any(name: str, matches: Test, negated: bool, if_exists: bool) -> Held:
    def holds(context: Context) -> bool:
        value = context.get(name)
        if value is None:
            return if_exists
        return any(matches(one, context) is not negated for one in _set(value))

    return holds


def _set(value: Value | None) -> tuple[str, ...]:
    """The values a set operator goes over; a null data set, "such as an empty string", has none."""
    if value is None or value in ("", ("",)):
        return ()
    return (value,) if isinstance(value, str) else value


def _null(name: str, wanted: tuple[str, ...], place: str) -> Held:
    """``true``: the key is missing; ``false``: it is there and its value is not null."""
    answers = {_boolean(text, place) for text in wanted}

    def holds(context: Context) -> bool:
        value = context.get(name)
        return (value is None or value == ()) in answers

    return holds


# Families: each makes, of the policy's values, a test whether one request value matches any of them


def _string_equals(base: str, wanted: tuple[str, ...], place: str, variables: bool) -> Matcher:
    return _texts(wanted, place, variables, wildcards=False)


def _string_like(base: str, wanted: tuple[str, ...], place: str, variables: bool) -> Matcher:
    return _texts(wanted, place, variables, wildcards=True)


def _texts(wanted: tuple[str, ...], place: str, variables: bool, *, wildcards: bool) -> Matcher:
    templates = [template(text, place, variables=variables, wildcards=wildcards) for text in wanted]
    literals = frozenset(text for text in map(literal_of, templates) if text is not None)
    others = [atoms for atoms in templates if literal_of(atoms) is None]
    test = _literals_or(literals, [pattern(atoms) for atoms in others])
    return Matcher(
        test,
        None if others else literals,
        entries=_entries(templates),
        templates=None if any(map(has_variables, others)) else tuple(templates),
    )


def _entries(templates: list[Template]) -> tuple[Entry, ...] | None:
    """What a value has to be or to begin with to match one of the templates; None if that says nothing."""
    entries: list[Entry] = []
    for atoms in templates:
        literal = literal_of(atoms)
        if literal is not None:
            entries.append((False, literal))
        elif isinstance(atoms[0], str):
            entries.append((True, atoms[0]))
        else:
            return None
    return tuple(entries)


def _literals_or(literals: frozenset[str], tests: list[Test]) -> Test:
    if len(literals) == 1 and not tests:
        (only,) = literals
        return lambda text, context: text == only
    if literals:
        tests = [lambda text, context: text in literals, *tests]
    return any_of(tests)


def _string_ignore_case(base: str, wanted: tuple[str, ...], place: str, variables: bool) -> Matcher:
    templates = [template(text, place, variables=variables, wildcards=False) for text in wanted]
    literals = frozenset(text.lower() for text in map(literal_of, templates) if text is not None)
    others = [_folded(atoms) for atoms in templates if literal_of(atoms) is None]
    tests: list[Test] = []
    if literals:
        tests.append(lambda text, context: text.lower() in literals)
    exact = None if others else literals
    entries = None if others else tuple((False, text) for text in literals)
    return Matcher(any_of([*tests, *others]), exact, folded=True, entries=entries)


def _folded(atoms: Template) -> Test:
    def test(text: str, context: Context) -> bool:
        resolved = resolve(atoms, context)
        literal = None if resolved is None else literal_of(resolved)
        return literal is not None and text.lower() == literal.lower()

    return test


def _arn(base: str, wanted: tuple[str, ...], place: str, variables: bool) -> Matcher:
    complete = base.endswith("Like")
    templates: list[Template] = []
    tests: list[Test] = []
    for text in wanted:
        atoms = template(text, place, variables=variables, wildcards=True)
        if not complete and not has_variables(atoms) and atoms != (Wild.MANY,):
            found = len(segments(atoms, ARN_PARTS))
            if found < ARN_PARTS:
                raise malformed(place, f"The value {shown(text)} is not a complete ARN")
        templates.append(atoms)
        tests.append(arn_pattern(atoms, complete=complete))
    whole = any_of(tests)
    # An ARN pattern of fewer parts than six is filled up: what it says is only how a value begins. With the resource
    # wild that is how most values begin.
    entries = _entries([(*atoms, Wild.MANY) if atoms else (Wild.MANY,) for atoms in templates])
    if entries is not None and any(text.count(":") < ARN_PARTS - 1 for _, text in entries):
        entries = None
    return Matcher(
        lambda text, context: text.count(":") >= ARN_PARTS - 1 and whole(text, context),
        entries=entries,
        arns=None if any(map(has_variables, templates)) else tuple(templates),
    )


_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?")


@lru_cache(maxsize=1024)
def _number(text: str) -> Decimal | None:
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def _numeric(base: str, wanted: tuple[str, ...], place: str, variables: bool) -> Matcher:
    limits: list[Any] = []
    for text in wanted:
        number = _number(text)
        if number is None:
            raise malformed(place, f"The value {shown(text)} is not a number")
        limits.append(number)
    return _ordered(base.removeprefix("Numeric"), limits, _number)


_DATE: Final = re.compile(
    r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2})(?:T([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?"
    r"(Z|[+-][0-9]{2}:?[0-9]{2})?)?)?)?"
)
_EPOCH: Final = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,9})?")
_YEAR_DIGITS: Final = 4


@lru_cache(maxsize=1024)
def _date(text: str) -> Decimal | None:
    """Seconds since the epoch of a W3C date (an ISO 8601 profile) or of epoch seconds; None if it is neither.

    Without a zone it is UTC. Four digits are a year.
    """
    if len(text) != _YEAR_DIGITS and _EPOCH.fullmatch(text):
        return Decimal(text)
    found = _DATE.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    try:
        moment = datetime(int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), tzinfo=UTC)
    except ValueError:
        return None
    seconds = int(second or 0)
    if seconds > 60:
        return None
    offset = timedelta()
    if zone is not None and zone != "Z":
        digits = zone[1:].replace(":", "")
        hours, minutes = int(digits[:2]), int(digits[2:])
        if hours > 23 or minutes > 59:
            return None
        offset = timedelta(hours=hours, minutes=minutes) * (-1 if zone[0] == "-" else 1)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC) - offset
    return Decimal(since.days * 86400 + since.seconds + seconds) + Decimal(f"0.{fraction or 0}")


def _dates(base: str, wanted: tuple[str, ...], place: str, variables: bool) -> Matcher:
    limits: list[Any] = []
    for text in wanted:
        moment = _date(text)
        if moment is None:
            raise malformed(place, f"The value {shown(text)} is not a date in a W3C format nor epoch seconds")
        limits.append(moment)
    return _ordered(base.removeprefix("Date"), limits, _date)


_ORDERS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "LessThan": lt,
    "LessThanEquals": le,
    "GreaterThan": gt,
    "GreaterThanEquals": ge,
}
_SIGNS: Final = {"LessThan": "<", "LessThanEquals": "<=", "GreaterThan": ">", "GreaterThanEquals": ">="}


def _ordered(order: str, limits: Sequence[Decimal], read: Callable[[str], Decimal | None]) -> Matcher:
    compare = _ORDERS.get(order)
    if compare is None:
        equal = frozenset(limits)
        if len(equal) == 1:
            (only,) = equal
            # Hashing a Decimal costs more than comparing two. None is no number and equals none.
            return Matcher(lambda text, context: read(text) == only, order=(read, "in", equal))
        return Matcher(lambda text, context: read(text) in equal, order=(read, "in", equal))

    # One value is enough: it is the loosest that decides.
    limit = max(limits) if compare in (lt, le) else min(limits)

    def test(text: str, context: Context) -> bool:
        number = read(text)
        return number is not None and compare(number, limit)

    return Matcher(test, order=(read, _SIGNS[order], limit))


def _boolean(text: str, place: str) -> bool:
    folded = text.lower()
    if folded not in ("true", "false"):
        raise malformed(place, f"The value {shown(text)} is neither true nor false")
    return folded == "true"


def _bool(base: str, wanted: tuple[str, ...], place: str, variables: bool) -> Matcher:
    for text in wanted:
        if not has_variables(template(text, place, variables=variables, wildcards=False)):
            _boolean(text, place)
    return _string_ignore_case(base, wanted, place, variables)


def _binary(base: str, wanted: tuple[str, ...], place: str, variables: bool) -> Matcher:
    contents: set[bytes | None] = set()
    for text in wanted:
        content = _decoded(text)
        if content is None:
            raise malformed(place, f"The value {shown(text)} is not base64")
        contents.add(content)
    return Matcher(lambda text, context: _decoded(text) in contents)


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


@lru_cache(maxsize=4096)
def address_number(text: str) -> int | None:
    """An IP address as a number, IPv6 beyond all of IPv4; None if it is none.

    An IPv4 address spelled as IPv6 (``::ffff:192.0.2.1``) is that IPv4 address: it is the same host, and whoever is kept
    out under one spelling is kept out under the other.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return None
        mapped = address.ipv4_mapped
        return int(address) + _SIX if mapped is None else int(mapped)
    return int(address)


_SIX: Final = 1 << 32
_MAPPED: Final = 96
"""Bits before the IPv4 address in one that is spelled as IPv6."""


def _ip(base: str, wanted: tuple[str, ...], place: str, variables: bool) -> Matcher:
    found: list[tuple[int, int]] = []
    for text in wanted:
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise malformed(place, f"The value {shown(text)} is not an IP address or a CIDR range") from None
        beyond = 0
        if isinstance(network, ipaddress.IPv6Network):
            mapped = network.network_address.ipv4_mapped
            if mapped is not None and network.prefixlen >= _MAPPED:
                network = ipaddress.IPv4Network((mapped, network.prefixlen - _MAPPED))
            else:
                beyond = _SIX
        found.append((int(network.network_address) + beyond, int(network.broadcast_address) + beyond))
    ranges = tuple(found)

    def test(text: str, context: Context) -> bool:
        number = address_number(text)
        return number is not None and any(low <= number <= high for low, high in ranges)

    return Matcher(test, ranges=ranges)


Compare = Callable[[str, tuple[str, ...], str, bool], Matcher]


def _families() -> Iterable[tuple[str, tuple[Compare, bool]]]:
    yield "StringEquals", (_string_equals, False)
    yield "StringNotEquals", (_string_equals, True)
    yield "StringEqualsIgnoreCase", (_string_ignore_case, False)
    yield "StringNotEqualsIgnoreCase", (_string_ignore_case, True)
    yield "StringLike", (_string_like, False)
    yield "StringNotLike", (_string_like, True)
    for kind, family in (("Numeric", _numeric), ("Date", _dates)):
        yield f"{kind}Equals", (family, False)
        yield f"{kind}NotEquals", (family, True)
        for order in _ORDERS:
            yield f"{kind}{order}", (family, False)
    yield "Bool", (_bool, False)
    yield "BinaryEquals", (_binary, False)
    yield "IpAddress", (_ip, False)
    yield "NotIpAddress", (_ip, True)
    for name in ("ArnEquals", "ArnLike"):
        yield name, (_arn, False)
    for name in ("ArnNotEquals", "ArnNotLike"):
        yield name, (_arn, True)


_FAMILIES: Final = dict(_families())
OPERATORS: Final = (*_FAMILIES, "Null")
"""The names of the operators, without set operators and IfExists."""
