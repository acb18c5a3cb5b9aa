"""Searching hyperparameters: what to try next, what to stop, when there is no more to gain.

Every answer is a function of what is given (ranges, seed, number, what the earlier trials were and gave), so whoever keeps
those can ask again and gets the same. Strategies and rules as SageMaker's automatic model tuning has them (developer
guide, "automatic-model-tuning-how-it-works", "-early-stopping", "-completion-criteria").
"""

from bastide.engines.tuning.optimiser import Optimiser, OptimiserError
from bastide.engines.tuning.search import Observation, count_of, propose
from bastide.engines.tuning.space import Parameter, Space
from bastide.engines.tuning.stopping import Hyperband, converged, median_rule, not_improving

__all__ = [
    "Hyperband",
    "Observation",
    "Optimiser",
    "OptimiserError",
    "Parameter",
    "Space",
    "converged",
    "count_of",
    "median_rule",
    "not_improving",
    "propose",
]
