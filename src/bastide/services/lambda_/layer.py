"""Layers: archives that functions find below /opt.

Source: AWS Lambda API Reference, PublishLayerVersion and what is about layers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Output, anything, pages
from bastide.services.lambda_ import code as codes
from bastide.services.lambda_.configuration import layer_version
from bastide.services.lambda_.function import Work, hold, location
from bastide.services.lambda_.noun import LAYER, LAYER_VERSION, Named, invalid, limit_of, told_time, version_key
from bastide.services.lambda_.permission import layer_name, layer_version_arn, this_version, version_of
from bastide.store import Row, Transaction, View

_KEPT: Final = ("Description", "CompatibleArchitectures", "CompatibleRuntimes", "LicenseInfo")


def _this(asked: Asked) -> Iterable[str]:
    account, name = layer_name(str(asked.input["LayerName"]), asked.call.account, asked.call.region)
    return (LAYER.arn(account, asked.call.region, name),)


async def _receive(a: Authorised) -> Work:
    return Work(await codes.receive(a, a.input["Content"], layer=True))


async def _undo(a: Authorised) -> None:
    if a.staged is not None and a.staged.code is not None:
        await codes.drop(a.calls, a.staged.code.id)


def _shown(a: Authorised, row: Row, *, whole: bool) -> Output:
    name, _, number = row.name.partition(":")
    told: Output = {
        "LayerVersionArn": layer_version_arn(row.account, row.region, name, number),
        "Version": int(number),
        "CreatedDate": row.doc["CreatedDate"],
    }
    told |= {member: row.doc[member] for member in _KEPT if row.doc.get(member)}
    if whole:
        told["LayerArn"] = LAYER.arn(row.account, row.region, name)
        told["Content"] = {
            "Location": location(a, "layer", Named(row.account, row.region, name, number), row.doc),
            "CodeSha256": row.doc["CodeSha256"],
            "CodeSize": row.doc["CodeSize"],
        }
    return told


@LAYER.operation("PublishLayerVersion", asks=[Ask("lambda:PublishLayerVersion", _this)], before=_receive, undo=_undo)
def publish(a: Authorised, tx: Transaction) -> Output:
    account, name = layer_name(str(a.input["LayerName"]), a.account, a.region)
    if account != a.account:
        raise Refused("AccessDeniedException", "A layer is made in the caller's own account.", 403)
    if a.input.get("CompatibleArchitectures") not in (None, [], ["x86_64"]):
        raise invalid("CompatibleArchitectures: functions run on x86_64 here.")
    code = a.staged.code
    row = LAYER.get(tx, account, a.region, name)
    if row is None:
        row = LAYER.create(a, tx, name, {"newest": 0})
    number = int(row.doc["newest"]) + 1
    doc: dict[str, Any] = {member: a.input[member] for member in _KEPT if a.input.get(member)}
    doc |= {"CodeSha256": code.sha256, "CodeSize": code.size, "CreatedDate": told_time(a.now), "_code": code.kept()}
    held = Row(LAYER_VERSION, account, a.region, version_key(name, number), doc)
    tx.insert(held, keep=False)
    row.doc["newest"] = number
    LAYER.change(tx, row, a.operation.name, a.request.id)
    hold(tx, account, a.region)
    return _shown(a, held, whole=True)


@LAYER.reads("GetLayerVersion", asks=[Ask("lambda:GetLayerVersion", this_version)])
def get(a: Authorised, view: View) -> Output:
    return _shown(a, version_of(a, view), whole=True)


def _by_arn(asked: Asked) -> Iterable[str]:
    return (str(asked.input["Arn"]),)


@LAYER.reads("GetLayerVersionByArn", asks=[Ask("lambda:GetLayerVersion", _by_arn)])
def get_by_arn(a: Authorised, view: View) -> Output:
    row = layer_version(view, str(a.input["Arn"]))
    if row is None or row.region != a.region:
        raise Refused("ResourceNotFoundException", "The resource you requested does not exist.", 404)
    return _shown(a, row, whole=True)


def _fits(row: Row, given: dict[str, Any]) -> bool:
    runtime, machine = given.get("CompatibleRuntime"), given.get("CompatibleArchitecture")
    return (not runtime or runtime in (row.doc.get("CompatibleRuntimes") or ())) and (
        not machine or machine in (row.doc.get("CompatibleArchitectures") or ())
    )


@LAYER.reads("ListLayerVersions", asks=[Ask("lambda:ListLayerVersions", anything)])
def list_versions(a: Authorised, view: View) -> Output:
    account, name = layer_name(str(a.input["LayerName"]), a.account, a.region)
    if account != a.account:
        raise Refused("AccessDeniedException", "The versions of another account's layer cannot be listed.", 403)
    limit = limit_of(a)
    after = pages.position(a, a.input.get("Marker"), code="InvalidParameterValueException")
    rows = view.scan(
        LAYER_VERSION, account, a.region, prefix=f"{name}:", order="created", descending=True,
        after=(after[0], after[1]) if after else None, limit=limit + 1,
    )  # fmt: skip
    output: Output = {"LayerVersions": [_shown(a, one, whole=False) for one in rows[:limit] if _fits(one, a.input)]}
    if len(rows) > limit:
        output["NextMarker"] = pages.seal(a, [rows[limit - 1].created, rows[limit - 1].name])
    return output


@LAYER.reads("ListLayers", asks=[Ask("lambda:ListLayers", anything)])
def listed(a: Authorised, view: View) -> Output:
    limit = limit_of(a)
    after = pages.position(a, a.input.get("Marker"), code="InvalidParameterValueException")
    rows = view.scan(LAYER.key, a.account, a.region, after=after, limit=limit + 1)
    found: list[Output] = []
    for row in rows[:limit]:
        held = view.scan(
            LAYER_VERSION, row.account, row.region, prefix=f"{row.name}:", order="created", descending=True, limit=50
        )
        newest = next((one for one in held if _fits(one, a.input)), None)
        if newest is not None:
            arn = LAYER.arn(row.account, row.region, row.name)
            found.append(
                {"LayerName": row.name, "LayerArn": arn, "LatestMatchingVersion": _shown(a, newest, whole=False)}
            )
    output: Output = {"Layers": found}
    if len(rows) > limit:
        output["NextMarker"] = pages.seal(a, rows[limit - 1].name)
    return output


@LAYER.operation("DeleteLayerVersion", asks=[Ask("lambda:DeleteLayerVersion", this_version)])
def delete(a: Authorised, tx: Transaction) -> Output:
    """Functions that have it go on having it: they name its archive themselves, and what nobody names is swept at the next
    start."""
    try:
        row = version_of(a, tx)
    except Refused:
        return {}
    tx.delete(row, keep=False)
    return {}
