"""Keys: what they are, where they are found, and what a decision needs to know of them.

A customer's key is a row whose material is wrapped by the root key. An AWS managed key (``alias/aws/s3``) is no row: its
material is derived from the root key for its account, region and service, so it exists as soon as somebody uses it.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Sequence
from functools import partial
from typing import Final

from bastide.domain import Arn, Refused
from bastide.engines.keys import RootKey
from bastide.kernel import Authorised, Caller, Facts, Kind
from bastide.policy import Attached, Document, Form, Grant
from bastide.store import Row, View

KEY = Kind(
    "Key",
    service="kms",
    arn="key/{}",
    named_by="KeyId",
    missing=("NotFoundException", "Key '{arn}' does not exist", 400),
)
ALIAS_KEY = "kms:Alias"
MANAGED_SERVICES = ("s3", "sagemaker", "ebs", "ssm", "secretsmanager")
_VIA = {"ebs": "ec2"}
_NAMESPACE = uuid.UUID("5a3c7f0e-6d0b-4f3e-9a35-0d7a4d5c9f11")

GRANT: Final = "kms:Grant"
"""Rows ``KEY|GRANT`` under the key's account and region."""
GRANT_TO: Final = "kms:GrantTo"
"""Rows ``KEY|PRINCIPAL|GRANT``: the grants of a key that a principal is the grantee or the retiring principal of."""


def not_found(text: str) -> Refused:
    """KMS's way of saying that a key is not there."""
    return Refused("NotFoundException", text, 400)


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


def find(view: View, account: str, region: str, key_id: str) -> Row:
    """The key's row; raises NotFoundException, also when its day of deletion is past."""
    row = view.get(KEY.key, account, region, key_id) or managed(account, region, key_id)
    if row is None:
        raise not_found(f"Key '{KEY.arn(account, region, key_id)}' does not exist")
    return row


def named(a: Authorised, view: View, member: str = "KeyId") -> Row:
    """The key that a call names."""
    row = find(view, *locate(view, str(a.input[member]), a.account, a.region))
    if row.status == "PendingDeletion" and row.doc["DeletionDate"] <= a.now:
        raise not_found(f"Key '{KEY.arn(row.account, row.region, row.name)}' does not exist")
    return row


def usable(a: Authorised, row: Row) -> Row:
    """The row again; raises DisabledException or KMSInvalidStateException if the key cannot be used."""
    arn = KEY.arn(row.account, row.region, row.name)
    if row.status == "Disabled":
        raise Refused("DisabledException", f"{arn} is disabled.")
    if row.status != "Enabled":
        raise Refused("KMSInvalidStateException", f"{arn} is pending deletion.")
    return row


def material(a: Authorised, view: View, row: Row) -> bytes:
    """The key's material, unwrapped; kept in memory until the key changes."""
    root = a.engine(RootKey)
    arn = KEY.arn(row.account, row.region, row.name)
    if row.doc["Manager"] == "AWS":
        return root.derive("kms/" + arn)
    return view.memo(
        ("kms:material", arn, row.generation),
        ((KEY.key, row.account),),
        lambda: root.unwrap(base64.b64decode(row.doc["Material"]), arn.encode()),
    )


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
