"""The whole way of a request as an attacker walks it: borrowed deputies, dead sessions, replayed and altered requests."""

from __future__ import annotations

import datetime
import hashlib
import http.client
import json
import time
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import botocore.exceptions
import pytest

from tests.platform import REGION, Account, Keys, Running, allow

IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"


def code(error: pytest.ExceptionInfo[botocore.exceptions.ClientError]) -> str:
    """AWS's error code."""
    return str(error.value.response["Error"]["Code"])


def send(
    platform: Running,
    keys: Keys,
    service: str,
    target: str = "/",
    *,
    method: str = "POST",
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    unsigned: Mapping[str, str] | None = None,
    altered: Mapping[str, str] | None = None,
    sent_target: str = "",
    sent_body: bytes | None = None,
    sign_at: datetime.datetime | None = None,
) -> tuple[int, str]:
    """Signs one request and sends another: with `unsigned` headers added, `altered` ones replaced, another target or
    body. Returns status and answer."""
    netloc = urlsplit(platform.http).netloc
    request = botocore.awsrequest.AWSRequest(method=method, url=f"http://{netloc}{target}", data=body)
    for name, value in (headers or {}).items():
        request.headers[name] = value
    if service == "s3":
        request.headers["X-Amz-Content-SHA256"] = hashlib.sha256(body).hexdigest()
    signer = botocore.auth.S3SigV4Auth if service == "s3" else botocore.auth.SigV4Auth
    credentials = botocore.credentials.Credentials(keys.access_key, keys.secret, keys.token)
    if sign_at is not None:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: sign_at)
            signer(credentials, service, REGION).add_auth(request)
    else:
        signer(credentials, service, REGION).add_auth(request)
    told = {**dict(request.headers.items()), **(altered or {}), **(unsigned or {})}
    connection = http.client.HTTPConnection(netloc, timeout=60)
    try:
        connection.request(method, sent_target or target, body if sent_body is None else sent_body, told)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


FORM = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
WHO = b"Action=GetCallerIdentity&Version=2011-06-15"


# -- deputies ----------------------------------------------------------------------------------------------------------


def _job(role: str) -> dict[str, Any]:
    return {
        "ProcessingJobName": f"deputy-{uuid.uuid4().hex[:8]}",
        "RoleArn": role,
        "AppSpecification": {"ImageUri": IMAGE, "ContainerEntrypoint": ["true"]},
        "ProcessingResources": {
            "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1}
        },
    }


def test_no_service_lends_its_hand_to_a_neighbour(account: Account, neighbour: Account) -> None:
    """A role that trusts SageMaker in its own account is of no use to another account's administrator."""
    role = account.role("trusting", allow("s3:*"), trust={"Service": "sagemaker.amazonaws.com"})
    with pytest.raises(botocore.exceptions.ClientError) as passed:
        neighbour.client("sagemaker").create_processing_job(**_job(role))
    assert code(passed) in ("AccessDeniedException", "ValidationException")
    assert not neighbour.client("sagemaker").list_processing_jobs()["ProcessingJobSummaries"]


@pytest.mark.parametrize("whose", ["own", "another"])
def test_a_trust_policy_that_names_the_account_holds_the_service_to_it(account: Account, whose: str) -> None:
    """``aws:SourceAccount`` is what the service says of whom it acts for, and a role may insist on it."""
    meant = account.id if whose == "own" else "999999999999"
    account.role("worker")
    account.client("iam").update_assume_role_policy(
        RoleName="worker",
        PolicyDocument=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Principal": {"Service": "sagemaker.amazonaws.com"},
                        "Action": "sts:AssumeRole",
                        "Condition": {"StringEquals": {"aws:SourceAccount": meant}},
                    }
                ],
            }
        ),
    )
    sagemaker = account.client("sagemaker")
    job = _job(f"arn:aws:iam::{account.id}:role/worker")
    if whose == "another":
        with pytest.raises(botocore.exceptions.ClientError) as refused:
            sagemaker.create_processing_job(**job)
        assert code(refused) == "ValidationException"
        return
    sagemaker.create_processing_job(**job)


def test_a_service_principal_cannot_be_claimed(account: Account) -> None:
    """Being a service is not something that a caller can say of itself."""
    for header in ("x-amz-source-account", "x-amz-source-arn", "x-amzn-service-principal", "x-amz-via"):
        told = {**FORM, header: "sagemaker.amazonaws.com"}
        status, answer = send(account.platform, account.keys, "sts", body=WHO, headers=told)
        assert status == 200 and "assumed-role/OrganizationAccountAccessRole" in answer


def test_what_a_service_does_for_somebody_is_asked_as_that_somebody(account: Account) -> None:
    """A bucket under a key does not lend the key's use to whoever may write to the bucket."""
    kms, s3 = account.client("kms"), account.client("s3")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    bucket = f"deputy-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=bucket)
    s3.put_bucket_encryption(
        Bucket=bucket,
        ServerSideEncryptionConfiguration={
            "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}}]
        },
    )
    account.role("writer", allow("s3:PutObject", "s3:GetObject"))
    mine = account.client("s3", account.as_role("writer"))
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        mine.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert code(refused) == "AccessDenied"
    assert "kms:GenerateDataKey" in refused.value.response["Error"]["Message"]
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    with pytest.raises(botocore.exceptions.ClientError) as read:
        mine.get_object(Bucket=bucket, Key="k")
    assert "kms:Decrypt" in read.value.response["Error"]["Message"]


# -- sessions and keys that end ----------------------------------------------------------------------------------------


def test_a_session_of_a_deleted_role_is_nobody_and_stays_nobody(account: Account) -> None:
    account.role("brief", allow("s3:ListAllMyBuckets"))
    keys = account.as_role("brief")
    mine = account.client("s3", keys)
    mine.list_buckets()
    iam = account.client("iam")
    iam.delete_role_policy(RoleName="brief", PolicyName="inline")
    iam.delete_role(RoleName="brief")
    with pytest.raises(botocore.exceptions.ClientError) as gone:
        mine.list_buckets()
    assert code(gone) == "InvalidAccessKeyId"
    account.role("brief", allow("s3:ListAllMyBuckets"))
    with pytest.raises(botocore.exceptions.ClientError) as still:
        mine.list_buckets()
    assert code(still) == "InvalidAccessKeyId"


def test_a_key_that_is_disabled_in_mid_session_opens_nothing_any_more(account: Account) -> None:
    iam = account.client("iam")
    iam.create_user(UserName="uma")
    iam.put_user_policy(UserName="uma", PolicyName="p", PolicyDocument=json.dumps(allow("sts:*", "s3:*")))
    made = iam.create_access_key(UserName="uma")["AccessKey"]
    mine = account.client("s3", Keys(made["AccessKeyId"], made["SecretAccessKey"]))
    mine.list_buckets()
    iam.update_access_key(UserName="uma", AccessKeyId=made["AccessKeyId"], Status="Inactive")
    with pytest.raises(botocore.exceptions.ClientError) as inactive:
        mine.list_buckets()
    assert code(inactive) == "InvalidAccessKeyId"
    iam.update_access_key(UserName="uma", AccessKeyId=made["AccessKeyId"], Status="Active")
    mine.list_buckets()


def test_a_kms_key_that_is_disabled_shuts_what_lies_under_it_at_once(account: Account) -> None:
    kms, s3 = account.client("kms"), account.client("s3")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    bucket = f"shut-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ServerSideEncryption="aws:kms", SSEKMSKeyId=key)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    kms.disable_key(KeyId=key)
    with pytest.raises(botocore.exceptions.ClientError) as shut:
        s3.get_object(Bucket=bucket, Key="k")
    assert code(shut) in ("KMS.DisabledException", "KMSDisabledException", "DisabledException", "AccessDenied")


def test_a_chain_of_roles_does_not_buy_time(account: Account) -> None:
    """Each link of a chain lives an hour at most, however long the roles' own sessions may be."""
    first = account.role("first", allow("sts:AssumeRole"), MaxSessionDuration=43200)
    second = account.role("second", allow("s3:*"), MaxSessionDuration=43200)
    keys = account.platform.assume(first, account.keys, DurationSeconds=3600)
    with pytest.raises(botocore.exceptions.ClientError) as longer:
        account.platform.assume(second, keys, DurationSeconds=3601)
    assert code(longer) == "ValidationError" and "1 hour" in longer.value.response["Error"]["Message"]
    account.platform.assume(second, keys, DurationSeconds=3600)


def test_a_session_cannot_widen_itself(account: Account) -> None:
    """A narrow session takes on its own role again only if the role trusts it, and tokens do not mix."""
    arn = account.role("wide", allow("s3:*", "sts:*"))
    narrow = account.platform.assume(
        arn, account.keys, Policy=json.dumps(allow("sts:GetCallerIdentity", "s3:ListAllMyBuckets"))
    )
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        account.platform.assume(arn, narrow)
    assert code(refused) == "AccessDenied"
    broad = account.platform.assume(arn, account.keys)
    for mixed in (
        Keys(narrow.access_key, narrow.secret, broad.token),
        Keys(broad.access_key, narrow.secret, broad.token),
        Keys(narrow.access_key, broad.secret, narrow.token),
        Keys(narrow.access_key, narrow.secret, None),
    ):
        with pytest.raises(botocore.exceptions.ClientError) as unknown:
            account.client("s3", mixed).list_buckets()
        assert code(unknown) in ("InvalidAccessKeyId", "SignatureDoesNotMatch")


# -- between question and deed -----------------------------------------------------------------------------------------


def test_a_tag_that_changes_is_seen_by_the_next_question(account: Account) -> None:
    """Decisions by tag read the tag as it is, not as it was when somebody was last asked."""
    sagemaker = account.client("sagemaker")
    group = sagemaker.create_model_package_group(
        ModelPackageGroupName="shared", Tags=[{"Key": "team", "Value": "alpha"}]
    )["ModelPackageGroupArn"]
    account.role(
        "alpha",
        allow("sagemaker:DescribeModelPackageGroup", Condition={"StringEquals": {"aws:ResourceTag/team": "alpha"}}),
    )
    mine = account.client("sagemaker", account.as_role("alpha"))
    for _ in range(5):
        mine.describe_model_package_group(ModelPackageGroupName="shared")
        sagemaker.add_tags(ResourceArn=group, Tags=[{"Key": "team", "Value": "bravo"}])
        with pytest.raises(botocore.exceptions.ClientError) as refused:
            mine.describe_model_package_group(ModelPackageGroupName="shared")
        assert code(refused) == "AccessDeniedException"
        sagemaker.add_tags(ResourceArn=group, Tags=[{"Key": "team", "Value": "alpha"}])


# -- what the wire says ------------------------------------------------------------------------------------------------


def test_headers_do_not_say_who_asks_or_from_where(account: Account) -> None:
    account.role(
        "inside",
        allow("sts:GetCallerIdentity", "s3:ListAllMyBuckets", Condition={"IpAddress": {"aws:SourceIp": "10.1.0.0/16"}}),
    )
    account.role("behind", allow("s3:ListAllMyBuckets", Condition={"StringEquals": {"aws:SourceVpc": "vpc-1"}}))
    forged = {
        "X-Forwarded-For": "10.1.2.3",
        "Forwarded": "for=10.1.2.3",
        "X-Real-IP": "10.1.2.3",
        "X-Amz-Source-Vpc": "vpc-1",
        "X-Amz-Source-Vpce": "vpce-1",
        "aws:SourceIp": "10.1.2.3",
        "aws:PrincipalArn": "arn:aws:iam::111122223333:user/administrator",
    }
    for role in ("inside", "behind"):
        for name, value in forged.items():
            status, answer = send(
                account.platform, account.as_role(role), "s3", method="GET", unsigned={name.replace(":", "-"): value}
            )
            assert status == 403 and "AccessDenied" in answer, name


def test_a_signature_for_one_service_opens_no_other(account: Account) -> None:
    for service in ("s3", "iam", "kms", "sagemaker"):
        status, answer = send(account.platform, account.keys, service, body=WHO, headers=FORM)
        assert status in (400, 403, 404, 405), (service, status, answer)
        assert "GetCallerIdentityResult" not in answer


def test_a_request_is_good_for_a_quarter_of_an_hour_and_not_beforehand(account: Account) -> None:
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    for minutes, good in ((-16, False), (-14, True), (14, True), (16, False)):
        status, answer = send(
            account.platform,
            account.keys,
            "sts",
            body=WHO,
            headers=FORM,
            sign_at=now + datetime.timedelta(minutes=minutes),
        )
        assert (status == 200) is good, (minutes, answer)


def test_what_is_not_signed_changes_nothing(account: Account, neighbour: Account) -> None:
    """Another body, target, host, token, operation or S3 directive than was signed is refused."""
    body, keys = WHO, account.keys
    other = b"Action=GetAccessKeyInfo&Version=2011-06-15&AccessKeyId=" + keys.access_key.encode()
    assert send(account.platform, keys, "sts", body=body, headers=FORM)[0] == 200
    for changed in (
        {"sent_body": other},
        {"sent_target": "/?Action=GetAccessKeyInfo"},
        {"altered": {"Host": "sts.amazonaws.com"}},
        {"altered": {"X-Amz-Security-Token": str(neighbour.keys.token)}},
        {"altered": {"X-Amz-Date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() + 60))}},
    ):
        given: dict[str, Any] = changed
        status, answer = send(account.platform, keys, "sts", body=body, headers=FORM, **given)
        assert status == 403, (changed, answer)
    bucket = f"signed-{uuid.uuid4().hex[:12]}"
    account.client("s3").create_bucket(Bucket=bucket)
    for name, value in (
        ("x-amz-acl", "public-read"),
        ("x-amz-tagging", "security=shared"),
        ("x-amz-server-side-encryption", "AES256"),
        ("x-amz-meta-owner", "mallory"),
        ("x-amz-bypass-governance-retention", "true"),
    ):
        status, answer = send(
            account.platform, keys, "s3", f"/{bucket}/k", method="PUT", body=b"x", unsigned={name: value}
        )
        assert status == 403, (name, answer)
    assert account.client("s3").list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_two_of_a_kind_are_not_read_twice(account: Account) -> None:
    """A second Authorization header, or one beside a presigned query, makes a request that nobody signed."""
    netloc = urlsplit(account.platform.http).netloc
    request = botocore.awsrequest.AWSRequest(method="POST", url=f"http://{netloc}/", data=WHO)
    request.headers["Content-Type"] = FORM["Content-Type"]
    held = account.keys
    credentials = botocore.credentials.Credentials(held.access_key, held.secret, held.token)
    botocore.auth.SigV4Auth(credentials, "sts", REGION).add_auth(request)
    connection = http.client.HTTPConnection(netloc, timeout=60)
    connection.putrequest("POST", "/", skip_accept_encoding=True)
    for name, value in request.headers.items():
        connection.putheader(name, value)
    connection.putheader(
        "Authorization", "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20260101/x/sts/aws4_request"
    )
    connection.putheader("Content-Length", str(len(WHO)))
    connection.endheaders(WHO)
    assert connection.getresponse().status in (400, 403)
    connection.close()
    presigned = (
        f"/?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={held.access_key}%2F20260101%2F{REGION}%2Fsts%2Faws4_request"
        "&X-Amz-Date=20260101T000000Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host&X-Amz-Signature=" + "0" * 64
    )
    status, _ = send(account.platform, held, "sts", body=WHO, headers=FORM, sent_target=presigned)
    assert status in (400, 403)


# -- names -------------------------------------------------------------------------------------------------------------


def test_letters_of_another_case_name_nothing(account: Account) -> None:
    """ARNs are compared as they are: neither a policy nor a call in another case reaches a resource."""
    sagemaker = account.client("sagemaker")
    sagemaker.create_model_package_group(ModelPackageGroupName="Secret")
    policy = allow("sagemaker:DescribeModelPackageGroup")
    policy["Statement"].append(
        {
            "Effect": "Deny",
            "Action": "SAGEMAKER:describemodelpackagegroup",
            "Resource": f"arn:aws:sagemaker:{REGION}:{account.id}:model-package-group/Secret",
        }
    )
    account.role("reader", policy)
    mine = account.client("sagemaker", account.as_role("reader"))
    prefix = f"arn:aws:sagemaker:{REGION}:{account.id}:model-package-group"
    for name in (
        "Secret",
        f"{prefix}/Secret",
        "secret",
        f"{prefix}/secret",
        f"{prefix.replace('group', 'Group')}/Secret",
        f"{prefix.replace('sagemaker', 'SageMaker')}/Secret",
        f"{prefix.replace('arn:aws', 'arn:AWS')}/Secret",
        f"{prefix.replace(REGION, REGION.upper())}/Secret",
    ):
        with pytest.raises(botocore.exceptions.ClientError) as refused:
            mine.describe_model_package_group(ModelPackageGroupName=name)
        assert code(refused) in ("AccessDeniedException", "ValidationException"), name
        assert "CreationTime" not in str(refused.value.response)
