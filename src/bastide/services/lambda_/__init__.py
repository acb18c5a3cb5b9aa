"""Lambda: functions that run in sealed sandboxes, under their role, when somebody who may invokes them.

Source: AWS Lambda API Reference and Developer Guide.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from bastide.engines.artifacts import Artifacts
from bastide.engines.keys import RootKey
from bastide.kernel import Service
from bastide.services.lambda_ import alias as _alias  # these declare their operations
from bastide.services.lambda_ import code
from bastide.services.lambda_ import concurrency as _concurrency
from bastide.services.lambda_ import event_config as _event_config
from bastide.services.lambda_ import invocation as _invocation
from bastide.services.lambda_ import layer as _layer
from bastide.services.lambda_ import mapping as _mapping
from bastide.services.lambda_ import permission as _permission
from bastide.services.lambda_ import tagging as _tagging
from bastide.services.lambda_.asynchronous import Events
from bastide.services.lambda_.noun import (
    FUNCTION,
    HOLDER,
    LAYER,
    LAYER_VERSION,
    MAPPING,
    VERSION,
    archives,
    facts,
)
from bastide.services.lambda_.pages import CodePages
from bastide.services.lambda_.polling import Mappings
from bastide.services.lambda_.runner import Runner
from bastide.services.lambda_.settling import subscribe
from bastide.store import Store, View

__all__ = ["SERVICE", "CodePages", "Events", "Mappings", "Runner", "examine", "files", "subscribe"]

_RECORDED = {
    "20150331": (
        "CreateFunction", "DeleteFunction", "CreateEventSourceMapping", "UpdateEventSourceMapping",
        "DeleteEventSourceMapping", "GetEventSourceMapping", "ListEventSourceMappings", "ListFunctions", "PublishVersion",
        "CreateAlias", "UpdateAlias", "DeleteAlias", "GetAlias", "ListAliases", "ListVersionsByFunction",
    ),
    "20150331v2": (
        "AddPermission", "RemovePermission", "GetPolicy", "GetFunction", "GetFunctionConfiguration", "UpdateFunctionCode",
        "UpdateFunctionConfiguration",
    ),
    "20170331v2": ("TagResource", "UntagResource"),
    "20170331": ("ListTags",),
    "20171031": ("PutFunctionConcurrency", "DeleteFunctionConcurrency"),
    "20181031": ("PublishLayerVersion", "DeleteLayerVersion", "GetLayerVersion", "ListLayers", "ListLayerVersions"),
}  # fmt: skip
"""CloudTrail names Lambda's events with their API's version (Lambda Developer Guide, "Logging AWS Lambda API calls using
AWS CloudTrail")."""
for _kind in (FUNCTION, LAYER, MAPPING):
    for _operation in _kind.operations:
        for _version, _names in _RECORDED.items():
            if _operation.name in _names:
                _operation.event_name = f"{_operation.name}{_version}"

SERVICE = Service("lambda", kinds=[FUNCTION, LAYER, MAPPING], facts=facts)


def files(view: View) -> set[bytes]:
    """The ids of the files that archives are in. Reads all rows once: for a start, or a backup."""
    used: set[bytes] = set()
    holders: str | None = None
    while held := view.scan(HOLDER, "", "", after=holders, limit=1000):
        for holder in held:
            account, _, region = holder.name.partition("|")
            for kind in (FUNCTION.key, VERSION, LAYER_VERSION):
                after: str | None = None
                while rows := view.scan(kind, account, region, after=after, limit=1000):
                    for row in rows:
                        used.update(bytes.fromhex(one["id"]) for one in archives(row.doc))
                    after = rows[-1].name
        holders = held[-1].name
    return used


def examine(store: Store, root: RootKey, artifacts: Artifacts) -> AsyncIterator[tuple[str, str]]:
    """Reads every archive; of each its name, and what is wrong with it."""
    return code.examine(store, root, artifacts, (FUNCTION.key, VERSION, LAYER_VERSION), HOLDER)


del _alias, _concurrency, _event_config, _invocation, _layer, _mapping, _permission, _tagging
