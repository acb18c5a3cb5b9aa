"""An operation on a stack, forward (`Making`), back and away.

What was changed is changed back in the order of what needs what; what is removed goes in the opposite one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bastide.services.cloudformation import record
from bastide.services.cloudformation.changes import Denied
from bastide.services.cloudformation.making import Making
from bastide.services.cloudformation.record import Held
from bastide.services.cloudformation.resource import Thing
from bastide.services.cloudformation.types import type_of
from bastide.store import Transaction


class Deployment(Making):
    """One operation on one stack, with what undoes it."""

    # -- back ----------------------------------------------------------------------------------------------------------

    async def back(self, skip: Iterable[str] = ()) -> bool:
        """Changes back what the operation changed; whether all of it is as it was."""
        touched = {name: one for name, one in self.held.items() if one.doc.get("operation") == self.id}
        needs: dict[str, list[str]] = {name: [] for name in touched}
        for name, one in touched.items():
            for other in one.depends:
                if other in needs:
                    needs[other].append(name)
        skipped = set(skip)
        return await self.ordered(needs, lambda name: self._back(touched[name], name in skipped))

    async def _back(self, held: Held, skipped: bool) -> bool:
        action = held.doc.get("action")
        if held.doc.get("undone") or action == "create":
            return True
        if action == "replace":

            def restored(tx: Transaction) -> None:
                new = held.now if held.doc["done"] else held.next
                if new is not None and new.physical:
                    held.spares.append(new)
                held.now = held.before if held.doc["done"] else held.now
                held.next, held.before, held.journal = None, None, {}
                held.doc["undone"] = True
                if held.now is not None:
                    held.doc["type"] = held.now.type

            await self.note(held, "UPDATE_COMPLETE", also=restored)
            return True
        target = held.before if held.doc["done"] else held.now
        reached = held.now if held.doc["done"] else held.next
        assert target is not None and reached is not None
        untouched = (
            not held.doc["done"] and not held.journal
        )  # its first call was refused: nothing is to be changed back
        if not skipped and not untouched:
            kind = type_of(target.type)
            assert kind.update is not None
            if held.row.status != "UPDATE_IN_PROGRESS" or "undo" not in held.doc:

                def begun(tx: Transaction) -> None:
                    held.doc["undo"] = True

                await self.note(held, "UPDATE_IN_PROGRESS", also=begun)
            aim = Thing(target.type, target.properties, reached.physical or target.physical, dict(target.attributes))
            try:
                await self.act(held, aim, "undo", kind.update, old=reached.properties, stoppable=False)
            except Denied as denied:
                held.doc.pop("undo", None)
                await self.note(held, "UPDATE_FAILED", str(denied))
                self.failed.append(held.logical)
                return False
            target = aim

        def undone(tx: Transaction) -> None:
            held.now, held.next, held.before, held.journal = target, None, None, {}
            held.doc["undone"] = True
            held.doc.pop("undo", None)

        await self.note(held, "UPDATE_COMPLETE", "Resource skipped during rollback" if skipped else "", also=undone)
        return True

    # -- away ----------------------------------------------------------------------------------------------------------

    async def clean(self, *, gone: Callable[[Held], bool], failed: bool) -> bool:
        """Removes what was replaced, and whole resources where `gone` says so. failed: the operation was undone.
        Whether all
        of it is away."""
        there = {name: one for name, one in self.held.items() if self._left(one, gone(one), failed)}
        needs: dict[str, list[str]] = {name: [] for name in there}
        for name, one in there.items():
            for other in one.depends:
                if other in needs:
                    needs[other].append(name)
        self.halted = ""
        return await self.ordered(needs, lambda name: self._clean(there[name], gone(there[name]), failed))

    def _left(self, held: Held, whole: bool, failed: bool) -> bool:
        if whole:
            return held.row.status != "DELETE_COMPLETE"
        return bool(held.spares) or (not failed and held.doc.get("action") == "replace" and held.before is not None)

    async def _clean(self, held: Held, whole: bool, failed: bool) -> bool:
        if not failed and held.doc.get("action") == "replace" and held.before:
            replaced = held.before
            keep = held.doc.get("replaced") == "Retain"

            held.before = None
            if not keep:
                held.spares.append(replaced)
            await self.calls.store.write(lambda tx: record.save(self.calls, tx, held))
            if keep:
                await self._skipped(held, replaced)
        for spare in list(held.spares):
            if not await self.remove(held, spare, whole=False):
                return False
        if not whole:
            return True
        thing = held.now or held.next
        policy = held.doc.get("deletion", "Delete")
        created_now = held.doc.get("operation") == self.id and held.doc.get("action") == "create"
        retained = policy == "Retain" or (policy == "RetainExceptOnCreate" and not created_now)
        if self.operation.get("retain_except_on_create") and created_now:
            retained = False
        if held.logical in self.operation.get("retain", ()):
            retained = True
        if thing is None or not thing.physical or retained:
            if retained and thing is not None and thing.physical:
                await self._skipped(held, thing)
                await self.forget(held)
                return True
            await self.note(held, "DELETE_COMPLETE")
            await self.forget(held)
            return True
        if not await self.remove(held, thing, whole=True):
            return False
        await self.forget(held)
        return True

    async def let_go(self) -> None:
        """Takes what an import brought out of the stack again; nothing happens to it."""
        for held in [one for one in self.held.values() if one.doc.get("operation") == self.id]:

            def work(tx: Transaction, held: Held = held) -> None:
                current = tx.get(held.row.kind, held.row.account, held.row.region, held.row.name)
                if current is not None:
                    tx.delete(current, keep=False)
                thing = held.now or held.next
                record.tell(
                    tx, self.row, logical=held.logical, physical=thing.physical if thing else "", type=held.doc["type"],
                    status="IMPORT_ROLLBACK_COMPLETE",
                )  # fmt: skip

            await self.calls.store.write(work)
            self.held.pop(held.logical, None)

    async def _skipped(self, held: Held, thing: Thing) -> None:
        def work(tx: Transaction) -> None:
            record.tell(
                tx, self.row, logical=held.logical, physical=thing.physical, type=thing.type, status="DELETE_SKIPPED"
            )

        await self.calls.store.write(work)

    async def forget(self, held: Held) -> None:
        """Takes a resource's row away, unless its stack goes with it and is looked at afterwards."""
        if self.operation["kind"] == "delete" or self.operation.get("deleting"):
            if held.row.status != "DELETE_COMPLETE":
                held.row.status = "DELETE_SKIPPED"
                await self.calls.store.write(lambda tx: record.save(self.calls, tx, held))
            return
        if (
            held.doc.get("action") == "create"
            and held.doc.get("operation") == self.id
            and (self.operation["kind"] == "create" or self.operation.get("first"))
        ):
            return

        def work(tx: Transaction) -> None:
            current = tx.get(held.row.kind, held.row.account, held.row.region, held.row.name)
            if current is not None:
                tx.delete(current, keep=False)

        await self.calls.store.write(work)
        self.held.pop(held.logical, None)
