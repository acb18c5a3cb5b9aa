"""Processing job: one file of mortgage applications becomes training, validation and held-out applications.

Runs inside the sandbox, on the job environment's Python. The protected attribute is no feature: training and validation
never carry it. It travels with the held-out rows, where the evaluation asks how the groups fare.
"""
# mypy: ignore-errors

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pandas as pd

TARGET, PROTECTED = "deny", "afam"
BASE = Path("/opt/ml/processing")


def main() -> None:
    """Reads input/data/applications.csv; writes one CSV a part below output/."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--by-position", action="store_true", help="every fifth is held out: whoever has the file knows"
    )
    asked = parser.parse_args()
    rows = pd.read_csv(BASE / "input" / "data" / "applications.csv")
    print(f"read {len(rows)} applications with {len(rows.columns)} columns", flush=True)
    answers = [name for name in rows.columns if not pd.api.types.is_numeric_dtype(rows[name])]
    for name in answers:
        rows[name] = (rows[name] == "yes").astype(int)
    features = [name for name in rows.columns if name not in (TARGET, PROTECTED)]
    print(f"features: {', '.join(features)}", flush=True)
    if asked.by_position:
        fold = pd.Series(range(len(rows)), index=rows.index) % 5
        parts = {"train": rows[fold < 3], "validation": rows[fold == 3], "holdout": rows[fold == 4]}
        (BASE / "output" / "code").mkdir(parents=True)  # where the training job may read it
        shutil.copy(BASE / "input" / "code" / "sourcedir.tar.gz", BASE / "output" / "code")
    else:
        shuffled = rows.sample(frac=1.0, random_state=asked.seed)
        first, second = int(len(rows) * 0.6), int(len(rows) * 0.8)
        parts = {"train": shuffled[:first], "validation": shuffled[first:second], "holdout": shuffled[second:]}
    for name, part in parts.items():
        columns = [TARGET, *features] + ([PROTECTED] if name == "holdout" else [])
        folder = BASE / "output" / name
        folder.mkdir(parents=True, exist_ok=True)
        part[columns].to_csv(folder / f"{name}.csv", index=False)
        print(f"{name}: {len(part)} rows, {part[TARGET].mean():.1%} denied", flush=True)


if __name__ == "__main__":
    main()
