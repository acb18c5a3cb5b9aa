"""Intrinsic functions of JSONPath states: ``States.Format('{}', $.name)`` and its kin, each within bounds.

Source: Step Functions developer guide, "Intrinsic functions for JSONPath states in Step Functions".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import random
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from bastide.engines.asl import paths
from bastide.engines.asl.values import DEEPEST, dumps, loads, number

_DEEPEST_CALLS: Final = 10
_MOST_ITEMS: Final = 1000
_LONGEST_CODED: Final = 10_000
_LONGEST_TEXT: Final = 300_000
_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")
_NAME: Final = re.compile(r"States\.[A-Za-z0-9]+")
_HASHES: Final = {"MD5": "md5", "SHA-1": "sha1", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512"}


class BadCall(ValueError):  # noqa: N818
    """A text is no call of an intrinsic function."""


class Failed(Exception):  # noqa: N818
    """A function cannot do what it is asked for."""

    def __init__(self, call: str, why: str) -> None:
        super().__init__(why)
        self.call = call


@dataclass(frozen=True, slots=True)
class Call:
    """A parsed call: arguments are values, paths or calls."""

    text: str
    name: str
    arguments: tuple[tuple[str, Any], ...]

    def paths(self) -> list[str]:
        """The texts of all paths in it."""
        found: list[str] = []
        for kind, value in self.arguments:
            if kind == "path":
                found.append(value)
            elif kind == "call":
                found += value.paths()
        return found


@lru_cache(4096)
def parse(text: str) -> Call:
    """Reads a call; raises BadCall with what is wrong."""
    if len(text) > _LONGEST_CODED:
        raise BadCall(f"a call has at most {_LONGEST_CODED} characters")
    parser = _Parser(text)
    found = parser.call(1)
    parser.blanks()
    if parser.at != len(text):
        raise BadCall(f"something unexpected at character {parser.at + 1} of '{text}'")
    return found


def called(call: Call, read: Callable[[str], Any]) -> Any:
    """What a call gives; `read` gives what a path names. Raises Failed, and whatever `read` raises."""
    arguments = [
        read(value) if kind == "path" else called(value, read) if kind == "call" else value
        for kind, value in call.arguments
    ]
    function, counts = _FUNCTIONS[call.name]
    if counts is not None and len(arguments) not in counts:
        wanted = " or ".join(str(one) for one in counts)
        raise Failed(call.text, f"Invalid number of arguments: it takes {wanted}, not {len(arguments)}.")
    try:
        return function(*arguments)
    except Failed:
        raise
    except _Wrong as wrong:
        raise Failed(call.text, str(wrong)) from None


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def blanks(self) -> None:
        while self.text[self.at : self.at + 1] in (" ", "\t", "\n", "\r") and self.at < len(self.text):
            self.at += 1

    def call(self, depth: int) -> Call:
        if depth > _DEEPEST_CALLS:
            raise BadCall(f"intrinsic functions are nested at most {_DEEPEST_CALLS} deep")
        start = self.at
        match = _NAME.match(self.text, self.at)
        if match is None or match[0] not in _FUNCTIONS:
            raise BadCall(f"'{self.text[self.at : self.at + 40]}' is no intrinsic function")
        self.at = match.end()
        self.blanks()
        if self.text[self.at : self.at + 1] != "(":
            raise BadCall(f"( is missing behind {match[0]}")
        self.at += 1
        arguments: list[tuple[str, Any]] = []
        self.blanks()
        while self.text[self.at : self.at + 1] != ")":
            arguments.append(self.argument(depth))
            self.blanks()
            if self.text[self.at : self.at + 1] == ",":
                self.at += 1
                self.blanks()
                if self.text[self.at : self.at + 1] == ")":
                    raise BadCall(f"an argument is missing at character {self.at + 1} of '{self.text}'")
            elif self.text[self.at : self.at + 1] != ")":
                raise BadCall(f", or ) is missing at character {self.at + 1} of '{self.text}'")
        self.at += 1
        return Call(self.text[start : self.at], match[0], tuple(arguments))

    def argument(self, depth: int) -> tuple[str, Any]:
        char = self.text[self.at : self.at + 1]
        if char == "'":
            return "value", self.quoted()
        if char == "$":
            return "path", self.path()
        if self.text.startswith("States.", self.at):
            return "call", self.call(depth + 1)
        for word, value in (("true", True), ("false", False), ("null", None)):
            if self.text.startswith(word, self.at):
                self.at += len(word)
                return "value", value
        match = _NUMBER.match(self.text, self.at)
        if match is None:
            raise BadCall(f"an argument is missing at character {self.at + 1} of '{self.text}'")
        self.at = match.end()
        return "value", float(match[0]) if match[1] or match[2] else int(match[0])

    def quoted(self) -> str:
        self.at += 1
        found: list[str] = []
        while self.at < len(self.text):
            char = self.text[self.at]
            self.at += 1
            if char == "\\" and self.text[self.at : self.at + 1] in ("'", "\\", "{", "}"):
                escaped = self.text[self.at]
                # Format's own escapes stay for it to see.
                found.append(escaped if escaped in "'\\" else f"\\{escaped}")
                self.at += 1
            elif char == "'":
                return "".join(found)
            else:
                found.append(char)
        raise BadCall(f"a quote is not closed in '{self.text}'")

    def path(self) -> str:
        start, depth, quote = self.at, 0, ""
        while self.at < len(self.text):
            char = self.text[self.at]
            if quote:
                if char == "\\":
                    self.at += 1
                elif char == quote:
                    quote = ""
            elif char in "'\"" and depth:
                quote = char
            elif char in "[(":
                depth += 1
            elif char in "])" and depth:
                depth -= 1
            elif not depth and char in ",) \t\r\n":
                break
            self.at += 1
        text = self.text[start : self.at]
        try:
            paths.parse(text)
        except paths.BadPath as error:
            raise BadCall(str(error)) from None
        return text


class _Wrong(Exception):  # noqa: N818
    pass


def _whole(value: Any, what: str) -> int:
    if not number(value) or not math.isfinite(value):
        raise _Wrong(f"The {what} must be a number.")
    whole: int = math.floor(value + 0.5)
    return whole


def _list(value: Any, what: str = "first argument") -> list[Any]:
    if not isinstance(value, list):
        raise _Wrong(f"The {what} must be an array.")
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise _Wrong(f"The {what} must be a string.")
    return value


def _same(left: Any, right: Any) -> bool:
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def _partition(items: Any, size: Any) -> Any:
    held, step = _list(items), _whole(size, "second argument")
    if step < 1:
        raise _Wrong("The chunk size must be a positive number.")
    return [held[at : at + step] for at in range(0, len(held), step)]


def _contains(items: Any, wanted: Any) -> bool:
    return any(_same(one, wanted) for one in _list(items))


def _range(first: Any, last: Any, by: Any) -> list[int]:
    start, end, step = (_whole(one, "arguments") for one in (first, last, by))
    if step == 0:
        raise _Wrong("The increment must not be 0.")
    count = max(0, (end - start) // step + 1)
    if count > _MOST_ITEMS:
        raise _Wrong(f"The array must not have more than {_MOST_ITEMS} items.")
    return [start + step * place for place in range(count)]


def _item(items: Any, index: Any) -> Any:
    held, at = _list(items), _whole(index, "index")
    if not 0 <= at < len(held):
        raise _Wrong("The index is outside of the array.")
    return held[at]


def _unique(items: Any) -> list[Any]:
    seen: set[str] = set()
    found: list[Any] = []
    for one in _list(items):
        mark = json.dumps(one, sort_keys=True)
        if mark not in seen:
            seen.add(mark)
            found.append(one)
    return found


def _encode(text: Any) -> str:
    raw = _text(text, "argument")
    if len(raw) > _LONGEST_CODED:
        raise _Wrong(f"The string must not have more than {_LONGEST_CODED} characters.")
    return base64.b64encode(raw.encode("utf-8", "surrogatepass")).decode()


def _decode(text: Any) -> str:
    raw = _text(text, "argument")
    if len(raw) > _LONGEST_CODED:
        raise _Wrong(f"The string must not have more than {_LONGEST_CODED} characters.")
    try:
        return base64.b64decode(raw, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise _Wrong("The string is not valid Base64.") from None


def _hash(value: Any, algorithm: Any) -> str:
    name = _HASHES.get(algorithm) if isinstance(algorithm, str) else None
    if name is None:
        raise _Wrong(f"The algorithm must be one of {', '.join(_HASHES)}.")
    raw = value if isinstance(value, str) else dumps(value)
    if len(raw) > _LONGEST_CODED:
        raise _Wrong(f"The data must not have more than {_LONGEST_CODED} characters.")
    return hashlib.new(name, raw.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()


def _merge(left: Any, right: Any, deep: Any) -> Any:
    if not isinstance(left, dict) or not isinstance(right, dict):
        raise _Wrong("The first two arguments must be JSON objects.")
    if deep is not False:
        raise _Wrong("Deep merging is not supported: the third argument must be false.")
    return {**left, **right}


def _from_text(text: Any) -> Any:
    held = _text(text, "argument")
    try:
        return loads(held) if held.strip() else None
    except ValueError:
        raise _Wrong(f"The argument must be valid JSON, at most {DEEPEST} levels deep.") from None


def _to_text(value: Any) -> str:
    text = dumps(value)
    if len(text) > _LONGEST_TEXT:
        raise _Wrong("The string is too long.")
    return text


def _random(start: Any, end: Any, seed: Any = None) -> int:
    first, last = _whole(start, "start"), _whole(end, "end")
    if last <= first:
        raise _Wrong("The end must be greater than the start.")
    chosen = random.Random(None if seed is None else _whole(seed, "seed"))  # noqa: S311 - the language's, no secret
    found: int = chosen.randrange(first, last)
    return found


def _add(left: Any, right: Any) -> int:
    for one in (left, right):
        if not number(one):
            raise _Wrong("The arguments must be numbers.")
    return _whole(left, "first argument") + _whole(right, "second argument")


def _split(text: Any, by: Any) -> list[str]:
    raw, signs = _text(text, "first argument"), _text(by, "second argument")
    if not signs:
        return [raw] if raw else []
    return [one for one in re.split("|".join(re.escape(sign) for sign in dict.fromkeys(signs)), raw) if one]


def _shown(value: Any) -> str:
    """A value within a text: objects and lists are written as Java writes its own, ``{Id=1, Names=[a, b]}``."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}={_shown(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_shown(one) for one in value) + "]"
    return dumps(value)


def _format(*arguments: Any) -> str:
    if not arguments:
        raise _Wrong("Invalid number of arguments: a template is needed.")
    template, values = _text(arguments[0], "template"), list(arguments[1:])
    found: list[str] = []
    at = used = size = 0
    while at < len(template):
        char = template[at]
        if char == "\\" and template[at + 1 : at + 2] in ("{", "}", "\\", "'"):
            piece, at = template[at + 1], at + 2
        elif template.startswith("{}", at):
            if used >= len(values):
                raise _Wrong("The number of arguments does not match the occurrences of {}.")
            value = values[used]
            piece, used, at = _shown(value), used + 1, at + 2
        else:
            piece, at = char, at + 1
        size += len(piece)
        if size > _LONGEST_TEXT:
            raise _Wrong("The formatted string is too long.")
        found.append(piece)
    if used != len(values):
        raise _Wrong("The number of arguments does not match the occurrences of {}.")
    return "".join(found)


_FUNCTIONS: Final[dict[str, tuple[Callable[..., Any], tuple[int, ...] | None]]] = {
    "States.Array": (lambda *items: list(items), None),
    "States.ArrayPartition": (_partition, (2,)),
    "States.ArrayContains": (_contains, (2,)),
    "States.ArrayRange": (_range, (3,)),
    "States.ArrayGetItem": (_item, (2,)),
    "States.ArrayLength": (lambda items: len(_list(items)), (1,)),
    "States.ArrayUnique": (_unique, (1,)),
    "States.Base64Encode": (_encode, (1,)),
    "States.Base64Decode": (_decode, (1,)),
    "States.Hash": (_hash, (2,)),
    "States.JsonMerge": (_merge, (3,)),
    "States.StringToJson": (_from_text, (1,)),
    "States.JsonToString": (_to_text, (1,)),
    "States.MathRandom": (_random, (2, 3)),
    "States.MathAdd": (_add, (2,)),
    "States.StringSplit": (_split, (2,)),
    "States.Format": (_format, None),
    "States.UUID": (lambda: str(uuid.uuid4()), (0,)),
}
