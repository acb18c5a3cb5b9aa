"""Access Analyzer's checks, asked by a client."""

from __future__ import annotations

import json
from typing import Any

import botocore.exceptions
import pytest

from tests.platform import Account, allow


def policy(*statements: dict[str, Any], version: str | None = "2012-10-17") -> str:
    held: dict[str, Any] = {"Statement": list(statements)}
    return json.dumps({"Version": version, **held} if version else held)


def says(effect: str, action: Any, resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": effect, "Action": action, "Resource": resource, **more}


READ = says("Allow", "s3:GetObject", "arn:aws:s3:::bank/*", Sid="Read")
OWN = says("Allow", "s3:GetObject", "arn:aws:s3:::bank/${aws:username}/*", Sid="Own")


@pytest.fixture
def analyzer(account: Account) -> Any:
    return account.client("accessanalyzer")


def code(call: Any, **given: Any) -> str:
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call(**given)
    return str(caught.value.response["Error"]["Code"])


def test_new_access(analyzer: Any) -> None:
    def check(new: str, old: str, kind: str = "IDENTITY_POLICY") -> Any:
        return analyzer.check_no_new_access(newPolicyDocument=new, existingPolicyDocument=old, policyType=kind)

    assert check(policy(OWN), policy(READ))["result"] == "PASS"
    told = check(policy(READ), policy(OWN))
    assert told["result"] == "FAIL" and "grant new access" in told["message"]
    assert [(one["statementIndex"], one["statementId"]) for one in told["reasons"]] == [(0, "Read")]
    narrowed = policy(READ, says("Deny", "s3:*", Condition={"Bool": {"aws:SecureTransport": "false"}}))
    assert check(narrowed, policy(READ))["result"] == "PASS"
    assert check(policy(READ), narrowed)["result"] == "FAIL"
    mine = {**READ, "Principal": {"AWS": "arn:aws:iam::111122223333:role/a"}}
    theirs = {**READ, "Principal": {"AWS": "111122223333"}}
    assert check(policy(mine), policy(theirs), "RESOURCE_POLICY")["result"] == "PASS"
    assert check(policy(theirs), policy(mine), "RESOURCE_POLICY")["result"] == "FAIL"


def test_access_that_must_not_be_granted(analyzer: Any) -> None:
    def check(text: str, **access: Any) -> str:
        told = analyzer.check_access_not_granted(policyDocument=text, access=[access], policyType="IDENTITY_POLICY")
        return str(told["result"])

    assert check(policy(READ), actions=["s3:PutObject"]) == "PASS"
    assert check(policy(READ), actions=["s3:PutObject", "s3:GetObject"]) == "FAIL"
    assert check(policy(READ), actions=["s3:GetObject"], resources=["arn:aws:s3:::other/*"]) == "PASS"
    assert check(policy(READ), resources=["arn:aws:s3:::bank/secret"]) == "FAIL"
    assert (
        check(policy(READ, says("Deny", "*", "arn:aws:s3:::bank/secret")), resources=["arn:aws:s3:::bank/secret"])
        == "PASS"
    )
    call = analyzer.check_access_not_granted
    given = {"policyDocument": policy(READ), "policyType": "IDENTITY_POLICY"}
    assert code(call, **given, access=[{}]) == "ValidationException"
    assert code(call, **given, access=[{"actions": ["nonsense"]}]) == "InvalidParameterException"


def test_public_access(analyzer: Any) -> None:
    def check(kind: str = "AWS::S3::Bucket", **statement: Any) -> str:
        text = policy({"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", **statement})
        return str(analyzer.check_no_public_access(policyDocument=text, resourceType=kind)["result"])

    here = {"Resource": "arn:aws:s3:::bank/*"}
    assert check(**here) == "FAIL"
    assert check(**here, Principal={"AWS": "111122223333"}) == "PASS"
    assert check(**here, Condition={"StringEquals": {"aws:PrincipalOrgID": "o-a1b2c3d4e5"}}) == "PASS"
    assert check(**here, Condition={"StringNotEquals": {"aws:PrincipalOrgID": "o-a1b2c3d4e5"}}) == "FAIL"
    assert check(**here, Condition={"StringLike": {"aws:Referer": "https://example.com/*"}}) == "FAIL"
    for wide in ("0.0.0.0/0", "4.0.0.0/6", "::/0"):
        assert check(**here, Condition={"IpAddress": {"aws:SourceIp": wide}}) == "FAIL"
    assert check(**here, Condition={"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}) == "PASS"
    assert check(**here, Condition={"StringLike": {"aws:PrincipalArn": "*"}}) == "FAIL"
    assert check(**here, Condition={"StringEquals": {"aws:SourceVpc": "${aws:username}"}}) == "FAIL"
    trust = {"Action": "sts:AssumeRole"}
    assert check("AWS::IAM::AssumeRolePolicyDocument", **trust) == "FAIL"
    assert check("AWS::IAM::AssumeRolePolicyDocument", **trust, Principal={"Service": "x.amazonaws.com"}) == "PASS"


def test_what_cannot_be_proved_does_not_pass(analyzer: Any) -> None:
    open_to_letters = says(
        "Allow", "s3:GetObject", Condition={"StringEqualsIgnoreCase": {"aws:PrincipalTag/a": "${aws:username}"}}
    )
    closed = says(
        "Deny", "s3:GetObject", Condition={"StringEqualsIgnoreCase": {"aws:PrincipalTag/a": "${aws:username}"}}
    )
    given = {"policyType": "IDENTITY_POLICY", "existingPolicyDocument": policy(says("Allow", "ec2:*"))}
    call = analyzer.check_no_new_access
    assert code(call, **given, newPolicyDocument=policy(open_to_letters, closed)) == "UnprocessableEntityException"
    assert code(call, **given, newPolicyDocument="{}") == "InvalidParameterException"
    assert code(call, **given, newPolicyDocument=policy(says("Allow", "*:*:*"))) == "InvalidParameterException"


def test_whoever_may_not_ask(account: Account) -> None:
    account.role("Nobody", allow("s3:*"))
    client = account.client("accessanalyzer", account.as_role("Nobody"))
    assert code(client.validate_policy, policyDocument="{}", policyType="IDENTITY_POLICY") == "AccessDeniedException"
    given = {"policyDocument": "{}", "resourceType": "AWS::S3::Bucket"}
    assert code(client.check_no_public_access, **given) == "AccessDeniedException"


FINDINGS: list[tuple[str, str, str, str]] = [
    ("JSON_SYNTAX_ERROR", "ERROR", "IDENTITY_POLICY", '{"Version": "2012-10-17", "Statement": [}'),
    ("MISSING_VERSION", "WARNING", "IDENTITY_POLICY", policy(READ, version=None)),
    ("INVALID_VERSION", "ERROR", "IDENTITY_POLICY", policy(READ, version="2012-10-18")),
    ("MISSING_STATEMENT", "ERROR", "IDENTITY_POLICY", policy()),
    ("MISSING_EFFECT", "ERROR", "IDENTITY_POLICY", policy({"Action": "s3:*", "Resource": "*"})),
    ("INVALID_EFFECT", "ERROR", "IDENTITY_POLICY", policy(says("allow", "s3:*"))),
    ("MISSING_ACTION", "ERROR", "IDENTITY_POLICY", policy({"Effect": "Allow", "Resource": "*"})),
    ("INVALID_ACTION", "ERROR", "IDENTITY_POLICY", policy(says("Allow", "s3"))),
    ("MISSING_RESOURCE", "ERROR", "IDENTITY_POLICY", policy({"Effect": "Allow", "Action": "s3:*"})),
    ("INVALID_ARN_PREFIX", "ERROR", "IDENTITY_POLICY", policy(says("Allow", "s3:*", "bank/*"))),
    ("MISSING_ARN_FIELD", "ERROR", "IDENTITY_POLICY", policy(says("Allow", "s3:*", "arn:aws:s3"))),
    ("INVALID_PARTITION", "ERROR", "IDENTITY_POLICY", policy(says("Allow", "s3:*", "arn:asw:s3:::bank"))),
    ("INVALID_ARN_ACCOUNT", "ERROR", "IDENTITY_POLICY", policy(says("Allow", "iam:*", "arn:aws:iam::12:role/x"))),
    ("INVALID_POLICY_ELEMENT", "ERROR", "IDENTITY_POLICY", policy({**READ, "Resources": "*"})),
    ("UNSUPPORTED_PRINCIPAL", "ERROR", "IDENTITY_POLICY", policy({**READ, "Principal": "*"})),
    ("MISSING_PRINCIPAL", "ERROR", "RESOURCE_POLICY", policy(READ)),
    ("INVALID_PRINCIPAL_KEY", "ERROR", "RESOURCE_POLICY", policy({**READ, "Principal": {"Role": "x"}})),
    (
        "UNSUPPORTED_WILDCARD_IN_PRINCIPAL",
        "ERROR",
        "RESOURCE_POLICY",
        policy({**READ, "Principal": {"AWS": "arn:aws:iam::111122223333:role/*"}}),
    ),
    (
        "ALLOW_WITH_NOT_PRINCIPAL",
        "SECURITY_WARNING",
        "RESOURCE_POLICY",
        policy({**READ, "NotPrincipal": {"AWS": "111122223333"}}),
    ),
    (
        "RESTRICT_ACCESS_TO_SERVICE_PRINCIPAL",
        "SECURITY_WARNING",
        "RESOURCE_POLICY",
        policy({**READ, "Principal": {"Service": "sns.amazonaws.com"}}),
    ),
    ("PASS_ROLE_WITH_STAR_IN_RESOURCE", "SECURITY_WARNING", "IDENTITY_POLICY", policy(says("Allow", "iam:PassRole"))),
    ("PASS_ROLE_WITH_STAR_IN_ACTION_AND_RESOURCE", "SECURITY_WARNING", "IDENTITY_POLICY", policy(says("Allow", "iam:*"))),
    ("INVALID_CONDITION_OPERATOR", "ERROR", "IDENTITY_POLICY", policy({**READ, "Condition": {"StringIs": {"aws:a": "b"}}})),
    ("NULL_WITH_IF_EXISTS", "ERROR", "IDENTITY_POLICY", policy({**READ, "Condition": {"NullIfExists": {"aws:a": "true"}}})),
    (
        "INVALID_CONDITION_DATA_TYPE",
        "ERROR",
        "IDENTITY_POLICY",
        policy({**READ, "Condition": {"Bool": {"aws:SecureTransport": "yes"}}}),
    ),
    (
        "PRIVATE_IP_ADDRESS",
        "ERROR",
        "IDENTITY_POLICY",
        policy({**READ, "Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}),
    ),
    (
        "FORALLVALUES_WITH_SINGLE_VALUED_KEY",
        "SECURITY_WARNING",
        "IDENTITY_POLICY",
        policy({**READ, "Condition": {"ForAllValues:StringEquals": {"aws:SourceVpc": "vpc-1"}}}),
    ),
    (
        "WILDCARD_WITHOUT_LIKE_OPERATOR",
        "WARNING",
        "IDENTITY_POLICY",
        policy({**READ, "Condition": {"StringEquals": {"aws:PrincipalTag/a": "b*"}}}),
    ),
    ("REDUNDANT_ACTION", "SUGGESTION", "IDENTITY_POLICY", policy(says("Allow", ["s3:Get*", "s3:GetObject"]))),
    ("EMPTY_SID_VALUE", "SUGGESTION", "IDENTITY_POLICY", policy({**READ, "Sid": ""})),
    ("UNIQUE_SIDS_REQUIRED", "ERROR", "IDENTITY_POLICY", policy(READ, READ)),
    ("MISSING_BRACE_IN_VARIABLE", "ERROR", "IDENTITY_POLICY", policy(says("Allow", "s3:*", "arn:aws:s3:::${aws:username"))),
    (
        "VARIABLE_UNSUPPORTED_IN_VERSION",
        "ERROR",
        "IDENTITY_POLICY",
        policy(says("Allow", "s3:*", "arn:aws:s3:::${aws:username}"), version="2008-10-17"),
    ),
    ("POLICY_SYNTAX_ERROR", "ERROR", "RESOURCE_CONTROL_POLICY", policy({**says("Allow", "s3:*"), "Principal": "*"})),
]  # fmt: skip


def test_findings(analyzer: Any) -> None:
    for issue, kind, form, text in FINDINGS:
        found = analyzer.validate_policy(policyDocument=text, policyType=form)["findings"]
        assert (issue, kind) in [(one["issueCode"], one["findingType"]) for one in found], (issue, found)
    for form, text in (
        ("IDENTITY_POLICY", policy(READ, OWN | {"Sid": "Own"})),
        ("RESOURCE_POLICY", policy({**READ, "Principal": "*"})),
    ):
        assert analyzer.validate_policy(policyDocument=text, policyType=form)["findings"] == []


def test_a_finding_points_to_its_place(analyzer: Any) -> None:
    text = '{\n  "Version": "2012-10-17",\n  "Statement": [{\n    "Effect": "Permit",\n    "Action": "s3:*"}]}'
    findings = analyzer.validate_policy(policyDocument=text, policyType="IDENTITY_POLICY")["findings"]
    [found] = [one for one in findings if one["issueCode"] == "INVALID_EFFECT"]
    [place] = found["locations"]
    assert place["path"] == [{"value": "Statement"}, {"index": 0}, {"value": "Effect"}]
    assert place["span"]["start"] == {"line": 4, "column": 14, "offset": text.index('"Permit"')}
    assert place["span"]["end"]["offset"] == text.index('"Permit"') + len('"Permit"')
    many = policy(*[says("permit", "s3:*") for _ in range(5)])
    first = analyzer.validate_policy(policyDocument=many, policyType="IDENTITY_POLICY", maxResults=2)
    assert len(first["findings"]) == 2
    pages = analyzer.get_paginator("validate_policy").paginate(
        policyDocument=many, policyType="IDENTITY_POLICY", PaginationConfig={"PageSize": 2}
    )
    assert sum(len(page["findings"]) for page in pages) >= 5
