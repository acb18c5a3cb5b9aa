"""The part of JSONPath that batch transform knows: what to pick from a record.

``$``, ``.name``, ``*``, ``['a','b']``, ``[1,3]``, ``[-1]``, ``[1:]``. Source: SageMaker developer guide, "Associate
Prediction Results with Input Records", and the JsonPath that it refers to, by which a slice ends before its second number.
Nothing is picked twice, so that what comes out is never more than what went in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

LONGEST: Final = 63
_NAME: Final = re.compile(r"[^\W\d][\w-]*|\d[\w-]*", re.ASCII)
_QUOTED: Final = re.compile(r"'((?:[^'\\]|\\['\\])*)'|\"((?:[^\"\\]|\\[\"\\])*)\"")
_PART: Final = re.compile(r"\s*(-?\d{1,9})?\s*(:)?\s*(-?\d{1,9})?\s*")


class Unreadable(ValueError):  # noqa: N818
    """A path that is none, or more than batch transform knows; the text says what is wrong, for who wrote it."""


class NoMatch(LookupError):  # noqa: N818
    """A record has not what a path asks for."""


@dataclass(frozen=True, slots=True)
class _Names:
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Places:
    """Indexes, and slices as (start, end)."""

    parts: tuple[int | tuple[int | None, int | None], ...]

    @property
    def single(self) -> bool:
        return len(self.parts) == 1 and isinstance(self.parts[0], int)


@dataclass(frozen=True, slots=True)
class _Every:
    pass


_Step = _Names | _Places | _Every


class Path:
    """A path that was understood. text: as it was written."""

    def __init__(self, text: str, *, longest: int = LONGEST) -> None:
        """Raises Unreadable."""
        if len(text) > longest:
            raise Unreadable(f"has more than {longest} characters")
        self.text = text
        self._steps = _read(text)

    @property
    def whole(self) -> bool:
        """Whether it picks everything."""
        return not self._steps

    @property
    def of_rows(self) -> bool:
        """Whether it can pick from a row, whose cells have places and no names."""
        return len(self._steps) <= 1 and not any(isinstance(one, _Names) for one in self._steps)

    def pick(self, value: Any) -> Any:
        """What it means in a value: the one that it names, or a list, or an object of the members that it names. Raises
        NoMatch."""
        found = list(_walk(self._steps, value, self.text))
        single = all(isinstance(one, _Names) or (isinstance(one, _Places) and one.single) for one in self._steps)
        last = self._steps[-1] if self._steps else None
        if isinstance(last, _Names):  # several names make one object, behind several values make several
            single = single and all(not isinstance(one, _Names) or len(one.names) == 1 for one in self._steps[:-1])
        elif any(isinstance(one, _Names) and len(one.names) > 1 for one in self._steps):
            single = False
        return found[0] if single else found

    def pick_cells(self, row: Sequence[str]) -> list[str]:
        """The cells of a row; raises NoMatch."""
        if not self._steps:
            return list(row)
        found = self.pick(row)
        return found if isinstance(found, list) else [found]


def _read(text: str) -> tuple[_Step, ...]:
    if not text.startswith("$"):
        raise Unreadable("has to begin with $")
    steps: list[_Step] = []
    at = 1
    while at < len(text):
        if text.startswith("..", at):
            raise Unreadable("has .., which is not known here")
        dot = text[at] == "."
        at += dot
        if text.startswith("[", at):
            step, at = _bracket(text, at + 1)
        elif not dot:
            raise Unreadable(f"has something unexpected at its character {at + 1}")
        elif text.startswith("*", at):
            step, at = _Every(), at + 1
        else:
            found = _NAME.match(text, at)
            if found is None:
                raise Unreadable(f"lacks a name at its character {at + 1}; other names are written ['name']")
            step, at = _Names((found.group(),)), found.end()
        steps.append(step)
    return tuple(steps)


def _bracket(text: str, at: int) -> tuple[_Step, int]:
    end = at
    while text.startswith(" ", end):
        end += 1
    step: _Step
    if text.startswith("*", end):
        step, end = _Every(), end + 1
    elif text[end : end + 1] in ("'", '"'):
        names: list[str] = []
        while True:
            found = _QUOTED.match(text, end)
            if found is None:
                raise Unreadable("has a name in brackets that does not end")
            name = found.group(1) if found.group(1) is not None else found.group(2)
            names.append(re.sub(r"\\(.)", r"\1", name))
            end = _blank(text, found.end())
            if not text.startswith(",", end):
                break
            end = _blank(text, end + 1)
        if len(set(names)) != len(names):
            raise Unreadable("names a member twice")
        step = _Names(tuple(names))
    else:
        parts: list[int | tuple[int | None, int | None]] = []
        while True:
            found = _PART.match(text, end)
            assert found is not None
            start, colon, stop = found.groups()
            if not colon and start is None:
                raise Unreadable("has something in brackets that is no number, slice, or name in quotes")
            parts.append(
                (None if start is None else int(start), None if stop is None else int(stop)) if colon else int(start)
            )
            end = found.end()
            if not colon and stop is not None:
                raise Unreadable("has two numbers without a comma")
            if not text.startswith(",", end):
                break
            end += 1
        if len(set(parts)) != len(parts):
            raise Unreadable("names a place twice")
        step = _Places(tuple(parts))
    end = _blank(text, end)
    if not text.startswith("]", end):
        raise Unreadable("has a bracket that does not end, or something in it that is not known here")
    return step, end + 1


def _blank(text: str, at: int) -> int:
    while text.startswith(" ", at):
        at += 1
    return at


def _walk(steps: Sequence[_Step], value: Any, text: str) -> Iterator[Any]:
    if not steps:
        yield value
        return
    step, rest = steps[0], steps[1:]
    if isinstance(step, _Names):
        if not isinstance(value, dict):
            raise NoMatch(f"{text} asks for a member of what is no object")
        lacking = [name for name in step.names if name not in value]
        if lacking:
            raise NoMatch(f"{text} asks for {lacking[0][:100]!r}, which is not there")
        if not rest and len(step.names) > 1:
            yield {name: value[name] for name in step.names}
            return
        chosen: list[Any] = [value[name] for name in step.names]
    elif isinstance(step, _Places):
        if not isinstance(value, list):
            raise NoMatch(f"{text} asks for a place in what is no array")
        chosen = [value[place] for place in _places(step, len(value), text)]
    elif isinstance(value, dict):
        chosen = list(value.values())
    elif isinstance(value, list):
        chosen = value
    else:
        raise NoMatch(f"{text} asks for everything in what is neither array nor object")
    for one in chosen:
        yield from _walk(rest, one, text)


def _places(step: _Places, length: int, text: str) -> list[int]:
    """The places in an array, each once."""
    found: dict[int, None] = {}
    for part in step.parts:
        if isinstance(part, int):
            place = part + length if part < 0 else part
            if not 0 <= place < length:
                raise NoMatch(f"{text} asks for the place {part} of {length}")
            found[place] = None
        else:
            found.update(dict.fromkeys(range(*slice(*part).indices(length))))
    return list(found)
