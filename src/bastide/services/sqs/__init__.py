"""Amazon SQS: queues, and messages that are not lost.

Source: Amazon SQS API Reference and Developer Guide.
"""

from bastide.kernel import Service
from bastide.services.sqs import moving, receiving, sending  # noqa: F401 - their operations
from bastide.services.sqs.queue import QUEUE
from bastide.services.sqs.upkeep import Upkeep
from bastide.services.sqs.waiting import Queues

SERVICE = Service("sqs", kinds=[QUEUE])

__all__ = ["SERVICE", "Queues", "Upkeep"]
