"""Systems Manager: Parameter Store, and Automation.

Source: AWS Systems Manager API Reference and User Guide, "AWS Systems Manager Parameter Store", "AWS Systems Manager
Automation".
"""

from bastide.engines.workflow import Flow
from bastide.kernel import Calls, Service
from bastide.services.ssm import automation, changing, document, labels, reading, tags
from bastide.services.ssm.automation import EXECUTION
from bastide.services.ssm.document import DOCUMENT
from bastide.services.ssm.parameter import PARAMETER, facts
from bastide.services.ssm.running import Automation, subscribe

SERVICE = Service("ssm", [PARAMETER, DOCUMENT, EXECUTION], facts=facts)

__all__ = ["SERVICE", "automation", "changing", "document", "flows", "labels", "reading", "subscribe", "tags"]


def flows(calls: Calls) -> list[Flow]:
    """The workflow of automations."""
    return [Automation(calls).flow()]
