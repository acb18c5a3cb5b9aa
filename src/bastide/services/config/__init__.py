"""AWS Config: rules of one's own, which a function evaluates by the clock, and what they found.

Nothing is recorded here of how resources are configured: there are no recorders, so rules are periodic.
Source: AWS Config API Reference and Developer Guide.
"""

from bastide.kernel import Service
from bastide.services.config import evaluation as _evaluation  # declares the operations on what was found
from bastide.services.config.rule import RULE, facts
from bastide.services.config.running import Evaluator

SERVICE = Service("config", kinds=[RULE], facts=facts)

__all__ = ["SERVICE", "Evaluator"]

del _evaluation
