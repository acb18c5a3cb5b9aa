"""``python -m tests.bench.stacks [--resources N] [--only NAMES]``: a stack of many resources, made, changed and removed.

The template has N parameters of Systems Manager in chains of ten. Says the seconds from CreateStack to CREATE_COMPLETE, of
an update that changes all of them, and of the removal; beside moto_server and ministack, which it installs below `.bench/`.
Resources are read back; nothing is asserted about time.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import boto3
from rich.console import Console
from rich.table import Table

from tests.bench.servers import BENCH, PRODUCTS, Bastide, Server
from tests.platform import Running

CHAIN = 10


def template(count: int, word: str) -> str:
    """Chains of parameters, each of which refers to the one before."""
    resources: dict[str, Any] = {}
    for number in range(count):
        value: Any = word if number % CHAIN == 0 else {"Fn::Sub": f"{word}-${{P{number - 1}}}"}
        properties = {"Name": f"/bench/{number}", "Type": "String", "Value": value}
        resources[f"P{number}"] = {"Type": "AWS::SSM::Parameter", "Properties": properties}
    return json.dumps({"Resources": resources})


def _until(client: Any, name: str, wanted: str) -> None:
    while True:
        found = client.describe_stacks(StackName=name)["Stacks"][0]
        if found["StackStatus"] == wanted:
            return
        if not found["StackStatus"].endswith("_IN_PROGRESS"):
            raise SystemExit(f"the stack is {found['StackStatus']}: {found.get('StackStatusReason', '')}")
        time.sleep(0.02)


def measured(cloudformation: Any, ssm: Any, count: int) -> list[float]:
    """Seconds of making, changing and removing."""
    took = []
    for word in ("first", "second"):
        body, began = template(count, word), time.perf_counter()
        if word == "first":
            id = cloudformation.create_stack(StackName="bench", TemplateBody=body)["StackId"]
            _until(cloudformation, id, "CREATE_COMPLETE")
        else:
            cloudformation.update_stack(StackName="bench", TemplateBody=body)
            _until(cloudformation, id, "UPDATE_COMPLETE")
        took.append(time.perf_counter() - began)
        for number in range(0, count, 7):
            value = ssm.get_parameter(Name=f"/bench/{number}")["Parameter"]["Value"]
            assert value.startswith(word), (number, value)
    began = time.perf_counter()
    cloudformation.delete_stack(StackName=id)
    _until(cloudformation, id, "DELETE_COMPLETE")
    return [*took, time.perf_counter() - began]


@contextmanager
def _ours() -> Iterator[tuple[Any, Any]]:
    with tempfile.TemporaryDirectory() as place:
        platform = Running(Path(place) / "data")
        platform.start()
        try:
            yield platform.client("cloudformation"), platform.client("ssm")
        finally:
            platform.stop()


@contextmanager
def _peer(server: Server) -> Iterator[tuple[Any, Any]]:
    server.install()
    end = server.prepare()
    server.spawn()
    try:
        for _ in range(600):
            with suppress(OSError), socket.create_connection(("127.0.0.1", end.port), timeout=1):
                break
            time.sleep(0.1)
        given = {
            "endpoint_url": end.url, "region_name": end.region, "aws_access_key_id": end.access_key,
            "aws_secret_access_key": end.secret_key,
        }  # fmt: skip
        yield boto3.client("cloudformation", **given), boto3.client("ssm", **given)
    finally:
        server.stop()


def main() -> int:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resources", type=int, default=200)
    parser.add_argument("--only", default="bastide,moto,ministack")
    asked = parser.parse_args()
    table = Table("product", "create s", "update s", "delete s", title=f"a stack of {asked.resources} resources")
    for kind in PRODUCTS:
        if kind.name not in asked.only.split(","):
            continue
        opened = _ours() if kind is Bastide else _peer(kind(BENCH / "stacks" / kind.name))
        try:
            with opened as (cloudformation, ssm):
                took = measured(cloudformation, ssm, asked.resources)
            table.add_row(kind.label, *(f"{one:.2f}" for one in took))
        except Exception as error:
            if kind is Bastide:
                raise
            table.add_row(kind.label, type(error).__name__, str(error)[:60], "")
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
