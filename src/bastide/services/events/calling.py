"""The way to API destinations: an HTTPS request with what the connection authorises with.

Source: EventBridge User Guide, "API destinations as targets", "Amazon EventBridge retry behavior for API destinations".
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any, Final
from urllib.parse import quote, urlencode

import orjson

from bastide.domain import MICROS, Instant, Refused, timed_id
from bastide.engines.outgoing import Outgoing, Reply, Unreachable
from bastide.kernel import Ask, Call, Operation, Request
from bastide.kernel.authorise import authorise
from bastide.services.events.connection import CONNECTION, DESTINATION, find, secret_of
from bastide.services.events.shaping import at
from bastide.services.events.ways import PRINCIPAL, Parcel
from bastide.store import Row

_SECONDS: Final = 5.0
_AGAIN: Final = (401, 407, 409, 429)
_AGENT: Final = "Amazon/EventBridge/ApiDestinations"
_INVOKE: Final = Operation(
    "events",
    "InvokeApiDestination",
    (Ask("events:InvokeApiDestination", lambda asked: (str(asked.input["Arn"]),)),),
    lambda a, view: {},
    mutates=False,
)
"""What is asked of a target's role; no request can mean it."""
_tokens: dict[tuple[str, Instant], tuple[str, Instant]] = {}
_fetching: dict[tuple[str, Instant], asyncio.Lock] = {}
_MOST_TOKENS: Final = 10_000
_rates: dict[str, tuple[int, int]] = {}


async def call(parcel: Parcel) -> None:
    """Delivers an event to an API destination; raises Refused."""
    calls, arn = parcel.calls, parcel.target["Arn"]
    caller = await parcel.caller()
    now = calls.clock()
    request = Request(timed_id(now), now, PRINCIPAL, PRINCIPAL, True, "json")
    with calls.store.reading() as view:
        authorise(calls, view, Call(_INVOKE, {"Arn": arn}, caller, caller.account, parcel.arn.region, request))
        destination = find(DESTINATION, view, arn)
        connection = find(CONNECTION, view, destination.doc["ConnectionArn"]) if destination is not None else None
    if destination is None or connection is None or connection.status != "AUTHORIZED":
        raise Refused("ResourceNotFound", f"The API destination {arn} or its connection is not there.")
    _limit(arn, int(destination.doc["InvocationRateLimitPerSecond"]), now)
    secret = await secret_of(calls, connection)
    headers, query, body = _made(parcel, secret)
    headers |= await _authorised(parcel, connection, secret)
    url = _url(destination.doc["InvocationEndpoint"], parcel, query)
    reply = await _send(parcel, destination.doc["HttpMethod"], url, headers, body)
    if reply.status == 401:
        _tokens.pop(_place(connection), None)
    if not 200 <= reply.status < 300:
        again = reply.status in _AGAIN or reply.status >= 500
        raise Refused("Answer" if again else "InvalidAnswer", f"The API destination answered {reply.status}.")


def _limit(arn: str, most: int, now: Instant) -> None:
    second, count = _rates.get(arn, (0, 0))
    count = count + 1 if second == now // MICROS else 1
    if len(_rates) > 10_000:
        _rates.clear()
    _rates[arn] = (now // MICROS, count)
    if count > most:
        raise Refused("Throttled", "The API destination's InvocationRateLimitPerSecond is used up.")


async def _send(parcel: Parcel, method: str, url: str, headers: dict[str, str], body: bytes) -> Reply:
    try:
        return await parcel.calls.engine(Outgoing).send(method, url, headers, body, seconds=_SECONDS)
    except Unreachable as error:
        raise Refused("Unreachable", str(error)) from None


def _value(parcel: Parcel, text: str) -> str:
    if not text.startswith("$."):
        return text
    found = at(parcel.event, text)
    return found if isinstance(found, str) else json.dumps(found)


def _made(parcel: Parcel, secret: dict[str, Any]) -> tuple[dict[str, str], list[tuple[str, str]], bytes]:
    """Headers, query and body of the target's and the connection's own; the connection's win."""
    own, fixed = parcel.target.get("HttpParameters") or {}, secret.get("InvocationHttpParameters") or {}
    headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": _AGENT}
    headers |= {name: _value(parcel, value) for name, value in (own.get("HeaderParameters") or {}).items()}
    headers |= {one["Key"]: one["Value"] for one in fixed.get("HeaderParameters") or ()}
    query = {name: _value(parcel, value) for name, value in (own.get("QueryStringParameters") or {}).items()}
    query |= {one["Key"]: one["Value"] for one in fixed.get("QueryStringParameters") or ()}
    text, more = parcel.text(), {one["Key"]: one["Value"] for one in fixed.get("BodyParameters") or ()}
    if more:
        held = orjson.loads(text)
        text = json.dumps({**held, **more} if isinstance(held, dict) else held)
    return headers, list(query.items()), text.encode()


def _url(endpoint: str, parcel: Parcel, query: list[tuple[str, str]]) -> str:
    for value in (parcel.target.get("HttpParameters") or {}).get("PathParameterValues") or ():
        endpoint = endpoint.replace("*", quote(_value(parcel, value), safe=""), 1)
    if not query:
        return endpoint
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"


def _place(connection: Row) -> tuple[str, Instant]:
    return connection.doc["id"], connection.doc["authorized"]


async def _authorised(parcel: Parcel, connection: Row, secret: dict[str, Any]) -> dict[str, str]:
    kind = connection.doc["AuthorizationType"]
    if kind == "BASIC":
        held = secret["BasicAuthParameters"]
        pair = base64.b64encode(f"{held['Username']}:{held['Password']}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}
    if kind == "API_KEY":
        held = secret["ApiKeyAuthParameters"]
        return {held["ApiKeyName"]: held["ApiKeyValue"]}
    now, place = parcel.calls.clock(), _place(connection)
    if len(_tokens) > _MOST_TOKENS:
        _tokens.clear()
        _fetching.clear()
    async with _fetching.setdefault(place, asyncio.Lock()):  # of several events one fetches it
        token, until = _tokens.get(place, ("", 0))
        if until <= now:
            token, until = _tokens[place] = await _token(parcel, secret["OAuthParameters"], now)
    return {"Authorization": f"Bearer {token}"}


async def _token(parcel: Parcel, held: dict[str, Any], now: Instant) -> tuple[str, Instant]:
    client, more = held["ClientParameters"], held.get("OAuthHttpParameters") or {}
    form = {
        "grant_type": "client_credentials", "client_id": client["ClientID"], "client_secret": client["ClientSecret"],
    }  # fmt: skip
    form |= {one["Key"]: one["Value"] for one in more.get("BodyParameters") or ()}
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json", "User-Agent": _AGENT}
    headers |= {one["Key"]: one["Value"] for one in more.get("HeaderParameters") or ()}
    query = [(one["Key"], one["Value"]) for one in more.get("QueryStringParameters") or ()]
    url, method = held["AuthorizationEndpoint"], held["HttpMethod"]
    if method == "GET":
        query, form = [*query, *form.items()], {}
    url = f"{url}?{urlencode(query)}" if query else url
    reply = await _send(parcel, method, url, headers, urlencode(form).encode())
    try:
        told = orjson.loads(reply.body)
        token, seconds = str(told["access_token"]), int(told.get("expires_in") or 300)
    except (ValueError, KeyError, TypeError):
        raise Refused("Answer", f"The authorization endpoint gave no token; it answered {reply.status}.") from None
    return token, now + max(1, seconds - 30) * MICROS
