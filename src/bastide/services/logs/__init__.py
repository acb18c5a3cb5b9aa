"""CloudWatch Logs: groups, streams, their lines.

Source: Amazon CloudWatch Logs API Reference.
"""

from __future__ import annotations

from bastide.domain import Arn
from bastide.kernel import Facts, Service
from bastide.services.logs import events as _events  # declares the operations on a stream's lines
from bastide.services.logs.group import LOG_GROUP, group_of
from bastide.services.logs.metric_filter import METRIC_FILTER
from bastide.services.logs.resource_policy import RESOURCE_POLICY, policy
from bastide.services.logs.retention import Retention
from bastide.services.logs.stream import LOG_STREAM
from bastide.store import View

__all__ = ["LOG_GROUP", "LOG_STREAM", "SERVICE", "Retention"]


def _facts(view: View, arn: Arn, action: str) -> Facts | None:
    """A group's tags hold for its streams; the account's policies for all of them."""
    row = LOG_GROUP.get(view, arn.account, arn.region, group_of(arn))
    tags = row.tags if row is not None else {}
    held = policy(view, arn.account, arn.region)
    if held is None:
        return Facts(arn.account, tags, type="LogGroup")
    return Facts(arn.account, tags, held[0], type="LogGroup", text=held[1], principals=held[2])


SERVICE = Service("logs", kinds=[LOG_GROUP, LOG_STREAM, METRIC_FILTER, RESOURCE_POLICY], facts=_facts)
del _events
