"""`bastide reproduce`: a registered version is trained again from what its lineage tells, and compared."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import time
import uuid
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from bastide.commands.client import Platform, from_environment
from bastide.commands.options import DATA_OPTION
from bastide.commands.reproduce.origin import NotReproducible, Origin, of_component, of_version, restore, split, then

_CODES: Final = {"bit-equal": 0, "prediction-equal": 3, "metric-equal": 4, "different": 5}
_AGAIN: Final = (
    "AlgorithmSpecification", "HyperParameters", "ResourceConfig", "StoppingCondition", "Environment", "VpcConfig",
    "EnableNetworkIsolation", "EnableInterContainerTrafficEncryption",
)  # fmt: skip
_OVER: Final = ("Completed", "Failed", "Stopped")


@click.command()
@click.argument("arn", metavar="MODEL-PACKAGE-ARN")
@DATA_OPTION
@click.option("--role", help="The role that the new job runs with; the first job's unless it is given.")
@click.option("--sample", metavar="S3-URI", help="Rows (text/csv) on which the two models' predictions are compared.")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
def reproduce(arn: str, data: Path, role: str | None, sample: str | None, as_json: bool) -> None:
    """Trains a registered version again, from its pinned code, data, image, parameters and seed, and compares.

    \b
    Exit status: 0 bit-equal (every byte of model.tar.gz), 3 prediction-equal (on --sample), 4 metric-equal, 5 different,
    6 it cannot be made again. The new job, and copies of data that has changed since, stay under the output path of the
    first, in reproductions/.
    """
    parts = arn.split(":")
    if len(parts) != 6 or not parts[5].startswith("model-package/"):
        raise click.UsageError(f"`{arn}` is not the ARN of a model package")
    platform = Platform(data)
    keys = from_environment() or platform.inside(parts[4])
    sagemaker, s3 = (platform.client(service, keys, parts[3]) for service in ("sagemaker", "s3"))
    report = _reproduce(sagemaker, s3, arn, role, sample)
    if as_json:
        click.echo(json.dumps(report, indent=2, default=str))
    else:
        _show(report)
    raise click.exceptions.Exit(_CODES[report["result"]])


def _reproduce(sagemaker: Any, s3: Any, arn: str, role: str | None, sample: str | None) -> dict[str, Any]:
    first = of_version(sagemaker, arn)
    job = first.job
    name = f"reproduce-{uuid.uuid4().hex[:12]}"
    bucket, base = split(job["OutputDataConfig"]["S3OutputPath"])
    folder = "/".join(part for part in (base.strip("/"), "reproductions", name) if part)
    notes: list[str] = []
    given = _request(s3, job, name, role or job["RoleArn"], bucket, folder, notes)
    sagemaker.create_training_job(**given, Tags=[{"Key": "bastide:reproduces", "Value": arn}])
    again = _wait(lambda: sagemaker.describe_training_job(TrainingJobName=name), "TrainingJobStatus")
    if again["TrainingJobStatus"] != "Completed":
        raise NotReproducible(f"the job {name} {again['TrainingJobStatus'].lower()}: {again.get('FailureReason', '')}")
    second = of_component(sagemaker, _component(sagemaker, again))
    checks = _inputs(first, second, notes)
    registered = sagemaker.describe_model_package(ModelPackageName=arn)["InferenceSpecification"]["Containers"][0]
    models = [_model(s3, one) for one in (registered["ModelDataUrl"], again["ModelArtifacts"]["S3ModelArtifacts"])]
    if models[0].etag != registered.get("ModelDataETag", models[0].etag):
        notes.append("the registered model data was changed since it was registered")
    equal = models[0].sha256 == models[1].sha256
    report: dict[str, Any] = {
        "model_package": arn,
        "first_job": job["TrainingJobArn"],
        "second_job": again["TrainingJobArn"],
        "inputs": checks,
        "bit_equal": equal,
        "differing_files": [] if equal else _differing(*models),
        "metrics": _metrics(job, again),
        "predictions": None
        if sample is None
        else _predictions(sagemaker, s3, given, registered, again, sample, folder),
    }
    report["result"] = result = _grade(report)
    if result != "bit-equal" and all(one["equal"] for one in checks):
        notes.append(
            "code, data, image and parameters were the same: the training itself is not deterministic (a seed?)"
        )
    report["why"] = notes
    return report


def _request(
    s3: Any, job: dict[str, Any], name: str, role: str, bucket: str, folder: str, notes: list[str]
) -> dict[str, Any]:
    """The first job's request again, over the data and code as they were."""
    given: dict[str, Any] = {member: job[member] for member in _AGAIN if member in job}
    given |= {"TrainingJobName": name, "RoleArn": role}
    output = {key: value for key, value in job["OutputDataConfig"].items() if value}
    given["OutputDataConfig"] = {**output, "S3OutputPath": f"s3://{bucket}/{folder}"}
    at = job["TrainingStartTime"]

    def as_it_was(uri: str, what: str, *, exact: bool = False) -> str:
        held = then(s3, uri, at, exact=exact)
        if not held.changed:
            return uri
        if not held.kept:
            notes.append(f"{what} has changed since, and its bucket keeps no versions: it runs over what is there now")
            return uri
        notes.append(f"{what} has changed since: it runs over the versions of then")
        return restore(s3, held, bucket, f"{folder}/then/{what.replace(' ', '-')}")

    channels = json.loads(json.dumps(job.get("InputDataConfig", [])))
    for channel in channels:
        source = channel["DataSource"]["S3DataSource"]
        source["S3Uri"] = as_it_was(source["S3Uri"], f"channel {channel['ChannelName']}")
    if channels:
        given["InputDataConfig"] = channels
    parameters = dict(given.get("HyperParameters") or {})
    code = parameters.get("sagemaker_submit_directory", "").strip('"')
    if code.startswith("s3://"):
        parameters["sagemaker_submit_directory"] = json.dumps(as_it_was(code, "code", exact=True))
        given["HyperParameters"] = parameters
    return given


def _wait(describe: Any, member: str) -> dict[str, Any]:
    while True:
        found: dict[str, Any] = describe()
        if found[member] in _OVER:
            return found
        time.sleep(0.2)


def _component(sagemaker: Any, job: dict[str, Any]) -> str:
    [found] = sagemaker.list_trial_components(SourceArn=job["TrainingJobArn"])["TrialComponentSummaries"]
    return str(found["TrialComponentArn"])


def _inputs(first: Origin, second: Origin, notes: list[str]) -> list[dict[str, Any]]:
    """What went in, then and now: kinds, addresses and digests of content."""
    found = []
    for kind in ("Code", "DataSet", "Image"):
        before = {uri: digest for (one, uri), digest in first.inputs.items() if one == kind}
        now = sorted(digest for (one, _), digest in second.inputs.items() if one == kind)
        for uri, digest in sorted(before.items()):
            equal = bool(digest) and digest in now
            found.append({"kind": kind, "uri": uri, "digest": digest, "equal": equal})
            if not equal:
                what = "the environment of the image" if kind == "Image" else f"{kind} {uri}"
                notes.append(f"{what} is not what it was")
    return found


class _Packed:
    """A model's archive as it lies in S3."""

    def __init__(self, data: bytes, etag: str) -> None:
        self.data, self.etag = data, etag
        self.sha256 = hashlib.sha256(data).hexdigest()

    def files(self) -> dict[str, str]:
        """Digests of the files in it."""
        found = {}
        with tarfile.open(fileobj=io.BytesIO(self.data), mode="r:gz") as tar:
            for info in tar:
                file = tar.extractfile(info) if info.isreg() else None
                if file is not None:
                    found[info.name] = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        return found


def _model(s3: Any, uri: str) -> _Packed:
    bucket, key = split(uri)
    got = s3.get_object(Bucket=bucket, Key=key)
    return _Packed(got["Body"].read(), got["ETag"].strip('"'))


def _differing(first: _Packed, second: _Packed) -> list[str]:
    one, other = first.files(), second.files()
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def _metrics(first: dict[str, Any], second: dict[str, Any]) -> list[dict[str, Any]]:
    values = [
        {one["MetricName"]: one["Value"] for one in job.get("FinalMetricDataList", ())} for job in (first, second)
    ]
    return [
        {"name": name, "first": value, "second": values[1].get(name), "equal": values[1].get(name) == value}
        for name, value in sorted(values[0].items())
    ]


def _predictions(
    sagemaker: Any,
    s3: Any,
    given: dict[str, Any],
    first: dict[str, Any],
    second: dict[str, Any],
    sample: str,
    folder: str,
) -> dict[str, Any]:
    """What both models say of the sample, asked in a sealed job of its own."""
    bucket = split(given["OutputDataConfig"]["S3OutputPath"])[0]
    name = f"{given['TrainingJobName']}-predict"
    code = f"{folder}/predict/code/predictions.py"
    s3.put_object(
        Bucket=bucket, Key=code, Body=Path(__file__).with_name("scripts").joinpath("predictions.py").read_bytes()
    )
    sources = {
        "code": f"s3://{bucket}/{code}",
        "first": first["ModelDataUrl"],
        "second": second["ModelArtifacts"]["S3ModelArtifacts"],
        "sample": sample,
    }
    resources = given["ResourceConfig"]
    where = f"{folder}/predict/out"
    sagemaker.create_processing_job(
        ProcessingJobName=name,
        RoleArn=given["RoleArn"],
        AppSpecification={
            "ImageUri": given["AlgorithmSpecification"]["TrainingImage"],
            "ContainerEntrypoint": ["python3", "/opt/ml/processing/code/predictions.py"],
        },
        Environment={"PROGRAM": (first.get("Environment") or {}).get("SAGEMAKER_PROGRAM", "inference.py")},
        ProcessingResources={
            "ClusterConfig": {
                "InstanceCount": 1,
                "InstanceType": resources["InstanceType"],
                "VolumeSizeInGB": resources["VolumeSizeInGB"],
            }
        },
        ProcessingInputs=[
            {
                "InputName": one,
                "S3Input": {
                    "S3Uri": uri,
                    "LocalPath": f"/opt/ml/processing/{one}",
                    "S3DataType": "S3Prefix",
                    "S3InputMode": "File",
                },
            }
            for one, uri in sources.items()
        ],
        ProcessingOutputConfig={
            "Outputs": [
                {
                    "OutputName": "out",
                    "S3Output": {
                        "S3Uri": f"s3://{bucket}/{where}",
                        "LocalPath": "/opt/ml/processing/out",
                        "S3UploadMode": "EndOfJob",
                    },
                }
            ]
        },
    )
    job = _wait(lambda: sagemaker.describe_processing_job(ProcessingJobName=name), "ProcessingJobStatus")
    if job["ProcessingJobStatus"] != "Completed":
        return {"error": job.get("FailureReason", job["ProcessingJobStatus"])}
    found: dict[str, Any] = json.loads(s3.get_object(Bucket=bucket, Key=f"{where}/result.json")["Body"].read())
    return found


def _grade(report: dict[str, Any]) -> str:
    if report["bit_equal"]:
        return "bit-equal"
    if (report["predictions"] or {}).get("equal"):
        return "prediction-equal"
    if report["metrics"] and all(one["equal"] for one in report["metrics"]):
        return "metric-equal"
    return "different"


def _show(report: dict[str, Any]) -> None:
    console = Console(highlight=False, width=110)
    table = Table(title=f"{report['model_package']}: {report['result']}", title_justify="left")
    for column in ("what", "then", "now"):
        table.add_column(column, overflow="fold")
    for one in report["inputs"]:
        table.add_row(f"{one['kind']} {one['uri']}", one["digest"][:19], "the same" if one["equal"] else "different")
    files = report["differing_files"]
    table.add_row(
        "model.tar.gz", "", "the same, bit by bit" if report["bit_equal"] else f"different: {', '.join(files)}"
    )
    for one in report["metrics"]:
        table.add_row(f"metric {one['name']}", repr(one["first"]), repr(one["second"]))
    said = report["predictions"]
    if said is not None:
        told = said.get("error") or ("the same" if said["equal"] else f"differ by up to {said.get('largest')}")
        table.add_row(f"predictions of {said.get('rows', 0)} rows", "", told)
    console.print(table)
    for note in report["why"]:
        console.print(f"- {note}")
