"""EventBridge: buses, rules, schedules, and delivery to what exists here.

Source: Amazon EventBridge API Reference and User Guide.
"""

from bastide.kernel import Service
from bastide.services.events.archive import ARCHIVE
from bastide.services.events.bus import BUS
from bastide.services.events.connection import CONNECTION, DESTINATION
from bastide.services.events.delivery import Rules
from bastide.services.events.recorded import Recorded
from bastide.services.events.replay import REPLAY
from bastide.services.events.rule import RULE

SERVICE = Service("events", kinds=[BUS, RULE, ARCHIVE, REPLAY, CONNECTION, DESTINATION])

__all__ = ["SERVICE", "Recorded", "Rules"]
