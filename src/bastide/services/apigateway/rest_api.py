"""REST APIs, their resources and tags, and what an account's APIs write logs with.

Source: Amazon API Gateway REST API reference, "CreateRestApi", "CreateResource", "UpdateAccount".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote

from bastide.domain import Arn, Refused
from bastide.kernel import Ask, Authorised, Output, each, principals
from bastide.policy import Document, Form
from bastide.services.apigateway.noun import (
    ACCOUNT,
    AUTHORIZER,
    DEPLOYMENT,
    GATEWAY,
    INDEX,
    MODEL,
    MOST,
    RESOURCE,
    REST_API,
    STAGE,
    VALIDATOR,
    absent,
    api,
    ask,
    bad,
    new,
    paged,
    patched,
    resource,
    unsupported,
)
from bastide.store import Row, Transaction, View

_PART: Final = re.compile(r"[A-Za-z0-9._~:@!$&'()*,;=-]{1,128}|\{[A-Za-z0-9._-]{1,64}\+?\}")
_MOST_POLICY: Final = 8192
_PRIVATE: Final = "PRIVATE"


def checked_policy(row: Row, tx: Transaction, text: str | None) -> None:
    """Keeps an API's policy, its short resources written out; raises BadRequestException."""
    if not text:
        row.doc.pop("_policy", None)
        row.doc.pop("_principals", None)
        return
    try:
        found = json.loads(text)
        statements = found["Statement"] if isinstance(found["Statement"], list) else [found["Statement"]]
        for one in statements:
            for member in ("Resource", "NotResource"):
                given = one.get(member)
                if given is not None:
                    many = given if isinstance(given, list) else [given]
                    whole = [_whole(row, str(each_)) for each_ in many]
                    one[member] = whole if isinstance(given, list) else whole[0]
        written = json.dumps(found)
        Document.parse(written, Form.RESOURCE, max_bytes=_MOST_POLICY)
    except Refused as refused:
        raise bad(f"Invalid policy document: {refused.message}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise bad(
            "Invalid policy document. Please check the policy syntax and ensure that Principals are valid."
        ) from None
    row.doc["_policy"], row.doc["_principals"] = written, principals.kept(tx, written)


def _whole(row: Row, given: str) -> str:
    """``execute-api:/STAGE/...`` stands for the API's own ARN."""
    if given.startswith("execute-api:/"):
        return f"arn:aws:execute-api:{row.region}:{row.account}:{row.name}/{given[len('execute-api:/') :]}"
    return given


def endpoint_of(given: dict[str, Any] | None) -> dict[str, Any]:
    configuration = given or {}
    types = list(configuration.get("types") or ["REGIONAL"])
    if types not in (["REGIONAL"], [_PRIVATE]):
        raise bad("endpointConfiguration.types is REGIONAL or PRIVATE; Bastide has no edge locations.")
    unsupported(configuration, "ipAddressType")
    ids = list(configuration.get("vpcEndpointIds") or ())
    if ids and types != [_PRIVATE]:
        raise bad("vpcEndpointIds are for private APIs.")
    return {"types": types, **({"vpcEndpointIds": ids} if ids else {})}


def tags_given(a: Authorised) -> dict[str, str]:
    """The tags that a call brings; raises BadRequestException."""
    found = dict(a.input.get("tags") or {})
    if any(key.lower().startswith("aws:") for key in found) or len(found) > 50:
        raise bad("There are at most 50 tags, and their keys do not begin with aws:.")
    return found


def shown(row: Row) -> Output:
    """An API."""
    doc = row.doc
    told = {name: doc[name] for name in ("name", "description", "version", "binaryMediaTypes") if doc.get(name)}
    if doc.get("_policy"):
        # As API Gateway tells it: JSON within JSON.
        told["policy"] = doc["_policy"].replace("\\", "\\\\").replace('"', '\\"')
    return {
        **told, "id": row.name, "createdDate": row.created, "apiKeySource": "HEADER", "tags": dict(row.tags),
        "endpointConfiguration": doc["endpoint"], "disableExecuteApiEndpoint": doc["closed"],
        "rootResourceId": doc["root"],
    }  # fmt: skip


_REQUEST: Final = {
    "apigateway:Request/ApiName": each("name"),
    "apigateway:Request/EndpointType": each("endpointConfiguration.types"),
    "apigateway:Request/DisableExecuteApiEndpoint": each("disableExecuteApiEndpoint"),
}


@REST_API.operation("CreateRestApi", asks=ask("POST", "/restapis", _REQUEST))
def create(a: Authorised, tx: Transaction) -> Output:
    return shown(made(a, tx, a.input, tags_given(a)))


def made(a: Authorised, tx: Transaction, given: Mapping[str, Any], tags: dict[str, str]) -> Row:
    """A new API with nothing but its root; raises Refused."""
    unsupported(given, "cloneFrom", "minimumCompressionSize", "securityPolicy", "endpointAccessMode")
    if given.get("apiKeySource") not in (None, "HEADER"):
        raise bad("apiKeySource: there are no API keys in Bastide yet.")
    if len(tx.scan(REST_API.key, a.account, a.region, limit=MOST)) == MOST:
        raise Refused("LimitExceededException", f"An account has at most {MOST} APIs.", 429)
    id, root = new(), new()
    doc = {
        "name": given["name"], "description": given.get("description"), "version": given.get("version"),
        "binaryMediaTypes": list(given.get("binaryMediaTypes") or ()),
        "endpoint": endpoint_of(given.get("endpointConfiguration")),
        "closed": bool(given.get("disableExecuteApiEndpoint")), "root": root,
    }  # fmt: skip
    row = Row(REST_API.key, a.account, a.region, id, doc, tags=tags)
    checked_policy(row, tx, given.get("policy"))
    REST_API.insert(tx, row, a.operation.name, a.request.id)
    tx.insert(Row(INDEX, "", "", id, {"account": a.account, "region": a.region}), keep=False)
    _write(a, tx, Row(RESOURCE, a.account, a.region, f"{id}/{root}", {"path": "/", "methods": {}}))
    row.created = tx.now
    return row


def _write(a: Authorised, tx: Transaction, row: Row) -> None:
    tx.insert(row, event=a.operation.name, request_id=a.request.id)


@REST_API.reads("GetRestApi", asks=ask("GET", "/restapis/{restApiId}"))
def get(a: Authorised, view: View) -> Output:
    return shown(api(a, view))


@REST_API.reads("GetRestApis", asks=ask("GET", "/restapis"))
def listed(a: Authorised, view: View) -> Output:
    rows = view.scan(REST_API.key, a.account, a.region, limit=MOST)
    return paged(a, [(row.name, shown(row)) for row in rows])


@REST_API.operation("UpdateRestApi", asks=ask("PATCH", "/restapis/{restApiId}"))
def update(a: Authorised, tx: Transaction) -> Output:
    row = api(a, tx)

    def put(name: str, *, needed: bool = False) -> Any:
        def change(_: str, value: str | None) -> None:
            if needed and not value:
                raise bad(f"{name} must be given.")
            row.doc[name] = value

        return change

    def closed(_: str, value: str | None) -> None:
        row.doc["closed"] = value == "true"

    patched(
        a,
        {
            "/name": put("name", needed=True), "/description": put("description"), "/version": put("version"),
            "/disableExecuteApiEndpoint": closed, "/policy": lambda _, value: checked_policy(row, tx, value),
        },
    )  # fmt: skip
    REST_API.change(tx, row, a.operation.name, a.request.id)
    return shown(row)


@REST_API.operation("DeleteRestApi", asks=ask("DELETE", "/restapis/{restApiId}"))
def delete(a: Authorised, tx: Transaction) -> Output:
    row = api(a, tx)
    for kind in (STAGE, DEPLOYMENT, RESOURCE, MODEL, VALIDATOR, AUTHORIZER):
        while rows := tx.scan(kind, a.account, a.region, prefix=f"{row.name}/", limit=MOST):
            for one in rows:
                tx.delete(one, event=a.operation.name, request_id=a.request.id)
    known = tx.get(INDEX, "", "", row.name)
    if known is not None:
        tx.delete(known, keep=False)
    REST_API.remove(tx, row, a.operation.name, a.request.id)
    return {}


# -- resources ---------------------------------------------------------------------------------------------------------


def resource_shown(row: Row, *, methods: bool = False) -> Output:
    """A resource."""
    doc = row.doc
    told: Output = {"id": row.name.partition("/")[2], "path": doc["path"]}
    if doc.get("parent"):
        told |= {"parentId": doc["parent"], "pathPart": doc["part"]}
    if doc["methods"]:
        told["resourceMethods"] = {
            name: {key: value for key, value in one.items() if key[0] != "_"} if methods else {}
            for name, one in doc["methods"].items()
        }
    return told


@REST_API.operation("CreateResource", asks=ask("POST", "/restapis/{restApiId}/resources/{parentId}"))
def create_resource(a: Authorised, tx: Transaction) -> Output:
    row, parent, part = api(a, tx), resource(a, tx, a.input["parentId"]), a.input["pathPart"]
    rows = tx.scan(RESOURCE, a.account, a.region, prefix=f"{row.name}/", limit=MOST)
    return resource_shown(child(a, tx, row, parent, part, rows))


def child(a: Authorised, tx: Transaction, row: Row, parent: Row, part: str, rows: Sequence[Row]) -> Row:
    """A new resource below another; rows: all that the API has. Raises Refused."""
    if not _PART.fullmatch(part):
        raise bad("Resource's path part only allow a-zA-Z0-9._-: or a valid greedy path variable and curly braces.")
    if parent.doc["path"].endswith("+}"):
        raise bad(f"Cannot create a child of a resource with a greedy path variable: {parent.doc['path']}")
    if len(rows) >= MOST:
        raise Refused("LimitExceededException", f"An API has at most {MOST} resources.", 429)
    id = parent.name.partition("/")[2]
    siblings = [one.doc["part"] for one in rows if one.doc.get("parent") == id]
    if part in siblings:
        raise Refused("ConflictException", "Another resource with the same parent already has this name: " + part, 409)
    if part[0] == "{" and any(one[0] == "{" for one in siblings):
        raise bad("A sibling of this resource already has a variable path part: only one is allowed.")
    path = f"{parent.doc['path'].rstrip('/')}/{part}"
    doc = {"parent": id, "part": part, "path": path, "methods": {}}
    found = Row(RESOURCE, a.account, a.region, f"{row.name}/{new(6)}", doc)
    _write(a, tx, found)
    return found


@REST_API.reads("GetResource", asks=ask("GET", "/restapis/{restApiId}/resources/{resourceId}"))
def get_resource(a: Authorised, view: View) -> Output:
    return resource_shown(resource(a, view), methods="methods" in (a.input.get("embed") or ()))


@REST_API.reads("GetResources", asks=ask("GET", "/restapis/{restApiId}/resources"))
def list_resources(a: Authorised, view: View) -> Output:
    rows = view.scan(RESOURCE, a.account, a.region, prefix=f"{api(a, view).name}/", limit=MOST)
    methods = "methods" in (a.input.get("embed") or ())
    return paged(a, [(row.name, resource_shown(row, methods=methods)) for row in rows])


@REST_API.operation("DeleteResource", asks=ask("DELETE", "/restapis/{restApiId}/resources/{resourceId}"))
def delete_resource(a: Authorised, tx: Transaction) -> Output:
    row, top = api(a, tx), resource(a, tx)
    if top.name == f"{row.name}/{row.doc['root']}":
        raise bad("Root resource cannot be deleted")
    for one in tx.scan(RESOURCE, a.account, a.region, prefix=f"{row.name}/", limit=MOST):
        if one.name == top.name or one.doc["path"].startswith(f"{top.doc['path']}/"):
            tx.delete(one, event=a.operation.name, request_id=a.request.id)
    return {}


# -- tags --------------------------------------------------------------------------------------------------------------


def _tagged(a: Authorised, view: View) -> Row:
    given = unquote(a.input["resourceArn"])
    try:
        arn = Arn.parse(given)
    except ValueError:
        raise bad("Invalid ARN specified in the request") from None
    _, _, id, *more = [*arn.resource.split("/"), "", ""]
    if arn.service != "apigateway" or not arn.resource.startswith("/restapis/"):
        raise bad("Tags are of REST APIs and their stages in Bastide: arn:aws:apigateway:REGION::/restapis/ID.")
    row, exact = REST_API.get(view, a.account, a.region, id), REST_API.arn("", a.region, id)
    if more[0] == "stages":
        row, exact = view.get(STAGE, a.account, a.region, f"{id}/{more[1]}"), f"{exact}/stages/{more[1]}"
    if row is None or given != exact:
        raise absent("API")
    return row


def _tags_ask(method: str) -> list[Ask]:
    """The question about something's tags, by its ARN in the one spelling that policies write."""
    return [
        Ask(
            f"apigateway:{method}",
            lambda asked: (f"arn:aws:apigateway:{asked.call.region}::/tags/{unquote(asked.input['resourceArn'])}",),
        )
    ]


@REST_API.operation("TagResource", asks=_tags_ask("PUT"))
def tag(a: Authorised, tx: Transaction) -> Output:
    row, given = _tagged(a, tx), tags_given(a)
    row.tags = {**row.tags, **given}
    if len(row.tags) > 50:
        raise bad("A resource may have at most 50 tags.")
    tx.update(row, event=a.operation.name, request_id=a.request.id)
    return {}


@REST_API.operation("UntagResource", asks=_tags_ask("DELETE"))
def untag(a: Authorised, tx: Transaction) -> Output:
    row = _tagged(a, tx)
    row.tags = {key: value for key, value in row.tags.items() if key not in a.input["tagKeys"]}
    tx.update(row, event=a.operation.name, request_id=a.request.id)
    return {}


@REST_API.reads("GetTags", asks=_tags_ask("GET"))
def tags(a: Authorised, view: View) -> Output:
    return {"tags": dict(_tagged(a, view).tags)}


# -- the account -------------------------------------------------------------------------------------------------------


def _roles(given: Mapping[str, Any]) -> list[str]:
    return [
        str(one["value"])
        for one in given.get("patchOperations") or ()
        if one.get("path") == "/cloudwatchRoleArn" and str(one.get("value") or "").startswith("arn:")
    ]


def log_role(view: View, account: str, region: str) -> str:
    """The role that an account's APIs write logs with, empty if there is none."""
    row = view.get(ACCOUNT, account, region, "account")
    return str(row.doc.get("role") or "") if row is not None else ""


def _account(view: View, a: Authorised) -> Output:
    role = log_role(view, a.account, a.region)
    return {**({"cloudwatchRoleArn": role} if role else {}), "features": [], "apiKeyVersion": "4"}


@REST_API.reads("GetAccount", asks=ask("GET", "/account"))
def account(a: Authorised, view: View) -> Output:
    return _account(view, a)


async def _trusted(a: Authorised) -> None:
    for role in _roles(a.input):
        try:
            await a.calls.assume(GATEWAY, role, "apigateway", account=a.account, region=a.region, seconds=900)
        except Refused:
            raise bad("The role ARN does not have required permissions set to API Gateway") from None


@REST_API.operation(
    "UpdateAccount",
    asks=[
        *ask("PATCH", "/account"),
        Ask("iam:PassRole", lambda asked: _roles(asked.input), given={"iam:PassedToService": lambda _: GATEWAY}),
    ],
    before=_trusted,
)
def update_account(a: Authorised, tx: Transaction) -> Output:
    held = tx.get(ACCOUNT, a.account, a.region, "account")
    row = held or Row(ACCOUNT, a.account, a.region, "account", {})

    def role(_: str, value: str | None) -> None:
        row.doc["role"] = value or ""

    patched(a, {"/cloudwatchRoleArn": role})
    if held is None:
        _write(a, tx, row)
    else:
        tx.update(row, event=a.operation.name, request_id=a.request.id)
    return _account(tx, a)
