"""Runs the images' programs here, on folders of a test's own."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bastide.engines.images

TOOLKIT = Path(bastide.engines.images.__file__).parent / "environments" / "toolkit"
if str(TOOLKIT / "library") not in sys.path:
    sys.path.append(str(TOOLKIT / "library"))
OPTIONS: dict[str, Any] = {"csv": {"header": True}, "json": {"lines": True}}


@dataclass
class Done:
    """How a job ended."""

    status: int
    message: str
    reports: dict[str, Any]
    metrics: list[Any]


def module(name: str) -> Any:
    """Of the images' library."""
    return importlib.import_module(name)


def written(path: Path, text: str | bytes) -> str:
    """A file; where it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def analyse(base: Path, kind: str, *parts: str | bytes, baseline: tuple[Any, Any] | None = None, **more: str) -> Done:
    """What the analyzer makes of files of a format. baseline: constraints and statistics."""
    for number, text in enumerate(parts):
        written(base / "data" / f"part-{number}", text)
    given = {
        "dataset_format": json.dumps({kind: OPTIONS.get(kind, {})}),
        "dataset_source": str(base / "data"),
        "output_path": str(base / "reports"),
        "publish_cloudwatch_metrics": "Disabled",
    }
    for name, told in zip(("constraints", "statistics"), baseline or (), strict=False):
        if told is not None:
            given[f"baseline_{name}"] = written(base / f"{name}.json", json.dumps(told))
    return done(base, "model_monitor_analyzer", {**given, **more})


def done(base: Path, program: str, given: dict[str, str]) -> Done:
    """How a program ends."""
    spec = importlib.util.spec_from_file_location(program, TOOLKIT / f"{program}.py")
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    status = module("bastide_monitor.job").main(given, base, loaded.analyse)
    reports = Path(given["output_path"] or base)
    metrics = base / "output" / "metrics" / "cloudwatch" / "cloudwatch_metrics.jsonl"
    return Done(
        status,
        (base / "output" / "message").read_text(),
        {one.name: json.loads(one.read_text()) for one in reports.glob("*.json")},
        [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else [],
    )
