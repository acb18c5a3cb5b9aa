"""Tags of all services in one place: found, given and taken away, each under its own service's rules."""

from __future__ import annotations

import http.client
import json
import uuid
from typing import Any
from urllib.parse import urlsplit

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import botocore.exceptions
import cbor2
import pytest

from tests.platform import REGION, Account, Running, allow

SERVICE = "resourcegroupstaggingapi"


def refused(call: Any, **given: Any) -> str:
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**given)
    return str(error.value.response["Error"]["Code"])


def listed(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


class Things:
    """One resource of every service of an account, tagged at creation, and how each tells its tags."""

    def __init__(self, account: Account, tags: dict[str, str]) -> None:
        self.account = account
        name = f"thing-{uuid.uuid4().hex[:8]}"
        self.sagemaker, self.s3, self.kms = (account.client(one) for one in ("sagemaker", "s3", "kms"))
        self.logs, self.iam, self.ssm = (account.client(one) for one in ("logs", "iam", "ssm"))
        self.secrets = account.client("secretsmanager")
        trust = json.dumps(allow("sts:AssumeRole", Principal={"AWS": account.id}) | {"Version": "2012-10-17"})
        trust = trust.replace(', "Resource": "*"', "")
        self.s3.create_bucket(Bucket=name)
        self.s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": listed(tags)})
        group = self.sagemaker.create_model_package_group(ModelPackageGroupName=name, Tags=listed(tags))
        role = self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust, Tags=listed(tags))["Role"]
        policy = self.iam.create_policy(
            PolicyName=name, PolicyDocument=json.dumps(allow("s3:*")), Tags=listed(tags), Path="/some/"
        )["Policy"]
        user = self.iam.create_user(UserName=name, Tags=listed(tags))["User"]
        key = self.kms.create_key(Tags=[{"TagKey": one, "TagValue": tags[one]} for one in tags])["KeyMetadata"]
        self.logs.create_log_group(logGroupName=name, tags=tags)
        self.parameter = f"/{name}/x"
        self.ssm.put_parameter(Name=self.parameter, Value="v", Type="String", Tags=listed(tags))
        self.trails = account.client("cloudtrail")
        trail = self.trails.create_trail(Name=name, S3BucketName=name, TagsList=listed(tags))
        secret = self.secrets.create_secret(Name=name, SecretString="s", Tags=listed(tags))
        where = f"{REGION}:{account.id}"
        self.arns = {
            "s3:bucket": f"arn:aws:s3:::{name}",
            "sagemaker:model-package-group": group["ModelPackageGroupArn"],
            "iam:role": role["Arn"],
            "iam:policy": policy["Arn"],
            "iam:user": user["Arn"],
            "kms:key": key["Arn"],
            "logs:log-group": f"arn:aws:logs:{where}:log-group:{name}",
            "cloudtrail:trail": trail["TrailARN"],
            "secretsmanager:secret": secret["ARN"],
            "ssm:parameter": f"arn:aws:ssm:{where}:parameter{self.parameter}",
        }

    def told(self, type: str) -> dict[str, str]:
        """A resource's tags, as its own service lists them."""
        arn = self.arns[type]
        name = arn.rpartition("/")[2]
        if type == "logs:log-group":
            return dict(self.logs.list_tags_for_resource(resourceArn=arn)["tags"])
        if type == "kms:key":
            return {one["TagKey"]: one["TagValue"] for one in self.kms.list_resource_tags(KeyId=arn)["Tags"]}
        if type == "s3:bucket":
            try:
                found = self.s3.get_bucket_tagging(Bucket=arn.rpartition(":")[2])["TagSet"]
            except botocore.exceptions.ClientError as error:
                assert error.response["Error"]["Code"] == "NoSuchTagSet"
                return {}
        elif type == "sagemaker:model-package-group":
            found = self.sagemaker.list_tags(ResourceArn=arn)["Tags"]
        elif type == "cloudtrail:trail":
            found = self.trails.list_tags(ResourceIdList=[arn])["ResourceTagList"][0]["TagsList"]
        elif type == "secretsmanager:secret":
            found = self.secrets.describe_secret(SecretId=arn).get("Tags") or []
        elif type == "ssm:parameter":
            found = self.ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId=self.parameter)["TagList"]
        elif type == "iam:role":
            found = self.iam.list_role_tags(RoleName=name)["Tags"]
        elif type == "iam:user":
            found = self.iam.list_user_tags(UserName=name)["Tags"]
        else:
            found = self.iam.list_policy_tags(PolicyArn=arn)["Tags"]
        return {one["Key"]: one["Value"] for one in found}


def found(tagging: Any, **given: Any) -> dict[str, dict[str, str]]:
    pages = tagging.get_paginator("get_resources").paginate(**given)
    every = [one for page in pages for one in page["ResourceTagMappingList"]]
    shown = {one["ResourceARN"]: {tag["Key"]: tag["Value"] for tag in one["Tags"]} for one in every}
    assert len(shown) == len(every), "a resource was shown twice"
    return shown


@pytest.mark.control("TAG-01")
def test_every_service_and_the_tagging_api_tell_the_same(account: Account, neighbour: Account) -> None:
    things, tagging = Things(account, {"team": "risk", "stage": "dev"}), account.client(SERVICE)
    arns = set(things.arns.values())
    assert found(tagging) == {arn: {"team": "risk", "stage": "dev"} for arn in arns}
    for type, arn in things.arns.items():
        assert things.told(type) == {"team": "risk", "stage": "dev"}, type
        assert set(found(tagging, ResourceTypeFilters=[type])) == {arn}
    assert set(found(tagging, ResourceTypeFilters=["iam", "kms"])) == {
        arn for type, arn in things.arns.items() if type.partition(":")[0] in ("iam", "kms")
    }
    assert found(neighbour.client(SERVICE)) == {}
    made = tagging.tag_resources(ResourceARNList=[*arns, "arn:aws:s3:::not-here"], Tags={"stage": "prod", "more": ""})
    assert {arn: one["ErrorCode"] for arn, one in made["FailedResourcesMap"].items()} == {
        "arn:aws:s3:::not-here": "InvalidParameterException"
    }
    for type in things.arns:
        assert things.told(type) == {"team": "risk", "stage": "prod", "more": ""}, type
    gone = tagging.untag_resources(ResourceARNList=list(arns), TagKeys=["team", "more", "never"])
    assert gone["FailedResourcesMap"] == {}
    for type in things.arns:
        assert things.told(type) == {"stage": "prod"}, type
    assert tagging.get_tag_keys()["TagKeys"] == ["stage"]
    assert tagging.get_tag_values(Key="stage")["TagValues"] == ["prod"]
    tagging.untag_resources(ResourceARNList=list(arns), TagKeys=["stage"])
    assert found(tagging) == {} and tagging.get_tag_keys()["TagKeys"] == []
    assert things.told("s3:bucket") == {}


@pytest.mark.control("TAG-01")
def test_filters_and_pages(account: Account) -> None:
    kms, tagging = account.client("kms"), account.client(SERVICE)
    keys: dict[str, dict[str, str]] = {}
    for number in range(9):
        tags = {"n": str(number), "odd": str(number % 2)} | ({"third": ""} if number % 3 == 0 else {})
        made = kms.create_key(Tags=[{"TagKey": key, "TagValue": value} for key, value in tags.items()])
        keys[made["KeyMetadata"]["Arn"]] = tags

    def asked(*filters: tuple[str, list[str]], **more: Any) -> dict[str, dict[str, str]]:
        wanted = [{"Key": key, "Values": values} if values else {"Key": key} for key, values in filters]
        shown = found(tagging, TagFilters=wanted, ResourcesPerPage=2, **more)
        right = {
            arn: tags
            for arn, tags in keys.items()
            if all(key in tags and (not values or tags[key] in values) for key, values in filters)
        }
        assert shown == right
        return shown

    assert len(asked()) == 9
    assert len(asked(("odd", ["1"]))) == 4
    assert len(asked(("n", ["1", "5", "8", "no"]))) == 3
    assert len(asked(("third", []))) == 3
    assert len(asked(("third", []), ("odd", ["1"]))) == 1
    assert len(asked(("n", []), ("odd", ["0"]), ResourceTypeFilters=["kms:key"])) == 5
    assert asked(("none", [])) == {}
    assert found(tagging, ResourceTypeFilters=["s3"]) == {}
    assert found(tagging, ResourceARNList=list(keys)[:3]) == {arn: keys[arn] for arn in list(keys)[:3]}
    values = tagging.get_tag_values(Key="n")["TagValues"]
    assert values == sorted(str(number) for number in range(9))
    first = tagging.get_resources(ResourcesPerPage=2)["PaginationToken"]
    for wrong in (
        {"ResourcesPerPage": 0},
        {"ResourcesPerPage": 101},
        {"TagsPerPage": 150},
        {"ResourceTypeFilters": [":x"]},
        {"TagFilters": [{"Values": ["x"]}]},
        {"ResourceARNList": list(keys)[:1], "TagFilters": [{"Key": "n"}]},
        {"ResourceARNList": ["nonsense"]},
        {"ExcludeCompliantResources": True},
    ):
        assert refused(tagging.get_resources, **wrong) == "InvalidParameterException"
    expired = {"PaginationToken": first, "TagFilters": [{"Key": "n"}]}
    assert refused(tagging.get_resources, **expired) == "PaginationTokenExpiredException"
    hundred = found(tagging, TagsPerPage=100)
    assert hundred == keys


@pytest.mark.control("TAG-01")
def test_each_service_has_its_own_rules_and_questions(account: Account) -> None:
    things, tagging = Things(account, {"team": "risk"}), account.client(SERVICE)
    every = list(things.arns.values())
    assert refused(tagging.tag_resources, ResourceARNList=every, Tags={"aws:x": "y"}) == "InvalidParameterException"
    many = {f"k{number}": "" for number in range(50)}
    failed = tagging.tag_resources(ResourceARNList=every, Tags=many)["FailedResourcesMap"]
    assert {arn: one["ErrorCode"] for arn, one in failed.items()} == {
        things.arns["s3:bucket"]: "BadRequest",
        things.arns["sagemaker:model-package-group"]: "ValidationException",
        things.arns["iam:role"]: "LimitExceeded",
        things.arns["iam:policy"]: "LimitExceeded",
        things.arns["iam:user"]: "LimitExceeded",
        things.arns["kms:key"]: "LimitExceededException",
        things.arns["logs:log-group"]: "TooManyTagsException",
        things.arns["cloudtrail:trail"]: "TagsLimitExceededException",
        things.arns["secretsmanager:secret"]: "InvalidParameterException",
        things.arns["ssm:parameter"]: "TooManyTagsError",
    }
    for type in things.arns:
        assert things.told(type) == {"team": "risk"}, "what was refused changed nothing"
    account.role("Tagger", allow("tag:*", "kms:TagResource", "kms:UntagResource", "s3:PutBucketTagging"))
    tagger = account.client(SERVICE, account.as_role("Tagger"))
    failed = tagger.tag_resources(ResourceARNList=every, Tags={"new": "1"})["FailedResourcesMap"]
    assert set(failed) == set(every) - {things.arns["kms:key"]}
    assert {one["ErrorCode"] for one in failed.values()} == {"AccessDenied", "AccessDeniedException"}
    assert things.told("kms:key") == {"team": "risk", "new": "1"}
    account.role("Nobody", allow("kms:*"))
    nobody = account.client(SERVICE, account.as_role("Nobody"))
    for call, given in (
        (nobody.get_resources, {}),
        (nobody.get_tag_keys, {}),
        (nobody.get_tag_values, {"Key": "team"}),
        (nobody.tag_resources, {"ResourceARNList": every, "Tags": {"a": "b"}}),
        (nobody.untag_resources, {"ResourceARNList": every, "TagKeys": ["team"]}),
    ):
        assert refused(call, **given) == "AccessDeniedException"


@pytest.mark.control("TAG-01")
def test_the_policy_engine_sees_tags_at_once(account: Account) -> None:
    things, tagging = Things(account, {"team": "risk"}), account.client(SERVICE)
    key = things.arns["kms:key"]
    only = {"StringEquals": {"aws:ResourceTag/team": "it"}}
    account.role("It", allow("kms:Encrypt", Condition=only))
    kms = account.client("kms", account.as_role("It"))
    assert refused(kms.encrypt, KeyId=key, Plaintext=b"x") == "AccessDeniedException"
    tagging.tag_resources(ResourceARNList=[key], Tags={"team": "it"})
    kms.encrypt(KeyId=key, Plaintext=b"x")
    tagging.untag_resources(ResourceARNList=[key], TagKeys=["team"])
    assert refused(kms.encrypt, KeyId=key, Plaintext=b"x") == "AccessDeniedException"
    # What the caller's tags are is asked by the service that tags, whoever passes them on.
    stage = {"StringEquals": {"aws:RequestTag/stage": "dev"}, "ForAllValues:StringEquals": {"aws:TagKeys": ["stage"]}}
    account.role("Stage", allow("kms:TagResource", Condition=stage))
    account.client("iam").put_role_policy(
        RoleName="Stage", PolicyName="tag", PolicyDocument=json.dumps(allow("tag:TagResources"))
    )
    staged = account.client(SERVICE, account.as_role("Stage"))
    assert staged.tag_resources(ResourceARNList=[key], Tags={"stage": "dev"})["FailedResourcesMap"] == {}
    for tags in ({"stage": "prod"}, {"stage": "dev", "more": "x"}):
        failed = staged.tag_resources(ResourceARNList=[key], Tags=tags)["FailedResourcesMap"]
        assert failed[key]["ErrorCode"] == "AccessDeniedException"


@pytest.mark.control("TAG-01")
def test_reserved_and_doubled_keys_at_creation(account: Account) -> None:
    reserved, twice = {"aws:x": "y"}, [{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}]
    sagemaker, iam, kms, s3 = (account.client(one) for one in ("sagemaker", "iam", "kms", "s3"))
    for tags in (listed(reserved), twice, listed({f"k{number}": "" for number in range(51)})):
        if len(tags) <= 50:
            assert refused(iam.create_user, UserName="u", Tags=tags) == "InvalidInput"
            group = {"ModelPackageGroupName": "g", "Tags": tags}
            assert refused(sagemaker.create_model_package_group, **group) == "ValidationException"
        named = [{"TagKey": one["Key"], "TagValue": one["Value"]} for one in tags]
        assert refused(kms.create_key, Tags=named) == "TagException"
        bucket = f"tags-{uuid.uuid4().hex[:12]}"
        asked = {"Bucket": bucket, "CreateBucketConfiguration": {"Tags": tags}}
        assert refused(s3.create_bucket, **asked) in ("InvalidTag", "BadRequest")
        s3.create_bucket(Bucket=bucket)
        assert refused(s3.put_bucket_tagging, Bucket=bucket, Tagging={"TagSet": tags}) in ("InvalidTag", "BadRequest")
    logs = account.client("logs")
    assert refused(logs.create_log_group, logGroupName="g", tags=reserved) == "InvalidParameterException"


def test_compliance_with_the_tag_policy(platform: Running, account: Account) -> None:
    org = platform.client("organizations")
    [root] = org.list_roots()["Roots"]
    if "TAG_POLICY" not in {one["Type"] for one in root["PolicyTypes"]}:
        org.enable_policy_type(RootId=root["Id"], PolicyType="TAG_POLICY")
    content = {"tags": {"Team": {"tag_key": {"@@assign": "Team"}, "tag_value": {"@@assign": ["risk"]}}}}
    given = {"Name": f"tags-{account.id}", "Description": "", "Type": "TAG_POLICY", "Content": json.dumps(content)}
    policy = org.create_policy(**given)["Policy"]["PolicySummary"]["Id"]
    org.attach_policy(PolicyId=policy, TargetId=account.id)
    kms, tagging = account.client("kms"), account.client(SERVICE)
    made = {}
    for key, value in (("Team", "risk"), ("team", "risk"), ("Team", "it")):
        arn = kms.create_key(Tags=[{"TagKey": key, "TagValue": value}])["KeyMetadata"]["Arn"]
        made[arn] = (["team"] if key == "team" else [], ["Team"] if value == "it" else [])
    shown = {
        one["ResourceARN"]: one["ComplianceDetails"]
        for one in tagging.get_resources(IncludeComplianceDetails=True)["ResourceTagMappingList"]
    }
    assert {arn: (one["NoncompliantKeys"], one["KeysWithNoncompliantValues"]) for arn, one in shown.items()} == made
    assert [one["ComplianceStatus"] for one in shown.values()].count(True) == 1
    wrong = tagging.get_resources(IncludeComplianceDetails=True, ExcludeCompliantResources=True)
    assert {one["ResourceARN"] for one in wrong["ResourceTagMappingList"]} == {
        arn for arn, faults in made.items() if any(faults)
    }


def test_names_of_others_are_not_ones_own(account: Account, neighbour: Account) -> None:
    mine, theirs = account.role("Same"), neighbour.role("Same")
    tagging = account.client(SERVICE)
    foreign = [theirs, mine.replace("role/", "role/path/"), f"arn:aws:kms:eu-west-1:{account.id}:key/x", "x", "arn:"]
    failed = tagging.tag_resources(ResourceARNList=foreign, Tags={"a": "b"})["FailedResourcesMap"]
    assert {one["ErrorCode"] for one in failed.values()} == {"InvalidParameterException"} and len(failed) == 5
    for one in (account, neighbour):
        assert one.client("iam").list_role_tags(RoleName="Same")["Tags"] == []


def test_what_is_no_name_is_refused_by_its_service(account: Account) -> None:
    tags = listed({"a": "b"})
    # What begins as an ARN of nothing here is denied before any service reads it: no policy could speak of it.
    add = account.client("ssm").add_tags_to_resource
    for name, code in (
        ("none", "InvalidResourceId"),
        ("a:1:2", "InvalidResourceId"),
        ("arn:x", "AccessDeniedException"),
    ):
        assert refused(add, ResourceType="Parameter", ResourceId=name, Tags=tags) == code
    trails = account.client("cloudtrail")
    for given, code in (("arn:aws:x", "CloudTrailARNInvalidException"), ("x", "CloudTrailARNInvalidException"),
                        ("arn:x", "AccessDeniedException")):  # fmt: skip
        assert refused(trails.add_tags, ResourceId=given, TagsList=tags) == code
    nowhere = f"arn:aws:cloudtrail:{REGION}:{account.id}:trail/none"
    assert refused(trails.add_tags, ResourceId=nowhere, TagsList=tags) == "ResourceNotFoundException"


def test_buckets_belong_to_their_region(account: Account) -> None:
    bucket = f"west-{uuid.uuid4().hex[:12]}"
    west = account.client("s3", region="eu-west-1")
    west.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    west.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": listed({"a": "b"})})
    account.client("iam").create_user(UserName="u", Tags=listed({"c": "d"}))
    assert set(found(account.client(SERVICE, region="eu-west-1"))) == {f"arn:aws:s3:::{bucket}"}
    assert set(found(account.client(SERVICE))) == {f"arn:aws:iam::{account.id}:user/u"}


def test_the_organisation_is_the_management_accounts(platform: Running, account: Account) -> None:
    tagging = platform.client(SERVICE)
    arn = platform.client("organizations").describe_account(AccountId=account.id)["Account"]["Arn"]
    value = uuid.uuid4().hex
    assert tagging.tag_resources(ResourceARNList=[arn], Tags={"unit": value})["FailedResourcesMap"] == {}
    assert found(tagging, TagFilters=[{"Key": "unit", "Values": [value]}]) == {arn: {"unit": value}}
    failed = account.client(SERVICE).tag_resources(ResourceARNList=[arn], Tags={"unit": "mine"})["FailedResourcesMap"]
    assert failed[arn]["ErrorCode"] == "InvalidParameterException"
    tagging.untag_resources(ResourceARNList=[arn], TagKeys=["unit"])


def test_both_protocols(platform: Running, account: Account) -> None:
    key = account.client("kms").create_key(Tags=[{"TagKey": "a", "TagValue": "b"}])["KeyMetadata"]["Arn"]
    wanted = [{"ResourceARN": key, "Tags": [{"Key": "a", "Value": "b"}]}]
    name, asked = "ResourceGroupsTaggingAPI_20170126", {"TagFilters": [{"Key": "a"}]}
    in_json = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": f"{name}.GetResources"}
    in_cbor = {"Content-Type": "application/cbor", "Smithy-Protocol": "rpc-v2-cbor", "Accept": "application/cbor"}
    connection = http.client.HTTPConnection(urlsplit(platform.http).netloc, timeout=30)
    held = account.keys
    credentials = botocore.credentials.Credentials(held.access_key, held.secret, held.token)
    try:
        for path, headers, write, read in (
            ("/", in_json, lambda told: json.dumps(told).encode(), json.loads),
            (f"/service/{name}/operation/GetResources", in_cbor, cbor2.dumps, cbor2.loads),
        ):
            body = write(asked)
            request = botocore.awsrequest.AWSRequest(
                method="POST", url=platform.http + path, data=body, headers=headers
            )
            botocore.auth.SigV4Auth(credentials, "tagging", REGION).add_auth(request)
            connection.request("POST", path, body, dict(request.headers.items()))
            answer = connection.getresponse()
            told = answer.read()
            assert answer.status == 200, told
            assert read(told)["ResourceTagMappingList"] == wanted
    finally:
        connection.close()
