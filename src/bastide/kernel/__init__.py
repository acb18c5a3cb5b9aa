"""What every noun and every operation has in common: declared, asked, handled, recorded, listed, kept."""

from bastide.kernel import pages
from bastide.kernel.call import Authorised, Body, Bytes, Call, Question, Request
from bastide.kernel.calls import Calls, Unforeseen
from bastide.kernel.idempotency import once
from bastide.kernel.identity import (
    ANONYMOUS,
    Caller,
    Directory,
    Organisation,
    Sealer,
    Session,
    Sessions,
    new_secret,
    service_caller,
    unique_id,
)
from bastide.kernel.kind import (
    About,
    Ask,
    Asked,
    Facts,
    Kind,
    Operation,
    Output,
    Registry,
    Service,
    anything,
    each,
    member,
)
from bastide.kernel.regular import fill, page, regular, tags_of

__all__ = [
    "ANONYMOUS",
    "About",
    "Ask",
    "Asked",
    "Authorised",
    "Body",
    "Bytes",
    "Call",
    "Caller",
    "Calls",
    "Directory",
    "Facts",
    "Kind",
    "Operation",
    "Organisation",
    "Output",
    "Question",
    "Registry",
    "Request",
    "Sealer",
    "Service",
    "Session",
    "Sessions",
    "Unforeseen",
    "anything",
    "each",
    "fill",
    "member",
    "new_secret",
    "once",
    "page",
    "pages",
    "regular",
    "service_caller",
    "tags_of",
    "unique_id",
]
