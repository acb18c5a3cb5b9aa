"""What botocore makes anew for every client, and words anew for every call, made once a process.

A test makes a client wherever it needs one. Each would describe its service once more as a class, load the authority once
more and shake hands once more: three quarters of what it costs. All of it is the same for all clients of a platform; who
asks, what is signed and what is sent are not kept.
"""

from __future__ import annotations

from functools import lru_cache, partialmethod
from typing import Any

import botocore.useragent
from botocore.client import ClientCreator
from botocore.endpoint import EndpointCreator
from botocore.httpsession import URLLib3Session

_MOST = 64
_CLASSES: dict[str, Any] = {}
_CONNECTIONS: dict[str, URLLib3Session] = {}
"""Pools of connections by how they are made, the file of the authority among it; each platform has its own."""
_make = ClientCreator._create_client_class


def _class(self: ClientCreator, service_name: str, service_model: Any) -> Any:
    if service_name not in _CLASSES:
        _CLASSES[service_name] = _make(self, service_name, service_model)
    return _CLASSES[service_name]


def _connections(**how: Any) -> URLLib3Session:
    words = repr(sorted(how.items()))
    found = _CONNECTIONS.pop(words, None)
    _CONNECTIONS[words] = found = found or URLLib3Session(**how)
    while len(_CONNECTIONS) > _MOST:
        del _CONNECTIONS[next(iter(_CONNECTIONS))]
    return found


def keep() -> None:
    """From here on, in this process."""
    ClientCreator._create_client_class = _class
    EndpointCreator.create_endpoint = partialmethod(EndpointCreator.create_endpoint, http_session_cls=_connections)
    plain = botocore.useragent.sanitize_user_agent_string_component
    botocore.useragent.sanitize_user_agent_string_component = lru_cache(4096)(plain)
