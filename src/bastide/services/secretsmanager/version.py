"""Versions of a secret and their stages."""

from __future__ import annotations

from typing import Any

from bastide.kernel import Ask, Authorised, Output, pages
from bastide.kernel.kind import each
from bastide.services.secretsmanager import sealing
from bastide.services.secretsmanager.secret import (
    CURRENT,
    GIVEN,
    SECRET,
    about,
    arn,
    bad_request,
    described,
    invalid,
    named,
    save,
)
from bastide.store import Transaction, View


@SECRET.reads("DescribeSecret", asks=[Ask("secretsmanager:DescribeSecret", about, given=GIVEN)])
def describe(a: Authorised, view: View) -> Output:
    row = named(a, view, deleted=True)
    stages = {id: one["stages"] for id, one in row.doc["versions"].items() if one["stages"]}
    return described(row) | ({"VersionIdsToStages": stages} if stages else {})


@SECRET.reads("ListSecretVersionIds", asks=[Ask("secretsmanager:ListSecretVersionIds", about, given=GIVEN)])
def versions(a: Authorised, view: View) -> Output:
    row = named(a, view, deleted=True)
    all_of_them = bool(a.input.get("IncludeDeprecated"))
    kept: list[tuple[str, dict[str, Any]]] = sorted(
        ((id, one) for id, one in row.doc["versions"].items() if all_of_them or one["stages"]),
        key=lambda one: (-one[1]["created"], one[0]),
    )
    size = int(a.input.get("MaxResults") or 100)
    start = int(pages.position(a, a.input.get("NextToken"), code="InvalidNextTokenException") or 0)
    told = [
        {"VersionId": id, "CreatedDate": one["created"], "KmsKeyIds": [one["key"]]}
        | ({"VersionStages": one["stages"]} if one["stages"] else {})
        for id, one in kept[start : start + size]
    ]
    output: Output = {"Versions": told, "ARN": arn(row), "Name": row.name}
    if start + size < len(kept):
        output["NextToken"] = pages.seal(a, start + size)
    return output


@SECRET.operation(
    "UpdateSecretVersionStage",
    asks=[
        Ask(
            "secretsmanager:UpdateSecretVersionStage",
            about,
            given={**GIVEN, "secretsmanager:VersionStage": each("VersionStage")},
        )
    ],
)
def move(a: Authorised, tx: Transaction) -> Output:
    row = named(a, tx)
    stage, source, target = a.input["VersionStage"], a.input.get("RemoveFromVersionId"), a.input.get("MoveToVersionId")
    kept = row.doc["versions"]
    for id in (source, target):
        if id is not None and id not in kept:
            raise invalid(f"The version {id} is not a version of this secret.")
    holder = next((id for id, one in kept.items() if stage in one["stages"]), None)
    if source is not None and holder != source:
        raise invalid(f"The staging label {stage} is not attached to version {source}.")
    if target is not None and holder is not None and holder != target and source is None:
        raise invalid(
            f"The parameter RemoveFromVersionId can't be empty. Staging label {stage} is currently attached to version "
            f"{holder}, so you must explicitly reference that version in RemoveFromVersionId."
        )
    if target is None and stage == CURRENT:
        raise bad_request("You can't remove the staging label AWSCURRENT; move it to another version.")
    sealing.move(kept, stage, target)
    save(a, tx, row)
    return {"ARN": arn(row), "Name": row.name}
