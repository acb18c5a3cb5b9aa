"""A landing zone that stands, and those who work in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest
from click.testing import CliRunner

from bastide.commands.cli import cli
from tests.platform import Account, Keys, Running
from tests.stories.identity_center.browser import Centre

DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation")


def landing(platform: Running, *words: str) -> tuple[int, Any, str]:
    """`bastide landing ...`: its exit code, its JSON if it was asked for some, and what it said."""
    data = () if words[0] in ("example", "render", "rules") else ("--data", str(platform.data))
    given = ["landing", words[0], *data, *words[1:]]
    done = CliRunner().invoke(cli, given, env={"COLUMNS": "200"})
    told = json.loads(done.stdout) if "--json" in words and done.stdout.strip() else done.stdout
    return done.exit_code, told, done.stderr


@dataclass
class Zone:
    """A landing zone and its story so far: plan, first and second run."""

    centre: Centre
    file: Path
    plan: Any
    applied: Any
    again: Any
    token: str
    _sessions: dict[tuple[str, str], Keys] = field(default_factory=dict)

    @property
    def platform(self) -> Running:
        return self.centre.platform

    @property
    def ids(self) -> dict[str, str]:
        """Ids of accounts by name."""
        found: dict[str, str] = self.applied["accounts"]
        return found

    def account(self, name: str) -> Account:
        """An account and its administrator."""
        return Account(self.platform, self.ids[name], name)

    def bucket(self, kind: str, account: str) -> str:
        """A bucket's name."""
        return f"bank-{kind}-{self.ids[account]}"

    def key(self, account: str, alias: str) -> str:
        """A key's ARN by its alias."""
        told = self.account(account).client("kms").describe_key(KeyId=f"alias/bank-{alias}")
        return str(told["KeyMetadata"]["Arn"])

    def arn(self, account: str, name: str, path: str = "bank") -> str:
        """A role's ARN."""
        return f"arn:aws:iam::{self.ids[account]}:role/{path}/{name}"

    def pipeline_role(self, name: str) -> str:
        """The ARN of a role of CodePipeline or CodeBuild."""
        return self.arn("shared-services", f"bank-{name}", "service-role")

    def service(self, account: str, arn: str) -> Keys:
        """A session of a role that only a service may take on: for a moment it trusts the account that made it, too."""
        if (account, arn) not in self._sessions:
            with self._trusting(account, arn) as keys:
                self._sessions[account, arn] = keys
        return self._sessions[account, arn]

    @contextmanager
    def _trusting(self, account: str, arn: str) -> Iterator[Keys]:
        iam, name = self.account(account).client("iam"), arn.rpartition("/")[2]
        before = iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]
        me = {"AWS": f"arn:aws:iam::{self.ids[account]}:role/OrganizationAccountAccessRole"}
        wider = {"Effect": "Allow", "Principal": me, "Action": "sts:AssumeRole"}
        document = {**before, "Statement": [*before["Statement"], wider]}
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(document))
        try:
            yield self.platform.assume(arn, self.account(account).keys, "pipeline")
        finally:
            iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(before))

    def person(self, account: str, permission_set: str) -> Keys:
        """Somebody of all groups, signed in with a device code, in one of the roles."""
        return self.centre.session(self.token, self.account(account), permission_set)


def refused(codes: str | Sequence[str], work: Any, *args: Any, **given: Any) -> str:
    """The message of a call that must be refused with one of these codes."""
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        work(*args, **given)
    error = caught.value.response["Error"]
    assert error["Code"] in ([codes] if isinstance(codes, str) else codes), error
    return str(error["Message"])
