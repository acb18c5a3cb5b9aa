"""Tags of functions and of event source mappings.

Source: AWS Lambda API Reference, TagResource.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from bastide.domain import Arn, Refused
from bastide.kernel import Ask, Asked, Authorised, Kind, Output
from bastide.services.lambda_.noun import FUNCTION, MAPPING, invalid
from bastide.store import Row, Transaction, View

_MOST: Final = 50


def _this(asked: Asked) -> Iterable[str]:
    return (str(asked.input["Resource"]),)


def _named(a: Authorised, view: View) -> tuple[Kind, Row]:
    given = str(a.input["Resource"])
    try:
        arn = Arn.parse(given)
    except ValueError:
        raise invalid(f"`{given[:200]}` is not an ARN.") from None
    for kind in (FUNCTION, MAPPING):
        if arn.service == "lambda" and arn.resource.startswith(kind.type):
            name = arn.resource[len(kind.type) :]
            if ":" in name:
                raise invalid("Tags on function aliases and versions are not supported. Please specify a function ARN.")
            if kind.arn(arn.account, arn.region, name) == given and arn.region == a.region:
                return kind, kind.find(view, arn.account, arn.region, name)
    raise Refused("ResourceNotFoundException", f"The resource {given[:200]} does not exist.", 404)


@FUNCTION.operation("TagResource", asks=[Ask("lambda:TagResource", _this)])
def tag(a: Authorised, tx: Transaction) -> Output:
    kind, row = _named(a, tx)
    given = {str(key): str(value) for key, value in a.input["Tags"].items()}
    if any(not key or key.lower().startswith("aws:") for key in given):
        raise invalid("A tag's key is not empty, and does not begin with aws:.")
    row.tags = {**row.tags, **given}
    if len(row.tags) > _MOST:
        raise invalid(f"A resource may have at most {_MOST} tags.")
    kind.change(tx, row, a.operation.name, a.request.id)
    return {}


@FUNCTION.operation("UntagResource", asks=[Ask("lambda:UntagResource", _this)])
def untag(a: Authorised, tx: Transaction) -> Output:
    kind, row = _named(a, tx)
    row.tags = {key: value for key, value in row.tags.items() if key not in a.input["TagKeys"]}
    kind.change(tx, row, a.operation.name, a.request.id)
    return {}


@FUNCTION.reads("ListTags", asks=[Ask("lambda:ListTags", _this)])
def listed(a: Authorised, view: View) -> Output:
    return {"Tags": dict(_named(a, view)[1].tags)}
