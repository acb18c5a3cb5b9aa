"""Stacks, as tests ask for them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.platform import Account, Keys
from tests.waiting import until

Resource = dict[str, Any]


def parameter(value: Any, **more: Any) -> Resource:
    """A parameter of Systems Manager: the cheapest resource."""
    return {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": value}, **more}


def nobody(*depends: str) -> Resource:
    """A resource that cannot be made: a policy of a role that is not there."""
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    properties = {"PolicyName": "p", "PolicyDocument": document, "Roles": ["there-is-no-such-role"]}
    return {"Type": "AWS::IAM::Policy", "DependsOn": list(depends), "Properties": properties}


def template(resources: dict[str, Any], **more: Any) -> str:
    """A template's text."""
    return json.dumps({"AWSTemplateFormatVersion": "2010-09-09", **more, "Resources": resources})


@dataclass
class Stacks:
    """An account's stacks."""

    account: Account
    keys: Keys | None = None

    def __post_init__(self) -> None:
        self.client = self.account.client("cloudformation", self.keys)
        self.ssm = self.account.client("ssm")

    def create(self, name: str, body: str, **more: Any) -> dict[str, Any]:
        """A new stack, when it has settled."""
        id = self.client.create_stack(StackName=name, TemplateBody=body, Capabilities=["CAPABILITY_NAMED_IAM"], **more)[
            "StackId"
        ]
        return self.settled(id)

    def update(self, name: str, body: str, **more: Any) -> dict[str, Any]:
        """A changed stack, when it has settled."""
        id = self.client.update_stack(StackName=name, TemplateBody=body, Capabilities=["CAPABILITY_NAMED_IAM"], **more)[
            "StackId"
        ]
        return self.settled(id)

    def delete(self, name: str, **more: Any) -> dict[str, Any]:
        """A removed stack, when it has settled."""
        id = self.get(name)["StackId"]
        self.client.delete_stack(StackName=name, **more)
        return self.settled(id)

    def get(self, name: str) -> dict[str, Any]:
        """A stack."""
        found: dict[str, Any] = self.client.describe_stacks(StackName=name)["Stacks"][0]
        return found

    def settled(self, name: str, seconds: float = 60) -> dict[str, Any]:
        """A stack that nothing happens to any more."""
        return until(
            lambda: None if (found := self.get(name))["StackStatus"].endswith("_IN_PROGRESS") else found,
            seconds,
            told=lambda: (self.get(name)["StackStatus"], self.story(name)[:20]),
        )

    def reached(self, name: str, *statuses: str) -> dict[str, Any]:
        """A stack in one of these states."""
        return until(
            lambda: found if (found := self.get(name))["StackStatus"] in statuses else None,
            told=lambda: (self.get(name)["StackStatus"], self.story(name)[:20]),
        )

    def story(self, name: str) -> list[tuple[str, str, str]]:
        """What happened, newest first: resource, status, reason."""
        pages = self.client.get_paginator("describe_stack_events").paginate(StackName=name)
        events = [one for page in pages for one in page["StackEvents"]]
        return [
            (one["LogicalResourceId"], one["ResourceStatus"], one.get("ResourceStatusReason", "")) for one in events
        ]

    def physical(self, name: str) -> dict[str, str]:
        """Physical ids, by logical id."""
        held = self.client.describe_stack_resources(StackName=name)["StackResources"]
        return {one["LogicalResourceId"]: one.get("PhysicalResourceId", "") for one in held}

    def outputs(self, name: str) -> dict[str, str]:
        """Outputs."""
        return {one["OutputKey"]: one["OutputValue"] for one in self.get(name).get("Outputs", ())}

    def value(self, name: str) -> str | None:
        """What a parameter of Systems Manager holds, None if it is not there."""
        found = self.ssm.get_parameters(Names=[name])["Parameters"]
        return found[0]["Value"] if found else None
