"""Whatever the bytes are, the answer is a Refused with the protocol's code."""

from __future__ import annotations

import json
import time
from typing import Any

import cbor2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bastide.domain import Refused
from bastide.protocol import Head, codec

OPERATIONS = [
    ("sagemaker", "CreateTrainingJob", "json"),
    ("dynamodb", "PutItem", "json"),
    ("codebuild", "BatchGetBuilds", "smithy-rpc-v2-cbor"),
    ("cloudwatch", "PutMetricData", "smithy-rpc-v2-cbor"),
    ("cloudwatch", "PutMetricData", "query"),
    ("iam", "CreateRole", "query"),
    ("ec2", "RunInstances", "ec2"),
    ("s3", "PutBucketLifecycleConfiguration", "rest-xml"),
    ("s3", "PutObject", "rest-xml"),
    ("sagemaker-runtime", "InvokeEndpoint", "rest-json"),
    ("lambda", "CreateFunction", "rest-json"),
]
PATHS = {"s3": b"/bucket/key", "sagemaker-runtime": b"/endpoints/e/invocations", "lambda": b"/2015-03-31/functions"}


def _parse(service: str, operation: str, protocol: str, body: bytes, **head: Any) -> dict[str, Any]:
    path = PATHS.get(service, b"/")
    if operation == "PutBucketLifecycleConfiguration":
        path = b"/bucket"
    held = codec(service).operations[operation]
    found = held.parse(
        protocol, Head("POST", head.get("path", path), head.get("query", []), head.get("headers", {})), body
    )
    held.validate(found)
    return found


_NAMES = ["TrainingJobName", "Item", "Tags", "Tag.1.Key", "RoleName", "MetricData", "ids", "MetricData.member.1.Value"]
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda below: (
        st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(_NAMES) | st.text(max_size=3), below, max_size=3)
    ),
    max_leaves=12,
)
_bodies = (
    st.binary(max_size=200)
    | _json.map(lambda value: json.dumps(value).encode())
    | _json.map(cbor2.dumps)
    | st.lists(st.sampled_from(_NAMES), max_size=4).map(
        lambda names: "&".join(f"{name}=%zz+{name}" for name in names).encode()
    )
    | st.lists(
        st.sampled_from(["<a>", "</a>", "<LifecycleConfiguration>", "<Rule>", "x", "&amp;", "</Rule>"]), max_size=8
    ).map(lambda parts: "".join(parts).encode())
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    which=st.sampled_from(OPERATIONS),
    body=_bodies,
    header=st.text(st.characters(max_codepoint=255), max_size=20),
    query=st.lists(
        st.tuples(st.sampled_from(["versionId", "partNumber", "Action", "Tag.1"]), st.text(max_size=5)), max_size=3
    ),
)
def test_parse_raises_refused_and_nothing_else(
    which: tuple[str, str, str], body: bytes, header: str, query: list[tuple[str, str]]
) -> None:
    names = ("content-length", "x-amz-object-lock-retain-until-date", "x-amz-meta-a", "content-encoding", "expires")
    try:
        _parse(*which, body, headers=dict.fromkeys(names, header), query=query)
    except Refused as refused:
        assert refused.code
        assert refused.status == 400


@settings(max_examples=200, deadline=None)
@given(
    path=st.binary(max_size=30),
    method=st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD", "X"]),
    target=st.text(max_size=20),
)
def test_route_raises_refused_and_nothing_else(path: bytes, method: str, target: str) -> None:
    for service in ("s3", "lambda", "sagemaker", "cloudwatch", "iam", "ec2"):
        for headers in ({}, {"x-amz-target": target}, {"smithy-protocol": "rpc-v2-cbor"}):
            try:
                name, protocol = codec(service).route(Head(method, b"/" + path, [("Action", target)], headers), path)
                codec(service).operations[name].parse(protocol, Head(method, b"/" + path, [], {}), b"")
            except Refused:
                pass


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"TrainingJobName": 5}', "NUMBER_VALUE cannot be converted to String"),
        (b'{"TrainingJobName": true}', "TRUE_VALUE cannot be converted to String"),
        (b'{"TrainingJobName": ["a"]}', "Start of list found where not expected"),
        (b'{"ResourceConfig": {"InstanceCount": "1"}}', "STRING_VALUE cannot be converted to Integer"),
        (
            b'{"ResourceConfig": {"InstanceCount": 99999999999999999999999}}',
            "NUMBER_VALUE is out of the range of Integer",
        ),
        (b'{"ResourceConfig": {"InstanceCount": 1.5}}', "NUMBER_VALUE cannot be converted to Integer"),
        (b'{"InputDataConfig": {}}', "Expected list or null"),
        (b'{"HyperParameters": []}', "Expected map or null"),
        (b'{"ResourceConfig": "x"}', "Start of structure expected"),
        (b'["x"]', "Start of structure expected"),
        (b"{", "The request body is not valid JSON"),
        (b'{"TrainingJobName": NaN}', "The request body is not valid JSON"),
        (b'{"TrainingJobName": "\xff"}', "The request body is not valid JSON"),
        (b'{"TrainingJobName": "\\ud800"}', "The request body is not valid JSON"),
        (b'{"HyperParameters":' * 2000, "The request body is not valid JSON"),
    ],
)
def test_json_of_the_wrong_kind(body: bytes, said: str) -> None:
    with pytest.raises(Refused) as caught:
        codec("sagemaker").operations["CreateTrainingJob"].parse("json", Head("POST", b"/", [], {}), body)
    assert (caught.value.code, caught.value.message, caught.value.status) == ("SerializationException", said, 400)


def test_deep_recursive_json_is_refused() -> None:
    held = codec("dynamodb").operations["PutItem"]
    deep = b'{"Item":{"a":' + b'{"L":[' * 400 + b'{"S":"x"}' + b"]}" * 400 + b"}}"
    try:
        found = held.parse("json", Head("POST", b"/", [], {}), deep)
        held.validate(found)
    except Refused as refused:
        assert refused.code in ("SerializationException", "ValidationException")


def test_a_duplicate_key_counts_once_and_unknown_members_are_passed_over() -> None:
    held = codec("sagemaker").operations["DescribeModel"]
    found = held.parse(
        "json", Head("POST", b"/", [], {}), b'{"ModelName":"a","ModelName":"b","New":{"x":[1]},"Null":null}'
    )
    assert found == {"ModelName": "b"}


LAUGHS = b"""<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>
<VersioningConfiguration><Status>&b;</Status></VersioningConfiguration>"""


@pytest.mark.parametrize(
    "body",
    [
        LAUGHS,
        b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><VersioningConfiguration/>',
        LAUGHS.decode().encode("utf-16"),
        b"<VersioningConfiguration>",
        b"<Other/>",
        b"<VersioningConfiguration>&unknown;</VersioningConfiguration>",
        b"<VersioningConfiguration><Status><b/></Status></VersioningConfiguration>",
        b"<VersioningConfiguration>\xff</VersioningConfiguration>",
        b"<a>" * 100_000,
        b"\x00",
    ],
)
def test_bad_xml_is_malformed_xml(body: bytes) -> None:
    held = codec("s3").operations["PutBucketVersioning"]
    with pytest.raises(Refused) as caught:
        held.parse("rest-xml", Head("PUT", b"/bucket", [("versioning", "")], {}), body)
    assert caught.value.code == "MalformedXML"


@pytest.mark.parametrize(
    "body",
    [
        b"\xa1",
        b"\xbf",
        b"\xa1\x63ids\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x9b\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\xa1\x63ids\x82\x61a",
        b"\xa1\x63ids" + b"\x9f" * 5000,
        b"\x81" * 5000,
        b"\xc1" * 5000,
        b"\xff",
        b"\xa1\x01\x02",
        b"\xa1\x63ids\x81\x62\xff\xfe",
        b"\xa1\x63ids\x81\xd8\x23\x64(a+)",
        b"\xa1\x63ids\xd8\x1c\x81\xd8\x1d\x00",
        b"\xa1\x63ids\x81\x5f\x61a\xff",
        b"\xa1\x63ids\x81\x05",
        b"\xa0\xa0",
        b"\xf8\x18",
        b"\x1c",
    ],
)
def test_bad_cbor_is_a_serialization_exception(body: bytes) -> None:
    held = codec("codebuild").operations["BatchGetBuilds"]
    with pytest.raises(Refused) as caught:
        held.parse("smithy-rpc-v2-cbor", Head("POST", b"/", [], {}), body)
    assert caught.value.code == "SerializationException"


def test_indefinite_cbor_is_read() -> None:
    held = codec("codebuild").operations["BatchGetBuilds"]
    body = b"\xbf\x63ids\x9f\x7f\x61a\x61b\xff\x61c\xff\xff"
    assert held.parse("smithy-rpc-v2-cbor", Head("POST", b"/", [], {}), body) == {"ids": ["ab", "c"]}


@pytest.mark.parametrize(
    "body",
    [
        b"MaxItems=abc",
        b"MaxItems=1_0",
        b"MaxItems=99999999999999999999",
        b"PathPrefix.x=1&PathPrefix.y=2",
        b"MaxItems=%ff",
    ],
)
def test_bad_forms_are_malformed_input(body: bytes) -> None:
    with pytest.raises(Refused) as caught:
        codec("iam").operations["ListRoles"].parse("query", Head("POST", b"/", [], {}), body)
    assert caught.value.code == "MalformedInput"


def test_values_that_try_to_split_a_header_or_an_element_do_not() -> None:
    s3 = codec("s3").operations
    answer = s3["HeadObject"].answer("rest-xml", {"Metadata": {"a": "x\r\nset-cookie: y"}}, "r")
    assert ("x-amz-meta-a", "x  set-cookie: y") in answer.headers
    page = s3["ListObjectsV2"].answer("rest-xml", {"Name": "]]></Name><x>&\x00"}, "r")
    assert b"<Name>]]&gt;&lt;/Name&gt;&lt;x&gt;&amp;\xef\xbf\xbd</Name>" in page.body
    refused = Refused("NoSuchKey", "<script>", members={"Key": "<&>", "bad name": "x"})
    body = s3["GetObject"].error("rest-xml", refused, "r").body
    assert b"<Message>&lt;script&gt;</Message><Key>&lt;&amp;&gt;</Key><RequestId>" in body


def test_a_pattern_made_to_stall_does_not() -> None:
    from bastide.protocol.patterns import matcher

    for pattern, stall in (
        (r"(a+)+", "a" * 5000 + "!"),
        (r"^([a-z]|[a-z0-9])*$", "a" * 5000 + "!"),
        (r"(a|a?)+b", "a" * 5000),
        (r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", "a" + "-" * 5000),
        (r"(.*,)*x", "a," * 2000),
    ):
        matches = matcher(pattern)
        assert matches is not None
        begun = time.process_time()
        assert not matches(stall)
        assert time.process_time() - begun < 0.5
    assert matcher(r"(a+)+")("a" * 5000)  # type: ignore[misc]
