"""Lifecycle rules: what is refused, what answers say, and what is gone when the time has come."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from botocore.exceptions import ClientError

from tests.moved import Moved, moved, until
from tests.platform import Account, Running, allow

EXPIRE = {"Expiration": {"Days": 1}}


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moved]:
    yield from moved(tmp_path_factory.mktemp("moved"))


def bucket(client: Any, *, versions: bool = False) -> str:
    name = f"b-{uuid.uuid4().hex[:16]}"
    client.create_bucket(Bucket=name)
    if versions:
        client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


def rule(id: str = "one", **said: Any) -> dict[str, Any]:
    base: dict[str, Any] = {"ID": id, "Status": "Enabled"}
    if "Filter" not in said and "Prefix" not in said:
        base["Filter"] = {"Prefix": ""}
    return {**base, **said}


def put(client: Any, name: str, *rules: dict[str, Any]) -> None:
    client.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": list(rules)})


def removals(timed: Moved, name: str) -> dict[str, tuple[str, str]]:
    """What the record says S3 removed by itself: by key the call it stands for, and the rule."""
    kept = timed.look(lambda view: [orjson.loads(one.body) for one in view.events_after(0, limit=1000)])
    return {
        one["requestParameters"]["key"]: (one["eventName"], one["serviceEventDetails"]["ruleId"])
        for one in kept
        if one["eventType"] == "AwsServiceEvent" and one["requestParameters"]["bucketName"] == name
    }


def names(client: Any, name: str) -> list[str]:
    return [one["Key"] for one in client.list_objects_v2(Bucket=name).get("Contents", ())]


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        ([], "MalformedXML"),
        ([rule(**EXPIRE), rule(**EXPIRE)], "InvalidArgument"),
        ([rule("x" * 256, **EXPIRE)], "InvalidArgument"),
        ([rule()], "InvalidRequest"),
        ([rule(Status="enabled", **EXPIRE)], "MalformedXML"),
        ([rule(Prefix="a", Filter={"Prefix": "a"}, **EXPIRE)], "MalformedXML"),
        ([{"ID": "none", "Status": "Enabled", **EXPIRE}], "MalformedXML"),
        ([rule(Filter={"Prefix": "a", "ObjectSizeGreaterThan": 1}, **EXPIRE)], "MalformedXML"),
        ([rule(Filter={"And": {"Prefix": "a"}}, **EXPIRE)], "MalformedXML"),
        ([rule(Filter={"And": {"ObjectSizeGreaterThan": 9, "ObjectSizeLessThan": 9}}, **EXPIRE)], "InvalidRequest"),
        ([rule(Filter={"And": {"Tags": [{"Key": "a", "Value": "b"}] * 2}}, **EXPIRE)], "InvalidRequest"),
        ([rule(Prefix="x" * 1025, **EXPIRE)], "InvalidRequest"),
        ([rule(Expiration={"Days": 0})], "InvalidArgument"),
        ([rule(Expiration={"Days": 1, "ExpiredObjectDeleteMarker": True})], "MalformedXML"),
        ([rule(Expiration={"Date": datetime(2030, 1, 1, 1, tzinfo=UTC)})], "InvalidArgument"),
        ([rule(Filter={"Tag": {"Key": "a", "Value": "b"}}, Expiration={"ExpiredObjectDeleteMarker": True})],
         "InvalidRequest"),
        ([rule(NoncurrentVersionExpiration={"NewerNoncurrentVersions": 3})], "MalformedXML"),
        ([rule(NoncurrentVersionExpiration={"NoncurrentDays": 1, "NewerNoncurrentVersions": 101})], "InvalidArgument"),
        ([rule(Prefix="", NoncurrentVersionExpiration={"NoncurrentDays": 1, "NewerNoncurrentVersions": 1})],
         "InvalidRequest"),
        ([rule(AbortIncompleteMultipartUpload={"DaysAfterInitiation": 0})], "InvalidArgument"),
        ([rule(Filter={"ObjectSizeLessThan": 9}, AbortIncompleteMultipartUpload={"DaysAfterInitiation": 1})],
         "InvalidRequest"),
        ([rule(Transitions=[{"Days": 30, "StorageClass": "GLACIER"}])], "NotImplemented"),
    ],
)  # fmt: skip
def test_what_is_no_rule_is_refused(timed: Moved, rules: list[dict[str, Any]], code: str) -> None:
    client = timed.client("s3")
    name = bucket(client)
    with pytest.raises(ClientError) as refused:
        put(client, name, *rules)
    assert refused.value.response["Error"]["Code"] == code
    with pytest.raises(ClientError) as refused:
        client.get_bucket_lifecycle_configuration(Bucket=name)
    assert refused.value.response["Error"]["Code"] == "NoSuchLifecycleConfiguration"


def test_rules_are_kept_as_they_were_given(timed: Moved) -> None:
    client = timed.client("s3")
    name = bucket(client)
    given = [
        rule("days", **EXPIRE),
        rule("date", Prefix="old/", Expiration={"Date": datetime(2030, 1, 1, tzinfo=UTC)}),
        rule("and", Filter={"And": {"Prefix": "a", "Tags": [{"Key": "k", "Value": "v"}]}}, Status="Disabled", **EXPIRE),
        rule("older", NoncurrentVersionExpiration={"NoncurrentDays": 3, "NewerNoncurrentVersions": 2}),
        rule("abort", AbortIncompleteMultipartUpload={"DaysAfterInitiation": 7}),
    ]
    put(client, name, *given)
    answer = client.get_bucket_lifecycle_configuration(Bucket=name)
    assert answer["Rules"] == given
    put(client, name, {"Status": "Enabled", "Prefix": "", **EXPIRE})
    assert client.get_bucket_lifecycle_configuration(Bucket=name)["Rules"][0]["ID"]
    client.delete_bucket_lifecycle(Bucket=name)
    client.delete_bucket_lifecycle(Bucket=name)
    with pytest.raises(ClientError, match="NoSuchLifecycleConfiguration"):
        client.get_bucket_lifecycle_configuration(Bucket=name)


def test_answers_tell_when_an_object_expires(timed: Moved) -> None:
    client = timed.client("s3")
    name = bucket(client)
    put(
        client, name, rule("in a week", Prefix="w/", Expiration={"Days": 7}), rule("later", Expiration={"Days": 9}),
        rule("abort", AbortIncompleteMultipartUpload={"DaysAfterInitiation": 2}),
    )  # fmt: skip
    made = client.put_object(Bucket=name, Key="w/a", Body=b"x")
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=8)
    assert made["Expiration"] == f'expiry-date="{day:%a, %d %b %Y} 00:00:00 GMT", rule-id="in%20a%20week"'
    assert client.get_object(Bucket=name, Key="w/a")["Expiration"] == made["Expiration"]
    assert client.head_object(Bucket=name, Key="w/a")["Expiration"] == made["Expiration"]
    copied = client.copy_object(Bucket=name, Key="b", CopySource=f"{name}/w/a")
    assert copied["Expiration"].endswith('rule-id="later"')
    begun = client.create_multipart_upload(Bucket=name, Key="c")
    assert begun["AbortRuleId"] == "abort"
    assert begun["AbortDate"] == day - timedelta(days=5)
    parts = client.list_parts(Bucket=name, Key="c", UploadId=begun["UploadId"])
    assert parts["AbortDate"] == begun["AbortDate"]


def test_objects_go_when_their_day_has_come_and_not_before(timed: Moved) -> None:
    client = timed.client("s3")
    name = bucket(client)
    put(
        client, name, rule("tmp", Prefix="tmp/", Expiration={"Days": 2}),
        rule("big", Filter={"And": {"Prefix": "log/", "ObjectSizeGreaterThan": 4}}, Expiration={"Days": 2}),
        rule("tag", Filter={"Tag": {"Key": "keep", "Value": "no"}}, Expiration={"Days": 2}),
        rule("off", Prefix="off/", Status="Disabled", Expiration={"Days": 2}),
        rule("abort", Prefix="up/", AbortIncompleteMultipartUpload={"DaysAfterInitiation": 2}),
    )  # fmt: skip
    client.put_bucket_notification_configuration(
        Bucket=name, NotificationConfiguration={"EventBridgeConfiguration": {}}
    )
    for key in ("tmp/a", "tmp/b", "log/tiny", "off/a", "stays"):
        client.put_object(Bucket=name, Key=key, Body=b"1234")
    client.put_object(Bucket=name, Key="log/large", Body=b"x" * 100_000)
    client.put_object(Bucket=name, Key="tagged", Body=b"1", Tagging="keep=no")
    client.put_object(Bucket=name, Key="tagged-otherwise", Body=b"1", Tagging="keep=yes")
    for key in ("up/a", "elsewhere"):
        id = client.create_multipart_upload(Bucket=name, Key=key)["UploadId"]
        client.upload_part(Bucket=name, Key=key, UploadId=id, PartNumber=1, Body=b"part")
    before = names(client, name)
    rounds = timed.running.expiry
    with timed.days_later(1.9):
        mark = timed.clock()
        until(lambda: rounds.last is not None and rounds.last >= mark)
    assert names(client, name) == before
    with timed.days_later(3):
        mark = timed.clock()
        until(lambda: rounds.last is not None and rounds.last >= mark)
        until(lambda: sum(one["message"]["detail-type"] == "Object Deleted" for one in timed.told) >= 4)
    assert names(client, name) == ["log/tiny", "off/a", "stays", "tagged-otherwise"]
    until(lambda: [u["Key"] for u in client.list_multipart_uploads(Bucket=name)["Uploads"]] == ["elsewhere"])
    gone = [one["message"] for one in timed.told if one["message"]["detail-type"] == "Object Deleted"]
    assert {one["detail"]["object"]["key"] for one in gone} == {"tmp/a", "tmp/b", "log/large", "tagged"}
    assert {one["detail"]["reason"] for one in gone} == {"Lifecycle Expiration"}
    assert {one["detail"]["requester"] for one in gone} == {"s3.amazonaws.com"}
    until(lambda: removals(timed, name) == {
        "tmp/a": ("DeleteObject", "tmp"), "tmp/b": ("DeleteObject", "tmp"), "log/large": ("DeleteObject", "big"),
        "tagged": ("DeleteObject", "tag"), "up/a": ("AbortMultipartUpload", "abort"),
    })  # fmt: skip


def test_versions_and_delete_markers(timed: Moved) -> None:
    client = timed.client("s3")
    name = bucket(client, versions=True)
    for text in (b"1", b"2", b"3", b"4"):
        client.put_object(Bucket=name, Key="many", Body=text)
    client.put_object(Bucket=name, Key="one", Body=b"1")
    client.put_object(Bucket=name, Key="marked", Body=b"1")
    client.delete_object(Bucket=name, Key="marked")
    put(
        client, name, rule("older", NoncurrentVersionExpiration={"NoncurrentDays": 2, "NewerNoncurrentVersions": 2}),
        rule("current", Prefix="one", Expiration={"Days": 2}),
    )  # fmt: skip

    def shape() -> list[tuple[str, bool]]:
        # By the rows, because nothing may be called while the clock is moved.
        rows = timed.look(
            lambda view: [
                row
                for kind in ("s3:Object", "s3:ObjectVersion")
                for row in view.scan(kind, "111122223333", "us-east-1", prefix=f"{name}/", limit=100)
            ]
        )
        return sorted((row.name.partition("\0")[0].removeprefix(f"{name}/"), bool(row.doc.get("dm"))) for row in rows)

    with timed.days_later(5):
        until(lambda: shape().count(("many", False)) == 3 and ("one", True) in shape())
    listed = client.list_object_versions(Bucket=name)
    bodies = [
        client.get_object(Bucket=name, Key="many", VersionId=one["VersionId"])["Body"].read()
        for one in listed["Versions"]
        if one["Key"] == "many"
    ]
    assert bodies == [b"4", b"3", b"2"]
    with pytest.raises(ClientError, match="NoSuchKey"):
        client.get_object(Bucket=name, Key="one")
    assert ("one", False) in shape()
    # Nothing is kept behind markers now, and they go when nothing is behind them.
    put(
        client, name, rule("older", NoncurrentVersionExpiration={"NoncurrentDays": 1}),
        rule("markers", Expiration={"ExpiredObjectDeleteMarker": True}),
    )  # fmt: skip
    with timed.days_later(9):
        until(lambda: shape() == [("many", False), ("marked", True), ("one", True)])
    with timed.days_later(11):
        until(lambda: shape() == [("many", False)])


def test_who_may_set_rules(platform: Running, account: Account) -> None:
    client = account.client("s3")
    name = bucket(client)
    account.role("reader", allow("s3:GetLifecycleConfiguration"))
    reader = account.client("s3", account.as_role("reader"))
    put(client, name, rule(**EXPIRE))
    assert reader.get_bucket_lifecycle_configuration(Bucket=name)["Rules"][0]["ID"] == "one"
    for work in (lambda: put(reader, name, rule(**EXPIRE)), lambda: reader.delete_bucket_lifecycle(Bucket=name)):
        with pytest.raises(ClientError, match="AccessDenied"):
            work()
