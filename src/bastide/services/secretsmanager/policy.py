"""Policies of secrets."""

from __future__ import annotations

from typing import Any, Final

from bastide import policy
from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Output, principals
from bastide.policy import Attached, Document, Form, Layers, Principal
from bastide.services.secretsmanager.secret import GIVEN, SECRET, about, arn, named, save
from bastide.store import Transaction, View

_LONGEST: Final = 20_480
_ROLE: Final = "arn:aws:iam::000000000000:role/nobody-knows"
_STRANGER: Final = Principal("Role", "000000000000", _ROLE, _ROLE)
_ALL: Final = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
_EVERYTHING: Final = Attached(Document.parse(_ALL, Form.IDENTITY), "whatever a stranger's own policies say")
_BROAD: Final = "The resource policy grants broad access to the secret."


def _parsed(text: str) -> Document:
    try:
        return Document.parse(text, Form.RESOURCE, max_bytes=_LONGEST)
    except Refused as refused:
        raise Refused(
            "MalformedPolicyDocumentException",
            f"This resource policy contains invalid Json or syntax: {refused.message}",
        ) from None


def broad(document: Document, where: str) -> bool:
    """Whether some account that nobody heard of could read the secret."""
    asked = policy.Request(_STRANGER, "secretsmanager:GetSecretValue", where, where.split(":")[4], {})
    return policy.decide(asked, Layers((_EVERYTHING,), None, None, Attached(document, where), (), ())).allowed


def _public(asked: Asked) -> str:
    return "true" if asked.input.get("BlockPublicPolicy") else "false"


@SECRET.operation(
    "PutResourcePolicy",
    asks=[Ask("secretsmanager:PutResourcePolicy", about, given={**GIVEN, "secretsmanager:BlockPublicPolicy": _public})],
)
def put(a: Authorised, tx: Transaction) -> Output:
    row = named(a, tx)
    document = _parsed(str(a.input["ResourcePolicy"]))
    if a.input.get("BlockPublicPolicy") and broad(document, arn(row)):
        raise Refused("PublicPolicyException", _BROAD)
    text = str(a.input["ResourcePolicy"])
    row.doc["policy"], row.doc["principals"] = text, principals.kept(tx, text)
    save(a, tx, row)
    return {"ARN": arn(row), "Name": row.name}


@SECRET.reads("GetResourcePolicy", asks=[Ask("secretsmanager:GetResourcePolicy", about, given=GIVEN)])
def get(a: Authorised, view: View) -> Output:
    row = named(a, view, deleted=True)
    output: Output = {"ARN": arn(row), "Name": row.name}
    if row.doc.get("policy"):
        output["ResourcePolicy"] = principals.shown(view, row.doc["policy"], row.doc.get("principals", {}))
    return output


@SECRET.operation("DeleteResourcePolicy", asks=[Ask("secretsmanager:DeleteResourcePolicy", about, given=GIVEN)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = named(a, tx)
    if row.doc.pop("policy", None) is not None:
        save(a, tx, row)
    return {"ARN": arn(row), "Name": row.name}


def _maybe(asked: Asked) -> Any:
    return about(asked) if asked.input.get("SecretId") else ("*",)


@SECRET.reads("ValidateResourcePolicy", asks=[Ask("secretsmanager:ValidateResourcePolicy", _maybe)])
def validate(a: Authorised, view: View) -> Output:
    where = (
        arn(named(a, view))
        if a.input.get("SecretId")
        else f"arn:aws:secretsmanager:{a.region}:{a.account}:secret:any-AbCdEf"
    )
    document = _parsed(str(a.input["ResourcePolicy"]))
    errors = []
    if broad(document, where):
        errors.append(
            {"CheckName": "PublicAccess", "ErrorMessage": "The resource policy grants broad access to the secret."}
        )
    return {"PolicyValidationPassed": not errors, "ValidationErrors": errors}
