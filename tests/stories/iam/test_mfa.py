"""Virtual MFA devices."""

from __future__ import annotations

import base64
import time

from tests.platform import Account, Keys, Running, allow
from tests.stories.sts.test_sessions import DENIED, refusal
from tests.stories.sts.test_user_sessions import STEP, Person, code, now

WRONG = ("InvalidAuthenticationCode", 403)
MISSING = ("NoSuchEntity", 404)


def test_a_device_from_its_making_to_its_end(platform: Running, account: Account) -> None:
    iam = account.client("iam")
    person = Person(platform, account, "ida")
    tags = [{"Key": "k", "Value": "v"}]
    made = iam.create_virtual_mfa_device(Path="/staff/", VirtualMFADeviceName="phone", Tags=tags)["VirtualMFADevice"]
    serial = made["SerialNumber"]
    assert serial == f"arn:aws:iam::{account.id}:mfa/staff/phone"
    seed = made["Base32StringSeed"]
    assert len(base64.b32decode(seed)) == 40
    assert made["QRCodePNG"].startswith(b"\x89PNG\r\n") and len(made["QRCodePNG"]) > 300
    again = {"Path": "/staff/", "VirtualMFADeviceName": "phone"}
    assert refusal(iam.create_virtual_mfa_device, **again) == ("EntityAlreadyExists", 409)
    assert [one["SerialNumber"] for one in _listed(account, "Unassigned")] == [serial]
    step = now()
    name = {"UserName": "ida", "SerialNumber": serial}

    def codes(first: int, second: int) -> dict[str, str]:
        return {"AuthenticationCode1": code(seed, step + first), "AuthenticationCode2": code(seed, step + second)}

    for first, second in ((0, 0), (-1, 1), (0, -1), (-50, -49)):
        assert refusal(iam.enable_mfa_device, **name, **codes(first, second)) == WRONG
    missing = {"UserName": "ida", "SerialNumber": serial + "x"}
    assert refusal(iam.enable_mfa_device, **missing, **codes(-1, 0)) == MISSING
    iam.enable_mfa_device(**name, **codes(-1, 0))
    assert refusal(iam.enable_mfa_device, **name, **codes(0, 1)) == ("EntityAlreadyExists", 409)
    devices = iam.list_mfa_devices(UserName="ida")["MFADevices"]
    assert [(one["UserName"], one["SerialNumber"]) for one in devices] == [("ida", serial)]
    listed = _listed(account, "Assigned")
    assert [(one["SerialNumber"], one["User"]["Arn"]) for one in listed] == [(serial, person.arn)]
    assert iam.get_mfa_device(SerialNumber=serial)["UserName"] == "ida"
    assert iam.list_mfa_device_tags(SerialNumber=serial)["Tags"] == tags
    assert refusal(iam.delete_virtual_mfa_device, SerialNumber=serial) == ("DeleteConflict", 409)
    assert refusal(_delete, person) == ("DeleteConflict", 409)
    iam.create_user(UserName="jo")
    assert refusal(iam.deactivate_mfa_device, UserName="jo", SerialNumber=serial) == MISSING
    iam.update_user(UserName="ida", NewUserName="ada")
    assert iam.get_mfa_device(SerialNumber=serial)["UserName"] == "ada"
    assert [one["User"]["UserName"] for one in _listed(account, "Assigned")] == ["ada"]
    iam.update_user(UserName="ada", NewUserName="ida")
    iam.deactivate_mfa_device(**name)
    assert iam.list_mfa_devices(UserName="ida")["MFADevices"] == [] and _listed(account, "Assigned") == []
    fresh = iam.create_access_key(UserName="ida")["AccessKey"]
    person.keys = Keys(fresh["AccessKeyId"], fresh["SecretAccessKey"])
    later = code(seed, step + 1)
    assert refusal(person.session, SerialNumber=serial, TokenCode=later) == DENIED
    iam.delete_virtual_mfa_device(SerialNumber=serial)
    assert refusal(iam.get_mfa_device, SerialNumber=serial) == MISSING
    _delete(person)


def _listed(account: Account, status: str) -> list[dict[str, object]]:
    found = account.client("iam").list_virtual_mfa_devices(AssignmentStatus=status)
    listed: list[dict[str, object]] = found["VirtualMFADevices"]
    return listed


def _delete(person: Person) -> None:
    for key in person.iam.list_access_keys(UserName=person.name)["AccessKeyMetadata"]:
        person.iam.delete_access_key(UserName=person.name, AccessKeyId=key["AccessKeyId"])
    person.iam.delete_user(UserName=person.name)


def test_a_clock_that_went_astray(platform: Running, account: Account) -> None:
    person = Person(platform, account, "kim")
    serial = person.device()
    step = now()
    ahead = step + 40  # twenty minutes
    assert refusal(person.session, SerialNumber=serial, TokenCode=code(person.seed, ahead)) == DENIED
    name = {"UserName": "kim", "SerialNumber": serial}
    far = {"AuthenticationCode1": code(person.seed, step + 500), "AuthenticationCode2": code(person.seed, step + 501)}
    assert refusal(person.iam.resync_mfa_device, **name, **far) == WRONG
    apart = {"AuthenticationCode1": code(person.seed, ahead), "AuthenticationCode2": code(person.seed, ahead + 2)}
    assert refusal(person.iam.resync_mfa_device, **name, **apart) == WRONG
    good = {"AuthenticationCode1": code(person.seed, ahead), "AuthenticationCode2": code(person.seed, ahead + 1)}
    person.iam.resync_mfa_device(**name, **good)
    # Codes that were shown are spent; the device's next one is good.
    assert refusal(person.session, SerialNumber=serial, TokenCode=code(person.seed, ahead + 1)) == DENIED
    person.session(SerialNumber=serial, TokenCode=code(person.seed, ahead + 2))
    assert refusal(person.iam.resync_mfa_device, **name, **good) == WRONG
    assert time.time() // STEP - step < 2


def test_people_manage_their_own_device(platform: Running, account: Account) -> None:
    """The policy that AWS recommends: a person enables a device of their own name, and nobody else's."""
    own = {"Version": "2012-10-17", "Statement": [
        *allow("iam:CreateVirtualMFADevice", resource="arn:aws:iam::*:mfa/${aws:username}")["Statement"],
        *allow("iam:EnableMFADevice", "iam:ListMFADevices",
               resource="arn:aws:iam::*:user/${aws:username}")["Statement"],
    ]}  # fmt: skip
    person = Person(platform, account, "lea", own)
    other = Person(platform, account, "mia")
    iam = platform.client("iam", person.keys)
    assert refusal(iam.create_virtual_mfa_device, VirtualMFADeviceName="mia") == DENIED
    made = iam.create_virtual_mfa_device(VirtualMFADeviceName="lea")["VirtualMFADevice"]
    step = now()
    codes = {
        "AuthenticationCode1": code(made["Base32StringSeed"], step - 1),
        "AuthenticationCode2": code(made["Base32StringSeed"], step),
    }
    assert refusal(iam.enable_mfa_device, UserName="mia", SerialNumber=made["SerialNumber"], **codes) == DENIED
    iam.enable_mfa_device(UserName="lea", SerialNumber=made["SerialNumber"], **codes)
    assert len(iam.list_mfa_devices()["MFADevices"]) == 1
    assert refusal(platform.client("iam", other.keys).list_mfa_devices, UserName="lea") == DENIED
