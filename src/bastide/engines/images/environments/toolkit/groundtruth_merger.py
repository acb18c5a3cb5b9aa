"""Model Monitor's merger: the program that the image sagemaker-model-monitor-groundtruth-merger runs.

Runs in the sandbox of a processing job and imports nothing of Bastide.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.append("/opt/bastide/library")

from bastide_monitor import merge
from bastide_monitor.job import main

BASE = Path("/opt/ml")
analyse = merge.run

if __name__ == "__main__":
    sys.exit(main(os.environ, BASE, analyse))
