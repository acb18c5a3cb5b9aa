"""Control Tower: controls of organisational units, each a real statement of a service control policy.

Source: Control Tower API Reference; Control Tower Controls Reference Guide.
"""

from __future__ import annotations

from bastide.kernel import Service
from bastide.services.controltower import enabled as _enabled
from bastide.services.controltower import operation as _operation
from bastide.services.controltower import tag as _tag
from bastide.services.controltower.noun import CONTROL, OPERATION

SERVICE = Service("controltower", kinds=[CONTROL, OPERATION])
del _enabled, _operation, _tag

__all__ = ["SERVICE"]
