"""Values that a definition leaves open: ``Get``, ``Std:Join`` and ``Std:JsonGet``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from bastide.services.sagemaker.json_path import NoMatch, Path, Unreadable

EXPRESSIONS: Final = ("Get", "Std:Join", "Std:JsonGet")
EXECUTION: Final = (
    "StartDateTime",
    "CurrentDateTime",
    "PipelineName",
    "PipelineArn",
    "PipelineExecutionId",
    "PipelineExecutionArn",
)
"""What ``Execution.`` knows."""
LONGEST_PATH: Final = 1024
_MOST_CHARACTERS: Final = 4 << 20
"""Of all that one step's arguments become."""
_STEP: Final = re.compile(r"Steps\.([A-Za-z0-9_-]{1,64})(.*)", re.DOTALL)
_TOKEN: Final = re.compile(r"\.([A-Za-z0-9_]{1,128})|\[(\d{1,6})\]|\['([^']{1,256})'\]|\[\"([^\"]{1,256})\"\]")

Token = str | int


class Malformed(ValueError):  # noqa: N818
    """A definition is none; the text says what to change."""


class Unresolved(LookupError):  # noqa: N818
    """An expression has no value now; the text says why, for whoever wrote the definition."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A ``Get`` that was understood. where: ``Parameters``, ``Execution`` or ``Steps``; name: of the parameter, the
    variable or the step; path: what of the step."""

    where: str
    name: str
    path: tuple[Token, ...] = ()

    @property
    def file(self) -> str | None:
        """The property file's name, if it means one."""
        found = len(self.path) == 2 and self.path[0] == "PropertyFiles"
        return str(self.path[1]) if found else None


def reference(text: Any) -> Reference:
    """Reads what stands behind ``Get``; raises Malformed."""
    if not isinstance(text, str):
        raise Malformed("Get needs a text such as Parameters.NAME, Execution.NAME or Steps.NAME.PROPERTY.")
    where, _, rest = text.partition(".")
    if where == "Parameters" and rest:
        return Reference(where, rest)
    if where == "Execution":
        if rest not in EXECUTION:
            raise Malformed(f"`{text[:200]}` is unknown: Execution has {', '.join(EXECUTION)}.")
        return Reference(where, rest)
    found = _STEP.fullmatch(text)
    if found is None:
        raise Malformed(f"`{text[:200]}` is no reference: it begins with Parameters., Execution. or Steps.")
    return Reference("Steps", found.group(1), _path(text, found.group(2)))


def _path(text: str, rest: str) -> tuple[Token, ...]:
    path: list[Token] = []
    at = 0
    while at < len(rest):
        token = _TOKEN.match(rest, at)
        if token is None:
            raise Malformed(f"`{text[:200]}` cannot be read from its character {len(text) - len(rest) + at + 1} on.")
        name, place, single, double = token.groups()
        path.append(int(place) if place is not None else name or single or double)
        at = token.end()
    if not path:
        raise Malformed(f"`{text[:200]}` does not say which property of the step it means.")
    return tuple(path)


def expression(value: Any) -> str | None:
    """Which expression a value is; None for a plain one."""
    if isinstance(value, dict) and len(value) == 1:
        name = next(iter(value))
        return name if name in EXPRESSIONS else None
    return None


def references(value: Any) -> Iterator[Reference]:
    """All references in a value; raises Malformed for an expression that is none."""
    which = expression(value)
    if which == "Get":
        yield reference(value["Get"])
    elif which == "Std:Join":
        yield from references(_join(value["Std:Join"])[1])
    elif which == "Std:JsonGet":
        source, _ = json_get(value["Std:JsonGet"])
        yield from references(source)
    elif isinstance(value, dict):
        for one in value.values():
            yield from references(one)
    elif isinstance(value, list):
        for one in value:
            yield from references(one)


def _join(given: Any) -> tuple[str, list[Any]]:
    if not isinstance(given, dict) or not isinstance(given.get("On", ""), str):
        raise Malformed("Std:Join needs On, a text, and Values, a list.")
    values = given.get("Values")
    if not isinstance(values, list):
        raise Malformed("Std:Join needs Values, a list.")
    return given.get("On", ""), values


def json_get(given: Any) -> tuple[Any, Path]:
    """Source (a reference to a property file, or what becomes an S3 URI) and path; raises Malformed."""
    if not isinstance(given, dict) or not isinstance(given.get("Path"), str):
        raise Malformed("Std:JsonGet needs a Path, and a PropertyFile or an S3Uri.")
    if ("PropertyFile" in given) == ("S3Uri" in given):
        raise Malformed("Std:JsonGet needs either a PropertyFile or an S3Uri.")
    text = given["Path"]
    try:
        path = Path(text if text.startswith("$") else f"$.{text}", longest=LONGEST_PATH)
    except Unreadable as error:
        raise Malformed(f"The Path `{text[:200]}` of Std:JsonGet {error}.") from None
    if "S3Uri" in given:
        return given["S3Uri"], path
    source = given["PropertyFile"]
    if expression(source) != "Get" or reference(source["Get"]).file is None:
        raise Malformed('The PropertyFile of Std:JsonGet is {"Get": "Steps.STEP.PropertyFiles.NAME"}.')
    return source, path


@dataclass(slots=True)
class Scope:
    """What expressions may ask for. steps: what is known of steps that ended, as Describe shows it. documents: JSON that
    was fetched for `wanted`, by its key."""

    parameters: Mapping[str, Any]
    execution: Mapping[str, str]
    steps: Mapping[str, Mapping[str, Any]]
    documents: dict[str, Any] = field(default_factory=dict)
    characters: int = 0

    def get(self, wanted: Reference) -> Any:
        """The value; raises Unresolved."""
        if wanted.where == "Parameters":
            return self.parameters[wanted.name]
        if wanted.where == "Execution":
            return self.execution[wanted.name]
        if wanted.name not in self.steps:
            raise Unresolved(f"The step {wanted.name} has no result in this execution.")
        return pick(self.steps[wanted.name], wanted)


def pick(value: Any, wanted: Reference) -> Any:
    """Follows a path; a text in brackets chooses from a list what has that name. Raises Unresolved."""
    for token in wanted.path:
        if isinstance(token, int):
            if not isinstance(value, list) or token >= len(value):
                raise Unresolved(f"The step {wanted.name} has no element {token} here.")
            value = value[token]
        elif isinstance(value, dict) and token in value:
            value = value[token]
        elif isinstance(value, list):
            named = [one for one in value if isinstance(one, dict) and token in (one.get(key) for key in _names(one))]
            if not named:
                raise Unresolved(f"The step {wanted.name} has no {token}.")
            value = named[0]
        else:
            raise Unresolved(f"The step {wanted.name} has no property {token} here.")
    return value


def _names(one: Mapping[str, Any]) -> list[str]:
    return [key for key in one if key.endswith("Name")]


def wanted(value: Any, scope: Scope) -> dict[str, Reference | str]:
    """The documents that a value asks for, by their key in `scope.documents`: a property file or an S3 URI. Raises
    Unresolved."""
    found: dict[str, Reference | str] = {}
    if expression(value) == "Std:JsonGet":
        source, _ = json_get(value["Std:JsonGet"])
        meant = _document(source, scope)
        found[_key(meant)] = meant
    elif isinstance(value, dict):
        for one in value.values():
            found |= wanted(one, scope)
    elif isinstance(value, list):
        for one in value:
            found |= wanted(one, scope)
    return found


def _document(source: Any, scope: Scope) -> Reference | str:
    if expression(source) == "Get" and (meant := reference(source["Get"])).file is not None:
        return meant
    uri = resolve(source, scope)
    if not isinstance(uri, str):
        raise Unresolved("The S3Uri of Std:JsonGet is no text.")
    return uri


def _key(meant: Reference | str) -> str:
    return meant if isinstance(meant, str) else f"{meant.name}/{meant.file}"


def resolve(value: Any, scope: Scope) -> Any:
    """The value without expressions; types stay what they are. Raises Unresolved."""
    which = expression(value)
    if which == "Get":
        return _counted(scope.get(reference(value["Get"])), scope)
    if which == "Std:Join":
        on, values = _join(value["Std:Join"])
        return _counted(on.join(_text(resolve(one, scope)) for one in values), scope)
    if which == "Std:JsonGet":
        source, path = json_get(value["Std:JsonGet"])
        meant = _document(source, scope)
        try:
            return _counted(path.pick(scope.documents[_key(meant)]), scope)
        except NoMatch as error:
            raise Unresolved(f"Std:JsonGet: {error}.") from None
    if isinstance(value, dict):
        return {key: resolve(one, scope) for key, one in value.items()}
    if isinstance(value, list):
        return [resolve(one, scope) for one in value]
    return value


def _counted(value: Any, scope: Scope) -> Any:
    """The value, if all that was put in so far is bearable; raises Unresolved."""
    if isinstance(value, dict | list):
        scope.characters += len(orjson.dumps(value))
    else:
        scope.characters += len(value) if isinstance(value, str) else 8
    if scope.characters > _MOST_CHARACTERS:
        raise Unresolved(f"The arguments become more than {_MOST_CHARACTERS} characters.")
    return value


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return repr(value)
    raise Unresolved("Std:Join joins texts, numbers and truth values only.")


def known(shape: Any, path: tuple[Token, ...]) -> bool:
    """Whether a path can lead somewhere in a shape of the API's model."""
    for token in path:
        kind = shape.type_name
        if kind == "structure" and token in shape.members:
            shape = shape.members[token]
        elif kind == "list":
            shape = shape.member
        elif kind == "map" and isinstance(token, str):
            shape = shape.value
        else:
            return False
    return True
