"""Statements as one Python function: what a long list of them costs is then the tests, not the calls between them.

No text of a policy becomes code. The source consists of names that are counted up here (``v0``, ``c7``) and of the
operators below; every text, number and set of a policy is a constant that the function finds under such a name. Values
that several tests look at are looked up and read once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from bastide.policy.conditions import Condition, address_number
from bastide.policy.matching import ARN_PARTS, plain_pattern
from bastide.policy.variables import Context, Template, Wild, literal_of, segments, template

if TYPE_CHECKING:
    from bastide.policy.documents import Statement

First = Callable[[str, Context], int]
"""The place of the first statement that applies to a resource in a context; -1 if none does."""

_CHEAP, _FAIR, _DEAR = 1, 2, 3
_OFTEN = 3
"""Statements from which on a condition that they share is asked once."""
_HEADS = 16
"""Different beginnings of ARN patterns up to which each is compared once for all statements."""


def first_of(statements: Sequence[Statement]) -> First:
    """The function for statements in their order; principals are not looked at."""
    return _Source().function(statements)


class _Source:
    def __init__(self) -> None:
        self.constants: dict[str, Any] = {"__builtins__": {}, "str": str, "len": len}
        self.known: dict[Any, str] = {}
        self.shared: list[str] = []
        self.heads: dict[tuple[str | Template, ...], str] = {}

    def function(self, statements: Sequence[Statement]) -> First:
        shared = Counter(one for statement in statements for one in statement.conditions)
        body: list[str] = []
        for place, statement in enumerate(statements):
            tests = [self._test(one, shared[one]) for one in statement.conditions]
            found = self._resource(statement)
            if found is not None:
                tests.append((*found, 1))
            tests = [one for one in tests if one[1] != "True"]
            # What many statements have in common tells them least apart.
            tests.sort(key=lambda one: (one[0] == _DEAR, one[2], one[0]))
            if not tests:
                body.append(f" return {place}")
                break
            body.append(f" if {' and '.join(one[1] for one in tests)}: return {place}")
        lines = ["def first(resource, context):", " get = context.get", *self.shared, *body, " return -1"]
        exec(compile("\n".join(lines), "<policy>", "exec"), self.constants)  # noqa: S102 - see the module's docstring
        first: First = self.constants.pop("first")
        return first

    def _constant(self, value: Any) -> str:
        try:
            name = self.known.get(value)
        except TypeError:
            name = None
        if name is None:
            name = f"c{len(self.constants)}"
            self.constants[name] = value
            self.known[value] = name
        return name

    def _once(self, kind: str, key: Any, line: Callable[[str], str]) -> str:
        """A value that is made once before all tests."""
        name = self.known.get((kind, key))
        if name is None:
            name = f"{kind}{len(self.known)}"
            self.known[(kind, key)] = name
            self.shared.append(f" {name} = {line(name)}")
        return name

    # Conditions

    def _value(self, key: str) -> tuple[str, str]:
        """The names of a key's value and of whether it is a single text."""
        value = self._once("v", key, lambda _: f"get({self._constant(key)})")
        return value, self._once("s", key, lambda _: f"{value}.__class__ is str")

    def _test(self, condition: Condition, shared: int) -> tuple[int, str, int]:
        """Cost, text and in how many statements it stands."""
        cost, text = self._condition(condition)
        if shared >= _OFTEN:
            text = self._once("b", condition, lambda _: text)
        return cost, text, shared

    def _condition(self, condition: Condition) -> tuple[int, str]:
        matcher = condition.matcher
        if matcher is None or not condition.single:
            return _DEAR, f"{self._constant(condition.holds)}(context)"
        value, single = self._value(condition.name)
        cost = _FAIR
        if matcher.exact is not None and not matcher.folded:
            cost, test = _CHEAP, self._among(value, matcher.exact)
        elif matcher.exact is not None:
            lower = self._once("l", condition.name, lambda _: f"{value}.lower() if {single} else ''")
            cost, test = _CHEAP, self._among(lower, matcher.exact)
        elif matcher.order is not None:
            read, sign, limit = matcher.order
            if sign == "in" and len(limit) == 1:
                sign, (limit,) = "==", limit
            number = self._once(
                "n", (condition.name, read), lambda _: f"{self._constant(read)}({value}) if {single} else None"
            )
            test = f"{number} {sign} {self._constant(limit)}"
            if sign not in ("in", "=="):
                test = f"{number} is not None and {test}"
        elif matcher.ranges is not None:
            number = self._once(
                "n", (condition.name, address_number),
                lambda _: f"{self._constant(address_number)}({value}) if {single} else None",
            )  # fmt: skip
            limits = [f"{self._constant(low)} <= {number} <= {self._constant(high)}" for low, high in matcher.ranges]
            test = f"{number} is not None and ({' or '.join(limits)})"
        elif matcher.arns is not None:
            test = " or ".join(self._arn(one, value, single) for one in matcher.arns)
        elif matcher.templates is not None:
            test = " or ".join(self._text(value, one) for one in matcher.templates)
        else:
            cost, test = _DEAR, f"{self._constant(matcher.test)}({value}, context)"
        if condition.negated:
            test = f"not ({test})"
        # No value is the rule, several values the exception that the condition itself sees to.
        other = f"{self._constant(condition.holds)}(context)"
        other = f"{value} is None or {other}" if condition.missing else f"{value} is not None and {other}"
        return cost, f"(({test}) if {single} else ({other}))"

    def _among(self, value: str, texts: frozenset[str]) -> str:
        if len(texts) == 1:
            (only,) = texts
            return f"{value} == {self._constant(only)}"
        return f"{value} in {self._constant(texts)}"

    def _text(self, value: str, atoms: Template) -> str:
        """Whether a text matches a template without variables."""
        literal = literal_of(atoms)
        if literal is not None:
            return f"{value} == {self._constant(literal)}"
        match atoms:
            case (Wild.MANY,):
                return "True"
            case (str(text), Wild.MANY):
                return f"{value}.startswith({self._constant(text)})"
            case (Wild.MANY, str(text)):
                return f"{value}.endswith({self._constant(text)})"
            case (Wild.MANY, str(text), Wild.MANY):
                return f"{self._constant(text)} in {value}"
            case (str(head), Wild.MANY, str(tail)):
                least = self._constant(len(head) + len(tail))
                ends = f"{value}.startswith({self._constant(head)}) and {value}.endswith({self._constant(tail)})"
                return f"(len({value}) >= {least} and {ends})"
        return f"{self._constant(plain_pattern(atoms))}({value})"

    # Resources

    def _resource(self, statement: Statement) -> tuple[int, str] | None:
        if statement.resources is None:
            return None
        if statement.has_variables:
            return _DEAR, f"{self._constant(statement.concerns)}(resource, context)"
        tests: list[str] = []
        literals: set[str] = set()
        for text in statement.resources:
            atoms = template(text, "", variables=False, wildcards=True)
            if atoms == (Wild.MANY,):
                tests, literals = ["True"], set()
                break
            if literal_of(atoms) is not None and text.count(":") >= ARN_PARTS - 1:
                literals.add(text)
            else:
                tests.append(self._arn(atoms, "resource"))
        if literals:
            tests.append(self._among("resource", frozenset(literals)))
        test = " or ".join(tests)
        if statement.not_resource:
            return _FAIR, f"not ({test})"
        return _FAIR, "True" if test == "True" else f"({test})"

    def _arn(self, atoms: Template, value: str, single: str = "") -> str:
        parts = segments(atoms, ARN_PARTS)
        parts += [(Wild.MANY,)] * (ARN_PARTS - len(parts))
        cut = f"{value}.split(':', {ARN_PARTS - 1})"
        split = self._once("p", value, lambda _: f"{cut} if {single} else ('',)" if single else cut)
        whole = self._once("a", value, lambda _: f"len({split}) == {ARN_PARTS}")
        tail = self._once("t", value, lambda _: f"{split}[-1]")
        head: tuple[str | Template, ...] = (value, *parts[:-1])
        name = self.heads.get(head)
        if name is None:
            tests = [
                self._text(f"{split}[{place}]", part) for place, part in enumerate(parts[:-1]) if part != (Wild.MANY,)
            ]
            test = " and ".join([whole, *tests])
            if len(self.heads) >= _HEADS:
                return f"({test} and {self._text(tail, parts[-1])})"
            name = self.heads[head] = self._once("h", head, lambda _: test)
        return f"({name} and {self._text(tail, parts[-1])})"
