"""Functions run: what they find, what they say, how they end."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.moved import until
from tests.platform import Account, Running, allow, lies_in, on_disk
from tests.stories.lambda_.conftest import LAMBDA, Bench, archive

EVERYTHING = """
import json, logging, os, sys, time, urllib.request
import boto3, helper
print("begun")
count = 0
def handler(event, context):
    global count
    count += 1
    match event.get("do"):
        case "raise": raise ValueError("wrong")
        case "exit": os._exit(3)
        case "eat": return len(bytearray(1 << 29))
        case "sleep": time.sleep(60)
        case "large": return "x" * 7_000_000
        case "who": return boto3.client("sts").get_caller_identity()["Arn"]
        case "hidden": return os.environ["SECRET_WORD"]
        case "log": logging.getLogger().warning("careful"); print("two\\nlines"); return None
        case "tmp":
            with open("/tmp/kept", "a") as file: file.write("x")
            return os.path.getsize("/tmp/kept")
        case "put":
            asked = urllib.request.Request(event["url"], b"told", {"Content-Type": ""}, method="PUT")
            return urllib.request.urlopen(asked).status
        case "context":
            return {
                "name": context.function_name, "version": context.function_version, "memory": context.memory_limit_in_mb,
                "arn": context.invoked_function_arn, "group": context.log_group_name, "id": context.aws_request_id,
                "client": context.client_context and context.client_context.custom,
                "left": context.get_remaining_time_in_millis(), "cwd": os.getcwd(),
                "runtime": os.environ["AWS_EXECUTION_ENV"],
            }
    return {"count": count, "event": event, "help": helper.HELP}
"""


@pytest.fixture(scope="module")
def shop(platform: Running) -> Bench:
    from tests.stories.lambda_.conftest import bench_of

    return bench_of(platform.account())


@pytest.fixture(scope="module")
def everything(shop: Bench) -> str:
    variables = {"Variables": {"SECRET_WORD": "sesame-in-the-open"}}
    code = archive(index=EVERYTHING, helper="HELP = 'there'")
    return shop.make(code, "everything", Runtime="python3.13", Environment=variables, MemorySize=256, Timeout=1)


def test_an_event_is_handled_and_the_environment_used_again(shop: Bench, everything: str) -> None:
    # What other tests began is not used again.
    shop.client.update_function_configuration(FunctionName=everything, Description="anew")
    shop.settled(everything)
    one, two = (shop.invoke(everything, {"a": [1, "ä"]}) for _ in range(2))
    assert (one.status, one.error, one.version) == (200, "", "$LATEST")
    assert one.payload == {"count": 1, "event": {"a": [1, "ä"]}, "help": "there"}
    assert two.payload["count"] == 2
    assert "begun" in one.log and "Init Duration" in one.log and "Init Duration" not in two.log
    assert shop.invoke(everything).payload["event"] == {}
    assert [shop.invoke(everything, {"do": "tmp"}).payload for _ in range(2)] == [1, 2]


def test_what_a_function_knows_of_itself(shop: Bench, everything: str) -> None:
    client = base64.b64encode(json.dumps({"custom": {"k": "ü"}}).encode()).decode()
    told = shop.invoke(everything, {"do": "context"}, ClientContext=client).payload
    arn = f"arn:aws:lambda:us-east-1:{shop.account.id}:function:everything"
    assert 0 < told.pop("left") <= 1000 and len(told.pop("id")) == 36
    assert told == {
        "name": "everything", "version": "$LATEST", "memory": "256", "arn": arn, "group": "/aws/lambda/everything",
        "client": {"k": "ü"}, "cwd": "/var/task", "runtime": "AWS_Lambda_python3.13",
    }  # fmt: skip
    assert shop.invoke(everything, {"do": "who"}).payload.endswith(":assumed-role/functions/everything")
    assert shop.invoke(everything, {"do": "hidden"}).payload == "sesame-in-the-open"


def test_errors_have_lambdas_words(shop: Bench, everything: str) -> None:
    raised = shop.invoke(everything, {"do": "raise"})
    assert (raised.status, raised.error) == (200, "Unhandled")
    assert (raised.payload["errorType"], raised.payload["errorMessage"]) == ("ValueError", "wrong")
    assert "index.py" in raised.payload["stackTrace"][0] and "[ERROR] ValueError: wrong" in raised.log
    left = shop.invoke(everything, {"do": "exit"})
    assert left.payload["errorType"] == "Runtime.ExitError" and "exit status 3" in left.payload["errorMessage"]
    eaten = shop.invoke(everything, {"do": "eat"})
    assert eaten.error == "Unhandled" and "signal: killed" in eaten.payload["errorMessage"]
    large = shop.invoke(everything, {"do": "large"})
    assert large.payload["errorType"] == "Function.ResponseSizeTooLarge"
    late = shop.invoke(everything, {"do": "sleep"})
    assert late.payload["errorMessage"].endswith("Task timed out after 1.00 seconds") and "timed out" in late.log
    assert shop.invoke(everything).payload["count"] == 1, "what timed out is not used again"
    broken = shop.make("import nothing_like_this", "broken")
    said = shop.invoke(broken)
    assert (
        said.payload["errorType"] == "Runtime.ImportModuleError" and "nothing_like_this" in said.payload["errorMessage"]
    )
    absent = shop.make("x = 1", "absent")
    assert shop.invoke(absent).payload["errorType"] == "Runtime.HandlerNotFound"


def test_what_is_said_reaches_the_log_group(shop: Bench, everything: str) -> None:
    shop.invoke(everything, {"do": "log"})
    lines = shop.lines(everything, "careful")
    assert {"two", "lines"} <= set(lines) and any("[WARNING]" in one for one in lines)
    first, *_ = [one for one in lines if one.startswith("INIT_START")]
    assert "Python" in first and "python3.13" in first, "what it really runs on is said"
    assert sum(one.startswith("START RequestId") for one in lines) == sum(
        one.startswith("END RequestId") for one in lines
    )


def test_logs_in_json_and_in_a_group_of_ones_own(shop: Bench) -> None:
    code = """
import logging
def handler(event, context):
    logging.getLogger().info("quiet"); logging.getLogger().warning("loud")
    raise ValueError("wrong")
"""
    config = {"LogFormat": "JSON", "ApplicationLogLevel": "WARN", "LogGroup": "/own/group"}
    name = shop.make(code, LoggingConfig=config)
    said = shop.invoke(name)
    assert said.error == "Unhandled"
    lines = [json.loads(one) for one in shop.lines(name, "platform.report", "/own/group")]
    [loud] = [one for one in lines if one.get("message") == "loud"]
    assert (loud["level"], loud["requestId"]) == ("WARNING", said.payload["requestId"])
    assert not any(one.get("message") == "quiet" for one in lines)
    assert [one["type"] for one in lines if "type" in one] == [
        "platform.initStart",
        "platform.start",
        "platform.report",
    ]
    assert any(one.get("errorMessage") == "wrong" for one in lines)


def test_an_answer_as_a_stream(shop: Bench, everything: str) -> None:
    answer = shop.client.invoke_with_response_stream(FunctionName=everything, Payload=b'{"a": 1}', LogType="Tail")
    one, two = list(answer["EventStream"])
    assert json.loads(one["PayloadChunk"]["Payload"])["event"] == {"a": 1}
    assert "REPORT" in base64.b64decode(two["InvokeComplete"]["LogResult"]).decode()
    [failed] = shop.client.invoke_with_response_stream(FunctionName=everything, Payload=b'{"do": "raise"}')[
        "EventStream"
    ]
    assert failed["InvokeComplete"]["ErrorCode"] == "ValueError"


def test_policies_know_which_function_calls(shop: Bench) -> None:
    code = """
import boto3, botocore.exceptions
def handler(event, context):
    try:
        return len(boto3.client("iam").list_users()["Users"])
    except botocore.exceptions.ClientError as error:
        return error.response["Error"]["Code"]
"""
    arn = f"arn:aws:lambda:us-east-1:{shop.account.id}:function:this-one"
    condition = {"ArnEquals": {"lambda:SourceFunctionArn": arn}}
    role = shop.account.role("by-source", allow("iam:ListUsers", Condition=condition), trust=LAMBDA)
    assert shop.invoke(shop.make(code, "this-one", Role=role)).payload == 0
    assert shop.invoke(shop.make(code, "that-one", Role=role)).payload == "AccessDenied"


def test_a_presigned_address_is_good_inside(shop: Bench, everything: str) -> None:
    s3 = shop.account.client("s3", signature_version="s3v4")
    bucket = f"told-{shop.account.id}"
    s3.create_bucket(Bucket=bucket)
    own = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "answer"})
    assert own.startswith(shop.account.platform.url)
    put = shop.invoke(everything, {"do": "put", "url": own})
    assert put.payload == 200, put
    assert s3.get_object(Bucket=bucket, Key="answer")["Body"].read() == b"told"


def test_a_custom_resource_answers_by_cfnresponse(shop: Bench) -> None:
    code = """
import cfnresponse
def handler(event, context):
    cfnresponse.send(event, context, cfnresponse.SUCCESS, {"Made": "yes"}, "the-thing")
"""
    s3 = shop.account.client("s3", signature_version="s3v4")
    bucket = f"custom-{shop.account.id}"
    s3.create_bucket(Bucket=bucket)
    url = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "answer"})
    name = shop.make(code, "custom")
    event = {"ResponseURL": url, "StackId": "s", "RequestId": "r", "LogicalResourceId": "L", "RequestType": "Create"}
    assert shop.invoke(name, event).error == ""
    told = json.loads(s3.get_object(Bucket=bucket, Key="answer")["Body"].read())
    assert (told["Status"], told["PhysicalResourceId"], told["Data"]) == ("SUCCESS", "the-thing", {"Made": "yes"})
    assert (told["StackId"], told["RequestId"], told["LogicalResourceId"], told["NoEcho"]) == ("s", "r", "L", False)


def test_metrics_are_counted(shop: Bench, everything: str) -> None:
    import datetime

    assert not shop.invoke(everything).error and shop.invoke(everything, {"do": "raise"}).error
    cloudwatch = shop.account.client("cloudwatch")
    now = datetime.datetime.now(datetime.UTC)
    where = [{"Name": "FunctionName", "Value": everything}]

    def sums(name: str) -> float:
        found = cloudwatch.get_metric_statistics(
            Namespace="AWS/Lambda", MetricName=name, Dimensions=where, StartTime=now - datetime.timedelta(hours=1),
            EndTime=now + datetime.timedelta(hours=1), Period=60, Statistics=["Sum"],
        )  # fmt: skip
        return float(sum(one["Sum"] for one in found["Datapoints"]))

    until(lambda: sums("Errors") and sums("Duration"))
    assert sums("Invocations") > sums("Errors") >= 1 and sums("Duration") > 0 and sums("ConcurrentExecutions") > 0


def test_the_record_has_no_payloads(shop: Bench) -> None:
    code = "def handler(event, context): return event['word']"
    name = shop.make(code, "recorded", Environment={"Variables": {"WORD": "sesame-of-the-record"}})
    assert shop.invoke(name, {"word": "sesame-of-the-record"}).payload == "sesame-of-the-record"
    found = shop.account.client("cloudtrail").lookup_events(
        LookupAttributes=[{"AttributeKey": "EventName", "AttributeValue": "CreateFunction20150331"}]
    )["Events"]
    [made] = [one for one in found if '"recorded"' in one["CloudTrailEvent"]]
    assert "HIDDEN" in made["CloudTrailEvent"] and "sesame" not in made["CloudTrailEvent"]


def test_requests_that_are_none(shop: Bench, everything: str) -> None:
    def code_of(**given: Any) -> str:
        with pytest.raises(ClientError) as refused:
            shop.client.invoke(**{"FunctionName": everything} | given)
        return str(refused.value.response["Error"]["Code"])

    assert code_of(Payload="{") == "InvalidRequestContentException"
    assert code_of(Payload=json.dumps("x" * 6_291_456)) == "RequestTooLargeException"
    assert code_of(Payload=json.dumps("x" * 1_048_576), InvocationType="Event") == "RequestTooLargeException"
    assert code_of(ClientContext="no") == "InvalidRequestContentException"
    assert code_of(FunctionName="nobody") == "ResourceNotFoundException"
    assert code_of(Qualifier="7") == "ResourceNotFoundException"
    assert shop.client.invoke(FunctionName=everything, InvocationType="DryRun")["StatusCode"] == 204


def test_concurrency_has_limits(shop: Bench) -> None:
    code = """
import boto3, time
def handler(event, context):
    s3 = boto3.client("s3")
    s3.put_object(Bucket=event["bucket"], Key="begun", Body=b"")
    while not s3.list_objects_v2(Bucket=event["bucket"], Prefix="go")["KeyCount"]:
        time.sleep(0.05)
"""
    name, s3, bucket = shop.make(code, "slow"), shop.account.client("s3"), f"slow-{shop.account.id}"
    s3.create_bucket(Bucket=bucket)
    shop.client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    assert shop.client.get_function_concurrency(FunctionName=name)["ReservedConcurrentExecutions"] == 1
    settings = shop.client.get_account_settings()["AccountLimit"]
    assert settings["ConcurrentExecutions"] - settings["UnreservedConcurrentExecutions"] == 1
    with ThreadPoolExecutor(1) as others:
        running = others.submit(shop.invoke, name, {"bucket": bucket})
        until(lambda: s3.list_objects_v2(Bucket=bucket)["KeyCount"])
        with pytest.raises(ClientError) as refused:
            shop.invoke(name, {"bucket": bucket})
        s3.put_object(Bucket=bucket, Key="go", Body=b"")
        assert running.result().error == ""
    assert refused.value.response["Error"]["Code"] == "TooManyRequestsException"
    assert refused.value.response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    shop.client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    with pytest.raises(ClientError, match="TooManyRequests"):
        shop.invoke(name, {"bucket": bucket})
    shop.client.delete_function_concurrency(FunctionName=name)
    assert shop.invoke(name, {"bucket": bucket}).error == ""
    with pytest.raises(ClientError, match="minimum value"):
        shop.client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=950)


@pytest.mark.control("ACC-01")
def test_nobody_else_invokes_it(shop: Bench, everything: str, neighbour: Account) -> None:
    other = neighbour.client("lambda")
    arn = f"arn:aws:lambda:us-east-1:{shop.account.id}:function:{everything}"
    with pytest.raises(ClientError, match="AccessDenied"):
        other.invoke(FunctionName=arn)
    shop.client.add_permission(
        FunctionName=everything, StatementId="friend", Action="lambda:InvokeFunction", Principal=neighbour.id
    )
    assert other.invoke(FunctionName=arn)["StatusCode"] == 200
    with pytest.raises(ClientError, match="AccessDenied"):
        other.get_function(FunctionName=arn)
    shop.client.remove_permission(FunctionName=everything, StatementId="friend")
    with pytest.raises(ClientError, match="AccessDenied"):
        other.invoke(FunctionName=arn)


def test_a_role_that_lambda_may_not_assume_is_refused(shop: Bench) -> None:
    role = shop.account.role("not-for-lambda", trust={"Service": "sagemaker.amazonaws.com"})
    with pytest.raises(ClientError, match="cannot be assumed by Lambda"):
        shop.make("def handler(e, c): pass", Role=role)
    late = shop.account.role("lost", trust=LAMBDA)
    name = shop.make("def handler(e, c): pass", Role=late)
    shop.account.client("iam").delete_role(RoleName="lost")
    with pytest.raises(ClientError, match="assume"):
        shop.invoke(name)


def test_code_and_variables_are_not_in_the_clear(shop: Bench, platform: Running) -> None:
    word = "a-word-that-lies-nowhere-in-the-clear"
    name = shop.make(
        f"WORD = '{word}'\ndef handler(e, c): return WORD", Environment={"Variables": {"WORD_TOO": f"{word}2"}}
    )
    assert shop.invoke(name).payload == word
    assert not [one for one in on_disk(platform.data) if lies_in(one, word.encode())]
