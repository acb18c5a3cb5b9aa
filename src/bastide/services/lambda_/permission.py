"""Policies of functions and of layers' versions, a statement at a time.

A policy is of the function, of one version or of one alias; an event that names a version asks that version's alone.
Source: AWS Lambda API Reference, AddPermission, AddLayerVersionPermission; Lambda Developer Guide, "Viewing resource-based
IAM policies in Lambda".
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final

from bastide.domain import Arn, Refused
from bastide.kernel import Ask, Asked, Authorised, Output, each, principals
from bastide.policy import Document, Form
from bastide.services.lambda_.noun import (
    FUNCTION,
    LATEST,
    LAYER_VERSION,
    alias_row,
    find,
    invalid,
    is_number,
    matches,
    missing,
    named,
    this_qualified,
    version_key,
    version_row,
)
from bastide.store import Row, Transaction, View

_LONGEST: Final = 20_480
_ACTION: Final = re.compile(r"lambda:[*]|lambda:[a-zA-Z]+|[*]")
_ACCOUNT: Final = re.compile(r"[0-9]{12}")
_SERVICE: Final = re.compile(r"[a-z0-9.-]+\.amazonaws\.com")


def _principal(given: str) -> Any:
    if given == "*":
        return "*"
    if _ACCOUNT.fullmatch(given):
        return {"AWS": f"arn:aws:iam::{given}:root"}
    if _SERVICE.fullmatch(given):
        return {"Service": given}
    try:
        if Arn.parse(given).service in ("iam", "sts"):
            return {"AWS": given}
    except ValueError:
        pass
    raise invalid("The provided principal was invalid. Please check the principal and try again.")


def _added(tx: Transaction, held: Mapping[str, Any] | None, statement: dict[str, Any]) -> dict[str, Any]:
    """A policy with another statement; raises Refused."""
    document: dict[str, Any] = (
        json.loads(held["text"]) if held else {"Version": "2012-10-17", "Id": "default", "Statement": []}
    )
    if any(one["Sid"] == statement["Sid"] for one in document["Statement"]):
        raise Refused(
            "ResourceConflictException",
            f"The statement id ({statement['Sid']}) provided already exists. Please provide a new statement id, or remove "
            "the existing statement.",
            409,
        )
    document["Statement"].append(statement)
    return _kept(tx, document)


def _kept(tx: Transaction, document: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(document)
    if len(text.encode()) > _LONGEST:
        raise Refused("PolicyLengthExceededException", f"The final policy size is bigger than the limit ({_LONGEST}).")
    try:
        Document.parse(text, Form.RESOURCE, max_bytes=_LONGEST)
    except Refused as refused:
        raise invalid(f"The permission is not valid: {refused.message}") from None
    return {"text": text, "principals": principals.kept(tx, text), "revision": str(uuid.uuid4())}


def _removed(tx: Transaction, held: Mapping[str, Any] | None, sid: str, where: str) -> dict[str, Any] | None:
    """A policy without a statement, None if nothing is left; raises ResourceNotFoundException."""
    document = json.loads(held["text"]) if held else {"Statement": []}
    left = [one for one in document["Statement"] if one["Sid"] != sid]
    if len(left) == len(document["Statement"]):
        raise Refused("ResourceNotFoundException", f"Statement {sid} is not found in resource policy of {where}.", 404)
    return _kept(tx, {**document, "Statement": left}) if left else None


def _shown(view: View, held: Mapping[str, Any] | None) -> Output:
    if not held:
        raise Refused("ResourceNotFoundException", "The resource you requested does not exist.", 404)
    return {"Policy": principals.shown(view, held["text"], held["principals"]), "RevisionId": held["revision"]}


# -- of functions --------------------------------------------------------------------------------------------------------


def _of_function(a: Authorised, view: View) -> tuple[Row, str, str]:
    """The function, the qualifier that a policy is kept under, and the ARN that it is about."""
    what = named(a)
    row, wanted = find(view, what), what.qualifier
    if wanted == LATEST:
        raise invalid("We currently do not support adding policies for $LATEST.")
    if wanted and (version_row if is_number(wanted) else alias_row)(view, what, wanted) is None:
        raise missing(what.arn)
    return row, wanted, what.arn


def _changed(a: Authorised, tx: Transaction, row: Row, qualifier: str, held: dict[str, Any] | None) -> None:
    policies = row.doc.setdefault("_policies", {})
    if held is None:
        policies.pop(qualifier, None)
    else:
        policies[qualifier] = held
    FUNCTION.change(tx, row, a.operation.name, a.request.id)


@FUNCTION.operation(
    "AddPermission",
    asks=[
        Ask(
            "lambda:AddPermission",
            this_qualified,
            given={
                "lambda:Principal": each("Principal"),
                "lambda:FunctionUrlAuthType": each("FunctionUrlAuthType"),
            },
        )
    ],
)
def add(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    for member in ("FunctionUrlAuthType", "InvokedViaFunctionUrl", "EventSourceToken"):
        if given.get(member):
            raise invalid(f"{member} is not supported by Bastide: there are neither function URLs nor Alexa.")
    row, qualifier, arn = _of_function(a, tx)
    held = (row.doc.get("_policies") or {}).get(qualifier)
    if given.get("RevisionId"):
        matches(given["RevisionId"], held["revision"] if held else row.doc["RevisionId"])
    if not _ACTION.fullmatch(str(given["Action"])):
        raise invalid("Action is lambda:* or one action of Lambda.")
    statement: dict[str, Any] = {
        "Sid": given["StatementId"],
        "Effect": "Allow",
        "Principal": _principal(str(given["Principal"])),
        "Action": given["Action"],
        "Resource": arn,
    }
    equals: dict[str, str] = {}
    if given.get("SourceAccount"):
        equals["AWS:SourceAccount"] = given["SourceAccount"]
    if given.get("PrincipalOrgID"):
        equals["aws:PrincipalOrgID"] = given["PrincipalOrgID"]
    condition: dict[str, Any] = {}
    if equals:
        condition["StringEquals"] = equals
    if given.get("SourceArn"):
        condition["ArnLike"] = {"AWS:SourceArn": given["SourceArn"]}
    if condition:
        statement["Condition"] = condition
    _changed(a, tx, row, qualifier, _added(tx, held, statement))
    return {"Statement": json.dumps(statement)}


def _told_principal(asked: Asked) -> str | None:
    """Whom the statement that is to go names."""
    found = list(this_qualified(asked))
    arn = Arn.parse(found[0])
    name, _, qualifier = arn.resource.removeprefix("function:").partition(":")
    row = FUNCTION.get(asked.view, arn.account, arn.region, name)
    held = (row.doc.get("_policies") or {}).get(qualifier) if row is not None else None
    for one in json.loads(held["text"])["Statement"] if held else ():
        if one["Sid"] == asked.input["StatementId"]:
            who = one["Principal"]
            return str(who if isinstance(who, str) else next(iter(who.values())))
    return None


@FUNCTION.operation(
    "RemovePermission",
    asks=[Ask("lambda:RemovePermission", this_qualified, given={"lambda:Principal": _told_principal})],
)
def remove(a: Authorised, tx: Transaction) -> Output:
    row, qualifier, arn = _of_function(a, tx)
    held = (row.doc.get("_policies") or {}).get(qualifier)
    if held and a.input.get("RevisionId"):
        matches(a.input["RevisionId"], held["revision"])
    _changed(a, tx, row, qualifier, _removed(tx, held, str(a.input["StatementId"]), arn))
    return {}


@FUNCTION.reads("GetPolicy", asks=[Ask("lambda:GetPolicy", this_qualified)])
def get(a: Authorised, view: View) -> Output:
    row, qualifier, _ = _of_function(a, view)
    return _shown(view, (row.doc.get("_policies") or {}).get(qualifier))


# -- of layers' versions ---------------------------------------------------------------------------------------------------

_LAYER: Final = re.compile(r"(?:arn:aws:lambda:[a-z0-9-]+:[0-9]{12}:layer:)?[a-zA-Z0-9_-]{1,140}")


def layer_name(given: str, account: str, region: str) -> tuple[str, str]:
    """Account and name of a layer that is named by name or ARN; raises Refused."""
    if not _LAYER.fullmatch(given):
        raise invalid(f"`{given[:200]}` is neither the name nor the ARN of a layer.")
    if not given.startswith("arn:"):
        return account, given
    arn = Arn.parse(given)
    if arn.region != region:
        raise Refused("ResourceNotFoundException", "The resource you requested does not exist.", 404)
    return arn.account, arn.resource.removeprefix("layer:")


def layer_version_arn(account: str, region: str, name: str, number: Any) -> str:
    """The ARN of a layer's version."""
    return f"arn:aws:lambda:{region}:{account}:layer:{name}:{int(number)}"


def this_version(asked: Asked) -> Iterable[str]:
    """The ARN of the layer's version that a call names."""
    account, name = layer_name(str(asked.input["LayerName"]), asked.call.account, asked.call.region)
    return (layer_version_arn(account, asked.call.region, name, asked.input["VersionNumber"]),)


def version_of(a: Authorised, view: View) -> Row:
    """The layer's version that a call names; raises ResourceNotFoundException."""
    account, name = layer_name(str(a.input["LayerName"]), a.account, a.region)
    row = view.get(LAYER_VERSION, account, a.region, version_key(name, str(a.input["VersionNumber"])))
    if row is None:
        raise Refused("ResourceNotFoundException", "The resource you requested does not exist.", 404)
    return row


@FUNCTION.operation("AddLayerVersionPermission", asks=[Ask("lambda:AddLayerVersionPermission", this_version)])
def add_to_layer(a: Authorised, tx: Transaction) -> Output:
    given, row = a.input, version_of(a, tx)
    held = row.doc.get("_policy")
    if given.get("RevisionId"):
        matches(given["RevisionId"], held["revision"] if held else "")
    if given["Action"] != "lambda:GetLayerVersion":
        raise invalid("Action of a layer version's permission is lambda:GetLayerVersion.")
    name, _, number = row.name.partition(":")
    statement: dict[str, Any] = {
        "Sid": given["StatementId"],
        "Effect": "Allow",
        "Principal": _principal(str(given["Principal"])),
        "Action": given["Action"],
        "Resource": layer_version_arn(row.account, row.region, name, number),
    }
    if given.get("OrganizationId"):
        if given["Principal"] != "*":
            raise invalid("OrganizationId belongs to the principal *.")
        statement["Condition"] = {"StringEquals": {"aws:PrincipalOrgID": given["OrganizationId"]}}
    row.doc["_policy"] = _added(tx, held, statement)
    tx.update(row, keep=False)
    return {"Statement": json.dumps(statement), "RevisionId": row.doc["_policy"]["revision"]}


@FUNCTION.operation("RemoveLayerVersionPermission", asks=[Ask("lambda:RemoveLayerVersionPermission", this_version)])
def remove_from_layer(a: Authorised, tx: Transaction) -> Output:
    row = version_of(a, tx)
    held = row.doc.get("_policy")
    if held and a.input.get("RevisionId"):
        matches(a.input["RevisionId"], held["revision"])
    row.doc["_policy"] = _removed(tx, held, str(a.input["StatementId"]), row.name)
    tx.update(row, keep=False)
    return {}


@FUNCTION.reads("GetLayerVersionPolicy", asks=[Ask("lambda:GetLayerVersionPolicy", this_version)])
def get_of_layer(a: Authorised, view: View) -> Output:
    return _shown(view, version_of(a, view).doc.get("_policy"))
