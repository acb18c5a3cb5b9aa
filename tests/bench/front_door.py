"""What the front door costs a call, stage by stage: ``python -m tests.bench.front_door``.

The platform runs in this process, without sockets and without an HTTP server: requests signed by botocore are handed to the
ASGI application one after another and its answers are counted. So what is measured is Bastide's own work, and CPU time
is exact. *Overhead* is everything but the operation's handler: receive, authenticate, parse, authorise, record, answer.
The stages are taken in a second pass with a clock around each, which costs some microseconds itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import uvloop
from rich.console import Console
from rich.table import Table

from bastide.frontdoor import Listener, pipeline
from bastide.kernel import audit, calls
from bastide.main.compose import Platform
from bastide.protocol import OperationCodec
from bastide.store import Journal, SqliteStore
from bastide.store.directory import DataDirectory

from .servers import Endpoint
from .signing import prepare

ROUNDS = 9
CALLS = 400
VARIETIES = 64

Scope = dict[str, Any]
Application = Callable[[Scope, Any, Any], Any]


@dataclass
class Row:
    """One operation: microseconds of CPU a call, whole and in the handler, and of each stage."""

    name: str
    whole: float
    handler: float
    stages: dict[str, float]

    @property
    def overhead(self) -> float:
        """All that is not the handler's."""
        return self.whole - self.handler


class Clocks:
    """Time spent in named stages, each without what stages inside it took."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._inner = [0]

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time counted under `name`."""

        def call(*args: Any, **given: Any) -> Any:
            self._inner.append(0)
            began = time.perf_counter_ns()
            try:
                return function(*args, **given)
            finally:
                took = time.perf_counter_ns() - began
                inner = self._inner.pop()
                self._inner[-1] += took
                self.spent[name] = self.spent.get(name, 0) + took - inner

        return call


def _scope(raw: bytes) -> tuple[Scope, bytes]:
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    method, target, _ = first.split(b" ")
    path, _, query = target.partition(b"?")
    headers = []
    for line in lines:
        name, _, value = line.partition(b":")
        headers.append((name.strip().lower(), value.strip()))
    scope = {
        "type": "http",
        "method": method.decode(),
        "path": path.decode(),
        "raw_path": target,
        "query_string": query,
        "headers": headers,
        "client": ("127.0.0.1", 50000),
        "state": {},
    }
    return scope, body


async def _ask(application: Application, scope: Scope, body: bytes) -> int:
    told = [0]
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return left.pop() if left else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            told[0] = message["status"]

    await application({**scope, "state": {}}, receive, send)
    return told[0]


async def _play(application: Application, requests: list[tuple[Scope, bytes]], count: int, callers: int) -> float:
    """CPU microseconds a call."""

    async def caller(first: int) -> None:
        for index in range(first, count, callers):
            scope, body = requests[index % len(requests)]
            status = await _ask(application, scope, body)
            if status != 200:
                raise RuntimeError(f"answered {status}")

    began = time.process_time_ns()
    await asyncio.gather(*(caller(first) for first in range(callers)))
    return (time.process_time_ns() - began) / count / 1000


@contextlib.contextmanager
def _stages(clocks: Clocks, disk: Clocks, operation: Any) -> Iterator[None]:
    with contextlib.ExitStack() as stack:

        def wrap(owner: Any, attribute: str, name: str) -> None:
            stack.enter_context(patch.object(owner, attribute, clocks.timed(name, getattr(owner, attribute))))

        wrap(pipeline, "receive", "receive")
        wrap(pipeline.sigv4, "read", "read the signature")
        wrap(pipeline, "authenticate", "authenticate")
        wrap(OperationCodec, "parse", "parse and validate")
        wrap(OperationCodec, "validate", "parse and validate")
        wrap(calls, "authorise", "authorise")
        wrap(audit, "entries", "record: the entry")
        wrap(Journal, "append", "record: the journal")
        wrap(OperationCodec, "answer", "answer")
        commit = disk.timed("record: the commit", SqliteStore._commit)
        stack.enter_context(patch.object(SqliteStore, "_commit", commit))
        wrap(operation, "handle", "handler")
        yield


async def _measure(name: str, platform: Platform, raw: list[bytes], key: tuple[str, str], callers: int = 1) -> Row:
    application = platform.door().at(Listener("bench", False))
    requests = [_scope(one) for one in raw]
    await _play(application, requests, CALLS, callers)
    whole = median([await _play(application, requests, CALLS, callers) for _ in range(ROUNDS)])
    operation = platform.calls.registry.operations[key]
    clocks, disk = Clocks(), Clocks()  # commits may run in a thread of their own
    with _stages(clocks, disk, operation):
        began = time.perf_counter_ns()
        await _play(application, requests, CALLS, callers)
        all_of_it = time.perf_counter_ns() - began
    stages = {stage: spent / CALLS / 1000 for stage, spent in {**clocks.spent, **disk.spent}.items()}
    stages["route, ASGI and the rest"] = all_of_it / CALLS / 1000 - sum(stages.values())
    return Row(name, whole, stages.get("handler", 0.0), stages)


async def _run(data: Path) -> list[Row]:
    directory = DataDirectory(data)
    platform = await Platform.start(directory, "https://localhost:4566")
    try:
        rows = []
        told = json.loads(directory.administrator.read_text())
        admin = (told["AccessKeyId"], told["SecretAccessKey"])
        rows.extend(await _all(platform, admin))
        return rows
    finally:
        await platform.close()


async def _all(platform: Platform, admin: tuple[str, str]) -> list[Row]:
    endpoint = Endpoint("http://localhost:4567", *admin)
    application = platform.door().at(Listener("bench", False))

    async def once(service: str, operation: str, given: dict[str, Any]) -> None:
        [raw] = prepare(service, operation, endpoint, [given])
        status = await _ask(application, *_scope(raw))
        if status >= 300:
            raise RuntimeError(f"{operation} answered {status}")

    await once(
        "iam", "create_role", {"RoleName": "bench", "AssumeRolePolicyDocument": '{"Version":"2012-10-17","Statement":'
        '[{"Effect":"Allow","Principal":{"Service":"sagemaker.amazonaws.com"},"Action":"sts:AssumeRole"}]}'}
    )  # fmt: skip
    await once("s3", "create_bucket", {"Bucket": "bench-bucket"})
    await once("s3", "put_object", {"Bucket": "bench-bucket", "Key": "small", "Body": b"x" * 1024})
    await once(
        "sagemaker",
        "create_model_package_group",
        {"ModelPackageGroupName": "bench", "Tags": [{"Key": "team", "Value": "alpha"}]},
    )
    asked = [
        ("sts", "get_caller_identity", "GetCallerIdentity", {}),
        ("iam", "get_role", "GetRole", {"RoleName": "bench"}),
        ("sagemaker", "describe_model_package_group", "DescribeModelPackageGroup", {"ModelPackageGroupName": "bench"}),
        ("sagemaker", "list_training_jobs", "ListTrainingJobs", {"MaxResults": 10}),
        ("s3", "head_object", "HeadObject", {"Bucket": "bench-bucket", "Key": "small"}),
        ("s3", "list_objects_v2", "ListObjectsV2", {"Bucket": "bench-bucket"}),
    ]
    group = f"arn:aws:sagemaker:us-east-1:{platform.configuration.account}:model-package-group/bench"
    rows = []
    for service, method, name, given in asked:
        raw = prepare(service, method, endpoint, [given] * VARIETIES)
        rows.append(await _measure(f"{service}:{name}", platform, raw, (service, name)))
    tags = [{"ResourceArn": group, "Tags": [{"Key": "team", "Value": f"n{n}"}]} for n in range(VARIETIES)]
    raw = prepare("sagemaker", "add_tags", endpoint, tags)
    for callers in (1, 16):
        name = f"sagemaker:AddTags, a write, {callers} callers"
        rows.append(await _measure(name, platform, raw, ("sagemaker", "AddTags"), callers))
    return rows


def main() -> None:
    """Measures and prints a table."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        subprocess.run([sys.executable, "-m", "bastide", "init", "--data", str(data)], check=True, capture_output=True)
        rows = uvloop.run(_run(data))
    console = Console(width=170)
    table = Table(title="The front door, microseconds of CPU a call (medians; stages from a second pass)")
    table.add_column("")
    for row in rows:
        table.add_column(row.name.partition(":")[2], justify="right")
    table.add_row("whole call", *(f"{row.whole:.0f}" for row in rows))
    table.add_row("handler", *(f"{row.handler:.0f}" for row in rows))
    table.add_row("overhead", *(f"[bold]{row.overhead:.0f}[/]" for row in rows), end_section=True)
    for stage in sorted({stage for row in rows for stage in row.stages} - {"handler"}):
        table.add_row(stage, *(f"{row.stages.get(stage, 0):.0f}" for row in rows))
    console.print(table)


if __name__ == "__main__":
    main()
