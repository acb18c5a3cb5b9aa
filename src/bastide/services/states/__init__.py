"""Step Functions: state machines, their executions, activities and map runs.

Source: Step Functions API Reference and developer guide.
"""

from __future__ import annotations

from bastide.domain import Arn
from bastide.kernel import Facts, Service
from bastide.services.states import activity, execution, express, machine, map_run, redriving, trial, version  # noqa: F401
from bastide.services.states.activity import CALLBACK
from bastide.services.states.machine import recover
from bastide.services.states.noun import ACTIVITY, EXECUTION, MACHINE, MAP_RUN
from bastide.services.states.runner import Executions
from bastide.store import View

__all__ = ["SERVICE", "Executions", "recover"]


def _facts(view: View, arn: Arn, action: str) -> Facts | None:
    """Tags of a machine are those of its executions, runs, versions and aliases, too."""
    kind, _, rest = arn.resource.partition(":")
    if kind not in ("stateMachine", "execution", "express", "mapRun"):
        return None
    name = rest.partition(":")[0].partition("/")[0]
    row = MACHINE.get(view, arn.account, arn.region, name)
    return Facts(arn.account, row.tags if row is not None else {}, type="StateMachine")


SERVICE = Service(
    "stepfunctions",
    kinds=[MACHINE, EXECUTION, ACTIVITY, MAP_RUN, CALLBACK],
    facts=_facts,
    event_source="states.amazonaws.com",
    prefix="states",
)
