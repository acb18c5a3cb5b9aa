"""Lifecycle configurations of notebook instances: scripts that run when one is made, and at every start.

What a configuration says is read when an instance begins to start. Source: Amazon SageMaker API Reference; developer guide,
"Customization of a SageMaker notebook instance using an LCC script".
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Kind, Output, regular, tags_of
from bastide.services.sagemaker.asking import tagging
from bastide.store import Row, Transaction

LIFECYCLE_CONFIG = Kind(
    "NotebookInstanceLifecycleConfig",
    service="sagemaker",
    arn="notebook-instance-lifecycle-config/{}",
    missing=("ValidationException", "Could not find the notebook instance lifecycle config {name}.", 400),
    taken=("ValidationException", "The notebook instance lifecycle config {name} exists already.", 400),
)
HOOKS = ("OnCreate", "OnStart")


def scripts(row: Row, *, first: bool) -> list[tuple[str, str]]:
    """Which scripts run, and their content (base64). first: at the instance's first start."""
    found = []
    for hook in HOOKS if first else HOOKS[1:]:
        found += [(hook, one["Content"]) for one in row.doc.get(hook) or () if one.get("Content")]
    return found


def _given(given: dict[str, Any]) -> dict[str, Any]:
    for hook in HOOKS:
        for one in given.get(hook) or ():
            try:
                base64.b64decode(one.get("Content") or "", validate=True)
            except (ValueError, binascii.Error):
                raise Refused("ValidationException", f"{hook}: the Content of a script is base64.") from None
    return {hook: given[hook] for hook in HOOKS if hook in given}


@LIFECYCLE_CONFIG.operation(
    "CreateNotebookInstanceLifecycleConfig",
    asks=[
        Ask("sagemaker:CreateNotebookInstanceLifecycleConfig", LIFECYCLE_CONFIG.this),
        tagging(LIFECYCLE_CONFIG, "CreateNotebookInstanceLifecycleConfig"),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    name = a.input["NotebookInstanceLifecycleConfigName"]
    LIFECYCLE_CONFIG.create(a, tx, name, _given(a.input), tags=tags_of(a))
    return {"NotebookInstanceLifecycleConfigArn": LIFECYCLE_CONFIG.arn(a.account, a.region, name)}


@LIFECYCLE_CONFIG.operation(
    "UpdateNotebookInstanceLifecycleConfig",
    asks=[Ask("sagemaker:UpdateNotebookInstanceLifecycleConfig", LIFECYCLE_CONFIG.this)],
)
def update(a: Authorised, tx: Transaction) -> Output:
    row = LIFECYCLE_CONFIG.named(a, tx)
    row.doc |= _given(a.input)
    LIFECYCLE_CONFIG.change(tx, row, a.operation.name, a.request.id)
    return {}


regular(LIFECYCLE_CONFIG, "Describe", "List", "Delete", descending=True)
