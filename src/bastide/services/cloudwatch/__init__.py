"""CloudWatch: metrics kept, reckoned with and watched.

Source: Amazon CloudWatch API Reference and User Guide.
"""

from bastide.kernel import Service
from bastide.services.cloudwatch import query as _query  # declares the reading operations
from bastide.services.cloudwatch.alarm import ALARM
from bastide.services.cloudwatch.dashboard import DASHBOARD
from bastide.services.cloudwatch.evaluation import Watch
from bastide.services.cloudwatch.metric import METRIC
from bastide.services.cloudwatch.state import ACTION
from bastide.services.cloudwatch.telling import Telling

SERVICE = Service("cloudwatch", kinds=[METRIC, ALARM, DASHBOARD], event_source="monitoring.amazonaws.com")

__all__ = ["ACTION", "SERVICE", "Telling", "Watch"]
del _query
