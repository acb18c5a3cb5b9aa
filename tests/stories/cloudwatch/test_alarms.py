"""Alarms go off and back by what is measured, tell it, remember it; and combine."""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from bastide.services.cloudwatch.evaluation import verdict
from tests.moved import Moved, moved, until
from tests.platform import Account, allow


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moved]:
    yield from moved(tmp_path_factory.mktemp("alarms"))


def put(client: Any, name: str, *values: float) -> None:
    """A value for each of the last whole minutes, the newest last."""
    now = datetime.datetime.now(datetime.UTC)
    data = [
        {"MetricName": name, "Value": value, "Timestamp": now - datetime.timedelta(minutes=len(values) - number)}
        for number, value in enumerate(values)
    ]
    client.put_metric_data(Namespace="Shop", MetricData=data)


def alarm(client: Any, name: str, metric: str, **more: Any) -> None:
    client.put_metric_alarm(
        **{
            "AlarmName": name, "Namespace": "Shop", "MetricName": metric, "Statistic": "Average", "Period": 60,
            "EvaluationPeriods": 1, "Threshold": 10, "ComparisonOperator": "GreaterThanThreshold", **more,
        }
    )  # fmt: skip


def state(client: Any, name: str, kind: str = "MetricAlarm") -> str:
    answer = client.describe_alarms(AlarmNames=[name], AlarmTypes=[kind])
    [found] = answer[f"{kind}s"]
    return str(found["StateValue"])


def policy(client: Any, account: str) -> str:
    what = f"scalingPolicy:{uuid.uuid4()}:resource/sagemaker/endpoint/e:policyName/p"
    return f"arn:aws:autoscaling:us-east-1:{account}:{what}"


@pytest.mark.control("MON-01")
def test_an_alarm_goes_off_and_back_and_says_why(here: Moved) -> None:
    client = here.client("cloudwatch")
    asked: list[dict[str, Any]] = []
    told: list[dict[str, Any]] = []

    async def action(body: dict[str, Any]) -> None:
        asked.append(body)

    async def event(body: dict[str, Any]) -> None:
        told.append(body)

    here.running.outbox.subscribe("cloudwatch:AlarmAction", action)
    here.running.outbox.subscribe("events:Event", event)
    up = policy(client, "111122223333")
    alarm(client, "busy", "load", AlarmActions=[up], AlarmDescription="too much")
    alarm(client, "idle", "nothing-measures-this")
    assert state(client, "busy") == "INSUFFICIENT_DATA"
    put(client, "load", 50)
    until(lambda: state(client, "busy") == "ALARM", 30)
    [found] = client.describe_alarms(AlarmNames=["busy"])["MetricAlarms"]
    assert "1 out of the last 1 datapoints [50.0" in found["StateReason"]
    assert "greater than the threshold (10.0)" in found["StateReason"]
    assert json.loads(found["StateReasonData"])["recentDatapoints"] == [50.0]
    until(lambda: asked)
    assert {key: asked[0][key] for key in ("name", "action", "state", "previous")} == {
        "name": "busy", "action": up, "state": "ALARM", "previous": "INSUFFICIENT_DATA",
    }  # fmt: skip
    changed = "CloudWatch Alarm State Change"
    until(lambda: any((one["detail"]["alarmName"], one["detail-type"]) == ("busy", changed) for one in told))
    event_ = next(one for one in told if (one["detail"]["alarmName"], one["detail-type"]) == ("busy", changed))
    assert (event_["source"], event_["detail-type"]) == ("aws.cloudwatch", "CloudWatch Alarm State Change")
    assert event_["resources"] == [found["AlarmArn"]]
    detail = event_["detail"]
    assert (detail["state"]["value"], detail["previousState"]["value"]) == ("ALARM", "INSUFFICIENT_DATA")
    [metric] = detail["configuration"]["metrics"]
    assert metric["metricStat"]["metric"] == {"namespace": "Shop", "name": "load", "dimensions": {}}
    quiet = {"MetricName": "load", "Values": [0.0], "Counts": [100.0]}
    minute = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=1)
    at = [minute + datetime.timedelta(minutes=n) for n in (-1, 0, 1)]
    client.put_metric_data(Namespace="Shop", MetricData=[{**quiet, "Timestamp": one} for one in at])
    until(lambda: state(client, "busy") == "OK", 30)
    assert state(client, "idle") == "INSUFFICIENT_DATA"
    items = client.describe_alarm_history(AlarmName="busy", ScanBy="TimestampAscending")["AlarmHistoryItems"]
    assert [one["HistoryItemType"] for one in items] == ["ConfigurationUpdate", "StateUpdate", "Action", "StateUpdate"]
    assert "from ALARM to OK" in items[-1]["HistorySummary"]
    client.delete_alarms(AlarmNames=["busy", "idle"])
    assert client.describe_alarms(AlarmNames=["busy", "idle"])["MetricAlarms"] == []


def test_m_of_n_math_percentiles_and_what_is_missing(here: Moved) -> None:
    client = here.client("cloudwatch")
    put(client, "spiky", 20, 0, 20, 0)
    put(client, "calls", 100, 100, 100)
    put(client, "errors", 50, 50, 50)
    alarm(client, "all", "spiky", EvaluationPeriods=3)
    alarm(client, "some", "spiky", EvaluationPeriods=4, DatapointsToAlarm=2)
    client.put_metric_alarm(
        AlarmName="high", Namespace="Shop", MetricName="spiky", ExtendedStatistic="p90", Period=60, EvaluationPeriods=4,
        DatapointsToAlarm=1, Threshold=10, ComparisonOperator="GreaterThanThreshold",
    )  # fmt: skip
    alarm(client, "gone", "gone", TreatMissingData="breaching")
    alarm(client, "fine", "gone", TreatMissingData="notBreaching")
    metric = {"Namespace": "Shop", "MetricName": "calls"}
    queries = [
        {"Id": "c", "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Sum"}, "ReturnData": False},
        {
            "Id": "e",
            "MetricStat": {"Metric": {**metric, "MetricName": "errors"}, "Period": 60, "Stat": "Sum"},
            "ReturnData": False,
        },
        {"Id": "rate", "Expression": "100*e/c"},
    ]
    client.put_metric_alarm(
        AlarmName="rate", Metrics=queries, EvaluationPeriods=1, Threshold=49, ComparisonOperator="GreaterThanThreshold"
    )
    client.put_composite_alarm(
        AlarmName="both", AlarmRule='ALARM(rate) AND (ALARM("gone") OR FALSE) AND NOT ALARM(fine)'
    )
    wanted = {"all": "OK", "some": "ALARM", "gone": "ALARM", "fine": "OK", "rate": "ALARM", "high": "ALARM"}
    until(lambda: {name: state(client, name) for name in wanted} == wanted, 30)
    until(lambda: state(client, "both", "CompositeAlarm") == "ALARM", 10)
    listed = client.describe_alarms(AlarmTypes=["CompositeAlarm", "MetricAlarm"], StateValue="ALARM")
    assert {one["AlarmName"] for one in listed["MetricAlarms"]} >= {"some", "gone", "rate"}
    assert [one["AlarmName"] for one in listed["CompositeAlarms"]] == ["both"]
    of = client.describe_alarms_for_metric(Namespace="Shop", MetricName="spiky")["MetricAlarms"]
    assert {one["AlarmName"] for one in of} == {"all", "some", "high"}
    client.delete_alarms(AlarmNames=["gone"])
    until(lambda: state(client, "both", "CompositeAlarm") == "OK", 10)


@pytest.mark.parametrize(
    ("points", "periods", "wanted", "states"),
    [
        # CloudWatch User Guide: missing, ignore (None: as it is), breaching, notBreaching.
        ("0-X-X", 3, 3, ("OK", "OK", "OK", "OK")),
        ("-----", 3, 3, ("INSUFFICIENT_DATA", None, "ALARM", "OK")),
        ("0XX-X", 3, 3, ("ALARM", "ALARM", "ALARM", "ALARM")),
        ("--X--", 3, 3, ("ALARM", None, "ALARM", "OK")),
        ("0-X-X", 3, 2, ("ALARM", "ALARM", "ALARM", "ALARM")),
        ("00X0X", 3, 2, ("ALARM", "ALARM", "ALARM", "ALARM")),
        ("0-X--", 3, 2, ("OK", "OK", "ALARM", "OK")),
        ("----0", 3, 2, ("OK", "OK", "ALARM", "OK")),
        ("---X-", 3, 2, ("ALARM", None, "ALARM", "OK")),
        ("----X", 3, 2, (None, None, "ALARM", "OK")),
    ],
)
def test_the_table_of_missing_data(points: str, periods: int, wanted: int, states: tuple[str | None, ...]) -> None:
    given = [{"0": False, "X": True, "-": None}[one] for one in points]
    ways = ("missing", "ignore", "breaching", "notBreaching")
    found = tuple(verdict(given, periods, wanted, way) for way in ways)
    assert found == states


def test_a_state_set_by_hand_is_told_and_actions_can_be_silenced(here: Moved) -> None:
    client = here.client("cloudwatch")
    asked: list[dict[str, Any]] = []

    async def action(body: dict[str, Any]) -> None:
        asked.append(body)

    here.running.outbox.subscribe("cloudwatch:AlarmAction", action)
    alarm(client, "hand", "no-data", AlarmActions=[policy(client, "111122223333")], TreatMissingData="ignore")
    client.disable_alarm_actions(AlarmNames=["hand"])
    client.set_alarm_state(AlarmName="hand", StateValue="ALARM", StateReason="a test")
    client.enable_alarm_actions(AlarmNames=["hand"])
    client.set_alarm_state(AlarmName="hand", StateValue="OK", StateReason="a test")
    client.set_alarm_state(AlarmName="hand", StateValue="ALARM", StateReason="again")
    until(lambda: asked)
    assert [one["reason"] for one in asked if one["name"] == "hand"] == ["again"]
    with pytest.raises(ClientError, match="ResourceNotFound"):
        client.set_alarm_state(AlarmName="nobody", StateValue="OK", StateReason="x")


def test_what_is_no_alarm_is_refused(account: Account) -> None:
    client = account.client("cloudwatch")
    alarm(client, "one", "m", Tags=[{"Key": "team", "Value": "red"}])
    [found] = client.describe_alarms()["MetricAlarms"]
    arn = found["AlarmArn"]
    assert client.list_tags_for_resource(ResourceARN=arn)["Tags"] == [{"Key": "team", "Value": "red"}]
    client.tag_resource(ResourceARN=arn, Tags=[{"Key": "team", "Value": "blue"}, {"Key": "x", "Value": "1"}])
    client.untag_resource(ResourceARN=arn, TagKeys=["x"])
    assert client.list_tags_for_resource(ResourceARN=arn)["Tags"] == [{"Key": "team", "Value": "blue"}]
    for more, code in (
        ({"AlarmActions": [f"arn:aws:swf:us-east-1:{account.id}:action/x"]}, "ValidationError"),
        ({"AlarmActions": [policy(client, "444455556666")]}, "ValidationError"),
        ({"AlarmActions": ["nonsense"]}, "ValidationError"),
        ({"ComparisonOperator": "GreaterThanUpperThreshold"}, "ValidationError"),
        ({"TreatMissingData": "perhaps"}, "InvalidParameterValue"),
        ({"Period": 61}, "InvalidParameterValue"),
        ({"EvaluationPeriods": 1441}, "ValidationError"),
        ({"EvaluationPeriods": 2, "DatapointsToAlarm": 3}, "ValidationError"),
        ({"EvaluationInterval": 10}, "ValidationError"),
    ):
        with pytest.raises(ClientError) as refused:
            alarm(client, "two", "m", **more)
        assert refused.value.response["Error"]["Code"] == code, more
    for rule in ("ALARM(one", "ALARM(nobody)", "PERHAPS(one)", "ALARM(one) ALARM(one)", "AT_LEAST(1, ALARM, (one))"):
        with pytest.raises(ClientError, match="ValidationError"):
            client.put_composite_alarm(AlarmName="three", AlarmRule=rule)
    client.put_composite_alarm(AlarmName="three", AlarmRule="ALARM(one)")
    client.put_composite_alarm(AlarmName="four", AlarmRule="ALARM(three)")
    with pytest.raises(ClientError, match="lead back"):
        client.put_composite_alarm(AlarmName="three", AlarmRule="ALARM(four)")
    assert [one["AlarmName"] for one in client.describe_alarms()["MetricAlarms"]] == ["one"]


def test_policies_reach_alarms_by_name_tag_and_action(account: Account) -> None:
    client = account.client("cloudwatch")
    arn = f"arn:aws:cloudwatch:us-east-1:{account.id}:alarm:team-*"
    mine, other = policy(client, account.id), policy(client, account.id)
    statement = allow("cloudwatch:PutMetricAlarm", "cloudwatch:DeleteAlarms", resource=arn)["Statement"][0]
    deny = {
        "Effect": "Deny", "Action": "cloudwatch:PutMetricAlarm", "Resource": "*",
        "Condition": {"ForAnyValue:StringNotEquals": {"cloudwatch:AlarmActions": mine}},
    }  # fmt: skip
    account.role("Team", {"Version": "2012-10-17", "Statement": [statement, deny]})
    team = account.client("cloudwatch", account.as_role("Team"))
    alarm(team, "team-a", "m", AlarmActions=[mine])
    for name, actions in (("other", [mine]), ("team-b", [other]), ("team-b", [mine, other])):
        with pytest.raises(ClientError, match="AccessDenied"):
            alarm(team, name, "m", AlarmActions=actions)
    with pytest.raises(ClientError, match="AccessDenied"):
        team.describe_alarms()
    with pytest.raises(ClientError, match="AccessDenied"):
        alarm(team, "team-a", "m", Tags=[{"Key": "a", "Value": "b"}])
    team.delete_alarms(AlarmNames=["team-a"])
    assert client.describe_alarms()["MetricAlarms"] == []


def test_dashboards(account: Account, neighbour: Account) -> None:
    client = account.client("cloudwatch")
    body = {"widgets": [{"type": "metric", "properties": {"metrics": [["Shop", "m"]], "region": "us-east-1"}}]}
    assert client.put_dashboard(DashboardName="d1", DashboardBody=json.dumps(body))["DashboardValidationMessages"] == []
    client.put_dashboard(DashboardName="d2", DashboardBody='{"widgets": []}')
    # They belong to the account, whatever the region.
    found = account.client("cloudwatch", region="eu-west-1").get_dashboard(DashboardName="d1")
    assert json.loads(found["DashboardBody"]) == body
    assert found["DashboardArn"] == f"arn:aws:cloudwatch::{account.id}:dashboard/d1"
    assert [one["DashboardName"] for one in client.list_dashboards(DashboardNamePrefix="d")["DashboardEntries"]] == [
        "d1",
        "d2",
    ]
    for bad in ("{", "[]", '{"widgets": [{"type": "pie", "properties": {}}]}', '{"widgets": [{"type": "text"}]}'):
        with pytest.raises(ClientError) as refused:
            client.put_dashboard(DashboardName="d3", DashboardBody=bad)
        assert refused.value.response["Error"]["Code"] == "InvalidParameterInput"
    assert neighbour.client("cloudwatch").list_dashboards()["DashboardEntries"] == []
    client.delete_dashboards(DashboardNames=["d1", "d2"])
    with pytest.raises(ClientError) as missing:
        client.get_dashboard(DashboardName="d1")
    assert missing.value.response["Error"]["Code"] == "ResourceNotFound"
