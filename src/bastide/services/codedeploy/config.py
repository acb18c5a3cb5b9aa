"""Deployment configurations: how traffic is shifted. AWS's own for functions, and those of an account.

Source: CodeDeploy User Guide, "Deployment configurations on an AWS Lambda compute platform".
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final

from bastide.kernel import Ask, Authorised, Output, anything, pages
from bastide.services.codedeploy.noun import (
    CONFIG,
    GROUP,
    PAGE,
    Doc,
    ask,
    checked_name,
    invalid,
    named,
    platform,
    unsupported,
)
from bastide.store import Transaction, View

_OWN: Final = "CodeDeployDefault."
DEFAULT: Final = f"{_OWN}LambdaAllAtOnce"


def _canary(minutes: int) -> Doc:
    return {"type": "TimeBasedCanary", "timeBasedCanary": {"canaryPercentage": 10, "canaryInterval": minutes}}


def _linear(minutes: int) -> Doc:
    return {"type": "TimeBasedLinear", "timeBasedLinear": {"linearPercentage": 10, "linearInterval": minutes}}


PREDEFINED: Final[Mapping[str, Doc]] = {
    DEFAULT: {"type": "AllAtOnce"},
    **{f"{_OWN}LambdaCanary10Percent{minutes}Minutes": _canary(minutes) for minutes in (5, 10, 15, 30)},
    f"{_OWN}LambdaLinear10PercentEvery1Minute": _linear(1),
    **{f"{_OWN}LambdaLinear10PercentEvery{minutes}Minutes": _linear(minutes) for minutes in (2, 3, 10)},
}
"""AWS's configurations for functions."""


def routing(view: View, account: str, region: str, name: str) -> Doc:
    """How a configuration shifts traffic; raises DeploymentConfigDoesNotExistException."""
    if name in PREDEFINED:
        return PREDEFINED[name]
    found: Doc = CONFIG.find(view, account, region, name).doc["routing"]
    return found


def shares(given: Mapping[str, Any]) -> Iterable[tuple[int, int]]:
    """The steps of a shift: which share in percent, and after how many minutes from the beginning."""
    kind = given["type"]
    if kind == "TimeBasedCanary":
        yield given["timeBasedCanary"]["canaryPercentage"], 0
        yield 100, given["timeBasedCanary"]["canaryInterval"]
    elif kind == "TimeBasedLinear":
        step, minutes = given["timeBasedLinear"]["linearPercentage"], given["timeBasedLinear"]["linearInterval"]
        steps = -(-100 // step)
        for number in range(steps):
            yield min(100, step * (number + 1)), minutes * number
    else:
        yield 100, 0


def _checked(given: Any) -> Doc:
    """A routing that is given; raises InvalidTrafficRoutingConfigurationException."""
    name = "InvalidTrafficRoutingConfiguration"
    kind = (given or {}).get("type") or "AllAtOnce"
    wanted = {"TimeBasedCanary": "timeBasedCanary", "TimeBasedLinear": "timeBasedLinear"}.get(kind, "")
    for member in ("timeBasedCanary", "timeBasedLinear"):
        if member != wanted and (given or {}).get(member):
            raise invalid(name, f"{member} is not for the type {kind}.")
    if not wanted:
        return {"type": "AllAtOnce"}
    word = "canary" if wanted == "timeBasedCanary" else "linear"
    held = given.get(wanted) or {}
    share, minutes = held.get(f"{word}Percentage"), held.get(f"{word}Interval")
    if share is None or not 1 <= share <= 99 or minutes is None or not 1 <= minutes <= 2880:
        raise invalid(name, f"{wanted} has a {word}Percentage of 1 to 99 and a {word}Interval of 1 to 2880 minutes.")
    return {"type": kind, wanted: {f"{word}Percentage": share, f"{word}Interval": minutes}}


@CONFIG.operation("CreateDeploymentConfig", asks=ask("CreateDeploymentConfig", named(CONFIG, "deploymentConfigName")))
def create(a: Authorised, tx: Transaction) -> Output:
    name = checked_name(a.input.get("deploymentConfigName"), "DeploymentConfig", "deploymentConfigName")
    if name.startswith(_OWN):
        raise invalid("InvalidDeploymentConfigName", f"Names that begin with {_OWN} are AWS's.")
    platform(a.input.get("computePlatform"))
    unsupported(a.input, "InvalidMinimumHealthyHostValue", "minimumHealthyHosts", "zonalConfig")
    doc = {"id": str(uuid.uuid4()), "routing": _checked(a.input.get("trafficRoutingConfig"))}
    CONFIG.create(a, tx, name, doc)
    return {"deploymentConfigId": doc["id"]}


@CONFIG.reads("GetDeploymentConfig", asks=ask("GetDeploymentConfig", named(CONFIG, "deploymentConfigName")))
def get(a: Authorised, view: View) -> Output:
    name = checked_name(a.input.get("deploymentConfigName"), "DeploymentConfig", "deploymentConfigName")
    told: Output = {"deploymentConfigName": name, "computePlatform": "Lambda"}
    if name in PREDEFINED:
        id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"codedeploy:{name}"))
        more = {"deploymentConfigId": id, "trafficRoutingConfig": PREDEFINED[name]}
        return {"deploymentConfigInfo": {**told, **more}}
    row = CONFIG.find(view, a.account, a.region, name)
    more = {"deploymentConfigId": row.doc["id"], "trafficRoutingConfig": row.doc["routing"]}
    return {"deploymentConfigInfo": {**told, **more, "createTime": row.created}}


@CONFIG.reads("ListDeploymentConfigs", asks=[Ask("codedeploy:ListDeploymentConfigs", anything)])
def list_(a: Authorised, view: View) -> Output:
    after = pages.position(a, a.input.get("nextToken"), code="InvalidNextTokenException")
    rows = view.scan(CONFIG.key, a.account, a.region, after=after, limit=PAGE + 1)
    names = [row.name for row in rows[:PAGE]]
    told: Output = {"deploymentConfigsList": names if after else [*PREDEFINED, *names]}
    if len(rows) > PAGE:
        told["nextToken"] = pages.seal(a, names[-1])
    return told


@CONFIG.operation("DeleteDeploymentConfig", asks=ask("DeleteDeploymentConfig", named(CONFIG, "deploymentConfigName")))
def delete(a: Authorised, tx: Transaction) -> Output:
    name = checked_name(a.input.get("deploymentConfigName"), "DeploymentConfig", "deploymentConfigName")
    if name in PREDEFINED:
        raise invalid("InvalidOperation", f"{name} is AWS's.")
    row = CONFIG.get(tx, a.account, a.region, name)
    if row is None:
        return {}
    after: str | None = None
    while rows := tx.scan(GROUP.key, a.account, a.region, after=after, limit=500):
        after = rows[-1].name
        if any(one.doc["deploymentConfigName"] == name for one in rows):
            raise invalid(
                "DeploymentConfigInUse", f"The deployment configuration {name} is in use by a deployment group."
            )
    CONFIG.remove(tx, row, a.operation.name, a.request.id)
    return {}
