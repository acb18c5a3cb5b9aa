"""Map runs: described, listed, updated while they run.

Source: Step Functions API Reference, DescribeMapRun, ListMapRuns, UpdateMapRun.
"""

from __future__ import annotations

from bastide.domain import Refused
from bastide.kernel import Authorised, Output, pages
from bastide.services.states.distributing import RUNS_OF, STATES, find, run_arn, step
from bastide.services.states.noun import (
    EXECUTION,
    MAP_RUN,
    account_of,
    ask,
    execution,
    execution_arn,
    machine_arn,
    own,
    parsed,
)
from bastide.services.states.runner import Executions
from bastide.store import Row, Transaction, View


def _named(a: Authorised, view: View) -> Row:
    given = a.input["mapRunArn"]
    own(a, parsed(given, "mapRun"))
    row = find(view, given)
    if row is None:
        raise Refused("ResourceNotFound", f"Map Run not found: '{given}'", members={"resourceName": given})
    return row


@MAP_RUN.reads("DescribeMapRun", asks=[ask("DescribeMapRun", "mapRunArn")])
def describe(a: Authorised, view: View) -> Output:
    row = _named(a, view)
    doc = row.doc
    over = sum(doc[one] for one in STATES.values())
    waiting = doc.get("waiting", 0)
    running = doc["next"] - over - waiting if row.status == "RUNNING" else 0
    lost = doc.get("lost") or [0, 0]
    beside = {"failuresNotRedrivable": lost[0], "pendingRedrive": waiting, "resultsWritten": doc.get("written", 0)}
    executions = {one: doc[one] for one in STATES.values()} | beside
    executions |= {"total": doc["children"], "running": running, "pending": doc["children"] - over - running - waiting}
    items = dict(executions)
    if doc.get("items"):
        total, done = sum(doc["items"]), sum(doc["items_of"].values())
        waiting = doc.get("items_waiting", 0)
        running = sum(doc["items"][: doc["next"]]) - done - waiting if row.status == "RUNNING" else 0
        items |= doc["items_of"] | {"total": total, "running": running, "pending": total - done - running - waiting}
        items |= {"pendingRedrive": waiting, "failuresNotRedrivable": lost[1]}
    return {
        "mapRunArn": run_arn(row),
        "executionArn": doc["execution"],
        "status": row.status,
        "startDate": doc["start"],
        "stopDate": doc.get("stop"),
        "maxConcurrency": doc["width"],
        "toleratedFailurePercentage": float(doc["share"] or 0),
        "toleratedFailureCount": doc["count"],
        "itemCounts": items,
        "executionCounts": executions,
        "redriveCount": doc.get("redrives", 0),
        "redriveDate": doc.get("redriven"),
    }


@EXECUTION.reads("ListMapRuns", asks=[ask("ListMapRuns", "executionArn")])
def listed(a: Authorised, view: View) -> Output:
    row = execution(a, view, a.input["executionArn"])
    limit = int(a.input.get("maxResults") or 100) or 100
    after = pages.position(a, a.input.get("nextToken"), code="InvalidToken")
    held = view.scan(RUNS_OF, execution_arn(row), row.region, after=after, limit=limit + 1)
    account, name = account_of(row)
    told = []
    for one in held[:limit]:
        run = find(view, one.doc["arn"])
        if run is not None:
            told.append(
                {
                    "executionArn": run.doc["execution"],
                    "mapRunArn": run_arn(run),
                    "stateMachineArn": f"{machine_arn(account, row.region, name)}/{run.account.rpartition('/')[2]}",
                    "startDate": run.doc["start"],
                    "stopDate": run.doc.get("stop"),
                }
            )
    return {"mapRuns": told, "nextToken": pages.seal(a, held[limit - 1].name) if len(held) > limit else None}


async def _updated(a: Authorised, output: Output) -> Output:
    runner = a.engine(Executions)
    runner.aside(step(runner, a.input["mapRunArn"]))
    return output


@MAP_RUN.operation("UpdateMapRun", asks=[ask("UpdateMapRun", "mapRunArn")], after=_updated)
def update(a: Authorised, tx: Transaction) -> Output:
    row = _named(a, tx)
    given = a.input
    if row.status != "RUNNING":
        raise Refused("ValidationException", f"The Map Run is {row.status} and cannot be updated.")
    if all(
        given.get(name) is None for name in ("maxConcurrency", "toleratedFailurePercentage", "toleratedFailureCount")
    ):
        raise Refused("ValidationException", "Nothing is given that could be updated.")
    if given.get("maxConcurrency") is not None:
        row.doc["width"] = int(given["maxConcurrency"])
    if given.get("toleratedFailurePercentage") is not None:
        row.doc["share"] = float(given["toleratedFailurePercentage"])
    if given.get("toleratedFailureCount") is not None:
        row.doc["count"] = int(given["toleratedFailureCount"])
    tx.update(row, keep=False)
    return {}
