"""What a step's expressions may ask for: what earlier steps made, and the JSON files that they wrote."""

from __future__ import annotations

from typing import Any, Final

import orjson

from bastide.domain import Instant, Refused
from bastide.kernel import Calls
from bastide.services.sagemaker import objects, pipeline_step
from bastide.services.sagemaker import pipeline_language as language
from bastide.services.sagemaker.pipeline_execution import variables
from bastide.services.sagemaker.pipeline_language.expression import Reference
from bastide.services.sagemaker.session import RoleSession
from bastide.store import Row

_MOST: Final = 2 << 20
"""Bytes of a property file, as the quota has it."""
_MOST_IN_ALL: Final = 16 << 20
"""Bytes of all that one step asks for."""


async def scope(
    calls: Calls,
    session: RoleSession,
    execution: Row,
    definition: language.Definition,
    step: language.Step,
    now: Instant,
) -> language.Scope:
    """Everything that a step's expressions ask for; documents are read with the pipeline's role. Raises Unresolved."""
    with calls.store.reading() as view:
        rows = pipeline_step.every(view, execution)
    known = {name: _properties(row) for name, row in rows.items() if row.status == "Succeeded"}
    found = language.Scope(execution.doc["_values"], variables(execution, now), known)
    left = _MOST_IN_ALL
    for value in step.open:
        for key, meant in language.wanted(value, found).items():
            if key not in found.documents:
                uri = meant if isinstance(meant, str) else _place(found, definition, meant)
                found.documents[key], size = await _read(session, uri)
                left -= size
                if left < 0:
                    raise language.Unresolved(f"The step {step.name} reads more than {_MOST_IN_ALL} bytes of JSON.")
    return found


def _properties(row: Row) -> dict[str, Any]:
    """What others may ask of a step that succeeded."""
    found = dict(row.doc.get("_described") or {})
    return found | {"OutputParameters": row.doc["_outputs"]} if "_outputs" in row.doc else found


def _place(scope: language.Scope, definition: language.Definition, meant: Reference) -> str:
    """Where a property file lies."""
    file = definition.steps[meant.name].files[str(meant.file)]
    outputs = (scope.steps.get(meant.name, {}).get("ProcessingOutputConfig") or {}).get("Outputs") or ()
    for one in outputs:
        if one["OutputName"] == file.output and one.get("S3Output"):
            return f"{one['S3Output']['S3Uri'].rstrip('/')}/{file.path.lstrip('/')}"
    raise language.Unresolved(f"The step {meant.name} has no output {file.output}, where {meant.file} would be.")


async def _read(session: RoleSession, uri: str) -> tuple[Any, int]:
    """What a file holds, and its bytes."""
    try:
        bucket, key = objects.split(uri)
        content, _ = await objects.read(session, bucket, key, most=_MOST)
    except Refused as refused:
        raise language.Unresolved(f"Std:JsonGet cannot read {uri[:500]}: {refused.message}") from None
    try:
        return orjson.loads(content), len(content)
    except orjson.JSONDecodeError as error:
        raise language.Unresolved(f"Std:JsonGet: {uri[:500]} is no JSON: {error}.") from None
