"""CloudTrail: what was recorded, looked up and delivered. The recording itself is the kernel's and cannot be stopped."""

from bastide.kernel import Service
from bastide.services.cloudtrail import tagging
from bastide.services.cloudtrail.delivery import Delivery
from bastide.services.cloudtrail.event import EVENT
from bastide.services.cloudtrail.logging import Logging
from bastide.services.cloudtrail.trail import TRAIL

SERVICE = Service("cloudtrail", kinds=[EVENT, TRAIL])

__all__ = ["SERVICE", "Delivery", "Logging", "tagging"]
