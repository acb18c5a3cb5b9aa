"""Repositories and what belongs to them, as rows; how they are named, found and asked about.

References and packs are rows of their own below a repository's id: a push changes what it moves, and a repository can be
renamed. Source: AWS CodeCommit API Reference; Service Authorization Reference, "AWS CodeCommit".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from bastide.domain import Arn, Refused
from bastide.engines import git
from bastide.kernel import About, Ask, Asked, Authorised, Facts, Kind
from bastide.store import Row, View

SERVICE: Final = "codecommit"
PRINCIPAL: Final = "codecommit.amazonaws.com"
REPOSITORY: Final = Kind("Repository", service=SERVICE, arn="{}", named_by="repositoryName")
REFERENCE: Final = Kind("Reference", service=SERVICE, arn="reference/{}", tags=False, history=False)
"""Rows ``REPOSITORY-ID/refs/heads/NAME`` with the object that it stands for."""
PULL_REQUEST: Final = Kind("PullRequest", service=SERVICE, arn="pull-request/{}", named_by="pullRequestId", tags=False)
"""Rows of an account and region, by number."""
TEMPLATE: Final = Kind(
    "ApprovalRuleTemplate", service=SERVICE, arn="approval-rule-template/{}", named_by="approvalRuleTemplateName",
    tags=False,
)  # fmt: skip
COMMENT: Final = Kind("Comment", service=SERVICE, arn="comment/{}", named_by="commentId", tags=False)
PACK: Final = "codecommit:Pack"
"""Rows of no account, ``REPOSITORY-ID/FILE``: the sealed files that a repository's packs are in."""
NAMED: Final = "codecommit:RepositoryName"
"""Rows of an account and region, by a repository's id: how it is called."""
HEADS: Final = "refs/heads/"
_NAME: Final = re.compile(r"[\w.-]{1,100}", re.ASCII)
REFERENCES: Final = "codecommit:References"


def refused(name: str, message: str) -> Refused:
    """An exception of CodeCommit's, by its name without the ending."""
    return Refused(f"{name}Exception", message)


# -- repositories --------------------------------------------------------------------------------------------------------


def checked_name(name: str) -> str:
    """A repository's name; raises InvalidRepositoryNameException."""
    if not _NAME.fullmatch(name) or name.endswith(".git") or name in (".", ".."):
        raise refused(
            "InvalidRepositoryName",
            "Repository names have 1 to 100 letters, digits, periods, underscores and dashes, and do not end in .git.",
        )
    return name


def find(view: View, account: str, region: str, name: str) -> Row:
    """A repository; raises RepositoryDoesNotExistException."""
    row = REPOSITORY.get(view, account, region, checked_name(name))
    if row is None:
        raise refused("RepositoryDoesNotExist", f"{name} does not exist")
    return row


def named(a: Authorised, view: View, member: str = "repositoryName") -> Row:
    """The repository that the call names."""
    given = a.input.get(member)
    if not given:
        raise refused("RepositoryNameRequired", "A repository name is required.")
    return find(view, a.account, a.region, str(given))


def by_id(view: View, account: str, region: str, id: str) -> Row | None:
    """A repository by its id."""
    held = view.get(NAMED, account, region, id)
    return None if held is None else REPOSITORY.get(view, account, region, held.doc["name"])


def arn_of(row: Row) -> str:
    """A repository's ARN."""
    return REPOSITORY.arn(row.account, row.region, row.name)


def repository(member: str = "repositoryName") -> About:
    """The ARN of the repository that the call names."""

    def about(asked: Asked) -> Iterable[str]:
        given = asked.input.get(member)
        names = given if isinstance(given, list) else [given] if given else []
        return [REPOSITORY.arn(asked.call.account, asked.call.region, str(name)) for name in names] or ["*"]

    return about


def asks(action: str, member: str = "repositoryName", **more: Any) -> list[Ask]:
    """The one question of most operations."""
    return [Ask(f"codecommit:{action}", repository(member), **more)]


def moves(action: str, *members: str) -> list[Ask]:
    """The question of what moves a branch: which one is a condition key. members: of these the first that is given names
    the branch."""

    def branch(asked: Asked) -> str | None:
        given = next((asked.input.get(one) for one in members if asked.input.get(one)), None)
        return f"{HEADS}{str(given).removeprefix(HEADS)}" if given else None

    return asks(action, given={REFERENCES: branch})


def of_pull_request(action: str, **more: Any) -> list[Ask]:
    """The question of what is about a pull request: its repository is asked about."""

    def about(asked: Asked) -> Iterable[str]:
        call = asked.call
        row = pull_request(asked.view, call.account, call.region, str(asked.input.get("pullRequestId") or ""))
        held = None if row is None else by_id(asked.view, call.account, call.region, row.doc["repository"])
        return [arn_of(held)] if held is not None else ["*"]

    return [Ask(f"codecommit:{action}", about, **more)]


def facts(view: View, where: Arn, _: str) -> Facts | None:
    """Whose a repository is, and its tags. CodeCommit has no policies of repositories."""
    row = REPOSITORY.get(view, where.account, where.region, where.resource)
    return Facts(where.account, row.tags if row is not None else {}, type="Repository")


def pull_request(view: View, account: str, region: str, id: str) -> Row | None:
    """A pull request by its number."""
    if not id.isascii() or not id.isdigit() or len(id) > 12:
        return None
    return view.get(PULL_REQUEST.key, account, region, f"{int(id):012d}")


# -- references ----------------------------------------------------------------------------------------------------------


def reference(view: View, row: Row, name: str) -> Row | None:
    """A reference by its whole name."""
    return view.get(REFERENCE.key, row.account, row.region, f"{row.doc['id']}/{name}")


def references(view: View, row: Row, prefix: str = "refs/") -> dict[str, str]:
    """All references below a prefix, and the objects that they stand for."""
    before = f"{row.doc['id']}/"
    found: dict[str, str] = {}
    after: str | None = None
    while True:
        rows = view.scan(REFERENCE.key, row.account, row.region, prefix=before + prefix, after=after, limit=1000)
        found |= {one.name.removeprefix(before): one.doc["object"] for one in rows}
        if len(rows) < 1000:
            return found
        after = rows[-1].name


def branch_name(given: Any) -> str:
    """A branch's name; raises InvalidBranchNameException."""
    if not given:
        raise refused("BranchNameRequired", "A branch name is required.")
    name = str(given)
    if not git.legal_reference(HEADS + name):
        raise refused("InvalidBranchName", f"The specified branch name is not valid: {name[:100]}")
    return name


def branch(view: View, row: Row, name: str) -> Row:
    """A branch; raises BranchDoesNotExistException."""
    found = reference(view, row, HEADS + name)
    if found is None:
        if reference(view, row, f"refs/tags/{name}") is not None:
            raise refused("BranchNameIsTagName", f"{name} is the name of a tag, and a branch is needed.")
        raise refused("BranchDoesNotExist", f"{name} does not exist")
    return found


def id_of(given: Any, wrong: str, what: str = "commit ID") -> str:
    """The id of an object; raises the exception `wrong`."""
    text = str(given).lower()
    if not git.ID.fullmatch(text):
        raise refused(wrong, f"The specified {what} is not valid. Specify its full SHA-1: 40 hexadecimal digits.")
    return text


def specified(view: View, row: Row, given: Any) -> str:
    """The object that a branch's or tag's name, a whole reference or a commit's id stands for; the default branch's commit
    without one. Raises CommitDoesNotExistException."""
    text = str(given or row.doc.get("default") or "")
    if not text or text == "HEAD":
        text = row.doc.get("default") or ""
    if not text:
        raise refused("CommitDoesNotExist", "The repository has no commits yet.")
    if git.ID.fullmatch(text.lower()):
        return text.lower()
    for name in (text, HEADS + text, f"refs/tags/{text}"):
        held = reference(view, row, name) if name.startswith("refs/") else None
        if held is not None:
            return str(held.doc["object"])
    raise refused("CommitDoesNotExist", f"There is no branch, tag or commit {text[:100]}")


def rows_of(view: View, kind: str, account: str, region: str, prefix: str) -> list[Row]:
    """All rows of a kind below a prefix."""
    found: list[Row] = []
    after: str | None = None
    while True:
        rows = view.scan(kind, account, region, prefix=prefix, after=after, limit=500)
        found += rows
        if len(rows) < 500:
            return found
        after = rows[-1].name


def checked_texts(a: Authorised, limits: Sequence[tuple[str, int, str]]) -> None:
    """Raises the exception of the first member that is longer than it may be."""
    for member, most, wrong in limits:
        if len(str(a.input.get(member) or "")) > most:
            raise refused(wrong, f"{member} has {most} characters at most.")


Wrong = Callable[[str], Refused]
