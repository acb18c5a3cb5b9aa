"""Template bodies as trees of plain values, whatever a stranger wrote: nothing is built that is too large or too deep.

Source: CloudFormation User Guide, "CloudFormation template formats" and "Understand CloudFormation quotas". YAML's aliases
and merges are not supported there either, so a small body cannot become a large tree.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson
import yaml

from bastide.domain import Refused

MOST_BYTES: Final = 1_048_576
"""Of a template in S3; one in a request has `MOST_INLINE` at most."""
MOST_INLINE: Final = 51_200
STORED: Final = object()
"""What a service's own call of CloudFormation is `prepared` with, if its TemplateBody comes out of the platform's store: it
has the bound of one in S3. No request of a client brings it."""
MOST_NODES: Final = 100_000
DEEPEST: Final = 96

_LOADER: Final = getattr(yaml, "CLoader", yaml.Loader)
_SHORT: Final = {
    "!Ref": "Ref",
    "!Condition": "Condition",
    **{
        f"!{name}": f"Fn::{name}"
        for name in (
            "And", "Base64", "Cidr", "Contains", "EachMemberEquals", "EachMemberIn", "Equals", "FindInMap", "GetAtt",
            "GetAZs",
            "If", "ImportValue", "Join", "Length", "Not", "Or", "RefAll", "Select", "Split", "Sub", "ToJsonString",
            "Transform", "ValueOf", "ValueOfAll",
        )
    },
}  # fmt: skip
_BOOLEANS: Final = {
    word: truth
    for truth, words in ((True, ("true", "yes", "on")), (False, ("false", "no", "off")))
    for lower in words
    for word in (lower, lower.capitalize(), lower.upper())
}
_NULLS: Final = ("", "~", "null", "Null", "NULL")
_NUMBER: Final = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,17})?")
_STANDARD: Final = "tag:yaml.org,2002:"


def refused(message: str) -> Refused:
    """What is wrong with a template, in AWS's code."""
    return Refused("ValidationError", message)


def read(body: str) -> dict[str, Any]:
    """The tree of a template; raises Refused("ValidationError") for what is none, or is too large or too deep."""
    if len(body.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        raise refused(f"Template may not exceed {MOST_BYTES} bytes in size.")
    found = parse(body)
    if not isinstance(found, dict):
        raise refused("Template format error: unsupported structure.")
    return found


def parse(body: str) -> Any:
    """Any JSON or YAML document, under the same bounds; raises Refused."""
    if body.lstrip()[:1] in ("{", "["):
        _not_deep(body)
        try:
            found = orjson.loads(body)
        except (orjson.JSONDecodeError, UnicodeEncodeError):
            found = _json(body)
        _bounded(found)
        return found
    return _yaml(body)


def _json(body: str) -> Any:
    """JSON as AWS reads it: texts may go over lines. What begins with a bracket is never YAML there."""
    try:
        return json.loads(body, strict=False)
    except json.JSONDecodeError as error:
        where = f"(line {error.lineno}, column {error.colno + 1})"
    except (ValueError, RecursionError):
        where = ""
    raise refused(f"Template format error: JSON not well-formed. {where}".rstrip())


def no_nulls(raw: Mapping[str, Any]) -> None:
    """Raises Refused for a null anywhere but in what a template says of itself."""
    here: list[tuple[str, Any]] = [(f"/{name}", one) for name, one in raw.items() if name != "Metadata"]
    while here:
        where, one = here.pop()
        if one is None:
            raise refused(f"[{where[:400]}] 'null' values are not allowed in templates")
        if isinstance(one, dict):
            here += [(f"{where}/{name}", below) for name, below in reversed(one.items())]
        elif isinstance(one, list):
            here += [(f"{where}/{number}", below) for number, below in enumerate(one)]


def _not_deep(body: str) -> None:
    depth = 0
    for char in re.findall(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', body):
        if char in "[{":
            depth += 1
            if depth > DEEPEST:
                raise refused(f"Template format error: it is nested deeper than {DEEPEST} levels.")
        elif char in "]}":
            depth -= 1


def _bounded(tree: Any) -> None:
    here, count, depth = [tree], 0, 0
    while here:
        depth += 1
        count += len(here)
        if depth > DEEPEST:
            raise refused(f"Template format error: it is nested deeper than {DEEPEST} levels.")
        if count > MOST_NODES:
            raise refused(f"Template format error: it has more than {MOST_NODES} values.")
        below: list[Any] = []
        for one in here:
            if isinstance(one, dict):
                below += one.values()
            elif isinstance(one, list):
                below += one
        here = below


class _Open:
    """A list or mapping that is not closed yet. function: the short form that stands before it."""

    __slots__ = ("function", "key", "value")

    def __init__(self, value: Any, function: str) -> None:
        self.value = value
        self.function = function
        self.key: str | None = None


def _yaml(body: str) -> Any:
    """Built from the parser's events, one after the other, so that depth costs nothing and aliases never unfold."""
    try:
        return _built(yaml.parse(body, Loader=_LOADER))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
        raise refused(f"Template format error: YAML not well-formed.{where}") from None
    except (UnicodeError, ValueError, RecursionError):
        raise refused("Template format error: YAML not well-formed.") from None


def _built(events: Iterator[Any]) -> Any:
    stack: list[_Open] = []
    found: Any = None
    documents = count = 0
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise refused("Template format error: it has more than one YAML document.")
            continue
        if isinstance(event, yaml.AliasEvent):
            raise refused("Template error: YAML aliases are not allowed in CloudFormation templates.")
        if isinstance(event, yaml.ScalarEvent):
            count += 1
            if stack and isinstance(stack[-1].value, dict) and stack[-1].key is None:
                _key(stack[-1], event)
                continue
            value = _scalar(event)
        elif isinstance(event, yaml.CollectionStartEvent):
            count += 1
            if len(stack) >= DEEPEST:
                raise refused(f"Template format error: it is nested deeper than {DEEPEST} levels.")
            if stack and isinstance(stack[-1].value, dict) and stack[-1].key is None:
                raise refused("Template format error: a key of a mapping must be a text.")
            tag = event.tag or ""
            if tag and tag not in _SHORT and tag not in ("!", f"{_STANDARD}map", f"{_STANDARD}seq"):
                raise refused(f"Template format error: unknown YAML tag {tag[:64]}.")
            stack.append(_Open({} if isinstance(event, yaml.MappingStartEvent) else [], _SHORT.get(tag, "")))
            continue
        elif isinstance(event, yaml.CollectionEndEvent):
            closed = stack.pop()
            value = {closed.function: closed.value} if closed.function else closed.value
        else:
            continue
        if count > MOST_NODES:
            raise refused(f"Template format error: it has more than {MOST_NODES} values.")
        if not stack:
            found = value
        elif isinstance(stack[-1].value, list):
            stack[-1].value.append(value)
        else:
            top = stack[-1]
            top.value[top.key] = value
            top.key = None
    return found


def _key(top: _Open, event: Any) -> None:
    if event.value == "<<" and event.implicit[0]:
        raise refused("Template error: YAML merges (<<) are not allowed in CloudFormation templates.")
    if event.value in top.value:
        raise refused(f"Template format error: the key {event.value[:64]} stands twice in one mapping.")
    top.key = event.value


def _scalar(event: Any) -> Any:
    tag, text = event.tag, event.value
    if tag in _SHORT:
        name = _SHORT[tag]
        if name == "Fn::GetAtt":
            resource, _, attribute = text.partition(".")
            return {name: [resource, attribute] if attribute else text}
        return {name: plain(text) if event.style is None or event.style == "" else text}
    if tag and tag.startswith("!") and tag != "!":
        raise refused(f"Template format error: unknown YAML tag {tag[:64]}.")
    if tag and tag.startswith(_STANDARD):
        kind = tag[len(_STANDARD) :]
        if kind not in ("str", "int", "bool", "float", "null"):
            raise refused(f"Template format error: the YAML tag !!{kind} is not supported.")
        return text if kind == "str" else plain(text)
    return plain(text) if event.implicit[0] and not event.style else text


def plain(text: str) -> Any:
    """What an unquoted YAML scalar means. A number that would not be written the same way again (an account's leading
    zero, 1.10) stays the text that it is."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _NUMBER.fullmatch(text):
        number: int | float = float(text) if "." in text else int(text)
        if str(number) == text and math.isfinite(number):
            return number
    return text
