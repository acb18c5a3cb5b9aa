"""What rules found: functions report it, and who asks is told. Source: API Reference, PutEvaluations,
GetComplianceDetailsByConfigRule; Developer Guide, "Monitoring AWS Config with Amazon EventBridge"."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Output, anything, pages
from bastide.kernel.happened import tell
from bastide.services.config.rule import RESULT, RULE, TOKEN, arn_of, by_id, find, invalid, listed, named, rows_of, this
from bastide.store import Row, Transaction, View

_COUNTED: Final = 25
"""Resources that a count goes up to."""


def digest(text: str) -> str:
    """What is kept of a token, and by what a resource's result is found."""
    return hashlib.sha256(text.encode()).hexdigest()


def _rule(a: Authorised, tx: Transaction) -> tuple[Row, Row]:
    """The rule that a result token is about, and what is kept of the token; raises InvalidResultTokenException."""
    token = str(a.input["ResultToken"])
    row = by_id(tx, a.account, a.region, token.partition(".")[0])
    held = tx.get(TOKEN, a.account, a.region, f"{row.doc['id']}/{digest(token)}") if row is not None else None
    if row is not None and held is not None:
        return row, held
    raise Refused(
        "InvalidResultTokenException",
        "The specified ResultToken is invalid: it is that of an evaluation which AWS Config has asked for.",
    )


@RULE.operation("PutEvaluations", asks=[Ask("config:PutEvaluations", anything)])
def put(a: Authorised, tx: Transaction) -> Output:
    rule, token = _rule(a, tx)
    for one in a.input.get("Evaluations") or ():
        if one["ComplianceType"] == "INSUFFICIENT_DATA":
            raise invalid("INSUFFICIENT_DATA is what AWS Config says, not what a rule does.")
    if a.input.get("TestMode"):
        return {"FailedEvaluations": []}
    for one in a.input.get("Evaluations") or ():
        _kept(tx, rule, token, one)
    rule.doc["evaluated"] = tx.now
    RULE.change(tx, rule, a.operation.name, a.request.id)
    return {"FailedEvaluations": []}


def _kept(tx: Transaction, rule: Row, token: Row, one: dict[str, Any]) -> None:
    """Keeps one result, unless a later one is there, and tells EventBridge if something changed."""
    kind, id = one["ComplianceResourceType"], one["ComplianceResourceId"]
    name = f"{rule.doc['id']}/{digest(f'{kind} {id}')}"
    row = tx.get(RESULT, rule.account, rule.region, name)
    before = row.doc if row is not None else None
    if before is not None and before["ordered"] > one["OrderingTimestamp"]:
        return
    doc = {
        "type": kind, "id": id, "compliance": one["ComplianceType"], "why": one.get("Annotation") or "",
        "ordered": one["OrderingTimestamp"], "recorded": tx.now, "invoked": token.doc["at"],
    }  # fmt: skip
    if one["ComplianceType"] == "NOT_APPLICABLE":
        if row is not None:
            tx.delete(row, keep=False)
    elif row is None:
        tx.insert(Row(RESULT, rule.account, rule.region, name, doc), keep=False)
    else:
        row.doc = doc
        tx.update(row, keep=False)
    if one["ComplianceType"] != (before["compliance"] if before is not None else "NOT_APPLICABLE"):
        detail: dict[str, Any] = {
            "resourceId": id, "resourceType": kind, "awsRegion": rule.region, "awsAccountId": rule.account,
            "configRuleName": rule.name, "configRuleARN": arn_of(rule), "messageType": "ComplianceChangeNotification",
            "newEvaluationResult": {"complianceType": doc["compliance"], "annotation": doc["why"]},
            "oldEvaluationResult": {"complianceType": before["compliance"]} if before is not None else None,
        }  # fmt: skip
        tell(
            tx, account=rule.account, region=rule.region, source="aws.config", resources=[],
            detail_type="Config Rules Compliance Change", detail=detail,
        )  # fmt: skip


# -- looking -------------------------------------------------------------------------------------------------------------


def _shown(rule: Row, row: Row) -> Output:
    doc = row.doc
    which = {
        "ConfigRuleName": rule.name, "ResourceType": doc["type"], "ResourceId": doc["id"], "EvaluationMode": "DETECTIVE",
    }  # fmt: skip
    told = {
        "EvaluationResultIdentifier": {"EvaluationResultQualifier": which, "OrderingTimestamp": doc["ordered"]},
        "ComplianceType": doc["compliance"],
        "ResultRecordedTime": doc["recorded"],
        "ConfigRuleInvokedTime": doc["invoked"],
    }
    return {**told, **({"Annotation": doc["why"]} if doc["why"] else {})}


@RULE.reads("GetComplianceDetailsByConfigRule", asks=[Ask("config:GetComplianceDetailsByConfigRule", this)])
def details(a: Authorised, view: View) -> Output:
    rule = find(view, a.account, a.region, a.input["ConfigRuleName"])
    wanted = a.input.get("ComplianceTypes") or ("COMPLIANT", "NON_COMPLIANT")
    limit = min(int(a.input.get("Limit") or 100), 100)
    begin = pages.position(a, a.input.get("NextToken"), code="InvalidNextTokenException") or ""
    held = [one for one in rows_of(view, RESULT, rule) if one.doc["compliance"] in wanted and one.name > begin]
    token = pages.seal(a, held[limit - 1].name) if len(held) > limit else None
    return {"EvaluationResults": [_shown(rule, one) for one in held[:limit]], "NextToken": token}


def _compliance(view: View, rule: Row) -> dict[str, Any]:
    held = rows_of(view, RESULT, rule)
    if not held:
        return {"ComplianceType": "INSUFFICIENT_DATA"}
    wrong = sum(one.doc["compliance"] == "NON_COMPLIANT" for one in held)
    if not wrong:
        return {"ComplianceType": "COMPLIANT"}
    count = {"CappedCount": min(wrong, _COUNTED), "CapExceeded": wrong > _COUNTED}
    return {"ComplianceType": "NON_COMPLIANT", "ComplianceContributorCount": count}


@RULE.reads("DescribeComplianceByConfigRule", asks=[Ask("config:DescribeComplianceByConfigRule", named)])
def compliance(a: Authorised, view: View) -> Output:
    rows, token = listed(a, view)
    found: list[dict[str, Any]] = [{"ConfigRuleName": row.name, "Compliance": _compliance(view, row)} for row in rows]
    if wanted := a.input.get("ComplianceTypes"):
        found = [one for one in found if one["Compliance"]["ComplianceType"] in wanted]
    return {"ComplianceByConfigRules": found, "NextToken": token}
