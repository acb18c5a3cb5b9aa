"""What SageMaker's operations ask beside their own action: passed roles, tags, condition keys.

Source: Service Authorization Reference, "Actions, resources, and condition keys for Amazon SageMaker AI".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bastide.domain import Refused
from bastide.kernel import About, Ask, Asked, Authorised, Kind, each, member
from bastide.kernel.kind import Given
from bastide.services.sagemaker.session import SAGEMAKER


def fixed(value: str) -> Given:
    """A key that always has this value."""
    return lambda _: value


def several(*paths: str) -> Given:
    """A key of several values, even when the request has one; from all of the paths."""
    reads = [each(path) for path in paths]

    def given(asked: Asked) -> str | Sequence[str] | None:
        values: list[str] = []
        for read in reads:
            found = read(asked)
            values += [found] if isinstance(found, str) else found or ()
        return values

    return given


def otherwise(path: str, default: str) -> Given:
    """A key whose parameter, left out, counts as its default: a guardrail must not be passed by saying nothing."""
    read = each(path)
    return lambda asked: read(asked) or default


def itself(asked: Asked) -> bool:
    """Whether SageMaker acts by itself. What it hands on then (a role, tags), whoever asked for it was asked about."""
    return asked.call.caller.kind == "Service"


def passing(kind: Kind, *paths: str) -> Ask:
    """May the caller hand this role to SageMaker?"""
    reads = [member(path) for path in paths]

    def about(asked: Asked) -> str | Sequence[str] | None:
        return next(iter(kind.this(asked)), None)

    return Ask(
        "iam:PassRole",
        lambda asked: list(dict.fromkeys(role for read in reads for role in read(asked))),
        given={"iam:PassedToService": fixed(SAGEMAKER), "iam:AssociatedResourceArn": about},
        when=lambda asked: not itself(asked),
    )


def tagging(kind: Kind, operation: str, about: About | None = None) -> Ask:
    """Tags given at creation are asked about as AddTags, with the operation that brings them."""
    return Ask(
        "sagemaker:AddTags",
        about or kind.this,
        given={"sagemaker:TaggingAction": fixed(operation)},
        when=lambda asked: bool(asked.input.get("Tags")) and not itself(asked),
    )


def keys(**paths: str | Given) -> Mapping[str, Given]:
    """``sagemaker:`` condition keys from paths of the input; a name that ends in ``s_`` has several values."""
    found: dict[str, Given] = {}
    for name, path in paths.items():
        read = path if callable(path) else several(path) if name.endswith("_") else each(path)
        found[f"sagemaker:{name.rstrip('_').replace('__', ':')}"] = read
    return found


def at(given: Any, path: str) -> Any:
    """What stands at a dotted path, None if nothing does."""
    for part in path.split("."):
        if not isinstance(given, dict):
            return None
        given = given.get(part)
    return given


def unsupported(a: Authorised, *paths: str) -> None:
    """Raises Refused for what the request has and Bastide has not: better refused than left out in silence."""
    lacking(a.input, *paths)


def lacking(given: Any, *paths: str) -> None:
    """As `unsupported`, of a request within another."""
    for path in paths:
        if at(given, path) not in (None, False, [], {}):
            raise Refused("ValidationException", f"{path} is not supported by Bastide yet.")
