"""Keys: made, described, enabled, disabled, scheduled for deletion; and the keys that AWS manages for its services.

A customer's key is a row whose material is wrapped by the root key. An AWS managed key (``alias/aws/s3``) is no row: its
material is derived from the root key for its account, region and service, so it exists as soon as somebody uses it.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterable
from typing import Any

from bastide.domain import MICROS, Arn, Refused, tag_list
from bastide.engines.keys import RootKey, new_material
from bastide.kernel import Ask, Asked, Authorised, Facts, Kind, Output, anything, pages, tags_of
from bastide.policy import Attached, Document, Form
from bastide.store import Row, Transaction, View

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
_LONGEST_POLICY = 32 * 1024
_DAY = 24 * 3600 * MICROS


def not_found(text: str) -> Refused:
    """KMS's way of saying that a key is not there."""
    return Refused("NotFoundException", text, 400)


def _malformed(refused: Refused) -> Refused:
    return Refused("MalformedPolicyDocumentException", refused.message, 400)


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


def about(member: str = "KeyId") -> Any:
    """The ARN of the key that a member names, aliases resolved."""

    def arns(asked: Asked) -> Iterable[str]:
        given = asked.input.get(member)
        if not given:
            return ()
        return (KEY.arn(*locate(asked.view, str(given), asked.call.account, asked.call.region)),)

    return arns


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


def facts(view: View, arn: Arn, action: str) -> Facts | None:
    """Whose a key is, its tags, and its policy, which has the first word."""
    if arn.type != "key":
        return Facts(arn.account, type="Alias") if arn.type == "alias" else None
    key = ("kms:facts", arn.account, arn.region, arn.name)

    def load() -> Facts:
        row = view.get(KEY.key, arn.account, arn.region, arn.name) or managed(arn.account, arn.region, arn.name)
        if row is None:
            return Facts(arn.account, type="Key")
        return Facts(
            arn.account, row.tags, Attached(Document.parse(row.doc["Policy"], Form.KEY), str(arn)), "key", "Key"
        )

    return view.memo(key, ((KEY.key, arn.account),), load)


# -- operations ----------------------------------------------------------------------------------------------------------


def told(row: Row) -> dict[str, Any]:
    """KeyMetadata."""
    known: dict[str, Any] = {
        "AWSAccountId": row.account,
        "KeyId": row.name,
        "Arn": KEY.arn(row.account, row.region, row.name),
        "CreationDate": row.created,
        "Enabled": row.status == "Enabled",
        "Description": row.doc.get("Description", ""),
        "KeyUsage": "ENCRYPT_DECRYPT",
        "KeyState": row.status,
        "Origin": "AWS_KMS",
        "KeyManager": row.doc["Manager"],
        "CustomerMasterKeySpec": "SYMMETRIC_DEFAULT",
        "KeySpec": "SYMMETRIC_DEFAULT",
        "EncryptionAlgorithms": ["SYMMETRIC_DEFAULT"],
        "MultiRegion": False,
    }
    if row.status == "PendingDeletion":
        known["DeletionDate"] = row.doc["DeletionDate"]
    return known


def checked_policy(a: Authorised, text: str, key_arn: str) -> str:
    """A key policy that can be kept; raises MalformedPolicyDocumentException, also for one that locks the caller out."""
    if len(text.encode()) > _LONGEST_POLICY:
        raise Refused("LimitExceededException", f"A key policy may have at most {_LONGEST_POLICY} bytes.")
    try:
        document = Document.parse(text, Form.KEY)
    except Refused as refused:
        raise _malformed(refused) from None
    if not a.input.get("BypassPolicyLockoutSafetyCheck") and not _lets_change(a, document, key_arn):
        raise Refused(
            "MalformedPolicyDocumentException",
            "The new key policy will not allow you to update the key policy in the future.",
        )
    return text


def _lets_change(a: Authorised, document: Document, key_arn: str) -> bool:
    from bastide import policy  # noqa: PLC0415 - the name `policy` is the document's everywhere else here

    request = policy.Request(
        a.caller.principal(), "kms:PutKeyPolicy", key_arn, a.account, {"kms:calleraccount": a.account}
    )
    allowed = policy.Layers(
        identity=(_EVERYTHING,), boundary=None, session=None, resource=Attached(document, key_arn), scps=(), rcps=(),
        resource_kind="key",
    )  # fmt: skip
    return policy.decide(request, allowed).allowed


_EVERYTHING = Attached(
    Document.parse(
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}, Form.IDENTITY
    ),
    "whatever the caller's own policies say",
)


def default_policy(account: str) -> str:
    """What KMS gives a key without one: the account's identity policies decide."""
    statement = {
        "Sid": "Enable IAM User Permissions",
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{account}:root"},
        "Action": "kms:*",
        "Resource": "*",
    }
    return json.dumps({"Version": "2012-10-17", "Id": "key-default-1", "Statement": [statement]})


CALLER = {"kms:CallerAccount": lambda asked: asked.call.account}


def _unsupported(text: str) -> Refused:
    return Refused("UnsupportedOperationException", f"{text} Bastide has symmetric encryption keys only, for now.")


@KEY.operation(
    "CreateKey",
    asks=[
        Ask(
            "kms:CreateKey",
            anything,
            CALLER
            | {
                "kms:KeySpec": lambda asked: str(asked.input.get("KeySpec") or "SYMMETRIC_DEFAULT"),
                "kms:KeyUsage": lambda asked: str(asked.input.get("KeyUsage") or "ENCRYPT_DECRYPT"),
                "kms:KeyOrigin": lambda asked: str(asked.input.get("Origin") or "AWS_KMS"),
                "kms:MultiRegion": lambda asked: "true" if asked.input.get("MultiRegion") else "false",
                "kms:BypassPolicyLockoutSafetyCheck": lambda asked: (
                    "true" if asked.input.get("BypassPolicyLockoutSafetyCheck") else "false"
                ),
            },
        ),
        Ask("kms:TagResource", anything, CALLER, when=lambda asked: bool(asked.input.get("Tags"))),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    """A new symmetric key."""
    spec = a.input.get("KeySpec") or a.input.get("CustomerMasterKeySpec") or "SYMMETRIC_DEFAULT"
    if spec != "SYMMETRIC_DEFAULT" or (a.input.get("KeyUsage") or "ENCRYPT_DECRYPT") != "ENCRYPT_DECRYPT":
        raise _unsupported(f"KeySpec {spec} and KeyUsage {a.input.get('KeyUsage')} cannot be made.")
    if (a.input.get("Origin") or "AWS_KMS") != "AWS_KMS" or a.input.get("MultiRegion"):
        raise _unsupported("Imported and multi-region keys cannot be made.")
    tags = tags_of(a, "TagException")
    key_id = str(uuid.uuid4())
    arn = KEY.arn(a.account, a.region, key_id)
    text = a.input.get("Policy")
    policy = checked_policy(a, str(text), arn) if text else default_policy(a.account)
    wrapped = a.engine(RootKey).wrap(new_material(), arn.encode())
    doc = {
        "Description": a.input.get("Description") or "",
        "Manager": "CUSTOMER",
        "Policy": policy,
        "Material": base64.b64encode(wrapped).decode(),
    }
    row = KEY.create(a, tx, key_id, doc, status="Enabled", tags=tags)
    a.touched.append(arn)
    return {"KeyMetadata": told(row)}


@KEY.reads("DescribeKey", asks=[Ask("kms:DescribeKey", about(), CALLER)])
def describe(a: Authorised, view: View) -> Output:
    """A key's metadata."""
    return {"KeyMetadata": told(named(a, view))}


@KEY.reads("ListKeys", asks=[Ask("kms:ListKeys", anything, CALLER)])
def list_keys(a: Authorised, view: View) -> Output:
    """The account's keys, by id."""
    limit = int(a.input.get("Limit") or 100)
    after = pages.position(a, a.input.get("Marker"), code="InvalidMarkerException")
    rows = view.scan(KEY.key, a.account, a.region, after=after, limit=limit + 1)
    shown = rows[:limit]
    more = len(rows) > limit
    return {
        "Keys": [{"KeyId": row.name, "KeyArn": KEY.arn(row.account, row.region, row.name)} for row in shown],
        "Truncated": more,
        "NextMarker": pages.seal(a, shown[-1].name) if more else None,
    }


@KEY.reads("GetKeyPolicy", asks=[Ask("kms:GetKeyPolicy", about(), CALLER)])
def get_policy(a: Authorised, view: View) -> Output:
    """The key's policy."""
    if (a.input.get("PolicyName") or "default") != "default":
        raise not_found("No such policy exists")
    return {"Policy": named(a, view).doc["Policy"], "PolicyName": "default"}


@KEY.reads("ListKeyPolicies", asks=[Ask("kms:ListKeyPolicies", about(), CALLER)])
def list_policies(a: Authorised, view: View) -> Output:
    """The one name there is."""
    named(a, view)
    return {"PolicyNames": ["default"], "Truncated": False}


def own(a: Authorised, tx: View) -> Row:
    """A customer's key that the call names; AWS's keys are not for customers to manage."""
    row = named(a, tx)
    if row.doc["Manager"] == "AWS":
        raise Refused("AccessDeniedException", "AWS managed keys are managed by their service alone.", 400)
    return row


@KEY.operation("PutKeyPolicy", asks=[Ask("kms:PutKeyPolicy", about(), CALLER)])
def put_policy(a: Authorised, tx: Transaction) -> Output:
    """A new policy for the key."""
    row = own(a, tx)
    row.doc["Policy"] = checked_policy(a, str(a.input["Policy"]), KEY.arn(row.account, row.region, row.name))
    KEY.change(tx, row, "PutKeyPolicy", a.request.id)
    return {}


def _switch(name: str, state: str) -> None:
    @KEY.operation(name, asks=[Ask(f"kms:{name}", about(), CALLER)])
    def switch(a: Authorised, tx: Transaction) -> Output:
        row = own(a, tx)
        if row.status == "PendingDeletion":
            arn = KEY.arn(row.account, row.region, row.name)
            raise Refused("KMSInvalidStateException", f"{arn} is pending deletion.")
        if row.status != state:
            row.status = state
            KEY.change(tx, row, name, a.request.id)
        return {}


_switch("EnableKey", "Enabled")
_switch("DisableKey", "Disabled")


@KEY.operation(
    "ScheduleKeyDeletion",
    asks=[
        Ask(
            "kms:ScheduleKeyDeletion",
            about(),
            CALLER
            | {
                "kms:ScheduleKeyDeletionPendingWindowInDays": lambda asked: str(
                    asked.input.get("PendingWindowInDays") or 30
                )
            },
        )
    ],
)
def schedule_deletion(a: Authorised, tx: Transaction) -> Output:
    """The key cannot be used from now on, and is gone after the window."""
    row = own(a, tx)
    arn = KEY.arn(row.account, row.region, row.name)
    days = int(a.input.get("PendingWindowInDays") or 30)
    if not 7 <= days <= 30:
        raise Refused("ValidationException", "PendingWindowInDays must be from 7 to 30.")
    if row.status == "PendingDeletion":
        raise Refused("KMSInvalidStateException", f"{arn} is pending deletion.")
    row.status = "PendingDeletion"
    row.doc["DeletionDate"] = a.now + days * _DAY
    KEY.change(tx, row, "ScheduleKeyDeletion", a.request.id)
    return {"KeyId": arn, "DeletionDate": row.doc["DeletionDate"], "KeyState": row.status, "PendingWindowInDays": days}


@KEY.operation("CancelKeyDeletion", asks=[Ask("kms:CancelKeyDeletion", about(), CALLER)])
def cancel_deletion(a: Authorised, tx: Transaction) -> Output:
    """The key stays, disabled."""
    row = own(a, tx)
    arn = KEY.arn(row.account, row.region, row.name)
    if row.status != "PendingDeletion":
        raise Refused("KMSInvalidStateException", f"{arn} is not pending deletion.")
    row.status = "Disabled"
    del row.doc["DeletionDate"]
    KEY.change(tx, row, "CancelKeyDeletion", a.request.id)
    return {"KeyId": arn}


@KEY.operation("TagResource", asks=[Ask("kms:TagResource", about(), CALLER)])
def tag(a: Authorised, tx: Transaction) -> Output:
    """More tags."""
    row = own(a, tx)
    row.tags |= tags_of(a, "TagException")
    KEY.change(tx, row, "TagResource", a.request.id)
    return {}


@KEY.operation("UntagResource", asks=[Ask("kms:UntagResource", about(), CALLER)])
def untag(a: Authorised, tx: Transaction) -> Output:
    """Fewer tags."""
    row = own(a, tx)
    for name in a.input["TagKeys"]:
        row.tags.pop(str(name), None)
    KEY.change(tx, row, "UntagResource", a.request.id)
    return {}


@KEY.reads("ListResourceTags", asks=[Ask("kms:ListResourceTags", about(), CALLER)])
def list_tags(a: Authorised, view: View) -> Output:
    """The key's tags."""
    tags = [{"TagKey": one["Key"], "TagValue": one["Value"]} for one in tag_list(named(a, view).tags)]
    return {"Tags": tags, "Truncated": False}
