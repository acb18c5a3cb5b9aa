"""Somebody else's identity provider: who comes from it, what is believed of it, and what it can take back."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.identity_providers import platform_authority
from tests.platform import PROGRAM, Running, allow
from tests.stories.identity_center.browser import Browser, Centre, refusal
from tests.stories.identity_center.provider import CLIENT, SECRET, Provider, settled


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Without the development provider."""
    running = Running(tmp_path_factory.mktemp("connected") / "data")
    running.start()
    running.found()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def there(platform: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Centre, Provider]]:
    """The platform, connected to a provider by the command that people use."""
    centre = Centre(platform)
    browser = centre.browser
    browser.go(f"{platform.url}/start")
    assert browser.status == 503 and "bastide identity connect" in browser.text
    provider = Provider(platform_authority(platform.data)).start(tmp_path_factory.mktemp("provider"))
    connect(centre, provider)
    yield centre, provider
    provider.stop()


def connect(centre: Centre, provider: Provider, *more: str) -> None:
    told = centre.command(
        "identity", "connect", "--issuer", provider.url, "--client-id", CLIENT, "--client-secret-file", "-",
        "--authority", centre.platform.authority, "--claim", "Title=job", "--recheck", "1", *more, told=SECRET,
    )  # fmt: skip
    assert provider.url in told
    assert SECRET not in (centre.platform.data / "identity-provider.json").read_text()


def enter(centre: Centre, provider: Provider, **claims: Any) -> Browser:
    provider.claims = claims
    return centre.browser.go(f"{centre.platform.url}/start")


def user_of(centre: Centre, name: str) -> dict[str, Any]:
    found: dict[str, Any] = centre.store.describe_user(IdentityStoreId=centre.store_id, UserId=centre.known(name))
    return found


def groups_of(centre: Centre, name: str) -> set[str]:
    at = {"IdentityStoreId": centre.store_id}
    held = centre.store.list_group_memberships_for_member(**at, MemberId={"UserId": centre.known(name)})
    return {
        centre.store.describe_group(**at, GroupId=one["GroupId"])["DisplayName"] for one in held["GroupMemberships"]
    }


@pytest.mark.control("IAM-04")
def test_joiner_mover_and_leaver_come_from_the_provider(there: tuple[Centre, Provider]) -> None:
    centre, provider = there
    joined = {
        "sub": "s-1", "preferred_username": "eva", "given_name": "Eva", "family_name": "Ng", "job": "Analyst",
        "email": "eva@example.com", "email_verified": True, "groups": ["risk", "model-builders"],
    }  # fmt: skip
    browser = enter(centre, provider, **joined)
    assert "Your accounts" in browser.text, browser.text
    shown = user_of(centre, "eva")
    assert shown["Name"] == {"GivenName": "Eva", "FamilyName": "Ng"} and shown["Title"] == "Analyst"
    assert shown["ExternalIds"] == [{"Issuer": provider.url, "Id": "s-1"}]
    assert groups_of(centre, "eva") == {"risk", "model-builders"}
    by_hand = centre.group(centre.known("eva"), name="by hand")
    account = centre.platform.account()
    arn, name = centre.permission_set(allow("iam:ListUsers"))
    unique = {"UniqueAttribute": {"AttributePath": "displayName", "AttributeValue": "risk"}}
    risk = centre.store.get_group_id(IdentityStoreId=centre.store_id, AlternateIdentifier=unique)["GroupId"]
    centre.assign(account, arn, risk, "GROUP")
    token = centre.token("eva", browser)["accessToken"]
    iam = centre.platform.client("iam", centre.session(token, account, name))
    iam.list_users()
    # The mover: the provider tells of other groups, and is asked every second here.
    provider.claims = {**joined, "groups": ["audit"], "job": "Auditor", "email": "eva.ng@example.com"}
    assert settled(lambda: groups_of(centre, "eva") == {"audit", "by hand"})
    shown = user_of(centre, "eva")
    assert shown["Title"] == "Auditor" and shown["Emails"][0]["Value"] == "eva.ng@example.com" and by_hand
    assert centre.accounts(token) == []
    assert refusal(iam.list_users) == "InvalidClientTokenId"
    # The leaver: the provider vouches no more.
    provider.claims = {**joined, "groups": ["risk"]}
    assert settled(lambda: account.id in centre.accounts(token))
    back = centre.platform.client("iam", centre.session(token, account, name))
    sso = centre.unsigned("sso")
    sso.logout(accessToken=token)
    assert refusal(sso.list_accounts, accessToken=token) == "UnauthorizedException"
    back.list_users()  # who signs out keeps what was given out, as on AWS
    provider.gone = True
    assert settled(lambda: ended(back))
    provider.gone = False
    again = enter(centre, provider, **joined)
    assert "Your accounts" in again.text
    # What ended stays ended, whoever signs in again.
    assert refusal(back.list_users) == "InvalidClientTokenId"


def ended(iam: Any) -> bool:
    try:
        iam.list_users()
    except iam.exceptions.ClientError as error:
        return bool(error.response["Error"]["Code"] == "InvalidClientTokenId")
    return False


def test_people_are_found_by_what_the_provider_vouches_for(there: tuple[Centre, Provider]) -> None:
    centre, provider = there
    id = centre.user("fay", Emails=[{"Value": "fay@example.com", "Type": "work", "Primary": True}])
    # An address that nobody has verified opens nobody's account.
    browser = enter(centre, provider, sub="s-2", preferred_username="mallory", email="fay@example.com")
    assert "Your accounts" in browser.text and "mallory" in browser.text
    assert "ExternalIds" not in user_of(centre, "fay")
    browser = enter(
        centre, provider, sub="s-3", preferred_username="fay.x", email="FAY@example.com", email_verified=True
    )
    assert "Your accounts" in browser.text and ">fay<" in browser.text
    assert user_of(centre, "fay")["UserId"] == id
    # The same address with another subject is somebody else by now.
    browser = enter(
        centre, provider, sub="s-4", preferred_username="fay2", email="fay@example.com", email_verified=True
    )
    assert browser.status == 403
    # A letter that becomes another one in lower case (the Kelvin sign) is another mailbox.
    centre.user("kay", Emails=[{"Value": "kay@example.com", "Type": "work", "Primary": True}])
    told = {"preferred_username": "kelvin", "email": "\u212aay@example.com", "email_verified": True}
    assert ">kay<" not in enter(centre, provider, sub="s-7", **told).text
    assert "ExternalIds" not in user_of(centre, "kay")
    # A name that somebody has is not given twice.
    assert enter(centre, provider, sub="s-5", preferred_username="FAY").status == 403
    assert enter(centre, provider, sub="s-6", preferred_username="two words").status == 403


def test_who_is_not_known_can_be_kept_out(there: tuple[Centre, Provider]) -> None:
    centre, provider = there
    connect(centre, provider, "--no-provision")
    try:
        browser = enter(centre, provider, sub="s-7", preferred_username="gus")
        assert browser.status == 403 and "not known here" in browser.text
        centre.user("hal", Emails=[{"Value": "hal@example.com", "Primary": True}])
        known = {"sub": "s-8", "email": "hal@example.com", "email_verified": True}
        assert "Your accounts" in enter(centre, provider, **known).text
    finally:
        connect(centre, provider)


@pytest.mark.parametrize(
    "spoil",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": "another"},
        {"aud": [CLIENT, "another"]},
        {"aud": ["another"], "azp": CLIENT},
        {"iss": "https://another.example"},
        {"exp": 1000},
        {"iat": 4_000_000_000},
        {"sub": ""},
        {"key": ec.generate_private_key(ec.SECP256R1())},
        {"key": "a shared secret of some length....", "algorithm": "HS256"},
        {"key": "", "algorithm": "none"},
    ],
    ids=lambda spoil: str(spoil) if "key" not in spoil else f"signed {spoil.get('algorithm', 'by another')}",
)
def test_what_is_not_the_providers_word_signs_nobody_in(there: tuple[Centre, Provider], spoil: dict[str, Any]) -> None:
    centre, provider = there
    provider.spoil = spoil
    try:
        browser = enter(centre, provider, sub="s-9", preferred_username="ida")
    finally:
        provider.spoil = {}
    assert browser.status == 403 and "sign-in failed" in browser.text
    assert "__Host-bastide-signin" not in browser.cookies


def test_the_provider_ends_sessions_by_itself(there: tuple[Centre, Provider]) -> None:
    centre, provider = there
    url = f"{centre.platform.url}/_bastide/signin/back-channel-logout"
    browser = enter(centre, provider, sub="s-10", preferred_username="jon")
    token = centre.token("jon", browser)["accessToken"]
    other = enter(centre, provider, sub="s-11", preferred_username="kim")
    kept = centre.token("kim", other)["accessToken"]
    event = {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}
    for bad in (
        provider.token(aud=CLIENT, sub="s-10"),
        provider.logout_token("s-10", nonce="x"),
        provider.logout_token("s-10", aud="another"),
        provider.logout_token("s-10", iat=int(time.time()) - 3600),
        provider.token(aud=CLIENT, sub="s-10", key=ec.generate_private_key(ec.SECP256R1()), **event),
        "x.y.z",
        "",
    ):
        browser.request("POST", url, urlencode({"logout_token": bad}))
        assert browser.status == 400
    assert centre.accounts(token) == []
    browser.request("POST", url, urlencode({"logout_token": provider.logout_token("s-10")}))
    assert browser.status == 200
    assert refusal(centre.unsigned("sso").list_accounts, accessToken=token) == "UnauthorizedException"
    centre.accounts(kept)


def test_sign_ins_are_on_the_record(there: tuple[Centre, Provider]) -> None:
    centre, provider = there
    enter(centre, provider, sub="s-12", preferred_username="lea")
    provider.spoil = {"aud": "another"}
    enter(centre, provider, sub="s-12", preferred_username="lea")
    provider.spoil = {}
    trail = centre.platform.client("cloudtrail")
    found = trail.lookup_events(
        LookupAttributes=[{"AttributeKey": "EventName", "AttributeValue": "UserAuthentication"}], MaxResults=2
    )["Events"]
    failed, succeeded = (one["CloudTrailEvent"] for one in found)
    assert '"UserAuthentication":"Failure"' in failed and "AccessDenied" in failed
    assert '"UserAuthentication":"Success"' in succeeded and provider.url in succeeded
    assert centre.known("lea") in succeeded


def test_the_development_provider_stays_on_this_machine(tmp_path: Path) -> None:
    (tmp_path / "bastide.json").write_text("{}")

    def up(*more: str) -> str:
        done = subprocess.run(
            [*PROGRAM, "up", "--data", str(tmp_path), "--development-identity-provider", *more],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        return done.stderr

    assert "on loopback only" in up("--listen", "0.0.0.0:0")
    assert "on loopback only" in up("--public-url", "https://bastide.example")
    (tmp_path / "identity-provider.json").write_text("{}")
    assert "is connected" in up()
