"""Templates of approval rules: what pull requests of the repositories that they are associated with begin with."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Output, anything, pages
from bastide.kernel.happened import tell
from bastide.services.codecommit import rule
from bastide.services.codecommit.noun import TEMPLATE, arn_of, asks, by_id, find, named, refused, rows_of
from bastide.services.codecommit.rule import OF_REPOSITORY, OF_TEMPLATE
from bastide.store import Row, Transaction, View

_MOST: Final = 1000
_MOST_OF_REPOSITORY: Final = 25
_MOST_AT_ONCE: Final = 100


def _asks(action: str) -> list[Ask]:
    return [Ask(f"codecommit:{action}", anything)]


def _name(given: Any) -> str:
    name = str(given)
    if not rule.NAME.fullmatch(name):
        raise refused("InvalidApprovalRuleTemplateName", "The name of a template has 1 to 100 characters.")
    return name


def _found(a: Authorised, view: View, member: str = "approvalRuleTemplateName") -> Row:
    name = _name(a.input[member])
    row = TEMPLATE.get(view, a.account, a.region, name)
    if row is None:
        raise refused("ApprovalRuleTemplateDoesNotExist", f"There is no approval rule template {name}")
    return row


def _shown(row: Row) -> Output:
    found = {
        "approvalRuleTemplateId": row.doc["id"], "approvalRuleTemplateName": row.name,
        "approvalRuleTemplateDescription": row.doc.get("description"),
        "approvalRuleTemplateContent": row.doc["content"], "ruleContentSha256": rule.sha(row.doc["content"]),
        "lastModifiedDate": row.doc["modified"], "creationDate": row.doc["created"], "lastModifiedUser": row.doc["by"],
    }  # fmt: skip
    return {"approvalRuleTemplate": {key: value for key, value in found.items() if value is not None}}


def _description(a: Authorised) -> str | None:
    text = a.input.get("approvalRuleTemplateDescription")
    if text is not None and len(str(text)) > 1000:
        raise refused("InvalidApprovalRuleTemplateDescription", "A description has 1000 characters at most.")
    return None if text is None else str(text)


def _tell(a: Authorised, tx: Transaction, row: Row, event: str, repositories: Mapping[str, str] | None = None) -> None:
    detail: dict[str, Any] = {
        "event": event, "approvalRuleTemplateId": row.doc["id"], "approvalRuleTemplateName": row.name,
        "approvalRuleTemplateContentSha256": rule.sha(row.doc["content"]), "callerUserArn": a.caller.arn,
        "author": row.doc["author"],
    }  # fmt: skip
    if repositories:
        detail["repositories"] = dict(repositories)
    tell(
        tx, account=row.account, region=row.region, source="aws.codecommit",
        detail_type="CodeCommit Approval Rule Template Change", resources=[], detail=detail,
    )  # fmt: skip


@TEMPLATE.operation("CreateApprovalRuleTemplate", asks=_asks("CreateApprovalRuleTemplate"))
def create(a: Authorised, tx: Transaction) -> Output:
    name = _name(a.input["approvalRuleTemplateName"])
    if TEMPLATE.get(tx, a.account, a.region, name) is not None:
        raise refused("ApprovalRuleTemplateNameAlreadyExists", f"There is an approval rule template {name}")
    if tx.count(TEMPLATE.key, a.account, a.region, before="\U0010ffff", limit=_MOST) >= _MOST:
        raise refused("NumberOfRuleTemplatesExceeded", f"An account has {_MOST} templates at most.")
    text = str(a.input["approvalRuleTemplateContent"])
    doc = {
        "id": str(uuid.uuid4()), "content": rule.checked(text, "InvalidApprovalRuleTemplateContent", template=True),
        "description": _description(a), "created": a.now, "modified": a.now, "by": a.caller.arn, "author": a.caller.arn,
    }  # fmt: skip
    row = TEMPLATE.create(a, tx, name, doc)
    _tell(a, tx, row, "approvalRuleTemplateCreated")
    return _shown(row)


@TEMPLATE.reads("GetApprovalRuleTemplate", asks=_asks("GetApprovalRuleTemplate"))
def get(a: Authorised, view: View) -> Output:
    return _shown(_found(a, view))


def _paged(a: Authorised, names: list[str], member: str) -> Output:
    limit = min(int(a.input.get("maxResults") or _MOST_AT_ONCE), _MOST_AT_ONCE)
    after = pages.position(a, a.input.get("nextToken"), code="InvalidContinuationTokenException")
    names = sorted(one for one in names if after is None or one > after)
    token = pages.seal(a, names[limit - 1]) if len(names) > limit else None
    return {member: names[:limit], "nextToken": token}


@TEMPLATE.reads("ListApprovalRuleTemplates", asks=_asks("ListApprovalRuleTemplates"))
def listed(a: Authorised, view: View) -> Output:
    return _paged(
        a, [row.name for row in rows_of(view, TEMPLATE.key, a.account, a.region, "")], "approvalRuleTemplateNames"
    )


def _changed(a: Authorised, tx: Transaction, row: Row) -> Output:
    row.doc |= {"modified": a.now, "by": a.caller.arn}
    TEMPLATE.change(tx, row, a.operation.name, a.request.id)
    _tell(a, tx, row, "approvalRuleTemplateUpdated")
    return _shown(row)


@TEMPLATE.operation("UpdateApprovalRuleTemplateContent", asks=_asks("UpdateApprovalRuleTemplateContent"))
def set_content(a: Authorised, tx: Transaction) -> Output:
    row = _found(a, tx)
    if a.input.get("existingRuleContentSha256") not in (None, rule.sha(row.doc["content"])):
        raise refused("InvalidRuleContentSha256", "The template has another content by now.")
    row.doc["content"] = rule.checked(
        str(a.input["newRuleContent"]), "InvalidApprovalRuleTemplateContent", template=True
    )
    return _changed(a, tx, row)


@TEMPLATE.operation("UpdateApprovalRuleTemplateDescription", asks=_asks("UpdateApprovalRuleTemplateDescription"))
def set_description(a: Authorised, tx: Transaction) -> Output:
    row = _found(a, tx)
    row.doc["description"] = _description(a)
    return _changed(a, tx, row)


@TEMPLATE.operation("UpdateApprovalRuleTemplateName", asks=_asks("UpdateApprovalRuleTemplateName"))
def rename(a: Authorised, tx: Transaction) -> Output:
    row = _found(a, tx, "oldApprovalRuleTemplateName")
    name = _name(a.input["newApprovalRuleTemplateName"])
    if TEMPLATE.get(tx, a.account, a.region, name) is not None:
        raise refused("ApprovalRuleTemplateNameAlreadyExists", f"There is an approval rule template {name}")
    TEMPLATE.remove(tx, row, a.operation.name, a.request.id)
    made = TEMPLATE.create(a, tx, name, {**row.doc, "modified": a.now, "by": a.caller.arn})
    for held in rows_of(tx, OF_TEMPLATE, a.account, a.region, f"{row.doc['id']}/"):
        id = held.name.partition("/")[2]
        link = tx.get(OF_REPOSITORY, a.account, a.region, f"{id}/{row.doc['id']}")
        if link is not None:
            link.doc["name"] = name
            tx.update(link, keep=False)
    _tell(a, tx, made, "approvalRuleTemplateUpdated")
    return _shown(made)


@TEMPLATE.operation("DeleteApprovalRuleTemplate", asks=_asks("DeleteApprovalRuleTemplate"))
def delete(a: Authorised, tx: Transaction) -> Output:
    row = _found(a, tx)
    if tx.scan(OF_TEMPLATE, a.account, a.region, prefix=f"{row.doc['id']}/", limit=1):
        raise refused("ApprovalRuleTemplateInUse", "The template is associated with repositories.")
    TEMPLATE.remove(tx, row, a.operation.name, a.request.id)
    _tell(a, tx, row, "approvalRuleTemplateDeleted")
    return {"approvalRuleTemplateId": row.doc["id"]}


# -- repositories --------------------------------------------------------------------------------------------------------


def _associate(a: Authorised, tx: Transaction, template: Row, repository: Row) -> None:
    id, other = template.doc["id"], repository.doc["id"]
    if tx.get(OF_TEMPLATE, a.account, a.region, f"{id}/{other}") is not None:
        return
    held = tx.scan(OF_REPOSITORY, a.account, a.region, prefix=f"{other}/", limit=_MOST_OF_REPOSITORY)
    if len(held) >= _MOST_OF_REPOSITORY:
        raise refused(
            "MaximumRuleTemplatesAssociatedWithRepository", f"A repository has {_MOST_OF_REPOSITORY} templates at most."
        )
    tx.insert(Row(OF_TEMPLATE, a.account, a.region, f"{id}/{other}", {}), keep=False)
    tx.insert(Row(OF_REPOSITORY, a.account, a.region, f"{other}/{id}", {"name": template.name}), keep=False)
    _tell(a, tx, template, "approvalRuleTemplateAssociatedWithRepository", {repository.name: arn_of(repository)})


def _part(a: Authorised, tx: Transaction, template: Row, repository: Row) -> None:
    id, other = template.doc["id"], repository.doc["id"]
    for kind, name in ((OF_TEMPLATE, f"{id}/{other}"), (OF_REPOSITORY, f"{other}/{id}")):
        held = tx.get(kind, a.account, a.region, name)
        if held is not None:
            tx.delete(held, keep=False)
    _tell(a, tx, template, "approvalRuleTemplateDisassociatedWithRepository", {repository.name: arn_of(repository)})


@TEMPLATE.operation(
    "AssociateApprovalRuleTemplateWithRepository", asks=asks("AssociateApprovalRuleTemplateWithRepository")
)
def associate(a: Authorised, tx: Transaction) -> Output:
    _associate(a, tx, _found(a, tx), named(a, tx))
    return {}


@TEMPLATE.operation(
    "DisassociateApprovalRuleTemplateFromRepository", asks=asks("DisassociateApprovalRuleTemplateFromRepository")
)
def disassociate(a: Authorised, tx: Transaction) -> Output:
    _part(a, tx, _found(a, tx), named(a, tx))
    return {}


def _each(a: Authorised, tx: Transaction, work: Any, member: str) -> Output:
    template, names = _found(a, tx), [str(one) for one in a.input["repositoryNames"]]
    if not names or len(names) > _MOST_AT_ONCE:
        name = "MaximumRepositoryNamesExceeded" if names else "RepositoryNamesRequired"
        raise refused(name, f"1 to {_MOST_AT_ONCE} repositories are named.")
    fine, errors = [], []
    for name in names:
        try:
            work(a, tx, template, find(tx, a.account, a.region, name))
            fine.append(name)
        except Refused as error:
            errors.append({"repositoryName": name, "errorCode": error.code, "errorMessage": error.message})
    return {member: fine, "errors": errors}


@TEMPLATE.operation(
    "BatchAssociateApprovalRuleTemplateWithRepositories",
    asks=asks("BatchAssociateApprovalRuleTemplateWithRepositories", "repositoryNames"),
)
def associate_several(a: Authorised, tx: Transaction) -> Output:
    return _each(a, tx, _associate, "associatedRepositoryNames")


@TEMPLATE.operation(
    "BatchDisassociateApprovalRuleTemplateFromRepositories",
    asks=asks("BatchDisassociateApprovalRuleTemplateFromRepositories", "repositoryNames"),
)
def disassociate_several(a: Authorised, tx: Transaction) -> Output:
    return _each(a, tx, _part, "disassociatedRepositoryNames")


@TEMPLATE.reads(
    "ListAssociatedApprovalRuleTemplatesForRepository", asks=asks("ListAssociatedApprovalRuleTemplatesForRepository")
)
def of_repository(a: Authorised, view: View) -> Output:
    held = rows_of(view, OF_REPOSITORY, a.account, a.region, f"{named(a, view).doc['id']}/")
    return _paged(a, [one.doc["name"] for one in held], "approvalRuleTemplateNames")


@TEMPLATE.reads("ListRepositoriesForApprovalRuleTemplate", asks=_asks("ListRepositoriesForApprovalRuleTemplate"))
def of_template(a: Authorised, view: View) -> Output:
    held = rows_of(view, OF_TEMPLATE, a.account, a.region, f"{_found(a, view).doc['id']}/")
    rows = [by_id(view, a.account, a.region, one.name.partition("/")[2]) for one in held]
    return _paged(a, [one.name for one in rows if one is not None], "repositoryNames")
