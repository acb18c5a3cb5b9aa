"""Rotation: new material for a key that keeps its name; what earlier material encrypted, it still decrypts.

Source: AWS KMS Developer Guide, "Rotate AWS KMS keys"; API Reference, EnableKeyRotation, RotateKeyOnDemand,
ListKeyRotations.
"""

from __future__ import annotations

from typing import Any, Final

from bastide.domain import MICROS, Instant, Refused
from bastide.engines.keys import RootKey, Safe, new_material
from bastide.engines.keys.specs import SYMMETRIC
from bastide.kernel import Asked, Authorised, Output, pages
from bastide.services.kms.asking import ask
from bastide.services.kms.key import changeable, own
from bastide.services.kms.noun import KEY, due, keep_material, named, origin_of, spec_of, told, usable
from bastide.store import Row, Transaction, View

DAY: Final = 24 * 3600 * MICROS
_YEAR: Final = 365
_MOST: Final = 25
"""On-demand rotations of one key (Developer Guide, "Resource quotas")."""


def rotate(safe: Safe, root: RootKey, tx: Transaction, row: Row, kind: str, now: Instant) -> None:
    """Gives a key new material; the caller writes the row. kind: ``AUTOMATIC`` or ``ON_DEMAND``."""
    held = keep_material(safe, root, tx, KEY.arn(row.account, row.region, row.name), new_material())
    row.doc["Materials"].append(held | {"at": now, "type": kind})
    told(tx, row, "KMS CMK Rotation")


def _rotatable(a: Authorised, row: Row) -> Row:
    arn = KEY.arn(row.account, row.region, row.name)
    if spec_of(row) != SYMMETRIC or origin_of(row) != "AWS_KMS":
        raise Refused(
            "UnsupportedOperationException",
            f"{arn} is not a symmetric encryption key with material of KMS, which alone are rotated.",
        )
    return usable(a, row)


def _period(asked: Asked) -> str | None:
    return str(asked.input.get("RotationPeriodInDays") or _YEAR)


@KEY.operation("EnableKeyRotation", asks=[ask("EnableKeyRotation", kms__RotationPeriodInDays=_period)])
def enable(a: Authorised, tx: Transaction) -> Output:
    """New material every so many days, the first time that many days from now."""
    row = _rotatable(a, own(a, tx))
    days = int(a.input.get("RotationPeriodInDays") or row.doc.get("Rotation", {}).get("days") or _YEAR)
    if not 90 <= days <= 2560:
        raise Refused("ValidationException", "RotationPeriodInDays must be from 90 to 2560.")
    before = row.doc.get("Rotation")
    if before is None or before["days"] != days:
        row.doc["Rotation"] = {"days": days, "next": a.now + days * DAY}
        due(tx, row.doc["Rotation"]["next"], "rotate", row)
        KEY.change(tx, row, "EnableKeyRotation", a.request.id)
    return {}


@KEY.operation("DisableKeyRotation", asks=[ask("DisableKeyRotation")])
def disable(a: Authorised, tx: Transaction) -> Output:
    """No new material by itself from now on."""
    row = _rotatable(a, own(a, tx))
    if row.doc.pop("Rotation", None) is not None:
        KEY.change(tx, row, "DisableKeyRotation", a.request.id)
    return {}


@KEY.reads("GetKeyRotationStatus", asks=[ask("GetKeyRotationStatus")])
def status(a: Authorised, view: View) -> Output:
    """Whether, how often and when next the key gets new material. AWS managed keys here never do."""
    row = changeable(a, named(a, view), "PendingImport")
    told: Output = {"KeyId": KEY.arn(row.account, row.region, row.name), "KeyRotationEnabled": False}
    rotation = row.doc.get("Rotation")
    if rotation is not None and row.status != "PendingDeletion":
        told |= {"KeyRotationEnabled": True, "RotationPeriodInDays": rotation["days"]}
        told["NextRotationDate"] = rotation["next"]
    return told


@KEY.operation("RotateKeyOnDemand", asks=[ask("RotateKeyOnDemand")])
def rotate_on_demand(a: Authorised, tx: Transaction) -> Output:
    """New material at once; up to 25 times in a key's life."""
    row = usable(a, own(a, tx))
    if origin_of(row) == "EXTERNAL" and spec_of(row) == SYMMETRIC:
        raise Refused(
            "KMSInvalidStateException",
            f"No available key material pending rotation for the key: {KEY.arn(row.account, row.region, row.name)}.",
        )
    row = _rotatable(a, row)
    if sum(one.get("type") == "ON_DEMAND" for one in row.doc["Materials"]) >= _MOST:
        raise Refused(
            "LimitExceededException",
            f"The on-demand rotations limit has been reached for the given keyId. No more on-demand rotations can be "
            f"performed for this key: {KEY.arn(row.account, row.region, row.name)}",
        )
    rotate(a.engine(Safe), a.engine(RootKey), tx, row, "ON_DEMAND", a.now)
    KEY.change(tx, row, "RotateKeyOnDemand", a.request.id)
    return {"KeyId": KEY.arn(row.account, row.region, row.name)}


@KEY.reads("ListKeyRotations", asks=[ask("ListKeyRotations")])
def list_rotations(a: Authorised, view: View) -> Output:
    """The rotations of a key, oldest first; with ALL_KEY_MATERIAL its first material, too."""
    row = named(a, view)
    arn = KEY.arn(row.account, row.region, row.name)
    if spec_of(row) != SYMMETRIC:
        raise Refused("UnsupportedOperationException", f"{arn} is not a symmetric encryption key.")
    limit = int(a.input.get("Limit") or 100)
    after = int(pages.position(a, a.input.get("Marker"), code="InvalidMarkerException") or 0)
    materials = list(enumerate(row.doc.get("Materials", ()), 1))
    everything = a.input.get("IncludeKeyMaterial") == "ALL_KEY_MATERIAL"
    found = [(number, one) for number, one in materials if number > after and (everything or "type" in one)]
    shown = found[:limit]
    more = len(found) > limit
    return {
        "Rotations": [_told(row, arn, one, number == len(materials)) for number, one in shown],
        "Truncated": more,
        "NextMarker": pages.seal(a, str(shown[-1][0])) if more else None,
    }


def _told(row: Row, arn: str, one: dict[str, Any], newest: bool) -> dict[str, Any]:
    told: dict[str, Any] = {
        "KeyId": arn,
        "KeyMaterialId": one["id"],
        "KeyMaterialState": "CURRENT" if newest else "NON_CURRENT",
    }
    if "type" in one:
        told |= {"RotationDate": one["at"], "RotationType": one["type"]}
    if origin_of(row) == "EXTERNAL":
        told["ImportState"] = "IMPORTED" if "wrapped" in one else "PENDING_IMPORT"
    return told
