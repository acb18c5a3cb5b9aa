"""People who sign in: at the company's identity provider, with a device code, as `aws sso login` has them do it."""

from __future__ import annotations

import html.parser
import http.client
import secrets
import ssl
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import boto3
import botocore
import botocore.config

from bastide.commands.client import Credentials, Platform
from bastide.commands.demo.telling import StoryError

_DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
_HOPS = 12


class _Form(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        if tag == "form":
            self.action = told.get("action") or ""
        elif tag == "input" and told.get("name"):
            self.fields[told["name"] or ""] = told.get("value") or ""


@dataclass
class _Browser:
    """As much of a browser as signing in needs: it follows redirects, keeps cookies, sends forms."""

    authority: str
    url: str = ""
    text: str = ""
    cookies: dict[str, str] = field(default_factory=dict)

    def go(self, url: str, form: dict[str, str] | None = None) -> None:
        """Shows a page; raises StoryError if none comes."""
        body = urlencode(form) if form is not None else None
        for _ in range(_HOPS):
            status, location = self._request(url, body)
            if status not in (302, 303):
                return
            url, body = urljoin(url, location), None
        raise StoryError(f"signing in leads from page to page, last to {url}")

    def submit(self, **fields: str) -> None:
        """Sends the page's form."""
        form = _Form()
        form.feed(self.text)
        self.go(urljoin(self.url, form.action or self.url), {**form.fields, **fields})

    def _request(self, url: str, body: str | None) -> tuple[int, str]:
        parts = urlsplit(url)
        context = ssl.create_default_context(cafile=self.authority)
        connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=30, context=context)
        headers = {"cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        if body is not None:
            headers["content-type"] = "application/x-www-form-urlencoded"
            headers["origin"] = f"{parts.scheme}://{parts.netloc}"
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            connection.request("GET" if body is None else "POST", path, body, headers)
            answer = connection.getresponse()
            self.url, self.text = url, answer.read().decode()
            for name, value in answer.getheaders():
                if name.lower() == "set-cookie":
                    key, _, content = value.partition(";")[0].partition("=")
                    self.cookies[key] = content
            return answer.status, answer.getheader("location") or ""
        finally:
            connection.close()


@dataclass
class People:
    """The company's people, their groups, and the roles that these give them in accounts."""

    platform: Platform
    ids: dict[str, str]
    """Account ids by name."""
    _tokens: dict[str, str] = field(default_factory=dict)
    _sessions: dict[tuple[str, str, str], Credentials] = field(default_factory=dict)

    def join(self, people: dict[str, str]) -> None:
        """Everybody signs in once, and is made a member of their group, by name."""
        store, store_id = self._store()
        groups = {one["DisplayName"]: one["GroupId"] for one in store.list_groups(IdentityStoreId=store_id)["Groups"]}
        for person, group in people.items():
            self._sign_in(person)
            path = {"AttributePath": "userName", "AttributeValue": person}
            user = store.get_user_id(IdentityStoreId=store_id, AlternateIdentifier={"UniqueAttribute": path})["UserId"]
            store.create_group_membership(
                IdentityStoreId=store_id, GroupId=groups[group], MemberId={"UserId": str(user)}
            )

    def be(self, person: str, permission_set: str, account: str) -> Credentials:
        """A session of a role that the person's groups give them there."""
        key = (person, permission_set, account)
        if key not in self._sessions:
            held = self._unsigned("sso").get_role_credentials(
                accessToken=self._tokens[person], accountId=self.ids[account], roleName=permission_set
            )["roleCredentials"]
            self._sessions[key] = Credentials(held["accessKeyId"], held["secretAccessKey"], held["sessionToken"])
        return self._sessions[key]

    def _store(self) -> tuple[Any, str]:
        mine = self.platform.administrator()
        found = self.platform.client("sso-admin", mine).list_instances()["Instances"][0]
        return self.platform.client("identitystore", mine), str(found["IdentityStoreId"])

    def _unsigned(self, service: str) -> Any:
        return boto3.client(
            service,
            region_name=self.platform.region,
            endpoint_url=self.platform.url,
            verify=str(self.platform.directory.authority),
            config=botocore.config.Config(signature_version=botocore.UNSIGNED),
        )

    def _sign_in(self, person: str) -> None:
        password = secrets.token_urlsafe(24)
        where = ["--data", str(self.platform.directory.root)]
        added = subprocess.run(
            [sys.executable, "-m", "bastide", "identity", "user", "add", *where, person, "--password-stdin"],
            input=f"{password}\n",
            capture_output=True,
            text=True,
            check=False,
        )
        if added.returncode:
            raise StoryError(f"{person} could not be added to the identity provider: {added.stderr.strip()}")
        oidc = self._unsigned("sso-oidc")
        client = oidc.register_client(clientName="bastide-demo", clientType="public", scopes=["sso:account:access"])
        proof = {"clientId": client["clientId"], "clientSecret": client["clientSecret"]}
        begun = oidc.start_device_authorization(**proof, startUrl=f"{self.platform.url}/start")
        browser = _Browser(str(self.platform.directory.authority))
        browser.go(begun["verificationUriComplete"])
        browser.submit(username=person, password=password)
        if begun["userCode"] not in browser.text:
            raise StoryError(f"{person} is not asked to confirm the code {begun['userCode']}, but shown {browser.url}")
        browser.submit(answer="allow")
        self._tokens[person] = oidc.create_token(**proof, grantType=_DEVICE, deviceCode=begun["deviceCode"])[
            "accessToken"
        ]
