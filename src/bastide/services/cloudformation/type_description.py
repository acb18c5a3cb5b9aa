"""The types of resources that there are, and what their calls ask.

Source: CloudFormation API Reference, "DescribeType" and "ListTypes".
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.engines.templates import schema
from bastide.kernel import Ask, Authorised, Calls, Output, anything, pages
from bastide.services.cloudformation.record import STACK
from bastide.services.cloudformation.types import TYPES, known
from bastide.store import View

_PAGE: Final = 100
_READING: Final = ("Describe", "Get", "Head", "List")
_REMOVING: Final = ("Delete", "Schedule", "Deregister", "Unsubscribe", "Disassociate", "Revoke", "Close")
_CHANGING: Final = ("Update", "Put", "Modify", "Replace", "Set")


def _handlers(calls: Calls, name: str) -> dict[str, Any]:
    """Which actions making, removing and changing one asks for, as far as an operation's name tells."""
    kind = TYPES[name]
    wanted = {
        "create": kind.calls[:1],
        "update": [one for one in kind.calls if one[1].startswith(_CHANGING)],
        "delete": [one for one in kind.calls if one[1].startswith(_REMOVING)],
        "read": [one for one in kind.calls if one[1].startswith(_READING)],
    }
    found = {}
    for handler, operations in wanted.items():
        held = [calls.registry.operations[one] for one in operations if one in calls.registry.operations]
        actions = sorted({ask.action for operation in held for ask in operation.asks if ask.when is None})
        if actions:
            found[handler] = {"permissions": actions}
    return found


@STACK.reads("DescribeType", asks=[Ask("cloudformation:DescribeType", anything)])
def describe(a: Authorised, view: View) -> Output:
    name = a.input.get("TypeName") or str(a.input.get("Arn") or "").rpartition("/")[2].replace("-", "::")
    if a.input.get("Type") not in (None, "RESOURCE") or not known(a.calls, name) or name not in TYPES:
        raise Refused("TypeNotFoundException", f"The type '{name}' cannot be found.", 404)
    held = {**schema.schema(name), "typeName": name, "handlers": _handlers(a.calls, name)}
    return {
        "Arn": f"arn:aws:cloudformation:{a.region}::type/resource/{name.replace('::', '-')}",
        "Type": "RESOURCE",
        "TypeName": name,
        "Schema": orjson.dumps(held).decode(),
        "ProvisioningType": "FULLY_MUTABLE" if TYPES[name].update is not None else "IMMUTABLE",
        "Visibility": "PUBLIC",
        "DeprecatedStatus": "LIVE",
    }


@STACK.reads("ListTypes", asks=[Ask("cloudformation:ListTypes", anything)])
def listed(a: Authorised, view: View) -> Output:
    if a.input.get("Type") not in (None, "RESOURCE") or (a.input.get("Visibility") or "PRIVATE") != "PUBLIC":
        return {"TypeSummaries": []}
    prefix = (a.input.get("Filters") or {}).get("TypeNamePrefix") or ""
    names = [name for name in sorted(TYPES) if name.startswith(prefix) and known(a.calls, name)]
    after = int(pages.position(a, a.input.get("NextToken")) or 0)
    size = int(a.input.get("MaxResults") or _PAGE)
    told = [
        {
            "Type": "RESOURCE",
            "TypeName": name,
            "TypeArn": f"arn:aws:cloudformation:{a.region}::type/resource/{name.replace('::', '-')}",
        }
        for name in names[after : after + size]
    ]
    answer: Output = {"TypeSummaries": told}
    if len(names) > after + size:
        answer["NextToken"] = pages.seal(a, after + size)
    return answer
