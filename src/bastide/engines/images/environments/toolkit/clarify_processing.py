"""Clarify's analyses: the program that the image sagemaker-clarify-processing runs.

Runs in the sandbox of a processing job and imports nothing of Bastide. What it is to do stands in its analysis
configuration.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.append("/opt/bastide/library")

from bastide_clarify.analysis import run
from bastide_monitor.job import main

BASE = Path("/opt/ml")
analyse = run


def output(base: Path) -> str:
    """Where the results go: where the job's output is taken from."""
    path = base / "config" / "processingjobconfig.json"
    told = json.loads(path.read_text()) if path.is_file() else {}
    outputs = (told.get("ProcessingOutputConfig") or {}).get("Outputs") or []
    return str(outputs[0]["S3Output"]["LocalPath"]) if outputs else str(base / "processing" / "output")


if __name__ == "__main__":
    sys.exit(main({"output_path": output(BASE), **os.environ}, BASE, analyse))
