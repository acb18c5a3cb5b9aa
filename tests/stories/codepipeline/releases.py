"""Pipelines, as tests ask for them."""

from __future__ import annotations

import io
import json
import uuid
import zipfile
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tests.platform import Account, allow
from tests.waiting import until

T = TypeVar("T")
CODEPIPELINE = {"Service": "codepipeline.amazonaws.com"}
OVER = ("Cancelled", "Stopped", "Succeeded", "Superseded", "Failed")


def zipped(files: dict[str, Any]) -> bytes:
    """An archive of files; what is no text is written as JSON."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, held in files.items():
            archive.writestr(name, held if isinstance(held, str | bytes) else json.dumps(held))
    return buffer.getvalue()


def unzipped(data: bytes) -> dict[str, bytes]:
    """The files of an archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def action(name: str, category: str, provider: str, configuration: dict[str, str], **more: Any) -> dict[str, Any]:
    """An action of AWS's own."""
    type = {"category": category, "owner": "AWS", "provider": provider, "version": "1"}
    found: dict[str, Any] = {"name": name, "actionTypeId": type, "configuration": configuration}
    for member in ("inputArtifacts", "outputArtifacts"):
        if member in more:
            found[member] = [{"name": one} for one in more.pop(member)]
    return {**found, **more}


def approval(name: str = "Ask", **more: Any) -> dict[str, Any]:
    """Somebody is asked."""
    return action(name, "Approval", "Manual", more.pop("configuration", {}), **more)


def stage(name: str, *actions: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A stage."""
    return {"name": name, "actions": list(actions), **more}


@dataclass
class Releases:
    """An account's pipelines."""

    account: Account
    role: str
    bucket: str
    key: str
    sources: str
    declaration: dict[str, Any] = field(default_factory=dict)
    first: str = ""
    """The execution that `declaration` began with; other tests start more."""

    def __post_init__(self) -> None:
        self.reach()

    def reach(self) -> None:
        """Clients for the address that the platform has now."""
        self.client = self.account.client("codepipeline")
        self.s3 = self.account.client("s3")

    def commit(self, files: dict[str, Any], key: str = "source.zip") -> str:
        """A new version of the source; its id."""
        found: str = self.s3.put_object(Bucket=self.sources, Key=key, Body=zipped(files))["VersionId"]
        return found

    def source(self, key: str = "source.zip") -> dict[str, Any]:
        """The stage that every pipeline begins with."""
        configuration = {"S3Bucket": self.sources, "S3ObjectKey": key, "PollForSourceChanges": "false"}
        return stage(
            "Source",
            action("Source", "Source", "S3", configuration, outputArtifacts=["Code"], namespace="SourceVariables"),
        )

    def declared(self, *stages: dict[str, Any], name: str = "", **more: Any) -> dict[str, Any]:
        """A pipeline of these stages behind the source."""
        store = {"type": "S3", "location": self.bucket, "encryptionKey": {"id": self.key, "type": "KMS"}}
        return {
            "name": name or f"p-{uuid.uuid4().hex[:8]}",
            "roleArn": self.role,
            "artifactStore": store,
            "stages": [self.source(), *stages],
            **more,
        }

    def made(self, *stages: dict[str, Any], **more: Any) -> str:
        """A new pipeline, whose first execution is over; its name. wait: False if that is not waited for."""
        wait = more.pop("wait", True)
        name: str = self.client.create_pipeline(pipeline=self.declared(*stages, **more))["pipeline"]["name"]
        if wait:
            self.over(name, self.newest(name))
        return name

    def newest(self, name: str) -> str:
        """The id of the newest execution."""
        found: str = self.client.list_pipeline_executions(pipelineName=name)["pipelineExecutionSummaries"][0][
            "pipelineExecutionId"
        ]
        return found

    def started(self, name: str, **more: Any) -> str:
        """A new execution; its id."""
        found: str = self.client.start_pipeline_execution(name=name, **more)["pipelineExecutionId"]
        return found

    def get(self, name: str, id: str) -> dict[str, Any]:
        """An execution."""
        found: dict[str, Any] = self.client.get_pipeline_execution(pipelineName=name, pipelineExecutionId=id)[
            "pipelineExecution"
        ]
        return found

    def over(self, name: str, id: str, seconds: float = 60) -> dict[str, Any]:
        """An execution, when it is over."""
        return until(
            lambda: found if (found := self.get(name, id))["status"] in OVER else None,
            seconds,
            told=lambda: self.actions(name, id),
        )

    def ran(self, name: str, **more: Any) -> dict[str, Any]:
        """Starts it, and waits for its end."""
        return self.over(name, self.started(name, **more))

    def actions(self, name: str, id: str) -> dict[str, dict[str, Any]]:
        """What its actions did, by name, the last time."""
        pages = self.client.get_paginator("list_action_executions").paginate(
            pipelineName=name, filter={"pipelineExecutionId": id}
        )
        every = [one for page in pages for one in page["actionExecutionDetails"]]
        return {one["actionName"]: one for one in reversed(every)}

    def error(self, name: str, id: str, action: str) -> dict[str, str]:
        """Why an action failed."""
        found: dict[str, str] = self.actions(name, id)[action]["output"]["executionResult"]["errorDetails"]
        return found

    def stages(self, name: str) -> dict[str, dict[str, Any]]:
        """How the pipeline stands, by stage."""
        return {one["stageName"]: one for one in self.client.get_pipeline_state(name=name)["stageStates"]}

    def within(self, name: str, stage: str, id: str) -> None:
        """Waits until an execution is in a stage."""

        def look() -> bool | None:
            held = self.stages(name)[stage].get("latestExecution", {})
            return True if held.get("pipelineExecutionId") == id else None

        until(look)

    def waits(self, name: str, stage: str, action: str = "Ask") -> str:
        """The token of an approval, once it is asked for."""

        def token() -> str | None:
            for one in self.stages(name)[stage]["actionStates"]:
                found: str | None = one.get("latestExecution", {}).get("token")
                if one["actionName"] == action and found:
                    return found
            return None

        return until(token, told=lambda: self.stages(name)[stage])

    def answer(self, name: str, stage: str, status: str = "Approved", action: str = "Ask", **more: Any) -> None:
        """Says yes, or no."""
        token = more.pop("token", None) or self.waits(name, stage, action)
        more.pop("client", self.client).put_approval_result(
            pipelineName=name,
            stageName=stage,
            actionName=action,
            token=token,
            result={"summary": "seen", "status": status},
        )

    def artifact(self, name: str, id: str, action: str, number: int = 0) -> dict[str, bytes]:
        """The files of an artifact that an action made."""
        where = self.actions(name, id)[action]["output"]["outputArtifacts"][number]["s3location"]
        return unzipped(self.s3.get_object(Bucket=where["bucket"], Key=where["key"])["Body"].read())


def releases_of(account: Account, *actions: str) -> Releases:
    """Pipelines of an account, whose role may do this beside the usual."""
    usual = ("s3:*", "kms:*", "sts:AssumeRole", "states:*", "cloudformation:*", "iam:PassRole", "lambda:*", "sns:*")
    role = account.role("Pipeline", allow(*usual, "cloudwatch:*", *actions), trust=CODEPIPELINE)
    s3, kms = account.client("s3"), account.client("kms")
    bucket, sources = f"artifacts-{account.id}", f"sources-{account.id}"
    for one in (bucket, sources):
        s3.create_bucket(Bucket=one)
    s3.put_bucket_versioning(Bucket=sources, VersioningConfiguration={"Status": "Enabled"})
    key = kms.create_key()["KeyMetadata"]["Arn"]
    found = Releases(account, role, bucket, key, sources)
    found.commit({"README": "hello"})
    return found
