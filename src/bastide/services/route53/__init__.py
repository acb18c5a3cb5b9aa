"""Route 53: private hosted zones, which the DNS of VPCs answers by. Source: Route 53 API Reference."""

from __future__ import annotations

from bastide.kernel import Service
from bastide.services.route53 import zone as _zone
from bastide.services.route53.noun import ZONE, facts
from bastide.services.route53.record import zones_of

SERVICE = Service("route53", kinds=[ZONE], facts=facts)
del _zone

__all__ = ["SERVICE", "zones_of"]
