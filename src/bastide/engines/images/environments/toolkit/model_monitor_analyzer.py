"""Model Monitor's analyzer: the program that the image sagemaker-model-monitor-analyzer runs.

Runs in the sandbox of a processing job and imports nothing of Bastide. What it is to do stands in its environment.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.append("/opt/bastide/library")

from bastide_monitor import Unfit, data_quality, model_quality
from bastide_monitor.job import Job, main

BASE = Path("/opt/ml")
ANALYSES = {"": data_quality, "DATA_QUALITY": data_quality, "MODEL_QUALITY": model_quality}


def analyse(job: Job) -> int | None:
    """How many violations there are. Raises Unfit."""
    kind = job.given.get("analysis_type", "").upper()
    if kind not in ANALYSES:
        raise Unfit(f"analysis_type is {' or '.join(filter(None, ANALYSES))}.")
    return ANALYSES[kind].run(job)


if __name__ == "__main__":
    sys.exit(main(os.environ, BASE, analyse))
