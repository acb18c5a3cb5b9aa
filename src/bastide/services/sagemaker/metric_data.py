"""SageMaker Metrics: values of a trial component's metrics, put and got.

Source: Amazon SageMaker Metrics Service API Reference.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import MICROS, Arn, Refused
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, Service, member
from bastide.services.sagemaker import statistic
from bastide.services.sagemaker.relation import SOURCES
from bastide.services.sagemaker.trial_component import METRIC_KEY, TRIAL_COMPONENT, measured, series
from bastide.store import Row, Transaction, View

METRIC_DATA: Final = Kind(
    "MetricData",
    service="sagemaker-metrics",
    arn="metric-data/{}",
    arn_service="sagemaker",
    named_by="TrialComponentName",
    tags=False,
)
"""Not a noun: what the operations hang on."""

_PERIODS: Final = {"OneMinute": 60, "FiveMinute": 300, "OneHour": 3600}
_MOST_VALUES: Final = 10_000


@METRIC_DATA.operation(
    "BatchPutMetrics", asks=[Ask("sagemaker:BatchPutMetrics", TRIAL_COMPONENT.this)], data=True
)  # fmt: skip
def put(a: Authorised, tx: Transaction) -> Output:
    row = TRIAL_COMPONENT.named(a, tx)
    errors = []
    for number, one in enumerate(a.input["MetricData"]):
        code = ""
        if not math.isfinite(one["Value"]):
            code = "VALIDATION_ERROR"
        elif one["MetricName"] in ((row.doc.get("_own") or {}).get("Metrics") or ()):
            code = "CONFLICT_ERROR"  # it was read off from the job's output
        elif not measured(tx, row, one["MetricName"], [(int(one["Timestamp"]), one.get("Step"), one["Value"])]):
            code = "METRIC_LIMIT_EXCEEDED"
        if code:
            errors.append({"Code": code, "MetricIndex": number})
    return {"Errors": errors}


def _component(a: Authorised, view: View, given: str) -> Row:
    arn = Arn.parse(given)
    if arn.account != a.account or arn.region != a.region:
        raise Refused("ValidationException", f"{given} is of another account or region.")
    if arn.resource.startswith(TRIAL_COMPONENT.type):
        return TRIAL_COMPONENT.find(view, *TRIAL_COMPONENT.locate(given, a.account, a.region))
    for name in SOURCES.rights(view, a.account, a.region, given.lower(), limit=1):
        return TRIAL_COMPONENT.find(view, a.account, a.region, name)
    raise Refused("ValidationException", f"{given} is neither a trial component nor a training job with metrics.")


def _resources(asked: Asked) -> Iterable[str]:
    return member("MetricQueries.ResourceArn")(asked)


@METRIC_DATA.reads("BatchGetMetrics", asks=[Ask("sagemaker:BatchGetMetrics", _resources)], data=True)
def got(a: Authorised, view: View) -> Output:
    return {"MetricQueryResults": [_result(a, view, query) for query in a.input["MetricQueries"]]}


def _result(a: Authorised, view: View, query: dict[str, Any]) -> dict[str, Any]:
    by_step = query["XAxisType"] == "IterationNumber"
    try:
        row = _component(a, view, query["ResourceArn"])
        if by_step != (query["Period"] == "IterationNumber"):
            raise Refused("ValidationException", "Period and XAxisType are IterationNumber both, or neither.")
    except (Refused, ValueError) as error:
        return {"Status": "ValidationError", "Message": str(error), "XAxisValues": [], "MetricValues": []}
    name = query["MetricName"]
    if view.get(METRIC_KEY, row.account, row.region, f"{row.name}|{name}") is None:
        message = f"{row.name} has no metric {name}."
        return {"Status": "ValidationError", "Message": message, "XAxisValues": [], "MetricValues": []}
    lines = view.log_lines(series(row.account, row.region, row.name, name), limit=_MOST_VALUES + 1)
    held: dict[int, dict[str, Any]] = {}
    for line in lines[:_MOST_VALUES]:
        step, _, value = str(line.message).partition(" ")
        if by_step and not step:
            continue
        width = _PERIODS.get(query["Period"], 1)
        x = int(step) if by_step else line.at // MICROS // width * width
        if (query.get("Start") or x) <= x <= (query.get("End") or x):
            held[x] = statistic.added(held.get(x), float(value), line.at)
    chosen = query["MetricStat"]
    values = [statistic.summary(name, "", held[x])[chosen] for x in sorted(held)]
    status = "Truncated" if len(lines) > _MOST_VALUES else "Complete"
    return {"Status": status, "XAxisValues": sorted(held), "MetricValues": [float(one) for one in values]}


METRICS: Final = Service("sagemaker-metrics", kinds=[METRIC_DATA], prefix="sagemaker")
