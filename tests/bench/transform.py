"""``python -m tests.bench.transform``: a batch transform beside a plain script that does the same.

A million rows of CSV go through a scikit-learn model twice, in turn: as a transform job, from the call to the moment that
the job is seen to be over, and as a script of a few lines that starts, parses, predicts and writes, in the same
environment and on plain files. What comes out has to be the same, byte for byte. Nothing is asserted about time.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bastide.engines import images

from . import measure, signing
from .servers import Bastide
from .workload import IMAGE, Stage, set_up

MODELS = {
    "linear": "sklearn.linear_model.LogisticRegression()",
    "forest": "sklearn.ensemble.RandomForestClassifier(100, max_depth=8, random_state=0)",
}
PREPARE = """
import sys, joblib, numpy, sklearn.ensemble, sklearn.linear_model
rows, folder = int(sys.argv[1]), sys.argv[2]
data = numpy.random.default_rng(0).normal(size=(rows, 10)).astype("f4")
label = (data[:, 0] + data[:, 1] * data[:, 2] > 0).astype(int)
for name, make in {models!r}.items():
    joblib.dump(eval(make).fit(data[:20000], label[:20000]), f"{{folder}}/{{name}}.joblib")
with open(f"{{folder}}/rows.csv", "w") as out:
    for row in data.tolist():
        out.write(",".join("%.6f" % one for one in row) + "\\n")
"""
PLAIN = {
    "pandas": """
import sys, joblib, pandas
model = joblib.load(sys.argv[1])
data = pandas.read_csv(sys.argv[2], header=None, dtype="float32").to_numpy()
with open(sys.argv[3], "w") as out:
    out.writelines(f"{one}\\n" for one in model.predict(data).tolist())
""",
    "numpy": """
import sys, joblib, numpy
model = joblib.load(sys.argv[1])
data = numpy.loadtxt(sys.argv[2], delimiter=",", dtype="float32")
with open(sys.argv[3], "w") as out:
    out.writelines(f"{one}\\n" for one in model.predict(data).tolist())
""",
}


def place(stage: Stage, folder: Path) -> None:
    """Rows and models in S3, and the models known."""
    s3, sagemaker = signing.client("s3", stage.admin), signing.client("sagemaker", stage.admin)
    s3.upload_file(str(folder / "rows.csv"), stage.bucket, "in/rows.csv")
    for name in MODELS:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            archive.add(folder / f"{name}.joblib", "model.joblib")
        s3.put_object(Bucket=stage.bucket, Key=f"{name}.tar.gz", Body=packed.getvalue())
        container = {"Image": IMAGE, "ModelDataUrl": f"s3://{stage.bucket}/{name}.tar.gz"}
        sagemaker.create_model(ModelName=name, ExecutionRoleArn=stage.role, PrimaryContainer=container)


def transform(stage: Stage, model: str, turn: int, **more: Any) -> tuple[float, bytes]:
    """Seconds of a job as its caller sees it, and its output."""
    sagemaker = signing.client("sagemaker", stage.admin)
    name = f"{model}-{turn}"
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{stage.bucket}/in/"}}
    began = time.perf_counter()
    sagemaker.create_transform_job(
        TransformJobName=name,
        ModelName=model,
        TransformInput={"DataSource": source, "ContentType": "text/csv", "SplitType": "Line"},
        TransformOutput={
            "S3OutputPath": f"s3://{stage.bucket}/{name}",
            "Accept": "text/csv",
            "AssembleWith": "Line",
        },
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
        **more,
    )
    while (job := sagemaker.describe_transform_job(TransformJobName=name))["TransformJobStatus"] == "InProgress":
        time.sleep(0.02)
    seconds = time.perf_counter() - began
    if job["TransformJobStatus"] != "Completed":
        raise RuntimeError(job.get("FailureReason"))
    body = signing.client("s3", stage.admin).get_object(Bucket=stage.bucket, Key=f"{name}/rows.csv.out")["Body"]
    return seconds, body.read()


def plain(python: Path, script: str, folder: Path, model: str) -> tuple[float, bytes]:
    """Seconds of a plain script, and its output."""
    began = time.perf_counter()
    files = [folder / f"{model}.joblib", folder / "rows.csv", folder / "plain.out"]
    subprocess.run([python, "-c", script, *files], check=True)
    return time.perf_counter() - began, files[-1].read_bytes()


def python_of(image: str) -> Path:
    """The interpreter of an environment."""
    environment = images.resolve(image)
    found = [path for folder, _ in environment.readonly for path in folder.glob("bin/python3")]
    return found[0]


def main() -> None:
    """Runs it and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.transform", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="bench-transform-"))
    folder = home / "plain"
    folder.mkdir()
    python = python_of(IMAGE)
    subprocess.run([python, "-c", PREPARE.format(models=MODELS), str(chosen.rows), folder], check=True)
    server = Bastide(home / "server")
    found: dict[str, dict[str, list[float]]] = {}
    load = [os.getloadavg()[0]]
    try:
        admin = server.prepare()
        server.spawn()
        measure.first_answer(server, signing.prepare("sts", "get_caller_identity", admin, [{}])[0], admin.port)
        stage = set_up(server, admin)
        place(stage, folder)
        for model in chosen.models.split(","):
            seen = found[model] = {"job": [], **{way: [] for way in PLAIN}}
            for turn in range(chosen.repeats):
                seconds, told = transform(stage, model, turn)
                seen["job"].append(seconds)
                for way, script in PLAIN.items():
                    seconds, expected = plain(python, script, folder, model)
                    seen[way].append(seconds)
                    if told != expected:
                        raise RuntimeError(f"the job's output is not that of the script ({way})")
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)
    load.append(os.getloadavg()[0])
    table = Table(title=f"{chosen.rows:,} rows; load {load[0]:.1f} before, {load[1]:.1f} after, {os.cpu_count()} CPUs")
    for title in ("model", "job s", *(f"{way} s" for way in PLAIN), "job / faster script"):
        table.add_column(title, justify="right")
    for model, seen in found.items():
        job, *others = (statistics.median(one) for one in seen.values())
        table.add_row(model, *(f"{one:.2f}" for one in (job, *others)), f"{job / min(others):.2f}")
    Console().print(table)
    if chosen.json:
        chosen.json.write_text(json.dumps({"load": load, "seconds": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
