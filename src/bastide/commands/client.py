"""How commands reach the platform: over its API, with somebody's credentials."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import botocore.config
import botocore.exceptions
import click

from bastide.store.directory import DataDirectory

_FEW_RETRIES = botocore.config.Config(retries={"max_attempts": 1, "mode": "standard"}, connect_timeout=5)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What signs a call."""

    access_key: str
    secret: str
    token: str | None = None
    expires: str | None = None


def from_environment() -> Credentials | None:
    """The AWS_* credentials of the environment; None if there are none."""
    key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    return Credentials(key, secret, os.environ.get("AWS_SESSION_TOKEN")) if key and secret else None


class Platform:
    """A running platform as its clients see it."""

    def __init__(self, data: Path) -> None:
        """Reads where it listens; raises ClickException if there is none."""
        self.directory = DataDirectory(data)
        if not self.directory.configuration.exists():
            raise click.ClickException(f"{data} holds no platform; make one with `bastide init --data {data}`")
        self.configuration = self.directory.load()
        self.region = self.configuration.regions[0]
        self._session = boto3.session.Session()  # one for all clients: it keeps the service models that it has read

    @property
    def url(self) -> str:
        """Its TLS endpoint; raises ClickException if it does not run."""
        try:
            told = json.loads(self.directory.endpoint.read_text())
            os.kill(told["pid"], 0)  # a platform that was killed leaves the file behind
        except (FileNotFoundError, ProcessLookupError):
            raise click.ClickException(
                f"no platform runs in {self.directory.root}; start it with `bastide up --data {self.directory.root}`"
            ) from None
        return str(told["url"])

    def administrator(self) -> Credentials:
        """The first administrator's credentials."""
        try:
            told = json.loads(self.directory.administrator.read_text())
        except (FileNotFoundError, PermissionError):
            raise click.ClickException(
                f"{self.directory.administrator} cannot be read; are you the platform's owner?"
            ) from None
        return Credentials(told["AccessKeyId"], told["SecretAccessKey"])

    def client(self, service: str, credentials: Credentials, region: str | None = None) -> Any:
        """A boto3 client that trusts the platform's authority."""
        return self._session.client(
            service,
            region_name=region or self.region,
            endpoint_url=self.url,
            verify=str(self.directory.authority),
            aws_access_key_id=credentials.access_key,
            aws_secret_access_key=credentials.secret,
            aws_session_token=credentials.token,
            config=_FEW_RETRIES,
        )

    def accounts(self, credentials: Credentials) -> list[dict[str, Any]]:
        """The organisation's accounts; only the management account if there is no organisation."""
        try:
            pages = self.client("organizations", credentials).get_paginator("list_accounts").paginate()
            return [account for page in pages for account in page["Accounts"]]
        except botocore.exceptions.ClientError as error:
            if error.response["Error"]["Code"] != "AWSOrganizationsNotInUseException":
                raise
            return [{"Id": self.configuration.account, "Name": "management", "Status": "ACTIVE"}]

    def assume(self, credentials: Credentials, account: str, role: str, session: str) -> Credentials:
        """A role's session in an account, given by name or id; raises ClickException if there is no such account."""
        found = account
        if not (len(account) == 12 and account.isdigit()):
            match = [one["Id"] for one in self.accounts(credentials) if one["Name"] == account]
            if not match:
                raise click.ClickException(f"there is no account named `{account}`; `bastide status` lists them")
            found = match[0]
        answer = self.client("sts", credentials).assume_role(
            RoleArn=f"arn:aws:iam::{found}:role/{role}", RoleSessionName=session
        )["Credentials"]
        return Credentials(
            answer["AccessKeyId"], answer["SecretAccessKey"], answer["SessionToken"], answer["Expiration"].isoformat()
        )

    def inside(self, account: str) -> Credentials:
        """What administers an account: the administrator itself, or its session of the account's own role."""
        held = self.administrator()
        if account == self.configuration.account:
            return held
        return self.assume(held, account, "OrganizationAccountAccessRole", "bastide-cli")
