"""Plain scikit-learn and XGBoost, in the environments that jobs have, without any job."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from bastide.engines.images import place_of

ACCOUNT = "683313688378.dkr.ecr.us-east-1.amazonaws.com"
XGBOOST = f"{ACCOUNT}/sagemaker-xgboost:1.7-1"


def plain(environment: str, script: str, given: bytes = b"") -> Any:
    """What a script prints as JSON, on the Python of an environment; it reads what is given from its input."""
    python = place_of(environment) / "environment" / "bin" / "python3"
    done = subprocess.run([python, "-c", script], input=given, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout.splitlines()[-1])
