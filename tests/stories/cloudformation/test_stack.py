"""Stacks are made, changed, undone and removed, and say why."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, allow
from tests.stories.cloudformation.stacks import Stacks, nobody, parameter, template


@pytest.fixture
def stacks(account: Account) -> Stacks:
    return Stacks(account)


def _refused(call: Any, **given: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**given)
    return caught.value.response["Error"]["Code"], caught.value.response["Error"]["Message"]


TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
PLATFORM = template(
    {
        "Key": {"Type": "AWS::KMS::Key", "Properties": {"EnableKeyRotation": True}},
        "Alias": {
            "Type": "AWS::KMS::Alias",
            "Properties": {"AliasName": {"Fn::Sub": "alias/${AWS::StackName}"}, "TargetKeyId": {"Ref": "Key"}},
        },
        "Bucket": {
            "Type": "AWS::S3::Bucket",
            "Properties": {
                "VersioningConfiguration": {"Status": "Enabled"},
                "PublicAccessBlockConfiguration": {
                    "BlockPublicAcls": True,
                    "BlockPublicPolicy": True,
                    "IgnorePublicAcls": True,
                    "RestrictPublicBuckets": True,
                },
                "BucketEncryption": {
                    "ServerSideEncryptionConfiguration": [
                        {
                            "BucketKeyEnabled": True,
                            "ServerSideEncryptionByDefault": {
                                "SSEAlgorithm": "aws:kms",
                                "KMSMasterKeyID": {"Fn::GetAtt": ["Key", "Arn"]},
                            },
                        }
                    ]
                },
                "LifecycleConfiguration": {"Rules": [{"Status": "Enabled", "ExpirationInDays": 7, "Prefix": "tmp/"}]},
            },
        },
        "Role": {
            "Type": "AWS::IAM::Role",
            "Properties": {
                "AssumeRolePolicyDocument": TRUST,
                "ManagedPolicyArns": [{"Ref": "Managed"}],
                "Policies": [{"PolicyName": "own", "PolicyDocument": allow("s3:GetObject", resource="*")}],
            },
        },
        "Managed": {"Type": "AWS::IAM::ManagedPolicy", "Properties": {"PolicyDocument": allow("logs:PutLogEvents")}},
        "Secret": {
            "Type": "AWS::SecretsManager::Secret",
            "Properties": {
                "GenerateSecretString": {
                    "SecretStringTemplate": '{"user":"u"}',
                    "GenerateStringKey": "password",
                    "PasswordLength": 20,
                }
            },
        },
        "Taken": parameter({"Fn::Sub": "{{resolve:secretsmanager:${Secret}:SecretString:user}}-${Bucket}"}),
        "Logs": {"Type": "AWS::Logs::LogGroup", "Properties": {"RetentionInDays": 7}},
        "Rule": {
            "Type": "AWS::Events::Rule",
            "Properties": {
                "EventPattern": {"source": ["aws.sagemaker"]},
                "Targets": [
                    {
                        "Id": "logs",
                        "Arn": {"Fn::Sub": "arn:aws:logs:${AWS::Region}:${AWS::AccountId}:log-group:${Logs}"},
                    }
                ],
            },
        },
        "Repository": {"Type": "AWS::ECR::Repository", "Properties": {"ImageTagMutability": "IMMUTABLE"}},
        "Group": {"Type": "AWS::SageMaker::ModelPackageGroup", "Properties": {"ModelPackageGroupName": "models"}},
        "Alarm": {
            "Type": "AWS::CloudWatch::Alarm",
            "Properties": {
                "MetricName": "m",
                "Namespace": "n",
                "ComparisonOperator": "GreaterThanThreshold",
                "EvaluationPeriods": 1,
                "Period": 60,
                "Statistic": "Sum",
                "Threshold": 1,
            },
        },
    },
    Outputs={
        "Bucket": {"Value": {"Ref": "Bucket"}, "Export": {"Name": "bucket"}},
        "Role": {"Value": {"Fn::GetAtt": "Role.Arn"}},
    },
)


def test_resources_of_many_services_come_and_go_together(stacks: Stacks) -> None:
    made = stacks.create("platform", PLATFORM, Tags=[{"Key": "team", "Value": "red"}])
    assert made["StackStatus"] == "CREATE_COMPLETE", stacks.story("platform")
    account, outputs, physical = stacks.account, stacks.outputs("platform"), stacks.physical("platform")
    s3, iam = account.client("s3"), account.client("iam")
    rule = s3.get_bucket_encryption(Bucket=outputs["Bucket"])["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert rule["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"].endswith(physical["Key"])
    assert {"Key": "team", "Value": "red"} in s3.get_bucket_tagging(Bucket=outputs["Bucket"])["TagSet"]
    attached = iam.list_attached_role_policies(RoleName=physical["Role"])["AttachedPolicies"]
    assert [one["PolicyArn"] for one in attached] == [physical["Managed"]]
    value = stacks.value(physical["Taken"])
    assert value == f"u-{outputs['Bucket']}"
    tags = stacks.ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId=physical["Taken"])["TagList"]
    assert {"Key": "aws:cloudformation:logical-id", "Value": "Taken"} in tags
    assert {"Key": "team", "Value": "red"} in tags
    gone = stacks.delete("platform")
    assert gone["StackStatus"] == "DELETE_COMPLETE", stacks.story(gone["StackId"])
    assert not s3.list_buckets()["Buckets"]
    with pytest.raises(ClientError):
        iam.get_role(RoleName=physical["Role"])


@pytest.mark.control("PEX-03", lacking="the pipeline's action")
def test_an_update_changes_replaces_removes_and_says_when_there_is_nothing_to_do(stacks: Stacks) -> None:
    first = {"Same": parameter("a"), "Changed": parameter("b"), "Gone": parameter("c")}
    second = {
        "Same": parameter("a"),
        "Changed": parameter("B"),
        "New": parameter({"Ref": "Changed"}),
        "Named": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "v", "Name": "one"}},
    }
    assert stacks.create("s", template(first))["StackStatus"] == "CREATE_COMPLETE"
    before = stacks.physical("s")
    assert stacks.update("s", template(second))["StackStatus"] == "UPDATE_COMPLETE"
    after = stacks.physical("s")
    assert after["Same"] == before["Same"] and after["Changed"] == before["Changed"] and "Gone" not in after
    assert stacks.value(before["Gone"]) is None and stacks.value(after["Changed"]) == "B"
    code, message = _refused(stacks.client.update_stack, StackName="s", TemplateBody=template(second))
    assert (code, message) == ("ValidationError", "No updates are to be performed.")
    second["Named"]["Properties"]["Name"] = "two"
    assert stacks.update("s", template(second))["StackStatus"] == "UPDATE_COMPLETE"
    assert stacks.value("two") == "v" and stacks.value("one") is None
    story = [one[:2] for one in stacks.story("s")]
    assert (
        story.index(("Named", "DELETE_COMPLETE"))
        < story.index(("s", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"))
        < story.index(("Named", "UPDATE_COMPLETE"))
    )


@pytest.mark.control("PEX-03", lacking="the pipeline's action")
def test_a_failing_update_is_undone(stacks: Stacks) -> None:
    named = {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "v", "Name": "one"}}
    assert stacks.create("s", template({"A": parameter("a"), "N": named}))["StackStatus"] == "CREATE_COMPLETE"
    renamed = {**named, "Properties": {**named["Properties"], "Name": "two"}}
    worse = {"A": parameter("changed"), "N": renamed, "B": parameter("b"), "Bad": nobody("A", "B", "N")}
    undone = stacks.update("s", template(worse))
    assert undone["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    physical = stacks.physical("s")
    assert stacks.value(physical["A"]) == "a" and physical["N"] == "one" and set(physical) == {"A", "N"}
    assert stacks.value("one") == "v" and stacks.value("two") is None
    [reason] = [reason for name, status, reason in stacks.story("s") if (name, status) == ("Bad", "CREATE_FAILED")]
    assert "there-is-no-such-role cannot be found" in reason and "NoSuchEntity" in reason
    [stack] = [reason for name, status, reason in stacks.story("s") if status == "UPDATE_ROLLBACK_IN_PROGRESS"]
    assert stack.startswith("The following resource(s) failed to update: [Bad].")


def test_a_failing_creation_ends_as_it_was_asked(stacks: Stacks) -> None:
    body = template({"A": parameter("a"), "Bad": nobody("A")})
    rolled = stacks.create("rolled", body)
    assert rolled["StackStatus"] == "ROLLBACK_COMPLETE"
    assert stacks.value(stacks.physical("rolled")["A"]) is None
    code, message = _refused(
        stacks.client.update_stack, StackName="rolled", TemplateBody=body, Capabilities=["CAPABILITY_IAM"]
    )
    assert code == "ValidationError" and "ROLLBACK_COMPLETE state and can not be updated" in message
    kept = stacks.create("kept", body, DisableRollback=True)
    assert kept["StackStatus"] == "CREATE_FAILED" and stacks.value(stacks.physical("kept")["A"]) == "a"
    stacks.client.rollback_stack(StackName="kept")
    assert stacks.settled("kept")["StackStatus"] == "ROLLBACK_COMPLETE"
    assert stacks.value(stacks.physical("kept")["A"]) is None
    assert stacks.create("gone", body, OnFailure="DELETE")["StackStatus"] == "DELETE_COMPLETE"


def test_policies_of_deletion_hold(stacks: Stacks) -> None:
    body = {"Kept": parameter("k", DeletionPolicy="Retain"), "Gone": parameter("g"), "Snap": parameter("s")}
    body["Snap"]["DeletionPolicy"] = "Snapshot"
    code, message = _refused(stacks.client.create_stack, StackName="s", TemplateBody=template(body))
    assert code == "ValidationError" and "no type here has snapshots" in message
    del body["Snap"]
    stacks.create("s", template(body))
    physical = stacks.physical("s")
    gone = stacks.delete("s")
    assert stacks.value(physical["Kept"]) == "k" and stacks.value(physical["Gone"]) is None
    assert ("Kept", "DELETE_SKIPPED", "") in stacks.story(gone["StackId"])
    except_on_create = template({"A": parameter("a", DeletionPolicy="RetainExceptOnCreate"), "Bad": nobody("A")})
    assert stacks.create("r", except_on_create)["StackStatus"] == "ROLLBACK_COMPLETE"
    assert stacks.value(stacks.physical("r")["A"]) is None


def test_what_is_in_use_or_protected_stays(stacks: Stacks) -> None:
    exported = {"A": parameter("a")}
    stacks.create("a", template(exported, Outputs={"A": {"Value": {"Ref": "A"}, "Export": {"Name": "shared"}}}))
    stacks.create("b", template({"B": parameter({"Fn::ImportValue": "shared"})}))
    physical = stacks.physical("a")["A"]
    assert stacks.client.list_exports()["Exports"][0]["Value"] == physical
    assert stacks.client.list_imports(ExportName="shared")["Imports"] == ["b"]
    assert stacks.value(stacks.physical("b")["B"]) == physical
    assert "in use by b" in _refused(stacks.client.delete_stack, StackName="a")[1]
    stacks.delete("b")
    stacks.client.update_termination_protection(StackName="a", EnableTerminationProtection=True)
    assert "TerminationProtection is enabled" in _refused(stacks.client.delete_stack, StackName="a")[1]
    stacks.client.update_termination_protection(StackName="a", EnableTerminationProtection=False)
    policy = {"Statement": [
        {"Effect": "Allow", "Action": "Update:*", "Principal": "*", "Resource": "*"},
        {"Effect": "Deny", "Action": "Update:Modify", "Principal": "*", "Resource": "LogicalResourceId/A"},
    ]}  # fmt: skip
    stacks.client.set_stack_policy(StackName="a", StackPolicyBody=json.dumps(policy))
    changed = template({"A": parameter("changed")})
    assert stacks.update("a", changed)["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert any("denied by stack policy" in reason for _, _, reason in stacks.story("a"))
    during = json.dumps({"Statement": [policy["Statement"][0]]})
    assert stacks.update("a", changed, StackPolicyDuringUpdateBody=during)["StackStatus"] == "UPDATE_COMPLETE"
    assert stacks.value(physical) == "changed"


def test_parameters_conditions_and_secrets(stacks: Stacks) -> None:
    stacks.ssm.put_parameter(Name="/config/size", Value="large", Type="String")
    body = template(
        {
            "A": parameter({"Fn::Join": ["-", {"Ref": "Names"}]}),
            "B": parameter({"Ref": "Size"}, Condition="Big"),
            "C": parameter({"Fn::If": ["Big", {"Ref": "Secret"}, {"Ref": "AWS::NoValue"}]}),
        },
        Parameters={
            "Names": {"Type": "CommaDelimitedList"},
            "Size": {"Type": "AWS::SSM::Parameter::Value<String>", "Default": "/config/size"},
            "Secret": {"Type": "String", "NoEcho": True, "MinLength": 4},
        },
        Conditions={"Big": {"Fn::Equals": [{"Ref": "Size"}, "large"]}},
        Rules={
            "R": {
                "Assertions": [
                    {
                        "Assert": {"Fn::Contains": [["large", "small"], {"Ref": "Size"}]},
                        "AssertDescription": "large or small",
                    }
                ]
            }
        },
    )

    def told(**values: str) -> list[dict[str, str]]:
        return [{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()]

    ask = {"StackName": "s", "TemplateBody": body}
    assert "[Names, Secret] must have values" in _refused(stacks.client.create_stack, **ask)[1]
    assert (
        "at least 4 characters"
        in _refused(stacks.client.create_stack, **ask, Parameters=told(Names="a", Secret="x"))[1]
    )
    assert "[Other] do not exist" in _refused(stacks.client.create_stack, **ask, Parameters=told(Other="x"))[1]
    made = stacks.create("s", body, Parameters=told(Names="a, b", Secret="geheimnis"))
    assert made["StackStatus"] == "CREATE_COMPLETE", stacks.story("s")
    shown = {one["ParameterKey"]: one for one in made["Parameters"]}
    assert shown["Secret"]["ParameterValue"] == "****" and shown["Size"]["ResolvedValue"] == "large"
    physical = stacks.physical("s")
    assert [stacks.value(physical[one]) for one in "ABC"] == ["a-b", "large", "geheimnis"]
    stacks.ssm.put_parameter(Name="/config/size", Value="tiny", Type="String", Overwrite=True)
    previous = [{"ParameterKey": key, "UsePreviousValue": True} for key in ("Names", "Size", "Secret")]
    again = {"StackName": "s", "UsePreviousTemplate": True, "Parameters": previous}
    assert "large or small" in _refused(stacks.client.update_stack, **again)[1]
    stacks.ssm.put_parameter(Name="/config/size", Value="small", Type="String", Overwrite=True)
    # Without a Value the parameter cannot be: what a condition leaves out is left out.
    assert "required key [Value] not found" in _refused(stacks.client.update_stack, **again)[1]
    events = stacks.account.client("cloudtrail").lookup_events(
        LookupAttributes=[{"AttributeKey": "EventName", "AttributeValue": "CreateStack"}]
    )["Events"]
    assert events and not any("geheimnis" in one["CloudTrailEvent"] for one in events)


def test_what_is_not_there_stops_a_stack_before_anything_is_made(stacks: Stacks) -> None:
    missing = template({"A": parameter("a"), "B": {"Type": "AWS::Redshift::Cluster", "Properties": {}}})
    code, message = _refused(stacks.client.create_stack, StackName="s", TemplateBody=missing)
    assert code == "ValidationError" and "AWS::Redshift::Cluster" in message
    wrong = template({"A": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Valeu": "a"}}})
    message = _refused(stacks.client.create_stack, StackName="s", TemplateBody=wrong)[1]
    assert "[Valeu] is not permitted" in message and "[Value] not found" in message
    code, _ = _refused(stacks.client.create_stack, StackName="s", TemplateBody=template({"B": nobody()}))
    assert code == "InsufficientCapabilitiesException"
    assert not stacks.client.list_stacks()["StackSummaries"]


def test_a_change_set_shows_and_does(stacks: Stacks) -> None:
    client = stacks.client
    body = {
        "A": parameter("a"),
        "N": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "v", "Name": "one"}},
    }
    client.create_change_set(StackName="s", ChangeSetName="first", ChangeSetType="CREATE", TemplateBody=template(body))
    told = client.describe_change_set(StackName="s", ChangeSetName="first")
    assert [one["ResourceChange"]["Action"] for one in told["Changes"]] == ["Add", "Add"]
    assert stacks.get("s")["StackStatus"] == "REVIEW_IN_PROGRESS"
    client.execute_change_set(StackName="s", ChangeSetName="first")
    assert stacks.settled("s")["StackStatus"] == "CREATE_COMPLETE"
    body["N"]["Properties"]["Name"] = "two"
    body["U"] = parameter({"Ref": "N"})
    body["A"]["Properties"]["Value"] = "changed"
    made = client.create_change_set(StackName="s", ChangeSetName="second", TemplateBody=template(body))
    changes = {
        one["ResourceChange"]["LogicalResourceId"]: one["ResourceChange"]
        for one in client.describe_change_set(ChangeSetName=made["Id"])["Changes"]
    }
    assert {name: (one["Action"], one.get("Replacement")) for name, one in changes.items()} == {
        "A": ("Modify", "False"), "N": ("Modify", "True"), "U": ("Add", None),
    }  # fmt: skip
    assert stacks.value(stacks.physical("s")["A"]) == "a"
    client.create_change_set(StackName="s", ChangeSetName="same", UsePreviousTemplate=True)
    same = client.describe_change_set(StackName="s", ChangeSetName="same")
    assert same["Status"] == "FAILED" and "didn't contain changes" in same["StatusReason"]
    client.execute_change_set(ChangeSetName=made["Id"])
    assert stacks.settled("s")["StackStatus"] == "UPDATE_COMPLETE"
    assert stacks.value("two") == "v" and stacks.value(stacks.physical("s")["U"]) == "two"
    assert _refused(client.execute_change_set, ChangeSetName=made["Id"])[0] == "InvalidChangeSetStatus"


def test_drift_is_found(stacks: Stacks) -> None:
    group = {
        "Type": "AWS::SageMaker::ModelPackageGroup",
        "Properties": {"ModelPackageGroupName": "g", "ModelPackageGroupDescription": "d"},
    }
    stacks.create("s", template({"A": parameter("a"), "B": parameter("b"), "C": parameter("c"), "G": group}))
    physical = stacks.physical("s")
    stacks.ssm.put_parameter(Name=physical["A"], Value="other", Overwrite=True)
    stacks.ssm.delete_parameter(Name=physical["B"])
    id = stacks.client.detect_stack_drift(StackName="s")["StackDriftDetectionId"]
    told = stacks.client.describe_stack_drift_detection_status(StackDriftDetectionId=id)
    assert (told["StackDriftStatus"], told["DriftedStackResourceCount"]) == ("DRIFTED", 2)
    drifts = stacks.client.describe_stack_resource_drifts(StackName="s")["StackResourceDrifts"]
    assert {one["LogicalResourceId"]: one["StackResourceDriftStatus"] for one in drifts} == {
        "A": "MODIFIED", "B": "DELETED", "C": "IN_SYNC", "G": "IN_SYNC",
    }  # fmt: skip
    [changed] = [one["PropertyDifferences"] for one in drifts if one["LogicalResourceId"] == "A"]
    assert [(one["PropertyPath"], one["ExpectedValue"], one["ActualValue"]) for one in changed] == [
        ("/Value", "a", "other")
    ]
    stacks.ssm.put_parameter(Name=physical["A"], Value="a", Overwrite=True)
    one = stacks.client.detect_stack_resource_drift(StackName="s", LogicalResourceId="A")["StackResourceDrift"]
    assert one["StackResourceDriftStatus"] == "IN_SYNC"
