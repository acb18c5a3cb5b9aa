"""Built-in algorithms on the Python that jobs have: formats, checkpoints, hyperparameters, hostile data."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from bastide.engines.images import environment, place_of


@pytest.mark.control("EXP-12", lacking="vision, language and time series are not there")
def test_the_algorithms_beside_the_libraries(tmp_path: Path) -> None:
    python = place_of("xgboost") / "environment" / "bin" / "python3"
    library = environment._TOOLKIT / "library"
    program = Path(__file__).with_name("inside.py")
    done = subprocess.run(
        [python, "-B", program, library, tmp_path / "ml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert json.loads(done.stdout.splitlines()[-1])["refused"] > 300
