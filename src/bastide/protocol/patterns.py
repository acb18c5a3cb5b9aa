"""The models' patterns, which are Java regular expressions, as Python ones that a stranger cannot stall.

A pattern must match the whole value, as the services do it. Classes like ``\\w`` are ASCII, ``.`` stops at Java's line
ends, ``\\p{L}`` becomes ranges of code points, ``&&`` an intersection by lookahead. What still cannot be compiled is not
checked; tests/unit/protocol counts those.

Python backtracks. A pattern whose repeats can match the same text in several ways takes exponential time on a value
made for it, so beyond `_SHORT` characters such a pattern is matched by `_Positions`, which follows all ways at once in
linear time. That passes over lookaround, so it may accept more; with back references longer values are refused.
Patterns that callers write, and not the models, are matched by `strangers` alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache, lru_cache
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

from bastide.protocol.lookaround import Lookaround

_SHORT = 24
_LONG = 256 * 1024
_MOST_STATES = 3000
_POSIX = {
    "Lower": "a-z",
    "Upper": "A-Z",
    "ASCII": "\\x00-\\x7f",
    "Alpha": "a-zA-Z",
    "Digit": "0-9",
    "Alnum": "a-zA-Z0-9",
    "Punct": "!-/:-@\\[-`{-~",
    "Graph": "!-~",
    "Print": " -~",
    "Blank": " \\t",
    "Cntrl": "\\x00-\\x1f\\x7f",
    "XDigit": "0-9a-fA-F",
    "Space": " \\t\\n\\x0b\\f\\r",
}
_NAMES = {
    "IsAlphabetic": ("L", "Nl"),
    "IsLetter": ("L",),
    "IsDigit": ("Nd",),
    "IsPunctuation": ("P",),
    "IsWhite_Space": ("Z",),
    "IsLatin": ("L",),
    "IsUppercase": ("Lu",),
    "IsLowercase": ("Ll",),
}


@cache
def _ranges_by_category() -> dict[str, list[tuple[int, int]]]:
    found: dict[str, list[tuple[int, int]]] = {}
    category = unicodedata.category
    start, current = 0, category("\0")
    # Planes 4 to 13 are unassigned and 15 and 16 private: their edges are enough.
    edges = (0x40000, 0xE1000, 0xF0000, 0xFFFFE, 0x100000, 0x10FFFE, 0x110000)
    for point in sorted({*range(1, 0x40000), *range(0xE0000, 0xE1000), *edges}):
        here = category(chr(point)) if point < 0x110000 else ""
        if here != current:
            found.setdefault(current, []).append((start, point - 1))
            start, current = point, here
    return found


def _class_of(ranges: list[tuple[int, int]]) -> str:
    return "".join(f"\\U{low:08x}" if low == high else f"\\U{low:08x}-\\U{high:08x}" for low, high in ranges)


@cache
def _property(name: str, negated: bool) -> str:
    """The inside of a character class for ``\\p{name}``, or ``\\P{name}``."""
    name = name.partition("=")[2] or name
    if name in _POSIX and not negated:
        return _POSIX[name]
    wanted = _NAMES.get(name, (name.removeprefix("Is"),))
    if name in _POSIX:
        inside = re.compile(f"[{_POSIX[name]}]")
        ranges = [(point, point) for point in range(128) if inside.match(chr(point))]
    else:
        ranges = sorted(
            one for category, many in _ranges_by_category().items() if category.startswith(wanted) for one in many
        )
    if not ranges:
        raise re.error(f"unknown property {name}")
    merged: list[tuple[int, int]] = []
    for low, high in ranges:
        if merged and merged[-1][1] + 1 == low:
            merged[-1] = (merged[-1][0], high)
        else:
            merged.append((low, high))
    if negated:
        edges = [-1, *(edge for one in merged for edge in one), 0x110000]
        merged = [
            (edges[at] + 1, edges[at + 1] - 1) for at in range(0, len(edges), 2) if edges[at] + 1 <= edges[at + 1] - 1
        ]
    return _class_of(merged)


_ESCAPE = re.compile(r"\\(?:([pP])(?:\{\^?([^}]*)\}|(\w))|x\{([0-9a-fA-F]+)\}|u([0-9a-fA-F]{4})|(.))", re.DOTALL)


def translate(java: str) -> str:
    """A Java pattern in Python's syntax; raises re.error where it has none."""
    java = re.sub(r"\$\{\d+(,\d*)?\}$", "$", java)
    java = re.sub(r"\\u[dD]800\\u[dD]C00-\\u[dD]BFF\\u[dD]FFF", r"\\x{10000}-\\x{10ffff}", java)
    out: list[str] = []
    flags = ""
    at, depth = 0, 0
    while at < len(java):
        char = java[at]
        if char == "\\":
            found = _ESCAPE.match(java, at)
            if found is None:
                raise re.error("pattern ends in a backslash")
            kind, name, short, wide, four, other = found.groups()
            if kind:
                inside = _property(name or short, kind == "P")
                out.append(inside if depth else f"[{inside}]")
            elif wide:
                out.append(f"\\U{int(wide, 16):08x}")
            elif four:
                out.append(f"\\u{four}")
            elif other in ("z", "Z") and not depth:
                out.append("\\Z")
            elif other == "h":
                out.append(" \\t\\xa0" if depth else "[ \\t\\xa0]")
            elif other.isalpha() and other not in "AbBdDsSwWtnrfvax":
                raise re.error(f"unknown escape {other}")
            else:
                out.append("\\" + other)
            at = found.end()
        elif depth:
            at, depth = _inside(java, at, depth, out)
        elif char == "[":
            depth = 1
            out.append("[")
            at += 1
            if java[at : at + 1] == "^":
                out.append("^")
                at += 1
            if java[at : at + 1] == "]":
                out.append("\\]")
                at += 1
        elif char == ".":
            out.append("[^\\n\\r\\x85\\u2028\\u2029]")
            at += 1
        elif java.startswith("(?i)", at):
            flags = "(?i)"
            at += 4
        elif java.startswith("(?s)", at):
            at += 4
        else:
            out.append(char)
            at += 1
    return flags + "".join(out)


def _inside(java: str, at: int, depth: int, out: list[str]) -> tuple[int, int]:
    """One step inside a character class; returns where to go on and how deep."""
    char = java[at]
    if char == "]":
        out.append("]")
        return at + 1, 0
    if java.startswith("&&[^", at):
        end = java.find("]]", at)
        if end < 0:
            raise re.error("unfinished intersection")
        start = len(out) - 1 - out[::-1].index("[")
        out[start] = f"(?:(?!{java[at + 2 : end + 1].replace('[^', '[', 1)})["
        out.append("])")
        return end + 2, 0
    if char == "[":
        out.append("\\[")
        return at + 1, depth
    if char == "-":
        # Java reads "\w-." as the three; Python wants the hyphen escaped.
        previous = out[-1] if out else ""
        following = java[at + 1 : at + 3]
        if (len(previous) > 1 and previous[0] == "\\" and previous[-1] in "wWdDsS") or (
            following[:1] == "\\" and following[1:] in ("w", "d", "s", "W", "D", "S")
        ):
            out.append("\\-")
            return at + 1, depth
    out.append("\\" + char if char in "&~|" else char)
    return at + 1, depth


Matcher = Callable[[str], bool]


@cache
def matcher(java: str) -> Matcher | None:
    """A function that says whether a whole value matches, or None where the pattern cannot be understood."""
    try:
        translated = translate(java)
        parsed = _parser.parse(translated, re.ASCII)
        compiled = re.compile(translated, re.ASCII)
    except (re.error, OverflowError, RecursionError, ValueError):
        return None
    fullmatch = compiled.fullmatch
    if not _ambiguous(parsed):
        return lambda text: len(text) <= _LONG and fullmatch(text) is not None
    try:
        positions: _Positions | None = _Positions(parsed)
    except NotImplementedError:
        positions = None

    def careful(text: str) -> bool:
        if len(text) <= _SHORT:
            return fullmatch(text) is not None
        return positions is not None and len(text) <= _LONG and positions.matches(text)

    return careful


_STEADY = 8192
_MOST_LOOKS = 16
_REPEATS = (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT)
_LOOKS = (sre.ASSERT, sre.ASSERT_NOT)


@lru_cache(1024)
def strangers(java: str) -> Matcher | None:
    """`matcher` for a pattern that a caller wrote. None, too, where it cannot be followed in bounded time.

    Python's engine gets it only if it can go back in two places at most, and values of bounded length; every other pattern
    is followed in all its states at once, or, where it looks ahead, from every place once; back references, looking back
    and ignored case do not allow that."""
    try:
        translated = translate(java)
        parsed = _parser.parse(translated, re.ASCII)
        compiled = re.compile(translated, re.ASCII)
        if _choices(parsed) <= 2 or _led(parsed):
            return lambda text: len(text) <= _STEADY and compiled.fullmatch(text) is not None
        if _looks(parsed):
            return Lookaround(parsed, _single).matches
        positions = _Positions(parsed)
    except (re.error, OverflowError, RecursionError, ValueError, NotImplementedError):
        return None
    return lambda text: len(text) <= _LONG and positions.matches(text)


def _choices(parsed: Any) -> int:
    """In how many places a match may go on in several ways. What is repeated counts as often as it may be repeated."""
    count = 0
    for op, argument in parsed:
        if op in _REPEATS:
            low, high, body = argument
            inner = _choices(body)
            count += (low != high) + (inner if high == 1 else 3 * inner)
        elif op is sre.SUBPATTERN:
            count += _choices(argument[3])
        elif op is sre.BRANCH:
            count += 1 + sum(_choices(one) for one in argument[1])
        elif op in _LOOKS:
            count += _choices(argument[1])
        elif op is sre.ATOMIC_GROUP:
            count += _choices(argument)
        elif op in (sre.GROUPREF, sre.GROUPREF_EXISTS, sre.GROUPREF_IGNORE):
            count += 3
    return count


def _led(parsed: Any) -> bool:
    """Whether a pattern is lookaround that is tried once, each of one choice at most, and then something steady."""
    rest = list(parsed)
    leading = []
    while rest and rest[0][0] in (sre.AT, *_LOOKS):
        leading.append(rest.pop(0))
    looks = [argument[1] for op, argument in leading if op in _LOOKS]
    return len(looks) <= _MOST_LOOKS and all(_choices(one) <= 1 for one in looks) and _choices(rest) <= 2


def _looks(parsed: Any) -> bool:
    """Whether lookaround, or a border of words, stands anywhere in a pattern."""
    for op, argument in parsed:
        if op in _LOOKS or (op is sre.AT and argument not in (sre.AT_BEGINNING, sre.AT_END, sre.AT_END_STRING)):
            return True
        below = (
            [argument[2]] if op in _REPEATS
            else [argument[3]] if op is sre.SUBPATTERN
            else argument[1] if op is sre.BRANCH
            else []
        )  # fmt: skip
        if any(_looks(one) for one in below):
            return True
    return False


_MANY = 12
_FEW = 8


def _ambiguous(parsed: Any) -> bool:
    """Whether a repeat stands in a repeat in a way that could match one text in many ways. Errs towards yes."""
    loose = 0
    for op, argument in parsed:
        if op in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            low, high, body = argument
            if high is sre.MAXREPEAT or high - low >= _MANY:
                loose += 1
            if high > _FEW and _unclear(body):
                return True
            if _ambiguous(body):
                return True
        elif op is sre.SUBPATTERN:
            if _ambiguous(argument[3]):
                return True
        elif op is sre.BRANCH:
            if any(_ambiguous(one) for one in argument[1]):
                return True
        elif (op in (sre.ASSERT, sre.ASSERT_NOT) and _ambiguous(argument[1])) or op is sre.GROUPREF:
            return True
    return loose > 6


def _plain(parsed: Any) -> list[tuple[Any, Any]]:
    """The items of a sequence with groups opened."""
    found: list[tuple[Any, Any]] = []
    for op, argument in parsed:
        if op is sre.SUBPATTERN:
            found.extend(_plain(argument[3]))
        elif op not in (sre.AT, sre.ASSERT, sre.ASSERT_NOT):
            found.append((op, argument))
    return found


_PROBES = [chr(point) for point in range(1, 128)] + ["\xe9", "\u0431", "\u4e2d"]


def _charset(op: Any, argument: Any) -> frozenset[str]:
    one = _single(op, argument)
    if one is None:
        return frozenset(_PROBES)
    return frozenset(probe for probe in _PROBES if one(probe))


def _characters(parsed: Any) -> frozenset[str]:
    found: frozenset[str] = frozenset()
    for op, argument in _plain(parsed):
        if op in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            found |= _characters(argument[2])
        elif op is sre.BRANCH:
            for one in argument[1]:
                found |= _characters(one)
        elif op not in (sre.AT, sre.ASSERT, sre.ASSERT_NOT):
            found |= _charset(op, argument)
    return found


def _unclear(body: Any) -> bool:
    """Whether the rounds of a repeated body may not be told apart.

    They can when the body is one character, has no loose repeat or branch of its own, or begins or ends with a
    character that nothing else in it may be.
    """
    items = _plain(body)
    flexible = [one for one in items if one[0] in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.BRANCH)]
    if not flexible:
        return False
    if len(items) == 1 and items[0][0] is sre.BRANCH:
        first: frozenset[str] = frozenset()
        for branch in items[0][1][1]:
            inner = _plain(branch)
            if not inner or _unclear(branch):
                return True
            start = _charset(*inner[0]) if _single(*inner[0]) is not None else None
            if start is None or start & first:
                return True
            first |= start
            if len(inner) > 1 and any(one[0] in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.BRANCH) for one in inner):
                return True
        return False
    for edge, rest in ((items[0], items[1:]), (items[-1], items[:-1])):
        if _single(*edge) is not None and not _charset(*edge) & _characters(rest):
            return False
    return True


def _single(op: Any, argument: Any) -> Callable[[str], bool] | None:
    """What one item of a parsed pattern accepts as one character; None where it is no single character."""
    if op is sre.LITERAL:
        wanted = chr(argument)
        return lambda char: char == wanted
    if op is sre.NOT_LITERAL:
        refused = chr(argument)
        return lambda char: char != refused
    if op is sre.ANY:
        return lambda char: char != "\n"
    if op is sre.IN:
        return _in(argument)
    return None


_CATEGORIES = {
    sre.CATEGORY_DIGIT: re.compile(r"\d", re.ASCII),
    sre.CATEGORY_NOT_DIGIT: re.compile(r"\D", re.ASCII),
    sre.CATEGORY_SPACE: re.compile(r"\s", re.ASCII),
    sre.CATEGORY_NOT_SPACE: re.compile(r"\S", re.ASCII),
    sre.CATEGORY_WORD: re.compile(r"\w", re.ASCII),
    sre.CATEGORY_NOT_WORD: re.compile(r"\W", re.ASCII),
}


def _in(items: Any) -> Callable[[str], bool]:
    negated = False
    ranges: list[tuple[str, str]] = []
    categories: list[re.Pattern[str]] = []
    for op, argument in items:
        if op is sre.NEGATE:
            negated = True
        elif op is sre.LITERAL:
            ranges.append((chr(argument), chr(argument)))
        elif op is sre.RANGE:
            ranges.append((chr(argument[0]), chr(argument[1])))
        else:
            categories.append(_CATEGORIES[argument])

    @lru_cache(512)
    def accepts(char: str) -> bool:
        inside = any(low <= char <= high for low, high in ranges) or any(one.match(char) for one in categories)
        return inside is not negated

    return accepts


class _Positions:
    """A pattern as a nondeterministic automaton, followed in all its states at once (Thompson 1968)."""

    def __init__(self, parsed: Any) -> None:
        self._accepts: list[Callable[[str], bool] | None] = []
        self._next: list[list[int]] = []
        self._last = self._state(None)
        self._first = self._sequence(parsed, self._last)
        self._steps: dict[tuple[frozenset[int], str], frozenset[int]] = {}
        self._start = self._closed([self._first])
        if parsed.state.flags & re.IGNORECASE:
            raise NotImplementedError

    def _state(self, accepts: Callable[[str], bool] | None, *following: int) -> int:
        if len(self._next) > _MOST_STATES:
            raise NotImplementedError
        self._accepts.append(accepts)
        self._next.append(list(following))
        return len(self._next) - 1

    def _sequence(self, parsed: Any, after: int) -> int:
        for op, argument in reversed(list(parsed)):
            after = self._item(op, argument, after)
        return after

    def _item(self, op: Any, argument: Any, after: int) -> int:
        one = _single(op, argument)
        if one is not None:
            return self._state(one, after)
        if op is sre.SUBPATTERN:
            return self._sequence(argument[3], after)
        if op is sre.BRANCH:
            return self._state(None, *(self._sequence(branch, after) for branch in argument[1]))
        if op in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            low, high, body = argument
            if high is sre.MAXREPEAT or high - low > 256:
                # So many rounds are as good as any number, and cost no states.
                loop = self._state(None)
                self._next[loop] = [self._sequence(body, loop), after]
                after = loop
            else:
                end = after
                for _ in range(high - low):
                    after = self._state(None, self._sequence(body, after), end)
            for _ in range(low):
                before, after = after, self._sequence(body, after)
                if before == after:  # nothing, however often
                    break
            return after
        if op in (sre.AT, sre.ASSERT, sre.ASSERT_NOT):
            # The whole value is matched, so outer anchors say nothing; without the others more is accepted, never less.
            return after
        raise NotImplementedError

    def _closed(self, states: list[int]) -> frozenset[int]:
        found: set[int] = set()
        stack = list(states)
        seen: set[int] = set()
        while stack:
            state = stack.pop()
            if state in seen:
                continue
            seen.add(state)
            if self._accepts[state] is None and state != self._last:
                stack.extend(self._next[state])
            else:
                found.add(state)
        return frozenset(found)

    def matches(self, text: str) -> bool:
        """Whether the whole of `text` matches."""
        current = self._start
        steps = self._steps
        for char in text:
            following = steps.get((current, char))
            if following is None:
                ahead = [
                    after
                    for state in current
                    if (accepts := self._accepts[state]) is not None and accepts(char)
                    for after in self._next[state]
                ]
                following = self._closed(ahead)
                if len(steps) < 4096:
                    steps[(current, char)] = following
            current = following
            if not current:
                return False
        return self._last in current
