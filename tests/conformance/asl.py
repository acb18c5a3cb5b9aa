"""State machine cases recorded from the real service, run against a platform of our own through boto3.

``run(folder)`` reads ``cases.jsonl``; the folder's README tells the form. A case that needs what is not here stands in
``asl_gaps.txt`` with its reason. Compared are how an execution ended, then the sequence of event types, then the whole
history.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import botocore.exceptions

from tests.platform import REGION, Account, Running, allow

GAPS = Path(__file__).with_name("asl_gaps.txt")
_ANYTHING = {
    "snf_role_arn", "sfn_role_arn", "timestamp", "date", "start-time", "entered-time", "datetime", "table-name",
}  # fmt: skip
_AT_ONCE = 500


def gaps() -> dict[str, str]:
    """Cases that cannot pass, each with its reason."""
    found: dict[str, str] = {}
    reason = ""
    for line in GAPS.read_text().splitlines():
        if line.startswith("# "):
            reason = line[2:]
        elif line.strip():
            found[line.strip()] = reason
    return found


def parsed(value: Any) -> Any:
    """Texts of JSON as what they say, wherever they stand."""
    if isinstance(value, str):
        value = re.sub(r"(?<=:)\d{12}(?=:)", "1" * 12, value)
        try:
            held = json.loads(value)
        except ValueError:
            return value
        return parsed(held)
    if isinstance(value, dict):
        return {name: parsed(one) for name, one in value.items()}
    if isinstance(value, list):
        return [parsed(one) for one in value]
    return value


def same(found: Any, wanted: Any) -> bool:
    """Whether a value is the recorded one; placeholders stand for anything."""
    if isinstance(wanted, str):
        if wanted in _ANYTHING:
            return True
        if "<" in wanted and isinstance(found, str):
            pattern = "".join(
                ".*" if part.startswith("<") else re.escape(part) for part in re.split(r"(<[^>]*>)", wanted)
            )
            return re.fullmatch(pattern, found, re.DOTALL) is not None
    if isinstance(wanted, dict):
        return (
            isinstance(found, dict)
            and found.keys() == wanted.keys()
            and all(same(found[key], one) for key, one in wanted.items())
        )
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(same, found, wanted))
    return bool(found == wanted) and isinstance(found, bool) == isinstance(wanted, bool)


class Bench:
    """An account in which cases are run."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.states = account.client("stepfunctions")
        self.role = account.role(
            "conformance", allow("*"), trust={"Service": "states.amazonaws.com"}, MaxSessionDuration=3600
        )
        self.logs = account.client("logs")
        self.logs.create_log_group(logGroupName="/conformance/asl")
        self.group = f"arn:aws:logs:{REGION}:{account.id}:log-group:/conformance/asl:*"
        time.sleep(0.1)

    def params(self, case: dict[str, Any]) -> dict[str, Any]:
        """A case's further arguments, its log group ours."""
        given = json.loads(json.dumps(case["params"] or {}))
        for one in given.get("loggingConfiguration", {}).get("destinations", ()):
            one["cloudWatchLogsLogGroup"]["logGroupArn"] = self.group
        return dict(given)

    def created(self, case: dict[str, Any]) -> str:
        """A state machine of a case; its ARN."""
        given = self.params(case)
        arn: str = self.states.create_state_machine(
            name=f"m-{uuid.uuid4().hex[:12]}",
            definition=case["definition"],
            roleArn=self.role,
            type=case["type"] or "STANDARD",
            **given,
        )["stateMachineArn"]
        return arn

    def begin(self, case: dict[str, Any]) -> Callable[[], str]:
        """Starts a case; what is returned waits and tells what is wrong, empty if nothing."""
        kind = case["kind"]
        if kind == "standard":
            machine = self.created(case)
            more = {} if case["input"] is None else {"input": case["input"]}
            arn = self.states.start_execution(stateMachineArn=machine, **more)["executionArn"]
            return lambda: self.standard(case, arn)
        if kind == "express":
            machine = self.created(case)
            arn = self.states.start_execution(stateMachineArn=machine, input=case["input"] or "{}")["executionArn"]
            return lambda: self.express(case, arn)
        if kind == "express_sync":
            machine = self.created(case)
            answer = self.states.start_sync_execution(stateMachineArn=machine, input=case["input"] or "{}")
            return lambda: self.compare(answer, case["expect"])
        return {"validate": self.validate, "create_error": self.create_error}.get(kind, self.test_state)(case)

    def standard(self, case: dict[str, Any], arn: str) -> str:
        until = time.monotonic() + 15
        told = self.states.describe_execution(executionArn=arn)
        while told["status"] == "RUNNING":
            if time.monotonic() > until:
                return "outcome: it does not end"
            time.sleep(0.01)
            told = self.states.describe_execution(executionArn=arn)
        if case["op"] == "output":
            good = same(parsed(told.get("output")), parsed(case["expect"]))
            return "" if good else f"outcome: {told.get('output')} {told.get('error')} {told.get('cause')}"
        if case["op"] == "describe_execution":
            return self.compare(told, case["expect"])
        return self.history(arn, case["expect"]["events"])

    def history(self, arn: str, wanted: list[dict[str, Any]]) -> str:
        pages = self.states.get_paginator("get_execution_history").paginate(executionArn=arn)
        events = [event for page in pages for event in page["events"]]
        for event in events:
            event["timestamp"] = "timestamp"
        found, wanted = parsed(events), parsed(wanted)
        if found[-1]["type"] != wanted[-1]["type"] or not same(_details(found[-1]), _details(wanted[-1])):
            return f"outcome: {found[-1]}\n    wanted {wanted[-1]}"
        types = [event["type"] for event in found]
        if types != [event["type"] for event in wanted]:
            return f"types: {types}\n    wanted {[event['type'] for event in wanted]}"
        for one, other in zip(found, wanted, strict=True):
            if not same(one, other):
                return f"history: {one}\n    wanted {other}"
        return ""

    def express(self, case: dict[str, Any], arn: str) -> str:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            found = self.logs.filter_log_events(logGroupName="/conformance/asl", filterPattern=f'"{arn}"')["events"]
            lines = [json.loads(one["message"]) for one in found]
            last = [one for one in lines if one["type"] in ("ExecutionSucceeded", "ExecutionFailed")]
            if last:
                return self.compare({**last[0], "event_timestamp": "timestamp"}, case["expect"])
            time.sleep(0.05)
        return "outcome: no line of the log tells the end"

    def compare(self, found: Any, wanted: Any) -> str:
        found, wanted = (
            {key: one for key, one in value.items() if key != "ResponseMetadata"} for value in (found, wanted)
        )
        for value in (found, wanted):
            value.update({key: "datetime" for key in value if key.endswith("Date")})
            if "billingDetails" in value:
                value["billingDetails"] = dict.fromkeys(value["billingDetails"], "number")
        found, wanted = parsed(found), parsed(wanted)
        return "" if same(found, wanted) else f"answer: {found}\n    wanted {wanted}"

    def error(self, case: dict[str, Any], call: Callable[[], Any]) -> str:
        try:
            call()
        except botocore.exceptions.ClientError as error:
            told, wanted = error.response["Error"], case["expect"]["Error"]
            if told["Code"] == wanted["Code"] and same(parsed(told["Message"]), wanted["Message"]):
                return ""
            return f"error: {told}\n    wanted {wanted}"
        return f"error: none, wanted {case['expect']['Error']}"

    def create_error(self, case: dict[str, Any]) -> Callable[[], str]:
        name = f"m-{uuid.uuid4().hex[:12]}"
        given = {"roleArn": self.role, "type": case["type"] or "STANDARD", "name": name}
        if "AlreadyExists" in case["expect"]["Error"]["Code"]:
            other = json.dumps({"StartAt": "S", "States": {"S": {"Type": "Succeed"}}})
            self.states.create_state_machine(**given, definition=other)
        call = lambda: self.states.create_state_machine(**given, definition=case["definition"])  # noqa: E731
        return lambda: self.error(case, call)

    def validate(self, case: dict[str, Any]) -> Callable[[], str]:
        # An empty text is what botocore's own check of lengths refuses to send; the service answers it.
        client = self.account.client("stepfunctions", parameter_validation=False)
        answer = client.validate_state_machine_definition(definition=case["definition"], **self.params(case))
        return lambda: self.compare(answer, case["expect"])

    def test_state(self, case: dict[str, Any]) -> Callable[[], str]:
        given = {"definition": case["definition"], "roleArn": self.role, **self.params(case)}
        if case["input"] is not None:
            given["input"] = case["input"]
        if case["kind"] == "test_state_error":
            return lambda: self.error(case, lambda: self.states.test_state(**given))
        answer = self.states.test_state(**given)
        return lambda: self.compare(answer, case["expect"])


def _details(event: dict[str, Any]) -> Any:
    return next((one for name, one in event.items() if name.endswith("EventDetails")), {})


def run(folder: Path, report: bool = False, account: Account | None = None, every: int = 1) -> tuple[int, int]:
    """Runs all cases; how many passed and failed. Without an account, on a platform of its own. every: of comparisons, of
    which there are hundreds alike, every so many only."""
    if account is not None:
        return _run(folder, report, account, every)
    with TemporaryDirectory() as place:
        running = Running(Path(place) / "data")
        running.start()
        try:
            running.found()
            return _run(folder, report, running.account(), every)
        finally:
            running.stop()


def _run(folder: Path, report: bool, account: Account, every: int) -> tuple[int, int]:
    with (folder / "cases.jsonl").open() as lines:
        cases = [json.loads(line) for line in lines]
    alike = [case for case in cases if "/choice_operators/" in case["id"] or "/math_operations" in case["id"]]
    left_out = {case["id"] for place, case in enumerate(alike) if place % every}
    if every > 1:
        left_out |= {case["id"] for case in cases if "retry_multiple_retriers" in case["id"]}  # it waits for seconds
    cases = [case for case in cases if case["id"] not in left_out]
    bench, known = Bench(account), gaps()
    ended: Counter[str] = Counter()
    levels: Counter[str] = Counter()
    for first in range(0, len(cases), _AT_ONCE):
        begun: list[tuple[dict[str, Any], Callable[[], str]]] = []
        for case in cases[first : first + _AT_ONCE]:
            try:
                begun.append((case, bench.begin(case)))
            except (botocore.exceptions.ClientError, botocore.exceptions.ParamValidationError) as error:
                begun.append((case, lambda error=error: f"begin: {error}"))  # type: ignore[misc]
        for case, finish in begun:
            try:
                wrong = finish()
            except botocore.exceptions.ClientError as error:
                wrong = f"answer: {error}"
            gap = case["id"] in known
            name = ("gap" if gap else "failed") if wrong else ("gap that passes" if gap else "passed")
            ended[name] += 1
            level = case["op"] if case["op"] != "get_execution_history" else "history"
            levels[f"{level}: {'whole' if not wrong else 'not ' + wrong.partition(':')[0]}"] += 1
            if report and wrong and not gap:
                print(f"{case['id']}\n    {wrong[:3000]}")
            if report and gap and not wrong:
                print(f"{case['id']} passes, and is listed as a gap")
    if report:
        for level, count in sorted(levels.items()):
            print(f"  {count:4} {level}")
        print(f"  {ended['gap']} cases cannot pass here, for the reasons in {GAPS.name}")
    return ended["passed"], ended["failed"] + ended["gap that passes"]
