"""Amazon Data Firehose: records gathered into objects of S3.

Source: Amazon Data Firehose API Reference and Developer Guide.
"""

from bastide.kernel import Service
from bastide.services.firehose.flushing import Flusher
from bastide.services.firehose.stream import STREAM

SERVICE = Service("firehose", kinds=[STREAM])

__all__ = ["SERVICE", "Flusher"]
