"""A browser without a screen: follows redirects, keeps cookies, fills in forms. And what the stories do with it."""

from __future__ import annotations

import html.parser
import http.client
import json
import ssl
import subprocess
import uuid
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import botocore
import botocore.exceptions
import pytest

from tests.platform import PROGRAM, Account, Keys, Running

PASSWORD = "correct horse battery"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"


class _Forms(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.method = ""
        self.action = ""
        self.fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        if tag == "form":
            self.method, self.action = known.get("method") or "get", known.get("action") or ""
        elif tag == "input" and known.get("name"):
            self.fields[known["name"] or ""] = known.get("value") or ""


@dataclass
class Browser:
    """One person's browser. url, status, headers, text: of the page that it shows."""

    authority: str
    url: str = ""
    status: int = 0
    text: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    cookies: dict[str, str] = field(default_factory=dict)
    went: list[str] = field(default_factory=list)

    def request(self, method: str, url: str, body: str | None = None, **headers: str) -> None:
        """One request, without following anything."""
        parts = urlsplit(url)
        context = ssl.create_default_context(cafile=self.authority)
        connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=30, context=context)
        sent = {"cookie": "; ".join(f"{a}={b}" for a, b in self.cookies.items()), **headers}
        if body is not None:
            sent |= {"content-type": "application/x-www-form-urlencoded", "origin": f"{parts.scheme}://{parts.netloc}"}
            sent |= headers
        connection.request(method, parts.path + (f"?{parts.query}" if parts.query else ""), body, sent)
        answer = connection.getresponse()
        self.url, self.status, self.text = url, answer.status, answer.read().decode()
        self.headers = {name.lower(): value for name, value in answer.getheaders()}
        for name, value in answer.getheaders():
            if name.lower() == "set-cookie":
                pair, *rest = value.split("; ")
                key, _, content = pair.partition("=")
                assert "Secure" in rest and "HttpOnly" in rest and key.startswith("__Host-")
                if "Max-Age=0" in rest:
                    self.cookies.pop(key, None)
                else:
                    self.cookies[key] = content
        connection.close()

    def go(self, url: str, body: str | None = None) -> Browser:
        """Follows redirects until a page is shown, or one leads to another program."""
        self.request("GET" if body is None else "POST", url, body)
        for _ in range(12):
            if self.status not in (302, 303):
                return self
            target = urljoin(self.url, self.headers["location"])
            self.went.append(target)
            if urlsplit(target).scheme != "https":
                return self
            self.request("GET", target)
        raise AssertionError(f"redirected for ever: {self.went}")

    def submit(self, **fields: str) -> Browser:
        """Sends the page's form, hidden fields with it."""
        form = _Forms()
        form.feed(self.text)
        assert form.method, self.text
        filled = urlencode({**form.fields, **fields})
        where = urljoin(self.url, form.action or self.url)
        return self.go(where, filled) if form.method == "post" else self.go(f"{where.partition('?')[0]}?{filled}")

    def sign_in(self, name: str, password: str = PASSWORD) -> Browser:
        """Fills in the development provider's page."""
        assert "Development identity provider" in self.text, self.text
        return self.submit(username=name, password=password)


def refusal(work: Any, *args: Any, **given: Any) -> str:
    """The code of a call that must be refused."""
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        work(*args, **given)
    return str(caught.value.response["Error"]["Code"])


@dataclass
class Centre:
    """Identity Center of a running platform, as its administrator, its people and their clients see it."""

    platform: Running

    def __post_init__(self) -> None:
        self.admin = self.platform.client("sso-admin")
        self.store = self.platform.client("identitystore")
        found = self.admin.list_instances()["Instances"][0]
        self.arn, self.store_id = found["InstanceArn"], found["IdentityStoreId"]

    def invent(self, name: str, *more: str) -> None:
        """Somebody at the development provider."""
        self.command("identity", "user", "add", name, "--password-stdin", *more, told=PASSWORD + "\n")

    def command(self, *words: str, told: str = "") -> str:
        """`bastide ...` on this platform's data directory."""
        head, *rest = words
        done = subprocess.run(
            [*PROGRAM, head, *rest, "--data", str(self.platform.data)],
            input=told, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    # -- what administrators do ----------------------------------------------------------------------------------------

    def user(self, name: str = "", **more: Any) -> str:
        """A new user of the identity store."""
        name = name or f"user-{uuid.uuid4().hex[:8]}"
        given = {"UserName": name, "DisplayName": name, "Name": {"GivenName": name, "FamilyName": "X"}, **more}
        return str(self.store.create_user(IdentityStoreId=self.store_id, **given)["UserId"])

    def known(self, name: str) -> str:
        """The id of a user, by name."""
        path = {"AttributePath": "userName", "AttributeValue": name}
        found = self.store.get_user_id(IdentityStoreId=self.store_id, AlternateIdentifier={"UniqueAttribute": path})
        return str(found["UserId"])

    def group(self, *users: str, name: str = "") -> str:
        """A new group of those users."""
        name = name or f"group-{uuid.uuid4().hex[:8]}"
        id = str(self.store.create_group(IdentityStoreId=self.store_id, DisplayName=name)["GroupId"])
        for user in users:
            self.join(id, user)
        return id

    def join(self, group: str, user: str) -> str:
        """Makes a user a member; the membership's id."""
        answer = self.store.create_group_membership(
            IdentityStoreId=self.store_id, GroupId=group, MemberId={"UserId": user}
        )
        return str(answer["MembershipId"])

    def permission_set(self, policy: Any = None, **more: Any) -> tuple[str, str]:
        """A new permission set with an inline policy: its ARN and its name."""
        name = f"Set{uuid.uuid4().hex[:8]}"
        arn = self.admin.create_permission_set(InstanceArn=self.arn, Name=name, **more)["PermissionSet"][
            "PermissionSetArn"
        ]
        if policy is not None:
            self.admin.put_inline_policy_to_permission_set(
                InstanceArn=self.arn, PermissionSetArn=arn, InlinePolicy=json.dumps(policy)
            )
        return arn, name

    def assign(self, account: Account, permission_set: str, principal: str, kind: str = "USER") -> dict[str, Any]:
        """Assigns, and tells how it ended."""
        given = self.assignment(account, permission_set, principal, kind)
        answer = self.admin.create_account_assignment(**given)["AccountAssignmentCreationStatus"]
        told: dict[str, Any] = self.admin.describe_account_assignment_creation_status(
            InstanceArn=self.arn, AccountAssignmentCreationRequestId=answer["RequestId"]
        )["AccountAssignmentCreationStatus"]
        return told

    def assignment(self, account: Account, permission_set: str, principal: str, kind: str = "USER") -> dict[str, str]:
        """The input of CreateAccountAssignment and DeleteAccountAssignment."""
        return {
            "InstanceArn": self.arn, "TargetId": account.id, "TargetType": "AWS_ACCOUNT",
            "PermissionSetArn": permission_set, "PrincipalType": kind, "PrincipalId": principal,
        }  # fmt: skip

    # -- what people do ------------------------------------------------------------------------------------------------

    @property
    def browser(self) -> Browser:
        """A fresh one."""
        return Browser(self.platform.authority)

    def unsigned(self, service: str) -> Any:
        """A client that signs nothing."""
        return self.platform.client(service, Keys("", ""), signature_version=botocore.UNSIGNED)

    def token(self, name: str, browser: Browser | None = None, **registration: Any) -> dict[str, Any]:
        """Signs in with a device code, as `aws sso login` does; CreateToken's answer."""
        oidc = self.unsigned("sso-oidc")
        client = oidc.register_client(
            clientName="test", clientType="public", **(registration or {"scopes": ["sso:account:access"]})
        )
        proof = {"clientId": client["clientId"], "clientSecret": client["clientSecret"]}
        started = oidc.start_device_authorization(**proof, startUrl=f"{self.platform.url}/start")
        with pytest.raises(oidc.exceptions.AuthorizationPendingException):
            oidc.create_token(**proof, grantType=DEVICE, deviceCode=started["deviceCode"])
        browser = browser or self.browser
        browser.go(started["verificationUriComplete"])
        if "Development identity provider" in browser.text:
            browser.sign_in(name)
        assert started["userCode"] in browser.text and "test" in browser.text
        browser.submit(answer="allow")
        assert "Access allowed" in browser.text, browser.text
        answer: dict[str, Any] = oidc.create_token(**proof, grantType=DEVICE, deviceCode=started["deviceCode"])
        return {**answer, **proof}

    def session(self, token: str, account: Account, role: str) -> Keys:
        """A role session from the portal."""
        found = self.unsigned("sso").get_role_credentials(accessToken=token, accountId=account.id, roleName=role)
        held = found["roleCredentials"]
        return Keys(held["accessKeyId"], held["secretAccessKey"], held["sessionToken"])

    def accounts(self, token: str) -> list[str]:
        """The accounts that the portal lists."""
        return [one["accountId"] for one in self.unsigned("sso").list_accounts(accessToken=token)["accountList"]]


def query(url: str) -> dict[str, str]:
    """The parameters of an address."""
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
