"""Intrinsic functions: a tree with references in, a tree of plain values out.

Source: CloudFormation Template Reference Guide, "Intrinsic function reference". What a tree becomes is bounded by
`MOST_CHARACTERS`, because a few thousand references to one long parameter would otherwise fill the memory.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from bastide.engines.templates.reading import refused

MOST_CHARACTERS: Final = 8 * 1024 * 1024
_VARIABLE: Final = re.compile(r"\$\{([^${}]*)\}")
_MOST_BLOCKS: Final = 256


class NoValue:
    """``AWS::NoValue``: what stands for it is left out."""

    def __repr__(self) -> str:
        return "AWS::NoValue"


NO_VALUE: Final = NoValue()


class Unknown(Exception):  # noqa: N818 - an outcome of looking ahead
    """A value that is not known before a resource is there."""


def text(value: Any) -> str:
    """A scalar as a text: true and false in lower case."""
    if value is True:
        return "true"
    if value is False:
        return "false"
    return str(value)


def is_scalar(value: Any) -> bool:
    """Whether it is a text, a number or a boolean."""
    return isinstance(value, str | int | float)


def _nothing(*_: str) -> Any:
    raise Unknown


@dataclass(slots=True)
class Scope:
    """What references mean. parameters: values of parameters and pseudo parameters. conditions: their definitions.

    reference, attribute, imported, zones: what a resource's Ref, its Fn::GetAtt, Fn::ImportValue and Fn::GetAZs give; they
    may raise Unknown. extended: the template uses AWS::LanguageExtensions.
    """

    parameters: Mapping[str, Any]
    mappings: Mapping[str, Any] = field(default_factory=dict)
    conditions: Mapping[str, Any] = field(default_factory=dict)
    reference: Callable[[str], Any] = _nothing
    attribute: Callable[[str, str], Any] = _nothing
    imported: Callable[[str], Any] = _nothing
    zones: Callable[[str], list[str]] = _nothing
    resources: frozenset[str] = frozenset()
    extended: bool = False
    lists: Mapping[str, str] = field(default_factory=dict)
    """Types of the parameters, for Fn::RefAll and its like in rules."""
    known: dict[str, bool] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    left: int = MOST_CHARACTERS

    def spend(self, value: str) -> str:
        """Counts a text that was made."""
        self.left -= len(value)
        if self.left < 0:
            raise refused("Template error: what its functions give is too large.")
        return value

    def condition(self, name: str) -> bool:
        """Whether a condition holds; raises Refused for one that is not there or refers to itself."""
        if name in self.known:
            return self.known[name]
        if name not in self.conditions:
            raise refused(f"Template format error: Unresolved condition dependency {name} in the template.")
        if name in self.asked:
            raise refused(f"Template error: Circular dependency between conditions: [{', '.join(self.asked)}]")
        self.asked.append(name)
        found = truth(self.conditions[name], self)
        self.asked.pop()
        self.known[name] = found
        return found


def resolve(value: Any, scope: Scope) -> Any:
    """A tree without functions; raises Refused for a function that is used wrongly, Unknown for what is not there yet."""
    if isinstance(value, str):
        return scope.spend(value)
    if isinstance(value, list):
        return [one for one in (resolve(each, scope) for each in value) if one is not NO_VALUE]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        name, given = next(iter(value.items()))
        if name == "Ref":
            return _ref(given, scope)
        if name == "Condition" and isinstance(given, str) and given in scope.conditions:
            return scope.condition(given)
        if name.startswith("Fn::"):
            handle = _FUNCTIONS.get(name)
            if handle is None:
                raise refused(f"Template format error: unsupported function {name}.")
            return handle(given, scope)
    return {
        key: one for key, one in ((key, resolve(below, scope)) for key, below in value.items()) if one is not NO_VALUE
    }


def truth(value: Any, scope: Scope) -> bool:
    """A condition's definition; raises Refused for what is none."""
    found = resolve(value, scope)
    if isinstance(found, bool):
        return found
    if found in ("true", "false"):
        return bool(found == "true")
    raise refused("Template format error: Every Conditions member must be a condition function.")


def _ref(name: Any, scope: Scope) -> Any:
    if not isinstance(name, str):
        raise refused("Template format error: every Ref object must have a single String value.")
    if name == "AWS::NoValue":
        return NO_VALUE
    if name in scope.parameters:
        found = scope.parameters[name]
        if isinstance(found, str):
            scope.spend(found)
        return found
    if name in scope.resources:
        return scope.reference(name)
    raise refused(
        f"Template format error: Unresolved resource dependencies [{name}] in the Resources block of the template"
    )


def _get_att(given: Any, scope: Scope) -> Any:
    if isinstance(given, str):
        given = given.split(".", 1)
    if not (isinstance(given, list) and len(given) == 2 and isinstance(given[0], str)):
        raise refused(
            "Template error: every Fn::GetAtt object requires two non-empty parameters, the resource name and the resource "
            "attribute"
        )
    attribute = resolve(given[1], scope)
    if not isinstance(attribute, str):
        raise refused("Template error: every Fn::GetAtt object requires a text as its attribute")
    return _attribute(given[0], attribute, scope)


def _attribute(resource: str, attribute: str, scope: Scope) -> Any:
    if resource not in scope.resources:
        raise refused(
            f"Template error: instance of Fn::GetAtt references undefined resource {resource}",
        )
    return scope.attribute(resource, attribute)


def _sub(given: Any, scope: Scope) -> Any:
    more: dict[str, Any] = {}
    if isinstance(given, list):
        if len(given) != 2 or not isinstance(given[0], str) or not isinstance(given[1], dict):
            raise refused(
                "Template error: One or more Fn::Sub intrinsic functions don't specify expected "
                "arguments. Specify a string as "
                "first argument, and an optional second argument to specify a mapping of values to replace in the string"
            )
        more = {key: resolve(value, scope) for key, value in given[1].items()}
        given = given[0]
    if not isinstance(given, str):
        raise refused("Template error: Fn::Sub takes a text, or a text and a mapping.")

    def replaced(match: re.Match[str]) -> str:
        name = match[1].strip()
        if name.startswith("!"):
            return "${" + name[1:] + "}"
        if name in more:
            found = more[name]
        elif name in scope.parameters or name in scope.resources:
            found = _ref(name, scope)
        elif "." in name:
            resource, _, attribute = name.partition(".")
            found = _attribute(resource, attribute, scope)
        else:
            found = _ref(name, scope)
        if not is_scalar(found):
            raise refused(f"Template error: variable {name} in Fn::Sub expression does not resolve to a string")
        return scope.spend(text(found))

    return scope.spend(_VARIABLE.sub(replaced, given))


def _join(given: Any, scope: Scope) -> Any:
    if not isinstance(given, list) or len(given) != 2 or not isinstance(given[0], str):
        raise refused(
            "Template error: every Fn::Join object requires two parameters, (1) a string delimiter and (2) a list."
        )
    parts = resolve(given[1], scope)
    if not isinstance(parts, list) or not all(is_scalar(one) for one in parts):
        raise refused("Template error: every Fn::Join object requires a list of strings to be joined.")
    return scope.spend(given[0].join(text(one) for one in parts))


def _split(given: Any, scope: Scope) -> Any:
    if not isinstance(given, list) or len(given) != 2 or not isinstance(given[0], str) or not given[0]:
        raise refused(
            "Template error: every Fn::Split object requires two parameters, (1) a string delimiter and (2) a string to be "
            "split or a function that returns a string to be split."
        )
    source = resolve(given[1], scope)
    if not is_scalar(source):
        raise refused("Template error: every Fn::Split object requires a string to be split.")
    return text(source).split(given[0])


_SELECT: Final = "Template error: Fn::Select requires a list argument with two elements: an integer index and a list"


def _select(given: Any, scope: Scope) -> Any:
    if not isinstance(given, list) or len(given) != 2 or isinstance(given[1], str):
        raise refused(_SELECT)
    index = resolve(given[0], scope)
    choices = resolve(given[1], scope)
    if isinstance(choices, str):
        choices = choices.split(",")  # a CommaDelimitedList that came as a text
    if not isinstance(choices, list) or not re.fullmatch(r"\d{1,9}", text(index)):
        raise refused(_SELECT)
    if isinstance(given[1], list) and int(text(index)) >= len(given[1]):
        raise refused(_SELECT)  # what is written out is counted before it is looked at
    if int(text(index)) >= len(choices):
        raise refused(f"Template error: Fn::Select cannot select nonexistent value at index {text(index)[:9]}")
    return choices[int(text(index))]


def _find_in_map(given: Any, scope: Scope) -> Any:
    if not isinstance(given, list) or not 3 <= len(given) <= 4:
        raise refused(
            "Template error: every Fn::FindInMap object requires three parameters, the map name, map key and the attribute"
        )
    keys = [text(resolve(one, scope)) for one in given[:3]]
    found: Any = scope.mappings
    for key in keys:
        if not isinstance(found, Mapping) or key not in found:
            if len(given) == 4 and isinstance(given[3], dict) and "DefaultValue" in given[3]:
                if not scope.extended:
                    raise refused(
                        "Template error: DefaultValue of Fn::FindInMap needs the transform AWS::LanguageExtensions."
                    )
                return resolve(given[3]["DefaultValue"], scope)
            raise refused(f"Template error: Unable to get mapping for {'::'.join(keys)}")
        found = found[key]
    return found


def _base64(given: Any, scope: Scope) -> Any:
    found = resolve(given, scope)
    if not is_scalar(found):
        raise refused("Template error: every Fn::Base64 object must have a String-typed value.")
    return scope.spend(base64.b64encode(text(found).encode()).decode())


def _cidr(given: Any, scope: Scope) -> Any:
    if not isinstance(given, list) or not 2 <= len(given) <= 3:
        raise refused("Template error: Fn::Cidr takes an IP block, a count and the number of host bits.")
    parts = [resolve(one, scope) for one in given]
    try:
        block = ipaddress.ip_network(text(parts[0]), strict=False)
        count = int(text(parts[1]))
        bits = int(text(parts[2])) if len(parts) == 3 else (8 if block.version == 4 else 64)
    except ValueError:
        raise refused("Template error: Fn::Cidr takes an IP block, a count and the number of host bits.") from None
    prefix = block.max_prefixlen - bits
    if not 1 <= count <= _MOST_BLOCKS or not block.prefixlen <= prefix <= block.max_prefixlen:
        raise refused("Template error: Fn::Cidr: the block does not hold that many blocks of that size (1 to 256).")
    if count > 1 << (prefix - block.prefixlen):
        raise refused(f"Template error: Fn::Cidr: {block} does not hold {count} blocks with {bits} host bits.")
    first, size = int(block.network_address), 1 << bits
    make = ipaddress.IPv4Address if block.version == 4 else ipaddress.IPv6Address
    return [f"{make(first + number * size)}/{prefix}" for number in range(count)]


def _zones(given: Any, scope: Scope) -> Any:
    region = resolve(given, scope)
    return scope.zones(text(region) if region else text(scope.parameters.get("AWS::Region", "")))


def _import(given: Any, scope: Scope) -> Any:
    name = resolve(given, scope)
    if not isinstance(name, str):
        raise refused(
            "Template error: the attribute in Fn::ImportValue must not depend on any resources, "
            "imported values, or Fn::GetAZs"
        )
    return scope.imported(name)


def _if(given: Any, scope: Scope) -> Any:
    if not isinstance(given, list) or len(given) != 3:
        raise refused("Template error: Fn::If requires a list argument with three elements")
    return resolve(given[1] if _named(given[0], scope) else given[2], scope)


def _named(name: Any, scope: Scope) -> bool:
    if not isinstance(name, str):
        raise refused("Template error: Fn::If requires the name of a condition as its first argument")
    if name not in scope.conditions:
        raise refused(f"Template error: unresolved condition dependency {name[:255]} in Fn::If")
    return scope.condition(name)


def _members(given: Any, scope: Scope, name: str) -> list[bool]:
    if not isinstance(given, list) or not 2 <= len(given) <= 10:
        raise refused(
            f"Template validation error: every {name} object requires a list of at least 2 and at most 10 conditions."
        )
    return [truth(one, scope) for one in given]


def _and(given: Any, scope: Scope) -> Any:
    return all(_members(given, scope, "Fn::And"))


def _or(given: Any, scope: Scope) -> Any:
    return any(_members(given, scope, "Fn::Or"))


def _not(given: Any, scope: Scope) -> Any:
    if not isinstance(given, list) or len(given) != 1:
        raise refused("Template error: every Fn::Not object requires a list with one condition.")
    return not truth(given[0], scope)


def _equals(given: Any, scope: Scope) -> Any:
    if not isinstance(given, list) or len(given) != 2:
        raise refused("Template error: every Fn::Equals object requires a list of 2 string parameters.")
    left, right = (resolve(one, scope) for one in given)
    return _same(left) == _same(right)


def _same(value: Any) -> Any:
    return text(value) if is_scalar(value) else value


def _pair(given: Any, scope: Scope, name: str) -> tuple[Any, Any]:
    if not isinstance(given, list) or len(given) != 2:
        raise refused(f"Template error: every {name} object requires a list of two arguments.")
    return resolve(given[0], scope), resolve(given[1], scope)


def _texts(value: Any) -> list[str]:
    return [text(one) for one in value] if isinstance(value, list) else [text(value)]


def _contains(given: Any, scope: Scope) -> Any:
    choices, value = _pair(given, scope, "Fn::Contains")
    return text(value) in _texts(choices)


def _each_equals(given: Any, scope: Scope) -> Any:
    choices, value = _pair(given, scope, "Fn::EachMemberEquals")
    return all(one == text(value) for one in _texts(choices))


def _each_in(given: Any, scope: Scope) -> Any:
    tested, choices = _pair(given, scope, "Fn::EachMemberIn")
    return set(_texts(tested)) <= set(_texts(choices))


def _ref_all(given: Any, scope: Scope) -> Any:
    found: list[str] = []
    for name, kind in scope.lists.items():
        if kind.removeprefix("List<").removesuffix(">") == given:
            found += _texts(scope.parameters[name])
    return found


def _value_of(given: Any, scope: Scope) -> Any:
    raise refused(
        "Template error: Fn::ValueOf and Fn::ValueOfAll look attributes of EC2's resources up "
        "and are not supported; compare "
        "with a Ref instead."
    )


def _length(given: Any, scope: Scope) -> Any:
    _needs(scope, "Fn::Length")
    found = resolve(given, scope)
    if not isinstance(found, list):
        raise refused("Template error: Fn::Length takes a list.")
    return len(found)


def _to_json(given: Any, scope: Scope) -> Any:
    _needs(scope, "Fn::ToJsonString")
    return scope.spend(orjson.dumps(resolve(given, scope)).decode())


def _needs(scope: Scope, name: str) -> None:
    if not scope.extended:
        raise refused(f"Template error: {name} needs the transform AWS::LanguageExtensions.")


def _transform(given: Any, scope: Scope) -> Any:
    raise refused("Template error: Fn::Transform is expanded before anything else; here it cannot be.")


def _for_each(given: Any, scope: Scope) -> Any:
    raise refused("Template error: Fn::ForEach needs the transform AWS::LanguageExtensions.")


_FUNCTIONS: Final[dict[str, Callable[[Any, Scope], Any]]] = {
    "Fn::And": _and,
    "Fn::Base64": _base64,
    "Fn::Cidr": _cidr,
    "Fn::Contains": _contains,
    "Fn::EachMemberEquals": _each_equals,
    "Fn::EachMemberIn": _each_in,
    "Fn::Equals": _equals,
    "Fn::FindInMap": _find_in_map,
    "Fn::GetAZs": _zones,
    "Fn::GetAtt": _get_att,
    "Fn::If": _if,
    "Fn::ImportValue": _import,
    "Fn::Join": _join,
    "Fn::Length": _length,
    "Fn::Not": _not,
    "Fn::Or": _or,
    "Fn::RefAll": _ref_all,
    "Fn::Select": _select,
    "Fn::Split": _split,
    "Fn::Sub": _sub,
    "Fn::ToJsonString": _to_json,
    "Fn::Transform": _transform,
    "Fn::ValueOf": _value_of,
    "Fn::ValueOfAll": _value_of,
}
_REFUSED: Final = ("Fn::ValueOf", "Fn::ValueOfAll")
FUNCTIONS: Final = tuple(sorted([*(one for one in _FUNCTIONS if one not in _REFUSED), "Fn::ForEach", "Ref"]))
"""The functions that there are."""
