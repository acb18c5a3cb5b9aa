"""People whom a SAML provider vouches for: what makes a session, and what does not."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import ssl
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlencode

import botocore
import botocore.config
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from lxml import etree

from tests.identity_providers import AWS, RECIPIENT, SamlProvider, encode
from tests.platform import SESSION, Account, Keys, Running, allow
from tests.stories.sts.test_sessions import DENIED, refusal, role

INVALID = ("InvalidIdentityToken", 400)
EXPIRED = ("ExpiredTokenException", 400)


@pytest.fixture(scope="module")
def idp() -> SamlProvider:
    return SamlProvider()


@pytest.fixture(scope="module")
def company(platform: Running, idp: SamlProvider) -> Company:
    return Company(platform, platform.account(), idp)


class Company:
    """An account that trusts a provider."""

    def __init__(self, platform: Running, account: Account, idp: SamlProvider) -> None:
        self.platform, self.account, self.idp = platform, account, idp
        made = account.client("iam").create_saml_provider(Name="corp", SAMLMetadataDocument=idp.metadata())
        self.provider: str = made["SAMLProviderArn"]
        self.sts = unsigned(platform)

    def role(self, name: str, policy: Any = None, *actions: str, **condition: Any) -> str:
        """A role that trusts the provider."""
        statement = {
            "Effect": "Allow",
            "Principal": {"Federated": self.provider},
            "Action": ["sts:AssumeRoleWithSAML", *actions],
        }
        if condition:
            statement["Condition"] = condition
        trust = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        return role(self.account, name, trust, policy)

    def assume(self, arn: str, encoded: str, **more: Any) -> Any:
        return self.sts.assume_role_with_saml(RoleArn=arn, PrincipalArn=self.provider, SAMLAssertion=encoded, **more)

    def keys(self, arn: str, session: str = "alice", **more: Any) -> Keys:
        given = self.assume(arn, self.idp.encoded(arn, self.provider, session, **more))["Credentials"]
        return Keys(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])


def unsigned(platform: Running) -> Any:
    """A client of somebody who has no keys."""
    return SESSION.client(
        "sts",
        region_name="us-east-1",
        endpoint_url=platform.url,
        verify=platform.authority,
        config=botocore.config.Config(signature_version=botocore.UNSIGNED, retries={"max_attempts": 1}),
    )


@pytest.mark.control("IAM-02")
def test_a_signed_assertion_makes_a_session(company: Company) -> None:
    by_tag = allow("iam:GetRole", Condition={"StringEquals": {"aws:PrincipalTag/team": "risk"}})
    arn = company.role("Tagged", by_tag, "sts:TagSession")
    tagged = {f"{AWS}PrincipalTag:team": ["risk"], f"{AWS}TransitiveTagKeys": ["team"]}
    told = company.assume(arn, company.idp.encoded(arn, company.provider, attributes=tagged))
    role_id = company.account.client("iam").get_role(RoleName="Tagged")["Role"]["RoleId"]
    assert told["AssumedRoleUser"]["AssumedRoleId"] == f"{role_id}:alice"
    assert told["AssumedRoleUser"]["Arn"] == f"arn:aws:sts::{company.account.id}:assumed-role/Tagged/alice"
    assert (told["Subject"], told["SubjectType"]) == ("alice@example.com", "persistent")
    assert (told["Issuer"], told["Audience"]) == (company.idp.entity, RECIPIENT)
    digest = hashlib.sha1(f"{company.idp.entity}{company.account.id}/corp".encode()).digest()
    assert told["NameQualifier"] == base64.b64encode(digest).decode()
    given = told["Credentials"]
    keys = Keys(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
    who = company.platform.client("sts", keys).get_caller_identity()
    assert who["UserId"] == f"{role_id}:alice"
    company.platform.client("iam", keys).get_role(RoleName="Tagged")
    # aws:userid, as policies see it: alice's session, and nobody else's.
    by_id = allow("iam:ListRoles", Condition={"StringEquals": {"aws:userid": f"{role_id}:alice"}})
    company.account.client("iam").put_role_policy(RoleName="Tagged", PolicyName="id", PolicyDocument=json.dumps(by_id))
    company.platform.client("iam", keys).list_roles()
    assert refusal(company.platform.client("iam", company.keys(arn, "bob")).list_roles) == DENIED
    # The tag came from the assertion: another value, and none, may not.
    other = company.keys(arn, attributes={f"{AWS}PrincipalTag:team": ["ops"]})
    assert refusal(company.platform.client("iam", other).get_role, RoleName="Tagged") == DENIED
    assert refusal(company.platform.client("iam", company.keys(arn)).get_role, RoleName="Tagged") == DENIED


@pytest.mark.control("IAM-02")
def test_what_does_not_make_a_session(company: Company, idp: SamlProvider) -> None:
    arn, other = company.role("Strict"), company.role("Other")
    good = idp.encoded(arn, company.provider)
    company.assume(arn, good)
    company.assume(arn, good)  # as in AWS, within its validity
    tampered = base64.b64encode(base64.b64decode(good).replace(b"alice", b"admin")).decode()
    assert refusal(company.assume, arn, tampered) == INVALID
    assert refusal(company.assume, other, good) == DENIED
    assert refusal(company.assume, arn, idp.encoded(arn, company.provider + "x")) == DENIED

    def with_(**more: Any) -> tuple[str, int]:
        return refusal(company.assume, arn, idp.encoded(arn, company.provider, **more))

    assert with_(ends=-1) == EXPIRED
    assert with_(ends=-1, confirmed=60) == EXPIRED
    assert with_(confirmed=-1) == EXPIRED
    assert with_(issued=-301) == EXPIRED
    assert with_(session_ends=-1) == EXPIRED
    assert with_(begins=120) == INVALID
    assert with_(issued=120) == INVALID
    assert with_(audience="https://sp.example.com") == INVALID
    assert with_(recipient="https://signin.aws.amazon.com.example.com/saml") == INVALID
    assert with_(destination="https://sp.example.com/acs") == INVALID
    assert with_(condition="<saml:Condition/>") == INVALID
    company.assume(arn, idp.encoded(arn, company.provider, condition="<saml:OneTimeUse/>"))
    assert with_(issuer="https://other.example.com/saml") == INVALID
    assert with_(signed="") == INVALID
    assert with_(algorithm="rsa-sha1", digest="sha1") == INVALID
    assert with_(attributes={f"{AWS}RoleSessionName": []}) == INVALID
    assert with_(attributes={f"{AWS}RoleSessionName": ["a", "b"]}) == INVALID
    assert with_(session="no spaces here") == INVALID
    assert with_(attributes={f"{AWS}SessionDuration": ["5"]}) == INVALID
    assert with_(status="urn:oasis:names:tc:SAML:2.0:status:Responder") == ("IDPRejectedClaim", 403)
    stranger = SamlProvider(idp.entity)
    assert refusal(company.assume, arn, stranger.encoded(arn, company.provider)) == INVALID
    for rubbish in ("AAAA", "!!!!", base64.b64encode(b"<a/>").decode(), base64.b64encode(b"\xff\xfe<").decode()):
        assert refusal(company.assume, arn, rubbish) == INVALID


def test_either_order_and_either_signature(company: Company, idp: SamlProvider) -> None:
    arn = company.role("Plain")
    pair = {
        f"{AWS}Role": [f"arn:aws:iam::{company.account.id}:role/X,{company.provider}", f"{company.provider}, {arn}"]
    }
    for signed in ("assertion", "response", "both"):
        company.assume(arn, idp.encoded(arn, company.provider, signed=signed, attributes=pair))
    region = "https://eu-west-1.signin.aws.amazon.com/saml"
    company.assume(arn, idp.encoded(arn, company.provider, audience="urn:amazon:webservices", recipient=region))


def test_signatures_are_not_wrapped_around_something_else(company: Company, idp: SamlProvider) -> None:
    """The ways of "On Breaking SAML" (XSW): the signed assertion is somewhere, another one is read."""
    arn, admin = company.role("Small"), company.role("Mighty")
    ds, saml = "{http://www.w3.org/2000/09/xmldsig#}", "{urn:oasis:names:tc:SAML:2.0:assertion}"

    def evil(id: str) -> etree._Element:
        found = idp.assertion(
            {f"{AWS}Role": [f"{admin},{company.provider}"], f"{AWS}RoleSessionName": ["mallory"]}, id=id
        )
        idp._drop(found)
        return found

    def good(signed: str) -> etree._Element:
        attributes = {f"{AWS}Role": [f"{arn},{company.provider}"], f"{AWS}RoleSessionName": ["alice"]}
        return idp.response(idp.assertion(attributes), signed=signed)

    company.assume(arn, encode(good("assertion")))
    forged: list[etree._Element] = []
    for id in ("_assertion", "_evil"):
        # Another assertion before, after, around or inside of the signed one.
        for place in (0, 2, 3):
            root = good("assertion")
            root.insert(place, evil(id))
            forged.append(root)
        root = good("assertion")
        signed = root.find(f"{saml}Assertion")
        outer = evil(id)
        root.replace(signed, outer)
        outer.append(signed)
        forged.append(root)
        root = good("assertion")
        signed = root.find(f"{saml}Assertion")
        root.replace(signed, evil(id))
        extensions = etree.SubElement(root, "{urn:oasis:names:tc:SAML:2.0:protocol}Extensions")
        extensions.append(signed)
        forged.append(root)
        # The evil one carries the good one's signature, which holds the good one in an Object.
        root = good("assertion")
        signed = root.find(f"{saml}Assertion")
        signature = signed.find(f"{ds}Signature")
        signed.remove(signature)
        outer = evil(id)
        root.replace(signed, outer)
        etree.SubElement(signature, f"{ds}Object").append(signed)
        outer.insert(1, signature)
        forged.append(root)
    # A response around the signed response.
    root, inner = good("response"), good("response")
    for name in (f"{ds}Signature", f"{saml}Assertion"):
        root.remove(root.find(name))
    root.append(evil("_evil"))
    signature = inner.find(f"{ds}Signature")
    inner.remove(signature)
    etree.SubElement(signature, f"{ds}Object").append(inner)
    root.insert(0, signature)
    forged.append(root)
    # The signature of a response does not speak for an assertion put in its place.
    root = good("response")
    root.replace(root.find(f"{saml}Assertion"), evil("_assertion"))
    forged.append(root)
    for one in forged:
        assert refusal(company.assume, admin, encode(one)) == INVALID
        assert refusal(company.assume, arn, encode(one)) == INVALID


def test_documents_that_attack_the_reader(company: Company, idp: SamlProvider) -> None:
    arn = company.role("Read")
    text = base64.b64decode(idp.encoded(arn, company.provider))
    laughs = b'<!DOCTYPE r [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>'
    outside = b'<!DOCTYPE r [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
    for head in (laughs, outside, b'<!DOCTYPE r SYSTEM "http://127.0.0.1:1/x.dtd">'):
        assert refusal(company.assume, arn, base64.b64encode(head + text).decode()) == INVALID
    deep = base64.b64encode(b"<a>" * 5000).decode()
    assert refusal(company.assume, arn, deep) == INVALID
    # A comment in the subject neither breaks the signature nor cuts the name.
    cut = idp.encoded(arn, company.provider, subject="alice@example.com.evil.example")
    commented = base64.b64decode(cut).replace(b"alice@example.com.evil", b"alice@example.com<!-- -->.evil")
    told = company.assume(arn, base64.b64encode(commented).decode())
    assert told["Subject"] == "alice@example.com.evil.example"
    # Another provider's certificate within the signature is not what is trusted.
    assert refusal(company.assume, arn, SamlProvider(idp.entity).encoded(arn, company.provider)) == INVALID


def test_the_trust_policy_decides(company: Company, idp: SamlProvider) -> None:
    iam_only = allow("iam:GetRole")
    right = {
        "saml:aud": RECIPIENT,
        "saml:iss": idp.entity,
        "saml:sub": "alice@example.com",
        "saml:sub_type": "persistent",
        "saml:doc": f"{company.account.id}/corp",
        "sts:RoleSessionName": "alice",
    }
    arn = company.role("Conditions", iam_only, StringEquals=right)
    company.assume(arn, idp.encoded(arn, company.provider))
    for number, key in enumerate(right):
        wrong = company.role(f"Wrong{number}", iam_only, StringEquals={**right, key: "something else"})
        assert refusal(company.assume, wrong, idp.encoded(wrong, company.provider)) == DENIED
    staff = {"ForAnyValue:StringEquals": {"saml:eduPersonAffiliation": ["staff"]}}
    of_staff = company.role("Staff", iam_only, **staff)
    affiliation = "urn:oid:1.3.6.1.4.1.5923.1.1.1.1"
    company.keys(of_staff, attributes={affiliation: ["member", "staff"]})
    assert refusal(company.keys, of_staff, attributes={affiliation: ["student"]}) == DENIED
    assert refusal(company.keys, of_staff) == DENIED
    closed = role(company.account, "Closed", json.dumps(_trust({"AWS": company.account.id}, "sts:*")))
    assert refusal(company.keys, closed) == DENIED


def _trust(principal: Any, *actions: str) -> dict[str, Any]:
    return {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": principal, "Action": list(actions)}],
    }


def test_tags_and_source_identity_need_their_permission(company: Company) -> None:
    plain = company.role("Untagged")
    assert refusal(company.keys, plain, attributes={f"{AWS}PrincipalTag:team": ["risk"]}) == DENIED
    assert refusal(company.keys, plain, attributes={f"{AWS}SourceIdentity": ["alice"]}) == DENIED
    named = company.role("Named", allow("iam:GetRole", Condition={"StringEquals": {"aws:SourceIdentity": "alice"}}),
                         "sts:SetSourceIdentity")  # fmt: skip
    keys = company.keys(named, attributes={f"{AWS}SourceIdentity": ["alice"]})
    company.platform.client("iam", keys).get_role(RoleName="Named")
    wanted = {"StringEquals": {"aws:RequestTag/team": "risk"}, "ForAllValues:StringEquals": {"aws:TagKeys": ["team"]}}
    strict = company.role("OnlyRisk", None, "sts:TagSession", **wanted)
    company.keys(strict, attributes={f"{AWS}PrincipalTag:team": ["risk"]})
    assert refusal(company.keys, strict, attributes={f"{AWS}PrincipalTag:team": ["ops"]}) == DENIED
    more = {f"{AWS}PrincipalTag:team": ["risk"], f"{AWS}PrincipalTag:x": ["y"]}
    assert refusal(company.keys, strict, attributes=more) == DENIED
    twice = {f"{AWS}PrincipalTag:team": ["risk"], f"{AWS}PrincipalTag:Team": ["ops"]}
    assert refusal(company.keys, strict, attributes=twice) == INVALID


def test_a_transitive_tag_goes_on(company: Company, platform: Running) -> None:
    both = ("sts:AssumeRole", "sts:TagSession")
    next_role = role(
        company.account, "Next", json.dumps(_trust({"AWS": company.account.id}, *both)),
        allow("iam:GetRole", Condition={"StringEquals": {"aws:PrincipalTag/team": "risk"}}),
    )  # fmt: skip
    first = company.role("First", allow("sts:*"), "sts:TagSession")
    tags = {f"{AWS}PrincipalTag:team": ["risk"]}
    keys = company.keys(first, attributes={**tags, f"{AWS}TransitiveTagKeys": ["team"]})
    platform.client("iam", platform.assume(next_role, keys)).get_role(RoleName="Next")
    assert refusal(platform.assume, next_role, keys, DurationSeconds=3601) == ("ValidationError", 400)
    stays = platform.assume(next_role, company.keys(first, attributes=tags))
    assert refusal(platform.client("iam", stays).get_role, RoleName="Next") == DENIED
    assert refusal(company.keys, first, attributes={f"{AWS}TransitiveTagKeys": ["team"]}) == INVALID


def test_keys_that_stay_with_the_session(company: Company) -> None:
    subject = {"StringEquals": {"saml:sub": "alice@example.com", "saml:sub_type": "persistent"}}
    arn = company.role("Stays", allow("iam:GetRole", Condition=subject))
    company.platform.client("iam", company.keys(arn)).get_role(RoleName="Stays")
    other = company.keys(arn, subject="bob@example.com")
    assert refusal(company.platform.client("iam", other).get_role, RoleName="Stays") == DENIED


def test_how_long(company: Company, idp: SamlProvider) -> None:
    arn = company.role("Long")

    def lasts(duration: int | None = None, **more: Any) -> float:
        asked = {} if duration is None else {"DurationSeconds": duration}
        told = company.assume(arn, idp.encoded(arn, company.provider, **more), **asked)
        return (told["Credentials"]["Expiration"] - datetime.datetime.now(datetime.UTC)).total_seconds()

    assert 3590 < lasts() <= 3600
    assert 890 < lasts(900) <= 900
    assert 990 < lasts(session_ends=1000) <= 1000
    assert 1190 < lasts(attributes={f"{AWS}SessionDuration": ["1200"]}) <= 1200
    with pytest.raises(botocore.exceptions.ClientError, match="MaxSessionDuration"):
        lasts(3601)


def test_session_policies_and_their_size(company: Company, idp: SamlProvider) -> None:
    arn = company.role("Wide", allow("iam:*"), "sts:TagSession")
    narrow = json.dumps(allow("iam:GetRole"))
    told = company.assume(arn, idp.encoded(arn, company.provider), Policy=narrow)
    assert 0 < told["PackedPolicySize"] < 10
    given = told["Credentials"]
    keys = Keys(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
    company.platform.client("iam", keys).get_role(RoleName="Wide")
    assert refusal(company.platform.client("iam", keys).list_roles) == DENIED
    assert refusal(company.assume, arn, idp.encoded(arn, company.provider), Policy="{}")[0] == "MalformedPolicyDocument"
    tags = {f"{AWS}PrincipalTag:{'k' * 90}{number}": ["v" * 200] for number in range(20)}
    assert refusal(company.keys, arn, attributes=tags)[0] == "PackedPolicyTooLarge"


def test_the_provider(platform: Running, account: Account, neighbour: Account, idp: SamlProvider) -> None:
    company = Company(platform, account, idp)
    arn = company.role("R", allow("iam:GetRole"))
    # A role of another account is not reached by this account's provider, whatever it trusts.
    there = role(neighbour, "There", json.dumps(_trust({"Federated": company.provider}, "sts:AssumeRoleWithSAML")))
    assert refusal(company.keys, there) == INVALID
    keys = company.keys(arn)
    iam = account.client("iam")
    fresh = SamlProvider(idp.entity)
    iam.update_saml_provider(SAMLProviderArn=company.provider, SAMLMetadataDocument=fresh.metadata())
    assert refusal(company.keys, arn) == INVALID
    company.assume(arn, fresh.encoded(arn, company.provider))
    iam.delete_saml_provider(SAMLProviderArn=company.provider)
    assert refusal(company.assume, arn, fresh.encoded(arn, company.provider)) == INVALID
    # What began goes on to its end.
    platform.client("iam", keys).get_role(RoleName="R")


def test_the_record(company: Company, idp: SamlProvider) -> None:
    arn = company.role("Recorded")
    company.keys(arn, "carol")
    trail = company.account.client("cloudtrail")
    attributes = [{"AttributeKey": "EventName", "AttributeValue": "AssumeRoleWithSAML"}]
    events = [json.loads(one["CloudTrailEvent"]) for one in trail.lookup_events(LookupAttributes=attributes)["Events"]]
    mine = [one for one in events if one["requestParameters"]["roleArn"] == arn]
    assert len(mine) == 1
    who = mine[0]["userIdentity"]
    assert (who["type"], who["userName"], who["identityProvider"]) == (
        "SAMLUser", "alice@example.com", company.provider,
    )  # fmt: skip
    assert mine[0]["requestParameters"]["sAMLAssertion"] == "HIDDEN_DUE_TO_SECURITY_REASONS"
    assert mine[0]["responseElements"]["credentials"]["sessionToken"] == "HIDDEN_DUE_TO_SECURITY_REASONS"


def test_a_refusal_is_explained_to_the_account(company: Company, idp: SamlProvider) -> None:
    """Whoever brought the assertion learns nothing; the account can have the refusal decoded."""
    arn = company.role("Explained", None, StringEquals={"saml:sub": "bob@example.com"})
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        company.keys(arn)
    text, _, sealed = caught.value.response["Error"]["Message"].partition(" Encoded authorization failure message: ")
    assert text == "Not authorized to perform sts:AssumeRoleWithSAML"
    told = json.loads(
        company.account.client("sts").decode_authorization_message(EncodedMessage=sealed)["DecodedMessage"]
    )["context"]
    assert (told["action"], told["resource"]) == ("sts:AssumeRoleWithSAML", arn)
    assert told["principal"]["name"] == "alice@example.com"
    assert {"key": "saml:sub", "values": {"items": [{"value": "alice@example.com"}]}} in told["conditions"]["items"]


def test_a_signature_beside_the_assertion_changes_nothing(company: Company, idp: SamlProvider) -> None:
    """Who calls is who the assertion names, whoever signs: an administrator's key makes no bad assertion good."""
    arn = company.role("Beside")

    def post(assertion: str) -> tuple[int, str]:
        form = urlencode(
            {
                "Action": "AssumeRoleWithSAML", "Version": "2011-06-15", "RoleArn": arn,
                "PrincipalArn": company.provider, "SAMLAssertion": assertion,
            }
        ).encode()  # fmt: skip
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        request = AWSRequest(method="POST", url=company.platform.url + "/", data=form, headers=headers)
        keys = company.account.keys
        SigV4Auth(Credentials(keys.access_key, keys.secret, keys.token), "sts", "us-east-1").add_auth(request)
        context = ssl.create_default_context(cafile=company.platform.authority)
        sent = urllib.request.Request(request.url, form, dict(request.headers.items()))
        try:
            with urllib.request.urlopen(sent, context=context) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    status, body = post("AAAA")
    assert status == 400 and "<Code>InvalidIdentityToken</Code>" in body
    status, body = post(idp.encoded(arn, company.provider))
    assert status == 200 and "assumed-role/Beside/alice" in body
