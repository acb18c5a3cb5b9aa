"""CloudWatch Logs: groups, streams, their lines.

Source: Amazon CloudWatch Logs API Reference.
"""

from __future__ import annotations

from bastide.domain import Arn
from bastide.kernel import Facts, Service
from bastide.services.logs import events as _events  # declares the operations on a stream's lines
from bastide.services.logs.group import LOG_GROUP, group_of
from bastide.services.logs.metric_filter import METRIC_FILTER
from bastide.services.logs.retention import Retention
from bastide.services.logs.stream import LOG_STREAM
from bastide.store import View

__all__ = ["LOG_GROUP", "LOG_STREAM", "SERVICE", "Retention"]


def _facts(view: View, arn: Arn, action: str) -> Facts | None:
    """A group's tags hold for its streams."""
    row = LOG_GROUP.get(view, arn.account, arn.region, group_of(arn))
    return Facts(arn.account, row.tags if row is not None else {}, type="LogGroup")


SERVICE = Service("logs", kinds=[LOG_GROUP, LOG_STREAM, METRIC_FILTER], facts=_facts)
del _events
