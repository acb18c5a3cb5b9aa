"""The model's side of the hosting contract: rows of features in, probabilities of denial out.

Runs inside the endpoint's sandbox, and is read by the evaluation job too, so that both predict in the same way.
"""
# mypy: ignore-errors

from __future__ import annotations

import io
import json
from pathlib import Path

import joblib
import pandas as pd


def model_fn(folder: str) -> dict:
    """What training left: the model, its features in their order, and the threshold of a denial."""
    return joblib.load(Path(folder) / "model.joblib")


def input_fn(body: str, content_type: str) -> pd.DataFrame:
    """CSV without a header, a row an application, the columns in the order of the model's features."""
    if content_type != "text/csv":
        raise ValueError(f"send text/csv, not {content_type}")
    return pd.read_csv(io.StringIO(body), header=None)


def predict_fn(rows: pd.DataFrame, kept: dict) -> dict:
    """Probabilities, and which of them mean a denial."""
    if rows.shape[1] != len(kept["features"]):
        raise ValueError(f"an application has {len(kept['features'])} features, not {rows.shape[1]}")
    rows = rows.set_axis(kept["features"], axis=1)
    scores = kept["model"].predict_proba(rows)[:, 1]
    return {"probability": [float(one) for one in scores], "deny": [bool(one >= kept["threshold"]) for one in scores]}


def output_fn(prediction: dict, accept: str) -> tuple[str, str]:
    """JSON, whatever was asked for."""
    return json.dumps(prediction), "application/json"
