"""Applications, their revisions, and tags.

Source: CodeDeploy API Reference, "CreateApplication", "RegisterApplicationRevision", "TagResource".
"""

from __future__ import annotations

import uuid
from typing import Any

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Kind, Output, anything, member
from bastide.services.codedeploy.appspec import digest, located
from bastide.services.codedeploy.noun import (
    APPLICATION,
    GROUP,
    REVISION,
    application,
    ask,
    checked_name,
    invalid,
    listed,
    named,
    platform,
    tags_given,
)
from bastide.store import Row, Transaction, View

_MOST: int = 1000


def shown(row: Row) -> Output:
    """An application."""
    return {
        "applicationId": row.doc["id"], "applicationName": row.name, "createTime": row.created, "linkedToGitHub": False,
        "computePlatform": row.doc["platform"],
    }  # fmt: skip


@APPLICATION.operation("CreateApplication", asks=ask("CreateApplication", named(APPLICATION, "applicationName")))
def create(a: Authorised, tx: Transaction) -> Output:
    name = checked_name(a.input.get("applicationName"), "Application", "applicationName")
    platform(a.input.get("computePlatform"))
    if len(tx.scan(APPLICATION.key, a.account, a.region, limit=_MOST)) == _MOST:
        raise invalid("ApplicationLimitExceeded", f"An account has at most {_MOST} applications.")
    doc = {"id": str(uuid.uuid4()), "platform": a.input["computePlatform"]}
    APPLICATION.create(a, tx, name, doc, tags=tags_given(a.input.get("tags")))
    return {"applicationId": doc["id"]}


@APPLICATION.reads("GetApplication", asks=ask("GetApplication", named(APPLICATION, "applicationName")))
def get(a: Authorised, view: View) -> Output:
    return {"application": shown(application(a, view))}


@APPLICATION.reads("BatchGetApplications", asks=ask("BatchGetApplications", named(APPLICATION, "applicationNames")))
def batch(a: Authorised, view: View) -> Output:
    names = a.input.get("applicationNames") or ()
    if len(names) > 100:
        raise invalid("BatchLimitExceeded", "At most 100 applications at a time.")
    return {"applicationsInfo": [shown(APPLICATION.find(view, a.account, a.region, str(one))) for one in names]}


@APPLICATION.reads("ListApplications", asks=[Ask("codedeploy:ListApplications", anything)])
def list_(a: Authorised, view: View) -> Output:
    rows, token = listed(a, view, APPLICATION.key)
    return {"applications": [row.name for row in rows], **token}


@APPLICATION.operation("DeleteApplication", asks=ask("DeleteApplication", named(APPLICATION, "applicationName")))
def delete(a: Authorised, tx: Transaction) -> Output:
    """Its groups and revisions go with it; a deployment that is on its way fails, as its group is gone."""
    name = checked_name(a.input.get("applicationName"), "Application", "applicationName")
    row = APPLICATION.get(tx, a.account, a.region, name)
    if row is None:
        return {}
    while groups := tx.scan(GROUP.key, a.account, a.region, prefix=f"{name}/", limit=500):
        for one in groups:
            GROUP.remove(tx, one, a.operation.name, a.request.id)
    while revisions := tx.scan(REVISION, a.account, a.region, prefix=f"{name}/", limit=500):
        for one in revisions:
            tx.delete(one, keep=False)
    APPLICATION.remove(tx, row, a.operation.name, a.request.id)
    return {}


# -- revisions -----------------------------------------------------------------------------------------------------------


def register(tx: Transaction, where: Row, revision: dict[str, Any], *, description: str = "", used: str = "") -> Row:
    """Keeps a revision of an application; used: the group that deploys it now."""
    name = f"{where.doc.get('applicationName', where.name)}/{digest(revision)}"
    row = tx.get(REVISION, where.account, where.region, name)
    if row is None:
        doc = {"location": revision, "registered": tx.now, "groups": []}
        row = Row(REVISION, where.account, where.region, name, doc)
        tx.insert(row, keep=False)
    if description:
        row.doc["description"] = description
    if used:
        row.doc["groups"] = list(dict.fromkeys([*row.doc["groups"], used]))[-100:]
        row.doc["first"], row.doc["last"] = row.doc.get("first", tx.now), tx.now
    tx.update(row, keep=False)
    return row


def _info(row: Row) -> Output:
    doc = row.doc
    told = {
        "registerTime": doc["registered"], "deploymentGroups": doc["groups"], "description": doc.get("description"),
        "firstUsedTime": doc.get("first"), "lastUsedTime": doc.get("last"),
    }  # fmt: skip
    return {key: one for key, one in told.items() if one is not None}


_REVISIONS = named(APPLICATION, "applicationName")


@APPLICATION.operation("RegisterApplicationRevision", asks=ask("RegisterApplicationRevision", _REVISIONS))
def register_revision(a: Authorised, tx: Transaction) -> Output:
    row = application(a, tx)
    register(tx, row, located(a.input.get("revision")), description=str(a.input.get("description") or ""))
    return {}


def _revision(a: Authorised, view: View, name: str, given: Any) -> Row | None:
    return view.get(REVISION, a.account, a.region, f"{name}/{digest(located(given))}")


@APPLICATION.reads("GetApplicationRevision", asks=ask("GetApplicationRevision", _REVISIONS))
def get_revision(a: Authorised, view: View) -> Output:
    name = application(a, view).name
    row = _revision(a, view, name, a.input.get("revision"))
    if row is None:
        raise invalid("RevisionDoesNotExist", "No revision of the application is the one that was named.")
    return {"applicationName": name, "revision": row.doc["location"], "revisionInfo": _info(row)}


@APPLICATION.reads("BatchGetApplicationRevisions", asks=ask("BatchGetApplicationRevisions", _REVISIONS))
def batch_revisions(a: Authorised, view: View) -> Output:
    name, given = application(a, view).name, a.input.get("revisions") or ()
    if len(given) > 25:
        raise invalid("BatchLimitExceeded", "At most 25 revisions at a time.")
    rows = [one for one in (_revision(a, view, name, each) for each in given) if one is not None]
    return {
        "applicationName": name,
        "revisions": [{"revisionLocation": one.doc["location"], "genericRevisionInfo": _info(one)} for one in rows],
    }


@APPLICATION.reads("ListApplicationRevisions", asks=ask("ListApplicationRevisions", _REVISIONS))
def list_revisions(a: Authorised, view: View) -> Output:
    given, name = a.input, application(a, view).name
    wanted, bucket, prefix = given.get("deployed") or "ignore", given.get("s3Bucket"), given.get("s3KeyPrefix")

    def keep(row: Row) -> bool:
        where = row.doc["location"].get("s3Location") or {}
        return not (
            (wanted == "include" and not row.doc["groups"]) or (wanted == "exclude" and row.doc["groups"])
            or (bucket and where.get("bucket") != bucket)
            or (prefix and not str(where.get("key") or "").startswith(prefix))
        )  # fmt: skip

    rows = [one for one in view.scan(REVISION, a.account, a.region, prefix=f"{name}/", limit=_MOST) if keep(one)]
    times = {"registerTime": "registered", "firstUsedTime": "first", "lastUsedTime": "last"}
    by = times[given.get("sortBy") or "registerTime"]
    rows.sort(key=lambda one: one.doc.get(by) or 0, reverse=given.get("sortOrder") == "descending")
    return {"revisions": [one.doc["location"] for one in rows]}


# -- tags ----------------------------------------------------------------------------------------------------------------


def _tagged(a: Authorised, view: View) -> tuple[Kind, Row]:
    given = str(a.input.get("ResourceArn") or "")
    for kind in (APPLICATION, GROUP):
        if given.startswith(kind.arn(a.account, a.region, "")):
            row = kind.get(view, a.account, a.region, given[len(kind.arn(a.account, a.region, "")) :])
            if row is not None:
                return kind, row
    raise invalid("InvalidArn", f"{given[:300]} is not the ARN of an application or a deployment group here.")


@APPLICATION.operation("TagResource", asks=ask("TagResource", member("ResourceArn")))
def tag(a: Authorised, tx: Transaction) -> Output:
    kind, row = _tagged(a, tx)
    row.tags = {**row.tags, **tags_given(a.input.get("Tags"))}
    if len(row.tags) > 50:
        raise Refused("TagLimitExceededException", "A resource has at most 50 tags.")
    kind.change(tx, row, a.operation.name, a.request.id)
    return {}


@APPLICATION.operation("UntagResource", asks=ask("UntagResource", member("ResourceArn")))
def untag(a: Authorised, tx: Transaction) -> Output:
    kind, row = _tagged(a, tx)
    row.tags = {key: value for key, value in row.tags.items() if key not in (a.input.get("TagKeys") or ())}
    kind.change(tx, row, a.operation.name, a.request.id)
    return {}


@APPLICATION.reads("ListTagsForResource", asks=ask("ListTagsForResource", member("ResourceArn")))
def tags(a: Authorised, view: View) -> Output:
    _, row = _tagged(a, view)
    return {"Tags": [{"Key": key, "Value": value} for key, value in row.tags.items()]}
