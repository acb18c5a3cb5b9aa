"""Idempotency tokens: the same token with the same parameters gets the same answer; with others, an error."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

import orjson

from bastide.domain import Refused
from bastide.kernel.call import Authorised
from bastide.kernel.kind import Output
from bastide.store import Transaction


def once(
    a: Authorised, tx: Transaction, token: str | None, make: Callable[[], Output], *, code: str = "ConflictException"
) -> Output:
    """`make()`, unless the caller's account has had an answer under this token for the same parameters."""
    if not token:
        return make()
    told = orjson.dumps(a.input, option=orjson.OPT_SORT_KEYS, default=str)
    digest = hashlib.sha256(told).digest()
    name = f"{a.operation.service}:{a.operation.name}:{a.region}"
    held = tx.token(a.account, name, token)
    if held is not None:
        if not hmac.compare_digest(held[0], digest):
            raise Refused(code, "The idempotency token was used before with other parameters.", 400)
        answer: Output = orjson.loads(held[1])
        return answer
    output = make()
    tx.keep_token(a.account, name, token, digest, orjson.dumps(output))
    return output
