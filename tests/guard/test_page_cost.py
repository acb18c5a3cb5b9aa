"""A page of a list costs what it shows, not what is stored: counted in steps of SQLite's machine, which no clock changes.

Each list is walked to its end in pages of ten, once over few rows and once over many. No page of the long walk, however
deep, may take many more steps than the dearest of the short one.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from bastide.kernel import Caller
from bastide.main.compose import Platform
from bastide.store import Event, Row, SqliteStore, Transaction
from bastide.store.directory import DataDirectory
from tests.platform import HOME, REGION

FEW, MANY, PAGE = 60, 1000, 10
GRAIN = 20
"""Steps between two calls of the counter."""

Given = dict[str, Any]


@dataclass(frozen=True)
class Listed:
    """A list. rows: puts rows of the numbers into the store. on: input and output names of what the next page goes on from.

    limit: the member that holds the size of a page; entries: those of the output that are counted.
    """

    service: str
    operation: str
    rows: Callable[[Bench, Transaction, Iterable[int]], None]
    limit: str
    on: tuple[tuple[str, str], ...]
    entries: tuple[str, ...]
    given: Given = field(default_factory=dict)
    most: int | None = None
    """Entries in all, where there are other than rows."""


class Bench:
    """A platform in this process, and how many steps its database takes."""

    def __init__(self, platform: Platform, caller: Caller) -> None:
        self.platform, self.caller = platform, caller
        self.steps = 0
        self.names: dict[str, str] = {}
        store = platform.calls.store
        assert isinstance(store, SqliteStore)
        self.store = store
        for connection in (store._reader, store._writer):
            connection.set_progress_handler(self._count, GRAIN)

    def _count(self) -> int:
        self.steps += GRAIN
        return 0

    async def ask(self, service: str, operation: str, given: Given) -> Given:
        """The output of a call by the administrator."""
        return dict(
            await self.platform.calls.act(self.caller, service, operation, given, region=REGION, source="192.0.2.1")
        )

    async def walk(self, one: Listed) -> tuple[int, int]:
        """The steps of the dearest page and how many entries there were."""
        given = {**one.given, one.limit: PAGE}
        await self.ask(one.service, one.operation, given)  # what is remembered between calls is remembered now
        dearest = seen = 0
        last: tuple[Any, ...] = ()
        while True:
            self.steps = 0
            output = await self.ask(one.service, one.operation, given)
            dearest = max(dearest, self.steps)
            found = sum(len(output.get(name) or ()) for name in one.entries)
            seen += found
            tokens = tuple(output.get(name) for _, name in one.on)
            if not any(tokens) or (tokens == last and not found):
                return dearest, seen
            assert found <= PAGE
            last = tokens
            for (member, _), token in zip(one.on, tokens, strict=True):
                if token is None:
                    given.pop(member, None)
                else:
                    given[member] = token


def _like(tx: Transaction, kind: str, template: str, names: Iterable[tuple[int, str]], region: str = REGION) -> None:
    row = tx.get(kind, HOME, region, template)
    assert row is not None, (kind, template)
    for number, name in names:
        created = row.created + 1 + number
        tx.insert(Row(kind, HOME, region, name, row.doc, row.status, created=created), keep=False)


def _objects(bench: Bench, tx: Transaction, numbers: Iterable[int]) -> None:
    names = ((one, f"pages/k/{one % 250:03d}/{one:05d}") for one in numbers)
    _like(tx, "s3:Object", "pages/first", names)


def _versions(bench: Bench, tx: Transaction, numbers: Iterable[int]) -> None:
    """Every third is a version of a key with many, the others of keys of their own."""
    row = tx.get("s3:Object", HOME, REGION, "versions/many")
    assert row is not None
    for one in numbers:
        doc = {**row.doc, "n": row.doc["n"] - 1 - one, "v": _version_id(row.doc["n"] - 1 - one)}
        if one % 3 == 0:
            name = f"versions/many\0{2**63 - 1 - doc['n']:020d}"
            tx.insert(Row("s3:ObjectVersion", HOME, REGION, name, doc), keep=False)
        else:
            tx.insert(Row("s3:Object", HOME, REGION, f"versions/one/{one:05d}", doc), keep=False)


def _version_id(sequence: int) -> str:
    from base64 import urlsafe_b64encode

    return urlsafe_b64encode(sequence.to_bytes(8, "big") + bytes(16)).decode()


def _uploads(bench: Bench, tx: Transaction, numbers: Iterable[int]) -> None:
    names = ((one, f"pages/up/{one // 3:05d}\0{one:05d}") for one in numbers)
    _like(tx, "s3:Upload", f"pages/parts\0{bench.names['upload']}", names)


def _parts(bench: Bench, tx: Transaction, numbers: Iterable[int]) -> None:
    head = f"pages/parts\0{bench.names['upload']}\0"
    for one in numbers:
        doc = {"id": f"{one:032x}", "size": 5 * 2**20, "k": "", "etag": f"{one:032x}", "t": 1}
        tx.insert(Row("s3:Part", HOME, REGION, f"{head}{one + 1:05d}", doc), keep=False)


def _jobs(bench: Bench, tx: Transaction, numbers: Iterable[int]) -> None:
    for one in numbers:
        status = "Completed" if one % 3 else "Failed"
        doc = {"CreationTime": one, "TrainingJobStatus": status}
        tx.insert(
            Row("sagemaker:TrainingJob", HOME, REGION, f"job-{one * 7919 % 10007:05d}", doc, status, created=1000 + one)
        )


def _executions(bench: Bench, tx: Transaction, numbers: Iterable[int]) -> None:
    """Of one pipeline, and as many of another one."""
    if tx.get("sagemaker:Pipeline", HOME, REGION, "pages") is None:
        tx.insert(Row("sagemaker:Pipeline", HOME, REGION, "pages", {"_latest": 1}), keep=False)
    for one in numbers:
        for pipeline in ("others", "pages"):
            name, doc = f"{pipeline}/execution/{one:012d}", {"PipelineVersionId": 1, "_started": 1000 + one}
            run = f"{pipeline}|{1000 + one:020d}|{one:012d}"
            tx.insert(Row("sagemaker:PipelineExecution", HOME, REGION, name, doc, "Succeeded"), keep=False)
            tx.insert(Row("sagemaker:PipelineRun", HOME, REGION, run, {}), keep=False)


def _keys(bench: Bench, tx: Transaction, numbers: Iterable[int]) -> None:
    _like(tx, "kms:Key", bench.names["key"], ((one, f"00000000-0000-4000-8000-{one:012d}") for one in numbers))


def _grants(bench: Bench, tx: Transaction, numbers: Iterable[int]) -> None:
    head = bench.names["grant"].rpartition("|")[0]
    _like(tx, "kms:Grant", bench.names["grant"], ((one, f"{head}|{one:064d}") for one in numbers))


def _aliases(bench: Bench, tx: Transaction, numbers: Iterable[int]) -> None:
    _like(tx, "kms:Alias", "alias/first", ((one, f"alias/a{one:05d}") for one in numbers))


def _parameters(bench: Bench, tx: Transaction, numbers: Iterable[int]) -> None:
    _like(tx, "ssm:Parameter", "/pages/first", ((one, f"/pages/{one:05d}") for one in numbers))


def _hierarchies(bench: Bench, tx: Transaction, numbers: Iterable[int]) -> None:
    """As many below a path as beside it."""
    _like(tx, "ssm:Parameter", "/pages/first", ((one, f"/steps/{one % 250:03d}/{one:05d}") for one in numbers))


def _secrets(bench: Bench, tx: Transaction, numbers: Iterable[int]) -> None:
    _like(tx, "secretsmanager:Secret", "first", ((one, f"secret-{one:05d}") for one in numbers))


def _queues(bench: Bench, tx: Transaction, numbers: Iterable[int]) -> None:
    _like(tx, "sqs:Queue", "first", ((one, f"queue-{one:05d}") for one in numbers))


def _groups(bench: Bench, tx: Transaction, numbers: Iterable[int]) -> None:
    _like(tx, "logs:LogGroup", "pages", ((one, f"pages-{one:05d}") for one in numbers))


def _streams(bench: Bench, tx: Transaction, numbers: Iterable[int]) -> None:
    names = ((one, f"streams:log-stream:s{one:05d}") for one in numbers)
    _like(tx, "logs:LogStream", "streams:log-stream:first", names)


def _lines(bench: Bench, tx: Transaction, numbers: Iterable[int]) -> None:
    row = tx.get("logs:LogStream", HOME, REGION, "pages:log-stream:first")
    assert row is not None
    # Many lines of the same instant, too: a position is a time and a number.
    tx.append_log(row.doc["lines"], [((1_000_000 + one // 50) * 1000, f"line {one}") for one in numbers])


def _events(bench: Bench, tx: Transaction, numbers: Iterable[int], source: str = "things.amazonaws.com") -> None:
    now = bench.platform.calls.clock()
    tx.settle(
        Event(
            HOME, now - 10**9 + one // 20, f"event-{one}", "ListThings", source, "somebody", "AKIA",
            True, "Management", "", f"request-{one}", (), b'{"eventName":"ListThings"}',
        )
        for one in numbers
    )  # fmt: skip


def _releases(bench: Bench, tx: Transaction, numbers: Iterable[int]) -> None:
    """Executions of a pipeline, half of which were superseded before anything began."""
    id = {"category": "Approval", "owner": "AWS", "provider": "Manual", "version": "1"}
    action = {"name": "A", "actionTypeId": id, "configuration": {}, "inputArtifacts": [], "outputArtifacts": []}
    if tx.get("codepipeline:Pipeline", HOME, REGION, "pages") is None:
        declared = {"name": "pages", "version": 1, "stages": [{"name": "S", "actions": [action]}]}
        tx.insert(Row("codepipeline:Pipeline", HOME, REGION, "pages", {"version": 1}), keep=False)
        tx.insert(Row("codepipeline:Version", HOME, REGION, "pages/00000001", declared), keep=False)
    for one in numbers:
        record = {"id": f"{one}", "status": "Succeeded", "started": one, "updated": one, "resolved": {}}
        doc = {
            "version": 1, "mode": "SUPERSEDED", "kind": "STANDARD", "trigger": {"type": "t", "detail": "d"},
            "variables": {}, "started": 1000 + one, "updated": 1000 + one, "revisions": [], "artifacts": {},
            "stages": {"S": {"status": "Succeeded", "actions": {} if one % 2 else {"A": record}}},
        }  # fmt: skip
        where = ("codepipeline:Execution", f"{HOME}/pages", REGION, f"{one:032x}")
        tx.insert(Row(*where, doc, "Succeeded", created=1000 + one), keep=False)


TOKEN = (("NextToken", "NextToken"),)
LISTS = [
    Listed("s3", "ListObjectsV2", _objects, "MaxKeys", (("ContinuationToken", "NextContinuationToken"),), ("Contents",),
           {"Bucket": "pages", "Prefix": "k/"}),
    Listed("s3", "ListObjectsV2", _objects, "MaxKeys", (("ContinuationToken", "NextContinuationToken"),),
           ("Contents", "CommonPrefixes"), {"Bucket": "pages", "Prefix": "k/", "Delimiter": "/"}, 250),
    Listed("s3", "ListObjects", _objects, "MaxKeys", (("Marker", "NextMarker"),), ("Contents", "CommonPrefixes"),
           {"Bucket": "pages", "Delimiter": "/", "Prefix": "k/0"}, 100),
    Listed("s3", "ListObjectVersions", _versions, "MaxKeys",
           (("KeyMarker", "NextKeyMarker"), ("VersionIdMarker", "NextVersionIdMarker")), ("Versions", "DeleteMarkers"),
           {"Bucket": "versions"}),
    Listed("s3", "ListMultipartUploads", _uploads, "MaxUploads",
           (("KeyMarker", "NextKeyMarker"), ("UploadIdMarker", "NextUploadIdMarker")), ("Uploads",), {"Bucket": "pages"}),
    Listed("s3", "ListParts", _parts, "MaxParts", (("PartNumberMarker", "NextPartNumberMarker"),), ("Parts",),
           {"Bucket": "pages", "Key": "parts", "UploadId": "upload"}),
    Listed("sagemaker", "ListTrainingJobs", _jobs, "MaxResults", TOKEN, ("TrainingJobSummaries",)),
    Listed("sagemaker", "ListTrainingJobs", _jobs, "MaxResults", TOKEN, ("TrainingJobSummaries",), {"SortBy": "Name"}),
    Listed("sagemaker", "ListTrainingJobs", _jobs, "MaxResults", TOKEN, ("TrainingJobSummaries",),
           {"StatusEquals": "Failed"}),
    Listed("sagemaker", "ListTrainingJobs", _jobs, "MaxResults", TOKEN, ("TrainingJobSummaries",),
           {"CreationTimeAfter": 900, "CreationTimeBefore": 10**15}),
    Listed("sagemaker", "ListPipelineExecutions", _executions, "MaxResults", TOKEN, ("PipelineExecutionSummaries",),
           {"PipelineName": "pages", "CreatedAfter": 900, "CreatedBefore": 10**15}),
    Listed("sagemaker", "ListPipelineExecutions", _executions, "MaxResults", TOKEN, ("PipelineExecutionSummaries",),
           {"PipelineName": "pages", "SortBy": "PipelineExecutionArn", "SortOrder": "Ascending"}),
    Listed("codepipeline", "ListPipelineExecutions", _releases, "maxResults", (("nextToken", "nextToken"),),
           ("pipelineExecutionSummaries",), {"pipelineName": "pages"}),
    Listed("codepipeline", "ListActionExecutions", _releases, "maxResults", (("nextToken", "nextToken"),),
           ("actionExecutionDetails",), {"pipelineName": "pages"}),
    Listed("kms", "ListKeys", _keys, "Limit", (("Marker", "NextMarker"),), ("Keys",)),
    Listed("kms", "ListGrants", _grants, "Limit", (("Marker", "NextMarker"),), ("Grants",), {"KeyId": "key"}),
    Listed("kms", "ListAliases", _aliases, "Limit", (("Marker", "NextMarker"),), ("Aliases",)),
    Listed("ssm", "GetParametersByPath", _parameters, "MaxResults", TOKEN, ("Parameters",), {"Path": "/pages"}),
    Listed("ssm", "GetParametersByPath", _hierarchies, "MaxResults", TOKEN, ("Parameters",),
           {"Path": "/steps", "Recursive": True}),
    Listed("ssm", "DescribeParameters", _parameters, "MaxResults", TOKEN, ("Parameters",)),
    Listed("secretsmanager", "ListSecrets", _secrets, "MaxResults", TOKEN, ("SecretList",)),
    Listed("secretsmanager", "ListSecrets", _secrets, "MaxResults", TOKEN, ("SecretList",),
           {"SortBy": "name", "SortOrder": "desc"}),
    Listed("sqs", "ListQueues", _queues, "MaxResults", TOKEN, ("QueueUrls",)),
    Listed("logs", "DescribeLogGroups", _groups, "limit", (("nextToken", "nextToken"),), ("logGroups",)),
    Listed("logs", "DescribeLogStreams", _streams, "limit", (("nextToken", "nextToken"),), ("logStreams",),
           {"logGroupName": "streams"}),
    Listed("logs", "GetLogEvents", _lines, "limit", (("nextToken", "nextForwardToken"),), ("events",),
           {"logGroupName": "pages", "logStreamName": "first", "startFromHead": True, "startTime": 1, "endTime": 2**40}),
    Listed("logs", "GetLogEvents", _lines, "limit", (("nextToken", "nextBackwardToken"),), ("events",),
           {"logGroupName": "pages", "logStreamName": "first", "startTime": 1, "endTime": 2**40}),
    Listed("logs", "FilterLogEvents", _lines, "limit", (("nextToken", "nextToken"),), ("events",),
           {"logGroupName": "pages", "startTime": 1, "endTime": 2**40}),
    Listed("cloudtrail", "LookupEvents", _events, "MaxResults", TOKEN, ("Events",), {"EndTime": 2**60}),
    Listed("cloudtrail", "LookupEvents", _events, "MaxResults", TOKEN, ("Events",),
           {"LookupAttributes": [{"AttributeKey": "Username", "AttributeValue": "somebody"}], "EndTime": 2**60}),
    Listed("cloudtrail", "LookupEvents", _events, "MaxResults", TOKEN, ("Events",),
           {"LookupAttributes": [{"AttributeKey": "EventName", "AttributeValue": "ListThings"}], "StartTime": 1}),
]  # fmt: skip


async def _prepare(bench: Bench) -> None:
    for bucket in ("pages", "versions"):
        await bench.ask("s3", "CreateBucket", {"Bucket": bucket})
    given = {"Bucket": "versions", "VersioningConfiguration": {"Status": "Enabled"}}
    await bench.ask("s3", "PutBucketVersioning", given)
    await bench.ask("s3", "PutObject", {"Bucket": "pages", "Key": "first", "Body": b""})
    await bench.ask("s3", "PutObject", {"Bucket": "versions", "Key": "many", "Body": b""})
    bench.names["upload"] = (await bench.ask("s3", "CreateMultipartUpload", {"Bucket": "pages", "Key": "parts"}))[
        "UploadId"
    ]
    bench.names["key"] = (await bench.ask("kms", "CreateKey", {}))["KeyMetadata"]["KeyId"]
    key = {"KeyId": bench.names["key"]}
    await bench.ask("kms", "CreateAlias", {"AliasName": "alias/first", "TargetKeyId": key["KeyId"]})
    grantee = f"arn:aws:iam::{HOME}:root"
    await bench.ask("kms", "CreateGrant", {**key, "GranteePrincipal": grantee, "Operations": ["Decrypt"]})
    with bench.store.reading() as view:
        bench.names["grant"] = view.scan("kms:Grant", HOME, REGION)[0].name
    await bench.ask("ssm", "PutParameter", {"Name": "/pages/first", "Value": "v", "Type": "String"})
    await bench.ask("secretsmanager", "CreateSecret", {"Name": "first", "SecretString": "s"})
    await bench.ask("sqs", "CreateQueue", {"QueueName": "first"})
    for group in ("pages", "streams"):
        await bench.ask("logs", "CreateLogGroup", {"logGroupName": group})
        await bench.ask("logs", "CreateLogStream", {"logGroupName": group, "logStreamName": "first"})


async def _measured(bench: Bench) -> dict[str, list[tuple[int, int]]]:
    """For each list the dearest page and the number of entries, of few and of many rows."""
    await _prepare(bench)
    fillers = dict.fromkeys(one.rows for one in LISTS)
    named = {"upload": "UploadId", "key": "KeyId"}
    walks: dict[str, list[tuple[int, int]]] = {}
    for numbers in (range(FEW), range(FEW, MANY)):

        def fill(tx: Transaction, numbers: range = numbers) -> None:
            for rows in fillers:
                rows(bench, tx, numbers)

        await bench.store.write(fill)
        for index, one in enumerate(LISTS):
            for place, member in named.items():
                if one.given.get(member) == place:
                    one.given[member] = bench.names[place]
            walks.setdefault(_title(index), []).append(await bench.walk(one))
    walks["by source"] = [await _by_source(bench)]
    return walks


async def _by_source(bench: Bench) -> tuple[int, int]:
    """Pages, and different events on them, of what no index leads to, behind thousands of newer events."""
    given: Given = {"LookupAttributes": [{"AttributeKey": "EventSource", "AttributeValue": "things.amazonaws.com"}]}
    await bench.store.write(lambda tx: _events(bench, tx, range(10**6, 10**6 + 6000), "others.amazonaws.com"))
    seen: list[str] = []
    counts: list[int] = []
    while True:
        output = await bench.ask("cloudtrail", "LookupEvents", given)
        seen += [one["EventId"] for one in output["Events"]]
        counts.append(len(output["Events"]))
        if not output.get("NextToken"):
            assert len(set(seen)) == len(seen)
            return len(counts), len(seen)
        given["NextToken"] = output["NextToken"]


def _title(index: int) -> str:
    one = LISTS[index]
    filters = sorted(set(one.given) - {"Bucket", "Key", "UploadId", "KeyId", "logGroupName", "logStreamName"})
    return f"{one.service}:{one.operation} {' '.join(filters)} {index}"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    data = tmp_path_factory.mktemp("pages") / "data"
    arguments = ["init", "--data", str(data), "--account-id", HOME]
    subprocess.run([sys.executable, "-m", "bastide", *arguments], check=True, capture_output=True)

    async def run() -> dict[str, Any]:
        directory = DataDirectory(data)
        platform = await Platform.start(directory, "https://localhost:4566")
        try:
            told = json.loads(directory.administrator.read_text())
            with platform.calls.store.reading() as view:
                found = platform.calls.directory.by_access_key(view, told["AccessKeyId"])
            assert found is not None
            return await _measured(Bench(platform, found[0]))
        finally:
            await platform.close()

    return asyncio.run(run())


@pytest.mark.parametrize("index", range(len(LISTS)), ids=_title)
def test_a_page_costs_what_it_shows(measured: dict[str, Any], index: int) -> None:
    (few, _), (many, seen) = measured[_title(index)]
    wanted = LISTS[index].most
    assert seen == wanted if wanted is not None else seen >= MANY // 3
    assert many <= 2 * few + 200, f"the dearest page took {many} steps of {MANY} rows, and {few} of {FEW}"


def test_what_no_index_leads_to_is_found_page_by_page(measured: dict[str, Any]) -> None:
    [(pages, seen)] = measured["by source"]
    assert seen == MANY
    assert pages > MANY // 50
