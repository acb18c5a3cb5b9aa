"""People sign in as they do: through their provider, on a page, with the clients they have."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import secrets
import subprocess
import sys
import threading
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from tests.platform import Account, Keys, allow
from tests.stories.identity_center.browser import DEVICE, Browser, Centre, query, refusal


@pytest.mark.control("IAM-03")
def test_a_person_gets_exactly_what_the_permission_set_says(
    centre: Centre, account: Account, neighbour: Account
) -> None:
    token = centre.token("ana")["accessToken"]
    ana = centre.known("ana")
    arn, name = centre.permission_set(allow("iam:ListUsers"))
    assert account.id not in centre.accounts(token)
    assert centre.assign(account, arn, ana)["Status"] == "SUCCEEDED"
    assert account.id in centre.accounts(token)
    roles = centre.unsigned("sso").list_account_roles(accessToken=token, accountId=account.id)["roleList"]
    assert roles == [{"roleName": name, "accountId": account.id}]
    keys = centre.session(token, account, name)
    who = centre.platform.client("sts", keys).get_caller_identity()
    assert who["Account"] == account.id
    assert who["Arn"].startswith(f"arn:aws:sts::{account.id}:assumed-role/AWSReservedSSO_{name}_")
    assert who["Arn"].endswith("/ana") and who["UserId"].endswith(":ana")
    iam = centre.platform.client("iam", keys)
    iam.list_users()
    assert refusal(iam.list_roles) == "AccessDenied"
    sso = centre.unsigned("sso")
    _, other = centre.permission_set(allow("*"))
    for where, role in ((neighbour.id, name), (account.id, other), (account.id, "NoSuchSet"), ("1", name)):
        given = {"accessToken": token, "accountId": where, "roleName": role}
        assert refusal(sso.get_role_credentials, **given) == "ForbiddenException"
    assert refusal(sso.list_account_roles, accessToken=token, accountId=neighbour.id) == "ForbiddenException"
    assert refusal(sso.list_accounts, accessToken="aoa" + "x" * 60) == "UnauthorizedException"


@pytest.mark.control("IAM-04")
def test_a_mover_and_a_leaver(centre: Centre, account: Account, neighbour: Account) -> None:
    token = centre.token("ben")["accessToken"]
    ben = centre.known("ben")
    first, second = centre.group(), centre.group()
    membership = centre.join(first, ben)
    arn, name = centre.permission_set(allow("iam:ListUsers"))
    centre.assign(account, arn, first, "GROUP")
    centre.assign(neighbour, arn, second, "GROUP")
    assert centre.accounts(token) == [account.id]
    before = centre.platform.client("iam", centre.session(token, account, name))
    before.list_users()
    # The mover: one membership goes, another comes.
    centre.store.delete_group_membership(IdentityStoreId=centre.store_id, MembershipId=membership)
    centre.join(second, ben)
    assert centre.accounts(token) == [neighbour.id]
    assert refusal(before.list_users) == "InvalidClientTokenId"
    sso = centre.unsigned("sso")
    given = {"accessToken": token, "accountId": account.id, "roleName": name}
    assert refusal(sso.get_role_credentials, **given) == "ForbiddenException"
    moved = centre.platform.client("iam", centre.session(token, neighbour, name))
    moved.list_users()
    # The leaver: no new sessions, and those that there are end.
    centre.store.delete_user(IdentityStoreId=centre.store_id, UserId=ben)
    assert refusal(moved.list_users) == "InvalidClientTokenId"
    assert refusal(sso.list_accounts, accessToken=token) == "UnauthorizedException"
    assert refusal(sso.get_role_credentials, **{**given, "accountId": neighbour.id}) == "UnauthorizedException"


@pytest.mark.control("IAM-04")
def test_whom_the_provider_disables_is_out(centre: Centre, account: Account) -> None:
    centre.invent("cid", "--group", "night-shift")
    browser = centre.browser
    held = centre.token("cid", browser)
    cid = centre.known("cid")
    arn, name = centre.permission_set(allow("iam:ListUsers", "sts:AssumeRole"))
    found = centre.store.list_groups(
        IdentityStoreId=centre.store_id, Filters=[{"AttributePath": "DisplayName", "AttributeValue": "night-shift"}]
    )["Groups"]
    centre.assign(account, arn, found[0]["GroupId"], "GROUP")
    keys = centre.session(held["accessToken"], account, name)
    role = centre.platform.client("sts", keys).get_caller_identity()["Arn"].split("/")[1]
    reserved = f"arn:aws:iam::{account.id}:role/aws-reserved/sso.amazonaws.com/{role}"
    account.role("Next", allow("iam:ListUsers"), trust={"AWS": reserved})
    chained = centre.platform.assume(f"arn:aws:iam::{account.id}:role/Next", keys)
    for one in (keys, chained):
        centre.platform.client("iam", one).list_users()
    centre.command("identity", "user", "disable", "cid")
    until = time.monotonic() + 60
    while cid and time.monotonic() < until:
        if all(_ended(centre, one) for one in (keys, chained)):
            break
        time.sleep(0.3)
    assert _ended(centre, keys) and _ended(centre, chained)
    oidc, sso = centre.unsigned("sso-oidc"), centre.unsigned("sso")
    assert refusal(sso.list_accounts, accessToken=held["accessToken"]) == "UnauthorizedException"
    proof = {name: held[name] for name in ("clientId", "clientSecret")}
    renew = {**proof, "grantType": "refresh_token", "refreshToken": held["refreshToken"]}
    assert refusal(oidc.create_token, **renew) == "InvalidGrantException"
    browser.go(f"{centre.platform.url}/start")
    browser.sign_in("cid")
    assert browser.status == 401 and "wrong" in browser.text


def _ended(centre: Centre, keys: Keys) -> bool:
    client = centre.platform.client("iam", keys)
    try:
        client.list_users()
    except client.exceptions.ClientError as error:
        return bool(error.response["Error"]["Code"] == "InvalidClientTokenId")
    return False


def test_attributes_become_session_tags(centre: Centre, account: Account) -> None:
    given = {"InstanceArn": centre.arn}
    attributes = {
        "AccessControlAttributes": [
            {"Key": "Title", "Value": {"Source": ["${path:title}"]}},
            {"Key": "Team", "Value": {"Source": ["${path:enterprise.department}"]}},
        ]
    }
    centre.admin.create_instance_access_control_attribute_configuration(
        **given, InstanceAccessControlAttributeConfiguration=attributes
    )
    try:
        token = centre.token("ana")["accessToken"]
        ana = centre.known("ana")
        centre.store.update_user(
            IdentityStoreId=centre.store_id,
            UserId=ana,
            Operations=[
                {"AttributePath": "title", "AttributeValue": "Analyst"},
                {"AttributePath": "aws:identitystore:enterprise.department", "AttributeValue": "Risk"},
            ],
        )
        tagged = {"StringEquals": {"aws:PrincipalTag/Team": "Risk", "identitystore:UserId": ana}}
        arn, name = centre.permission_set(allow("iam:ListUsers", Condition=tagged))
        centre.assign(account, arn, ana)
        iam = centre.platform.client("iam", centre.session(token, account, name))
        iam.list_users()
        centre.store.update_user(
            IdentityStoreId=centre.store_id,
            UserId=ana,
            Operations=[{"AttributePath": "aws:identitystore:enterprise.department", "AttributeValue": "Sales"}],
        )
        other = centre.platform.client("iam", centre.session(token, account, name))
        assert refusal(other.list_users) == "AccessDenied"
    finally:
        centre.admin.delete_instance_access_control_attribute_configuration(**given)


# -- authorization codes -----------------------------------------------------------------------------------------------


class Program:
    """A client that listens on loopback, as `aws sso login` does; here its redirect is only looked at."""

    def __init__(self, centre: Centre) -> None:
        self.centre = centre
        self.oidc = centre.unsigned("sso-oidc")
        answer = self.oidc.register_client(
            clientName="botocore-client-x",
            clientType="public",
            grantTypes=["authorization_code", "refresh_token"],
            redirectUris=["http://127.0.0.1/oauth/callback"],
            scopes=["sso:account:access"],
        )
        self.proof = {name: answer[name] for name in ("clientId", "clientSecret")}
        self.redirect = "http://127.0.0.1:51234/oauth/callback"
        self.verifier = secrets.token_urlsafe(48)

    def address(self, **other: str) -> str:
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).decode().rstrip("=")
        given = {
            "response_type": "code",
            "client_id": self.proof["clientId"],
            "redirect_uri": self.redirect,
            "state": "a state",
            "code_challenge_method": "S256",
            "code_challenge": challenge,
            "scopes": "sso:account:access",
        }
        return f"{self.centre.platform.url}/authorize?{urlencode({**given, **other})}"

    def exchange(self, code: str, **other: str) -> dict[str, Any]:
        given = {
            **self.proof,
            "grantType": "authorization_code",
            "code": code,
            "redirectUri": self.redirect,
            "codeVerifier": self.verifier,
        }
        answer: dict[str, Any] = self.oidc.create_token(**{**given, **other})
        return answer


def test_a_code_is_good_once_for_its_client_address_and_verifier(centre: Centre) -> None:
    program, stranger = Program(centre), Program(centre)
    browser = centre.browser
    browser.go(program.address()).sign_in("ana")
    assert "botocore-client-x" in browser.text
    browser.submit(answer="allow")
    told = query(browser.went[-1])
    assert browser.went[-1].startswith(program.redirect) and told["state"] == "a state"
    code = told["code"]
    for other in ({"codeVerifier": "x" * 64}, {"redirectUri": "http://127.0.0.1:51235/oauth/callback"}, stranger.proof):
        assert refusal(program.exchange, code, **other) == "InvalidGrantException"
    held = program.exchange(code)
    assert 0 < held["expiresIn"] <= 3600 and held["tokenType"] == "Bearer"
    assert refusal(program.exchange, code) == "InvalidGrantException"
    centre.accounts(held["accessToken"])
    renewed = program.oidc.create_token(**program.proof, grantType="refresh_token", refreshToken=held["refreshToken"])
    centre.accounts(renewed["accessToken"])
    again = {**program.proof, "grantType": "refresh_token", "refreshToken": held["refreshToken"]}
    assert refusal(program.oidc.create_token, **again) == "InvalidGrantException"
    # A refresh token opens nothing by itself, and signing out ends all of them.
    sso = centre.unsigned("sso")
    assert refusal(sso.list_accounts, accessToken=renewed["refreshToken"]) == "UnauthorizedException"
    sso.logout(accessToken=renewed["accessToken"])
    for token in (held["accessToken"], renewed["accessToken"]):
        assert refusal(sso.list_accounts, accessToken=token) == "UnauthorizedException"
    browser.go(program.address())
    assert "Development identity provider" in browser.text


@pytest.mark.parametrize(
    ("other", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"scopes": "sso:account:access codewhisperer:completions"}, "invalid_scope"),
    ],
)
def test_what_is_not_asked_properly_goes_back_as_an_error(centre: Centre, other: dict[str, str], error: str) -> None:
    program = Program(centre)
    told = query(centre.browser.go(program.address(**other)).went[-1])
    assert told == {"error": error, "state": "a state"}


@pytest.mark.parametrize(
    "redirect",
    [
        "https://attacker.example/oauth/callback",
        "http://127.0.0.1.attacker.example/oauth/callback",
        "http://127.0.0.1@attacker.example/oauth/callback",
        "http://127.0.0.1:80@attacker.example/oauth/callback",
        "http://127.0.0.1:5/other",
        "http://localhost:5/oauth/callback",
        "http://127.0.0.1:5/oauth/callback?x=1",
        "http://127.0.0.1:5/oauth/callback#x",
        "javascript:alert(1)",
    ],
)
def test_nobody_is_sent_where_no_client_listens(centre: Centre, redirect: str) -> None:
    browser = centre.browser.go(Program(centre).address(redirect_uri=redirect))
    assert browser.status == 400 and not browser.went
    refused = {"clientName": "x", "clientType": "public", "grantTypes": ["authorization_code"]}
    if "127.0.0.1:5/other" not in redirect and "localhost" not in redirect:
        code = refusal(centre.unsigned("sso-oidc").register_client, **refused, redirectUris=[redirect])
        assert code == "InvalidRedirectUriException"


def test_denying_gives_the_program_nothing(centre: Centre) -> None:
    program = Program(centre)
    browser = centre.browser
    browser.go(program.address()).sign_in("ana")
    browser.submit(answer="deny")
    assert query(browser.went[-1]) == {"error": "access_denied", "state": "a state"}


# -- device codes ------------------------------------------------------------------------------------------------------


def _device(centre: Centre, **more: Any) -> tuple[dict[str, str], dict[str, Any]]:
    oidc = centre.unsigned("sso-oidc")
    client = oidc.register_client(clientName="test <b>client</b>", clientType="public", **more)
    proof = {name: client[name] for name in ("clientId", "clientSecret")}
    return proof, oidc.start_device_authorization(**proof, startUrl=f"{centre.platform.url}/start")


def test_device_codes(centre: Centre) -> None:
    oidc = centre.unsigned("sso-oidc")
    proof, started = _device(centre)
    poll = {**proof, "grantType": DEVICE, "deviceCode": started["deviceCode"]}
    assert refusal(oidc.create_token, **poll) == "AuthorizationPendingException"
    assert refusal(oidc.create_token, **poll) == "SlowDownException"
    stranger, _ = _device(centre)
    assert refusal(oidc.create_token, **{**poll, **stranger}) == "InvalidGrantException"
    assert refusal(oidc.create_token, **{**poll, "deviceCode": "x"}) == "InvalidGrantException"
    assert refusal(oidc.create_token, **{**poll, "clientSecret": "x"}) == "InvalidClientException"
    assert refusal(oidc.create_token, **{**poll, "clientSecret": stranger["clientSecret"]}) == "InvalidClientException"
    assert refusal(oidc.create_token, **{**poll, "grantType": "password"}) == "UnsupportedGrantTypeException"
    browser = centre.browser.go(started["verificationUri"])
    browser.submit(user_code="bcdf-ghjk").sign_in("ana")
    assert "No program waits" in browser.text
    browser.submit(user_code=started["userCode"].lower().replace("-", " "))
    assert "test &lt;b&gt;client&lt;/b&gt;" in browser.text and "<b>client" not in browser.text
    browser.submit(answer="deny")
    assert refusal(oidc.create_token, **poll) == "AccessDeniedException"
    centre_url = urlsplit(centre.platform.url)
    for other in ("https://attacker.example/start", f"http://{centre_url.netloc}/start", f"{centre.platform.url}/"):
        assert refusal(oidc.start_device_authorization, **proof, startUrl=other) == "InvalidRequestException"
    oidc.start_device_authorization(**proof, startUrl=f"https://{centre.store_id}.awsapps.com/start")


def test_an_allowed_device_gets_one_token(centre: Centre) -> None:
    assert "refreshToken" in centre.token("ana")
    oidc = centre.unsigned("sso-oidc")
    proof, started = _device(centre)
    browser = centre.browser.go(started["verificationUriComplete"]).sign_in("ana")
    form = browser.text
    browser.submit(answer="allow")
    poll = {**proof, "grantType": DEVICE, "deviceCode": started["deviceCode"]}
    answer = oidc.create_token(**poll)
    # Without scopes, as older clients register: a token for the whole sign-in, and none to renew it with.
    assert "refreshToken" not in answer and answer["expiresIn"] > 7 * 3600
    assert refusal(oidc.create_token, **poll) == "InvalidGrantException"
    browser.text = form
    browser.submit(answer="allow")
    assert "Too late" in browser.text


# -- the pages ---------------------------------------------------------------------------------------------------------


def test_pages_cannot_be_framed_cached_scripted_or_sent_by_others(centre: Centre) -> None:
    _, started = _device(centre)
    browser = centre.browser.go(started["verificationUriComplete"]).sign_in("ana")
    policy = browser.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "script-src" not in policy
    assert "unsafe" not in policy
    assert browser.headers["cache-control"] == "no-store" and browser.headers["referrer-policy"] == "same-origin"
    page, mine = browser.text, dict(browser.cookies)
    token = re.search(r'name="token" value="([^"]+)"', page)
    assert token is not None
    body = urlencode({"token": token[1], "answer": "allow"})
    # From another site, without a cookie, with somebody else's sign-in, or spoiled: nothing happens.
    browser.request("POST", browser.url, body, origin="https://attacker.example")
    assert browser.status == 403
    browser.request("POST", browser.url, body, **{"sec-fetch-site": "cross-site"})
    assert browser.status == 403
    for cookies in ({}, {"__Host-bastide-signin": mine["__Host-bastide-signin"][:-2] + "AA"}):
        browser.cookies = dict(cookies)
        browser.request("POST", browser.url, body)
        assert browser.status == 403
    other = centre.browser
    other.go(f"{centre.platform.url}/start").sign_in("ana")
    other.request("POST", browser.url, body)
    assert other.status == 403
    browser.cookies = mine
    browser.request("POST", browser.url, body.replace(token[1], token[1][:-3] + "AAA"))
    assert browser.status == 403
    browser.request("POST", browser.url, body)
    assert browser.status == 200 and "Access allowed" in browser.text


def test_an_answer_that_was_not_asked_for_signs_nobody_in(centre: Centre) -> None:
    victim, attacker = centre.browser, centre.browser
    attacker.go(f"{centre.platform.url}/start")
    form = attacker.text
    callback: list[str] = []
    original = attacker.request

    def stop(method: str, url: str, body: str | None = None, **headers: str) -> None:
        if "/signin/callback" in url and not callback:
            callback.append(url)
            attacker.status, attacker.text = 200, "stopped"
            return
        original(method, url, body, **headers)

    attacker.request = stop  # type: ignore[method-assign]
    attacker.text = form
    attacker.sign_in("ana")
    # The attacker's own code, brought to the victim's browser: their state is another.
    victim.go(f"{centre.platform.url}/start")
    victim.request("GET", callback[0])
    assert victim.status == 403 and "__Host-bastide-signin" not in victim.cookies
    fresh = centre.browser
    fresh.request("GET", callback[0])
    assert fresh.status == 403 and not fresh.cookies


def test_the_portal_and_signing_out(centre: Centre, account: Account) -> None:
    browser = centre.browser
    browser.go(f"{centre.platform.url}/start").sign_in("ana")
    arn, name = centre.permission_set(allow("iam:ListUsers"))
    centre.assign(account, arn, centre.known("ana"))
    browser.go(f"{centre.platform.url}/start")
    assert account.id in browser.text and name in browser.text
    browser.submit()
    assert "signed out" in browser.text
    browser.go(f"{centre.platform.url}/start")
    assert "Development identity provider" in browser.text
    browser.request("HEAD", f"{centre.platform.url}/start")
    assert browser.headers["location"] == f"https://{centre.store_id}.awsapps.com/start"
    connection = HTTPConnection(urlsplit(centre.platform.http).netloc, timeout=60)
    connection.request("GET", "/start")
    answer = connection.getresponse()
    assert answer.status == 303 and answer.getheader("location") == f"{centre.platform.url}/start"
    connection.close()


def test_buckets_of_the_same_names_are_still_there(centre: Centre, account: Account) -> None:
    s3 = account.client("s3")
    for bucket, key in (("start", "x"), ("authorize", "x"), ("federation", "credentials"), ("assignment", "roles")):
        s3.create_bucket(Bucket=bucket)
        s3.put_object(Bucket=bucket, Key=key, Body=b"here")
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"here"
        s3.list_objects_v2(Bucket=bucket)
    # A browser's upload to a bucket of such a name is no form of ours.
    for bucket in ("token", "authorize"):
        if bucket == "token":
            s3.create_bucket(Bucket=bucket)
        form = s3.generate_presigned_post(Bucket=bucket, Key="up")
        parts = {**form["fields"], "file": "uploaded"}
        body = "".join(
            f'--x\r\nContent-Disposition: form-data; name="{name}"{"; filename=f" if name == "file" else ""}\r\n\r\n'
            f"{value}\r\n"
            for name, value in parts.items()
        )
        connection = HTTPConnection(urlsplit(centre.platform.http).netloc, timeout=60)
        headers = {"content-type": "multipart/form-data; boundary=x"}
        connection.request("POST", f"/{bucket}", body + "--x--\r\n", headers)
        assert connection.getresponse().status == 204
        connection.close()
        assert s3.get_object(Bucket=bucket, Key="up")["Body"].read() == b"uploaded"


# -- programs ----------------------------------------------------------------------------------------------------------


def _run(centre: Centre, home: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "BASTIDE_"))},
        "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "AWS_ENDPOINT_URL": centre.platform.url,
        "AWS_CA_BUNDLE": centre.platform.authority, "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_PAGER": "", **more,
    }  # fmt: skip
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)


def _browse(centre: Centre, process: subprocess.Popen[str], *, listens: bool) -> Browser:
    """Does in a browser what a waiting program asks for."""
    browser = centre.browser
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("https://"):
            browser.go(line.strip())
            break
    browser.sign_in("ana")
    browser.submit(answer="allow")
    if listens:
        parts = urlsplit(browser.went[-1])
        connection = HTTPConnection(parts.netloc, timeout=60)
        connection.request("GET", f"{parts.path}?{parts.query}")
        assert b"close this page" in connection.getresponse().read()
        connection.close()
    return browser


@pytest.mark.control("IAM-03")
@pytest.mark.parametrize("how", ["browser", "device"])
def test_bastide_login(centre: Centre, account: Account, tmp_path: Path, how: str) -> None:
    program = [sys.executable, "-m", "bastide", "login"]
    centre.token("ana")
    arn, name = centre.permission_set(allow("iam:ListUsers"))
    centre.assign(account, arn, centre.known("ana"))
    environment = {
        **os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / ".cache"),
        "AWS_ENDPOINT_URL": centre.platform.url, "AWS_CA_BUNDLE": centre.platform.authority,
    }  # fmt: skip
    role = ("--account", account.name, "--role", name)
    process = subprocess.Popen(
        [*program, "--no-browser", *(["--device"] if how == "device" else [])],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    worker = threading.Thread(target=_browse, args=(centre, process), kwargs={"listens": how == "browser"})
    worker.start()
    worker.join(30)
    assert process.wait(30) == 0
    assert process.stdout is not None and process.stderr is not None
    assert f"{account.id}  {account.name}  {name}" in process.stdout.read()
    process.stdout.close()
    process.stderr.close()
    if how == "device":
        return
    told = json.loads(_run(centre, tmp_path, *program, *role, "--format", "process").stdout)
    assert told["Version"] == 1
    keys = Keys(told["AccessKeyId"], told["SecretAccessKey"], told["SessionToken"])
    centre.platform.client("iam", keys).list_users()
    kept = list((tmp_path / ".cache" / "bastide" / "login").iterdir())
    assert len(kept) == 2 and all(path.stat().st_mode & 0o777 == 0o600 for path in kept)
    # As a credential_process, for any AWS client.
    (tmp_path / "config").write_text(
        f"[profile me]\ncredential_process = {' '.join(program)} {' '.join(role)} --format process\n"
    )
    aws = [str(Path(sys.executable).with_name("aws")), "--profile", "me", "sts", "get-caller-identity"]
    done = _run(centre, tmp_path, *aws, AWS_CONFIG_FILE=str(tmp_path / "config"))
    assert f"AWSReservedSSO_{name}_" in done.stdout, done.stderr
    assert "signed out" in _run(centre, tmp_path, *program, "--logout").stdout
    refused = _run(centre, tmp_path, *program, *role, "--format", "process")
    assert refused.returncode == 1 and "not signed in" in refused.stderr and not refused.stdout


def test_aws_clients_with_an_sso_session(centre: Centre, account: Account, tmp_path: Path) -> None:
    """What `aws sso login` leaves behind, used by the clients that read it: they renew it by themselves."""
    held = centre.token("ana")
    arn, name = centre.permission_set(allow("iam:ListUsers"))
    centre.assign(account, arn, centre.known("ana"))
    start = f"{centre.platform.url}/start"
    (tmp_path / "config").write_text(
        f"[profile me]\nsso_session = here\nsso_account_id = {account.id}\nsso_role_name = {name}\n"
        f"[sso-session here]\nsso_region = us-east-1\nsso_start_url = {start}\n"
        "sso_registration_scopes = sso:account:access\n"
    )
    cache = tmp_path / ".aws" / "sso" / "cache"
    cache.mkdir(parents=True)
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))
    kept = {
        "startUrl": start, "region": "us-east-1", "accessToken": held["accessToken"], "expiresAt": soon,
        "clientId": held["clientId"], "clientSecret": held["clientSecret"], "refreshToken": held["refreshToken"],
        "registrationExpiresAt": "2100-01-01T00:00:00Z",
    }  # fmt: skip
    file = cache / f"{hashlib.sha1(b'here').hexdigest()}.json"
    file.write_text(json.dumps(kept))
    aws = str(Path(sys.executable).with_name("aws"))
    done = _run(
        centre, tmp_path, aws, "--profile", "me", "sts", "get-caller-identity", AWS_CONFIG_FILE=str(tmp_path / "config")
    )
    assert f"AWSReservedSSO_{name}_" in done.stdout, done.stderr
    renewed = json.loads(file.read_text())["accessToken"]
    assert renewed != held["accessToken"]
    shown = _run(centre, tmp_path, aws, "sso", "list-accounts", "--access-token", renewed, "--no-sign-request")
    assert account.id in shown.stdout, shown.stderr
    assert _run(centre, tmp_path, aws, "sso", "logout", "--access-token", renewed).returncode == 0
    shown = _run(centre, tmp_path, aws, "sso", "list-accounts", "--access-token", renewed)
    assert "UnauthorizedException" in shown.stderr
