"""What a target is given of an event. Source: EventBridge User Guide, "Transforming Amazon EventBridge target input"."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from bastide.domain import Refused
from bastide.services.events.target import PLACEHOLDER

_QUOTE: Final = re.compile(r'(?<!\\)"')
_STEP: Final = re.compile(r"\.([\w-]+)|\['([^']+)'\]|\[(\d+)\]")


def shaped(event: Mapping[str, Any], target: Mapping[str, Any], *, rule: str = "", ingested: str = "") -> str:
    """What a target is given of an event: text. rule: its ARN. ingested: when the event came, ISO.

    Raises Refused (InvalidJson) if a template that is a JSON document becomes none.
    """
    if target.get("Input"):
        return str(target["Input"])
    if target.get("InputPath"):
        return _compact(at(event, target["InputPath"]))
    change = target.get("InputTransformer")
    if not change:
        return _compact(event)
    found = {name: at(event, path) for name, path in (change.get("InputPathsMap") or {}).items()}
    reserved: dict[str, Any] = {
        "aws.events.event.json": event, "aws.events.event": _described(event), "aws.events.rule-arn": rule,
        "aws.events.rule-name": rule.rpartition("/")[2], "aws.events.event.ingestion-time": ingested,
    }  # fmt: skip

    template = str(change["InputTemplate"])
    document = template.lstrip().startswith("{")

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        if name not in found and name not in reserved:
            return match[0]
        value = found[name] if name in found else reserved[name]
        value = "" if value is None else value
        if len(_QUOTE.findall(match.string[: match.start()])) % 2:  # within a text of the template
            if isinstance(value, str):
                return json.dumps(value)[1:-1]
            # An object breaks a document's text, and loses its quotation marks in a sentence.
            return _compact(value) if document else _compact(value).replace('"', "")
        return _compact(value)

    text = PLACEHOLDER.sub(fill, template)
    if document:
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            raise Refused("InvalidJson", "What the input transformer made of the event is no JSON.") from None
    return text


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _described(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event without its detail."""
    return {"detailType" if key == "detail-type" else key: value for key, value in event.items() if key != "detail"}


def at(event: Any, path: str) -> Any:
    """What stands at a JSON path of an event; None if nothing does."""
    for name, quoted, number in _STEP.findall(path):
        if number:
            event = event[int(number)] if isinstance(event, list) and int(number) < len(event) else None
        else:
            event = event.get(name or quoted) if isinstance(event, dict) else None
    return event
