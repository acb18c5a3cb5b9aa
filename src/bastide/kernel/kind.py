"""Nouns and their operations, declared. What is not declared here does not exist."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bastide.domain import Arn, Refused, Tags
from bastide.policy import Attached
from bastide.store import Row, Stale, Taken, Transaction, View

if TYPE_CHECKING:
    from bastide.kernel.call import Authorised, Call
    from bastide.kernel.calls import Calls
    from bastide.kernel.identity import Caller

Output = dict[str, Any]
Handler = Callable[["Authorised", Any], Output]
Before = Callable[["Authorised"], Awaitable[Any]]
After = Callable[["Authorised", Output], Awaitable[Output]]
Identify = Callable[["Calls", View, "Call"], "Caller"]
Prepare = Callable[["Calls", "Call"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a question may look at to find out what it is about."""

    call: Call
    view: View

    @property
    def input(self) -> dict[str, Any]:
        """The call's parsed input."""
        return self.call.input


About = Callable[[Asked], Iterable[str]]
Given = Callable[[Asked], "str | Sequence[str] | None"]


@dataclass(frozen=True, slots=True)
class Ask:
    """One question to the policy engine: may the caller do `action` to each resource that `about` names?

    given: condition keys that this question fills from the request; None and empty leave a key out. more: further
    keys, where their names come from the request too (``kms:EncryptionContext:...``) or one look finds several; declared
    with `fills`.
    when: the question is asked only if this holds. needless: AWS answers every authenticated caller
    (sts:GetCallerIdentity); the question is recorded, and Anonymous is refused.
    """

    action: str
    about: About
    given: Mapping[str, Given] = field(default_factory=dict)
    more: Callable[[Asked], Mapping[str, str | Sequence[str]]] | None = None
    when: Callable[[Asked], bool] | None = None
    needless: bool = False


@dataclass(frozen=True, slots=True)
class Fills:
    """A reader of condition keys that says which ones it may find, so that a page and the tests can tell."""

    names: tuple[str, ...]
    read: Callable[[Asked], Mapping[str, str | Sequence[str]]]

    def __call__(self, asked: Asked) -> Mapping[str, str | Sequence[str]]:
        return self.read(asked)


def fills(*names: str) -> Callable[[Callable[[Asked], Mapping[str, str | Sequence[str]]]], Fills]:
    """Declares the keys that the function below it finds, as the Service Authorization Reference writes them: a part that
    the request words is ``${...}`` (``kms:EncryptionContext:${EncryptionContextKey}``)."""

    def declare(read: Callable[[Asked], Mapping[str, str | Sequence[str]]]) -> Fills:
        return Fills(names, read)

    return declare


def anything(_: Asked) -> Iterable[str]:
    """The action takes no resource: ``*``."""
    return ("*",)


def member(path: str) -> About:
    """The ARNs standing at a dotted path of the input; none if it is absent."""
    read = each(path)

    def about(asked: Asked) -> Iterable[str]:
        found = read(asked)
        return () if found is None else (found,) if isinstance(found, str) else found

    return about


def each(path: str) -> Given:
    """All texts at a dotted path of the input, lists walked through: a text, several, or None."""
    parts = path.split(".")

    def read(asked: Asked) -> str | Sequence[str] | None:
        here: list[Any] = [asked.input]
        many = False
        for part in parts:
            below: list[Any] = []
            for one in here:
                value = one.get(part) if isinstance(one, dict) else None
                if isinstance(value, list):
                    many = True
                    below += value
                elif value is not None:
                    below.append(value)
            here = below
        texts = [("true" if one else "false") if isinstance(one, bool) else str(one) for one in here]
        if not texts:
            return None
        return texts if many or len(texts) > 1 else texts[0]

    return read


@dataclass(frozen=True, slots=True)
class Facts:
    """What a decision needs to know of a resource: whose it is, its tags, its policy."""

    account: str
    tags: Mapping[str, str] = field(default_factory=dict)
    policy: Attached | None = None
    policy_kind: str = ""
    type: str = ""
    grants: Callable[[View, Caller], Sequence[Attached]] | None = None
    """Of a KMS key: what finds the grants that concern a caller, each as a policy that allows its grantee."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """Condition keys that follow from the resource itself, lower case: ``ec2:vpc`` of a subnet."""
    text: str = ""
    principals: Mapping[str, str] = field(default_factory=dict)
    """The policy as it is written, and the unique ids of users and roles in it when it was (`kernel.principals`)."""
    own: bool = False
    """Its name does not tell whose it is, and nobody else has anything to do with it: to other accounts it is not there."""
    hidden: Refused | None = None
    """What other accounts are told that may not have it: the same as of what is not there."""


FactsOf = Callable[[View, Arn, str], "Facts | None"]


@dataclass(slots=True)
class Operation:
    """An API operation: its questions and its handler.

    mutates: runs in a transaction. data: its record is a data event. tells: its record shows the answer though nothing
    changed (who got which session). before: runs between authorisation and handler,
    outside of any transaction (receives a streamed body); what it returns is the handler's `a.staged`, and the questions
    are asked again in the handler's transaction. after: runs when the handler's work is on the disk. identify: who calls,
    for an operation that needs no signature because its input tells (an assertion, a token); raises Refused for an input
    that does not. What it puts into the call's context, the questions see; fills: which condition keys those are. prepare:
    runs before the store is opened for the questions, when nothing has been allowed yet: fetches an issuer's keys,
    verifies an assertion, spends a one-time code; what it found is the call's `prepared`. A call forwarded by another
    service is not prepared. inside: no request means it; services and protocols of their own reach it through `Calls`.
    """

    service: str
    name: str
    asks: tuple[Ask, ...]
    handle: Handler
    mutates: bool
    data: bool = False
    tells: bool = False
    global_: bool = False
    fills: tuple[str, ...] = ()
    before: Before | None = None
    after: After | None = None
    undo: Callable[[Authorised], Awaitable[None]] | None = None
    identify: Identify | None = None
    prepare: Prepare | None = None
    event_name: str = ""
    inside: bool = False

    @property
    def read_only(self) -> bool:
        """As CloudTrail's readOnly has it."""
        return not self.mutates


class Kind:
    """A noun: how it is named, where it is kept, what happens to it by itself."""

    def __init__(
        self,
        name: str,
        *,
        service: str,
        arn: str,
        named_by: str = "",
        global_: bool = False,
        arn_service: str = "",
        arn_account: bool = True,
        tags: bool = True,
        states: Sequence[str] = (),
        history: bool = True,
        missing: tuple[str, str, int] = ("ValidationException", "Could not find {what} `{name}`.", 400),
        taken: tuple[str, str, int] = ("ResourceInUse", "{what} already exists: {arn}", 400),
        fills: Sequence[str] = (),
    ) -> None:
        """service: botocore's name of the service. arn: the ARN's resource part with ``{}`` for the name.
        missing, taken: error code, message and status; ``{what}``, ``{name}`` and ``{arn}`` are filled in.
        fills: condition keys that a resource of this kind brings to every question about it (`Facts.keys`)."""
        self.name = name
        self.service = service
        self.key = f"{service}:{name}"
        self.pattern = arn
        self.named_by = named_by or f"{name}Name"
        self.global_ = global_
        self.arn_service = arn_service or service
        self.arn_account = arn_account
        self.tags = tags
        self.states = tuple(states)
        self.history = history
        self.missing = missing
        self.taken = taken
        self.fills = tuple(fills)
        self.operations: list[Operation] = []
        self.type, _, _ = arn.partition("{")
        self.policy_of: Callable[[View, Row], Attached | None] | None = None
        self._state: Callable[[Row], Any] | None = None
        self._told: Callable[[Kind, Transaction, Row, str, bool], None] | None = None

    # -- names ---------------------------------------------------------------------------------------------------------

    def region(self, region: str) -> str:
        """The region state is kept under: none for a global service."""
        return "" if self.global_ else region

    def arn(self, account: str, region: str, name: str) -> str:
        """The resource's ARN."""
        where = f"{self.region(region)}:{account if self.arn_account else ''}"
        return f"arn:aws:{self.arn_service}:{where}:{self.pattern.replace('{}', name)}"

    def locate(self, given: str, account: str, region: str) -> tuple[str, str, str]:
        """Account, region and name of what a caller names by name or by ARN; raises Refused for an alien ARN.

        An ARN is taken only as `arn` writes it, because questions are about the ARN as it was given: another partition,
        an empty account or region would find the same row under a name that no policy speaks of.
        """
        if not given.startswith("arn:"):
            return account, self.region(region), given
        try:
            arn = Arn.parse(given)
        except ValueError as error:
            raise Refused("ValidationException", f"Invalid ARN: {error}") from None
        before, _, behind = self.pattern.partition("{}")
        if arn.service != self.arn_service or not (
            arn.resource.startswith(before) and arn.resource.endswith(behind) and arn.resource != before
        ):
            raise Refused("ValidationException", f"`{given}` is not the ARN of a {self.name}.")
        name = arn.resource[len(before) : len(arn.resource) - len(behind)]
        if given != self.arn(arn.account, arn.region, name) or (self.arn_account and not arn.account):
            raise Refused("ValidationException", f"`{given}` is not the ARN of a {self.name}.")
        return arn.account or account, self.region(arn.region), name

    def this(self, asked: Asked) -> Iterable[str]:
        """The ARN of the resource that the call names."""
        given = asked.input.get(self.named_by)
        if given is None:
            return ("*",)
        if str(given).startswith("arn:"):
            return (str(given),)
        return (self.arn(asked.call.account, asked.call.region, str(given)),)

    # -- rows ----------------------------------------------------------------------------------------------------------

    def get(self, view: View, account: str, region: str, name: str) -> Row | None:
        """The row, or None."""
        return view.get(self.key, account, self.region(region), name)

    def find(self, view: View, account: str, region: str, name: str) -> Row:
        """The row; raises Refused as the kind's `missing` says."""
        row = view.get(self.key, account, self.region(region), name)
        if row is None:
            code, message, status = self.missing
            raise Refused(
                code,
                message.format(what=self.name, name=name, arn=self.arn(account, region, name)),
                status,
            )
        return row

    def named(self, a: Authorised, view: View) -> Row:
        """The row that the call names, by name or by ARN."""
        return self.find(view, *self.locate(str(a.input[self.named_by]), a.account, a.region))

    def create(
        self,
        a: Authorised,
        tx: Transaction,
        name: str,
        doc: dict[str, Any],
        *,
        status: str = "",
        tags: Tags | None = None,
    ) -> Row:
        """A new row, with history, and an event in the outbox; raises Refused as the kind's `taken` says."""
        row = Row(self.key, a.account, self.region(a.region), name, doc, status, tags or {})
        try:
            self.insert(tx, row, a.operation.name, a.request.id)
        except Taken:
            code, message, code_status = self.taken
            arn = self.arn(a.account, a.region, name)
            raise Refused(code, message.format(what=self.name, name=name, arn=arn), code_status) from None
        return row

    def insert(self, tx: Transaction, row: Row, event: str, request_id: str = "") -> None:
        """Writes a new row, with history, and an event in the outbox; raises Taken."""
        self._changed(row)
        tx.insert(row, event=event, request_id=request_id, keep=self.history)
        self._emit(tx, row, event, request_id)
        if self._told is not None:
            self._told(self, tx, row, event, False)

    def follow(self, state: Callable[[Row], Any], told: Callable[[Kind, Transaction, Row, str, bool], None]) -> None:
        """Has `told` called in the transaction that makes a row, changes what `state` (JSON) says of it, or removes it
        (the last argument)."""
        self._state, self._told = state, told

    def _changed(self, row: Row) -> bool:
        """Whether what is followed of a row changed since it was told last."""
        if self._state is None:
            return False
        state = self._state(row)
        if row.doc.get("_told") == state:
            return False
        row.doc["_told"] = state
        return True

    def change(self, tx: Transaction, row: Row, event: str, request_id: str = "") -> None:
        """Writes a changed row, with history, and an event in the outbox; raises Refused if somebody was faster."""
        changed = self._changed(row)
        try:
            tx.update(row, event=event, request_id=request_id, keep=self.history)
        except Stale:
            raise Refused(
                "ConflictException", f"{self.name} `{row.name}` was changed at the same time. Please try again.", 409
            ) from None
        self._emit(tx, row, event, request_id)
        if changed and self._told is not None:
            self._told(self, tx, row, event, False)

    def remove(self, tx: Transaction, row: Row, event: str, request_id: str = "") -> None:
        """Removes a row, with history, and an event in the outbox."""
        tx.delete(row, event=event, request_id=request_id, keep=self.history)
        self._emit(tx, row, event, request_id)
        if self._told is not None:
            self._told(self, tx, row, event, True)

    def _emit(self, tx: Transaction, row: Row, event: str, request_id: str) -> None:
        if not self.history:
            return
        tx.emit(
            self.key,
            {
                "event": event,
                "arn": self.arn(row.account, row.region, row.name),
                "account": row.account,
                "region": row.region,
                "name": row.name,
                "status": row.status,
                "request_id": request_id,
            },
        )

    # -- operations ----------------------------------------------------------------------------------------------------

    def operation(
        self, name: str, *, asks: Sequence[Ask], mutates: bool = True, **more: Any
    ) -> Callable[[Handler], Handler]:
        """Declares the function below it as the operation's handler."""

        def declare(handle: Handler) -> Handler:
            self.operations.append(
                Operation(self.service, name, tuple(asks), handle, mutates, global_=self.global_, **more)
            )
            return handle

        return declare

    def reads(self, name: str, *, asks: Sequence[Ask], **more: Any) -> Callable[[Handler], Handler]:
        """Like `operation`, for one that changes nothing: its handler gets a view."""
        return self.operation(name, asks=asks, mutates=False, **more)

    def facts(self, view: View, arn: Arn) -> Facts | None:
        """Owner, tags and policy of a resource of this kind."""
        _, _, name = self.locate(str(arn), arn.account, arn.region)
        row = self.get(view, arn.account, arn.region, name)
        if row is None:
            return Facts(arn.account, type=self.name)
        policy = self.policy_of(view, row) if self.policy_of is not None else None
        text, principals = row.doc.get("_policy", ""), row.doc.get("_principals", {})
        return Facts(arn.account, row.tags, policy, type=self.name, text=text, principals=principals)


@dataclass(slots=True)
class Service:
    """A service: botocore's name of it, its nouns, and how facts of its resources are found where that is special."""

    name: str
    kinds: Sequence[Kind]
    facts: FactsOf | None = None
    event_source: str = ""
    prefix: str = ""

    def __post_init__(self) -> None:
        self.prefix = self.prefix or self.name
        self.event_source = self.event_source or f"{self.prefix}.amazonaws.com"


class Registry:
    """All services. What a request may ask for is what stands here."""

    def __init__(self, services: Sequence[Service]) -> None:
        self.services = {service.name: service for service in services}
        self.operations: dict[tuple[str, str], Operation] = {}
        self._kinds: dict[str, list[Kind]] = {}
        self._facts: dict[str, FactsOf] = {}
        for service in services:
            if service.facts is not None:
                self._facts[service.prefix] = service.facts
            for kind in service.kinds:
                self._kinds.setdefault(kind.arn_service, []).append(kind)
                for operation in kind.operations:
                    if not operation.asks:
                        raise ValueError(f"{operation.service}:{operation.name} asks nothing; it must not exist")
                    key = (operation.service, operation.name)
                    if key in self.operations:
                        raise ValueError(f"{key} is declared twice")
                    self.operations[key] = operation
        for kinds in self._kinds.values():
            kinds.sort(key=lambda kind: -len(kind.type))

    def operation(self, service: str, name: str) -> Operation | None:
        """The operation, or None: then it does not exist."""
        return self.operations.get((service, name))

    def kind(self, arn: Arn) -> Kind | None:
        """The kind that an ARN names."""
        for kind in self._kinds.get(arn.service, ()):
            if arn.resource.startswith(kind.type):
                return kind
        return None

    def facts(self, view: View, resource: str, account: str, action: str) -> Facts:
        """What is known of a resource; of one that does not exist, only whose it would be."""
        if resource == "*":
            return Facts(account)
        try:
            arn = Arn.parse(resource)
        except ValueError:
            return Facts(account)
        special = self._facts.get(arn.service)
        if special is not None:
            found = special(view, arn, action)
            if found is not None:
                return Facts("", type=found.type) if found.own and found.account != account else found
        kind = self.kind(arn)
        if kind is not None:
            try:
                found = kind.facts(view, arn)
            except Refused:
                found = None
            if found is not None:
                return found
        return Facts(arn.account or account)
