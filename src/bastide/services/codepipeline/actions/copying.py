"""Deploy actions for S3: an artifact, or what is in it, into a bucket.

Source: CodePipeline User Guide, "Amazon S3 deploy action reference".
"""

from __future__ import annotations

import asyncio
import mimetypes
from typing import Any

from bastide.domain import Refused
from bastide.kernel import Bytes
from bastide.services.codepipeline import artifacts
from bastide.services.codepipeline.work import ActionFailed, Work, cause


async def deploy(work: Work) -> str:
    """Each file is written once: how far it came is in the record with each of them."""
    given = work.configuration
    name = work.declared["inputArtifacts"][0]["name"]
    data = await work.read(name)
    if given["Extract"] == "false":
        files = iter([(given["ObjectKey"], data)])
    else:
        prefix = given.get("ObjectKey") or ""
        prefix = f"{prefix.rstrip('/')}/" if prefix else ""
        files = ((prefix + path, one) for path, one in artifacts.members(data))
    count = 0
    try:
        while (one := await asyncio.to_thread(next, files, None)) is not None:
            count += 1
            if count > int(work.record.get("written") or 0):
                await _write(work, *one, count)
    except artifacts.Broken as broken:
        raise ActionFailed("ConfigurationError", f"The artifact {name} cannot be unpacked: {broken}.") from None
    return f"{count} objects are in {given['BucketName']}."


async def _write(work: Work, key: str, data: bytes, count: int) -> None:
    given = work.configuration
    asked: dict[str, Any] = {"Bucket": given["BucketName"], "Key": key}
    kind = mimetypes.guess_type(key)[0]
    if kind:
        asked["ContentType"] = kind
    if given.get("CacheControl"):
        asked["CacheControl"] = given["CacheControl"]
    if given.get("CannedACL"):
        asked["ACL"] = given["CannedACL"]
    if given.get("KMSEncryptionKeyARN"):
        asked |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": given["KMSEncryptionKeyARN"]}
    try:
        await work.begin("s3", "PutObject", asked, lambda _: {"written": count}, body=Bytes(data))
    except Refused as refused:
        raise cause(refused, f"s3://{given['BucketName']}/{key} cannot be written") from None
