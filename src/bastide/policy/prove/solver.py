"""z3, loaded when it is used, and texts as its strings."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any, Final

from bastide.policy.variables import Template, Wild

LAST: Final = 0x2FFFF
"""The last character of z3's strings."""


class Unavailable(Exception):  # noqa: N818
    """z3 is not installed."""


@cache
def z3() -> Any:
    """The solver's module; raises Unavailable if it is not installed."""
    try:
        return importlib.import_module("z3")
    except ImportError:
        raise Unavailable("proofs need the z3 solver: install bastide[prove]") from None


def text(value: str) -> Any:
    """A string constant. Built from code points: z3 reads escapes in what is given as text."""
    z = z3()
    codes = [ord(char) for char in value]
    if any(code > LAST for code in codes):
        raise Inexact(f"the character U+{max(codes):X} is beyond the solver's alphabet")
    array = (z.z3.ctypes.c_uint * len(codes))(*codes)
    context = z.main_ctx()
    return z.SeqRef(z.Z3_mk_u32string(context.ref(), len(codes), array), context)


def shown(value: Any) -> str:
    """The text of a string constant of a model."""
    z = z3()
    context = z.main_ctx()
    if not z.is_string_value(value):
        return ""
    length = z.Z3_get_string_length(context.ref(), value.as_ast())
    array = (z.z3.ctypes.c_uint * length)()
    z.Z3_get_string_contents(context.ref(), value.as_ast(), length, array)
    return "".join(map(chr, array))


class Inexact(Exception):  # noqa: N818
    """A construct that has no exact encoding; the message says which."""


# Regular expressions


def _any_char() -> Any:
    return z3().AllChar(z3().ReSort(z3().StringSort()))


def anything() -> Any:
    """Every text."""
    return z3().Full(z3().ReSort(z3().StringSort()))


def no_colon_char() -> Any:
    """Every character but the colon."""
    z = z3()
    return z.Union(z.Range(text(chr(0)), text("9")), z.Range(text(";"), text(chr(LAST))))


def in_segment() -> Any:
    """Every text without colon."""
    return z3().Star(no_colon_char())


def regex(atoms: Template, *, segment: bool = False) -> Any:
    """A template without variables. segment: within one of an ARN's first five segments, where no colon is."""
    z = z3()
    one = no_colon_char() if segment else _any_char()
    many = in_segment() if segment else anything()
    parts = [many if atom is Wild.MANY else one if atom is Wild.ONE else z.Re(text(str(atom))) for atom in atoms]
    if not parts:
        return z.Re(text(""))
    return parts[0] if len(parts) == 1 else z.Concat(*parts)


def in_any_case(value: str) -> Any:
    """Every text that is `value` when both are in lower case. Raises Inexact beyond ASCII."""
    z = z3()
    if not value.isascii():
        raise Inexact(f"letters beyond ASCII compared without regard to case: {value!a}")
    parts = []
    for char in value:
        forms = {char.lower(), char.upper()}
        if char in "kK":
            forms.add("\u212a")  # the Kelvin sign is a k in lower case
        found = [z.Re(text(one)) for one in sorted(forms)]
        parts.append(found[0] if len(found) == 1 else z.Union(*found))
    if not parts:
        return z.Re(text(""))
    return parts[0] if len(parts) == 1 else z.Concat(*parts)


def either(terms: list[Any]) -> Any:
    """Or; false of none."""
    return z3().BoolVal(False) if not terms else terms[0] if len(terms) == 1 else z3().Or(*terms)


def every(terms: list[Any]) -> Any:
    """And; true of none."""
    return z3().BoolVal(True) if not terms else terms[0] if len(terms) == 1 else z3().And(*terms)
