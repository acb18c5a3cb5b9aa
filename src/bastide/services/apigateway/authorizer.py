"""Lambda authorizers: a function says who calls, and what they may.

A function is asked with what identifies the caller, answers with a policy, and that is decided by the platform's own
engine. Nobody else's answer is taken for it: what is kept is kept under the values that were asked with, for as long as the
authorizer says, in this process. Source: API Gateway Developer Guide, "Use API Gateway Lambda authorizers", "Input to ...",
"Output from an API Gateway Lambda authorizer".
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import orjson

from bastide.domain import MICROS, Instant, Refused
from bastide.kernel import Ask, Authorised, Output, member, service_caller
from bastide.policy import Attached, Document, Form, Layers, Principal, Request, context, decide
from bastide.protocol.patterns import strangers
from bastide.services.apigateway.behind import Unanswered
from bastide.services.apigateway.method import LAMBDA
from bastide.services.apigateway.noun import (
    AUTHORIZER,
    GATEWAY,
    REST_API,
    api,
    ask,
    bad,
    execute_arn,
    new,
    paged,
    part,
    parts,
    patched,
    unsupported,
)
from bastide.store import Row, Transaction, View

if TYPE_CHECKING:
    from bastide.services.apigateway.calling import Matched

MOST: Final = 10
_MOST_KEPT: Final = 10_000
_LONGEST: Final = 3600
_USUAL: Final = 300
_SOURCE: Final = re.compile(
    r"method\.request\.(header|querystring)\.[A-Za-z0-9_.:-]+|stageVariables\.[A-Za-z0-9_]+|"
    r"context\.(identity\.sourceIp|httpMethod|path|resourcePath|stage|domainName)"
)
_TOKEN: Final = re.compile(r"method\.request\.header\.[A-Za-z0-9_-]+")
_MEMBERS: Final = (
    "name", "type", "authType", "authorizerUri", "authorizerCredentials", "identitySource", "identityValidationExpression",
    "authorizerResultTtlInSeconds",
)  # fmt: skip


# -- kept ----------------------------------------------------------------------------------------------------------------


def authorizer_of(given: Mapping[str, Any], region: str) -> dict[str, Any]:
    """An authorizer as it is kept; raises BadRequestException."""
    unsupported(given, "providerARNs", "jwtConfiguration")
    if given.get("type") not in ("TOKEN", "REQUEST"):
        raise bad("An authorizer's type is TOKEN or REQUEST: there are no user pools in Bastide.")
    match = LAMBDA.fullmatch(str(given.get("authorizerUri") or ""))
    if match is None or match[1] != region:
        raise bad(
            f"authorizerUri is arn:aws:apigateway:{region}:lambda:path/2015-03-31/functions/FUNCTION-ARN/invocations."
        )
    if given.get("authorizerCredentials") and not str(given["authorizerCredentials"]).startswith("arn:aws:iam::"):
        raise bad("authorizerCredentials is the ARN of a role.")
    seconds = given.get("authorizerResultTtlInSeconds")
    seconds = _USUAL if seconds is None else int(seconds)
    if not 0 <= seconds <= _LONGEST:
        raise bad(f"authorizerResultTtlInSeconds is 0 to {_LONGEST}.")
    sources = _sources(given)
    if given["type"] == "TOKEN" and (len(sources) != 1 or not _TOKEN.fullmatch(sources[0])):
        raise bad("The identitySource of a TOKEN authorizer is method.request.header.NAME.")
    if any(not _SOURCE.fullmatch(one) for one in sources) or (seconds and not sources):
        raise bad("identitySource: method.request.header.NAME, .querystring.NAME, stageVariables.NAME, context.NAME.")
    expression = given.get("identityValidationExpression")
    if expression and (given["type"] != "TOKEN" or len(expression) > 256 or strangers(expression) is None):
        raise bad("identityValidationExpression is a regular expression that can be checked, of a TOKEN authorizer.")
    found = {name: given[name] for name in _MEMBERS if given.get(name) not in (None, "")}
    return {"authType": "custom", **found, "authorizerResultTtlInSeconds": seconds}


def _sources(given: Mapping[str, Any]) -> list[str]:
    return [one.strip() for one in str(given.get("identitySource") or "").split(",") if one.strip()]


def _shown(row: Row) -> Output:
    return {**row.doc, "id": row.name.partition("/")[2]}


_PASS_ROLE: Final = Ask(
    "iam:PassRole", member("authorizerCredentials"), given={"iam:PassedToService": lambda _: GATEWAY}
)


@REST_API.operation("CreateAuthorizer", asks=[*ask("POST", "/restapis/{restApiId}/authorizers"), _PASS_ROLE])
def create(a: Authorised, tx: Transaction) -> Output:
    row = api(a, tx)
    held = parts(tx, row, AUTHORIZER)
    if len(held) >= MOST:
        raise Refused("LimitExceededException", f"An API has at most {MOST} authorizers.", 429)
    if any(one.doc["name"] == a.input["name"] for one in held):
        raise bad(f"Authorizer name must be unique. Authorizer {a.input['name'][:64]} already exists in this RestApi.")
    made = Row(AUTHORIZER, a.account, a.region, f"{row.name}/{new(6)}", authorizer_of(a.input, a.region))
    tx.insert(made, event=a.operation.name, request_id=a.request.id)
    return _shown(made)


_ONE: Final = "/restapis/{restApiId}/authorizers/{authorizerId}"


@REST_API.reads("GetAuthorizer", asks=ask("GET", _ONE))
def get(a: Authorised, view: View) -> Output:
    return _shown(part(a, view, AUTHORIZER, "authorizerId", "Authorizer"))


@REST_API.reads("GetAuthorizers", asks=ask("GET", "/restapis/{restApiId}/authorizers"))
def listed(a: Authorised, view: View) -> Output:
    return paged(a, [(row.name, _shown(row)) for row in parts(view, api(a, view), AUTHORIZER)])


def _patched_roles(given: Mapping[str, Any]) -> list[str]:
    return [
        str(one["value"])
        for one in given.get("patchOperations") or ()
        if str(one.get("value") or "").startswith("arn:aws:iam:")
    ]


@REST_API.operation(
    "UpdateAuthorizer",
    asks=[
        *ask("PATCH", _ONE),
        Ask(
            "iam:PassRole", lambda asked: _patched_roles(asked.input), given={"iam:PassedToService": lambda _: GATEWAY}
        ),
    ],
)
def update(a: Authorised, tx: Transaction) -> Output:
    row = part(a, tx, AUTHORIZER, "authorizerId", "Authorizer")
    doc: dict[str, Any] = dict(row.doc)

    def put(name: str) -> Any:
        def change(_: str, value: str | None) -> None:
            if value is None:
                doc.pop(name, None)
            elif name == "authorizerResultTtlInSeconds":
                doc[name] = int(value) if value.isdecimal() and len(value) < 9 else -1
            else:
                doc[name] = value

        return change

    patched(a, {f"/{name}": put(name) for name in _MEMBERS})
    row.doc = authorizer_of(doc, a.region)
    tx.update(row, event=a.operation.name, request_id=a.request.id)
    return _shown(row)


@REST_API.operation("DeleteAuthorizer", asks=ask("DELETE", _ONE))
def delete(a: Authorised, tx: Transaction) -> Output:
    row = part(a, tx, AUTHORIZER, "authorizerId", "Authorizer")
    tx.delete(row, event=a.operation.name, request_id=a.request.id)
    return {}


# -- asked ---------------------------------------------------------------------------------------------------------------

_KEPT: Final[OrderedDict[tuple[str, ...], tuple[Instant, dict[str, Any]]]] = OrderedDict()


async def authorised(
    a: Authorised, found: Matched, deployment: Row, about: Mapping[str, str], event: Mapping[str, Any]
) -> dict[str, Any]:
    """What an authorizer says of a caller whom it lets in: ``principalId`` and its context. event: the call as functions
    get it. Raises Unanswered for whom it does not."""
    id = str(found.method.get("authorizerId"))
    held: dict[str, Any] | None = (deployment.doc.get("authorizers") or {}).get(id)
    if held is None:
        raise Unanswered(500, "Internal server error")
    values = [_value(a, found, about, one) for one in _sources(held)]
    if any(not one for one in values):
        raise Unanswered(401, "Unauthorized")
    expression = held.get("identityValidationExpression")
    matches = strangers(expression) if expression else None
    if expression and (matches is None or not matches(values[0])):
        raise Unanswered(401, "Unauthorized")
    seconds, now = int(held["authorizerResultTtlInSeconds"]), a.calls.clock()
    key = (deployment.name, id, *values)
    kept = _KEPT.get(key) if seconds else None
    if kept is not None and kept[0] - seconds * MICROS <= now < kept[0]:
        answer = kept[1]
    else:
        answer = await _asked(a, found, held, id, values, event)
        if seconds:
            _KEPT[key] = (now + seconds * MICROS, answer)
            _KEPT.move_to_end(key)
            while len(_KEPT) > _MOST_KEPT:
                _KEPT.popitem(last=False)
    _decided(a, found, answer)
    return {"principalId": answer["principalId"], **(answer.get("context") or {})}


def _value(a: Authorised, found: Matched, about: Mapping[str, str], source: str) -> str:
    if source.startswith("context."):
        return about.get(source.removeprefix("context.")) or ""
    if source.startswith("stageVariables."):
        return str((found.stage.doc.get("variables") or {}).get(source.partition(".")[2]) or "")
    _, _, place, name = source.split(".", 3)
    pairs, wanted = (a.input["Headers"], name.lower()) if place == "header" else (a.input["Query"], name)
    return next((str(value) for key, value in pairs if key == wanted), "")


def _method_arn(a: Authorised, found: Matched) -> str:
    stage, path = found.stage.name.partition("/")[2], "/".join(one for one in a.input["Path"].split("/") if one)
    return execute_arn(found.api, f"{stage}/{a.input['Method']}/{path}")


async def _asked(
    a: Authorised, found: Matched, held: Mapping[str, Any], id: str, values: list[str], event: Mapping[str, Any]
) -> dict[str, Any]:
    """An authorizer's answer; raises Unanswered for none that could be decided by."""
    told: dict[str, Any] = {"type": held["type"], "methodArn": _method_arn(a, found)}
    told |= {"authorizationToken": values[0]} if held["type"] == "TOKEN" else {**event, "type": "REQUEST"}
    match = LAMBDA.fullmatch(held["authorizerUri"])
    assert match is not None, "it was checked when it was put there"
    asked = {"FunctionName": match[2], "InvocationType": "RequestResponse", "Payload": orjson.dumps(told)}
    arn, region = execute_arn(found.api, f"authorizers/{id}"), found.api.region
    try:
        role = held.get("authorizerCredentials")
        caller = service_caller(GATEWAY, found.api.account, arn)
        if role:
            caller = await a.calls.assume(
                GATEWAY, role, "BackplaneAssumeRoleSession", account=found.api.account, region=region, source_arn=arn
            )
        answer = await a.calls.act(caller, "lambda", "Invoke", asked, region=region, source=GATEWAY)
    except Refused as refused:
        raise Unanswered(500, "Internal server error") from refused
    try:
        said = orjson.loads(answer["Payload"])
    except orjson.JSONDecodeError:
        raise Unanswered(500, "Internal server error") from None
    if answer.get("FunctionError"):
        unauthorised = isinstance(said, dict) and said.get("errorMessage") == "Unauthorized"
        raise Unanswered(401 if unauthorised else 500, "Unauthorized" if unauthorised else "Internal server error")
    more = said.get("context") if isinstance(said, dict) else None
    if (
        not isinstance(said, dict) or not isinstance(said.get("principalId"), str)
        or not isinstance(said.get("policyDocument"), dict)
        or (more is not None and not isinstance(more, dict))
        or any(isinstance(one, dict | list) for one in (more or {}).values())
    ):  # fmt: skip
        raise Unanswered(500, "Internal server error")
    return said


def _decided(a: Authorised, found: Matched, answer: Mapping[str, Any]) -> None:
    """Raises Unanswered where the answer's policy does not let the call be made."""
    try:
        document = Document.parse(orjson.dumps(answer["policyDocument"]).decode(), Form.IDENTITY)
    except (Refused, ValueError, TypeError):
        raise Unanswered(500, "Internal server error") from None
    account = found.api.account
    keys = context({"aws:SourceIp": a.request.source_ip, "aws:UserAgent": a.request.user_agent})
    # Whoever the function says it is has what the function says, as a user of the account has their policies.
    somebody = Principal("User", account, f"arn:aws:iam::{account}:user/authorizer")
    request = Request(somebody, "execute-api:Invoke", _method_arn(a, found), account, keys)
    layers = Layers([Attached(document, "the authorizer's policy")], None, None, None, [], [])
    if not decide(request, layers).allowed:
        raise Unanswered(403, "User is not authorized to access this resource")
