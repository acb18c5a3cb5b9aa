"""Rules of composite alarms. Source: Amazon CloudWatch API Reference, PutCompositeAlarm, AlarmRule."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from bastide.domain import Refused

_TOKEN: Final = re.compile(r"\s*(?:\"([^\"]*)\"|'([^']*)'|([(),])|([^\s(),\"']+))")
_STATES: Final = ("ALARM", "OK", "INSUFFICIENT_DATA")
_MOST: Final = 100


def _wrong(text: str) -> Refused:
    return Refused("ValidationError", f"Error in AlarmRule: {text}")


class Rule:
    """A parsed rule. names: the alarms that it looks at, by name or ARN."""

    def __init__(self, text: str) -> None:
        self.names: list[str] = []
        self._tokens: list[tuple[bool, str]] = []
        at = 0
        text = text.rstrip()
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                raise _wrong(f"unexpected `{text[at : at + 20]}`")
            quoted = found[1] if found[1] is not None else found[2]
            self._tokens.append((True, quoted) if quoted is not None else (False, found[3] or found[4]))
            at = found.end()
        self._at = 0
        self._depth = 0
        self._tree = self._either()
        if self._at != len(self._tokens):
            raise _wrong(f"unexpected `{self._tokens[self._at][1]}`")
        if len(set(self.names)) > _MOST:
            raise _wrong(f"it looks at more than {_MOST} alarms")

    def _peek(self) -> str:
        quoted, text = self._tokens[self._at] if self._at < len(self._tokens) else (False, "")
        return "" if quoted else text

    def _take(self, wanted: str = "") -> str:
        if self._at == len(self._tokens) or (wanted and self._tokens[self._at] != (False, wanted)):
            raise _wrong(f"`{wanted or 'more'}` expected")
        self._at += 1
        return self._tokens[self._at - 1][1]

    def _either(self) -> Any:
        self._depth += 1
        if self._depth > _MOST:
            raise _wrong("it is nested too deeply")
        parts = [self._all()]
        while self._peek().upper() == "OR":
            self._take()
            parts.append(self._all())
        self._depth -= 1
        return ("or", parts)

    def _all(self) -> Any:
        parts = [self._not()]
        while self._peek().upper() == "AND":
            self._take()
            parts.append(self._not())
        return ("and", parts)

    def _not(self) -> Any:
        turned = False
        while self._peek().upper() == "NOT":
            self._take()
            turned = not turned
        inner = self._atom()
        return ("not", inner) if turned else inner

    def _atom(self) -> Any:
        word = self._take()
        if word == "(":
            inner = self._either()
            self._take(")")
            return inner
        upper = word.upper()
        if upper in ("TRUE", "FALSE"):
            return ("fixed", upper == "TRUE")
        if upper not in _STATES:
            raise _wrong(f"`{word}` is neither a state nor TRUE or FALSE")
        self._take("(")
        name = self._take()
        self._take(")")
        self.names.append(name)
        return ("is", upper, name)

    def holds(self, state: Callable[[str], str]) -> bool:
        """Whether the rule is true where `state` tells an alarm's state."""

        def value(tree: Any) -> bool:
            kind = tree[0]
            if kind == "or":
                return any(value(one) for one in tree[1])
            if kind == "and":
                return all(value(one) for one in tree[1])
            if kind == "not":
                return not value(tree[1])
            return bool(tree[1]) if kind == "fixed" else state(tree[2]) == tree[1]

        return value(self._tree)
