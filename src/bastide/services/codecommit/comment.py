"""Comments on pull requests and on commits that are compared.

Source: AWS CodeCommit API Reference, PostCommentForPullRequest, Comment.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Output, once, pages
from bastide.services.codecommit.content import Opened, looking
from bastide.services.codecommit.noun import (
    COMMENT,
    arn_of,
    asks,
    by_id,
    id_of,
    named,
    of_pull_request,
    refused,
    rows_of,
)
from bastide.services.codecommit.pull_request import COMMENTED, current, notify_comment
from bastide.store import Row, Transaction, View

_LONGEST: Final = 10_240
_PAGE: Final = 500
_MOST: Final = 5000


def _of_comment(action: str, member: str = "commentId") -> list[Ask]:
    """The question of what is about a comment: its repository is asked about."""

    def about(asked: Asked) -> Iterable[str]:
        call = asked.call
        row = COMMENT.get(asked.view, call.account, call.region, str(asked.input.get(member) or ""))
        held = None if row is None else by_id(asked.view, call.account, call.region, row.doc["repository"])
        return [arn_of(held)] if held is not None else ["*"]

    return [Ask(f"codecommit:{action}", about)]


def _content(a: Authorised) -> str:
    text = str(a.input["content"])
    if not text.strip():
        raise refused("CommentContentRequired", "A comment needs a content.")
    if len(text) > _LONGEST:
        raise refused("CommentContentSizeLimitExceeded", f"A comment has {_LONGEST} characters at most.")
    return text


def _shown(row: Row) -> Output:
    doc = row.doc
    found = {
        "commentId": row.name, "content": None if doc.get("deleted") else doc["content"], "inReplyTo": doc.get("reply"),
        "creationDate": doc["created"], "lastModifiedDate": doc["modified"], "authorArn": doc["author"],
        "deleted": bool(doc.get("deleted")), "clientRequestToken": doc.get("token"), "callerReactions": [],
        "reactionCounts": {},
    }  # fmt: skip
    return {key: value for key, value in found.items() if value is not None}


def _found(a: Authorised, view: View, member: str = "commentId") -> Row:
    row = COMMENT.get(view, a.account, a.region, str(a.input[member]))
    if row is None:
        raise refused("CommentDoesNotExist", "There is no such comment.")
    if row.doc.get("deleted") and member == "commentId":
        raise refused("CommentDeleted", "The comment was deleted.")
    return row


async def _compared(a: Authorised, here: Opened) -> Any:
    """The commits that a comment is about, and what was recorded on the way; raises Refused where they are none."""
    given = a.input
    after = id_of(given["afterCommitId"], "InvalidCommitId")
    before = id_of(given["beforeCommitId"], "InvalidCommitId") if given.get("beforeCommitId") else None
    if after == before:
        raise refused("BeforeCommitIdAndAfterCommitIdAreSame", "Both commits are the same.")
    for one in (after, before):
        if one is not None:
            await here.commit(one)
    location = given.get("location")
    if location:
        path, side = str(location.get("filePath") or ""), str(location.get("relativeFileVersion") or "AFTER")
        commit = after if side == "AFTER" else before
        if not path:
            raise refused("PathRequired", "A location needs a filePath.")
        if commit is None or await here.copy.entry(commit, path.strip("/")) is None:
            raise refused("PathDoesNotExist", f"There is no {path[:200]} in that commit.")
    return before, after, list(a.events)


def _make(a: Authorised, tx: Transaction, doc: dict[str, Any]) -> Row:
    held = {"content": _content(a), "author": a.caller.arn, "created": a.now, "modified": a.now, **doc}
    if a.input.get("clientRequestToken"):
        held["token"] = a.input["clientRequestToken"]
    row = COMMENT.create(a, tx, str(uuid.uuid4()), {key: value for key, value in held.items() if value is not None})
    place = f"{held['repository']}/{held.get('pull') or held.get('after')}/"
    if len(rows_of(tx, COMMENTED, a.account, a.region, place)) >= _MOST:
        raise Refused("LimitExceededException", f"There are {_MOST} comments at most.")
    tx.insert(Row(COMMENTED, a.account, a.region, f"{place}{a.now:020d}/{row.name}", {"comment": row.name}), keep=False)
    return row


def _told(row: Row, **more: Any) -> Output:
    found = {
        "beforeCommitId": row.doc.get("before"), "afterCommitId": row.doc.get("after"),
        "location": row.doc.get("location"), **more,
    }  # fmt: skip
    return {key: value for key, value in found.items() if value is not None}


def _place(a: Authorised) -> dict[str, Any]:
    before, after, events = a.staged
    a.events += events
    return {"before": before, "after": after, "location": a.input.get("location")}


@COMMENT.operation(
    "PostCommentForPullRequest", asks=[*of_pull_request("PostCommentForPullRequest"), *asks("PostCommentForPullRequest")],
    before=looking(_compared),
)  # fmt: skip
def post_on_pull_request(a: Authorised, tx: Transaction) -> Output:
    pull, repository = current(a, tx), named(a, tx)
    if pull.doc["repository"] != repository.doc["id"]:
        raise refused("RepositoryNotAssociatedWithPullRequest", "The pull request is in another repository.")

    def make() -> Output:
        row = _make(a, tx, {"repository": repository.doc["id"], "pull": pull.name, **_place(a)})
        notify_comment(a, tx, pull, "commentOnPullRequestCreated", row.name, None)
        number = str(int(pull.name))
        return _told(row, repositoryName=repository.name, pullRequestId=number, comment=_shown(row))

    return once(a, tx, a.input.get("clientRequestToken"), make, code="IdempotencyParameterMismatchException")


@COMMENT.operation("PostCommentForComparedCommit", asks=asks("PostCommentForComparedCommit"), before=looking(_compared))
def post_on_commit(a: Authorised, tx: Transaction) -> Output:
    repository = named(a, tx)

    def make() -> Output:
        row = _make(a, tx, {"repository": repository.doc["id"], **_place(a)})
        return _told(row, repositoryName=repository.name, comment=_shown(row))

    return once(a, tx, a.input.get("clientRequestToken"), make, code="IdempotencyParameterMismatchException")


@COMMENT.operation("PostCommentReply", asks=_of_comment("PostCommentReply", "inReplyTo"))
def reply(a: Authorised, tx: Transaction) -> Output:
    to = _found(a, tx, "inReplyTo")

    def make() -> Output:
        kept = {key: to.doc.get(key) for key in ("repository", "pull", "before", "after", "location")}
        row = _make(a, tx, {**kept, "reply": to.name})
        pull = tx.get("codecommit:PullRequest", a.account, a.region, kept["pull"]) if kept["pull"] else None
        if pull is not None:
            notify_comment(a, tx, pull, "commentOnPullRequestCreated", row.name, to.name)
        return {"comment": _shown(row)}

    return once(a, tx, a.input.get("clientRequestToken"), make, code="IdempotencyParameterMismatchException")


@COMMENT.reads("GetComment", asks=_of_comment("GetComment"))
def get(a: Authorised, view: View) -> Output:
    return {"comment": _shown(_found(a, view))}


def _page(a: Authorised, view: View, place: str) -> tuple[list[Row], str | None]:
    limit = min(int(a.input.get("maxResults") or 100), _PAGE)
    after = pages.position(a, a.input.get("nextToken"), code="InvalidContinuationTokenException")
    held = view.scan(COMMENTED, a.account, a.region, prefix=place, after=after, limit=limit + 1)
    rows = [COMMENT.get(view, a.account, a.region, one.doc["comment"]) for one in held[:limit]]
    token = pages.seal(a, held[limit - 1].name) if len(held) > limit else None
    return [row for row in rows if row is not None], token


@COMMENT.reads("GetCommentsForPullRequest", asks=of_pull_request("GetCommentsForPullRequest"))
def on_pull_request(a: Authorised, view: View) -> Output:
    pull = current(a, view)
    repository = by_id(view, a.account, a.region, pull.doc["repository"])
    assert repository is not None
    if a.input.get("repositoryName") not in (None, repository.name):
        raise refused("RepositoryNotAssociatedWithPullRequest", "The pull request is in another repository.")
    rows, token = _page(a, view, f"{repository.doc['id']}/{pull.name}/")
    wanted = {key: a.input.get(f"{key}CommitId") for key in ("before", "after")}
    data = [
        _told(row, repositoryName=repository.name, pullRequestId=str(int(pull.name)), comments=[_shown(row)])
        for row in rows
        if all(one in (None, row.doc.get(key)) for key, one in wanted.items())
    ]
    return {"commentsForPullRequestData": data, "nextToken": token}


@COMMENT.reads("GetCommentsForComparedCommit", asks=asks("GetCommentsForComparedCommit"))
def on_commit(a: Authorised, view: View) -> Output:
    repository = named(a, view)
    after = id_of(a.input["afterCommitId"], "InvalidCommitId")
    rows, token = _page(a, view, f"{repository.doc['id']}/{after}/")
    before = a.input.get("beforeCommitId")
    data = [
        _told(row, repositoryName=repository.name, comments=[_shown(row)])
        for row in rows
        if before in (None, row.doc.get("before"))
    ]
    return {"commentsForComparedCommitData": data, "nextToken": token}


@COMMENT.operation("UpdateComment", asks=_of_comment("UpdateComment"))
def update(a: Authorised, tx: Transaction) -> Output:
    row = _found(a, tx)
    if row.doc["author"] != a.caller.arn:
        raise refused("CommentNotCreatedByCaller", "Only who wrote a comment can change it.")
    row.doc |= {"content": _content(a), "modified": a.now}
    COMMENT.change(tx, row, a.operation.name, a.request.id)
    return {"comment": _shown(row)}


@COMMENT.operation("DeleteCommentContent", asks=_of_comment("DeleteCommentContent"))
def delete(a: Authorised, tx: Transaction) -> Output:
    row = _found(a, tx)
    row.doc |= {"content": "", "deleted": True, "modified": a.now}
    COMMENT.change(tx, row, a.operation.name, a.request.id)
    return {"comment": _shown(row)}
