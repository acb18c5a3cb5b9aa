"""Resource Groups Tagging API: the tags of all services' resources in one place.

Source: AWS Resource Groups Tagging API Reference; IAM prefix ``tag``.
"""

from bastide.kernel import Service
from bastide.services.resourcegroupstaggingapi import finding, tagging
from bastide.services.resourcegroupstaggingapi.noun import TAGGED

SERVICE = Service("resourcegroupstaggingapi", kinds=[TAGGED], prefix="tag", event_source="tagging.amazonaws.com")

__all__ = ["SERVICE", "finding", "tagging"]
