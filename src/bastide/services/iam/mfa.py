"""Virtual MFA devices: time-based one-time passwords as a second factor.

Source: RFC 6238 and RFC 4226 (SHA-1, 30 seconds, six digits, as AWS's virtual devices); IAM User Guide, "Multi-factor
authentication"; IAM API reference, "CreateVirtualMFADevice". A code is good once, and so is every earlier one.
"""

from __future__ import annotations

import base64
import hmac
import io
import secrets
import struct
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote

import segno

from bastide.domain import MICROS, Instant, Refused, tag_list
from bastide.kernel import Ask, Asked, Authorised, Caller, Kind, Output, Sealer
from bastide.services.iam.entity import conflict, limit, new_tags, no_entity, paged, with_tags
from bastide.services.iam.user import ENABLED_DEVICE, MOVING, USER, own_or_named, user_name
from bastide.store import Row, Transaction, View

_PURPOSE: Final = "mfa-seed"
_SEED_BYTES: Final = 40
"""As AWS: a seed of 64 base32 characters."""
_STEP: Final = 30 * MICROS
_NEAR: Final = 1
"""Steps that a device's clock may be off when a code is used."""
_ENABLE_NEAR: Final = 3
"""Steps around now in which the two codes of a new device must lie."""
_FAR: Final = 120
"""Steps (an hour) that it may be off when it is brought back into step, with two codes in a row."""
_MOST_DEVICES: Final = 8
_MOST_GUESSES: Final = 5
_PAUSE: Final = 5 * 60 * MICROS
"""After so many wrong codes, none is good for so long: a code has a million values, three of which are good."""


class Device(Kind):
    """A virtual device. The row's name is the path and name in its serial number."""

    def save(self, a: Authorised, tx: Transaction, row: Row) -> None:
        """Writes a changed row."""
        row.modified = a.now
        self.change(tx, row, a.operation.name, a.request.id)


DEVICE = Device(
    "MFADevice",
    service="iam",
    arn="mfa/{}",
    named_by="SerialNumber",
    global_=True,
    history=False,  # it would keep the sealed seed of a device that is gone
    missing=("NoSuchEntity", "VirtualMFADevice with serial number {arn} doesn't exist.", 404),
    taken=("EntityAlreadyExists", "MFADevice entity at the same path and name already exists.", 409),
)


# -- codes ---------------------------------------------------------------------------------------------------------------


def code_at(seed: bytes, step: int) -> str:
    """The six digits of a time step (RFC 4226, section 5.3)."""
    digest = hmac.digest(seed, struct.pack(">q", step), "sha1")
    at = digest[-1] & 15
    number = struct.unpack(">I", digest[at : at + 4])[0] & 0x7FFFFFFF
    return f"{number % 10**6:06d}"


def _matching(seed: bytes, code: str, around: int, reach: int) -> list[int]:
    """Steps near `around` whose code it is; all of them are computed, whichever matches."""
    found = []
    for step in range(around - reach, around + reach + 1):
        if step >= 0 and hmac.compare_digest(code_at(seed, step).encode(), code.encode()):
            found.append(step)
    return found


def spend(tx: Transaction, sealer: Sealer, caller: Caller, serial: str, code: str, now: Instant) -> bool:
    """Whether `code` is good for that device of the calling user; see `bastide.kernel.Directory.second_factor`."""
    if caller.kind != "User":
        return False
    try:
        account, _, name = DEVICE.locate(serial, caller.account, "")
    except Refused:
        return False
    row = DEVICE.get(tx, account, "", name) if account == caller.account and serial.startswith("arn:") else None
    if row is None or row.doc["user_id"] != caller.user_id:
        return False
    doc = row.doc
    if now < doc["blocked"]:
        return False
    seed = sealer.open(doc["seed"], _PURPOSE)
    steps = [step for step in _matching(seed, code, now // _STEP + doc["offset"], _NEAR) if step > doc["used"]]
    if steps:
        doc.update(used=steps[0], guesses=0)
    else:
        doc["guesses"] += 1
        if doc["guesses"] >= _MOST_GUESSES:
            doc.update(guesses=0, blocked=now + _PAUSE)
    tx.update(row, keep=False)
    return bool(steps)


def _both(a: Authorised, row: Row, reach: int) -> None:
    """Takes two codes in a row, and sets how far the device's clock is off; raises Refused (InvalidAuthenticationCode)."""
    seed = a.calls.sealer.open(row.doc["seed"], _PURPOSE)
    now = a.now // _STEP
    first, second = str(a.input["AuthenticationCode1"]), str(a.input["AuthenticationCode2"])
    for step in _matching(seed, first, now, reach):
        if step > row.doc["used"] and hmac.compare_digest(code_at(seed, step + 1).encode(), second.encode()):
            off = step + 1 - now
            row.doc.update(used=step + 1, offset=0 if abs(off) <= _NEAR else off, guesses=0, blocked=0)
            return
    raise Refused("InvalidAuthenticationCode", "Authentication code for device is not valid.", 403)


# -- devices -------------------------------------------------------------------------------------------------------------


def _made(asked: Asked) -> Iterable[str]:
    path = str(asked.input.get("Path") or "/")
    return (DEVICE.arn(asked.call.account, "", f"{path[1:]}{asked.input['VirtualMFADeviceName']}"),)


@DEVICE.operation(
    "CreateVirtualMFADevice",
    asks=[
        Ask("iam:CreateVirtualMFADevice", _made),
        Ask("iam:TagMFADevice", _made, when=lambda asked: bool(asked.input.get("Tags"))),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    """The seed is shown once, as text and as a picture; what is kept is sealed."""
    name, path = a.input["VirtualMFADeviceName"], a.input.get("Path") or "/"
    seed = secrets.token_bytes(_SEED_BYTES)
    doc = {
        "seed": a.calls.sealer.seal(seed, _PURPOSE),
        "user": "",
        "user_id": "",
        "enabled": 0,
        "offset": 0,
        "used": 0,
        "guesses": 0,
        "blocked": 0,
    }
    row = DEVICE.create(a, tx, f"{path[1:]}{name}", doc, tags=new_tags(a))
    text = base64.b32encode(seed).decode()
    label = quote(f"{name}@{a.account}", safe="@")
    picture = io.BytesIO()
    code = segno.make(f"otpauth://totp/{label}?secret={text}&issuer=Bastide", micro=False)
    code.save(picture, kind="png", scale=4)
    shown: Output = {
        "SerialNumber": DEVICE.arn(a.account, "", row.name),
        "Base32StringSeed": text.encode(),
        "QRCodePNG": picture.getvalue(),
    }
    if row.tags:
        shown["Tags"] = tag_list(row.tags)
    return {"VirtualMFADevice": shown}


def _device(a: Authorised, view: View) -> Row:
    return _of_account(a, view, str(a.input["SerialNumber"]))


def _of_account(a: Authorised, view: View, serial: str) -> Row:
    gone = no_entity(f"VirtualMFADevice with serial number {serial} doesn't exist.")
    try:
        account, _, name = DEVICE.locate(serial, a.account, "")
    except Refused:
        raise gone from None
    row = DEVICE.get(view, account, "", name) if account == a.account and serial.startswith("arn:") else None
    if row is None:
        raise gone
    return row


def _this(asked: Asked) -> Iterable[str]:
    serial = str(asked.input["SerialNumber"])
    # Hardware devices have serial numbers that are no ARN; there are none here.
    return (serial,) if serial.startswith("arn:aws:iam::") else ("*",)


@DEVICE.operation("DeleteVirtualMFADevice", asks=[Ask("iam:DeleteVirtualMFADevice", _this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = _device(a, tx)
    if row.doc["user_id"]:
        raise conflict("MFA VirtualDevice in use. Must deactivate first.")
    DEVICE.remove(tx, row, a.operation.name, a.request.id)
    return {}


@DEVICE.operation("EnableMFADevice", asks=[Ask("iam:EnableMFADevice", USER.this)])
def enable(a: Authorised, tx: Transaction) -> Output:
    user, row = USER.asked_for(a, tx), _device(a, tx)
    if row.doc["user_id"]:
        raise Refused("EntityAlreadyExists", "MFA Device is already in use.", 409)
    user_id = user.doc["UserId"]
    if len(tx.scan(ENABLED_DEVICE, a.account, "", prefix=f"{user_id}/", limit=_MOST_DEVICES)) >= _MOST_DEVICES:
        raise limit(f"Cannot exceed quota for MFADevicesPerUser: {_MOST_DEVICES}")
    _both(a, row, _ENABLE_NEAR)
    row.doc.update(user=user.doc["UserName"], user_id=user_id, enabled=a.now)
    DEVICE.save(a, tx, row)
    tx.insert(
        Row(ENABLED_DEVICE, a.account, "", f"{user_id}/{row.name}", {"enabled": a.now}, created=a.now), keep=False
    )
    return {}


def _enabled(a: Authorised, view: View, user: Row) -> Row:
    row = _device(a, view)
    if row.doc["user_id"] != user.doc["UserId"]:
        raise no_entity(f"MFA Device invalid for user: {user.doc['UserName']}")
    return row


@DEVICE.operation("DeactivateMFADevice", asks=[Ask("iam:DeactivateMFADevice", own_or_named)])
def deactivate(a: Authorised, tx: Transaction) -> Output:
    user = USER.need(tx, a.account, user_name(a))
    row = _enabled(a, tx, user)
    held = tx.get(ENABLED_DEVICE, a.account, "", f"{user.doc['UserId']}/{row.name}")
    if held is not None:
        tx.delete(held, keep=False)
    row.doc.update(user="", user_id="", enabled=0)
    DEVICE.save(a, tx, row)
    return {}


@DEVICE.operation("ResyncMFADevice", asks=[Ask("iam:ResyncMFADevice", USER.this)])
def resync(a: Authorised, tx: Transaction) -> Output:
    row = _enabled(a, tx, USER.asked_for(a, tx))
    _both(a, row, _FAR)
    DEVICE.save(a, tx, row)
    return {}


@DEVICE.reads("ListMFADevices", asks=[Ask("iam:ListMFADevices", own_or_named)])
def devices(a: Authorised, view: View) -> Output:
    user = USER.need(view, a.account, user_name(a))

    def show(row: Row) -> Output:
        return {
            "UserName": user.doc["UserName"],
            "SerialNumber": DEVICE.arn(a.account, "", row.name.partition("/")[2]),
            "EnableDate": row.doc["enabled"],
        }

    return paged(a, view, ENABLED_DEVICE, "MFADevices", show, prefix=f"{user.doc['UserId']}/")


@DEVICE.reads("GetMFADevice", asks=[Ask("iam:GetMFADevice", own_or_named)])
def get(a: Authorised, view: View) -> Output:
    row = _device(a, view)
    if a.input.get("UserName") is not None or a.caller.kind == "User":
        _enabled(a, view, USER.need(view, a.account, user_name(a)))
    shown: Output = {"SerialNumber": DEVICE.arn(a.account, "", row.name)}
    if row.doc["user_id"]:
        shown.update(UserName=row.doc["user"], EnableDate=row.doc["enabled"])
    return shown


def _anywhere(asked: Asked) -> Iterable[str]:
    return (f"arn:aws:iam::{asked.call.account}:mfa/*",)


@DEVICE.reads("ListVirtualMFADevices", asks=[Ask("iam:ListVirtualMFADevices", _anywhere)])
def virtual(a: Authorised, view: View) -> Output:
    wanted = a.input.get("AssignmentStatus") or "Any"

    def show(row: Row) -> Any:
        shown: Output = {"SerialNumber": DEVICE.arn(a.account, "", row.name)}
        user = USER.held(view, a.account, row.doc["user"]) if row.doc["user_id"] else None
        if user is not None:
            doc = user.doc
            shown["User"] = {key: doc[key] for key in ("Path", "UserName", "UserId", "Arn")}
            shown["User"]["CreateDate"] = user.created
            shown["EnableDate"] = row.doc["enabled"]
        return shown

    return paged(
        a,
        view,
        DEVICE.key,
        "VirtualMFADevices",
        show,
        wanted=lambda row: wanted == "Any" or bool(row.doc["user_id"]) == (wanted == "Assigned"),
    )


def _move(a: Authorised, tx: Transaction, before: Row, after: Row) -> None:
    """Devices tell their user's new name."""
    prefix = f"{after.doc['UserId']}/"
    for held in tx.scan(ENABLED_DEVICE, before.account, "", prefix=prefix, limit=_MOST_DEVICES):
        row = DEVICE.get(tx, before.account, "", held.name.removeprefix(prefix))
        if row is not None:
            row.doc["user"] = after.doc["UserName"]
            DEVICE.change(tx, row, a.operation.name, a.request.id)


MOVING.append(_move)
with_tags(DEVICE, _device, _this)
