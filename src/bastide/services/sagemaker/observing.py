"""What is kept of invocations: metrics, and the captured data.

Source: SageMaker developer guide, "Amazon SageMaker AI endpoint invocation metrics".
"""

from __future__ import annotations

from typing import Any, Final

from bastide.engines.serving import Answer, Invocation
from bastide.engines.telemetry import Dimensions, Meter
from bastide.services.sagemaker.capture import Capture, Line
from bastide.services.sagemaker.model import MODEL

NAMESPACE: Final = "AWS/SageMaker"


class Observing:
    """Told of every call of one deployment; see `serving.Observer`."""

    def __init__(self, capture: Capture, meter: Meter, arn: str, where: dict[str, str], plan: dict[str, Any]) -> None:
        """where: account, region and name of the endpoint."""
        self._meter = meter
        self._clock = capture.clock
        self._lines: dict[str, Line] = {}
        self._account, self._region = where["account"], where["region"]
        self._dimensions: dict[str, Dimensions] = {}
        config = plan["capture"]
        for one in (*plan["variants"], *plan["shadows"]):
            name = one["VariantName"]
            self._dimensions[name] = (("EndpointName", where["name"]), ("VariantName", name))
            if config and config.get("EnableCapture"):
                self._lines[name] = capture.line(
                    arn,
                    where,
                    name,
                    one["role"],
                    MODEL.arn(where["account"], where["region"], one["ModelName"]),
                    config,
                )

    def answered(
        self, variant: str, call: Invocation, answer: Answer | None, seconds: float, servers: int, shadow: bool
    ) -> None:
        """See `serving.Observer`."""
        now, dimensions = self._clock(), self._dimensions[variant]

        def record(name: str, value: float, unit: str = "None") -> None:
            self._meter.record(self._account, self._region, NAMESPACE, dimensions, name, value, unit, now)

        status = answer.status if answer is not None else 500
        record("Invocations", 1.0)
        if servers:
            record("InvocationsPerInstance", 1.0 / servers)
        record("Invocation4XXErrors", float(400 <= status < 500))
        record("Invocation5XXErrors", float(status >= 500))
        record("InvocationModelErrors", float(not 200 <= status < 300))
        if answer is not None:
            model = (seconds - call.began) * 1e6
            record("ModelLatency", model, "Microseconds")
            if call.at and not shadow:
                record("OverheadLatency", max(0.0, now - call.at - model), "Microseconds")
            if call.began:
                record("ModelSetupTime", call.began * 1e6, "Microseconds")
            line = self._lines.get(variant)
            if line is not None and 200 <= answer.status < 300:
                line.take(call, answer, now)
