"""The one noun: a policy that is shown to the service and kept nowhere."""

from __future__ import annotations

from bastide.kernel import Kind

POLICY = Kind(
    "Policy", service="accessanalyzer", arn="policy/{}", arn_service="access-analyzer", tags=False, history=False
)
