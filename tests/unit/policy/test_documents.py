"""What is a policy document and what is refused when it is written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bastide.domain import Refused
from bastide.policy import Document, Form
from tests.unit.policy.asking import HOME, allow, document

TRUST = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
BUCKET_POLICY = allow("s3:GetObject", "arn:aws:s3:::b/*", Principal="*")


def refusal(source: Any, form: Form = Form.IDENTITY, **more: Any) -> str:
    with pytest.raises(Refused) as caught:
        Document.parse(source if isinstance(source, (str, bytes)) else json.dumps(source), form, **more)
    assert caught.value.code == "MalformedPolicyDocument"
    return caught.value.message


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ({}, "Effect"),
        ({"Effect": "allow", "Action": "*", "Resource": "*"}, "Statement[0].Effect"),
        ({"Effect": "Allow", "Resource": "*"}, "must contain actions"),
        ({"Effect": "Allow", "Action": "*"}, "must contain resources"),
        ({"Effect": "Allow", "Action": [], "Resource": "*"}, "must contain actions"),
        (allow("GetObject"), "prefaced by a vendor"),
        (allow("s3: GetObject"), "Statement[0].Action"),
        (allow("s3:Get Object"), "not valid"),
        (allow("s3:${aws:username}"), "not valid"),
        (allow("*", "bucket/*"), "must be in ARN format"),
        (allow("*", 7), "must be in ARN format"),
        (allow("*", None), "Statement[0].Resource"),
        (allow("*", ["*", {}]), "Statement[0].Resource[1]"),
        (allow(NotAction="s3:*"), "exclude each other"),
        (allow(NotResource="*"), "exclude each other"),
        (allow(Principal="*"), "should not specify a principal"),
        (allow(Sid="with space"), "alpha-numeric"),
        (allow(Sid=7), "Sid"),
        (allow(Sid=None), "Sid"),
        (allow(Condition=None), "Statement[0].Condition"),
        (allow(Extra=1), "Extra"),
        (allow(Condition=[]), "Statement[0].Condition"),
        (allow(Condition={"StringEquals": {}}), "Statement[0].Condition.StringEquals"),
        (allow(Condition={"StringEquals": "x"}), "Statement[0].Condition.StringEquals"),
        (allow(Condition={"StringSame": {"aws:username": "x"}}), "Invalid Condition type : StringSame"),
        (allow(Condition={"stringequals": {"aws:username": "x"}}), "Invalid Condition type"),
        (allow(Condition={"NullIfExists": {"aws:username": "true"}}), "Invalid Condition type"),
        (allow(Condition={"ForAnyValue:Null": {"aws:username": "true"}}), "Invalid Condition type"),
        (allow(Condition={"ForSome:StringEquals": {"aws:username": "x"}}), "Invalid Condition type"),
        (allow(Condition={"StringEquals": {"username": "x"}}), "prefaced by a vendor"),
        (allow(Condition={"StringEquals": {"aws: username": "x"}}), "prefaced by a vendor"),
        (allow(Condition={"StringEquals": {"aws:username": []}}), "at least one value"),
        (allow(Condition={"StringEquals": {"aws:username": None}}), "Statement[0].Condition.StringEquals.aws:username"),
        (allow(Condition={"StringEquals": {"aws:username": "${aws:username"}}), "not closed"),
        (allow(Condition={"StringEquals": {"aws:username": "${username}"}}), "does not name a condition key"),
        (allow(Condition={"StringEquals": {"aws:username": "${aws:username, x}"}}), "single quotes"),
        (allow(Condition={"NumericEquals": {"s3:max-keys": "ten"}}), "not a number"),
        (allow(Condition={"NumericEquals": {"s3:max-keys": "NaN"}}), "not a number"),
        (allow(Condition={"NumericEquals": {"s3:max-keys": "${aws:username}"}}), "not a number"),
        (allow(Condition={"NumericEquals": {"s3:max-keys": "1e9999"}}), "not a number"),
        (allow(Condition={"DateEquals": {"aws:CurrentTime": "yesterday"}}), "not a date"),
        (allow(Condition={"DateEquals": {"aws:CurrentTime": "2026-02-30"}}), "not a date"),
        (allow(Condition={"DateEquals": {"aws:CurrentTime": "2026-01-01T00:00:61Z"}}), "not a date"),
        (allow(Condition={"Bool": {"aws:SecureTransport": "yes"}}), "neither true nor false"),
        (allow(Condition={"Null": {"aws:SecureTransport": "maybe"}}), "neither true nor false"),
        (allow(Condition={"IpAddress": {"aws:SourceIp": "10.0.0.0/33"}}), "not an IP address"),
        (allow(Condition={"IpAddress": {"aws:SourceIp": "10.0.0"}}), "not an IP address"),
        (allow(Condition={"BinaryEquals": {"aws:PrincipalTag/x": "???"}}), "not base64"),
        (allow(Condition={"ArnEquals": {"aws:PrincipalArn": "arn:aws:iam"}}), "not a complete ARN"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_faulty_statement_is_refused_and_the_message_names_the_place(statement: Any, words: str) -> None:
    assert words in refusal({"Version": "2012-10-17", "Statement": [statement]})


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "Syntax errors"),
        ("{", "Syntax errors"),
        ("[]", "JSON object"),
        ({"Version": "2012-10-17"}, "Missing required field Statement"),
        ({"Version": "2012-10-17", "Statement": []}, "Missing required field Statement"),
        ({"Version": "2020-01-01", "Statement": allow()}, "2020-01-01"),
        ({"Version": 2012, "Statement": allow()}, "Version"),
        ({"version": "2012-10-17", "Statement": allow()}, "version"),
        ({"Version": "2012-10-17", "Id": 7, "Statement": allow()}, "Id"),
        ({"Version": "2012-10-17", "Statement": [allow(Sid="a"), allow(Sid="a")]}, "Statement[1].Sid"),
        (
            '{"Version":"2012-10-17","Statement":{"Effect":"Deny","Effect":"Allow","Action":"*","Resource":"*"}}',
            "twice",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_faulty_document_is_refused(source: Any, words: str) -> None:
    assert words in refusal(source)


@pytest.mark.parametrize(
    ("form", "statement", "words"),
    [
        (Form.TRUST, {**TRUST, "Resource": "*"}, "prohibited field Resource"),
        (Form.TRUST, {**TRUST, "Action": "s3:GetObject"}, "STS AssumeRole actions"),
        (Form.TRUST, {**TRUST, "Action": "*"}, "STS AssumeRole actions"),
        (Form.TRUST, {"Effect": "Allow", "Action": "sts:AssumeRole"}, "Missing required field Principal"),
        (Form.TRUST, {"Effect": "Deny", "Action": "sts:AssumeRole", "NotPrincipal": "*"}, "NotPrincipal"),
        (Form.RESOURCE, allow(), "Missing required field Principal"),
        (Form.RESOURCE, allow(Principal={}), "Invalid principal"),
        (Form.RESOURCE, allow(Principal={"AWS": []}), "Invalid principal"),
        (Form.RESOURCE, allow(Principal="ann"), "Invalid principal"),
        (Form.RESOURCE, allow(Principal={"AWS": "ann"}), "Statement[0].Principal.AWS"),
        (Form.RESOURCE, allow(Principal={"AWS": f"arn:aws:iam::{HOME}:user/*"}), "Invalid principal"),
        (Form.RESOURCE, allow(Principal={"AWS": f"arn:aws:sts::{HOME}:assumed-role/dev/*"}), "Invalid principal"),
        (Form.RESOURCE, allow(Principal={"AWS": "12345"}), "Invalid principal"),
        (Form.RESOURCE, allow(Principal={"Service": "*"}), "Invalid principal"),
        (Form.RESOURCE, allow(Principal={"CanonicalUser": "79a5"}), "Invalid principal"),
        (Form.RESOURCE, allow(Principal={"Group": "x"}), "not supported"),
        (Form.RESOURCE, allow(Principal={"AWS": f"arn:aws:iam::{HOME}:group/x"}), "Invalid principal"),
        (Form.RESOURCE, allow(Principal={"AWS": "AIDA"}), "Invalid principal"),
        (Form.RESOURCE, allow(Principal={"AWS": [7]}), "Invalid principal"),
        (Form.RESOURCE, allow(Principal="*", NotPrincipal="*"), "exclude each other"),
        (Form.SCP, allow(Principal="*"), "should not specify a principal"),
        (Form.SESSION, allow(Principal="*"), "should not specify a principal"),
        (Form.RCP, allow("s3:*", Principal="*"), "must be Deny"),
        (Form.RCP, {**allow("s3:*", Principal={"AWS": HOME}), "Effect": "Deny"}, 'must be "*"'),
        (Form.RCP, {**allow("*", Principal="*"), "Effect": "Deny"}, "must name a service"),
        (Form.RCP, {**allow("*:Get*", Principal="*"), "Effect": "Deny"}, "must name a service"),
        (Form.RCP, {"Effect": "Deny", "Principal": "*", "NotAction": "s3:*", "Resource": "*"}, "NotAction"),
        (Form.ENDPOINT, {"Effect": "Allow", "Principal": "*", "Action": "*"}, "must contain resources"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_every_form_has_its_elements(form: Form, statement: Any, words: str) -> None:
    assert words in refusal({"Version": "2012-10-17", "Statement": statement}, form)


@pytest.mark.parametrize(
    ("form", "statement"),
    [
        (Form.TRUST, TRUST),
        (Form.TRUST, {**TRUST, "Action": ["sts:AssumeRole", "sts:TagSession"], "Principal": {"AWS": HOME}}),
        (Form.TRUST, {**TRUST, "Principal": {"Federated": f"arn:aws:iam::{HOME}:saml-provider/corp"}}),
        (Form.TRUST, {**TRUST, "Principal": {"Federated": "cognito-identity.amazonaws.com"}}),
        (Form.RESOURCE, BUCKET_POLICY),
        (Form.RESOURCE, {**BUCKET_POLICY, "Sid": "free words here"}),
        (Form.RESOURCE, {"Effect": "Allow", "Principal": {"AWS": HOME}, "Action": "ecr:BatchGetImage"}),
        (Form.KEY, allow("kms:*", Principal={"AWS": f"arn:aws:iam::{HOME}:root"})),
        (Form.RCP, {**allow("s3:*", Principal="*"), "Effect": "Deny"}),
        (Form.RESOURCE, {**BUCKET_POLICY, "Principal": {"CanonicalUser": "a1" * 32}}),
        (Form.RESOURCE, {**BUCKET_POLICY, "Principal": {"AWS": ["AIDAEXAMPLEEXAMPLE12", "AROAEXAMPLEEXAMPLE12"]}}),
        (Form.RESOURCE, {**BUCKET_POLICY, "Principal": {"AWS": f"arn:aws:sts::{HOME}:federated-user/ann"}}),
        (Form.RCP, allow(Principal="*")),
        (Form.SCP, allow("s3:*", "arn:aws:s3:::*", Condition={"Bool": {"aws:SecureTransport": True}})),
        (Form.IDENTITY, allow("*:*")),
        (Form.IDENTITY, allow(Condition={"NumericLessThan": {"s3:max-keys": 10.5}})),
        (Form.IDENTITY, allow(Condition={"StringEquals": {"token.actions.githubusercontent.com:sub": "x"}})),
        (Form.IDENTITY, allow(Condition={"StringEquals": {"aws:RequestTag/cost center": "x"}})),
        (
            Form.IDENTITY,
            allow(Condition={"StringEquals": {"aws:RequestTag/стоимость": "${aws:PrincipalTag/стоимость}"}}),
        ),
        (Form.KEY, allow(Principal="*", Condition={"StringEquals": {"kms:EncryptionContext:My App": "x"}})),
        (Form.IDENTITY, allow(Condition={"StringEquals": {"oidc.eks.eu-west-1.amazonaws.com/id/AB12:sub": "x"}})),
    ],
)
def test_what_aws_takes_is_taken(form: Form, statement: Any) -> None:
    parsed = Document.parse({"Version": "2012-10-17", "Statement": statement}, form)
    assert len(parsed.statements) == 1
    assert Document.parse(json.dumps({"Version": "2012-10-17", "Statement": [statement]}).encode(), form).form is form


def test_size_is_counted_in_bytes() -> None:
    text = document(allow(Sid="a" * 100))
    Document.parse(text, Form.IDENTITY, max_bytes=len(text))
    assert "longer than" in refusal(text, max_bytes=len(text) - 1)
    wide = document(allow(Condition={"StringEquals": {"aws:username": "ä" * 100}}))
    wide = json.dumps(json.loads(wide), ensure_ascii=False)
    assert "longer than" in refusal(wide, max_bytes=len(wide))


def test_a_text_is_compiled_once() -> None:
    text = document(allow("s3:PutObject"))
    assert Document.parse_cached(text, Form.IDENTITY) is Document.parse_cached(text, Form.IDENTITY)
    assert Document.parse_cached(text, Form.IDENTITY) is not Document.parse_cached(text, Form.SCP)


def test_actions_and_resources_of_callers_do_not_fill_the_memory() -> None:
    parsed = Document.parse(
        document(*(allow("s3:*", f"arn:aws:s3:::b{index}/*") for index in range(20))), Form.IDENTITY
    )
    for index in range(5000):
        parsed.candidates(f"s3:made-up-{index}", f"arn:aws:s3:::b1/{index}")
    assert len(parsed._plans) <= 2048


def test_a_statement_keeps_what_was_written() -> None:
    source = [
        {"Effect": "Deny", "NotPrincipal": {"AWS": HOME}, "NotAction": "S3:Get*", "NotResource": ["arn:aws:s3:::B/*"]},
        {"Effect": "Allow", "Principal": "*", "Action": ["s3:GetObject"]},
    ]
    first, second = Document.parse({"Version": "2012-10-17", "Statement": source}, Form.RESOURCE).statements
    assert (first.actions, first.not_action) == (("S3:Get*",), True)
    assert (first.resources, first.not_resource) == (("arn:aws:s3:::B/*",), True)
    assert (first.principals, first.not_principal) == ({"AWS": (HOME,)}, True)
    assert (second.actions, second.not_action) == (("s3:GetObject",), False)
    assert (second.resources, second.not_resource, second.principals) == (None, False, "*")
