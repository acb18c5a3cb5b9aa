"""EventBridge: buses, rules, schedules, and delivery to what exists here.

Source: Amazon EventBridge API Reference and User Guide.
"""

from bastide.kernel import Service
from bastide.services.events.bus import BUS
from bastide.services.events.delivery import Rules
from bastide.services.events.rule import RULE

SERVICE = Service("events", kinds=[BUS, RULE])

__all__ = ["SERVICE", "Rules"]
