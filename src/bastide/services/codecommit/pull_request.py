"""Pull requests: rows that follow their branches, and what happened to them.

Source: AWS CodeCommit User Guide, "Working with pull requests"; API Reference, PullRequest, PullRequestEvent.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from typing import Any, Final

from bastide.domain import iso
from bastide.kernel import Ask, Authorised, Kind, Output, once, pages
from bastide.kernel.happened import tell
from bastide.services.codecommit import rule
from bastide.services.codecommit.content import opened
from bastide.services.codecommit.noun import (
    COMMENT,
    HEADS,
    PULL_REQUEST,
    REPOSITORY,
    arn_of,
    asks,
    by_id,
    find,
    named,
    of_pull_request,
    pull_request,
    reference,
    refused,
    rows_of,
)
from bastide.store import Row, Transaction, View

_OF: Final = "codecommit:PullRequestOf"
"""Rows ``REPOSITORY-ID/OPEN|CLOSED/NUMBER``."""
EVENT: Final = Kind("PullRequestEvent", service="codecommit", arn="pull-request-event/{}", tags=False, history=False)
"""Rows ``NUMBER/COUNT``."""
COMMENTED: Final = "codecommit:Commented"
"""Rows ``REPOSITORY-ID/NUMBER or COMMIT/TIME/COMMENT``."""
_NUMBER: Final = "codecommit:PullRequestNumber"
_MOST_OPEN: Final = 1000
_PAGE: Final = 100
_KEPT_REVISIONS: Final = 50


def current(a: Authorised, view: View) -> Row:
    """The pull request of the call; raises PullRequestDoesNotExistException."""
    id = str(a.input["pullRequestId"])
    if not id.isascii() or not id.isdigit():
        raise refused("InvalidPullRequestId", "The ID of a pull request is a number.")
    row = pull_request(view, a.account, a.region, id)
    if row is None:
        raise refused("PullRequestDoesNotExist", f"There is no pull request {id}")
    return row


def open_one(a: Authorised, view: View) -> Row:
    """The same; raises PullRequestAlreadyClosedException."""
    row = current(a, view)
    if row.doc["status"] != "OPEN":
        raise refused("PullRequestAlreadyClosed", f"Pull request {int(row.name)} is closed.")
    return row


def repository_of(view: View, row: Row) -> Row:
    """The repository that a pull request is in."""
    found = by_id(view, row.account, row.region, row.doc["repository"])
    if found is None:
        raise refused("RepositoryDoesNotExist", "The pull request's repository does not exist")
    return found


def shown(view: View, row: Row) -> Output:
    """A pull request as AWS shows it."""
    doc = row.doc
    merged = doc.get("merged")
    target = {
        "repositoryName": repository_of(view, row).name, "sourceReference": doc["source"],
        "destinationReference": doc["destination"], "destinationCommit": doc["destinationCommit"],
        "sourceCommit": doc["sourceCommit"], "mergeBase": doc.get("base"),
        "mergeMetadata": merged or {"isMerged": False},
    }  # fmt: skip
    found = {
        "pullRequestId": str(int(row.name)), "title": doc["title"], "description": doc.get("description"),
        "lastActivityDate": doc["active"], "creationDate": doc["created"], "pullRequestStatus": doc["status"],
        "authorArn": doc["author"]["arn"], "pullRequestTargets": [{k: v for k, v in target.items() if v is not None}],
        "clientRequestToken": doc.get("token"), "revisionId": doc["revision"],
        "approvalRules": [rule.shown(one) for one in doc["rules"]],
    }  # fmt: skip
    return {key: value for key, value in found.items() if value is not None}


# -- what happens --------------------------------------------------------------------------------------------------------


def happened(tx: Transaction, row: Row, actor: str, type: str, **detail: Any) -> None:
    """Adds an event to the pull request's own list; the caller saves the row."""
    row.doc["events"] = row.doc.get("events", 0) + 1
    row.doc["active"] = tx.now
    doc = {"type": type, "actor": actor, "at": tx.now, **detail}
    tx.insert(Row(EVENT.key, row.account, row.region, f"{row.name}/{row.doc['events']:08d}", doc), keep=False)


def notify(a: Authorised, tx: Transaction, row: Row, event: str, words: str, **more: Any) -> None:
    """Tells EventBridge of a pull request."""
    doc, repository = row.doc, repository_of(tx, row)
    detail = {
        "event": event, "pullRequestId": str(int(row.name)), "title": doc["title"], "author": doc["author"]["arn"],
        "callerUserArn": a.caller.arn, "creationDate": iso(doc["created"]), "lastModifiedDate": iso(tx.now),
        "pullRequestStatus": doc["status"].capitalize(), "isMerged": "True" if doc.get("merged") else "False",
        "repositoryNames": [repository.name], "sourceReference": doc["source"], "sourceCommit": doc["sourceCommit"],
        "destinationReference": doc["destination"], "destinationCommit": doc["destinationCommit"],
        "revisionId": doc["revision"],
        "notificationBody": f"A pull request event occurred in the following AWS CodeCommit repository: {repository.name}. "
        f"{a.caller.arn} {words}. Event: {event}. Pull request {int(row.name)}: {doc['title']}.",
        **more,
    }  # fmt: skip
    if doc.get("description"):
        detail["description"] = doc["description"]
    tell(
        tx, account=row.account, region=row.region, source="aws.codecommit",
        detail_type="CodeCommit Pull Request State Change", resources=[arn_of(repository)], detail=detail,
    )  # fmt: skip


def notify_comment(a: Authorised, tx: Transaction, row: Row, event: str, comment: str, reply: str | None) -> None:
    """Tells EventBridge of a comment."""
    repository = repository_of(tx, row)
    detail = {
        "event": event, "pullRequestId": str(int(row.name)), "commentId": comment, "callerUserArn": a.caller.arn,
        "repositoryName": repository.name, "repositoryId": repository.doc["id"],
        "beforeCommitId": row.doc["destinationCommit"], "afterCommitId": row.doc["sourceCommit"],
        "notificationBody": f"A comment was made on pull request {int(row.name)} of {repository.name}.",
    }  # fmt: skip
    if reply:
        detail["inReplyTo"] = reply
    tell(
        tx, account=row.account, region=row.region, source="aws.codecommit",
        detail_type="CodeCommit Comment on Pull Request", resources=[arn_of(repository)], detail=detail,
    )  # fmt: skip


def _open(view: View, repository: Row) -> Iterator[Row]:
    for held in rows_of(view, _OF, repository.account, repository.region, f"{repository.doc['id']}/OPEN/"):
        row = view.get(PULL_REQUEST.key, held.account, held.region, held.name.rpartition("/")[2])
        if row is not None:
            yield row


def followed(a: Authorised, tx: Transaction, repository: Row, moved: Mapping[str, tuple[str, str]]) -> None:
    """References moved (by name: from where, and where to): open pull requests from them have a new revision, which nobody
    has approved; those into them know where they are. Each is looked at once, however many references moved."""
    for row in _open(tx, repository):
        before, after = moved.get(row.doc["source"], ("", ""))
        _, destination = moved.get(row.doc["destination"], ("", ""))
        if after:
            row.doc |= {"sourceCommit": after, "revision": _revision()}
            row.doc.pop("base", None)
            row.doc["revisions"] = [*row.doc["revisions"], row.doc["revision"]][-_KEPT_REVISIONS:]
            happened(
                tx, row, a.caller.arn, "PULL_REQUEST_SOURCE_REFERENCE_UPDATED",
                pullRequestSourceReferenceUpdatedEventMetadata={
                    "repositoryName": repository.name, "beforeCommitId": before, "afterCommitId": after,
                },
            )  # fmt: skip
        if destination:
            row.doc["destinationCommit"] = destination
            row.doc.pop("base", None)
        if after:
            notify(a, tx, row, "pullRequestSourceBranchUpdated", "updated the source branch")
        if after or destination:
            PULL_REQUEST.change(tx, row, a.operation.name, a.request.id)


def closed(a: Authorised, tx: Transaction, row: Row, merged: Mapping[str, Any] | None) -> None:
    """Closes a pull request, merged or not, and saves it."""
    row.doc["status"] = "CLOSED"
    _index(tx, row, "OPEN", "CLOSED")
    if merged is not None:
        row.doc["merged"] = dict(merged)
        happened(
            tx, row, a.caller.arn, "PULL_REQUEST_MERGE_STATE_CHANGED",
            pullRequestMergedStateChangedEventMetadata={
                "repositoryName": repository_of(tx, row).name, "destinationReference": row.doc["destination"],
                "mergeMetadata": dict(merged),
            },
        )  # fmt: skip
        notify(
            a, tx, row, "pullRequestMergeStatusUpdated", "merged the pull request", mergeOption=merged["mergeOption"]
        )
    happened(
        tx, row, a.caller.arn, "PULL_REQUEST_STATUS_CHANGED",
        pullRequestStatusChangedEventMetadata={"pullRequestStatus": "CLOSED"},
    )  # fmt: skip
    if merged is None:
        notify(a, tx, row, "pullRequestStatusChanged", "closed the pull request")
    PULL_REQUEST.change(tx, row, a.operation.name, a.request.id)


def _index(tx: Transaction, row: Row, before: str, after: str) -> None:
    held = tx.get(_OF, row.account, row.region, f"{row.doc['repository']}/{before}/{row.name}")
    if held is not None:
        tx.delete(held, keep=False)
    tx.insert(Row(_OF, row.account, row.region, f"{row.doc['repository']}/{after}/{row.name}", {}), keep=False)


class _Rows(Kind):
    """Rows that are no noun, taken away like one."""


_INDEX: Final = _Rows("PullRequestOf", service="codecommit", arn="pull-request-of/{}", tags=False, history=False)


def of_repository(tx: Transaction, repository: Row) -> list[tuple[Kind, Row]]:
    """All pull requests of a repository, their events and what names them."""
    found: list[tuple[Kind, Row]] = []
    for held in rows_of(tx, _OF, repository.account, repository.region, f"{repository.doc['id']}/"):
        found.append((_INDEX, held))
        row = tx.get(PULL_REQUEST.key, held.account, held.region, held.name.rpartition("/")[2])
        if row is not None:
            found.append((PULL_REQUEST, row))
            events = rows_of(tx, EVENT.key, row.account, row.region, f"{row.name}/")
            found += [(EVENT, one) for one in events]
    for held in rows_of(tx, COMMENTED, repository.account, repository.region, f"{repository.doc['id']}/"):
        found.append((_INDEX, held))
        comment = COMMENT.get(tx, held.account, held.region, held.doc["comment"])
        if comment is not None:
            found.append((COMMENT, comment))
    return found


def _revision() -> str:
    return hashlib.sha256(secrets.token_bytes(32)).hexdigest()


# -- making --------------------------------------------------------------------------------------------------------------


def _target(a: Authorised, view: View) -> tuple[Row, str, str, str, str]:
    """The repository, both references and their commits."""
    targets = a.input["targets"]
    if len(targets) != 1:
        raise refused("InvalidTargets" if targets else "TargetsRequired", "A pull request has one target.")
    row = find(view, a.account, a.region, str(targets[0]["repositoryName"]))
    names, commits = [], []
    given = (targets[0]["sourceReference"], targets[0].get("destinationReference") or row.doc.get("default"))
    for one in given:
        name = str(one or "")
        if name.startswith("refs/") and not name.startswith(HEADS):
            raise refused("ReferenceTypeNotSupported", "Pull requests are between branches.")
        name = HEADS + name.removeprefix(HEADS)
        held = reference(view, row, name)
        if held is None:
            raise refused("ReferenceDoesNotExist", f"There is no branch {name.removeprefix(HEADS)[:100]}")
        names.append(name)
        commits.append(str(held.doc["object"]))
    if names[0] == names[1]:
        raise refused("SourceAndDestinationAreSame", "The source and the destination are the same branch.")
    return row, names[0], names[1], commits[0], commits[1]


async def _base(a: Authorised) -> Any:
    with a.calls.store.reading() as view:
        row, _, _, source, destination = _target(a, view)
    async with opened(a, lambda view: find(view, a.account, a.region, row.name)) as here:
        return source, destination, await here.copy.base(source, destination), list(a.events)


def _repository_asked(asked: Any) -> list[str]:
    names = [str(one.get("repositoryName")) for one in asked.input.get("targets") or ()]
    return [REPOSITORY.arn(asked.call.account, asked.call.region, name) for name in names] or ["*"]


def _create(a: Authorised, tx: Transaction) -> Output:
    row, source, destination, source_commit, destination_commit = _target(a, tx)
    old_source, old_destination, base, events = a.staged
    a.events += events
    if (old_source, old_destination) != (source_commit, destination_commit):
        raise refused("ConcurrentReferenceUpdate", "A branch was changed at the same time. Please try again.")
    title, description = _text(a, "title", 150, "InvalidTitle"), _text(a, "description", 10_240, "InvalidDescription")
    if not title:
        raise refused("TitleRequired", "A title is required.")
    if sum(1 for _ in _open(tx, row)) >= _MOST_OPEN:
        raise refused("MaximumOpenPullRequestsExceeded", f"A repository has {_MOST_OPEN} open pull requests at most.")
    number = _next(a, tx)
    revision = _revision()
    session = a.caller.session
    doc: dict[str, Any] = {
        "repository": row.doc["id"], "title": title, "status": "OPEN", "source": source, "destination": destination,
        "sourceCommit": source_commit, "destinationCommit": destination_commit, "revision": revision,
        "revisions": [revision], "created": a.now, "active": a.now, "approvals": {}, "overrides": {},
        "author": {
            "arn": a.caller.arn, "id": a.caller.user_id,
            "source": session.source_identity if session is not None else "",
            "origin": list(session.origin[:1]) if session is not None else [],
        },
        "rules": rule.from_templates(tx, row, destination, a.now, a.caller.arn),
    }  # fmt: skip
    if description:
        doc["description"] = description
    if base:
        doc["base"] = base
    if a.input.get("clientRequestToken"):
        doc["token"] = a.input["clientRequestToken"]
    made = PULL_REQUEST.create(a, tx, f"{number:012d}", doc)
    _index(tx, made, "NONE", "OPEN")
    created = {"repositoryName": row.name, "sourceCommitId": source_commit, "destinationCommitId": destination_commit}
    if base:
        created["mergeBase"] = base
    happened(tx, made, a.caller.arn, "PULL_REQUEST_CREATED", pullRequestCreatedEventMetadata=created)
    for one in made.doc["rules"]:
        happened(tx, made, a.caller.arn, "PULL_REQUEST_APPROVAL_RULE_CREATED", approvalRuleEventMetadata=rule.told(one))
    PULL_REQUEST.change(tx, made, a.operation.name, a.request.id)
    notify(a, tx, made, "pullRequestCreated", "created the pull request")
    a.touched.append(arn_of(row))
    return {"pullRequest": shown(tx, made)}


def _next(a: Authorised, tx: Transaction) -> int:
    held = tx.get(_NUMBER, a.account, a.region, "next")
    if held is None:
        tx.insert(Row(_NUMBER, a.account, a.region, "next", {"number": 1}), keep=False)
        return 1
    held.doc["number"] += 1
    tx.update(held, keep=False)
    return int(held.doc["number"])


def _text(a: Authorised, member: str, most: int, wrong: str) -> str:
    text = str(a.input.get(member) or "")
    if len(text) > most:
        raise refused(wrong, f"{member} has {most} characters at most.")
    return text


@PULL_REQUEST.operation(
    "CreatePullRequest",
    asks=[Ask("codecommit:CreatePullRequest", _repository_asked)],
    before=_base,
)
def create(a: Authorised, tx: Transaction) -> Output:
    return once(a, tx, str(a.input.get("clientRequestToken") or ""), lambda: _create(a, tx))


# -- showing -------------------------------------------------------------------------------------------------------------


@PULL_REQUEST.reads("GetPullRequest", asks=of_pull_request("GetPullRequest"))
def get(a: Authorised, view: View) -> Output:
    return {"pullRequest": shown(view, current(a, view))}


@PULL_REQUEST.reads("ListPullRequests", asks=asks("ListPullRequests"))
def listed(a: Authorised, view: View) -> Output:
    row = named(a, view)
    limit = int(a.input.get("maxResults") or _PAGE)
    if not 1 <= limit <= _PAGE:
        raise refused("InvalidMaxResults", f"maxResults is a number from 1 to {_PAGE}.")
    start = int(pages.position(a, a.input.get("nextToken"), code="InvalidContinuationTokenException") or 10**12)
    wanted = str(a.input.get("pullRequestStatus") or "")
    held = rows_of(view, _OF, row.account, row.region, f"{row.doc['id']}/{wanted + '/' if wanted else ''}")
    numbers = sorted((int(one.name.rpartition("/")[2]) for one in held), reverse=True)
    found: list[str] = []
    for number in (one for one in numbers if one < start):
        if len(found) == limit:
            return {"pullRequestIds": found, "nextToken": pages.seal(a, int(found[-1]))}
        author = a.input.get("authorArn")
        one = view.get(PULL_REQUEST.key, row.account, row.region, f"{number:012d}") if author else None
        if author and (one is None or one.doc["author"]["arn"] != author):
            continue
        found.append(str(number))
    return {"pullRequestIds": found}


@PULL_REQUEST.reads("DescribePullRequestEvents", asks=of_pull_request("DescribePullRequestEvents"))
def events(a: Authorised, view: View) -> Output:
    row = current(a, view)
    limit = int(a.input.get("maxResults") or _PAGE)
    if not 1 <= limit <= _PAGE:
        raise refused("InvalidMaxResults", f"maxResults is a number from 1 to {_PAGE}.")
    after = pages.position(a, a.input.get("nextToken"), code="InvalidContinuationTokenException")
    found: list[Output] = []
    while True:
        rows = view.scan(EVENT.key, row.account, row.region, prefix=f"{row.name}/", after=after, limit=limit)
        for one in rows:
            doc = dict(one.doc)
            kind, actor, at = doc.pop("type"), doc.pop("actor"), doc.pop("at")
            after = one.name
            if a.input.get("pullRequestEventType") not in (None, kind) or a.input.get("actorArn") not in (None, actor):
                continue
            told = {"pullRequestId": str(int(row.name)), "eventDate": at, "pullRequestEventType": kind}
            found.append({**told, "actorArn": actor, **doc})
            if len(found) == limit:
                return {"pullRequestEvents": found, "nextToken": pages.seal(a, after)}
        if len(rows) < limit:
            return {"pullRequestEvents": found}


# -- changing ------------------------------------------------------------------------------------------------------------


def _set(a: Authorised, tx: Transaction, member: str, most: int, wrong: str) -> Output:
    row = open_one(a, tx)
    row.doc[member] = _text(a, member, most, wrong)
    row.doc["active"] = a.now
    PULL_REQUEST.change(tx, row, a.operation.name, a.request.id)
    return {"pullRequest": shown(tx, row)}


@PULL_REQUEST.operation("UpdatePullRequestTitle", asks=of_pull_request("UpdatePullRequestTitle"))
def set_title(a: Authorised, tx: Transaction) -> Output:
    if not a.input["title"]:
        raise refused("TitleRequired", "A title is required.")
    return _set(a, tx, "title", 150, "InvalidTitle")


@PULL_REQUEST.operation("UpdatePullRequestDescription", asks=of_pull_request("UpdatePullRequestDescription"))
def set_description(a: Authorised, tx: Transaction) -> Output:
    return _set(a, tx, "description", 10_240, "InvalidDescription")


@PULL_REQUEST.operation("UpdatePullRequestStatus", asks=of_pull_request("UpdatePullRequestStatus"))
def set_status(a: Authorised, tx: Transaction) -> Output:
    row = current(a, tx)
    if a.input["pullRequestStatus"] != "CLOSED" or row.doc["status"] == "CLOSED":
        raise refused("InvalidPullRequestStatusUpdate", "A pull request can be closed, once, and not opened again.")
    closed(a, tx, row, None)
    return {"pullRequest": shown(tx, row)}
