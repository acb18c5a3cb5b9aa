"""Runs in a processing job: what two models say of the same rows.

Input: ``first`` and ``second`` (each a model.tar.gz), ``sample`` (rows as text/csv). Output: result.json with `equal`,
`rows` and, where they differ, `largest`; or `error`. A model is loaded and asked as its own inference code does it.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import sys
import tarfile
import traceback
from pathlib import Path
from typing import Any

import joblib
import numpy

BASE = Path("/opt/ml/processing")


def unpacked(name: str) -> Path:
    """The model's folder."""
    folder = BASE / "work" / name
    folder.mkdir(parents=True)
    [packed] = [path for path in (BASE / name).iterdir() if path.is_file()]
    with tarfile.open(packed, "r:gz") as tar:
        tar.extractall(folder, filter="data")
    return folder


def code_of(folder: Path, name: str) -> Any:
    """The model's inference module, None if it brings none."""
    program = os.environ.get("PROGRAM", "")
    for path in (folder / "code" / program, folder / program):
        if program and path.is_file():
            spec = importlib.util.spec_from_file_location(f"inference_{name}", path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.path.insert(0, str(path.parent))
            try:
                spec.loader.exec_module(module)
            finally:
                sys.path.pop(0)
            return module
    return None


def said(name: str, text: str) -> Any:
    """A model's predictions."""
    folder = unpacked(name)
    code = code_of(folder, name)
    if hasattr(code, "model_fn"):
        model = code.model_fn(str(folder))
    else:
        [path] = [one for one in sorted(folder.rglob("*")) if one.suffix in (".joblib", ".pkl", ".pickle")][:1]
        model = joblib.load(path)
    data = (
        code.input_fn(text, "text/csv")
        if hasattr(code, "input_fn")
        else numpy.loadtxt(io.StringIO(text), delimiter=",", ndmin=2)
    )
    if hasattr(code, "predict_fn"):
        return numpy.asarray(code.predict_fn(data, model))
    return numpy.asarray(model.predict_proba(data) if hasattr(model, "predict_proba") else model.predict(data))


def main() -> None:
    """Writes result.json."""
    text = "".join(path.read_text() for path in sorted((BASE / "sample").rglob("*")) if path.is_file())
    found: dict[str, Any]
    try:
        first, second = said("first", text), said("second", text)
        numbers = first.dtype.kind in "fiub"
        same = first.shape == second.shape and numpy.array_equal(first, second, equal_nan=first.dtype.kind == "f")
        found = {"equal": bool(same), "rows": len(first)}
        if not same and numbers and first.shape == second.shape:
            found["largest"] = float(numpy.nanmax(numpy.abs(first.astype(float) - second.astype(float))))
    except Exception:
        found = {"error": traceback.format_exc(limit=2)[-500:]}
    (BASE / "out").mkdir(exist_ok=True)
    (BASE / "out" / "result.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
