"""Events start functions and pipelines, and a run that fails is told to people."""

from __future__ import annotations

import json
import uuid

import pytest

from tests.listening import listening
from tests.moved import until
from tests.platform import REGION, Account, allow
from tests.stories.events.test_events import EVENTS, send
from tests.stories.events.test_targets import lets
from tests.stories.lambda_.conftest import bench_of
from tests.stories.sagemaker.conftest import workshop_of
from tests.stories.sns.test_topics import arrived, opened
from tests.stories.sqs.test_queues import bodies, made

FAILING = {
    "Version": "2020-12-01",
    "Parameters": [{"Name": "Item", "Type": "String", "DefaultValue": "none"}],
    "Steps": [{"Name": "Stop", "Type": "Fail", "Arguments": {"ErrorMessage": "not today"}}],
}
KEEP = "import json\ndef handler(event, context): print('told', json.dumps(event))"


def pipeline(account: Account, name: str) -> str:
    role = account.role(f"{name}-runs", allow("s3:*"), trust={"Service": "sagemaker.amazonaws.com"})
    made_ = account.client("sagemaker").create_pipeline(
        PipelineName=name, RoleArn=role, PipelineDefinition=json.dumps(FAILING), ClientRequestToken=uuid.uuid4().hex
    )
    arn: str = made_["PipelineArn"]
    return arn


@pytest.mark.control("MON-04")
def test_a_failed_run_reaches_a_queue_and_an_address(account: Account) -> None:
    sns, sqs, sagemaker = account.client("sns"), account.client("sqs"), account.client("sagemaker")
    topic, url = sns.create_topic(Name="failures")["TopicArn"], made(sqs)
    raw = {"RawMessageDelivery": "true"}
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=opened(account, url, topic), Attributes=raw)
    pipeline(account, "p")
    pattern = {
        "source": ["aws.sagemaker"], "detail-type": ["SageMaker Model Building Pipeline Execution Status Change"],
        "detail": {"currentPipelineExecutionStatus": ["Failed"]},
    }  # fmt: skip
    account.client("events").put_rule(Name="failed", EventPattern=json.dumps(pattern))
    account.client("events").put_targets(Rule="failed", Targets=[{"Id": "t", "Arn": topic}])

    def lets(principal: str) -> None:
        statement = {
            "Effect": "Allow", "Principal": {"Service": principal}, "Action": "sns:Publish", "Resource": topic,
        }  # fmt: skip
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        sns.set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=policy)

    with listening() as heard, listening() as silent:
        for one in (heard, silent):
            sns.subscribe(TopicArn=topic, Protocol="http", Endpoint=one.url)
            until(lambda one=one: one.of("SubscriptionConfirmation"))
        sns.confirm_subscription(TopicArn=topic, Token=heard.of("SubscriptionConfirmation")[0]["Token"])
        lets("events.amazonaws.com")
        arn = sagemaker.start_pipeline_execution(PipelineName="p")["PipelineExecutionArn"]
        [one] = arrived(account, url)
        assert json.loads(one["Body"])["resources"] == [arn.rpartition("/execution/")[0], arn]
        until(lambda: heard.of("Notification"))
        assert "Failed" in heard.of("Notification")[0]["Message"] and not silent.of("Notification")
        # Without EventBridge in the topic's policy nothing arrives.
        lets("cloudwatch.amazonaws.com")
        sagemaker.start_pipeline_execution(PipelineName="p")
        assert bodies(sqs, url, WaitTimeSeconds=3) == [] and len(heard.of("Notification")) == 1


def test_an_event_starts_a_pipeline(account: Account) -> None:
    arn, sagemaker = pipeline(account, "q"), account.client("sagemaker")
    role = account.role("Starter", allow("sagemaker:StartPipelineExecution", resource=arn), trust=EVENTS)
    account.client("events").put_rule(Name="r", EventPattern='{"source": ["shop"]}')
    parameters = [{"Name": "Item", "Value": "$.detail.item"}]
    target = {
        "Id": "p",
        "Arn": arn,
        "RoleArn": role,
        "SageMakerPipelineParameters": {"PipelineParameterList": parameters},
    }
    account.client("events").put_targets(Rule="r", Targets=[target])
    send(account, {"item": "chair"})
    until(lambda: sagemaker.list_pipeline_executions(PipelineName="q")["PipelineExecutionSummaries"])
    [one] = sagemaker.list_pipeline_executions(PipelineName="q")["PipelineExecutionSummaries"]
    told = sagemaker.list_pipeline_parameters_for_execution(PipelineExecutionArn=one["PipelineExecutionArn"])
    assert told["PipelineParameters"] == [{"Name": "Item", "Value": "chair"}]


@pytest.mark.control("MON-08")
def test_a_training_that_is_over_starts_a_state_machine(account: Account) -> None:
    workshop, sqs, states = workshop_of(account), account.client("sqs"), account.client("stepfunctions")
    machine_role = account.role("Machine", allow("s3:*"), trust={"Service": "states.amazonaws.com"})
    definition = {"StartAt": "P", "States": {"P": {"Type": "Pass", "End": True}}}
    machine = states.create_state_machine(name="next", definition=json.dumps(definition), roleArn=machine_role)[
        "stateMachineArn"
    ]
    starts = account.role("Starter", allow("states:StartExecution", resource=machine), trust=EVENTS)
    weak = account.role("Weak", allow("states:DescribeStateMachine"), trust=EVENTS)
    dead = made(sqs)
    pattern = {"source": ["aws.sagemaker"], "detail": {"TrainingJobStatus": ["Completed"]}}
    source = account.client("events").put_rule(Name="done", EventPattern=json.dumps(pattern))["RuleArn"]
    shape = {"InputPathsMap": {"job": "$.detail.TrainingJobName"}, "InputTemplate": '{"job": <job>}'}
    targets = [
        {"Id": "good", "Arn": machine, "RoleArn": starts, "InputTransformer": shape},
        {"Id": "weak", "Arn": machine, "RoleArn": weak, "DeadLetterConfig": {"Arn": lets(account, dead, source)}},
    ]
    account.client("events").put_targets(Rule="done", Targets=targets)
    name = workshop.train("open('/opt/ml/model/m.txt', 'w').write('m')")
    assert workshop.trained(name)["TrainingJobStatus"] == "Completed"
    until(lambda: states.list_executions(stateMachineArn=machine, statusFilter="SUCCEEDED")["executions"])
    [one] = states.list_executions(stateMachineArn=machine)["executions"]
    assert json.loads(states.describe_execution(executionArn=one["executionArn"])["input"]) == {"job": name}
    [letter] = arrived(account, dead)
    assert json.loads(letter["Body"])["detail"]["TrainingJobName"] == name
    assert letter["MessageAttributes"]["ERROR_CODE"]["StringValue"] == "NO_PERMISSIONS"
    # And the calls that built the model are collected.
    asked = [{"AttributeKey": "EventName", "AttributeValue": "CreateTrainingJob"}]
    [found] = account.client("cloudtrail").lookup_events(LookupAttributes=asked)["Events"]
    given = json.loads(found["CloudTrailEvent"])["requestParameters"]
    assert given["trainingJobName"] == name and given["resourceConfig"]["instanceCount"] == 1


@pytest.mark.control("MON-08")
def test_events_topics_buckets_and_alarms_invoke_functions_that_let_them(account: Account) -> None:
    bench, sns, s3 = bench_of(account), account.client("sns"), account.client("s3")
    name = bench.make(KEEP)
    function = f"arn:aws:lambda:{REGION}:{account.id}:function:{name}"
    topic, bucket = sns.create_topic(Name="calls")["TopicArn"], f"calls-{account.id}"
    s3.create_bucket(Bucket=bucket)
    events, watch = account.client("events"), account.client("cloudwatch")
    rule = events.put_rule(Name="r", EventPattern='{"source": ["shop"]}')["RuleArn"]
    alarm = f"arn:aws:cloudwatch:{REGION}:{account.id}:alarm:a"
    for id, principal, source in (
        ("e", "events.amazonaws.com", rule), ("s", "sns.amazonaws.com", topic),
        ("b", "s3.amazonaws.com", f"arn:aws:s3:::{bucket}"), ("a", "lambda.alarms.cloudwatch.amazonaws.com", alarm),
    ):  # fmt: skip
        bench.client.add_permission(
            FunctionName=name, StatementId=id, Action="lambda:InvokeFunction", Principal=principal, SourceArn=source
        )
    events.put_targets(Rule="r", Targets=[{"Id": "f", "Arn": function, "InputPath": "$.detail"}])
    sns.subscribe(TopicArn=topic, Protocol="lambda", Endpoint=function)
    said = {"LambdaFunctionConfigurations": [{"LambdaFunctionArn": function, "Events": ["s3:ObjectCreated:*"]}]}
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=said)
    watch.put_metric_alarm(
        AlarmName="a", Namespace="n", MetricName="m", Statistic="Sum", Period=60, EvaluationPeriods=1, Threshold=1,
        ComparisonOperator="GreaterThanThreshold", TreatMissingData="ignore", AlarmActions=[function],
    )  # fmt: skip
    send(account, {"from": "a rule"})
    sns.publish(TopicArn=topic, Message="from a topic")
    s3.put_object(Bucket=bucket, Key="from-a-bucket", Body=b"x")
    watch.set_alarm_state(AlarmName="a", StateValue="ALARM", StateReason="from an alarm")
    told = ('told {"from": "a rule"}', "from a topic", "from-a-bucket", "from an alarm")

    def heard() -> list[str]:
        return [text for text in told if any(text in line for line in bench.lines(name, "told"))]

    until(lambda: len(heard()) == len(told), 20)
