"""What KMS asks the policy engine: ARNs of keys, and the condition keys of its requests.

Source: AWS KMS Developer Guide, "Condition keys for AWS KMS"; Service Authorization Reference, "AWS Key Management
Service".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from bastide.domain import Arn, Refused
from bastide.kernel import About, Ask, Asked, Fills, fills
from bastide.kernel.context import tag_keys
from bastide.kernel.kind import Given
from bastide.services.kms.noun import ALIAS_KEY, KEY, MANAGED_SERVICES, locate, managed_id, traits
from bastide.store import View

Keys = Mapping[str, "str | Sequence[str]"]

ALIAS_OF: Final = "kms:AliasOf"
"""Rows ``KEY|ALIAS``: the aliases of a key."""


def about(member: str = "KeyId") -> About:
    """The ARN of the key that a member names, aliases resolved."""

    def arns(asked: Asked) -> Iterable[str]:
        given = asked.input.get(member)
        if not given:
            return ()
        return (KEY.arn(*locate(asked.view, str(given), asked.call.account, asked.call.region)),)

    return arns


def via_service(asked: Asked) -> str | None:
    """``s3.us-east-1.amazonaws.com``, when S3 asks for somebody."""
    via = asked.call.request.via
    told = asked.call.context.get("kms:viaservice")
    if isinstance(told, str) or not via:
        return told if isinstance(told, str) else None
    service, _, domain = via[-1].partition(".")
    return f"{service}.{asked.call.region}.{domain}"


CALLER: Final[dict[str, Given]] = {
    "kms:CallerAccount": lambda asked: asked.call.account,
    "kms:ViaService": via_service,
}
"""Keys of every question."""


def aliases(view: View, arn: Arn) -> tuple[str, ...]:
    """The aliases of a key."""

    def load() -> tuple[str, ...]:
        rows = view.scan(ALIAS_OF, arn.account, arn.region, prefix=f"{arn.name}|", limit=500)
        return tuple(row.name.partition("|")[2] for row in rows)

    found = view.memo(("kms:aliases", arn.account, arn.region, arn.name), ((ALIAS_OF, arn.account),), load)
    if found:
        return found
    return tuple(f"alias/aws/{one}" for one in MANAGED_SERVICES if managed_id(arn.account, arn.region, one) == arn.name)


def _aliases(names: About) -> Given:
    def read(asked: Asked) -> Sequence[str]:
        return tuple(alias for arn in names(asked) if arn != "*" for alias in aliases(asked.view, Arn.parse(arn)))

    return read


def _trait(names: About, number: int) -> Given:
    def read(asked: Asked) -> str | None:
        for arn in names(asked):
            found = traits(asked.view, Arn.parse(arn)) if arn != "*" else None
            if found is not None:
                return found[number]
        return None

    return read


def of_key(names: About) -> dict[str, Given]:
    """Keys of a question about a key. Every key here is of one region."""
    return CALLER | {
        "kms:KeySpec": _trait(names, 0),
        "kms:KeyUsage": _trait(names, 1),
        "kms:KeyOrigin": _trait(names, 2),
        "kms:MultiRegion": lambda _: "false",
        "kms:ResourceAliases": _aliases(names),
    }


def request_alias(member: str) -> Given:
    """The alias by which a member names a key."""

    def read(asked: Asked) -> str | None:
        alias = str(asked.input.get(member) or "").rpartition(":")[2]
        return alias if alias.startswith("alias/") else None

    return read


def encryption_context(read: Callable[[Asked], Mapping[str, Any] | None]) -> Fills:
    """The keys of an encryption context."""

    @fills("kms:EncryptionContext:${EncryptionContextKey}", "kms:EncryptionContextKeys")
    def keys(asked: Asked) -> Keys:
        given = read(asked)
        if not given:
            return {}
        pairs = [(str(key), str(value)) for key, value in given.items()]
        found: dict[str, str | Sequence[str]] = {**tag_keys("kms:encryptioncontext:", pairs)}
        found["kms:encryptioncontextkeys"] = tuple(key for key, _ in pairs)
        return found

    return keys


def truth(member: str) -> Given:
    """A flag of the input; left out it is false."""
    return lambda asked: "true" if asked.input.get(member) else "false"


def ask(action: str, names: About | None = None, **given: Given) -> Ask:
    """A question about the key that KeyId names, or that `names` does. given: further keys, ``__`` for the colon."""
    where = names or about()
    more = {key.replace("__", ":"): one for key, one in given.items()}
    return Ask(f"kms:{action}", where, of_key(where) | more)


def alias_arn(asked: Asked, name: str) -> str:
    """The ARN of an alias of the caller's account."""
    return f"arn:aws:kms:{asked.call.region}:{asked.call.account}:{name}"


def alias_target(asked: Asked) -> Iterable[str]:
    """The key that the alias in the call stands for now."""
    row = asked.view.get(ALIAS_KEY, asked.call.account, asked.call.region, str(asked.input["AliasName"]))
    return () if row is None else (KEY.arn(row.account, row.region, str(row.doc["TargetKeyId"])),)


def unknown_arn(given: str) -> Refused:
    """InvalidArnException."""
    return Refused("InvalidArnException", f"Invalid arn {given[:300]}")
