"""Parameter Store through boto3: values, versions, labels, hierarchies, secrets under a key, who may and who may not."""

from __future__ import annotations

import json
import sqlite3
import time
from typing import Any

import botocore.exceptions
import pytest

from tests.platform import REGION, Account, allow
from tests.waiting import until


def code(error: pytest.ExceptionInfo[botocore.exceptions.ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def refused(wanted: str, call: Any, **given: Any) -> str:
    """The message of a call that must be refused with that code."""
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**given)
    assert code(error) == wanted, error.value
    return str(error.value.response["Error"]["Message"])


def test_versions_labels_and_history(account: Account) -> None:
    ssm = account.client("ssm")
    assert ssm.put_parameter(Name="/app/url", Value="one", Type="String", Description="where")["Version"] == 1
    refused("ParameterAlreadyExists", ssm.put_parameter, Name="/app/url", Value="two", Type="String")
    assert ssm.put_parameter(Name="/app/url", Value="two", Overwrite=True)["Version"] == 2
    labelled = ssm.label_parameter_version(Name="/app/url", ParameterVersion=1, Labels=["prod", "aws-x", "1st"])
    assert labelled["InvalidLabels"] == ["aws-x", "1st"] and labelled["ParameterVersion"] == 1
    for name, value in (("/app/url", "two"), ("/app/url:1", "one"), ("/app/url:2", "two"), ("/app/url:prod", "one")):
        found = ssm.get_parameter(Name=name)["Parameter"]
        assert found["Value"] == value and found["Name"] == "/app/url"
        assert found["ARN"] == f"arn:aws:ssm:{REGION}:{account.id}:parameter/app/url"
    refused("ParameterVersionNotFound", ssm.get_parameter, Name="/app/url:3")
    ssm.put_parameter(Name="bare", Value="b", Type="String")
    assert ssm.get_parameter(Name="/bare")["Parameter"]["Name"] == "/bare"
    # A secret is read as a parameter, by whoever may read it.
    made = account.client("secretsmanager").create_secret(Name="db", SecretString="s")
    where = "/aws/reference/secretsmanager/db"
    secret = ssm.get_parameter(Name=where, WithDecryption=True)["Parameter"]
    assert (secret["Name"], secret["Value"], secret["ARN"]) == (where, "s", made["ARN"])
    assert json.loads(secret["SourceResult"])["versionId"] == made["VersionId"]
    account.role("lesser", allow("ssm:GetParameter"))
    lesser = account.client("ssm", account.as_role("lesser"))
    refused("AccessDeniedException", lesser.get_parameter, Name=where, WithDecryption=True)
    refused("ValidationException", ssm.get_parameter, Name=where)
    absent = refused("ParameterNotFound", ssm.get_parameter, Name=f"{where}x", WithDecryption=True)
    assert f"{where}x not found" in absent
    refused("ParameterVersionNotFound", ssm.get_parameter, Name="/app/url:test")
    refused("ParameterNotFound", ssm.get_parameter, Name="/app/none")
    ssm.label_parameter_version(Name="/app/url", Labels=["prod"])  # moves to the newest
    assert ssm.get_parameter(Name="/app/url:prod")["Parameter"]["Value"] == "two"
    told = ssm.get_parameter_history(Name="/app/url")["Parameters"]
    assert [(one["Version"], one["Value"], one["Labels"]) for one in told] == [(1, "one", []), (2, "two", ["prod"])]
    assert told[0]["Description"] == told[1]["Description"] == "where"
    first = ssm.get_parameter_history(Name="/app/url", MaxResults=1)
    second = ssm.get_parameter_history(Name="/app/url", MaxResults=1, NextToken=first["NextToken"])
    assert [one["Version"] for one in first["Parameters"] + second["Parameters"]] == [1, 2]
    ssm.unlabel_parameter_version(Name="/app/url", ParameterVersion=2, Labels=["prod"])
    refused("ParameterVersionNotFound", ssm.get_parameter, Name="/app/url:prod")
    ssm.delete_parameter(Name="/app/url")
    refused("ParameterNotFound", ssm.get_parameter, Name="/app/url")
    assert ssm.put_parameter(Name="/app/url", Value="new", Type="String")["Version"] == 1
    assert len(ssm.get_parameter_history(Name="/app/url")["Parameters"]) == 1


def test_a_hundred_versions_are_kept_and_the_oldest_goes_unless_it_has_a_label(account: Account) -> None:
    ssm = account.client("ssm")
    ssm.put_parameter(Name="many", Value="1", Type="String")
    for number in range(2, 102):
        ssm.put_parameter(Name="many", Value=str(number), Overwrite=True)
    refused("ParameterVersionNotFound", ssm.get_parameter, Name="many:1")
    assert ssm.get_parameter(Name="many:2")["Parameter"]["Value"] == "2"
    ssm.label_parameter_version(Name="many", ParameterVersion=2, Labels=["keep"])
    refused("ParameterMaxVersionLimitExceeded", ssm.put_parameter, Name="many", Value="x", Overwrite=True)


def test_hierarchies(account: Account) -> None:
    ssm = account.client("ssm")
    names = ["/h/a", "/h/a/x", "/h/a/y", "/h/b", "/h/b/deep/er", "/h/c", "/other", "plain"]
    for name in names:
        ssm.put_parameter(Name=name, Value=name, Type="String", Tags=[{"Key": "level", "Value": str(name.count("/"))}])

    def below(**given: Any) -> list[str]:
        pages = ssm.get_paginator("get_parameters_by_path").paginate(PaginationConfig={"PageSize": 2}, **given)
        return [one["Name"] for page in pages for one in page["Parameters"]]

    assert below(Path="/h") == ["/h/a", "/h/b", "/h/c"]
    assert below(Path="/h/", Recursive=True) == ["/h/a", "/h/a/x", "/h/a/y", "/h/b", "/h/b/deep/er", "/h/c"]
    assert below(Path="/") == ["/other"]
    assert below(Path="/none") == []
    refused("ValidationException", ssm.get_parameters_by_path, Path="h")

    def described(*filters: dict[str, Any]) -> list[str]:
        pages = ssm.get_paginator("describe_parameters").paginate(
            ParameterFilters=list(filters), PaginationConfig={"PageSize": 3}
        )
        return [one["Name"] for page in pages for one in page["Parameters"]]

    assert described() == sorted(names)
    assert described({"Key": "Name", "Option": "BeginsWith", "Values": ["/h/b"]}) == ["/h/b", "/h/b/deep/er"]
    assert described({"Key": "Name", "Option": "Contains", "Values": ["e"]}) == ["/h/b/deep/er", "/other"]
    assert described({"Key": "Path", "Option": "OneLevel", "Values": ["/h/a"]}) == ["/h/a/x", "/h/a/y"]
    assert described({"Key": "tag:level", "Values": ["0", "1"]}) == ["/other", "plain"]
    refused("ValidationException", ssm.describe_parameters, ParameterFilters=[{"Key": "Colour", "Values": ["x"]}])
    typed = [{"Key": "Tier", "Values": ["Standard"]}]
    refused("InvalidFilterKey", ssm.get_parameters_by_path, Path="/h", ParameterFilters=typed)
    several = ssm.get_parameters(Names=["/h/a", "/none", "/h/b:1"])
    assert [one["Name"] for one in several["Parameters"]] == ["/h/a", "/h/b"]
    assert several["InvalidParameters"] == ["/none"]
    gone = ssm.delete_parameters(Names=["/h/a", "/none"])
    assert gone["DeletedParameters"] == ["/h/a"] and gone["InvalidParameters"] == ["/none"]


def test_what_a_parameter_may_be(account: Account) -> None:
    ssm = account.client("ssm")
    put = ssm.put_parameter
    for name in ("aws-x", "/aws/x", "ssm.y", "a b", "//a", "/a/", "a/b", "x" * 1012):
        refused("ValidationException", put, Name=name, Value="v", Type="String")
    refused("HierarchyLevelLimitExceededException", put, Name="/a" * 16, Value="v", Type="String")
    refused("ValidationException", put, Name="l", Value="a,,b", Type="StringList")
    refused("ValidationException", put, Name="n", Value="v")
    refused("ValidationException", put, Name="big", Value="v" * 4097, Type="String")
    assert put(Name="big", Value="v" * 4097, Type="String", Tier="Intelligent-Tiering")["Tier"] == "Advanced"
    refused("ValidationException", put, Name="big", Value="v" * 8193, Overwrite=True)
    refused("ParameterPatternMismatchException", put, Name="d", Value="x", Type="String", AllowedPattern=r"^\d+$")
    put(Name="d", Value="12", Type="String", AllowedPattern=r"^\d+$")
    refused("ParameterPatternMismatchException", put, Name="d", Value="twelve", Overwrite=True)
    refused("InvalidAllowedPatternException", put, Name="e", Value="x", Type="String", AllowedPattern="(")
    refused("HierarchyTypeMismatchException", put, Name="d", Value="12", Type="SecureString", Overwrite=True)
    # A pattern that would take a backtracking matcher for ever.
    refused(
        "ParameterPatternMismatchException",
        put,
        Name="r",
        Value="a" * 4000 + "!",
        Type="String",
        AllowedPattern="^(a+)+$",
    )


def test_secrets_are_encrypted_under_the_key_and_for_whoever_may_use_it(account: Account) -> None:
    ssm, kms = account.client("ssm"), account.client("kms")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    for name, value, tier in (
        ("/s/short", "hunter2-parameter", "Standard"),
        ("/s/long", "long-hunter2 " * 500, "Advanced"),
    ):
        ssm.put_parameter(Name=name, Value=value, Type="SecureString", KeyId=key, Tier=tier)
        sealed = ssm.get_parameter(Name=name)["Parameter"]
        assert "hunter2" not in sealed["Value"] and sealed["Type"] == "SecureString"
        assert ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"] == value
    reader = allow("ssm:GetParameter*")
    account.role("reader", reader)
    mine = account.client("ssm", account.as_role("reader"))
    assert "hunter2" not in mine.get_parameter(Name="/s/short")["Parameter"]["Value"]
    told = refused("AccessDeniedException", mine.get_parameter, Name="/s/short", WithDecryption=True)
    assert "kms:Decrypt" in told and key in told
    context = {
        "StringEquals": {"kms:EncryptionContext:PARAMETER_ARN": f"arn:aws:ssm:{REGION}:{account.id}:parameter/s/short"}
    }
    reader["Statement"].append({"Effect": "Allow", "Action": "kms:Decrypt", "Resource": key, "Condition": context})
    account.client("iam").put_role_policy(RoleName="reader", PolicyName="inline", PolicyDocument=json.dumps(reader))
    assert mine.get_parameter(Name="/s/short", WithDecryption=True)["Parameter"]["Value"] == "hunter2-parameter"
    refused("AccessDeniedException", mine.get_parameter, Name="/s/long", WithDecryption=True)
    kms.disable_key(KeyId=key)
    refused("InvalidKeyId", ssm.get_parameter, Name="/s/short", WithDecryption=True)
    refused("InvalidKeyId", ssm.put_parameter, Name="/s/x", Value="v", Type="SecureString", KeyId="alias/none")
    # The account's own key of the service, without a key named.
    ssm.put_parameter(Name="/s/own", Value="hunter2-own", Type="SecureString")
    assert ssm.get_parameter(Name="/s/own", WithDecryption=True)["Parameter"]["Value"] == "hunter2-own"
    with sqlite3.connect(f"file:{account.platform.data}/bastide.db?mode=ro", uri=True) as database:
        kept = b"".join(
            bytes(value) if isinstance(value, bytes) else str(value).encode()
            for table in ("resource", "history", "event", "event_new")
            for row in database.execute(f"SELECT * FROM {table}")
            for value in row
        )
    assert b"/s/own" in kept and b"hunter2" not in kept


def test_an_expiration_takes_a_parameter_away(account: Account) -> None:
    ssm = account.client("ssm")

    def policy(at: float) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(at))
        return json.dumps([{"Type": "Expiration", "Version": "1.0", "Attributes": {"Timestamp": stamp}}])

    given = {"Name": "brief", "Value": "v", "Type": "String"}
    refused("ValidationException", ssm.put_parameter, **given, Policies=policy(time.time() + 3600), Tier="Standard")
    refused("InvalidPolicyAttributeException", ssm.put_parameter, **given, Policies=policy(1), Tier="Advanced")
    refused("InvalidPolicyTypeException", ssm.put_parameter, **given, Policies='[{"Type":"X"}]', Tier="Advanced")
    ssm.put_parameter(**given, Policies=policy(time.time() + 3600), Tier="Advanced")
    assert ssm.describe_parameters()["Parameters"][0]["Policies"][0]["PolicyType"] == "Expiration"
    assert ssm.get_parameter(Name="brief")["Parameter"]["Value"] == "v"

    def shortened() -> bool:
        try:  # a moment that is over by now is refused
            ssm.put_parameter(**given, Policies=policy(time.time() + 2), Tier="Advanced", Overwrite=True)
        except ssm.exceptions.InvalidPolicyAttributeException:
            return False
        return True

    until(shortened)
    until(lambda: not ssm.get_parameters(Names=["brief"])["Parameters"])
    refused("ParameterNotFound", ssm.get_parameter, Name="brief")
    assert ssm.describe_parameters()["Parameters"] == []
    assert ssm.put_parameter(Name="brief", Value="w", Type="String")["Version"] == 1


def test_who_may(account: Account, neighbour: Account) -> None:
    ssm = account.client("ssm")
    for team in ("alpha", "bravo"):
        ssm.put_parameter(Name=f"/{team}/x", Value="v", Type="String", Tags=[{"Key": "team", "Value": team}])
    account.role("alpha", allow("ssm:*", resource=f"arn:aws:ssm:{REGION}:{account.id}:parameter/alpha/*"))
    account.role("tagged", allow("ssm:GetParameter", Condition={"StringEquals": {"aws:ResourceTag/team": "bravo"}}))
    account.role("once", allow("ssm:PutParameter", Condition={"StringEquals": {"ssm:Overwrite": "false"}}))
    alpha = account.client("ssm", account.as_role("alpha"))
    assert alpha.get_parameter(Name="/alpha/x")["Parameter"]["Value"] == "v"
    refused("AccessDeniedException", alpha.get_parameter, Name="/bravo/x")
    refused("AccessDeniedException", alpha.get_parameters, Names=["/alpha/x", "/bravo/x"])
    refused("AccessDeniedException", alpha.describe_parameters)
    tagged = account.client("ssm", account.as_role("tagged"))
    assert tagged.get_parameter(Name="/bravo/x")["Parameter"]["Value"] == "v"
    refused("AccessDeniedException", tagged.get_parameter, Name="/alpha/x")
    once = account.client("ssm", account.as_role("once"))
    once.put_parameter(Name="/new", Value="v", Type="String")
    refused("AccessDeniedException", once.put_parameter, Name="/new", Value="w", Overwrite=True)
    foreign = neighbour.client("ssm")
    arn = f"arn:aws:ssm:{REGION}:{account.id}:parameter/alpha/x"
    refused("AccessDeniedException", foreign.get_parameter, Name=arn)
    refused("ParameterNotFound", foreign.get_parameter, Name="/alpha/x")


def test_tags(account: Account) -> None:
    ssm = account.client("ssm")
    ssm.put_parameter(Name="t", Value="v", Type="String")
    about = {"ResourceType": "Parameter", "ResourceId": "t"}
    ssm.add_tags_to_resource(**about, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    ssm.remove_tags_from_resource(**about, TagKeys=["a"])
    assert ssm.list_tags_for_resource(**about)["TagList"] == [{"Key": "b", "Value": "2"}]
    refused("ValidationException", ssm.add_tags_to_resource, **about, Tags=[{"Key": "aws:x", "Value": "1"}])
    many = [{"Key": f"k{number}", "Value": "v"} for number in range(50)]
    refused("TooManyTagsError", ssm.add_tags_to_resource, **about, Tags=many)
    refused("InvalidResourceId", ssm.list_tags_for_resource, ResourceType="Parameter", ResourceId="none")
