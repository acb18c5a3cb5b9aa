"""What executions act and read with: sessions of roles, ciphers of customers' keys, definitions; each held for a while."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final

from bastide.domain import MICROS, Arn, Instant, Refused
from bastide.engines.asl.expression_core import harmless
from bastide.engines.asl.scope import is_expression
from bastide.engines.asl.values import loads
from bastide.kernel import Caller, Calls
from bastide.services.states import sealing
from bastide.services.states.noun import PRINCIPAL, REVISION, machine_arn
from bastide.services.states.sealing import Cipher

_SPARE: Final = 600 * MICROS
_LARGE: Final = 50_000
_MANY: Final = re.compile(r"\.\.|\*|\?")
"""What has a path look at many values."""


class Machine:
    """A revision of a definition, as executions need it."""

    __slots__ = ("definition", "doc", "heavy")

    def __init__(self, definition: dict[str, Any], doc: dict[str, Any]) -> None:
        self.definition = definition
        self.doc = doc
        self.heavy = doc.get("size", 0) > _LARGE or _heavy(definition)
        """Whether its transitions may take time, so that they are made on a thread."""


def _heavy(value: Any) -> bool:
    if isinstance(value, dict):
        return value.get("Mode") == "DISTRIBUTED" or any(map(_heavy, value.values()))
    if isinstance(value, list):
        return any(map(_heavy, value))
    return isinstance(value, str) and (
        (is_expression(value) and not harmless(value[2:-2].strip()))
        or (value.startswith("$") and bool(_MANY.search(value)))
    )


class Holding:
    """Sessions, ciphers and definitions of this process."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self._machines: dict[tuple[str, str, str], Machine] = {}
        self._sessions: dict[tuple[str, str, str], Caller] = {}
        self._ciphers: dict[str, tuple[Cipher, Instant]] = {}

    async def session(self, machine: str, role: str, further: str = "") -> Caller:
        """A session of a role for a state machine; raises Refused. further: a role that this one takes on in turn, as a
        task's Credentials say; it has to trust the first, and may ask for the state machine's ARN as external id."""
        held = self._sessions.get((machine, role, further))
        if held is None or held.session is None or held.session.expires - _SPARE < self.calls.clock():
            arn = Arn.parse(machine)
            if further:
                held = await self.calls.chain(
                    await self.session(machine, role), further, "StepFunctions", region=arn.region, source=PRINCIPAL,
                    ExternalId=machine,
                )  # fmt: skip
            else:
                held = await self.calls.assume(
                    PRINCIPAL, role, "StepFunctions", account=arn.account, region=arn.region, source_arn=machine
                )
            if len(self._sessions) > 1000:
                self._sessions.clear()
            self._sessions[machine, role, further] = held
        return held

    async def cipher(self, machine: str, role: str, wrapped: str, seconds: int) -> Cipher:
        """The cipher of data that are kept, as the role gets it; it is held for as long as its machine says."""
        if not wrapped:
            return sealing.plain(self.calls, machine)
        held = self._ciphers.get(wrapped)
        if held is None or held[1] < self.calls.clock():
            caller = await self.session(machine, role)
            made = await sealing.by_role(self.calls, caller, Arn.parse(machine).region, machine, wrapped=wrapped)
            held = self._ciphers[wrapped] = (made, self.calls.clock() + seconds * MICROS)
            if len(self._ciphers) > 1000:
                self._ciphers.clear()
        return held[0]

    async def machine(self, account: str, region: str, revision: str, role: str = "") -> Machine:
        """A revision (``MACHINE/ID``) of a definition; raises Refused if its key cannot be used."""
        known = self._machines.get((account, region, revision))
        if known is not None:
            return known
        with self.calls.store.reading() as view:
            row = view.get(REVISION, account, region, revision)
        if row is None:
            raise Refused("StateMachineDoesNotExist", f"The revision {revision} is gone.")
        arn = machine_arn(account, region, revision.rpartition("/")[0])
        configuration = row.doc["encryptionConfiguration"]
        seconds = int(configuration.get("kmsDataKeyReusePeriodSeconds") or 300)
        cipher = await self.cipher(arn, role or row.doc["roleArn"], row.doc["key"], seconds)
        made = await asyncio.to_thread(Machine, loads(cipher.read(row.doc["definition"])), row.doc)
        if not row.doc["key"]:
            if len(self._machines) > 500:
                self._machines.clear()
            self._machines[account, region, revision] = made
        return made

    def forget_machine(self, account: str, region: str, name: str) -> None:
        """A state machine is gone."""
        for key in [key for key in self._machines if key[:2] == (account, region) and key[2].startswith(f"{name}/")]:
            del self._machines[key]
        for held in [one for one in self._sessions if one[0] == machine_arn(account, region, name)]:
            del self._sessions[held]
