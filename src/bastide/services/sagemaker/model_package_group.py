"""Model package groups, and the policies that open them to other accounts."""

from __future__ import annotations

from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Kind, Output, principals, regular, tags_of
from bastide.policy import Attached, Document, Form
from bastide.services.sagemaker.asking import tagging, unsupported
from bastide.store import Row, Transaction, View

PACKAGE_KEY: Final = "sagemaker:ModelPackage"

MODEL_PACKAGE_GROUP = Kind(
    "ModelPackageGroup",
    service="sagemaker",
    arn="model-package-group/{}",
    missing=("ValidationException", "ModelPackageGroup {arn} does not exist.", 400),
    taken=("ValidationException", "Model Package Group already exists: {arn}", 400),
)


def policy_of(row: Row | None) -> Attached | None:
    """The group's policy, which holds for its versions too."""
    if row is None or "_policy" not in row.doc:
        return None
    arn = MODEL_PACKAGE_GROUP.arn(row.account, row.region, row.name)
    return Attached(Document.parse_cached(row.doc["_policy"], Form.RESOURCE), f"policy of {arn}")


MODEL_PACKAGE_GROUP.policy_of = lambda _, row: policy_of(row)


def who(a: Authorised) -> dict[str, Any]:
    """CreatedBy and LastModifiedBy."""
    identity = {"Arn": a.caller.arn, "PrincipalId": a.caller.user_id}
    if a.caller.session is not None and a.caller.session.source_identity:
        identity["SourceIdentity"] = a.caller.session.source_identity
    return {"IamIdentity": identity}


@MODEL_PACKAGE_GROUP.operation(
    "CreateModelPackageGroup",
    asks=[
        Ask("sagemaker:CreateModelPackageGroup", MODEL_PACKAGE_GROUP.this),
        tagging(MODEL_PACKAGE_GROUP, "CreateModelPackageGroup"),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    unsupported(a, "ManagedConfiguration")
    name = a.input["ModelPackageGroupName"]
    doc = {
        "ModelPackageGroupDescription": a.input.get("ModelPackageGroupDescription"),
        "CreatedBy": who(a),
        "_versions": 0,
    }
    MODEL_PACKAGE_GROUP.create(
        a, tx, name, {k: v for k, v in doc.items() if v is not None}, status="Completed", tags=tags_of(a)
    )
    return {"ModelPackageGroupArn": MODEL_PACKAGE_GROUP.arn(a.account, a.region, name)}


regular(MODEL_PACKAGE_GROUP, "Describe", "List")


@MODEL_PACKAGE_GROUP.operation(
    "DeleteModelPackageGroup", asks=[Ask("sagemaker:DeleteModelPackageGroup", MODEL_PACKAGE_GROUP.this)]
)
def delete(a: Authorised, tx: Transaction) -> Output:
    row = MODEL_PACKAGE_GROUP.named(a, tx)
    if tx.scan(PACKAGE_KEY, row.account, row.region, prefix=f"{row.name}/", limit=1):
        raise Refused(
            "ConflictException", f"The model package group {row.name} holds model packages. Please delete them first."
        )
    MODEL_PACKAGE_GROUP.remove(tx, row, a.operation.name, a.request.id)
    return {}


@MODEL_PACKAGE_GROUP.operation(
    "PutModelPackageGroupPolicy", asks=[Ask("sagemaker:PutModelPackageGroupPolicy", MODEL_PACKAGE_GROUP.this)]
)
def put_policy(a: Authorised, tx: Transaction) -> Output:
    row = MODEL_PACKAGE_GROUP.named(a, tx)
    text = a.input["ResourcePolicy"]
    try:
        Document.parse(text, Form.RESOURCE, max_bytes=20480)
    except Refused as refused:
        raise Refused("ValidationException", f"The resource policy is not valid: {refused.message}") from None
    row.doc["_policy"], row.doc["_principals"] = text, principals.kept(tx, text)
    MODEL_PACKAGE_GROUP.change(tx, row, a.operation.name, a.request.id)
    return {"ModelPackageGroupArn": MODEL_PACKAGE_GROUP.arn(row.account, row.region, row.name)}


def _policy(row: Row) -> str:
    if "_policy" not in row.doc:
        raise Refused("ValidationException", f"Cannot find resource policy for: {row.name}")
    return str(row.doc["_policy"])


@MODEL_PACKAGE_GROUP.reads(
    "GetModelPackageGroupPolicy", asks=[Ask("sagemaker:GetModelPackageGroupPolicy", MODEL_PACKAGE_GROUP.this)]
)
def get_policy(a: Authorised, view: View) -> Output:
    row = MODEL_PACKAGE_GROUP.named(a, view)
    return {"ResourcePolicy": principals.shown(view, _policy(row), row.doc.get("_principals", {}))}


@MODEL_PACKAGE_GROUP.operation(
    "DeleteModelPackageGroupPolicy", asks=[Ask("sagemaker:DeleteModelPackageGroupPolicy", MODEL_PACKAGE_GROUP.this)]
)
def delete_policy(a: Authorised, tx: Transaction) -> Output:
    row = MODEL_PACKAGE_GROUP.named(a, tx)
    _policy(row)
    del row.doc["_policy"]
    MODEL_PACKAGE_GROUP.change(tx, row, a.operation.name, a.request.id)
    return {}
