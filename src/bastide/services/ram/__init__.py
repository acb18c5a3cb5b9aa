"""Resource Access Manager: resources of an account that others may use. Source: RAM API Reference and User Guide."""

from __future__ import annotations

from bastide.kernel import Service
from bastide.services.ram import share as _share
from bastide.services.ram.noun import INVITATION, SHARE, facts

SERVICE = Service("ram", kinds=[SHARE, INVITATION], facts=facts)
del _share

__all__ = ["SERVICE"]
