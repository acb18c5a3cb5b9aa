"""Applications, deployment groups, deployment configurations and deployments: how they are named, and what is asked about
them.

Source: AWS CodeDeploy API Reference; Service Authorization Reference, "AWS CodeDeploy".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import About, Ask, Asked, Authorised, Kind, Output, pages
from bastide.store import Row, View

SERVICE: Final = "codedeploy"
PRINCIPAL: Final = "codedeploy.amazonaws.com"
PLATFORM: Final = "Lambda"

APPLICATION: Final = Kind(
    "Application", service=SERVICE, arn="application:{}", named_by="applicationName",
    missing=("ApplicationDoesNotExistException", "No application found for name: {name}", 400),
    taken=("ApplicationAlreadyExistsException", "Application already exists: {name}", 400),
)  # fmt: skip
GROUP: Final = Kind(
    "DeploymentGroup", service=SERVICE, arn="deploymentgroup:{}", named_by="deploymentGroupName",
    missing=("DeploymentGroupDoesNotExistException", "No Deployment Group found for name: {name}", 400),
    taken=("DeploymentGroupAlreadyExistsException", "Deployment Group already exists: {name}", 400),
)  # fmt: skip
"""Named ``APPLICATION/GROUP``."""
CONFIG: Final = Kind(
    "DeploymentConfig", service=SERVICE, arn="deploymentconfig:{}", named_by="deploymentConfigName", tags=False,
    missing=("DeploymentConfigDoesNotExistException", "No Deployment Configuration found for name: {name}", 400),
    taken=("DeploymentConfigAlreadyExistsException", "Deployment Configuration already exists: {name}", 400),
)  # fmt: skip
DEPLOYMENT: Final = Kind(
    "Deployment", service=SERVICE, arn="deployment:{}", named_by="deploymentId", tags=False,
    missing=("DeploymentDoesNotExistException", "The deployment {name} could not be found", 400),
)  # fmt: skip
"""Its status is the row's. What begins with an underscore is ours: how far it came, and what is still to be told."""
REVISION: Final = "codedeploy:Revision"
"""Rows ``APPLICATION/DIGEST`` of an account and region: revisions, and when they were registered and used."""
RUNNING: Final = "codedeploy:Running"
"""Rows of no account, ``ACCOUNT/REGION/DEPLOYMENT``: whose next step is to be looked at."""
OVER: Final = ("Succeeded", "Failed", "Stopped")
_NAME: Final = re.compile(r"[A-Za-z0-9._+=,@-]{1,100}")
PAGE: Final = 100
Doc = dict[str, Any]


def invalid(name: str, message: str) -> Refused:
    """An exception of CodeDeploy's, by its name without the ending."""
    return Refused(f"{name}Exception", message)


def checked_name(given: Any, what: str, member: str) -> str:
    """A name that is given; raises Refused. what: as CodeDeploy's exceptions call the thing."""
    if not given:
        raise invalid(f"{what}NameRequired", f"{member} is needed.")
    if not _NAME.fullmatch(str(given)):
        raise invalid(f"Invalid{what}Name", f"{member} has at most 100 letters, digits and characters of ._+=,@-")
    return str(given)


def unsupported(given: Mapping[str, Any], name: str, *members: str) -> None:
    """Raises the exception of that name for members that are for servers and containers: only functions are deployed."""
    for member in members:
        if given.get(member) not in (None, False, "", [], {}):
            raise invalid(name, f"{member} is not for the compute platform Lambda, and Bastide deploys to no other.")


def platform(given: Any) -> None:
    """Raises InvalidComputePlatformException for another platform than Lambda."""
    if given != PLATFORM:
        raise invalid(
            "InvalidComputePlatform",
            f"Bastide deploys to the compute platform {PLATFORM}; there are no servers and no ECS services "
            f"(computePlatform: {given or 'Server, which it is if nothing is said'}).",
        )


def application(a: Authorised, view: View) -> Row:
    """The application that a call names; raises Refused."""
    name = checked_name(a.input.get("applicationName"), "Application", "applicationName")
    return APPLICATION.find(view, a.account, a.region, name)


def group(a: Authorised, view: View, member: str = "deploymentGroupName") -> Row:
    """The deployment group that a call names; raises Refused."""
    name = checked_name(a.input.get(member), "DeploymentGroup", member)
    return group_of(view, a.account, a.region, application(a, view).name, name)


def group_of(view: View, account: str, region: str, application_: str, name: str) -> Row:
    """A deployment group; raises Refused."""
    row = GROUP.get(view, account, region, f"{application_}/{name}")
    if row is None:
        raise Refused("DeploymentGroupDoesNotExistException", f"No Deployment Group found for name: {name}")
    return row


def deployment(a: Authorised, view: View) -> Row:
    """The deployment that a call names; raises Refused."""
    if not a.input.get("deploymentId"):
        raise invalid("DeploymentIdRequired", "deploymentId is needed.")
    return DEPLOYMENT.find(view, a.account, a.region, str(a.input["deploymentId"]))


def group_row(view: View, row: Row) -> Row | None:
    """The group of a deployment, None if it is gone."""
    return GROUP.get(view, row.account, row.region, f"{row.doc['applicationName']}/{row.doc['deploymentGroupName']}")


# -- questions -----------------------------------------------------------------------------------------------------------


def _texts(value: Any) -> list[str]:
    return [] if value is None else [str(one) for one in value] if isinstance(value, list) else [str(value)]


def named(kind: Kind, member: str) -> About:
    """The ARNs of what a member names, one or several."""

    def about(asked: Asked) -> Iterable[str]:
        names = _texts(asked.input.get(member)) or ["*"]
        return [kind.arn(asked.call.account, asked.call.region, one) for one in dict.fromkeys(names)]

    return about


def groups(member: str = "deploymentGroupName") -> About:
    """The ARNs of the application's deployment groups that a member names; ``*`` stands for what is not said."""

    def about(asked: Asked) -> Iterable[str]:
        first = str(asked.input.get("applicationName") or "*")
        names = _texts(asked.input.get(member)) or ["*"]
        return [GROUP.arn(asked.call.account, asked.call.region, f"{first}/{one}") for one in dict.fromkeys(names)]

    return about


def of_deployments(member: str) -> About:
    """The ARNs of the groups whose deployments a member names, by their ids."""

    def about(asked: Asked) -> Iterable[str]:
        account, region = asked.call.account, asked.call.region
        found = []
        for id in _texts(asked.input.get(member))[:PAGE]:
            row = DEPLOYMENT.get(asked.view, account, region, id)
            if row is not None:
                found.append(
                    GROUP.arn(account, region, f"{row.doc['applicationName']}/{row.doc['deploymentGroupName']}")
                )
        return list(dict.fromkeys(found)) or (GROUP.arn(account, region, "*/*"),)

    return about


def ask(operation: str, about: About) -> list[Ask]:
    """The one question of most operations."""
    return [Ask(f"codedeploy:{operation}", about)]


# -- tags and pages ------------------------------------------------------------------------------------------------------


def tags_given(given: Any) -> dict[str, str]:
    """Tags from CodeDeploy's list; raises Refused."""
    found: dict[str, str] = {}
    for one in given or ():
        key = str(one.get("Key") or "")
        if not key or key in found or key.lower().startswith("aws:"):
            raise invalid("InvalidTagsToAdd", f"The tag key '{key[:128]}' is empty, reserved, or there twice.")
        found[key] = str(one.get("Value") or "")
    return found


def listed(
    a: Authorised, view: View, kind: str, *, prefix: str = "", created: bool = False,
    keep: Callable[[Row], bool] = lambda _: True,
) -> tuple[list[Row], Output]:  # fmt: skip
    """A page of rows that `keep` keeps, and the token for the next. created: in order of creation, newest first."""
    held = pages.position(a, a.input.get("nextToken"), code="InvalidNextTokenException")
    after: Any = (held[0], held[1]) if isinstance(held, list) else held
    rows: list[Row] = []
    while True:
        order: Any = "created" if created else "name"
        several = view.scan(
            kind, a.account, a.region, prefix=prefix, order=order, descending=created, after=after, limit=PAGE
        )
        for row in several:
            if keep(row):
                if len(rows) == PAGE:
                    return rows, {"nextToken": pages.seal(a, after)}
                rows.append(row)
            after = (row.created, row.name) if created else row.name
        if len(several) < PAGE:
            return rows, {}
