"""Filter patterns: of terms, over JSON, and over fields divided by spaces.

Source: CloudWatch Logs User Guide, "Filter pattern syntax for metric filters, subscription filters, filter log events".
"""

from __future__ import annotations

import fnmatch
import operator
import re
from collections.abc import Callable
from typing import Any, Final

import orjson

from bastide.domain import Refused

_TERM: Final = re.compile(r'([-?]?)(?:"((?:[^"\\]|\\.)*)"|(\S+))')
_JSON: Final = re.compile(
    r'\s*(?:(?P<selector>\$(?:\.[\w@-]+|\.\*|\[\d+\]|\["[^"]+"\])*)|(?P<text>"(?:[^"\\]|\\.)*")'
    r"|(?P<sign>&&|\|\||!=|<=|>=|[=<>()])|(?P<word>[^\s()&|=<>!\"]+))"
)
_FIELD: Final = re.compile(
    r"\s*(?P<name>\.\.\.|[\w.-]+)\s*(?:(?P<sign>!=|<=|>=|=|<|>)\s*(?P<value>\"[^\"]*\"|[^\s,&|\]]+))?\s*"
)
_PARTS: Final = re.compile(r'\[([^\]]*)\]|"((?:[^"\\]|\\.)*)"|(\S+)')
_MISSING: Final = object()
_DEEPEST: Final = 40
_ORDER: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge,
}  # fmt: skip


def _wrong(text: str) -> Refused:
    return Refused("InvalidParameterException", f"Invalid filter pattern: {text}")


class Pattern:
    """A parsed pattern; an empty one matches everything. Raises Refused for what is none, or not supported."""

    def __init__(self, text: str) -> None:
        text = text.strip()
        self._fields: list[tuple[str, str, str]] | None = None
        self._json: Any = None
        if text.startswith("{"):
            if not text.endswith("}"):
                raise _wrong("it must end in }")
            self._json = _JsonReader(text[1:-1]).tree
        elif text.startswith("["):
            if not text.endswith("]"):
                raise _wrong("it must end in ]")
            self._fields = _fields(text[1:-1])
        elif text.startswith("%"):
            raise _wrong("regular expressions are not supported by Bastide yet")
        self._terms = _terms(text) if self._json is None and self._fields is None else None

    def matches(self, message: str) -> bool:
        """Whether a line matches."""
        if self._terms is not None:
            return self._terms(message)
        if self._fields is not None:
            found = self._split(message)
            return found is not None and all(
                _compare(found[name], sign, value) for name, sign, value in self._fields if sign
            )
        document = _document(message)
        return document is not _MISSING and _holds(self._json, document)

    def value(self, message: str, selector: str) -> str | None:
        """What ``$.latency`` or ``$field`` is in a line, as text; None if it is not there."""
        if self._fields is not None:
            return (self._split(message) or {}).get(selector.removeprefix("$"))
        document = _document(message)
        found = _MISSING if document is _MISSING else _select(document, _path(selector))
        if found is _MISSING or found is None or isinstance(found, (dict, list)):
            return None
        return str(found)

    def _split(self, message: str) -> dict[str, str] | None:
        assert self._fields is not None
        parts = ["".join(one) for one in _PARTS.findall(message)]
        names = [name for name, _, _ in self._fields]
        if "..." in names:
            at = names.index("...")
            behind = len(names) - at - 1
            if len(parts) < len(names) - 1:
                return None
            parts = [*parts[:at], "", *parts[len(parts) - behind :]] if behind else [*parts[:at], ""]
        if len(parts) != len(names):
            return None
        return dict(zip(names, parts, strict=True))


def _terms(text: str) -> Callable[[str], bool]:
    every: list[str] = []
    some: list[str] = []
    none: list[str] = []
    for sign, quoted, plain in _TERM.findall(text):
        term = re.sub(r"\\(.)", r"\1", quoted) if quoted else plain
        {"": every, "?": some, "-": none}[sign].append(term)

    def matches(message: str) -> bool:
        return (
            all(term in message for term in every)
            and (not some or any(term in message for term in some))
            and not any(term in message for term in none)
        )

    return matches


def _fields(text: str) -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = []
    for number, one in enumerate(text.split(",")):
        if "&&" in one or "||" in one:
            raise _wrong("several conditions on a field are not supported by Bastide yet")
        match = _FIELD.fullmatch(one)
        if match is None:
            raise _wrong(f"`{one.strip()}` is no field")
        name = match["name"]
        if any(name == held for held, _, _ in found):
            raise _wrong(f"the field {name} is there twice")
        found.append((name or f"${number}", match["sign"] or "", (match["value"] or "").strip('"')))
    return found


def _number(text: Any) -> float | None:
    try:
        return None if isinstance(text, bool) else float(text)
    except (TypeError, ValueError):
        return None


def _compare(found: Any, sign: str, wanted: str) -> bool:
    if found is _MISSING or isinstance(found, (dict, list)) or found is None:
        return False
    if sign in _ORDER:
        left, right = _number(found), _number(wanted)
        return left is not None and right is not None and _ORDER[sign](left, right)
    left, right = _number(found), _number(wanted)
    if left is not None and right is not None:
        same = left == right
    else:
        text = str(found).lower() if isinstance(found, bool) else str(found)
        # Only * is a wildcard in patterns of CloudWatch Logs.
        same = fnmatch.fnmatchcase(text, re.sub(r"([?\[])", r"[\1]", wanted))
    return same == (sign == "=")


# -- JSON --------------------------------------------------------------------------------------------------------------


def _document(message: str) -> Any:
    if message[:1] != "{":
        return _MISSING
    try:
        return orjson.loads(message)
    except orjson.JSONDecodeError:
        return _MISSING


def _path(selector: str) -> list[str | int]:
    found: list[str | int] = []
    for name, number, quoted in re.findall(r'\.([\w@*-]+)|\[(\d+)\]|\["([^"]+)"\]', selector):
        found.append(int(number) if number else name or quoted)
    return found


def _select(document: Any, path: list[str | int]) -> Any:
    for part in path:
        if isinstance(part, int):
            document = document[part] if isinstance(document, list) and part < len(document) else _MISSING
        else:
            document = document.get(part, _MISSING) if isinstance(document, dict) else _MISSING
        if document is _MISSING:
            return _MISSING
    return document


class _JsonReader:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        at = 0
        text = text.rstrip()
        while at < len(text):
            match = _JSON.match(text, at)
            if match is None:
                raise _wrong(f"unexpected `{text[at : at + 20]}`")
            kind = match.lastgroup or ""
            self._tokens.append((kind, match[kind]))
            at = match.end()
        self._at = self._depth = 0
        self.tree = self._either()
        if self._at != len(self._tokens):
            raise _wrong(f"unexpected `{self._tokens[self._at][1]}`")

    def _peek(self) -> str:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""

    def _take(self) -> tuple[str, str]:
        if self._at == len(self._tokens):
            raise _wrong("it ends too early")
        self._at += 1
        return self._tokens[self._at - 1]

    def _either(self) -> Any:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _wrong("it is nested too deeply")
        parts = [self._all()]
        while self._peek() == "||":
            self._take()
            parts.append(self._all())
        self._depth -= 1
        return ("or", parts)

    def _all(self) -> Any:
        parts = [self._one()]
        while self._peek() == "&&":
            self._take()
            parts.append(self._one())
        return ("and", parts)

    def _one(self) -> Any:
        kind, text = self._take()
        if text == "(":
            inner = self._either()
            if self._take()[1] != ")":
                raise _wrong(") is missing")
            return inner
        if kind != "selector":
            raise _wrong(f"`{text}` is no selector: they begin with $.")
        path = _path(text)
        kind, sign = self._take()
        upper = sign.upper()
        if upper == "IS":
            word = self._take()[1].upper()
            if word not in ("NULL", "TRUE", "FALSE"):
                raise _wrong("IS is followed by NULL, TRUE or FALSE")
            return ("is", path, {"NULL": None, "TRUE": True, "FALSE": False}[word])
        if upper in ("NOT", "EXISTS"):
            if upper == "NOT" and self._take()[1].upper() != "EXISTS":
                raise _wrong("NOT is followed by EXISTS")
            return ("exists", path, upper == "EXISTS")
        if kind != "sign" or sign in ("(", ")", "&&", "||"):
            raise _wrong(f"unexpected `{sign}`")
        kind, wanted = self._take()
        if wanted.startswith("%"):
            raise _wrong("regular expressions are not supported by Bastide yet")
        if kind == "text":
            wanted = re.sub(r"\\(.)", r"\1", wanted[1:-1])
        elif kind != "word":
            raise _wrong(f"unexpected `{wanted}`")
        return ("compare", path, sign, wanted)


def _holds(tree: Any, document: Any) -> bool:
    kind = tree[0]
    if kind == "or":
        return any(_holds(one, document) for one in tree[1])
    if kind == "and":
        return all(_holds(one, document) for one in tree[1])
    found = _select(document, tree[1])
    if kind == "is":
        return bool(found is tree[2])
    if kind == "exists":
        return bool((found is not _MISSING) == tree[2])
    return _compare(found, tree[2], tree[3])
