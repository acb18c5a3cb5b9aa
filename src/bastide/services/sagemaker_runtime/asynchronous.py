"""InvokeEndpointAsync: a request that lies in S3, an answer that will lie there.

What is asked for is an execution of the flow that the sagemaker service brings; it is on the disk before the caller is
told.
"""

from __future__ import annotations

import uuid
from typing import Any, Final

from bastide.domain import MICROS, Refused
from bastide.engines.workflow import Workflows
from bastide.kernel import Ask, Authorised, Output
from bastide.services.sagemaker_runtime.invocation import INVOCATION, arn_of, endpoint, found, sent
from bastide.store import Transaction

FLOW: Final = "async-inference"
_WAITS: Final = 6 * 3600
_ANSWERS: Final = 900
_UNSUPPORTED: Final = ("Body", "Filename", "S3OutputPathExtension")


async def _wake(a: Authorised, output: Output) -> Output:
    a.engine(Workflows).wake()
    return output


@INVOCATION.operation(
    "InvokeEndpointAsync", asks=[Ask("sagemaker:InvokeEndpointAsync", endpoint)], data=True, after=_wake
)
def invoke(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    for member in _UNSUPPORTED:
        if given.get(member):
            raise Refused("ValidationError", f"{member} is not supported by Bastide yet.")
    location = str(given.get("InputLocation") or "")
    if not location.startswith("s3://") or "/" not in location[5:]:
        raise Refused("ValidationError", "InputLocation is needed: the S3 URI of the request.")
    row = found(a, tx, asynchronous=True)
    config: dict[str, Any] = row.doc["AsyncInferenceConfig"]
    if not row.doc.get("ProductionVariants"):
        raise Refused("ValidationError", f"Endpoint {row.name} of account {a.account} not found.")
    id_ = str(uuid.uuid4())
    inference = given.get("InferenceId") or id_
    output = config["OutputConfig"]
    state = {
        "account": a.account,
        "region": a.region,
        "name": row.name,
        "arn": arn_of(a.account, a.region, row.name),
        "variant": row.doc["ProductionVariants"][0]["VariantName"],
        "config": config,
        "headers": sent(given),
        "inference": inference,
        "input": location,
        "output": f"{output['S3OutputPath'].rstrip('/')}/{id_}.out",
        "received": a.now,
        "until": a.now + int(given.get("RequestTTLSeconds") or _WAITS) * MICROS,
        "seconds": int(given.get("InvocationTimeoutSeconds") or _ANSWERS),
    }
    told: Output = {"InferenceId": inference, "OutputLocation": state["output"]}
    if output.get("S3FailurePath"):
        state["failure"] = told["FailureLocation"] = f"{output['S3FailurePath'].rstrip('/')}/{id_}-error.out"
    a.engine(Workflows).start(tx, FLOW, f"{state['arn']}/async/{id_}", state)
    return told
