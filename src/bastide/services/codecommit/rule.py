"""Approval rules: who has to approve a pull request before it can be merged.

Source: AWS CodeCommit User Guide, "Create an approval rule for a pull request", "Approval rule templates": the content's
grammar, and how members of a pool are named.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping
from typing import Any, Final

import orjson

from bastide.domain import Arn, Instant
from bastide.kernel import Output
from bastide.policy.matching import wildcards
from bastide.services.codecommit.noun import refused
from bastide.store import Row, View

OF_REPOSITORY: Final = "codecommit:TemplateOfRepository"
"""Rows ``REPOSITORY-ID/TEMPLATE`` with the template's name."""
OF_TEMPLATE: Final = "codecommit:RepositoryOfTemplate"
"""Rows ``TEMPLATE/REPOSITORY-ID``."""
MOST: Final = 30
_VERSION: Final = "2018-11-08"
_LONGEST: Final = 3000
_MOST_APPROVALS: Final = 99
_SHORT: Final = re.compile(r"CodeCommitApprovers:(?P<account>[0-9]{12}):(?P<name>[\w+=,.@/*-]{1,200})", re.ASCII)
_LONG: Final = re.compile(r"arn:aws:(?:iam|sts)::[0-9]{12}:[\w+=,.@/*-]{1,400}", re.ASCII)
NAME: Final = re.compile(r"[^\x00-\x1f\x7f]{1,100}")


def checked(text: str, wrong: str, *, template: bool = False) -> str:
    """An approval rule's content; raises the exception `wrong`."""

    def no(why: str) -> Exception:
        return refused(wrong, f"The content of the approval rule is not valid: {why}")

    if len(text) > _LONGEST:
        raise no(f"it has more than {_LONGEST} characters.")
    try:
        content = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise no("it is no JSON.") from None
    known = {"Version", "Statements", *(("DestinationReferences",) if template else ())}
    if not isinstance(content, dict) or set(content) - known or content.get("Version") != _VERSION:
        raise no(f"it is an object of {', '.join(sorted(known))}, and Version is {_VERSION}.")
    references = content.get("DestinationReferences", [])
    if not isinstance(references, list) or not all(isinstance(one, str) for one in references):
        raise no("DestinationReferences is a list of references.")
    statements = content.get("Statements")
    if not isinstance(statements, list) or len(statements) != 1:
        raise no("Statements is a list of one.")
    one = statements[0]
    if not isinstance(one, dict) or set(one) - {"Type", "NumberOfApprovalsNeeded", "ApprovalPoolMembers"}:
        raise no("a statement has Type, NumberOfApprovalsNeeded and ApprovalPoolMembers.")
    number = one.get("NumberOfApprovalsNeeded")
    if one.get("Type") != "Approvers" or type(number) is not int or not 1 <= number <= _MOST_APPROVALS:
        raise no(f"Type is Approvers, NumberOfApprovalsNeeded a number from 1 to {_MOST_APPROVALS}.")
    members = one.get("ApprovalPoolMembers", [])
    if not isinstance(members, list) or len(members) > 100:
        raise no("ApprovalPoolMembers is a list of a hundred members at most.")
    for member in members:
        if not isinstance(member, str) or not (_SHORT.fullmatch(member) or _LONG.fullmatch(member)):
            raise no("a member of the pool is an ARN of IAM or STS, or CodeCommitApprovers:ACCOUNT:NAME.")
    return text


def made(name: str, content: str, by: str, at: Instant, *, origin: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A rule as a pull request keeps it."""
    found: dict[str, Any] = {
        "id": str(uuid.uuid4()), "name": name, "content": content, "sha": sha(content), "created": at, "modified": at,
        "by": by,
    }  # fmt: skip
    if origin is not None:
        found["origin"] = dict(origin)
    return found


def sha(content: str) -> str:
    """The digest by which a content is told from a later one."""
    return hashlib.sha256(content.encode()).hexdigest()


def shown(one: Mapping[str, Any]) -> Output:
    """A rule as AWS shows it."""
    found = {
        "approvalRuleId": one["id"], "approvalRuleName": one["name"], "approvalRuleContent": one["content"],
        "ruleContentSha256": one["sha"], "lastModifiedDate": one["modified"], "creationDate": one["created"],
        "lastModifiedUser": one["by"], "originApprovalRuleTemplate": one.get("origin"),
    }  # fmt: skip
    return {key: value for key, value in found.items() if value is not None}


def told(one: Mapping[str, Any]) -> dict[str, str]:
    """What a pull request's event says of a rule."""
    return {"approvalRuleName": one["name"], "approvalRuleId": one["id"], "approvalRuleContent": one["content"]}


def from_templates(view: View, repository: Row, destination: str, at: Instant, by: str) -> list[dict[str, Any]]:
    """The rules that a new pull request gets from the templates of its repository."""
    found = []
    prefix = f"{repository.doc['id']}/"
    for held in view.scan(OF_REPOSITORY, repository.account, repository.region, prefix=prefix, limit=100):
        template = view.get("codecommit:ApprovalRuleTemplate", repository.account, repository.region, held.doc["name"])
        if template is None:
            continue
        content = orjson.loads(template.doc["content"])
        references = content.pop("DestinationReferences", [])
        if references and destination not in references:
            continue
        origin = {"approvalRuleTemplateId": template.doc["id"], "approvalRuleTemplateName": template.name}
        found.append(made(template.name, orjson.dumps(content).decode(), by, at, origin=origin))
    return found


def associations(view: View, repository: Row) -> list[tuple[str, str]]:
    """Kinds and names of the rows that associate a repository with templates."""
    id = repository.doc["id"]
    held = view.scan(OF_REPOSITORY, repository.account, repository.region, prefix=f"{id}/", limit=100)
    templates = [one.name.partition("/")[2] for one in held]
    return [pair for one in templates for pair in ((OF_REPOSITORY, f"{id}/{one}"), (OF_TEMPLATE, f"{one}/{id}"))]


def satisfied(content: str, approvers: Mapping[str, str]) -> bool:
    """Whether enough of those who approved are in the rule's pool; without a pool everybody is. approvers: their ARNs,
    and the person behind each, who counts once in however many sessions."""
    statement = orjson.loads(content)["Statements"][0]
    members = statement.get("ApprovalPoolMembers") or []
    fitting = {
        person for one, person in approvers.items() if not members or any(_meant(member, one) for member in members)
    }
    return len(fitting) >= int(statement["NumberOfApprovalsNeeded"])


def _meant(member: str, approver: str) -> bool:
    """Whether a member of a pool means an approver. By the short form users and federated users are meant by their names,
    sessions by ``assumed-role/ROLE/SESSION``."""
    short = _SHORT.fullmatch(member)
    if short is None:
        return wildcards(member)(approver)
    arn = Arn.parse(approver)
    name = arn.resource
    if arn.type in ("user", "federated-user"):
        name = arn.resource.rpartition("/")[2]
    return arn.account == short["account"] and wildcards(short["name"])(name)
