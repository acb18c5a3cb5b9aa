"""Transform jobs: their operations."""

from __future__ import annotations

from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Kind, Output, regular, tags_of
from bastide.services.sagemaker import job_record, quota
from bastide.services.sagemaker.asking import keys, tagging, unsupported
from bastide.services.sagemaker.model import MODEL, MULTI
from bastide.services.sagemaker.objects import split
from bastide.services.sagemaker.transform_data import Processing
from bastide.store import Transaction

TRANSFORM_JOB = Kind(
    "TransformJob",
    service="sagemaker",
    arn="transform-job/{}",
    states=("InProgress", "Completed", "Failed", "Stopping", "Stopped"),
    missing=("ValidationException", "Could not find requested job with name: {name}", 400),
    taken=(
        "ResourceInUse",
        "Job name must be unique within an AWS account and region, and a job with this name already exists ({arn})",
        400,
    ),
)
"""Beside what the API shows a row keeps `_model`: the model as it was when the job was asked for, and `_pinned`."""

MOST_PAYLOAD: Final = 100
"""Megabytes that are on their way into an instance at a time."""
_UNSUPPORTED: Final = ("TransformResources.TransformAmiVersion",)


@TRANSFORM_JOB.operation(
    "CreateTransformJob",
    asks=[
        Ask(
            "sagemaker:CreateTransformJob",
            TRANSFORM_JOB.this,
            given=keys(
                InstanceTypes_="TransformResources.InstanceType",
                VolumeKmsKey="TransformResources.VolumeKmsKeyId",
                OutputKmsKey="TransformOutput.KmsKeyId",
                ModelArn=lambda asked: MODEL.arn(asked.call.account, asked.call.region, str(asked.input["ModelName"])),
            ),
        ),
        tagging(TRANSFORM_JOB, "CreateTransformJob"),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    unsupported(a, *_UNSUPPORTED)
    source = given["TransformInput"]["DataSource"]["S3DataSource"]
    if source["S3DataType"] not in ("S3Prefix", "ManifestFile"):
        raise Refused("ValidationException", "S3DataType is S3Prefix or ManifestFile for transform jobs.")
    split(source["S3Uri"])
    split(given["TransformOutput"]["S3OutputPath"])
    capture = given.get("DataCaptureConfig")
    if capture:
        split(capture["DestinationS3Uri"])
    _check_payloads(given)
    Processing(given)
    resources = given["TransformResources"]
    quota.check(a, tx, TRANSFORM_JOB, "transform", [(resources["InstanceType"], int(resources["InstanceCount"]))])
    model = MODEL.find(tx, a.account, a.region, given["ModelName"]).doc
    if any(one.get("Mode") == MULTI for one in model["_resolved"]):
        raise Refused("ValidationException", "A model whose container has the Mode MultiModel is for endpoints.")
    if (model.get("InferenceExecutionConfig") or {}).get("Mode") == "Direct":
        raise Refused("ValidationException", "A model whose InferenceExecutionConfig is Direct is for endpoints.")
    name = given["TransformJobName"]
    doc = {key: value for key, value in given.items() if key not in ("Tags", "TransformJobName")}
    doc["TransformInput"] = {"CompressionType": "None", "SplitType": "None", **given["TransformInput"]}
    doc["TransformOutput"] = {"AssembleWith": "None", "KmsKeyId": "", **given["TransformOutput"]}
    doc["DataProcessing"] = {
        "InputFilter": "$",
        "OutputFilter": "$",
        "JoinSource": "None",
        **(given.get("DataProcessing") or {}),
    }
    # As they are now: a model that is deleted or made anew meanwhile changes no job that was begun.
    doc["_model"] = {
        "role": model["ExecutionRoleArn"],
        "isolated": model["EnableNetworkIsolation"],
        "vpc": model.get("VpcConfig"),
        "containers": model["_resolved"],
    }
    a.touched.append(MODEL.arn(a.account, a.region, given["ModelName"]))
    row = TRANSFORM_JOB.create(a, tx, name, doc, status="InProgress", tags=tags_of(a))
    job_record.begin(a, tx, TRANSFORM_JOB, row)
    return {"TransformJobArn": TRANSFORM_JOB.arn(a.account, a.region, name)}


def _check_payloads(given: dict[str, Any]) -> None:
    """Raises Refused for payloads that cannot be cut or sent as the request wants it."""
    size, at_once = given.get("MaxPayloadInMB"), given.get("MaxConcurrentTransforms") or 1
    if size is not None and size > MOST_PAYLOAD:
        raise Refused("ValidationException", f"MaxPayloadInMB cannot be greater than {MOST_PAYLOAD}.")
    if size and given.get("MaxConcurrentTransforms") and size * at_once > MOST_PAYLOAD:
        raise Refused(
            "ValidationException",
            f"MaxConcurrentTransforms * MaxPayloadInMB cannot be greater than {MOST_PAYLOAD}: it is {at_once} * {size}.",
        )
    if at_once > MOST_PAYLOAD:
        raise Refused("ValidationException", f"MaxConcurrentTransforms cannot be greater than {MOST_PAYLOAD}.")
    cut = given["TransformInput"].get("SplitType", "None") != "None"
    if given.get("BatchStrategy") == "SingleRecord" and not cut:
        raise Refused(
            "ValidationException",
            "BatchStrategy SingleRecord needs a SplitType that says what a record is: Line, RecordIO or TFRecord.",
        )
    if size == 0:
        if cut:
            raise Refused(
                "ValidationException",
                "MaxPayloadInMB 0 streams every object whole into the model: SplitType has to be None.",
            )
        processing = Processing(given)
        if processing.reads or processing.writes:
            raise Refused(
                "ValidationException",
                "MaxPayloadInMB 0 streams every object into the model and its answer out: DataProcessing and "
                "GenerateInferenceId cannot look into them.",
            )


regular(TRANSFORM_JOB, "Describe", "List", descending=True)


@TRANSFORM_JOB.operation("StopTransformJob", asks=[Ask("sagemaker:StopTransformJob", TRANSFORM_JOB.this)])
def stop(a: Authorised, tx: Transaction) -> Output:
    row = TRANSFORM_JOB.named(a, tx)
    if row.status == "Stopping":
        return {}
    if row.status != "InProgress":
        raise Refused(
            "ValidationException", f"The request was rejected because the transform job is in status {row.status}."
        )
    row.status = "Stopping"
    TRANSFORM_JOB.change(tx, row, a.operation.name, a.request.id)
    return {}
