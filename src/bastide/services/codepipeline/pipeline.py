"""Pipelines: made, changed, shown, listed, removed, tagged; each change is a version.

Source: CodePipeline API Reference.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bastide.domain import Arn, Refused
from bastide.kernel import Ask, Asked, Authorised, Output, anything, pages
from bastide.services.codepipeline import declaration, execution, polling
from bastide.services.codepipeline.acting import Actor, Denied
from bastide.services.codepipeline.noun import (
    EXECUTION,
    PASSING,
    PIPELINE,
    RUNNING,
    STAGE,
    VERSION,
    ask,
    changed,
    forget,
    invalid,
    stage_row,
    tags,
)
from bastide.services.codepipeline.noun import declaration as version_of
from bastide.store import Row, Transaction, View

_AT_ONCE = 100
"""Executions that one transaction removes: nobody else waits long for it."""


async def _checked(a: Authorised) -> Any:
    """The declaration, checked; and whether its role lets CodePipeline in, as AWS looks at once, not at the first run."""
    given = a.input["pipeline"]
    role, name = given["roleArn"], given["name"]
    with a.calls.store.reading() as view:
        there = PIPELINE.get(view, a.account, a.region, name) is not None
    if there and a.operation.name == "CreatePipeline":
        return None  # whoever makes a pipeline whose name is taken is told that first
    doc = declaration.checked(a, given)
    if f":{a.account}:" not in role:
        raise declaration.structure(f"The role {role} is not of the pipeline's account.")
    arn = PIPELINE.arn(a.account, a.region, name)
    actor = Actor(a.calls, role, "", account=a.account, region=a.region, arn=arn, name="CodePipeline")
    try:
        await actor.caller()
    except Denied:
        raise declaration.structure(f"CodePipeline is not authorized to perform AssumeRole on role {role}") from None
    return doc


def _keep(a: Authorised, tx: Transaction, row: Row, doc: dict[str, Any], number: int) -> None:
    doc["version"] = number
    tx.insert(Row(VERSION, row.account, row.region, f"{row.name}/{number:08d}", doc), keep=False)
    polling.keep(tx, row, bool(polling.sources(doc)))
    row.doc |= {
        "version": number, "type": doc["pipelineType"], "mode": doc["executionMode"], "updated": a.now,
    }  # fmt: skip


@PIPELINE.operation("CreatePipeline", asks=[ask("CreatePipeline", "pipeline.name"), PASSING], before=_checked)
def create(a: Authorised, tx: Transaction) -> Output:
    """A new pipeline runs at once, as on AWS, unless it has variables without a default."""
    name = a.input["pipeline"]["name"]
    row = Row(PIPELINE.key, a.account, a.region, name, {})
    given = tags(a.input.get("tags"))
    if a.staged is not None:
        _keep(a, tx, row, a.staged, 1)
    row = PIPELINE.create(a, tx, name, row.doc, tags=given)
    doc = a.staged
    if doc is None:  # the pipeline of that name went while this one was looked at
        raise Refused("ConcurrentModificationException", "A pipeline of that name was just removed. Please try again.")
    if all(one.get("defaultValue") for one in doc.get("variables") or ()):
        execution.begin(tx, row, doc, trigger={"type": "CreatePipeline", "detail": a.caller.arn}, now=a.now)
    return {"pipeline": doc, "tags": _listed(given)}


def _listed(held: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in held.items()]


@PIPELINE.operation("UpdatePipeline", asks=[ask("UpdatePipeline", "pipeline.name"), PASSING], before=_checked)
def update(a: Authorised, tx: Transaction) -> Output:
    """The next version. Executions of the one before that still run are cancelled, as on AWS."""
    row = PIPELINE.find(tx, a.account, a.region, a.input["pipeline"]["name"])
    before = version_of(tx, a.account, a.region, row.name, row.doc["version"])
    assert before is not None
    doc = a.staged
    _keep(a, tx, row, doc, row.doc["version"] + 1)
    PIPELINE.change(tx, row, a.operation.name, a.request.id)
    execution.cancel(tx, row, a.now)
    changed(tx, row)
    return {"pipeline": doc}


@PIPELINE.reads("GetPipeline", asks=[ask("GetPipeline", "name")])
def get(a: Authorised, view: View) -> Output:
    row = PIPELINE.named(a, view)
    number = int(a.input.get("version") or row.doc["version"])
    doc = version_of(view, a.account, a.region, row.name, number)
    if doc is None:
        raise Refused(
            "PipelineVersionNotFoundException", f"The pipeline '{row.name}' does not have a version '{number}'"
        )
    metadata = {
        "pipelineArn": PIPELINE.arn(row.account, row.region, row.name),
        "created": row.created,
        "updated": row.doc["updated"],
    }
    return {"pipeline": doc, "metadata": metadata}


@PIPELINE.reads("ListPipelines", asks=[Ask("codepipeline:ListPipelines", anything)])
def listed(a: Authorised, view: View) -> Output:
    limit = int(a.input.get("maxResults") or 1000)
    after = pages.position(a, a.input.get("nextToken"), code="InvalidNextTokenException")
    rows = view.scan(PIPELINE.key, a.account, a.region, after=after, limit=limit + 1)
    shown = rows[:limit]
    return {
        "pipelines": [
            {
                "name": row.name,
                "version": row.doc["version"],
                "pipelineType": row.doc["type"],
                "executionMode": row.doc["mode"],
                "created": row.created,
                "updated": row.doc["updated"],
            }
            for row in shown
        ],
        "nextToken": pages.seal(a, shown[-1].name) if len(rows) > limit else None,
    }


async def _before_delete(a: Authorised) -> None:
    """Removes what ended long ago, a part at a time."""
    name = a.input["name"]

    def work(tx: Transaction) -> bool:
        rows = tx.scan(EXECUTION, f"{a.account}/{name}", a.region, order="created", limit=2 * _AT_ONCE)
        ended = [row for row in rows[:_AT_ONCE] if row.status not in RUNNING]
        if len(rows) <= _AT_ONCE or not ended:
            return False
        for row in ended:
            forget(tx, row)
        return True

    while await a.calls.store.write(work):
        pass


@PIPELINE.operation("DeletePipeline", asks=[ask("DeletePipeline", "name")], before=_before_delete)
def delete(a: Authorised, tx: Transaction) -> Output:
    """With its versions and executions. What runs ends where it stands; what it began elsewhere goes on."""
    row = PIPELINE.get(tx, a.account, a.region, a.input["name"])
    if row is None:
        return {}
    inside = f"{row.account}/{row.name}"
    for kind, account, prefix in ((EXECUTION, inside, ""), (STAGE, inside, ""), (VERSION, row.account, f"{row.name}/")):
        while found := tx.scan(kind, account, row.region, prefix=prefix, limit=500):
            for one in found:
                if kind == EXECUTION:
                    forget(tx, one)
                else:
                    tx.delete(one, keep=False)
    polling.keep(tx, row, False)
    PIPELINE.remove(tx, row, a.operation.name, a.request.id)
    changed(tx, row)
    return {}


# -- transitions ---------------------------------------------------------------------------------------------------------


def _transition(a: Authorised, tx: Transaction, enabled: bool) -> Output:
    row = PIPELINE.find(tx, a.account, a.region, a.input["pipelineName"])
    doc = version_of(tx, a.account, a.region, row.name, row.doc["version"])
    assert doc is not None
    names = [one["name"] for one in doc["stages"]]
    name = a.input["stageName"]
    if name not in names:
        raise Refused("StageNotFoundException", f"Stage '{name}' is not found in the pipeline '{row.name}'")
    place = names.index(name) + (a.input["transitionType"] == "Outbound")
    if place == 0 or place == len(names):
        raise Refused("ValidationException", f"The stage {name} has no {a.input['transitionType']} transition.")
    stage = stage_row(tx, a.account, a.region, row.name, names[place])
    stage.doc |= {"enabled": enabled, "by": a.caller.arn, "at": a.now, "reason": a.input.get("reason", "")}
    if stage.generation:
        tx.update(stage, keep=False)
    else:
        tx.insert(stage, keep=False)
    changed(tx, row)
    return {}


@PIPELINE.operation("DisableStageTransition", asks=[ask("DisableStageTransition", "pipelineName", "stageName")])
def disable(a: Authorised, tx: Transaction) -> Output:
    return _transition(a, tx, False)


@PIPELINE.operation("EnableStageTransition", asks=[ask("EnableStageTransition", "pipelineName", "stageName")])
def enable(a: Authorised, tx: Transaction) -> Output:
    return _transition(a, tx, True)


# -- tags ----------------------------------------------------------------------------------------------------------------


def _resource(asked: Asked) -> Iterable[str]:
    return (str(asked.input["resourceArn"]),)


def _tagged(a: Authorised, view: View) -> Row:
    given = a.input["resourceArn"]
    try:
        arn = Arn.parse(given)
    except ValueError:
        raise invalid("InvalidArn", f"{given[:300]} is not an ARN.") from None
    if arn.service != "codepipeline" or ":" in arn.resource or "/" in arn.resource:
        raise invalid("InvalidArn", f"{given[:300]} is not the ARN of a pipeline.")
    row = None
    if arn.account == a.account and arn.region == a.region:
        row = PIPELINE.get(view, arn.account, arn.region, arn.resource)
    if row is None:
        raise Refused("ResourceNotFoundException", f"There is no pipeline {given[:300]}.")
    return row


@PIPELINE.operation("TagResource", asks=[Ask("codepipeline:TagResource", _resource)])
def tag(a: Authorised, tx: Transaction) -> Output:
    row = _tagged(a, tx)
    row.tags = {**row.tags, **tags(a.input["tags"])}
    if len(row.tags) > 50:
        raise Refused("TooManyTagsException", "A pipeline has at most 50 tags.")
    PIPELINE.change(tx, row, a.operation.name, a.request.id)
    return {}


@PIPELINE.operation("UntagResource", asks=[Ask("codepipeline:UntagResource", _resource)])
def untag(a: Authorised, tx: Transaction) -> Output:
    row = _tagged(a, tx)
    row.tags = {key: value for key, value in row.tags.items() if key not in a.input["tagKeys"]}
    PIPELINE.change(tx, row, a.operation.name, a.request.id)
    return {}


@PIPELINE.reads("ListTagsForResource", asks=[Ask("codepipeline:ListTagsForResource", _resource)])
def list_tags(a: Authorised, view: View) -> Output:
    return {"tags": _listed(_tagged(a, view).tags)}
