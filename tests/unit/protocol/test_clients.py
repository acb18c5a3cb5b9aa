"""What today's botocore sends is understood, and what we answer it understands, for real services."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from botocore import parsers, serialize
from botocore.awsrequest import HeadersDict
from botocore.exceptions import ClientError

from bastide.domain import Refused
from bastide.protocol import Head, OperationCodec, codec
from tests.unit.protocol.wire import Wire

AT = 1_700_000_000_123_000
WHEN = datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC)
SECOND = WHEN.replace(microsecond=0)


def _ask(service: str, operation: str, given: dict[str, Any], output: dict[str, Any]) -> tuple[Any, Any, Wire]:
    """What the handler was given, what the client read, and the wire."""
    seen: dict[str, Any] = {}

    def handle(held: OperationCodec, params: dict[str, Any]) -> dict[str, Any]:
        seen[held.name] = params
        return output

    wire = Wire(service, handle)
    method = next(name for name, one in wire.client.meta.method_to_api_mapping.items() if one == operation)
    read = getattr(wire.client, method)(**given)
    assert list(seen) == [operation]
    meta = read.pop("ResponseMetadata")
    assert meta["RequestId"] == "request-id"
    return seen[operation], read, wire


def test_sts_speaks_query() -> None:
    given, read, wire = _ask(
        "sts",
        "AssumeRole",
        {
            "RoleArn": "arn:aws:iam::123456789012:role/Data+Scientist",
            "RoleSessionName": "anna@example",
            "Tags": [{"Key": "team", "Value": "a b@c"}, {"Key": "cost", "Value": "ü"}],
            "DurationSeconds": 900,
        },
        {
            "Credentials": {
                "AccessKeyId": "ASIAEXAMPLEEXAMPLE",
                "SecretAccessKey": "s<&>",
                "SessionToken": "t",
                "Expiration": AT,
            },
            "PackedPolicySize": 3,
        },
    )
    assert wire.protocol == "query"
    assert given["Tags"] == [{"Key": "team", "Value": "a b@c"}, {"Key": "cost", "Value": "ü"}]
    assert given["DurationSeconds"] == 900
    assert read["Credentials"]["Expiration"] == WHEN
    assert read["Credentials"]["SecretAccessKey"] == "s<&>"
    assert read["PackedPolicySize"] == 3


def test_an_operation_without_input_and_one_without_output() -> None:
    identity = {"UserId": "AIDA", "Account": "123456789012", "Arn": "arn:aws:iam::123456789012:user/a"}
    given, read, _ = _ask("sts", "GetCallerIdentity", {}, identity)
    assert given == {}
    assert read == identity
    given, read, _ = _ask("iam", "DeleteUser", {"UserName": "anna"}, {})
    assert given == {"UserName": "anna"}
    assert read == {}


def test_iam_lists_and_paths() -> None:
    role = {
        "Path": "/",
        "RoleName": "Trainer",
        "RoleId": "AROAEXAMPLEEXAMPLE",
        "Arn": "arn:aws:iam::123456789012:role/Trainer",
        "CreateDate": AT,
        "AssumeRolePolicyDocument": "%7B%22Version%22%3A%222012-10-17%22%7D",
        "Tags": [{"Key": "a", "Value": ""}],
    }
    _, read, _ = _ask("iam", "ListRoles", {"MaxItems": 5}, {"Roles": [role, role], "IsTruncated": False})
    assert [one["RoleName"] for one in read["Roles"]] == ["Trainer", "Trainer"]
    assert read["Roles"][0]["AssumeRolePolicyDocument"] == {"Version": "2012-10-17"}
    assert read["Roles"][0]["Tags"] == [{"Key": "a", "Value": ""}]
    assert read["IsTruncated"] is False


def test_sagemaker_speaks_json() -> None:
    given, read, wire = _ask(
        "sagemaker",
        "ListTrainingJobs",
        {"CreationTimeAfter": WHEN, "MaxResults": 3, "NameContains": "x"},
        {
            "TrainingJobSummaries": [
                {
                    "TrainingJobName": "j",
                    "TrainingJobArn": "arn:aws:sagemaker:eu-west-1:123456789012:training-job/j",
                    "CreationTime": AT,
                    "TrainingJobStatus": "InProgress",
                    "TrainingEndTime": None,
                }
            ]
        },
    )
    assert wire.protocol == "json"
    assert given == {"CreationTimeAfter": AT, "MaxResults": 3, "NameContains": "x"}
    assert read["TrainingJobSummaries"][0]["CreationTime"] == WHEN
    assert "TrainingEndTime" not in read["TrainingJobSummaries"][0]


def test_invoke_endpoint_carries_bytes_and_headers() -> None:
    given, read, wire = _ask(
        "sagemaker-runtime",
        "InvokeEndpoint",
        {"EndpointName": "mortgage", "Body": b"1,2\n\xff", "ContentType": "text/csv", "Accept": "application/json"},
        {"Body": b"[0.5]", "ContentType": "application/json", "InvokedProductionVariant": "AllTraffic"},
    )
    assert wire.protocol == "rest-json"
    assert given["Body"] == b"1,2\n\xff"
    assert (given["EndpointName"], given["ContentType"]) == ("mortgage", "text/csv")
    assert read["Body"].read() == b"[0.5]"
    assert (read["ContentType"], read["InvokedProductionVariant"]) == ("application/json", "AllTraffic")


def test_kms_blobs() -> None:
    given, read, _ = _ask(
        "kms",
        "Encrypt",
        {"KeyId": "alias/a", "Plaintext": b"\x00\xff", "EncryptionContext": {"a": "b"}},
        {"CiphertextBlob": b"\x01\x02", "KeyId": "k", "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"},
    )
    assert given == {"KeyId": "alias/a", "Plaintext": b"\x00\xff", "EncryptionContext": {"a": "b"}}
    assert read["CiphertextBlob"] == b"\x01\x02"


def test_logs_cloudtrail_organizations() -> None:
    given, _, _ = _ask(
        "logs",
        "PutLogEvents",
        {"logGroupName": "g", "logStreamName": "s", "logEvents": [{"timestamp": 1, "message": "m"}]},
        {"nextSequenceToken": "1"},
    )
    assert given["logEvents"] == [{"timestamp": 1, "message": "m"}]
    given, read, _ = _ask(
        "cloudtrail",
        "LookupEvents",
        {"LookupAttributes": [{"AttributeKey": "EventName", "AttributeValue": "CreateKey"}], "StartTime": WHEN},
        {"Events": [{"EventId": "e", "EventTime": AT, "CloudTrailEvent": "{}"}]},
    )
    assert given["StartTime"] == AT
    assert read["Events"][0]["EventTime"] == WHEN
    given, read, _ = _ask(
        "organizations",
        "CreateAccount",
        {"Email": "a@example.com", "AccountName": "Production"},
        {"CreateAccountStatus": {"Id": "car-11111111", "State": "IN_PROGRESS", "RequestedTimestamp": AT}},
    )
    assert given["AccountName"] == "Production"
    assert read["CreateAccountStatus"]["RequestedTimestamp"] == WHEN


def _exchange(
    service: str, operation: str, protocol: str, given: dict[str, Any], output: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """As `_ask`, with the serialiser and parser of a protocol that the client itself would not choose."""
    held = codec(service)
    model = held.model.operation_model(operation)
    sent = serialize.create_serializer(protocol).serialize_to_request(given, model)
    body = sent["body"] if isinstance(sent["body"], bytes) else urlencode(sent["body"]).encode()
    headers = {name.lower(): value for name, value in sent["headers"].items()}
    head = Head(sent["method"], sent["url_path"].encode(), [], headers)
    assert held.route(head, body) == (operation, protocol)
    params = held.operations[operation].parse(protocol, head, body)
    held.operations[operation].validate(params)
    answer = held.operations[operation].answer(protocol, output, "request-id")
    shape = model.output_shape
    if protocol == "query" and shape is not None:
        shape.serialization.setdefault("resultWrapper", f"{operation}Result")
    response = {"status_code": answer.status, "headers": HeadersDict(dict(answer.headers)), "body": answer.body}
    read = parsers.create_parser(protocol).parse(response, shape)
    assert read.pop("ResponseMetadata", {}).get("RequestId", "request-id") == "request-id"
    return params, read


@pytest.mark.parametrize("protocol", ["smithy-rpc-v2-cbor", "json", "query"])
def test_cloudwatch_speaks_three_protocols(protocol: str) -> None:
    datum = {"MetricName": "auc", "Timestamp": WHEN, "Value": 0.75, "Dimensions": [{"Name": "job", "Value": "j"}]}
    given, _ = _exchange("cloudwatch", "PutMetricData", protocol, {"Namespace": "n", "MetricData": [datum]}, {})
    assert given["MetricData"] == [{**datum, "Timestamp": AT}]
    result = {"MetricDataResults": [{"Id": "a", "Timestamps": [AT], "Values": [0.5, 2.0]}]}
    query = {"Id": "a", "Expression": "m1", "ReturnData": True}
    asked = {"MetricDataQueries": [query], "StartTime": WHEN, "EndTime": WHEN}
    given, read = _exchange("cloudwatch", "GetMetricData", protocol, asked, result)
    assert given == {"MetricDataQueries": [query], "StartTime": AT, "EndTime": AT}
    assert read["MetricDataResults"] == [{"Id": "a", "Timestamps": [WHEN], "Values": [0.5, 2.0]}]


@pytest.mark.parametrize("protocol", ["smithy-rpc-v2-cbor", "json"])
def test_codebuild_speaks_two(protocol: str) -> None:
    output = {"builds": [{"id": "a:1", "startTime": AT, "buildComplete": False}]}
    given, read = _exchange("codebuild", "BatchGetBuilds", protocol, {"ids": ["a:1", "b:2"]}, output)
    assert given == {"ids": ["a:1", "b:2"]}
    assert read["builds"] == [{"id": "a:1", "startTime": WHEN, "buildComplete": False}]


def test_ec2_lists_and_booleans() -> None:
    given, read, wire = _ask(
        "ec2",
        "DescribeVpcs",
        {"VpcIds": ["vpc-1", "vpc-2"], "Filters": [{"Name": "tag:a", "Values": ["x", "y"]}], "DryRun": False},
        {"Vpcs": [{"VpcId": "vpc-1", "IsDefault": True, "Tags": [{"Key": "a", "Value": "x"}]}]},
    )
    assert wire.protocol == "ec2"
    assert given == {
        "VpcIds": ["vpc-1", "vpc-2"],
        "Filters": [{"Name": "tag:a", "Values": ["x", "y"]}],
        "DryRun": False,
    }
    assert read["Vpcs"] == [{"VpcId": "vpc-1", "IsDefault": True, "Tags": [{"Key": "a", "Value": "x"}]}]


def test_s3_keys_metadata_and_dates() -> None:
    key = "a//b c/ü+%2F?.txt"
    given, read, wire = _ask(
        "s3",
        "PutObject",
        {"Bucket": "data", "Key": key, "Body": b"x", "Metadata": {"owner": "anna"}, "ServerSideEncryption": "aws:kms"},
        {"ETag": '"e"', "VersionId": "v1"},
    )
    assert wire.protocol == "rest-xml"
    assert (given["Bucket"], given["Key"], given["Metadata"]) == ("data", key, {"owner": "anna"})
    assert "Body" not in given
    assert read["VersionId"] == "v1"
    _, read, _ = _ask(
        "s3",
        "HeadObject",
        {"Bucket": "data", "Key": key},
        {
            "ContentLength": 7,
            "LastModified": AT,
            "Metadata": {"owner": "anna"},
            "ETag": '"e"',
            "ContentType": "text/csv",
        },
    )
    assert read["LastModified"] == SECOND
    assert read["Metadata"] == {"owner": "anna"}


def test_s3_documents() -> None:
    given, read, _ = _ask(
        "s3",
        "ListObjectsV2",
        {"Bucket": "data", "Prefix": "a/", "MaxKeys": 2},
        {
            "Name": "data",
            "Contents": [{"Key": "a/<&>", "Size": 3, "LastModified": AT, "ETag": '"e"'}],
            "CommonPrefixes": [{"Prefix": "a/b/"}],
            "IsTruncated": False,
            "KeyCount": 1,
        },
    )
    assert given == {"Bucket": "data", "Prefix": "a/", "MaxKeys": 2, "EncodingType": "url"}
    assert read["Contents"] == [{"Key": "a/<&>", "Size": 3, "LastModified": WHEN, "ETag": '"e"'}]
    assert read["CommonPrefixes"] == [{"Prefix": "a/b/"}]
    given, _, _ = _ask(
        "s3", "PutBucketVersioning", {"Bucket": "data", "VersioningConfiguration": {"Status": "Enabled"}}, {}
    )
    assert given["VersioningConfiguration"] == {"Status": "Enabled"}
    given, read, _ = _ask(
        "s3",
        "DeleteObjects",
        {"Bucket": "data", "Delete": {"Objects": [{"Key": "a"}, {"Key": "b", "VersionId": "v"}], "Quiet": True}},
        {"Deleted": [{"Key": "a"}], "Errors": [{"Key": "b", "Code": "AccessDenied"}]},
    )
    assert given["Delete"] == {"Objects": [{"Key": "a"}, {"Key": "b", "VersionId": "v"}], "Quiet": True}
    assert read["Errors"] == [{"Key": "b", "Code": "AccessDenied"}]
    _, read, _ = _ask("s3", "GetBucketLocation", {"Bucket": "data"}, {"LocationConstraint": "eu-west-1"})
    assert read == {"LocationConstraint": "eu-west-1"}
    grant = {"Grantee": {"Type": "CanonicalUser", "ID": "1"}, "Permission": "READ"}
    _, read, _ = _ask("s3", "GetBucketAcl", {"Bucket": "data"}, {"Grants": [grant], "Owner": {"ID": "1"}})
    assert read == {"Grants": [grant], "Owner": {"ID": "1"}}
    policy = '{"Version":"2012-10-17"}'
    given, _, _ = _ask("s3", "PutBucketPolicy", {"Bucket": "data", "Policy": policy}, {})
    assert given["Policy"] == policy
    _, read, _ = _ask("s3", "GetBucketPolicy", {"Bucket": "data"}, {"Policy": policy})
    assert read == {"Policy": policy}


@pytest.mark.parametrize(
    ("service", "method", "given", "raised", "code", "status"),
    [
        ("sagemaker", "describe_model", {"ModelName": "m"}, "ResourceNotFound", "ResourceNotFound", 403),
        ("iam", "get_role", {"RoleName": "r"}, "NoSuchEntity", "NoSuchEntity", 404),
        ("iam", "get_role", {"RoleName": "r"}, "NoSuchEntityException", "NoSuchEntity", 404),
        ("sts", "get_caller_identity", {}, "AccessDenied", "AccessDenied", 403),
        ("s3", "get_object", {"Bucket": "b", "Key": "k"}, "NoSuchKey", "NoSuchKey", 404),
        ("kms", "describe_key", {"KeyId": "k"}, "NotFoundException", "NotFoundException", 403),
        ("ec2", "describe_vpcs", {}, "InvalidVpcID.NotFound", "InvalidVpcID.NotFound", 403),
        ("sagemaker-runtime", "invoke_endpoint", {"EndpointName": "e", "Body": b""}, "ModelError", "ModelError", 424),
        ("codebuild", "list_builds", {}, "InvalidInputException", "InvalidInputException", 403),
        ("cloudwatch", "get_dashboard", {"DashboardName": "d"}, "DashboardNotFoundError", "ResourceNotFound", 400),
        ("sqs", "get_queue_url", {"QueueName": "q"}, "QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", 403),
        ("logs", "describe_log_groups", {}, "ServiceUnavailableException", "ServiceUnavailableException", 500),
    ],
)  # fmt: skip
def test_errors_have_the_code_that_clients_read(
    service: str, method: str, given: dict[str, Any], raised: str, code: str, status: int
) -> None:
    def handle(held: OperationCodec, params: dict[str, Any]) -> dict[str, Any]:
        raise Refused(raised, "no", 403)

    wire = Wire(service, handle)
    with pytest.raises(ClientError) as caught:
        getattr(wire.client, method)(**given)
    error = caught.value.response
    assert error["Error"]["Code"] == code
    assert error["Error"]["Message"] == "no"
    assert error["ResponseMetadata"]["RequestId"] == "request-id"
    assert error["ResponseMetadata"]["HTTPStatusCode"] == status


def test_modelled_members_of_an_error_arrive() -> None:
    def handle(held: OperationCodec, params: dict[str, Any]) -> dict[str, Any]:
        raise Refused("ModelError", "bad", members={"OriginalStatusCode": 503, "OriginalMessage": "boom"})

    wire = Wire("sagemaker-runtime", handle)
    with pytest.raises(wire.client.exceptions.ModelError) as caught:
        wire.client.invoke_endpoint(EndpointName="e", Body=b"")
    assert caught.value.response["OriginalStatusCode"] == 503
    assert caught.value.response["OriginalMessage"] == "boom"


def test_s3_errors_carry_further_elements() -> None:
    def handle(held: OperationCodec, params: dict[str, Any]) -> dict[str, Any]:
        raise Refused("NoSuchBucket", "none", members={"BucketName": "b"})

    with pytest.raises(ClientError) as caught:
        Wire("s3", handle).client.list_objects_v2(Bucket="b")
    assert caught.value.response["Error"]["BucketName"] == "b"
    assert caught.value.response["ResponseMetadata"]["HostId"] == "host-id"


def test_an_output_member_that_no_model_knows_is_our_bug() -> None:
    for service, operation, protocol in (
        ("sagemaker", "DescribeModel", "json"),
        ("iam", "GetRole", "query"),
        ("iam", "DeleteRole", "query"),
        ("s3", "HeadObject", "rest-xml"),
        ("codebuild", "ListBuilds", "smithy-rpc-v2-cbor"),
        ("ec2", "DescribeVpcs", "ec2"),
    ):
        with pytest.raises(ValueError, match="Surprise"):
            codec(service).operations[operation].answer(protocol, {"Surprise": 1}, "r")
