"""Calls of APIs: matched to a method of the stage's deployment, allowed or not, and handed to what stands behind it.

Who may call is asked as ``execute-api:Invoke`` of the method's ARN. Without a method's AWS_IAM everybody may whom the
API's policy, if it has one, does not keep out; with it a call is signed, and the caller's own policies or the API's must
allow it.
Source: API Gateway Developer Guide, "Control access to a REST API with IAM permissions", "Controlling and managing access".
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from bastide.domain import MICROS, Arn, Refused
from bastide.kernel import Ask, Asked, Authorised, Facts, Kind, Output
from bastide.policy import Attached, Document, Form
from bastide.services.apigateway import access_log, authorizer, behind, model
from bastide.services.apigateway.noun import DEPLOYMENT, INDEX, REST_API, STAGE, execute_arn, policy_of
from bastide.services.apigateway.rest_api import log_role
from bastide.store import Row, View

INVOCATION: Final = Kind("Invocation", service="execute-api", arn="{}", named_by="ApiId", tags=False, history=False)
"""Not a noun: what the operation hangs on."""
_MOST: Final = 10 * 1024 * 1024
_UNSIGNED: Final = ("NONE", "CUSTOM")
"""Methods that want no signature; an authorizer is asked about whoever comes."""
_OPEN: Final = Attached(
    Document.parse(
        {
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Principal": "*", "Action": "execute-api:Invoke", "Resource": "*"},
            ],
        },
        Form.RESOURCE,
    ),
    "the method's authorization NONE",
)


@dataclass(frozen=True, slots=True)
class Matched:
    """A method that a call is for. variables: of the path, by name."""

    api: Row
    stage: Row
    resource: Mapping[str, Any]
    method: Mapping[str, Any]
    variables: Mapping[str, str]


def _forbidden() -> Refused:
    return Refused("ForbiddenException", "Forbidden", 403)


def _unknown() -> Refused:
    """API Gateway's words for a resource or method that is not there."""
    return Refused("MissingAuthenticationTokenException", "Missing Authentication Token", 403)


def _api(view: View, id: str) -> Row | None:
    known = view.get(INDEX, "", "", id)
    return REST_API.get(view, known.doc["account"], known.doc["region"], id) if known is not None else None


def _variables(pattern: str, path: list[str]) -> dict[str, str] | None:
    """The variables of a path that a resource's path matches, None if it does not."""
    parts = pattern.strip("/").split("/") if pattern != "/" else []
    found: dict[str, str] = {}
    for at, part in enumerate(parts):
        if part.endswith("+}"):
            rest = path[at:]
            if not rest:
                return None
            return found | {part[1:-2]: "/".join(rest)}
        if at >= len(path):
            return None
        if part.startswith("{"):
            found[part[1:-1]] = path[at]
        elif part != path[at]:
            return None
    return found if len(parts) == len(path) else None


def _rank(pattern: str) -> tuple[int, ...]:
    """The most exact resource goes first: a text before a variable before one that takes all."""
    return tuple(
        2 if part.endswith("+}") else 1 if part.startswith("{") else 0 for part in pattern.strip("/").split("/")
    )


def match(view: View, id: str, stage: str, method: str, path: str) -> Matched | None:
    """The method that a call is for, None if there is none."""
    api = _api(view, id)
    held = view.get(STAGE, api.account, api.region, f"{id}/{stage}") if api is not None else None
    if api is None or held is None:
        return None
    deployment = view.get(DEPLOYMENT, api.account, api.region, f"{id}/{held.doc['deploymentId']}")
    if deployment is None:
        return None
    parts = [part for part in path.split("/") if part]
    for resource in sorted(deployment.doc["resources"], key=lambda one: _rank(one["path"])):
        variables = _variables(resource["path"], parts)
        if variables is None:
            continue
        found = resource["methods"].get(method) or resource["methods"].get("ANY")
        if found is not None:
            return Matched(api, held, resource, found, variables)
    return None


def _this(asked: Asked) -> Iterable[str]:
    """The ARN of what is called: by the path that was asked, as policies speak of it."""
    given = asked.input
    api = _api(asked.view, given["ApiId"])
    if api is None:
        raise _unknown()
    path, method = "/".join(part for part in given["Path"].split("/") if part), given.get("Method") or "GET"
    if asked.call.caller.kind == "Anonymous":
        found = match(asked.view, given["ApiId"], given["Stage"], method, path)
        if found is None or found.method["authorizationType"] not in _UNSIGNED:
            raise _unknown()
    arn = execute_arn(api, f"{given['Stage']}/{method}/{path}")
    try:
        Arn.parse(arn)
    except ValueError:  # it would be nobody's
        raise _unknown() from None
    return (arn,)


def facts(view: View, arn: Arn, _: str) -> Facts | None:
    """Whose an API is, and who may call the method: its policy, or everybody where it asks for no signature."""
    parts = arn.resource.split("/", 3)
    api = _api(view, parts[0])
    if api is None or len(parts) < 3:
        return None
    found = match(view, parts[0], parts[1], parts[2], parts[3] if len(parts) > 3 else "")
    policy = policy_of(api)
    if policy is None and found is not None and found.method["authorizationType"] in _UNSIGNED:
        private = api.doc["endpoint"]["types"] == ["PRIVATE"]  # it has to have a policy
        policy = None if private else _OPEN
    text, principals = api.doc.get("_policy", ""), api.doc.get("_principals", {})
    # Whoever guesses ids learns nothing: of an API that they may not call they are told what they are told of none.
    return Facts(api.account, policy=policy, type="RestApi", text=text, principals=principals, hidden=_unknown())


_UNANSWERED: Final[set[asyncio.Task[Output]]] = set()
"""Calls that something stands behind still works at; a task that nobody keeps may vanish."""


def _over(asked: asyncio.Task[Output]) -> None:
    _UNANSWERED.discard(asked)
    if not asked.cancelled():
        asked.exception()  # whoever waited was told; nobody else is to be


async def _before(_: Authorised) -> dict[str, Any]:
    return {}


async def _call(a: Authorised, _: Output) -> Output:
    found: Matched = a.staged["matched"]
    began = time.monotonic()
    about = _about(a, found)
    wait = int(found.method["methodIntegration"]["timeoutInMillis"]) / 1000
    asked = asyncio.create_task(_answer(a, found, about))
    _UNANSWERED.add(asked)
    asked.add_done_callback(_over)
    # What stands behind is not stopped when nobody waits for it any more, as on AWS.
    done, _left = await asyncio.wait({asked}, timeout=wait)
    try:
        output = asked.result() if done else behind.error(504, "Endpoint request timed out")
    except behind.Unanswered as unanswered:
        output = behind.error(unanswered.status, unanswered.message)
    await _log(a, found, about, output, began)
    return output


async def _answer(a: Authorised, found: Matched, about: dict[str, str]) -> Output:
    """Who may call, what the request is to have, and what stands behind it, in this order; raises Unanswered."""
    deployment: Row = a.staged["deployment"]
    if found.method["authorizationType"] == "CUSTOM":
        event = behind.event_of(a, found, about)
        a.staged["authorizer"] = await authorizer.authorised(a, found, deployment, about, event)
    wrong = model.fault(found.method, deployment.doc, a.input, found.variables)
    if wrong:
        raise behind.Unanswered(400, wrong)
    return await behind.ask(a, found, about)


def _about(a: Authorised, found: Matched) -> dict[str, str]:
    """The context of a call, as integrations and logs tell it."""
    caller, request, given = a.caller, a.request, a.input
    stage = found.stage.name.partition("/")[2]
    signed = caller.kind != "Anonymous"
    when = datetime.fromtimestamp(request.at / MICROS, UTC)
    return {
        "requestId": request.id, "extendedRequestId": request.id, "accountId": found.api.account,
        "apiId": found.api.name, "stage": stage, "httpMethod": given["Method"], "path": f"/{stage}{given['Path']}",
        "resourcePath": str(found.resource["path"]), "resourceId": str(found.resource["id"]), "protocol": "HTTP/1.1",
        "requestTime": when.strftime("%d/%b/%Y:%H:%M:%S +0000"), "requestTimeEpoch": str(request.at // 1000),
        "domainName": given.get("Host") or "", "identity.sourceIp": request.source_ip,
        "identity.userAgent": request.user_agent, "identity.userArn": caller.arn if signed else "",
        "identity.user": caller.user_id if signed else "", "identity.caller": caller.user_id if signed else "",
        "identity.accountId": caller.account if signed else "",
    }  # fmt: skip


async def _log(a: Authorised, found: Matched, about: dict[str, str], output: Output, began: float) -> None:
    log = found.stage.doc.get("accessLogSettings")
    if not log:
        return
    told = about | {
        "status": str(output["StatusCode"]), "responseLength": str(len(output["Body"])),
        "responseLatency": str(int((time.monotonic() - began) * 1000)), "integration.status": str(output["StatusCode"]),
    }  # fmt: skip
    with a.calls.store.reading() as view:
        role = log_role(view, found.api.account, found.api.region)
    try:
        await access_log.write(a.calls, log, told, role=role, account=found.api.account, region=found.api.region)
    except Refused:
        return  # the call was answered; that the role may not write is on record


@INVOCATION.reads("Invoke", asks=[Ask("execute-api:Invoke", _this)], data=True, before=_before, after=_call)
def invoke(a: Authorised, view: View) -> Output:
    given = a.input
    found = match(view, given["ApiId"], given["Stage"], given["Method"], given["Path"])
    if found is None:
        raise _unknown()
    api = found.api
    if found.method["authorizationType"] == "AWS_IAM" and a.caller.kind == "Anonymous":
        raise _unknown()
    if a.caller.kind != "Anonymous" and a.region != api.region:
        raise Refused("InvalidSignatureException", f"The API is in {api.region}; please sign for that Region.", 403)
    if api.doc["closed"]:
        raise _forbidden()
    if api.doc["endpoint"]["types"] == ["PRIVATE"]:
        ids = api.doc["endpoint"].get("vpcEndpointIds") or []
        if not a.request.vpce or (ids and a.request.vpce not in ids):
            raise _forbidden()
    if len(given.get("Body") or b"") > _MOST:
        raise Refused("RequestTooLargeException", "Request Too Long", 413)
    a.staged["matched"] = found
    a.staged["deployment"] = view.get(
        DEPLOYMENT, api.account, api.region, f"{api.name}/{found.stage.doc['deploymentId']}"
    )
    return {}
