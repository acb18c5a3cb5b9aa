"""A resource while something is done to it, and what a type of resources is.

Every call that changes something is remembered in the transaction in which it happens: whoever takes the work up after a
process ended knows which calls were made and what they answered, and makes none twice.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from bastide.domain import Arn, Refused
from bastide.engines.workflow import reach
from bastide.kernel import Body, Calls, Output
from bastide.services.cloudformation.acting import Actor
from bastide.store import Row, Transaction

_GONE: Final = re.compile(
    r"NotFound|NoSuch|NotExist|DoesNotExist|Unknown(Resource|Parameter)|\.NotFound|^404$|NonExistent"
)
_GONE_WORDS: Final = re.compile(r"could not find|not found|does not exist|cannot be found", re.IGNORECASE)
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0


class Cancelled(Exception):  # noqa: N818 - an outcome
    """Another resource failed, or somebody cancelled: nothing more is to be done to this one."""


@dataclass(frozen=True, slots=True)
class Stack:
    """The stack that a resource belongs to. name: its row's, NAME/UUID."""

    account: str
    region: str
    name: str
    arn: str
    tags: Mapping[str, str] = field(default_factory=dict)
    notifications: Sequence[str] = ()
    capabilities: Sequence[str] = ()
    root: str = ""

    @property
    def stack_name(self) -> str:
        """The name that people gave it."""
        return self.name.partition("/")[0]

    @property
    def uuid(self) -> str:
        """The last part of its ARN."""
        return self.name.partition("/")[2]


@dataclass(slots=True)
class Thing:
    """A resource as it is, or is to be. physical: empty until it is there."""

    type: str
    properties: dict[str, Any]
    physical: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)

    def kept(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "type": self.type,
            "properties": self.properties,
            "physical": self.physical,
            "attributes": self.attributes,
        }

    @classmethod
    def of(cls, kept: Mapping[str, Any] | None) -> Thing | None:
        """From JSON."""
        return None if kept is None else cls(**kept)


def is_gone(refused: Refused) -> bool:
    """Whether a refusal says that there is no such thing."""
    return bool(
        _GONE.search(refused.code) or (refused.code.startswith("Valid") and _GONE_WORDS.search(refused.message))
    )


class Resource:
    """What a type's functions act on. thing: the resource; old: the properties that it has, while it is changed.

    key: what the action is called in the journal; save: writes the journal and the thing, in a transaction; stop: raises
    Cancelled when nothing more is to be done.
    """

    def __init__(
        self,
        actor: Actor,
        stack: Stack,
        logical: str,
        thing: Thing,
        *,
        service: str,
        key: str,
        journal: dict[str, Any],
        attempt: str,
        run: str,
        save: Callable[[Transaction, dict[str, Any]], None],
        stop: Callable[[], None],
        old: dict[str, Any] | None = None,
    ) -> None:
        self.actor = actor
        self.stack = stack
        self.logical = logical
        self.thing = thing
        self.service = service
        self.old = old if old is not None else {}
        self.journal = journal
        self.key = key
        self._attempt = attempt
        self.run = run
        self._save = save
        self.stop = stop

    # -- what it is ----------------------------------------------------------------------------------------------------

    @property
    def calls(self) -> Calls:
        """The corridor."""
        return self.actor.calls

    @property
    def properties(self) -> dict[str, Any]:
        """What it is to be."""
        return self.thing.properties

    @property
    def physical(self) -> str:
        """Its id."""
        return self.thing.physical

    def get(self, name: str, default: Any = None) -> Any:
        """A property."""
        return self.thing.properties.get(name, default)

    def fact(self, name: str) -> Any:
        """An attribute, or else a property, by name; ``Ref`` is the physical id."""
        if name == "Ref":
            return self.thing.physical
        found = self.thing.attributes.get(name)
        return self.thing.properties.get(name) if found is None else found

    def changed(self, *names: str) -> bool:
        """Whether one of these properties is to be another."""
        return any(self.old.get(name) != self.thing.properties.get(name) for name in names)

    def only(self, *names: str) -> dict[str, Any]:
        """Those of these properties that were given."""
        return {name: self.thing.properties[name] for name in names if self.thing.properties.get(name) is not None}

    def but(self, *names: str) -> dict[str, Any]:
        """All properties that were given but these."""
        return {name: one for name, one in self.thing.properties.items() if name not in names and one is not None}

    def name(self, most: int = 63, *, lower: bool = False, given: Any = None) -> str:
        """The name that was given, or one made of the stack's and the resource's, the same however often it is asked."""
        if given:
            return str(given)
        told = f"{self.stack.uuid}/{self.logical}/{self._attempt}"
        tail = base64.b32encode(hashlib.sha256(told.encode()).digest()).decode()[:12]
        room = most - len(tail) - 1
        stack, logical = self.stack.stack_name, self.logical
        front = f"{stack}-{logical}"
        if len(front) > room:
            half = (room - 1) // 2
            front = f"{stack[: max(half, room - 1 - len(logical))]}-{logical[:half]}"[:room]
        found = f"{front.strip('-')}-{tail}"
        return found.lower() if lower else found

    def tags(self, own: str = "Tags") -> list[dict[str, str]]:
        """The stack's tags and the resource's own, which win."""
        given = self.thing.properties.get(own) or []
        mine = {one["Key"]: one["Value"] for one in given} if isinstance(given, list) else dict(given)
        return [{"Key": key, "Value": str(value)} for key, value in {**self.stack.tags, **mine}.items()]

    # -- what is done to it --------------------------------------------------------------------------------------------

    async def do(
        self,
        operation: str,
        input: Mapping[str, Any],
        *,
        service: str = "",
        key: str = "",
        body: Body | None = None,
        prepared: Any = None,
    ) -> Output:
        """A call that changes something, made once; its answer, also when it was made before. key: what tells it from
        other calls of the operation, where its input does not. Raises Refused, Cancelled."""
        held = service or self.service
        told = key or hashlib.sha256(orjson.dumps(input, option=orjson.OPT_SORT_KEYS, default=str)).hexdigest()[:20]
        step = f"{self.key}/{operation}:{told}"
        if step in self.journal:
            found: Output = self.journal[step]
            return found
        self.stop()
        point = f"stack/{self.thing.type}/{self.key.partition('#')[0]}/{operation}"
        reach(f"{point}:before")
        kept: dict[str, Any] = {}

        def also(tx: Transaction, output: Output) -> None:
            kept.clear()
            kept.update(_plain(output))
            self._save(tx, {**self.journal, step: kept})

        output = await self.actor.act(held, operation, input, also=also, body=body, prepared=prepared)
        self.journal[step] = kept
        reach(f"{point}:after")
        return output

    async def drop(self, operation: str, input: Mapping[str, Any], *, service: str = "") -> None:
        """A call that takes something away; what is not there is taken away. Raises Refused, Cancelled."""
        try:
            await self.do(operation, input, service=service)
        except Refused as refused:
            if not is_gone(refused):
                raise

    async def read(self, operation: str, input: Mapping[str, Any], *, service: str = "") -> Output:
        """A call that changes nothing; raises Refused."""
        return await self.actor.act(service or self.service, operation, input)

    async def seen(self, operation: str, input: Mapping[str, Any], *, service: str = "") -> Output | None:
        """A call that changes nothing; None if there is no such thing. Raises Refused."""
        try:
            return await self.read(operation, input, service=service)
        except Refused as refused:
            if is_gone(refused):
                return None
            raise

    async def until(self, there: Callable[[], Awaitable[bool]]) -> None:
        """Asks again and again until it is so; raises Cancelled, and Refused as the asking does."""
        pause = _FIRST_PAUSE
        while not await there():
            self.stop()
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)


def _plain(output: Output) -> dict[str, Any]:
    return {key: value for key, value in output.items() if not hasattr(value, "__aiter__")}


Action = Callable[[Resource], Awaitable[None]]
Reading = Callable[[Resource], Awaitable["dict[str, Any] | None"]]


@dataclass(frozen=True, slots=True)
class Type:
    """A type of resources: which calls make, change, remove and read one.

    create: sets `thing.physical` and `thing.attributes`. update: None if every change makes a new one. read: the properties
    that it has, None if it is gone; for drift, as far as AWS finds it. calls: the operations that it needs, the first of
    which makes one; a type whose operations are not there is not there. replaces: properties beyond the schema's that no
    update changes. mark: the ARN whose row is given CloudFormation's own tags.
    """

    name: str
    service: str
    create: Action
    delete: Action
    update: Action | None = None
    read: Reading | None = None
    calls: tuple[tuple[str, str], ...] = ()
    replaces: frozenset[str] = frozenset()
    mark: Callable[[Resource], str] | None = None
    iam: bool = False
    named: str = ""
    """The property that names it, for CAPABILITY_NAMED_IAM."""


def mark(calls: Calls, tx: Transaction, arn: str, tags: Mapping[str, str]) -> Row | None:
    """Gives a resource CloudFormation's own tags (``aws:cloudformation:...``), which no caller may set. None where its kind
    keeps no tags."""
    try:
        parsed = Arn.parse(arn)
    except ValueError:
        return None
    kind = calls.registry.kind(parsed)
    if kind is None or not kind.tags:
        return None
    try:
        row = kind.get(tx, *kind.locate(arn, parsed.account, parsed.region))
    except Refused:
        return None
    if row is not None:
        row.tags = {**row.tags, **tags}
        tx.update(row, keep=False)
    return row
