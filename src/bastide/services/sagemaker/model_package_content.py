"""What a version of a model is made of: containers, pinned when it is registered, and what is known of them then."""

from __future__ import annotations

from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.kernel import Authorised
from bastide.services.sagemaker import lineage_record, model_scan, own_image
from bastide.services.sagemaker.objects import split
from bastide.services.sagemaker.session import SAGEMAKER
from bastide.store import Row, View

_MOST_SPECIFICATIONS: Final = 15


def pinned(a: Authorised, view: View, containers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The containers with the digest of each image and the ETag of each model's data, looked at with the caller's own
    permissions. Raises Refused where there is no such image, or no data that the caller may read."""
    found = []
    for container in containers:
        made = dict(container)
        if made.get("Image"):
            made["ImageDigest"] = own_image.digest_of(a, view, made["Image"])
        if made.get("ModelDataUrl"):
            bucket, key = split(made["ModelDataUrl"])
            try:
                head = a.forward(view, "s3", "HeadObject", {"Bucket": bucket, "Key": key}, SAGEMAKER)
            except Refused as refused:
                raise Refused(
                    "ValidationException",
                    f"Could not access model data at {made['ModelDataUrl']}. Please ensure that the object exists and that "
                    f"you may read it ({refused.code}).",
                ) from None
            made["ModelDataETag"] = str(head["ETag"]).strip('"')
        found.append(made)
    return found


def inference(a: Authorised, view: View, specification: dict[str, Any]) -> dict[str, Any]:
    """A specification with its containers pinned; raises Refused for what cannot be served or is not there."""
    for container in specification.get("Containers") or ():
        for member in ("ModelDataSource", "ProductId", "AdditionalModelDataSources", "AdditionalS3DataSource"):
            if container.get(member):
                raise Refused("ValidationException", f"Containers.{member} is not supported by Bastide yet.")
        if not container.get("Image"):
            raise Refused("ValidationException", "Every container of a specification needs an Image.")
    return {**specification, "Containers": pinned(a, view, specification.get("Containers") or [])}


def additional(
    a: Authorised, view: View, held: list[dict[str, Any]], given: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Further specifications beside those there are; each has a name of its own."""
    found = [*held, *(inference(a, view, one) for one in given)]
    names = [one["Name"] for one in found]
    if len(set(names)) != len(names):
        raise Refused("ValidationException", "Two additional inference specifications have the same Name.")
    if len(found) > _MOST_SPECIFICATIONS:
        raise Refused(
            "ValidationException", f"A version may have {_MOST_SPECIFICATIONS} additional inference specifications."
        )
    return found


def card(given: dict[str, Any]) -> dict[str, Any]:
    """The card of a version; raises Refused for content that is no JSON object."""
    try:
        content = orjson.loads(given.get("ModelCardContent") or "{}")
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise Refused("ValidationException", "ModelCard.ModelCardContent must be a JSON object.")
    return {"ModelCardStatus": "Draft", **given}


def looked(a: Authorised, view: View, row: Row) -> None:
    """Writes onto a version what is known of how it came about, and of what its data does when it is loaded."""
    containers = [container for one in model_scan.specifications(row.doc) for container in one.get("Containers") or ()]
    missing = lineage_record.missing(view, a.account, row.region, containers) if containers else ["it has no container"]
    row.doc["_lineage"] = "Incomplete" if missing else "Complete"
    told: list[dict[str, Any]] = [{"Name": "Lineage", "Status": "Failed" if missing else "Completed"}]
    if missing:
        told[0]["FailureReason"] = f"Lineage is incomplete: {'; '.join(missing)}."[:1024]
    reports: dict[str, Any] = dict(row.doc.get("_scans") or {})
    verdicts, findings = [], []
    for container in containers:
        url, etag = container.get("ModelDataUrl"), container.get("ModelDataETag")
        if not url:
            continue
        report = (a.staged or {}).get(url)
        if report is not None and report.get("etag") == etag:
            reports[f"{url} {etag}"] = report
        report = reports.get(f"{url} {etag}") or {
            "verdict": "NotScanned", "findings": [f"{url} was changed while it was being registered"],
        }  # fmt: skip
        verdicts.append(report["verdict"])
        findings += report["findings"]
    row.doc["_scans"] = reports
    row.doc["_scan"] = verdict = next(
        (one for one in ("Dangerous", "NotScanned", "Suspicious") if one in verdicts),
        "Clean" if verdicts else "NotScanned",
    )
    told.append({"Name": "ModelScan", "Status": "Completed" if verdict == "Clean" else "Failed"})
    if verdict != "Clean":
        why = "; ".join(findings) or "there is no model data"
        told[1]["FailureReason"] = f"{verdict}: {why}."[:1024]
    row.doc["ModelPackageStatusDetails"] = {"ValidationStatuses": told, "ImageScanStatuses": []}
