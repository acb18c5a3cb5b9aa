"""The front door: from a request on the wire to a call, and from its output to an answer."""

from bastide.frontdoor.pipeline import FrontDoor
from bastide.frontdoor.receive import Listener, Received

__all__ = ["FrontDoor", "Listener", "Received"]
