"""Training job of the pipeline: trains, and evaluates on the held-out applications before anything is registered.

Runs inside the sandbox, on the job environment's Python. Prints what the metric definitions read, and every answer to a
held-out application: what an endpoint answers later can be compared.
"""
# mypy: ignore-errors

from __future__ import annotations

import json
import os
from pathlib import Path

import evaluate
import inference
import pandas as pd
import train

_A_LINE = 20


def main() -> None:
    """Reads the channels train, validation and holdout; leaves what train.py leaves, and evaluation.json beside it."""
    train.main()
    kept = inference.model_fn(os.environ["SM_MODEL_DIR"])
    rows = pd.read_csv(Path(os.environ["SM_CHANNEL_HOLDOUT"]) / "holdout.csv")
    evaluation, found = evaluate.compared(rows, inference, kept)
    folder = Path(os.environ["SM_OUTPUT_DATA_DIR"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.json").write_text(json.dumps(evaluation, indent=2))
    print(f"features={','.join(kept['features'])};", flush=True)
    answers = [f"{one:.17g}" for one in found["probability"]]
    for at in range(0, len(answers), _A_LINE):
        print(f"answers={','.join(answers[at : at + _A_LINE])};", flush=True)
    print(f"evaluated {len(rows)} held-out applications", flush=True)
    print(f"holdout:auc={evaluation['auc']:.6f};", flush=True)
    print(f"denial_rate_difference={evaluation['denial_rate_difference']:.6f};", flush=True)


if __name__ == "__main__":
    main()
