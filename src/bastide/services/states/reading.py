"""Items of a distributed map out of S3, and its results into S3, with the machine's role.

Source: Step Functions developer guide, "ItemReader (Map)" and "ResultWriter (Map)".
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any, Final

from bastide.domain import Refused
from bastide.engines.asl.problems import READER, WRITER
from bastide.engines.asl.values import dumps, loads
from bastide.kernel import Bytes, Caller
from bastide.services.states.noun import PRINCIPAL
from bastide.services.states.tasks import Failed

if TYPE_CHECKING:
    from bastide.services.states.runner import Executions

MOST_ITEMS: Final = 100_000
_LARGEST: Final = 64 << 20
_DELIMITERS: Final = {"COMMA": ",", "PIPE": "|", "SEMICOLON": ";", "SPACE": " ", "TAB": "\t"}


async def items(runner: Executions, caller: Caller, region: str, reader: dict[str, Any]) -> list[Any]:
    """What an ItemReader reads; raises Failed."""
    given, config = reader["given"], reader["config"]
    most = config.get("MaxItems")
    most = int(most or MOST_ITEMS)  # 0: all
    if most < 0:
        raise Failed(READER, "field MaxItems must be positive")
    try:
        if reader["Resource"].endswith(":listObjectsV2"):
            found = await _listed(runner, caller, region, given, most)
        else:
            raw = await _object(runner, caller, region, given)
            found = _parsed(raw, config)
    except Refused as refused:
        raise Failed(READER, f"Reading the items failed: {refused.message} ({refused.code})") from None
    except (ValueError, csv.Error) as error:
        raise Failed(READER, f"Reading the items failed: {error}") from None
    if len(found) > most and most < MOST_ITEMS:
        return found[:most]
    if len(found) > MOST_ITEMS:
        raise Failed(READER, f"Reading the items failed: there are more than {MOST_ITEMS} items.")
    return found


async def _object(runner: Executions, caller: Caller, region: str, given: dict[str, Any]) -> bytes:
    asked = {name: given[name] for name in ("Bucket", "Key", "VersionId") if given.get(name)}
    if not asked.get("Bucket") or not asked.get("Key"):
        raise ValueError("Bucket and Key are needed")
    output = await runner.calls.act(caller, "s3", "GetObject", asked, region=region, source=PRINCIPAL)
    found = bytearray()
    async for piece in output["Body"]:
        found += piece
        if len(found) > _LARGEST:
            raise ValueError(f"the object has more than {_LARGEST} bytes")
    return bytes(found)


async def _listed(runner: Executions, caller: Caller, region: str, given: dict[str, Any], most: int) -> list[Any]:
    found: list[Any] = []
    asked = {name: given[name] for name in ("Bucket", "Prefix", "StartAfter") if given.get(name)}
    while True:
        output = await runner.calls.act(caller, "s3", "ListObjectsV2", asked, region=region, source=PRINCIPAL)
        for one in output.get("Contents") or ():
            found.append(
                {
                    "Etag": one["ETag"],
                    "Key": one["Key"],
                    "LastModified": int(one["LastModified"]) // 1_000_000,
                    "Size": one["Size"],
                    "StorageClass": one.get("StorageClass", "STANDARD"),
                }
            )
        token = output.get("NextContinuationToken")
        if not token or len(found) > most:
            return found
        asked = {**asked, "ContinuationToken": token}


def _parsed(raw: bytes, config: dict[str, Any]) -> list[Any]:
    kind = config.get("InputType")
    text = raw.decode("utf-8-sig")
    if kind == "JSONL":
        return [loads(line) for line in text.splitlines() if line.strip()]
    if kind == "CSV":
        return _rows(text, config)
    if kind == "MANIFEST":
        raise ValueError("manifests (S3 inventories) are not supported by Bastide yet")
    value = loads(text)
    pointer = config.get("ItemsPointer")
    for part in str(pointer or "").split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        value = value[int(key)] if isinstance(value, list) and key.isdigit() else value.get(key)
    if isinstance(value, dict):
        return [{"key": key, "value": one} for key, one in value.items()]
    if not isinstance(value, list):
        raise ValueError("the JSON is neither an array nor an object")
    return value


def _rows(text: str, config: dict[str, Any]) -> list[Any]:
    sign = _DELIMITERS.get(config.get("CSVDelimiter") or "COMMA")
    if sign is None:
        raise ValueError(f"{config['CSVDelimiter']} is no CSVDelimiter")
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=sign)
    if config.get("CSVHeaderLocation", "FIRST_ROW") == "GIVEN":
        names = [str(one) for one in config.get("CSVHeaders") or ()]
    else:
        names = next(rows, [])
    if not names:
        raise ValueError("the CSV has no headers")
    if len(set(names)) < len(names):
        raise Failed(READER, "CSV headers cannot contain duplicates.")
    found: list[Any] = []
    for row in rows:
        if row:
            found.append({name: row[place] if place < len(row) else "" for place, name in enumerate(names)})
    return found


# -- results -------------------------------------------------------------------------------------------------------------


def shaped(results: list[dict[str, Any]], config: dict[str, Any]) -> list[Any]:
    """Results of children as WriterConfig's Transformation wants them."""
    how = config.get("Transformation", "NONE")
    if how == "NONE":
        return results
    outputs = [loads(one["Output"]) if isinstance(one.get("Output"), str) else one for one in results]
    if how == "COMPACT":
        return outputs
    flat: list[Any] = []
    for one in outputs:
        flat += one if isinstance(one, list) else [one]
    return flat


async def written(
    runner: Executions,
    caller: Caller,
    region: str,
    writer: dict[str, Any],
    run_arn: str,
    groups: dict[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    """Writes results into S3; gives where the manifest is. Raises Failed."""
    given, config = writer["given"], writer["config"]
    bucket, prefix = given.get("Bucket"), str(given.get("Prefix") or "")
    run = run_arn.rpartition(":")[2]
    base = f"{prefix.rstrip('/')}/{run}" if prefix else run
    lines = config.get("OutputType") == "JSONL"
    files: dict[str, list[dict[str, Any]]] = {"FAILED": [], "PENDING": [], "SUCCEEDED": []}

    async def put(key: str, text: str) -> int:
        raw = text.encode()
        asked = {"Bucket": bucket, "Key": key}
        try:
            await runner.calls.act(caller, "s3", "PutObject", asked, region=region, source=PRINCIPAL, body=Bytes(raw))
        except Refused as refused:
            raise Failed(WRITER, f"Writing the results failed: {refused.message} ({refused.code})") from None
        return len(raw)

    if not bucket:
        raise Failed(WRITER, "Writing the results failed: Bucket is needed.")
    for name, results in groups.items():
        if not results:
            continue
        told = shaped(results, config) if name == "SUCCEEDED" else results
        text = "\n".join(dumps(one) for one in told) if lines else dumps(told)
        key = f"{base}/{name}_0.json{'l' if lines else ''}"
        files[name].append({"Key": key, "Size": await put(key, text)})
    manifest = {"DestinationBucket": bucket, "MapRunArn": run_arn, "ResultFiles": files}
    key = f"{base}/manifest.json"
    await put(key, dumps(manifest))
    return {"MapRunArn": run_arn, "ResultWriterDetails": {"Bucket": bucket, "Key": key}}
