"""Templates and definitions that lie in S3, read as whoever asks.

URLs are those of AWS's own S3 and of this platform's, in both styles; nothing is fetched from anywhere else.
"""

from __future__ import annotations

import contextlib
import re
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from bastide.domain import Refused
from bastide.engines.templates import MOST_BYTES
from bastide.services.cloudformation.acting import Actor

_AWS: Final = re.compile(r"(?:(?P<bucket>.+)\.)?s3(?:[.-](?:dualstack\.)?[a-z0-9-]+)?\.amazonaws\.com(?::\d+)?")


def located(url: str, hosts: tuple[str, ...] = ()) -> tuple[str, str, str]:
    """Bucket, key and version of an S3 URL; raises Refused("ValidationError") for any other."""
    parts = urlsplit(url)
    path = unquote(parts.path).lstrip("/")
    version = (parse_qs(parts.query).get("versionId") or [""])[0]
    if parts.scheme == "s3":
        bucket, key = parts.netloc, path
    else:
        match = _AWS.fullmatch(parts.netloc)
        bucket = ""
        if match and match["bucket"]:
            bucket, key = match["bucket"], path
        elif match or parts.hostname in hosts:
            bucket, _, key = path.partition("/")
        else:
            for host in hosts:
                name = (parts.hostname or "").removesuffix(f".{host}").removesuffix(".s3")
                if name != parts.hostname:
                    bucket = name
            key = path
    if not bucket or not key or parts.scheme not in ("https", "http", "s3"):
        raise Refused("ValidationError", "TemplateURL must be a supported URL.")
    return bucket, key, version


async def fetched(actor: Actor, bucket: str, key: str, version: str = "", *, most: int = MOST_BYTES) -> bytes:
    """A small object; raises Refused, also for one of more than `most` bytes."""
    asked = {"Bucket": bucket, "Key": key, **({"VersionId": version} if version else {})}
    where = f"s3://{bucket}/{key}"
    try:
        answer = await actor.act("s3", "GetObject", asked)
    except Refused as refused:
        raise Refused("ValidationError", f"S3 error: {refused.message} ({refused.code}, {where})") from None
    body = answer["Body"]
    found = b""
    try:
        async for piece in body:
            found += piece
            if len(found) > most:
                raise Refused("ValidationError", f"{where} may not exceed {most} bytes in size.")
    finally:
        if hasattr(body, "aclose"):
            with contextlib.suppress(Exception):
                await body.aclose()
    return found


async def template_at(actor: Actor, url: str, hosts: tuple[str, ...]) -> str:
    """The text of a template in S3; raises Refused."""
    if url.startswith("s3://"):  # AWS takes these of AWS::Include alone
        bucket = urlsplit(url).netloc
        raise Refused("ValidationError", f"S3 error: Domain name specified in {bucket} is not a valid S3 domain")
    held = await fetched(actor, *located(url, hosts))
    try:
        return held.decode()
    except UnicodeDecodeError:
        raise Refused("ValidationError", "Template format error: it is not UTF-8.") from None
