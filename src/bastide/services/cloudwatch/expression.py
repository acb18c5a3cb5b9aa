"""Metric math: expressions over series, as far as they are supported; everything else is refused by name.

Source: CloudWatch User Guide, "Using math expressions with CloudWatch metrics".
"""

from __future__ import annotations

import itertools
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bastide.domain import Refused


@dataclass(slots=True)
class Series:
    """Values by time (seconds). period: seconds; label: what it is called where it is one of several."""

    points: dict[int, float]
    period: int
    label: str = ""
    id: str = ""
    span: tuple[int, int] = (0, 0)
    """The time that was asked for: first period, end."""


Value = float | Series | list[Series] | str

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+)|(?P<word>[A-Za-z_]\w*)|(?P<text>\"[^\"]*\"|'[^']*')"
    r"|(?P<sign>==|!=|<=|>=|&&|\|\||[-+*/^<>(),\[\]]))"
)
_DEEPEST: Final = 40


def _logical(value: float) -> bool:
    return value != 0


_BINARY: Final[list[dict[str, Callable[[float, float], float]]]] = [
    {"||": lambda a, b: float(_logical(a) or _logical(b)), "OR": lambda a, b: float(_logical(a) or _logical(b))},
    {"&&": lambda a, b: float(_logical(a) and _logical(b)), "AND": lambda a, b: float(_logical(a) and _logical(b))},
    {
        "==": lambda a, b: float(a == b), "!=": lambda a, b: float(a != b), "<": lambda a, b: float(a < b),
        ">": lambda a, b: float(a > b), "<=": lambda a, b: float(a <= b), ">=": lambda a, b: float(a >= b),
    },
    {"+": operator.add, "-": operator.sub},
    {"*": operator.mul, "/": operator.truediv},
]  # fmt: skip
"""By precedence, the weakest first; ``^`` binds strongest, to the right."""


def _power(a: float, b: float) -> float:
    return math.pow(a, b)


def _wrong(text: str) -> Refused:
    return Refused("ValidationError", f"Error in expression: {text}")


class Expression:
    """A parsed expression. names: ids that it uses; everything: it uses METRICS()."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: set[str] = set()
        self.everything = False
        self._tokens = self._split(text)
        self._at = 0
        self._depth = 0
        self._tree = self._binary(0)
        if self._at != len(self._tokens):
            raise _wrong(f"unexpected `{self._tokens[self._at][1]}` in `{text}`")

    @staticmethod
    def _split(text: str) -> list[tuple[str, str]]:
        found, at = [], 0
        text = text.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise _wrong(f"unexpected `{text[at : at + 20]}`")
            kind = match.lastgroup or ""
            found.append((kind, match[kind]))
            at = match.end()
        return found

    # -- reading -------------------------------------------------------------------------------------------------------

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("", "")

    def _take(self, sign: str = "") -> tuple[str, str]:
        held = self._peek()
        if not held[0] or (sign and held[1] != sign):
            raise _wrong(f"`{sign or 'more'}` expected in `{self.text}`")
        self._at += 1
        return held

    def _binary(self, level: int) -> Any:
        if level == len(_BINARY):
            return self._unary()
        self._depth += 1
        if self._depth > _DEEPEST * len(_BINARY):
            raise _wrong("it is nested too deeply")
        left = self._binary(level + 1)
        while True:
            kind, sign = self._peek()
            function = _BINARY[level].get(sign.upper() if kind == "word" else sign)
            if function is None or kind not in ("sign", "word"):
                self._depth -= 1
                return left
            self._take()
            left = ("both", function, left, self._binary(level + 1))

    def _unary(self) -> Any:
        if self._peek()[1] in ("-", "+"):
            sign = self._take()[1]
            inner = self._unary()
            return ("both", operator.mul, ("number", -1.0), inner) if sign == "-" else inner
        base = self._atom()
        if self._peek() == ("sign", "^"):
            self._take()
            return ("both", _power, base, self._unary())
        return base

    def _list(self, end: str) -> list[Any]:
        found = []
        while self._peek()[1] != end:
            found.append(self._binary(0))
            if self._peek()[1] != ",":
                break
            self._take()
        self._take(end)
        return found

    def _atom(self) -> Any:
        kind, text = self._take()
        if kind == "number":
            return ("number", float(text))
        if kind == "text":
            return ("text", text[1:-1])
        if text == "(":
            inner = self._binary(0)
            self._take(")")
            return inner
        if text == "[":
            return ("list", self._list("]"))
        if kind != "word":
            raise _wrong(f"unexpected `{text}` in `{self.text}`")
        if self._peek() == ("sign", "("):
            name = text.upper()
            if name not in _FUNCTIONS and name not in ("METRICS", "IF", "FILL", "PERIOD"):
                raise _wrong(f"the function {text} is not supported by Bastide yet")
            self._take()
            given = self._list(")")
            if name == "METRICS":
                self.everything = True
            return ("call", name, given)
        if text in ("REPEAT", "LINEAR"):
            return ("text", text)
        if not text[0].islower():
            raise _wrong(f"`{text}` is no id: ids begin with a lower case letter")
        self.names.add(text)
        return ("name", text)

    # -- evaluating ----------------------------------------------------------------------------------------------------

    def evaluate(self, known: Mapping[str, Value], metrics: Sequence[Series]) -> Value:
        """The value where ids mean what `known` says and METRICS() is `metrics`; raises Refused."""
        return _Evaluation(known, metrics).value(self._tree)


class _Evaluation:
    def __init__(self, known: Mapping[str, Value], metrics: Sequence[Series]) -> None:
        self._known = known
        self._metrics = metrics

    def value(self, tree: Any) -> Value:
        kind = tree[0]
        if kind in ("number", "text"):
            found: Value = tree[1]
            return found
        if kind == "name":
            if tree[1] not in self._known:
                raise _wrong(f"there is no query with the id `{tree[1]}`")
            return self._known[tree[1]]
        if kind == "list":
            return [one for inner in tree[1] for one in _several(self.value(inner))]
        if kind == "both":
            return both(tree[1], self.value(tree[2]), self.value(tree[3]))
        return self._call(tree[1], tree[2])

    def _call(self, name: str, given: list[Any]) -> Value:
        if name == "METRICS":
            if not given:
                return list(self._metrics)
            part = self.value(given[0])
            return [one for one in self._metrics if isinstance(part, str) and part in one.id]
        values = [self.value(one) for one in given]
        if name == "IF":
            return _if(values)
        if name == "FILL":
            return _fill(values)
        if name == "PERIOD":
            return float(_series(values, 1, name).period)
        return _FUNCTIONS[name](values)


def _several(value: Value) -> list[Series]:
    if isinstance(value, Series):
        return [value]
    if isinstance(value, list):
        return value
    raise _wrong("a time series is needed where a number or text is")


def _series(values: list[Value], number: int, name: str) -> Series:
    if len(values) != number or not isinstance(values[0], Series):
        raise _wrong(f"{name} takes {'a time series' if number == 1 else f'{number} arguments'}")
    return values[0]


def both(function: Callable[[float, float], float], left: Value, right: Value) -> Value:
    """A function of two: of numbers, of series at the times that both have, of each member of several."""
    if isinstance(left, str) or isinstance(right, str):
        raise _wrong("text cannot be reckoned with")
    if isinstance(left, list):
        if isinstance(right, list):
            raise _wrong("two lists of time series cannot be reckoned with")
        return [_one(both(function, one, right)) for one in left]
    if isinstance(right, list):
        return [_one(both(function, left, one)) for one in right]
    if isinstance(left, Series) and isinstance(right, Series):
        common = {at: (value, right.points[at]) for at, value in left.points.items() if at in right.points}
        period = max(left.period, right.period)
    elif isinstance(left, Series):
        assert not isinstance(right, Series)
        common = {at: (value, right) for at, value in left.points.items()}
        period = left.period
    elif isinstance(right, Series):
        common = {at: (left, value) for at, value in right.points.items()}
        period = right.period
    else:
        return _safe(function, left, right) or 0.0
    points = {at: found for at, pair in common.items() if (found := _safe(function, *pair)) is not None}
    named = left if isinstance(left, Series) else right
    assert isinstance(named, Series)
    return Series(points, period, named.label, named.id, named.span)


def _safe(function: Callable[[float, float], float], left: float, right: float) -> float | None:
    """None where there is no number: a division by zero leaves a hole, as on AWS."""
    try:
        found = function(left, right)
    except (ArithmeticError, ValueError):
        return None
    return found if math.isfinite(found) else None


def _one(value: Value) -> Series:
    assert isinstance(value, Series)
    return value


def _each(function: Callable[[Series], dict[int, float]]) -> Callable[[list[Value]], Value]:
    """A function of a series that gives a series; of several, several."""

    def work(values: list[Value]) -> Value:
        if len(values) != 1:
            raise _wrong("the function takes one argument")
        found = [Series(function(one), one.period, one.label, one.id, one.span) for one in _several(values[0])]
        return found[0] if isinstance(values[0], Series) else found

    return work


def _pointwise(function: Callable[[float], float]) -> Callable[[list[Value]], Value]:
    def safe(value: float, _: float = 0.0) -> float:
        return function(value)

    def work(values: list[Value]) -> Value:
        if len(values) != 1:
            raise _wrong("the function takes one argument")
        return both(safe, values[0], 0.0)

    return work


def _together(function: Callable[[list[float]], float]) -> Callable[[list[Value]], Value]:
    """Of a series a number; of several series, a series of what they have at each time."""

    def work(values: list[Value]) -> Value:
        if len(values) != 1 or isinstance(values[0], (str, float)):
            raise _wrong("the function takes a time series or an array of them")
        given = values[0]
        if isinstance(given, Series):
            return function(list(given.points.values())) if given.points else 0.0
        times: dict[int, list[float]] = {}
        for one in given:
            for at, value in one.points.items():
                times.setdefault(at, []).append(value)
        period = max((one.period for one in given), default=60)
        span = given[0].span if given else (0, 0)
        return Series({at: function(found) for at, found in times.items()}, period, span=span)

    return work


def _deviation(values: list[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((one - mean) ** 2 for one in values) / len(values))


def _rate(one: Series) -> dict[int, float]:
    times = sorted(one.points)
    pairs = itertools.pairwise(times)
    return {later: (one.points[later] - one.points[at]) / (later - at) for at, later in pairs}


def _diff(one: Series) -> dict[int, float]:
    times = sorted(one.points)
    return {later: one.points[later] - one.points[at] for at, later in itertools.pairwise(times)}


def _running(one: Series) -> dict[int, float]:
    total, found = 0.0, {}
    for at in sorted(one.points):
        total += one.points[at]
        found[at] = total
    return found


def _if(values: list[Value]) -> Value:
    if len(values) not in (2, 3) or isinstance(values[0], (str, list)):
        raise _wrong("IF takes a condition, a value and, if wanted, another value")
    test, yes = values[0], values[1]
    no = values[2] if len(values) == 3 else None
    if isinstance(test, (int, float)):
        return yes if test else (no if no is not None else Series({}, 60))

    def at(value: Value | None, time: int) -> float | None:
        if isinstance(value, Series):
            return value.points.get(time)
        if isinstance(value, (str, list)):
            raise _wrong("IF takes numbers and time series")
        return value

    points = {time: found for time, held in test.points.items() if (found := at(yes if held else no, time)) is not None}
    return Series(points, test.period, test.label, test.id, test.span)


def _fill(values: list[Value]) -> Value:
    if len(values) != 2:
        raise _wrong("FILL takes a time series and what fills it")
    given, how = values
    if isinstance(given, list):
        return [_one(_fill([one, how])) for one in given]
    if not isinstance(given, Series) or isinstance(how, list):
        raise _wrong("FILL takes a time series and what fills it")
    return _filled(given, how)


def _filled(given: Series, how: Value) -> Series:
    if not given.points:
        return given
    points: dict[int, float] = {}
    times = sorted(given.points)
    last = given.points[times[0]]
    for before, after in itertools.pairwise(times):
        last = points[before] = given.points[before]
        for at in range(before + given.period, after, given.period):
            if isinstance(how, Series):
                if at in how.points:
                    points[at] = how.points[at]
            elif isinstance(how, str):
                share = (at - before) / (after - before)
                if how == "LINEAR":
                    points[at] = last + share * (given.points[after] - last)
                elif how == "REPEAT":
                    points[at] = last
                else:
                    raise _wrong("FILL fills with a number, a time series, REPEAT or LINEAR")
            else:
                assert isinstance(how, (int, float))
                points[at] = how
    last = points[times[-1]] = given.points[times[-1]]
    if not isinstance(how, (Series, str)):
        assert isinstance(how, (int, float))
        points |= dict.fromkeys(range(given.span[0], times[0], given.period), float(how))
    if how != "LINEAR" and not isinstance(how, Series):
        value = last if isinstance(how, str) else how
        assert isinstance(value, (int, float))
        points |= dict.fromkeys(range(times[-1] + given.period, given.span[1], given.period), float(value))
    return Series(points, given.period, given.label, given.id, given.span)


_FUNCTIONS: Final[dict[str, Callable[[list[Value]], Value]]] = {
    "ABS": _pointwise(abs),
    "CEIL": _pointwise(lambda value: float(math.ceil(value))),
    "FLOOR": _pointwise(lambda value: float(math.floor(value))),
    "LOG": _pointwise(math.log),
    "LOG10": _pointwise(math.log10),
    "SUM": _together(math.fsum),
    "AVG": _together(lambda values: math.fsum(values) / len(values)),
    "MIN": _together(min),
    "MAX": _together(max),
    "STDDEV": _together(_deviation),
    "METRIC_COUNT": lambda values: float(len(_several(values[0]))) if len(values) == 1 else 0.0,
    "RATE": _each(_rate),
    "DIFF": _each(_diff),
    "RUNNING_SUM": _each(_running),
}
