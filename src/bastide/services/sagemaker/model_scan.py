"""What a model's archive would do when it is loaded, looked at before a version of it is registered."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

import orjson

from bastide.domain import Refused
from bastide.kernel import Authorised, Calls
from bastide.services.sagemaker.objects import split
from bastide.services.sagemaker.session import SAGEMAKER

_SCANNER: Final = str(Path(__file__).with_name("model_scanner.py"))
_SECONDS: Final = 300
_AT_ONCE: Final = 2
_gates: Final[WeakKeyDictionary[Calls, asyncio.Semaphore]] = WeakKeyDictionary()
"""Scanners of one platform that run at once: each may use gigabytes."""


def _unscanned(why: str) -> dict[str, Any]:
    return {"verdict": "NotScanned", "findings": [why], "files": 0}


async def scan(a: Authorised, url: str) -> dict[str, Any]:
    """The scanner's report of an archive, read with the caller's own permissions, and the ETag of what was read. The bytes
    go through a pipe: they are never in the clear on the disk. A scanner that dies or takes too long found nothing out."""
    bucket, key = split(url)
    try:
        output = await a.calls.act(
            a.caller, "s3", "GetObject", {"Bucket": bucket, "Key": key}, region=a.region, source=SAGEMAKER
        )
    except Refused as refused:
        return _unscanned(f"{url} could not be read ({refused.code})")
    async with _gates.setdefault(a.calls, asyncio.Semaphore(_AT_ONCE)):
        report = await _scanned(output["Body"])
    report["etag"] = str(output.get("ETag", "")).strip('"')
    return report


async def _scanned(body: Any) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", _SCANNER,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        env={}, cwd="/",
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    told = b""
    try:
        async with asyncio.timeout(_SECONDS):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                async for piece in body:
                    process.stdin.write(piece)
                    await process.stdin.drain()
            process.stdin.close()
            told = await process.stdout.read(1 << 20)
    except TimeoutError:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if hasattr(body, "aclose"):
            with contextlib.suppress(Exception):
                await body.aclose()
    try:
        report: dict[str, Any] = orjson.loads(told)
    except ValueError:
        report = _unscanned("the archive could not be read within the scanner's limits")
    return report


async def before(a: Authorised) -> dict[str, dict[str, Any]]:
    """The reports of all archives that a request registers, by address. Raises Refused for an archive that reaches outside
    of the model's folder."""
    found: dict[str, dict[str, Any]] = {}
    for specification in specifications(a.input):
        for container in specification.get("Containers") or ():
            url = container.get("ModelDataUrl")
            if not url or url in found:
                continue
            found[url] = report = await scan(a, url)
            if report["verdict"] == "Refused":
                raise Refused("ValidationException", f"The model data at {url} is refused: {report['findings'][0]}.")
    return found


def specifications(given: dict[str, Any]) -> list[dict[str, Any]]:
    """Everything in a request or a version that says what is to be served."""
    found = [given["InferenceSpecification"]] if given.get("InferenceSpecification") else []
    for member in ("AdditionalInferenceSpecifications", "AdditionalInferenceSpecificationsToAdd"):
        found += given.get(member) or ()
    return found
