"""What leads the recorded tests to a platform; loaded by their pytest (`-p bastide_records`), not by ours.

They believe that they ask AWS (`TEST_TARGET=AWS_CLOUD`). Three things differ: host names of AWS lead to the platform, waits
for what is slow on AWS only are short, and a client of a service that is not there leaves the test out.
"""

from __future__ import annotations

import ast
import functools
import json
import linecache
import os
import re
import sys
import time
import types
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import botocore.client
import botocore.config
import botocore.waiter
import pytest
import requests
import urllib3
import urllib3.util.connection

version = types.ModuleType("localstack.version")
version.__version__ = version.version = "0"  # what a build would write
sys.modules["localstack.version"] = version
urllib3.disable_warnings()

HERE = {*os.environ["BASTIDE_RECORDS_SERVICES"].split(), "sqs-query"}
PLATFORM = urlsplit(os.environ["AWS_ENDPOINT_URL"])
FOREIGN = re.compile(r"\.(amazonaws\.com|on\.aws|localhost)$")

connect = urllib3.util.connection.create_connection


def _connect(address: tuple[str, int], *more: Any, **given: Any) -> Any:
    if FOREIGN.search(address[0]):
        address = ("127.0.0.1", PLATFORM.port)
    return connect(address, *more, **given)


urllib3.util.connection.create_connection = _connect

asked = requests.Session.request
requests.Session.request = lambda self, *more, **given: asked(self, *more, **{**given, "verify": False, "timeout": 60})

made = botocore.config.Config.__init__


def _made(self: Any, *more: Any, **given: Any) -> None:
    made(self, *more, **{**given, "inject_host_prefix": False, "read_timeout": 70})


botocore.config.Config.__init__ = _made

creator = botocore.client.ClientCreator.create_client


def _client(self: Any, service_name: str, *more: Any, **given: Any) -> Any:
    if service_name not in HERE:
        pytest.skip(f"out: {service_name} is not there")
    return creator(self, service_name, *more, **{**given, "verify": False})


botocore.client.ClientCreator.create_client = _client


class Cdk(types.ModuleType):
    """The Cloud Development Kit, which runs on Node: what would use it is left out."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda self, *more, **given: pytest.skip("out: CDK")})


CDK = "apigateway dynamodb ecs events lambda lambda_destinations stepfunctions stepfunctions_tasks"
for name in ("aws_cdk", *(f"aws_cdk.aws_{one}" for one in CDK.split())):
    sys.modules[name] = Cdk(name)

# Waits.
slept = time.sleep


@functools.cache
def _guarded(file: str) -> set[int]:
    """The lines of a file that run only when AWS is asked."""
    lines: set[int] = set()
    for node in ast.walk(ast.parse("".join(linecache.getlines(file)))):
        if isinstance(node, (ast.If, ast.IfExp)) and "is_aws" in ast.unparse(node.test):
            lines |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def _sleep(seconds: float) -> None:
    caller = sys._getframe(1)
    if seconds > 1 and caller.f_lineno in _guarded(caller.f_code.co_filename):
        seconds = 0.5
    slept(seconds)


time.sleep = _sleep
botocore.waiter.time = types.SimpleNamespace(sleep=lambda seconds: slept(min(seconds, 1)))

from localstack.utils import sync  # noqa: E402

POLLED = 0.5
sync.time = types.SimpleNamespace(sleep=lambda seconds: slept(min(seconds, POLLED)), time=time.time)
retried = sync.retry


def _retry(function: Any, retries: Any = 3, sleep: float = 1.0, sleep_before: float = 0, **given: Any) -> Any:
    whole = min(int(retries) * max(sleep, 0.1), 40)
    return retried(function, retries=max(int(retries), int(whole / POLLED)), sleep=min(sleep, POLLED), **given)


sync.retry = _retry
polled = sync.poll_condition


def _poll(condition: Any, timeout: float | None = None, interval: float = 0.5) -> bool:
    return polled(condition, 60 if timeout is None else min(timeout, 60), min(interval, POLLED))


sync.poll_condition = _poll

from localstack.testing.pytest.stepfunctions import fixtures, utils  # noqa: E402

# A role can be taken on at once: no state machine has to try that first.
fixtures.is_aws_cloud = utils.is_aws_cloud = lambda: False

# How each ended.
ended: dict[str, tuple[str, str]] = {}


COLOUR = re.compile(r"\x1b\[[0-9;]*m")
ADDED = re.compile(
    r"\(\+\) (/\S+)?/([Mm]essage|encryptionConfiguration|[Rr]edrive\w+|\w*KeyMaterialId|FifoThroughputScope) \("
)
"""What may be told beside what was recorded: a sentence where there was none, and what AWS has told since."""
BESIDE = re.compile(r"/(SdkHttpMetadata/(All)?HttpHeaders|SdkResponseMetadata/RequestId)$")
"""What state machines keep of the HTTP that AWS speaks within, which is none here."""
ABSENT = re.compile(
    r"is not one that Bastide has|Bastide does not have them yet|is not one of this platform's|supported by Bastide|"
    r"in Bastide yet|does not exist in Bastide|Bastide does not know it|the platform has no mail server"
)
"""How Bastide refuses what it does not have: an operation, a member, a type of a template, a region."""
DIFFERENCE = re.compile(r"^\([-+~]\) ", re.MULTILINE)
WORDS = re.compile(
    r"\(~\) \S*/(?:[Mm]essage(?:Raw)?|[Cc]ause|[A-Za-z]*Reason) ['\"](.*)['\"] → ['\"](.*)['\"] \.\.\. \("
)


def _alike(recorded: str, given: str) -> bool:
    """Whether a sentence begins as the recorded one. What a model allows is listed there in any order, and values are left
    out by some services."""
    recorded = recorded.partition("\\n at [Source")[0]
    recorded, given = (
        re.sub(r"(enum value set).*", r"\1", re.sub(r"Value '.*?' at", "Value at", text)) for text in (recorded, given)
    )
    return given.startswith(recorded.rstrip(". "))


def _sentences(told: str) -> str:
    """How far an answer is from the recorded one: `passed` if nothing but sentences differs and each begins with AWS's and
    says more, `worded` if they are others; `refused` and `skipped` as `HOW` says; `failed` if more differs."""
    if "(re-)generate the snapshot" in told:
        return "skipped"  # nothing was recorded
    if ABSENT.search(told):
        return "refused"
    found = [line for line in told.splitlines() if DIFFERENCE.match(line) and not ADDED.match(line)]
    found = [line for line in found if not BESIDE.search(line.split(" ")[1])]
    if not found and DIFFERENCE.search(told):
        return "passed"
    pairs = [WORDS.match(line) for line in found]
    if not found or None in pairs:
        return "failed"
    return "passed" if all(pair and _alike(pair[1], pair[2]) for pair in pairs) else "worded"


def _told(text: str) -> str:
    """A report without the client's own frames."""
    lines = [line.strip("\t") for line in COLOUR.sub("", text).splitlines()]
    lines = [line for line in lines if line and not line.startswith(("Ignore list", '["$'))]
    if any(line.startswith("E  ") for line in lines):
        lines = [
            line
            for at, line in enumerate(lines)
            if line.startswith(("E  ", "tests/")) or (at and lines[at - 1].startswith("tests/"))
        ]
    return "\n".join(lines)[-6000:]


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    name = report.nodeid.removeprefix("tests/aws/services/")
    if report.skipped:
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        ended[name] = ("out" if "out: " in why else "skipped", why)
    elif report.failed and ended.get(name, ("passed",))[0] == "passed":
        told = _told(report.longreprtext)
        ended[name] = (_sentences(told), told)
    elif report.when == "call":
        ended.setdefault(name, ("passed", ""))
    if report.when == "teardown":
        how, why = ended.get(name, ("passed", ""))
        with Path(os.environ["BASTIDE_RECORDS_REPORT"]).open("a") as file:
            file.write(json.dumps({"name": name, "ended": how, "why": why, "seconds": report.duration}) + "\n")
