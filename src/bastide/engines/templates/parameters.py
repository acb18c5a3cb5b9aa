"""Parameters: their types, their constraints, and the values that they were given.

Source: CloudFormation User Guide, "CloudFormation template Parameters syntax" and "Specify existing resources at runtime
with CloudFormation-supplied parameter types".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from bastide.engines.templates.functions import text
from bastide.engines.templates.reading import refused
from bastide.protocol.patterns import strangers

MOST: Final = 200
LONGEST: Final = 4096
_AWS: Final = (
    "AWS::EC2::AvailabilityZone::Name", "AWS::EC2::Image::Id", "AWS::EC2::Instance::Id", "AWS::EC2::KeyPair::KeyName",
    "AWS::EC2::SecurityGroup::GroupName", "AWS::EC2::SecurityGroup::Id", "AWS::EC2::Subnet::Id", "AWS::EC2::Volume::Id",
    "AWS::EC2::VPC::Id", "AWS::Route53::HostedZone::Id",
)  # fmt: skip
_PLAIN: Final = ("String", "Number", "CommaDelimitedList", "List<Number>", "List<String>")
_MEMBERS: Final = frozenset(
    {
        "Type", "Default", "NoEcho", "AllowedValues", "AllowedPattern", "MaxLength", "MinLength", "MaxValue", "MinValue",
        "Description", "ConstraintDescription",
    }
)  # fmt: skip
_NAME: Final = re.compile(r"[A-Za-z0-9]{1,255}")
_STORED: Final = re.compile(r"AWS::SSM::Parameter::Value<(.+)>")
HIDDEN: Final = "****"


def is_known(type: str) -> bool:
    """Whether it is a parameter's type."""
    stored = _STORED.fullmatch(type)
    if stored:
        type = stored[1]
    if type in _PLAIN or type in _AWS or type == "AWS::SSM::Parameter::Name":
        return True
    return type.startswith("List<") and type.endswith(">") and type[5:-1] in _AWS


def is_list(type: str) -> bool:
    """Whether a parameter of the type is a list."""
    type = stored_type(type) or type
    return type.startswith("List<") or type == "CommaDelimitedList"


def stored_type(type: str) -> str:
    """The type inside of ``AWS::SSM::Parameter::Value<...>``; empty for other types."""
    stored = _STORED.fullmatch(type)
    return stored[1] if stored else ""


def existing_type(type: str) -> str:
    """The AWS type whose existing resources a parameter of the type names; empty for other types."""
    type = stored_type(type) or type
    inner = type.removeprefix("List<").removesuffix(">")
    return inner if inner in _AWS else ""


def check_declared(declared: Any) -> None:
    """Raises Refused for a Parameters section that is none."""
    if not isinstance(declared, dict):
        raise refused("Template format error: Parameters must be a mapping.")
    if len(declared) > MOST:
        raise refused(
            f"Template format error: Number of parameters, {len(declared)}, is greater than maximum allowed, {MOST}"
        )
    for name, one in declared.items():
        if not _NAME.fullmatch(name):
            raise refused(f"Template format error: Parameter name {name[:64]} is non alphanumeric.")
        if not isinstance(one, dict):
            raise refused(f"Template format error: Parameter {name} must be a mapping.")
        more = sorted(set(one) - _MEMBERS)
        if more:
            raise refused(f"Invalid template parameter property '{more[0][:64]}'")
        type = one.get("Type")
        if not isinstance(type, str):
            raise refused(f"Template format error: Every Parameters object must contain a Type member. ({name})")
        if not is_known(type):
            raise refused(f"Template format error: Unrecognized parameter type: {type[:128]}")
        if "AllowedValues" in one and not isinstance(one["AllowedValues"], list):
            raise refused(f"Template format error: AllowedValues of parameter {name} must be a list.")
        pattern = one.get("AllowedPattern")
        if pattern is not None and (
            not isinstance(pattern, str) or len(pattern) > LONGEST or strangers(pattern) is None
        ):
            raise refused(
                f"Template format error: AllowedPattern of parameter {name} is not a regular expression "
                "that can be checked."
            )
        if "Default" in one:
            default = one["Default"]
            if isinstance(default, dict | list) or default is None:
                raise refused(f"Template format error: Every Default member must be a string. ({name})")
            if not stored_type(type):
                check(name, one, text(default))


def hidden(declared: Mapping[str, Any]) -> frozenset[str]:
    """Parameters whose values are never shown."""
    return frozenset(name for name, one in declared.items() if text(one.get("NoEcho", "")).lower() == "true")


def given(
    declared: Mapping[str, Any], told: Mapping[str, str | None], earlier: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The value of every parameter as it was written: what was told, or else the default. None: the earlier value.

    Raises Refused for a parameter that is unknown, has no value, or breaks its constraints.
    """
    unknown = sorted(set(told) - set(declared))
    if unknown:
        raise refused(f"Parameters: [{', '.join(unknown)}] do not exist in the template")
    found: dict[str, str] = {}
    missing: list[str] = []
    for name, one in declared.items():
        if name in told:
            value = told[name]
            if value is None:
                if earlier is None or name not in earlier:
                    raise refused(
                        f"Invalid input for parameter key {name}. Cannot specify usePreviousValue as true for a "
                        "parameter key not in the previous template"
                    )
                value = earlier[name]
        elif "Default" in one:
            value = text(one["Default"])
        else:
            missing.append(name)
            continue
        if not stored_type(one["Type"]):
            check(name, one, value)
        found[name] = value
    if missing:
        raise refused(f"Parameters: [{', '.join(missing)}] must have values")
    return found


def split(type: str, value: str) -> Any:
    """A value as its type has it: a list of a list's."""
    if not is_list(type):
        return value
    return [one.strip() for one in value.split(",")] if value else []


def check(name: str, declared: Mapping[str, Any], value: str) -> None:
    """Raises Refused for a value that breaks a parameter's constraints; a hidden value is not named."""
    if len(value) > LONGEST:
        raise refused(f"Parameter '{name}' exceeds the maximum length of {LONGEST}.")
    type = stored_type(declared["Type"]) or declared["Type"]
    told = declared.get("ConstraintDescription")

    def wrong(rule: str) -> None:
        why = f"Parameter {name} failed to satisfy constraint: {told}" if told else f"Parameter '{name}' must {rule}"
        raise refused(why)

    parts = split(type, value) if is_list(type) else [value]
    if "Number" in type:
        for one in parts:
            if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", one):
                wrong("be a number.")
            if "MinValue" in declared and float(one) < _number(declared, "MinValue", name):
                wrong(f"be a number not less than {text(declared['MinValue'])}")
            if "MaxValue" in declared and float(one) > _number(declared, "MaxValue", name):
                wrong(f"be a number not greater than {text(declared['MaxValue'])}")
    if "MinLength" in declared and len(value) < _number(declared, "MinLength", name):
        wrong(f"contain at least {text(declared['MinLength'])} characters")
    if "MaxLength" in declared and len(value) > _number(declared, "MaxLength", name):
        wrong(f"contain at most {text(declared['MaxLength'])} characters")
    if "AllowedValues" in declared:
        allowed = [text(one) for one in declared["AllowedValues"]]
        if any(one not in allowed for one in parts):
            wrong(f"be one of AllowedValues: [{', '.join(allowed[:50])}]")
    pattern = declared.get("AllowedPattern")
    if pattern:
        matches = strangers(pattern)
        for one in parts if type == "CommaDelimitedList" else [value]:
            if matches is not None and not matches(one):
                wrong(f"match pattern {pattern}")


def _number(declared: Mapping[str, Any], member: str, name: str) -> float:
    try:
        return float(text(declared[member]))
    except ValueError:
        raise refused(f"Template format error: {member} of parameter {name} must be a number.") from None
