"""EventBridge Scheduler: schedules that invoke targets as a role.

Source: EventBridge Scheduler API Reference and User Guide.
"""

from bastide.kernel import Service
from bastide.services.scheduler.group import GROUP
from bastide.services.scheduler.running import Clockwork
from bastide.services.scheduler.schedule import SCHEDULE, facts

SERVICE = Service("scheduler", kinds=[GROUP, SCHEDULE], facts=facts)

__all__ = ["SERVICE", "Clockwork"]
