"""Approvals of pull requests, the rules they have to meet, and overriding those.

Who made a pull request cannot approve it. Source: AWS CodeCommit API Reference, UpdatePullRequestApprovalState
(PullRequestCannotBeApprovedByAuthorException: "You cannot approve a pull request that you created"). AWS compares ARNs;
here the author is also known again in another session, by its source identity and by the person at the access portal.
"""

from __future__ import annotations

from typing import Any, Final

from bastide.kernel import Authorised, Caller, Kind, Output
from bastide.services.codecommit import rule
from bastide.services.codecommit.noun import PULL_REQUEST, of_pull_request, refused
from bastide.services.codecommit.pull_request import current, happened, notify, open_one
from bastide.store import Row, Transaction, View

RULE: Final = Kind("ApprovalRule", service="codecommit", arn="approval-rule/{}", tags=False)
_MOST_APPROVALS: Final = 100


def person(caller: Caller) -> str:
    """Who is behind a caller, as far as its session says: the portal's person, the source identity, or the ARN."""
    session = caller.session
    if session is None:
        return caller.arn
    return (session.origin[0] if session.origin else "") or session.source_identity or caller.arn


def author(row: Row, caller: Caller) -> bool:
    """Whether the caller made the pull request."""
    made, session = row.doc["author"], caller.session
    if caller.arn == made["arn"] or caller.user_id == made["id"]:
        return True
    if session is None:
        return False
    if made["source"] and session.source_identity == made["source"]:
        return True
    return bool(made["origin"]) and list(session.origin[:1]) == made["origin"]


def _revision(a: Authorised, row: Row) -> str:
    """The revision of the call; raises RevisionNotCurrentException."""
    given = str(a.input["revisionId"])
    if given not in row.doc["revisions"]:
        raise refused("InvalidRevisionId", "There is no such revision of the pull request.")
    if given != row.doc["revision"]:
        raise refused("RevisionNotCurrent", "The source branch was changed: there is a later revision to look at.")
    return given


def evaluation(row: Row) -> Output:
    """How the rules of a pull request stand for its latest revision."""
    revision = row.doc["revision"]
    held = row.doc["approvals"].get(revision, {})
    approvers = {arn: one["person"] for arn, one in held.items() if one["state"] == "APPROVE"}
    met = [one["name"] for one in row.doc["rules"] if rule.satisfied(one["content"], approvers)]
    not_met = [one["name"] for one in row.doc["rules"] if one["name"] not in met]
    overridden = revision in row.doc["overrides"]
    return {
        "approved": not not_met or overridden, "overridden": overridden, "approvalRulesSatisfied": met,
        "approvalRulesNotSatisfied": not_met,
    }  # fmt: skip


def _changed(
    a: Authorised, tx: Transaction, row: Row, event: str, metadata: Output, topic: str, words: str, **told: Any
) -> None:
    """Keeps a pull request, with an event of its own and a notification (``pullRequest`` and `topic`)."""
    happened(tx, row, a.caller.arn, event, **metadata)
    notify(a, tx, row, f"pullRequest{topic}", words, **told)
    PULL_REQUEST.change(tx, row, a.operation.name, a.request.id)


@RULE.operation("UpdatePullRequestApprovalState", asks=of_pull_request("UpdatePullRequestApprovalState"))
def approve(a: Authorised, tx: Transaction) -> Output:
    row = open_one(a, tx)
    revision, state = _revision(a, row), str(a.input["approvalState"])
    if author(row, a.caller):
        raise refused(
            "PullRequestCannotBeApprovedByAuthor",
            "The approval cannot be applied because the user approving the pull request matches the user who created the "
            "pull request. You cannot approve a pull request that you created.",
        )
    held: dict[str, dict[str, str]] = row.doc["approvals"].setdefault(revision, {})
    if len(held) >= _MOST_APPROVALS and a.caller.arn not in held:
        raise refused("MaximumNumberOfApprovalsExceeded", f"A revision has {_MOST_APPROVALS} approvals at most.")
    held[a.caller.arn] = {"state": state, "person": person(a.caller)}
    row.doc["approvals"] = {
        one: row.doc["approvals"][one] for one in row.doc["revisions"] if one in row.doc["approvals"]
    }
    _changed(
        a, tx, row, "PULL_REQUEST_APPROVAL_STATE_CHANGED",
        {"approvalStateChangedEventMetadata": {"revisionId": revision, "approvalStatus": state}},
        "ApprovalStateChanged", "changed the approval state of the pull request", approvalStatus=state,
    )  # fmt: skip
    return {}


@RULE.reads("GetPullRequestApprovalStates", asks=of_pull_request("GetPullRequestApprovalStates"))
def states(a: Authorised, view: View) -> Output:
    row = current(a, view)
    if a.input["revisionId"] not in row.doc["revisions"]:
        raise refused("InvalidRevisionId", "There is no such revision of the pull request.")
    held = row.doc["approvals"].get(a.input["revisionId"], {})
    return {"approvals": [{"userArn": arn, "approvalState": one["state"]} for arn, one in held.items()]}


@RULE.reads("EvaluatePullRequestApprovalRules", asks=of_pull_request("EvaluatePullRequestApprovalRules"))
def evaluate(a: Authorised, view: View) -> Output:
    row = current(a, view)
    _revision(a, row)
    return {"evaluation": evaluation(row)}


@RULE.operation("OverridePullRequestApprovalRules", asks=of_pull_request("OverridePullRequestApprovalRules"))
def override(a: Authorised, tx: Transaction) -> Output:
    row = open_one(a, tx)
    revision, status = _revision(a, row), str(a.input["overrideStatus"])
    if (revision in row.doc["overrides"]) == (status == "OVERRIDE"):
        raise refused("OverrideAlreadySet", "The pull request is in that state.")
    if status == "OVERRIDE":
        row.doc["overrides"] = {revision: a.caller.arn}
    else:
        row.doc["overrides"] = {}
    _changed(
        a, tx, row, "PULL_REQUEST_APPROVAL_RULE_OVERRIDDEN",
        {"approvalRuleOverriddenEventMetadata": {"revisionId": revision, "overrideStatus": status}},
        "ApprovalRuleOverridden", "overrode the approval rules of the pull request", overrideStatus=status,
    )  # fmt: skip
    return {}


@RULE.reads("GetPullRequestOverrideState", asks=of_pull_request("GetPullRequestOverrideState"))
def overridden(a: Authorised, view: View) -> Output:
    row = current(a, view)
    by = row.doc["overrides"].get(a.input["revisionId"])
    return {"overridden": by is not None, **({"overrider": by} if by is not None else {})}


# -- rules of one pull request -------------------------------------------------------------------------------------------


def _rule(row: Row, name: str) -> dict[str, Any] | None:
    return next((one for one in row.doc["rules"] if one["name"] == name), None)


def _held_rule(a: Authorised, row: Row) -> dict[str, Any]:
    one = _rule(row, str(a.input["approvalRuleName"]))
    if one is None:
        raise refused("ApprovalRuleDoesNotExist", "There is no such approval rule.")
    return one


def _told(a: Authorised, tx: Transaction, row: Row, one: dict[str, Any], what: str, words: str) -> None:
    _changed(
        a, tx, row, f"PULL_REQUEST_APPROVAL_RULE_{what.upper()}", {"approvalRuleEventMetadata": rule.told(one)},
        f"ApprovalRule{what}", words, approvalRuleName=one["name"], approvalRuleId=one["id"],
        approvalRuleContentSha256=one["sha"],
    )  # fmt: skip


@RULE.operation("CreatePullRequestApprovalRule", asks=of_pull_request("CreatePullRequestApprovalRule"))
def create(a: Authorised, tx: Transaction) -> Output:
    row = open_one(a, tx)
    name = str(a.input["approvalRuleName"])
    if not rule.NAME.fullmatch(name):
        raise refused("InvalidApprovalRuleName", "The name of an approval rule has 1 to 100 characters.")
    if _rule(row, name) is not None:
        raise refused("ApprovalRuleNameAlreadyExists", f"There is an approval rule {name}")
    if len(row.doc["rules"]) >= rule.MOST:
        raise refused("NumberOfRulesExceeded", f"A pull request has {rule.MOST} approval rules at most.")
    content = rule.checked(str(a.input["approvalRuleContent"]), "InvalidApprovalRuleContent")
    one = rule.made(name, content, a.caller.arn, a.now)
    row.doc["rules"].append(one)
    _told(a, tx, row, one, "Created", "created an approval rule for the pull request")
    return {"approvalRule": rule.shown(one)}


@RULE.operation("UpdatePullRequestApprovalRuleContent", asks=of_pull_request("UpdatePullRequestApprovalRuleContent"))
def update(a: Authorised, tx: Transaction) -> Output:
    row = open_one(a, tx)
    one = _held_rule(a, row)
    if one.get("origin"):
        raise refused(
            "CannotModifyApprovalRuleFromTemplate", "The rule comes from a template; override it, or edit that."
        )
    if a.input.get("existingRuleContentSha256") not in (None, one["sha"]):
        raise refused("InvalidRuleContentSha256", "The rule has another content by now.")
    content = rule.checked(str(a.input["newRuleContent"]), "InvalidApprovalRuleContent")
    one |= {"content": content, "sha": rule.sha(content), "modified": a.now, "by": a.caller.arn}
    _told(a, tx, row, one, "Updated", "updated an approval rule of the pull request")
    return {"approvalRule": rule.shown(one)}


@RULE.operation("DeletePullRequestApprovalRule", asks=of_pull_request("DeletePullRequestApprovalRule"))
def delete(a: Authorised, tx: Transaction) -> Output:
    row = open_one(a, tx)
    one = _held_rule(a, row)
    if one.get("origin"):
        raise refused("CannotDeleteApprovalRuleFromTemplate", "The rule comes from a template; override it instead.")
    row.doc["rules"].remove(one)
    _told(a, tx, row, one, "Deleted", "deleted an approval rule of the pull request")
    return {"approvalRuleId": one["id"]}
