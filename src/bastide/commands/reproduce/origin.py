"""Where a version came from, as lineage tells it, and the data as it was then."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import click

CANNOT: Final = 6


class NotReproducible(click.ClickException):
    """The version cannot be made again; the message says why."""

    exit_code = CANNOT


@dataclass(slots=True)
class Origin:
    """A version's training job, and the digests of what went into it: by kind (Code, DataSet, Image) and address."""

    job: dict[str, Any]
    component: str
    inputs: dict[tuple[str, str], str] = field(default_factory=dict)


def _pages(client: Any, operation: str, **given: Any) -> Iterator[dict[str, Any]]:
    yield from client.get_paginator(operation).paginate(**given)


def of_version(client: Any, arn: str) -> Origin:
    """The origin of a version; raises NotReproducible where lineage does not lead to a training job."""
    entities = [
        one["ArtifactArn"]
        for page in _pages(client, "list_artifacts", SourceUri=arn, ArtifactType="ModelPackage")
        for one in page["ArtifactSummaries"]
        if "CreatedBy" not in client.describe_artifact(ArtifactArn=one["ArtifactArn"])  # the service's, nobody's claim
    ]
    if not entities:
        raise NotReproducible(f"there is no lineage of {arn}")
    found = client.query_lineage(
        StartArns=entities[:1], Direction="Ascendants", IncludeEdges=False, Filters={"Types": ["SageMakerTrainingJob"]}
    )["Vertices"]
    for vertex in found:
        if vertex["LineageType"] == "TrialComponent":
            return of_component(client, vertex["Arn"])
    told = client.describe_model_package(ModelPackageName=arn)["ModelPackageStatusDetails"]["ValidationStatuses"]
    why = next((one.get("FailureReason", "") for one in told if one["Name"] == "Lineage"), "")
    raise NotReproducible(f"no training job leads to {arn}. {why}")


def of_component(client: Any, arn: str) -> Origin:
    """The origin that a training job's component tells."""
    component = client.describe_trial_component(TrialComponentName=arn.rsplit("/", 1)[-1])
    job = client.describe_training_job(TrainingJobName=component["Source"]["SourceArn"].rsplit("/", 1)[-1])
    origin = Origin(job, arn)
    for page in _pages(client, "list_associations", DestinationArn=arn, AssociationType="ContributedTo"):
        for one in page["AssociationSummaries"]:
            artifact = client.describe_artifact(ArtifactArn=one["SourceArn"])
            source = artifact["Source"]
            digest = next(
                (told["Value"] for told in source.get("SourceTypes", ()) if told["Value"].startswith("sha256:")), ""
            )
            origin.inputs[artifact["ArtifactType"], source["SourceUri"].rstrip("/")] = digest
    return origin


# -- data as it was ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Then:
    """An address's objects as they were: key and version of each. changed: something is different now; kept: all of it is
    still there."""

    bucket: str
    prefix: str
    objects: list[tuple[str, str]]
    changed: bool
    kept: bool


def split(uri: str) -> tuple[str, str]:
    """Bucket and key."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def then(s3: Any, uri: str, at: datetime, *, exact: bool = False) -> Then:
    """What was under an address at a time, as far as S3 still has it. exact: the one object, not a prefix."""
    bucket, prefix = split(uri)
    every: dict[str, list[tuple[datetime, str, bool]]] = {}
    for page in _pages(s3, "list_object_versions", Bucket=bucket, Prefix=prefix):
        for member, alive in (("Versions", True), ("DeleteMarkers", False)):
            for one in page.get(member, ()):
                if not exact or one["Key"] == prefix:
                    every.setdefault(one["Key"], []).append((one["LastModified"], one["VersionId"], alive))
    objects, changed, kept = [], False, True
    for key, versions in sorted(every.items()):
        versions.sort(key=lambda one: one[0])
        before = [one for one in versions if one[0] <= at]
        if versions[-1][0] > at:
            changed = True
        if before and before[-1][2]:
            objects.append((key, before[-1][1]))
        elif not before and versions[0][1] == "null":
            kept = False  # it was written over, or is new: without versions nobody can tell
    return Then(bucket, prefix, objects, changed, kept and bool(objects))


def restore(s3: Any, held: Then, bucket: str, folder: str) -> str:
    """Copies what was there into a folder; its address, which ends as the first one did."""
    base = held.prefix.rpartition("/")[0]
    for key, version in held.objects:
        source = {"Bucket": held.bucket, "Key": key, **({} if version == "null" else {"VersionId": version})}
        s3.copy_object(Bucket=bucket, Key=f"{folder}/{key[len(base) :].lstrip('/')}", CopySource=source)
    return f"s3://{bucket}/{folder}/{held.prefix[len(base) :].lstrip('/')}"
