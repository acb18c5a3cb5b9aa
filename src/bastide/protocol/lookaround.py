"""Patterns that look ahead, followed so that no text takes long: what a part of the pattern can reach from a place of the
text is found once and remembered, whatever leads there. The work is bounded by the pattern's parts times the text's length,
squared; beyond that nothing matches.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from re import _constants as sre  # type: ignore[attr-defined]
from typing import Any, Final

MOST_CHARACTERS: Final = 256
_MOST_STEPS: Final = 200_000
_REPEATS: Final = (sre.MAX_REPEAT, sre.MIN_REPEAT)
Single = Callable[[Any, Any], "Callable[[str], bool] | None"]
"""What one item of a parsed pattern accepts as a character; None where it is no single character."""


class _TooLong(Exception):  # noqa: N818 - an outcome
    pass


class Lookaround:
    """A parsed pattern; raises NotImplementedError for back references, looking back and ignored case."""

    def __init__(self, parsed: Any, single: Single) -> None:
        self._parsed = parsed
        self._singles: dict[int, Callable[[str], bool] | None] = {}
        self._single = single
        if parsed.state.flags & re.IGNORECASE:
            raise NotImplementedError
        self._check(parsed)

    def _check(self, parsed: Any) -> None:
        for item in parsed:
            op, argument = item
            one = self._singles[id(item)] = self._single(op, argument)
            if one is not None or op is sre.AT:
                continue
            if op in _REPEATS:
                self._check(argument[2])
            elif op is sre.SUBPATTERN:
                self._check(argument[3])
            elif op is sre.BRANCH:
                for branch in argument[1]:
                    self._check(branch)
            elif op in (sre.ASSERT, sre.ASSERT_NOT) and argument[0] > 0:
                self._check(argument[1])
            else:
                raise NotImplementedError

    def matches(self, text: str) -> bool:
        """Whether the whole of a text matches; no text of more than `MOST_CHARACTERS` does."""
        if len(text) > MOST_CHARACTERS:
            return False
        try:
            return len(text) in _Following(self._singles, text).sequence(self._parsed, 0)
        except _TooLong:
            return False


class _Following:
    """One text, on the way."""

    def __init__(self, singles: dict[int, Callable[[str], bool] | None], text: str) -> None:
        self._singles, self._text = singles, text
        self._known: dict[tuple[int, int], frozenset[int]] = {}
        self._steps = 0

    def sequence(self, items: Any, at: int) -> frozenset[int]:
        """Where a sequence of items may end that begins at a place."""
        key = (id(items), at)
        found = self._known.get(key)
        if found is None:
            here = frozenset((at,))
            for item in items:
                here = frozenset(end for place in here for end in self._item(item, place))
                if not here:
                    break
            found = self._known[key] = here
        return found

    def _item(self, item: Any, at: int) -> frozenset[int]:
        self._spend(1)
        op, argument = item
        one = self._singles[id(item)]
        if one is not None:
            return frozenset((at + 1,)) if at < len(self._text) and one(self._text[at]) else frozenset()
        if op in _REPEATS:
            return self._repeat(item, at)
        if op is sre.SUBPATTERN:
            return self.sequence(argument[3], at)
        if op is sre.BRANCH:
            return frozenset(end for branch in argument[1] for end in self.sequence(branch, at))
        if op is sre.AT:
            return frozenset((at,)) if self._border(argument, at) else frozenset()
        there = bool(self.sequence(argument[1], at))
        return frozenset((at,)) if there == (op is sre.ASSERT) else frozenset()

    def _repeat(self, item: Any, at: int) -> frozenset[int]:
        key = (id(item), at)
        if key in self._known:
            return self._known[key]
        low, high, body = item[1]
        here = frozenset((at,))
        for _ in range(low):
            further = self._round(body, here)
            if further == here:  # nothing, however often
                break
            here = further
        found, rounds = set(here), low
        while here and (high is sre.MAXREPEAT or rounds < high):
            here = self._round(body, here) - found
            found |= here
            rounds += 1
        self._known[key] = frozenset(found)
        return self._known[key]

    def _spend(self, steps: int) -> None:
        self._steps += steps
        if self._steps > _MOST_STEPS:
            raise _TooLong

    def _round(self, body: Any, places: frozenset[int]) -> frozenset[int]:
        self._spend(len(places))
        return frozenset(end for place in places for end in self.sequence(body, place))

    def _border(self, what: Any, at: int) -> bool:
        text = self._text
        if what in (sre.AT_BEGINNING, sre.AT_BEGINNING_STRING):
            return at == 0
        if what is sre.AT_END:
            return at == len(text) or (at == len(text) - 1 and text[at] == "\n")
        if what is sre.AT_END_STRING:
            return at == len(text)
        words = [0 <= place < len(text) and bool(re.match(r"\w", text[place], re.ASCII)) for place in (at - 1, at)]
        return (words[0] != words[1]) == (what is sre.AT_BOUNDARY)
