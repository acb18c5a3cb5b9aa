"""Requests find their operation, and what is none is refused in the protocol's own words."""

from __future__ import annotations

import pytest

from bastide.domain import Refused
from bastide.main.catalogue import SERVICES
from bastide.protocol import Head, codec, error_for, services_for_signing_name


def _route(service: str, method: str, path: str, query: str = "", headers: dict[str, str] | None = None) -> str:
    pairs = [(part.partition("=")[0], part.partition("=")[2]) for part in query.split("&") if part]
    return codec(service).route(Head(method, path.encode(), pairs, headers or {}), None)[0]


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "operation"),
    [
        ("GET", "/", "", {}, "ListBuckets"),
        ("GET", "/b", "", {}, "ListObjects"),
        ("GET", "/b/", "list-type=2&prefix=a", {}, "ListObjectsV2"),
        ("GET", "/b", "versions", {}, "ListObjectVersions"),
        ("GET", "/b", "location", {}, "GetBucketLocation"),
        ("GET", "/b", "notification", {}, "GetBucketNotificationConfiguration"),
        ("GET", "/b", "uploads", {}, "ListMultipartUploads"),
        ("PUT", "/b", "", {}, "CreateBucket"),
        ("PUT", "/b", "versioning", {}, "PutBucketVersioning"),
        ("PUT", "/b", "policy", {}, "PutBucketPolicy"),
        ("PUT", "/b", "lifecycle", {}, "PutBucketLifecycleConfiguration"),
        ("DELETE", "/b", "", {}, "DeleteBucket"),
        ("POST", "/b", "delete", {}, "DeleteObjects"),
        ("HEAD", "/b", "", {}, "HeadBucket"),
        ("PUT", "/b/k", "", {}, "PutObject"),
        ("PUT", "/b/k", "x-id=PutObject", {}, "PutObject"),
        ("PUT", "/b//k/", "", {}, "PutObject"),
        ("PUT", "/b/k", "", {"x-amz-copy-source": "/b/x"}, "CopyObject"),
        ("PUT", "/b/k", "partNumber=1&uploadId=u", {}, "UploadPart"),
        ("PUT", "/b/k", "uploadId=u", {}, "UploadPart"),
        ("PUT", "/b/k", "partNumber=1&uploadId=u", {"x-amz-copy-source": "/b/x"}, "UploadPartCopy"),
        ("PUT", "/b/k", "tagging", {}, "PutObjectTagging"),
        ("GET", "/b/k", "", {}, "GetObject"),
        ("GET", "/b/k", "versionId=v&partNumber=2", {}, "GetObject"),
        ("GET", "/b/k", "uploadId=u", {}, "ListParts"),
        ("GET", "/b/k", "attributes", {}, "GetObjectAttributes"),
        ("HEAD", "/b/k", "", {}, "HeadObject"),
        ("DELETE", "/b/k", "versionId=v", {}, "DeleteObject"),
        ("DELETE", "/b/k", "uploadId=u", {}, "AbortMultipartUpload"),
        ("POST", "/b/k", "uploads", {}, "CreateMultipartUpload"),
        ("POST", "/b/k", "uploadId=u", {}, "CompleteMultipartUpload"),
        ("GET", "/b", "analytics", {}, "ListBucketAnalyticsConfigurations"),
        ("GET", "/b", "analytics&id=1", {}, "GetBucketAnalyticsConfiguration"),
    ],
)
def test_s3(method: str, path: str, query: str, headers: dict[str, str], operation: str) -> None:
    assert _route("s3", method, path, query, headers) == operation


def test_keys_keep_every_slash_and_percent() -> None:
    held = codec("s3").operations["PutObject"]
    for raw, key in ((b"/b//k/", "/k/"), (b"/b/a%2Fb%2B+c/", "a/b++c/"), (b"/b/%2E%2E/x", "../x"), (b"/b/a\n", "a\n")):
        assert held.parse("rest-xml", Head("PUT", raw, [], {}), b"")["Key"] == key


def test_an_unknown_subresource_never_becomes_a_change_of_the_whole() -> None:
    for method, path in (("DELETE", "/b"), ("PUT", "/b"), ("PUT", "/b/k"), ("DELETE", "/b/k")):
        with pytest.raises(Refused) as caught:
            _route("s3", method, path, "brandnew")
        assert caught.value.code == "NotImplemented"


def test_rest_json() -> None:
    assert _route("sagemaker-runtime", "POST", "/endpoints/e/invocations") == "InvokeEndpoint"
    assert _route("lambda", "GET", "/2015-03-31/functions/") == "ListFunctions"
    assert _route("lambda", "GET", "/2015-03-31/functions") == "ListFunctions"
    assert _route("lambda", "GET", "/2015-03-31/functions/f") == "GetFunction"
    with pytest.raises(Refused) as caught:
        _route("lambda", "GET", "/nothing")
    assert (caught.value.code, caught.value.status) == ("UnknownOperationException", 404)


def test_rpc() -> None:
    assert _route("sagemaker", "POST", "/", headers={"x-amz-target": "SageMaker.ListModels"}) == "ListModels"
    for target in ("SageMaker.Nothing", "Other.ListModels", "ListModels", ""):
        with pytest.raises(Refused) as caught:
            _route("sagemaker", "POST", "/", headers={"x-amz-target": target})
        assert (caught.value.code, caught.value.kept["protocol"]) == ("UnknownOperationException", "json")
    path = "/service/GraniteServiceVersion20100801/operation/ListMetrics"
    assert _route("cloudwatch", "POST", path, headers={"smithy-protocol": "rpc-v2-cbor"}) == "ListMetrics"


def test_forms() -> None:
    iam = codec("iam")
    head = Head("POST", b"/", [], {"content-type": "application/x-www-form-urlencoded"})
    assert iam.needs_body(head)
    assert iam.route(head, b"Action=GetRole&Version=2010-05-08&RoleName=a") == ("GetRole", "query")
    assert _route("sts", "GET", "/", "Action=GetCallerIdentity&Version=2011-06-15") == "GetCallerIdentity"
    for body, code in (
        (b"Action=Nothing&Version=2010-05-08", "InvalidAction"),
        (b"Action=GetRole&Version=1999-01-01", "InvalidAction"),
        (b"", "MissingAction"),
        (b"Action=%ff", "MalformedQueryString"),
    ):
        with pytest.raises(Refused) as caught:
            iam.route(head, body)
        assert caught.value.code == code


def test_the_services_of_a_name_in_a_scope() -> None:
    assert services_for_signing_name("sagemaker")[0] == "sagemaker"
    assert {"sagemaker-runtime", "sagemaker-metrics"} <= set(services_for_signing_name("sagemaker"))
    assert "s3" in services_for_signing_name("s3")
    assert services_for_signing_name("monitoring") == ("cloudwatch",)
    assert services_for_signing_name("nothing") == ()


def test_the_head_of_a_model_says_what_the_whole_model_says() -> None:
    for name in {service.name for service in SERVICES}:
        assert codec(name).metadata == codec(name)._read().metadata, name


def test_what_is_known_of_a_service_and_its_operations() -> None:
    assert codec("iam").global_
    assert codec("organizations").global_
    assert not codec("sts").global_
    assert not codec("s3").global_
    assert codec("sts").operations["AssumeRoleWithWebIdentity"].unsigned
    assert not codec("sts").operations["AssumeRole"].unsigned
    assert codec("s3").operations["PutObject"].streaming_input == "Body"
    assert codec("s3").operations["GetObject"].streaming_output == "Body"
    assert codec("sagemaker-runtime").operations["InvokeEndpoint"].streaming_input is None
    assert codec("organizations").operations["CreateAccount"].idempotency_member is None
    assert codec("sagemaker").operations["CreatePipeline"].idempotency_member == "ClientRequestToken"
    assert "Nothing" not in codec("iam").operations
    with pytest.raises(KeyError):
        codec("no-such-service")


@pytest.mark.parametrize("protocol", ["json", "rest-json", "query", "ec2", "rest-xml", "smithy-rpc-v2-cbor"])
def test_a_refusal_before_any_operation(protocol: str) -> None:
    answer = error_for(protocol, Refused("Throttling", "slow <down>", 429), "r")
    assert answer.status == 429
    assert b"Throttling" in answer.body or ("x-amzn-errortype", "Throttling") in answer.headers
