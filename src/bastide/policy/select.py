"""Which statements of a document can apply, found without trying them all.

Every statement that needs a certain value of a condition key, or a certain beginning of it, or of the resource, is put
under that value; of several such needs under the one that it shares with the fewest others. A question looks up its own
values and tries what it finds there, and the statements that need no certain value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from bastide.policy.conditions import Entry
from bastide.policy.generate import First, first_of
from bastide.policy.matching import ARN_PARTS
from bastide.policy.variables import Context, literal_of, segments, template

if TYPE_CHECKING:
    from bastide.policy.documents import Statement

_FEW: Final = 6
"""Statements up to which trying them all is quickest."""
_LONG: Final = 4
"""Statements from which on a list that has to be tried becomes a function,"""
_HOT: Final = 16
"""once it has been tried so often."""

_Field = tuple[str, bool]
"""A condition key, or "" for the resource part of the resource's ARN; and whether its value is compared in lower case."""
_Guard = tuple[_Field, tuple[Entry, ...]]


class Group:
    """Statements, in the order of the document, that are tried one after the other."""

    __slots__ = ("_function", "_tried", "statements")

    def __init__(self, statements: tuple[Statement, ...]) -> None:
        self.statements = statements
        self._tried = 0
        self._function: First | None = None

    def first(self, resource: str, context: Context) -> Statement | None:
        """The first that applies; principals are not looked at."""
        function = self._function
        if function is not None:
            at = function(resource, context)
            return None if at < 0 else self.statements[at]
        if len(self.statements) >= _LONG:
            self._tried += 1
            if self._tried > _HOT:
                self._function = first_of(self.statements)
        for statement in self.statements:
            if statement.applies(resource, context):
                return statement
        return None


class _Lookup:
    """Statements by a value that they need of one field."""

    __slots__ = ("exact", "field", "folded", "lengths", "prefixes")

    def __init__(self, field: _Field, needs: Sequence[tuple[Entry, Statement]]) -> None:
        self.field, self.folded = field
        exact: dict[str, list[Statement]] = {}
        prefixes: dict[str, list[Statement]] = {}
        for (prefix, text), statement in needs:
            held = (prefixes if prefix else exact).setdefault(text, [])
            if not held or held[-1] is not statement:
                held.append(statement)
        self.exact = {text: Group(tuple(held)) for text, held in exact.items()}
        self.prefixes = {text: Group(tuple(held)) for text, held in prefixes.items()}
        self.lengths = tuple(sorted({len(text) for text in prefixes}))

    def find(self, text: str, found: list[Group]) -> None:
        if self.folded:
            text = text.lower()
        group = self.exact.get(text)
        if group is not None:
            found.append(group)
        for length in self.lengths:
            if length > len(text):
                break
            group = self.prefixes.get(text[:length])
            if group is not None:
                found.append(group)


class Selection:
    """The statements of one effect that concern one action."""

    __slots__ = ("_lookups", "_rest", "all", "always")

    def __init__(self, statements: tuple[Statement, ...]) -> None:
        self.all = statements
        self.always: Statement | None = None
        """The first statement, if it applies to everything that everybody asks."""
        self._lookups: tuple[_Lookup, ...] = ()
        if statements and statements[0].unconditional:
            self.always = statements[0]
            self._rest = Group(statements[:1])
        elif len(statements) <= _FEW:
            self._rest = Group(statements)
        else:
            self._index()

    def _index(self) -> None:
        guards = [(statement, list(_guards(statement))) for statement in self.all]
        shared = Counter((field, entry) for _, several in guards for field, entries in several for entry in entries)
        most = len(self.all) // 8 + 1
        needs: dict[_Field, list[tuple[Entry, Statement]]] = {}
        rest: list[Statement] = []
        for statement, several in guards:
            costs = [sum(shared[field, entry] for entry in entries) for field, entries in several]
            if not costs or min(costs) > most:
                rest.append(statement)
                continue
            field, entries = several[costs.index(min(costs))]
            needs.setdefault(field, []).extend((entry, statement) for entry in entries)
        self._lookups = tuple(_Lookup(field, several) for field, several in needs.items())
        self._rest = Group(tuple(rest))

    def first(self, resource: str, context: Context) -> Statement | None:
        """The first that applies; principals are not looked at."""
        best = self._rest.first(resource, context) if self._rest.statements else None
        if not self._lookups:
            return best
        for group in self._found(resource, context):
            if best is None or group.statements[0].index < best.index:
                one = group.first(resource, context)
                if one is not None and (best is None or one.index < best.index):
                    best = one
        return best

    def candidates(self, resource: str, context: Context) -> Iterable[Statement]:
        """Those that may apply, in the order of the document."""
        if not self._lookups:
            return self.all
        found = {one.index: one for group in self._found(resource, context) for one in group.statements}
        found.update((one.index, one) for one in self._rest.statements)
        return [found[index] for index in sorted(found)]

    def _found(self, resource: str, context: Context) -> list[Group]:
        found: list[Group] = []
        for lookup in self._lookups:
            if lookup.field:
                value = context.get(lookup.field)
                if value.__class__ is str:
                    lookup.find(value, found)
                elif value is not None:
                    for one in value:
                        lookup.find(one, found)
            else:
                parts = resource.split(":", ARN_PARTS - 1)
                if len(parts) == ARN_PARTS:
                    lookup.find(parts[-1], found)
        return found


NOTHING: Final = Selection(())


def _guards(statement: Statement) -> Iterable[_Guard]:
    """What the request has to bring for the statement to apply, any one of the entries of each."""
    for one in statement.conditions:
        matcher = one.matcher
        if one.needed and matcher is not None and matcher.entries:
            yield (one.name, matcher.folded), matcher.entries
    if statement.resources is not None and not statement.not_resource:
        entries = [_entry(text, statement.has_variables) for text in statement.resources]
        if all(entry is not None for entry in entries):
            yield ("", False), tuple(entry for entry in entries if entry is not None)


def _entry(text: str, variables: bool) -> Entry | None:
    """What the resource part of an ARN has to be or to begin with to match a pattern; None if that says nothing."""
    parts = segments(template(text, "", variables=variables, wildcards=True), ARN_PARTS)
    if len(parts) < ARN_PARTS:
        return None
    literal = literal_of(parts[-1])
    if literal is not None:
        return False, literal
    first = parts[-1][0]
    return (True, first) if isinstance(first, str) else None
