"""What is kept of secrets, and what the development provider gives to whom."""

from __future__ import annotations

import base64
import json
import re
from typing import Any
from urllib.parse import urlencode

from tests.platform import Account, allow, lies_in, on_disk
from tests.stories.identity_center.browser import DEVICE, PASSWORD, Browser, Centre, query, refusal
from tests.stories.identity_center.test_sign_in import Program

ROOT = "/_bastide/development-identity-provider"


def test_nothing_that_opens_anything_is_kept_or_logged(centre: Centre, account: Account) -> None:
    secrets: dict[str, str] = {"password": PASSWORD}
    browser = centre.browser
    held = centre.token("ana", browser)
    program = Program(centre)
    browser.go(program.address()).submit(answer="allow")
    secrets["authorization code"] = query(browser.went[-1])["code"]
    answer = program.exchange(secrets["authorization code"])
    oidc = centre.unsigned("sso-oidc")
    proof = {name: held[name] for name in ("clientId", "clientSecret")}
    started = oidc.start_device_authorization(**proof, startUrl=f"{centre.platform.url}/start")
    refusal(oidc.create_token, **proof, grantType=DEVICE, deviceCode=started["deviceCode"])
    secrets |= {
        "access token": held["accessToken"], "refresh token": held["refreshToken"],
        "other access token": answer["accessToken"], "other refresh token": answer["refreshToken"],
        "device code": started["deviceCode"], "user code": started["userCode"],
        "client secret": held["clientSecret"], "browser's secret": browser.cookies["__Host-bastide-signin"][37:],
    }  # fmt: skip
    arn, name = centre.permission_set(allow("iam:ListUsers"))
    centre.assign(account, arn, centre.known("ana"))
    keys = centre.session(held["accessToken"], account, name)
    secrets |= {"secret key": keys.secret, "session token": keys.token or ""}
    centre.platform.client("iam", keys).list_users()
    files = [*on_disk(centre.platform.data), centre.platform.data.parent / "up.log"]
    assert any(lies_in(path, account.id.encode()) for path in files)
    for what, secret in secrets.items():
        assert len(secret) > 7, what
        for path in files:
            assert not lies_in(path, secret.encode(), json.dumps(secret)[1:-1].encode()), (what, path)


def _asked(browser: Browser) -> dict[str, str]:
    """What the platform asked the provider when it sent the browser there."""
    return query(next(one for one in browser.went if f"{ROOT}/authorize" in one))


def test_the_development_provider_is_exact(centre: Centre) -> None:
    url = centre.platform.url + ROOT
    browser = centre.browser
    browser.request("GET", f"{url}/.well-known/openid-configuration")
    told = json.loads(browser.text)
    assert told["issuer"] == url and told["code_challenge_methods_supported"] == ["S256"]
    browser.request("GET", told["jwks_uri"])
    assert set(json.loads(browser.text)["keys"][0]) == {"kty", "n", "e", "kid", "use", "alg"}
    asked = _asked(centre.browser.go(f"{centre.platform.url}/start"))
    for other in ({"client_id": "another"}, {"redirect_uri": "https://attacker.example/"}):
        browser.request("GET", f"{url}/authorize?{urlencode({**asked, **other})}")
        assert browser.status == 400 and "location" not in browser.headers
    for other in ({"code_challenge_method": "plain"}, {"response_type": "token"}, {"code_challenge": ""}):
        browser.request("GET", f"{url}/authorize?{urlencode({**asked, **other})}")
        assert query(browser.headers["location"])["error"] == "invalid_request"
    # A code without the client's secret is worth nothing.
    browser.request("GET", f"{url}/authorize?{urlencode(asked)}")
    form = re.search(r'name="token" value="([^"]+)"', browser.text)
    assert form is not None
    filled = urlencode({"token": form[1], "username": "ana", "password": PASSWORD})
    browser.request("POST", f"{url}/authorize", filled)
    code = query(browser.headers["location"])["code"]
    given = {
        "grant_type": "authorization_code", "code": code, "code_verifier": "x" * 43,
        "redirect_uri": asked["redirect_uri"],
    }  # fmt: skip
    for pair in ("", "bastide:", "bastide:guess", "ana:" + PASSWORD):
        basic = f"Basic {base64.b64encode(pair.encode()).decode()}"
        browser.request("POST", f"{url}/token", urlencode(given), authorization=basic)
        assert browser.status == 401 and json.loads(browser.text) == {"error": "invalid_client"}
    for token in ("", "Bearer x", "Basic x"):
        browser.request("GET", f"{url}/userinfo", **({"authorization": token} if token else {}))
        assert browser.status == 401


def test_guessing_passwords_is_slow(centre: Centre) -> None:
    centre.invent("lou")
    browser = centre.browser.go(f"{centre.platform.url}/start")
    for _ in range(5):
        browser.sign_in("lou", "not the password")
        assert browser.status == 401 and "wrong" in browser.text
    browser.sign_in("lou")
    assert browser.status == 401 and "wait half a minute" in browser.text
    # Nobody else has to wait, and a name that nobody has is answered alike.
    other = centre.browser.go(f"{centre.platform.url}/start")
    other.sign_in("nobody-at-all", "not the password")
    assert other.status == 401 and "Name or password is wrong" in other.text
    other.sign_in("ana")
    assert "Your accounts" in other.text


def test_odd_requests_get_an_answer(centre: Centre) -> None:
    browser = centre.browser
    for path in ("/start", "/authorize", "/_bastide/signin/callback", "/_bastide/signin/device", f"{ROOT}/authorize"):
        for tail in (
            "?%ff=%fe",
            "?a=1&a=2",
            "?" + "x=&" * 60,
            "?user_code=%00%0d%0aSet-Cookie:x=1",
            "?state=" + "9" * 4000,
        ):
            browser.request("GET", centre.platform.url + path + tail)
            assert browser.status < 500, (path, tail[:20], browser.status)
            assert "x" not in browser.cookies
    for path in ("/_bastide/signin/out", "/authorize", "/_bastide/signin/device", f"{ROOT}/token", f"{ROOT}/authorize"):
        bodies: tuple[Any, ...] = ("", "token=x", "\xff", "a=" + "b" * 70_000, "token=%00")
        for body in bodies:
            browser.request("POST", centre.platform.url + path, body)
            assert 400 <= browser.status < 500, (path, str(body)[:20], browser.status)
