"""Grants: the use of a key given to one principal, for some operations, for as long as it is needed.

A grant is in force as soon as it is made, so its token adds nothing; it is taken and checked. Source: AWS KMS API
reference, CreateGrant, ListGrants, RetireGrant, RevokeGrant; Developer Guide, "Grants in AWS KMS".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import orjson

from bastide.domain import Arn, Refused
from bastide.engines.keys.specs import SYMMETRIC
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, anything, pages
from bastide.kernel.kind import Given
from bastide.policy import GRANT_ID
from bastide.services.kms.asking import CALLER, about, encryption_context, of_key, unknown_arn
from bastide.services.kms.noun import (
    GRANT,
    GRANT_TO,
    KEY,
    find,
    granted,
    locate,
    named,
    not_found,
    spec_of,
    usable,
    usage_of,
)
from bastide.store import Row, Transaction, View

NOUN = Kind("Grant", service="kms", arn="grant/{}", tags=False)
"""Not a resource by AWS's names: what the five operations hang on."""

_NAMED: Final = "kms:GrantNamed"
"""Rows ``KEY|HASH``: the grant that was made with a name and these very parameters."""
_RETIRABLE: Final = "kms:GrantRetirable"
"""Rows ``PRINCIPAL|ACCOUNT|KEY|GRANT`` under the retiring principal's account."""
_COUNT: Final = "kms:GrantCount"
"""How many grants a key has."""
_MOST: Final = 50_000
"""Grants of one key (Developer Guide, "Resource quotas")."""
_ALWAYS: Final = ("CreateGrant", "DescribeKey", "RetireGrant")
_POSSIBLE: Final = {
    SYMMETRIC: (
        "Decrypt", "Encrypt", "GenerateDataKey", "GenerateDataKeyPair", "GenerateDataKeyPairWithoutPlaintext",
        "GenerateDataKeyWithoutPlaintext", "ReEncryptFrom", "ReEncryptTo",
    ),
    "ENCRYPT_DECRYPT": ("Decrypt", "Encrypt", "GetPublicKey", "ReEncryptFrom", "ReEncryptTo"),
    "SIGN_VERIFY": ("GetPublicKey", "Sign", "Verify"),
    "GENERATE_VERIFY_MAC": ("GenerateMac", "VerifyMac"),
}  # fmt: skip
"""What a grant can hold, by the key's spec or usage (Developer Guide, "Grants in AWS KMS", grant operations)."""
_PRINCIPAL: Final = re.compile(
    r"arn:aws:(iam::[0-9]{12}:(root|(user|role)/[\w+=,.@/-]+)"
    r"|sts::[0-9]{12}:(assumed-role/[\w+=,.@-]+/[\w+=,.@-]+|federated-user/[\w+=,.@-]+))",
    re.ASCII,
)
_SERVICE: Final = re.compile(r"[a-z0-9][a-z0-9.-]*\.amazonaws\.com")
_ACCOUNT: Final = re.compile(r"[0-9]{12}")
_EXAMINED: Final = 1000


def _invalid(message: str) -> Refused:
    return Refused("ValidationException", message)


# -- tokens ----------------------------------------------------------------------------------------------------------


def _token(row: Row) -> str:
    """Where the grant is, and a proof that the token came from here."""
    told = [row.account, row.region, row.name, row.doc["proof"]]
    return base64.urlsafe_b64encode(orjson.dumps(told)).decode()


def _by_token(view: View, token: str) -> Row | None:
    try:
        account, region, name, proof = orjson.loads(base64.urlsafe_b64decode(token))
        row = view.get(GRANT, str(account), str(region), str(name))
    except (ValueError, TypeError):
        return None
    return row if row is not None and hmac.compare_digest(str(row.doc["proof"]), str(proof)) else None


def _bad_token() -> Refused:
    return Refused("InvalidGrantTokenException", "The grant token is not valid, or its grant is gone.")


def check_tokens(a: Authorised, view: View) -> None:
    """Raises Refused (InvalidGrantTokenException) for a token that is none."""
    for token in a.input.get("GrantTokens") or ():
        if _by_token(view, str(token)) is None:
            raise _bad_token()


# -- making ----------------------------------------------------------------------------------------------------------


def _principal(a: Authorised, view: View, member: str) -> tuple[str, str]:
    """A principal that the call names, by ARN or as a service, and the unique id it has now; empty without one.

    Raises Refused for what is no principal, and for a user or role that is not there."""
    arn, service = a.input.get(f"{member}Principal"), a.input.get(f"{member}ServicePrincipal")
    if arn and service:
        raise _invalid(f"Specify either {member}Principal or {member}ServicePrincipal, not both.")
    if service:
        if not _SERVICE.fullmatch(service):
            raise _invalid(f"{member}ServicePrincipal is not a service principal.")
        return str(service), ""
    if not arn:
        return "", ""
    if _ACCOUNT.fullmatch(arn):
        return f"arn:aws:iam::{arn}:root", ""
    if arn.endswith(".amazonaws.com") and _SERVICE.fullmatch(arn):
        return str(arn), ""
    if not _PRINCIPAL.fullmatch(arn):
        raise unknown_arn(arn)
    found = Arn.parse(arn)
    if found.type not in ("user", "role", "assumed-role"):
        return str(arn), ""
    kind = "iam:User" if found.type == "user" else "iam:Role"
    name = found.name.partition("/")[0] if found.type == "assumed-role" else found.name.rpartition("/")[2]
    row = view.get(kind, found.account, "", name.lower())
    if row is None or (found.type != "assumed-role" and row.doc["Arn"] != arn):
        raise unknown_arn(arn)
    return str(arn), str(row.doc["UserId" if kind == "iam:User" else "RoleId"])


_CONTEXTS: Final = ("EncryptionContextEquals", "EncryptionContextSubset")


def _constraints(a: Authorised) -> dict[str, Any]:
    given = {key: value for key, value in (a.input.get("Constraints") or {}).items() if value}
    if all(one in given for one in _CONTEXTS):
        raise _invalid("A grant has either EncryptionContextEquals or EncryptionContextSubset, not both.")
    for one in _CONTEXTS:
        pairs = given.get(one, {})
        if len(pairs) > 8 or any(len(value) > 384 for value in pairs.values()):
            raise _invalid(f"{one} takes up to 8 pairs, their values up to 384 characters.")
    return given


def _wanted(a: Authorised, view: View, key: Row) -> dict[str, Any]:
    """The parameters of a grant, checked."""
    operations = list(dict.fromkeys(a.input["Operations"]))
    possible = _POSSIBLE[SYMMETRIC if spec_of(key) == SYMMETRIC else usage_of(key)]
    wrong = [one for one in operations if one not in possible and one not in _ALWAYS]
    if not operations or wrong:
        raise _invalid(f"Operations {wrong} are not supported by grants of this key ({spec_of(key)}, {usage_of(key)}).")
    grantee, grantee_id = _principal(a, view, "Grantee")
    retiring, retiring_id = _principal(a, view, "Retiring")
    if not grantee:
        raise _invalid("Specify GranteePrincipal or GranteeServicePrincipal.")
    constraints = _constraints(a)
    if a.input.get("GranteeServicePrincipal") and not (constraints.get("SourceArn") and retiring):
        raise _invalid("A grant to a service needs the constraint SourceArn and a retiring principal.")
    bound = any(one in constraints for one in _CONTEXTS)
    if bound and spec_of(key) != SYMMETRIC:
        raise _invalid("Encryption context constraints are for symmetric encryption keys.")
    if bound and all(one in ("DescribeKey", "RetireGrant") for one in operations):
        raise _invalid("An encryption context constraint needs an operation that takes an encryption context.")
    return {
        "Name": a.input.get("Name") or "",
        "GranteePrincipal": grantee,
        "RetiringPrincipal": retiring,
        "IssuingAccount": f"arn:aws:iam::{a.account}:root",
        "Operations": operations,
        "Constraints": constraints,
        "ids": {arn: id for arn, id in ((grantee, grantee_id), (retiring, retiring_id)) if id},
    }


def _given(read: Callable[[dict[str, Any]], Any]) -> Given:
    return lambda asked: read(asked.input) or None


def _child_context(asked: Asked) -> Mapping[str, Any] | None:
    """The encryption context that the grant will be bound to: what may be asked of it in policies, and in the grant
    that allows to make this one."""
    given = asked.input.get("Constraints") or {}
    return given.get("EncryptionContextEquals") or given.get("EncryptionContextSubset")


def _constraint_types(given: dict[str, Any]) -> list[str]:
    return [one for one, value in (given.get("Constraints") or {}).items() if value]


def _for_service(asked: Asked) -> str:
    return "true" if asked.call.request.via or asked.call.caller.kind == "Service" else "false"


_FOR_SERVICE: Final[dict[str, Given]] = {"kms:GrantIsForAWSResource": _for_service}


def _either(member: str) -> Given:
    return _given(lambda given: given.get(f"{member}Principal") or given.get(f"{member}ServicePrincipal"))


@NOUN.operation(
    "CreateGrant",
    asks=[
        Ask(
            "kms:CreateGrant",
            about(),
            of_key(about())
            | _FOR_SERVICE
            | {
                "kms:GrantOperations": _given(lambda given: given.get("Operations")),
                "kms:GranteePrincipal": _either("Grantee"),
                "kms:RetiringPrincipal": _either("Retiring"),
                "kms:GrantConstraintType": _given(_constraint_types),
            },
            more=encryption_context(_child_context),
        )
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    """A grant on a key, in force at once; with a Name, the grant that the same call made before."""
    key = usable(a, named(a, tx))
    check_tokens(a, tx)
    doc = _wanted(a, tx, key)
    digest = hashlib.sha256(orjson.dumps(doc, option=orjson.OPT_SORT_KEYS)).hexdigest()
    same = tx.get(_NAMED, key.account, key.region, f"{key.name}|{digest}") if doc["Name"] else None
    if same is not None:
        row = tx.get(GRANT, key.account, key.region, f"{key.name}|{same.doc['id']}")
        if row is not None:
            return {"GrantId": same.doc["id"], "GrantToken": _token(row)}
    id = secrets.token_hex(32)
    doc |= {"id": id, "proof": secrets.token_urlsafe(24), "digest": digest, "at": a.now}
    row = Row(GRANT, key.account, key.region, f"{key.name}|{id}", doc)
    try:
        granted(row).document()
    except Refused as refused:
        raise _invalid(refused.message) from None
    if a.input.get("DryRun"):
        raise _dry()
    _count(tx, key, 1)
    tx.insert(row, event=a.operation.name, request_id=a.request.id)
    for name in _links(row):
        tx.insert(Row(GRANT_TO, key.account, key.region, name, {}), keep=False)
    if doc["Name"]:
        tx.insert(Row(_NAMED, key.account, key.region, f"{key.name}|{digest}", {"id": id}), keep=False)
    if doc["RetiringPrincipal"]:
        tx.insert(_retirable(row), keep=False)
    a.touched.append(KEY.arn(key.account, key.region, key.name))
    return {"GrantId": id, "GrantToken": _token(row)}


def _dry() -> Refused:
    return Refused("DryRunOperationException", "The request would have succeeded, but the DryRun option is set.")


def _links(row: Row) -> list[str]:
    key, _, id = row.name.partition("|")
    principals = dict.fromkeys((row.doc["GranteePrincipal"], row.doc["RetiringPrincipal"]))
    return [f"{key}|{one}|{id}" for one in principals if one]


def _retirable(row: Row) -> Row:
    principal = row.doc["RetiringPrincipal"]
    account = principal.split(":")[4] if principal.startswith("arn:") else row.account
    return Row(_RETIRABLE, account, row.region, f"{principal}|{row.account}|{row.name}", {})


def _count(tx: Transaction, key: Row, more: int) -> None:
    held = tx.get(_COUNT, key.account, key.region, key.name)
    if held is None:
        tx.insert(Row(_COUNT, key.account, key.region, key.name, {"grants": more}), keep=False)
        return
    if more > 0 and held.doc["grants"] >= _MOST:
        raise Refused("LimitExceededException", f"A key may have at most {_MOST} grants.")
    held.doc["grants"] += more
    tx.update(held, keep=False)


# -- ending ----------------------------------------------------------------------------------------------------------


def _end(a: Authorised, tx: Transaction, row: Row) -> Output:
    key = find(tx, row.account, row.region, row.name.partition("|")[0])
    if a.input.get("DryRun"):
        raise _dry()
    _drop(tx, row, a.operation.name, a.request.id)
    _count(tx, key, -1)
    return {}


def end_all(tx: Transaction, key: Row) -> None:
    """Ends the grants of a key that is deleted."""
    while rows := tx.scan(GRANT, key.account, key.region, prefix=f"{key.name}|", limit=500):
        for row in rows:
            _drop(tx, row, "DeleteKey", "")
    held = tx.get(_COUNT, key.account, key.region, key.name)
    if held is not None:
        tx.delete(held, keep=False)


def _drop(tx: Transaction, row: Row, event: str, request_id: str) -> None:
    key_id = row.name.partition("|")[0]
    gone = [(GRANT_TO, row.account, name) for name in _links(row)]
    if row.doc["Name"]:
        gone.append((_NAMED, row.account, f"{key_id}|{row.doc['digest']}"))
    if row.doc["RetiringPrincipal"]:
        listed = _retirable(row)
        gone.append((_RETIRABLE, listed.account, listed.name))
    for kind, account, name in gone:
        link = tx.get(kind, account, row.region, name)
        if link is not None and link.doc.get("id", row.doc["id"]) == row.doc["id"]:
            tx.delete(link, keep=False)
    tx.delete(row, event=event, request_id=request_id)


def _no_grant(id: str) -> Refused:
    return Refused("NotFoundException", f"Grant ID {id[:128]} was not found.")


@NOUN.operation("RevokeGrant", asks=[Ask("kms:RevokeGrant", about(), of_key(about()) | _FOR_SERVICE)])
def revoke(a: Authorised, tx: Transaction) -> Output:
    """Ends a grant that its grantee may still need."""
    key = named(a, tx)
    row = tx.get(GRANT, key.account, key.region, f"{key.name}|{a.input['GrantId']}")
    if row is None:
        raise _no_grant(str(a.input["GrantId"]))
    return _end(a, tx, row)


def _retiring(asked: Asked) -> Row | None:
    """The grant that a RetireGrant is about."""
    given = asked.input
    if given.get("GrantToken"):
        return _by_token(asked.view, str(given["GrantToken"]))
    if given.get("KeyId") and given.get("GrantId"):
        account, region, key = locate(asked.view, str(given["KeyId"]), asked.call.account, asked.call.region)
        return asked.view.get(GRANT, account, region, f"{key}|{given['GrantId']}")
    return None


def _retired_key(asked: Asked) -> Iterable[str]:
    row = _retiring(asked)
    if row is not None:
        return (KEY.arn(row.account, row.region, row.name.partition("|")[0]),)
    return about()(asked) or ("*",)


def _grant_id(asked: Asked) -> str | None:
    row = _retiring(asked)
    return None if row is None else str(row.doc["id"])


@NOUN.operation(
    "RetireGrant", asks=[Ask("kms:RetireGrant", _retired_key, of_key(_retired_key) | {GRANT_ID: _grant_id})]
)
def retire(a: Authorised, tx: Transaction) -> Output:
    """Ends a grant that is needed no more: for its retiring principal, its grantee if it was let, and whom the key's
    account lets."""
    given = a.input
    if bool(given.get("GrantToken")) == bool(given.get("KeyId") or given.get("GrantId")):
        raise _invalid("Specify either a grant token, or a key and a grant ID.")
    row = _retiring(Asked(a.call, tx))
    if row is None:
        if given.get("GrantToken"):
            raise _bad_token()
        if not given.get("GrantId") or not given.get("KeyId"):
            raise _invalid("Specify both a key and a grant ID.")
        raise _no_grant(str(given["GrantId"]))
    return _end(a, tx, row)


# -- listing ---------------------------------------------------------------------------------------------------------


def _shown(row: Row) -> Output:
    doc = row.doc
    shown: Output = {
        "KeyId": KEY.arn(row.account, row.region, row.name.partition("|")[0]),
        "GrantId": doc["id"],
        "CreationDate": doc["at"],
        "IssuingAccount": doc["IssuingAccount"],
        "Operations": doc["Operations"],
    }
    for member in ("Name", "Constraints", "GranteePrincipal", "RetiringPrincipal"):
        if doc[member]:
            shown[member] = doc[member]
    for member in ("Grantee", "Retiring"):
        if _SERVICE.fullmatch(doc[f"{member}Principal"]):
            shown[f"{member}ServicePrincipal"] = doc[f"{member}Principal"]
    return shown


def _page(
    a: Authorised,
    scan: Callable[[str | None, int], list[Row]],
    show: Callable[[Row], Row | None],
    wanted: Callable[[Row], bool] = lambda row: True,
) -> Output:
    limit = int(a.input.get("Limit") or 50)
    after = pages.position(a, a.input.get("Marker"), code="InvalidMarkerException")
    found: list[Output] = []
    examined = 0
    while True:
        rows = scan(after, limit + 1)
        for one in rows:
            if len(found) == limit or examined >= _EXAMINED:
                return {"Grants": found, "Truncated": True, "NextMarker": pages.seal(a, after)}
            after = one.name
            examined += 1
            row = show(one)
            if row is not None and wanted(row):
                found.append(_shown(row))
        if len(rows) <= limit:
            return {"Grants": found, "Truncated": False}


@NOUN.reads("ListGrants", asks=[Ask("kms:ListGrants", about(), of_key(about()) | _FOR_SERVICE)])
def list_grants(a: Authorised, view: View) -> Output:
    """The grants of a key, of one grantee or by one id if wanted."""
    key = named(a, view)
    id = a.input.get("GrantId")
    if id:
        row = view.get(GRANT, key.account, key.region, f"{key.name}|{id}")
        if row is None:
            raise Refused("InvalidGrantIdException", f"Grant ID {str(id)[:128]} is not valid.")
        return {"Grants": [_shown(row)], "Truncated": False}
    grantee = a.input.get("GranteePrincipal") or a.input.get("GranteeServicePrincipal")
    if not grantee:
        return _page(
            a,
            lambda after, limit: view.scan(
                GRANT, key.account, key.region, prefix=f"{key.name}|", after=after, limit=limit
            ),
            lambda row: row,
        )
    if _ACCOUNT.fullmatch(grantee):
        grantee = f"arn:aws:iam::{grantee}:root"
    prefix = f"{key.name}|{grantee}|"
    return _page(
        a,
        lambda after, limit: view.scan(GRANT_TO, key.account, key.region, prefix=prefix, after=after, limit=limit),
        lambda one: view.get(GRANT, key.account, key.region, f"{key.name}|{one.name.rpartition('|')[2]}"),
        lambda row: row.doc["GranteePrincipal"] == grantee,
    )


@NOUN.reads("ListRetirableGrants", asks=[Ask("kms:ListRetirableGrants", anything, CALLER)])
def list_retirable(a: Authorised, view: View) -> Output:
    """The grants, of keys of any account, that a principal of the caller's account may retire."""
    principal = a.input.get("RetiringPrincipal") or a.input.get("RetiringServicePrincipal")
    if not principal:
        raise _invalid("Specify RetiringPrincipal or RetiringServicePrincipal.")
    if _ACCOUNT.fullmatch(principal):
        principal = f"arn:aws:iam::{principal}:root"
    if not _PRINCIPAL.fullmatch(principal) and not _SERVICE.fullmatch(principal):
        raise unknown_arn(principal)
    if principal.startswith("arn:") and principal.split(":")[4] != a.account:
        raise not_found("The retiring principal is in another account.")

    def grant(one: Row) -> Row | None:
        _, account, key, id = one.name.split("|")
        return view.get(GRANT, account, one.region, f"{key}|{id}")

    return _page(
        a,
        lambda after, limit: view.scan(
            _RETIRABLE, a.account, a.region, prefix=f"{principal}|", after=after, limit=limit
        ),
        grant,
    )
