"""Projects, builds, report groups and reports: how they are named, and what is asked about them.

Source: CodeBuild API Reference; Service Authorization Reference, "AWS CodeBuild".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from bastide.domain import Arn, Refused
from bastide.kernel import Ask, Asked, Authorised, Kind, pages
from bastide.kernel.kind import About
from bastide.store import Row, View

PRINCIPAL: Final = "codebuild.amazonaws.com"
MISSING: Final = ("ResourceNotFoundException", "The resource {arn} cannot be found.", 400)

PROJECT: Final = Kind(
    "Project",
    service="codebuild",
    arn="project/{}",
    named_by="name",
    missing=("ResourceNotFoundException", "Project cannot be found: {arn}", 400),
    taken=("ResourceAlreadyExistsException", "Project already exists: {arn}", 400),
)
BUILD: Final = Kind("Build", service="codebuild", arn="build/{}", named_by="id", tags=False, missing=MISSING)
REPORT_GROUP: Final = Kind(
    "ReportGroup",
    service="codebuild",
    arn="report-group/{}",
    named_by="arn",
    missing=MISSING,
    taken=("ResourceAlreadyExistsException", "Report group already exists: {arn}", 400),
)
REPORT: Final = Kind("Report", service="codebuild", arn="report/{}", named_by="arn", tags=False, missing=MISSING)
BUILD_OF: Final = "codebuild:BuildOf"
"""Under ``ACCOUNT/PROJECT``: ``TIME|ID`` of each build, so that a project's builds are a walk along an index."""
REPORT_OF: Final = "codebuild:ReportOf"
"""Under ``ACCOUNT/GROUP``: the same of a group's reports."""
RESULT: Final = "codebuild:Result"
"""Under ``ACCOUNT/REPORT``: test cases, or files that code coverage was measured of, in their order."""
PAGE: Final = 100


def invalid(message: str) -> Refused:
    """InvalidInputException."""
    return Refused("InvalidInputException", message)


def unsupported(given: Mapping[str, Any], what: str, *names: str) -> None:
    """Raises Refused for members that would have no effect here."""
    for name in names:
        if given.get(name) not in (None, False, "", [], {}, 0):
            raise invalid(f"{what}{name} is not supported by Bastide.")


def arn_name(given: str, kind: Kind, account: str, region: str) -> str:
    """The name that a name or an ARN of the caller's own account and region means; raises Refused."""
    if not given.startswith("arn:"):
        return given
    where = given.split(":", 5)
    prefix = kind.arn(account, region, "")
    if len(where) != 6 or not given.startswith(prefix) or given == prefix:
        raise invalid(f"Invalid ARN: {given[:300]} is not one of a {kind.name} of this account and region.")
    return given[len(prefix) :]


def look_up(a: Authorised, view: View, kind: Kind, given: str) -> Row | None:
    """What a name or an ARN means, None if it is not there; raises Refused for an ARN of something else."""
    return kind.get(view, a.account, a.region, arn_name(given, kind, a.account, a.region))


def find(a: Authorised, view: View, kind: Kind, given: str) -> Row:
    """What a name or an ARN means; raises Refused."""
    return kind.find(view, a.account, a.region, arn_name(given, kind, a.account, a.region))


def batch(
    a: Authorised, view: View, kind: Kind, asked: Iterable[str], shown: Callable[[Row], dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[str]]:
    """What names or ARNs mean, as `shown`, and those that mean nothing."""
    there, missing = [], []
    for given in dict.fromkeys(asked):
        row = look_up(a, view, kind, given)
        if row is None:
            missing.append(given)
        else:
            there.append(shown(row))
    return there, missing


def build_name(given: str, account: str, region: str) -> str:
    """A build's id from an id or an ARN; raises Refused."""
    name = arn_name(given, BUILD, account, region)
    project, _, rest = name.partition(":")
    if not project or not rest:
        raise invalid(f"Invalid build ID: {given[:300]}. It has the form PROJECT:ID.")
    return name


# -- questions -----------------------------------------------------------------------------------------------------------


def _each(asked: Asked, member: str) -> list[str]:
    value = asked.input.get(member)
    return [] if value is None else [str(one) for one in value] if isinstance(value, list) else [str(value)]


def projects(member: str) -> About:
    """The ARNs of the projects that a member names, by name or by ARN."""

    def about(asked: Asked) -> Iterable[str]:
        where = asked.call.account, asked.call.region
        found = [one if one.startswith("arn:") else PROJECT.arn(*where, one) for one in _each(asked, member)]
        return list(dict.fromkeys(found)) or ("*",)

    return about


def projects_of_builds(member: str) -> About:
    """The ARNs of the projects that builds belong to, whose ids or ARNs a member has."""

    def about(asked: Asked) -> Iterable[str]:
        found = []
        for one in _each(asked, member):
            account, region, name = asked.call.account, asked.call.region, one
            if one.startswith("arn:"):
                try:
                    arn = Arn.parse(one)
                except ValueError:
                    found.append("*")
                    continue
                account, region, name = arn.account, arn.region, arn.resource.partition("/")[2]
            found.append(PROJECT.arn(account, region, name.partition(":")[0]))
        return list(dict.fromkeys(found)) or ("*",)

    return about


def groups(member: str) -> About:
    """The ARNs of report groups that a member has, or that the reports it names belong to."""

    def about(asked: Asked) -> Iterable[str]:
        found = []
        for one in _each(asked, member):
            try:
                arn = Arn.parse(one)
            except ValueError:
                found.append("*")  # it names nothing; the handler says so to whoever may ask
                continue
            name = arn.resource.partition("/")[2]
            if arn.resource.startswith(REPORT.type):
                name = name.rpartition(":")[0]
            found.append(REPORT_GROUP.arn(arn.account, arn.region, name))
        return list(dict.fromkeys(found)) or ("*",)

    return about


def ask(operation: str, about: About) -> Ask:
    """The question of an operation."""
    return Ask(f"codebuild:{operation}", about)


def passing() -> Ask:
    """May the caller hand the service role to CodeBuild?"""
    about = projects("name")

    def role(asked: Asked) -> Iterable[str]:
        given = str(asked.input.get("serviceRole") or asked.input.get("serviceRoleOverride") or "")
        return [given] if given else []

    return Ask(
        "iam:PassRole",
        role,
        given={
            "iam:PassedToService": lambda _: PRINCIPAL,
            "iam:AssociatedResourceArn": lambda asked: next(
                iter(about(asked) if "name" in asked.input else projects("projectName")(asked)), None
            ),
        },
    )


# -- pages ---------------------------------------------------------------------------------------------------------------


def listed(
    a: Authorised,
    view: View,
    kind: str,
    account: str,
    *,
    order: str = "name",
    descending: bool = True,
    keep: Callable[[Row], bool] = lambda _: True,
) -> tuple[Sequence[Row], str | None]:
    """One page of rows, and the token for the next."""
    limit = min(int(a.input.get("maxResults") or PAGE), PAGE)
    after = pages.position(a, a.input.get("nextToken"), code="InvalidInputException")
    found: list[Row] = []
    examined = 0
    while True:
        rows = view.scan(
            kind,
            account,
            a.region,
            order="created" if order == "created" else "name",
            descending=descending,
            after=tuple(after) if isinstance(after, list) else after,
            limit=limit + 1,
        )
        for row in rows:
            if len(found) == limit or examined >= 10 * PAGE:
                return found, pages.seal(a, after)
            examined += 1
            after = [row.created, row.name] if order == "created" else row.name
            if keep(row):
                found.append(row)
        if len(rows) <= limit:
            return found, None


def in_order(a: Authorised, view: View, kind: Kind) -> tuple[Sequence[Row], str | None]:
    """One page of a kind's rows as `sortBy` and `sortOrder` want them; raises Refused for an order that is not there."""
    by = a.input.get("sortBy") or "NAME"
    if by == "LAST_MODIFIED_TIME":
        raise invalid(
            "Invalid sortBy: LAST_MODIFIED_TIME is not supported by Bastide; there are NAME and CREATED_TIME."
        )
    order = "name" if by == "NAME" else "created"
    return listed(a, view, kind.key, a.account, order=order, descending=descending(a, False))


def descending(a: Authorised, default: bool = True) -> bool:
    """Whether the newest, or the last, come first."""
    given = a.input.get("sortOrder")
    return default if given is None else given == "DESCENDING"


def tags_of(a: Authorised) -> dict[str, str]:
    """The tags that a call brings; raises Refused."""
    found: dict[str, str] = {}
    for one in a.input.get("tags") or ():
        key = str(one.get("key") or "")
        if not key or key in found or key.lower().startswith("aws:"):
            raise invalid(f"The tag key '{key}' is empty, reserved, or there twice.")
        found[key] = str(one.get("value") or "")
    return found


def tags_shown(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as CodeBuild lists them."""
    return [{"key": key, "value": value} for key, value in tags.items()]
