"""An organisation's units and policies, made quickly for a story."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import botocore.exceptions
import pytest

from tests.platform import Account, Running

SCP = "SERVICE_CONTROL_POLICY"
RCP = "RESOURCE_CONTROL_POLICY"
TAG = "TAG_POLICY"


def refusal(work: Callable[..., Any], *args: Any, **given: Any) -> tuple[str, str]:
    """Code and message of a call that must be refused."""
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        work(*args, **given)
    error = caught.value.response["Error"]
    return str(error["Code"]), str(error["Message"])


def code(work: Callable[..., Any], *args: Any, **given: Any) -> str:
    """The code alone."""
    return refusal(work, *args, **given)[0]


def fresh(name: str) -> str:
    """A name nobody has yet."""
    return f"{name}-{uuid.uuid4().hex[:8]}"


def document(effect: str, *actions: str, **more: Any) -> str:
    """A policy of one statement."""
    statement = {"Effect": effect, "Action": list(actions), "Resource": "*", **more}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


class Tree:
    """The management account's client, and shorter ways to do what stories do often."""

    def __init__(self, platform: Running) -> None:
        self.org = platform.client("organizations")
        self.root = str(self.org.list_roots()["Roots"][0]["Id"])
        self.id = str(self.org.describe_organization()["Organization"]["Id"])

    def enable(self, *types: str) -> None:
        """Enables policy types that are not."""
        held = {one["Type"] for one in self.org.list_roots()["Roots"][0]["PolicyTypes"]}
        for type in set(types) - held:
            self.org.enable_policy_type(RootId=self.root, PolicyType=type)

    def unit(self, parent: str = "") -> str:
        """A new unit, below the root unless told otherwise."""
        made = self.org.create_organizational_unit(ParentId=parent or self.root, Name=fresh("unit"))
        return str(made["OrganizationalUnit"]["Id"])

    def move(self, account: Account, to: str) -> None:
        """Moves an account from wherever it is."""
        [above] = self.org.list_parents(ChildId=account.id)["Parents"]
        self.org.move_account(AccountId=account.id, SourceParentId=above["Id"], DestinationParentId=to)

    def policy(self, content: str, type: str = SCP) -> str:
        """A new policy; its id."""
        made = self.org.create_policy(Name=fresh("policy"), Description="", Type=type, Content=content)
        return str(made["Policy"]["PolicySummary"]["Id"])

    def bind(self, target: str, content: str, type: str = SCP) -> str:
        """A new policy, attached."""
        id = self.policy(content, type)
        self.org.attach_policy(PolicyId=id, TargetId=target)
        return id

    def free(self, target: str, policy: str) -> None:
        """Detaches it again."""
        self.org.detach_policy(PolicyId=policy, TargetId=target)
