"""Requests of MLflow's REST API: asked about, recorded, and handed to the tracking server that they name.

The server itself knows nobody; it listens on a socket that only this process reaches.
"""

from __future__ import annotations

from typing import Any, Final

from bastide.domain import Arn, Refused
from bastide.engines.serving import Lost, NotReady, Slow, Standing
from bastide.kernel import Ask, Authorised, Kind, Output, member
from bastide.protocol import codec
from bastide.store import View

_SERVER_KEY: Final = "sagemaker:TrackingServer"
_SECONDS: Final = 60.0
_READS: Final = ("Get", "List", "Search")

TRACKING = Kind(
    "Tracking", service="sagemaker-mlflow", arn="tracking/{}", named_by="TrackingServerArn", tags=False, history=False
)
"""Not a noun: what the operations hang on."""


def found(a: Authorised, view: View) -> Output:
    """Raises Refused unless the server that a request names is there and active."""
    arn = Arn.parse(a.input["TrackingServerArn"])
    if arn.region != a.region:
        raise Refused(
            "ValidationException", f"The tracking server is in {arn.region}, and the request is signed for {a.region}."
        )
    name = arn.resource.partition("/")[2]
    row = view.get(_SERVER_KEY, arn.account, arn.region, name)
    if row is None:
        raise Refused("ResourceNotFound", f"Could not find the tracking server {name}.", 404)
    if row.doc["IsActive"] != "Active":
        raise Refused(
            "ValidationException",
            f"The tracking server {name} is not active ({row.status}). Start it with StartMlflowTrackingServer.",
        )
    return {}


async def _hand(a: Authorised, _: Output) -> Output:
    given: dict[str, Any] = a.input
    path = given["Path"] + (f"?{given['Query']}" if given["Query"] else "")
    kind = given.get("ContentType")
    headers = [("content-type", kind)] if kind else []
    try:
        answer = await a.engine(Standing).ask(
            given["TrackingServerArn"], given["Method"], path, headers, given["Body"], seconds=_SECONDS
        )
    except NotReady:
        raise Refused("ServiceUnavailable", "The tracking server does not answer now. Please try again.", 503) from None
    except Lost as lost:
        raise Refused("InternalFailure", f"The tracking server did not answer as it should: {lost}.", 502) from None
    except Slow:
        raise Refused("InternalFailure", f"The tracking server did not answer in {_SECONDS:.0f} s.", 504) from None
    return {"Status": answer.status, "ContentType": answer.headers.get("content-type"), "Body": answer.body}


for _name in sorted(codec("sagemaker-mlflow").operations):
    TRACKING.operation(
        _name,
        asks=[Ask(f"sagemaker-mlflow:{_name}", member("TrackingServerArn"))],
        mutates=not _name.startswith(_READS),
        data=True,
        after=_hand,
    )(found)
