"""Statistics, constraints and violations of data: the numbers are pandas', and what has to hold holds of any data."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.monitor.analyzer import analyse, written

CHANCE = np.random.default_rng(7)
CELLS = st.one_of(
    st.integers(-1000, 1000).map(str),
    st.floats(-1e6, 1e6, allow_nan=False).map(repr),
    st.sampled_from(["", "red", "green", "1e3", "-0.0", "true", "  7 ", "Ärger, groß", 'a "b"', "1" * 400, "9e999"]),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=6),
)
TABLES = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(CELLS, min_size=width, max_size=width), min_size=1, max_size=40)
)


def text_of(rows: list[list[str]], header: bool = True) -> str:
    """As CSV, with columns a, b, c, ..."""
    told = io.StringIO()
    write = csv.writer(told, quoting=csv.QUOTE_ALL)
    write.writerows([*([[chr(97 + at) for at in range(len(rows[0]))]] if header else []), *rows])
    return told.getvalue()


def feature(told: Any, name: str) -> Any:
    """Of a report."""
    return next(one for one in told["features"] if one["name"] == name)


@pytest.fixture(scope="module")
def frame() -> pandas.DataFrame:
    """Columns of each type, with gaps."""
    rows = 30_000
    found = pandas.DataFrame(
        {
            "whole": CHANCE.integers(-50, 5000, rows),
            "share": CHANCE.beta(2, 5, rows),
            "wide": CHANCE.normal(0, 1e6, rows),
            "city": CHANCE.choice(["Bern", "Graz", "Linz", "Wien"], rows, p=[0.1, 0.2, 0.3, 0.4]),
            "id": [f"id-{one}" for one in range(rows)],
        }
    )
    found.loc[found.index % 10 == 0, "share"] = None
    found.loc[found.index % 4 == 0, "city"] = None
    return found


def test_statistics_are_those_of_pandas(frame: pandas.DataFrame, tmp_path: Path) -> None:
    done = analyse(tmp_path, "csv", frame.to_csv(index=False))
    assert (done.status, done.message) == (0, "Completed: Job completed successfully.")
    assert sorted(done.reports) == ["constraints.json", "statistics.json"]
    told, wanted = done.reports["statistics.json"], done.reports["constraints.json"]
    assert told["dataset"] == {"item_count": len(frame)} and told["version"] == 0.0
    assert [one["name"] for one in told["features"]] == list(frame.columns)
    for name, kind in (("whole", "Integral"), ("share", "Fractional"), ("wide", "Fractional")):
        one, column = feature(told, name), frame[name].dropna()
        found = one["numerical_statistics"]
        assert one["inferred_type"] == kind
        assert found["common"] == {"num_present": len(column), "num_missing": len(frame) - len(column)}
        for member, value in (
            ("mean", column.mean()),
            ("sum", column.sum()),
            ("std_dev", column.std(ddof=0)),
            ("min", column.min()),
            ("max", column.max()),
        ):
            assert math.isclose(found[member], value, rel_tol=1e-9, abs_tol=1e-6), (name, member)
        kll = found["distribution"]["kll"]
        exact, edges = np.histogram(column, 10)
        assert kll["sketch"]["parameters"] == {"c": 0.64, "k": 2048.0}
        assert sum(len(level) << at for at, level in enumerate(kll["sketch"]["data"])) == len(column)
        assert np.allclose([one["lower_bound"] for one in kll["buckets"]] + [kll["buckets"][-1]["upper_bound"]], edges)
        counts = np.array([one["count"] for one in kll["buckets"]])
        assert counts.sum() == len(column) and np.abs(counts - exact).max() < 0.01 * len(column)
    city, number = feature(told, "city")["string_statistics"], feature(told, "id")["string_statistics"]
    counted = frame["city"].value_counts()
    buckets = {one["value"]: one["count"] for one in city["distribution"]["categorical"]["buckets"]}
    assert buckets == counted.to_dict() and city["distinct_count"] == 4
    assert city["common"] == {"num_present": int(counted.sum()), "num_missing": int(frame["city"].isna().sum())}
    assert abs(number["distinct_count"] - len(frame)) < 0.06 * len(frame)
    assert feature(wanted, "whole")["num_constraints"] == {"is_non_negative": False}
    assert feature(wanted, "share")["num_constraints"] == {"is_non_negative": True}
    assert feature(wanted, "city")["string_constraints"] == {"domains": ["Bern", "Graz", "Linz", "Wien"]}
    assert "string_constraints" not in feature(wanted, "id") and feature(wanted, "share")["completeness"] == 0.9
    assert wanted["monitoring_config"]["distribution_constraints"]["comparison_method"] == "Robust"


@settings(max_examples=25)
@given(rows=TABLES)
def test_no_data_breaks_its_own_constraints(rows: list[list[str]], tmp_path_factory: pytest.TempPathFactory) -> None:
    where = tmp_path_factory.mktemp("own")
    text = text_of(rows)
    first = analyse(where / "a", "csv", text)
    assert first.status == 0, first.message
    strict = first.reports["constraints.json"]
    shape = strict["monitoring_config"]["distribution_constraints"]
    for method, drift in (("Robust", "LInfinity"), ("Simple", "ChiSquared")):
        shape |= {"comparison_method": method, "categorical_drift_method": drift, "comparison_threshold": 0.0}
        if drift == "LInfinity":
            shape["categorical_comparison_threshold"] = 0.0
        else:  # needs SciPy, which is where jobs run
            shape["perform_comparison"] = "Disabled"
        again = analyse(where / method, "csv", text, baseline=(strict, first.reports["statistics.json"]))
        assert again.reports["constraint_violations.json"] == {"violations": []}
        assert again.message == "Completed: Job completed successfully with no violations."
    told = first.reports["statistics.json"]
    assert again.reports["statistics.json"] == told and told["dataset"]["item_count"] == len(rows)
    for one in told["features"]:
        common = next(value["common"] for key, value in one.items() if key.endswith("_statistics"))
        assert common["num_present"] + common["num_missing"] == len(rows)


@settings(max_examples=25)
@given(rows=TABLES, cut=st.integers(0, 40))
def test_files_are_one_dataset(rows: list[list[str]], cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Also where a file knows but some of the columns."""
    where = tmp_path_factory.mktemp("parts")
    whole = analyse(where / "a", "csv", text_of(rows)).reports["statistics.json"]
    parts = [part for part in (rows[:cut], rows[cut:]) if part]
    split = analyse(where / "b", "csv", *map(text_of, parts)).reports["statistics.json"]
    for one, other in zip(whole["features"], split["features"], strict=True):
        assert one.pop("numerical_statistics", {}).get("min") == other.pop("numerical_statistics", {}).get("min")
        assert one == other


def shifted(frame: pandas.DataFrame) -> pandas.DataFrame:
    """The same columns, in other hands."""
    found = frame.head(6000).copy()
    found["share"] = 1 - found["share"]
    found["whole"] = found["whole"] + 0.5
    found["city"] = found["city"].replace("Wien", "Rome")
    found.loc[found.index % 2 == 0, "wide"] = None
    return found


def test_what_has_changed_is_found(frame: pandas.DataFrame, tmp_path: Path) -> None:
    base = analyse(tmp_path / "base", "csv", frame.to_csv(index=False))
    baseline = base.reports["constraints.json"], base.reports["statistics.json"]
    found = analyse(
        tmp_path / "now",
        "csv",
        shifted(frame).to_csv(index=False),
        baseline=baseline,
        publish_cloudwatch_metrics="Enabled",
        start_time="2026-11-24T01:00:00Z",
        sagemaker_endpoint_name="mortgages",
        sagemaker_monitoring_schedule_name="hourly",
    )
    violations = found.reports["constraint_violations.json"]["violations"]
    assert {(one["feature_name"], one["constraint_check_type"]) for one in violations} == {
        ("whole", "data_type_check"),
        ("share", "baseline_drift_check"),
        ("wide", "completeness_check"),
        ("city", "categorical_values_check"),
        ("city", "baseline_drift_check"),
    }
    assert found.message == "CompletedWithViolations: Job completed successfully with 5 violations."
    said = {one["constraint_check_type"]: one["description"] for one in violations if one["feature_name"] != "city"}
    assert "Observed: Only 0.0% of data is Integral." in said["data_type_check"]
    assert said["baseline_drift_check"].endswith(" exceeds threshold: 0.1")
    metrics = {one["MetricName"]: one for one in found.metrics}
    one = metrics["feature_data_share"]
    assert one["Dimensions"] == [
        {"Name": "Endpoint", "Value": "mortgages"},
        {"Name": "MonitoringSchedule", "Value": "hourly"},
    ]
    assert one["Timestamp"] == "2026-11-24T01:00:00Z"
    assert math.isclose(one["StatisticValues"]["Sum"], shifted(frame)["share"].sum(), rel_tol=1e-9)
    assert metrics["feature_non_null_wide"]["Value"] == 0.5
    # As SciPy's ks_2samp has it, less what may be chance.
    old, new = np.sort(frame["share"].dropna()), np.sort(shifted(frame)["share"].dropna())
    at = np.concatenate([old, new])
    far = np.abs(np.searchsorted(old, at, "right") / len(old) - np.searchsorted(new, at, "right") / len(new)).max()
    far -= 1.8 * math.sqrt((len(old) + len(new)) / (len(old) * len(new)))
    assert abs(metrics["feature_baseline_drift_share"]["Value"] - far) < 0.005

    fewer = frame[["whole", "city"]].rename(columns={"city": "town"}).head(50)
    left = {"exclude_features_attribute": "whole, share,wide,3"}
    one = analyse(tmp_path / "left", "csv", shifted(frame).to_csv(index=False), baseline=baseline, **left)
    assert one.reports["constraint_violations.json"] == {"violations": []}
    assert [each["name"] for each in one.reports["statistics.json"]["features"]] == ["id"]
    found = analyse(tmp_path / "columns", "csv", fewer.to_csv(index=False), baseline=baseline)
    kinds = [one["constraint_check_type"] for one in found.reports["constraint_violations.json"]["violations"]]
    assert kinds == ["missing_column_check", "extra_column_check"]
    quiet = json.loads(json.dumps(baseline))
    quiet[0]["monitoring_config"]["evaluate_constraints"] = "Disabled"
    found = analyse(tmp_path / "quiet", "csv", fewer.to_csv(index=False), baseline=quiet)
    assert found.reports["constraint_violations.json"] == {"violations": []}


def event(number: int, request: str, answer: str, encoding: str = "CSV", **more: Any) -> str:
    """A line of captured data."""
    parts = {
        "endpointInput": {"observedContentType": "text/csv", "mode": "INPUT", "data": request, "encoding": encoding},
        "endpointOutput": {"observedContentType": "text/csv", "mode": "OUTPUT", "data": answer, "encoding": encoding},
    }
    at = {"eventId": f"event-{number}", "inferenceTime": f"2026-11-24T01:{number % 60:02}:00Z"}
    return json.dumps({"captureData": {**parts, **more}, "eventMetadata": at, "eventVersion": "0"}) + "\n"


def test_captured_data_is_held_against_the_training_data(tmp_path: Path) -> None:
    """Answers come first and columns have the baseline's names; several lines of a call are several records."""
    rows = [[str(one % 2), str(one * 37 % 100 / 8), str(one % 5)] for one in range(100)]
    base = analyse(tmp_path / "base", "csv", text_of(rows))
    baseline = base.reports["constraints.json"], base.reports["statistics.json"]
    calls = "".join(event(n, ",".join(row[1:]) + "\n", row[0] + "\n") for n, row in enumerate(rows[:59]))
    calls += event(59, "9.5,4\n3.0,1", "1\n0")
    found = analyse(tmp_path / "same", "sagemakerCaptureJson", calls, baseline=baseline)
    told = found.reports["statistics.json"]
    assert [one["name"] for one in told["features"]] == ["a", "b", "c"] and told["dataset"]["item_count"] == 61
    assert found.message == "Completed: Job completed successfully with no violations."
    hour = {"start_time": "2026-11-24T01:10:00Z", "end_time": "2026-11-24T01:20:00Z"}
    part = analyse(tmp_path / "hour", "sagemakerCaptureJson", calls, baseline=baseline, **hour)
    assert part.reports["statistics.json"]["dataset"]["item_count"] == 10
    binary = event(1, "MS4wLDI=", "MQo=", "BASE64")
    found = analyse(tmp_path / "base64", "sagemakerCaptureJson", binary, baseline=baseline)
    assert feature(found.reports["statistics.json"], "b")["numerical_statistics"]["mean"] == 1.0
    whole = event(1, json.dumps({"age": 5, "deny": "no"}), json.dumps({"score": 0.25}), "JSON")
    found = analyse(tmp_path / "json", "sagemakerCaptureJson", whole)
    assert [one["name"] for one in found.reports["statistics.json"]["features"]] == ["score", "age", "deny"]


def test_scripts_of_ones_own(tmp_path: Path) -> None:
    script = written(
        tmp_path / "scripts" / "mine.py",
        "def preprocess_handler(record, logger):\n"
        "    logger.info('one')\n"
        "    if record.event_metadata.event_id == 'event-3':\n        return []\n"
        "    return [{'answer': record.endpoint_output.data, 0: record.endpoint_input.data}] * 2\n"
        "def postprocess_handler():\n"
        "    import pathlib\n"
        f"    pathlib.Path({str(tmp_path / 'post')!r}).write_text('there')\n",
    )
    calls = "".join(event(n, "x", "1") for n in range(5))
    both = {"record_preprocessor_script": script, "post_analytics_processor_script": script}
    found = analyse(tmp_path, "sagemakerCaptureJson", calls, **both)
    told = found.reports["statistics.json"]
    assert told["dataset"]["item_count"] == 8 and [one["name"] for one in told["features"]] == ["answer", "0"]
    assert (tmp_path / "post").read_text() == "there"
    lines = written(
        tmp_path / "lines.py",
        "def preprocess_handler(line):\n"
        "    return {} if line == 'a,b' else {str(n).zfill(20): x for n, x in enumerate(line.split(','))}",
    )
    found = analyse(tmp_path / "lines", "csv", "a,b\n1,2\n3,4\n", record_preprocessor_script=lines)
    assert [one["name"] for one in found.reports["statistics.json"]["features"]] == [f"{0:020}", f"{1:020}"]


@pytest.mark.parametrize(
    ("kind", "text", "more", "says"),
    [
        ("csv", "", {}, "no records"),
        ("csv", "a,a\n1,2\n", {}, "two columns of the same name"),
        ("csv", b"a\n\xff\xfe\n", {}, "not UTF-8"),
        ("json", '{"a": 1}\n{"a":', {}, "Line 2 of part-0 is not JSON"),
        ("json", "[1]\n", {}, "not a JSON object"),
        ("json", '{"a": [1]}\n', {}, "record_preprocessor_script"),
        ("json", "{" * 100_000, {}, "not JSON"),
        ("json", '{"a": ' + "1" * 6000 + "}", {}, "not JSON"),
        ("sagemakerCaptureJson", "{}\n", {}, "not captured data"),
        ("sagemakerCaptureJson", event(1, "1,2", "1\n2"), {}, "1 records and its answer has 2"),
        ("sagemakerCaptureJson", event(1, "//8=", "//8=", "BASE64"), {}, "neither CSV nor JSON"),
        ("csv", "a\n1\n", {"dataset_format": "{}"}, "dataset_format is"),
        ("csv", "a\n1\n", {"dataset_format": "csv"}, "dataset_format is not JSON"),
        (
            "csv",
            "a\n1\n",
            {"dataset_format": '{"csv": {"header": true, "output_columns_position": "END"}}'},
            "START",
        ),
        ("csv", "a\n1\n", {"dataset_source": "/nowhere"}, "no files"),
        ("csv", "a\n1\n", {"output_path": ""}, "output_path is needed"),
        ("csv", "a\n1\n", {"baseline_constraints": "/nowhere"}, "there is no file"),
        ("csv", "a\n1\n", {"record_preprocessor_script": "/nowhere"}, "no script"),
        ("csv", "a\n1\n", {"categorical_drift_method": "Magic"}, "categorical_drift_method"),
    ],
)
def test_what_does_not_fit_is_said(kind: str, text: str | bytes, more: Any, says: str, tmp_path: Path) -> None:
    found = analyse(tmp_path, kind, text, **more)
    assert found.status == 255 and says in found.message and found.message.startswith("Error: ")
    assert len(found.message) <= 1024


def test_several_instances_are_refused(tmp_path: Path) -> None:
    """Each would report of its part as if it were the whole."""
    written(tmp_path / "config" / "resourceconfig.json", json.dumps({"hosts": ["algo-1", "algo-2"]}))
    found = analyse(tmp_path, "csv", "a\n1\n")
    assert found.status == 255 and "InstanceCount 1" in found.message


@settings(max_examples=25)
@given(
    told=st.recursive(
        st.none() | st.floats() | st.text(max_size=3),
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(
                    ["features", "name", "monitoring_config", "numerical_statistics", "distribution", "kll", "sketch"]
                ),
                x,
            )
        ),
    )
)
def test_hostile_baselines_are_refused_or_harmless(told: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    where = tmp_path_factory.mktemp("hostile")
    for baseline in ((told, None), ({"features": [{"name": "a"}]}, told), ({"features": [told]}, {"features": [told]})):
        found = analyse(where, "csv", "a,b\n1,x\n2,y\n", baseline=baseline)
        assert found.status in (0, 255)
