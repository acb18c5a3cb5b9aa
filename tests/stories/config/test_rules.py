"""Rules of AWS Config: what they may be, when they are evaluated, and who reports. A function that judges is in
`tests/stories/landing/test_age.py`."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account
from tests.waiting import until

_DETAILS = {
    "EventSource": "aws.config",
    "MessageType": "ScheduledNotification",
    "MaximumExecutionFrequency": "One_Hour",
}


def _code(call: Any, **given: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**given)
    return str(caught.value.response["Error"]["Code"])


def test_rules_are_kept_evaluated_and_deleted(account: Account) -> None:
    client: Any = account.client("config")
    function = f"arn:aws:lambda:us-east-1:{account.id}:function:nowhere"
    source = {"Owner": "CUSTOM_LAMBDA", "SourceIdentifier": function, "SourceDetails": [_DETAILS]}
    rule: dict[str, Any] = {"ConfigRuleName": "ages", "Source": source, "InputParameters": '{"days": "30"}'}
    for member, wrong, code in (
        ("Source", {"Owner": "AWS", "SourceIdentifier": "REQUIRED_TAGS"}, "InvalidParameterValueException"),
        ("Source", {**source, "SourceIdentifier": "nowhere"}, "InvalidParameterValueException"),
        ("Source", {**source, "SourceDetails": [{**_DETAILS, "MessageType": "ConfigurationItemChangeNotification"}]},
         "NoAvailableConfigurationRecorderException"),
        ("Source", {**source, "SourceDetails": []}, "InvalidParameterValueException"),
        ("InputParameters", '{"days": 30}', "InvalidParameterValueException"),
        ("Scope", {"TagKey": "team"}, "ValidationException"),
        ("EvaluationModes", [{"Mode": "PROACTIVE"}], "ValidationException"),
        ("ConfigRuleId", "config-rule-abcdef", "InvalidParameterValueException"),
    ):  # fmt: skip
        assert _code(client.put_config_rule, ConfigRule={**rule, member: wrong}) == code, wrong
    client.put_config_rule(ConfigRule=rule, Tags=[{"Key": "owner", "Value": "security"}])
    [held] = client.describe_config_rules()["ConfigRules"]
    assert held["Source"] == source and held["ConfigRuleArn"].endswith(f":config-rule/{held['ConfigRuleId']}")
    tags = {"ResourceArn": held["ConfigRuleArn"]}
    assert client.list_tags_for_resource(**tags)["Tags"] == [{"Key": "owner", "Value": "security"}]
    client.tag_resource(**tags, Tags=[{"Key": "project", "Value": "x"}])
    client.untag_resource(**tags, TagKeys=["owner"])
    assert client.list_tags_for_resource(**tags)["Tags"] == [{"Key": "project", "Value": "x"}]

    # It was due at once; that its function is not there is told where one looks first.
    def status() -> dict[str, Any]:
        [told] = client.describe_config_rule_evaluation_status(ConfigRuleNames=["ages"])["ConfigRulesEvaluationStatus"]
        return dict(told) if told["FirstEvaluationStarted"] else {}

    assert "function of the rule cannot be invoked" in until(status)["LastErrorMessage"]
    which = {"ConfigRuleNames": ["ages"]}
    [told] = client.describe_compliance_by_config_rule(**which)["ComplianceByConfigRules"]
    assert told["Compliance"] == {"ComplianceType": "INSUFFICIENT_DATA"}
    # Whoever may report and was not asked reports nothing; others' rules are not there.
    result = {
        "ComplianceResourceType": "AWS::ECR::Repository", "ComplianceResourceId": "base/debian",
        "ComplianceType": "COMPLIANT", "OrderingTimestamp": datetime.datetime.now(datetime.UTC),
    }  # fmt: skip
    assert _code(client.put_evaluations, Evaluations=[result], ResultToken="mine") == "InvalidResultTokenException"
    assert _code(client.describe_config_rules, ConfigRuleNames=["none"]) == "NoSuchConfigRuleException"
    client.put_config_rule(ConfigRule={**rule, "Description": "too old"})
    [again] = client.describe_config_rules(**which)["ConfigRules"]
    assert (again["ConfigRuleId"], again["Description"]) == (held["ConfigRuleId"], "too old")
    client.delete_config_rule(ConfigRuleName="ages")
    assert _code(client.start_config_rules_evaluation, **which) == "NoSuchConfigRuleException"
    assert client.describe_config_rules()["ConfigRules"] == []
