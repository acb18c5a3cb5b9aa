"""Constraints: suggested from a baseline, and held against other data.

Developer guide, "model-monitor-byoc-constraints" and "model-monitor-interpreting-violations".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from bastide_monitor import Unfit
from bastide_monitor.columns import Column, Table
from bastide_monitor.sketch import Sketch, distance

MOST_DOMAIN = 120
"""Distinct values up to which a column of text is one of categories; Deequ's bound for a low cardinality."""
ROBUST = 1.8
"""The critical value of the two-sample Kolmogorov-Smirnov test at about 0.003 (Knuth, volume 2, 3.3.1)."""
DEFAULTS: dict[str, Any] = {
    "evaluate_constraints": "Enabled",
    "emit_metrics": "Enabled",
    "datatype_check_threshold": 1.0,
    "domain_content_threshold": 1.0,
    "distribution_constraints": {
        "perform_comparison": "Enabled",
        "comparison_threshold": 0.1,
        "comparison_method": "Robust",
        "categorical_comparison_threshold": 0.1,
        "categorical_drift_method": "LInfinity",
    },
}
METHODS = ("LInfinity", "ChiSquared")


def suggest(table: Table, categorical: str = "LInfinity") -> dict[str, Any]:
    """`constraints.json` of a dataset, which keeps all of them itself."""
    features = []
    for column in table.columns.values():
        total = column.present + column.missing
        one: dict[str, Any] = {
            "name": column.name,
            "inferred_type": column.type,
            "completeness": column.present / total if total else 1.0,
        }
        if column.type in ("Integral", "Fractional"):
            one["num_constraints"] = {"is_non_negative": column.min >= 0}
        elif column.values and len(column.values) <= MOST_DOMAIN and 2 * len(column.values) <= column.present:
            one["string_constraints"] = {"domains": sorted(column.values)}
        features.append(one)
    shape = {**DEFAULTS["distribution_constraints"], "categorical_drift_method": categorical}
    return {
        "version": 0.0,
        "features": features,
        "monitoring_config": {**DEFAULTS, "distribution_constraints": shape},
    }


def named(told: Any, what: str) -> dict[str, dict[str, Any]]:
    """The features of a baseline's file by their names, in order. Raises Unfit."""
    try:
        found = {str(one["name"]): one for one in told["features"] if isinstance(one, dict)}
    except (TypeError, KeyError):
        raise Unfit(f"The baseline {what} have no features: is it the file of another kind of monitor?") from None
    return found


def config_of(constraints: Mapping[str, Any], feature: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What is monitored and how: the defaults, the file's, a feature's own. Raises Unfit."""
    found, shape = dict(DEFAULTS), dict(DEFAULTS["distribution_constraints"])
    layers = [constraints.get("monitoring_config")]
    if feature is not None:
        layers += [feature.get("monitoring_config_overrides"), feature.get("monitoringConfigOverrides")]
    for layer in layers:
        if layer is None:
            continue
        if not isinstance(layer, dict) or not isinstance(layer.get("distribution_constraints", {}), dict):
            raise Unfit("monitoring_config of the baseline constraints is not an object.")
        told = layer.get("distribution_constraints", {})
        shape |= told
        if "comparison_threshold" in told and "categorical_comparison_threshold" not in told:
            shape["categorical_comparison_threshold"] = told["comparison_threshold"]
        found |= layer
    found["distribution_constraints"] = shape
    for where, name in (
        (found, "datatype_check_threshold"),
        (found, "domain_content_threshold"),
        (shape, "comparison_threshold"),
        (shape, "categorical_comparison_threshold"),
    ):
        if not isinstance(where[name], (int, float)) or isinstance(where[name], bool):
            raise Unfit(f"monitoring_config.{name} of the baseline constraints is not a number.")
    if shape["categorical_drift_method"] not in METHODS:
        raise Unfit(f"categorical_drift_method is {' or '.join(METHODS)}.")
    if str(shape["comparison_method"]).lower().removeprefix("linf_") not in ("simple", "robust"):
        raise Unfit("comparison_method is Simple or Robust.")
    return found


def _broken(name: str, check: str, description: str) -> dict[str, str]:
    return {"feature_name": name, "constraint_check_type": check, "description": description}


def evaluate(
    table: Table, constraints: Mapping[str, Any], statistics: Mapping[str, Any] | None
) -> tuple[list[dict[str, str]], dict[str, float]]:
    """What does not keep the constraints, and how far each feature is from the baseline's. Raises Unfit."""
    if config_of(constraints)["evaluate_constraints"] != "Enabled":
        return [], {}
    wanted = named(constraints, "constraints")
    shapes = named(statistics, "statistics") if statistics is not None else {}
    found = []
    absent = [name for name in wanted if name not in table.columns]
    extra = [name for name in table.columns if name not in wanted]
    for lines, check, word in ((absent, "missing_column_check", "missing"), (extra, "extra_column_check", "extra")):
        if lines:
            found.append(
                _broken(
                    f"{word.capitalize()} columns",
                    check,
                    f"There are {word} columns in current dataset. Number of columns in current dataset: "
                    f"{len(table.columns)}, Number of columns in baseline constraints: {len(wanted)}. "
                    f"They are: {', '.join(lines)[:500]}",
                )
            )
    distances: dict[str, float] = {}
    for name, feature in wanted.items():
        if name not in table.columns:
            continue
        config = config_of(constraints, feature)
        if config["evaluate_constraints"] == "Enabled":
            found += _checked(table.columns[name], feature, config)
            found += _drifted(table.columns[name], shapes.get(name), config, distances)
    return found, distances


def _checked(column: Column, feature: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    kind, most = str(feature.get("inferred_type")), config["datatype_check_threshold"]
    present, total = column.present, column.present + column.missing
    # A column of text may hold anything, and one of fractions whole numbers.
    fitting = {
        "Integral": column.kinds["Integral"],
        "Fractional": column.kinds["Integral"] + column.kinds["Fractional"],
    }.get(kind, present)
    if present and fitting / present < most:
        yield _broken(
            column.name,
            "data_type_check",
            f"Data type match requirement is not met. Expected data type: {kind}, Expected match: {most * 100}%. "
            f"Observed: Only {fitting / present * 100}% of data is {kind}.",
        )
    wanted = feature.get("completeness")
    if isinstance(wanted, (int, float)) and total and present / total < wanted:
        yield _broken(
            column.name,
            "completeness_check",
            f"Data completeness requirement is not met. Expected completeness: {wanted * 100}%. "
            f"Observed: Only {present / total * 100}% of data is present.",
        )
    domain = (feature.get("string_constraints") or {}).get("domains")
    if domain and present:
        known = frozenset(map(str, domain))
        inside = sum(count for value, count in (column.values or {}).items() if value in known)
        least = config["domain_content_threshold"]
        if inside / present < least:
            unknown = sorted(value for value in column.values or () if value not in known)[:5]
            some = f" Others are such as: {', '.join(unknown)[:300]}." if unknown else ""
            yield _broken(
                column.name,
                "categorical_values_check",
                f"Categorical values requirement is not met. Expected match: {least * 100}%. "
                f"Observed: Only {inside / present * 100}% of values are the baseline's.{some}",
            )


def _drifted(
    column: Column, baseline: Mapping[str, Any] | None, config: Mapping[str, Any], distances: dict[str, float]
) -> Iterator[dict[str, str]]:
    shape = config["distribution_constraints"]
    if baseline is None or shape["perform_comparison"] != "Enabled":
        return
    robust = str(shape["comparison_method"]).lower().endswith("robust")
    try:
        if "numerical_statistics" in baseline and column.type in ("Integral", "Fractional"):
            kept = Sketch.of(baseline["numerical_statistics"]["distribution"]["kll"]["sketch"])
            far, most = _robust(*distance(column.sketch, kept), robust), shape["comparison_threshold"]
        elif "string_statistics" in baseline and column.type == "String" and column.values:
            buckets = baseline["string_statistics"]["distribution"]["categorical"]["buckets"]
            counts = {str(one["value"]): float(one["count"]) for one in buckets}
            if (
                not counts
                or min(counts.values()) < 0
                or not math.isfinite(sum(counts.values()))
                or not sum(counts.values())
            ):
                return
            most = shape["categorical_comparison_threshold"]
            if shape["categorical_drift_method"] == "ChiSquared":
                chance = chi_squared(column.values, counts)
                distances[column.name] = 1.0 - chance
                if chance < most:
                    yield _broken(
                        column.name,
                        "baseline_drift_check",
                        f"Baseline drift by the chi-squared test: p-value {chance} is below threshold: {most}",
                    )
                return
            far = categorical(column.values, counts, robust)
        else:
            return
    except (KeyError, TypeError, ValueError):
        raise Unfit(f"The baseline statistics of {column.name} are not of the documented schema.") from None
    distances[column.name] = far
    if far > most:
        yield _broken(column.name, "baseline_drift_check", f"Baseline drift distance: {far} exceeds threshold: {most}")


def _robust(far: float, here: float, there: float, robust: bool) -> float:
    """The distance, or with few samples what of it is hardly chance."""
    if not robust or not here or not there:
        return far
    return max(0.0, far - ROBUST * math.sqrt((here + there) / (here * there)))


def categorical(one: Mapping[str, float], other: Mapping[str, float], robust: bool) -> float:
    """The greatest difference between two shares of a value."""
    here, there = sum(one.values()), sum(other.values())
    far = max(abs(one.get(value, 0) / here - other.get(value, 0) / there) for value in {*one, *other})
    return _robust(far, here, there, robust)


def chi_squared(observed: Mapping[str, float], expected: Mapping[str, float]) -> float:
    """The p-value of the observed counts where the baseline's shares hold; a value that it has not has the chance 0.

    Rare values are put together until each cell expects at least 5 (Cochran: The chi-squared test of goodness of fit,
    1952).
    """
    if any(value not in expected for value, count in observed.items() if count):
        return 0.0
    here, there = sum(observed.values()), sum(expected.values())
    cells = sorted((count / there * here, observed.get(value, 0)) for value, count in expected.items())
    while len(cells) > 1 and cells[0][0] < 5:
        (a, b), (c, d) = cells[:2]
        cells = sorted([(a + c, b + d), *cells[2:]])
    if len(cells) < 2:
        return 1.0
    from scipy.special import gammaincc  # noqa: PLC0415 only who asks for the test waits for it

    statistic = sum((seen - wanted) ** 2 / wanted for wanted, seen in cells)
    return float(gammaincc((len(cells) - 1) / 2, statistic / 2))
