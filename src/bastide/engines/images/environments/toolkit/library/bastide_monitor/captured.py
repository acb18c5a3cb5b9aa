"""A captured record as scripts get it: the classes of the developer guide, "model-monitor-pre-and-post-processing"."""

from __future__ import annotations

from typing import Any


class EventMetadata:
    """Which call it was, and when."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.event_id = told.get("eventId")
        self.event_time = told.get("inferenceTime")
        self.custom_attribute = told.get("customAttributes")
        self.inference_id = told.get("inferenceId")


class EventData:
    """A request or an answer."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.encoding = told.get("encoding")
        self.data = told.get("data")
        self.observedContentType = told.get("observedContentType")
        self.mode = told.get("mode")

    def as_dict(self) -> dict[str, Any]:
        """As it was captured, and perhaps changed."""
        return {"encoding": self.encoding, "data": self.data, "observedContentType": self.observedContentType}


_PARTS = {
    "endpointInput": "endpoint_input",
    "endpointOutput": "endpoint_output",
    "batchTransformOutput": "batch_transform_output",
}


class CapturedData:
    """A call."""

    def __init__(self, event_dict: dict[str, Any]) -> None:
        self.event_dict = event_dict
        self.event_metadata = EventMetadata(event_dict.get("eventMetadata") or {})
        self.event_version = event_dict.get("eventVersion")
        self.ground_truth = EventData(truth) if (truth := event_dict.get("groundTruthData")) else None
        captured = event_dict.get("captureData") or {}
        self.endpoint_input = self.endpoint_output = self.batch_transform_output = None
        for name, attribute in _PARTS.items():
            if name in captured:
                setattr(self, attribute, EventData(captured[name]))

    def as_dict(self) -> dict[str, Any]:
        """The record, with what a script changed of its parts."""
        captured = self.event_dict.get("captureData") or {}
        for name, attribute in _PARTS.items():
            part = getattr(self, attribute)
            if name in captured and part is not None:
                captured[name] = part.as_dict()
        return self.event_dict

    def __str__(self) -> str:
        return str(self.as_dict())
