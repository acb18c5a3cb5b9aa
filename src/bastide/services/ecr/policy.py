"""Policies of repositories."""

from __future__ import annotations

import json
from typing import Final

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Output, principals
from bastide.policy import Document, Form
from bastide.services.ecr.repository import REPOSITORY, named, this
from bastide.store import Transaction, View

_LONGEST: Final = 10_240


def _check(text: str) -> None:
    """Raises InvalidParameterException for what does not parse, or is about other services' actions."""
    fault = "Invalid parameter at 'PolicyText' failed to satisfy constraint: 'Invalid repository policy provided'"
    try:
        Document.parse(text, Form.RESOURCE, max_bytes=_LONGEST)
    except Refused as refused:
        raise Refused("InvalidParameterException", f"{fault}: {refused.message}") from None
    statements = json.loads(text)["Statement"]
    for one in statements if isinstance(statements, list) else [statements]:
        actions = one.get("Action", one.get("NotAction"))
        for action in [actions] if isinstance(actions, str) else actions:
            if action != "*" and not action.lower().startswith("ecr:"):
                raise Refused("InvalidParameterException", f"{fault}: {action[:100]} is not an action of ECR")


@REPOSITORY.operation("SetRepositoryPolicy", asks=[Ask("ecr:SetRepositoryPolicy", this)])
def put(a: Authorised, tx: Transaction) -> Output:
    row = named(a, tx)
    text = str(a.input["policyText"])
    _check(text)
    row.doc["policy"], row.doc["principals"] = text, principals.kept(tx, text)
    REPOSITORY.change(tx, row, a.operation.name, a.request.id)
    return {"registryId": row.account, "repositoryName": row.name, "policyText": text}


@REPOSITORY.reads("GetRepositoryPolicy", asks=[Ask("ecr:GetRepositoryPolicy", this)])
def get(a: Authorised, view: View) -> Output:
    row = named(a, view)
    if not row.doc.get("policy"):
        raise Refused(
            "RepositoryPolicyNotFoundException",
            f"Repository policy does not exist for the repository with name '{row.name}' in the registry with id "
            f"'{row.account}'",
        )
    text = principals.shown(view, row.doc["policy"], row.doc["principals"])
    return {"registryId": row.account, "repositoryName": row.name, "policyText": text}


@REPOSITORY.operation("DeleteRepositoryPolicy", asks=[Ask("ecr:DeleteRepositoryPolicy", this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    output = get(a, tx)
    row = named(a, tx)
    for member in ("policy", "principals"):
        del row.doc[member]
    REPOSITORY.change(tx, row, a.operation.name, a.request.id)
    return output
