"""State machines, their executions, activities and map runs: how they are named and what is asked about them.

Rows of executions stand under an account of their own, ``ACCOUNT/MACHINE``, so that a machine's executions are a walk
along the index of creation or of status. Source: Step Functions API Reference; Service Authorization Reference, "AWS Step
Functions".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import Arn, Refused
from bastide.kernel import Ask, Asked, Authorised, Kind
from bastide.kernel.kind import About, Given
from bastide.store import Row, View

PRINCIPAL: Final = "states.amazonaws.com"
MACHINE: Final = Kind(
    "StateMachine",
    service="stepfunctions",
    arn_service="states",
    arn="stateMachine:{}",
    named_by="stateMachineArn",
    missing=("StateMachineDoesNotExist", "State Machine Does Not Exist: '{arn}'", 400),
    taken=("StateMachineAlreadyExists", "State Machine Already Exists: '{arn}'", 400),
)
ACTIVITY: Final = Kind(
    "Activity",
    service="stepfunctions",
    arn_service="states",
    arn="activity:{}",
    named_by="activityArn",
    missing=("ActivityDoesNotExist", "Activity Does Not Exist: '{arn}'", 400),
    taken=("ActivityAlreadyExists", "Activity Already Exists: '{arn}'", 400),
)
EXECUTION: Final = Kind(
    "Execution", service="stepfunctions", arn_service="states", arn="execution:{}", named_by="executionArn", tags=False
)
MAP_RUN: Final = Kind(
    "MapRun", service="stepfunctions", arn_service="states", arn="mapRun:{}", named_by="mapRunArn", tags=False
)
REVISION: Final = "states:Revision"
"""``MACHINE/REVISION``: a definition and what is configured beside it."""
VERSION: Final = "states:Version"
"""Under ``ACCOUNT/MACHINE``: by number, with leading zeros."""
ALIAS: Final = "states:Alias"
"""Under ``ACCOUNT/MACHINE``."""
RUN: Final = "states:Execution"
"""Under ``ACCOUNT/MACHINE``, of a map run's under ``ACCOUNT/MACHINE/LABEL:RUN``."""
MAP: Final = "states:MapRun"
"""Under ``ACCOUNT/MACHINE/LABEL``, by the run's id."""
_NAME: Final = re.compile(r"[^\s<>{}\[\]?*\"#%\\^|~`$&,;:/\x00-\x1f\x7f-\x9f]{1,80}\Z")


def invalid_arn(given: str) -> Refused:
    """InvalidArn."""
    return Refused("InvalidArn", f"Invalid Arn: '{given[:300]}'")


def check_name(name: str) -> str:
    """The name; raises InvalidName."""
    if not _NAME.match(name):
        raise Refused("InvalidName", f"Invalid Name: '{name[:100]}'")
    return name


def parsed(given: str, kind: str) -> Arn:
    """An ARN of Step Functions of that kind (``stateMachine``); raises InvalidArn."""
    try:
        arn = Arn.parse(given)
    except ValueError:
        raise invalid_arn(given) from None
    if arn.service != "states" or arn.partition != "aws" or not arn.account or not arn.region or arn.type != kind:
        raise Refused(
            "InvalidArn",
            f"Invalid Arn: 'Resource type not valid in this context: {arn.type}'" if arn.service == "states" else
            f"Invalid Arn: '{given[:300]}'",
        )  # fmt: skip
    return arn


def split(given: str) -> tuple[Arn, str, str]:
    """The ARN, the machine's name and the qualifier (a version's number, an alias, or empty) of a machine's ARN."""
    arn = parsed(given, "stateMachine")
    name, _, qualifier = arn.name.partition(":")
    if not name or ":" in qualifier:
        raise invalid_arn(given)
    return arn, name, qualifier


def machine_arn(account: str, region: str, name: str) -> str:
    """``arn:aws:states:...:stateMachine:NAME``."""
    return MACHINE.arn(account, region, name)


def own(a: Authorised, arn: Arn) -> Arn:
    """The ARN, if it is of the caller's account and of the region that is asked; raises Refused."""
    if arn.account != a.account or arn.region != a.region:
        raise Refused("AccessDeniedException", "The resource is of another account or region.")
    return arn


def machine(a: Authorised, view: View, given: str, *, standing: bool = False) -> Row:
    """The row of a state machine that an ARN, with or without a qualifier, names; raises Refused. standing: one that is
    being deleted is StateMachineDeleting."""
    arn, name, _ = split(given)
    row = MACHINE.get(view, own(a, arn).account, arn.region, name)
    if row is None:
        raise Refused("StateMachineDoesNotExist", f"State Machine Does Not Exist: '{given[:300]}'")
    if standing and row.status == "DELETING":
        raise Refused("StateMachineDeleting", f"State Machine is being deleted: '{given[:300]}'")
    return row


def place(given: str) -> tuple[str, str, str]:
    """Account, region and name of the row of an execution that an ARN names; raises InvalidArn."""
    arn = parsed(given, "execution")
    machine, _, name = arn.name.partition(":")
    if not machine or not name or ":" in name:
        raise invalid_arn(given)
    if "/" in machine:
        machine = f"{machine}:{name[:23]}"
    return f"{arn.account}/{machine}", arn.region, name


def execution(a: Authorised, view: View, given: str) -> Row:
    """The row of an execution; raises Refused."""
    where = place(given)
    own(a, Arn.parse(given))
    row = view.get(RUN, *where)
    if row is None:
        raise Refused("ExecutionDoesNotExist", f"Execution Does Not Exist: '{given[:300]}'")
    return row


def execution_arn(row: Row) -> str:
    """The ARN of an execution's row."""
    account, _, rest = row.account.partition("/")
    path = rest.partition(":")[0]
    return f"arn:aws:states:{row.region}:{account}:execution:{path}:{row.name}"


def account_of(row: Row) -> tuple[str, str]:
    """Account and machine's name of a row that stands under both."""
    account, _, rest = row.account.partition("/")
    return account, rest.partition("/")[0]


# -- questions -----------------------------------------------------------------------------------------------------------


def about(member: str) -> About:
    """The ARN that a member brings, as it was given, without the qualifier that a condition key has."""

    def found(asked: Asked) -> Iterable[str]:
        given = str(asked.input.get(member) or "")
        if not given:
            return ("*",)
        parts = given.split(":")
        if len(parts) == 8 and parts[5] == "stateMachine":
            return (":".join(parts[:7]),)
        return (given,)

    return found


def qualifier(member: str) -> Given:
    """The version or alias that an ARN names."""

    def found(asked: Asked) -> str | None:
        parts = str(asked.input.get(member) or "").split(":")
        return parts[7] if len(parts) == 8 and parts[5] == "stateMachine" else None

    return found


def ask(operation: str, member: str, *, qualified: bool = False) -> Ask:
    """The question of an operation about the resource that a member names."""
    given: dict[str, Given] = {"states:StateMachineQualifier": qualifier(member)} if qualified else {}
    return Ask(f"states:{operation}", about(member), given=given)


def named(kind: Kind, member: str = "name") -> About:
    """The ARN that something made under a name will have."""
    return lambda asked: (kind.arn(asked.call.account, asked.call.region, str(asked.input.get(member) or "*")),)


def passing(about_machine: About | None = None) -> Ask:
    """May the caller hand this role to Step Functions (for a state machine)?"""
    given: dict[str, Given] = {"iam:PassedToService": lambda _: PRINCIPAL}
    if about_machine is not None:
        given["iam:AssociatedResourceArn"] = lambda asked: next(iter(about_machine(asked)), None)
    return Ask(
        "iam:PassRole", lambda asked: [asked.input["roleArn"]] if asked.input.get("roleArn") else [], given=given
    )


def tags(given: Any) -> dict[str, str]:
    """A mapping from Step Functions' list of tags; raises Refused."""
    found: dict[str, str] = {}
    for one in given or ():
        key = str(one.get("key") or "")
        if not key or key in found or key.lower().startswith("aws:"):
            raise Refused("ValidationException", f"The tag key '{key}' is empty, reserved, or there twice.")
        found[key] = str(one.get("value") or "")
    if len(found) > 50:
        raise Refused("TooManyTags", "A resource has at most 50 tags.")
    return found
