"""`scripts/authorization.py`, for the tests that hold the registry against it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def _load() -> ModuleType:
    path = Path(__file__).parents[2] / "scripts" / "authorization.py"
    spec = importlib.util.spec_from_file_location("authorization", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["authorization"] = module
    spec.loader.exec_module(module)
    return module


authorization = _load()
