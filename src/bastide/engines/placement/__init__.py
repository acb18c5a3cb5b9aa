"""Where a job runs: what an instance type grants on this machine, and who has booked what.

One machine runs everything, so an instance type is a limit and not a computer: memory is bounded by the type and by the
machine, whichever is less; processors likewise. Memory is booked, several times over by default since jobs seldom fill what
their type grants and the control group ends the one that does; who finds the machine booked out waits in line.
"""

from bastide.engines.placement.machine import Claim, Grant, Placement
from bastide.engines.placement.types import InstanceType, instance_type

__all__ = ["Claim", "Grant", "InstanceType", "Placement", "instance_type"]
