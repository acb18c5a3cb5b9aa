"""Whom an OpenID Connect issuer vouches for: a real issuer over HTTPS, its keys fetched and its tokens verified."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.exceptions
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.identity_providers import Issuer, own_authority, platform_authority
from tests.platform import Account, Keys, Running, allow
from tests.stories.sts.test_saml import unsigned
from tests.stories.sts.test_sessions import DENIED, refusal, role

INVALID = ("InvalidIdentityToken", 400)
EXPIRED = ("ExpiredTokenException", 400)
UNREACHABLE = ("IDPCommunicationError", 400)
TAGS = "https://aws.amazon.com/tags"


@pytest.fixture(scope="module")
def issuer(platform: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuer]:
    """An issuer whose certificate the platform's own authority signed."""
    found = Issuer(platform_authority(platform.data))
    found.keys["rsa"] = rsa.generate_private_key(65537, 2048)
    found.start(tmp_path_factory.mktemp("issuer"))
    yield found
    found.stop()


@dataclass
class Address:
    """An address, and nobody there."""

    url: str


class Trusting:
    """An account with a provider for an issuer."""

    def __init__(self, platform: Running, account: Account, issuer: Any, **more: Any) -> None:
        self.platform, self.account, self.issuer = platform, account, issuer
        given = {"Url": issuer.url, "ClientIDList": ["bastide"], **more}
        self.provider: str = account.client("iam").create_open_id_connect_provider(**given)["OpenIDConnectProviderArn"]
        self.sts = unsigned(platform)

    def role(self, name: str, policy: Any = None, *actions: str, **condition: Any) -> str:
        statement: dict[str, Any] = {
            "Effect": "Allow",
            "Principal": {"Federated": self.provider},
            "Action": ["sts:AssumeRoleWithWebIdentity", *actions],
        }
        if condition:
            statement["Condition"] = condition
        return role(self.account, name, json.dumps({"Version": "2012-10-17", "Statement": [statement]}), policy)

    def assume(self, arn: str, token: str, session: str = "web", **more: Any) -> Any:
        return self.sts.assume_role_with_web_identity(
            RoleArn=arn, RoleSessionName=session, WebIdentityToken=token, **more
        )

    def keys(self, arn: str, **claims: Any) -> Keys:
        given = self.assume(arn, self.issuer.token(**claims))["Credentials"]
        return Keys(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])


@pytest.fixture(scope="module")
def company(platform: Running, issuer: Issuer) -> Trusting:
    return Trusting(platform, platform.account(), issuer)


@pytest.mark.control("IAM-02")
def test_a_token_makes_a_session(company: Trusting, issuer: Issuer) -> None:
    by_tag = allow("iam:GetRole", Condition={"StringEquals": {"aws:PrincipalTag/team": "risk"}})
    arn = company.role("Tagged", by_tag, "sts:TagSession")
    tags = {TAGS: {"principal_tags": {"team": ["risk"]}, "transitive_tag_keys": ["team"]}}
    told = company.assume(arn, issuer.token(**tags), "alice")
    assert (told["SubjectFromWebIdentityToken"], told["Audience"], told["Provider"]) == ("alice", "bastide", issuer.url)
    role_id = company.account.client("iam").get_role(RoleName="Tagged")["Role"]["RoleId"]
    assert told["AssumedRoleUser"]["AssumedRoleId"] == f"{role_id}:alice"
    given = told["Credentials"]
    keys = Keys(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
    assert company.platform.client("sts", keys).get_caller_identity()["UserId"] == f"{role_id}:alice"
    company.platform.client("iam", keys).get_role(RoleName="Tagged")
    flat = {f"{TAGS}/principal_tags/team": "risk"}
    company.platform.client("iam", company.keys(arn, **flat)).get_role(RoleName="Tagged")
    other = company.keys(arn, **{TAGS: {"principal_tags": {"team": ["ops"]}}})
    assert refusal(company.platform.client("iam", other).get_role, RoleName="Tagged") == DENIED
    company.assume(arn, issuer.token(kid="rsa"))


@pytest.mark.control("IAM-02")
def test_what_does_not_make_a_session(company: Trusting, issuer: Issuer) -> None:
    arn = company.role("Strict")
    now = int(time.time())

    def with_(**more: Any) -> tuple[str, int]:
        return refusal(company.assume, arn, issuer.token(**more))

    company.assume(arn, issuer.token())
    assert with_(exp=now - 1) == EXPIRED
    assert with_(nbf=now + 120) == INVALID
    assert with_(iat=now + 120) == INVALID
    assert with_(aud="somebody-else") == INVALID
    assert with_(aud=["bastide", "other"]) == INVALID
    company.assume(arn, issuer.token(aud=["bastide", "other"], azp="bastide"))
    assert with_(azp="somebody-else") == INVALID
    assert with_(iss="https://elsewhere.example.com") == INVALID
    assert with_(iss=issuer.url + "/") == INVALID
    for claim in ("sub", "aud", "exp", "iat", "iss"):
        assert with_(drop=claim) == INVALID
    for strange in ({"sub": ""}, {"sub": 7}, {"exp": "soon"}, {"exp": True}, {"exp": 1e300}, {"aud": []}, {"aud": {}}):
        with pytest.raises(botocore.exceptions.ClientError) as caught:
            company.assume(arn, _signed(issuer, strange))
        assert caught.value.response["Error"]["Code"] == "InvalidIdentityToken"
    assert refusal(company.assume, arn, issuer.token(), ProviderId="www.amazon.com") == ("ValidationError", 400)
    missing = f"arn:aws:iam::{company.account.id}:role/Missing"
    assert refusal(company.assume, missing, issuer.token()) == DENIED
    assert refusal(company.assume, "arn:aws:iam::999988887777:role/Strict", issuer.token()) == INVALID


def _signed(issuer: Issuer, claims: dict[str, Any]) -> str:
    """A token that the library would not make."""
    good = jwt.decode(issuer.token(), options={"verify_signature": False})
    body = json.dumps({**good, **claims}).encode()
    return jwt.api_jws.encode(body, issuer.keys[issuer.kid], algorithm="ES256", headers={"kid": issuer.kid})


def test_only_the_issuers_key_counts(company: Trusting, issuer: Issuer) -> None:
    arn = company.role("Keys")
    good = issuer.token()
    head, body, signature = good.split(".")

    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    claims = jwt.decode(good, options={"verify_signature": False})
    bad = [
        f"{head}.{part({**claims, 'sub': 'root'})}.{signature}",
        f"{part({'alg': 'none', 'kid': issuer.kid})}.{body}.",
        f"{part({'alg': 'None'})}.{body}.{signature}",
        issuer.token(key=ec.generate_private_key(ec.SECP256R1())),
        issuer.token(kid="rsa", key=rsa.generate_private_key(65537, 2048)),
        issuer.token(kid="nobody's", key=issuer.keys[issuer.kid]),
        f"{head}.{body}.",
        f"{head}.{body}",
        "....",
        "é" * 8,
        good + "." + signature,
    ]
    # The public key as a shared secret, and keys that the token brings itself.
    public = issuer.keys["rsa"].public_key()
    shared = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    text = f"{part({'alg': 'HS256', 'kid': 'rsa'})}.{body}"
    mac = base64.urlsafe_b64encode(hmac.digest(shared, text.encode(), "sha256")).decode().rstrip("=")
    bad.append(f"{text}.{mac}")
    mine = ec.generate_private_key(ec.SECP256R1())
    jwk = json.loads(jwt.get_algorithm_by_name("ES256").to_jwk(mine.public_key()))
    bad.append(jwt.encode(claims, mine, algorithm="ES256", headers={"kid": issuer.kid, "jwk": jwk}))
    bad.append(jwt.encode(claims, mine, algorithm="ES256", headers={"kid": "x", "jku": "https://127.0.0.1:1/keys"}))
    bad.append(jwt.encode(claims, mine, algorithm="ES256", headers={"kid": issuer.kid, "crit": ["x"], "x": 1}))
    for one in bad:
        assert refusal(company.assume, arn, one) == INVALID
    company.assume(arn, good)


def test_the_trust_policy_decides(company: Trusting, issuer: Issuer) -> None:
    right = {f"{issuer.name}:aud": "bastide", f"{issuer.name}:sub": "repo:org/one", "sts:RoleSessionName": "web",
             "aws:FederatedProvider": company.provider}  # fmt: skip
    arn = company.role("Conditions", allow("iam:GetRole"), StringEquals=right)
    company.keys(arn, sub="repo:org/one")
    assert refusal(company.keys, arn, sub="repo:org/two") == DENIED
    for number, key in enumerate(right):
        wrong = company.role(f"Wrong{number}", None, StringEquals={**right, key: "something else"})
        assert refusal(company.keys, wrong, sub="repo:org/one") == DENIED
    strong = company.role("Strong", None, **{"ForAnyValue:StringEquals": {f"{issuer.name}:amr": ["mfa"]}})
    company.keys(strong, amr=["pwd", "mfa"])
    assert refusal(company.keys, strong, amr=["pwd"]) == DENIED
    assert refusal(company.keys, strong) == DENIED
    for_party = company.role(
        "Party", None, StringEquals={f"{issuer.name}:aud": "bastide", f"{issuer.name}:oaud": "api"}
    )
    company.keys(for_party, aud="api", azp="bastide")
    assert refusal(company.keys, for_party) == DENIED
    with pytest.raises(
        botocore.exceptions.ClientError, match=r"Not authorized to perform sts:AssumeRoleWithWebIdentity"
    ):
        company.keys(arn, sub="x")


def test_tags_and_source_identity_need_their_permission(company: Trusting) -> None:
    plain = company.role("Plain")
    tags = {TAGS: {"principal_tags": {"team": ["risk"]}}}
    who = {"https://aws.amazon.com/source_identity": "alice"}
    assert refusal(company.keys, plain, **tags) == DENIED
    assert refusal(company.keys, plain, **who) == DENIED
    named = company.role("Named", allow("iam:GetRole", Condition={"StringEquals": {"aws:SourceIdentity": "alice"}}),
                         "sts:SetSourceIdentity")  # fmt: skip
    company.platform.client("iam", company.keys(named, **who)).get_role(RoleName="Named")
    tagged = company.role("TagsOnly", None, "sts:TagSession")
    for strange in (
        [], "x", {"principal_tags": []}, {"principal_tags": {"a": ["b", "c"]}}, {"principal_tags": {"a": 7}},
        {"principal_tags": {"aws:x": ["y"]}}, {"principal_tags": {"a": ["b"], "A": ["c"]}},
        {"principal_tags": {"a": ["b"]}, "transitive_tag_keys": ["c"]},
        {"principal_tags": {"a": ["b"]}, "transitive_tag_keys": [7]},
    ):  # fmt: skip
        assert refusal(company.keys, tagged, **{TAGS: strange}) == INVALID
    assert refusal(company.keys, named, **{"https://aws.amazon.com/source_identity": "no spaces"}) == INVALID


def test_keys_that_stay_with_the_session(company: Trusting, issuer: Issuer) -> None:
    condition = {
        "StringEquals": {f"{issuer.name}:sub": "alice", "aws:FederatedProvider": company.provider},
        "ForAnyValue:StringEquals": {f"{issuer.name}:amr": "mfa"},
    }
    arn = company.role("Stays", allow("iam:GetRole", Condition=condition))
    company.platform.client("iam", company.keys(arn, amr=["mfa", "pwd"])).get_role(RoleName="Stays")
    for other in ({"sub": "bob", "amr": ["mfa"]}, {}):
        assert refusal(company.platform.client("iam", company.keys(arn, **other)).get_role, RoleName="Stays") == DENIED


def test_a_deleted_provider_and_its_sessions(platform: Running, account: Account, issuer: Issuer) -> None:
    company = Trusting(platform, account, issuer)
    arn = company.role("R", allow("iam:GetRole"))
    keys = company.keys(arn)
    iam = account.client("iam")
    iam.remove_client_id_from_open_id_connect_provider(OpenIDConnectProviderArn=company.provider, ClientID="bastide")
    assert refusal(company.keys, arn) == INVALID
    iam.add_client_id_to_open_id_connect_provider(OpenIDConnectProviderArn=company.provider, ClientID="bastide")
    company.keys(arn)
    iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=company.provider)
    assert refusal(company.keys, arn) == INVALID
    platform.client("iam", keys).get_role(RoleName="R")


def test_keys_are_fetched_when_they_change_but_not_for_the_asking(
    platform: Running, account: Account, tmp_path: Path
) -> None:
    issuer = Issuer(platform_authority(platform.data)).start(tmp_path)
    try:
        company = Trusting(platform, account, issuer)
        arn = company.role("R")
        for _ in range(3):
            company.keys(arn)
        assert issuer.asked["/oidc/keys"] == 1
        issuer.keys = {"second": ec.generate_private_key(ec.SECP256R1())}
        company.keys(arn, kid="second")
        assert issuer.asked["/oidc/keys"] == 2
        stranger = ec.generate_private_key(ec.SECP256R1())
        for number in range(5):
            assert refusal(company.assume, arn, issuer.token(kid=f"x{number}", key=stranger)) == INVALID
        assert issuer.asked["/oidc/keys"] == 2
        company.keys(arn, kid="second")
    finally:
        issuer.stop()


def test_an_issuer_is_believed_by_its_certificate(platform: Running, account: Account, tmp_path: Path) -> None:
    issuer = Issuer(own_authority()).start(tmp_path)
    wrong = Issuer(issuer.authority, host="idp.example.com")
    try:
        unknown = Trusting(platform, account, issuer)
        arn = unknown.role("R")
        assert refusal(unknown.keys, arn) == UNREACHABLE
        iam = account.client("iam")
        for prints, believed in ((["0" * 40], False), (["0" * 40, issuer.thumbprint], True)):
            iam.update_open_id_connect_provider_thumbprint(
                OpenIDConnectProviderArn=unknown.provider, ThumbprintList=prints
            )
            if believed:
                unknown.keys(arn)
            else:
                assert refusal(unknown.keys, arn) == UNREACHABLE
        # The right authority, but the certificate of another host.
        wrong.start(tmp_path)
        wrong.host = "localhost"
        other = Trusting(platform, account, wrong, ThumbprintList=[wrong.thumbprint])
        assert refusal(other.keys, other.role("Other")) == UNREACHABLE
    finally:
        issuer.stop()
        if hasattr(wrong, "server"):
            wrong.stop()


def test_what_an_issuer_must_not_answer(platform: Running, account: Account, tmp_path: Path, issuer: Issuer) -> None:
    """Each kind of bad answer has an issuer of its own, because a failure is remembered for a while."""
    authority = platform_authority(platform.data)
    for number, spoil in enumerate(("redirect", "issuer", "host", "scheme", "large", "text", "keys", "cut")):
        bad = Issuer(authority, path=f"/{spoil}").start(tmp_path)
        try:
            discovery = f"{bad.path}/.well-known/openid-configuration"
            good = {"issuer": bad.url, "jwks_uri": f"{bad.url}/keys"}
            answers: dict[str, tuple[str, tuple[int, dict[str, str], bytes]]] = {
                "redirect": (discovery, (302, {"Location": f"{issuer.url}/.well-known/openid-configuration"}, b"")),
                "issuer": (discovery, (200, {}, json.dumps({**good, "issuer": issuer.url}).encode())),
                "host": (
                    discovery,
                    (200, {}, json.dumps({**good, "jwks_uri": f"https://127.0.0.1{bad.path}/keys"}).encode()),
                ),
                "scheme": (discovery, (200, {}, json.dumps({**good, "jwks_uri": "file:///etc/passwd"}).encode())),
                "large": (f"{bad.path}/keys", (200, {}, b'{"keys": [' + b" " * 400_000 + b"]}")),
                "text": (discovery, (200, {}, b"<html>")),
                "keys": (f"{bad.path}/keys", (200, {}, b'{"keys": {}}')),
                "cut": (f"{bad.path}/keys", (200, {"Content-Length": "10"}, b'{"keys": []}')),
            }
            path, answer = answers[spoil]
            bad.answers[path] = answer
            company = Trusting(platform, account, bad)
            assert refusal(company.keys, company.role(f"R{number}")) == UNREACHABLE, spoil
        finally:
            bad.stop()


def test_addresses_that_are_no_issuers(platform: Running, account: Account, tmp_path: Path) -> None:
    iam = account.client("iam")
    for url in (
        "http://idp.example.com", "ftp://localhost", "https://", "https://host/x?y=z", "https://host/#x", "https://a b",
        "https://user@host", "https://host:99999", "https://HOST", "localhost:1", "https://saml", "https://host/\u00e9", "https://[::1",
    ):  # fmt: skip
        code, _ = refusal(iam.create_open_id_connect_provider, Url=url)
        assert code in ("InvalidInput", "ValidationError"), url
    # Plain HTTP is for development, on this machine, and says so.
    plain = Issuer(platform_authority(platform.data), plain=True).start(tmp_path)
    try:
        assert refusal(Trusting, platform, account, plain) == ("InvalidInput", 400)
        marked = Trusting(platform, account, plain, Tags=[{"Key": "bastide:development", "Value": "true"}])
        development = marked.role("Development")
        marked.keys(development)
        account.client("iam").untag_open_id_connect_provider(
            OpenIDConnectProviderArn=marked.provider, TagKeys=["bastide:development"]
        )
        assert refusal(marked.keys, development) == INVALID
        # The metadata service of a cloud is not an issuer.
        link = Trusting(platform, account, Address("https://169.254.169.254/x"))
        arn = link.role("Link")
        token = plain.token(iss="https://169.254.169.254/x")
        started = time.monotonic()
        assert refusal(link.assume, arn, token) == UNREACHABLE
        assert time.monotonic() - started < 2
    finally:
        plain.stop()
