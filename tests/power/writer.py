"""Writes rows, objects and entries of the record as fast as it may, and says after each what it was told is kept.

``python writer.py FOLDER ROUNDS SEED``: what is acknowledged goes, a line of JSON each, into FOLDER/acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from bastide.domain import wall
from bastide.engines.artifacts import seal
from bastide.engines.artifacts.drivers.files import LocalFiles
from bastide.store import Event, Journal, Row, SqliteStore
from bastide.store.directory import sync_folder

KEY = bytes(range(32))
PLACE = ("111122223333", "us-east-1")


def event(name: str, id: str) -> Event:
    """An entry of the record."""
    fields = ("test", "user", "", name == "Read", "Management", "", id, (), json.dumps({"id": id}).encode())
    return Event(PLACE[0], wall(), id, name, *fields)


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 60_000):
        yield data[at : at + 60_000]


class Writer:
    """Its tasks share a store, a journal and a folder of objects, as the platform's calls do."""

    def __init__(self, folder: Path, tag: str) -> None:
        self._store = SqliteStore(folder / "bastide.db")
        self._journal = Journal(folder / "journal", self._store)
        self._artifacts = LocalFiles(folder / "objects")
        self._told = os.open(folder / "acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._tag = tag

    def _acknowledge(self, **what: Any) -> None:
        os.write(self._told, json.dumps(what).encode() + b"\n")

    async def rows(self, task: int, rounds: int) -> None:
        """A row is made and changed, each time with an entry of the record in the same commit."""
        for number in range(rounds):
            name, digest = f"{self._tag}-row-{task}-{number // 3}", os.urandom(1500).hex()
            id = f"{self._tag}-change-{task}-{number}"

            def work(tx: Any, name: str = name, digest: str = digest, id: str = id) -> int:
                row = tx.get("test:Row", *PLACE, name)
                if row is None:
                    row = Row("test:Row", *PLACE, name, {"text": digest, "event": id})
                    tx.insert(row)
                else:
                    row.doc = {"text": digest, "event": id}
                    tx.update(row)
                tx.record([event("Changed", id)])
                return int(row.generation)

            generation = await self._store.write(work)
            self._acknowledge(kind="row", name=name, generation=generation, text=digest, event=id)

    async def objects(self, task: int, rounds: int) -> None:
        """Objects of every size are put, and overwritten: content first, name last, the old content goes then."""
        chance = random.Random(f"{self._tag}{task}")
        for number in range(rounds):
            name = f"{self._tag}-object-{task}-{number // 2}"
            size = chance.choice((0, 300, 300, 5000, 30_000, 300_000, 1_500_000))
            data = chance.randbytes(size)
            sealed = None
            if size <= 300:
                written, sealed = seal(data, KEY)
            elif size <= 30_000:
                written = await self._artifacts.write_small(data, KEY)
            else:
                written = await self._artifacts.write(_pieces(data), KEY)
            doc = {"id": written.id, "inside": sealed is not None, "digest": hashlib.sha256(data).hexdigest()}

            def work(tx: Any, name: str = name, doc: dict[str, Any] = doc, sealed: bytes | None = sealed) -> Any:
                row = tx.get("test:Object", *PLACE, name)
                if sealed is not None:
                    tx.put_blob(doc["id"], sealed)
                if row is None:
                    tx.insert(Row("test:Object", *PLACE, name, doc), keep=False)
                    return None
                old, row.doc = row.doc, doc
                tx.update(row, keep=False)
                if old["inside"]:
                    tx.drop_blob(old["id"])
                return old

            old = await self._store.write(work)
            self._acknowledge(kind="object", name=name, digest=doc["digest"], turn=number)
            if old is not None and not old["inside"]:
                await self._artifacts.delete(old["id"])

    async def reads(self, task: int, rounds: int) -> None:
        """Entries of reads, which are on the disk once they were flushed."""
        ids = []
        for number in range(rounds):
            id = f"{self._tag}-read-{task}-{number}"
            self._journal.append([event("Read", id)])
            ids.append(id)
            await asyncio.sleep(0.001)
            if number % 7 == 6:
                await self._journal.flush()
                self._acknowledge(kind="reads", ids=ids)
                ids = []

    async def run(self, rounds: int) -> None:
        """Until all have done their rounds."""
        await self._journal.recover()
        with self._store.reading() as view:
            rows = view.scan("test:Object", *PLACE, limit=100_000)
        named = {row.doc["id"] for row in rows}
        await self._artifacts.sweep(lambda one: one in named)
        jobs = [self.rows, self.objects, self.objects, self.reads, self.objects, self.rows]
        await asyncio.gather(*(job(task, rounds) for task, job in enumerate(jobs)))
        await self._journal.close()
        self._artifacts.close()
        self._store.close()


if __name__ == "__main__":
    folder, rounds, tag = sys.argv[1:]
    Path(folder).mkdir(mode=0o700, exist_ok=True)
    sync_folder(Path(folder).parent)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(Writer(Path(folder), tag).run(int(rounds)))
