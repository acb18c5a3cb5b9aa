"""Where templates of products come from: S3 or an existing stack, read as whoever makes the product.

Source: Service Catalog API Reference, "ProvisioningArtifactProperties".
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from bastide.domain import Refused
from bastide.engines import templates
from bastide.kernel import Authorised
from bastide.kernel.address import Address
from bastide.services.servicecatalog.noun import PRINCIPAL, invalid

_AWS: Final = re.compile(r"(?:(?P<bucket>.+)\.)?s3(?:[.-](?:dualstack\.)?[a-z0-9-]+)?\.amazonaws\.com(?::\d+)?")


def _located(url: str, hosts: tuple[str, ...]) -> tuple[str, str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise invalid("LoadTemplateFromURL is to be the URL of an object in S3.") from None
    path = unquote(parts.path).lstrip("/")
    match, name = _AWS.fullmatch(parts.netloc), parts.hostname or ""
    bucket, key = "", path
    if match and match["bucket"]:
        bucket = match["bucket"]
    elif match or name in hosts:
        bucket, _, key = path.partition("/")
    else:
        for host in hosts:
            if name.endswith(f".{host}"):
                bucket = name.removesuffix(f".{host}").removesuffix(".s3")
    if not bucket or not key or parts.scheme not in ("https", "http") or parts.query:
        raise invalid("LoadTemplateFromURL is to be the URL of an object in S3.")
    return bucket, key


async def _object(a: Authorised, url: str) -> str:
    bucket, key = _located(url, a.engine(Address).hosts)
    try:
        answer = await a.calls.act(
            a.caller, "s3", "GetObject", {"Bucket": bucket, "Key": key}, region=a.region, source=PRINCIPAL,
            via=(*a.request.via, PRINCIPAL),
        )  # fmt: skip
    except Refused as refused:
        raise invalid(f"The template could not be read from S3: {refused.message} ({refused.code})") from None
    body, found = answer["Body"], b""
    try:
        async for piece in body:
            found += piece
            if len(found) > templates.MOST_BYTES:
                break
    finally:
        if hasattr(body, "aclose"):
            with contextlib.suppress(Exception):
                await body.aclose()
    try:
        return found[: templates.MOST_BYTES + 1].decode()
    except UnicodeDecodeError:
        raise invalid("Template format error: it is not UTF-8.") from None


async def _of_stack(a: Authorised, arn: str) -> str:
    try:
        answer = await a.calls.act(
            a.caller, "cloudformation", "GetTemplate", {"StackName": arn}, region=a.region, source=PRINCIPAL,
            via=(*a.request.via, PRINCIPAL),
        )  # fmt: skip
    except Refused as refused:
        raise invalid(f"The stack's template could not be read: {refused.message} ({refused.code})") from None
    return str(answer["TemplateBody"])


def read(body: str) -> templates.Template:
    """A template as far as it can be read before its parameters are known; raises InvalidParametersException."""
    try:
        raw = templates.read(body)
        templates.parameters.check_declared(raw.get("Parameters") or {})
        if templates.transforms_of(raw):
            return templates.Template(raw, templates.transforms_of(raw))
        return templates.checked(raw)
    except Refused as refused:
        raise invalid(refused.message) from None


async def template(a: Authorised, given: Mapping[str, Any]) -> tuple[str, str]:
    """A version's template and where it came from; raises InvalidParametersException."""
    info = dict(given.get("Info") or {})
    if given.get("Type") not in (None, "CLOUD_FORMATION_TEMPLATE"):
        raise invalid("Type: versions are CLOUD_FORMATION_TEMPLATE; Bastide has no other kind.")
    if len(info) != 1 or next(iter(info)) not in ("LoadTemplateFromURL", "ImportFromPhysicalId"):
        raise invalid(
            "Info has LoadTemplateFromURL, the URL of a template in S3, or ImportFromPhysicalId, a stack's ARN."
        )
    [(how, where)] = info.items()
    body = await (_object(a, where) if how == "LoadTemplateFromURL" else _of_stack(a, where))
    if len(body.encode()) > templates.MOST_BYTES:
        raise invalid(f"The template has more than {templates.MOST_BYTES} bytes, the most that a template may have.")
    if not given.get("DisableTemplateValidation"):
        await asyncio.to_thread(read, body)
    return body, where
