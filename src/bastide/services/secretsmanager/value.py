"""GetSecretValue, PutSecretValue, BatchGetSecretValue."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Output, anything
from bastide.kernel.kind import each
from bastide.services.secretsmanager import sealing
from bastide.services.secretsmanager.secret import (
    CURRENT,
    GIVEN,
    SECRET,
    about,
    arn,
    find,
    invalid,
    named,
    named_arn,
    save,
)
from bastide.store import Row, Transaction, View

_MOST: Final = 20


def _version(row: Row, id: str | None, stage: str | None) -> tuple[str, dict[str, Any]]:
    """The version that is meant; raises ResourceNotFoundException."""
    versions = row.doc["versions"]
    if id is not None:
        held = versions.get(id)
        if held is None:
            raise Refused(
                "ResourceNotFoundException",
                f"Secrets Manager can't find the specified secret value for VersionId: {id}",
            )
        if stage is not None and stage not in held["stages"]:
            raise Refused(
                "InvalidRequestException",
                f"You provided a VersionStage that is not associated to the provided VersionId {id}.",
            )
        return id, held
    wanted = stage or CURRENT
    for name, one in versions.items():
        if wanted in one["stages"]:
            return name, one
    raise Refused(
        "ResourceNotFoundException",
        f"Secrets Manager can't find the specified secret value for staging label: {wanted}",
    )


def _shown(a: Authorised, view: View, row: Row, id: str, version: dict[str, Any]) -> Output:
    member, raw = sealing.opened(a, view, arn(row), id, version)
    return {
        "ARN": arn(row),
        "Name": row.name,
        "VersionId": id,
        member: raw.decode() if member == "SecretString" else raw,
        "VersionStages": version["stages"],
        "CreatedDate": version["created"],
    }


_VERSIONED: Final = {
    **GIVEN,
    "secretsmanager:VersionId": each("VersionId"),
    "secretsmanager:VersionStage": lambda asked: str(
        asked.input.get("VersionStage") or ("" if asked.input.get("VersionId") else CURRENT)
    ),
}


@SECRET.reads("GetSecretValue", asks=[Ask("secretsmanager:GetSecretValue", about, given=_VERSIONED)])
def get(a: Authorised, view: View) -> Output:
    row = named(a, view)
    id, version = _version(row, a.input.get("VersionId"), a.input.get("VersionStage"))
    return _shown(a, view, row, id, version)


@SECRET.operation("PutSecretValue", asks=[Ask("secretsmanager:PutSecretValue", about, given=GIVEN)])
def put(a: Authorised, tx: Transaction) -> Output:
    if a.input.get("RotationToken"):
        raise invalid("RotationToken is not supported by Bastide yet.")
    content = sealing.content(a)
    if content is None:
        raise invalid("You must provide either SecretString or SecretBinary.")
    row = named(a, tx)
    stages = list(dict.fromkeys(a.input.get("VersionStages") or [CURRENT]))
    id = sealing.add(a, tx, row, content, stages)
    save(a, tx, row)
    return {"ARN": arn(row), "Name": row.name, "VersionId": id, "VersionStages": row.doc["versions"][id]["stages"]}


def _nth(number: int) -> Ask:
    """The question about one of the secrets of a list, with the keys that GetSecretValue has for it alone."""

    def given(asked: Asked) -> str | None:
        listed = asked.input.get("SecretIdList") or ()
        return str(listed[number]) if number < len(listed) else None

    def where(asked: Asked) -> Iterable[str]:
        one = given(asked)
        return () if one is None else (named_arn(asked, one),)

    keys = {
        **GIVEN,
        "secretsmanager:SecretId": lambda asked: named_arn(asked, str(given(asked))),
        "secretsmanager:VersionStage": lambda _: CURRENT,
    }
    return Ask("secretsmanager:GetSecretValue", where, given=keys)


@SECRET.reads(
    "BatchGetSecretValue",
    asks=[Ask("secretsmanager:BatchGetSecretValue", anything), *(_nth(number) for number in range(_MOST))],
)
def batch(a: Authorised, view: View) -> Output:
    """Secrets by their ids. By filters it would have to answer for secrets that the questions did not name."""
    wanted = a.input.get("SecretIdList")
    if not wanted or a.input.get("Filters"):
        raise invalid("Bastide takes a SecretIdList here; find secrets by filters with ListSecrets.")
    if len(wanted) > _MOST:
        raise invalid(f"SecretIdList names {_MOST} secrets at most.")
    found: list[Output] = []
    errors: list[Output] = []
    for id in wanted:
        try:
            row = find(a, view, str(id))
            found.append(_shown(a, view, row, *_version(row, None, None)))
        except Refused as refused:
            errors.append({"SecretId": id, "ErrorCode": refused.code, "Message": refused.message})
    return {"SecretValues": found, "Errors": errors}
