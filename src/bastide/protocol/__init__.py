"""AWS's wire protocols from the server's side, as botocore's models describe each service.

json 1.0 and 1.1, query, ec2, rest-json, rest-xml and smithy-rpc-v2-cbor, in both directions.
"""

from bastide.protocol import calling as _calling  # noqa: F401 - a codec of its own
from bastide.protocol import notebooks as _notebooks  # noqa: F401 - a codec of its own
from bastide.protocol import queues as _queues  # noqa: F401 - a codec of its own
from bastide.protocol import repositories as _repositories  # noqa: F401 - a codec of its own
from bastide.protocol import tracking as _tracking  # noqa: F401 - a codec of its own
from bastide.protocol.calling import is_call
from bastide.protocol.codec import MODELS, Codec, codec, services_for_signing_name
from bastide.protocol.head import Answer, Head
from bastide.protocol.named import named, service_of
from bastide.protocol.operation import OperationCodec
from bastide.protocol.refusals import error_for

__all__ = [
    "MODELS",
    "Answer",
    "Codec",
    "Head",
    "OperationCodec",
    "codec",
    "error_for",
    "is_call",
    "named",
    "service_of",
    "services_for_signing_name",
]
