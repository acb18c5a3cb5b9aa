"""One call on its way: what was asked, by whom, over what, and the proof that it may be done."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from bastide.domain import Instant
from bastide.kernel.identity import Caller
from bastide.kernel.kind import Operation

if TYPE_CHECKING:
    from bastide.kernel.calls import Calls
    from bastide.store import Event, Transaction, View

T = TypeVar("T")


class Body(Protocol):
    """A streamed upload, unread until somebody may read it."""

    length: int | None

    def chunks(self) -> AsyncIterator[bytes]:
        """The verified bytes; raises Refused when signature, length or checksum do not hold."""
        ...

    def checksums(self) -> Mapping[str, str]:
        """After the last chunk: verified checksums, base64, by algorithm."""
        ...


class Bytes:
    """A body that is at hand whole: what services and workflows upload."""

    def __init__(self, data: bytes) -> None:
        self.length: int | None = len(data)
        self._data = data

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes, in one piece."""
        yield self._data

    def checksums(self) -> Mapping[str, str]:
        """None: nobody sent any."""
        return {}


@dataclass(slots=True)
class Request:
    """What is known of a request beside its content; never changed once made.

    secure: came over TLS. via: services it was forwarded by, first first. protocol: wire protocol it was spoken in.
    content_sha256: what the request says of its body's hash (``x-amz-content-sha256``).
    """

    id: str
    at: Instant
    source_ip: str
    user_agent: str
    secure: bool
    protocol: str
    host: str = ""
    tls: str = ""
    via: tuple[str, ...] = ()
    signed: str = ""
    signed_at: Instant = 0
    vpce: str = ""
    referer: str = ""
    content_sha256: str = ""


@dataclass(slots=True)
class Call:
    """A parsed, authenticated call. account, region: the caller's account and the region asked."""

    operation: Operation
    input: dict[str, Any]
    caller: Caller
    account: str
    region: str
    request: Request
    body: Body | None = None
    context: dict[str, str | tuple[str, ...]] = field(default_factory=dict)
    prepared: Any = None
    """What `Operation.prepare` found."""
    told: dict[str, Any] = field(default_factory=dict)
    """What the record's ``additionalEventData`` says of it beside the decision."""
    also: Callable[[Transaction, dict[str, Any]], None] | None = None
    """Done with the output in the handler's transaction: what a workflow remembers of a call it made, so that it is made
    once whenever a process ends."""


@dataclass(slots=True)
class Question:
    """A question that was answered: what the record keeps of a decision, so that it can be decided again."""

    action: str
    resource: str
    account: str
    context: Mapping[str, str | tuple[str, ...]]
    verdict: str
    layer: str = ""
    source: str = ""
    statement: int | None = None
    sid: str = ""


_MADE_BY_AUTHORISE = object()


class Authorised:
    """Proof that every question of a call was answered yes. Only `kernel.authorise` makes one."""

    __slots__ = (
        "account",
        "call",
        "caller",
        "calls",
        "events",
        "input",
        "operation",
        "questions",
        "region",
        "request",
        "seen",
        "staged",
        "touched",
    )

    def __init__(self, proof: object, call: Call, calls: Calls, questions: Sequence[Question]) -> None:
        if proof is not _MADE_BY_AUTHORISE:
            raise TypeError("an Authorised is made by authorise alone")
        self.call = call
        self.calls = calls
        self.questions = questions
        self.operation = call.operation
        self.input = call.input
        self.caller = call.caller
        self.account = call.account
        self.region = call.region
        self.request = call.request
        self.staged: Any = None
        self.seen = -1
        """Which state the questions were answered in (`View.changes`)."""
        self.events: list[Event] = []
        """The record of the whole request; calls forwarded to other services add theirs."""
        self.touched: list[str] = []
        """ARNs of further resources that the record names."""

    @property
    def now(self) -> Instant:
        """When the request came in."""
        return self.request.at

    def engine(self, port: type[T]) -> T:
        """The engine behind a port, as composed."""
        return self.calls.engine(port)

    def forward(
        self, view: View, service: str, operation: str, input: dict[str, Any], via: str, **context: Any
    ) -> dict[str, Any]:
        """Calls another service for this caller, within the same view or transaction (a forward access session):
        the caller's own permissions are asked, with ``aws:ViaAWSService`` and `context` beside them.

        Raises Refused as the other service does.
        """
        return self.calls.forward(self, view, service, operation, input, via, context)
