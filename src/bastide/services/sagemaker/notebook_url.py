"""How people get into a notebook instance: an address that is good once, and the session that it is exchanged for.

Both are kept by their digests, with who asked for the address. At every use that caller is asked about again, with where
the request comes from now: what restricts the address restricts what is behind it. Source: developer guide, "Access
notebook instances", "Control access to a notebook instance by IP address".
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bastide.domain import MICROS, Refused
from bastide.engines.serving import Client
from bastide.kernel import Ask, Authorised, Call, Calls, Output, Request, bearer
from bastide.services.sagemaker.notebook_host import Notebooks
from bastide.services.sagemaker.notebook_instance import INDEX, NOTEBOOK, THIS, arn_of, host_of
from bastide.store import Row, Transaction, View

_URL: Final = "sagemaker:NotebookUrl"
_SESSION: Final = "sagemaker:NotebookSession"
_PURPOSE: Final = "notebook"
_URL_SECONDS: Final = 300
_SECONDS: Final = 43_200
_SWEPT: Final = 50
_ASK: Final = Ask("sagemaker:CreatePresignedNotebookInstanceUrl", THIS)


@dataclass(frozen=True, slots=True)
class _Entering:
    """Digests of the address that is used, and of the session that begins."""

    url: str
    session: str


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _in_service(row: Row) -> None:
    if row.status != "InService":
        raise Refused(
            "ValidationException",
            f"The notebook instance {row.name} is {row.status}, not InService. Start it with StartNotebookInstance.",
        )


def _sweep(a: Authorised, tx: Transaction) -> None:
    """Removes some of what is over."""
    for kind in (_URL, _SESSION):
        for row in tx.scan(kind, a.account, a.region, order="created", limit=_SWEPT):
            if row.doc["until"] <= a.now:
                tx.delete(row, keep=False)


@NOTEBOOK.operation("CreatePresignedNotebookInstanceUrl", asks=[_ASK])
def presign(a: Authorised, tx: Transaction) -> Output:
    row = NOTEBOOK.named(a, tx)
    _in_service(row)
    seconds = int(a.input.get("SessionExpirationDurationInSeconds") or _SECONDS)
    holder, ends = bearer.issue(a.calls, a.caller, a.now + seconds * MICROS, _PURPOSE, row.doc["_id"])
    _sweep(a, tx)
    token = secrets.token_urlsafe(32)
    until = min(ends, a.now + _URL_SECONDS * MICROS)
    doc = {"id": row.doc["_id"], "holder": holder, "until": until, "ends": ends}
    tx.insert(Row(_URL, row.account, row.region, _digest(token), doc), keep=False)
    return {"AuthorizedUrl": f"https://{host_of(a, row)}?authToken={token}"}


@NOTEBOOK.operation("OpenNotebookInstance", asks=[_ASK], inside=True, data=True)
def _open(a: Authorised, tx: Transaction) -> Output:
    row, entering = NOTEBOOK.named(a, tx), a.call.prepared
    _in_service(row)
    url = tx.get(_URL, row.account, row.region, entering.url)
    if url is None:
        raise _spent()
    tx.delete(url, keep=False)
    doc = {"id": row.doc["_id"], "holder": url.doc["holder"], "until": url.doc["ends"]}
    tx.insert(Row(_SESSION, row.account, row.region, entering.session, doc), keep=False)
    return {}


@NOTEBOOK.reads("UseNotebookInstance", asks=[_ASK], inside=True, data=True)
def _use(a: Authorised, view: View) -> Output:
    _in_service(NOTEBOOK.named(a, view))
    return {}


def _spent() -> Refused:
    return Refused(
        "AccessDeniedException",
        "This address was used already, is over, or was never given out. Get a new one with "
        "CreatePresignedNotebookInstanceUrl.",
        403,
    )


def found(calls: Calls, label: str) -> Row | None:
    """The instance that the first part of a host's name means."""
    with calls.store.reading() as view:
        index = view.get(INDEX, "", "", label)
        return None if index is None else NOTEBOOK.get(view, *NOTEBOOK.locate(index.doc["arn"], "", ""))


async def enter(calls: Calls, request: Request, row: Row, token: str) -> tuple[str, int]:
    """Exchanges an address's token for a session's; that, and the seconds until it ends. Raises Refused."""
    session = secrets.token_urlsafe(32)
    entering = _Entering(_digest(token), _digest(session))
    held = await _run(calls, request, row, _URL, entering.url, "OpenNotebookInstance", entering)
    return session, int((held.doc["ends"] - request.at) // MICROS)


async def use(calls: Calls, request: Request, row: Row, session: str) -> tuple[Client, Path]:
    """What a session's holder may reach now: a client of Jupyter, and its socket. Raises Refused."""
    await _run(calls, request, row, _SESSION, _digest(session), "UseNotebookInstance", None)
    reached = calls.engine(Notebooks).at(arn_of(row))
    if reached is None:
        raise Refused("ServiceUnavailable", "The notebook instance does not answer now. Please try again.", 503)
    return reached


async def _run(calls: Calls, request: Request, row: Row, kind: str, digest: str, operation: str, prepared: Any) -> Row:
    with calls.store.reading() as view:
        held = view.get(kind, row.account, row.region, digest)
    if held is None or held.doc["until"] <= request.at or held.doc["id"] != row.doc["_id"]:
        raise _spent()
    caller, (id,) = bearer.holder(calls, held.doc["holder"], _PURPOSE)
    assert id == row.doc["_id"]
    call = Call(
        calls.registry.operations["sagemaker", operation], {"NotebookInstanceName": row.name}, caller, row.account,
        row.region, request, prepared=prepared,
    )  # fmt: skip
    await calls.run(call)
    return held
