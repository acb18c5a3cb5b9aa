"""Sessions of users: a second factor, somebody vouched for, what they may never do, and when they end."""

from __future__ import annotations

import base64
import concurrent.futures
import datetime
import hmac
import json
import struct
import time
from typing import Any

import botocore.exceptions
import pytest

from tests.platform import Account, Keys, Running, allow
from tests.stories.sts.test_sessions import DENIED, refusal, role, trusting

BARRED = ("InvalidClientTokenId", 403)
STEP = 30


def code(seed: bytes, step: int) -> str:
    """A one-time code, from the text of RFC 4226."""
    digest = hmac.new(base64.b32decode(seed), struct.pack(">Q", step), "sha1").digest()
    at = digest[-1] & 0xF
    return f"{(struct.unpack('>I', digest[at : at + 4])[0] & 0x7FFFFFFF) % 1_000_000:06d}"


def now() -> int:
    """The time step, with room enough before the next one for a few calls."""
    if time.time() % STEP > STEP - 4:
        time.sleep(STEP - time.time() % STEP + 0.05)
    return int(time.time()) // STEP


class Person:
    """A user with a key, and a virtual device."""

    def __init__(self, platform: Running, account: Account, name: str, policy: Any = None) -> None:
        self.platform, self.account, self.name = platform, account, name
        self.iam = account.client("iam")
        self.arn: str = self.iam.create_user(UserName=name)["User"]["Arn"]
        if policy is not None:
            self.iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=json.dumps(policy))
        made = self.iam.create_access_key(UserName=name)["AccessKey"]
        self.keys = Keys(made["AccessKeyId"], made["SecretAccessKey"])

    def device(self) -> str:
        """Makes and enables a device; its serial number."""
        made = self.iam.create_virtual_mfa_device(VirtualMFADeviceName=self.name)["VirtualMFADevice"]
        self.seed: bytes = made["Base32StringSeed"]
        step = now()
        self.iam.enable_mfa_device(
            UserName=self.name,
            SerialNumber=made["SerialNumber"],
            AuthenticationCode1=code(self.seed, step - 2),
            AuthenticationCode2=code(self.seed, step - 1),
        )
        serial: str = made["SerialNumber"]
        return serial

    def sts(self) -> Any:
        return self.platform.client("sts", self.keys)

    def session(self, **more: Any) -> Keys:
        return keys_of(self.sts().get_session_token(**more))


def keys_of(answer: Any) -> Keys:
    given = answer["Credentials"]
    return Keys(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])


def test_a_session_of_a_user(platform: Running, account: Account) -> None:
    person = Person(platform, account, "ann", allow("s3:*", "iam:*", "sts:*"))
    answer = person.sts().get_session_token(DurationSeconds=900)
    left = answer["Credentials"]["Expiration"] - datetime.datetime.now(datetime.UTC)
    assert datetime.timedelta(seconds=880) < left <= datetime.timedelta(seconds=900)
    keys = keys_of(answer)
    sts = platform.client("sts", keys)
    who = sts.get_caller_identity()
    assert who["Arn"] == person.arn and who["UserId"].startswith("AIDA")
    platform.client("s3", keys).list_buckets()
    # No IAM without a second factor, and of STS only this.
    assert refusal(platform.client("iam", keys).get_user) == BARRED
    assert refusal(sts.get_session_token) == DENIED
    assert refusal(sts.get_federation_token, Name="xx") == DENIED
    assert refusal(sts.get_access_key_info, AccessKeyId=keys.access_key) == DENIED
    arn = role(account, "R", trusting({"AWS": person.arn}), allow("s3:*"), MaxSessionDuration=7200)
    chained = keys_of(sts.assume_role(RoleArn=arn, RoleSessionName="me", DurationSeconds=7200))  # is no chain of roles
    assert refusal(platform.client("sts", chained).get_session_token) == DENIED
    assert refusal(platform.client("sts", chained).get_federation_token, Name="xx") == DENIED
    unchecked = platform.client("sts", person.keys, parameter_validation=False)
    assert refusal(unchecked.get_session_token, DurationSeconds=899) == ("ValidationError", 400)


def test_a_second_factor(platform: Running, account: Account) -> None:
    with_factor = {"Bool": {"aws:MultiFactorAuthPresent": "true"}, "NumericLessThan": {"aws:MultiFactorAuthAge": "300"}}
    person = Person(platform, account, "bob", allow("s3:*", "iam:*", Condition=with_factor))
    serial = person.device()
    assert refusal(platform.client("s3", person.keys).list_buckets) == DENIED
    assert refusal(platform.client("s3", person.session()).list_buckets) == DENIED
    step = now()
    good = code(person.seed, step)
    keys = person.session(SerialNumber=serial, TokenCode=good)
    platform.client("s3", keys).list_buckets()
    platform.client("iam", keys).get_user()
    # Once only, and no earlier one any more; the device of the caller alone.
    assert refusal(person.session, SerialNumber=serial, TokenCode=good) == DENIED
    assert refusal(person.session, SerialNumber=serial, TokenCode=code(person.seed, step - 1)) == DENIED
    assert refusal(person.session, SerialNumber=serial, TokenCode=code(person.seed, step + 5)) == DENIED
    assert refusal(person.session, SerialNumber=serial) == ("ValidationError", 400)
    other = Person(platform, account, "eve", allow("s3:*"))
    next_code = code(person.seed, step + 1)
    assert refusal(other.session, SerialNumber=serial, TokenCode=next_code) == DENIED
    assert refusal(other.session, SerialNumber="GAHT12345678", TokenCode=next_code) == DENIED
    person.session(SerialNumber=serial, TokenCode=next_code)


def test_a_code_is_good_once_also_at_the_same_moment(platform: Running, account: Account) -> None:
    person = Person(platform, account, "nia")
    serial = person.device()
    given = {"SerialNumber": serial, "TokenCode": code(person.seed, now())}
    clients = [person.sts() for _ in range(6)]

    def ask(client: Any) -> bool:
        try:
            client.get_session_token(**given)
        except botocore.exceptions.ClientError as error:
            assert error.response["Error"]["Code"] == "AccessDenied"
            return False
        return True

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(ask, clients)) == 1


def test_guessing_codes(platform: Running, account: Account) -> None:
    person = Person(platform, account, "carl")
    serial = person.device()
    step = now()
    good = code(person.seed, step)
    wrong = next(
        text
        for text in map("{:06d}".format, range(10))
        if text not in {code(person.seed, step + n) for n in (-1, 0, 1)}
    )
    for _ in range(5):
        assert refusal(person.session, SerialNumber=serial, TokenCode=wrong) == DENIED
    assert refusal(person.session, SerialNumber=serial, TokenCode=good) == DENIED


def test_a_role_that_wants_a_second_factor(platform: Running, account: Account) -> None:
    person = Person(platform, account, "dora")
    serial = person.device()
    condition = {"Bool": {"aws:MultiFactorAuthPresent": "true"}}
    present = allow("iam:GetRole", Condition=condition)
    arn = role(account, "Careful", trusting({"AWS": person.arn}, Condition=condition), present)
    sts = person.sts()
    given = {"RoleArn": arn, "RoleSessionName": "me"}
    assert refusal(sts.assume_role, **given) == DENIED
    assert refusal(sts.assume_role, **given, SerialNumber=serial, TokenCode="000000") == DENIED
    attributes = [{"AttributeKey": "EventName", "AttributeValue": "AssumeRole"}]
    events = account.client("cloudtrail").lookup_events(LookupAttributes=attributes)["Events"]
    failed = [json.loads(one["CloudTrailEvent"]) for one in events if one.get("Username") == "dora"]
    assert [one["errorCode"] for one in failed] == ["AccessDenied", "AccessDenied"]
    assert "MultiFactorAuthentication failed" in failed[0]["errorMessage"]
    assert failed[0]["requestParameters"]["tokenCode"] == "HIDDEN_DUE_TO_SECURITY_REASONS"
    keys = keys_of(sts.assume_role(**given, SerialNumber=serial, TokenCode=code(person.seed, now())))
    # The factor was shown to the trust policy; the role's own requests do not carry it.
    assert refusal(platform.client("iam", keys).get_role, RoleName="Careful") == DENIED
    session = person.session(SerialNumber=serial, TokenCode=code(person.seed, int(time.time()) // STEP + 1))
    platform.client("sts", session).assume_role(**given)


def test_somebody_a_user_vouches_for(platform: Running, account: Account) -> None:
    may = {"Version": "2012-10-17", "Statement": [
        *allow("s3:ListAllMyBuckets", "s3:CreateBucket", "iam:*")["Statement"],
        *allow("sts:GetFederationToken", resource=f"arn:aws:sts::{account.id}:federated-user/vendor-*")["Statement"],
    ]}  # fmt: skip
    person = Person(platform, account, "fred", may)
    sts = person.sts()
    narrow = json.dumps(allow("s3:ListAllMyBuckets", "s3:PutObject"))
    answer = sts.get_federation_token(Name="vendor-1", Policy=narrow, DurationSeconds=900)
    assert answer["FederatedUser"] == {
        "FederatedUserId": f"{account.id}:vendor-1",
        "Arn": f"arn:aws:sts::{account.id}:federated-user/vendor-1",
    }
    assert 0 < answer["PackedPolicySize"] < 10
    keys = keys_of(answer)
    assert platform.client("sts", keys).get_caller_identity()["Arn"] == answer["FederatedUser"]["Arn"]
    s3 = platform.client("s3", keys)
    s3.list_buckets()
    # Both have to allow; IAM and the rest of STS never.
    bucket = f"federated-{account.id}"
    assert refusal(s3.create_bucket, Bucket=bucket) == DENIED
    account.client("s3").create_bucket(Bucket=bucket)
    assert refusal(s3.put_object, Bucket=bucket, Key="k", Body=b"x") == DENIED
    assert refusal(platform.client("iam", keys).get_user) == BARRED
    arn = role(account, "For", trusting({"AWS": account.id}))
    assert refusal(platform.client("sts", keys).assume_role, RoleArn=arn, RoleSessionName="xx") == DENIED
    assert refusal(platform.client("sts", keys).get_federation_token, Name="vendor-2") == DENIED
    # Without session policies only what a resource grants by name.
    bare = keys_of(sts.get_federation_token(Name="vendor-2"))
    assert refusal(platform.client("s3", bare).list_buckets) == DENIED
    policy = allow("s3:PutObject", resource=f"arn:aws:s3:::{bucket}/*")
    policy["Statement"][0]["Principal"] = {"AWS": f"arn:aws:sts::{account.id}:federated-user/vendor-2"}
    account.client("s3").put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    platform.client("s3", bare).put_object(Bucket=bucket, Key="k", Body=b"x")
    assert refusal(s3.put_object, Bucket=bucket, Key="k", Body=b"x") == DENIED
    # Whom it may name, tags, and their size.
    assert refusal(sts.get_federation_token, Name="other") == DENIED
    tags = [{"Key": "team", "Value": "risk"}]
    assert refusal(sts.get_federation_token, Name="vendor-1", Tags=tags) == DENIED
    by_tag = allow("s3:ListAllMyBuckets", "sts:*", Condition={"StringEquals": {"aws:PrincipalTag/team": "risk"}})
    person.iam.put_user_policy(
        UserName="fred", PolicyName="tags",
        PolicyDocument=json.dumps(allow("sts:TagSession", "sts:GetFederationToken")),
    )  # fmt: skip
    tagged = keys_of(sts.get_federation_token(Name="tt", Tags=tags, Policy=json.dumps(by_tag)))
    platform.client("s3", tagged).list_buckets()
    untagged = keys_of(sts.get_federation_token(Name="tt", Policy=json.dumps(by_tag)))
    assert refusal(platform.client("s3", untagged).list_buckets) == DENIED
    large = [{"Key": f"{'k' * 90}{n}", "Value": "v" * 250} for n in range(20)]
    assert refusal(sts.get_federation_token, Name="tt", Tags=large)[0] == "PackedPolicyTooLarge"
    assert refusal(sts.get_federation_token, Name="tt", Policy="{}")[0] == "MalformedPolicyDocument"
    nowhere = [{"arn": f"arn:aws:iam::{account.id}:policy/Nowhere"}]
    assert refusal(sts.get_federation_token, Name="tt", PolicyArns=nowhere)[0] == "ValidationError"


@pytest.mark.parametrize("end", ["delete the key", "disable the key", "delete the user"])
def test_they_end_with_the_user_and_its_key(platform: Running, account: Account, end: str) -> None:
    person = Person(platform, account, "gil", allow("s3:*", "sts:*"))
    policy = json.dumps(allow("s3:*"))
    sessions = [person.session(), keys_of(person.sts().get_federation_token(Name="vv", Policy=policy))]
    for keys in sessions:
        platform.client("s3", keys).list_buckets()
    if end == "disable the key":
        person.iam.update_access_key(UserName="gil", AccessKeyId=person.keys.access_key, Status="Inactive")
    else:
        person.iam.delete_access_key(UserName="gil", AccessKeyId=person.keys.access_key)
    if end == "delete the user":
        person.iam.delete_user_policy(UserName="gil", PolicyName="p")
        person.iam.delete_user(UserName="gil")
        Person(platform, account, "gil", allow("s3:*"))  # somebody else of that name
    for keys in sessions:
        assert refusal(platform.client("s3", keys).list_buckets)[1] == 403
    if end == "disable the key":
        person.iam.update_access_key(UserName="gil", AccessKeyId=person.keys.access_key, Status="Active")
        platform.client("s3", sessions[0]).list_buckets()


def test_sessions_are_revoked_as_in_aws(platform: Running, account: Account) -> None:
    """A Deny for tokens issued before an instant, which the console calls "revoke sessions"."""
    arn = role(account, "Revoked", trusting({"AWS": account.id}), allow("iam:GetRole"))
    old = platform.assume(arn, account.keys)
    platform.client("iam", old).get_role(RoleName="Revoked")
    time.sleep(1.1)
    before = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    deny = allow("*", Condition={"DateLessThan": {"aws:TokenIssueTime": before}})
    deny["Statement"][0]["Effect"] = "Deny"
    account.client("iam").put_role_policy(
        RoleName="Revoked", PolicyName="AWSRevokeOlderSessions", PolicyDocument=json.dumps(deny)
    )
    assert refusal(platform.client("iam", old).get_role, RoleName="Revoked") == DENIED
    platform.client("iam", platform.assume(arn, account.keys)).get_role(RoleName="Revoked")


def test_whose_session_key(platform: Running, account: Account, neighbour: Account) -> None:
    sts = account.client("sts")
    person = Person(platform, neighbour, "hal")
    for keys, owner in (
        (account.keys, account.id),
        (neighbour.keys, neighbour.id),
        (person.session(), neighbour.id),
        (person.keys, neighbour.id),
    ):
        assert sts.get_access_key_info(AccessKeyId=keys.access_key)["Account"] == owner
    for unknown in ("ASIA" + "7" * 16, "ASIA" + "A" * 16, "ASIA" + "9" * 16):
        assert refusal(sts.get_access_key_info, AccessKeyId=unknown) == ("ValidationError", 400)


def test_a_refusal_can_be_decoded(platform: Running, account: Account, neighbour: Account) -> None:
    arn = role(account, "Reader", trusting({"AWS": account.id}), allow("s3:*"))
    deny = allow("s3:ListAllMyBuckets", Sid="NoListing")
    deny["Statement"][0]["Effect"] = "Deny"
    account.client("iam").put_role_policy(RoleName="Reader", PolicyName="d", PolicyDocument=json.dumps(deny))
    keys = platform.assume(arn, account.keys, "me")
    told: dict[str, Any] = {}
    for name, call in (
        ("implicit", lambda: platform.client("iam", keys).get_role(RoleName="Reader")),
        ("explicit", lambda: platform.client("s3", keys).list_buckets()),
        ("json", lambda: platform.client("kms", keys).list_keys()),
    ):
        with pytest.raises(botocore.exceptions.ClientError) as caught:
            call()
        text = caught.value.response["Error"]["Message"]
        told[name] = text.partition(" Encoded authorization failure message: ")[2]
        assert told[name], text
    sts = account.client("sts")
    found = {name: json.loads(sts.decode_authorization_message(EncodedMessage=one)["DecodedMessage"])
             for name, one in told.items()}  # fmt: skip
    assert all(one["allowed"] is False for one in found.values())
    assert found["implicit"]["explicitDeny"] is False and found["implicit"]["matchedStatements"]["items"] == []
    context = found["implicit"]["context"]
    assert context["action"] == "iam:GetRole" and context["resource"] == arn
    assert context["principal"]["arn"] == f"arn:aws:sts::{account.id}:assumed-role/Reader/me"
    seen = {one["key"]: [value["value"] for value in one["values"]["items"]] for one in context["conditions"]["items"]}
    assert seen["aws:principalarn"] == [arn] and seen["aws:securetransport"] == ["true"]
    assert found["explicit"]["explicitDeny"] is True
    assert found["explicit"]["matchedStatements"]["items"][0]["statementId"] == "NoListing"
    assert found["json"]["context"]["action"] == "kms:ListKeys"
    # Not what is none, not another account's, and not without the permission.
    invalid = ("InvalidAuthorizationMessageException", 400)
    good = told["explicit"]
    for one in ("x", good[:-1] + ("A" if good[-1] != "A" else "B"), keys.token[:400] if keys.token else ""):
        assert refusal(sts.decode_authorization_message, EncodedMessage=one) == invalid
    assert refusal(neighbour.client("sts").decode_authorization_message, EncodedMessage=good) == invalid
    assert refusal(platform.client("sts", keys).decode_authorization_message, EncodedMessage=good) == DENIED
