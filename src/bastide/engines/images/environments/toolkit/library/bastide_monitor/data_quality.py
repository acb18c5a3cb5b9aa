"""Data quality: statistics and constraints of a dataset, and what does not keep a baseline's."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from bastide_monitor import Unfit
from bastide_monitor.columns import Table
from bastide_monitor.constraints import METHODS, config_of, evaluate, named, suggest
from bastide_monitor.job import Job, say

_UNNAMED = re.compile(r"_c([0-9]+)")


def run(job: Job) -> int | None:
    """How many violations there are, None without a baseline. Raises Unfit."""
    drift = job.given.get("categorical_drift_method") or "LInfinity"
    if drift not in METHODS:
        raise Unfit(f"categorical_drift_method is {' or '.join(METHODS)}.")
    constraints, statistics = job.document("baseline_constraints"), job.document("baseline_statistics")
    order = list(named(constraints, "constraints")) if constraints is not None else []
    left_out = {one.strip() for one in job.given.get("exclude_features_attribute", "").split(",") if one.strip()}
    table = Table()
    for parts, count in job.dataset().pieces():
        # Columns without names are the baseline's by their places.
        called = {_name(name, order): values for name, values in parts.items()}
        table.add(
            {name: values for at, (name, values) in enumerate(called.items()) if not {name, str(at)} & left_out}, count
        )
    order = [name for at, name in enumerate(order) if not {name, str(at)} & left_out]
    if not table.count:
        raise Unfit("There is no data: the dataset has no records.")
    say(f"{table.count} records of {len(table.columns)} columns")
    job.write("statistics.json", table.statistics())
    job.write("constraints.json", suggest(table, drift))
    if constraints is None:
        job.measure(_measures(table, {}, {}))
        return None
    kept = {**constraints, "features": [one for one in constraints["features"] if one["name"] in order]}
    violations, distances = evaluate(table, kept, statistics)
    job.write("constraint_violations.json", {"violations": violations})
    for one in violations:
        say(f"{one['constraint_check_type']} of {one['feature_name']}: {one['description']}")
    job.measure(_measures(table, constraints, distances))
    return len(violations)


def _name(name: str, order: list[str]) -> str:
    found = _UNNAMED.fullmatch(name)
    return order[int(found[1])] if found and name not in order and int(found[1]) < len(order) else name


def _measures(table: Table, constraints: dict[str, Any], distances: dict[str, float]) -> Iterator[tuple[str, Any]]:
    """As the developer guide, "model-monitor-interpreting-cloudwatch", names them."""
    if config_of(constraints)["emit_metrics"] != "Enabled":
        return
    for name, column in table.columns.items():
        if column.type in ("Integral", "Fractional"):
            yield (
                f"feature_data_{name}",
                {
                    "SampleCount": float(column.present),
                    "Sum": column.sum,
                    "Minimum": column.min,
                    "Maximum": column.max,
                },
            )
        total = column.present + column.missing
        yield f"feature_non_null_{name}", column.present / total
        if math.isfinite(far := distances.get(name, math.nan)):
            yield f"feature_baseline_drift_{name}", far
