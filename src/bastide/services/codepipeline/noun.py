"""Pipelines and their executions: how they are named, where they are kept, and what is asked about them.

An execution is one row under an account of its own, ``ACCOUNT/PIPELINE``, by its id: what it runs, how far each stage and
action came, and what they made. Source: CodePipeline API Reference; Service Authorization Reference, "AWS CodePipeline".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from bastide.domain import Arn, Refused
from bastide.kernel import Ask, Asked, Authorised, Facts, Kind
from bastide.kernel.kind import About
from bastide.store import Row, Stale, Transaction, View

PRINCIPAL: Final = "codepipeline.amazonaws.com"
PIPELINE: Final = Kind(
    "Pipeline",
    service="codepipeline",
    arn="{}",
    named_by="name",
    missing=(
        "PipelineNotFoundException",
        "Account does not have a pipeline with name '{name}'",
        400,
    ),
    taken=("PipelineNameInUseException", "A pipeline with the name '{name}' already exists in this account", 400),
)
VERSION: Final = "codepipeline:Version"
"""``PIPELINE/NUMBER``: a declaration as it was given."""
EXECUTION: Final = "codepipeline:Execution"
"""Under ``ACCOUNT/PIPELINE``, by id."""
STAGE: Final = "codepipeline:Stage"
"""Under ``ACCOUNT/PIPELINE``, by name: who is in the stage, who waits before it, and whether the way in is open."""
JOB: Final = "codepipeline:Job"
"""Under account "", by id: a function's job, and which action waits for it."""
CHANGED: Final = "codepipeline:Changed"
"""The outbox's topic: something that the executions of a pipeline wait for has changed."""
RUNNING: Final = ("InProgress", "Stopping")
OVER: Final = ("Cancelled", "Stopped", "Succeeded", "Superseded", "Failed")
Doc = dict[str, Any]


def invalid(code: str, message: str) -> Refused:
    """A refusal of CodePipeline's: ``InvalidStructure`` becomes InvalidStructureException."""
    return Refused(f"{code}Exception", message)


def arn_of(row: Row) -> str:
    """The ARN of the pipeline that a row (of it, of its stages or executions) belongs to."""
    account, _, name = row.account.partition("/")
    return PIPELINE.arn(account, row.region, name or row.name)


def where(a: Authorised | Row, pipeline: str) -> tuple[str, str]:
    """Account and region under which what belongs to a pipeline is kept."""
    return f"{a.account}/{pipeline}", a.region


def place(row: Row) -> tuple[str, str, str]:
    """Account, pipeline and region of a row that stands under both."""
    account, _, pipeline = row.account.partition("/")
    return account, pipeline, row.region


# -- rows ----------------------------------------------------------------------------------------------------------------


def declaration(view: View, account: str, region: str, pipeline: str, number: int) -> Doc | None:
    """A version of a pipeline's declaration, None if there is none."""
    row = view.get(VERSION, account, region, f"{pipeline}/{number:08d}")
    return None if row is None else row.doc


def execution(view: View, account: str, region: str, pipeline: str, id: str) -> Row | None:
    """The row of an execution."""
    return view.get(EXECUTION, f"{account}/{pipeline}", region, id)


def stage_row(view: View, account: str, region: str, pipeline: str, name: str) -> Row:
    """A stage, as new if nothing was ever in it."""
    found = view.get(STAGE, f"{account}/{pipeline}", region, name)
    if found is not None:
        return found
    return Row(STAGE, f"{account}/{pipeline}", region, name, {"held": "", "waiting": [], "enabled": True, "seen": {}})


def put(tx: Transaction, row: Row) -> None:
    """Writes a row, new or changed; raises Refused if somebody was faster."""
    if not row.generation:
        tx.insert(row, keep=False)
        return
    try:
        tx.update(row, keep=False)
    except Stale:
        raise Refused("ConflictException", "The pipeline was changed at the same time. Please try again.") from None


def changed(tx: Transaction, row: Row) -> None:
    """Has whoever waits for something of a pipeline look again, after the commit."""
    tx.emit(CHANGED, {"pipeline": arn_of(row)})


def forget(tx: Transaction, row: Row) -> None:
    """Removes an execution, with the tokens and jobs of its actions."""
    for stage in row.doc["stages"].values():
        rules = [one for held in (stage.get("conditions") or {}).values() for one in held["rules"].values()]
        for record in (*stage["actions"].values(), *(stage.get("before") or ()), *rules):
            for name in (record.get("ticket"), record.get("job")):
                held = tx.get(JOB, "", "", name) if name else None
                if held is not None:
                    tx.delete(held, keep=False)
    tx.delete(row, keep=False)


# -- what calls name -----------------------------------------------------------------------------------------------------


def pipeline_of(a: Authorised, view: View, member: str = "pipelineName") -> Row:
    """The pipeline that a call names; raises PipelineNotFoundException."""
    return PIPELINE.find(view, a.account, a.region, str(a.input[member]))


def stage_of(doc: Mapping[str, Any], name: str) -> Doc:
    """A stage of a declaration; raises StageNotFoundException."""
    for stage in doc["stages"]:
        if stage["name"] == name:
            found: Doc = stage
            return found
    raise Refused("StageNotFoundException", f"Stage '{name[:100]}' is not found in the pipeline '{doc['name']}'")


def execution_of(a: Authorised, view: View, member: str = "pipelineExecutionId", *, id: str = "") -> Row:
    """The execution that a call names in a member, or somewhere else; raises PipelineExecutionNotFoundException."""
    wanted = id or str(a.input[member])
    row = execution(view, a.account, a.region, str(a.input["pipelineName"]), wanted)
    if row is None:
        raise Refused(
            "PipelineExecutionNotFoundException", f"The pipeline '{a.input['pipelineName']}' has no execution {wanted}"
        )
    return row


# -- questions -----------------------------------------------------------------------------------------------------------


def about(*members: str) -> About:
    """The ARN of a pipeline, of a stage or an action in it, from the members that name them."""

    def found(asked: Asked) -> Iterable[str]:
        given: Any = asked.input
        names = []
        for member in members:
            value = given
            for part in member.split("."):
                value = value.get(part) if isinstance(value, Mapping) else None
            names.append(str(value or "*"))
        return (PIPELINE.arn(asked.call.account, asked.call.region, "/".join(names)),)

    return found


def ask(operation: str, *members: str) -> Ask:
    """The question of an operation about what the members name."""
    return Ask(f"codepipeline:{operation}", about(*members))


def facts(view: View, arn: Arn, action: str) -> Facts | None:
    """A stage and an action have the tags of their pipeline."""
    name, slash, _ = arn.resource.partition("/")
    if not slash or ":" in name:
        return None
    row = PIPELINE.get(view, arn.account, arn.region, name)
    return Facts(arn.account, row.tags if row is not None else {}, type="Pipeline")


def roles(given: Mapping[str, Any]) -> Iterable[str]:
    """Every role that a declaration names: the pipeline's first, then those of its actions and rules."""
    if given.get("roleArn"):
        yield str(given["roleArn"])
    for stage in given.get("stages") or ():
        for action in stage.get("actions") or ():
            if action.get("roleArn"):
                yield str(action["roleArn"])
        for moment in ("beforeEntry", "onSuccess", "onFailure"):
            for condition in (stage.get(moment) or {}).get("conditions") or ():
                for rule in condition.get("rules") or ():
                    if rule.get("roleArn"):
                        yield str(rule["roleArn"])


def _passed(asked: Asked) -> Iterable[str]:
    """The pipeline's role, and those of actions that are of the caller's own account. An action's role of another account
    is not passed: its trust policy decides, and the pipeline's role must be allowed to assume it."""
    given = asked.input.get("pipeline") or {}
    own = f":{asked.call.account}:"
    return list(dict.fromkeys(one for one in roles(given) if own in one or one == given.get("roleArn")))


PASSING: Final = Ask(
    "iam:PassRole",
    _passed,
    given={
        "iam:PassedToService": lambda _: PRINCIPAL,
        "iam:AssociatedResourceArn": lambda asked: next(iter(about("pipeline.name")(asked)), None),
    },
)
"""May the caller hand these roles to CodePipeline?"""


def tags(given: Any) -> dict[str, str]:
    """A mapping from CodePipeline's list of tags; raises Refused."""
    found: dict[str, str] = {}
    for one in given or ():
        key = str(one["key"])
        if key in found or key.lower().startswith("aws:"):
            raise Refused("InvalidTagsException", f"The tag key '{key}' is reserved, or there twice.")
        found[key] = str(one["value"])
    if len(found) > 50:
        raise Refused("TooManyTagsException", "A pipeline has at most 50 tags.")
    return found
