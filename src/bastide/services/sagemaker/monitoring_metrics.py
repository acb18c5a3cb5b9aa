"""Values that the job of a monitoring schedule left for CloudWatch: put with its role, into the namespace of its kind.

Source: developer guide, "model-monitor-byoc-cloudwatch", "model-monitor-interpreting-cloudwatch". Where its pages differ,
the namespaces are those that published alarms and dashboards of Model Monitor look at.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.protocol import named
from bastide.services.sagemaker import archive
from bastide.services.sagemaker.session import RoleSession
from bastide.store import Row

_log = logging.getLogger("bastide.sagemaker")

_FOLDER: Final = "output/metrics/cloudwatch"
_PLAIN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MOST_BYTES: Final = 8 << 20
_MOST_VALUES: Final = 20_000
_AT_ONCE: Final = 1000
_KINDS: Final = {
    "DataQuality": "data-metrics",
    "ModelQuality": "model-metrics",
    "ModelBias": "bias-metrics",
    "ModelExplainability": "explainability-metrics",
}


def namespace(type: str, endpoint: str) -> str:
    """Where values of a monitoring job go."""
    return f"aws/sagemaker/{'Endpoints' if endpoint else 'ModelMonitoring'}/{_KINDS[type]}"


async def publish(session: RoleSession, row: Row, ml: Path) -> None:
    """Puts what a job left below `ml` (its ``/opt/ml``), a JSON object a line. What it left is its own doing: values that
    are none, and a role that may not put them, cost the job nothing, and are told in the platform's log."""
    if (row.doc.get("Environment") or {}).get("publish_cloudwatch_metrics") != "Enabled":
        return
    values = await asyncio.to_thread(_values, ml)
    for start in range(0, len(values), _AT_ONCE):
        told = {"Namespace": row.doc["_namespace"], "MetricData": values[start : start + _AT_ONCE]}
        try:
            await session.act("cloudwatch", "PutMetricData", named("cloudwatch", "PutMetricData", told))
        except Refused as refused:
            _log.warning("values of the monitoring job %s are not put: %s", row.name, refused)
            return


def _values(ml: Path) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    try:
        every = archive.files(archive.plain_folder(ml, _FOLDER), most_bytes=_MOST_BYTES)
        for _, path in every:
            with os.fdopen(os.open(path, _PLAIN), "rb") as file:
                for line in file.read(_MOST_BYTES).splitlines():
                    one = orjson.loads(line) if line.strip() else None
                    if isinstance(one, dict) and len(found) < _MOST_VALUES:
                        found.append(one)
    except (OSError, archive.Unfit, orjson.JSONDecodeError) as error:
        _log.warning("values that a monitoring job left are no JSON lines: %s", error)
    return found
