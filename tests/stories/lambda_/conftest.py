"""A role that functions run with, and a short way to make them."""

from __future__ import annotations

import io
import json
import time
import uuid
import zipfile
from dataclasses import dataclass
from typing import Any

import pytest

from tests.platform import Account, allow

LAMBDA = {"Service": "lambda.amazonaws.com"}


def archive(**files: str) -> bytes:
    """A .zip of Python files; `__` in a name stands for a slash."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as made:
        for name, text in files.items():
            made.writestr(zipfile.ZipInfo(f"{name.replace('__', '/')}.py"), text)  # of 1980, whenever it is made
    return packed.getvalue()


@dataclass
class Said:
    """What an invocation answered."""

    status: int
    error: str
    payload: Any
    version: str
    log: str


@dataclass
class Bench:
    """Where functions of one account are made."""

    account: Account
    role: str
    client: Any

    def make(self, code: str | bytes, name: str = "", **more: Any) -> str:
        """A function of one file, or of an archive, that is Active; its name."""
        name = name or f"f-{uuid.uuid4().hex[:8]}"
        content = archive(index=code) if isinstance(code, str) else code
        given = {"Runtime": "python3.11", "Handler": "index.handler", "Role": self.role, "Timeout": 20} | more
        self.client.create_function(FunctionName=name, Code={"ZipFile": content}, **given)
        self.settled(name)
        return name

    def settled(self, name: str) -> dict[str, Any]:
        """Its configuration, once nothing is under way."""
        while True:
            found: dict[str, Any] = self.client.get_function_configuration(FunctionName=name)
            if found["State"] != "Pending" and found["LastUpdateStatus"] != "InProgress":
                return found
            time.sleep(0.02)

    def invoke(self, name: str, event: Any = None, **more: Any) -> Said:
        """Invokes it, with its log's tail."""
        import base64

        more = {"LogType": "Tail"} | more
        given = {} if event is None else {"Payload": json.dumps(event)}
        answer = self.client.invoke(FunctionName=name, **given, **more)
        raw = answer["Payload"].read()
        return Said(
            answer["StatusCode"],
            answer.get("FunctionError", ""),
            json.loads(raw) if raw else None,
            answer.get("ExecutedVersion", ""),
            base64.b64decode(answer.get("LogResult", "")).decode(),
        )

    def lines(self, name: str, wanted: str, group: str = "") -> list[str]:
        """Everything that a function has logged, once it has logged what is wanted."""
        logs, until = self.account.client("logs"), time.monotonic() + 60
        while time.monotonic() < until:
            try:
                found = logs.filter_log_events(logGroupName=group or f"/aws/lambda/{name}")["events"]
            except logs.exceptions.ResourceNotFoundException:
                found = []
            texts = [one["message"] for one in found]
            if any(wanted in one for one in texts):
                return texts
            time.sleep(0.05)
        raise AssertionError(f"{name} never logged {wanted!r}")


def bench_of(account: Account) -> Bench:
    """A role that may write logs and read and write objects."""
    return Bench(account, account.role("functions", allow("logs:*", "s3:*"), trust=LAMBDA), account.client("lambda"))


@pytest.fixture
def bench(account: Account) -> Bench:
    return bench_of(account)
