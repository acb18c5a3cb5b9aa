"""Policy texts as templates: literals, wildcards and policy variables.

Source: IAM User Guide, "IAM policy elements: Variables and tags". Variables exist in version 2012-10-17 only; in
2008-10-17 ``${`` is text like any other. A variable is replaced by the single value of a context key, by its default
if the key has no single value, and otherwise makes the text match nothing. What is put in for a variable is literal:
a ``*`` in somebody's tag is no wildcard.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from bastide.policy.faults import malformed, shown

Value = str | tuple[str, ...]
Context = Mapping[str, Value]
"""The request context: keys in lower case; a tuple for keys with several values, possibly none."""


class Wild(Enum):
    """The two wildcards."""

    MANY = "*"
    ONE = "?"


@dataclass(frozen=True, slots=True)
class Variable:
    """``${key, 'default'}``; the key in lower case."""

    key: str
    default: str | None


Atom = str | Wild | Variable
Template = tuple[Atom, ...]
"""Literal texts, wildcards and variables in order; no two literals stand side by side."""

_WILD_RUNS: Final = re.compile(r"(\*+|\?)")
_ESCAPES: Final = frozenset("*?$")
_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*:[A-Za-z0-9._-]+(?:[/:][^,'{}$\x00-\x1f]+)?")
_DEFAULT: Final = re.compile(r"'([^']*)'")


def template(text: str, place: str, *, variables: bool, wildcards: bool) -> Template:
    """Reads a policy text.

    variables: the document's version has them and so has the element. wildcards: ``*`` and ``?`` are wildcards here,
    else literals. Raises Refused for a variable that is not closed or not written as documented.
    """
    if not (variables and "${" in text):
        if not wildcards:
            return (text,) if text else ()
        return tuple(
            [
                part if part[0] not in "*?" else Wild.ONE if part == "?" else Wild.MANY
                for part in _WILD_RUNS.split(text)
                if part
            ]
        )
    atoms: list[Atom] = []
    literal: list[str] = []
    at = 0
    while at < len(text):
        char = text[at]
        if variables and char == "$" and text.startswith("${", at):
            end = text.find("}", at)
            if end < 0:
                raise malformed(place, f"The policy variable in {shown(text)} is not closed")
            inside = text[at + 2 : end]
            at = end + 1
            if inside in _ESCAPES:
                literal.append(inside)
                continue
            _flush(literal, atoms)
            atoms.append(_variable(inside, place))
            continue
        if wildcards and char in "*?":
            _flush(literal, atoms)
            wild = Wild(char)
            if not (wild is Wild.MANY and atoms and atoms[-1] is Wild.MANY):
                atoms.append(wild)
        else:
            literal.append(char)
        at += 1
    _flush(literal, atoms)
    return tuple(atoms)


def _flush(literal: list[str], atoms: list[Atom]) -> None:
    if literal:
        atoms.append("".join(literal))
        literal.clear()


def _variable(inside: str, place: str) -> Variable:
    key, comma, rest = inside.partition(",")
    key = key.strip()
    if not _KEY.fullmatch(key):
        raise malformed(place, f"The policy variable ${{{shown(inside)}}} does not name a condition key")
    if not comma:
        return Variable(key.lower(), None)
    default = _DEFAULT.fullmatch(rest.strip())
    if default is None:
        raise malformed(place, f"The default of the policy variable ${{{shown(inside)}}} is not in single quotes")
    return Variable(key.lower(), default.group(1))


def resolve(atoms: Template, context: Context) -> Template | None:
    """The template with every variable replaced; None if one has neither a single value nor a default.

    "You can use any single-valued condition key as a variable. You can't use a multivalued condition key."
    """
    resolved: list[Atom] = []
    for atom in atoms:
        if isinstance(atom, Variable):
            value = context.get(atom.key)
            if not isinstance(value, str):
                value = atom.default
                if value is None:
                    return None
            resolved.append(value)
        else:
            resolved.append(atom)
    return tuple(resolved)


def has_variables(atoms: Template) -> bool:
    """Whether the template needs a context."""
    return any(isinstance(atom, Variable) for atom in atoms)


def literal_of(atoms: Sequence[Atom]) -> str | None:
    """The text of a template of literals only, else None."""
    if len(atoms) == 1:
        only = atoms[0]
        return only if isinstance(only, str) else None
    if all(isinstance(atom, str) for atom in atoms):
        return "".join(atom for atom in atoms if isinstance(atom, str))
    return None


def segments(atoms: Template, most: int) -> list[Template]:
    """Splits a template at the colons of its literals into at most `most` parts; variables are never split."""
    parts: list[list[Atom]] = [[]]
    for atom in atoms:
        if isinstance(atom, str):
            pieces = atom.split(":", most - len(parts))
            for index, piece in enumerate(pieces):
                if index:
                    parts.append([])
                if piece:
                    parts[-1].append(piece)
        else:
            parts[-1].append(atom)
    return [tuple(part) for part in parts]
