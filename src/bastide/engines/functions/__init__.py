"""Functions: execution environments that come when they are called, stay warm, and are let go of.

An environment is a program that asks the Lambda Runtime API for one event at a time. How it is started, and what it runs
in, whoever invokes says.
"""

from bastide.engines.functions.environment import (
    Environment,
    Invocation,
    Launched,
    Outcome,
    Process,
    Unavailable,
)
from bastide.engines.functions.pool import Full, Functions
from bastide.engines.functions.runtime import MOST_ANSWER, Runtime

__all__ = [
    "MOST_ANSWER",
    "Environment",
    "Full",
    "Functions",
    "Invocation",
    "Launched",
    "Outcome",
    "Process",
    "Runtime",
    "Unavailable",
]
