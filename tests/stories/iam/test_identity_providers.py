"""SAML and OpenID Connect providers as IAM keeps them."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest

from tests.identity_providers import SamlProvider
from tests.platform import Account, Running, allow
from tests.stories.sts.test_sessions import DENIED, refusal

MISSING = ("NoSuchEntity", 404)
EXISTS = ("EntityAlreadyExists", 409)
INPUT = ("InvalidInput", 400)


@pytest.fixture(scope="module")
def idp() -> SamlProvider:
    return SamlProvider()


def test_a_saml_provider(account: Account, neighbour: Account, idp: SamlProvider) -> None:
    iam = account.client("iam")
    tags = [{"Key": "team", "Value": "risk"}]
    made = iam.create_saml_provider(Name="corp", SAMLMetadataDocument=idp.metadata(), Tags=tags)
    arn = made["SAMLProviderArn"]
    assert arn == f"arn:aws:iam::{account.id}:saml-provider/corp" and made["Tags"] == tags
    told = iam.get_saml_provider(SAMLProviderArn=arn)
    assert told["SAMLMetadataDocument"] == idp.metadata() and told["Tags"] == tags
    expires = idp.certificate.not_valid_after_utc
    assert abs(told["ValidUntil"] - expires) < datetime.timedelta(seconds=1)
    assert [one["Arn"] for one in iam.list_saml_providers()["SAMLProviderList"]] == [arn]
    assert refusal(iam.create_saml_provider, Name="corp", SAMLMetadataDocument=idp.metadata()) == EXISTS
    soon = datetime.datetime.now(datetime.UTC).replace(microsecond=0) + datetime.timedelta(days=1)
    bounded = idp.metadata(f'validUntil="{soon.strftime("%Y-%m-%dT%H:%M:%SZ")}"')
    iam.update_saml_provider(SAMLProviderArn=arn, SAMLMetadataDocument=bounded)
    assert iam.get_saml_provider(SAMLProviderArn=arn)["ValidUntil"] == soon
    iam.tag_saml_provider(SAMLProviderArn=arn, Tags=[{"Key": "more", "Value": "x"}])
    iam.untag_saml_provider(SAMLProviderArn=arn, TagKeys=["team"])
    assert iam.list_saml_provider_tags(SAMLProviderArn=arn)["Tags"] == [{"Key": "more", "Value": "x"}]
    theirs = neighbour.client("iam")
    assert refusal(theirs.get_saml_provider, SAMLProviderArn=arn) in (MISSING, DENIED)
    assert theirs.list_saml_providers()["SAMLProviderList"] == []
    iam.delete_saml_provider(SAMLProviderArn=arn)
    for call in (iam.get_saml_provider, iam.delete_saml_provider, iam.list_saml_provider_tags):
        assert refusal(call, SAMLProviderArn=arn) == MISSING
    assert refusal(iam.get_saml_provider, SAMLProviderArn="arn:aws:iam::aws:saml-provider/corp") in (MISSING, DENIED)


def test_metadata_that_is_none(account: Account, idp: SamlProvider) -> None:
    iam = account.client("iam")
    good = idp.metadata()
    head, _, rest = good.partition("?>")
    laughs = '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;">]>'
    expired = SamlProvider(days=-1)
    for number, document in enumerate(
        (
            "x" * 1000,
            f"{head}?>{laughs}{rest}",
            f'{head}?><!DOCTYPE a SYSTEM "file:///etc/passwd">{rest}',
            good.replace("EntityDescriptor", "EntitiesDescriptor"),
            good.replace(f'entityID="{idp.entity}"', ""),
            good.replace('use="signing"', 'use="encryption"'),
            good.replace("<ds:X509Certificate>", "<ds:X509Certificate>AAAA"),
            good.replace("IDPSSODescriptor", "SPSSODescriptor"),
            idp.metadata('validUntil="2020-01-01T00:00:00Z"'),
            idp.metadata('validUntil="whenever"'),
            expired.metadata(),
            ("<a>" * 400).ljust(1000),
        )
    ):
        assert refusal(iam.create_saml_provider, Name=f"n{number}", SAMLMetadataDocument=document) == INPUT, number
    assert iam.list_saml_providers()["SAMLProviderList"] == []
    key = {"AddPrivateKey": "x", "AssertionEncryptionMode": "Allowed"}
    assert refusal(iam.create_saml_provider, Name="n", SAMLMetadataDocument=good, **key) == INPUT


def test_an_oidc_provider(account: Account) -> None:
    iam = account.client("iam")
    given = {"Url": "https://idp.example.com/tenant/1", "ClientIDList": ["a", "b", "a"], "ThumbprintList": ["AB" * 20]}
    arn = iam.create_open_id_connect_provider(**given)["OpenIDConnectProviderArn"]
    assert arn == f"arn:aws:iam::{account.id}:oidc-provider/idp.example.com/tenant/1"
    told = iam.get_open_id_connect_provider(OpenIDConnectProviderArn=arn)
    assert (told["Url"], told["ClientIDList"], told["ThumbprintList"]) == (
        "idp.example.com/tenant/1", ["a", "b"], ["ab" * 20],
    )  # fmt: skip
    assert refusal(iam.create_open_id_connect_provider, **given) == EXISTS
    assert iam.list_open_id_connect_providers()["OpenIDConnectProviderList"] == [{"Arn": arn}]
    name = {"OpenIDConnectProviderArn": arn}
    iam.add_client_id_to_open_id_connect_provider(**name, ClientID="c")
    iam.add_client_id_to_open_id_connect_provider(**name, ClientID="c")
    iam.remove_client_id_from_open_id_connect_provider(**name, ClientID="a")
    iam.remove_client_id_from_open_id_connect_provider(**name, ClientID="nobody")
    iam.update_open_id_connect_provider_thumbprint(**name, ThumbprintList=["00" * 20])
    told = iam.get_open_id_connect_provider(**name)
    assert (told["ClientIDList"], told["ThumbprintList"]) == (["b", "c"], ["00" * 20])
    assert refusal(iam.update_open_id_connect_provider_thumbprint, **name, ThumbprintList=["x" * 40]) == INPUT
    six = [f"{n:040x}" for n in range(6)]
    assert refusal(iam.update_open_id_connect_provider_thumbprint, **name, ThumbprintList=six) == ("LimitExceeded", 409)
    iam.tag_open_id_connect_provider(**name, Tags=[{"Key": "k", "Value": "v"}])
    assert iam.list_open_id_connect_provider_tags(**name)["Tags"] == [{"Key": "k", "Value": "v"}]
    iam.untag_open_id_connect_provider(**name, TagKeys=["k"])
    assert "Tags" not in iam.get_open_id_connect_provider(**name)
    iam.delete_open_id_connect_provider(**name)
    assert refusal(iam.get_open_id_connect_provider, **name) == MISSING


def test_who_may_make_and_read_providers(platform: Running, account: Account, idp: SamlProvider) -> None:
    """Each action is asked about the provider's own ARN, with the tags that it has or gets."""
    arn = f"arn:aws:iam::{account.id}:saml-provider/mine"
    may = {"Version": "2012-10-17", "Statement": [
        *allow("iam:CreateSAMLProvider", "iam:TagSAMLProvider", resource=arn,
               Condition={"StringEquals": {"aws:RequestTag/team": "risk"}})["Statement"],
        *allow("iam:GetSAMLProvider", Condition={"StringEquals": {"aws:ResourceTag/team": "risk"}})["Statement"],
    ]}  # fmt: skip
    account.role("Maker", may)
    maker: Any = platform.client("iam", account.as_role("Maker"))
    given = {"SAMLMetadataDocument": idp.metadata()}
    tags = [{"Key": "team", "Value": "risk"}]
    assert refusal(maker.create_saml_provider, Name="mine", **given) == DENIED
    assert refusal(maker.create_saml_provider, Name="other", **given, Tags=tags) == DENIED
    maker.create_saml_provider(Name="mine", **given, Tags=tags)
    maker.get_saml_provider(SAMLProviderArn=arn)
    assert refusal(maker.delete_saml_provider, SAMLProviderArn=arn) == DENIED
    account.client("iam").untag_saml_provider(SAMLProviderArn=arn, TagKeys=["team"])
    assert refusal(maker.get_saml_provider, SAMLProviderArn=arn) == DENIED


def test_how_many(account: Account, idp: SamlProvider) -> None:
    iam = account.client("iam")
    for number in range(100):
        iam.create_open_id_connect_provider(Url=f"https://idp{number}.example.com")
    assert refusal(iam.create_open_id_connect_provider, Url="https://one.example.com") == ("LimitExceeded", 409)
    assert len(iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]) == 100


def test_nothing_secret_is_in_the_record(account: Account) -> None:
    iam = account.client("iam")
    iam.create_user(UserName="rita")
    made = iam.create_virtual_mfa_device(VirtualMFADeviceName="rita")["VirtualMFADevice"]
    refusal(
        iam.enable_mfa_device, UserName="rita", SerialNumber=made["SerialNumber"],
        AuthenticationCode1="123987", AuthenticationCode2="456987",
    )  # fmt: skip
    seed = made["Base32StringSeed"].decode()
    events = json.dumps(account.client("cloudtrail").lookup_events()["Events"], default=str)
    assert "EnableMFADevice" in events and "CreateVirtualMFADevice" in events
    assert seed not in events and "123987" not in events and "456987" not in events
