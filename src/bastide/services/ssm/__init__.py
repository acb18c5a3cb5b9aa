"""Systems Manager Parameter Store.

Source: AWS Systems Manager API Reference and User Guide, "AWS Systems Manager Parameter Store".
"""

from bastide.kernel import Service
from bastide.services.ssm import changing, labels, reading, tags
from bastide.services.ssm.parameter import PARAMETER, facts

SERVICE = Service("ssm", [PARAMETER], facts=facts)

__all__ = ["SERVICE", "changing", "labels", "reading", "tags"]
