"""Secrets: names, ARNs, making, deleting and restoring them.

An ARN ends in six characters of its own (``secret:NAME-AbCdEf``), so that a policy about a secret does not hold for
another that is made later under the same name. The row is named by the secret's name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import MICROS, Arn, Refused, Tags, tag_list, tag_map
from bastide.kernel import Ask, Asked, Authorised, Facts, Kind, Output, Request
from bastide.kernel.kind import each
from bastide.policy import Attached, Document, Form
from bastide.services.secretsmanager import sealing
from bastide.store import Row, Transaction, View

SECRET = Kind("Secret", service="secretsmanager", arn="secret:{}", named_by="SecretId")
_NAME: Final = re.compile(r"[A-Za-z0-9/_+=.@!-]{1,512}")
_SUFFIX: Final = re.compile(r"(.+)-[A-Za-z0-9]{6}", re.DOTALL)
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_DAY: Final = 24 * 3600 * MICROS
_MOST_TAGS: Final = 50
CURRENT: Final = "AWSCURRENT"
PREVIOUS: Final = "AWSPREVIOUS"
PENDING: Final = "AWSPENDING"


def invalid(message: str) -> Refused:
    """InvalidParameterException."""
    return Refused("InvalidParameterException", message)


def bad_request(message: str) -> Refused:
    """InvalidRequestException: the secret is not in a state for it."""
    return Refused("InvalidRequestException", message)


def not_found() -> Refused:
    """ResourceNotFoundException."""
    return Refused("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")


def legal(name: str) -> None:
    """Raises Refused (ValidationException) for what no secret can be called."""
    if not _NAME.fullmatch(name):
        raise Refused(
            "ValidationException",
            "Invalid name. Must be a valid name containing alphanumeric characters, or any of the following: -/_+=.@!",
        )


def arn(row: Row) -> str:
    """A secret's ARN."""
    return str(row.doc["arn"])


def suffix(request: Request, name: str) -> str:
    """The six characters of a new secret's ARN: the same while one request is asked and carried out."""
    number = int.from_bytes(hashlib.sha256(f"{request.id}/{name}".encode()).digest()[:8])
    letters = []
    for _ in range(6):
        number, one = divmod(number, len(_LETTERS))
        letters.append(_LETTERS[one])
    return "".join(letters)


# -- finding -----------------------------------------------------------------------------------------------------------


def _at(view: View, given: str, account: str, region: str) -> tuple[Row | None, str, str, str]:
    """The row that a name, an ARN or an ARN without its last six characters means, or None; and what was named."""
    if not given.startswith("arn:"):
        legal(given)
        return view.get(SECRET.key, account, region, given), account, region, given
    try:
        where = Arn.parse(given)
    except ValueError:
        raise invalid("Invalid ARN.") from None
    if where.service != "secretsmanager" or where.type != "secret" or not where.account:
        raise invalid("Invalid ARN.")
    name = where.resource.removeprefix("secret:")
    whole = _SUFFIX.fullmatch(name)
    if whole is not None:
        row = view.get(SECRET.key, where.account, where.region, whole.group(1))
        if row is not None and row.doc["arn"] == given:
            return row, where.account, where.region, whole.group(1)
    row = view.get(SECRET.key, where.account, where.region, name)
    if row is not None and row.doc["arn"][:-7] != given:
        row = None
    return row, where.account, where.region, name


def about(asked: Asked) -> Iterable[str]:
    """The ARN of the secret that the call names; of one that is not there, what its ARN would begin with."""
    return (named_arn(asked, str(asked.input["SecretId"])),)


def named_arn(asked: Asked, given: str) -> str:
    """The whole ARN of what a caller names."""
    try:
        row, account, region, name = _at(asked.view, given, asked.call.account, asked.call.region)
    except Refused:
        return "*"  # it names nothing: only who may do this to every secret learns more
    return arn(row) if row is not None else f"arn:aws:secretsmanager:{region}:{account}:secret:{name}"


def find(a: Authorised, view: View, given: str, *, deleted: bool = False) -> Row:
    """The secret; raises ResourceNotFoundException, InvalidRequestException for one that is marked deleted."""
    row, _, _, _ = _at(view, given, a.account, a.region)
    if row is None or gone(row, a.now):
        raise not_found()
    if row.doc.get("deletes") and not deleted:
        raise bad_request("You can't perform this operation on the secret because it was marked for deletion.")
    return row


def named(a: Authorised, view: View, *, deleted: bool = False) -> Row:
    """The secret that the call names."""
    return find(a, view, str(a.input["SecretId"]), deleted=deleted)


def gone(row: Row, now: int) -> bool:
    """Whether the recovery window is past."""
    at = row.doc.get("deletes")
    return at is not None and at <= now


def facts(view: View, where: Arn, action: str) -> Facts | None:
    """Whose a secret is, its tags and its policy."""
    if where.type != "secret":
        return None
    row, account, _, _ = _at(view, str(where), where.account, where.region)
    if row is None:
        return Facts(account, type="Secret")
    text = row.doc.get("policy") or ""
    policy = Attached(Document.parse_cached(text, Form.RESOURCE), f"policy of {arn(row)}") if text else None
    return Facts(account, row.tags, policy, type="Secret", text=text, principals=row.doc.get("principals", {}))


GIVEN: Final[dict[str, Any]] = {
    "secretsmanager:SecretId": lambda asked: named_arn(asked, str(asked.input["SecretId"])),
    # Secrets have no replicas: the region that is asked is the first.
    "secretsmanager:SecretPrimaryRegion": lambda asked: asked.call.region,
}


# -- making ------------------------------------------------------------------------------------------------------------


def _made(asked: Asked) -> Iterable[str]:
    name = str(asked.input["Name"])
    where = f"arn:aws:secretsmanager:{asked.call.region}:{asked.call.account}:secret:{name}"
    return (f"{where}-{suffix(asked.call.request, name)}",)


def tags_of(a: Authorised, before: Tags) -> Tags:
    """Tags with those that the call brings; raises InvalidParameterException."""
    tags = {**before, **tag_map(a.input.get("Tags"), code="InvalidParameterException")}
    if len(tags) > _MOST_TAGS:
        raise invalid(f"A secret may have {_MOST_TAGS} tags at most.")
    return tags


def _not_there(a: Authorised) -> None:
    for member in ("AddReplicaRegions", "ForceOverwriteReplicaSecret", "Type", "CrossAccountPrimaryARN"):
        if a.input.get(member):
            raise invalid(f"{member} is not supported by Bastide yet.")


@SECRET.operation(
    "CreateSecret",
    asks=[
        Ask(
            "secretsmanager:CreateSecret",
            _made,
            given={
                "secretsmanager:Name": each("Name"),
                "secretsmanager:Description": each("Description"),
                "secretsmanager:KmsKeyId": each("KmsKeyId"),
                "secretsmanager:KmsKeyArn": lambda asked: sealing.key_arn(asked, asked.input.get("KmsKeyId")),
            },
        ),
        Ask("secretsmanager:TagResource", _made, when=lambda asked: bool(asked.input.get("Tags"))),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    _not_there(a)
    name = str(a.input["Name"])
    legal(name)
    before = tx.get(SECRET.key, a.account, a.region, name)
    if before is not None and gone(before, a.now):
        destroy(a, tx, before)
        before = None
    if before is not None:
        return _again(a, tx, before)
    where = f"arn:aws:secretsmanager:{a.region}:{a.account}:secret:{name}-{suffix(a.request, name)}"
    doc: dict[str, Any] = {
        "arn": where,
        "Description": a.input.get("Description") or "",
        "KmsKeyId": a.input.get("KmsKeyId") or "",
        "changed": a.now,
        "versions": {},
    }
    output: Output = {"ARN": where, "Name": name}
    content = sealing.content(a)
    if content is not None:
        id = sealing.version_id(a)
        doc["versions"][id] = {"stages": [CURRENT], **sealing.sealed(a, tx, where, doc["KmsKeyId"], id, content)}
        output["VersionId"] = id
    SECRET.create(a, tx, name, doc, tags=tags_of(a, {}))
    a.touched.append(where)
    return output


def _again(a: Authorised, tx: Transaction, row: Row) -> Output:
    """The same request once more is answered as before; another one finds the name taken."""
    if row.doc.get("deletes"):
        raise bad_request(
            "You can't create this secret because a secret with this name is already scheduled for deletion."
        )
    token, content = a.input.get("ClientRequestToken"), sealing.content(a)
    held = row.doc["versions"].get(token)
    if content is not None and held is not None and sealing.opened(a, tx, arn(row), str(token), held) == content:
        return {"ARN": arn(row), "Name": row.name, "VersionId": token}
    raise Refused("ResourceExistsException", f"The operation failed because the secret {row.name} already exists.")


@SECRET.operation(
    "UpdateSecret",
    asks=[
        Ask(
            "secretsmanager:UpdateSecret",
            about,
            given={
                **GIVEN,
                "secretsmanager:Description": each("Description"),
                "secretsmanager:KmsKeyId": each("KmsKeyId"),
                "secretsmanager:KmsKeyArn": lambda asked: sealing.key_arn(asked, asked.input.get("KmsKeyId")),
            },
        )
    ],
)
def update(a: Authorised, tx: Transaction) -> Output:
    _not_there(a)
    row = named(a, tx)
    if a.input.get("Description") is not None:
        row.doc["Description"] = a.input["Description"]
    if a.input.get("KmsKeyId") is not None:
        row.doc["KmsKeyId"] = a.input["KmsKeyId"]
    output: Output = {"ARN": arn(row), "Name": row.name}
    content = sealing.content(a)
    if content is not None:
        output["VersionId"] = sealing.add(a, tx, row, content, [CURRENT])
    save(a, tx, row)
    return output


def save(a: Authorised, tx: Transaction, row: Row) -> None:
    """Writes a changed secret."""
    row.doc["changed"] = row.modified = a.now
    SECRET.change(tx, row, a.operation.name, a.request.id)


# -- away and back -----------------------------------------------------------------------------------------------------


@SECRET.operation(
    "DeleteSecret",
    asks=[
        Ask(
            "secretsmanager:DeleteSecret",
            about,
            given={
                **GIVEN,
                "secretsmanager:RecoveryWindowInDays": each("RecoveryWindowInDays"),
                "secretsmanager:ForceDeleteWithoutRecovery": lambda asked: (
                    "true" if asked.input.get("ForceDeleteWithoutRecovery") else "false"
                ),
            },
        )
    ],
)
def delete(a: Authorised, tx: Transaction) -> Output:
    days = a.input.get("RecoveryWindowInDays")
    force = bool(a.input.get("ForceDeleteWithoutRecovery"))
    if force and days is not None:
        raise invalid("You can't use ForceDeleteWithoutRecovery in conjunction with RecoveryWindowInDays.")
    if days is not None and not 7 <= int(days) <= 30:
        raise invalid("RecoveryWindowInDays value must be between 7 and 30 days (inclusive).")
    if force:
        absent = _forced(a, tx)
        if absent is not None:
            return absent
    row = named(a, tx, deleted=force)
    output: Output = {"ARN": arn(row), "Name": row.name}
    if force:
        destroy(a, tx, row)
        return {**output, "DeletionDate": a.now}
    row.doc["deleted"] = a.now
    row.doc["deletes"] = a.now + int(days or 30) * _DAY
    save(a, tx, row)
    return {**output, "DeletionDate": row.doc["deletes"]}


def _forced(a: Authorised, tx: Transaction) -> Output | None:
    """What is answered for a secret that is not there, which a forced deletion takes for deleted; None if it is."""
    given = str(a.input["SecretId"])
    row, account, region, name = _at(tx, given, a.account, a.region)
    if row is not None and not gone(row, a.now):
        return None
    where = f"arn:aws:secretsmanager:{region}:{account}:secret:{name}-{suffix(a.request, name)}"
    return {"ARN": where, "Name": name, "DeletionDate": a.now}


def destroy(a: Authorised, tx: Transaction, row: Row) -> None:
    """Takes a secret away. Its history keeps ciphertexts only, which the key's end makes unreadable."""
    SECRET.remove(tx, row, a.operation.name, a.request.id)


@SECRET.operation("RestoreSecret", asks=[Ask("secretsmanager:RestoreSecret", about, given=GIVEN)])
def restore(a: Authorised, tx: Transaction) -> Output:
    row = named(a, tx, deleted=True)
    row.doc.pop("deleted", None)
    row.doc.pop("deletes", None)
    save(a, tx, row)
    return {"ARN": arn(row), "Name": row.name}


# -- tags --------------------------------------------------------------------------------------------------------------


@SECRET.operation("TagResource", asks=[Ask("secretsmanager:TagResource", about, given=GIVEN)])
def tag(a: Authorised, tx: Transaction) -> Output:
    row = named(a, tx)
    row.tags = tags_of(a, row.tags)
    save(a, tx, row)
    return {}


@SECRET.operation("UntagResource", asks=[Ask("secretsmanager:UntagResource", about, given=GIVEN)])
def untag(a: Authorised, tx: Transaction) -> Output:
    row = named(a, tx)
    row.doc["tagged"] = bool(row.tags) or row.doc.get("tagged", False)
    row.tags = {key: value for key, value in row.tags.items() if key not in a.input["TagKeys"]}
    save(a, tx, row)
    return {}


def described(row: Row) -> Output:
    """What DescribeSecret and ListSecrets share."""
    doc = row.doc
    told: Output = {
        "ARN": doc["arn"],
        "Name": row.name,
        "LastChangedDate": doc["changed"],
        "CreatedDate": row.created,
    }
    if row.tags or doc.get("tagged"):
        told["Tags"] = tag_list(row.tags)
    for member in ("Description", "KmsKeyId"):
        if doc[member]:
            told[member] = doc[member]
    if doc.get("deleted"):
        told["DeletedDate"] = doc["deleted"]
    return told
