"""Built-in algorithms are what they say: as good as the libraries to the last bit, and served as they are documented."""

from __future__ import annotations

import importlib
import io
import json
import sys
import tarfile
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from bastide.commands.demo.data import applications
from bastide.engines.images import digest_of, environment, resolve
from tests.platform import allow
from tests.stories.sagemaker.conftest import IMAGE, Workshop, archive
from tests.stories.sagemaker.plain import ACCOUNT, XGBOOST, plain

BUILT_IN = "382416733822.dkr.ecr.us-east-1.amazonaws.com"
SOME = "vision, language and time series are not there"

MORTGAGES = """
import io, sys, pandas as pd
frame = pd.read_csv(sys.stdin.buffer)
frame = frame.replace({"yes": 1, "no": 0}).infer_objects(copy=False)
y = frame.pop("deny").astype(int)
x = pd.get_dummies(frame.drop(columns=["afam"]), dtype=float).astype(float)
table = pd.concat([y, x], axis=1)
parts = {"train": table.iloc[:1800], "validation": table.iloc[1800:]}
import json
print(json.dumps({name: part.to_csv(index=False, header=False) for name, part in parts.items()}))
"""

BOOSTED = """
import io, json, sys, numpy as np, xgboost
from sklearn.metrics import roc_auc_score
parts = {n: np.loadtxt(io.StringIO(t), delimiter=",") for n, t in json.load(sys.stdin).items()}
data = {n: xgboost.DMatrix(t[:, 1:], label=t[:, 0]) for n, t in parts.items()}
words = {"objective": "binary:logistic", "eta": 0.2, "max_depth": 4, "subsample": 0.8, "seed": 7, "eval_metric": "auc"}
booster = xgboost.train(words, data["train"], 25)
found = booster.predict(data["validation"])
print(json.dumps({"auc": float(roc_auc_score(parts["validation"][:, 0], found)), "scores": found.tolist()}))
"""

# Said of text, since a job of the same image runs it: the last digits of a sum depend on where its arrays lie.
LEARNT = """
import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
x, y = load_breast_cancer(return_X_y=True)
model = make_pipeline(StandardScaler(), LogisticRegression(C=1 / (400 * 1e-4), max_iter=1000, tol=1e-8))
model.fit(x[:400], y[:400])
u, v = load_diabetes(return_X_y=True)
ridge = make_pipeline(StandardScaler(), Ridge(alpha=300 * 0.01)).fit(u[:300], (v[:300] - v[:300].mean()) / v[:300].std())
guess = ridge.predict(u[300:]) * v[:300].std() + v[:300].mean()
print("accuracy=%r" % float(accuracy_score(y[400:], model.predict(x[400:]))))
print("loss=%r" % float(log_loss(y[400:], model.predict_proba(x[400:])[:, 1])))
print("mse=%r" % float(mean_squared_error(v[300:], guess)))
"""

SETS = """
import json, numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes
text = lambda a: "".join(",".join(repr(float(n)) for n in row) + "\\n" for row in a)
found = {}
for name, load, at in (("cancer", load_breast_cancer, 400), ("diabetes", load_diabetes, 300)):
    x, y = load(return_X_y=True)
    table = np.column_stack([y, x])
    found[name] = {"train": text(table[:at]), "validation": text(table[at:])}
print(json.dumps(found))
"""

SHAPES = """
import io, json, sys, numpy as np
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier
x, y = load_iris(return_X_y=True)
odd = np.vstack([x, [[30.0, 30.0, 30.0, 30.0]]])
text = lambda a: "".join(",".join(repr(float(n)) for n in row) + "\\n" for row in a)
print(json.dumps({
    "bare": text(x), "labelled": text(np.column_stack([y, x])),
    "judged": text(np.column_stack([np.r_[np.zeros(len(x)), 1.0], odd])),
    "msd": KMeans(3, n_init=10, max_iter=300, tol=1e-4, random_state=0).fit(x).inertia_ / len(x),
    "explained": float(PCA(2, svd_solver="full").fit(x).explained_variance_ratio_.sum()),
    "accuracy": float(KNeighborsClassifier(5, algorithm="brute").fit(x, y).score(x, y)),
}))
"""


def algorithm(
    workshop: Workshop,
    image: str,
    words: dict[str, str],
    kind: str = "text/csv",
    more: Any = None,
    **parts: str | bytes,
) -> str:
    """Starts a job of a built-in algorithm on data; its name."""
    name = workshop.name("built-in")
    channels = []
    for part, content in parts.items():
        key = f"{name}/{part}/data"
        workshop.s3.put_object(
            Bucket=workshop.bucket, Key=key, Body=content if isinstance(content, bytes) else content.encode()
        )
        where = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{workshop.bucket}/{name}/{part}/"}
        channels.append({"ChannelName": part, "ContentType": kind, "DataSource": {"S3DataSource": where}})
    given = {
        "TrainingJobName": name,
        "AlgorithmSpecification": {"TrainingImage": image, "TrainingInputMode": "File"},
        "InputDataConfig": channels,
        "HyperParameters": words,
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        **(more or {}),
    }
    return workshop.train("", **given)


def metrics_of(job: dict[str, Any]) -> dict[str, float]:
    """The last values, by name."""
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    return {one["MetricName"]: one["Value"] for one in job.get("FinalMetricDataList") or ()}


def answer(workshop: Workshop, name: str, image: str, job: dict[str, Any], body: bytes, *accepts: str) -> list[bytes]:
    """What an endpoint of the model says to the same records, in each format asked for."""
    client = workshop.sagemaker
    container = {"Image": image, "ModelDataUrl": job["ModelArtifacts"]["S3ModelArtifacts"]}
    client.create_model(ModelName=name, ExecutionRoleArn=workshop.role, PrimaryContainer=container)
    variant = {"VariantName": "A", "ModelName": name, "InstanceType": "ml.t2.medium", "InitialInstanceCount": 1}
    client.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[{**variant, "VolumeSizeInGB": 1}])
    client.create_endpoint(EndpointName=name, EndpointConfigName=name)
    found = workshop.endpoint(name, "InService", "Failed")
    assert found["EndpointStatus"] == "InService", found.get("FailureReason")
    runtime = workshop.account.client("sagemaker-runtime")
    return [
        runtime.invoke_endpoint(EndpointName=name, Body=body, ContentType="text/csv", Accept=one)["Body"].read()
        for one in accepts
    ]


@pytest.mark.control("EXP-12", lacking=SOME)
@pytest.mark.control("PRM-10", "STG-06", "LIN-04", "MON-07")
def test_boosted_trees_of_mortgages_are_the_librarys(workshop: Workshop) -> None:
    parts = plain("xgboost", MORTGAGES, applications())
    expected = plain("xgboost", BOOSTED, json.dumps(parts).encode())
    # The role reads data and writes logs; of images it may do nothing, and the image is pinned by its digest.
    role = workshop.account.role("Bare", allow("s3:*", "logs:*"), trust={"Service": "sagemaker.amazonaws.com"})
    pinned = f"{XGBOOST}@{digest_of('xgboost')}"
    words = {"num_round": "25", "objective": "binary:logistic", "eta": "0.2", "max_depth": "4", "subsample": "0.8"}
    words |= {"seed": "7", "eval_metric": "auc"}
    name = algorithm(workshop, pinned, words, more={"RoleArn": role}, **parts)
    job = workshop.trained(name)
    found = metrics_of(job)
    assert found["validation:auc"] == round(expected["auc"], 5)
    assert {"train:auc", "validation:auc"} == set(found)
    watched = [one["Name"] for one in job["AlgorithmSpecification"]["MetricDefinitions"]]
    assert "validation:rmse" in watched
    packed = workshop.s3.get_object(Bucket=workshop.bucket, Key=f"out/{name}/output/model.tar.gz")["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        assert tar.getnames() == ["xgboost-model"]
    records = "".join(f"{line.partition(',')[2]}\n" for line in parts["validation"].splitlines()).encode()
    text, told = answer(workshop, name, XGBOOST, job, records, "text/csv", "application/json")
    assert [float(one) for one in text.split(b",")] == expected["scores"]
    assert [one["score"] for one in json.loads(told)["predictions"]] == expected["scores"]


@pytest.mark.control("EXP-12", lacking=SOME)
def test_the_linear_learner_reaches_scikit_learns_optimum(workshop: Workshop) -> None:
    sets = plain("scikit-learn", SETS)
    patterns = [{"Name": name, "Regex": f"{name}=([0-9.e+-]+)"} for name in ("accuracy", "loss", "mse")]
    spec = {"TrainingImage": IMAGE, "TrainingInputMode": "File", "MetricDefinitions": patterns}
    script = workshop.train(LEARNT, AlgorithmSpecification=spec)
    image = f"{BUILT_IN}/linear-learner:1"
    binary = {"predictor_type": "binary_classifier", "binary_classifier_model_selection_criteria": "loss_function"}
    first = algorithm(workshop, image, {**binary, "mini_batch_size": "100"}, **sets["cancer"])
    second = algorithm(workshop, image, {"predictor_type": "regressor", "wd": "0.01"}, **sets["diabetes"])
    job = workshop.trained(first)
    found, expected = metrics_of(job), metrics_of(workshop.trained(script))
    assert found["validation:binary_classification_accuracy"] == expected["accuracy"]
    assert found["validation:objective_loss"] == pytest.approx(expected["loss"], rel=1e-12)
    assert metrics_of(workshop.trained(second))["validation:mse"] == pytest.approx(expected["mse"], rel=1e-12)
    lines = [line.partition(",") for line in sets["cancer"]["validation"].splitlines()]
    (told,) = answer(
        workshop, first, image, job, "\n".join(rest for _, _, rest in lines).encode(), "application/jsonlines"
    )
    labels = [json.loads(one)["predicted_label"] for one in told.splitlines()]
    right = [label == float(truth) for label, (truth, _, _) in zip(labels, lines, strict=True)]
    assert sum(right) / len(right) == expected["accuracy"]


@pytest.mark.control("EXP-12", lacking=SOME)
def test_clusters_components_neighbours_and_oddities(workshop: Workshop) -> None:
    expected = plain("scikit-learn", SHAPES)
    bare, labelled = "text/csv;label_size=0", "text/csv"
    k_means = algorithm(workshop, f"{BUILT_IN}/kmeans:1", {"k": "3", "feature_dim": "4"}, bare, train=expected["bare"])
    components = algorithm(workshop, f"{BUILT_IN}/pca:1", {"num_components": "2"}, bare, train=expected["bare"])
    words = {"k": "5", "predictor_type": "classifier", "sample_size": "1000"}
    neighbours = algorithm(
        workshop, f"{BUILT_IN}/knn:1", words, labelled, train=expected["labelled"], test=expected["labelled"]
    )
    forest = f"{BUILT_IN}/randomcutforest:1"
    odd = algorithm(workshop, forest, {"feature_dim": "4"}, labelled, train=expected["judged"], test=expected["judged"])
    assert metrics_of(workshop.trained(k_means))["train:msd"] == pytest.approx(expected["msd"], rel=1e-12)
    share = metrics_of(workshop.trained(components))["train:explained_variance_ratio"]
    assert share == pytest.approx(expected["explained"], rel=1e-12)
    assert metrics_of(workshop.trained(neighbours))["test:accuracy"] == expected["accuracy"]
    found = metrics_of(workshop.trained(odd))
    assert found["test:recall"] == found["test:precision"] == 1


def test_what_an_algorithm_cannot_do_is_refused(workshop: Workshop) -> None:
    linear = f"{BUILT_IN}/linear-learner:1"
    ready = {"TrainingInputMode": "File"}
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{workshop.bucket}/data/"}}
    elsewhere = {"InputDataConfig": [{"ChannelName": "test", "DataSource": source}]}
    for changed, says in (
        ({"AlgorithmSpecification": {**ready, "TrainingImage": f"{BUILT_IN}/ntm:1"}}, "linear-learner"),
        ({"AlgorithmSpecification": {**ready, "TrainingImage": f"{ACCOUNT}/mxnet-training:1.9-cpu-py38"}}, "retired"),
        ({"AlgorithmSpecification": {**ready, "TrainingImage": linear}}, "runs no scripts"),
        (
            {"AlgorithmSpecification": {**ready, "TrainingImage": linear}, "HyperParameters": {}, **elsewhere},
            "channel train",
        ),
        (
            {
                "AlgorithmSpecification": {
                    **ready,
                    "TrainingImage": linear,
                    "MetricDefinitions": [{"Name": "a", "Regex": "(.)"}],
                },
                "HyperParameters": {},
            },
            "override the metric definitions",
        ),
    ):
        with pytest.raises(ClientError, match=f"ValidationException.*{says}"):
            workshop.train("", **changed)
    with pytest.raises(ClientError, match="one instance"):
        algorithm(
            workshop,
            linear,
            {"predictor_type": "regressor"},
            train="1,2\n",
            more={"ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}},
        )


def test_a_hyperparameter_or_data_that_do_not_fit_are_told(workshop: Workshop) -> None:
    unknown = algorithm(workshop, XGBOOST, {"num_round": "3", "depth": "4"}, train="1,2\n0,3\n")
    headed = algorithm(workshop, f"{BUILT_IN}/linear-learner:1", {"predictor_type": "regressor"}, train="y,x\n0,3\n")
    job = workshop.trained(unknown)
    assert job["TrainingJobStatus"] == "Failed"
    assert "ClientError: Unknown hyperparameters: depth. There are: " in job["FailureReason"]
    assert "no header" in workshop.trained(headed)["FailureReason"]


@pytest.mark.control(
    "EXP-13", lacking="PyTorch, TensorFlow and Hugging Face: `make environments-test`, not in each run"
)
def test_a_script_of_xgboost_and_one_whose_packages_are_not_there(workshop: Workshop) -> None:
    script = (
        "import os, xgboost, numpy as np\n"
        "x = np.arange(20.0).reshape(-1, 1)\n"
        "b = xgboost.train({'objective': 'reg:squarederror'}, xgboost.DMatrix(x, label=x[:, 0]), 3)\n"
        "b.save_model(os.environ['SM_MODEL_DIR'] + '/xgboost-model')\n"
        "print('module', os.environ['SM_FRAMEWORK_MODULE'], os.environ['SM_HP_LR'])\n"
        "print('acc=%r' % float(b.predict(xgboost.DMatrix(x))[0]))\n"
    )
    spec = {"TrainingInputMode": "File", "MetricDefinitions": [{"Name": "acc", "Regex": "acc=([0-9.]+)"}]}
    one = workshop.train(script, AlgorithmSpecification={**spec, "TrainingImage": XGBOOST})
    job = workshop.trained(one)
    value = metrics_of(job)["acc"]
    (told,) = answer(workshop, one, XGBOOST, job, b"0\n", "text/csv")
    assert float(told) == pytest.approx(value)
    assert resolve(XGBOOST).train == ("train", "--framework", "xgboost", "--algorithm", "xgboost")


def test_requirements_come_from_the_source_or_the_job_says_so(workshop: Workshop) -> None:
    name = workshop.name("needs")
    for part, wanted in (("there", b"numpy>=2\nscikit-learn\n"), ("missing", b"numpy>=2\nnobody-has-this==1.0\n")):
        packed = archive(**{"train.py": b"print('ran')\n", "requirements.txt": wanted})
        workshop.s3.put_object(Bucket=workshop.bucket, Key=f"{name}-{part}.tar.gz", Body=packed)
    jobs = []
    for part in ("there", "missing"):
        source = f"s3://{workshop.bucket}/{name}-{part}.tar.gz"
        words = {"sagemaker_program": "train.py", "sagemaker_submit_directory": source}
        jobs.append(workshop.train("", HyperParameters=words))
    assert workshop.trained(jobs[0])["TrainingJobStatus"] == "Completed"
    job = workshop.trained(jobs[1])
    assert job["TrainingJobStatus"] == "Failed"
    assert "requirements.txt names packages that this environment lacks" in job["FailureReason"]
    assert "nobody-has-this" in job["FailureReason"]


@pytest.mark.control("EXP-10", lacking="Spark: `make environments-test`, not in each run")
def test_processing_runs_scripts_in_provided_images_only(workshop: Workshop) -> None:
    def ask(name: str, image: str, *entry: str) -> None:
        application = {"ImageUri": image, **({"ContainerEntrypoint": list(entry)} if entry else {})}
        cluster = {"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 1}
        workshop.sagemaker.create_processing_job(
            ProcessingJobName=name,
            RoleArn=workshop.role,
            AppSpecification=application,
            ProcessingResources={"ClusterConfig": cluster},
        )

    wanted = {"sklearn": (IMAGE, "import sklearn, pandas"), "boosted": (XGBOOST, "import xgboost, pyarrow.parquet")}
    for name, (image, line) in wanted.items():
        ask(name, image, "python3", "-c", line)
    with pytest.raises(ClientError, match="ContainerEntrypoint is needed"):
        ask("none", IMAGE)
    with pytest.raises(ClientError, match="ValidationException"):
        ask("wrangler", "663277389841.dkr.ecr.us-east-1.amazonaws.com/sagemaker-data-wrangler-container:1.x", "python3")
    for name in wanted:
        while (job := workshop.sagemaker.describe_processing_job(ProcessingJobName=name))["ProcessingJobStatus"] in (
            "InProgress",
            "Stopping",
        ):
            time.sleep(0.1)
        assert job["ProcessingJobStatus"] == "Completed", job.get("FailureReason")


@pytest.mark.control("EXP-12", lacking=SOME)
def test_a_stream_of_records_is_clustered(workshop: Workshop) -> None:
    sys.path.insert(0, str(environment._TOOLKIT / "library"))
    try:
        write = importlib.import_module("bastide_algorithms.recordio").write
    finally:
        sys.path.pop(0)
    points = [[float(number // 10 * 9), float(number % 10) / 100] for number in range(30)]
    records = b"".join(write({"values": one}, {}) for one in points)
    name = algorithm(
        workshop,
        f"{BUILT_IN}/kmeans:1",
        {"k": "3"},
        "application/x-recordio-protobuf",
        {"AlgorithmSpecification": {"TrainingImage": f"{BUILT_IN}/kmeans:1", "TrainingInputMode": "Pipe"}},
        train=records,
    )
    assert metrics_of(workshop.trained(name))["train:msd"] == pytest.approx(0.000825, rel=1e-3)
