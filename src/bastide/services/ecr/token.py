"""Authorization tokens: passwords of a registry's clients. One says who asked for it, nothing else: every push and pull
is decided by what they may do then. Source: Amazon ECR API Reference, GetAuthorizationToken.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from bastide.domain import MICROS, Refused
from bastide.kernel import Ask, Authorised, Caller, Calls, Kind, Output, anything, bearer
from bastide.kernel.address import Address
from bastide.store import View

TOKEN: Final = Kind("AuthorizationToken", service="ecr", arn="authorization-token/{}", tags=False)
USER: Final = "AWS"
_VALID: Final = 12 * 3600 * MICROS
_PURPOSE: Final = "ecr/token"


@TOKEN.reads("GetAuthorizationToken", asks=[Ask("ecr:GetAuthorizationToken", anything)])
def get(a: Authorised, _: View) -> Output:
    password, until = bearer.issue(a.calls, a.caller, a.now + _VALID, _PURPOSE)
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
        if user != USER:
            raise ValueError
        return bearer.holder(calls, password, _PURPOSE)[0]
    except (ValueError, binascii.Error):
        raise Refused(
            "UnrecognizedClientException", "Log in with the user AWS and a token of GetAuthorizationToken.", 401
        ) from None
