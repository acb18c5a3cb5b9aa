"""Rules: made, changed, described, deleted; when each is due. Source: API Reference, PutConfigRule; Developer Guide,
"AWS Config custom rules"."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import MICROS, Arn, Instant, Refused, tag_list, tag_map
from bastide.kernel import Ask, Asked, Authorised, Facts, Kind, Output, pages
from bastide.store import Row, Transaction, View

RULE: Final = Kind("ConfigRule", service="config", arn="config-rule/{}", named_by="ConfigRuleName")
"""Rows by name; the ARN has the id."""
_ID: Final = "config:RuleId"
"""Rows of an account and region by a rule's id: its name."""
DUE: Final = "config:Due"
"""Rows of no account, ``TIME|ACCOUNT|REGION|NAME``: when each rule is evaluated next."""
TOKEN: Final = "config:Token"  # noqa: S105 - a kind of rows
"""Rows ``ID/SHA-256`` of an account and region: evaluations that were asked for and may be reported about."""
RESULT: Final = "config:Result"
"""Rows ``ID/SHA-256 of type and id of a resource``: what was found last."""
_EVERY: Final = {
    "One_Hour": 1, "Three_Hours": 3, "Six_Hours": 6, "Twelve_Hours": 12, "TwentyFour_Hours": 24,
}  # fmt: skip
_HOUR: Final = 3600 * MICROS
_MOST: Final = 1000
"""Rules of an account and region. Source: Developer Guide, "Service limits"."""
_PAGE: Final = 25


def invalid(message: str) -> Refused:
    """InvalidParameterValueException."""
    return Refused("InvalidParameterValueException", message)


def arn_of(row: Row) -> str:
    """A rule's ARN."""
    return RULE.arn(row.account, row.region, row.doc["id"])


def find(view: View, account: str, region: str, name: str) -> Row:
    """A rule; raises NoSuchConfigRuleException."""
    row = RULE.get(view, account, region, name)
    if row is None:
        raise Refused(
            "NoSuchConfigRuleException",
            f"The ConfigRule '{name[:128]}' provided in the request is invalid. Please check the configRule name.",
        )
    return row


def by_id(view: View, account: str, region: str, id: str) -> Row | None:
    """A rule by its id."""
    held = view.get(_ID, account, region, id)
    return RULE.get(view, account, region, held.doc["name"]) if held is not None else None


def facts(view: View, where: Arn, _: str) -> Facts | None:
    """Whose a rule is, and its tags."""
    if where.type != "config-rule":
        return None
    row = by_id(view, where.account, where.region, where.resource.partition("/")[2])
    return Facts(where.account, row.tags if row is not None else {}, type=RULE.name)


def _arns(asked: Asked, names: Iterable[str]) -> list[str]:
    account, region = asked.call.account, asked.call.region
    rows = [(name, RULE.get(asked.view, account, region, name)) for name in names]
    return [arn_of(row) if row is not None else RULE.arn(account, region, name) for name, row in rows]


def this(asked: Asked) -> list[str]:
    """The rule that the call names."""
    return _arns(asked, [str(asked.input["ConfigRuleName"])])


def named(asked: Asked) -> Iterable[str]:
    """The rules that the call names, or any."""
    return _arns(asked, [str(one) for one in asked.input.get("ConfigRuleNames") or ()]) or ["*"]


# -- making --------------------------------------------------------------------------------------------------------------


def _checked(given: dict[str, Any]) -> dict[str, Any]:
    """A rule as it is kept; raises Refused for what is none, or would have no effect."""
    for member in ("CreatedBy", "ConfigRuleState", "Scope"):
        if given.get(member) not in (None, "", {}, "ACTIVE"):
            raise Refused("ValidationException", f"{member} is not supported by Bastide.")
    if any(one.get("Mode") != "DETECTIVE" for one in given.get("EvaluationModes") or ()):
        raise Refused("ValidationException", "EvaluationModes: rules look at what stands (DETECTIVE).")
    source = given["Source"]
    if source["Owner"] != "CUSTOM_LAMBDA":
        raise invalid(
            f"The rules of the owner {source['Owner']} do not exist in Bastide: write one as a function (CUSTOM_LAMBDA)."
        )
    try:
        function = Arn.parse(str(source.get("SourceIdentifier") or ""))
    except ValueError:
        function = None
    if function is None or function.service != "lambda":
        raise invalid("The sourceIdentifier is not the ARN of a Lambda function.")
    details = list(source.get("SourceDetails") or ())
    if any(one.get("MessageType") not in (None, "ScheduledNotification") for one in details):
        raise Refused(
            "NoAvailableConfigurationRecorderException",
            "There is no configuration recorder, which rules need that changes trigger: the MessageType is "
            "ScheduledNotification.",
        )
    if len(details) != 1:
        raise invalid("SourceDetails has one entry, with the MessageType ScheduledNotification.")
    often = details[0].get("MaximumExecutionFrequency") or given.get("MaximumExecutionFrequency") or "TwentyFour_Hours"
    parameters = given.get("InputParameters") or "{}"
    try:
        told = json.loads(parameters)
    except ValueError:
        told = None
    if not isinstance(told, dict) or not all(isinstance(one, str) for one in told.values()):
        raise invalid("InputParameters is a JSON object whose values are texts.")
    return {
        "Description": given.get("Description") or "",
        "InputParameters": parameters,
        "function": str(function),
        "often": often,
    }


def arrange(tx: Transaction, row: Row, at: Instant) -> None:
    """The rule is due at a time, and at no other. Whoever calls saves the row."""
    undo(tx, row)
    name = f"{at:020d}|{row.account}|{row.region}|{row.name}"
    tx.insert(Row(DUE, "", "", name, {}), keep=False)
    row.doc["due"] = name


def undo(tx: Transaction, row: Row) -> None:
    """The rule is not due any more."""
    held = tx.get(DUE, "", "", row.doc["due"]) if row.doc.get("due") else None
    if held is not None:
        tx.delete(held, keep=False)
    row.doc["due"] = ""


def next_time(row: Row, now: Instant) -> Instant:
    """When a rule that is evaluated now is due again."""
    return now + _EVERY[row.doc["often"]] * _HOUR


def _put(asked: Asked) -> list[str]:
    return _arns(asked, [str(asked.input["ConfigRule"].get("ConfigRuleName") or "new")])


@RULE.operation(
    "PutConfigRule",
    asks=[
        Ask("config:PutConfigRule", _put),
        Ask("config:TagResource", _put, when=lambda asked: bool(asked.input.get("Tags"))),
    ],
)
def put(a: Authorised, tx: Transaction) -> Output:
    given = a.input["ConfigRule"]
    name = given.get("ConfigRuleName")
    if not name:
        raise Refused("ValidationException", "ConfigRuleName is needed: Bastide finds rules by it.")
    made = _checked(given)
    row = RULE.get(tx, a.account, a.region, name)
    id = row.doc["id"] if row is not None else f"config-rule-{secrets.token_hex(3)}"
    for member, wanted in (("ConfigRuleArn", RULE.arn(a.account, a.region, id)), ("ConfigRuleId", id)):
        if given.get(member) and (row is None or given[member] != wanted):
            raise invalid(f"{member} is not that of the rule {name}.")
    if row is not None:
        row.doc |= made
        arrange(tx, row, tx.now)
        RULE.change(tx, row, a.operation.name, a.request.id)
        return {}
    if len(tx.scan(RULE.key, a.account, a.region, limit=_MOST)) == _MOST:
        raise Refused("MaxNumberOfConfigRulesExceededException", f"There are {_MOST} rules at most.")
    tags = tag_map(a.input.get("Tags"), code="InvalidParameterValueException")
    row = RULE.create(a, tx, name, {**made, "id": id, "due": "", "activated": tx.now}, tags=tags)
    tx.insert(Row(_ID, a.account, a.region, id, {"name": name}), keep=False)
    arrange(tx, row, tx.now)
    tx.update(row, keep=False)
    return {}


@RULE.operation("DeleteConfigRule", asks=[Ask("config:DeleteConfigRule", this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = find(tx, a.account, a.region, a.input["ConfigRuleName"])
    undo(tx, row)
    index = tx.get(_ID, a.account, a.region, row.doc["id"])
    for one in (*([index] if index is not None else ()), *rows_of(tx, TOKEN, row), *rows_of(tx, RESULT, row)):
        tx.delete(one, keep=False)
    RULE.remove(tx, row, a.operation.name, a.request.id)
    return {}


def rows_of(view: View, kind: str, rule: Row) -> list[Row]:
    """All rows of a kind below a rule, oldest name first."""
    found: list[Row] = []
    prefix, after = f"{rule.doc['id']}/", None
    while rows := view.scan(kind, rule.account, rule.region, prefix=prefix, after=after, limit=500):
        found += rows
        after = rows[-1].name
    return found


# -- looking -------------------------------------------------------------------------------------------------------------


def _shown(row: Row) -> Output:
    details = [
        {"EventSource": "aws.config", "MessageType": "ScheduledNotification",
         "MaximumExecutionFrequency": row.doc["often"]}
    ]  # fmt: skip
    told = {
        "ConfigRuleName": row.name,
        "ConfigRuleArn": arn_of(row),
        "ConfigRuleId": row.doc["id"],
        "Source": {"Owner": "CUSTOM_LAMBDA", "SourceIdentifier": row.doc["function"], "SourceDetails": details},
        "InputParameters": row.doc["InputParameters"],
        "ConfigRuleState": "ACTIVE",
        "EvaluationModes": [{"Mode": "DETECTIVE"}],
    }
    return {**told, **({"Description": row.doc["Description"]} if row.doc["Description"] else {})}


def listed(a: Authorised, view: View, limit: int = _PAGE) -> tuple[list[Row], str | None]:
    """The rules that the call names, or a page of all, and the token for the next."""
    if a.input.get("ConfigRuleNames"):
        return [find(view, a.account, a.region, str(one)) for one in a.input["ConfigRuleNames"]], None
    after = pages.position(a, a.input.get("NextToken"), code="InvalidNextTokenException")
    rows = view.scan(RULE.key, a.account, a.region, after=after, limit=limit + 1)
    token = pages.seal(a, rows[limit - 1].name) if len(rows) > limit else None
    return list(rows[:limit]), token


@RULE.reads("DescribeConfigRules", asks=[Ask("config:DescribeConfigRules", named)])
def describe(a: Authorised, view: View) -> Output:
    if a.input.get("Filters"):
        raise Refused("ValidationException", "Filters is not supported by Bastide: all rules are DETECTIVE.")
    rows, token = listed(a, view)
    return {"ConfigRules": [_shown(row) for row in rows], "NextToken": token}


@RULE.reads("DescribeConfigRuleEvaluationStatus", asks=[Ask("config:DescribeConfigRuleEvaluationStatus", named)])
def status(a: Authorised, view: View) -> Output:
    rows, token = listed(a, view, min(int(a.input.get("Limit") or 50), 50))
    found = []
    for row in rows:
        told = {"ConfigRuleName": row.name, "ConfigRuleArn": arn_of(row), "ConfigRuleId": row.doc["id"]}
        members = {
            "LastSuccessfulInvocationTime": "invoked", "LastFailedInvocationTime": "failed",
            "LastSuccessfulEvaluationTime": "evaluated", "FirstActivatedTime": "activated", "LastErrorCode": "code",
            "LastErrorMessage": "why",
        }  # fmt: skip
        told |= {member: row.doc[name] for member, name in members.items() if row.doc.get(name)}
        found.append({**told, "FirstEvaluationStarted": bool(row.doc.get("invoked") or row.doc.get("failed"))})
    return {"ConfigRulesEvaluationStatus": found, "NextToken": token}


@RULE.operation("StartConfigRulesEvaluation", asks=[Ask("config:StartConfigRulesEvaluation", named)])
def start(a: Authorised, tx: Transaction) -> Output:
    if not a.input.get("ConfigRuleNames"):
        raise invalid("ConfigRuleNames is needed.")
    for name in a.input["ConfigRuleNames"]:
        row = find(tx, a.account, a.region, str(name))
        arrange(tx, row, tx.now)
        RULE.change(tx, row, a.operation.name, a.request.id)
    return {}


# -- tags ----------------------------------------------------------------------------------------------------------------


def _by_arn(asked: Asked) -> list[str]:
    return [str(asked.input["ResourceArn"])]


def _tagged(a: Authorised, view: View) -> Row:
    given = str(a.input["ResourceArn"])
    row = by_id(view, a.account, a.region, given.rpartition("/")[2])
    if row is None or given != arn_of(row):
        raise Refused("ResourceNotFoundException", f"There is no rule {given[:300]}.")
    return row


@RULE.operation("TagResource", asks=[Ask("config:TagResource", _by_arn)])
def tag(a: Authorised, tx: Transaction) -> Output:
    row = _tagged(a, tx)
    row.tags = {**row.tags, **tag_map(a.input["Tags"], code="ValidationException")}
    RULE.change(tx, row, a.operation.name, a.request.id)
    return {}


@RULE.operation("UntagResource", asks=[Ask("config:UntagResource", _by_arn)])
def untag(a: Authorised, tx: Transaction) -> Output:
    row = _tagged(a, tx)
    row.tags = {key: value for key, value in row.tags.items() if key not in a.input["TagKeys"]}
    RULE.change(tx, row, a.operation.name, a.request.id)
    return {}


@RULE.reads("ListTagsForResource", asks=[Ask("config:ListTagsForResource", _by_arn)])
def tags(a: Authorised, view: View) -> Output:
    return {"Tags": tag_list(_tagged(a, view).tags)}
