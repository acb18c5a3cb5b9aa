"""Source actions: what is in a repository, a bucket or a registry now, as an artifact.

Source: CodePipeline User Guide, "CodeCommit source action reference", "Amazon S3 source action reference", "Amazon ECR
source action reference".
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

from bastide.domain import Refused, iso
from bastide.services.codepipeline.artifacts import Piped, added, zipped
from bastide.services.codepipeline.work import ActionFailed, Work, cause

BUNDLE: Final = "repository.bundle"
"""The history, beside the tree: ``git clone repository.bundle``."""


def _wanted(work: Work) -> dict[str, str]:
    """The revision that whoever started the execution asked for instead of the newest."""
    found: dict[str, str] = work.row().doc["overrides"].get(work.declared["name"]) or {}
    return found


def _output(work: Work) -> str:
    return str(work.declared["outputArtifacts"][0]["name"])


async def code_commit(work: Work) -> str:
    """A commit's tree as a ZIP; for builds that want the history, with the repository as a bundle in it."""
    given = work.configuration
    name = given["RepositoryName"]
    # What was taken before a crash is taken again, and not what came since.
    wanted = work.record.get("revision") or _wanted(work).get("COMMIT_ID") or given["BranchName"]
    whole = given.get("OutputArtifactFormat") == "CODEBUILD_CLONE_REF"
    asked = {"repositoryName": name, "commitSpecifier": wanted, "format": "zip"}
    try:
        told = await work.actor.act("codecommit", "UploadArchive", asked)
        commit = str(told["commitId"])
        data, bundle = bytes(told["archive"]), b""
        if whole:
            asked |= {"commitSpecifier": commit, "format": "bundle"}
            bundle = bytes((await work.actor.act("codecommit", "UploadArchive", asked))["archive"])
    except Refused as refused:
        raise cause(refused, f"The branch {given['BranchName']} of the repository {name} cannot be read") from None
    message = str(told.get("message") or "")
    if whole:
        data = await asyncio.to_thread(added, data, BUNDLE, bundle)
    await work.revision(_output(work), commit, summary=message)
    await work.put(_output(work), data)
    work.publish(
        RepositoryName=name,
        BranchName=given["BranchName"],
        CommitId=commit,
        CommitMessage=message,
        AuthorDate=_date(told.get("authorDate")),
        CommitterDate=_date(told.get("committerDate") or told.get("authorDate")),
    )
    return message[:2048] or commit


def _date(value: Any) -> str | None:
    return iso(value) if isinstance(value, int) else None if value is None else str(value)


async def s3(work: Work) -> str:
    """An object's newest version, of a bucket that keeps versions."""
    given, wanted = work.configuration, _wanted(work)
    bucket, key = given["S3Bucket"], wanted.get("S3_OBJECT_KEY") or given["S3ObjectKey"]
    what = f"The object s3://{bucket}/{key} cannot be read"
    version = work.record.get("revision") or wanted.get("S3_OBJECT_VERSION_ID")
    asked = {"Bucket": bucket, "Key": key, **({"VersionId": version} if version else {})}
    try:
        output = await work.actor.act("s3", "GetObject", asked)
    except Refused as refused:
        raise cause(refused, what) from None
    piped = Piped(output["Body"], output.get("ContentLength"))
    version = str(output.get("VersionId") or "")
    if not version or version == "null":
        async for _ in piped.chunks():
            break
        raise ActionFailed(
            "ConfigurationError",
            f"{what}: the bucket {bucket} does not keep versions; enable its versioning, as a source needs it.",
        )
    await work.revision(_output(work), version, summary=f"Amazon S3 version id: {version}")
    await work.put(_output(work), piped)
    work.publish(BucketName=bucket, ObjectKey=key, VersionId=version, ETag=str(output.get("ETag") or "").strip('"'))
    return f"Amazon S3 version id: {version}"


async def ecr(work: Work) -> str:
    """An image's digest, in the file imageDetail.json."""
    given = work.configuration
    name, tag = given["RepositoryName"], given.get("ImageTag") or "latest"
    digest = work.record.get("revision") or _wanted(work).get("IMAGE_DIGEST")
    one = {"imageDigest": digest} if digest else {"imageTag": tag}
    try:
        output = await work.actor.act("ecr", "DescribeImages", {"repositoryName": name, "imageIds": [one]})
    except Refused as refused:
        raise cause(refused, f"The image {name}:{tag} cannot be read") from None
    image = output["imageDetails"][0]
    digest, registry = str(image["imageDigest"]), str(image.get("registryId") or work.account)
    uri = f"{registry}.dkr.ecr.{work.region}.amazonaws.com/{name}@{digest}"
    detail = {
        "ImageSizeInBytes": str(image.get("imageSizeInBytes", "")),
        "ImageDigest": digest,
        "Version": "1.0",
        "ImagePushedAt": _date(image.get("imagePushedAt")),
        "RegistryId": registry,
        "RepositoryName": name,
        "ImageURI": uri,
        "ImageTags": list(image.get("imageTags") or ()),
    }
    await work.revision(_output(work), digest, summary=f"{name}:{tag}")
    await work.put(_output(work), zipped({"imageDetail.json": json.dumps(detail, indent=1).encode()}))
    work.publish(RegistryId=registry, RepositoryName=name, ImageTag=tag, ImageDigest=digest, ImageURI=uri)
    return f"{name}:{tag} {digest}"
