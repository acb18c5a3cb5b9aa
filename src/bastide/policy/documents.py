"""Policy documents: read, checked and compiled once, so that a decision touches only what its action concerns.

Source: IAM User Guide, "Grammar of the IAM JSON policy language" and the pages of the elements; AWS Organizations User
Guide, "SCP syntax" and "RCP syntax". What the grammar does not know is refused when the document is written, not
when it is asked.
"""

from __future__ import annotations

import json
import re
import sys
from collections import deque
from collections.abc import Iterable, Mapping
from enum import Enum
from functools import lru_cache
from threading import RLock
from typing import Any, Final

from bastide.policy.conditions import Condition, condition
from bastide.policy.faults import malformed, shown
from bastide.policy.matching import ARN_PARTS, Plain, Test, any_of, arn_pattern, plain_pattern
from bastide.policy.principals import Chosen, chosen, not_chosen
from bastide.policy.select import NOTHING, Selection
from bastide.policy.variables import Context, literal_of, template

LARGEST = 128 * 1024
"""Bytes of the largest document that is read when the caller sets no limit; AWS's own limits are all below."""

VERSIONS: Final = ("2012-10-17", "2008-10-17")
_ACTIONS: Final = 2048
"""Actions of which a document remembers the statements."""
COMPILED: Final = 512 * 2**20
"""Bytes that the compiled forms of the documents of `Document.parse_cached` may hold together,"""
TEXTS: Final = 192 * 2**20
"""and the texts by which they are known."""
_SAMPLE: Final = 512
"""Characters of a text by which it is looked up: reading all of them to hash it costs more than to compare it once."""
_ALIKE: Final = 64
"""Texts alike in all of the sample that are known at a time; more than a few are no accident."""
_FEW: Final = 6
_PLANNED: Final = 400
"""Bytes that each statement costs in an action's plan."""


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


NAMING: Final = frozenset({Form.RESOURCE, Form.TRUST, Form.KEY, Form.ENDPOINT, Form.RCP})
"""Forms whose statements name principals."""
_OF_RESOURCE: Final = frozenset({Form.RESOURCE, Form.KEY})
"""Here Resource may be missing: it is the resource that the policy is attached to."""
_FREE_SIDS: Final = frozenset({Form.RESOURCE, Form.KEY, Form.ENDPOINT})


PrincipalElement = str | Mapping[str, tuple[str, ...]]
"""``"*"``, or the names by their kind: ``{"AWS": ("111122223333",)}``."""


class Statement:
    """One statement: as written, and as tests. Immutable; what resources need is compiled when first asked.

    index: its place in the document. actions, resources, principals: the elements or their Not forms as written; None
    where the statement has neither. has_variables: resources hold policy variables. chosen: the test of the principals,
    None if the document's form names none.
    """

    __slots__ = (
        "_concerns", "actions", "chosen", "conditions", "deny", "has_variables", "index", "not_action",
        "not_principal", "not_resource", "principals", "resources", "sid",
    )  # fmt: skip

    def __init__(
        self,
        index: int,
        sid: str | None,
        deny: bool,
        actions: tuple[str, ...],
        not_action: bool,
        resources: tuple[str, ...] | None,
        not_resource: bool,
        has_variables: bool,
        principals: PrincipalElement | None,
        not_principal: bool,
        chosen: Chosen | None,
        conditions: tuple[Condition, ...],
    ) -> None:
        self.index = index
        self.sid = sid
        self.deny = deny
        self.actions = actions
        self.not_action = not_action
        self.resources = resources
        self.not_resource = not_resource
        self.has_variables = has_variables
        self.principals = principals
        self.not_principal = not_principal
        self.chosen = chosen
        self.conditions = conditions
        self._concerns: Test | None = None

    def action(self, action: str) -> bool:
        """Whether it concerns an action, given in lower case."""
        for text in self.actions:
            if _action_pattern(text)(action):
                return not self.not_action
        return self.not_action

    @property
    def resource(self) -> Test | None:
        """The test of a resource in a context; None where every resource matches."""
        every = self.resources is None or (not self.not_resource and "*" in self.resources)
        return None if every else self.concerns

    @property
    def unconditional(self) -> bool:
        """Whether it applies to everybody and everything."""
        return not self.conditions and self.chosen is None and self.resource is None

    def concerns(self, resource: str, context: Context) -> bool:
        """Whether it is about a resource."""
        test = self._concerns
        if test is None:
            test = self._concerns = _resource_test(self.resources, self.not_resource, self.has_variables)
        return test(resource, context)

    def applies(self, resource: str, context: Context) -> bool:
        """Whether resource and conditions match; action and principal are asked separately."""
        for one in self.conditions:
            if not one.holds(context):
                return False
        return self.resources is None or self.concerns(resource, context)


class Plan:
    """The statements of a document that concern one action: those that deny and those that allow."""

    __slots__ = ("allow", "deny")

    def __init__(self, deny: Selection, allow: Selection) -> None:
        self.deny = deny
        self.allow = allow


Candidates = tuple[tuple[Statement, ...], tuple[Statement, ...]]


class Document:
    """A policy that has been checked. Immutable but for what it remembers of actions already asked.

    A document of `parse_cached` may lose its compiled form while nobody asks it, and compiles its text again when it is
    asked; how much all of them may hold together is `COMPILED`.
    """

    __slots__ = ("_plans", "_statements", "_text", "asked", "form", "id", "naming", "size", "version")

    def __init__(self, form: Form, version: str, id: str | None, statements: tuple[Statement, ...]) -> None:
        self.form = form
        self.naming = form in NAMING
        """Whether its statements name principals."""
        self.version = version
        self.id = id
        self._statements: tuple[Statement, ...] | None = statements
        self._plans: dict[str, Plan] = {}
        self._text: str | None = None
        self.asked = True
        """Since the flag was last taken down; who looks for cold documents does."""
        self.size = 0
        """Bytes that the compiled form is accounted with; 0 if nobody accounts for it."""

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
        return _KNOWN.document(source, form)

    @property
    def statements(self) -> tuple[Statement, ...]:
        """All statements, in order."""
        found = self._statements
        return self._again() if found is None else found

    def plan(self, action: str) -> Plan:
        """The statements that concern an action, given in lower case."""
        self.asked = True
        plan = self._plans.get(action)
        return self._planned(action) if plan is None else plan

    def candidates(self, action: str, resource: str) -> Candidates:
        """The Deny and the Allow statements that concern an action in lower case; whether they apply to the resource is
        left to whoever shows them."""
        plan = self.plan(action)
        return plan.deny.all, plan.allow.all

    def _planned(self, action: str) -> Plan:
        concerned = [one for one in self.statements if one.action(action)]
        deny = tuple([one for one in concerned if one.deny])
        allow = tuple([one for one in concerned if not one.deny])
        plan = Plan(Selection(deny) if deny else NOTHING, Selection(allow) if allow else NOTHING)
        if len(self._plans) >= _ACTIONS:
            self._plans = {}
        self._plans[action] = plan
        if self.size and len(concerned) > _FEW:
            _KNOWN.grown(self, _PLANNED * len(concerned))
        return plan

    # What `_Known` does

    def _again(self) -> tuple[Statement, ...]:
        text = self._text
        assert text is not None
        found = self._statements = _document(_read(text, len(text) * 4), self.form).statements
        _KNOWN.grown(self, _size(found))
        return found

    def forget(self) -> None:
        """Drops the compiled form."""
        self._statements = None
        self._plans = {}


def _size(statements: tuple[Statement, ...]) -> int:
    """Bytes that compiled statements hold, about; measured, see tests/bench/policy_decide.py."""
    return 500 + sum(
        850
        + 100 * len(one.actions)
        + 150 * len(one.resources or ())
        + sum(380 + 130 * len(condition.wanted) for condition in one.conditions)
        for one in statements
    )


class _Known:
    """Documents by their text. Compiled forms are held up to `most` bytes, texts up to `texts` bytes.

    Which forms are dropped is decided by a second chance: a document that was asked since it was last looked at stays.
    """

    def __init__(self, most: int, texts: int) -> None:
        self.most = most
        self.texts = texts
        self.held = 0
        self.held_texts = 0
        self._documents: dict[tuple[Any, ...], list[Document]] = {}
        self._ring: deque[Document] = deque()
        self._lock = RLock()

    def document(self, text: str, form: Form) -> Document:
        key = (form, len(text), text[:: len(text) // _SAMPLE | 1])
        for known in self._documents.get(key, ()):
            if known._text == text:
                return known
        found = Document.parse(text, form)
        found._text = text
        with self._lock:
            alike = self._documents.get(key, [])
            self._documents[key] = [found, *alike][:_ALIKE]
            self.held_texts += sys.getsizeof(text)
            while self.held_texts > self.texts:
                oldest = next(iter(self._documents))
                self.held_texts -= sum(sys.getsizeof(one._text) for one in self._documents.pop(oldest))
            if len(alike) >= _ALIKE:
                self.held_texts -= sys.getsizeof(alike[-1]._text)
        self.grown(found, _size(found.statements))
        return found

    def grown(self, document: Document, size: int) -> None:
        """Accounts for `size` bytes more of a document's compiled form, and makes room for them."""
        with self._lock:
            if not document.size:
                self._ring.append(document)
            document.size += size
            self.held += size
            ring = self._ring
            while self.held > self.most and len(ring) > 1:
                oldest = ring.popleft()
                if oldest is document or oldest.asked:
                    oldest.asked = oldest is document
                    ring.append(oldest)
                else:
                    self.held -= oldest.size
                    oldest.size = 0
                    oldest.forget()


_KNOWN: Final = _Known(COMPILED, TEXTS)


@lru_cache(maxsize=8192)
def _action_pattern(text: str) -> Plain:
    return plain_pattern(template(text.lower(), "", variables=False, wildcards=True))


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
    if "Id" in source and not _is_text(identifier):
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
    if "Sid" in source and not _is_text(sid):
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
    actions, not_action = _actions(source, form, place)
    resources, not_resource = _resources(source, form, place, variables=variables)
    return Statement(
        index,
        sid or None,
        deny,
        actions,
        not_action,
        resources,
        not_resource,
        variables and any("${" in text for text in resources or ()),
        _principals_written(source),
        "NotPrincipal" in source,
        _principal(source, form, place, deny=deny),
        _conditions(source.get("Condition", {}), f"{place}.Condition", deny=deny, variables=variables),
    )


def _principals_written(source: Mapping[str, Any]) -> PrincipalElement | None:
    element = source.get("Principal", source.get("NotPrincipal"))
    if not isinstance(element, Mapping):
        return None if element is None else str(element)
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


def _actions(source: Mapping[str, Any], form: Form, place: str) -> tuple[tuple[str, ...], bool]:
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
    for text in texts:
        if form is Form.RCP and text.startswith("*") and source.get("Effect") == "Deny":
            raise malformed(where, "The actions of a resource control policy must name a service")
        if text != "*" and not _ACTION.fullmatch(text):
            if ":" not in text:
                raise malformed(
                    where, f"Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.: {shown(text)}"
                )
            raise malformed(where, f"The action {shown(text)} is not valid")
        if form is Form.TRUST and not text.lower().startswith("sts:"):
            raise malformed(where, "AssumeRole policy may only specify STS AssumeRole actions.")
    return texts, negated


def _resources(
    source: Mapping[str, Any], form: Form, place: str, *, variables: bool
) -> tuple[tuple[str, ...] | None, bool]:
    found = _either(source, "Resource", place)
    if form is Form.TRUST:
        if found is not None:
            raise malformed(place, f"Has prohibited field {found[0]}")
        return None, False
    if found is None:
        if form in _OF_RESOURCE:
            return None, False
        raise malformed(place, "Policy statement must contain resources.")
    element, value, negated = found
    where = f"{place}.{element}"
    texts = _texts(value, where)
    if not texts:
        raise malformed(where, "Policy statement must contain resources.")
    for text in texts:
        if text != "*" and not text.startswith("arn:"):
            raise malformed(where, f'Resource {shown(text)} must be in ARN format or "*".')
        if variables and "${" in text:
            template(text, where, variables=True, wildcards=True)
    return texts, negated


def _resource_test(texts: tuple[str, ...] | None, negated: bool, variables: bool) -> Test:
    if texts is None or "*" in texts:
        return _never if negated else _always
    literals: set[str] = set()
    tests: list[Test] = []
    for text in texts:
        atoms = template(text, "", variables=variables, wildcards=True)
        literal = literal_of(atoms)
        if literal is not None and literal.count(":") >= ARN_PARTS - 1:
            literals.add(literal)
        else:
            tests.append(arn_pattern(atoms, complete=True))
    if literals:
        known = frozenset(literals)
        tests.insert(0, lambda resource, context: resource in known)
    named = any_of(tests)
    if negated:
        return lambda resource, context: not named(resource, context)
    return named


def _never(resource: str, context: Context) -> bool:
    return False


def _always(resource: str, context: Context) -> bool:
    return True


def _principal(source: Mapping[str, Any], form: Form, place: str, *, deny: bool) -> Chosen | None:
    found = _either(source, "Principal", place)
    if form not in NAMING:
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
        return not_chosen(value, where, deny=deny, through=form is Form.ENDPOINT)
    return chosen(value, where, deny=deny, through=form is Form.ENDPOINT)


def _conditions(source: Any, place: str, *, deny: bool, variables: bool) -> tuple[Condition, ...]:
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
