"""Scanning for known vulnerabilities: when it is done, and what was found.

A scan reads the packages of an image out of its layers and holds them against the advisories that the operator loaded
(`scanner`, `engines.advisories`). Basic scans are kept as they are for a day; where a registry has enhanced scanning with
CONTINUOUS_SCAN, what is known of an image follows the advisories. Source: Amazon ECR User Guide, "Scan images for software
vulnerabilities"; API Reference.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Final

from bastide.domain import MICROS, Refused
from bastide.kernel import Ask, Authorised, Output, anything, pages
from bastide.kernel.happened import tell
from bastide.services.ecr.registry_policy import REGISTRY
from bastide.services.ecr.repository import (
    DUE,
    IMAGE,
    REPOSITORY,
    SCAN,
    TAG,
    arn_of,
    enlisted,
    invalid,
    named,
    rows_of,
    this,
    wildcard,
)
from bastide.store import Row, Transaction, View

_DAY: Final = 24 * 3600 * MICROS
_IMAGES: Final = (
    "application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json",
)  # fmt: skip
_FREQUENCIES: Final = {"BASIC": ("SCAN_ON_PUSH", "MANUAL"), "ENHANCED": ("SCAN_ON_PUSH", "CONTINUOUS_SCAN")}
_MOST_FILTERS: Final = 100
_ORDER: Final = ("CRITICAL", "HIGH", "MEDIUM", "LOW", "INFORMATIONAL", "UNDEFINED")


# -- how a registry scans ------------------------------------------------------------------------------------------------


def _settings(view: View, account: str, region: str) -> dict[str, Any]:
    row = REGISTRY.get(view, account, region, "scanning")
    return row.doc if row is not None else {"scanType": "BASIC", "rules": []}


def enhanced(view: View, account: str, region: str) -> bool:
    """Whether a registry has enhanced scanning."""
    return bool(_settings(view, account, region)["scanType"] == "ENHANCED")


def frequency(view: View, repository: Row) -> tuple[str, list[dict[str, str]]]:
    """When images of a repository are scanned, and the registry's filters that say so; CONTINUOUS_SCAN wins."""
    settings = _settings(view, repository.account, repository.region)
    found: dict[str, list[dict[str, str]]] = {}
    for rule in settings["rules"]:
        fitting = [one for one in rule["repositoryFilters"] if wildcard(one["filter"]).fullmatch(repository.name)]
        if fitting:
            found.setdefault(rule["scanFrequency"], []).extend(fitting)
    for word in ("CONTINUOUS_SCAN", "SCAN_ON_PUSH"):
        if word in found:
            return word, found[word]
    on_push = settings["scanType"] == "BASIC" and repository.doc.get("scanOnPush")
    return ("SCAN_ON_PUSH" if on_push else "MANUAL"), []


@REGISTRY.operation("PutRegistryScanningConfiguration", asks=[Ask("ecr:PutRegistryScanningConfiguration", anything)])
def put_registry(a: Authorised, tx: Transaction) -> Output:
    kind = str(a.input.get("scanType") or "BASIC")
    rules = [dict(one) for one in a.input.get("rules") or ()]
    if len({one["scanFrequency"] for one in rules}) < len(rules):
        raise invalid("a scanFrequency has one rule.")
    for rule in rules:
        if rule["scanFrequency"] not in _FREQUENCIES[kind]:
            raise invalid(f"{rule['scanFrequency']} is not a scanFrequency of the scanType {kind}.")
        if not 1 <= len(rule["repositoryFilters"]) <= _MOST_FILTERS:
            raise invalid(f"a rule has 1 to {_MOST_FILTERS} repositoryFilters.")
    doc = {"scanType": kind, "rules": rules}
    row = REGISTRY.get(tx, a.account, a.region, "scanning")
    if row is None:
        REGISTRY.create(a, tx, "scanning", doc)
    else:
        row.doc = {**row.doc, **doc}
        REGISTRY.change(tx, row, a.operation.name, a.request.id)
    _begin(tx, a.account, a.region)
    return {"registryScanningConfiguration": doc}


def _begin(tx: Transaction, account: str, region: str) -> None:
    """Images that are to be followed from now on, and that no scan has seen, are scanned."""
    for repository in tx.scan(REPOSITORY.key, account, region, limit=100_000):
        if frequency(tx, repository)[0] == "CONTINUOUS_SCAN":
            for image in rows_of(tx, IMAGE, repository):
                if scannable(image) and SCAN.get(tx, account, region, image.name) is None:
                    _wanted(tx, image)


@REGISTRY.reads("GetRegistryScanningConfiguration", asks=[Ask("ecr:GetRegistryScanningConfiguration", anything)])
def get_registry(a: Authorised, view: View) -> Output:
    held = _settings(view, a.account, a.region)
    told = {"scanType": held["scanType"], "rules": held["rules"]}
    return {"registryId": a.account, "scanningConfiguration": told}


@REGISTRY.reads("DescribeRegistry", asks=[Ask("ecr:DescribeRegistry", anything)])
def describe_registry(a: Authorised, _: View) -> Output:
    return {"registryId": a.account, "replicationConfiguration": {"rules": []}}


def _several(asked: Any) -> list[str]:
    return [REPOSITORY.arn(asked.call.account, asked.call.region, str(name)) for name in asked.input["repositoryNames"]]


@REPOSITORY.reads(
    "BatchGetRepositoryScanningConfiguration", asks=[Ask("ecr:BatchGetRepositoryScanningConfiguration", _several)]
)
def get_settings(a: Authorised, view: View) -> Output:
    found, failures = [], []
    for name in a.input["repositoryNames"]:
        row = REPOSITORY.get(view, a.account, a.region, str(name))
        if row is None:
            failures.append(
                {
                    "repositoryName": name,
                    "failureCode": "REPOSITORY_NOT_FOUND",
                    "failureReason": "The repository does not exist.",
                }
            )
            continue
        when, filters = frequency(view, row)
        found.append(
            {
                "repositoryArn": arn_of(row),
                "repositoryName": row.name,
                "scanOnPush": when != "MANUAL",
                "scanFrequency": when,
                "appliedScanFilters": filters,
            }
        )
    return {"scanningConfigurations": found, "failures": failures}


@REPOSITORY.operation("PutImageScanningConfiguration", asks=[Ask("ecr:PutImageScanningConfiguration", this)])
def put_settings(a: Authorised, tx: Transaction) -> Output:
    row = named(a, tx)
    row.doc["scanOnPush"] = bool(a.input["imageScanningConfiguration"].get("scanOnPush"))
    REPOSITORY.change(tx, row, a.operation.name, a.request.id)
    return {
        "registryId": row.account,
        "repositoryName": row.name,
        "imageScanningConfiguration": {"scanOnPush": row.doc["scanOnPush"]},
    }


# -- asking for a scan ---------------------------------------------------------------------------------------------------


def scannable(image: Row) -> bool:
    """Whether a row is an image with a file system, and no list and no other artifact."""
    return image.doc["artifact"] in _IMAGES and not image.doc.get("subject")


def _wanted(tx: Transaction, image: Row) -> None:
    """Has an image scanned: from now on it is known to be waiting, whatever happens to the process."""
    row = SCAN.get(tx, image.account, image.region, image.name)
    if row is None:
        row = Row(SCAN.key, image.account, image.region, image.name, {"state": "PENDING", "asked": tx.now})
        tx.insert(row, keep=False)
    else:
        row.doc |= {"state": "PENDING", "asked": tx.now}
        SCAN.change(tx, row, "ScanWanted")
    enlisted(tx, DUE, f"{image.account}|{image.region}|{image.name}")


def pushed(tx: Transaction, repository: Row, image: Row) -> None:
    """A new image is scanned where that is wanted."""
    if scannable(image) and frequency(tx, repository)[0] != "MANUAL":
        _wanted(tx, image)


def _image(a: Authorised, view: View) -> tuple[Row, Row, dict[str, Any]]:
    repository, id = named(a, view), a.input["imageId"]
    digest = id.get("imageDigest")
    if id.get("imageTag"):
        tag = TAG.get(view, repository.account, repository.region, f"{repository.name}:{id['imageTag']}")
        meant = tag.doc["digest"] if tag is not None else None
        digest = meant if digest in (None, meant) else None
    image = IMAGE.get(view, repository.account, repository.region, f"{repository.name}@{digest}") if digest else None
    if image is None:
        raise Refused(
            "ImageNotFoundException",
            f"The image with imageId {{imageDigest:'{id.get('imageDigest') or 'null'}', "
            f"imageTag:'{id.get('imageTag') or 'null'}'}} does not exist within the repository with name "
            f"'{repository.name}' in the registry with id '{repository.account}'",
        )
    return (
        repository,
        image,
        {"imageDigest": str(digest), **({"imageTag": id["imageTag"]} if id.get("imageTag") else {})},
    )


@SCAN.operation("StartImageScan", asks=[Ask("ecr:StartImageScan", this)])
def start(a: Authorised, tx: Transaction) -> Output:
    repository, image, id = _image(a, tx)
    if enhanced(tx, repository.account, repository.region):
        raise Refused(
            "ValidationException",
            "This feature is disabled: the registry has enhanced scanning, which scans by its rules.",
        )
    if not scannable(image):
        raise Refused("UnsupportedImageTypeException", "Lists of images and other artifacts are not scanned.")
    row = SCAN.get(tx, image.account, image.region, image.name)
    if row is not None and row.doc["asked"] > a.now - _DAY:
        raise Refused(
            "LimitExceededException",
            "The scan quota per image has been exceeded. Wait and try again: an image is scanned once in 24 hours.",
        )
    _wanted(tx, image)
    return {
        "registryId": repository.account,
        "repositoryName": repository.name,
        "imageId": id,
        "imageScanStatus": {"status": "IN_PROGRESS"},
    }


# -- what was found ------------------------------------------------------------------------------------------------------

_WORDS: Final = {
    "UNSUPPORTED_IMAGE": "UnsupportedImageError: The operating system and/or package manager are not supported.",
    "COMPLETE": "The scan was completed successfully.",
    "PENDING": "The scan waits for its turn.",
    "IN_PROGRESS": "The scan is in progress.",
    "ACTIVE": "Continuous scan is selected for image.",
}


def _status(scan: Row, following: bool) -> dict[str, str]:
    state = str(scan.doc["state"])
    if state == "PENDING":
        state = "IN_PROGRESS"
    if state == "COMPLETE" and following:
        state = "ACTIVE"
    return {"status": state, "description": str(scan.doc.get("why") or _WORDS.get(state, ""))}


def counts(findings: list[dict[str, Any]]) -> dict[str, int]:
    """How many findings there are of each severity."""
    found: dict[str, int] = {}
    for one in findings:
        found[one["severity"]] = found.get(one["severity"], 0) + 1
    return {word: found[word] for word in _ORDER if word in found}


def _summed(scan: Row) -> dict[str, Any]:
    if "completed" not in scan.doc:
        return {}
    told = {
        "imageScanCompletedAt": scan.doc["completed"],
        "findingSeverityCounts": counts(scan.doc["findings"]),
    }
    if scan.doc["updated"]:
        told["vulnerabilitySourceUpdatedAt"] = scan.doc["updated"]
    return told


def summary(view: View, image: Row) -> dict[str, Any]:
    """What DescribeImages tells of an image's scan."""
    scan = SCAN.get(view, image.account, image.region, image.name)
    if scan is None:
        return {}
    found: dict[str, Any] = {"imageScanStatus": _status(scan, False)}
    if told := _summed(scan):
        found["imageScanFindingsSummary"] = told
    return found


@SCAN.reads("DescribeImageScanFindings", asks=[Ask("ecr:DescribeImageScanFindings", this)])
def described(a: Authorised, view: View) -> Output:
    repository, image, id = _image(a, view)
    scan = SCAN.get(view, image.account, image.region, image.name)
    if scan is None:
        raise Refused(
            "ScanNotFoundException",
            f"Image scan does not exist for the image with '{id}' in the repository with name '{repository.name}' in the "
            f"registry with id '{repository.account}'",
        )
    whole = enhanced(view, repository.account, repository.region)
    following = whole and frequency(view, repository)[0] == "CONTINUOUS_SCAN"
    told: Output = {
        "registryId": repository.account,
        "repositoryName": repository.name,
        "imageId": id,
        "imageScanStatus": _status(scan, following),
    }
    if "completed" not in scan.doc:
        return told
    limit = min(int(a.input.get("maxResults") or 100), 1000)
    begin = pages.position(a, a.input.get("nextToken"), code="InvalidParameterException") or 0
    page = scan.doc["findings"][begin : begin + limit]
    if begin + limit < len(scan.doc["findings"]):
        told["nextToken"] = pages.seal(a, begin + limit)
    if whole:
        shown = {"enhancedFindings": [_enhanced(repository, image, scan, one) for one in page]}
    else:
        shown = {"findings": [_basic(one) for one in page]}
    return {**told, "imageScanFindings": {**_summed(scan), **shown}}


def _basic(one: Mapping[str, Any]) -> dict[str, Any]:
    pairs = {
        "package_name": one["package"],
        "package_version": one["version"],
        "CVSS3_VECTOR": one["vector"],
        "CVSS3_SCORE": str(one["score"]) if one["vector"] else "",
        "fixed_version": one["fixed"],
    }
    return {
        "name": one["name"],
        "description": one["summary"],
        "uri": one["uri"],
        "severity": one["severity"],
        "attributes": [{"key": key, "value": value} for key, value in pairs.items() if value],
    }


_MANAGERS: Final = {"deb": "OS", "apk": "OS", "pypi": "PYTHONPKG"}


def _enhanced(repository: Row, image: Row, scan: Row, one: Mapping[str, Any]) -> dict[str, Any]:
    digest = image.name.rpartition("@")[2]
    package = {
        "name": one["package"],
        "version": one["version"],
        "packageManager": _MANAGERS[one["kind"]],
        **({"fixedInVersion": one["fixed"]} if one["fixed"] else {}),
        **({"filePath": one["path"]} if one["path"] else {}),
    }
    details: dict[str, Any] = {
        "vulnerabilityId": one["name"],
        "source": "OSV",
        "sourceUrl": one["uri"],
        "referenceUrls": one["references"],
        "relatedVulnerabilities": [one["id"]] if one["id"] != one["name"] else [],
        "vulnerablePackages": [package],
        "cvss": [],
    }
    for member, given in (("vendorCreatedAt", one["published"]), ("vendorUpdatedAt", one["modified"])):
        if (at := _instant(given)) is not None:
            details[member] = at
    if one["vector"]:
        version = one["vector"].partition("/")[0].removeprefix("CVSS:")
        details["cvss"] = [
            {"baseScore": one["score"], "scoringVector": one["vector"], "version": version, "source": "OSV"}
        ]
    where = {
        "architecture": scan.doc.get("architecture") or "",
        "imageHash": digest,
        "imageTags": list(image.doc["tags"]),
        "platform": scan.doc["system"],
        "pushedAt": image.doc["pushed"],
        "registry": repository.account,
        "repositoryName": repository.name,
    }
    return {
        "awsAccountId": repository.account,
        "type": "PACKAGE_VULNERABILITY",
        "title": f"{one['name']} - {one['package']}",
        "description": one["summary"],
        "severity": {"INFORMATIONAL": "INFORMATIONAL", "UNDEFINED": "UNTRIAGED"}.get(one["severity"], one["severity"]),
        "status": "ACTIVE",
        "score": one["score"],
        "fixAvailable": "YES" if one["fixed"] else "NO",
        "firstObservedAt": one["seen"],
        "lastObservedAt": scan.doc["completed"],
        "updatedAt": scan.doc["completed"],
        "packageVulnerabilityDetails": details,
        "remediation": {"recommendation": {"text": f"Update to {one['fixed']}" if one["fixed"] else "None Provided"}},
        "resources": [
            {
                "type": "AWS_ECR_CONTAINER_IMAGE",
                "id": f"{arn_of(repository)}/{digest}",
                "details": {"awsEcrContainerImage": where},
            }
        ],
    }


def _instant(text: str) -> int | None:
    try:
        return int(datetime.datetime.fromisoformat(text).timestamp() * MICROS)
    except ValueError:
        return None


def told(tx: Transaction, repository: Row, image: Row, scan: Row) -> None:
    """Tells EventBridge of a scan that ended. Source: Amazon ECR User Guide, "Event for a completed image scan"."""
    tell(
        tx, account=image.account, region=image.region, source="aws.ecr", detail_type="ECR Image Scan",
        resources=[arn_of(repository)],
        detail={
            "scan-status": scan.doc["state"],
            "repository-name": repository.name,
            "finding-severity-counts": counts(scan.doc.get("findings") or []),
            "image-digest": image.name.rpartition("@")[2],
            "image-tags": list(image.doc["tags"]),
        },
    )  # fmt: skip
