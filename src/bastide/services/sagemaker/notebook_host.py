"""What stands behind a notebook instance: a sandbox that its scripts administer, on an encrypted volume that outlives it.

An instance's row says what is wanted; `Notebooks` makes it so, and may be asked as often as one likes: after a crash it is
asked again for all. Jupyter knows no users here. It listens on a socket that only this process reaches; what comes through
to it, `notebook_url` has asked about.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines.network import NetworkError
from bastide.engines.sandbox import SandboxError
from bastide.engines.serving import Client
from bastide.engines.workflow import Failed
from bastide.kernel import Calls, Unforeseen
from bastide.services.sagemaker.notebook_instance import (
    INDEX,
    NOTEBOOK,
    PASSING,
    vpc_of,
)
from bastide.services.sagemaker.notebook_machine import Machine
from bastide.services.sagemaker.settling import Settling
from bastide.store import Row, Transaction

_log = logging.getLogger("bastide.notebooks")

_DONE: Final = {"Pending": "InService", "Stopping": "Stopped", "Updating": "Stopped"}


class Notebooks(Settling):
    """The notebook instances of this platform. folder: where their volumes lie."""

    def __init__(self, calls: Calls, folder: Path) -> None:
        super().__init__(NOTEBOOK)
        self._calls = calls
        self._folder = folder
        self._machines: dict[str, Machine] = {}

    async def open(self) -> None:
        """Begins, now that there are networks: takes up what was under way. What was in service when the platform ended
        starts again, and says so."""

        def work(tx: Transaction) -> list[Row]:
            found = []
            for one in tx.scan(INDEX, "", "", limit=100_000):
                row = NOTEBOOK.get(tx, *NOTEBOOK.locate(one.doc["arn"], "", ""))
                if row is not None and row.status == "InService":
                    row.status = "Pending"
                    NOTEBOOK.change(tx, row, "NotebookInstanceResumed")
                if row is not None and row.status in PASSING:
                    found.append(row)
            return found

        self._open.set()
        for row in await self._calls.store.write(work):
            self.settle(row.account, row.region, row.name)

    def at(self, arn: str) -> tuple[Client, Path] | None:
        """A client of the instance's Jupyter and its socket, if it is in service."""
        found = self._machines.get(arn)
        return None if found is None or found.client is None or found.socket is None else (found.client, found.socket)

    async def close(self) -> None:
        """Ends all; what is in service starts again when the platform does."""
        await self._stop()
        await asyncio.gather(*(self._end(arn) for arn in list(self._machines)))

    async def _end(self, arn: str) -> None:
        machine = self._machines.pop(arn, None)
        if machine is not None:
            await machine.close()

    async def _settle(self, account: str, region: str, name: str, arn: str) -> None:
        with self._calls.store.reading() as view:
            row = NOTEBOOK.get(view, account, region, name)
        if row is None or row.status not in PASSING:
            return
        why = ""
        try:
            await self._end(arn)
            if row.status == "Pending":
                machine = self._machines[arn] = Machine(self._calls, self._folder, row)
                try:
                    await machine.start()
                except BaseException:
                    await self._end(arn)
                    raise
                machine.watched = asyncio.get_running_loop().create_task(self._watch(arn, row, machine))
            elif vpc_of(row.doc):
                await Machine(self._calls, self._folder, row).clean()  # what a process that was killed left
            if row.status == "Deleting":
                await asyncio.to_thread(shutil.rmtree, self._folder / row.doc["_id"], ignore_errors=True)
        except (Failed, Refused, SandboxError, NetworkError, Unforeseen, OSError) as error:
            _log.warning("%s could not become what it is to be: %s", arn, error)
            why = error.message if isinstance(error, Failed | Refused) else f"InternalServerError: {error}"
        except Exception:
            _log.exception("%s could not become what it is to be", arn)  # nobody waits for ever for what nobody foresaw
            why = "InternalServerError: an internal error occurred; the platform's log has it."
        await self._calls.store.write(lambda tx: _told(tx, row, why))

    async def _watch(self, arn: str, row: Row, machine: Machine) -> None:
        """Until it ends by itself, which it is not to do."""
        why = await machine.ended()
        if self._machines.get(arn) is machine:
            del self._machines[arn]
            machine.watched = None
            await machine.close()
            await self._calls.store.write(lambda tx: _told(tx, row, why))


def _told(tx: Transaction, known: Row, why: str) -> None:
    row = NOTEBOOK.get(tx, known.account, known.region, known.name)
    if row is None or row.doc["_id"] != known.doc["_id"] or row.status not in (*PASSING, "InService"):
        return
    if row.status not in (known.status, "InService"):
        return  # something else is asked for by now
    if row.status == "Deleting" and not why:
        NOTEBOOK.remove(tx, row, "NotebookInstanceDeleted")
        index = tx.get(INDEX, "", "", row.doc["_label"])
        if index is not None:
            tx.delete(index, keep=False)
        return
    if row.status != "Pending":
        row.doc.pop("NetworkInterfaceId", None)
    if why:
        row.status, row.doc["FailureReason"] = "Failed", why[:1024]
    else:
        row.status = _DONE[row.status]
    NOTEBOOK.change(tx, row, "NotebookInstanceSettled")


def events(notebooks: Notebooks) -> Any:
    """The subscriber that brings instances to what their rows want."""

    async def notebook(body: dict[str, Any]) -> None:
        if body["status"] in PASSING:
            notebooks.settle(body["account"], body["region"], body["name"])

    return notebook
