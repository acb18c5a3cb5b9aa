"""Durable workflows: work in named steps that goes on after any process died between, or in, any two of them.

An execution is a row, every transition is one transaction that moves the row and adds to its history. A row that runs is
leased to one owner, and every transition checks that the lease is still the owner's; whoever lost it writes nothing more.
A row that waits costs nothing but itself.
"""

from bastide.engines.workflow.engine import Workflows
from bastide.engines.workflow.flow import Failed, Failure, Flow, Run, Step, Wait
from bastide.engines.workflow.points import reach

__all__ = ["Failed", "Failure", "Flow", "Run", "Step", "Wait", "Workflows", "reach"]
