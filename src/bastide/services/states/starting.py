"""What is found out before an execution is begun: its definition, its input, the key for what it will carry."""

from __future__ import annotations

from dataclasses import dataclass

from bastide.domain import Refused
from bastide.engines.asl.values import LARGEST, loads
from bastide.kernel import Authorised
from bastide.services.states import sealing, version
from bastide.services.states.holding import Machine
from bastide.services.states.noun import machine, machine_arn
from bastide.services.states.runner import Executions, Live
from bastide.services.states.sealing import CUSTOMER, Cipher
from bastide.store import Row


@dataclass(slots=True)
class Start:
    """What was found out before an execution is begun."""

    machine: Machine
    cipher: Cipher
    revision: str
    qualified: Row | None
    live: Live | None = None
    """The execution, once it is begun."""


def given_input(a: Authorised) -> str:
    """An execution's input; raises InvalidExecutionInput."""
    text = a.input.get("input")
    text = "{}" if text is None else text
    if len(text.encode("utf-8", "surrogatepass")) > LARGEST:
        raise Refused("InvalidExecutionInput", f"Invalid State Machine Execution Input: 'more than {LARGEST} bytes'")
    try:
        loads(text)
    except ValueError as error:
        raise Refused("InvalidExecutionInput", f"Invalid State Machine Execution Input: '{error}'") from None
    return text


async def prepared(a: Authorised) -> Start:
    """Reads the definition that is to run, and gets the key for what it will carry, as the machine's role."""
    runner, given = a.engine(Executions), a.input["stateMachineArn"]
    with a.calls.store.reading() as view:
        row = machine(a, view, given, standing=True)
        revision, qualified = version.chosen(a, view, row, given)
    found = await runner.machine(a.account, a.region, revision.name)
    who = machine_arn(a.account, a.region, row.name)
    configuration = found.doc["encryptionConfiguration"]
    if configuration["type"] != CUSTOMER:
        cipher = sealing.plain(a.calls, who)
    else:
        try:
            caller = await runner.session(who, found.doc["roleArn"])
        except Refused as refused:
            raise Refused("KmsAccessDeniedException", f"The role cannot be assumed: {refused.message}") from None
        cipher = await sealing.by_role(a.calls, caller, a.region, who, key=configuration["kmsKeyId"])
    return Start(found, cipher, revision.name, qualified)
