"""An account with a role for state machines, and short ways to run them."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass
from typing import Any

import pytest

from tests.platform import Account, allow

STATES = {"Service": "states.amazonaws.com"}
OVER = ("SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED")


@dataclass
class Machines:
    """State machines of one account."""

    account: Account
    states: Any = None
    role: str = ""

    def made(self, states: dict[str, Any], start: str = "", **more: Any) -> str:
        """A state machine of these states; its ARN."""
        top = more.pop("top", {})
        definition = json.dumps({"StartAt": start or next(iter(states)), "States": states, **top})
        given = {"name": f"m-{uuid.uuid4().hex[:8]}", "roleArn": self.role, **more}
        arn: str = self.states.create_state_machine(definition=definition, **given)["stateMachineArn"]
        return arn

    def started(self, machine: str, given: Any = None, **more: Any) -> str:
        """An execution; its ARN."""
        arn: str = self.states.start_execution(stateMachineArn=machine, input=json.dumps(given or {}), **more)[
            "executionArn"
        ]
        return arn

    def ended(self, arn: str, seconds: float = 60) -> dict[str, Any]:
        """The execution when it is over; its output parsed."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found: dict[str, Any] = self.states.describe_execution(executionArn=arn)
            if found["status"] in OVER:
                if "output" in found:
                    found["output"] = json.loads(found["output"])
                return found
            time.sleep(0.02)
        raise AssertionError(f"{arn} does not end: {self.types(arn)}")

    def ran(self, states: dict[str, Any], given: Any = None, **more: Any) -> dict[str, Any]:
        """Makes a machine and runs it once."""
        return self.ended(self.started(self.made(states, **more), given))

    def events(self, arn: str, **more: Any) -> list[dict[str, Any]]:
        """Its whole history."""
        pages = self.states.get_paginator("get_execution_history").paginate(executionArn=arn, **more)
        return [event for page in pages for event in page["events"]]

    def types(self, arn: str) -> list[str]:
        """The types of its events."""
        return [event["type"] for event in self.events(arn)]

    def until(self, arn: str, type: str) -> dict[str, Any]:
        """Waits for an event."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            found = [event for event in self.events(arn) if event["type"] == type]
            if found:
                return found[0]
            time.sleep(0.02)
        raise AssertionError(f"{arn} has no {type}: {self.types(arn)}")


def machines_of(account: Account, *actions: str) -> Machines:
    """Machines of an account, whose role may do this."""
    role = account.role("Machine", allow(*(actions or ("s3:*", "states:*", "logs:*"))), trust=STATES)
    return Machines(account, account.client("stepfunctions"), role)


@pytest.fixture
def machines(account: Account) -> Machines:
    return machines_of(account)
