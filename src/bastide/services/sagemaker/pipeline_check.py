"""Steps that check: they compute a baseline of data or of a model, and hold it against an earlier one.

Source: developer guide, "pipelines-quality-clarify-baseline-lifecycle", "build-and-manage-steps-types"; the definitions
that the SDK writes.
"""

from __future__ import annotations

import posixpath
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.kernel import Bytes
from bastide.services.sagemaker import objects
from bastide.services.sagemaker.pipeline_language import Unresolved
from bastide.services.sagemaker.session import RoleSession

Act = Callable[[str, str, dict[str, Any]], Awaitable[dict[str, Any]]]
_FOLDERS: Final = {"Constraints": "constraints", "Statistics": "stats"}
_BASE: Final = "/opt/ml/processing/baseline"
_BASELINES: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    "DATA_QUALITY": ("ModelDataQuality", {"Statistics": "Statistics", "Constraints": "Constraints"}),
    "MODEL_QUALITY": ("ModelQuality", {"Statistics": "Statistics", "Constraints": "Constraints"}),
    "DATA_BIAS": ("Bias", {"Constraints": "PreTrainingConstraints"}),
    "MODEL_BIAS": ("Bias", {"Constraints": "PostTrainingConstraints"}),
    "MODEL_EXPLAINABILITY": ("Explainability", {"Constraints": "Constraints"}),
}
"""Where a model package keeps the baselines of a type of check, by file."""
_TEXTS: Final = (
    "CheckType", "ModelPackageGroupName", "SuppliedBaselineStatistics", "SuppliedBaselineConstraints", "ModelName",
)  # fmt: skip
_MOST_CONFIG: Final = 1 << 20
VIOLATED: Final = "CompletedWithViolations"


def files(type: str) -> Mapping[str, str]:
    """The files that a step of the type computes, by what they are."""
    if type == "ClarifyCheck":
        return {"Constraints": "analysis.json"}
    return {"Statistics": "statistics.json", "Constraints": "constraints.json"}


def settled(given: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What a step says of its check, all values known; raises Unresolved."""
    found: dict[str, Any] = {}
    for member, default in (("SkipCheck", False), ("FailOnViolation", True), ("RegisterNewBaseline", False)):
        value = given.get(member)
        value = {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value
        found[member] = default if value is None else value
        if not isinstance(found[member], bool):
            raise Unresolved(f"{member} of the step {name} is neither true nor false.")
    for member in _TEXTS:
        if given.get(member):
            found[member] = str(given[member])
    return found


async def baseline(act: Act, check: Mapping[str, Any]) -> dict[str, str]:
    """What a step holds its own baseline against: what it brings, or else what the latest approved model has. act: calls
    as the pipeline. Raises Unresolved if there is none and the check is not skipped."""
    found = _supplied(check)
    group = check.get("ModelPackageGroupName")
    if not found and group and not (check["SkipCheck"] and check["RegisterNewBaseline"]):
        # Of the first time, when there may be no such group yet, nothing is asked.
        asked = {"ModelPackageGroupName": group, "ModelApprovalStatus": "Approved", "MaxResults": 1}
        newest = {"SortBy": "CreationTime", "SortOrder": "Descending"}
        for one in (await act("sagemaker", "ListModelPackages", asked | newest))["ModelPackageSummaryList"]:
            named = {"ModelPackageName": one["ModelPackageArn"]}
            found = _registered(check, await act("sagemaker", "DescribeModelPackage", named))
    if not found and not check["SkipCheck"]:
        raise Unresolved(
            "There is no baseline to hold this one against: neither is one supplied, nor has an approved version of "
            "ModelPackageGroupName one in its DriftCheckBaselines. Please set SkipCheck the first time."
        )
    return found


def _supplied(check: Mapping[str, Any]) -> dict[str, str]:
    """The baselines that a step brings."""
    return {file: check[f"SuppliedBaseline{file}"] for file in _FOLDERS if f"SuppliedBaseline{file}" in check}


def _registered(check: Mapping[str, Any], package: Mapping[str, Any]) -> dict[str, str]:
    """The baselines of a model package for the check."""
    member, names = _BASELINES[check["CheckType"]]
    held = (package.get("DriftCheckBaselines") or {}).get(member) or {}
    return {file: held[name]["S3Uri"] for file, name in names.items() if held.get(name)}


async def asking(session: RoleSession, given: Mapping[str, Any], check: Mapping[str, Any], id: str) -> dict[str, Any]:
    """The request, of which a copy of the analysis' configuration names the model that is asked. id: tells the copy from
    others. The SDK leaves the model's name out of the configuration: it is not known before the pipeline runs. Raises
    Unresolved."""
    found = dict(given)
    if not check.get("ModelName"):
        return found
    inputs = [dict(one) for one in found.get("ProcessingInputs") or ()]
    config = next((one for one in inputs if one.get("InputName") == "analysis_config"), None)
    target = _output(found)
    if config is None or not target:
        raise Unresolved("A step with a ModelName needs the input analysis_config, and an output.")
    uri = str((config.get("S3Input") or {}).get("S3Uri") or "")
    try:
        content, _ = await objects.read(session, *objects.split(uri), most=_MOST_CONFIG)
        told = orjson.loads(content)
        told["predictor"] = {**(told.get("predictor") or {}), "model_name": check["ModelName"]}
        place = f"{target}/analysis-config/{id}/analysis_config.json"
        bucket, key = objects.split(place)
        asked = {"Bucket": bucket, "Key": key}
        kms = (found.get("ProcessingOutputConfig") or {}).get("KmsKeyId")
        if kms:
            asked |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms}
        await session.act("s3", "PutObject", asked, body=Bytes(orjson.dumps(told)))
    except Refused as refused:
        raise Unresolved(f"The configuration of the analysis, {uri[:500]}: {refused.message}") from None
    except (orjson.JSONDecodeError, TypeError, AttributeError):
        raise Unresolved(f"The configuration of the analysis, {uri[:500]}, is no JSON object.") from None
    config["S3Input"] = {**config["S3Input"], "S3Uri": place}
    return {**found, "ProcessingInputs": inputs}


def arguments(given: Mapping[str, Any], check: Mapping[str, Any], baseline: Mapping[str, str]) -> dict[str, Any]:
    """The request for the job: with the baseline that its data is held against, unless the check is skipped."""
    found = dict(given)
    if check["SkipCheck"]:
        return found
    inputs, environment = list(found.get("ProcessingInputs") or ()), dict(found.get("Environment") or {})
    for file, uri in baseline.items():
        folder = f"{_BASE}/{_FOLDERS[file]}"
        source = {"S3Uri": uri, "LocalPath": folder, "S3DataType": "S3Prefix", "S3InputMode": "File"}
        inputs.append({"InputName": f"baseline_{file.lower()}", "AppManaged": False, "S3Input": source})
        environment[f"baseline_{file.lower()}"] = f"{folder}/{posixpath.basename(uri)}"
    return {**found, "ProcessingInputs": inputs, "Environment": environment}


def properties(
    type: str, check: Mapping[str, Any], baseline: Mapping[str, str], described: Mapping[str, Any]
) -> dict[str, str]:
    """What others may ask of the step. described: the job."""
    base = _output(described)
    calculated = {file: f"{base}/{name}" for file, name in files(type).items()}
    used = calculated if check["RegisterNewBaseline"] else baseline
    return {
        **{f"CalculatedBaseline{file}": uri for file, uri in calculated.items()},
        **{f"BaselineUsedForDriftCheck{file}": uri for file, uri in used.items()},
    }


def metadata(
    type: str, check: Mapping[str, Any], job: str, held: Mapping[str, str], described: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What is listed of the step. held: its properties, as far as they are known. described: the job, when it is over."""
    found: dict[str, Any] = {
        "CheckType": check["CheckType"], "CheckJobArn": job, "SkipCheck": check["SkipCheck"],
        "RegisterNewBaseline": check["RegisterNewBaseline"], **held,
    }  # fmt: skip
    if "ModelPackageGroupName" in check:
        found["ModelPackageGroupName"] = check["ModelPackageGroupName"]
    if described is not None and violated(described):
        found["ViolationReport"] = f"{_output(described)}/constraint_violations.json"
    return {type: found}


def violated(described: Mapping[str, Any]) -> bool:
    """Whether a job found what does not keep to its baseline."""
    return str(described.get("ExitMessage") or "").startswith(VIOLATED)


def _output(described: Mapping[str, Any]) -> str:
    outputs = (described.get("ProcessingOutputConfig") or {}).get("Outputs") or [{}]
    return str((outputs[0].get("S3Output") or {}).get("S3Uri") or "").rstrip("/")
