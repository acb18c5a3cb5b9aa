"""Drift: where resources are no longer what their stack made of them.

What is compared is what the template names; what a service adds by itself is no drift. Source: CloudFormation User Guide,
"Detect unmanaged configuration changes to stacks and resources with drift detection".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import orjson

from bastide.domain import new_id
from bastide.engines.templates import text
from bastide.kernel import Ask, Asked, Authorised, Output, pages
from bastide.services.cloudformation import record
from bastide.services.cloudformation.acting import principal
from bastide.services.cloudformation.deployment import Deployment
from bastide.services.cloudformation.intake import actor_of
from bastide.services.cloudformation.record import RESOURCE, STACK, Held, arn_of, found, rows_of, this
from bastide.services.cloudformation.stack import invalid
from bastide.services.cloudformation.types import type_of
from bastide.store import Row, Transaction, View

DETECTION: Final = "cloudformation:DriftDetection"
_STEADY: Final = (
    "CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_FAILED", "CREATE_FAILED",
    "UPDATE_FAILED",
)  # fmt: skip
_PAGE: Final = 100


def differences(wanted: Any, found_: Any, at: str = "") -> list[dict[str, str]]:
    """Where what is found is not what was wanted; members beyond those that were wanted are none."""
    if isinstance(wanted, dict) and isinstance(found_, dict):
        told: list[dict[str, str]] = []
        members = {str(key).lower(): value for key, value in found_.items()}
        for key, value in wanted.items():
            told += differences(value, members.get(str(key).lower()), f"{at}/{key}")
        return told
    if isinstance(wanted, list) and isinstance(found_, list):
        if len(wanted) == len(found_):
            pairs = zip(wanted, found_, strict=True)
            return [one for number, (a, b) in enumerate(pairs) for one in differences(a, b, f"{at}/{number}")]
    elif _same(wanted, found_):
        return []
    kind = "REMOVE" if found_ is None else "NOT_EQUAL"
    return [
        {
            "PropertyPath": at,
            "ExpectedValue": _shown(wanted),
            "ActualValue": "null" if found_ is None else _shown(found_),
            "DifferenceType": kind,
        }
    ]


def _same(wanted: Any, found_: Any) -> bool:
    """Whether two scalars are the same, however they are written."""
    if not (isinstance(wanted, str | int | float) and isinstance(found_, str | int | float)):
        return False
    number = _number(wanted)
    return text(wanted).lower() == text(found_).lower() or (number is not None and number == _number(found_))


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _shown(value: Any) -> str:
    return text(value) if isinstance(value, str | int | float) else orjson.dumps(value, default=str).decode()


async def _looked(deployment: Deployment, held: Held) -> dict[str, Any]:
    """What drift is found of one resource."""
    thing = held.now
    assert thing is not None
    kind = type_of(thing.type)
    if kind.read is None:
        return {"status": "NOT_CHECKED"}
    r = deployment.handle(held, thing, "drift", stoppable=False)
    r.thing.properties = await deployment.dynamic.filled(thing.properties)
    actual = await kind.read(r)
    if actual is None:
        return {"status": "DELETED", "expected": thing.properties}
    expected = {name: value for name, value in r.thing.properties.items() if name in actual}
    told = differences(expected, {name: actual[name] for name in expected})
    return {"status": "MODIFIED" if told else "IN_SYNC", "expected": expected, "actual": actual, "differences": told}


async def _detected(a: Authorised, names: Iterable[str] | None) -> dict[str, dict[str, Any]]:
    """What drift is found, by resource; looked at as whoever asks."""
    with a.calls.store.reading() as view:
        row = found(view, a.account, a.region, a.input["StackName"])
    if row.status not in _STEADY:
        raise invalid(f"Drift detection cannot be performed on the stack in {row.status} state.")
    copy = Row(row.kind, row.account, row.region, row.name, {**row.doc, "operation": _idle(a)}, row.status, row.tags)
    deployment = Deployment(a.calls, copy, actor_of(a, arn_of(row)))
    wanted = set(names) if names is not None else set(deployment.held)
    unknown = sorted(wanted - set(deployment.held))
    if unknown:
        raise invalid(f"Resources [{', '.join(unknown)}] do not exist in the stack.")
    return {
        name: await _looked(deployment, held)
        for name, held in deployment.held.items()
        if name in wanted and held.now is not None
    }


def _idle(a: Authorised) -> dict[str, Any]:
    return {"id": "drift", "kind": "drift", "principal": principal(a.caller)}


def _note(a: Authorised, tx: Transaction, stack: Row, looked: dict[str, dict[str, Any]]) -> None:
    """Keeps what was found with the resources."""
    uuid = stack.name.partition("/")[2]
    for name, one in looked.items():
        row = tx.get(RESOURCE, stack.account, stack.region, f"{uuid}/{name}")
        if row is None:
            continue
        row.doc["drift"] = {"StackResourceDriftStatus": one["status"], "LastCheckTimestamp": tx.now}
        row.doc["drifted"] = record.seal(a.calls, one)
        tx.update(row, keep=False)


# -- the operations ----------------------------------------------------------------------------------------------------


async def _before_stack(a: Authorised) -> Any:
    return await _detected(a, a.input.get("LogicalResourceIds"))


@STACK.operation("DetectStackDrift", asks=[Ask("cloudformation:DetectStackDrift", this())], before=_before_stack)
def detect(a: Authorised, tx: Transaction) -> Output:
    stack = found(tx, a.account, a.region, a.input["StackName"])
    looked: dict[str, dict[str, Any]] = a.staged
    _note(a, tx, stack, looked)
    drifted = sum(one["status"] in ("MODIFIED", "DELETED") for one in looked.values())
    status = "DRIFTED" if drifted else "IN_SYNC"
    stack.doc["drift"] = {"StackDriftStatus": status, "LastCheckTimestamp": tx.now}
    STACK.change(tx, stack, a.operation.name, a.request.id)
    id = new_id()
    doc = {"stack": stack.name, "status": status, "drifted": drifted}
    tx.insert(Row(DETECTION, stack.account, stack.region, id, doc), keep=False)
    return {"StackDriftDetectionId": id}


async def _before_resource(a: Authorised) -> Any:
    return await _detected(a, [a.input["LogicalResourceId"]])


@STACK.operation(
    "DetectStackResourceDrift", asks=[Ask("cloudformation:DetectStackResourceDrift", this())], before=_before_resource
)
def detect_resource(a: Authorised, tx: Transaction) -> Output:
    stack = found(tx, a.account, a.region, a.input["StackName"])
    looked: dict[str, dict[str, Any]] = a.staged
    _note(a, tx, stack, looked)
    name = a.input["LogicalResourceId"]
    row = tx.get(RESOURCE, stack.account, stack.region, f"{stack.name.partition('/')[2]}/{name}")
    if row is None or name not in looked:
        raise invalid(f"Resource {name} does not exist in the stack.")
    return {"StackResourceDrift": _told(a, stack, row)}


def _told(a: Authorised, stack: Row, row: Row) -> Output:
    held = record.opened(a.calls, row.doc["drifted"])
    told: Output = {
        "StackId": arn_of(stack),
        "LogicalResourceId": row.name.partition("/")[2],
        "PhysicalResourceId": row.doc.get("physical", ""),
        "ResourceType": row.doc["type"],
        "StackResourceDriftStatus": held["status"],
        "Timestamp": row.doc["drift"]["LastCheckTimestamp"],
    }
    if "expected" in held:
        told["ExpectedProperties"] = _shown(held["expected"])
    if "actual" in held:
        told["ActualProperties"] = _shown(held["actual"])
        told["PropertyDifferences"] = held["differences"]
    return told


def _of_detection(asked: Asked) -> Iterable[str]:
    row = asked.view.get(DETECTION, asked.call.account, asked.call.region, asked.input["StackDriftDetectionId"])
    return ("*",) if row is None else (STACK.arn(row.account, row.region, row.doc["stack"]),)


@STACK.reads(
    "DescribeStackDriftDetectionStatus", asks=[Ask("cloudformation:DescribeStackDriftDetectionStatus", _of_detection)]
)
def detection(a: Authorised, view: View) -> Output:
    id = a.input["StackDriftDetectionId"]
    row = view.get(DETECTION, a.account, a.region, id)
    if row is None:
        raise invalid(f"Drift detection {id} does not exist.")
    return {
        "StackId": STACK.arn(row.account, row.region, row.doc["stack"]),
        "StackDriftDetectionId": id,
        "StackDriftStatus": row.doc["status"],
        "DetectionStatus": "DETECTION_COMPLETE",
        "DriftedStackResourceCount": row.doc["drifted"],
        "Timestamp": row.created,
    }


@STACK.reads("DescribeStackResourceDrifts", asks=[Ask("cloudformation:DescribeStackResourceDrifts", this())])
def drifts(a: Authorised, view: View) -> Output:
    stack = found(view, a.account, a.region, a.input["StackName"])
    wanted = set(a.input.get("StackResourceDriftStatusFilters") or ())
    rows = [one for one in rows_of(view, stack) if "drifted" in one.doc]
    rows = [one for one in rows if not wanted or one.doc["drift"]["StackResourceDriftStatus"] in wanted]
    after = int(pages.position(a, a.input.get("NextToken")) or 0)
    size = int(a.input.get("MaxResults") or _PAGE)
    told = [_told(a, stack, one) for one in rows[after : after + size]]
    answer: Output = {"StackResourceDrifts": told}
    if len(rows) > after + size:
        answer["NextToken"] = pages.seal(a, after + size)
    return answer
