"""Callback steps: the token that somebody outside answers with.

Source: SageMaker developer guide, "Callback step"; API Reference, SendPipelineExecutionStepSuccess and -Failure.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Iterable, Mapping
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Output, once
from bastide.services.sagemaker.pipeline_language import Malformed, Parameter
from bastide.services.sagemaker.pipeline_step import PIPELINE_EXECUTION
from bastide.store import Row, Transaction, View

ANSWERED: Final = "sagemaker:PipelineCallbackAnswered"
"""The outbox's topic: ``flow`` and ``token``."""
_KIND: Final = "sagemaker:PipelineCallback"
_ALPHABET: Final = string.ascii_letters + string.digits


def new_token() -> str:
    """A token, as the API has it: ten letters and digits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(10))


def expect(tx: Transaction, execution: Row, step: str, token: str, outputs: Mapping[str, str]) -> None:
    """Lets a token be answered. outputs: what the answer brings, and of which type."""
    doc = {"execution": execution.name, "step": step, "outputs": dict(outputs), "flow": execution.doc["_flow"]}
    tx.insert(Row(_KIND, execution.account, execution.region, token, doc), keep=False)


def answer(view: View, execution: Row, token: str) -> dict[str, Any] | None:
    """What was answered: `outputs`, or the `reason` of a failure; None as long as nothing was."""
    row = view.get(_KIND, execution.account, execution.region, token)
    return None if row is None else row.doc.get("answer")


def forget(tx: Transaction, execution: Row, token: str) -> None:
    """The token can no longer be answered."""
    row = tx.get(_KIND, execution.account, execution.region, token)
    if row is not None:
        tx.delete(row, keep=False)


def typed(outputs: Mapping[str, str], given: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Outputs of the types that a step declares for them; raises Malformed for what is missing or another type. given:
    texts, or JSON values."""
    found: dict[str, Any] = {}
    for name, type in outputs.items():
        if name not in given:
            raise Malformed(f"{what} lacks the output {name}.")
        value = given[name]
        if isinstance(value, bool):
            value = "true" if value else "false"
        if not isinstance(value, str | int | float):
            raise Malformed(f"The output {name} of {what} is no {type}.")
        if isinstance(value, float) and type == "Integer" and value.is_integer():
            value = int(value)
        found[name] = Parameter(name, type).read(str(value))
    return found


def _about(asked: Asked) -> Iterable[str]:
    row = asked.view.get(_KIND, asked.call.account, asked.call.region, str(asked.input["CallbackToken"]))
    if row is None:
        return ("*",)
    return (PIPELINE_EXECUTION.arn(row.account, row.region, row.doc["execution"]),)


def _answered(a: Authorised, tx: Transaction, answer: dict[str, Any]) -> Output:
    token = a.input["CallbackToken"]
    row = tx.get(_KIND, a.account, a.region, token)
    if row is None:
        raise Refused("ResourceNotFound", f"No step waits for the callback token {token} (any more).")
    if "answer" in row.doc:
        raise Refused("ConflictException", f"The callback token {token} was answered already.")
    if "outputs" in answer:
        try:
            answer["outputs"] = typed(row.doc["outputs"], answer["outputs"], f"the callback of {row.doc['step']}")
        except Malformed as error:
            raise Refused("ValidationException", str(error)) from None
    row.doc["answer"] = answer
    tx.update(row, keep=False)
    tx.emit(ANSWERED, {"flow": row.doc["flow"], "token": token})
    arn = PIPELINE_EXECUTION.arn(row.account, row.region, row.doc["execution"])
    a.touched.append(arn)
    return {"PipelineExecutionArn": arn}


@PIPELINE_EXECUTION.operation(
    "SendPipelineExecutionStepSuccess", asks=[Ask("sagemaker:SendPipelineExecutionStepSuccess", _about)]
)
def success(a: Authorised, tx: Transaction) -> Output:
    given = {one["Name"]: one["Value"] for one in a.input.get("OutputParameters") or ()}
    return once(a, tx, a.input.get("ClientRequestToken"), lambda: _answered(a, tx, {"outputs": given}))


@PIPELINE_EXECUTION.operation(
    "SendPipelineExecutionStepFailure", asks=[Ask("sagemaker:SendPipelineExecutionStepFailure", _about)]
)
def failure(a: Authorised, tx: Transaction) -> Output:
    reason = a.input.get("FailureReason") or "The callback reported a failure."
    return once(a, tx, a.input.get("ClientRequestToken"), lambda: _answered(a, tx, {"reason": reason}))
