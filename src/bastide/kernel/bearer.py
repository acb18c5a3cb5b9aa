"""Tokens that say who asked for them, and nothing else: passwords of package managers and of container registries.

What their holder may do is decided at every use, by what whoever asked for the token may do then. A token of a session
ends with it.
"""

from __future__ import annotations

from typing import Any

import orjson

from bastide.domain import Instant, Refused
from bastide.kernel.calls import Calls
from bastide.kernel.identity import Caller, Session


def issue(calls: Calls, caller: Caller, until: Instant, purpose: str, *bound: str) -> tuple[str, Instant]:
    """A token for `caller` and when it ends, at `until` or with the session. bound: what it is good for."""
    session = caller.session
    if session is not None:
        until = min(until, session.expires)
    fields = {name: getattr(session, name) for name in Session.__slots__} if session is not None else None
    return calls.sealer.seal(orjson.dumps([caller.access_key, fields, until, *bound]), purpose), until


def holder(calls: Calls, token: str, purpose: str) -> tuple[Caller, list[str]]:
    """Who a token stands for, if they still are who they were, and what it is bound to.

    Raises ValueError for what is no token of that purpose, and Refused for one that is over or whose holder is gone.
    """
    try:
        told: list[Any] = orjson.loads(calls.sealer.open(token, purpose))
    except Refused:
        raise ValueError("not a token") from None
    key, fields, until, *bound = told
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
    return found, bound
