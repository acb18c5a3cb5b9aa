"""Whoever asked, kept in a row to act later with the session that they had. No secret is in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bastide.domain import Refused
from bastide.kernel.calls import Calls
from bastide.kernel.identity import Caller, Session


def kept(caller: Caller) -> dict[str, Any] | None:
    """``{"session": its fields}`` or ``{"user": access key}``; None of who has no credentials that could be used later."""
    if caller.session is not None:
        return {"session": {name: getattr(caller.session, name) for name in Session.__slots__}}
    if caller.access_key:
        return {"user": caller.access_key}
    return None


def caller_of(calls: Calls, who: Mapping[str, Any], *, expired: str, gone: str) -> Caller:
    """The caller that was kept, with the permissions of now; raises ExpiredToken with one message when the session is over,
    AccessDenied with the other when the user, the role or the key is no more."""
    if "session" in who:
        session = _session(who["session"])
        if session.expires <= calls.clock():
            raise Refused("ExpiredToken", expired, 403)
        with calls.store.reading() as view:
            found = calls.directory.by_session(view, session)
    else:
        with calls.store.reading() as view:
            held = calls.directory.by_access_key(view, who["user"])
        found = None if held is None else held[0]
    if found is None:
        raise Refused("AccessDenied", gone, 403)
    return found


def _session(fields: Mapping[str, Any]) -> Session:
    known = dict(fields)
    for name in ("policies", "policy_arns", "transitive", "origin"):
        known[name] = tuple(known[name])
    known["keys"] = {
        key: value if isinstance(value, str) else tuple(value) for key, value in known.get("keys", {}).items()
    }
    return Session(**known)
