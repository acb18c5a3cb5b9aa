"""Resource policies of an account: which services may write into its log groups.

Source: CloudWatch Logs API Reference, PutResourcePolicy.
"""

from __future__ import annotations

import json
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Kind, Output, anything, principals
from bastide.policy import Attached, Document, Form
from bastide.store import Transaction, View

RESOURCE_POLICY = Kind(
    "ResourcePolicy",
    service="logs",
    arn="resource-policy/{}",
    named_by="policyName",
    tags=False,
    missing=("ResourceNotFoundException", "Policy with name [{name}] does not exist.", 400),
)
_MOST: Final = 10
_LONGEST: Final = 5120


@RESOURCE_POLICY.operation("PutResourcePolicy", asks=[Ask("logs:PutResourcePolicy", anything)])
def put(a: Authorised, tx: Transaction) -> Output:
    name, text = a.input.get("policyName"), a.input.get("policyDocument")
    for member in ("resourceArn", "expectedRevisionId"):
        if a.input.get(member):
            raise Refused("InvalidParameterException", f"{member} is not supported by Bastide yet.")
    if not name or not text:
        raise Refused("InvalidParameterException", "policyName and policyDocument are needed.")
    try:
        Document.parse(text, Form.RESOURCE, max_bytes=_LONGEST)
    except Refused as refused:
        raise Refused("InvalidParameterException", f"The policy document is not valid: {refused.message}") from None
    doc = {"policy": text, "principals": principals.kept(tx, text)}
    row = RESOURCE_POLICY.get(tx, a.account, a.region, name)
    if row is None:
        if len(tx.scan(RESOURCE_POLICY.key, a.account, a.region, limit=_MOST)) >= _MOST:
            raise Refused("LimitExceededException", f"Resource limit exceeded: {_MOST} policies.")
        row = RESOURCE_POLICY.create(a, tx, name, doc)
    else:
        row.doc = doc
        RESOURCE_POLICY.change(tx, row, a.operation.name, a.request.id)
    told = {"policyName": name, "policyDocument": text, "lastUpdatedTime": tx.now // 1000, "policyScope": "ACCOUNT"}
    return {"resourcePolicy": told}


@RESOURCE_POLICY.reads("DescribeResourcePolicies", asks=[Ask("logs:DescribeResourcePolicies", anything)])
def describe(a: Authorised, view: View) -> Output:
    for member in ("resourceArn", "policyScope"):
        if a.input.get(member):
            raise Refused("InvalidParameterException", f"{member} is not supported by Bastide yet.")
    rows = view.scan(RESOURCE_POLICY.key, a.account, a.region, limit=_MOST)
    return {
        "resourcePolicies": [
            {
                "policyName": row.name,
                "policyDocument": principals.shown(view, row.doc["policy"], row.doc["principals"]),
                "lastUpdatedTime": row.modified // 1000,
                "policyScope": "ACCOUNT",
            }
            for row in rows
        ]
    }


@RESOURCE_POLICY.operation("DeleteResourcePolicy", asks=[Ask("logs:DeleteResourcePolicy", anything)])
def delete(a: Authorised, tx: Transaction) -> Output:
    RESOURCE_POLICY.remove(tx, RESOURCE_POLICY.named(a, tx), a.operation.name, a.request.id)
    return {}


def policy(view: View, account: str, region: str) -> tuple[Attached, str, dict[str, str]] | None:
    """All of an account's policies as one: what decides, its text, the unique ids of whom it names. None if it has none."""

    def load() -> tuple[Attached, str, dict[str, str]] | None:
        rows = view.scan(RESOURCE_POLICY.key, account, region, limit=_MOST)
        statements: list[Any] = []
        ids: dict[str, str] = {}
        for row in rows:
            held = json.loads(row.doc["policy"])["Statement"]
            statements += held if isinstance(held, list) else [held]
            ids |= row.doc["principals"]
        if not statements:
            return None
        for number, one in enumerate(statements):
            one["Sid"] = f"s{number}"  # names are one policy's own
        text = json.dumps({"Version": "2012-10-17", "Statement": statements})
        document = Document.parse(text, Form.RESOURCE, max_bytes=len(text))
        return Attached(document, f"resource policies of CloudWatch Logs in {account}"), text, ids

    return view.memo(("logs:policies", account, region), ((RESOURCE_POLICY.key, account),), load)
