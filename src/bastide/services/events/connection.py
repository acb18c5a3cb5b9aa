"""Connections and API destinations: addresses elsewhere that rules call, and what they are called with.

Source: Amazon EventBridge API Reference, CreateConnection, CreateApiDestination; User Guide, "API destinations". Secrets
are sealed: under the platform's key, or under a data key of the connection's KMS key, which must let events.amazonaws.com
use it.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterable
from typing import Any, Final

import orjson

from bastide.domain import Arn, Refused
from bastide.engines import keys
from bastide.engines.outgoing import Unreachable
from bastide.engines.outgoing import checked as checked_url
from bastide.kernel import Ask, Asked, Authorised, Calls, Kind, Output, anything, pages, service_caller
from bastide.store import Row, Transaction, View

PRINCIPAL: Final = "events.amazonaws.com"
_PURPOSE: Final = "events/connection"
_MOST: Final = 3000
_PAGE: Final = 100


def _kind(name: str, arn: str) -> Kind:
    called = arn.partition("/")[0]
    said = f"{'An' if name[0] in 'AEIOU' else 'A'} {called} '{{name}}' does not exist."
    return Kind(
        name, service="events", arn=arn, named_by="Name", tags=False,
        missing=("ResourceNotFoundException", f"Failed to describe the {called}(s). {said}", 400),
        taken=("ResourceAlreadyExistsException", f"{name} {{name}} already exists.", 400),
    )  # fmt: skip


CONNECTION: Final = _kind("Connection", "connection/{}")
"""Rows by name; the ARN has the connection's id behind it, too."""
DESTINATION: Final = _kind("ApiDestination", "api-destination/{}")


def arn_of(kind: Kind, row: Row) -> str:
    """The ARN, with the id."""
    return f"{kind.arn(row.account, row.region, row.name)}/{row.doc['id']}"


def find(kind: Kind, view: View, arn: str) -> Row | None:
    """What an ARN with an id names, if it is still that."""
    held = Arn.parse(arn)
    name, _, id = held.resource.removeprefix(kind.type).partition("/")
    row = kind.get(view, held.account, held.region, name)
    return row if row is not None and row.doc["id"] == id else None


def _this(kind: Kind) -> Any:
    def about(asked: Asked) -> Iterable[str]:
        call, name = asked.call, str(asked.input["Name"])
        row = kind.get(asked.view, call.account, call.region, name)
        return (arn_of(kind, row) if row is not None else f"{kind.arn(call.account, call.region, name)}/*",)

    return about


# -- connections -------------------------------------------------------------------------------------------------------

_NEEDED: Final = {
    "BASIC": "BasicAuthParameters", "API_KEY": "ApiKeyAuthParameters", "OAUTH_CLIENT_CREDENTIALS": "OAuthParameters",
}  # fmt: skip
_SECRETS: Final = ("Password", "ApiKeyValue", "ClientSecret")


def _checked(a: Authorised, kind: str, given: dict[str, Any]) -> None:
    if given.get("ConnectivityParameters"):
        raise Refused("ValidationException", "ConnectivityParameters is not supported by Bastide yet.")
    if not given.get(_NEEDED[kind]) or any(given.get(other) for one, other in _NEEDED.items() if one != kind):
        raise Refused("ValidationException", f"{_NEEDED[kind]} and no others are needed for {kind}.")
    if kind == "OAUTH_CLIENT_CREDENTIALS":
        held = given["OAuthParameters"]
        _address(held["AuthorizationEndpoint"])


def _address(url: str) -> None:
    try:
        where = checked_url(url.replace("*", "x"))
    except Unreachable as wrong:
        raise Refused("ValidationException", f"The endpoint is not valid: {wrong}") from None
    if where.scheme != "https":
        raise Refused("ValidationException", "The endpoint is an HTTPS address.")


def _without(value: Any) -> Any:
    """Parameters as they may be shown."""
    if isinstance(value, dict):
        hidden = value.get("IsValueSecret")
        return {
            name: _without(one)
            for name, one in value.items()
            if name not in _SECRETS and not (hidden and name == "Value") and one is not None
        }
    return [_without(one) for one in value] if isinstance(value, list) else value


def _sealed(a: Authorised, tx: Transaction, arn: str, key: str | None, secret: Any) -> dict[str, Any]:
    raw = orjson.dumps(secret)
    if not key:
        return {"x": a.calls.sealer.seal(raw, _PURPOSE)}
    if not key.startswith("arn:"):
        key = f"arn:aws:kms:{a.region}:{a.account}:{'' if key.startswith('alias/') else 'key/'}{key}"
    context = {"aws:events:connection:arn": arn}
    given = {"KeyId": key, "KeySpec": "AES_256", "EncryptionContext": context}
    caller = service_caller(PRINCIPAL, a.account, arn)
    try:
        made = a.calls.forward(a, tx, "kms", "GenerateDataKey", given, PRINCIPAL, {}, caller=caller)
    except Refused as refused:
        raise Refused(
            "ValidationException",
            f"The KMS key could not be used by {PRINCIPAL}, which its key policy must let: {refused.message}",
            kept=refused.kept,
        ) from None
    return {
        "key": base64.b64encode(made["CiphertextBlob"]).decode(),
        "x": base64.b64encode(keys.encrypt(made["Plaintext"], arn, 1, raw, context)).decode(),
    }


async def secret_of(calls: Calls, row: Row) -> Any:
    """What a connection authorises with; raises Refused where its key cannot be used."""
    held, arn = row.doc["_secret"], arn_of(CONNECTION, row)
    if "key" not in held:
        return orjson.loads(calls.sealer.open(held["x"], _PURPOSE))
    context = {"aws:events:connection:arn": arn}
    given = {"CiphertextBlob": base64.b64decode(held["key"]), "EncryptionContext": context}
    caller = service_caller(PRINCIPAL, row.account, arn)
    made = await calls.act(caller, "kms", "Decrypt", given, region=row.region, source=PRINCIPAL)
    return orjson.loads(keys.decrypt(made["Plaintext"], base64.b64decode(held["x"]), context))


def _put(a: Authorised, tx: Transaction, row: Row) -> None:
    given = a.input
    kind = given.get("AuthorizationType") or row.doc["AuthorizationType"]
    secret = given["AuthParameters"]
    _checked(a, kind, secret)
    if given.get("InvocationConnectivityParameters"):
        raise Refused("ValidationException", "InvocationConnectivityParameters is not supported by Bastide yet.")
    key = given.get("KmsKeyIdentifier") or row.doc.get("KmsKeyIdentifier")
    row.doc |= {
        "AuthorizationType": kind, "AuthParameters": _without(secret),
        "_secret": _sealed(a, tx, arn_of(CONNECTION, row), key, secret), "authorized": tx.now,
    }  # fmt: skip
    for name in ("Description", "KmsKeyIdentifier"):
        if given.get(name):
            row.doc[name] = given[name]
    row.status = "AUTHORIZED"


def _answer(row: Row, **more: Any) -> Output:
    return {
        "ConnectionArn": arn_of(CONNECTION, row), "ConnectionState": row.status, "CreationTime": row.created,
        "LastModifiedTime": row.modified, "LastAuthorizedTime": row.doc.get("authorized"), **more,
    }  # fmt: skip


@CONNECTION.operation("CreateConnection", asks=[Ask("events:CreateConnection", _this(CONNECTION))])
def create(a: Authorised, tx: Transaction) -> Output:
    if len(tx.scan(CONNECTION.key, a.account, a.region, limit=_MOST)) >= _MOST:
        raise Refused("LimitExceededException", f"An account has at most {_MOST} connections.")
    if CONNECTION.get(tx, a.account, a.region, a.input["Name"]) is not None:
        raise Refused("ResourceAlreadyExistsException", f"Connection {a.input['Name']} already exists.")
    row = Row(CONNECTION.key, a.account, a.region, a.input["Name"], {"id": str(uuid.uuid4())})
    _put(a, tx, row)
    CONNECTION.insert(tx, row, a.operation.name, a.request.id)
    output = _answer(row)
    output.pop("LastAuthorizedTime")
    return output


@CONNECTION.operation("UpdateConnection", asks=[Ask("events:UpdateConnection", _this(CONNECTION))])
def update(a: Authorised, tx: Transaction) -> Output:
    row = CONNECTION.named(a, tx)
    if a.input.get("AuthParameters"):
        _put(a, tx, row)
    elif a.input.get("AuthorizationType") or a.input.get("KmsKeyIdentifier"):
        raise Refused("ValidationException", "Another AuthorizationType or key needs AuthParameters.")
    elif a.input.get("Description"):
        row.doc["Description"] = a.input["Description"]
    CONNECTION.change(tx, row, a.operation.name, a.request.id)
    return _answer(row)


@CONNECTION.operation("DeauthorizeConnection", asks=[Ask("events:DeauthorizeConnection", _this(CONNECTION))])
def deauthorize(a: Authorised, tx: Transaction) -> Output:
    row = CONNECTION.named(a, tx)
    row.status = "DEAUTHORIZED"
    row.doc["_secret"] = {"x": a.calls.sealer.seal(b"{}", _PURPOSE)}
    CONNECTION.change(tx, row, a.operation.name, a.request.id)
    return _answer(row)


@CONNECTION.operation("DeleteConnection", asks=[Ask("events:DeleteConnection", _this(CONNECTION))])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = CONNECTION.named(a, tx)
    CONNECTION.remove(tx, row, a.operation.name, a.request.id)
    return _answer(row) | {"ConnectionState": "DELETING"}


@CONNECTION.reads("DescribeConnection", asks=[Ask("events:DescribeConnection", _this(CONNECTION))])
def describe(a: Authorised, view: View) -> Output:
    row = CONNECTION.named(a, view)
    told = {name: row.doc[name] for name in ("Description", "KmsKeyIdentifier") if name in row.doc}
    return _answer(
        row, Name=row.name, AuthorizationType=row.doc["AuthorizationType"], AuthParameters=row.doc["AuthParameters"],
        **told,
    )  # fmt: skip


@CONNECTION.reads("ListConnections", asks=[Ask("events:ListConnections", anything)])
def listed(a: Authorised, view: View) -> Output:
    rows, token = _page(a, view, CONNECTION)
    wanted = [row for row in rows if a.input.get("ConnectionState") in (None, row.status)]
    shown = [_answer(row, Name=row.name, AuthorizationType=row.doc["AuthorizationType"]) for row in wanted]
    return {"Connections": shown, "NextToken": token}


def _page(a: Authorised, view: View, kind: Kind) -> tuple[list[Row], str | None]:
    limit, after = int(a.input.get("Limit") or _PAGE), pages.position(a, a.input.get("NextToken"))
    prefix = a.input.get("NamePrefix") or ""
    rows = view.scan(kind.key, a.account, a.region, prefix=prefix, after=after, limit=limit + 1)
    return rows[:limit], pages.seal(a, rows[limit - 1].name) if len(rows) > limit else None


# -- API destinations --------------------------------------------------------------------------------------------------

_MEMBERS: Final = ("Description", "ConnectionArn", "InvocationEndpoint", "HttpMethod", "InvocationRateLimitPerSecond")


def _set(a: Authorised, tx: Transaction, row: Row) -> None:
    given = a.input
    row.doc |= {name: given[name] for name in _MEMBERS if given.get(name) is not None}
    row.doc.setdefault("InvocationRateLimitPerSecond", 300)
    _address(row.doc["InvocationEndpoint"])
    try:
        connection = find(CONNECTION, tx, row.doc["ConnectionArn"])
    except ValueError:
        connection = None
    if connection is None or connection.account != a.account or connection.region != a.region:
        raise Refused("ResourceNotFoundException", f"Connection {row.doc['ConnectionArn']} does not exist.")
    row.status = "ACTIVE"


def _told(row: Row) -> Output:
    return {
        "ApiDestinationArn": arn_of(DESTINATION, row), "ApiDestinationState": row.status, "CreationTime": row.created,
        "LastModifiedTime": row.modified,
    }  # fmt: skip


def _connection(asked: Asked) -> Iterable[str]:
    given = asked.input.get("ConnectionArn")
    return () if given is None else (str(given),)


@DESTINATION.operation(
    "CreateApiDestination",
    asks=[
        Ask("events:CreateApiDestination", _this(DESTINATION)),
        Ask("events:CreateApiDestination", _connection),
    ],
)
def create_destination(a: Authorised, tx: Transaction) -> Output:
    if DESTINATION.get(tx, a.account, a.region, a.input["Name"]) is not None:
        raise Refused("ResourceAlreadyExistsException", f"An api-destination {a.input['Name']} already exists.")
    if len(tx.scan(DESTINATION.key, a.account, a.region, limit=_MOST)) >= _MOST:
        raise Refused("LimitExceededException", f"An account has at most {_MOST} API destinations.")
    row = Row(DESTINATION.key, a.account, a.region, a.input["Name"], {"id": str(uuid.uuid4())})
    _set(a, tx, row)
    DESTINATION.insert(tx, row, a.operation.name, a.request.id)
    return _told(row)


@DESTINATION.operation("UpdateApiDestination", asks=[Ask("events:UpdateApiDestination", _this(DESTINATION))])
def update_destination(a: Authorised, tx: Transaction) -> Output:
    row = DESTINATION.named(a, tx)
    _set(a, tx, row)
    DESTINATION.change(tx, row, a.operation.name, a.request.id)
    return _told(row)


@DESTINATION.operation("DeleteApiDestination", asks=[Ask("events:DeleteApiDestination", _this(DESTINATION))])
def delete_destination(a: Authorised, tx: Transaction) -> Output:
    DESTINATION.remove(tx, DESTINATION.named(a, tx), a.operation.name, a.request.id)
    return {}


@DESTINATION.reads("DescribeApiDestination", asks=[Ask("events:DescribeApiDestination", _this(DESTINATION))])
def describe_destination(a: Authorised, view: View) -> Output:
    row = DESTINATION.named(a, view)
    return {**_told(row), "Name": row.name, **{name: row.doc[name] for name in _MEMBERS if name in row.doc}}


@DESTINATION.reads("ListApiDestinations", asks=[Ask("events:ListApiDestinations", anything)])
def listed_destinations(a: Authorised, view: View) -> Output:
    rows, token = _page(a, view, DESTINATION)
    wanted = [row for row in rows if a.input.get("ConnectionArn") in (None, row.doc["ConnectionArn"])]
    members = [name for name in _MEMBERS if name != "Description"]
    shown = [{**_told(row), "Name": row.name, **{name: row.doc[name] for name in members}} for row in wanted]
    return {"ApiDestinations": shown, "NextToken": token}
