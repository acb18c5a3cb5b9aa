"""Service Catalog: portfolios of products that people launch without the rights to make what is in them.

Source: Service Catalog API Reference and Administrator Guide.
"""

from __future__ import annotations

from bastide.engines.workflow import Flow
from bastide.kernel import Calls, Service
from bastide.services.servicecatalog import constraint, order, portfolio, product, provisioned, sharing
from bastide.services.servicecatalog.launching import Launch, subscribe
from bastide.services.servicecatalog.noun import (
    CONSTRAINT,
    PORTFOLIO,
    PRODUCT,
    PROVISIONED,
    RECORD,
    TAG_OPTION,
)

__all__ = ["SERVICE", "flows", "subscribe"]

_DECLARED = (constraint, order, portfolio, product, provisioned, sharing)

SERVICE = Service("servicecatalog", kinds=[CONSTRAINT, PORTFOLIO, PRODUCT, PROVISIONED, RECORD, TAG_OPTION])


def flows(calls: Calls) -> list[Flow]:
    """The workflow of records."""
    return [Launch(calls).flow()]
