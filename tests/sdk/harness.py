"""Runs programs of the SDK against a platform, and looks at the platform afterwards."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.clients.program import run, surroundings
from tests.platform import PROGRAM, Account, Running
from tests.sdk.catalogue import Program

ROLE = "SageMakerExecution"
"""Whom the programs run as and hand to their jobs: in a notebook of SageMaker's, get_execution_role finds one role too."""
LONGEST = 420
_SOME = {"Effect": "Allow", "Resource": "*"}
_SERVICES = ["sagemaker.amazonaws.com", "states.amazonaws.com"]
_PASSED = {"StringEquals": {"iam:PassedToService": _SERVICES}}
_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {**_SOME, "Action": ["sagemaker:*", "s3:*", "logs:*", "cloudwatch:*", "kms:*", "states:*"]},
        {**_SOME, "Action": ["iam:GetRole", "iam:SimulatePrincipalPolicy"]},
        # What v3 looks for in its role before it trains or serves, whether it is needed or not.
        {**_SOME, "Action": ["ecr:GetAuthorizationToken", "ec2:Describe*", "ec2:*NetworkInterface*"]},
        {**_SOME, "Action": "iam:PassRole", "Condition": _PASSED},
    ],
}
_REFUSAL = re.compile(r"An error occurred \((\w+)\) when calling the (\w+) operation: (.*)")
_UNKNOWN = {"UnknownOperationException", "InvalidAction", "NotImplemented"}


@dataclass(frozen=True)
class Outcome:
    """How one program ended. fault: what is wrong, empty for nothing; note: what else a table says."""

    program: Program
    seconds: float
    fault: str
    note: str
    told: str


def needed(told: str) -> str:
    """What a program's output says that the platform has not: ``OPERATION`` or ``OPERATION: why``; empty for nothing."""
    # Rich breaks its lines wherever they end.
    found = _REFUSAL.findall(" ".join(re.sub(r"[│╭╮╰╯─]", " ", told).split()))
    if not found:
        return ""
    code, operation, text = found[-1]
    if code in _UNKNOWN:
        return str(operation)
    sentence = str(text).partition(". ")[0].removesuffix(".")
    if code == "ValidationException" and re.search("not supported by Bastide|Unknown image", sentence):
        return f"{operation}: {sentence}"
    return ""


def _awaited(program: Program, lacking: str) -> bool:
    operation, _, why = lacking.partition(": ")
    for one in program.awaits:
        wanted, _, word = one.partition(": ")
        if operation == wanted and word in why and bool(word) == bool(why):
            return True
    return False


def workplace(platform: Running, account: Account, home: Path) -> dict[str, str]:
    """The environment variables of a data scientist in an account, whose home `bastide sdk` has prepared."""
    trust = {"AWS": f"arn:aws:iam::{account.id}:root", "Service": _SERVICES}
    account.role(ROLE, _POLICY, trust=trust)
    home.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [*PROGRAM, "sdk", "--data", str(platform.data), "--home", str(home)], check=True, capture_output=True
    )
    return surroundings(platform, account.as_role(ROLE), home)


def attempt(platform: Running, program: Program, home: Path) -> Outcome:
    """Runs a program in an account of its own."""
    account = platform.account()
    environment = workplace(platform, account, home)
    began = time.monotonic()
    try:
        ended = run(program.environment, program.path, environment=environment, seconds=LONGEST)
    except subprocess.TimeoutExpired as late:
        return Outcome(program, LONGEST, f"not over after {LONGEST} s", "", str(late.stderr))
    seconds = time.monotonic() - began
    told = ended.stdout + ended.stderr
    if ended.returncode:
        lacking = needed(told)
        if lacking and _awaited(program, lacking):
            return Outcome(program, seconds, "", f"not yet: needs {lacking}", told)
        last = next((line for line in reversed(told.splitlines()) if line.strip()), "")
        return Outcome(program, seconds, f"ended with {ended.returncode}: {lacking or last.strip()}", "", told)
    if program.awaits:
        return Outcome(program, seconds, "passes: take `awaits` out of the catalogue", "", told)
    return Outcome(program, seconds, "; ".join(_left(account, program)), "", told)


def _left(account: Account, program: Program) -> Iterator[str]:
    """What the platform says against a program that says that all is well."""
    trail, sagemaker = account.client("cloudtrail"), account.client("sagemaker")
    for name in program.calls:
        attribute = {"AttributeKey": "EventName", "AttributeValue": name}
        if not trail.lookup_events(LookupAttributes=[attribute])["Events"]:
            yield f"no {name} is on record"
    jobs: list[dict[str, Any]] = sagemaker.list_training_jobs()["TrainingJobSummaries"]
    if any(one["TrainingJobStatus"] in ("InProgress", "Stopping") for one in jobs):
        yield "a job still runs"
    if [one for one in sagemaker.list_endpoints()["Endpoints"] if one["EndpointStatus"] != "Deleting"]:
        yield "an endpoint is left"


def attempt_all(platform: Running, programs: Iterable[Program], homes: Path, at_once: int) -> Iterator[Outcome]:
    """Runs programs beside each other: they mostly sleep between two looks at a job. Outcomes as they come."""
    with ThreadPoolExecutor(at_once) as pool:
        running = [pool.submit(attempt, platform, one, homes / one.name.replace("/", "-")) for one in programs]
        for one in as_completed(running):
            yield one.result()
