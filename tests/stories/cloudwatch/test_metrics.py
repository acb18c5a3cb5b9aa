"""Metrics put and read, by boto3 in all of its protocols, the AWS CLI and plain requests."""

from __future__ import annotations

import datetime
import gzip
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from typing import Any

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
from botocore.exceptions import ClientError

from tests.platform import REGION, Account, Running, allow

NOW = datetime.datetime.now(datetime.UTC).replace(second=0, microsecond=0)
HOUR = NOW.replace(minute=0) - datetime.timedelta(hours=2)


def after(minutes: float) -> datetime.datetime:
    return HOUR + datetime.timedelta(minutes=minutes)


def put(client: Any, values: dict[float, float], name: str = "Latency", **more: Any) -> None:
    client.put_metric_data(
        Namespace="Shop",
        MetricData=[
            {"MetricName": name, "Timestamp": after(at), "Value": value, **more} for at, value in values.items()
        ],
    )


def read(
    client: Any, *queries: dict[str, Any], start: float = 0, end: float = 60, **more: Any
) -> dict[str, list[float]]:
    answer = client.get_metric_data(
        MetricDataQueries=list(queries), StartTime=after(start), EndTime=after(end), ScanBy="TimestampAscending", **more
    )
    return {one["Id"]: one["Values"] for one in answer["MetricDataResults"]}


def stat(id: str, stat: str = "Average", period: int = 60, name: str = "Latency", **more: Any) -> dict[str, Any]:
    metric = {"Namespace": "Shop", "MetricName": name, "Dimensions": more.pop("dimensions", [])}
    return {"Id": id, "MetricStat": {"Metric": metric, "Period": period, "Stat": stat}, **more}


def test_what_is_put_is_read_by_every_statistic(account: Account) -> None:
    client = account.client("cloudwatch")
    put(client, {n: float(n) for n in range(60)}, Unit="Milliseconds")
    found = client.get_metric_statistics(
        Namespace="Shop", MetricName="Latency", StartTime=after(0), EndTime=after(60), Period=1800,
        Statistics=["SampleCount", "Average", "Sum", "Minimum", "Maximum"],
    )  # fmt: skip
    assert found["Label"] == "Latency"
    # Labels tell apart what was asked: by statistic, by period, by both.
    for queries, labels in (
        ([stat("a")], ["Latency"]),
        ([stat("a", "Sum"), stat("b", "Minimum")], ["Latency Sum", "Latency Minimum"]),
        ([stat("a", "Sum", 60), stat("b", "Sum", 300)], ["Latency 60", "Latency 300"]),
        ([stat("a", "Sum", 60), stat("b", "Minimum", 300)], ["Latency Sum 60", "Latency Minimum 300"]),
    ):
        told = client.get_metric_data(MetricDataQueries=queries, StartTime=after(0), EndTime=after(60))
        assert [one["Label"] for one in told["MetricDataResults"]] == labels
    points = sorted(found["Datapoints"], key=lambda one: one["Timestamp"])
    assert points[0] == {
        "Timestamp": HOUR, "SampleCount": 30, "Average": 14.5, "Sum": 435, "Minimum": 0, "Maximum": 29,
        "Unit": "Milliseconds",
    }  # fmt: skip
    assert [one["Sum"] for one in points] == [435, 1335]
    [one] = client.get_metric_statistics(
        Namespace="Shop", MetricName="Latency", StartTime=after(0), EndTime=after(60), Period=3600,
        ExtendedStatistics=["p50", "p99", "tm50", "PR(:9)"],
    )["Datapoints"]  # fmt: skip
    told = one["ExtendedStatistics"]
    assert told["p50"] == pytest.approx(29, rel=0.011) and told["p99"] == pytest.approx(59, rel=0.011)
    assert told["tm50"] == pytest.approx(14.5, rel=0.011) and told["PR(:9)"] == pytest.approx(100 * 9 / 60, rel=0.15)


def test_sets_and_counted_values_sum_up(account: Account) -> None:
    client = account.client("cloudwatch")
    one = {"MetricName": "m", "Timestamp": after(1), "Values": [1.0, 2.0, 3.0], "Counts": [1.0, 10.0, 1.0]}
    two = {
        "MetricName": "m",
        "Timestamp": after(1),
        "StatisticValues": {"SampleCount": 4, "Sum": 40, "Minimum": 5, "Maximum": 20},
    }
    client.put_metric_data(Namespace="Shop", MetricData=[one, two])
    stats = ["SampleCount", "Sum", "Minimum", "Maximum"]
    found = read(client, *(stat(f"m{n}", each, name="m") for n, each in enumerate(stats)), stat("p", "p50", name="m"))
    # Nothing is known of how a statistic set is spread, so no percentile is made up.
    assert found == {"m0": [16.0], "m1": [64.0], "m2": [1.0], "m3": [20.0], "p": []}


def test_metric_math(account: Account) -> None:
    client = account.client("cloudwatch")
    put(client, {0: 2, 1: 4, 2: 6, 5: 8}, "calls")
    put(client, {0: 1, 1: 0, 2: 3}, "errors")
    series = [
        stat("calls", "Sum", name="calls", ReturnData=False),
        stat("errors", "Sum", name="errors", ReturnData=False),
    ]

    def math(text: str) -> list[float]:
        return read(client, *series, {"Id": "e", "Expression": text}, end=7)["e"]

    assert math("100*errors/calls") == [50, 0, 50]
    assert math("calls/errors") == [2, 2]  # a division by zero leaves a hole
    assert math("SUM(METRICS())") == [3, 4, 9, 8]
    assert math("AVG([calls, errors])") == [1.5, 2, 4.5, 8]
    assert math('MAX(METRICS("err"))') == [1, 0, 3]
    assert math("calls - MIN(calls)") == [0, 2, 4, 6]
    assert math("RATE(calls)*60") == pytest.approx([2, 2, 2 / 3])
    assert math("FILL(errors, 0)") == [1, 0, 3, 0, 0, 0, 0]
    assert math("FILL(calls, REPEAT)") == [2, 4, 6, 6, 6, 8, 8]
    assert math("FILL(calls, LINEAR)") == pytest.approx([2, 4, 6, 6 + 2 / 3, 6 + 4 / 3, 8])
    assert math("IF(calls > 3 AND errors < 1, 1, 0)") == [0, 1, 0]
    assert math("-(2^2)^2 + calls*0") == [-16, -16, -16, -16]
    for text in ("SEARCH('x', 'Sum', 60)", "nobody + 1", "calls +", "ANOMALY_DETECTION_BAND(calls)", "import os"):
        with pytest.raises(ClientError, match="ValidationError"):
            math(text)
    with pytest.raises(ClientError, match="use each other"):
        read(client, *series, {"Id": "e1", "Expression": "e2+1"}, {"Id": "e2", "Expression": "e1+1"})


def test_data_come_in_pages_that_are_whole(account: Account) -> None:
    client = account.client("cloudwatch")
    for name in ("a", "b"):
        put(client, {n: float(n) for n in range(25)}, name)
    found: dict[str, list[float]] = {"a": [], "b": []}
    more: dict[str, Any] = {}
    for _ in range(10):
        answer = client.get_metric_data(
            MetricDataQueries=[stat("a", name="a"), stat("b", name="b")], StartTime=after(0), EndTime=after(60),
            ScanBy="TimestampAscending", MaxDatapoints=10, **more,
        )  # fmt: skip
        for one in answer["MetricDataResults"]:
            found[one["Id"]] += one["Values"]
        if "NextToken" not in answer:
            break
        more = {"NextToken": answer["NextToken"]}
    assert found == {"a": [float(n) for n in range(25)], "b": [float(n) for n in range(25)]}


def test_metrics_are_listed_by_what_they_are(account: Account, neighbour: Account) -> None:
    client = account.client("cloudwatch")
    many = [
        {
            "MetricName": f"m{n % 3}",
            "Dimensions": [{"Name": "host", "Value": f"h{n}"}, {"Name": "az", "Value": "a"}],
            "Value": 1,
        }
        for n in range(700)
    ]
    client.put_metric_data(Namespace="Shop", MetricData=many)
    client.put_metric_data(Namespace="Other", MetricData=[{"MetricName": "m0", "Value": 1}])
    pages = list(client.get_paginator("list_metrics").paginate(Namespace="Shop"))
    assert [len(page["Metrics"]) for page in pages] == [500, 200]
    [one] = client.list_metrics(Dimensions=[{"Name": "host", "Value": "h5"}])["Metrics"]
    assert one == {
        "Namespace": "Shop", "MetricName": "m2",
        "Dimensions": [{"Name": "az", "Value": "a"}, {"Name": "host", "Value": "h5"}],
    }  # fmt: skip
    assert len(client.list_metrics(MetricName="m0", Namespace="Other", RecentlyActive="PT3H")["Metrics"]) == 1
    assert client.list_metrics(Dimensions=[{"Name": "nothing"}])["Metrics"] == []
    assert neighbour.client("cloudwatch").list_metrics()["Metrics"] == []
    assert account.client("cloudwatch", region="eu-west-1").list_metrics()["Metrics"] == []


@pytest.mark.parametrize(
    ("datum", "code"),
    [
        ({"Value": float("nan")}, "InvalidParameterValue"),
        ({"Value": float("inf")}, "InvalidParameterValue"),
        ({"Value": 2.0**361}, "InvalidParameterValue"),
        ({"Value": 1, "Timestamp": NOW - datetime.timedelta(days=15)}, "InvalidParameterValue"),
        ({"Value": 1, "Timestamp": NOW + datetime.timedelta(hours=3)}, "InvalidParameterValue"),
        ({"Value": 1, "StorageResolution": 7}, "InvalidParameterValue"),
        ({"Value": 1, "Unit": "Furlongs"}, "ValidationError"),
        ({}, "MissingParameter"),
        ({"Value": 1, "Values": [1.0]}, "InvalidParameterCombination"),
        ({"Values": [1.0, 2.0], "Counts": [1.0]}, "InvalidParameterValue"),
        ({"Values": [1.0] * 151}, "InvalidParameterValue"),
        ({"Value": 1, "Dimensions": [{"Name": "a", "Value": "1"}, {"Name": "a", "Value": "2"}]}, "InvalidParameterValue"),
        ({"Value": 1, "Dimensions": [{"Name": f"d{n}", "Value": "1"} for n in range(31)]}, "ValidationError"),
        ({"StatisticValues": {"SampleCount": 0, "Sum": 0, "Minimum": 0, "Maximum": 0}}, "InvalidParameterValue"),
    ],
)  # fmt: skip
def test_what_is_no_value_is_refused(account: Account, datum: dict[str, Any], code: str) -> None:
    client = account.client("cloudwatch")
    with pytest.raises(ClientError) as refused:
        client.put_metric_data(Namespace="Shop", MetricData=[{"MetricName": "m", **datum}])
    assert refused.value.response["Error"]["Code"] == code
    assert client.list_metrics()["Metrics"] == []


def test_a_service_s_namespace_is_not_for_users(account: Account) -> None:
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        account.client("cloudwatch").put_metric_data(
            Namespace="AWS/SageMaker", MetricData=[{"MetricName": "m", "Value": 1}]
        )


@pytest.mark.control("PRM-12")
def test_a_policy_confines_a_writer_to_its_namespace(account: Account) -> None:
    account.role(
        "Writer",
        allow("cloudwatch:PutMetricData", Condition={"StringEquals": {"cloudwatch:namespace": "Mine"}}),
    )
    writer = account.client("cloudwatch", account.as_role("Writer"))
    writer.put_metric_data(Namespace="Mine", MetricData=[{"MetricName": "m", "Value": 1}])
    with pytest.raises(ClientError, match="AccessDenied"):
        writer.put_metric_data(Namespace="Yours", MetricData=[{"MetricName": "m", "Value": 1}])
    with pytest.raises(ClientError, match="AccessDenied"):
        writer.list_metrics()
    assert [one["Namespace"] for one in account.client("cloudwatch").list_metrics()["Metrics"]] == ["Mine"]


def _signed(account: Account, body: bytes, headers: dict[str, str], path: str = "/") -> tuple[int, str]:
    """A request as an older SDK sends it: status and body."""
    url = account.platform.http + path
    keys = account.keys
    request = botocore.awsrequest.AWSRequest("POST", url, data=body, headers=headers)
    held = botocore.credentials.Credentials(keys.access_key, keys.secret, keys.token)
    botocore.auth.SigV4Auth(held, "monitoring", REGION).add_auth(request)
    sent = urllib.request.Request(url, data=body, headers=dict(request.headers.items()))
    try:
        with urllib.request.urlopen(sent) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_older_clients_speak_forms_and_json_and_get_the_same_codes(account: Account) -> None:
    form = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
    text = (
        "Action=PutMetricData&Version=2010-08-01&Namespace=Old&MetricData.member.1.MetricName=m"
        "&MetricData.member.1.Value={}&MetricData.member.1.Dimensions.member.1.Name=d"
        "&MetricData.member.1.Dimensions.member.1.Value=1"
    )
    assert _signed(account, text.format(3).encode(), form)[0] == 200
    packed = gzip.compress(text.format(4).encode())
    assert _signed(account, packed, {**form, "content-encoding": "gzip"})[0] == 200
    status, told = _signed(account, text.format("NaN").encode(), form)
    assert status == 400 and "<Code>InvalidParameterValue</Code>" in told
    json_ = {
        "content-type": "application/x-amz-json-1.0",
        "x-amz-target": "GraniteServiceVersion20100801.PutMetricData",
    }
    datum = {"MetricName": "m", "Value": 5, "Dimensions": [{"Name": "d", "Value": "1"}]}
    assert _signed(account, json.dumps({"Namespace": "Old", "MetricData": [datum]}).encode(), json_)[0] == 200
    status, told = _signed(account, json.dumps({"Namespace": "AWS/x", "MetricData": [datum]}).encode(), json_)
    assert status == 400 and "InvalidParameterValue" in told
    client = account.client("cloudwatch")
    # They bear the moment they were put, so the hour may turn between this file's reading and them, or among them.
    points = client.get_metric_statistics(
        Namespace="Old", MetricName="m", Dimensions=[{"Name": "d", "Value": "1"}], Period=3600, Statistics=["Sum"],
        StartTime=HOUR, EndTime=HOUR + datetime.timedelta(days=1),
    )["Datapoints"]  # fmt: skip
    assert sum(point["Sum"] for point in points) == 12
    status, told = _signed(account, b"\x1f\x8b broken", {**json_, "content-encoding": "gzip"})
    assert status == 400 and "SerializationException" in told


def test_large_puts_come_compressed(account: Account) -> None:
    """boto3 compresses what is larger than 10 KiB."""
    client = account.client("cloudwatch", fresh=True)
    sent = []
    client.meta.events.register_last("before-send", lambda request, **_: sent.append(dict(request.headers)) or None)
    client.put_metric_data(
        Namespace="Shop",
        MetricData=[
            {"MetricName": f"a-rather-long-name-{n}", "Value": float(n), "Timestamp": after(1)} for n in range(1000)
        ],
    )
    assert sent[0]["Content-Encoding"] in (b"gzip", "gzip")
    assert read(client, stat("m", "Sum", name="a-rather-long-name-77"))["m"] == [77]
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        client.put_metric_data(Namespace="Shop", MetricData=[{"MetricName": "m", "Value": 1}] * 1001)


def test_the_cli_puts_and_reads(account: Account, platform: Running) -> None:
    keys = account.keys
    environment = {
        **os.environ, "AWS_ACCESS_KEY_ID": keys.access_key, "AWS_SECRET_ACCESS_KEY": keys.secret,
        "AWS_SESSION_TOKEN": keys.token or "", "AWS_DEFAULT_REGION": REGION, "AWS_ENDPOINT_URL": platform.url,
        "AWS_CA_BUNDLE": platform.authority,
    }  # fmt: skip

    def aws(*words: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "awscli", "cloudwatch", *words],
            check=False,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout or "null")

    aws(
        "put-metric-data",
        "--namespace",
        "Cli",
        "--metric-name",
        "m",
        "--value",
        "7",
        "--dimensions",
        "a=1",
        "--unit",
        "Count",
    )
    listed = aws("list-metrics", "--namespace", "Cli")["Metrics"]
    assert listed == [{"Namespace": "Cli", "MetricName": "m", "Dimensions": [{"Name": "a", "Value": "1"}]}]
    [point] = aws(
        "get-metric-statistics", "--namespace", "Cli", "--metric-name", "m", "--dimensions", "Name=a,Value=1",
        "--start-time", HOUR.isoformat(), "--end-time", (HOUR + datetime.timedelta(hours=3)).isoformat(),
        "--period", "86400", "--statistics", "Maximum",
    )["Datapoints"]  # fmt: skip
    assert (point["Maximum"], point["Unit"]) == (7.0, "Count")


def test_what_statistics_may_be_asked(account: Account) -> None:
    client = account.client("cloudwatch")
    asked = {"Namespace": "Shop", "MetricName": "m", "StartTime": after(0), "EndTime": after(60)}
    for more, code in (
        ({"Period": 60}, "InvalidParameterCombination"),
        ({"Period": 61, "Statistics": ["Sum"]}, "InvalidParameterValue"),
        ({"Period": 1, "Statistics": ["Sum"]}, "InvalidParameterCombination"),
        ({"Period": 60, "ExtendedStatistics": ["p101"]}, "InvalidParameterValue"),
        ({"Period": 60, "Statistics": ["Sum"], "StartTime": after(60)}, "InvalidParameterValue"),
    ):
        with pytest.raises(ClientError) as refused:
            client.get_metric_statistics(**{**asked, **more})
        assert refused.value.response["Error"]["Code"] == code
