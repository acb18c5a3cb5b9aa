"""JSONPath as the States Language has it: parsed once, walked within a budget, never evaluated as code.

Members, indexes, slices, unions, wildcards, descendants and filters. A path that can name several values gives a list; one
that names a single value gives it, or raises KeyError where there is none.

Source: Amazon States Language, "Paths" and "Reference Paths"; the Jayway JsonPath that AWS refers to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

_MOST_VISITED: Final = 200_000
_LONGEST: Final = 4096
_NAME: Final = re.compile(r"[^\s.\[\]()'\",?@*:!=<>&|~{}+]+")
_INDEX: Final = re.compile(r"-?\d+\Z")
_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")


class BadPath(ValueError):  # noqa: N818
    """A text is no path."""


class TooMuch(Exception):  # noqa: N818
    """A path looks at more of a value than any may."""


class _Budget:
    __slots__ = ("left",)

    def __init__(self, left: int = _MOST_VISITED) -> None:
        self.left = left

    def spend(self, count: int = 1) -> None:
        self.left -= count
        if self.left < 0:
            raise TooMuch(f"the path visits more than {_MOST_VISITED} values")


Step = Callable[[Any, Any, _Budget], Iterator[Any]]
"""What of a value a part of a path names; the second argument is the root."""


@dataclass(frozen=True, slots=True)
class Path:
    """A parsed path. root: ``$``, ``$$`` or the name of a variable. definite: it names one value at most. keys: of a
    reference path, the names and indexes in it."""

    text: str
    root: str
    steps: tuple[Step, ...]
    definite: bool
    keys: tuple[str | int, ...] | None
    length: bool = False

    def read(self, value: Any, most: int = _MOST_VISITED) -> Any:
        """What the path names of a value, having visited so many at most; raises KeyError where a definite path names
        nothing, TooMuch."""
        return self.counted(value, most)[0]

    def counted(self, value: Any, most: int = _MOST_VISITED) -> tuple[Any, int]:
        """As `read`, and how many values were visited."""
        budget = _Budget(min(most, _MOST_VISITED))
        before = budget.left
        found = self._read(value, budget)
        return found, before - budget.left + 1

    def _read(self, value: Any, budget: _Budget) -> Any:
        if self.keys is not None:
            here = value
            for key in self.keys:
                if isinstance(key, int):
                    if not isinstance(here, list) or not -len(here) <= key < len(here):
                        raise KeyError(key)
                    here = here[key]
                elif isinstance(here, dict) and key in here:
                    here = here[key]
                else:
                    raise KeyError(key)
            return here
        found = [value]
        for step in self.steps:
            below: list[Any] = []
            for one in found:
                for item in step(one, value, budget):
                    budget.spend()
                    below.append(item)
            found = below
        if self.length:
            held = found if not self.definite else (found[0] if found else None)
            if not isinstance(held, (list, dict, str)):
                raise KeyError("length")
            return len(held)
        if not self.definite:
            return found
        if not found:
            raise KeyError(self.text)
        return found[0]


@lru_cache(8192)
def parse(text: str) -> Path:
    """Reads a path: ``$...``, ``$$...`` or ``$variable...``; raises BadPath with what is wrong."""
    if len(text) > _LONGEST:
        raise BadPath(f"a path has {_LONGEST} characters at most")
    return _Parser(text).path()


@lru_cache(8192)
def reference(text: str) -> Path:
    """Reads a reference path, which names one place; raises BadPath."""
    path = parse(text)
    if path.keys is None:
        raise BadPath("a reference path has names and indexes only")
    return path


def written(path: Path, value: Any, result: Any) -> Any:
    """A copy of `value` with `result` at the place of a reference path; objects on the way are made.

    Raises KeyError where something else than an object stands in the way.
    """
    keys = path.keys or ()
    if not keys:
        return result
    top = dict(value) if isinstance(value, dict) else list(value) if isinstance(value, list) else None
    if top is None:
        raise KeyError(keys[0])
    here: Any = top
    for place, key in enumerate(keys):
        last = place == len(keys) - 1
        if isinstance(key, int):
            if not isinstance(here, list) or not 0 <= key < len(here):
                raise KeyError(key)
        elif not isinstance(here, dict):
            raise KeyError(key)
        if last:
            here[key] = result
            break
        below = here.get(key) if isinstance(here, dict) else here[key]
        if below is None and isinstance(here, dict) and key not in here:
            below = {}
        if isinstance(below, dict):
            below = dict(below)
        elif isinstance(below, list):
            below = list(below)
        else:
            raise KeyError(key)
        here[key] = below
        here = below
    return top


# -- steps ---------------------------------------------------------------------------------------------------------------


def _member(names: tuple[str, ...]) -> Step:
    def step(value: Any, _: Any, __: _Budget) -> Iterator[Any]:
        if isinstance(value, dict):
            for name in names:
                if name in value:
                    yield value[name]

    return step


def _indexes(numbers: tuple[int, ...]) -> Step:
    def step(value: Any, _: Any, __: _Budget) -> Iterator[Any]:
        if isinstance(value, list):
            for number in numbers:
                if -len(value) <= number < len(value):
                    yield value[number]

    return step


def _slice(start: int | None, end: int | None, by: int | None) -> Step:
    def step(value: Any, _: Any, __: _Budget) -> Iterator[Any]:
        if isinstance(value, list):
            yield from value[start:end:by]

    return step


def _every(value: Any, _: Any, __: _Budget) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _descend(value: Any, _: Any, budget: _Budget) -> Iterator[Any]:
    waiting = [value]
    while waiting:
        here = waiting.pop()
        budget.spend()
        yield here
        below = here.values() if isinstance(here, dict) else here if isinstance(here, list) else ()
        waiting.extend(reversed(list(below)))


Test = Callable[[Any, Any, _Budget], Any]
_NOTHING: Final = object()


def _filter(test: Test) -> Step:
    def step(value: Any, root: Any, budget: _Budget) -> Iterator[Any]:
        items = value if isinstance(value, list) else [value] if isinstance(value, dict) else []
        for item in items:
            budget.spend()
            if test(item, root, budget) not in (_NOTHING, False):
                yield item

    return step


def _compare(sign: str, left: Any, right: Any) -> bool:
    if left is _NOTHING or right is _NOTHING:
        return sign == "!=" and left is not right
    if sign in ("==", "!="):
        same = isinstance(left, bool) == isinstance(right, bool) and left == right
        return same if sign == "==" else not same
    if sign == "in":
        return isinstance(right, list) and left in right
    if sign == "nin":
        return isinstance(right, list) and left not in right
    numbers = all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in (left, right))
    if not numbers and not (isinstance(left, str) and isinstance(right, str)):
        return False
    return bool({"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[sign])


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.deep = 0

    def fail(self, what: str) -> BadPath:
        return BadPath(f"{what} at character {self.at + 1} of '{self.text}'")

    def peek(self, count: int = 1) -> str:
        return self.text[self.at : self.at + count]

    def take(self, wanted: str) -> bool:
        if self.text.startswith(wanted, self.at):
            self.at += len(wanted)
            return True
        return False

    def blanks(self) -> None:
        while self.peek() in (" ", "\t", "\n", "\r") and self.peek():
            self.at += 1

    def path(self) -> Path:
        if not self.take("$"):
            raise self.fail("a path begins with $")
        root = "$"
        if self.take("$"):
            root = "$$"
        elif match := re.compile(r"[A-Za-z_][\w]*").match(self.text, self.at):
            root, self.at = match[0], match.end()
        steps, definite, keys, length = self.steps()
        if self.at != len(self.text):
            raise self.fail("something unexpected")
        simple = tuple(keys) if keys is not None else None
        return Path(self.text, root, tuple(steps), definite, None if length else simple, length)

    def steps(self) -> tuple[list[Step], bool, list[str | int] | None, bool]:
        steps: list[Step] = []
        definite, length = True, False
        plain: list[str | int] | None = []
        while True:
            if self.take(".."):
                definite, plain = False, None
                steps.append(_descend)
                if self.peek() == "[":
                    continue
                if self.take("*"):
                    steps.append(_every)
                else:
                    steps.append(_member((self.name(),)))
            elif self.take("."):
                if self.take("*"):
                    definite, plain = False, None
                    steps.append(_every)
                elif self.peek() == "[":
                    continue
                else:
                    name = self.name()
                    if self.peek() == "(":
                        if name != "length" or not self.take("()"):
                            raise self.fail(f"the function {name}() is not one of a path's")
                        length = True
                        return steps, definite, None, length
                    steps.append(_member((name,)))
                    if plain is not None:
                        plain.append(name)
            elif self.take("["):
                one, single, key = self.bracket()
                steps.append(one)
                if not single:
                    definite, plain = False, None
                elif plain is not None:
                    plain.append(key)
            else:
                return steps, definite, plain, length

    def name(self) -> str:
        match = _NAME.match(self.text, self.at)
        if match is None:
            raise self.fail("a name is missing")
        self.at = match.end()
        return match[0]

    def quoted(self) -> str:
        sign = self.peek()
        self.at += 1
        found: list[str] = []
        while True:
            char = self.peek()
            if not char:
                raise self.fail("a quote is not closed")
            self.at += 1
            if char == "\\":
                if self.peek() not in (sign, "\\"):  # it means itself
                    found.append(char)
                found.append(self.peek())
                self.at += 1
            elif char == sign:
                return "".join(found)
            else:
                found.append(char)

    def bracket(self) -> tuple[Step, bool, str | int]:
        self.blanks()
        if self.take("*"):
            self.close()
            return _every, False, ""
        if self.take("?"):
            self.blanks()
            if not self.take("("):
                raise self.fail("a filter begins with ?(")
            test = self.either()
            self.blanks()
            if not self.take(")"):
                raise self.fail("a filter is not closed")
            self.close()
            return _filter(test), False, ""
        if self.peek() in ("'", '"') and self.peek():
            names = [self.quoted()]
            self.blanks()
            while self.take(","):
                self.blanks()
                if self.peek() not in ("'", '"'):
                    raise self.fail("a quoted name is missing")
                names.append(self.quoted())
                self.blanks()
            self.close()
            return _member(tuple(names)), len(names) == 1, names[0]
        end = self.text.find("]", self.at)
        if end < 0:
            raise self.fail("] is missing")
        inside, self.at = self.text[self.at : end].strip(), end + 1
        if ":" in inside:
            parts = [part.strip() for part in inside.split(":")]
            if len(parts) > 3 or any(part and not _INDEX.match(part) for part in parts):
                raise self.fail("a slice has up to three numbers")
            start, stop, by = ([int(part) if part else None for part in parts] + [None])[:3]
            if by == 0:
                raise self.fail("a slice does not go by 0")
            return _slice(start, stop, by), False, ""
        numbers = [part.strip() for part in inside.split(",")]
        if not all(_INDEX.match(part) for part in numbers):
            raise self.fail("an index is a number")
        return _indexes(tuple(int(part) for part in numbers)), len(numbers) == 1, int(numbers[0])

    def close(self) -> None:
        self.blanks()
        if not self.take("]"):
            raise self.fail("] is missing")

    # -- filters ---------------------------------------------------------------------------------------------------------

    def either(self) -> Test:
        self.deep += 1
        if self.deep > 50:
            raise self.fail("a filter is nested too deeply")
        tests = [self.both()]
        while self.joined("||"):
            tests.append(self.both())
        self.deep -= 1
        if len(tests) == 1:
            return tests[0]
        return lambda item, root, budget: any(one(item, root, budget) not in (_NOTHING, False) for one in tests)

    def joined(self, sign: str) -> bool:
        self.blanks()
        return self.take(sign)

    def both(self) -> Test:
        tests = [self.one()]
        while self.joined("&&"):
            tests.append(self.one())
        if len(tests) == 1:
            return tests[0]
        return lambda item, root, budget: all(one(item, root, budget) not in (_NOTHING, False) for one in tests)

    def one(self) -> Test:
        self.blanks()
        if self.take("!"):
            inner = self.one()
            return lambda item, root, budget: inner(item, root, budget) in (_NOTHING, False)
        if self.take("("):
            inner = self.either()
            self.blanks()
            if not self.take(")"):
                raise self.fail(") is missing")
            return inner
        left = self.operand()
        self.blanks()
        for sign in ("==", "!=", "<=", ">=", "<", ">", "nin", "in"):
            if self.take(sign):
                right = self.operand()
                return lambda item, root, budget, sign=sign: _compare(  # type: ignore[misc]
                    sign, left(item, root, budget), right(item, root, budget)
                )
        if self.peek(2) == "=~":
            raise self.fail("patterns (=~) are not supported in paths")
        return left

    def operand(self) -> Test:
        self.blanks()
        char = self.peek()
        if char in ("'", '"') and char:
            text = self.quoted()
            return lambda *_: text
        if char == "[":
            return self.listed()
        if char in ("@", "$") and char:
            self.at += 1
            steps, definite, keys, length = self.steps()
            path = Path(self.text, char, tuple(steps), definite, tuple(keys) if keys is not None else None, length)

            def read(item: Any, root: Any, budget: _Budget) -> Any:
                budget.spend(len(path.steps) + 1)
                try:
                    found = path.read(item if char == "@" else root)
                except KeyError:
                    return _NOTHING
                return _NOTHING if not path.definite and found == [] else found

            return read
        for word, value in (("true", True), ("false", False), ("null", None)):
            if self.take(word):
                return lambda *_, value=value: value
        match = _NUMBER.match(self.text, self.at)
        if match is None:
            raise self.fail("a value is missing")
        self.at = match.end()
        number = float(match[0]) if match[1] or match[2] else int(match[0])
        return lambda *_: number

    def listed(self) -> Test:
        self.at += 1
        items: list[Test] = []
        while True:
            self.blanks()
            if self.take("]"):
                return lambda *_: [one(None, None, _Budget()) for one in items]
            items.append(self.operand())
            self.blanks()
            if not self.take(",") and self.peek() != "]":
                raise self.fail("a list is not closed")
