"""What SageMaker's operations ask beside their own action: passed roles, tags, condition keys.

Source: Service Authorization Reference, "Actions, resources, and condition keys for Amazon SageMaker AI".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Kind, each, member
from bastide.kernel.kind import Given
from bastide.services.sagemaker.session import SAGEMAKER


def fixed(value: str) -> Given:
    """A key that always has this value."""
    return lambda _: value


def several(path: str) -> Given:
    """A key of several values, even when the request has one."""
    read = each(path)

    def given(asked: Asked) -> str | Sequence[str] | None:
        found = read(asked)
        return (found,) if isinstance(found, str) else found

    return given


def passing(kind: Kind, path: str) -> Ask:
    """May the caller hand this role to SageMaker?"""

    def about(asked: Asked) -> str | Sequence[str] | None:
        return next(iter(kind.this(asked)), None)

    return Ask(
        "iam:PassRole",
        member(path),
        given={"iam:PassedToService": fixed(SAGEMAKER), "iam:AssociatedResourceArn": about},
    )


def tagging(kind: Kind, operation: str) -> Ask:
    """Tags given at creation are asked about as AddTags, with the operation that brings them."""
    return Ask(
        "sagemaker:AddTags",
        kind.this,
        given={"sagemaker:TaggingAction": fixed(operation)},
        when=lambda asked: bool(asked.input.get("Tags")),
    )


def keys(**paths: str) -> Mapping[str, Given]:
    """``sagemaker:`` condition keys from paths of the input; a name that ends in ``s_`` has several values."""
    return {
        f"sagemaker:{name.rstrip('_')}": several(path) if name.endswith("_") else each(path)
        for name, path in paths.items()
    }


def at(given: Any, path: str) -> Any:
    """What stands at a dotted path, None if nothing does."""
    for part in path.split("."):
        if not isinstance(given, dict):
            return None
        given = given.get(part)
    return given


def unsupported(a: Authorised, *paths: str) -> None:
    """Raises Refused for what the request has and Bastide has not: better refused than left out in silence."""
    for path in paths:
        if at(a.input, path) not in (None, False, [], {}):
            raise Refused("ValidationException", f"{path} is not supported by Bastide yet.")
