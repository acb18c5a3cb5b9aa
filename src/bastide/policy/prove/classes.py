"""Texts that no pattern tells apart: one of each class stands for all.

All patterns are read side by side, a character at a time; the sets of places where they can stand are the states, and
each set of patterns that end together is a class, with the shortest text that leads there. Characters that no pattern
writes behave alike, so that one of them stands for the others.
"""

from __future__ import annotations

import string
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bastide.policy.variables import Template, Wild

_STATES: Final = 6000
_PREFERRED: Final = "xyz" + string.ascii_lowercase + string.digits + string.ascii_uppercase
_COLON: Final = frozenset(":")


class TooMany(Exception):  # noqa: N818
    """The patterns have more states than it is worth walking through."""


@dataclass(frozen=True, slots=True)
class Item:
    """One character, or any number of them: of `chars`, or of all but those if `beside`."""

    chars: frozenset[str]
    beside: bool = False
    many: bool = False

    def takes(self, char: str) -> bool:
        """Whether the character may stand here."""
        return (char in self.chars) is not self.beside


Pattern = tuple[Item, ...]
_ANY: Final = Item(frozenset(), beside=True)
_MANY: Final = Item(frozenset(), beside=True, many=True)
_ANY_IN_SEGMENT: Final = Item(_COLON, beside=True)
_MANY_IN_SEGMENT: Final = Item(_COLON, beside=True, many=True)


def pattern(atoms: Template, *, segment: bool = False) -> Pattern:
    """A template without variables. segment: its wildcards stand for no colon."""
    found: list[Item] = []
    for atom in atoms:
        if atom is Wild.MANY:
            found.append(_MANY_IN_SEGMENT if segment else _MANY)
        elif atom is Wild.ONE:
            found.append(_ANY_IN_SEGMENT if segment else _ANY)
        else:
            found += [Item(frozenset(char)) for char in str(atom)]
    return tuple(found)


def in_any_case(text: str) -> Pattern:
    """Every text that is `text` when both are in lower case; `text` is ASCII."""
    found = []
    for char in text:
        chars = {char.lower(), char.upper()} | ({"\u212a"} if char in "kK" else set())
        found.append(Item(frozenset(chars)))
    return tuple(found)


def arn(parts: Sequence[Template]) -> Pattern:
    """The six segments of an ARN pattern as one."""
    found: list[Item] = []
    for number, part in enumerate(parts):
        if number:
            found.append(Item(_COLON))
        found += pattern(part, segment=number < len(parts) - 1)
    return tuple(found)


_NAME: Final = frozenset(string.ascii_lowercase + string.digits)
ACTION: Final[Pattern] = (
    Item(_NAME | {"-"}),
    Item(_NAME | {"-"}, many=True),
    Item(_COLON),
    Item(_NAME),
    Item(_NAME, many=True),
)
"""What every action looks like, in lower case."""


def classes(patterns: Sequence[Pattern], within: Pattern | None = None) -> list[tuple[str, frozenset[int]]]:
    """One text of each class, with the numbers of the patterns that it matches. within: matched by all of them.

    Raises TooMany.
    """
    every = [*patterns, *([within] if within is not None else [])]
    chars = {char for one in every for item in one for char in item.chars}
    fresh = next((char for char in _PREFERRED if char not in chars), None)
    if fresh is None:
        fresh = next(chr(code) for code in range(0xC0, 0x2000) if chr(code) not in chars)
    alphabet = [fresh, *sorted(chars)]
    start = stars = ends = place = 0
    stay = dict.fromkeys(alphabet, 0)
    step = dict.fromkeys(alphabet, 0)
    final: list[int] = []
    for one in every:
        start |= 1 << place
        for item in one:
            if item.many:
                stars |= 1 << place
            moves = stay if item.many else step
            for char in alphabet:
                if item.takes(char):
                    moves[char] |= 1 << place
            place += 1
        final.append(place)
        ends |= 1 << place
        place += 1

    def closed(state: int) -> int:
        while True:
            more = state | ((state & stars) << 1)
            if more == state:
                return state
            state = more

    found: dict[int, str] = {}
    first = closed(start)
    seen = {first}
    waiting = deque([(first, "")])
    while waiting:
        state, text = waiting.popleft()
        found.setdefault(state & ends, text)
        for char in alphabet:
            following = closed(((state & step[char]) << 1) | (state & stay[char]))
            if following not in seen:
                if len(seen) >= _STATES:
                    raise TooMany
                seen.add(following)
                waiting.append((following, text + char))
    told = []
    for signature, text in found.items():
        matched = frozenset(number for number, end in enumerate(final) if signature >> end & 1)
        if within is None or len(patterns) in matched:
            told.append((text, matched - {len(patterns)} if within is not None else matched))
    return told
