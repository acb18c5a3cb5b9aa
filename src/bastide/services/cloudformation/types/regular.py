"""Regular types, a declaration each: properties are the Create call's members, attributes what a Describe call tells."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bastide.services.cloudformation.resource import Action, Reading, Resource, Type

Keys = Mapping[str, str] | Sequence[str]
"""Members of an input, and the facts of the resource that fill them; the same names without a mapping."""


@dataclass(frozen=True, slots=True)
class Tagging:
    """How tags are changed: the operations, the member that names the resource, the fact that fills it, the members that
    bring the tags and the keys."""

    tag: str
    untag: str
    member: str
    fact: str
    tags: str = "Tags"
    keys: str = "TagKeys"
    own: str = "Tags"


def at(value: Any, path: str) -> Any:
    """What lies at a dotted path, None if nothing; a number takes one of a list."""
    for part in path.split("."):
        if isinstance(value, list):
            value = value[int(part)] if part.isdecimal() and int(part) < len(value) else None
        elif isinstance(value, Mapping):
            value = value.get(part)
        else:
            return None
    return value


def keyed(r: Resource, key: Keys) -> dict[str, Any]:
    """The members that name a resource."""
    pairs = key.items() if isinstance(key, Mapping) else [(name, name) for name in key]
    return {member: r.fact(fact) for member, fact in pairs}


async def retag(r: Resource, how: Tagging, *, member: str = "") -> None:
    """Makes the tags those that are wanted now: what went is taken away, what changed is written."""
    before = {one["Key"]: str(one["Value"]) for one in _list(r.old.get(how.own))}
    after = {one["Key"]: one["Value"] for one in r.tags(how.own)}
    gone = sorted(set(before) - set(after))
    named = {how.member: r.fact(how.fact)}
    if gone:
        await r.do(how.untag, {**named, how.keys: gone})
    if before != after and after:
        await r.do(how.tag, {**named, how.tags: [{"Key": key, "Value": one} for key, one in after.items()]})


def _list(tags: Any) -> list[dict[str, Any]]:
    if isinstance(tags, Mapping):
        return [{"Key": key, "Value": value} for key, value in tags.items()]
    return list(tags or ())


async def nothing(_: Resource) -> None:
    """Nothing is to be done."""


def calls_of(service: str, names: Iterable[str | tuple[str, str] | None]) -> tuple[tuple[str, str], ...]:
    """Operations of a service, or of others if they say so."""
    return tuple(dict.fromkeys((service, one) if isinstance(one, str) else one for one in names if one))


def regular(
    name: str,
    service: str,
    *,
    create: str,
    delete: str,
    key: Keys,
    ref: str,
    named: str = "",
    most: int = 63,
    lower: bool = False,
    attributes: Mapping[str, str] | None = None,
    read: str = "",
    result: str = "",
    update: str = "",
    put: bool = False,
    rename: Mapping[str, str] | None = None,
    leave: Sequence[str] = (),
    tags: str = "Tags",
    own_tags: str = "Tags",
    tagging: Tagging | None = None,
    fixed: Mapping[str, Any] | None = None,
    arn: str = "",
    after: Callable[[Resource], Awaitable[None]] | None = None,
    before_delete: Action | None = None,
    ready: Callable[[Resource], Awaitable[bool]] | None = None,
    gone: Callable[[Resource], Awaitable[bool]] | None = None,
    delete_key: Keys | None = None,
    update_leave: Sequence[str] = (),
    more: Sequence[str] = (),
    replaces: Sequence[str] = (),
    iam: bool = False,
) -> Type:
    """A type's row.

    key: members that name one, for read, update and delete. ref: the fact that Ref gives. named: the property that
    names it; without one a name of at most `most` characters is made. attributes: paths in the answers of create, or else
    of read.
    update: sends the key and all that was given. put: create is also the update. rename: members of other names. leave:
    properties that create does not take; `after` does them, then and after an update. tags: create's member for tags, empty
    if it has none. arn: the fact of its ARN, for CloudFormation's own tags. ready: whether it may be used by now.
    gone: whether it is not there any more, of what takes its time to go.
    """
    given_attributes = attributes or {}
    renamed = rename or {}
    not_sent = {*leave, own_tags}

    def body(r: Resource) -> dict[str, Any]:
        found = {renamed.get(one, one): value for one, value in r.but(*not_sent).items()}
        if named:
            found[renamed.get(named, named)] = r.thing.attributes.get(named) or r.get(named)
        return {**(fixed or {}), **found}

    async def fill(r: Resource, answer: Mapping[str, Any]) -> None:
        missing = {}
        for attribute, path in given_attributes.items():
            value = at(answer, path)
            if value is None:
                missing[attribute] = path
            else:
                r.thing.attributes[attribute] = value
        if missing and read:
            told = await r.read(read, keyed(r, key))
            for attribute, path in missing.items():
                value = at(told, path)
                if value is None and result:
                    value = at(told, f"{result}.{path}")
                if value is not None:
                    r.thing.attributes[attribute] = value

    async def make(r: Resource) -> None:
        if named:
            r.thing.attributes[named] = r.name(most, lower=lower, given=r.get(named))
        asked = body(r)
        brought = r.tags(own_tags)
        if tags and brought:
            asked[tags] = brought
        answer = await r.do(create, asked, key="create")
        await fill(r, answer)
        r.thing.physical = str(r.fact(ref))
        if after is not None:
            await after(r)
        if ready is not None:
            await r.until(lambda: ready(r))

    async def change(r: Resource) -> None:
        if update or put:
            asked = {one: value for one, value in body(r).items() if one not in update_leave}
            before = {renamed.get(one, one): value for one, value in r.old.items() if one not in (*not_sent, own_tags)}
            now = {
                one: value
                for one, value in asked.items()
                if one not in (fixed or {}) and one != renamed.get(named, named)
            }
            if now != {one: value for one, value in before.items() if one in now or one not in update_leave} or put:
                answer = await r.do(update or create, {**asked, **keyed(r, key)}, key="update")
                await fill(r, answer)
        if after is not None:
            await after(r)
        if tagging is not None:
            await retag(r, tagging)
        if ready is not None:
            await r.until(lambda: ready(r))

    async def take(r: Resource) -> None:
        if before_delete is not None:
            await before_delete(r)
        await r.drop(delete, keyed(r, delete_key if delete_key is not None else key))
        if gone is not None:
            await r.until(lambda: gone(r))

    reading: Reading | None = None
    if read:

        async def reading(r: Resource) -> dict[str, Any] | None:
            told = await r.seen(read, keyed(r, key))
            if told is None or (result and at(told, result) is None):
                return None
            return shown(at(told, result) if result else told, r.properties, renamed)

    changes = bool(update or put or after or tagging)
    return Type(
        name,
        service,
        make,
        take,
        change if changes else None,
        reading,
        calls_of(
            service,
            [create, delete, read, update, *(() if tagging is None else (tagging.tag, tagging.untag)), *more],
        ),
        frozenset(replaces),
        (lambda r: str(r.fact(arn) or "")) if arn else None,
        iam,
        named,
    )


def shown(told: Mapping[str, Any], wanted: Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    """The properties that an answer tells, by name whatever the case, of those that were wanted."""
    members = {name.lower(): value for name, value in told.items()}
    found = {}
    for name in wanted:
        value = members.get(renamed.get(name, name).lower())
        if value is not None:
            found[name] = value
    return found
