"""Ground truth merged with predictions: captured records that have one get it, and no others are left.

Developer guide, "model-monitor-model-quality-merge": by `inferenceId` where a captured record has one, else by `eventId`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bastide_monitor import Unfit
from bastide_monitor.job import Job, say
from bastide_monitor.records import Dataset, Record, cells, files, lines, parsed

_ID, _TIME = "SageMakerInferenceId", "SageMakerInferenceTime"


def run(job: Job) -> None:
    """Writes the merged records to where they lay below the dataset. Raises Unfit."""
    source = Path(job.needed("dataset_source"))
    truths = _truths(Path(job.needed("ground_truth_source")))
    data = Dataset(source, _format(job, source), job.given.get("start_time"), job.given.get("end_time"))
    merged = seen = 0
    for path in files(source):
        records = data.events(path) if data.captured else _transformed(data, path)
        target = job.output / (path.relative_to(source) if source.is_dir() else path.name)
        target = target if data.captured else target.with_name(f"{target.name}.jsonl")
        file = None
        try:
            for record in records:
                seen += 1
                about = record.get("eventMetadata") or {}
                truth = truths.get(str(about.get("inferenceId") or about.get("eventId")))
                if truth is None:
                    continue
                if file is None:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    file = target.open("w", encoding="utf-8")
                file.write(json.dumps({**record, "groundTruthData": truth}, ensure_ascii=False) + "\n")
                merged += 1
        finally:
            if file is not None:
                file.close()
    say(f"{merged} of {seen} captured records have one of {len(truths)} ground truths")
    if not merged:
        raise Unfit(f"There is no merged data: none of {seen} captured records has one of {len(truths)} ground truths.")


def _format(job: Job, source: Path) -> Any:
    """As `dataset_format` has it; without one captured data, or the answers of a transform job, as they look."""
    if told := job.given.get("dataset_format"):
        return parsed(told, "The environment variable dataset_format")
    for path in files(source):
        for line in lines(path):
            if line.strip():
                try:
                    one = json.loads(line)
                except (ValueError, RecursionError):
                    return {"csv": {}}
                if isinstance(one, dict):
                    return {"sagemakerCaptureJson": {}} if "captureData" in one else {"json": {"lines": True}}
                return {"csv": {}}
    return {"sagemakerCaptureJson": {}}


def _truths(folder: Path) -> dict[str, Any]:
    """By their ids; of two with the same the later one, as their paths go. Raises Unfit."""
    found: dict[str, Any] = {}
    for path in files(folder):
        for number, line in enumerate(lines(path), 1):
            if not line.strip():
                continue
            one = parsed(line, where := f"Line {number} of {path.name}")
            try:
                id, truth = one["eventMetadata"]["eventId"], one["groundTruthData"]
                truth["data"], truth["encoding"]
            except (TypeError, KeyError):
                raise Unfit(f"{where} is not a ground truth.") from None
            found[str(id)] = {"data": truth["data"], "encoding": truth["encoding"]}
    return found


def _transformed(data: Dataset, path: Path) -> Iterator[Record]:
    """What a transform job with GenerateInferenceId answered, as captured records. Raises Unfit."""
    if data.format == "csv":
        for number, row in enumerate(cells(lines(path), path.name)):
            if number == 0 and data.header:
                continue
            if len(row) < 3:
                raise Unfit(f"{path.name}: a record has no inference id and time behind it.")
            yield _captured(",".join(row[:-2]), "CSV", row[-2].strip(), row[-1].strip())
    elif data.format == "json":
        for number, line in enumerate(lines(path), 1):
            if line.strip():
                one = parsed(line, where := f"Line {number} of {path.name}")
                if not isinstance(one, dict) or _ID not in one:
                    raise Unfit(f"{where} has no {_ID}.")
                rest = {name: value for name, value in one.items() if name not in (_ID, _TIME)}
                yield _captured(json.dumps(rest), "JSON", str(one[_ID]), str(one.get(_TIME, "")))
    else:
        raise Unfit(f"Ground truth is not merged with {data.format}.")


def _captured(text: str, encoding: str, id: str, at: str) -> Record:
    kind = "text/csv" if encoding == "CSV" else "application/json"
    part = {"observedContentType": kind, "mode": "OUTPUT", "data": text, "encoding": encoding}
    told = {"eventId": id, "inferenceTime": at or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
    return {"captureData": {"batchTransformOutput": part}, "eventMetadata": told, "eventVersion": "0"}
