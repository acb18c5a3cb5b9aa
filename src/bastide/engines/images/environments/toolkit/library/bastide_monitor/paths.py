"""Where in a record a value lies: a column's name or number, or a JSONPath of members and numbers."""

from __future__ import annotations

import re
from typing import Any

from bastide_monitor import Unfit

_STEP = re.compile(r"\.?([A-Za-z0-9_-]+)|\[([0-9]+)\]|\['([^']*)'\]|\[\"([^\"]*)\"\]")


class Attribute:
    """One of `inference_attribute`, `probability_attribute`, ... as it was given. Raises Unfit."""

    def __init__(self, name: str, told: str) -> None:
        self.name = name
        self.told = told.strip()
        self._steps: list[str | int] = []
        rest = self.told.removeprefix("$")
        while rest:
            found = _STEP.match(rest)
            if found is None:
                raise Unfit(f"{name}: {told[:100]!r} is neither a column nor a JSONPath of members and numbers.")
            self._steps.append(int(found[2]) if found[2] is not None else found[1] or found[3] or found[4] or "")
            rest = rest[found.end() :]

    def column(self, columns: list[str]) -> str:
        """Which of a table's columns it is: the one of this name, or of this number. Raises Unfit."""
        if self.told in columns:
            return self.told
        if self.told.isdigit() and int(self.told) < len(columns):
            return columns[int(self.told)]
        if self._steps and self._steps[-1] in columns:
            return str(self._steps[-1])
        raise Unfit(f"{self.name}: there is no column {self.told[:100]!r}; there are {', '.join(columns)[:300]}.")

    def within(self, document: Any) -> Any:
        """What lies there in a JSON document. Raises Unfit."""
        found = document
        for step in self._steps:
            try:
                at = int(step) if isinstance(found, list) else str(step)
                found = found[at]
            except (KeyError, IndexError, ValueError, TypeError):
                raise Unfit(f"{self.name}: a record has nothing at {self.told[:100]!r}.") from None
        return found
