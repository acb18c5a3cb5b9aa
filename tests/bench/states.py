"""``python -m tests.bench.states [--executions N] [--peer]``: transitions of state machines a second, durable.

Starts a platform of its own, as it always runs. Measured are
- a chain of 60 states (Pass, Choice, Map) in N executions side by side: what needs nobody is many transitions a commit;
- a chain of 20 calls (``aws-sdk:sts:getCallerIdentity``, with the machine's role) in N/10 executions: here every transition
  is a commit of its own, and every call is authorised and recorded;
- N executions that all wait at once, and how long after their time the last went on.
A transition is an event of the history that a state was entered or left. The time is from the first StartExecution to the
last end. With --peer moto's interpreter runs the first machine too, in memory, as far as it can. Nothing is asserted about
time; ends non-zero if an execution did not succeed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
from rich.console import Console
from rich.table import Table

from tests.bench.servers import Moto
from tests.platform import Running
from tests.stories.states.conftest import machines_of

OVER = ("SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED")


def chain(length: int) -> dict[str, Any]:
    """A definition of so many states in a row, with a Choice and a small Map among them."""
    states: dict[str, Any] = {}
    for number in range(length):
        following = {"Next": f"S{number + 1}"} if number + 1 < length else {"End": True}
        if number % 10 == 3 and number + 1 < length:
            rule = {"Variable": "$.n", "NumericGreaterThan": 0, **following}
            states[f"S{number}"] = {"Type": "Choice", "Choices": [rule], "Default": f"S{number + 1}"}
        elif number % 20 == 5:
            each = {"StartAt": f"I{number}", "States": {f"I{number}": {"Type": "Pass", "End": True}}}
            states[f"S{number}"] = {
                "Type": "Map", "ItemsPath": "$.items", "ItemProcessor": each, "ResultPath": "$.done", **following,
            }  # fmt: skip
        else:
            states[f"S{number}"] = {"Type": "Pass", "Parameters": {"n.$": "$.n", "items.$": "$.items"}, **following}
    return {"StartAt": "S0", "States": states}


def calls(length: int) -> dict[str, Any]:
    """A definition of so many calls in a row."""
    task = {"Type": "Task", "Resource": "arn:aws:states:::aws-sdk:sts:getCallerIdentity", "ResultPath": None}
    last = length - 1
    return {
        "StartAt": "S0",
        "States": {
            f"S{number}": {**task, **({"Next": f"S{number + 1}"} if number < last else {"End": True})}
            for number in range(length)
        },
    }


def started(client: Any, machine: str, count: int) -> list[str]:
    """Starts executions, sixteen at a time; their ARNs."""
    given = json.dumps({"n": 1, "items": [1, 2, 3]})
    with ThreadPoolExecutor(16) as pool:
        return list(
            pool.map(
                lambda _: client.start_execution(stateMachineArn=machine, input=given)["executionArn"], range(count)
            )
        )


def ended(client: Any, arns: list[str]) -> int:
    """Waits for all; how many did not succeed."""
    bad = 0
    for arn in arns:
        while (status := client.describe_execution(executionArn=arn)["status"]) not in OVER:
            time.sleep(0.01)
        bad += status != "SUCCEEDED"
    return bad


def transitions(client: Any, arn: str) -> int:
    """States entered and left in an execution."""
    pages = client.get_paginator("get_execution_history").paginate(executionArn=arn)
    return sum(event["type"].endswith(("Entered", "Exited")) for page in pages for event in page["events"])


def measured(client: Any, machine: str, count: int) -> tuple[float, int, int, list[str]]:
    """Seconds, transitions and failures of so many executions, and their ARNs."""
    began = time.perf_counter()
    arns = started(client, machine, count)
    bad = ended(client, arns)
    seconds = time.perf_counter() - began
    return seconds, transitions(client, arns[0]) * count, bad, arns


def peer(count: int) -> str:
    """The first machine in moto, in memory; what came of it."""
    with tempfile.TemporaryDirectory() as folder:
        server = Moto(Path(folder))
        server.install()
        endpoint = server.prepare()
        server.spawn()
        try:
            url = f"http://127.0.0.1:{server.port}"
            told = json.dumps({"stepfunctions": {"execute_state_machine": True}}).encode()
            for _ in range(200):
                try:
                    urllib.request.urlopen(f"{url}/moto-api/config", told).close()
                    break
                except OSError:
                    time.sleep(0.05)
            client = boto3.client(
                "stepfunctions",
                region_name="us-east-1",
                endpoint_url=url,
                aws_access_key_id=endpoint.access_key,
                aws_secret_access_key=endpoint.secret_key,
            )
            definition = json.dumps(chain(60))
            role = "arn:aws:iam::123456789012:role/x"
            machine = client.create_state_machine(name="m", definition=definition, roleArn=role)["stateMachineArn"]
            seconds, total, bad, _ = measured(client, machine, count)
            return f"{total / seconds:,.0f} transitions/s ({count} executions, {bad} did not succeed)"
        except Exception as error:
            return f"not measured: {type(error).__name__}: {error}"
        finally:
            server.stop()


def main() -> int:
    """Measures and prints; 1 if an execution did not succeed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--executions", type=int, default=1000)
    parser.add_argument("--peer", action="store_true")
    given = parser.parse_args()
    count = given.executions
    table = Table("what", "executions", "transitions", "seconds", "transitions/s")
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        running = Running(Path(folder) / "data")
        running.start()
        try:
            running.found()
            machines = machines_of(running.account(), "*")
            client = machines.account.client("stepfunctions", plain=True, max_pool_connections=16)
            for what, definition, number in (("states", chain(60), count), ("calls", calls(20), max(1, count // 10))):
                machine = client.create_state_machine(
                    name=what, definition=json.dumps(definition), roleArn=machines.role
                )["stateMachineArn"]
                seconds, total, bad, _ = measured(client, machine, number)
                wrong += bad
                table.add_row(what, str(number), f"{total:,}", f"{seconds:.1f}", f"{total / seconds:,.0f}")
            # All go on at one time, which is far enough for all to have been started.
            until = time.time() + 3 + count / 200
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(until))
            wait = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Timestamp": stamp, "End": True}}}
            machine = client.create_state_machine(name="wait", definition=json.dumps(wait), roleArn=machines.role)[
                "stateMachineArn"
            ]
            arns = started(client, machine, count)
            wrong += ended(client, arns)
            last = max(client.describe_execution(executionArn=arn)["stopDate"].timestamp() for arn in arns)
            late = f"{last - int(until):.2f}"
            table.add_row("the last of those that wait went on late by", str(count), f"{2 * count:,}", late, "")
        finally:
            running.stop()
    console = Console()
    console.print(table)
    if given.peer:
        console.print(f"moto, in memory: {peer(min(count, 20))}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
