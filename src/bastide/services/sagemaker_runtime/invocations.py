"""The calls of endpoints, counted by the platform itself.

Source: SageMaker developer guide, "Amazon SageMaker AI endpoint invocation metrics".
"""

from __future__ import annotations

from bastide.domain import Arn
from bastide.engines.telemetry import Dimensions, Meter


class Invocations:
    """Counts the calls of endpoints: what `Serving` tells when one is over."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._places: dict[tuple[str, str], tuple[str, str, Dimensions]] = {}

    def _place(self, endpoint: str, variant: str) -> tuple[str, str, Dimensions]:
        found = self._places.get((endpoint, variant))
        if found is None:
            if len(self._places) > 10_000:
                self._places.clear()
            arn = Arn.parse(endpoint)
            dimensions = (("EndpointName", arn.resource.partition("/")[2]), ("VariantName", variant))
            found = self._places[endpoint, variant] = (arn.account, arn.region, dimensions)
        return found

    def __call__(self, endpoint: str, variant: str, instances: int, status: int, seconds: float) -> None:
        """A call is over. endpoint: its ARN. status: the model's answer, 0 if there was none."""
        account, region, dimensions = self._place(endpoint, variant)
        record = self._meter.record
        for name, value, unit in (
            ("Invocations", 1.0, "None"),
            ("InvocationsPerInstance", 1.0 / max(instances, 1), "None"),
            ("Invocation4XXErrors", float(400 <= status < 500), "None"),
            ("Invocation5XXErrors", float(status >= 500), "None"),
            ("InvocationModelErrors", float(not 200 <= status < 300), "None"),
            ("ModelLatency", seconds * 1e6, "Microseconds"),
        ):
            record(account, region, "AWS/SageMaker", dimensions, name, value, unit)

    def overhead(self, endpoint: str, variant: str, micros: float) -> None:
        """What the platform itself took for a call that was answered."""
        account, region, dimensions = self._place(endpoint, variant)
        self._meter.record(
            account, region, "AWS/SageMaker", dimensions, "OverheadLatency", max(micros, 0.0), "Microseconds"
        )
