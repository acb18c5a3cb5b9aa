"""What is kept of invocations: metrics, and the captured data.

Source: SageMaker developer guide, "Amazon SageMaker AI endpoint invocation metrics".
"""

from __future__ import annotations

from typing import Any, Final

from bastide.engines.serving import Answer, Invocation, Loading, Lost, NoModel, NotLoaded, NotReady, Slow, Throttled
from bastide.engines.telemetry import Dimensions, Meter
from bastide.services.sagemaker.capture import Capture, Line
from bastide.services.sagemaker.model import MODEL

NAMESPACE: Final = "AWS/SageMaker"


def counted(outcome: Answer | BaseException) -> tuple[int, bool]:
    """Of a call the status that it counts under (0: its caller did not wait for one), and whether the model is at fault.

    What the caller got wrong and what was throttled never reached a container, so no error of the model is counted. A
    container that cannot be reached, breaks off or takes too long is one (the guide: "low-level socket errors, malformed
    HTTP responses, and request timeouts"), and what its caller is told is an error of the server.
    """
    if isinstance(outcome, NotLoaded):
        outcome = outcome.answer
    if isinstance(outcome, Answer):
        return outcome.status, not 200 <= outcome.status < 300
    if isinstance(outcome, NotReady):
        return (400, False) if outcome.missing else (503, True)
    if isinstance(outcome, NoModel):
        return 400, False
    if isinstance(outcome, Throttled | Loading):
        return 429, False
    if isinstance(outcome, Lost | Slow):
        return 500, True
    return (500, False) if isinstance(outcome, Exception) else (0, False)


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
                    one.get("vpc") if not one["isolated"] else None,
                )

    def answered(
        self,
        variant: str,
        call: Invocation,
        outcome: Answer | BaseException,
        seconds: float,
        servers: int,
        shadow: bool,
    ) -> None:
        """See `serving.Observer`."""
        now, dimensions = self._clock(), self._dimensions[variant]

        def record(name: str, value: float, unit: str = "None") -> None:
            self._meter.record(self._account, self._region, NAMESPACE, dimensions, name, value, unit, now)

        status, at_fault = counted(outcome)
        record("Invocations", 1.0)
        if servers:
            record("InvocationsPerInstance", 1.0 / servers)
        record("Invocation4XXErrors", float(400 <= status < 500))
        record("Invocation5XXErrors", float(status >= 500))
        record("InvocationModelErrors", float(at_fault))
        if isinstance(outcome, Answer):
            model = (seconds - call.began) * 1e6
            record("ModelLatency", model, "Microseconds")
            if call.at and not shadow:
                record("OverheadLatency", max(0.0, now - call.at - model), "Microseconds")
            if call.began:
                record("ModelSetupTime", call.began * 1e6, "Microseconds")
            line = self._lines.get(variant)
            if line is not None and 200 <= outcome.status < 300:
                line.take(call, outcome, now)
