"""Processing job: how good the trained model is on held-out applications, and how it treats the groups.

Runs inside the sandbox, on the job environment's Python. Writes evaluation.json, the evidence that is registered with
the model, and predictions.csv, the model's own answers, with which an endpoint can be compared.
"""
# mypy: ignore-errors

from __future__ import annotations

import importlib.util
import json
import tarfile
from pathlib import Path

import pandas as pd
from sklearn.metrics import roc_auc_score

TARGET, PROTECTED = "deny", "afam"
BASE = Path("/opt/ml/processing")


def main() -> None:
    """Reads input/model/model.tar.gz and input/holdout/holdout.csv; writes below output/evidence."""
    folder = Path("/tmp/model")  # noqa: S108 - the sandbox's own
    with tarfile.open(BASE / "input" / "model" / "model.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    spec = importlib.util.spec_from_file_location("inference", folder / "code" / "inference.py")
    inference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(inference)
    kept = inference.model_fn(str(folder))
    rows = pd.read_csv(BASE / "input" / "holdout" / "holdout.csv")
    evaluation, found = compared(rows, inference, kept)
    out = BASE / "output" / "evidence"
    out.mkdir(parents=True, exist_ok=True)
    (out / "evaluation.json").write_text(json.dumps(evaluation, indent=2))
    found[["probability", "predicted"]].to_csv(out / "predictions.csv", index=False, float_format="%.17g")
    print(f"evaluated {len(rows)} held-out applications", flush=True)
    print(
        f"auc={evaluation['auc']:.4f}; denial_rate_difference={evaluation['denial_rate_difference']:.4f};", flush=True
    )


def compared(rows: pd.DataFrame, inference: object, kept: dict) -> tuple[dict, pd.DataFrame]:
    """The evaluation of a model on held-out rows, and its answers, row by row."""
    told = inference.predict_fn(rows[kept["features"]], kept)
    found = rows[[TARGET, PROTECTED]].assign(probability=told["probability"], predicted=told["deny"])
    predicted = found.groupby(PROTECTED)["predicted"].mean()
    observed = found.groupby(PROTECTED)[TARGET].mean()
    evaluation = {
        "rows": len(rows),
        "auc": float(roc_auc_score(found[TARGET], found["probability"])),
        "threshold": kept["threshold"],
        "features": kept["features"],
        "protected_attribute": PROTECTED,
        "denial_rate": {"afam": float(predicted[1]), "others": float(predicted[0])},
        "observed_denial_rate": {"afam": float(observed[1]), "others": float(observed[0])},
        "denial_rate_difference": float(predicted[1] - predicted[0]),
    }
    return evaluation, found


if __name__ == "__main__":
    main()
