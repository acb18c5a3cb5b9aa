"""Service Catalog: portfolios of products that people launch without the rights to make what is in them.

Source: Service Catalog API Reference and Administrator Guide.
"""

from __future__ import annotations

from bastide.engines.workflow import Flow, Workflows
from bastide.kernel import Calls, Service
from bastide.kernel.outbox import Outbox
from bastide.services.servicecatalog import action, constraint, order, plan, portfolio, product, provisioned, sharing
from bastide.services.servicecatalog.launching import Launch
from bastide.services.servicecatalog.launching import subscribe as _subscribe
from bastide.services.servicecatalog.noun import (
    ACTION,
    CONSTRAINT,
    PLAN,
    PORTFOLIO,
    PRODUCT,
    PROVISIONED,
    RECORD,
    TAG_OPTION,
)

__all__ = ["SERVICE", "flows", "subscribe"]

_DECLARED = (action, constraint, order, plan, portfolio, product, provisioned, sharing)

SERVICE = Service(
    "servicecatalog", kinds=[ACTION, CONSTRAINT, PLAN, PORTFOLIO, PRODUCT, PROVISIONED, RECORD, TAG_OPTION]
)


def flows(calls: Calls) -> list[Flow]:
    """The workflows of records and plans."""
    return [Launch(calls).flow(), plan.Planning(calls).flow()]


def subscribe(outbox: Outbox, calls: Calls, workflows: Workflows) -> None:
    """What was asked for begins once the asking is on the disk."""
    _subscribe(outbox, calls, workflows)
    plan.subscribe(outbox, calls, workflows)
