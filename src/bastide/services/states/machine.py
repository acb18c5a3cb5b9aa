"""State machines: made, changed, described, deleted; each change of what runs is a revision.

Source: Step Functions API Reference.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from bastide.domain import Arn, Refused, new_id, tag_list
from bastide.engines import asl
from bastide.kernel import Ask, Asked, Authorised, Caller, Output, anything, pages
from bastide.services.states import integrations, keeping, sealing, tasks, version
from bastide.services.states.logs import LEVELS
from bastide.services.states.noun import (
    ACTIVITY,
    ALIAS,
    MACHINE,
    PRINCIPAL,
    REVISION,
    RUN,
    VERSION,
    ask,
    check_name,
    execution_arn,
    invalid_arn,
    machine,
    machine_arn,
    named,
    own,
    parsed,
    passing,
    split,
    tags,
)
from bastide.services.states.runner import Executions
from bastide.store import Row, Transaction, View

_FIRST: Final = "INITIAL"
DELETING: Final = "states:Deleting"
"""Under account "": state machines that are being deleted."""
_MOST: Final = 10_000
_TRIAL: Final = "log_stream_created_by_aws_to_validate_log_delivery_subscriptions"
CONFIGURED: Final = ("roleArn", "type", "loggingConfiguration", "tracingConfiguration", "encryptionConfiguration")


def check_definition(a: Authorised, text: str, express: bool) -> None:
    """Raises InvalidDefinition with everything that is wrong."""
    registry = a.calls.registry
    wrong = asl.check(text, express=express, lacking=lambda resource: lacking(registry, resource, a))
    if wrong:
        told = ", ".join(one.line() for one in wrong[:10])
        raise Refused("InvalidDefinition", f"Invalid State Machine Definition: '{told}'")


def lacking(registry: Any, resource: str, a: Authorised | None = None) -> str:
    """Why a task's resource cannot be called; empty if it can."""
    parts = resource.split(":")
    if len(parts) >= 7 and parts[2] == "states" and parts[5] == "activity":
        return ""
    if len(parts) >= 7 and parts[2] == "lambda" and parts[5] == "function":
        return (
            "" if "lambda" in registry.services else f"The resource {resource} is not there: Lambda is not in Bastide."
        )
    return integrations.lacking(registry, resource)


def _logging(given: dict[str, Any] | None) -> dict[str, Any]:
    level = (given or {}).get("level") or "OFF"
    if level not in (*LEVELS, "OFF"):
        raise Refused("InvalidLoggingConfiguration", f"Invalid Logging Configuration: '{level} is not a level'")
    destinations = (given or {}).get("destinations") or []
    if level == "OFF":
        said = {"level": "OFF", "includeExecutionData": bool((given or {}).get("includeExecutionData"))}
        return said | ({"destinations": destinations} if destinations else {})
    if len(destinations) != 1:
        raise Refused(
            "InvalidLoggingConfiguration", "Invalid Logging Configuration: 'Must specify exactly one Log Destination.'"
        )
    arn = str((destinations[0].get("cloudWatchLogsLogGroup") or {}).get("logGroupArn") or "")
    parts = arn.split(":")
    if parts[:3] != ["arn", "aws", "logs"] or len(parts) != 8 or parts[5] != "log-group" or parts[7] != "*":
        raise Refused(
            "InvalidLoggingConfiguration",
            "Invalid Logging Configuration: 'the log group is named by its ARN, which ends in :*'",
        )
    return {
        "level": level,
        "includeExecutionData": bool((given or {}).get("includeExecutionData")),
        "destinations": destinations,
    }


def _tracing(given: dict[str, Any] | None) -> dict[str, Any]:
    if given and given.get("enabled"):
        raise Refused(
            "InvalidTracingConfiguration",
            "Invalid Tracing Configuration: 'X-Ray is not in Bastide, so nothing would be traced; leave enabled false'",
        )
    return {"enabled": False}


async def _check_role(a: Authorised) -> None:
    """Raises Refused, as AWS does at once and not when an execution runs, if the role cannot be taken on, or may not write
    the log that is asked for."""
    role, name = a.input.get("roleArn"), a.input.get("name")
    if name is None:
        with a.calls.store.reading() as view:
            row = machine(a, view, a.input["stateMachineArn"])
        role, name = role or row.doc["roleArn"], row.name
    if a.input.get("roleArn") or a.input.get("loggingConfiguration"):
        assert role is not None
        if not role.startswith("arn:aws:iam::") or ":role/" not in role:
            raise Refused("InvalidArn", f"Invalid Role Arn: '{role}'")
        if f"::{a.account}:" not in role:
            raise Refused("AccessDeniedException", "Cross-account pass role is not allowed.")
        try:
            caller = await a.calls.assume(
                PRINCIPAL, role, "StepFunctions", account=a.account, region=a.region,
                source_arn=machine_arn(a.account, a.region, name),
            )  # fmt: skip
        except Refused:
            raise Refused(
                "AccessDeniedException",
                f"Neither the global service principal {PRINCIPAL}, nor the regional one is authorized to assume the "
                f"provided role.",
            ) from None
        await _check_log(a, caller)


async def _check_log(a: Authorised, caller: Caller) -> None:
    configuration = _logging(a.input.get("loggingConfiguration"))
    if configuration["level"] == "OFF":
        return
    arn = Arn.parse(configuration["destinations"][0]["cloudWatchLogsLogGroup"]["logGroupArn"])
    if (arn.account, arn.region) != (a.account, a.region):
        raise Refused(
            "InvalidLoggingConfiguration",
            "Invalid Logging Configuration: 'the log group is of another account or region'",
        )
    where = {"logGroupName": arn.resource.removeprefix("log-group:").removesuffix(":*"), "logStreamName": _TRIAL}
    try:
        await a.calls.act(caller, "logs", "CreateLogStream", where, region=a.region, source=PRINCIPAL)
    except Refused as refused:
        if refused.code == "ResourceAlreadyExistsException":
            return
        if refused.code == "ResourceNotFoundException":
            raise Refused(
                "InvalidLoggingConfiguration", "Invalid Logging Configuration: 'the log group does not exist'"
            ) from None
        raise Refused(
            "AccessDeniedException", "The state machine IAM Role is not authorized to access the Log Destination"
        ) from None


async def _before(a: Authorised) -> None:
    text, express = a.input.get("definition"), a.input.get("type") == "EXPRESS"
    if "name" in a.input:
        check_name(a.input["name"])
    elif text:
        with a.calls.store.reading() as view:
            express = machine(a, view, a.input["stateMachineArn"]).doc["type"] == "EXPRESS"
    if text:
        await asyncio.to_thread(check_definition, a, text, express)
    await _check_role(a)


def _revise(a: Authorised, tx: Transaction, row: Row, definition: str) -> None:
    """A new revision of what the row says, with this definition."""
    who = machine_arn(row.account, row.region, row.name)
    cipher = sealing.new(a, tx, who, row.doc["encryptionConfiguration"])
    doc = {name: row.doc[name] for name in CONFIGURED}
    doc |= {"definition": cipher.text(definition), "key": cipher.wrapped, "at": tx.now, "born": row.doc["born"]}
    doc |= {"revision": row.doc["revisionId"], "size": len(definition)}
    tx.insert(Row(REVISION, row.account, row.region, f"{row.name}/{row.doc['revisionId']}", doc), keep=False)


def revision(view: View, row: Row, id_: str = "") -> Row:
    """A revision's row: the current one, or another."""
    found = view.get(REVISION, row.account, row.region, f"{row.name}/{id_ or row.doc['revisionId']}")
    assert found is not None
    return found


def definition(a: Authorised, view: View, row: Row, held: Row) -> str:
    """A revision's definition, for the caller."""
    cipher = sealing.opened(a, view, machine_arn(row.account, row.region, row.name), held.doc["key"])
    return str(cipher.read(held.doc["definition"]))


_ARN = named(MACHINE)


@MACHINE.operation(
    "CreateStateMachine",
    asks=[
        Ask("states:CreateStateMachine", _ARN),
        passing(_ARN),
        Ask("states:PublishStateMachineVersion", _ARN, when=lambda asked: bool(asked.input.get("publish"))),
        Ask("states:TagResource", _ARN, when=lambda asked: bool(asked.input.get("tags"))),
    ],
    before=_before,
)
def create(a: Authorised, tx: Transaction) -> Output:
    given, name = a.input, a.input["name"]
    if given.get("versionDescription") and not given.get("publish"):
        raise Refused("ValidationException", "Version description can only be set when publish is true")
    doc: dict[str, Any] = {
        "roleArn": given["roleArn"],
        "type": given.get("type") or "STANDARD",
        "loggingConfiguration": _logging(given.get("loggingConfiguration")),
        "tracingConfiguration": _tracing(given.get("tracingConfiguration")),
        "encryptionConfiguration": sealing.check(given.get("encryptionConfiguration")),
    }
    labels = tags(given.get("tags"))
    held = MACHINE.get(tx, a.account, a.region, name)
    if held is not None:
        return _again(a, tx, held, doc, labels)
    arn = machine_arn(a.account, a.region, name)
    row = Row(
        MACHINE.key, a.account, a.region, name,
        {**doc, "revisionId": _FIRST, "born": new_id(), "versions": 0}, "ACTIVE", labels,
    )  # fmt: skip
    MACHINE.insert(tx, row, a.operation.name, a.request.id)
    _revise(a, tx, row, given["definition"])
    output: Output = {"stateMachineArn": arn, "creationDate": row.created}
    if given.get("publish"):
        output["stateMachineVersionArn"] = version.publish(a, tx, row, given.get("versionDescription"))
    return output


def _again(a: Authorised, tx: Transaction, row: Row, doc: dict[str, Any], labels: dict[str, str]) -> Output:
    """CreateStateMachine is idempotent: the same once more is found, something else under the name is refused."""
    arn = machine_arn(row.account, row.region, row.name)
    if row.status == "DELETING":
        raise Refused("StateMachineDeleting", f"State Machine is being deleted: '{arn}'")
    same = all(row.doc[name] == doc[name] for name in CONFIGURED) and row.tags == labels
    if not same or definition(a, tx, row, revision(tx, row)) != a.input["definition"] or a.input.get("publish"):
        raise Refused("StateMachineAlreadyExists", f"State Machine Already Exists: '{arn}'")
    return {"stateMachineArn": arn, "creationDate": row.created}


def _asked_arn(asked: Asked) -> Any:
    given = str(asked.input.get("stateMachineArn") or "*")
    parts = given.split(":")
    return (":".join(parts[:7]),) if len(parts) == 8 else (given,)


@MACHINE.operation(
    "UpdateStateMachine",
    asks=[
        ask("UpdateStateMachine", "stateMachineArn"),
        passing(_asked_arn),
        Ask("states:PublishStateMachineVersion", _asked_arn, when=lambda asked: bool(asked.input.get("publish"))),
    ],
    before=_before,
)
def update(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    if split(given["stateMachineArn"])[2]:
        raise Refused("ValidationException", "A version or an alias cannot be updated here; name the state machine.")
    row = machine(a, tx, given["stateMachineArn"], standing=True)
    changes = {"definition", "roleArn", "loggingConfiguration", "tracingConfiguration", "encryptionConfiguration"}
    if not changes & {name for name, one in given.items() if one is not None} and not given.get("publish"):
        raise Refused(
            "MissingRequiredParameter",
            "Either the definition, the role ARN, the LoggingConfiguration, or the "
            "TracingConfiguration must be specified",
        )
    text = given.get("definition") or definition(a, tx, row, revision(tx, row))
    if given.get("roleArn"):
        row.doc["roleArn"] = given["roleArn"]
    if given.get("loggingConfiguration"):
        row.doc["loggingConfiguration"] = _logging(given["loggingConfiguration"])
    if given.get("tracingConfiguration"):
        row.doc["tracingConfiguration"] = _tracing(given["tracingConfiguration"])
    if given.get("encryptionConfiguration"):
        row.doc["encryptionConfiguration"] = sealing.check(given["encryptionConfiguration"])
    row.doc["revisionId"] = new_id()
    _revise(a, tx, row, text)
    row.doc["updated"] = tx.now
    MACHINE.change(tx, row, a.operation.name, a.request.id)
    output: Output = {"updateDate": tx.now, "revisionId": row.doc["revisionId"]}
    if given.get("publish"):
        output["stateMachineVersionArn"] = version.publish(a, tx, row, given.get("versionDescription"))
    return output


@MACHINE.reads("DescribeStateMachine", asks=[ask("DescribeStateMachine", "stateMachineArn", qualified=True)])
def describe(a: Authorised, view: View) -> Output:
    given = a.input["stateMachineArn"]
    row = machine(a, view, given)
    held, found = version.chosen(a, view, row, given)
    output = {name: held.doc[name] for name in CONFIGURED}
    output |= {
        "stateMachineArn": given,
        "name": row.name,
        "status": row.status,
        "creationDate": row.created,
        "revisionId": None if held.doc["revision"] == _FIRST else held.doc["revision"],
    }
    if found is not None:
        output |= {"creationDate": found.created, "description": found.doc.get("description")}
    if a.input.get("includedData") != "METADATA_ONLY":
        output["definition"] = definition(a, view, row, held)
    return output


@MACHINE.reads("ListStateMachines", asks=[Ask("states:ListStateMachines", anything)])
def listed(a: Authorised, view: View) -> Output:
    limit = int(a.input.get("maxResults") or 100) or 100
    after = pages.position(a, a.input.get("nextToken"), code="InvalidToken")
    rows = view.scan(MACHINE.key, a.account, a.region, after=after, limit=limit + 1)
    shown = rows[:limit]
    return {
        "stateMachines": [
            {
                "stateMachineArn": machine_arn(row.account, row.region, row.name),
                "name": row.name,
                "type": row.doc["type"],
                "creationDate": row.created,
            }
            for row in shown
        ],
        "nextToken": pages.seal(a, shown[-1].name) if len(rows) > limit else None,
    }


async def _clean(a: Authorised, output: Output) -> Output:
    runner = a.engine(Executions)
    _, name, qualifier = split(a.input["stateMachineArn"])
    if not qualifier:
        runner.aside(clean(runner, a.account, a.region, name))
    return output


@MACHINE.operation("DeleteStateMachine", asks=[ask("DeleteStateMachine", "stateMachineArn")], after=_clean)
def delete(a: Authorised, tx: Transaction) -> Output:
    arn, name, qualifier = split(a.input["stateMachineArn"])
    if qualifier:
        raise Refused(
            "ValidationException",
            "DeleteStateMachine takes a state machine; versions and aliases are deleted by themselves.",
        )
    row = MACHINE.get(tx, a.account, a.region, name) if (arn.account, arn.region) == (a.account, a.region) else None
    if row is None or row.status == "DELETING":
        return {}
    row.status = "DELETING"
    MACHINE.change(tx, row, a.operation.name, a.request.id)
    tx.insert(Row(DELETING, "", "", str(arn), {"machine": name}), keep=False)
    return {}


async def clean(runner: Executions, account: str, region: str, name: str) -> None:
    """What remains of a machine that is deleted: its executions end at their next transition, and everything goes."""
    where = f"{account}/{name}"
    store = runner.calls.store
    while True:
        with store.reading() as view:
            rows = view.scan(RUN, where, region, limit=200)
        if not rows:
            break

        def work(tx: Transaction, rows: list[Row] = rows) -> list[str]:
            ended: list[str] = []
            for row in rows:
                held = tx.get(RUN, row.account, row.region, row.name)
                if held is None:
                    continue
                arn = execution_arn(held)
                if held.status == "RUNNING":
                    held.status, held.doc["stop"] = "ABORTED", tx.now
                    keeping.status_event(tx, held, {})
                    live = tx.get(keeping.LIVE, "", "", arn)
                    if live is not None:
                        tx.delete(live, keep=False)
                    tasks.forget_all(tx, arn)
                    for job in (held.doc.get("jobs") or {}).values():
                        tx.emit(tasks.GIVE_UP, {**job, "execution": arn})
                    ended.append(arn)
                keeping.forget(tx, held)
            return ended

        for arn in await store.write(work):
            runner.stopped(arn)
        for row in rows:
            await tasks.BY_MAP["forget"](runner, execution_arn(row), region)

    def last(tx: Transaction) -> None:
        for kind, prefix, place in (
            (REVISION, f"{name}/", account),
            (VERSION, "", where),
            (ALIAS, "", where),
        ):
            for row in tx.scan(kind, place, region, prefix=prefix, limit=_MOST):
                tx.delete(row, keep=False)
        gone = MACHINE.get(tx, account, region, name)
        if gone is not None:
            MACHINE.remove(tx, gone, "StateMachineDeleted")
        held = tx.get(DELETING, "", "", machine_arn(account, region, name))
        if held is not None:
            tx.delete(held, keep=False)

    await store.write(last)
    runner.forget_machine(account, region, name)


async def recover(runner: Executions) -> None:
    """Goes on deleting what an earlier process did not come to the end of."""
    with runner.calls.store.reading() as view:
        rows = view.scan(DELETING, "", "", limit=_MOST)
    for row in rows:
        arn, name, _ = split(row.name)
        runner.aside(clean(runner, arn.account, arn.region, name))


@MACHINE.reads("ValidateStateMachineDefinition", asks=[Ask("states:ValidateStateMachineDefinition", anything)])
def validate(a: Authorised, view: View) -> Output:
    given = a.input
    registry = a.calls.registry
    found = asl.check(
        given["definition"],
        express=given.get("type") == "EXPRESS",
        lacking=lambda resource: lacking(registry, resource),
    )
    most = int(given.get("maxResults") or 100) or 100
    told = [
        {"severity": one.severity, "code": one.code, "message": one.message}
        | ({"location": one.location} if one.location else {})
        for one in found[:most]
    ]
    return {"result": "FAIL" if found else "OK", "diagnostics": told, "truncated": len(found) > most}


# -- tags ----------------------------------------------------------------------------------------------------------------


def tagged(a: Authorised, view: View) -> tuple[Any, Row]:
    """The machine or activity that a call about tags names."""
    given = str(a.input["resourceArn"])
    for kind, name in ((MACHINE, "stateMachine"), (ACTIVITY, "activity")):
        if f":{name}:" in given:
            arn = own(a, parsed(given, name))
            row = kind.get(view, arn.account, arn.region, arn.name)
            if row is None:
                raise Refused("ResourceNotFound", f"Resource not found: '{given}'", members={"resourceName": given})
            return kind, row
    raise invalid_arn(given)


@MACHINE.operation("TagResource", asks=[ask("TagResource", "resourceArn")])
def tag(a: Authorised, tx: Transaction) -> Output:
    kind, row = tagged(a, tx)
    row.tags = {**row.tags, **tags(a.input["tags"])}
    if len(row.tags) > 50:
        raise Refused("TooManyTags", "A resource has at most 50 tags.")
    kind.change(tx, row, a.operation.name, a.request.id)
    return {}


@MACHINE.operation("UntagResource", asks=[ask("UntagResource", "resourceArn")])
def untag(a: Authorised, tx: Transaction) -> Output:
    kind, row = tagged(a, tx)
    row.tags = {key: value for key, value in row.tags.items() if key not in a.input["tagKeys"]}
    kind.change(tx, row, a.operation.name, a.request.id)
    return {}


@MACHINE.reads("ListTagsForResource", asks=[ask("ListTagsForResource", "resourceArn")])
def list_tags(a: Authorised, view: View) -> Output:
    _, row = tagged(a, view)
    return {"tags": [{"key": one["Key"], "value": one["Value"]} for one in tag_list(row.tags)]}
