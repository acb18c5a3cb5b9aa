"""Training job in script mode: who is likely to be denied a mortgage.

Runs inside the sandbox, on the job environment's Python. Tries several strengths of regularisation, keeps the best on
the validation rows, and prints `validation:auc=...;` for the job's metric definition.
"""
# mypy: ignore-errors

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

import joblib
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

TARGET, PROTECTED = "deny", "afam"
GRADES = ["chist", "mhist"]  # credit and mortgage history: grades, not quantities


def main() -> None:
    """Reads the channels train and validation; leaves model.joblib and code/inference.py in the model folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--strengths", default="0.01,0.1,1,10")
    strengths = [float(one) for one in str(parser.parse_args().strengths).split(",")]
    train = pd.read_csv(Path(os.environ["SM_CHANNEL_TRAIN"]) / "train.csv")
    validation = pd.read_csv(Path(os.environ["SM_CHANNEL_VALIDATION"]) / "validation.csv")
    if PROTECTED in train.columns or PROTECTED in validation.columns:
        raise SystemExit(f"the protected attribute {PROTECTED} is in the training data")
    features = [name for name in train.columns if name != TARGET]
    best = None
    for strength in strengths:
        prepare = ColumnTransformer(
            [("grades", OneHotEncoder(handle_unknown="ignore"), GRADES)], remainder=StandardScaler()
        )
        model = make_pipeline(prepare, LogisticRegression(C=strength, max_iter=2000))
        model.fit(train[features], train[TARGET])
        auc = roc_auc_score(validation[TARGET], model.predict_proba(validation[features])[:, 1])
        print(f"strength={strength:g}; candidate:auc={auc:.4f};", flush=True)
        if best is None or auc > best[0]:
            best = (auc, strength, model)
    auc, strength, model = best
    # A denial is predicted for as many applications as the bank denied in the years it learns from.
    scores = pd.Series(model.predict_proba(train[features])[:, 1])
    threshold = float(scores.quantile(1 - train[TARGET].mean()))
    folder = Path(os.environ["SM_MODEL_DIR"])
    (folder / "code").mkdir(parents=True, exist_ok=True)
    joblib.dump({"model": model, "features": features, "threshold": threshold}, folder / "model.joblib")
    shutil.copy(Path(__file__).with_name("inference.py"), folder / "code" / "inference.py")
    print(f"kept strength={strength:g} threshold={threshold:.4f}", flush=True)
    print(f"validation:auc={auc:.6f};", flush=True)


if __name__ == "__main__":
    main()
