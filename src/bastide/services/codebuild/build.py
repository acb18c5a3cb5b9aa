"""Builds: started, retried, stopped, looked at. How one runs is in ``flow.py``."""

from __future__ import annotations

from typing import Any, Final

from bastide.domain import Refused, new_id
from bastide.kernel import Ask, Asked, Authorised, Output, anything, once
from bastide.services.codebuild import checking, conditions, network, record
from bastide.services.codebuild.noun import (
    BUILD,
    BUILD_OF,
    PRINCIPAL,
    PROJECT,
    arn_name,
    ask,
    build_name,
    descending,
    invalid,
    listed,
    passing,
    projects,
    projects_of_builds,
    unsupported,
)
from bastide.services.codebuild.project import default_key
from bastide.services.codebuild.session import check_role
from bastide.store import Row, Transaction, View

_MOST: Final = 100
_PIPELINE: Final = "codepipeline.amazonaws.com"
_OF_SOURCE: Final = {
    "sourceTypeOverride": "type",
    "sourceLocationOverride": "location",
    "sourceAuthOverride": "auth",
    "gitCloneDepthOverride": "gitCloneDepth",
    "gitSubmodulesConfigOverride": "gitSubmodulesConfig",
    "buildspecOverride": "buildspec",
    "insecureSslOverride": "insecureSsl",
    "reportBuildStatusOverride": "reportBuildStatus",
    "buildStatusConfigOverride": "buildStatusConfig",
}
_OF_ENVIRONMENT: Final = {
    "environmentTypeOverride": "type",
    "imageOverride": "image",
    "computeTypeOverride": "computeType",
    "certificateOverride": "certificate",
    "privilegedModeOverride": "privilegedMode",
    "registryCredentialOverride": "registryCredential",
    "imagePullCredentialsTypeOverride": "imagePullCredentialsType",
    "fleetOverride": "fleet",
    "hostKernelOverride": "hostKernel",
}
_COPIED: Final[tuple[str, ...]] = (
    "source", "secondarySources", "secondarySourceVersions", "artifacts", "secondaryArtifacts", "cache", "environment",
    "serviceRole", "timeoutInMinutes", "queuedTimeoutInMinutes", "vpcConfig", "sourceVersion", "encryptionKey",
)  # fmt: skip


def _project(a: Authorised, view: View) -> Row:
    return PROJECT.find(view, a.account, a.region, arn_name(str(a.input["projectName"]), PROJECT, a.account, a.region))


def _initiator(a: Authorised) -> str:
    """Who started it, as AWS writes it: a user's name, ``ROLE/SESSION``, or the service."""
    if a.caller.kind == "AssumedRole":
        return a.caller.arn.partition(":assumed-role/")[2] or a.caller.arn
    return a.caller.name or a.caller.arn


def _asked(held: dict[str, Any], given: dict[str, Any], *, pipeline: bool) -> dict[str, Any]:
    """What a build is to be: a project's members, with what the request has instead; raises Refused."""
    unsupported(given, "", "debugSessionEnabled", "autoRetryLimitOverride")
    found = {key: held[key] for key in _COPIED if key in held}
    source = dict(found["source"])
    source |= {member: given[name] for name, member in _OF_SOURCE.items() if given.get(name) is not None}
    if given.get("sourceTypeOverride") == "NO_SOURCE":
        source.pop("location", None)
    if source["type"] == "CODEPIPELINE":
        if not pipeline:
            raise invalid(
                "Invalid project source: a project with the source type CODEPIPELINE is started by its pipeline alone."
            )
        checking.location(source.get("location") or "", "project source")
    found["source"] = checking.source(source)
    if given.get("secondarySourcesOverride") is not None:
        found["secondarySources"] = [
            checking.source(one, secondary=True, what="secondary source") for one in given["secondarySourcesOverride"]
        ]
    if given.get("secondarySourcesVersionOverride") is not None:
        found["secondarySourceVersions"] = list(given["secondarySourcesVersionOverride"])
    environment = dict(found["environment"])
    environment |= {member: given[name] for name, member in _OF_ENVIRONMENT.items() if given.get(name) is not None}
    if given.get("imageOverride") and not given.get("imagePullCredentialsTypeOverride"):
        environment.pop("imagePullCredentialsType", None)
    if given.get("environmentVariablesOverride") is not None:
        changed = {one["name"]: one for one in given["environmentVariablesOverride"]}
        kept = [one for one in environment["environmentVariables"] if one["name"] not in changed]
        environment["environmentVariables"] = [*kept, *changed.values()]
    found["environment"] = checking.environment(environment)
    if given.get("artifactsOverride") is not None:
        found["artifacts"] = checking.artifacts(given["artifactsOverride"])
    if given.get("secondaryArtifactsOverride") is not None:
        found["secondaryArtifacts"] = [
            checking.artifacts(one, secondary=True, what="secondary artifacts")
            for one in given["secondaryArtifactsOverride"]
        ]
    if given.get("cacheOverride") is not None:
        found["cache"] = checking.cache(given["cacheOverride"])
    logs = checking.logs(given.get("logsConfigOverride") or held.get("logsConfig"))
    for name, member in (
        ("sourceVersion", "sourceVersion"),
        ("serviceRoleOverride", "serviceRole"),
        ("timeoutInMinutesOverride", "timeoutInMinutes"),
        ("queuedTimeoutInMinutesOverride", "queuedTimeoutInMinutes"),
        ("encryptionKeyOverride", "encryptionKey"),
    ):
        if given.get(name):
            found[member] = given[name]
    found["_logs"] = logs
    return found


def _logs(account: str, region: str, project: str, id: str, config: dict[str, Any]) -> dict[str, Any]:
    """Where a build's lines go."""
    cloud = config.get("cloudWatchLogs") or {"status": "ENABLED"}
    s3 = config.get("s3Logs") or {"status": "DISABLED"}
    found: dict[str, Any] = {"cloudWatchLogs": cloud, "s3Logs": s3}
    if cloud["status"] == "ENABLED":
        group = cloud.get("groupName") or f"/aws/codebuild/{project}"
        stream = f"{cloud['streamName']}/{id}" if cloud.get("streamName") else id
        found |= {"groupName": group, "streamName": stream}
        found["cloudWatchLogsArn"] = f"arn:aws:logs:{region}:{account}:log-group:{group}:log-stream:{stream}"
    if s3["status"] == "ENABLED":
        place = s3["location"].removeprefix("arn:aws:s3:::").strip("/")
        found["s3LogsArn"] = f"arn:aws:s3:::{place}/{id}.gz"
    return found


async def _before(a: Authorised) -> None:
    with a.calls.store.reading() as view:
        row = _project(a, view)
    role = a.input.get("serviceRoleOverride")
    if role:
        arn = PROJECT.arn(a.account, a.region, row.name)
        where = {"account": a.account, "region": a.region, "source_arn": arn}
        await check_role(a.calls, role, **where)
        await network.check(a.calls, role, row.doc["vpcConfig"], **where)


def _begin(a: Authorised, tx: Transaction, project: Row, asked: dict[str, Any]) -> Row:
    limit = project.doc.get("concurrentBuildLimit")
    if limit and record.running(tx, a.account, a.region, project.name, limit) >= limit:
        raise Refused(
            "AccountLimitExceededException",
            f"Project-level concurrent build limit exceeded: {project.name} has {limit} builds in progress already.",
        )
    project.doc["_builds"] += 1
    tx.update(project, keep=False)
    id = new_id()
    logs = _logs(a.account, a.region, project.name, id, asked.pop("_logs"))
    doc: dict[str, Any] = {
        **asked,
        "projectName": project.name,
        "buildNumber": project.doc["_builds"],
        "startTime": tx.now,
        "initiator": _initiator(a),
        "logs": logs,
        "phases": [],
        "currentPhase": "SUBMITTED",
        "exportedEnvironmentVariables": [],
        "reportArns": [],
        "_artifacts": asked["artifacts"],
        "_secondaryArtifacts": asked["secondaryArtifacts"],
        "_cache": project.doc["_cache"],
    }
    doc["artifacts"] = artifact_shown(asked["artifacts"])
    doc["secondaryArtifacts"] = [artifact_shown(one) for one in asked["secondaryArtifacts"]]
    doc.setdefault("encryptionKey", default_key(a.account, a.region))
    row = Row(BUILD.key, a.account, a.region, f"{project.name}:{id}", doc, record.IN_PROGRESS)
    record.begin(row, "SUBMITTED", tx.now)
    record.end(tx, row, record.SUCCEEDED, tx.now)
    record.begin(row, "QUEUED", tx.now)
    BUILD.insert(tx, row, a.operation.name, a.request.id)
    tx.insert(record.index(row), keep=False)
    record.told(tx, row)
    return row


def artifact_shown(given: dict[str, Any]) -> dict[str, Any]:
    """Where artifacts are, of a build that has none yet."""
    names: tuple[str, ...] = ("overrideArtifactName", "artifactIdentifier", "encryptionDisabled")
    return {"location": "", **{name: given[name] for name in names if name in given}}


@BUILD.operation(
    "StartBuild",
    asks=[Ask("codebuild:StartBuild", projects("projectName"), more=conditions.BUILD_KEYS), passing()],
    before=_before,
)
def start(a: Authorised, tx: Transaction) -> Output:
    def make() -> Output:
        project = _project(a, tx)
        asked = _asked(project.doc, a.input, pipeline=a.request.source_ip == _PIPELINE)
        return {"build": record.shown(_begin(a, tx, project, asked))}

    return once(a, tx, a.input.get("idempotencyToken"), make, code="InvalidInputException")


def _other_role(asked: Asked) -> list[str]:
    """The role of the build that is tried again, if it is not the project's own: whoever tries again passes it anew."""
    try:
        name = build_name(str(asked.input.get("id") or ""), asked.call.account, asked.call.region)
    except Refused:
        return []  # the handler says what is wrong with it
    held = BUILD.get(asked.view, asked.call.account, asked.call.region, name)
    if held is None:
        return []
    project = PROJECT.get(asked.view, asked.call.account, asked.call.region, held.doc["projectName"])
    role = str(held.doc["serviceRole"])
    return [] if project is not None and project.doc["serviceRole"] == role else [role]


_PASSING_AGAIN: Final = Ask(
    "iam:PassRole",
    _other_role,
    given={
        "iam:PassedToService": lambda _: PRINCIPAL,
        "iam:AssociatedResourceArn": lambda asked: next(iter(projects_of_builds("id")(asked)), None),
    },
)


@BUILD.operation("RetryBuild", asks=[ask("RetryBuild", projects_of_builds("id")), _PASSING_AGAIN])
def retry(a: Authorised, tx: Transaction) -> Output:
    if not a.input.get("id"):
        raise invalid("Invalid build ID: id is needed.")

    def make() -> Output:
        held = BUILD.find(tx, a.account, a.region, build_name(a.input["id"], a.account, a.region))
        if held.status not in record.OVER:
            raise invalid(f"Cannot retry {held.name}: it is in progress.")
        if held.doc["source"]["type"] == "CODEPIPELINE":
            raise invalid(f"Cannot retry {held.name}: its pipeline alone starts builds of its project.")
        project = PROJECT.find(tx, a.account, a.region, held.doc["projectName"])
        asked = {key: held.doc[key] for key in _COPIED if key in held.doc}
        asked |= {"artifacts": held.doc["_artifacts"], "secondaryArtifacts": held.doc["_secondaryArtifacts"]}
        asked["_logs"] = {key: held.doc["logs"][key] for key in ("cloudWatchLogs", "s3Logs")}
        return {"build": record.shown(_begin(a, tx, project, asked))}

    return once(a, tx, a.input.get("idempotencyToken"), make, code="InvalidInputException")


@BUILD.operation("StopBuild", asks=[ask("StopBuild", projects_of_builds("id"))])
def stop(a: Authorised, tx: Transaction) -> Output:
    row = BUILD.find(tx, a.account, a.region, build_name(a.input["id"], a.account, a.region))
    if row.status not in record.OVER and not row.doc.get("_stopping"):
        row.doc["_stopping"] = True
        BUILD.change(tx, row, a.operation.name, a.request.id)
    return {"build": record.shown(row)}


@BUILD.reads("BatchGetBuilds", asks=[ask("BatchGetBuilds", projects_of_builds("ids"))])
def batch_get(a: Authorised, view: View) -> Output:
    if len(a.input["ids"]) > _MOST:
        raise invalid(f"Invalid ids: at most {_MOST} at a time.")
    found, missing = [], []
    for given in dict.fromkeys(a.input["ids"]):
        row = BUILD.get(view, a.account, a.region, build_name(given, a.account, a.region))
        if row is None:
            missing.append(given)
        else:
            found.append(record.shown(row))
    return {"builds": found, "buildsNotFound": missing}


@BUILD.operation("BatchDeleteBuilds", asks=[ask("BatchDeleteBuilds", projects_of_builds("ids"))])
def batch_delete(a: Authorised, tx: Transaction) -> Output:
    gone, kept = [], []
    for given in dict.fromkeys(a.input["ids"]):
        row = BUILD.get(tx, a.account, a.region, build_name(given, a.account, a.region))
        if row is None:
            kept.append({"id": given, "statusCode": "BUILD_NOT_FOUND"})
        elif row.status not in record.OVER:
            kept.append({"id": given, "statusCode": "BUILD_IN_PROGRESS"})
        else:
            held = record.index(row)
            indexed = tx.get(held.kind, held.account, held.region, held.name)
            if indexed is not None:
                tx.delete(indexed, keep=False)
            BUILD.remove(tx, row, a.operation.name, a.request.id)
            gone.append(BUILD.arn(row.account, row.region, row.name))
    return {"buildsDeleted": gone, "buildsNotDeleted": kept}


@BUILD.reads("ListBuilds", asks=[Ask("codebuild:ListBuilds", anything)])
def list_(a: Authorised, view: View) -> Output:
    rows, token = listed(a, view, BUILD.key, a.account, order="created", descending=descending(a))
    return {"ids": [row.name for row in rows], "nextToken": token}


@BUILD.reads("ListBuildsForProject", asks=[ask("ListBuildsForProject", projects("projectName"))])
def list_for_project(a: Authorised, view: View) -> Output:
    project = _project(a, view)
    rows, token = listed(a, view, BUILD_OF, f"{a.account}/{project.name}", descending=descending(a))
    return {"ids": [row.name.partition("|")[2] for row in rows], "nextToken": token}
