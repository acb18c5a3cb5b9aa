"""Measured values: written without waiting, kept at four resolutions as CloudWatch keeps them, read as summaries.

Source: Amazon CloudWatch User Guide, "Metrics retention", "Statistics definitions".
"""

from bastide.engines.telemetry.meter import Dimensions, Full, Meter, Metric, Point
from bastide.engines.telemetry.summary import Summary

__all__ = ["Dimensions", "Full", "Meter", "Metric", "Point", "Summary"]
