"""Authorization tokens: passwords of a registry's clients. One says who asked for it, nothing else: every push and pull
is decided by what they may do then. Source: Amazon ECR API Reference, GetAuthorizationToken.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

import orjson

from bastide.domain import MICROS, Refused
from bastide.kernel import Ask, Authorised, Caller, Calls, Kind, Output, Session, anything
from bastide.kernel.address import Address
from bastide.store import View

TOKEN: Final = Kind("AuthorizationToken", service="ecr", arn="authorization-token/{}", tags=False)
USER: Final = "AWS"
_VALID: Final = 12 * 3600 * MICROS
_PURPOSE: Final = "ecr/token"


@TOKEN.reads("GetAuthorizationToken", asks=[Ask("ecr:GetAuthorizationToken", anything)])
def get(a: Authorised, _: View) -> Output:
    session = a.caller.session
    until = a.now + _VALID if session is None else min(a.now + _VALID, session.expires)
    fields = {name: getattr(session, name) for name in Session.__slots__} if session is not None else None
    password = a.calls.sealer.seal(orjson.dumps([a.caller.access_key, fields, until]), _PURPOSE)
    told = {
        "authorizationToken": base64.b64encode(f"{USER}:{password}".encode()).decode(),
        "expiresAt": until,
        "proxyEndpoint": a.engine(Address).url,
    }
    wanted = a.input.get("registryIds") or [a.account]
    return {"authorizationData": [told] * len(wanted)}


def caller_of(calls: Calls, authorization: str) -> Caller:
    """Who an Authorization header of the basic scheme stands for, if they still are who they were; raises Refused."""
    scheme, _, given = authorization.partition(" ")
    try:
        if scheme.lower() != "basic":
            raise ValueError
        user, _, password = base64.b64decode(given.strip(), validate=True).decode().partition(":")
        key, fields, until = orjson.loads(calls.sealer.open(password, _PURPOSE))
    except (ValueError, binascii.Error, Refused):
        user, key, fields, until = "", "", None, 0
    if user != USER:
        raise Refused(
            "UnrecognizedClientException", "Log in with the user AWS and a token of GetAuthorizationToken.", 401
        )
    if calls.clock() >= until:
        raise Refused(
            "ExpiredTokenException", "Your authorization token has expired. Reauthenticate and try again.", 401
        )
    with calls.store.reading() as view:
        if fields is not None:
            for name in ("policies", "policy_arns", "transitive", "origin"):
                fields[name] = tuple(fields[name])
            fields["keys"] = {
                name: value if isinstance(value, str) else tuple(value) for name, value in fields["keys"].items()
            }
            found = calls.directory.by_session(view, Session(**fields))
        else:
            known = calls.directory.by_access_key(view, key)
            found = known[0] if known is not None else None
    if found is None:
        raise Refused("UnrecognizedClientException", "Whoever the authorization token was given to is gone.", 401)
    return found
