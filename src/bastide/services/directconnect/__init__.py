"""Direct Connect: circuits as a record and as the operator declares them. Source: AWS Direct Connect API Reference."""

from __future__ import annotations

from bastide.kernel import Service
from bastide.services.directconnect import connection as _connection
from bastide.services.directconnect import gateway as _gateway
from bastide.services.directconnect import interface as _interface
from bastide.services.directconnect.noun import CONNECTION, GATEWAY, INTERFACE

SERVICE = Service("directconnect", kinds=[CONNECTION, INTERFACE, GATEWAY])
del _connection, _gateway, _interface

__all__ = ["SERVICE"]
