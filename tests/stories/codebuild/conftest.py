"""A role that builds run with, and a short way to make and follow them."""

from __future__ import annotations

import io
import json
import time
import uuid
import zipfile
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.platform import Account, allow

CODEBUILD = {"Service": "codebuild.amazonaws.com"}
IMAGE = "aws/codebuild/amazonlinux-x86_64-standard:5.0"
ENVIRONMENT = {"type": "LINUX_CONTAINER", "image": IMAGE, "computeType": "BUILD_GENERAL1_SMALL"}
MAY = ("logs:*", "s3:*", "codebuild:CreateReport*", "codebuild:UpdateReport", "codebuild:BatchPut*")


def archive(**files: str | bytes) -> bytes:
    """A .zip; `__` in a name stands for a slash, `_dot_` for a dot."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as made:
        for name, text in files.items():
            made.writestr(zipfile.ZipInfo(name.replace("__", "/").replace("_dot_", ".")), text)
    return packed.getvalue()


def spec(**parts: Any) -> str:
    """A buildspec: phases by their names, a list of commands each; everything else as it is."""
    phases = {name: parts.pop(name) for name in ("install", "pre_build", "build", "post_build") if name in parts}
    told = {name: {"commands": one} if isinstance(one, list) else one for name, one in phases.items()}
    return json.dumps({"version": "0.2", "phases": told, **parts}, indent=1)


@dataclass
class Bench:
    """Where one account's projects and builds are made."""

    account: Account
    role: str
    client: Any
    bucket: str = ""
    running: list[str] = field(default_factory=list)

    def project(self, buildspec: str, name: str = "", **more: Any) -> str:
        """A project without a source; its name."""
        name = name or f"p-{uuid.uuid4().hex[:8]}"
        given: dict[str, Any] = {
            "source": {"type": "NO_SOURCE", "buildspec": buildspec},
            "artifacts": {"type": "NO_ARTIFACTS"},
            "environment": ENVIRONMENT,
            "serviceRole": self.role,
        }
        self.client.create_project(name=name, **given | more)
        return name

    def start(self, project: str, **more: Any) -> str:
        """A build's id."""
        return str(self.client.start_build(projectName=project, **more)["build"]["id"])

    def get(self, id: str) -> dict[str, Any]:
        """The build as it stands."""
        [found] = self.client.batch_get_builds(ids=[id])["builds"]
        return dict(found)

    def over(self, id: str) -> dict[str, Any]:
        """The build, once it is over."""
        while not (found := self.get(id))["buildComplete"]:
            time.sleep(0.1)
        return found

    def build(self, buildspec: str, **more: Any) -> dict[str, Any]:
        """A project's one build, over."""
        return self.over(self.start(self.project(buildspec, **more)))

    def lines(self, build: dict[str, Any]) -> list[str]:
        """Everything that a build has logged."""
        logs = build["logs"]
        found = self.account.client("logs").get_log_events(
            logGroupName=logs["groupName"], logStreamName=logs["streamName"], startFromHead=True
        )
        return [one["message"] for one in found["events"]]

    def said(self, build: dict[str, Any]) -> list[str]:
        """What its commands have printed."""
        return [one for one in self.lines(build) if not one.startswith("[Container] ")]

    def put(self, key: str, content: bytes) -> str:
        """An object; its place."""
        self.account.client("s3").put_object(Bucket=self.bucket, Key=key, Body=content)
        return f"{self.bucket}/{key}"

    def object(self, key: str) -> bytes:
        """An object's bytes."""
        return bytes(self.account.client("s3").get_object(Bucket=self.bucket, Key=key)["Body"].read())


def phases(build: dict[str, Any]) -> dict[str, str]:
    """How each phase ended."""
    return {one["phaseType"]: one.get("phaseStatus", "") for one in build["phases"]}


def cause(build: dict[str, Any]) -> str:
    """The one context that says why a build failed."""
    [found] = [c for one in build["phases"] for c in one.get("contexts") or () if c.get("statusCode")]
    return f"{found['statusCode']}: {found['message']}"


def bench_of(account: Account) -> Bench:
    """A role that may write logs and reports, and read and write objects."""
    bucket = f"builds-{account.id}-{uuid.uuid4().hex[:6]}"
    account.client("s3").create_bucket(Bucket=bucket)
    role = account.role("builds", allow(*MAY), trust=CODEBUILD)
    return Bench(account, role, account.client("codebuild"), bucket)


@pytest.fixture
def bench(account: Account) -> Bench:
    return bench_of(account)
