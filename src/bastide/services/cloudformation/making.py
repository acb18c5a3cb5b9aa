"""Making a stack so: resource by resource in the order of what needs what.

Whatever is decided is written before it is done, and each call is remembered in the transaction in which it happens; a
process that takes the work up goes on with what was decided.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.engines import templates
from bastide.engines.templates import Declared, Scope, Template, schema
from bastide.engines.workflow import reach
from bastide.kernel import Calls
from bastide.services.cloudformation import record, stack_policy
from bastide.services.cloudformation.acting import Actor
from bastide.services.cloudformation.changes import Denied, change_of, check_name
from bastide.services.cloudformation.dynamic import Dynamic
from bastide.services.cloudformation.intake import importer, pseudo, zones_of
from bastide.services.cloudformation.record import Held, State
from bastide.services.cloudformation.resource import Cancelled, Resource, Stack, Thing, mark
from bastide.services.cloudformation.types import adopting, is_custom, type_of
from bastide.services.cloudformation.types.deployments import policy_of
from bastide.store import Row, Transaction

_log = logging.getLogger("bastide.cloudformation")
_AT_ONCE: Final = 8
_LONGEST_REASON: Final = 2000


class Making:
    """One operation on one stack, in this process. Built anew from what is kept, whenever a process takes it up."""

    def __init__(self, calls: Calls, row: Row, actor: Actor) -> None:
        self.calls = calls
        self.row = row
        self.actor = actor
        self.operation: dict[str, Any] = row.doc["operation"]
        self.id: str = self.operation["id"]
        self.halted = ""
        self.failed: list[str] = []
        self.cause = ""
        self.told: list[dict[str, Any]] = []
        with calls.store.reading() as view:
            self.held: dict[str, Held] = record.resources_of(calls, view, row)
        self.state: State = record.state_of(calls, row, "next" if "next" in row.doc else "state")
        self.stack: Stack = record.stack_of(calls, row, self.state)
        self.template: Template = templates.checked(orjson.loads(self.state.processed))
        self.dynamic = Dynamic(actor)
        self.zones: list[str] = []
        self._imports: set[str] = set()

    # -- what references mean ------------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Looks up what references need that is not kept."""
        self.zones = await zones_of(self.actor, self.state.processed)

    def scope(self) -> Scope:
        """What the template's references mean now."""
        imported = importer(self.calls, self.row.account, self.row.region)

        def from_elsewhere(name: str) -> str:
            value: str = imported(name)
            self._imports.add(name)
            return value

        values = {
            **pseudo(
                self.row.account, self.row.region, self.stack.arn, self.stack.stack_name, self.state.notifications
            ),
            **self.state.values,
        }
        return self.template.scope(
            values,
            zones=self._zones,
            imported=from_elsewhere,
            reference=self.scope_reference,
            attribute=self.scope_attribute,
        )

    def _zones(self, region: str) -> list[str]:
        if region != self.row.region:
            raise Refused("ValidationError", "Fn::GetAZs of another Region than the stack's is not supported.")
        return self.zones

    def _thing(self, name: str) -> Thing:
        held = self.held.get(name)
        if held is None or held.now is None or not held.now.physical:
            raise templates.Unknown
        return held.now

    def scope_reference(self, name: str) -> Any:
        """What a Ref gives; raises Unknown."""
        return self._thing(name).physical

    def scope_attribute(self, name: str, attribute: str) -> Any:
        """What Fn::GetAtt gives; raises Unknown, Refused."""
        thing = self._thing(name)
        if attribute in thing.attributes:
            return thing.attributes[attribute]
        here: Any = thing.attributes
        for part in attribute.split("."):
            here = here.get(part) if isinstance(here, Mapping) else None
        if here is None and attribute in thing.properties and not is_custom(thing.type):
            here = thing.properties[attribute]
        if here is None:
            raise Refused(
                "ValidationError",
                f"CustomResource attribute error: Vendor response doesn't contain {attribute} key in object"
                if is_custom(thing.type)
                else f"Attribute '{attribute}' does not exist on {name} ({thing.type})",
            )
        return here

    # -- running what may run ------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Raises Cancelled when nothing new is to be begun."""
        if self.halted:
            raise Cancelled

    async def ordered(
        self, needs: Mapping[str, Iterable[str]], work: Callable[[str], Awaitable[bool]], *, halting: bool = False
    ) -> bool:
        """Does the work for each name when it is done for all that the name needs; some at once. halting: the first failure
        keeps everything else from beginning. Whether all was done."""
        left = {name: {one for one in needed if one in needs} for name, needed in needs.items()}
        running: dict[asyncio.Task[bool], str] = {}
        all_done = True
        try:
            while True:
                if not (halting and self.halted):
                    for name in [one for one, needed in left.items() if not needed]:
                        if len(running) >= _AT_ONCE:
                            break
                        del left[name]
                        running[asyncio.ensure_future(work(name))] = name
                if not running:
                    return all_done and not left
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    name = running.pop(task)
                    if task.result():
                        for needed in left.values():
                            needed.discard(name)
                    else:
                        all_done = False
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    # -- writing -------------------------------------------------------------------------------------------------------

    async def note(
        self, held: Held, status: str, reason: str = "", also: Callable[[Transaction], None] | None = None
    ) -> None:
        """A resource's new status, with its event, on the disk."""
        thing = held.next or held.now or held.before
        physical = (thing.physical if thing else "") or held.doc.get("physical", "")
        reason = reason[:_LONGEST_REASON]

        def work(tx: Transaction) -> None:
            held.row.status = status
            held.doc["reason"] = reason
            held.doc["at"] = tx.now
            if also is not None:
                also(tx)
            shown = held.now or held.next
            held.doc["physical"] = (shown.physical if shown else "") or physical
            record.save(self.calls, tx, held)
            record.tell(
                tx, self.row, logical=held.logical, physical=held.doc["physical"], type=held.doc["type"], status=status,
                reason=reason,
            )  # fmt: skip

        await self.calls.store.write(work)
        self.tell_topics(held, status, reason)

    def tell_topics(self, held: Held, status: str, reason: str) -> None:
        """Keeps what is to be published to the stack's topics."""
        self.told.append(
            {
                "logical": held.logical,
                "physical": held.doc.get("physical", ""),
                "type": held.doc["type"],
                "status": status,
                "reason": reason,
            }
        )

    def handle(
        self, held: Held, thing: Thing, key: str, *, old: dict[str, Any] | None = None, stoppable: bool = True
    ) -> Resource:
        """A resource for a type's functions; references into stores of secrets are still to be filled in."""
        live = Thing(thing.type, thing.properties, thing.physical, thing.attributes)

        def save(tx: Transaction, journal: dict[str, Any]) -> None:
            thing.physical, thing.attributes = live.physical, live.attributes
            record.save(self.calls, tx, held, journal)

        return Resource(
            self.actor, self.stack, held.logical, live,
            service=type_of(thing.type).service, key=key, journal=held.journal, attempt=held.doc.get("attempt", ""),
            run=self.operation.get("run", ""),
            save=save, stop=self.stop if stoppable else lambda: None, old=old,
        )  # fmt: skip

    async def act(
        self, held: Held, thing: Thing, key: str, action: Callable[[Resource], Awaitable[None]],
        *, old: dict[str, Any] | None = None, stoppable: bool = True,
    ) -> None:  # fmt: skip
        """Does something to a thing; raises Denied with the reason, Cancelled."""
        r = self.handle(held, thing, key, old=old, stoppable=stoppable)
        try:
            r.thing.properties = await self.dynamic.filled(thing.properties)
            if old is not None:
                r.old = await self.dynamic.filled(old)
            await action(r)
        except Refused as refused:
            raise Denied(f"{refused.message} (Service: {r.service}, Code: {refused.code})") from None
        except (Cancelled, asyncio.CancelledError):
            raise
        except Exception as error:
            _log.exception("%s of %s in %s", key, held.logical, self.stack.arn)
            raise Denied("Internal Failure") from error
        finally:
            thing.physical, thing.attributes = r.thing.physical, r.thing.attributes

    # -- forward -------------------------------------------------------------------------------------------------------

    async def forward(self) -> bool:
        """Makes and changes what the template says; whether all of it is done."""
        scope = self.scope()
        declared = self.template.active(scope)
        needs = self.template.dependencies(scope)
        for name, held in self.held.items():
            if name not in declared and held.now is not None and self.operation["kind"] == "update":
                try:
                    self._permitted(held, "Delete")
                except Denied as denied:
                    self.halted, self.cause = "failure", str(denied)
                    return False
        return await self.ordered(needs, lambda name: self._one(declared[name], sorted(needs[name])), halting=True)

    async def _one(self, declared: Declared, depends: list[str]) -> bool:
        held = self.held.get(declared.name) or record.new_resource(self.calls, self.row, declared.name)
        self.held[declared.name] = held
        try:
            if held.doc.get("operation") != self.id:
                if not await self._decide(held, declared, depends):
                    return True
            elif held.doc.get("done"):
                return True
            await self._perform(held)
            return True
        except Cancelled:
            word = "update" if held.doc.get("action") == "update" else "creation"
            await self.note(held, f"{verb_of(held)}_FAILED", f"Resource {word} cancelled")
        except Denied as denied:
            await self._fail(held, str(denied))
        except Refused as refused:
            await self._fail(held, refused.message)
        return False

    # -- what is there already -----------------------------------------------------------------------------------------

    async def adopt(self) -> bool:
        """Takes resources that are there into the stack, as the operation names them; whether all were found."""
        scope = self.scope()
        declared, needs = self.template.active(scope), self.template.dependencies(scope)
        wanted: dict[str, str] = self.operation["imports"]
        order = {name: {one for one in needs[name] if one in wanted} for name in wanted}
        return await self.ordered(
            order, lambda name: self._adopt(declared[name], sorted(needs[name]), wanted[name]), halting=True
        )

    async def _adopt(self, declared: Declared, depends: list[str], identifier: str) -> bool:
        held = self.held.get(declared.name) or record.new_resource(self.calls, self.row, declared.name)
        self.held[declared.name] = held
        if held.doc.get("operation") == self.id and held.doc.get("done"):
            return True
        try:
            thing = Thing(declared.type, self._properties(declared, self.scope()))
            held.next = thing
            held.doc.update(self._about(declared, depends, self.scope()))
            held.doc.update({"operation": self.id, "action": "import", "done": False, "attempt": self.id})
            await self.note(held, "IMPORT_IN_PROGRESS", "Resource import started.")
            found: list[bool] = []

            async def look(r: Resource) -> None:
                found.append(await adopting.adopt(r, identifier))

            await self.act(held, thing, "import", look)
            if not found[0]:
                raise Denied(
                    f"The resource {identifier} does not exist, or is not the one that the template describes."
                )
        except Cancelled:
            await self.note(held, "IMPORT_FAILED", "Resource import cancelled")
            return False
        except (Denied, Refused) as denied:
            self.halted, self.cause = self.halted or "failure", self.cause or str(denied)
            self.failed.append(held.logical)
            await self.note(held, "IMPORT_FAILED", denied.message if isinstance(denied, Refused) else str(denied))
            return False
        await self.note(
            held, "IMPORT_COMPLETE", "Resource import completed.", also=lambda tx: self._done(tx, held, thing)
        )
        return True

    def _done(self, tx: Transaction, held: Held, thing: Thing) -> None:
        held.now, held.next, held.journal = thing, None, {}
        held.doc["done"] = True
        kind = type_of(thing.type)
        if kind.mark is not None:
            mark(self.calls, tx, kind.mark(self.handle(held, thing, "mark")), self._marks(held.logical))

    async def _fail(self, held: Held, reason: str) -> None:
        if not self.halted:
            self.halted = "failure"
            self.cause = reason
        self.failed.append(held.logical)
        held.doc.setdefault("operation", self.id)
        held.doc.setdefault("action", "create")
        held.doc.setdefault("type", self.template.resources[held.logical].type)
        held.doc.setdefault("attempt", self.id)
        await self.note(held, f"{verb_of(held)}_FAILED", reason)

    def _properties(self, declared: Declared, scope: Scope) -> dict[str, Any]:
        resolved = templates.resolve(declared.properties, scope)
        if is_custom(declared.type) or not schema.has_schema(declared.type):
            return dict(resolved)
        found, faults = schema.checked(declared.type, resolved)
        if faults:
            raise Denied(
                f"Properties validation failed for resource {declared.name} with message: [{'; '.join(faults)}]"
            )
        self.inherit_tags(declared.type, found)
        return found

    def inherit_tags(self, type: str, properties: dict[str, Any]) -> None:
        """Gives a resource the stack's tags, where its type has tags; its own win."""
        member = schema.tag_property(type)
        if not member or not self.stack.tags:
            return
        shape = schema.schema(type)["properties"].get(member, {})
        own = properties.get(member) or ([] if shape.get("type") != "object" else {})
        if isinstance(own, dict):
            properties[member] = {**self.stack.tags, **own}
        elif isinstance(own, list):
            mine = {one["Key"] for one in own if isinstance(one, dict)}
            inherited = [{"Key": key, "Value": one} for key, one in self.stack.tags.items() if key not in mine]
            properties[member] = [*own, *inherited]

    async def _decide(self, held: Held, declared: Declared, depends: list[str]) -> bool:
        """Writes what is to be done to a resource; False if it is nothing."""
        scope = self.scope()
        properties = self._properties(declared, scope)
        more = self._about(declared, depends, scope)
        attributes = {"_creation": templates.resolve(declared.creation, scope)} if declared.creation else {}
        thing = Thing(declared.type, properties, attributes=attributes)
        action = "create" if held.now is None else change_of(held.now, thing)
        if action == "none":
            if any(held.doc.get(name) != value for name, value in more.items()):
                held.doc.update(more)
                await self.calls.store.write(lambda tx: record.save(self.calls, tx, held))
            return False
        if held.now is not None:
            self._permitted(held, "Replace" if action == "replace" else "Modify")
            if action == "replace":
                check_name(held.now, thing)
        if action == "update" and held.now is not None:
            thing.physical, thing.attributes = held.now.physical, dict(held.now.attributes)
            thing.attributes.pop("_update", None)
            if policy := policy_of(templates.resolve(declared.updating, scope)):
                thing.attributes["_update"] = policy
        if held.doc.get("action") == "replace" and held.doc.get("done") and held.before is not None:
            held.spares.append(held.before)  # an update that failed and was not undone left it
        held.before = None
        left = held.next
        if held.now is None and left is not None and left.physical and not await self.remove(held, left, whole=False):
            raise Denied("What an earlier attempt left could not be removed.")
        held.next = thing
        held.journal = {}
        held.doc.update(more)
        held.doc.update({"operation": self.id, "action": action, "done": False, "attempt": self.id, "undone": False})
        reason = (
            "Requested update requires the creation of a new physical resource; hence creating one."
            if action == "replace"
            else ""
        )
        await self.note(held, f"{verb_of(held)}_IN_PROGRESS", reason)
        return True

    @staticmethod
    def _about(declared: Declared, depends: list[str], scope: Scope) -> dict[str, Any]:
        """What is kept of a resource beside its properties."""
        return {
            "type": declared.type,
            "depends": depends,
            "deletion": templates.policy(declared.deletion, scope, declared.name, "DeletionPolicy", "Delete"),
            "replaced": templates.policy(declared.replaced, scope, declared.name, "UpdateReplacePolicy", "Delete"),
            "metadata": orjson.dumps(declared.metadata).decode() if declared.metadata is not None else "",
        }

    def _permitted(self, held: Held, action: str) -> None:
        policy = self.operation.get("policy") or self.row.doc.get("policy")
        if policy and not stack_policy.allows(orjson.loads(policy), f"Update:{action}", held.logical, held.doc["type"]):
            raise Denied(
                f"Action denied by stack policy: [Update:{action}] for resource [LogicalResourceId/{held.logical}]"
            )

    async def _perform(self, held: Held) -> None:
        thing = held.next
        assert thing is not None
        action, kind = held.doc["action"], type_of(thing.type)
        if action == "update":
            assert held.now is not None and kind.update is not None
            await self.act(held, thing, "update", kind.update, old=held.now.properties)
        else:
            await self.act(held, thing, "create", kind.create)
        reach(f"stack/{thing.type}/{action}:made")

        def done(tx: Transaction) -> None:
            if held.now is not None:
                held.before = held.now
                if action == "update" and held.now.physical != thing.physical:
                    held.spares.append(held.now)
            held.now, held.next, held.journal = thing, None, {}
            held.doc["done"] = True
            if action != "update":
                record.tell(
                    tx, self.row, logical=held.logical, physical=thing.physical, type=thing.type,
                    status=f"{verb_of(held)}_IN_PROGRESS", reason="Resource creation Initiated",
                )  # fmt: skip
            if kind.mark is not None and action != "update":
                arn = kind.mark(self.handle(held, thing, "mark"))
                mark(self.calls, tx, arn, self._marks(held.logical))

        await self.note(held, f"{verb_of(held)}_COMPLETE", also=done)

    def _marks(self, logical: str) -> dict[str, str]:
        return {
            "aws:cloudformation:stack-name": self.stack.stack_name,
            "aws:cloudformation:stack-id": self.stack.arn,
            "aws:cloudformation:logical-id": logical,
        }

    # -- outputs -------------------------------------------------------------------------------------------------------

    def outputs(self) -> dict[str, dict[str, Any]]:
        """The outputs, by name; raises Refused."""
        scope = self.scope()
        found: dict[str, dict[str, Any]] = {}
        for name, one in self.template.section("Outputs").items():
            if one.get("Condition") and not scope.condition(one["Condition"]):
                continue
            value = templates.resolve(one["Value"], scope)
            if value is templates.NO_VALUE:
                continue
            if not isinstance(value, str | int | float):
                raise Refused(
                    "ValidationError", f"Template format error: Output {name} is malformed: its value is not a text."
                )
            found[name] = {"value": templates.text(value), "description": one.get("Description", "")}
            if one.get("Export"):
                export = templates.resolve(one["Export"].get("Name"), scope)
                if not isinstance(export, str) or not 1 <= len(export) <= 255:
                    raise Refused(
                        "ValidationError", f"Template format error: Output {name} is malformed: Export needs a Name."
                    )
                found[name]["export"] = export
        return found

    def imports(self) -> set[str]:
        """The exports that the stack uses."""
        scope = self.scope()
        self._imports.clear()
        for one in (*(d.properties for d in self.template.active(scope).values()), self.template.section("Outputs")):
            for name in templates.imports(one):
                self._imports.add(str(templates.resolve(name, scope)))
        return set(self._imports)

    # -- one thing away -----------------------------------------------------------------------------------------------

    async def remove(self, held: Held, thing: Thing, *, whole: bool) -> bool:
        status = held.row.status
        kind = type_of(thing.type)
        if not whole or status != "DELETE_IN_PROGRESS":
            await self._told(held, thing, "DELETE_IN_PROGRESS", whole=whole)
        try:
            key = f"delete#{thing.physical}"
            await self.act(held, thing, key, kind.delete, stoppable=False)
        except Denied as denied:
            self.failed.append(held.logical)
            await self._told(held, thing, "DELETE_FAILED", str(denied), whole=whole)
            return False

        def away(tx: Transaction) -> None:
            if not whole:
                held.spares = [one for one in held.spares if one.physical != thing.physical]
            held.journal = {
                name: one for name, one in held.journal.items() if not name.startswith(f"delete#{thing.physical}/")
            }

        await self._told(held, thing, "DELETE_COMPLETE", whole=whole, also=away)
        return True

    async def _told(
        self,
        held: Held,
        thing: Thing,
        status: str,
        reason: str = "",
        *,
        whole: bool,
        also: Callable[[Transaction], None] | None = None,
    ) -> None:
        """An event of a removal; a spare's is no status of the resource."""
        if whole:
            await self.note(held, status, reason, also)
            return

        def work(tx: Transaction) -> None:
            if also is not None:
                also(tx)
            record.save(self.calls, tx, held)
            record.tell(
                tx,
                self.row,
                logical=held.logical,
                physical=thing.physical,
                type=thing.type,
                status=status,
                reason=reason[:_LONGEST_REASON],
            )

        await self.calls.store.write(work)
        self.tell_topics(held, status, reason)


def verb_of(held: Held) -> str:
    """CREATE or UPDATE, as events have it."""
    return "CREATE" if held.doc.get("action", "create") == "create" else "UPDATE"
