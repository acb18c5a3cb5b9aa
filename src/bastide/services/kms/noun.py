"""Keys: what they are, where they are found, and what a decision needs to know of them.

A customer's key is a row whose material, in all its versions, is wrapped under the root key and a shard of the safe. An AWS
managed key (``alias/aws/s3``) is no row: its material is derived from the root key for its account, region and service, so
it exists as soon as somebody uses it.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
import uuid
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from bastide.domain import Arn, Instant, Refused
from bastide.engines.keys import Gone, RootKey, Safe
from bastide.engines.keys.specs import SYMMETRIC
from bastide.kernel import Authorised, Caller, Facts, Kind
from bastide.kernel.happened import tell
from bastide.policy import Attached, Document, Form, Grant
from bastide.store import Row, Transaction, View

KEY = Kind(
    "Key",
    service="kms",
    arn="key/{}",
    named_by="KeyId",
    missing=("NotFoundException", "Key '{arn}' does not exist", 400),
)
ALIAS_KEY = "kms:Alias"
MANAGED_SERVICES = ("s3", "sagemaker", "ebs", "ssm", "secretsmanager", "sqs", "sns", "codecommit")
_VIA = {"ebs": "ec2"}
_NAMESPACE = uuid.UUID("5a3c7f0e-6d0b-4f3e-9a35-0d7a4d5c9f11")

SHARD: Final = "kms:Shard"
"""Rows of no account, by the id of a shard that some key's material is wrapped under."""
DUE: Final = "kms:Due"
"""Rows of no account, ``TIME|WHAT|ACCOUNT|REGION|KEY``: what time itself does to a key (`kms.keeper`)."""
GRANT: Final = "kms:Grant"
"""Rows ``KEY|GRANT`` under the key's account and region."""
GRANT_TO: Final = "kms:GrantTo"
"""Rows ``KEY|PRINCIPAL|GRANT``: the grants of a key that a principal is the grantee or the retiring principal of."""


def not_found(text: str) -> Refused:
    """KMS's way of saying that a key is not there."""
    return Refused("NotFoundException", text, 400)


def told(tx: Transaction, row: Row, what: str) -> None:
    """Tells EventBridge what time or somebody did to a key: ``KMS CMK Rotation``. Source: KMS Developer Guide, "Monitor KMS
    keys with Amazon EventBridge"."""
    tell(
        tx, account=row.account, region=row.region, source="aws.kms", detail_type=what,
        resources=[KEY.arn(row.account, row.region, row.name)], detail={"key-id": row.name},
    )  # fmt: skip


# -- AWS managed keys ----------------------------------------------------------------------------------------------------


def managed_id(account: str, region: str, service: str) -> str:
    """The id of an AWS managed key."""
    return str(uuid.uuid5(_NAMESPACE, f"{account}/{region}/{service}"))


def managed(account: str, region: str, key_id: str) -> Row | None:
    """The AWS managed key with that id, if it is one."""
    for service in MANAGED_SERVICES:
        if key_id == managed_id(account, region, service):
            doc = {
                "Description": f"Default key that protects my {service.upper()} data when no other key is defined",
                "Manager": "AWS",
                "Service": service,
                "Policy": _managed_policy(account, region, service),
            }
            return Row(KEY.key, account, region, key_id, doc, "Enabled", generation=1)
    return None


def _managed_policy(account: str, region: str, service: str) -> str:
    uses = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"]
    via = {"kms:CallerAccount": account, "kms:ViaService": f"{_VIA.get(service, service)}.{region}.amazonaws.com"}
    statements = [
        {
            "Sid": f"Allow access through {service} for all principals in the account that are authorized to use {service}",
            "Effect": "Allow",
            "Principal": {"AWS": "*"},
            "Action": uses,
            "Resource": "*",
            "Condition": {"StringEquals": via},
        },
        {
            "Sid": "Allow direct access to key metadata to the account",
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:aws:iam::{account}:root"},
            "Action": ["kms:Describe*", "kms:Get*", "kms:List*"],
            "Resource": "*",
        },
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


# -- finding keys --------------------------------------------------------------------------------------------------------


def locate(view: View, given: str, account: str, region: str) -> tuple[str, str, str]:
    """Account, region and id of the key that a key id, key ARN, alias name or alias ARN names.

    Raises Refused NotFoundException for an alias that is not there, and for what names no key.
    """
    if given.startswith("arn:"):
        try:
            arn = Arn.parse(given)
        except ValueError:
            raise Refused("InvalidArnException", f"Invalid arn {given[:300]}") from None
        if arn.service != "kms" or arn.type not in ("key", "alias"):
            raise Refused("InvalidArnException", f"Invalid arn {given[:300]}")
        account, region = arn.account, arn.region
        given = arn.name if arn.type == "key" else arn.resource
    if not given.startswith("alias/"):
        return account, region, given
    if given.startswith("alias/aws/") and given[10:] in MANAGED_SERVICES:
        return account, region, managed_id(account, region, given[10:])
    alias = view.get(ALIAS_KEY, account, region, given)
    if alias is None:
        raise not_found(f"Alias arn:aws:kms:{region}:{account}:{given} is not found.")
    return account, region, str(alias.doc["TargetKeyId"])


_ID: Final = re.compile(r"(mrk-[0-9a-f]{32}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})")


def find(view: View, account: str, region: str, key_id: str) -> Row:
    """The key's row; raises NotFoundException, also when its day of deletion is past."""
    row = view.get(KEY.key, account, region, key_id) or managed(account, region, key_id)
    if row is None and not _ID.fullmatch(key_id):
        raise not_found(f"Invalid keyId '{key_id}'")
    if row is None:
        raise not_found(f"Key '{KEY.arn(account, region, key_id)}' does not exist")
    return row


def named(a: Authorised, view: View, member: str = "KeyId") -> Row:
    """The key that a call names."""
    row = find(view, *locate(view, str(a.input[member]), a.account, a.region))
    if row.status == "PendingDeletion" and row.doc["DeletionDate"] <= a.now:
        raise not_found(f"Key '{KEY.arn(row.account, row.region, row.name)}' does not exist")
    return row


def is_expired(row: Row, now: Instant) -> bool:
    """Whether imported material has reached its end; the keeper takes it away soon after."""
    return 0 < int(row.doc.get("ValidTo") or 0) <= now


def state(row: Row, now: Instant) -> str:
    """The key's state at that time."""
    return "PendingImport" if row.status != "PendingDeletion" and is_expired(row, now) else row.status


def usable(a: Authorised, row: Row) -> Row:
    """The row again; raises DisabledException or KMSInvalidStateException if the key cannot be used."""
    arn = KEY.arn(row.account, row.region, row.name)
    here = state(row, a.now)
    if here == "Disabled":
        raise Refused("DisabledException", f"{arn} is disabled.")
    if here != "Enabled":
        raise Refused("KMSInvalidStateException", f"{arn} is pending {here.removeprefix('Pending').lower()}.")
    return row


# -- material --------------------------------------------------------------------------------------------------------------


def spec_of(row: Row) -> str:
    """The key's KeySpec."""
    return str(row.doc.get("Spec", SYMMETRIC))


def usage_of(row: Row) -> str:
    """The key's KeyUsage."""
    return str(row.doc.get("Usage", "ENCRYPT_DECRYPT"))


def origin_of(row: Row) -> str:
    """The key's Origin."""
    return str(row.doc.get("Origin", "AWS_KMS"))


def current(row: Row) -> int:
    """The version of the material that encrypts now; the first is 1."""
    return len(row.doc["Materials"]) if row.doc["Manager"] != "AWS" else 1


def material_id(row: Row) -> str | None:
    """The id of the material that encrypts now; AWS managed keys' have none."""
    held = row.doc.get("Materials")
    return str(held[-1]["id"]) if held else None


def id_of_material(root: RootKey, arn: str, material: bytes) -> str:
    """What tells material from other material, and nothing of it to who lacks the root key."""
    return hmac.digest(root.derive("kms/material-id"), arn.encode() + b"|" + material, "sha256").hex()


def keep_material(safe: Safe, root: RootKey, tx: Transaction, arn: str, material: bytes) -> dict[str, Any]:
    """Wraps material under the root key and a new shard; what a key's row keeps of it. The shard is on the disk when this
    returns; should the transaction not come to be, the next start sweeps it."""
    shard = safe.make()
    tx.insert(Row(SHARD, "", "", shard, {}), keep=False)
    id = id_of_material(root, arn, material)
    return {"id": id, "shard": shard, "wrapped": _wrap(safe, shard, material, arn, id)}


def _wrap(safe: Safe, shard: str, material: bytes, arn: str, id: str) -> str:
    return base64.b64encode(safe.wrap(shard, material, f"{arn}|{id}".encode())).decode()


def drop_material(tx: Transaction, held: dict[str, Any]) -> list[str]:
    """Forgets wrapped material; returns the shards to destroy once the transaction is on the disk."""
    held.pop("wrapped", None)
    shard = held.pop("shard", None)
    if shard is None:
        return []
    row = tx.get(SHARD, "", "", shard)
    if row is not None:
        tx.delete(row, keep=False)
    return [str(shard)]


def material(a: Authorised, view: View, row: Row, version: int | None = None) -> bytes:
    """The key's material, unwrapped; kept in memory until the key changes. version: left out, the current one.

    Raises InvalidCiphertextException for a version that the key never had, KMSInvalidStateException for one whose shard
    is gone.
    """
    number = version or current(row)

    def load() -> bytes:
        return unwrapped(a.engine(RootKey), a.engine(Safe), row, number)

    if row.doc["Manager"] == "AWS" or not 1 <= number <= current(row):
        return load()
    arn = KEY.arn(row.account, row.region, row.name)
    return view.memo(("kms:material", arn, number, row.generation), ((KEY.key, row.account),), load)


def unwrapped(root: RootKey, safe: Safe, row: Row, number: int) -> bytes:
    """A version of the key's material, whatever the key's state. Raises as `material` does."""
    arn = KEY.arn(row.account, row.region, row.name)
    if not 1 <= number <= current(row):
        raise Refused("InvalidCiphertextException", "The ciphertext is invalid.", 400)
    if row.doc["Manager"] == "AWS":
        return root.derive("kms/" + arn)
    held = row.doc["Materials"][number - 1]
    if "wrapped" not in held:
        raise Refused("KMSInvalidStateException", f"{arn} is pending import.")
    try:
        return safe.unwrap(held["shard"], base64.b64decode(held["wrapped"]), f"{arn}|{held['id']}".encode())
    except Gone:
        raise Refused("KMSInvalidStateException", f"The key material of {arn} was destroyed.") from None


def due(tx: Transaction, at: Instant, what: str, row: Row) -> None:
    """Has the keeper look at a key at a time."""
    name = f"{at:020d}|{what}|{row.account}|{row.region}|{row.name}"
    if tx.get(DUE, "", "", name) is None:
        tx.insert(Row(DUE, "", "", name, {}), keep=False)


def traits(view: View, arn: Arn) -> tuple[str, str, str] | None:
    """KeySpec, KeyUsage and Origin of a key; None if there is no such key."""

    def load() -> tuple[str, str, str] | None:
        row = view.get(KEY.key, arn.account, arn.region, arn.name) or managed(arn.account, arn.region, arn.name)
        return None if row is None else (spec_of(row), usage_of(row), origin_of(row))

    return view.memo(("kms:traits", arn.account, arn.region, arn.name), ((KEY.key, arn.account),), load)


# -- facts ---------------------------------------------------------------------------------------------------------------


def facts(view: View, arn: Arn, action: str) -> Facts | None:
    """Whose a key is, its tags, its grants, and its policy, which has the first word."""
    if arn.type != "key":
        return Facts(arn.account, type="Alias") if arn.type == "alias" else None
    key = ("kms:facts", arn.account, arn.region, arn.name)

    def load() -> Facts:
        row = view.get(KEY.key, arn.account, arn.region, arn.name) or managed(arn.account, arn.region, arn.name)
        if row is None:
            return Facts(arn.account, type="Key")
        policy = Attached(Document.parse(row.doc["Policy"], Form.KEY), str(arn))
        text, principals = row.doc["Policy"], row.doc.get("Principals", {})
        return Facts(
            arn.account, row.tags, policy, "key", "Key", partial(_grants, arn), text=text, principals=principals
        )

    return view.memo(key, ((KEY.key, arn.account),), load)


def _grants(arn: Arn, view: View, caller: Caller) -> Sequence[Attached]:
    """The grants of a key that concern a caller: as itself, as its role, as its account."""
    found: list[Attached] = []
    root = f"arn:aws:iam::{caller.account}:root" if caller.account else ""
    for principal in dict.fromkeys((caller.arn, caller.principal_arn, root)):
        if principal:
            for id, attached in _granted(view, arn, principal):
                # A user or role that was made anew under the same name is another one.
                if not id or id == caller.user_id.partition(":")[0]:
                    found.append(attached)
    return found


def _granted(view: View, arn: Arn, principal: str) -> Sequence[tuple[str, Attached]]:
    def load() -> Sequence[tuple[str, Attached]]:
        found: list[tuple[str, Attached]] = []
        prefix = f"{arn.name}|{principal}|"
        after: str | None = None
        while rows := view.scan(GRANT_TO, arn.account, arn.region, prefix=prefix, after=after, limit=500):
            after = rows[-1].name
            for one in rows:
                row = view.get(GRANT, arn.account, arn.region, f"{arn.name}|{one.name.rpartition('|')[2]}")
                if row is not None:
                    ids = row.doc["ids"]
                    found.append((ids.get(principal, ""), Attached(granted(row).document(), f"grant {row.doc['id']}")))
        return found

    return view.memo(("kms:grants", arn.account, arn.region, arn.name, principal), ((GRANT_TO, arn.account),), load)


def granted(row: Row) -> Grant:
    """A grant's row in the policy engine's words."""
    doc = row.doc
    constraints = doc["Constraints"]
    return Grant(
        doc["id"],
        _element(doc["GranteePrincipal"]),
        doc["Operations"],
        _element(doc["RetiringPrincipal"]) if doc["RetiringPrincipal"] else None,
        constraints.get("EncryptionContextEquals"),
        constraints.get("EncryptionContextSubset"),
        constraints.get("SourceArn", ""),
    )


def _element(principal: str) -> dict[str, str]:
    return {"AWS" if principal.startswith("arn:") else "Service": principal}
