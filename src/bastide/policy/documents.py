"""Policy documents: read, checked and compiled once, so that a decision touches only what its action concerns.

Source: IAM User Guide, "Grammar of the IAM JSON policy language" and the pages of the elements; AWS Organizations User
Guide, "SCP syntax" and "RCP syntax". What the grammar does not know is refused when the document is written, not
when it is asked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, Final, TypeVar

from bastide.policy.conditions import Condition, condition
from bastide.policy.faults import malformed, shown
from bastide.policy.matching import Plain, Test, any_of, arn_pattern, plain_pattern
from bastide.policy.principals import Chosen, chosen, not_chosen
from bastide.policy.variables import Context, Wild, has_variables, literal_of, template

LARGEST = 128 * 1024
"""Bytes of the largest document that is read when the caller sets no limit; AWS's own limits are all below."""

VERSIONS: Final = ("2012-10-17", "2008-10-17")
_ACTIONS: Final = 2048
"""Actions of which a document remembers the statements."""
_RESOURCES: Final = 128
"""Pairs of action and resource of which it does: callers choose the names of resources, so these are few."""
_FEW: Final = 8
"""Statements of one action up to which it is not worth remembering resources."""


class Form(Enum):
    """What a document is used as; the forms differ in the elements they need and forbid."""

    IDENTITY = "identity"
    RESOURCE = "resource"
    TRUST = "trust"
    SESSION = "session"
    BOUNDARY = "boundary"
    SCP = "scp"
    RCP = "rcp"
    KEY = "key"
    ENDPOINT = "endpoint"


_NAMING: Final = frozenset({Form.RESOURCE, Form.TRUST, Form.KEY, Form.ENDPOINT, Form.RCP})
_OF_RESOURCE: Final = frozenset({Form.RESOURCE, Form.KEY})
"""Here Resource may be missing: it is the resource that the policy is attached to."""
_FREE_SIDS: Final = frozenset({Form.RESOURCE, Form.KEY, Form.ENDPOINT})


PrincipalElement = str | Mapping[str, tuple[str, ...]]
"""``"*"``, or the names by their kind: ``{"AWS": ("111122223333",)}``."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One compiled statement.

    index: its place in the document. action: whether it concerns an action in lower case. resource: None if it
    concerns every resource. chosen: None if the document's form names no principals.
    """

    index: int
    sid: str | None
    deny: bool
    action: Plain
    resource: Test | None
    fixed: bool
    """Whether the resource test needs no context."""
    chosen: Chosen | None
    conditions: tuple[Condition, ...]
    holds: tuple[Callable[[Context], bool], ...]
    """The tests of the conditions."""
    actions: tuple[str, ...]
    """Action or NotAction as written."""
    not_action: bool
    resources: tuple[str, ...] | None
    """Resource or NotResource as written; None where the statement has neither."""
    not_resource: bool
    principals: PrincipalElement | None
    """Principal or NotPrincipal as written; None where the statement has neither."""
    not_principal: bool

    def may_concern(self, resource: str) -> bool:
        """False if the statement cannot apply to the resource, whatever the context."""
        return self.resource is None or not self.fixed or self.resource(resource, {})

    def applies(self, resource: str, context: Context) -> bool:
        """Whether resource and conditions match; action and principal are asked separately."""
        if self.resource is not None and not self.resource(resource, context):
            return False
        for holds in self.holds:  # noqa: SIM110 - the inner loop of every decision
            if not holds(context):
                return False
        return True


Candidates = tuple[tuple[Statement, ...], tuple[Statement, ...]]
"""The Deny and the Allow statements that concern one action."""


class Document:
    """A compiled policy; immutable but for what it remembers of actions already asked."""

    __slots__ = ("_by_action", "_by_resource", "form", "id", "statements", "version")

    def __init__(self, form: Form, version: str, id: str | None, statements: tuple[Statement, ...]) -> None:
        self.form = form
        self.version = version
        self.id = id
        self.statements = statements
        self._by_action: dict[str, Candidates] = {}
        self._by_resource: dict[tuple[str, str], Candidates] = {}

    @classmethod
    def parse(cls, source: str | bytes | Mapping[str, Any], form: Form, *, max_bytes: int | None = None) -> Document:
        """Reads and checks a document.

        source: JSON text, or what JSON text has been read to. max_bytes: of the text in UTF-8, as given.
        Raises Refused (MalformedPolicyDocument) whose message names the place of the fault.
        """
        return _document(_read(source, LARGEST if max_bytes is None else max_bytes), form)

    @classmethod
    def parse_cached(cls, source: str, form: Form) -> Document:
        """The same for a text that has been checked when it was written: known texts are not compiled again."""
        return _parse_cached(source, form)

    def candidates(self, action: str, resource: str) -> Candidates:
        """The statements that may concern an action, in lower case, on a resource; whether they do, `applies` says."""
        found = self._by_action.get(action)
        if found is None:
            concerned = [statement for statement in self.statements if statement.action(action)]
            found = _remember(self._by_action, action, concerned, _ACTIONS)
        if len(found[0]) + len(found[1]) <= _FEW:
            return found
        narrower = self._by_resource.get((action, resource))
        if narrower is None:
            concerned = [statement for both in found for statement in both if statement.may_concern(resource)]
            narrower = _remember(self._by_resource, (action, resource), concerned, _RESOURCES)
        return narrower


_Key = TypeVar("_Key")


def _remember(memory: dict[_Key, Candidates], key: _Key, concerned: list[Statement], most: int) -> Candidates:
    found = (
        tuple(statement for statement in concerned if statement.deny),
        tuple(statement for statement in concerned if not statement.deny),
    )
    if len(memory) >= most:
        memory.clear()
    memory[key] = found
    return found


@lru_cache(maxsize=4096)
def _parse_cached(source: str, form: Form) -> Document:
    return Document.parse(source, form)


# Reading JSON


class _Number(str):
    """A JSON number as written; policies compare texts."""

    __slots__ = ()


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not isinstance(value, _Number)


def _read(source: str | bytes | Mapping[str, Any], most: int) -> Mapping[str, Any]:
    if isinstance(source, (str, bytes)):
        if len(source) > most or (isinstance(source, str) and len(source.encode("utf-8", "surrogatepass")) > most):
            raise malformed("", f"The policy is longer than {most} bytes")
        try:
            text = source if isinstance(source, str) else source.decode("utf-8")
            text.encode("utf-8")
            source = json.loads(
                text,
                object_pairs_hook=_object,
                parse_int=_Number,
                parse_float=_Number,
                parse_constant=_constant,
            )
        except (ValueError, RecursionError):
            raise malformed("", "Syntax errors in policy.") from None
    if not isinstance(source, Mapping):
        raise malformed("", "Syntax errors in policy. A policy is a JSON object")
    return source


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise malformed(shown(key), "Syntax errors in policy. An element is there twice")
        found[key] = value
    return found


def _constant(name: str) -> Any:
    raise ValueError(name)


# Checking and compiling


def _document(source: Mapping[str, Any], form: Form) -> Document:
    for element in source:
        if element not in ("Version", "Id", "Statement"):
            raise malformed(shown(element), f"Syntax errors in policy. The element {shown(element)} is not known")
    version = source.get("Version", "2008-10-17")
    if version not in VERSIONS:
        raise malformed("Version", f"The policy must contain a valid version string: {shown(version)} is not known")
    identifier = source.get("Id")
    if identifier is not None and not _is_text(identifier):
        raise malformed("Id", "Syntax errors in policy. Id is not a text")
    listed = source.get("Statement")
    if isinstance(listed, Mapping):
        listed = [listed]
    if not isinstance(listed, (list, tuple)) or not listed:
        raise malformed("Statement", "Syntax errors in policy. Missing required field Statement")
    statements = tuple(
        _statement(index, statement, form, str(version)) for index, statement in enumerate(listed)
    )  # fmt: skip
    if form not in _FREE_SIDS:
        sids: set[str] = set()
        for statement in statements:
            if statement.sid:
                if statement.sid in sids:
                    raise malformed(
                        f"Statement[{statement.index}].Sid", "Statement IDs (SID) in a single policy must be unique."
                    )
                sids.add(statement.sid)
    return Document(form, str(version), identifier, statements)


_ELEMENTS: Final = frozenset(
    {"Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition"}
)
_SID: Final = re.compile(r"[0-9A-Za-z]*")


def _statement(index: int, source: Any, form: Form, version: str) -> Statement:
    place = f"Statement[{index}]"
    if not isinstance(source, Mapping):
        raise malformed(place, "Syntax errors in policy. A statement is an object")
    for element in source:
        if element not in _ELEMENTS:
            raise malformed(place, f"Syntax errors in policy. The element {shown(element)} is not known")
    sid = source.get("Sid")
    if sid is not None and not _is_text(sid):
        raise malformed(f"{place}.Sid", "Syntax errors in policy. Sid is not a text")
    if sid and form not in _FREE_SIDS and not _SID.fullmatch(sid):
        raise malformed(
            f"{place}.Sid",
            "Statement IDs (SID) must be alpha-numeric. "
            "Check that your input satisfies the regular expression [0-9A-Za-z]*",
        )
    effect = source.get("Effect")
    if effect not in ("Allow", "Deny"):
        raise malformed(f"{place}.Effect", "Syntax errors in policy. Effect must be Allow or Deny")
    deny = effect == "Deny"
    variables = version == "2012-10-17"
    compiled = _conditions(source.get("Condition"), f"{place}.Condition", deny=deny, variables=variables)
    return Statement(
        index,
        sid or None,
        deny,
        _action(source, form, place),
        *_resource(source, form, place, variables=variables),
        _principal(source, form, place, deny=deny),
        compiled,
        tuple(one.holds for one in compiled),
        _texts(source["NotAction" if "NotAction" in source else "Action"], place),
        "NotAction" in source,
        _written(source, "Resource", place),
        "NotResource" in source,
        _principals_written(source),
        "NotPrincipal" in source,
    )


def _written(source: Mapping[str, Any], element: str, place: str) -> tuple[str, ...] | None:
    found = _either(source, element, place)
    return None if found is None else _texts(found[1], place)


def _principals_written(source: Mapping[str, Any]) -> PrincipalElement | None:
    element = source.get("Principal", source.get("NotPrincipal"))
    if element is None or isinstance(element, str):
        return element
    return {
        str(kind): tuple(listed) if isinstance(listed, (list, tuple)) else (listed,) for kind, listed in element.items()
    }


def _texts(value: Any, place: str) -> tuple[str, ...]:
    """One scalar or a list of them, as texts: AWS takes ``true`` and ``10`` for ``"true"`` and ``"10"``."""
    values = value if isinstance(value, (list, tuple)) else (value,)
    texts: list[str] = []
    for index, one in enumerate(values):
        if isinstance(one, bool):
            texts.append("true" if one else "false")
        elif isinstance(one, (str, int, float)):
            texts.append(str(one))
        else:
            where = f"{place}[{index}]" if values is value else place
            raise malformed(where, f"Syntax errors in policy. {shown(one)} is not a text")
    return tuple(texts)


def _either(source: Mapping[str, Any], element: str, place: str) -> tuple[str, Any, bool] | None:
    """The element or its Not form: its name, its value and whether it is the Not form; None if neither is there."""
    opposite = f"Not{element}"
    if element in source and opposite in source:
        raise malformed(place, f"Syntax errors in policy. {element} and {opposite} exclude each other")
    if element in source:
        return element, source[element], False
    if opposite in source:
        return opposite, source[opposite], True
    return None


_ACTION: Final = re.compile(r"(\*|[A-Za-z0-9-]+):([A-Za-z0-9*?._-]+)")


def _action(source: Mapping[str, Any], form: Form, place: str) -> Plain:
    found = _either(source, "Action", place)
    if found is None:
        raise malformed(place, "Policy statement must contain actions.")
    element, value, negated = found
    where = f"{place}.{element}"
    texts = _texts(value, where)
    if not texts:
        raise malformed(where, "Policy statement must contain actions.")
    if negated and form is Form.RCP:
        raise malformed(where, "Has prohibited field NotAction")
    literals: set[str] = set()
    patterns: list[Plain] = []
    for text in texts:
        if text != "*" and not _ACTION.fullmatch(text):
            if ":" not in text:
                raise malformed(
                    where, f"Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.: {shown(text)}"
                )
            raise malformed(where, f"The action {shown(text)} is not valid")
        if form is Form.TRUST and not text.lower().startswith("sts:"):
            raise malformed(where, "AssumeRole policy may only specify STS AssumeRole actions.")
        atoms = template(text.lower(), where, variables=False, wildcards=True)
        literal = literal_of(atoms)
        if literal is not None:
            literals.add(literal)
        else:
            patterns.append(plain_pattern(atoms))
    known = frozenset(literals)

    def named(action: str) -> bool:
        return action in known or any(matches(action) for matches in patterns)

    if negated:
        return lambda action: not named(action)
    return named


def _resource(source: Mapping[str, Any], form: Form, place: str, *, variables: bool) -> tuple[Test | None, bool]:
    """The test, None for every resource, and whether it needs no context."""
    found = _either(source, "Resource", place)
    if form is Form.TRUST:
        if found is not None:
            raise malformed(place, f"Has prohibited field {found[0]}")
        return None, True
    if found is None:
        if form in _OF_RESOURCE:
            return None, True
        raise malformed(place, "Policy statement must contain resources.")
    element, value, negated = found
    where = f"{place}.{element}"
    texts = _texts(value, where)
    if not texts:
        raise malformed(where, "Policy statement must contain resources.")
    literals: set[str] = set()
    patterns: list[Test] = []
    everything = False
    fixed = True
    for text in texts:
        if text != "*" and not text.startswith("arn:"):
            raise malformed(where, f'Resource {shown(text)} must be in ARN format or "*".')
        atoms = template(text, where, variables=variables, wildcards=True)
        literal = literal_of(atoms)
        fixed = fixed and not has_variables(atoms)
        if atoms == (Wild.MANY,):
            everything = True
        elif literal is not None and literal.count(":") >= 5:
            literals.add(literal)
        else:
            patterns.append(arn_pattern(atoms, complete=True))
    if everything:
        return (_never if negated else None), True
    named = _resources(frozenset(literals), patterns)
    if negated:
        return (lambda resource, context: not named(resource, context)), fixed
    return named, fixed


def _never(resource: str, context: Context) -> bool:
    return False


def _resources(literals: frozenset[str], patterns: list[Test]) -> Test:
    if literals:
        patterns = [lambda resource, context: resource in literals, *patterns]
    return any_of(patterns)


def _principal(source: Mapping[str, Any], form: Form, place: str, *, deny: bool) -> Chosen | None:
    found = _either(source, "Principal", place)
    if form not in _NAMING:
        if found is not None:
            raise malformed(place, "Policy document should not specify a principal.")
        return None
    if found is None:
        raise malformed(place, "Missing required field Principal")
    element, value, negated = found
    where = f"{place}.{element}"
    if form is Form.RCP:
        if not (value == "*" and not negated):
            raise malformed(where, 'The principal of a resource control policy must be "*"')
        if not deny and not (
            source.get("Action") == "*" and source.get("Resource") == "*" and "Condition" not in source
        ):
            raise malformed(f"{place}.Effect", "The effect of a resource control policy must be Deny")
    if negated:
        if form is Form.TRUST:
            raise malformed(where, "Has prohibited field NotPrincipal")
        return not_chosen(value, where, deny=deny)
    return chosen(value, where, deny=deny)


def _conditions(source: Any, place: str, *, deny: bool, variables: bool) -> tuple[Condition, ...]:
    if source is None:
        return ()
    if not isinstance(source, Mapping):
        raise malformed(place, "Syntax errors in policy. Condition is not an object")
    return tuple(_each_condition(source, place, deny=deny, variables=variables))


def _each_condition(source: Mapping[str, Any], place: str, *, deny: bool, variables: bool) -> Iterable[Condition]:
    for operator, block in source.items():
        where = f"{place}.{shown(operator)}"
        if not isinstance(block, Mapping) or not block:
            raise malformed(where, "Syntax errors in policy. A condition operator needs an object of keys and values")
        for key, value in block.items():
            at = f"{where}.{shown(key)}"
            if not isinstance(operator, str) or not isinstance(key, str):
                raise malformed(at, "Syntax errors in policy. Operators and keys are texts")
            yield condition(operator, key, _texts(value, at), at, deny=deny, variables=variables)
