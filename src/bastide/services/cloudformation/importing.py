"""Change sets that take resources into a stack which are there already.

Source: CloudFormation User Guide, "Import AWS resources into a CloudFormation stack with a resource import".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from bastide.engines.templates import schema
from bastide.kernel import Authorised, Calls
from bastide.services.cloudformation import planning, record
from bastide.services.cloudformation.record import State
from bastide.services.cloudformation.stack import invalid
from bastide.services.cloudformation.types import known
from bastide.services.cloudformation.types.adopting import ADOPTIONS
from bastide.store import Row


def asked(calls: Calls, input: Mapping[str, Any]) -> dict[str, str]:
    """The identifiers of what is to be imported, by logical id; raises Refused."""
    found: dict[str, str] = {}
    types = sorted({one["ResourceType"] for one in input["ResourcesToImport"]})
    missing = [one for one in types if one not in ADOPTIONS or not known(calls, one)]
    if missing:
        raise invalid(f"ResourceTypes [{', '.join(missing)}] are not supported for Import")
    for one in input["ResourcesToImport"]:
        name, given = one["LogicalResourceId"], one.get("ResourceIdentifier") or {}
        wanted = ADOPTIONS[one["ResourceType"]].identifier
        if set(given) != {wanted}:
            raise invalid(f"Resource {name} of the type {one['ResourceType']} is identified by [{wanted}].")
        if name in found:
            raise invalid(f"Resource {name} is to be imported twice.")
        found[name] = str(given[wanted])
    return found


def _listed(names: Any) -> str:
    return f"[{', '.join(sorted(names))}]"


def check(
    a: Authorised, row: Row, state: State, earlier: State | None, plan: planning.Plan, imports: Mapping[str, str]
) -> None:
    """Raises Refused unless a template changes nothing but that it imports; makes imports of the plan's additions."""
    raw = orjson.loads(state.processed)
    declared = raw.get("Resources") or {}
    types = {one["LogicalResourceId"]: one["ResourceType"] for one in a.input["ResourcesToImport"]}
    absent = [name for name in imports if name not in declared or declared[name].get("Type") != types[name]]
    if absent:
        raise invalid(f"Resources {_listed(absent)} to import are not in the template, or of another type there.")
    added = {name for name, one in plan.found.items() if one["Action"] == "Add"}
    there = set(imports) - added
    if there:
        raise invalid(
            f"Resources {_listed(there)} passed in ResourceToImport are already in a stack and cannot be imported."
        )
    if added - set(imports):
        raise invalid(f"Resources {_listed(added - set(imports))} is missing from ResourceToImport list")
    changed = [name for name, one in plan.found.items() if one["Action"] != "Add"]
    if changed:
        raise invalid(
            f"You have modified resources {_listed(changed)} in your template that are not being imported. Update, create "
            "or delete operations cannot be executed during import operations."
        )
    if earlier is not None and (raw.get("Outputs") or {}) != (orjson.loads(earlier.processed).get("Outputs") or {}):
        raise invalid("As part of the import operation, you cannot modify or add [Outputs]")
    loose = [name for name in imports if not declared[name].get("DeletionPolicy")]
    if loose:
        raise invalid(f"Resources {_listed(loose)} to import must have a DeletionPolicy attribute in the template.")
    _check_free(a, row, types, imports)
    for name in imports:
        plan.found[name] |= {"Action": "Import", "PhysicalResourceId": imports[name]}


def _check_free(a: Authorised, row: Row, types: Mapping[str, str], imports: Mapping[str, str]) -> None:
    """Raises Refused for what another stack has."""
    with a.calls.store.reading() as view:
        for stack in record.living(view, row.account, row.region):
            for one in record.rows_of(view, stack):
                for name, identifier in imports.items():
                    if one.doc.get("type") == types[name] and one.doc.get("physical") == identifier:
                        told = stack.name.partition("/")[0]
                        raise invalid(f"Resource {identifier} already exists in the stack {told}.")


def identifiers(type: str) -> list[str]:
    """The properties that a resource of a type is imported by; empty if it cannot be."""
    if type not in ADOPTIONS:
        return []
    return [one.rpartition("/")[2] for one in schema.schema(type).get("primaryIdentifier", ())]
