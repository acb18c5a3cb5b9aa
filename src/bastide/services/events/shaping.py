"""What a target is given of an event. Source: EventBridge User Guide, "Transforming Amazon EventBridge target input"."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from bastide.services.events.target import PLACEHOLDER

_QUOTE: Final = re.compile(r'(?<!\\)"')
_STEP: Final = re.compile(r"\.([\w-]+)|\['([^']+)'\]|\[(\d+)\]")


def shaped(event: Mapping[str, Any], target: Mapping[str, Any], *, rule: str = "", ingested: str = "") -> str:
    """What a target is given of an event: text. rule: its ARN. ingested: when the event came, ISO."""
    if target.get("Input"):
        return str(target["Input"])
    if target.get("InputPath"):
        return json.dumps(at(event, target["InputPath"]))
    change = target.get("InputTransformer")
    if not change:
        return json.dumps(event)
    found = {name: at(event, path) for name, path in (change.get("InputPathsMap") or {}).items()}
    reserved: dict[str, Any] = {
        "aws.events.event.json": event, "aws.events.event": event, "aws.events.rule-arn": rule,
        "aws.events.rule-name": rule.rpartition("/")[2], "aws.events.event.ingestion-time": ingested,
    }  # fmt: skip

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        if name not in found and name not in reserved:
            return match[0]
        value = found[name] if name in found else reserved[name]
        if len(_QUOTE.findall(match.string[: match.start()])) % 2:  # within a text of the template
            return json.dumps(value if isinstance(value, str) else json.dumps(value))[1:-1]
        return json.dumps(value)

    return PLACEHOLDER.sub(fill, change["InputTemplate"])


def at(event: Any, path: str) -> Any:
    """What stands at a JSON path of an event; None if nothing does."""
    for name, quoted, number in _STEP.findall(path):
        if number:
            event = event[int(number)] if isinstance(event, list) and int(number) < len(event) else None
        else:
            event = event.get(name or quoted) if isinstance(event, dict) else None
    return event
