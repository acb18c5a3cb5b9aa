"""Amazon SNS: topics, subscriptions, and messages that reach them.

Source: Amazon SNS API Reference and Developer Guide.
"""

from bastide.kernel import Service
from bastide.services.sns import publishing  # noqa: F401 - its operations
from bastide.services.sns.handing import Sender
from bastide.services.sns.links import Links
from bastide.services.sns.sending import Post
from bastide.services.sns.signing import Signer
from bastide.services.sns.topic import TOPIC, facts

SERVICE = Service("sns", kinds=[TOPIC], facts=facts)

__all__ = ["SERVICE", "Links", "Post", "Sender", "Signer"]
