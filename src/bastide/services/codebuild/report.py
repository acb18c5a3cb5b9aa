"""Report groups, reports and what is in them.

Source: CodeBuild User Guide, "Test reports"; API Reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from bastide.domain import MICROS, Refused, new_id, timed_id
from bastide.kernel import Ask, Authorised, Calls, Operation, Output, anything
from bastide.kernel.call import Call, Request
from bastide.kernel.kind import Given
from bastide.services.codebuild import results
from bastide.services.codebuild.noun import (
    PRINCIPAL,
    REPORT,
    REPORT_GROUP,
    REPORT_OF,
    RESULT,
    arn_name,
    ask,
    batch,
    descending,
    find,
    groups,
    in_order,
    invalid,
    listed,
    look_up,
    tags_of,
    tags_shown,
    unsupported,
)
from bastide.services.codebuild.results import Case, Covered
from bastide.services.codebuild.session import RoleSession
from bastide.store import Row, Transaction, View

_MOST: Final = 100
_LIFE: Final = 30 * 86_400 * MICROS
"""A report's results are kept for 30 days."""


def _exports(*names: str) -> dict[str, Given]:
    def read(name: str) -> Given:
        def given(asked: Any) -> str | None:
            value = ((asked.input.get("exportConfig") or {}).get("s3Destination") or {}).get(name)
            return None if value is None else "true" if value is True else "false" if value is False else str(value)

        return given

    return {f"codebuild:exportConfig.s3Destination.{name}": read(name) for name in names}


_KEYS: Final = _exports("bucket", "bucketOwner", "encryptionKey", "encryptionDisabled", "path")


def _export(given: dict[str, Any] | None) -> dict[str, Any]:
    held = dict(given or {"exportConfigType": "NO_EXPORT"})
    if held.get("exportConfigType", "NO_EXPORT") != "NO_EXPORT":
        raise invalid("Invalid exportConfig: exportConfigType S3 is not supported by Bastide; NO_EXPORT is.")
    unsupported(held, "Invalid exportConfig: ", "s3Destination")
    return {"exportConfigType": "NO_EXPORT"}


def _group(row: Row) -> dict[str, Any]:
    return {
        "arn": REPORT_GROUP.arn(row.account, row.region, row.name),
        "name": row.name,
        "type": row.doc["type"],
        "exportConfig": row.doc["exportConfig"],
        "created": row.doc["created"],
        "lastModified": row.doc["lastModified"],
        "tags": tags_shown(row.tags),
        "status": "ACTIVE",
    }


def _report(row: Row) -> dict[str, Any]:
    told = {key: value for key, value in row.doc.items() if not key.startswith("_")}
    return {**told, "arn": REPORT.arn(row.account, row.region, row.name), "status": row.status}


# -- groups --------------------------------------------------------------------------------------------------------------


def _named(asked: Any) -> Sequence[str]:
    return (REPORT_GROUP.arn(asked.call.account, asked.call.region, str(asked.input.get("name") or "*")),)


@REPORT_GROUP.operation("CreateReportGroup", asks=[Ask("codebuild:CreateReportGroup", _named, given=_KEYS)])
def create_group(a: Authorised, tx: Transaction) -> Output:
    name = a.input["name"]
    if any(char in name for char in ":/* \t\n"):
        raise invalid("Invalid report group name: letters, digits, hyphens, underscores and dots.")
    doc = {"type": a.input["type"], "exportConfig": _export(a.input["exportConfig"])}
    doc |= {"created": tx.now, "lastModified": tx.now}
    return {"reportGroup": _group(REPORT_GROUP.create(a, tx, name, doc, tags=tags_of(a)))}


@REPORT_GROUP.operation("UpdateReportGroup", asks=[Ask("codebuild:UpdateReportGroup", groups("arn"), given=_KEYS)])
def update_group(a: Authorised, tx: Transaction) -> Output:
    row = find(a, tx, REPORT_GROUP, a.input["arn"])
    if a.input.get("exportConfig") is not None:
        row.doc["exportConfig"] = _export(a.input["exportConfig"])
    if a.input.get("tags") is not None:
        row.tags = tags_of(a)
    row.doc["lastModified"] = tx.now
    REPORT_GROUP.change(tx, row, a.operation.name, a.request.id)
    return {"reportGroup": _group(row)}


@REPORT_GROUP.operation("DeleteReportGroup", asks=[ask("DeleteReportGroup", groups("arn"))])
def delete_group(a: Authorised, tx: Transaction) -> Output:
    name = arn_name(a.input["arn"], REPORT_GROUP, a.account, a.region)
    row = look_up(a, tx, REPORT_GROUP, a.input["arn"])
    held = tx.scan(REPORT_OF, f"{a.account}/{name}", a.region, limit=_MOST)
    if held and not a.input.get("deleteReports"):
        raise invalid("The report group has reports: delete them first, or say deleteReports.")
    while held:
        for one in held:
            report = REPORT.get(tx, a.account, a.region, one.name.partition("|")[2])
            if report is not None:
                _remove(a, tx, report)
        held = tx.scan(REPORT_OF, f"{a.account}/{name}", a.region, limit=_MOST)
    if row is not None:
        REPORT_GROUP.remove(tx, row, a.operation.name, a.request.id)
    return {}


@REPORT_GROUP.reads("BatchGetReportGroups", asks=[ask("BatchGetReportGroups", groups("reportGroupArns"))])
def get_groups(a: Authorised, view: View) -> Output:
    there, missing = batch(a, view, REPORT_GROUP, a.input["reportGroupArns"], _group)
    return {"reportGroups": there, "reportGroupsNotFound": missing}


@REPORT_GROUP.reads("ListReportGroups", asks=[Ask("codebuild:ListReportGroups", anything)])
def list_groups(a: Authorised, view: View) -> Output:
    rows, token = in_order(a, view, REPORT_GROUP)
    arns = [REPORT_GROUP.arn(row.account, row.region, row.name) for row in rows]
    return {"reportGroups": arns, "nextToken": token}


# -- reports -------------------------------------------------------------------------------------------------------------


def _status_kept(a: Authorised) -> Any:
    wanted = (a.input.get("filter") or {}).get("status")
    return lambda row: wanted is None or row.status == wanted


@REPORT.reads("ListReports", asks=[Ask("codebuild:ListReports", anything)])
def list_reports(a: Authorised, view: View) -> Output:
    rows, token = listed(
        a, view, REPORT.key, a.account, order="created", descending=descending(a), keep=_status_kept(a)
    )
    return {"reports": [REPORT.arn(row.account, row.region, row.name) for row in rows], "nextToken": token}


@REPORT.reads("ListReportsForReportGroup", asks=[ask("ListReportsForReportGroup", groups("reportGroupArn"))])
def list_of_group(a: Authorised, view: View) -> Output:
    group = find(a, view, REPORT_GROUP, a.input["reportGroupArn"])
    kept = _status_kept(a)

    def keep(row: Row) -> bool:
        report = REPORT.get(view, a.account, a.region, row.name.partition("|")[2])
        return report is not None and bool(kept(report))

    rows, token = listed(a, view, REPORT_OF, f"{a.account}/{group.name}", descending=descending(a), keep=keep)
    found = [REPORT.arn(a.account, a.region, row.name.partition("|")[2]) for row in rows]
    return {"reports": found, "nextToken": token}


@REPORT.reads("BatchGetReports", asks=[ask("BatchGetReports", groups("reportArns"))])
def get_reports(a: Authorised, view: View) -> Output:
    there, missing = batch(a, view, REPORT, a.input["reportArns"], _report)
    return {"reports": there, "reportsNotFound": missing}


def _remove(a: Authorised, tx: Transaction, row: Row) -> None:
    group = row.name.rpartition(":")[0]
    for held in tx.scan(RESULT, f"{row.account}/{row.name}", row.region, limit=10 * results.MOST_RESULTS):
        tx.delete(held, keep=False)
    held_by = tx.get(REPORT_OF, f"{row.account}/{group}", row.region, f"{row.doc['created']:020d}|{row.name}")
    if held_by is not None:
        tx.delete(held_by, keep=False)
    REPORT.remove(tx, row, a.operation.name, a.request.id)


@REPORT.operation("DeleteReport", asks=[ask("DeleteReport", groups("arn"))])
def delete_report(a: Authorised, tx: Transaction) -> Output:
    row = look_up(a, tx, REPORT, a.input["arn"])
    if row is not None:
        _remove(a, tx, row)
    return {}


@REPORT.reads("DescribeTestCases", asks=[ask("DescribeTestCases", groups("reportArn"))])
def describe_cases(a: Authorised, view: View) -> Output:
    report = find(a, view, REPORT, a.input["reportArn"])
    if report.doc["type"] != "TEST":
        raise invalid("The report is one of code coverage: see DescribeCodeCoverages.")
    asked = a.input.get("filter") or {}
    keyword = str(asked.get("keyword") or "").lower()

    def keep(row: Row) -> bool:
        if asked.get("status") and row.doc["status"] != asked["status"]:
            return False
        return not keyword or keyword in f"{row.doc['prefix']} {row.doc['name']}".lower()

    rows, token = listed(a, view, RESULT, f"{a.account}/{report.name}", descending=False, keep=keep)
    arn = REPORT.arn(a.account, a.region, report.name)
    more = {"reportArn": arn, "expired": report.doc["expired"]}
    return {"testCases": [{**row.doc, **more} for row in rows], "nextToken": token}


@REPORT.reads("DescribeCodeCoverages", asks=[ask("DescribeCodeCoverages", groups("reportArn"))])
def describe_coverages(a: Authorised, view: View) -> Output:
    report = find(a, view, REPORT, a.input["reportArn"])
    if report.doc["type"] != "CODE_COVERAGE":
        raise invalid("The report is one of tests: see DescribeTestCases.")
    if a.input.get("sortBy") == "LINE_COVERAGE_PERCENTAGE":
        raise invalid("Invalid sortBy: LINE_COVERAGE_PERCENTAGE is not supported by Bastide; FILE_PATH is.")
    least = a.input.get("minLineCoveragePercentage")
    most = a.input.get("maxLineCoveragePercentage")

    def keep(row: Row) -> bool:
        share = row.doc["lineCoveragePercentage"]
        return (least is None or share >= least) and (most is None or share <= most)

    rows, token = listed(a, view, RESULT, f"{a.account}/{report.name}", descending=descending(a, False), keep=keep)
    arn = REPORT.arn(a.account, a.region, report.name)
    more = {"reportARN": arn, "expired": report.doc["expired"]}
    return {"codeCoverages": [{"id": row.name, **row.doc, **more} for row in rows], "nextToken": token}


# -- what a build reports ------------------------------------------------------------------------------------------------


async def put(
    session: RoleSession, group: str, kind: str, build: str, found: Sequence[Case] | Sequence[Covered]
) -> str:
    """Makes a report with a build's results, and its group if that is not there; its ARN. group: a name, or an ARN.
    The role is asked for what AWS asks it for: raises Refused."""
    account, region = session.account, session.region
    if not group.startswith("arn:"):
        project = session.source_arn.partition("/")[2]
        name = f"{project}-{group}"
        asked = {"name": name, "type": kind, "exportConfig": {"exportConfigType": "NO_EXPORT"}}
        try:
            await session.act("codebuild", "CreateReportGroup", asked)
        except Refused as refused:
            if refused.code != "ResourceAlreadyExistsException":
                raise
    else:
        name = arn_name(group, REPORT_GROUP, account, region)
    arn = REPORT_GROUP.arn(account, region, name)
    id = f"{name}:{new_id()}"
    results_action = "BatchPutTestCases" if kind == "TEST" else "BatchPutCodeCoverages"

    def handle(a: Authorised, tx: Transaction) -> Output:
        row = REPORT_GROUP.find(tx, account, region, name)
        if row.doc["type"] != kind:
            raise invalid(f"The report group {name} is of the type {row.doc['type']}, the report is {kind}.")
        _put(tx, row, id, build, found)
        return {}

    # CreateReport, UpdateReport and the others are actions that AWS's build hosts are asked for, and no operations of the
    # API: nobody but a build reaches them, with its role.
    about = lambda _: (arn,)  # noqa: E731
    asks = tuple(Ask(f"codebuild:{one}", about) for one in ("CreateReport", results_action, "UpdateReport"))
    operation = Operation("codebuild", "CreateReport", asks, handle, True)
    calls: Calls = session.calls
    now = calls.clock()
    request = Request(timed_id(now), now, PRINCIPAL, PRINCIPAL, True, "json")
    await calls.run(Call(operation, {}, await session.caller(), account, region, request))
    return REPORT.arn(account, region, id)


def _put(tx: Transaction, group: Row, id: str, build: str, found: Sequence[Case] | Sequence[Covered]) -> None:
    kept = list(found)[: results.MOST_RESULTS]
    tests = [one for one in kept if isinstance(one, Case)]
    files = [one for one in kept if isinstance(one, Covered)]
    doc: dict[str, Any] = {
        "type": group.doc["type"],
        "name": id.rpartition(":")[2],
        "reportGroupArn": REPORT_GROUP.arn(group.account, group.region, group.name),
        "executionId": build,
        "created": tx.now,
        "expired": tx.now + _LIFE,
        "exportConfig": group.doc["exportConfig"],
        "truncated": len(found) > len(kept),
    }
    status = "SUCCEEDED"
    if group.doc["type"] == "TEST":
        doc["testSummary"] = results.summary(tests)
        if any(one.status in ("FAILED", "ERROR") for one in tests):
            status = "FAILED"
    else:
        doc["codeCoverageSummary"] = results.coverage_summary(files)
    row = Row(REPORT.key, group.account, group.region, id, doc, status)
    REPORT.insert(tx, row, "CreateReport")
    tx.insert(Row(REPORT_OF, f"{group.account}/{group.name}", group.region, f"{tx.now:020d}|{id}", {}), keep=False)
    under = f"{group.account}/{id}"
    for number, case in enumerate(tests):
        told = {
            "testSuiteName": case.suite,
            "prefix": case.prefix,
            "name": case.name,
            "status": case.status,
            "durationInNanoSeconds": case.nanos,
            "message": case.message,
        }
        tx.insert(Row(RESULT, under, group.region, f"{number:06d}", told), keep=False)
    for number, file in enumerate(sorted(files, key=lambda one: one.path)):
        told = {"filePath": file.path, **results.covered_members(file.lines, file.branches)}
        tx.insert(Row(RESULT, under, group.region, f"{number:06d}", told), keep=False)
