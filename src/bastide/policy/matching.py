"""Matching of texts against wildcard patterns, ARNs against ARN patterns and actions against action patterns.

A pattern is cut at its ``*`` into pieces; the pieces are looked for from left to right, each as early as possible.
That is never wrong, because a ``*`` may swallow anything, and never goes back, so the time is bounded by the product of
the lengths, without the explosion that translating ``*a*a*a*`` into a regular expression brings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from bastide.policy.variables import (
    Atom,
    Context,
    Template,
    Wild,
    has_variables,
    literal_of,
    resolve,
    segments,
    template,
)

Test = Callable[[str, Context], bool]
"""Whether a text matches, given the request context that variables take their values from."""
Plain = Callable[[str], bool]

_Piece = str | re.Pattern[str]

ARN_PARTS = 6


def pattern(atoms: Template) -> Test:
    """A matcher of the whole text against a template."""
    if not has_variables(atoms):
        plain = plain_pattern(atoms)
        return lambda text, context: plain(text)

    def test(text: str, context: Context) -> bool:
        resolved = resolve(atoms, context)
        return resolved is not None and plain_pattern(resolved)(text)

    return test


@lru_cache(1024)
def wildcards(text: str) -> Plain:
    """A matcher of the whole text against one in which ``*`` and ``?`` are wildcards: also for what is no policy."""
    return plain_pattern(template(text, "", variables=False, wildcards=True))


def plain_pattern(atoms: Template) -> Plain:
    """A matcher of the whole text against a template without variables."""
    literal = literal_of(atoms)
    if literal is not None:
        return literal.__eq__
    if atoms == (Wild.MANY,):
        return lambda text: True
    if len(atoms) == 2 and isinstance(atoms[0], str) and atoms[1] is Wild.MANY:
        prefix = atoms[0]
        return lambda text: text.startswith(prefix)
    return _general(atoms)


def _general(atoms: Template) -> Plain:
    runs: list[list[Atom]] = [[]]
    for atom in atoms:
        if atom is Wild.MANY:
            runs.append([])
        else:
            runs[-1].append(atom)
    head, *middle = [_piece(run) for run in runs]
    widths = [_width(run) for run in runs]
    if not middle:
        return lambda text: len(text) == widths[0] and _stands(head, text, 0)
    tail = middle.pop()
    inner = [(piece, width) for piece, width in zip(middle, widths[1:-1], strict=True) if width]
    least = sum(widths)

    def test(text: str) -> bool:
        if len(text) < least or not _stands(head, text, 0):
            return False
        end = len(text) - widths[-1]
        if not _stands(tail, text, end):
            return False
        at = widths[0]
        for piece, width in inner:
            at = _find(piece, text, at, end)
            if at < 0:
                return False
            at += width
        return True

    return test


def _width(run: Sequence[Atom]) -> int:
    return sum(len(atom) if isinstance(atom, str) else 1 for atom in run)


def _piece(run: Sequence[Atom]) -> _Piece:
    literal = literal_of(run)
    if literal is not None:
        return literal
    # Of fixed width: nothing in it repeats, so the regular expression has nothing to go back to.
    return re.compile("".join(re.escape(atom) if isinstance(atom, str) else "." for atom in run), re.DOTALL)


def _stands(piece: _Piece, text: str, at: int) -> bool:
    if isinstance(piece, str):
        return text.startswith(piece, at)
    return piece.match(text, at) is not None


def _find(piece: _Piece, text: str, start: int, end: int) -> int:
    if isinstance(piece, str):
        return text.find(piece, start, end)
    found = piece.search(text, start, end)
    return -1 if found is None else found.start()


def arn_pattern(atoms: Template, *, complete: bool) -> Test:
    """A matcher of ARNs, segment by segment: a wildcard never reaches over one of the first five colons.

    complete: an ARN of fewer than six parts is filled up with ``*``, as in Resource and ArnLike; otherwise such a
    pattern matches nothing. A variable that stands for a whole ARN is cut at its colons after it has got its value;
    otherwise a value cannot move the borders of the segments.
    Source: IAM User Guide, "Amazon Resource Names (ARNs)", "ARN condition operators".
    """
    if atoms == (Wild.MANY,):
        return lambda text, context: True
    parts = segments(atoms, ARN_PARTS)
    if has_variables(atoms) and len(parts) < ARN_PARTS:

        def late(text: str, context: Context) -> bool:
            resolved = resolve(atoms, context)
            return resolved is not None and _segmentwise(segments(resolved, ARN_PARTS), complete)(text, context)

        return late
    if len(parts) == ARN_PARTS and all(literal_of(part) is not None for part in parts[:-1]):
        # The first five colons stand fixed in the text, so that the plain comparison is the same.
        return pattern(atoms)
    return _segmentwise(parts, complete)


def _segmentwise(parts: list[Template], complete: bool) -> Test:
    if len(parts) < ARN_PARTS:
        if not complete:
            return lambda text, context: False
        parts = parts + [(Wild.MANY,)] * (ARN_PARTS - len(parts))
    tests = [
        (index, pattern(part)) for index, part in enumerate(parts) if part != (Wild.MANY,)
    ]  # fmt: skip

    def test(text: str, context: Context) -> bool:
        found = text.split(":", ARN_PARTS - 1)
        if len(found) != ARN_PARTS:
            return False
        for index, matches in tests:  # noqa: SIM110 - a generator costs more than the tests do
            if not matches(found[index], context):
                return False
        return True

    return test


def any_of(tests: Sequence[Test]) -> Test:
    """Matches if one of the tests does."""
    if len(tests) == 1:
        return tests[0]
    several = tuple(tests)

    def test(text: str, context: Context) -> bool:
        for one in several:  # noqa: SIM110 - a generator costs more than the tests do
            if one(text, context):
                return True
        return False

    return test
