"""Keys, operated: made, described, enabled, disabled, tagged, scheduled for deletion."""

from __future__ import annotations

import json
import uuid
from typing import Any, Final

from bastide.domain import MICROS, Instant, Refused, tag_list
from bastide.engines.keys import RootKey, Safe, specs
from bastide.engines.keys.specs import SPECS, SYMMETRIC
from bastide.kernel import Ask, Asked, Authorised, Output, anything, pages, principals, tags_of
from bastide.policy import Attached, Document, Form
from bastide.services.kms.asking import CALLER, ask, request_alias, truth
from bastide.services.kms.cipher import made
from bastide.services.kms.noun import (
    KEY,
    due,
    keep_material,
    material_id,
    named,
    not_found,
    origin_of,
    spec_of,
    state,
    usage_of,
)
from bastide.store import Row, Transaction, View

_LONGEST_POLICY: Final = 32 * 1024
_MOST_TAGS: Final = 50
_DAY: Final = 24 * 3600 * MICROS


def _malformed(refused: Refused) -> Refused:
    return Refused("MalformedPolicyDocumentException", refused.message, 400)


_ALGORITHMS: Final = {
    "ENCRYPT_DECRYPT": "EncryptionAlgorithms",
    "SIGN_VERIFY": "SigningAlgorithms",
    "GENERATE_VERIFY_MAC": "MacAlgorithms",
}


def told(row: Row, now: Instant) -> dict[str, Any]:
    """KeyMetadata."""
    here, spec, usage = state(row, now), spec_of(row), usage_of(row)
    known: dict[str, Any] = {
        "AWSAccountId": row.account,
        "KeyId": row.name,
        "Arn": KEY.arn(row.account, row.region, row.name),
        "CreationDate": row.created,
        "Enabled": here == "Enabled",
        "Description": row.doc.get("Description", ""),
        "KeyUsage": usage,
        "KeyState": here,
        "Origin": origin_of(row),
        "KeyManager": row.doc["Manager"],
        "CustomerMasterKeySpec": spec,
        "KeySpec": spec,
        _ALGORITHMS[usage]: list(SPECS[spec].usages[usage]),
        "MultiRegion": False,
    }
    if here == "PendingDeletion":
        known["DeletionDate"] = row.doc["DeletionDate"]
    if spec == SYMMETRIC and material_id(row):
        known["CurrentKeyMaterialId"] = material_id(row)
    if origin_of(row) == "EXTERNAL" and here != "PendingImport" and row.doc.get("ExpirationModel"):
        known["ExpirationModel"] = row.doc["ExpirationModel"]
        if row.doc.get("ValidTo"):
            known["ValidTo"] = row.doc["ValidTo"]
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


def _wanted(a: Authorised) -> tuple[str, str, str]:
    """KeySpec, KeyUsage and Origin of the key that the call wants; raises Refused for what there is not."""
    given = a.input
    old, new = given.get("CustomerMasterKeySpec"), given.get("KeySpec")
    if old and new:
        raise Refused(
            "ValidationException", "You cannot specify KeySpec and CustomerMasterKeySpec in the same request."
        )
    name = str(new or old or SYMMETRIC)
    origin = str(given.get("Origin") or "AWS_KMS")
    if name not in SPECS:
        raise Refused("UnsupportedOperationException", f"KeySpec {name} is not supported by Bastide.")
    if given.get("MultiRegion"):
        raise Refused("UnsupportedOperationException", "Multi-Region keys are not supported by Bastide.")
    if given.get("CustomKeyStoreId") or given.get("XksKeyId") or origin not in ("AWS_KMS", "EXTERNAL"):
        raise Refused("UnsupportedOperationException", "Custom key stores are not supported by Bastide.")
    usage = given.get("KeyUsage")
    if usage is None:
        if name != SYMMETRIC:
            raise Refused(
                "ValidationException",
                "You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys.",
            )
        usage = "ENCRYPT_DECRYPT"
    if usage == "KEY_AGREEMENT" and name.startswith("ECC_NIST_"):
        raise Refused("UnsupportedOperationException", "KeyUsage KEY_AGREEMENT is not supported by Bastide.")
    if usage not in SPECS[name].usages:
        raise Refused("ValidationException", f"KeyUsage {usage} is not compatible with KeySpec {name}")
    return name, str(usage), origin


async def _new(a: Authorised) -> Any:
    spec, _, origin = _wanted(a)
    return await made(spec) if origin == "AWS_KMS" and spec.startswith("RSA_") else None


@KEY.operation(
    "CreateKey",
    asks=[
        Ask(
            "kms:CreateKey",
            anything,
            CALLER
            | {
                "kms:KeySpec": lambda asked: str(
                    asked.input.get("KeySpec") or asked.input.get("CustomerMasterKeySpec") or "SYMMETRIC_DEFAULT"
                ),
                "kms:KeyUsage": lambda asked: str(asked.input.get("KeyUsage") or "ENCRYPT_DECRYPT"),
                "kms:KeyOrigin": lambda asked: str(asked.input.get("Origin") or "AWS_KMS"),
                "kms:MultiRegion": truth("MultiRegion"),
                "kms:BypassPolicyLockoutSafetyCheck": truth("BypassPolicyLockoutSafetyCheck"),
            },
        ),
        Ask("kms:TagResource", anything, CALLER, when=lambda asked: bool(asked.input.get("Tags"))),
    ],
    before=_new,
)
def create(a: Authorised, tx: Transaction) -> Output:
    """A new key; with Origin EXTERNAL one whose material is still to be imported."""
    spec, usage, origin = _wanted(a)
    tags = _tags(a)
    key_id = str(uuid.uuid4())
    arn = KEY.arn(a.account, a.region, key_id)
    text = a.input.get("Policy")
    policy = checked_policy(a, str(text), arn) if text else default_policy(a.account)
    materials = []
    if origin == "AWS_KMS":
        new = bytes(a.staged) if a.staged is not None else specs.new_key(spec)
        materials.append(keep_material(a.engine(Safe), a.engine(RootKey), tx, arn, new))
    doc = {
        "Description": a.input.get("Description") or "",
        "Manager": "CUSTOMER",
        "Policy": policy,
        "Principals": principals.kept(tx, policy),
        "Spec": spec,
        "Usage": usage,
        "Origin": origin,
        "Materials": materials,
    }
    row = KEY.create(a, tx, key_id, doc, status="Enabled" if materials else "PendingImport", tags=tags)
    a.touched.append(arn)
    return {"KeyMetadata": told(row, a.now)}


@KEY.reads("DescribeKey", asks=[ask("DescribeKey", kms__RequestAlias=request_alias("KeyId"))])
def describe(a: Authorised, view: View) -> Output:
    """A key's metadata."""
    return {"KeyMetadata": told(named(a, view), a.now)}


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


@KEY.reads("GetKeyPolicy", asks=[ask("GetKeyPolicy")])
def get_policy(a: Authorised, view: View) -> Output:
    """The key's policy."""
    if (a.input.get("PolicyName") or "default") != "default":
        raise not_found("No such policy exists")
    doc = _here(a, view).doc
    return {"Policy": principals.shown(view, doc["Policy"], doc.get("Principals", {})), "PolicyName": "default"}


@KEY.reads("ListKeyPolicies", asks=[ask("ListKeyPolicies")])
def list_policies(a: Authorised, view: View) -> Output:
    """The one name there is."""
    _here(a, view)
    return {"PolicyNames": ["default"], "Truncated": False}


def _here(a: Authorised, view: View) -> Row:
    """A key of the caller's account that the call names: what may be done across accounts, KMS lists, whatever a key
    policy says (Developer Guide, "Allowing users in other accounts to use a KMS key")."""
    row = named(a, view)
    if row.account != a.account:
        raise Refused("AccessDeniedException", f"{a.operation.name} does not reach keys of other accounts.", 400)
    return row


def own(a: Authorised, tx: View) -> Row:
    """A customer's key that the call names; AWS's keys are not for customers to manage."""
    row = _here(a, tx)
    if row.doc["Manager"] == "AWS":
        raise Refused("AccessDeniedException", "AWS managed keys are managed by their service alone.", 400)
    return row


@KEY.operation(
    "PutKeyPolicy",
    asks=[ask("PutKeyPolicy", kms__BypassPolicyLockoutSafetyCheck=truth("BypassPolicyLockoutSafetyCheck"))],
)
def put_policy(a: Authorised, tx: Transaction) -> Output:
    """A new policy for the key."""
    row = own(a, tx)
    text = checked_policy(a, str(a.input["Policy"]), KEY.arn(row.account, row.region, row.name))
    row.doc["Policy"], row.doc["Principals"] = text, principals.kept(tx, text)
    KEY.change(tx, row, "PutKeyPolicy", a.request.id)
    return {}


def changeable(a: Authorised, row: Row, *states: str) -> Row:
    """The row again; raises KMSInvalidStateException in one of these states."""
    here = state(row, a.now)
    if here in states:
        arn = KEY.arn(row.account, row.region, row.name)
        raise Refused("KMSInvalidStateException", f"{arn} is pending {here.removeprefix('Pending').lower()}.")
    return row


def _switch(name: str, to: str) -> None:
    @KEY.operation(name, asks=[ask(name)])
    def switch(a: Authorised, tx: Transaction) -> Output:
        row = changeable(a, own(a, tx), "PendingDeletion", "PendingImport")
        if row.status != to:
            row.status = to
            KEY.change(tx, row, name, a.request.id)
        return {}


_switch("EnableKey", "Enabled")
_switch("DisableKey", "Disabled")


@KEY.operation("UpdateKeyDescription", asks=[ask("UpdateKeyDescription")])
def update_description(a: Authorised, tx: Transaction) -> Output:
    """Another description."""
    row = changeable(a, own(a, tx), "PendingDeletion")
    row.doc["Description"] = str(a.input["Description"])
    KEY.change(tx, row, "UpdateKeyDescription", a.request.id)
    return {}


def _window(asked: Asked) -> str:
    return str(asked.input.get("PendingWindowInDays") or 30)


@KEY.operation(
    "ScheduleKeyDeletion", asks=[ask("ScheduleKeyDeletion", kms__ScheduleKeyDeletionPendingWindowInDays=_window)]
)
def schedule_deletion(a: Authorised, tx: Transaction) -> Output:
    """The key cannot be used from now on; after the window its material is destroyed, and nothing under it can be read."""
    row = own(a, tx)
    arn = KEY.arn(row.account, row.region, row.name)
    days = int(a.input.get("PendingWindowInDays") or 30)
    if not 7 <= days <= 30:
        raise Refused("ValidationException", "PendingWindowInDays must be from 7 to 30.")
    changeable(a, row, "PendingDeletion")
    row.status = "PendingDeletion"
    row.doc["DeletionDate"] = a.now + days * _DAY
    KEY.change(tx, row, "ScheduleKeyDeletion", a.request.id)
    due(tx, row.doc["DeletionDate"], "delete", row)
    return {"KeyId": arn, "DeletionDate": row.doc["DeletionDate"], "KeyState": row.status, "PendingWindowInDays": days}


@KEY.operation("CancelKeyDeletion", asks=[ask("CancelKeyDeletion")])
def cancel_deletion(a: Authorised, tx: Transaction) -> Output:
    """The key stays, disabled."""
    row = own(a, tx)
    arn = KEY.arn(row.account, row.region, row.name)
    if row.status != "PendingDeletion":
        raise Refused("KMSInvalidStateException", f"{arn} is not pending deletion.")
    lacks = origin_of(row) == "EXTERNAL" and not any("wrapped" in one for one in row.doc["Materials"])
    row.status = "PendingImport" if lacks else "Disabled"
    del row.doc["DeletionDate"]
    KEY.change(tx, row, "CancelKeyDeletion", a.request.id)
    return {"KeyId": arn}


def _tags(a: Authorised) -> dict[str, str]:
    """The tags that a call brings; raises Refused (TagException)."""
    try:
        return tags_of(a, "TagException")
    except Refused as refused:
        said = "Too many tags" if "at most" in refused.message else "Tags beginning with aws: are reserved"
        raise refused if "Duplicate" in refused.message else Refused("TagException", said) from None


@KEY.operation("TagResource", asks=[ask("TagResource")])
def tag(a: Authorised, tx: Transaction) -> Output:
    """More tags."""
    row = own(a, tx)
    row.tags |= _tags(a)
    if len(row.tags) > _MOST_TAGS:
        raise Refused("LimitExceededException", f"A key may have at most {_MOST_TAGS} tags.")
    KEY.change(tx, row, "TagResource", a.request.id)
    return {}


@KEY.operation("UntagResource", asks=[ask("UntagResource")])
def untag(a: Authorised, tx: Transaction) -> Output:
    """Fewer tags."""
    row = own(a, tx)
    for name in a.input["TagKeys"]:
        row.tags.pop(str(name), None)
    KEY.change(tx, row, "UntagResource", a.request.id)
    return {}


@KEY.reads("ListResourceTags", asks=[ask("ListResourceTags")])
def list_tags(a: Authorised, view: View) -> Output:
    """The key's tags."""
    tags = [{"TagKey": one["Key"], "TagValue": one["Value"]} for one in tag_list(_here(a, view).tags)]
    return {"Tags": tags, "Truncated": False}
