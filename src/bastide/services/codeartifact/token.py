"""Authorization tokens: what package managers send as a password. One says who asked for it and for which domain; every
read and every upload is decided by what they may do then. Source: CodeArtifact API Reference, GetAuthorizationToken.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from bastide.domain import MICROS, Refused
from bastide.kernel import Ask, Asked, Authorised, Caller, Calls, Output, anything, bearer
from bastide.services.codeartifact.noun import DOMAIN, domain_of, invalid, this_domain
from bastide.store import View

USER: Final = "aws"
_PURPOSE: Final = "codeartifact/token"
_LONGEST: Final = 43_200
_SHORTEST: Final = 900


def _seconds(asked: Asked) -> str:
    given = asked.input.get("durationSeconds")
    return str(_LONGEST if given is None else given)


@DOMAIN.reads(
    "GetAuthorizationToken",
    asks=[
        Ask("codeartifact:GetAuthorizationToken", this_domain),
        Ask(
            "sts:GetServiceBearerToken",
            anything,
            given={
                "sts:AWSServiceName": lambda asked: "codeartifact.amazonaws.com",
                "sts:DurationSeconds": _seconds,
            },
        ),
    ],
)
def get(a: Authorised, view: View) -> Output:
    domain = domain_of(a, view)
    given = a.input.get("durationSeconds")
    seconds = _LONGEST if given is None else int(given)
    session = a.caller.session
    if seconds == 0:
        if session is None:
            raise invalid("durationSeconds 0 is for the credentials of a session, whose end is then the token's.")
        until = session.expires
    elif not _SHORTEST <= seconds <= _LONGEST:
        raise invalid(f"durationSeconds is 0 or {_SHORTEST} to {_LONGEST}.")
    else:
        until = a.now + seconds * MICROS
    bound = (domain.account, domain.region, domain.name)
    token, until = bearer.issue(a.calls, a.caller, until, _PURPOSE, *bound)
    return {"authorizationToken": token, "expiration": until}


def caller_of(calls: Calls, authorization: str, account: str, region: str, domain: str) -> Caller:
    """Who an Authorization header stands for at a domain, if they still are who they were; raises Refused.

    Both schemes that package managers know are taken: basic with the user ``aws``, and bearer.
    """
    scheme, _, given = authorization.partition(" ")
    token = given.strip()
    try:
        if scheme.lower() == "basic":
            user, _, token = base64.b64decode(token, validate=True).decode().partition(":")
            if user != USER:
                raise ValueError
        elif scheme.lower() != "bearer":
            raise ValueError
        caller, bound = bearer.holder(calls, token, _PURPOSE)
    except (ValueError, binascii.Error):
        raise Refused(
            "UnrecognizedClientException", "Log in with the user aws and a token of GetAuthorizationToken.", 401
        ) from None
    if bound != [account, region, domain]:
        raise Refused(
            "AccessDeniedException", f"The token is one of another domain than {domain} of the account {account}.", 403
        )
    return caller
