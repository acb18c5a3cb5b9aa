"""What is kept of stacks: their rows, their resources', their events, and what is exported from one to another.

What a template, a parameter or a resource holds may be secret, so all of it is sealed; names, states and reasons are not.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from bastide.domain import Refused, iso, new_id
from bastide.kernel import Asked, Calls, Kind, happened
from bastide.services.cloudformation.acting import Principal
from bastide.services.cloudformation.resource import Stack, Thing
from bastide.store import Row, Taken, Transaction, View

STACK = Kind(
    "Stack",
    service="cloudformation",
    arn="stack/{}",
    named_by="StackName",
    missing=("ValidationError", "Stack with id {name} does not exist", 400),
    taken=("AlreadyExistsException", "Stack [{name}] already exists", 400),
)
LIVE: Final = "cloudformation:StackName"
"""Rows that tell which stack has a name now."""
RESOURCE: Final = "cloudformation:StackResource"
EVENT: Final = "cloudformation:StackEvent"
EXPORT: Final = "cloudformation:Export"
IMPORT: Final = "cloudformation:Import"
CHANGE_SET: Final = "cloudformation:ChangeSet"
"""Rows named by the stack's id and the change set's name."""
SET_ID: Final = "cloudformation:ChangeSetId"
"""Rows that tell the stack of a change set, by the end of its ARN."""
SIGNAL: Final = "cloudformation:Signal"
PURPOSE: Final = "cloudformation"
OVER: Final = "DELETE_COMPLETE"
_counter = itertools.count()
_MOST_RESOURCES: Final = 2000
_AT_A_TIME: Final = 500


def seal(calls: Calls, value: Any) -> str:
    """JSON that only this platform can read."""
    return calls.sealer.seal(orjson.dumps(value, default=str), PURPOSE)


def opened(calls: Calls, sealed: str) -> Any:
    """What was sealed."""
    return orjson.loads(calls.sealer.open(sealed, PURPOSE))


@dataclass(slots=True)
class State:
    """What a stack is made of at one time.

    body: the template as it was given; processed: after its transforms, as JSON. parameters: as they were given,
    values: what they resolve to. role: the service role's ARN, empty without one.
    """

    body: str
    processed: str
    parameters: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    stored: dict[str, str] = field(default_factory=dict)
    hidden: list[str] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    capabilities: list[str] = field(default_factory=list)
    notifications: list[str] = field(default_factory=list)
    role: str = ""
    description: str = ""

    def kept(self) -> dict[str, Any]:
        """As JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


def state_of(calls: Calls, row: Row, member: str = "state") -> State:
    """The state that a stack's row keeps."""
    return State(**opened(calls, row.doc[member]))


# -- names -------------------------------------------------------------------------------------------------------------


def active(view: View, account: str, region: str, given: str) -> Row | None:
    """The stack of a name or ARN; a name means the one that is not deleted. None if there is none."""
    if given.startswith("arn:"):
        _, _, name = STACK.locate(given, account, region)
        owner, where, _ = STACK.locate(given, account, region)
        return view.get(STACK.key, owner, where, name) if owner == account else None
    held = view.get(LIVE, account, region, given)
    return None if held is None else view.get(STACK.key, account, region, f"{given}/{held.doc['id']}")


def found(view: View, account: str, region: str, given: str, *, id: bool = False) -> Row:
    """Like `active`; raises Refused("ValidationError"), in the words of operations that speak of a stack's id, or not."""
    row = active(view, account, region, given)
    if row is None:
        raise Refused(
            "ValidationError",
            f"Stack [{given}] does not exist"
            if "/" not in given and not id
            else f"Stack with id {given} does not exist",
        )
    return row


def set_of(view: View, stack: Row, given: str) -> Row | None:
    """A stack's change set, by name or ARN; None if there is none."""
    name = given.partition(":changeSet/")[2].partition("/")[0] if given.startswith("arn:") else given
    row = view.get(CHANGE_SET, stack.account, stack.region, f"{stack.name.partition('/')[2]}/{name}")
    return row if row is not None and (name == given or row.doc["arn"] == given) else None


def arn_of(row: Row) -> str:
    """A stack's ARN, which is its id."""
    return STACK.arn(row.account, row.region, row.name)


def this(member: str = "StackName") -> Any:
    """The ARN of the stack that a call names: the real one, or of what would be so named."""

    def about(asked: Asked) -> Iterable[str]:
        given = asked.input.get(member)
        if not given:
            return ("*",)
        if given.startswith("arn:"):
            return (given,)
        row = active(asked.view, asked.call.account, asked.call.region, given)
        if row is not None:
            return (arn_of(row),)
        return (STACK.arn(asked.call.account, asked.call.region, f"{given}/*"),)

    return about


def stack_of_set(view: View, account: str, region: str, input: Mapping[str, Any]) -> Row | None:
    """The stack of the change set that a call names."""
    given = str(input["ChangeSetName"])
    if given.startswith("arn:"):
        held = view.get(SET_ID, account, region, given.partition(":changeSet/")[2])
        return None if held is None else view.get(STACK.key, account, region, held.doc["stack"])
    return active(view, account, region, input["StackName"]) if input.get("StackName") else None


def of_set(asked: Asked) -> Iterable[str]:
    """The ARN of the stack of the change set, or of the stack, that a call names."""
    row = None
    if asked.input.get("ChangeSetName"):
        row = stack_of_set(asked.view, asked.call.account, asked.call.region, asked.input)
    if row is not None:
        return (arn_of(row),)
    if asked.input.get("StackName"):
        found_: Iterable[str] = this()(asked)
        return found_
    return (STACK.arn(asked.call.account, asked.call.region, "*"),)


def stack_of(calls: Calls, row: Row, state: State) -> Stack:
    """The stack as its resources see it."""
    return Stack(
        row.account, row.region, row.name, arn_of(row), state.tags, tuple(state.notifications), tuple(state.capabilities),
        row.doc.get("RootId") or arn_of(row),
    )  # fmt: skip


# -- events ------------------------------------------------------------------------------------------------------------


def tell(
    tx: Transaction,
    row: Row,
    *,
    logical: str = "",
    physical: str = "",
    type: str = "AWS::CloudFormation::Stack",
    status: str,
    reason: str = "",
) -> None:
    """An event of a stack (no `logical`), or of a resource."""
    id = f"{logical}-{status}-{iso(tx.now)}" if logical else new_id()
    doc = {
        "EventId": id if not logical else f"{logical}-{status}-{new_id()}",
        "LogicalResourceId": logical or row.name.partition("/")[0],
        "PhysicalResourceId": physical if logical else arn_of(row),
        "ResourceType": type,
        "ResourceStatus": status,
        "Timestamp": tx.now,
    }
    if reason:
        doc["ResourceStatusReason"] = reason
    token = (row.doc.get("operation") or {}).get("token")
    if token:
        doc["ClientRequestToken"] = token
    uuid = row.name.partition("/")[2]
    name = f"{uuid}/{tx.now:016d}{next(_counter) % 1_000_000:06d}"
    tx.insert(Row(EVENT, row.account, row.region, name, doc), keep=False)
    detail: dict[str, Any] = {"stack-id": arn_of(row), "status-details": {"status": status, "status-reason": reason}}
    kind = "CloudFormation Stack Status Change"
    if logical:
        kind = "CloudFormation Resource Status Change"
        detail |= {"logical-resource-id": logical, "physical-resource-id": physical, "resource-type": type}
    happened.tell(
        tx,
        account=row.account,
        region=row.region,
        source="aws.cloudformation",
        detail_type=kind,
        resources=[arn_of(row)],
        detail=detail,
    )


def become(tx: Transaction, row: Row, status: str, reason: str = "", event: str = "") -> None:
    """A stack's new status, with its event."""
    row.status = status
    if reason:
        row.doc["reason"] = reason
    else:
        row.doc.pop("reason", None)
    tell(tx, row, status=status, reason=reason)
    STACK.change(tx, row, event or status)


# -- resources ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Held:
    """A resource's row, opened. now: as it is; next: as it is to be; before: as it was when the operation began; spares:
    what was replaced and is to be removed. action: what the operation does to it; done: whether it is done."""

    row: Row
    now: Thing | None
    next: Thing | None
    before: Thing | None
    spares: list[Thing]
    journal: dict[str, Any]

    @property
    def logical(self) -> str:
        """Its name in the template."""
        return self.row.name.partition("/")[2]

    @property
    def doc(self) -> dict[str, Any]:
        """What is kept in the clear."""
        return self.row.doc

    @property
    def depends(self) -> list[str]:
        """On which others it depends."""
        found: list[str] = self.row.doc.get("depends", [])
        return found

    def sealed(self, calls: Calls, journal: Mapping[str, Any] | None = None) -> str:
        """What is kept sealed."""
        return seal(
            calls,
            {
                "now": self.now.kept() if self.now else None,
                "next": self.next.kept() if self.next else None,
                "before": self.before.kept() if self.before else None,
                "spares": [one.kept() for one in self.spares],
                "journal": self.journal if journal is None else journal,
            },
        )


def resource_of(calls: Calls, row: Row) -> Held:
    """A resource's row, opened."""
    kept = opened(calls, row.doc["sealed"])
    return Held(
        row,
        Thing.of(kept["now"]),
        Thing.of(kept["next"]),
        Thing.of(kept["before"]),
        [Thing(**one) for one in kept["spares"]],
        kept["journal"],
    )


def new_resource(calls: Calls, stack: Row, logical: str) -> Held:
    """A resource that is not there yet."""
    uuid = stack.name.partition("/")[2]
    row = Row(RESOURCE, stack.account, stack.region, f"{uuid}/{logical}", {})
    held = Held(row, None, None, None, [], {})
    row.doc["sealed"] = held.sealed(calls)
    return held


def living(view: View, account: str, region: str) -> Iterator[Row]:
    """All stacks that are there, however many."""
    after: str | None = None
    while held := view.scan(LIVE, account, region, after=after, limit=_AT_A_TIME):
        for one in held:
            stack = view.get(STACK.key, account, region, f"{one.name}/{one.doc['id']}")
            if stack is not None:
                yield stack
        after = held[-1].name


def rows_of(view: View, stack: Row) -> list[Row]:
    """The rows of a stack's resources."""
    uuid = stack.name.partition("/")[2]
    return view.scan(RESOURCE, stack.account, stack.region, prefix=f"{uuid}/", limit=_MOST_RESOURCES)


def resources_of(calls: Calls, view: View, stack: Row) -> dict[str, Held]:
    """All resources of a stack, by name."""
    return {one.logical: one for one in (resource_of(calls, row) for row in rows_of(view, stack))}


def save(calls: Calls, tx: Transaction, held: Held, journal: Mapping[str, Any] | None = None) -> None:
    """Writes a resource's row; one that is not there yet is made."""
    held.row.doc["sealed"] = held.sealed(calls, journal)
    current = tx.get(RESOURCE, held.row.account, held.row.region, held.row.name)
    if current is None:
        held.row.generation = 0
        tx.insert(held.row, keep=False)
    else:
        held.row.generation = current.generation
        tx.update(held.row, keep=False)


# -- operations --------------------------------------------------------------------------------------------------------


def begin(row: Row, kind: str, principal: Principal, *, same: bool = False, **more: Any) -> None:
    """Notes what is to be done to a stack; the outbox starts it after the commit. same: it goes on with what the last
    operation did."""
    last = row.doc.get("operation") or {}
    id = last["id"] if same and last else new_id()
    row.doc["operation"] = {"id": id, "run": new_id(), "kind": kind, "principal": principal, **more}


def claim(tx: Transaction, row: Row) -> None:
    """The name is this stack's; raises Taken."""
    stack, _, uuid = row.name.partition("/")
    held = tx.get(LIVE, row.account, row.region, stack)
    if held is not None:
        raise Taken
    tx.insert(Row(LIVE, row.account, row.region, stack, {"id": uuid}), keep=False)


def release(tx: Transaction, row: Row) -> None:
    """The name is nobody's again."""
    held = tx.get(LIVE, row.account, row.region, row.name.partition("/")[0])
    if held is not None and held.doc["id"] == row.name.partition("/")[2]:
        tx.delete(held, keep=False)
