"""What the expressions of a state see: its data, the context object, variables; and what is said when they find nothing.

Source: Amazon States Language, "Data flow", "Variables", "JSONata"; the causes are worded as Step Functions words them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from bastide.engines.asl import expression_core as core
from bastide.engines.asl import intrinsics, paths
from bastide.engines.asl.problems import INTRINSIC, LIMIT, QUERY, RUNTIME, Problem
from bastide.engines.asl.values import dumps, kind

Evaluate = Callable[[str, dict[str, Any]], Any]
"""Evaluates an expression of JSONata with variables; gives `expression_core.NOTHING`, raises `expression_core.Wrong`."""
_SHOWN: Final = 10_000
_VISITS: Final = 1_000_000
"""Values that the paths of one piece of work visit."""
_BYTES: Final = 8 << 20
"""Bytes of JSON that its paths and expressions give, together: many times what a payload may have."""


class Scope:
    """The expressions of one state, while it does one piece of work."""

    __slots__ = ("_bytes", "_context", "_sizes", "_visits", "evaluate", "jsonata", "names", "prefix", "states")

    def __init__(
        self,
        state: str,
        entered: int,
        jsonata: bool,
        names: Mapping[str, Any],
        context: Callable[[], dict[str, Any]],
        evaluate: Evaluate,
        states: dict[str, Any],
    ) -> None:
        """states: what ``$states`` has beside the context: input, result, errorOutput."""
        self.prefix = f"An error occurred while executing the state '{state}' (entered at the event id #{entered}). "
        self.jsonata = jsonata
        self.names = names
        self.evaluate = evaluate
        self.states = states
        self._context = context
        self._visits, self._bytes = _VISITS, _BYTES
        self._sizes: dict[int, tuple[Any, int]] = {}

    def given(self, value: Any) -> Any:
        """A value that becomes part of a state's data; raises Problem where they become more than any may."""
        if isinstance(value, (dict, list)):
            known = self._sizes.get(id(value))
            if known is None:
                known = self._sizes[id(value)] = (value, len(dumps(value)))
            size = known[1]
        else:
            size = len(value) if isinstance(value, str) else 8
        self._bytes -= size
        if self._bytes < 0:
            raise Problem(LIMIT, f"{self.prefix}Its paths and expressions give more than {_BYTES} bytes.")
        return value

    def context(self) -> dict[str, Any]:
        """The context object."""
        return self._context()

    def runtime(self, cause: str) -> Problem:
        """An error that ends the execution."""
        return Problem(RUNTIME, self.prefix + cause)

    # -- JSONPath --------------------------------------------------------------------------------------------------------

    def find(self, text: str, value: Any) -> Any:
        """What a path names; raises KeyError, BadPath, TooMuch."""
        path = paths.parse(text)
        where = value if path.root == "$" else self.context() if path.root == "$$" else self.names[path.root]
        found, visited = path.counted(where, self._visits)
        self._visits -= visited
        if self._visits < 0:
            raise paths.TooMuch(f"the paths of the state visit more than {_VISITS} values")
        return self.given(found)

    def path(self, text: str | None, value: Any, field: str = "") -> Any:
        """What InputPath and its kin name: nothing names an empty object."""
        if text is None:
            return {}
        if text == "$":
            return value
        if text.startswith("States."):
            return self.intrinsic(text, value, field)
        try:
            return self.find(text, value)
        except KeyError as error:
            raise self.runtime(f"Invalid path '{text}' : {_missing(text, error, value)}") from None
        except (paths.BadPath, paths.TooMuch) as error:
            raise self.runtime(f"Invalid path '{text}' : {error}") from None

    def intrinsic(self, text: str, value: Any, field: str) -> Any:
        """What a call of an intrinsic function gives."""

        def read(path: str) -> Any:
            try:
                return self.find(path, value)
            except (KeyError, paths.TooMuch):
                raise self._absent(path, field, value) from None

        try:
            return self.given(intrinsics.called(intrinsics.parse(text), read))
        except intrinsics.Failed as failed:
            cause = f"{self.prefix}The function '{failed.call}' had the following error: {failed}"
            raise Problem(INTRINSIC, cause, place=field) from None
        except intrinsics.BadCall as error:
            raise self.runtime(f"The value of the field '{field}' is no intrinsic function: {error}") from None

    def _absent(self, path: str, field: str, value: Any) -> Problem:
        shown = dumps(self.context() if path.startswith("$$") else value)
        return self.runtime(
            f"The JSONPath '{path}' specified for the field '{field}' could not be found in the input "
            f"'{shown if len(shown) <= _SHOWN else shown[:_SHOWN] + '...'}'"
        )

    def template(self, template: Any, value: Any) -> Any:
        """A payload template filled in: members whose names end in ``.$`` are paths and calls."""
        if isinstance(template, dict):
            found: dict[str, Any] = {}
            for name, inner in template.items():
                if name.endswith(".$") and isinstance(inner, str):
                    found[name[:-2]] = self._filled(name, inner, value)
                else:
                    found[name] = self.template(inner, value)
            return found
        if isinstance(template, list):
            return [self.template(one, value) for one in template]
        return template

    def _filled(self, name: str, text: str, value: Any) -> Any:
        if text == "$":
            return self.given(value)
        if not text.startswith("$"):
            return self.intrinsic(text, value, name)
        try:
            return self.find(text, value)
        except KeyError:
            raise self._absent(text, name, value) from None
        except (paths.BadPath, paths.TooMuch) as error:
            raise self.runtime(
                f"The JSONPath '{text}' specified for the field '{name}' is not valid: {error}"
            ) from None

    def placed(self, text: str | None, value: Any, result: Any) -> Any:
        """ResultPath: the input with the result where it belongs."""
        if text is None:
            return value
        if text == "$":
            return result
        try:
            return paths.written(paths.reference(text), value, result)
        except (KeyError, paths.BadPath):
            raise Problem(
                "States.ResultPathMatchFailure",
                f'{self.prefix}Unable to apply step "{text.rpartition(".")[2]}" to input {dumps(value)[:_SHOWN]}',
            ) from None

    # -- JSONata ---------------------------------------------------------------------------------------------------------

    def query(self, value: Any, field: str, wanted: str = "") -> Any:
        """A member with its expressions evaluated, wherever they stand in it. wanted: the JSON type that it must have."""
        if isinstance(value, str):
            if is_expression(value):
                return self._expression(value, field, wanted)
            found: Any = value
        elif isinstance(value, dict):
            found = {name: self.query(inner, f"{field}/{name}") for name, inner in value.items()}
        elif isinstance(value, list):
            found = [self.query(inner, f"{field}[{place}]") for place, inner in enumerate(value)]
        else:
            found = value
        if wanted and kind(found) != wanted:
            raise self.runtime(f"The field '{field}' must be of the type '{wanted}' but is: {dumps(found)[:_SHOWN]}")
        return found

    def _expression(self, value: str, field: str, wanted: str) -> Any:
        text = value[2:-2].strip()
        said = f"{self.prefix}The JSONata expression '{text}' specified for the field '{field}' "
        names = {**self.names, "states": {**self.states, "context": self.context()}} if "states" in text else self.names
        try:
            found = self.evaluate(text, dict(names))
        except core.Wrong as wrong:
            raise Problem(
                QUERY, f"{said}threw an error during evaluation. {wrong}", place=field, evaluation=True
            ) from None
        if found is not core.NOTHING:
            self.given(found)
        else:
            raise Problem(QUERY, f"{said}returned nothing (undefined).", place=field, evaluation=True)
        if wanted and kind(found) != wanted:
            raise Problem(
                QUERY,
                f"{said}returned an unexpected result type. Expected '{wanted}', but was '{kind(found)}' for value: "
                f"{dumps(found)[:_SHOWN]}",
                place=field,
                evaluation=True,
            )
        return found


def is_expression(value: Any) -> bool:
    """Whether a member is an expression of JSONata: it begins with ``{%`` and ends with ``%}``, with nothing around."""
    return isinstance(value, str) and len(value) >= 4 and value.startswith("{%") and value.endswith("%}")


def _missing(text: str, error: KeyError, value: Any) -> str:
    """How Jayway's JsonPath tells that a definite path leads nowhere."""
    path = paths.parse(text)
    if path.root not in ("$", "$$"):
        return f"The variable {path.root} has no such value"
    if not path.keys:
        return f"No results for path: {text}"
    keys = [f"[{key}]" if isinstance(key, int) else f"['{key}']" for key in path.keys]
    here: Any = value
    depth = 0
    for key in path.keys:
        try:
            here = here[key]
        except (KeyError, IndexError, TypeError):
            break
        depth += 1
    if depth >= len(keys) - 1:
        return f"No results for path: ${''.join(keys)}"
    return f"Missing property in path ${''.join(keys[: depth + 1])}"
