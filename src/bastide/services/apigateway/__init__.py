"""API Gateway: REST APIs before functions and endpoints, and the calls of them (``execute-api``).

Source: Amazon API Gateway REST API reference and Developer Guide.
"""

from __future__ import annotations

from bastide.kernel import Service
from bastide.services.apigateway import authorizer, calling, deployment, importing, method, model, noun, rest_api

__all__ = ["SERVICES"]

_DECLARED = (authorizer, deployment, importing, method, model, rest_api)

SERVICES = (
    Service("apigateway", kinds=[noun.REST_API], facts=noun.facts),
    Service("execute-api", kinds=[calling.INVOCATION], facts=calling.facts),
)
