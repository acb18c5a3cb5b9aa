"""Access Analyzer: policies checked and proved before they are attached."""

from __future__ import annotations

from bastide.kernel import Service
from bastide.services.accessanalyzer import check, validate
from bastide.services.accessanalyzer.noun import POLICY

SERVICE = Service("accessanalyzer", [POLICY], prefix="access-analyzer")

__all__ = ["SERVICE", "check", "validate"]
