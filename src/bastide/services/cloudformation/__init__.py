"""CloudFormation: stacks of resources, made, changed, undone and removed as a template says.

Source: CloudFormation User Guide and API Reference.
"""

from __future__ import annotations

from bastide.domain import Arn
from bastide.engines.workflow import Flow
from bastide.kernel import Calls, Facts, Service
from bastide.services.cloudformation import change_set, looking, stack
from bastide.services.cloudformation.door import Door
from bastide.services.cloudformation.record import STACK
from bastide.services.cloudformation.signals import Signals
from bastide.services.cloudformation.stack_flow import StackFlow, subscribe
from bastide.store import View

__all__ = ["SERVICE", "Door", "Signals", "flows", "subscribe"]

_DECLARED = (change_set, looking, stack)


def _facts(view: View, arn: Arn, action: str) -> Facts | None:
    if arn.resource.startswith("stack/") and arn.resource.endswith("/*"):
        return Facts(arn.account, type="Stack")
    return None


SERVICE = Service("cloudformation", kinds=[STACK], facts=_facts)


def flows(calls: Calls) -> list[Flow]:
    """The workflows of stacks."""
    return [StackFlow(calls).flow()]
