"""Sources that are looked at time and again (PollForSourceChanges): a new revision starts the pipeline.

A look is a call with the action's own role, like every other. What was seen last is kept with the pipeline, in the
transaction that starts an execution, so that one change starts one.
Source: CodePipeline User Guide, "Change detection methods used to start pipelines automatically".
"""

from __future__ import annotations

from typing import Any, Final

from bastide.domain import MICROS, Arn, Refused
from bastide.kernel import Rounds
from bastide.kernel.happened import EVENTS
from bastide.kernel.outbox import Outbox
from bastide.services.codepipeline import execution
from bastide.services.codepipeline.acting import Actor, Denied
from bastide.services.codepipeline.noun import EXECUTION, PIPELINE, Doc, declaration
from bastide.store import Row, Transaction, View

POLLED: Final = "codepipeline:Polled"
"""Under account "", by the pipeline's ARN: what each of its sources had when it was looked at last."""


def keep(tx: Transaction, pipeline: Row, polls: bool) -> None:
    """A pipeline is to be looked at from now on, or no more."""
    arn = PIPELINE.arn(pipeline.account, pipeline.region, pipeline.name)
    held = tx.get(POLLED, "", "", arn)
    if polls and held is None:
        tx.insert(Row(POLLED, "", "", arn, {"seen": {}}), keep=False)
    elif not polls and held is not None:
        tx.delete(held, keep=False)


def sources(doc: Doc) -> list[Doc]:
    """The source actions that are looked at: on AWS, too, unless PollForSourceChanges is false."""
    return [
        one
        for one in doc["stages"][0]["actions"]
        if one["actionTypeId"]["provider"] in ("CodeCommit", "S3")
        and one["configuration"].get("PollForSourceChanges", "true") == "true"
    ]


class Poller(Rounds):
    """Looks at sources, each pipeline's by itself."""

    every = 30 * MICROS

    def subscribe(self, outbox: Outbox) -> None:
        """When a repository has changed, the next look is due."""

        async def heard(body: dict[str, Any]) -> None:
            if body.get("source") == "aws.codecommit":
                self.last = None

        outbox.subscribe(EVENTS, heard)

    async def round(self) -> None:
        """Looks at every source once."""
        await self.each(POLLED, self._look)

    async def _look(self, name: str) -> None:
        with self._calls.store.reading() as view:
            row = view.get(POLLED, "", "", name)
        if row is not None:
            await self._pipeline(Arn.parse(name), row.doc["seen"])

    async def _pipeline(self, arn: Arn, seen: dict[str, str]) -> None:
        with self._calls.store.reading() as view:
            row = PIPELINE.get(view, arn.account, arn.region, arn.resource)
            doc = None if row is None else declaration(view, arn.account, arn.region, row.name, row.doc["version"])
            ran = _ran(view, arn)
        if row is None or doc is None:
            return
        found = dict(seen)
        for action in sources(doc):
            actor = Actor(
                self._calls, doc["roleArn"], action.get("roleArn") or "", account=arn.account, region=arn.region,
                arn=str(arn), name="PollForSourceChanges",
            )  # fmt: skip
            try:
                found[action["name"]] = await _revision(actor, action)
            except (Refused, Denied, KeyError):
                continue  # the next run of the pipeline says why its source cannot be read
        changed = [name for name, one in found.items() if one != seen.get(name, ran.get(name, one))]
        if found != seen:
            await self._calls.store.write(lambda tx: self._note(tx, arn, doc, found, changed))

    def _note(self, tx: Transaction, arn: Arn, doc: Doc, found: dict[str, str], changed: list[str]) -> None:
        held = tx.get(POLLED, "", "", str(arn))
        row = PIPELINE.get(tx, arn.account, arn.region, arn.resource)
        if held is None or row is None or row.doc["version"] != doc["version"]:
            return
        held.doc["seen"] = found
        tx.update(held, keep=False)
        if changed and all(one.get("defaultValue") for one in doc.get("variables") or ()):
            trigger = {"type": "PollForSourceChanges", "detail": changed[0]}
            execution.begin(tx, row, doc, trigger=trigger, now=tx.now)


def _ran(view: View, arn: Arn) -> dict[str, str]:
    """What the newest execution ran with."""
    rows = view.scan(EXECUTION, f"{arn.account}/{arn.resource}", arn.region, order="created", descending=True, limit=1)
    return {one["action"]: one["id"] for row in rows for one in row.doc["revisions"]}


async def _revision(actor: Actor, action: Doc) -> str:
    given = action["configuration"]
    if action["actionTypeId"]["provider"] == "S3":
        told = await actor.act("s3", "HeadObject", {"Bucket": given["S3Bucket"], "Key": given["S3ObjectKey"]})
        return str(told["VersionId"])
    asked = {"repositoryName": given["RepositoryName"], "branchName": given["BranchName"]}
    return str((await actor.act("codecommit", "GetBranch", asked))["branch"]["commitId"])
