"""CloudFormation: stacks of resources, made, changed, undone and removed as a template says.

Source: CloudFormation User Guide and API Reference.
"""

from __future__ import annotations

from bastide.domain import Arn
from bastide.engines.workflow import Flow, Workflows
from bastide.kernel import Calls, Facts, Service
from bastide.kernel.outbox import Outbox
from bastide.services.cloudformation import (
    change_set,
    drift,
    looking,
    stack,
    stack_set_flow,
    stack_set_operation,
    type_description,
)
from bastide.services.cloudformation.record import STACK
from bastide.services.cloudformation.signals import Signals
from bastide.services.cloudformation.stack_flow import StackFlow
from bastide.services.cloudformation.stack_flow import subscribe as _subscribe
from bastide.services.cloudformation.stack_set import STACK_SET
from bastide.store import View

__all__ = ["SERVICE", "Signals", "flows", "subscribe"]

_DECLARED = (change_set, drift, looking, stack, stack_set_operation, type_description)


def _facts(view: View, arn: Arn, action: str) -> Facts | None:
    if arn.resource.endswith(("/*", ":*")):
        return Facts(arn.account, type="Stack")
    return None


SERVICE = Service("cloudformation", kinds=[STACK, STACK_SET], facts=_facts)


def flows(calls: Calls) -> list[Flow]:
    """The workflows of stacks."""
    return [StackFlow(calls).flow(), stack_set_flow.StackSetFlow(calls).flow()]


def subscribe(outbox: Outbox, calls: Calls, workflows: Workflows) -> None:
    """What was asked of stacks and stack sets begins once the asking is on the disk."""
    _subscribe(outbox, calls, workflows)
    stack_set_flow.subscribe(outbox, calls, workflows)
