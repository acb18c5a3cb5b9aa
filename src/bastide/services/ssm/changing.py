"""PutParameter and DeleteParameter(s)."""

from __future__ import annotations

import calendar
import datetime
import json
import time
from typing import Any, Final

from bastide.domain import MICROS, Instant, Refused
from bastide.kernel import Ask, Asked, Authorised, Output
from bastide.protocol.patterns import strangers
from bastide.services.ssm.parameter import (
    PARAMETER,
    VERSION,
    arn,
    expired,
    found,
    key_for,
    located,
    new_name,
    not_found,
    remove,
    sealed,
    these,
    this,
    told,
    version_name,
)
from bastide.services.ssm.tags import new_tags
from bastide.store import Row, Transaction

_STANDARD: Final = 4096
_ADVANCED: Final = 8192
_MOST_VERSIONS: Final = 100
_MOST_POLICIES: Final = 10
_KEPT: Final = ("Description", "AllowedPattern", "KeyId")


def _flag(member: str) -> Any:
    return lambda asked: "true" if asked.input.get(member) else "false"


def _exists_and_tags(asked: Asked) -> bool:
    return bool(asked.input.get("Tags"))


@PARAMETER.operation(
    "PutParameter",
    asks=[
        Ask(
            "ssm:PutParameter",
            this,
            given={
                "ssm:Overwrite": _flag("Overwrite"),
                "ssm:DataType": lambda asked: str(asked.input.get("DataType") or "text"),
                "ssm:Policies": lambda asked: "true" if asked.input.get("Policies") else "false",
            },
        ),
        Ask("ssm:AddTagsToResource", this, when=_exists_and_tags),
    ],
)
def put(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    account, region, name, selector = located(a, given["Name"])
    if selector:
        raise Refused("ValidationException", "A parameter is written without a version or a label.")
    if account != a.account:
        raise Refused("ValidationException", "A parameter can only be written in its own account.")
    row = tx.get(PARAMETER.key, account, region, name)
    if row is not None and expired(row, a.now):
        remove(a, tx, row)
        row = None
    if row is None:
        return _create(a, tx, new_name(name))
    if not given.get("Overwrite"):
        raise Refused(
            "ParameterAlreadyExists",
            "The parameter already exists. To overwrite this value, set the overwrite option in the request to true.",
        )
    if given.get("Tags"):
        raise Refused(
            "ValidationException",
            "Invalid request: tags and overwrite can't be used together. To create a parameter with tags, please remove "
            "overwrite flag. To update tags for an existing parameter, please use AddTagsToResource or "
            "RemoveTagsFromResource.",
        )
    return _overwrite(a, tx, row)


def _create(a: Authorised, tx: Transaction, name: str) -> Output:
    if not a.input.get("Type"):
        raise Refused("ValidationException", "A parameter type is required when you create a parameter.")
    doc = _version(a, tx, name, {}, 1)
    doc["labels"] = {}
    told(tx, PARAMETER.create(a, tx, name, doc, tags=new_tags(a)), "Create")
    return {"Version": 1, "Tier": doc["Tier"]}


def _overwrite(a: Authorised, tx: Transaction, row: Row) -> Output:
    before = row.doc
    if (
        a.input.get("Type")
        and a.input["Type"] != before["Type"]
        and "SecureString" in (a.input["Type"], before["Type"])
    ):
        raise Refused(
            "HierarchyTypeMismatchException",
            "Parameter Store doesn't support changing a parameter type in a hierarchy. For example, you can't change a "
            "parameter from a String type to a SecureString type. You must create a new, unique parameter.",
        )
    doc = _version(a, tx, row.name, before, before["Version"] + 1)
    labels = doc["labels"] = before["labels"]
    _make_room(tx, row, set(labels.values()))
    earlier = {key: value for key, value in before.items() if key != "labels"}
    tx.insert(Row(VERSION, row.account, row.region, version_name(row.name, before["Version"]), earlier), keep=False)
    row.doc = doc
    row.modified = a.now
    PARAMETER.change(tx, row, a.operation.name, a.request.id)
    told(tx, row, "Update")
    return {"Version": doc["Version"], "Tier": doc["Tier"]}


def _make_room(tx: Transaction, row: Row, labelled: set[int]) -> None:
    """The oldest version makes room for the hundred and first, unless it has a label."""
    earlier = tx.scan(VERSION, row.account, row.region, prefix=f"{row.name}:", limit=_MOST_VERSIONS)
    if len(earlier) < _MOST_VERSIONS - 1:
        return
    if earlier[0].doc["Version"] in labelled:
        raise Refused(
            "ParameterMaxVersionLimitExceeded",
            f"You attempted to create a new version of {row.name} by calling the PutParameter API with the overwrite "
            f"flag. Version {earlier[0].doc['Version']}, the oldest version, can't be deleted because it has a label "
            "associated with it. Move the label to another version of the parameter, and try again.",
        )
    tx.delete(earlier[0], keep=False)


def _version(a: Authorised, tx: Transaction, name: str, before: dict[str, Any], number: int) -> dict[str, Any]:
    given = a.input
    value = str(given["Value"])
    kind = given.get("Type") or before["Type"]
    doc: dict[str, Any] = {"Type": kind, "Version": number, "at": a.now, "by": a.caller.arn}
    for member in _KEPT:
        if given.get(member) is not None or before.get(member):
            doc[member] = given.get(member) if given.get(member) is not None else before[member]
    doc["DataType"] = given.get("DataType") or before.get("DataType") or "text"
    if doc["DataType"] != "text":
        raise Refused("ValidationException", f"The data type {doc['DataType']} is not supported by Bastide yet.")
    texts = given.get("Policies")
    policies = _policies(texts, a.now) if texts is not None else before.get("Policies", [])
    doc["Tier"] = _tier(a, value, policies, before)
    if policies:
        doc["Policies"] = policies
        expires = [one["at"] for one in policies if one["PolicyType"] == "Expiration"]
        if expires:
            doc["expires"] = expires[0]
    _fits(value, doc.get("AllowedPattern"), str(kind))
    if kind == "SecureString":
        doc |= sealed(a, tx, arn(a.account, a.region, name), value, key_for(doc.get("KeyId")))
    else:
        if given.get("KeyId"):
            raise Refused("ValidationException", "KeyId is only for parameters of the type SecureString.")
        doc.pop("KeyId", None)
        doc["Value"] = value
    return doc


def _fits(value: str, pattern: str | None, kind: str) -> None:
    if kind == "StringList" and any(not part for part in value.split(",")):
        raise Refused("ValidationException", "A StringList is items separated by commas, none of them empty.")
    if not pattern:
        return
    matches = strangers(pattern)
    if matches is None:
        raise Refused(
            "InvalidAllowedPatternException", f"The allowed pattern {pattern} is not a valid regular expression."
        )
    if not matches(value):
        raise Refused(
            "ParameterPatternMismatchException",
            f"Parameter value, cannot be validated against allowedPattern: {pattern}",
        )


def _tier(a: Authorised, value: str, policies: list[Output], before: dict[str, Any]) -> str:
    wanted = str(a.input.get("Tier") or before.get("Tier") or "Standard")
    size = len(value.encode())
    needs = bool(policies) or size > _STANDARD
    if wanted == "Intelligent-Tiering":
        wanted = "Advanced" if needs or before.get("Tier") == "Advanced" else "Standard"
    if wanted == "Standard":
        if before.get("Tier") == "Advanced":
            raise Refused(
                "ValidationException",
                "This parameter uses the advanced-parameter tier. You can't downgrade a parameter from the "
                "advanced-parameter tier to the standard-parameter tier.",
            )
        if policies:
            raise Refused("ValidationException", "Policies are supported on advanced parameters only.")
        if size > _STANDARD:
            raise Refused(
                "ValidationException",
                f"Standard tier parameters support a maximum parameter value of {_STANDARD} characters. To create a larger "
                "parameter value, upgrade the parameter to use the advanced-parameter tier.",
            )
    if size > _ADVANCED:
        raise Refused(
            "ValidationException",
            f"Advanced tier parameters support a maximum parameter value of {_ADVANCED} characters.",
        )
    return wanted


# -- policies ----------------------------------------------------------------------------------------------------------


def _policies(text: str, now: Instant) -> list[dict[str, Any]]:
    """Parameter policies as they are kept; raises Refused. Source: User Guide, "Assigning parameter policies"."""
    if not text.strip() or text.strip() == "{}":
        return []
    try:
        listed = json.loads(text)
    except (ValueError, RecursionError):
        listed = None
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise Refused("InvalidPolicyAttributeException", "Policies is a JSON list of policies.")
    if len(listed) > _MOST_POLICIES:
        raise Refused("PoliciesLimitExceededException", f"A parameter may have {_MOST_POLICIES} policies at most.")
    kept: list[dict[str, Any]] = []
    for one in listed:
        kind, attributes = one.get("Type"), one.get("Attributes")
        if kind not in ("Expiration", "ExpirationNotification", "NoChangeNotification"):
            raise Refused("InvalidPolicyTypeException", f"The policy type {str(kind)[:100]} is not supported.")
        if one.get("Version") != "1.0" or not isinstance(attributes, dict):
            raise Refused("InvalidPolicyAttributeException", f"A policy {kind} has Version 1.0 and Attributes.")
        if kind != "Expiration":
            raise Refused("InvalidPolicyTypeException", f"{kind} policies are not supported by Bastide yet.")
        kept.append(
            {
                "PolicyType": kind,
                "PolicyText": json.dumps(one),
                "PolicyStatus": "Pending",
                "at": _moment(attributes.get("Timestamp"), now),
            }
        )
    if len(kept) > 1:
        raise Refused("IncompatiblePolicyException", "A parameter has one expiration.")
    return kept


def _moment(text: object, now: Instant) -> Instant:
    try:
        moment = datetime.datetime.fromisoformat(str(text))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise Refused("InvalidPolicyAttributeException", "Timestamp is a moment such as 2027-12-02T21:34:33.000Z.")
    at = calendar.timegm(moment.astimezone(datetime.UTC).timetuple()) * MICROS
    if at <= now:
        raise Refused(
            "InvalidPolicyAttributeException", f"Timestamp {time.strftime('%FT%TZ', moment.utctimetuple())} is past."
        )
    return at


# -- away --------------------------------------------------------------------------------------------------------------


@PARAMETER.operation("DeleteParameter", asks=[Ask("ssm:DeleteParameter", this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row, selector = found(a, tx, a.input["Name"])
    if selector or row.account != a.account:
        raise not_found()
    remove(a, tx, row)
    return {}


@PARAMETER.operation("DeleteParameters", asks=[Ask("ssm:DeleteParameters", these)])
def delete_several(a: Authorised, tx: Transaction) -> Output:
    gone: list[str] = []
    invalid: list[str] = []
    for name in dict.fromkeys(a.input["Names"]):
        try:
            row, selector = found(a, tx, name)
        except Refused:
            invalid.append(name)
            continue
        if selector or row.account != a.account:
            invalid.append(name)
            continue
        remove(a, tx, row)
        gone.append(name)
    return {"DeletedParameters": gone, "InvalidParameters": invalid}
