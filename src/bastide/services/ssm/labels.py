"""Labels of versions: names that move from version to version."""

from __future__ import annotations

import re
from typing import Final

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Output
from bastide.services.ssm.parameter import PARAMETER, found, not_found, this, told, version_of
from bastide.store import Row, Transaction

_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.\-]{0,99}")
_MOST: Final = 10


def _legal(label: str) -> bool:
    """Source: User Guide, "Working with parameter labels"."""
    return _LABEL.fullmatch(label) is not None and not label.lower().startswith(("aws", "ssm"))


def _row(a: Authorised, tx: Transaction) -> tuple[Row, int]:
    row, selector = found(a, tx, a.input["Name"])
    if selector or row.account != a.account:
        raise not_found()
    version = int(a.input.get("ParameterVersion") or row.doc["Version"])
    if version_of(tx, row, version) is None:
        raise Refused("ParameterVersionNotFound", f"Systems Manager could not find version {version} of {row.name}.")
    return row, version


@PARAMETER.operation("LabelParameterVersion", asks=[Ask("ssm:LabelParameterVersion", this)])
def label(a: Authorised, tx: Transaction) -> Output:
    row, version = _row(a, tx)
    wanted = list(dict.fromkeys(str(one) for one in a.input["Labels"]))
    legal = [one for one in wanted if _legal(one)]
    labels: dict[str, int] = {**row.doc["labels"], **dict.fromkeys(legal, version)}
    if sum(one == version for one in labels.values()) > _MOST:
        raise Refused("ParameterVersionLabelLimitExceeded", f"A parameter version can have at most {_MOST} labels.")
    if legal:
        row.doc["labels"] = labels
        PARAMETER.change(tx, row, a.operation.name, a.request.id)
        told(tx, row, "LabelParameterVersion")
    return {"InvalidLabels": [one for one in wanted if one not in legal], "ParameterVersion": version}


@PARAMETER.operation("UnlabelParameterVersion", asks=[Ask("ssm:UnlabelParameterVersion", this)])
def unlabel(a: Authorised, tx: Transaction) -> Output:
    row, version = _row(a, tx)
    wanted = list(dict.fromkeys(str(one) for one in a.input["Labels"]))
    removed = [one for one in wanted if row.doc["labels"].get(one) == version]
    for one in removed:
        del row.doc["labels"][one]
    if removed:
        PARAMETER.change(tx, row, a.operation.name, a.request.id)
    return {"RemovedLabels": removed, "InvalidLabels": [one for one in wanted if one not in removed]}
