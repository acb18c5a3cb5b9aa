"""The spine's controls, with real clients, in both directions."""

from __future__ import annotations

import itertools
import json
import ssl
import uuid
from typing import Any
from urllib.parse import urlsplit

import botocore.exceptions
import pytest

from tests.platform import HOME, Account, Keys, Running, allow, lies_in, on_disk


def code(error: pytest.ExceptionInfo[botocore.exceptions.ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def refused(call: Any, **given: Any) -> str:
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**given)
    return code(error)


# -- ACC-01 ------------------------------------------------------------------------------------------------------------


@pytest.mark.control("ACC-01")
def test_accounts_are_separate_namespaces(platform: Running) -> None:
    names = ("shared-services", "data-management", "data-science", "test-uat", "production")
    accounts = [platform.account(f"{name}-{uuid.uuid4().hex[:6]}") for name in names]
    seen = set()
    for one in accounts:
        one.role("same-name", allow("s3:*"))
        seen.add(one.client("sts", one.as_role("same-name")).get_caller_identity()["Account"])
    assert len(seen) == 5


@pytest.mark.control("ACC-01")
def test_an_administrator_has_nothing_in_another_account(account: Account, neighbour: Account) -> None:
    bucket = f"prod-{uuid.uuid4().hex[:12]}"
    neighbour.client("s3").create_bucket(Bucket=bucket)
    neighbour.client("s3").put_object(Bucket=bucket, Key="k", Body=b"secret")
    s3 = account.client("s3")
    assert refused(s3.get_object, Bucket=bucket, Key="k") == "AccessDenied"
    assert refused(s3.get_object, Bucket=bucket, Key="not-there") == "AccessDenied"
    neighbour.role("target", allow("s3:*"))
    sts = account.client("sts")
    arn = f"arn:aws:iam::{neighbour.id}:role/target"
    assert refused(sts.assume_role, RoleArn=arn, RoleSessionName="xx") == "AccessDenied"
    assert refused(sts.assume_role, RoleArn=arn + "-missing", RoleSessionName="xx") == "AccessDenied"


@pytest.mark.control("ACC-01")
def test_a_pair_works_and_breaks_when_either_side_is_removed(account: Account, neighbour: Account) -> None:
    target = neighbour.role("target", allow("s3:ListAllMyBuckets"), trust={"AWS": f"arn:aws:iam::{account.id}:root"})
    account.role("caller", allow("sts:AssumeRole", resource=target))
    caller = account.as_role("caller")
    inside = account.platform.assume(target, caller)
    assert neighbour.client("sts", inside).get_caller_identity()["Account"] == neighbour.id
    sts = account.client("sts", caller)
    account.client("iam").put_role_policy(
        RoleName="caller", PolicyName="inline", PolicyDocument=json.dumps(allow("s3:*"))
    )
    assert refused(sts.assume_role, RoleArn=target, RoleSessionName="xx") == "AccessDenied"
    account.client("iam").put_role_policy(
        RoleName="caller", PolicyName="inline", PolicyDocument=json.dumps(allow("sts:AssumeRole", resource=target))
    )
    sts.assume_role(RoleArn=target, RoleSessionName="xx")
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{HOME}:root"}, "Action": "sts:AssumeRole"}
        ],
    }
    neighbour.client("iam").update_assume_role_policy(RoleName="target", PolicyDocument=json.dumps(trust))
    assert refused(sts.assume_role, RoleArn=target, RoleSessionName="xx") == "AccessDenied"


# -- IAM-01 ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def matrix(platform: Running) -> tuple[Account, str]:
    """An account below an OU of its own, with a bucket."""
    account = platform.account()
    organizations = platform.client("organizations")
    root = organizations.list_roots()["Roots"][0]["Id"]
    unit = organizations.create_organizational_unit(ParentId=root, Name=f"matrix-{uuid.uuid4().hex[:6]}")[
        "OrganizationalUnit"
    ]["Id"]
    organizations.move_account(AccountId=account.id, SourceParentId=root, DestinationParentId=unit)
    document = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Deny",
                "Action": "s3:GetBucketLocation",
                "Resource": "*",
                "Condition": {"StringLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/denied-*"}},
            }
        ],
    }
    policy = organizations.create_policy(
        Name=f"matrix-{uuid.uuid4().hex[:6]}",
        Description="",
        Type="SERVICE_CONTROL_POLICY",
        Content=json.dumps(document),
    )
    organizations.attach_policy(PolicyId=policy["Policy"]["PolicySummary"]["Id"], TargetId=unit)
    bucket = f"matrix-{uuid.uuid4().hex[:12]}"
    account.client("s3").create_bucket(Bucket=bucket)
    return account, bucket


@pytest.mark.control("IAM-01")
@pytest.mark.parametrize(
    ("identity", "resource", "boundary", "session", "scp"),
    list(itertools.product((False, True), (False, True), (None, False, True), (None, False, True), (False, True))),
)
def test_the_documented_order_of_evaluation(
    matrix: tuple[Account, str], identity: bool, resource: bool, boundary: bool | None, session: bool | None, scp: bool
) -> None:
    """identity allow, resource allow (naming the role), boundary, session policy, SCP deny: outcome of a real call."""
    account, bucket = matrix
    name = f"{'denied' if scp else 'plain'}-{uuid.uuid4().hex[:10]}"
    more: dict[str, Any] = {}
    iam = account.client("iam")
    yes, other = allow("s3:GetBucketLocation"), allow("s3:ListBucket")
    if boundary is not None:
        made = iam.create_policy(PolicyName=f"b-{name}", PolicyDocument=json.dumps(yes if boundary else other))
        more["PermissionsBoundary"] = made["Policy"]["Arn"]
    arn = account.role(name, yes if identity else other, **more)
    given = {} if session is None else {"Policy": json.dumps(yes if session else other)}
    keys = account.platform.assume(arn, account.keys, **given)
    s3 = account.client("s3")
    if resource:
        statement = {
            "Effect": "Allow",
            "Principal": {"AWS": arn},
            "Action": "s3:GetBucketLocation",
            "Resource": f"arn:aws:s3:::{bucket}",
        }
        s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    else:
        s3.delete_bucket_policy(Bucket=bucket)
    wanted = not scp and (identity or resource) and boundary is not False and session is not False
    client = account.client("s3", keys)
    if wanted:
        client.get_bucket_location(Bucket=bucket)
    else:
        assert refused(client.get_bucket_location, Bucket=bucket) == "AccessDenied"


@pytest.mark.control("IAM-01")
def test_each_way_of_being_nobody_has_its_code(platform: Running, account: Account) -> None:
    import http.client

    body = b"Action=GetCallerIdentity&Version=2011-06-15"
    connection = http.client.HTTPConnection(urlsplit(platform.http).netloc, timeout=60)
    connection.request("POST", "/", body, {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"})
    answer = connection.getresponse()
    assert answer.status == 403 and b"<Code>MissingAuthenticationToken</Code>" in answer.read()
    connection.close()
    right = account.keys
    wrong = Keys(right.access_key, "x" * 40, right.token)
    assert refused(account.client("sts", wrong).get_caller_identity) == "SignatureDoesNotMatch"
    unknown = Keys("AKIAUNKNOWNUNKNOWN00", "x" * 40)
    assert refused(account.client("sts", unknown).get_caller_identity) == "InvalidClientTokenId"
    tampered = Keys(right.access_key, right.secret, (right.token or "")[:-8] + "AAAAAAAA")
    assert refused(account.client("sts", tampered).get_caller_identity) == "InvalidClientTokenId"
    account.role("nothing", allow("s3:ListAllMyBuckets"))
    assert refused(account.client("iam", account.as_role("nothing")).list_roles) == "AccessDenied"


@pytest.mark.control("IAM-01")
def test_a_session_ends_with_its_role(account: Account) -> None:
    account.role("short", allow("s3:ListAllMyBuckets"))
    keys = account.as_role("short")
    account.client("s3", keys).list_buckets()
    iam = account.client("iam")
    iam.delete_role_policy(RoleName="short", PolicyName="inline")
    iam.delete_role(RoleName="short")
    account.role("short", allow("s3:ListAllMyBuckets"))
    assert refused(account.client("sts", keys).get_caller_identity) == "InvalidClientTokenId"


# -- ENC-02 ------------------------------------------------------------------------------------------------------------


def handshake(running: Running, version: ssl.TLSVersion) -> str | None:
    import socket
    import warnings

    context = ssl.create_default_context(cafile=running.authority)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = version
        if version < ssl.TLSVersion.TLSv1_2:
            context.set_ciphers("DEFAULT:@SECLEVEL=0")
    where = urlsplit(running.url)
    with (
        socket.create_connection(("127.0.0.1", where.port or 0), timeout=60) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as wrapped,
    ):
        return wrapped.version()


@pytest.mark.control("ENC-02")
def test_tls_has_a_floor(platform: Running) -> None:
    assert handshake(platform, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    assert handshake(platform, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    for old in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        with pytest.raises(ssl.SSLError):
            handshake(platform, old)


@pytest.mark.control("ENC-02")
def test_plain_http_is_not_secure_transport(account: Account) -> None:
    bucket = f"tls-{uuid.uuid4().hex[:12]}"
    s3 = account.client("s3")
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    plain = account.client("s3", plain=True)
    assert plain.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    assert refused(plain.get_object, Bucket=bucket, Key="k") == "AccessDenied"
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


# -- AUD-02 ------------------------------------------------------------------------------------------------------------


@pytest.mark.control("AUD-02")
def test_each_event_names_who_what_when_and_from_where(account: Account) -> None:
    account.role("auditee", allow("iam:CreateUser", "iam:TagUser"))
    keys = account.as_role("auditee", session="alice")
    iam = account.client("iam", keys)
    iam.create_user(UserName="made", Tags=[{"Key": "team", "Value": "risk"}])
    assert refused(iam.delete_user, UserName="made") == "AccessDenied"
    trail = account.client("cloudtrail")
    events = trail.lookup_events(LookupAttributes=[{"AttributeKey": "Username", "AttributeValue": "alice"}])["Events"]
    found = {event["EventName"]: json.loads(event["CloudTrailEvent"]) for event in events}
    made, denied = found["CreateUser"], found["DeleteUser"]
    who = made["userIdentity"]
    assert (who["type"], who["accountId"]) == ("AssumedRole", account.id)
    assert who["arn"] == f"arn:aws:sts::{account.id}:assumed-role/auditee/alice"
    assert who["sessionContext"]["sessionIssuer"]["arn"] == f"arn:aws:iam::{account.id}:role/auditee"
    assert made["eventSource"] == "iam.amazonaws.com" and made["eventTime"].endswith("Z")
    assert made["sourceIPAddress"] == "127.0.0.1" and "Boto3" in made["userAgent"]
    assert made["requestParameters"]["userName"] == "made"
    assert made["responseElements"]["user"]["arn"].endswith(":user/made")
    assert "errorCode" not in made and made["readOnly"] is False
    assert denied["errorCode"] == "AccessDenied" and "DeleteUser" in denied["errorMessage"]


@pytest.mark.control("AUD-02")
def test_no_secret_reaches_the_record(account: Account) -> None:
    iam, kms = account.client("iam"), account.client("kms")
    iam.create_user(UserName="keyed")
    secret = iam.create_access_key(UserName="keyed")["AccessKey"]["SecretAccessKey"]
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    blob = kms.encrypt(KeyId=key, Plaintext=b"PLAINTEXT-MARKER")["CiphertextBlob"]
    kms.decrypt(CiphertextBlob=blob)
    account.role("quiet", allow("s3:ListAllMyBuckets"))
    session = account.as_role("quiet")
    pages = account.client("cloudtrail").get_paginator("lookup_events").paginate()
    text = "".join(event["CloudTrailEvent"] for page in pages for event in page["Events"])
    assert "CreateAccessKey" in text and "Decrypt" in text and "AssumeRole" in text
    for hidden in (secret, "PLAINTEXT-MARKER", session.secret, session.token or "?"):
        assert hidden not in text
    hidden_ones = [one.encode() for one in (secret, "PLAINTEXT-MARKER", session.secret)]
    for path in on_disk(account.platform.data):
        assert path.name == "administrator.json" or not lies_in(path, *hidden_ones), path


@pytest.mark.control("AUD-02")
def test_what_failed_after_it_was_allowed_names_its_resource(account: Account) -> None:
    iam = account.client("iam")
    iam.create_user(UserName="twice")
    assert refused(iam.create_user, UserName="twice") == "EntityAlreadyExists"
    found = account.client("cloudtrail").lookup_events(
        LookupAttributes=[{"AttributeKey": "ResourceName", "AttributeValue": f"arn:aws:iam::{account.id}:user/twice"}]
    )["Events"]
    records = [json.loads(event["CloudTrailEvent"]) for event in found]
    assert sorted(record.get("errorCode", "") != "" for record in records) == [False, True]
